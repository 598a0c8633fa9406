//! Mounts of steps: options, targets, sources, devices, what is left of them.

use std::fs;

use super::{Image, Scene, as_both, image, lines, tools};
use crate::support::build::{Project, User, run};
use crate::support::image::{BLOCK, CHAR, Member, RawTar};

#[test]
fn m1_targets_and_m2_sources_stay_inside() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        let host = scene.canary.path().to_owned();
        let evil = image(|tar| {
            let tar = tar.link("rootdir", "/").link("up", "../../..").link("magic", "/proc/self/root");
            tar.link("gone", "/nowhere").link("out", &host).dir("d").file("d/f", 0o644, "inside")
        });
        scene.image("evil", &evil);
        for source in
            ["/rootdir", "/up", "/magic", "/gone", "/out", "../../..", "/proc/self/root", "/rootdir$H", "/../..$H"]
        {
            let mount = format!("--mount=type=bind,from=evil,source={source},target=/m");
            let output = scene.build(
                &format!("FROM evil\nRUN {mount} ls -R /m /m$H /m/f 2>&1 | grep -c private; true\n"),
                &["--no-cache"],
            );
            assert!(output.code != 0 || lines(&output) == ["0"], "{source}: {}", output.stderr);
        }
        let mount = "--mount=type=bind,from=evil,source=/rootdir/d,target=/m";
        assert_eq!(
            lines(&scene.build(&format!("FROM evil\nRUN {mount} cat /m/f\n"), &["--no-cache"]).success()),
            ["inside"]
        );
        for target in ["/out/new", "/rootdir/new", "/up/new", "/gone/x"] {
            let output = scene.build(
                &format!("FROM evil\nRUN --mount=type=tmpfs,target={target} touch {target}/f\n"),
                &["--no-cache"],
            );
            assert!(output.code <= 1, "{target}: {}", output.stderr);
        }
    });
}

#[test]
fn m2_ids_of_caches_are_no_paths() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let long = "i".repeat(4096);
        let ids = ["../../../../etc", "/etc", "..", ".", "a/b", "$H", "../../$H", "a\u{1}b", &long];
        for (index, id) in ids.iter().enumerate() {
            let mount = format!("--mount=type=cache,id={id},target=/m");
            let dockerfile =
                format!("FROM evil\nRUN {mount} ls -A /m; touch /m/own-{index}\nRUN {mount} ls -A /m; true\n");
            assert_eq!(lines(&scene.build(&dockerfile, &[]).success()), [format!("own-{index}")], "{id}");
        }
    });
}

#[test]
fn m3_what_is_cleaned_up_is_what_was_made() {
    as_both(|user| {
        for y in ["empty", "y"] {
            let scene = Scene::with(user, &image(|tar| tar));
            let dockerfile = format!(
                "FROM evil\nRUN --mount=type=tmpfs,target=/x/{y} rm -rf /x; mv /x /moved; ln -s $H /x; readlink /x\n\
                 RUN --mount=type=tmpfs,target=/p/q --mount=type=bind,from=evil,source=/bin/sh,target=/r/sh true\n"
            );
            let out = scene.files(&dockerfile, &[]);
            assert_eq!(fs::read_link(out.join("x")).unwrap().to_str(), Some(scene.canary.path()));
            let mut names: Vec<_> =
                fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            assert!(names.iter().all(|name| ["bin", "etc", "moved", "tmp", "x"].contains(&name.as_str())), "{names:?}");
        }
    });
}

#[test]
fn m4_nothing_is_propagated() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        for option in
            ["bind-propagation=shared", "bind-propagation=rshared", "propagation=shared", "exec", "dev=true", "shared"]
        {
            let output = scene.build(&format!("FROM evil\nRUN --mount=type=bind,target=/m,{option} true\n"), &[]);
            assert_ne!(output.code, 0, "{option}");
            let key = option.split('=').next().unwrap();
            assert!(
                output.stderr.contains(key) && output.stderr.contains("Dockerfile:2"),
                "{option}: {}",
                output.stderr
            );
        }
        let mounts = "--mount=type=bind,target=/a --mount=type=cache,target=/b --mount=type=tmpfs,target=/c --mount=type=bind,from=evil,target=/d";
        let dockerfile = format!(
            "FROM evil\nRUN {mounts} grep -c 'shared:\\|master:\\|propagate_from:' /proc/self/mountinfo; true\n"
        );
        assert_eq!(lines(&scene.build(&dockerfile, &[]).success()), ["0"]);
    });
}

#[test]
fn m5_the_context_is_never_written() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        scene.project.file("f", "mine");
        let dockerfile =
            "FROM evil\nRUN --mount=type=bind,rw,target=/c touch /c/new && rm /c/f && echo x > /c/Dockerfile\n";
        let output = scene.build(dockerfile, &[]);
        assert!(output.code <= 1);
        let context = scene.project.context();
        assert_eq!(fs::read_to_string(context.join("f")).unwrap(), "mine");
        assert_eq!(
            (fs::read_to_string(context.join("Dockerfile")).unwrap().as_str(), context.join("new").exists()),
            (dockerfile, false)
        );
        assert_eq!(output.code, 0, "{}", output.stderr);
    });
}

#[test]
fn m6_readonly_cannot_be_taken_back() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar.dir("d").file("d/f", 0o644, "kept")));
        let mounts = "--mount=type=bind,from=evil,source=/d,target=/a --mount=type=cache,ro,target=/b \
                      --mount=type=bind,target=/c --mount=type=secret,id=s,target=/s/f";
        let dockerfile = format!(
            "FROM evil\nRUN {mounts} for m in /a /b /c /s/f; do mount -o remount,rw,bind $m 2>/dev/null && echo remounted $m; umount $m 2>/dev/null && echo unmounted $m; \
             mount -o bind /tmp $m 2>/dev/null && echo covered $m; done; for f in /a/f /a/new /b/new /c/new /s/f; do (echo x > $f) 2>/dev/null && echo wrote $f; done; \
             for m in /a /b /c /s/f; do grep \" $m r\" /proc/self/mountinfo | cut -d' ' -f6; done\n"
        );
        let output = scene.build(&dockerfile, &["--secret", "id=s,src=Dockerfile"]).failure(2);
        assert!(output.stderr.contains("secret s"), "{}", output.stderr);
        fs::write(scene.project.home().join("s"), "x").unwrap();
        scene.project.own(&scene.project.home().join("s"));
        let output = scene.build(&dockerfile, &["--secret", "id=s,src=s"]).success();
        let flags = lines(&output);
        assert_eq!(flags.len(), 4, "{}", output.stderr);
        for flags in &flags {
            assert!(flags.starts_with("ro,nosuid,nodev"), "{flags}");
        }
        assert!(flags[3].contains("noexec"), "{flags:?}");
    });
}

#[test]
fn m7_a_tree_that_a_step_holds_is_not_what_others_copy_from() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar.file("f", 0o644, "sealed")));
        // A step changes its own tree as long as another one reads the tree both stand on.
        let dockerfile = "FROM evil AS writing\nRUN --mount=type=cache,id=m7,target=/m i=0; while [ ! -e /m/done ] && [ $i -lt 100 ]; do echo changed > /f; touch /new; sleep 0.1; i=$((i+1)); done\n\
            FROM evil AS reading\nRUN --mount=type=cache,id=m7,target=/m --mount=from=evil,target=/e sleep 0.5; cat /f /e/f; echo; ls /new /e/new 2>/dev/null; touch /m/done\n\
            FROM scratch\nCOPY --from=writing /f /w\nCOPY --from=reading /f /r\nCOPY --from=evil /f /e\n";
        let out = scene.files(dockerfile, &[]);
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!((read("w"), read("r"), read("e")), ("changed\n".into(), "sealed".into(), "sealed".into()));
    });
}

#[test]
fn m9_targets_of_the_sandbox_are_refused() {
    as_both(|user| {
        let evil = image(|tar| {
            let tar = tar.link("p", "/proc").link("s", "/sys/fs").link("n", "/dev/null").link("t", "/dev/pts");
            tar.link("q", "/dev/mqueue").link("c", "/sys/fs/cgroup").link("m", "/sys/firmware").link("a", "/proc/acpi")
        });
        let scene = Scene::with(user, &evil);
        let long = format!("/{}", "t".repeat(5000));
        let targets = [
            "/",
            "//",
            "/.",
            "/proc",
            "/proc/self",
            "/proc/sys/kernel",
            "/x/../proc",
            "/sys",
            "/sys/fs",
            "/dev",
            "/dev/null",
            "/dev/./zero",
            "/p",
            "/p/1",
            "/s",
            "/n",
            "/t",
            "/q",
            "/c",
            "/m",
            "/a",
            "/a/x",
            &long,
        ];
        for target in targets {
            for kind in ["tmpfs", "cache", "bind,from=evil,source=/bin"] {
                let dockerfile = format!("FROM evil\nRUN --mount=type={kind},target={target} echo reached\n");
                let output = scene.build(&dockerfile, &[]);
                assert!(output.code != 0 && lines(&output).is_empty(), "{kind} {target}: {}", output.stderr);
            }
        }
        let dockerfile = "FROM evil\nRUN ln -s /dev/shm /l\nRUN --mount=type=tmpfs,target=/dev/shm --mount=type=tmpfs,target=/dev/shm/d/e \
            --mount=type=cache,target=/l/f stat -f -c %T /dev/shm /l/d/e; touch /dev/shm/f/g\n";
        assert_eq!(lines(&scene.build(dockerfile, &[]).success()), ["tmpfs", "tmpfs"]);
    });
}

#[test]
fn m10_any_name_of_the_state_directory_works() {
    as_both(|user| {
        let project = Project::new(user);
        let context = image(|tar| tar).named(&project, "evil");
        project.file("Dockerfile", "FROM evil\nRUN echo works > /f\nRUN cat /f\n");
        let mut command = project.command(crate::support::build::binary());
        command.arg("--root").arg(project.home().join("a:b,c\\d =e\"")).args(["--progress", "plain"]);
        command.args(context).arg(project.context());
        let output = run(command);
        assert_eq!(output.code, 0, "{}", output.stderr);
        assert_eq!(lines(&output), ["works"]);
    });
}

#[test]
fn m12_devices_cannot_be_opened() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let mounts =
            "--mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=bind,from=evil,rw,target=/b";
        let dockerfile = format!(
            "FROM evil\nRUN {mounts} for d in / /c /t /b /dev /dev/shm /tmp; do for n in 'b 8 0' 'b 254 0' 'c 1 1' 'c 1 3'; do \
             rm -f $d/node; mknod $d/node $n 2>/dev/null || {{ echo refused; continue; }}; \
             (head -c 1 $d/node) 2>&1 | grep -o 'Permission denied' || echo opened; rm -f $d/node; done; done\n"
        );
        let output = scene.build(&dockerfile, &[]).success();
        assert_eq!(lines(&output).len(), 28);
        let expected = if user == User::Root { "Permission denied" } else { "refused" };
        assert!(lines(&output).iter().all(|line| line == expected), "{}", output.stderr);
        // The same from a layer, where rootless may refuse the image as a whole.
        let node =
            |kind, name: &'static str, device| Member { device, mode: 0o666, ..Member::new(kind, name.as_bytes()) };
        let layer = RawTar::default().member(&node(BLOCK, "sda", (8, 0))).member(&node(CHAR, "mem", (1, 1)));
        let scene = Scene::with(user, &Image::of([tools(), layer]));
        let dockerfile = "FROM evil\nRUN for d in sda mem; do (head -c 1 /$d) 2>&1 | grep -o 'Permission denied'; [ ! -e /$d ] || echo there; done\n";
        let output = scene.build(dockerfile, &[]);
        match user {
            User::Root => {
                assert_eq!(lines(&output.success()), ["Permission denied", "there", "Permission denied", "there"])
            }
            User::Rootless => assert!(
                !lines(&output).iter().any(|line| line != "Permission denied" && line != "there"),
                "{}",
                output.stderr
            ),
        }
    });
}
