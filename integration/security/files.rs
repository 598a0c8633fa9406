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
