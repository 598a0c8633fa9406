//! The mounts of a step, and what is left of them.

use std::os::unix::fs::{MetadataExt, symlink};

use super::{Canary, Step, secret};
use crate::support::rootfs::{Rootfs, detached};
use rbuild::exec::{ExecError, MountSource, Stage};
use rbuild::sys::{fds, mount};

fn tmpfs() -> MountSource {
    MountSource::Tmpfs { size: 0 }
}

/// A tree of its own with a file and a directory.
fn source() -> tempfile::TempDir {
    let temp = tempfile::tempdir().expect("temp dir");
    std::fs::create_dir(temp.path().join("d")).expect("mkdir");
    std::fs::write(temp.path().join("d/f"), "content").expect("write");
    temp
}

fn tree(temp: &tempfile::TempDir, selector: &str) -> MountSource {
    MountSource::Tree { tree: detached(temp.path()), selector: selector.to_owned() }
}

fn host_dir(temp: &tempfile::TempDir, selector: &str) -> MountSource {
    let dir = rbuild::sys::dir::Dir::open(temp.path()).expect("open").into();
    MountSource::HostDir { dir, selector: selector.to_owned() }
}

#[test]
fn m1_targets_stay_in_the_root_while_a_step_swaps_them() {
    let (rootfs, canary, shared) = (Rootfs::new(), Canary::new(), source());
    std::fs::create_dir(shared.path().join("a")).expect("mkdir");
    symlink("/", shared.path().join("b")).expect("symlink");
    let racer = Rootfs::new();
    let before = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").lines().count();
    std::thread::scope(|scope| {
        let script = "i=0; while [ $i -lt 300 ]; do mv /m/a /m/c; mv /m/b /m/a; mv /m/a /m/b; mv /m/c /m/a; i=$((i+1)); done 2>/dev/null; true";
        let swapping = Step::new(&racer, script).mount("/m", false, host_dir(&shared, ""));
        scope.spawn(move || swapping.output());
        for _ in 0..40 {
            let step = Step::new(&rootfs, "true").mount("/m", false, host_dir(&shared, ""));
            let target = format!("/m/a{}/x", canary.path());
            let _either = step.mount(&target, false, tmpfs()).try_run();
        }
    });
    canary.assert_untouched();
    let after = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").lines().count();
    assert_eq!(before, after);
}

#[test]
fn m2_sources_are_resolved_inside_their_tree() {
    let (rootfs, canary, shared) = (Rootfs::new(), Canary::new(), source());
    for (name, to) in [("root", "/"), ("up", "../../.."), ("magic", "/proc/self/root"), ("gone", "/nowhere")] {
        symlink(to, shared.path().join(name)).expect("symlink");
    }
    for make in [tree, host_dir] {
        for (selector, works) in [
            ("d", true),
            ("/root/d", true),
            ("up/d", true),
            ("../../d", true),
            ("magic", false),
            ("gone", false),
            (&format!("root{}", canary.path()), false),
        ] {
            let result = Step::new(&rootfs, "cat /m/f").mount("/m", true, make(&shared, selector)).try_run();
            match result {
                Ok(ran) => assert!(works && ran.output == "content", "{selector}: {ran:?}"),
                Err(error) => assert!(!works, "{selector}: {error:?}"),
            }
        }
    }
    let step = Step::new(&rootfs, "cat /m").mount("/m", true, tree(&shared, "d/f"));
    assert_eq!(step.output(), "content");
}

#[test]
fn m3_mount_points_are_gone_after_the_step_and_parents_keep_their_times() {
    let rootfs = Rootfs::new();
    let before = std::fs::metadata(rootfs.path("etc")).expect("stat");
    let step = Step::new(&rootfs, "ls -d /x/y /s/t /etc/hosts >/dev/null").mount("/x/y", false, tmpfs());
    let ran = step.mount("/s/t", true, secret("s")).mount("/x/y/z", false, tmpfs()).try_run().expect("ran");
    assert_eq!((ran.code, ran.outcome.stubs_left.as_slice()), (0, &[][..]));
    for name in ["x", "s", "etc/hosts", "etc/resolv.conf", "proc", "sys", "dev"] {
        assert!(!rootfs.path(name).exists(), "{name}");
    }
    let after = std::fs::metadata(rootfs.path("etc")).expect("stat");
    assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
}

/// An overlay over the root file system: the way a step's root is made.
fn overlay(rootfs: &Rootfs, upper: &tempfile::TempDir) -> std::os::fd::OwnedFd {
    for name in ["upper", "work"] {
        std::fs::create_dir(upper.path().join(name)).expect("mkdir");
    }
    let (lower, up, work) = (rootfs.path(""), upper.path().join("upper"), upper.path().join("work"));
    let options = [
        mount::Option::Flag("userxattr"),
        mount::Option::Value("lowerdir", lower.as_os_str()),
        mount::Option::Value("upperdir", up.as_os_str()),
        mount::Option::Value("workdir", work.as_os_str()),
    ];
    mount::new_filesystem("overlay", &options, mount::MountAttrFlags::empty()).expect("overlay")
}

#[test]
fn m3_the_layer_of_a_step_has_what_the_step_made_and_no_mount_points() {
    let (rootfs, upper) = (Rootfs::new(), tempfile::tempdir().expect("temp dir"));
    let before = std::fs::metadata(rootfs.path("etc")).expect("stat").modified().expect("time");
    let tree = overlay(&rootfs, &upper);
    let step = Step::new(&rootfs, "touch /made; rm /etc/group").with(|spec| spec.root.tree = tree);
    step.mount("/x/y", false, tmpfs()).output();
    let names = |path: &str| -> Vec<String> {
        let entries = std::fs::read_dir(upper.path().join(path)).expect("read");
        let mut names: Vec<_> = entries.map(|e| e.expect("entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    assert_eq!(names("upper"), ["etc", "made"]);
    assert_eq!(names("upper/etc"), ["group"]);
    assert!(std::fs::metadata(upper.path().join("upper/etc")).expect("stat").modified().expect("time") > before);
}

#[test]
fn m3_cleaning_up_follows_no_link() {
    let (rootfs, canary) = (Rootfs::new(), Canary::new());
    std::fs::remove_dir(canary.temp.path().join("y")).expect("rmdir");
    for make in [|path: &std::path::Path| std::fs::create_dir(path), |path: &std::path::Path| std::fs::write(path, "")]
    {
        make(&canary.temp.path().join("y")).expect("make");
        let script = format!("mv /x /moved; ln -s {} /x", canary.path());
        Step::new(&rootfs, &script).mount("/x/y", false, tmpfs()).output();
        assert!(canary.temp.path().join("y").exists());
        let _dir = std::fs::remove_dir(canary.temp.path().join("y"));
        let _file = std::fs::remove_file(canary.temp.path().join("y"));
        std::fs::remove_file(rootfs.path("x")).expect("link");
        let _left = std::fs::remove_dir_all(rootfs.path("moved"));
    }
}

#[test]
fn m4_nothing_is_shared_with_the_host() {
    let rootfs = Rootfs::new();
    let shared = source();
    let step = Step::new(&rootfs, "grep -c 'shared:\\|master:' /proc/self/mountinfo; true");
    assert_eq!(step.mount("/m", false, host_dir(&shared, "")).output(), "0\n");
}

#[test]
fn m6_readonly_means_readonly() {
    let (rootfs, shared) = (Rootfs::new(), source());
    let script =
        "(touch /m/new) 2>&1 | grep -c Read-only; mount -o remount,rw,bind /m 2>/dev/null && echo remounted; true";
    for make in [tree, host_dir] {
        let step = Step::new(&rootfs, script).mount("/m", true, make(&shared, ""));
        assert_eq!(step.output(), "1\n");
    }
    let step =
        Step::new(&rootfs, "touch /m/new && (touch /new) 2>&1 | grep -c Read-only; cat /etc/hosts | grep -c localhost");
    let step = step.with(|spec| spec.root.readonly = true).mount("/m", false, tree(&shared, ""));
    assert_eq!(step.output(), "1\n2\n");
    assert!(shared.path().join("new").exists());
    assert!(!rootfs.path("m").exists());
}

#[test]
fn m8_links_in_etc_stay_inside() {
    let canary = Canary::new();
    let rootfs = Rootfs::new();
    rootfs.link("etc/hosts", &format!("{}/f", canary.path()));
    rootfs.link("etc/resolv.conf", &format!("../../../..{}/g", canary.path()));
    assert_eq!(Step::new(&rootfs, "grep -c localhost /etc/hosts").output(), "2\n");
    assert!(!rootfs.path(canary.path()).exists());
    canary.assert_untouched();
    let rootfs = Rootfs::new();
    std::fs::create_dir(rootfs.path("etc/hosts")).expect("mkdir");
    assert!(matches!(Step::new(&rootfs, "true").try_run(), Err(ExecError::Setup { stage: Stage::Mounts, .. })));
}

#[test]
fn m9_targets_of_the_sandbox_are_refused() {
    let rootfs = Rootfs::new();
    rootfs.link("p", "/proc");
    rootfs.link("n", "/dev/null");
    for target in ["/", "/proc", "/proc/self", "/x/../proc", "/sys/fs", "/dev", "/dev/null"] {
        let result = Step::new(&rootfs, "true").mount(target, false, tmpfs()).try_run();
        assert!(matches!(result, Err(ExecError::Target { .. })), "{target}: {result:?}");
    }
    for target in ["/p", "/p/1", "/p/sys"] {
        let result = Step::new(&rootfs, "true").mount(target, false, tmpfs()).try_run();
        assert!(matches!(result, Err(ExecError::Setup { .. })), "{target}: {result:?}");
    }
    let result = Step::new(&rootfs, "true").mount("/n", true, secret("x")).try_run();
    assert!(matches!(result, Err(ExecError::Setup { .. })), "{result:?}");
    let output = Step::new(&rootfs, "stat -f -c %T /dev/shm").mount("/dev/shm", false, tmpfs()).output();
    assert_eq!(output, "tmpfs\n");
}

#[test]
fn m12_no_mount_of_a_step_has_devices() {
    let (rootfs, shared) = (Rootfs::new(), source());
    let script = "for d in / /m /t /dev /dev/shm; do rm -f $d/sda; mknod $d/sda b 8 0 2>/dev/null || { echo refused; continue; }; \
                  (cat $d/sda) 2>&1 | grep -o 'Permission denied'; rm -f $d/sda; done";
    let step = Step::new(&rootfs, script).mount("/m", false, host_dir(&shared, "")).mount("/t", false, tmpfs());
    let output = step.output();
    assert_eq!(output.lines().count(), 5, "{output}");
    assert!(output.lines().all(|line| line == "Permission denied" || line == "refused"), "{output}");
}

#[test]
fn s3_a_secret_is_a_file_in_memory_with_the_mode_asked_for() {
    let rootfs = Rootfs::new();
    let script = "cat /run/secrets/key; stat -c ' %a %u %s' /run/secrets/key; grep ' /run/secrets/key ' /proc/self/mountinfo | \
                  grep -c 'ro,nosuid,nodev,noexec'; ls /run/secrets";
    let output = Step::new(&rootfs, script).mount("/run/secrets/key", false, secret("top")).output();
    assert_eq!(output, "top 400 0 3\n1\nkey\n");
    assert!(!rootfs.path("run").exists());
    let owned =
        MountSource::Secret { data: rbuild::exec::SecretData::new(b"u".to_vec()), uid: 1000, gid: 1000, mode: 0o440 };
    let step = Step::new(&rootfs, "cat /k; stat -c ' %a %u:%g' /k").user("1000:1000").mount("/k", true, owned);
    assert_eq!(step.output(), "u 440 1000:1000\n");
}

#[test]
fn an_agents_socket_is_mounted_with_its_owner() {
    let (rootfs, temp) = (Rootfs::new(), tempfile::tempdir().expect("temp dir"));
    let path = temp.path().join("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    let socket = fds::open_path(&path).expect("open");
    let source = MountSource::SshAgent { socket, uid: 1000, gid: 1000, mode: 0o600 };
    let step = Step::new(&rootfs, "stat -c '%F %a %u' /run/a.sock").mount("/run/a.sock", false, source);
    assert_eq!(step.output(), "socket 600 1000\n");
}

#[test]
fn a_tmpfs_has_the_size_asked_for() {
    let rootfs = Rootfs::new();
    let script = "dd if=/dev/zero of=/t/f bs=1k count=200 2>/dev/null; stat -c %s /t/f; stat -c %a /t";
    let step = Step::new(&rootfs, script).mount("/t", false, MountSource::Tmpfs { size: 64 << 10 });
    assert_eq!(step.output(), "65536\n1777\n");
}
