//! Privileges that nobody granted, and the filter of system calls as the kernel answers.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Scene, as_both, image, lines, probing};
use crate::support::build::User;

#[test]
fn e12_privileges_are_refused_by_the_name_of_their_entitlement() {
    as_both(|user| {
        let mut scene = Scene::with(user, &image(|tar| tar));
        for (flag, name) in [("--network=host", "network.host"), ("--security=insecure", "security.insecure")] {
            let output = scene.build(&format!("FROM evil\nRUN {flag} echo reached\n"), &[]);
            assert!(output.code != 0 && output.stderr.contains(name), "{flag}: {}", output.stderr);
            assert!(lines(&output).is_empty(), "{}", output.stderr);
            let parent = name.replace('.', "-");
            scene.image(&parent, &image(|tar| tar).with("OnBuild", json!([format!("RUN {flag} echo reached")])));
            let output = scene.build(&format!("FROM {parent}\nRUN true\n"), &[]);
            assert!(output.code != 0 && output.stderr.contains(name), "ONBUILD {flag}: {}", output.stderr);
            assert!(lines(&output).is_empty(), "{}", output.stderr);
            // One is not the other.
            let other = if name == "network.host" { "security.insecure" } else { "network.host" };
            let output = scene.build(&format!("FROM evil\nRUN {flag} echo reached\n"), &["--allow", other]);
            assert!(output.code != 0 && output.stderr.contains(name), "{flag}: {}", output.stderr);
        }
        for flag in
            ["--network=weird", "--network=9", "--security=2", "--security=-1", "--security=Insecure", "--privileged"]
        {
            let output = scene.build(&format!("FROM evil\nRUN {flag} echo reached\n"), &[]);
            assert!(output.code != 0 && lines(&output).is_empty(), "{flag}: {}", output.stderr);
        }
        let allowed = "FROM evil\nRUN --network=host echo reached\n";
        assert_eq!(lines(&scene.build(allowed, &["--allow", "network.host"]).success()), ["reached"]);
        // What the caller allows the filter still bounds, and the next step has it again.
        let both = "FROM evil\nRUN --security=insecure grep ^Seccomp: /proc/self/status\nRUN grep ^Seccomp: /proc/self/status\n";
        let output = scene.build(both, &["--allow", "security.insecure"]).success();
        let notice = "security=insecure without root: the step has all privileges of this user namespace, and none of the \
                      machine's (no devices, no mounts of disks, no kernel modules)";
        match user {
            User::Root => assert_eq!(lines(&output), ["Seccomp:\t0", "Seccomp:\t2"]),
            _ => assert_eq!(lines(&output), ["Seccomp:\t0", notice, "Seccomp:\t2"]),
        }
    });
}

/// What the profile says of each number of an entry: whether it is allowed, at least with some arguments.
fn allowed(column: usize) -> BTreeMap<u32, String> {
    let table = include_str!("../../src/sys/seccomp/profile.tbl");
    let row = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = words.get(2 + column)?.parse().ok()?;
        (words[1] != "enosys").then(|| (number, words[0].to_owned()))
    };
    table.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect()
}

const EPERM: i64 = -1;
const ENOSYS: i64 = -38;
/// The highest number of the profile.
const HIGHEST: u32 = 469;
/// `clone3`: not there, so that a C library takes `clone`.
const HIDDEN: u32 = 435;

/// Calls that the kernel itself refuses to whoever has no privilege outside, or with the arguments of the probe.
const KERNELS_OWN: [&str; 5] = ["clone", "personality", "socket", "chroot", "landlock_restrict_self"];
/// `uprobe` of Linux 6.18, which the kernel does before any filter is asked, for its own trampolines only.
const BEFORE_FILTERS: (&str, u32) = ("native", 336);

fn check(entry: &str, column: usize, answers: &BTreeMap<(String, u32), i64>) {
    let allowed = allowed(column);
    let mut wrong = Vec::new();
    for number in (0..600).filter(|number| (entry, *number) != BEFORE_FILTERS) {
        let Some(answer) = answers.get(&(entry.to_owned(), number)) else { continue };
        let fine = match allowed.get(&number) {
            Some(name) => *answer != EPERM || KERNELS_OWN.contains(&name.as_str()),
            None if number > HIGHEST || number == HIDDEN => *answer == ENOSYS,
            None => *answer == EPERM,
        };
        if !fine {
            wrong.push(format!("{entry} {number} {:?}: {answer}", allowed.get(&number)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn e13_every_number_of_every_entry_is_answered_as_the_profile_says() {
    as_both(|user| {
        let scene = Scene::with(user, &probing());
        let output = scene.build("FROM evil\nRUN [\"/bin/probe\", \"calls\"]\n", &[]).success();
        let mut answers = BTreeMap::new();
        let mut sockets = Vec::new();
        for line in lines(&output) {
            let words: Vec<&str> = line.split(' ').collect();
            let (number, answer): (u32, i64) = (words[1].parse().unwrap(), words[2].parse().unwrap());
            match words[0] {
                "socket" => sockets.push((number, answer)),
                entry => _ = answers.insert((entry.to_owned(), number), answer),
            }
        }
        assert_eq!((answers.len(), sockets.len()), (1796, 128));
        check("native", 0, &answers);
        check("i386", 1, &answers);
        assert!((0..600).all(|number| answers[&("x32".to_owned(), number)] == ENOSYS));
        // Both widths of the argument, since the kernel looks at the lower half only.
        for (family, answer) in sockets {
            match family {
                38 | 40 => assert_eq!(answer, EPERM, "family {family}"),
                1 | 2 | 10 | 16 => assert_ne!(answer, EPERM, "family {family}"),
                _ => {}
            }
        }
    });
}
