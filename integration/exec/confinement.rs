//! `/proc`, `/dev`, `/sys`, the filter, other processes, the program itself.

use super::{Canary, Step};
use crate::support::rootfs::Rootfs;
use crate::support::runtime;
use rbuild::exec::{ExecError, Stage};
use rbuild::llb::ops::{NetMode, SecurityMode};

#[test]
fn e1_the_first_program_cannot_be_written() {
    let rootfs = Rootfs::new();
    let before = std::fs::metadata(crate::support::build::binary()).expect("metadata");
    rootfs.write("bin/trap", "#!/proc/self/exe\n");
    Step::new(&rootfs, "chmod 755 /bin/trap").output();
    // The trap makes the step start the first program again, which lacks its loader if it is not static, and otherwise takes the trap
    // for a context.
    match Step::new(&rootfs, "").args(&["/bin/trap"]).try_run() {
        Ok(ran) if runtime::is_built_in() => {
            let refused = ran.output.starts_with("error: the context \"/bin/trap\" is not a directory");
            assert!(ran.output.is_empty() || refused, "{}", ran.output);
        }
        // Container runtimes say in the step's log that the loader is not there.
        Ok(ran) => assert!(ran.output.is_empty() || ran.output.contains("/bin/trap"), "{}", ran.output),
        Err(ExecError::Setup { stage, .. }) => assert_eq!(stage, Stage::Program),
        Err(error) => panic!("{error:?}"),
    }
    let script = "for i in $(seq 200); do (echo x >> /proc/1/exe) 2>/dev/null && echo written; done; exit 0";
    Step::new(&rootfs, script).output();
    let after = std::fs::metadata(crate::support::build::binary()).expect("metadata");
    assert_eq!(before.modified().expect("time"), after.modified().expect("time"));
    assert_eq!(before.len(), after.len());
}

#[test]
fn e8_a_link_in_the_place_of_proc_is_an_error() {
    let canary = Canary::new();
    for (name, to) in [("proc", canary.path()), ("proc", "tmp"), ("sys", "/"), ("dev", canary.path())] {
        let rootfs = Rootfs::new();
        rootfs.link(name, to);
        match Step::new(&rootfs, "true").try_run() {
            Err(ExecError::Setup { stage: Stage::Stubs, message }) => assert!(message.contains(name), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    canary.assert_untouched();
    let rootfs = Rootfs::new();
    assert_eq!(Step::new(&rootfs, "stat -f -c %T /proc").output(), "proc\n");
}

#[test]
fn e9_masked_files_are_null_and_sysctls_are_readonly() {
    let rootfs = Rootfs::new();
    std::fs::create_dir(rootfs.path("dev")).expect("mkdir");
    rootfs.link("dev/null", "/proc/sys/kernel/core_pattern");
    let script = "for f in kcore keys timer_list interrupts sched_debug latency_stats timer_stats; do \
                  [ -e /proc/$f ] && stat -c %t:%T /proc/$f; done; stat -c %t:%T /dev/null";
    assert!(Step::new(&rootfs, script).output().lines().all(|line| line == "1:3"));
    let script = "for d in acpi scsi asound; do ls -A /proc/$d 2>/dev/null; done; \
                  for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/x /proc/sys/kernel/hostname; do \
                  (echo x > $f) 2>/dev/null && echo written $f; done; \
                  find /proc/sys /proc/bus /proc/fs /proc/irq -type f | while read f; do (: >> $f) 2>/dev/null && echo open $f; done; true";
    assert_eq!(Step::new(&rootfs, script).output(), "");
}

#[test]
fn e10_dev_is_a_fresh_tmpfs() {
    let canary = Canary::new();
    let rootfs = Rootfs::new();
    std::fs::create_dir(rootfs.path("dev")).expect("mkdir");
    rootfs.link("dev/pts", canary.path());
    rootfs.link("dev/console", &format!("{}/f", canary.path()));
    let script = "ls /dev | tr '\\n' ' '; grep ' /dev ' /proc/self/mountinfo | grep -c nosuid,nodev,noexec; \
                  stat -c %a /dev/shm; stat -c %t:%T /dev/zero /dev/full /dev/random /dev/urandom /dev/tty | tr '\\n' ' '; \
                  head -c 2 /dev/zero | wc -c; echo x > /dev/null; for l in ptmx fd core; do readlink /dev/$l; done";
    let expected = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 1\n1777\n\
                    1:5 1:7 1:8 1:9 5:0 2\npts/ptmx\n/proc/self/fd\n/proc/kcore\n";
    assert_eq!(Step::new(&rootfs, script).output(), expected);
    canary.assert_untouched();
    assert_eq!(std::fs::read_dir(rootfs.path("dev")).expect("read").count(), 2);
}

#[test]
fn e12_privileges_need_an_entitlement() {
    let rootfs = Rootfs::new();
    let step = Step::new(&rootfs, "true").with(|spec| spec.network = NetMode::Host);
    match step.try_run() {
        Err(ExecError::Entitlement { entitlement }) => assert_eq!(entitlement, "network.host"),
        other => panic!("{other:?}"),
    }
    let step =
        Step::new(&rootfs, "grep ^Seccomp: /proc/self/status").with(|spec| spec.security = SecurityMode::Insecure);
    assert_eq!(step.output(), "Seccomp:\t0\n");
}

#[test]
fn e13_the_filter_is_on_and_refuses_namespaces_and_mounts() {
    let rootfs = Rootfs::new();
    let script = "grep ^Seccomp: /proc/self/status | tr -d '\\n'; for c in 'unshare -m true' 'unshare -U true' \
                  'mount -t tmpfs x /tmp' 'umount /proc' 'mount -o remount,rw,bind /proc/sys' 'hostname x'; do \
                  $c 2>/dev/null && echo $c; done; true";
    assert_eq!(Step::new(&rootfs, script).output(), "Seccomp:\t2");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn e13_the_kernel_answers_as_the_table_says() {
    let rootfs = Rootfs::new();
    // Not from the checkout: this user may not be allowed to enter it.
    let source = rootfs.path("probe.c");
    std::fs::write(&source, include_str!("probe.c")).unwrap();
    let program = rootfs.path("bin/probe");
    let built = std::process::Command::new("cc").args(["-static", "-O1", "-o"]).args([&program, &source]).output();
    let built = built.expect("a C compiler is installed");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    // crun answers what is beyond the profile as what the profile refuses.
    let beyond = if runtime::name().as_deref() == Some("crun") { -1 } else { -38 };
    let expected = "socket alg -1 -1\nsocket vsock -1 -1\nclone newuser -1\nclone3 -38\nunshare -1\nkeyctl -1\n\
                    io_uring_setup -1\nbpf -1\nx32 getpid -38\nbeyond -38\ngetpid 1\ni386 unshare -1\n\
                    i386 socket alg -1\ni386 mount -1\ni386 beyond -38\n";
    let expected = expected.replace("beyond -38", &format!("beyond {beyond}"));
    assert_eq!(Step::new(&rootfs, "").args(&["/bin/probe"]).output(), expected);
}

#[test]
fn e14_cgroups_cannot_be_written() {
    let rootfs = Rootfs::new();
    let script = "(find /sys/fs /sys/kernel -type f; find /sys -maxdepth 4 -type f) 2>/dev/null | head -n 2000 | while read f; do \
                  (: >> $f) 2>/dev/null && echo $f; done; mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; true";
    assert_eq!(Step::new(&rootfs, script).output(), "");
}

#[test]
fn e15_without_network_there_is_only_a_loopback_that_works() {
    let rootfs = Rootfs::new();
    let script =
        "ip -o link | cut -d: -f2 | tr -d ' \\n'; ip -o link show lo | grep -c LOOPBACK,UP; cat /etc/resolv.conf";
    let step = Step::new(&rootfs, script).with(|spec| spec.network = NetMode::None);
    let output = step.output();
    assert!(output.starts_with("lo1\n"), "{output}");
    assert!(!output.contains("127."), "{output}");
}

#[test]
fn e15_without_network_the_hosts_loopback_is_not_reached() {
    let rootfs = Rootfs::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let script = format!("nc -w 1 127.0.0.1 {port} < /dev/null > /dev/null 2>&1 && echo reached || echo refused");
    for (network, expected) in [(NetMode::None, "refused\n"), (NetMode::Unset, "reached\n")] {
        let step = Step::new(&rootfs, &format!("timeout 2 {script}")).with(|spec| spec.network = network);
        std::thread::scope(|scope| {
            if network == NetMode::Unset {
                scope.spawn(|| drop(listener.accept()));
            }
            assert_eq!(step.output(), expected, "{network:?}");
        });
    }
}

#[test]
fn e18_trojans_in_the_image_are_not_run() {
    let (rootfs, canary) = (Rootfs::new(), Canary::new());
    for name in ["newuidmap", "mount", "git", "xz"] {
        let path = rootfs.path("bin").join(name);
        let _missing = std::fs::remove_file(&path);
        std::fs::write(&path, format!("#!/bin/sh\ntouch {}/run /run-$0\n", canary.path())).expect("write");
    }
    rootfs.write("etc/nsswitch.conf", "passwd: evil\n");
    rootfs.write("etc/ld.so.preload", "/evil.so\n");
    assert_eq!(Step::new(&rootfs, "id -u").user("u").cwd("/w/new").output(), "1000\n");
    canary.assert_untouched();
    assert!(
        std::fs::read_dir(rootfs.path(""))
            .expect("read")
            .all(|entry| { !entry.expect("entry").file_name().to_string_lossy().starts_with("run-") })
    );
}

#[test]
fn e19_no_process_of_the_host_is_seen() {
    let rootfs = Rootfs::new();
    let output = Step::new(&rootfs, "set -- /proc/[0-9]*; echo $*; kill -0 2 2>/dev/null || echo none").output();
    assert_eq!(output, "/proc/1\nnone\n");
}

#[test]
fn the_machine_has_the_names_of_the_sandbox() {
    let rootfs = Rootfs::new();
    let step = Step::new(
        &rootfs,
        "hostname; cat /etc/hosts; stat -f -c %T /etc/hosts; (echo x >> /etc/hosts) 2>&1 | grep -c Read-only",
    );
    let step = step.with(|spec| spec.extra_hosts.push(("db".into(), "10.0.0.9".into())));
    let expected = "buildkitsandbox\n127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                    10.0.0.9\tdb\ntmpfs\n1\n";
    assert_eq!(step.output(), expected);
}
