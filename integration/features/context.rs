//! Where files come from: contexts on disk and on standard input, named ones, ignore files.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::image::Layout;
use super::{fed, text, tool, with_base};
use crate::support::build::{BOTH, Project, busybox, run};
use crate::support::image::RawTar;

/// A tar of a project's context.
fn archive(project: &Project, compression: &[&str]) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.arg("-C").arg(project.context()).args(compression).args(["-c", "-f", "-", "."]);
    let output = command.output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn a_tar_on_standard_input_is_a_context() {
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY . /\n");
        project.file("a", "one").file("d/b", "two").file("other/Dockerfile", "FROM scratch\nCOPY d/b /inner\n");
        project.file(".dockerignore", "d\n").file("other/Dockerfile.dockerignore", "a\n");
        for flag in [&[][..], &["-z"], &["-j"], &["-J"], &["--zstd"]] {
            let out = project.home().join("out");
            let tar = archive(&project, flag);
            let _ = fs::remove_dir_all(&out);
            let _ = fed(project.rbuild_command(&["-o", text(&out), "-"]), &tar).success();
            assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "one", "{flag:?}");
            assert!(!out.join("d").exists());
        }
        let out = project.home().join("inner");
        let command = project.rbuild_command(&["-o", text(&out), "-f", "other/Dockerfile", "-"]);
        let _ = fed(command, &archive(&project, &["-z"])).success();
        assert_eq!(fs::read_to_string(out.join("inner")).unwrap(), "two");
        let command = project.rbuild_command(&["-f", "none/Dockerfile", "-"]);
        let _ = fed(command, &archive(&project, &[])).failure(3).says("none/Dockerfile");
    }
}

#[test]
fn a_tar_on_standard_input_that_is_cut_or_hostile_is_told_and_harms_nothing() {
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY . /\n");
        project.file("a", vec![7; 4000]);
        let outside = project.home().join("outside");
        fs::write(&outside, "kept").unwrap();
        let dockerfile = || RawTar::default().file("Dockerfile", 0o644, "FROM scratch\nCOPY . /\n");
        let whole = archive(&project, &[]);
        let (escape, absolute) = ("x/../../../outside", outside.to_str().unwrap());
        for (what, tar) in [
            ("cut in a file", whole[..whole.len() / 2].to_vec()),
            ("cut gzip", archive(&project, &["-z"])[..60].to_vec()),
            ("upwards", dockerfile().file(escape, 0o644, "changed").end()),
            ("a hard link out", dockerfile().hard("h", "../../outside").end()),
        ] {
            let said = fed(project.rbuild_command(&["-o", "out", "-"]), &tar).failure(3);
            assert!(said.stderr.contains("context"), "{what}: {}", said.stderr);
            assert_eq!(fs::read_to_string(&outside).unwrap(), "kept", "{what}");
        }
        // What is no archive is taken for a Dockerfile, as docker does; not all of it is shown.
        let said = fed(project.rbuild_command(&["-"]), &[0xa5; 60_000]).failure(3).says("unknown instruction");
        assert!(said.stderr.len() < 10_000, "{} bytes", said.stderr.len());
        // Names from the root and links that lead out are only names of the context.
        let tar = dockerfile().file(absolute, 0o644, "changed").link("s", "/etc/passwd");
        let tar = tar.link("l", project.home().to_str().unwrap()).file("l/outside", 0o644, "changed").end();
        let _ = fed(project.rbuild_command(&["-o", "out", "-"]), &tar).success();
        assert_eq!(fs::read_to_string(&outside).unwrap(), "kept");
        assert_eq!(fs::read_link(project.home().join("out/s")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(fs::read_to_string(project.home().join("out").join(&absolute[1..])).unwrap(), "changed");
    }
}

#[test]
fn the_dockerfile_may_be_elsewhere() {
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY a /default\n");
        project.file("a", "one").file("sub/other", "FROM scratch\nCOPY a /inside\n");
        let outside = project.home().join("outside");
        fs::write(&outside, "FROM scratch\nCOPY a /outside\n").unwrap();
        assert_eq!(project.built(&["-f", text(&outside)], "outside"), "one");
        assert_eq!(project.built(&["-f", text(&project.context().join("sub/other"))], "inside"), "one");
        let out = project.home().join("piped");
        let context = project.context();
        let command = project.rbuild_command(&["-o", text(&out), "-f", "-", text(&context)]);
        let _ = fed(command, b"FROM scratch\nCOPY a /piped\n").success();
        assert_eq!(fs::read_to_string(out.join("piped")).unwrap(), "one");
        let small = Project::new(user);
        small.file("dockerfile", "FROM scratch\nCOPY dockerfile /\n");
        assert!(small.files(&[]).join("dockerfile").exists());
    }
}

#[test]
fn ignore_files_rule_and_a_dockerfiles_own_comes_first() {
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY . /\n");
        project.file("keep.txt", "").file("drop.log", "").file("d/drop.log", "").file("d/keep.log", "");
        project.file("secret/key", "").file("secret/public", "");
        project.file(".dockerignore", "# comment\n**/*.log\n!d/keep.log\nsecret\n!secret/public\nDockerfile*\n");
        project
            .file("Dockerfile.own", "FROM scratch\nCOPY . /\n")
            .file("Dockerfile.own.dockerignore", "*\n!drop.log\n");
        let listed = |args: &[&str]| {
            let out = project.files(args);
            let found = tool("sh", &["-c", &format!("cd {} && find . -type f | sort | tr '\\n' ' '", text(&out))]);
            fs::remove_dir_all(out).unwrap();
            found
        };
        assert_eq!(listed(&[]), "./.dockerignore ./d/keep.log ./keep.txt ./secret/public ");
        let own = project.context().join("Dockerfile.own");
        assert_eq!(listed(&["-f", text(&own)]), "./drop.log ");
    }
}

#[test]
fn named_contexts_replace_stages_and_images() {
    for user in BOTH {
        let dockerfile = "FROM scratch AS stage\nCOPY none /\nFROM alpine:3.20 AS image\nFROM scratch\n\
                          COPY --from=stage s /stage\nCOPY --from=image /deep/i /image\nCOPY --from=extra . /extra/\n\
                          COPY --from=docker.io/library/other:1 o /other\n";
        let project = Project::with(user, dockerfile);
        let dir = |name: &str, file: &str| {
            let place = project.home().join(name);
            fs::create_dir_all(place.join(file).parent().unwrap()).unwrap();
            fs::write(place.join(file), name).unwrap();
            place.display().to_string()
        };
        let (stage, image, extra) = (dir("stage", "s"), dir("image", "deep/i"), dir("extra", "e"));
        fs::write(project.home().join("extra/.dockerignore"), "hidden\n").unwrap();
        fs::write(project.home().join("extra/hidden"), "").unwrap();
        let other = dir("other", "o");
        let contexts = [
            format!("--build-context=stage={stage}"),
            format!("--build-context=alpine:3.20={image}"),
            format!("--build-context=extra={extra}"),
            format!("--build-context=other:1={other}"),
        ];
        let out = project.files(&contexts.each_ref().map(String::as_str));
        for (path, content) in [("stage", "stage"), ("image", "image"), ("extra/e", "extra"), ("other", "other")] {
            assert_eq!(fs::read_to_string(out.join(path)).unwrap(), content);
        }
        assert!(!out.join("extra/hidden").exists());
        let _ = project.build(&["--build-context", "a=/nonexistent"]).failure(2).says("/nonexistent");
        let _ = project.build(&["--build-context", "a=ftp://example.org/x"]).failure(2).says("ftp://example.org/x");
    }
}

#[test]
fn a_layout_is_a_context_by_tag_by_digest_and_by_neither() {
    for user in BOTH {
        let base = Project::with(user, "FROM scratch\nCOPY a /a\nENV FROM_BASE=1\n");
        base.file("a", "one");
        let first = Layout::built(&base, &["-t", "x:1"]);
        let place = base.home().join("both");
        for (text, tag) in [("one", "x:1"), ("two", "x:2")] {
            base.file("a", text);
            let output = format!("type=oci,tar=false,dest={}", place.display());
            let _ = base.build(&["-t", tag, "-o", &output]).success();
        }
        let both = Layout(place.clone());
        let digest = both.index()["manifests"][1]["digest"].as_str().unwrap().to_owned();
        let project = Project::with(user, "FROM lay\nCOPY b /b\n");
        project.file("b", "");
        let named = |value: &str| format!("lay=oci-layout://{value}");
        let read = |value: &str| project.built(&["--build-context", &named(value)], "a");
        assert_eq!(read(&format!("{}:1", place.display())), "one");
        assert_eq!(read(&format!("{}:2", place.display())), "two");
        assert_eq!(read(&format!("{}@{digest}", place.display())), "two");
        assert_eq!(read(text(&first.0)), "one");
        let built = Layout::built(&project, &["--build-context", &named(&format!("{}:2", place.display()))]);
        let env = built.config()["config"]["Env"].to_string();
        assert!(env.contains("FROM_BASE=1"), "{env}");
        assert_eq!(built.layers()[0], both.document(&serde_json::json!(digest))["layers"][0]["digest"]);
        let _ = project
            .build(&["--build-context", &named(&format!("{}:3", place.display()))])
            .failure(4)
            .says("has no image 3")
            .says("it has 1, 2");
    }
}

#[test]
fn the_log_of_the_build_may_be_in_its_context() {
    for user in BOTH {
        let project = with_base(user, "COPY . /src\nRUN cat /src/build.log\n");
        project.file("build.log", "");
        let log = fs::OpenOptions::new().append(true).open(project.context().join("build.log")).unwrap();
        let mut command = project.rbuild_command(&[&busybox()[..], &["-o", "out"]].concat());
        command.arg(project.context()).stderr(log);
        let _ = run(command).success();
        let copied = fs::read_to_string(project.home().join("out/src/build.log")).unwrap();
        let whole = fs::read_to_string(project.context().join("build.log")).unwrap();
        assert!(copied.contains("load build definition") && whole.starts_with(&copied), "{copied}");
    }
}
