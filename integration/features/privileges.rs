//! `--allow`: what steps get beyond the sandbox, and what is said to those who may not have it.

use std::fs;

use super::{greeter, with_base};
use crate::support::build::{BOTH, User, busybox};

#[test]
fn insecure_needs_its_entitlement_even_from_the_cache() {
    for user in BOTH {
        let project = with_base(user, "RUN echo earlier step\nRUN --security=insecure echo privileged\n");
        let refused = |args: &[&str]| {
            let output = project.build(&[args, &busybox()].concat()).failure(2);
            let output = output.says("security.insecure is not allowed").says("Dockerfile:5");
            output.says("--allow security.insecure").silent_about("[base ")
        };
        let _ = refused(&[]);
        let _ = project.build(&[&["--allow", "security.insecure"], &busybox()[..]].concat()).success();
        let _ = refused(&[]);
        let _ = refused(&["--allow", "network.host"]);
        let _ = project.build(&["--allow", "security.insecur"]).failure(2).says("did you mean `security.insecure`");
    }
}

#[test]
fn insecure_has_all_capabilities_no_filter_and_no_masks() {
    for user in BOTH {
        let project = with_base(
            user,
            "RUN --security=insecure grep -E '^(CapEff|CapBnd|Seccomp):' /proc/self/status > /status; mkdir /m; mount -t tmpfs none /m && touch /m/f && ls /m > /mounted; umount /m; \
             ls -l /proc/kcore > /kcore; for d in kmsg fuse loop-control net/tun; do [ ! -e /dev/$d ] || stat -c '%n %t:%T' /dev/$d; done > /devices; true\n\
             RUN grep -E '^Seccomp:' /proc/self/status > /after; ls /dev > /dev-after\n",
        );
        let out = project.home().join("out");
        let spec = format!("type=local,dest={}", out.display());
        let said = project.build(&[&["--allow", "security.insecure", "-o", &spec], &busybox()[..]].concat()).success();
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        // All there are in a new user namespace; without one, those that a container around the build may have.
        let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
        let every = format!("{:016x}", (1u64 << (last + 1)) - 1);
        let own = fs::read_to_string("/proc/self/status").unwrap();
        let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
        let all = if user == User::Root { bounding } else { &every };
        assert_eq!(read("status"), format!("CapEff:\t{all}\nCapBnd:\t{all}\nSeccomp:\t0\n"));
        assert_eq!((read("mounted"), read("after")), ("f\n".into(), "Seccomp:\t2\n".into()));
        let host = |name: &str| std::path::Path::new("/dev").join(name).exists();
        let expected: String = [("kmsg", "1:b"), ("fuse", "a:e5"), ("loop-control", "a:ed"), ("net/tun", "a:c8")]
            .iter()
            .filter(|(name, _)| user == User::Root && host(name))
            .map(|(name, number)| format!("/dev/{name} {number}\n"))
            .collect();
        assert_eq!(read("devices"), expected);
        assert!(!read("dev-after").contains("kmsg") && !read("dev-after").contains("loop"));
        assert_eq!(said.stderr.contains("security=insecure without root"), user == User::Rootless);
    }
}

#[test]
fn network_none_is_that_of_one_step() {
    let port = greeter();
    for user in BOTH {
        let ask = |file: &str| format!("nc 127.0.0.1 {port} < /dev/null > /{file} || true\n");
        let script = format!(
            "RUN {}RUN --network=none ls /sys/class/net > /net 2>/dev/null || ip -o link | cut -d: -f2 | tr -d ' ' > /net; {}\
             RUN --network=default {}RUN --network=host {}",
            ask("before"),
            ask("none"),
            ask("default"),
            ask("host")
        );
        let project = with_base(user, &script);
        let refused = project.build(&busybox()).failure(2).says("network.host is not allowed").says("Dockerfile:7");
        let _ = refused.says("--allow network.host");
        let out = project.files(&[&["--allow", "network.host"], &busybox()[..]].concat());
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(
            (read("before"), read("default"), read("host")),
            ("here\n".into(), "here\n".into(), "here\n".into())
        );
        assert_eq!((read("none"), read("net")), (String::new(), "lo\n".into()));
    }
}
