//! Steps and what the host runs beside them: control groups, sockets, kernel settings.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use serde_json::json;

use super::{Scene, as_both, image, lines, probing};

#[test]
fn e14_cgroups_are_seen_from_their_own_root_and_cannot_be_written() {
    as_both(|user| {
        let scene = Scene::with(user, &probing());
        for flag in ["", "--network=none"] {
            let dockerfile = format!(
                "FROM evil\nRUN {flag} [\"/bin/probe\", \"cgroups\"]\n\
                 RUN {flag} cut -d: -f3 /proc/self/cgroup | sort -u; find /sys/fs/cgroup -type f 2>/dev/null | while read f; do (: >> $f) 2>/dev/null && echo open $f; done; \
                 for d in $(find /sys/fs/cgroup -type d 2>/dev/null); do mkdir $d/rbuild-x 2>/dev/null && echo made $d; done; echo end\n"
            );
            let output = scene.build(&dockerfile, &["--no-cache"]).success();
            let expected = [
                "mount cgroup2 EPERM",
                "mount cgroup EPERM",
                "unshare cgroup EPERM",
                "unshare user EPERM",
                "enter EPERM",
                "/",
                "end",
            ];
            assert_eq!(lines(&output), expected, "{}", output.stderr);
        }
    });
}

#[test]
fn e15_without_network_no_socket_of_the_host_is_reached() {
    as_both(|user| {
        let scene = Scene::with(user, &probing());
        // Names that are not in a file system belong to the network namespace, as the ports do.
        let unique = format!("{}-{user:?}", std::process::id());
        let names = [format!("c-{unique}"), format!("/tmp/.X11-unix/X{unique}"), format!("/tmp/dbus-{unique}")];
        let listen = |name: &String| UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        let _listening: Vec<UnixListener> = names.iter().map(listen).collect();
        let (four, six) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0").unwrap());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let mut targets: Vec<String> = names.iter().map(|name| format!("@{name}")).collect();
        targets.extend([format!("4:{}", port(&four)), format!("6:{}", port(&six))]);
        let step = |flag: &str, more: &[&str]| {
            let all: Vec<&str> = targets.iter().map(String::as_str).chain(more.iter().copied()).collect();
            let command = serde_json::to_string(&[&["/bin/probe", "connect"], &all[..]].concat()).unwrap();
            lines(&scene.build(&format!("FROM evil\nRUN {flag} {command}\n"), &["--no-cache"]).success())
        };
        let all = |outcome: &str| targets.iter().map(|target| format!("{target} {outcome}")).collect::<Vec<_>>();
        // That they are there at all shows in a step that shares the host's network.
        assert_eq!(step("", &[]), all("worked"));
        let cut_off = step("--network=none", &["cloud"]);
        assert_eq!(cut_off, [all("ECONNREFUSED"), vec!["cloud ENETUNREACH".to_owned()]].concat());
        // The flag for all steps is no less.
        let command = serde_json::to_string(&["/bin/probe", "connect", &targets[0]]).unwrap();
        let output = scene.build(&format!("FROM evil\nRUN {command}\n"), &["--network", "none"]).success();
        assert_eq!(lines(&output), [format!("{} ECONNREFUSED", targets[0])]);
    });
}

#[test]
fn e21_nothing_that_is_read_sets_a_sysctl() {
    as_both(|user| {
        let mut scene = Scene::with(user, &image(|tar| tar));
        let value = "kernel.core_pattern=|/bin/x";
        for args in [vec!["--sysctl", value], vec![&*format!("--sysctl={value}")]] {
            let output = scene.build("FROM evil\nRUN true\n", &args).failure(2);
            assert!(output.stderr.contains("--sysctl"), "{}", output.stderr);
        }
        for line in [
            format!("RUN --sysctl={value} echo reached"),
            format!("RUN --mount=type=tmpfs,target=/m,sysctl={value} echo reached"),
            format!("SYSCTL {value}"),
        ] {
            let output = scene.build(&format!("FROM evil\n{line}\n"), &[]).failure(3);
            assert!(lines(&output).is_empty() && output.stderr.contains("Dockerfile:2"), "{}", output.stderr);
        }
        let labels = json!({ "sysctl": value, "io.kubernetes.cri-o.sysctls": value, "security.alpha.kubernetes.io/sysctls": value });
        scene.image(
            "labelled",
            &image(|tar| tar).with("Labels", labels).with("Sysctls", json!({ "kernel.core_pattern": "x" })),
        );
        let here = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let output = scene.build("FROM labelled\nRUN cat /proc/sys/kernel/core_pattern\n", &[]).success();
        assert_eq!(lines(&output), [here.trim()]);
    });
}
