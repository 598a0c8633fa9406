//! Steps: the program itself, working directory, environment, identity, other processes, the end.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;

use super::{Image, RawTar, Scene, as_both, image, lines, probe, probing, tools};
use crate::support::build::{User, binary};
use crate::support::image::{FILE, Member};

/// What identifies the binary and its content.
fn state_of_binary() -> (u64, std::time::SystemTime, rbuild::digest::Digest) {
    use std::os::unix::fs::MetadataExt as _;
    let stat = fs::metadata(binary()).unwrap();
    (stat.ino(), stat.modified().unwrap(), rbuild::digest::Digest::compute(fs::read(binary()).unwrap()))
}

#[test]
fn e1_no_step_writes_to_a_program_of_the_host() {
    let before = state_of_binary();
    as_both(|user| {
        // The shell is rbuild's own first program again, as often as a step starts.
        let trap = RawTar::default().dir("bin").file("bin/sh", 0o755, "#!/proc/self/exe\n");
        let scene = Scene::with(user, &Image::of([trap.file("bin/probe", 0o755, probe())]));
        for _ in 0..3 {
            let _ = scene.build("FROM evil\nRUN [\"/bin/sh\"]\n", &["--no-cache"]);
        }
        let dockerfile = "FROM evil AS a\nRUN [\"/bin/probe\", \"programs\", \"3000\"]\nFROM evil AS b\n\
            RUN [\"/bin/probe\", \"programs\", \"3001\"]\nFROM evil\nCOPY --from=a /bin/probe /a\nCOPY --from=b /bin/probe /b\n";
        let output = scene.build(dockerfile, &[]).success();
        assert_eq!(lines(&output), ["programs seen, written 0"; 2], "{}", output.stderr);
    });
    assert_eq!(state_of_binary(), before);
}

#[test]
fn e2_no_working_directory_through_a_descriptor() {
    as_both(|user| {
        let mut scene = Scene::with(user, &image(|tar| tar));
        for number in [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20, 63] {
            let dockerfile =
                format!("FROM evil\nWORKDIR /proc/self/fd/{number}\nRUN [\"/bin/cat\", \"../../../../$H/f\"]\n");
            let _ = scene.build(&dockerfile, &[]).failure(1);
        }
        let descriptors = (3..16).map(|number| format!("/proc/self/fd/{number}"));
        let others = ["/proc/1/cwd", "/proc/self/root", "/proc/thread-self/cwd", "/dev/fd/8"].map(str::to_owned);
        for (index, place) in descriptors.chain(others).enumerate() {
            let name = format!("evil{index}");
            scene.image(&name, &image(|tar| tar).with("WorkingDir", json!(place)));
            let _ = scene.build(&format!("FROM {name}\nRUN [\"/bin/cat\", \"../../../..$H/f\"]\n"), &[]).failure(1);
        }
        let output = scene.build("FROM evil\nRUN ls /proc/self/fd\n", &[]).success();
        assert_eq!(lines(&output), ["0", "1", "2", "3"]);
    });
}

#[test]
fn e3_the_callers_environment_reaches_no_step() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        // Each step looks while the other one starts, runs and ends.
        let look = |name: &str| {
            format!(
                "FROM evil AS {name}\nRUN for i in $(seq 40); do cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; \
                 ls -l /proc/[0-9]*/fd; done 2>/dev/null | tr '\\0' '\\n' | grep -c -e 'nar[y]-{name}' -e '__in[i]t' -e 'rbuild-i[t]'; true\n"
            )
        };
        let all = ["a", "b", "c"].map(look).concat();
        let dockerfile = format!(
            "{all}FROM evil\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\nCOPY --from=c /bin/sh /c\nRUN [\"/bin/env\"]\n"
        );
        scene.project.file("Dockerfile", dockerfile);
        let mut command = scene.command(&[]);
        for name in ["CANARY", "GITHUB_TOKEN", "ACTIONS_RUNTIME_TOKEN"] {
            command.env(name, "canary-a canary-b canary-c");
        }
        let output = crate::support::build::run(command).success();
        assert_eq!(lines(&output), ["0", "0", "0", "PATH=/bin", "HOME=/"], "{}", output.stderr);
        scene.canary.assert_untouched("e3");
    });
}

#[test]
fn e4_no_capability_is_inheritable() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let dockerfile = "FROM evil\nRUN grep Cap /proc/self/status\nUSER 1000\nRUN grep Cap /proc/self/status\n";
        let output = scene.build(dockerfile, &[]).success();
        let (all, none) = ("00000000a80425fb", "0000000000000000");
        let expected = [none, all, all, all, none, none, none, none, all, none];
        let values: Vec<String> =
            lines(&output).iter().map(|line| line.split('\t').nth(1).unwrap().to_owned()).collect();
        assert_eq!(values, expected, "{}", output.stderr);
    });
}

/// Prefixes a command line so that the caller is in three more groups.
fn in_groups(user: User, scene: &Scene) -> Command {
    let id = match user {
        User::Root => "root",
        User::Rootless => "rbuild-test",
    };
    let inner = scene.command(&[]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", id, "--regid", id, "--groups", "4242,4243,4244", "--"]);
    // The project's own change of user would set the groups anew.
    let words: Vec<_> = std::iter::once(inner.get_program()).chain(inner.get_args()).map(ToOwned::to_owned).collect();
    let start = words.iter().position(|word| word == "timeout").unwrap();
    command.args(&words[start..]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", scene.project.home()).current_dir(scene.project.home()).stdin(Stdio::null());
    command
}

#[test]
fn e5_the_callers_groups_are_not_the_steps() {
    as_both(|user| {
        // What a group of the caller's may read, a step may not.
        let theirs = Member { mode: 0o070, owner: 4242, data: b"theirs", ..Member::new(FILE, b"theirs") };
        let scene = Scene::with(user, &image(|tar| tar.file("etc/group", 0o644, "more:x:50:u\n").member(&theirs)));
        let dockerfile = "FROM evil\nUSER 1000:1000\nRUN id -G; grep Groups /proc/self/status; cat /theirs 2>&1 | grep -o 'Permission denied'\n\
             USER 0\nRUN id -G\n";
        scene.project.file("Dockerfile", dockerfile);
        let output = crate::support::build::run(in_groups(user, &scene)).success();
        let seen: Vec<String> = lines(&output).iter().map(|line| line.trim().replace('\t', "")).collect();
        assert_eq!(seen, ["1000", "Groups:1000", "Permission denied", "0"], "{}", output.stderr);
    });
}

#[test]
fn e6_a_user_is_exactly_the_one_named() {
    as_both(|user| {
        let passwd =
            "root:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n-1:x:7:7::/:/bin/sh\nu:x:1000:1000::/:/bin/sh\n";
        let evil = image(|tar| tar.file("etc/passwd", 0o644, passwd));
        let mut scene = Scene::with(user, &evil);
        let long = "9".repeat(300);
        for text in ["4294967296", "4294967295", "+1", ":1", "00", "\u{0661}", "0x0", "1:4294967296", "nobody", &long] {
            let output = scene.build(&format!("FROM evil\nUSER {text}\nRUN id -u\n"), &[]).failure(1);
            assert!(lines(&output).is_empty(), "{text}: {}", output.stderr);
        }
        for (text, expected) in
            [("u", "1000:1000"), ("1000", "1000:1000"), ("1:", "1:0"), ("5:6", "5:6"), ("-1", "7:7")]
        {
            let output = scene.build(&format!("FROM evil\nUSER {text}\nRUN echo $(id -u):$(id -g)\n"), &[]).success();
            assert_eq!(lines(&output), [expected], "{text}: {}", output.stderr);
        }
        scene.image("config", &evil.with("User", json!("4294967296")));
        let _ = scene.build("FROM config\nRUN id -u\n", &[]).failure(1);
        let output = scene.build("FROM evil\nUSER 2147483648\nRUN id -u\n", &[]);
        let refused = user == User::Rootless && output.code == 1 && output.stderr.contains("not mapped");
        assert!(lines(&output) == ["2147483648"] || refused, "{}", output.stderr);
    });
}

#[test]
fn e16_a_step_ends_with_its_first_process_and_takes_no_memory() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let mark = if user == User::Root { "98701" } else { "98702" };
        let dockerfile = format!(
            "FROM evil\nRUN (setsid sleep {mark} &); (sleep {mark} &); true\nRUN head -c 100000000 /dev/zero | tr '\\0' x\n"
        );
        let output = scene.build(&dockerfile, &[]).success();
        assert!(output.stderr.len() < 32 << 20, "{}", output.stderr.len());
        let running = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == format!("sleep\0{mark}\0").as_bytes())
        });
        assert!(!running);
    });
}

#[test]
fn e19_no_process_of_the_host_is_reached() {
    as_both(|user| {
        let scene = Scene::with(user, &probing());
        let mut host = scene.project.command("sh").args(["-c", "sleep 600; true", "argv-canary"]).spawn().unwrap();
        let dockerfile = "FROM evil\nRUN [\"/bin/probe\", \"processes\"]\n\
            RUN cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c 'argv-canar[y]'; true\n";
        let output = scene.build(dockerfile, &[]);
        host.kill().unwrap();
        let _ = host.wait().unwrap();
        assert_eq!(lines(&output.success()), ["processes reached 0", "0"]);
    });
}

#[test]
fn e17_what_an_image_says_of_itself_changes_nothing_outside() {
    as_both(|user| {
        let scene = Scene::new(user);
        let host = scene.canary.path().to_owned();
        let evil = Image::of([tools()])
            .with("Volumes", json!({ format!("/../../..{host}/x"): {}, "/proc": {}, "/": {} }))
            .with("Labels", json!({ "rbuild.output": format!("type=local,dest={host}"), "a\nb": "c\n\u{1b}[2J" }))
            .with("Env", json!(["PATH=/bin", "A=1\nB=2", "LD_PRELOAD=/evil.so", "nothing"]));
        let mut scene = scene;
        scene.image("evil", &evil);
        let out = scene.files("FROM evil\nRUN echo \"$A\" > /a; ls / > /ls\n", &[]);
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "1\nB=2\n");
    });
}
