//! The values of the sandbox, as a step reads them: names and limits, descriptors, every mount, what is masked, ids, keyring.
//!
//! What is expected is written out here, so that a change of the executor that loosens one is seen in review.

use std::collections::BTreeMap;
use std::fs;

use super::{Scene, as_both, image, lines, probing};
use crate::support::build::{Output, User};

/// Runs a script as a step.
fn told(scene: &Scene, flags: &str, script: &str) -> Output {
    scene.build(&format!("FROM evil\nRUN {flags} {script}\n"), &["--no-cache"]).success()
}

#[test]
fn identity_limits_and_names_of_a_step() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let script = "grep -E '^(Umask|Uid|Gid|Groups|NoNewPrivs|Seccomp|Seccomp_filters):' /proc/self/status | tr -d '\\t '; \
            echo pid $$ $(grep -c . /proc/self/cgroup) $(cut -d: -f3 /proc/self/cgroup | sort -u); \
            grep -E 'open files|core file' /proc/self/limits | tr -s ' '; cat /proc/self/oom_score_adj; \
            hostname; cat /proc/sys/kernel/domainname; readlink /proc/self/cwd; cat /proc/self/wchan >/dev/null; echo $(ls /proc/self/task | wc -l)";
        let output = told(&scene, "", script);
        let seen = lines(&output);
        let (expected_files, cgroups) =
            (open_files(), fs::read_to_string("/proc/self/cgroup").unwrap().lines().count());
        let expected = [
            "Umask:0022",
            "Uid:0000",
            "Gid:0000",
            "Groups:0",
            "NoNewPrivs:0",
            "Seccomp:2",
            "Seccomp_filters:1",
            &format!("pid 1 {cgroups} /"),
            "Max core file size 0 0 bytes ",
            &format!("Max open files {expected_files} files "),
            "500",
            "buildkitsandbox",
            "",
            "/",
            "1",
        ];
        assert_eq!(seen, expected, "{}", output.stderr);
    });
}

/// The soft and hard limit that a step gets of a caller's.
fn open_files() -> String {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard = line.split_ascii_whitespace().nth(4).unwrap().parse::<u64>().map_or(524_288, |hard| hard.min(524_288));
    format!("{} {hard}", hard.min(1024))
}

#[test]
fn ids_are_mapped_as_the_caller_may() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let output = told(
            &scene,
            "",
            "cat /proc/self/uid_map | tr -s ' '; cat /proc/self/setgroups; readlink /proc/self/ns/user",
        );
        let seen: Vec<String> = lines(&output).iter().map(|line| line.trim().to_owned()).collect();
        let own = fs::read_link("/proc/self/ns/user").unwrap().display().to_string();
        match user {
            User::Root => assert_eq!(
                seen,
                [
                    fs::read_to_string("/proc/self/uid_map")
                        .unwrap()
                        .split_ascii_whitespace()
                        .collect::<Vec<_>>()
                        .join(" "),
                    "allow".into(),
                    own
                ]
            ),
            User::Rootless => {
                let line = |file: &str| {
                    fs::read_to_string(file)
                        .unwrap()
                        .lines()
                        .find_map(|l| Some(l.strip_prefix("rbuild-test:")?.to_owned()))
                        .unwrap()
                };
                let uid: String = line("/etc/passwd").split(':').nth(1).unwrap().to_owned();
                let subordinate = line("/etc/subuid").replace(':', " ");
                assert_eq!(seen[..3], [format!("0 {uid} 1"), format!("1 {subordinate}"), "allow".into()]);
                assert_ne!(seen[3], own);
            }
        }
    });
}

#[test]
fn namespaces_of_a_step_are_its_own_but_for_network_and_time() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        for (flags, shares_network) in [("", true), ("--network=none", false)] {
            let output =
                told(&scene, flags, "for n in cgroup ipc mnt net pid time uts; do readlink /proc/self/ns/$n; done");
            let seen = lines(&output);
            assert_eq!(seen.len(), 7);
            for line in seen {
                let (kind, _) = line.split_once(':').unwrap();
                let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
                let shared = kind == "time" || (kind == "net" && shares_network);
                assert_eq!(line == host, shared, "{flags} {line}");
            }
        }
    });
}

#[test]
fn descriptors_are_three_and_none_is_the_hosts() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        // Asked by a program alone, as a shell opens some of its own; the fourth is that of the directory.
        let dockerfile =
            "FROM evil\nRUN [\"/bin/ls\", \"/proc/self/fd\"]\nRUN for n in 0 1 2; do readlink /proc/$$/fd/$n; done\n";
        let output = scene.build(dockerfile, &[]).success();
        let seen: Vec<String> = lines(&output).iter().map(|line| line.split('[').next().unwrap().to_owned()).collect();
        assert_eq!(seen, ["0", "1", "2", "3", "/dev/null", "pipe:", "pipe:"], "{}", output.stderr);
    });
}

/// What a mount of the sandbox is: its flags in order, and the file system.
const MOUNTS: [(&str, &str, &str); 20] = [
    ("/", "rw,nodev", "overlay"),
    ("/dev", "rw,nosuid,nodev,noexec", "tmpfs"),
    ("/dev/null", "rw", "node"),
    ("/dev/zero", "rw", "node"),
    ("/dev/full", "rw", "node"),
    ("/dev/random", "rw", "node"),
    ("/dev/urandom", "rw", "node"),
    ("/dev/tty", "rw", "node"),
    ("/dev/shm", "rw,nosuid,nodev,noexec", "tmpfs"),
    ("/dev/mqueue", "rw,nosuid,nodev,noexec", "mqueue"),
    ("/dev/pts", "rw,nosuid,noexec", "devpts"),
    ("/proc", "rw,nosuid,nodev,noexec", "proc"),
    ("/proc/bus", "ro,nosuid,nodev,noexec", "proc"),
    ("/proc/fs", "ro,nosuid,nodev,noexec", "proc"),
    ("/proc/irq", "ro,nosuid,nodev,noexec", "proc"),
    ("/proc/sys", "ro,nosuid,nodev,noexec", "proc"),
    ("/proc/sysrq-trigger", "ro,nosuid,nodev,noexec", "proc"),
    ("/sys", "ro,nosuid,nodev,noexec", "sysfs"),
    ("/etc/hosts", "ro,nosuid,nodev,noexec", "tmpfs"),
    ("/etc/resolv.conf", "ro,nosuid,nodev,noexec", "tmpfs"),
];

/// Hidden, as far as the kernel has them.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Target to flags and file system, as `mountinfo` has them; access times count for nothing.
fn mounts(output: &Output) -> BTreeMap<String, (String, String)> {
    let line = |line: &String| {
        let words: Vec<&str> = line.split(' ').collect();
        let dash = words.iter().position(|word| *word == "-").unwrap();
        let flags: Vec<&str> = words[5].split(',').filter(|flag| !flag.ends_with("atime")).collect();
        assert_eq!(dash, 6, "no propagation: {line}");
        (words[4].to_owned(), (flags.join(","), words[7].to_owned()))
    };
    lines(output).iter().map(line).collect()
}

#[test]
fn mounts_of_a_step_are_these_and_no_others() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        for flags in ["", "--network=none"] {
            let mut seen = mounts(&told(&scene, flags, "cat /proc/self/mountinfo"));
            for (target, flags, kind) in MOUNTS {
                let there = !target.starts_with("/proc/") || fs::exists(target).unwrap();
                let found = seen.remove(target);
                assert_eq!(found.is_some(), there, "{target}");
                let Some((options, file_system)) = found else { continue };
                assert_eq!(options, flags, "{target}");
                assert!(kind == "node" || file_system == kind, "{target} is {file_system}");
            }
            for (target, (flags, file_system)) in seen {
                let masked = MASKED.contains(&target.as_str()) || target.ends_with("/thermal_throttle");
                // Where the step has the host's network, a user may only bind the host's `/sys` with what is below it.
                let below_sys = user == User::Rootless && target.starts_with("/sys/");
                assert!(masked || below_sys, "{target} {flags} {file_system}");
                assert!(
                    flags.starts_with("ro,nosuid,nodev,noexec") || file_system == "devtmpfs",
                    "{target} {flags} {file_system}"
                );
            }
        }
    });
}

#[test]
fn e20_what_tells_of_the_machine_is_masked_or_absent() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let script = format!(
            "for p in {} $(ls -d /sys/devices/system/cpu/cpu*/thermal_throttle 2>/dev/null); do \
             if [ -d $p ]; then echo $p $(ls -A $p | wc -l) $( (: > $p/x) 2>/dev/null && echo written); \
             elif [ -e $p ]; then echo $p $(stat -c %t:%T $p) $(cat $p | wc -c); fi; done; echo end",
            MASKED.join(" ")
        );
        for flags in ["", "--network=none"] {
            let output = told(&scene, flags, &script);
            let seen = lines(&output);
            for path in MASKED.iter().filter(|path| path.starts_with("/proc/") && fs::exists(path).unwrap()) {
                assert!(seen.iter().any(|line| line.starts_with(&format!("{path} "))), "{path} is looked at: {seen:?}");
            }
            for line in seen.iter().filter(|line| *line != "end") {
                assert!(line.ends_with(" 0") || line.ends_with(" 1:3 0"), "{line}");
            }
        }
    });
}

#[test]
fn devices_of_a_step_are_these_and_no_others() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let output = told(
            &scene,
            "",
            "cd /dev; stat -c '%n %F %a %t:%T' * pts/* | sort; for l in core fd ptmx stderr stdin stdout; do readlink $l; done",
        );
        let expected = [
            "core symbolic link 777 0:0",
            "fd symbolic link 777 0:0",
            "full character special file 666 1:7",
            "mqueue directory 1777 0:0",
            "null character special file 666 1:3",
            "ptmx symbolic link 777 0:0",
            "pts directory 755 0:0",
            "pts/ptmx character special file 666 5:2",
            "random character special file 666 1:8",
            "shm directory 1777 0:0",
            "stderr symbolic link 777 0:0",
            "stdin symbolic link 777 0:0",
            "stdout symbolic link 777 0:0",
            "tty character special file 666 5:0",
            "urandom character special file 666 1:9",
            "zero character special file 666 1:5",
            "/proc/kcore",
            "/proc/self/fd",
            "pts/ptmx",
            "/proc/self/fd/2",
            "/proc/self/fd/0",
            "/proc/self/fd/1",
        ];
        assert_eq!(lines(&output), expected, "{}", output.stderr);
    });
}

#[test]
fn nothing_of_procfs_or_sysfs_is_writable_but_what_the_kernel_bounds() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        // Files without a mode to write have no code behind it. What is left writable in procfs is a process's own.
        let script = "find /proc /sys -path '/proc/[0-9]*' -prune -o -path /proc/self -prune -o -path /proc/thread-self -prune -o -type f -print 2>/dev/null | \
             while read f; do case $(stat -c %A $f) in *w*) (: >> $f) 2>/dev/null && echo $f;; esac; done; \
             find /proc /sys -maxdepth 3 -type d 2>/dev/null | grep -v '^/proc/[0-9s]' | while read d; do mkdir $d/rbuild-x 2>/dev/null && echo made $d; done; echo end";
        for flags in ["", "--network=none"] {
            let mut seen = lines(&told(&scene, flags, script));
            // A trigger there is bounded by its own process.
            seen.retain(|line| !line.starts_with("/proc/pressure/"));
            assert_eq!(seen, ["end"], "{flags}");
        }
    });
}

#[test]
fn sysctls_are_the_kernels_own() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let names = [
            "kernel/core_pattern",
            "kernel/yama/ptrace_scope",
            "vm/overcommit_memory",
            "fs/protected_symlinks",
            "net/ipv4/ip_unprivileged_port_start",
        ];
        let here: Vec<String> = names
            .iter()
            .filter_map(|name| fs::read_to_string(format!("/proc/sys/{name}")).ok())
            .map(|text| text.trim().to_owned())
            .collect();
        assert!(here.len() >= 3);
        let script = format!("for n in {}; do [ ! -e /proc/sys/$n ] || cat /proc/sys/$n; done", names.join(" "));
        let seen: Vec<String> = lines(&told(&scene, "", &script)).iter().map(|line| line.trim().to_owned()).collect();
        assert_eq!(seen, here);
    });
}

#[test]
fn each_step_has_a_session_keyring_of_its_own_and_no_way_to_use_it() {
    as_both(|user| {
        let scene = Scene::with(user, &probing());
        let probe = "RUN --security=insecure [\"/bin/probe\", \"keyring\"]\n";
        let dockerfile = format!("FROM evil\nRUN [\"/bin/probe\", \"keyring\"]\n{probe}ENV a=b\n{probe}");
        let output = scene.build(&dockerfile, &["--allow", "security.insecure"]).success();
        let mut seen = lines(&output);
        seen.retain(|line| line.starts_with("keyring"));
        assert_eq!(seen[0], "keyring -1 EPERM");
        assert!(seen.len() == 3 && seen[1] != seen[2] && !seen[1].contains('-') && !seen[2].contains('-'), "{seen:?}");
    });
}
