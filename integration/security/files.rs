//! Files of the context and copies between stages.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::{Scene, as_both, image};

#[test]
fn f1_dot_dot_stays_inside() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar.dir("d").file("d/f", 0o644, "x").link("l", "/etc")));
        scene.project.file("f", "x").file("sub/f", "x");
        for instruction in [
            "COPY ../x /",
            "COPY ../../../../$H/f /",
            "COPY .. /up/",
            "COPY f ../../../..$H/",
            "COPY f /../..$H/new",
            "COPY sub/../../f /",
            "COPY f d/../../../../x/",
            "ADD f ..",
            "COPY --from=evil /d/../../..$H/f /",
            "COPY --from=evil .. /all/",
            "WORKDIR ../../../../..$H/w",
            "WORKDIR /a/../../../../b",
            "COPY <<../../x /\ntext\n../../x",
            "COPY <<EOF /../../..$H/heredoc\ntext\nEOF",
            "COPY --from=evil /l /l",
            "COPY --parents ../sub/f /",
        ] {
            let output = scene.build(&format!("FROM evil\n{instruction}\nRUN true\n"), &[]);
            assert!(output.code <= 4, "{instruction}: {}", output.stderr);
        }
    });
}

#[test]
fn f2_links_of_other_stages_and_of_the_context_lead_nowhere() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        let host = scene.canary.path().to_owned();
        let evil = image(|tar| {
            let tar = tar.link("root", "/").link("out", &host).link("up", &format!("../../../..{host}"));
            tar.link("dangling", "/nowhere").dir("dest").link("dest/l", &host).link("file", &format!("{host}/f"))
        });
        scene.image("evil", &evil);
        scene.project.file("f", "x");
        let context = scene.project.context();
        for (name, to) in [("c-out", host.clone()), ("c-file", format!("{host}/f")), ("c-up", format!("../..{host}"))] {
            symlink(to, context.join(name)).unwrap();
        }
        for instruction in [
            "COPY --from=evil /out/f /got",
            "COPY --from=evil /root$H/f /got",
            "COPY --from=evil /up/private /got",
            "COPY --from=evil /o* /got/",
            "COPY --from=evil /file /got",
            "COPY --from=evil --chown=5:5 /dangling /got",
            "COPY --chown=5:5 --chmod=777 f /out/",
            "COPY --chmod=777 f /file",
            "COPY f /dest/l/",
            "COPY f /up/f",
            "COPY c-out/f /got",
            "COPY c-out /got",
            "COPY c-file /got",
            "COPY c-up/private /got",
            "COPY c-* /got/",
            "COPY --from=evil --chown=7:7 / /dest/l/",
        ] {
            let output = scene
                .build(&format!("FROM evil\n{instruction}\nRUN cat /got /got/* 2>/dev/null; true\n"), &["--no-cache"]);
            assert!(output.code <= 4, "{instruction}: {}", output.stderr);
        }
    });
}

#[test]
fn f3_dockerfile_and_ignore_file_are_plain_files_of_the_context() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let context = scene.project.context();
        let home_file = scene.project.home().join("outside");
        fs::write(&home_file, format!("FROM scratch\n# {}\n", scene.canary.text())).unwrap();
        let in_canary = format!("{}/f", scene.canary.path());
        for name in ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"] {
            for to in [
                "/proc/self/environ",
                "../outside",
                "/etc/passwd",
                "/dev/zero",
                &in_canary,
                "fifo",
                "large",
                "directory",
            ] {
                fs::write(context.join("Dockerfile"), "FROM evil\nCOPY . /c\n").unwrap();
                let place = context.join(name);
                let _absent = fs::remove_file(&place);
                match to {
                    "fifo" => assert!(Command::new("mkfifo").arg(&place).status().unwrap().success()),
                    "large" => fs::File::create(&place).unwrap().set_len(1 << 30).unwrap(),
                    "directory" => fs::create_dir(&place).unwrap(),
                    _ => symlink(to, &place).unwrap(),
                }
                scene.project.own(&context);
                let mut command = scene.command(&[]);
                command.env("CANARY", scene.canary.text());
                let output = crate::support::build::run(command);
                let said = &output.stderr;
                assert!(!said.contains(scene.canary.text()) && !said.contains("root:x:"), "{name} -> {to}: {said}");
                assert!([2, 3, 4].contains(&output.code), "{name} -> {to}: {} {said}", output.code);
                let _file = fs::remove_file(&place).or_else(|_| fs::remove_dir(&place));
            }
        }
    });
}

#[test]
fn f4_what_is_copied_is_what_was_hashed() {
    as_both(|user| {
        let scene = Scene::new(user);
        let place = scene.project.context().join("f");
        let (one, other) = ("a".repeat(300_000), "b".repeat(300_000));
        fs::write(&place, &one).unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let (mut built, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0.. {
                    if stop.is_cancelled() {
                        return;
                    }
                    fs::write(&place, if turn % 2 == 0 { &other } else { &one }).unwrap();
                    std::thread::sleep(std::time::Duration::from_micros(500 * (turn % 60)));
                }
            });
            // However this ends, the writer does.
            let _stop = stop.clone().drop_guard();
            for round in 0..12 {
                let dockerfile = format!("FROM scratch\nCOPY f /f\nLABEL round={round}\n");
                let output = scene.build(&dockerfile, &[]);
                let changed = output.stderr.contains("changed while building");
                assert!(output.code == 0 || changed, "{}", output.stderr);
                built += usize::from(output.code == 0);
                refused += usize::from(changed);
            }
        });
        assert!(built > 0, "the writer won every time: {refused}");
        // Whatever was kept under a key is what that key was made of.
        for text in [&one, &other] {
            fs::write(&place, text).unwrap();
            let out = scene.files("FROM scratch\nCOPY f /f\n", &[]);
            assert_eq!(&fs::read_to_string(out.join("f")).unwrap(), text);
        }
    });
}

#[test]
fn f5_special_files_of_the_context_end_nothing_and_hang_nothing() {
    use std::os::unix::ffi::OsStrExt as _;
    as_both(|user| {
        let scene = Scene::new(user);
        let context = scene.project.context();
        scene.project.file("plain", "x");
        assert!(Command::new("mkfifo").arg(context.join("fifo")).status().unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(context.join("socket")).unwrap();
        symlink("self", context.join("self")).unwrap();
        symlink(".", context.join("loop")).unwrap();
        symlink("/dev/zero", context.join("endless")).unwrap();
        fs::write(context.join(std::ffi::OsStr::from_bytes(b"name\xff\n")), "odd").unwrap();
        let mut deep = context.join("deep");
        for _ in 0..200 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        scene.project.own(&context);
        let started = std::time::Instant::now();
        let out = scene.files("FROM scratch\nCOPY . /all/\n", &[]);
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
        let kind = |name: &str| fs::symlink_metadata(out.join("all").join(name)).unwrap().file_type();
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind("fifo")));
        assert!(kind("self").is_symlink() && kind("loop").is_symlink() && kind("endless").is_symlink());
        assert!(kind("socket").is_file());
        assert_eq!(fs::read(out.join("all").join(std::ffi::OsStr::from_bytes(b"name\xff\n"))).unwrap(), b"odd");
        // Named, each is told or copied; none is waited for.
        assert_eq!(scene.build("FROM scratch\nCOPY socket /x\n", &[]).code, 0);
        for name in ["fifo", "self", "endless", "loop/plain"] {
            let output = scene.build(&format!("FROM scratch\nCOPY {name} /x\n"), &[]);
            assert!(
                output.code == 0 || output.stderr.contains(name) || output.stderr.contains("link"),
                "{name}: {}",
                output.stderr
            );
        }
    });
}

#[test]
fn f6_patterns_take_no_time() {
    as_both(|user| {
        let scene = Scene::new(user);
        let name = "a".repeat(200);
        scene.project.file(&format!("{name}/{name}"), "x");
        let explosive = "a*".repeat(90) + "b";
        let globstars = "**/a*".repeat(40) + "/b";
        scene.project.file(".dockerignore", format!("{explosive}\n{globstars}\n{}\n", "**/?".repeat(60)));
        for pattern in [&explosive, &globstars, &"[a-z]".repeat(60)] {
            for flag in ["", "--parents ", "--exclude=x* "] {
                let started = std::time::Instant::now();
                let output = scene.build(&format!("FROM scratch\nCOPY {flag}{pattern} aaa* /x/\n"), &[]);
                assert!(started.elapsed() < std::time::Duration::from_secs(10), "{pattern}: {:?}", started.elapsed());
                assert!(output.code <= 3, "{}", output.stderr);
            }
        }
        for (pattern, line) in [("[", "COPY [a /x\n"), ("[]a]", "COPY --exclude=[]a] . /x\n")] {
            let output = scene.build(&format!("FROM scratch\n{line}"), &[]);
            assert!(output.code <= 3, "{pattern}: {}", output.stderr);
        }
    });
}

#[test]
fn f8_what_failed_steps_leave_is_removed_whatever_its_modes() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let dockerfile = "FROM evil\nRUN mkdir -p /x/y/z && ln -s $H /x/y/link && ln -s / /x/root && touch /x/y/f && chmod 000 /x/y/z /x/y /x && \
            mkdir -p /deep/$(seq -s / 300) && false\n";
        let output = scene.build(dockerfile, &[]);
        assert_eq!(output.code, 1, "{}", output.stderr);
        let scratch = scene.project.state().join("tmp");
        let left: Vec<String> = super::state::names_below(&scratch);
        assert!(!left.iter().any(|name| name == "fs" || name == "x" || name == "deep"), "{left:?}");
    });
}
