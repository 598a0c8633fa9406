//! The flags of the command line, and exit codes.

use std::fs;

use super::image::Layout;
use super::{fed, greeter, text, with_base};
use crate::support::build::{BOTH, Project, User, binary, busybox, run};

#[test]
fn the_context_defaults_to_the_working_directory_and_build_says_the_same() {
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY a /a\n");
        project.file("a", "one");
        let state = project.state();
        for words in [&["-o", "../first"][..], &["build", "-o", "../second"], &["build", "-o", "../third", "."]] {
            let mut command = project.command(binary());
            command.args(words).arg("--root").arg(&state).current_dir(project.context());
            let _ = run(command).success().says("#1 [internal] load build definition from Dockerfile");
        }
        for out in ["first", "second", "third"] {
            assert_eq!(fs::read_to_string(project.home().join(out).join("a")).unwrap(), "one");
        }
    }
}

#[test]
fn targets_arguments_and_labels() {
    for user in BOTH {
        let project = with_base(
            user,
            "ARG A=default\nARG B=unset\nARG C\nRUN echo $A $B ${C-none} > /args\nLABEL own=1\nFROM base AS last\nRUN false\n",
        );
        project.file("Dockerfile", fs::read_to_string(project.context().join("Dockerfile")).unwrap());
        let context = project.context();
        let mut command = project.rbuild_command(&["--target", "base", "--build-arg", "A=given", "--build-arg", "B"]);
        let out = project.home().join("out");
        command.args(["--build-arg", "C", "-o", text(&out)]).args(busybox()).arg(&context).env("B", "from outside");
        let _ = run(command).success();
        assert_eq!(fs::read_to_string(out.join("args")).unwrap(), "given from outside none\n");
        let labels = ["--target=base", "--label", "a=1", "--label", "b=x=y", "--label", "own=2"];
        let layout = Layout::built(&project, &[&labels, &busybox()[..]].concat());
        let expected = serde_json::json!({"a": "1", "b": "x=y", "own": "2"});
        assert_eq!(layout.config()["config"]["Labels"], expected);
    }
}

#[test]
fn an_argument_the_dockerfile_does_not_have_and_a_predefined_one_change_nothing() {
    let project = Project::with(User::Root, "FROM scratch\nCOPY a /\n");
    project.file("a", "");
    let layout =
        Layout::built(&project, &["--build-arg", "HTTP_PROXY=http://secret.example", "--build-arg", "NOBODY=1"]);
    let config = layout.config().to_string();
    assert!(!config.contains("secret.example") && !config.contains("NOBODY"), "{config}");
}

#[test]
fn annotations_go_where_they_say() {
    let project = Project::with(User::Root, "FROM scratch\nCOPY a /\n");
    project.file("a", "");
    let args = ["--annotation", "one=1", "--annotation", "manifest:two=2", "--annotation", "index:three=3"];
    let several = [&args[..], &["--platform", "linux/amd64,linux/arm64"]].concat();
    let layout = Layout::built(&project, &several);
    let index = layout.root();
    assert_eq!(index["annotations"], serde_json::json!({"three": "3"}));
    let manifest = layout.document(&index["manifests"][1]["digest"]);
    assert_eq!(manifest["annotations"], serde_json::json!({"one": "1", "two": "2"}));
    let _ = project.build(&["--annotation", "nothing"]).failure(2).says("--annotation");
}

#[test]
fn platforms_without_run_need_no_emulation() {
    for user in BOTH {
        let dockerfile = "FROM scratch\nARG TARGETARCH\nARG TARGETVARIANT\nCOPY $TARGETARCH$TARGETVARIANT /\n";
        let project = Project::with(user, dockerfile);
        project.file("amd64/name", "amd64").file("arm64/name", "arm64").file("armv7/name", "armv7");
        let own = Layout::built(&project, &[]);
        assert_eq!(own.config()["architecture"], rbuild::image::Platform::host().architecture.as_str());
        let foreign = Layout::built(&project, &["--platform", "linux/arm/v7"]);
        assert_eq!(foreign.config()["architecture"], "arm");
        assert_eq!(foreign.config()["variant"], "v7");
        assert_eq!(project.built(&["--platform", "linux/arm64"], "name"), "arm64");
        let several = Layout::built(&project, &["--platform", "linux/amd64,linux/arm/v7", "--platform", "linux/arm64"]);
        let root = several.root();
        assert_eq!(root["mediaType"], "application/vnd.oci.image.index.v1+json");
        let platforms = root["manifests"].as_array().unwrap().iter().map(|entry| {
            let config = several.document(&several.document(&entry["digest"])["config"]["digest"]);
            assert_eq!(config["architecture"], entry["platform"]["architecture"]);
            entry["platform"].to_string()
        });
        let expected = [
            r#"{"architecture":"amd64","os":"linux"}"#,
            r#"{"architecture":"arm","os":"linux","variant":"v7"}"#,
            r#"{"architecture":"arm64","os":"linux"}"#,
        ];
        assert_eq!(platforms.collect::<Vec<_>>(), expected);
        let out = project.home().join("split");
        let _ = project.build(&["--platform=linux/amd64,linux/arm64", "-o", text(&out)]).success();
        assert_eq!(fs::read_to_string(out.join("linux_arm64/name")).unwrap(), "arm64");
    }
}

#[test]
fn no_cache_and_its_filter() {
    for user in BOTH {
        let project =
            with_base(user, "FROM base AS one\nRUN echo 1 > /f\nFROM base\nCOPY --from=one /f /f\nRUN echo 2 > /g\n");
        let _ = project.build(&busybox()).success();
        let all = project.build(&[&["--no-cache"], &busybox()[..]].concat()).success();
        assert_eq!(all.count("CACHED"), 0, "{}", all.stderr);
        let some = project.build(&[&["--no-cache-filter", "one"], &busybox()[..]].concat()).success();
        let ran = |output: &str, name: &str| {
            let line = output.lines().find(|line| line.contains(name)).unwrap();
            let number = line.split(' ').next().unwrap();
            !output.contains(&format!("{number} CACHED"))
        };
        assert!(ran(&some.stderr, "[one 1/1] RUN echo 1"), "{}", some.stderr);
        assert!(!ran(&some.stderr, "[base 2/2] RUN"), "{}", some.stderr);
    }
}

#[test]
fn quiet_prints_the_digest_and_files_tell_it_too() {
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY a /\n");
        project.file("a", "");
        let (iid, metadata) = (project.home().join("iid"), project.home().join("metadata.json"));
        let layout = project.home().join("layout");
        let output = format!("type=oci,tar=false,dest={}", layout.display());
        let files = ["--iidfile", text(&iid), "--metadata-file", text(&metadata)];
        let args = [&["-q", "-t", "example.org/app:1", "-t", "app:2", "-o", &output], &files[..]].concat();
        let said = project.build(&args).success();
        assert_eq!(said.stderr, "");
        let layout = Layout(layout);
        let config_digest = layout.root()["config"]["digest"].as_str().unwrap().to_owned();
        assert_eq!(said.stdout, format!("{config_digest}\n"));
        assert_eq!(fs::read_to_string(&iid).unwrap(), config_digest);
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
        assert_eq!(json["containerimage.config.digest"], config_digest.as_str());
        assert_eq!(json["containerimage.digest"], layout.digest().as_str());
        assert_eq!(json["containerimage.descriptor"]["digest"], layout.digest().as_str());
        assert_eq!(json["containerimage.descriptor"]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(json["image.name"], "example.org/app:1,docker.io/library/app:2");
        let names: Vec<_> =
            layout.index()["manifests"].as_array().unwrap().iter().map(|m| m["annotations"].clone()).collect();
        assert_eq!(names[0]["io.containerd.image.name"], "example.org/app:1");
        assert_eq!(names[1]["org.opencontainers.image.ref.name"], "2");
    }
}

#[test]
fn a_failed_build_leaves_no_id_of_an_earlier_one() {
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY a /\n");
        let (iid, metadata) = (project.home().join("iid"), project.home().join("metadata.json"));
        for path in [&iid, &metadata] {
            fs::write(path, "old").unwrap();
            project.own(path);
        }
        let args = ["--iidfile", text(&iid), "--metadata-file", text(&metadata), "-o", "type=oci,dest=image.tar"];
        let _ = project.build(&args).failure(3);
        assert!(!iid.exists());
        // That is what docker buildx does.
        assert_eq!(fs::read_to_string(&metadata).unwrap(), "old");
        project.file("a", "");
        let _ = project.build(&args).success();
        assert!(fs::read_to_string(&iid).unwrap().starts_with("sha256:"));
    }
}

#[test]
fn network_hosts_memory_and_limits_of_steps() {
    for user in BOTH {
        let script = "RUN ls /sys/class/net | wc -l > /net; cat /etc/hosts > /h; ulimit -n > /n; ulimit -Hn >> /n; \
                      df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2 > /shm\nFROM scratch\nCOPY --from=0 /h /n /shm /net /\n";
        let project = with_base(user, script);
        let args = ["--network", "none", "--add-host", "one:10.1.2.3", "--add-host", "six=[::7]", "--shm-size", "3m"];
        let out = project.files(&[&args[..], &["--ulimit", "nofile=100:200"], &busybox()[..]].concat());
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(read("net"), "1\n", "a network of its own has the loopback only");
        assert!(read("h").contains("10.1.2.3\tone") && read("h").contains("::7\tsix"), "{}", read("h"));
        assert_eq!(read("n"), "100\n200\n");
        assert_eq!(read("shm"), "3072\n");
        for (flag, value) in [("shm-size", "x"), ("add-host", "a"), ("ulimit", "nofile"), ("network", "bridge")] {
            let _ = project.build(&[&format!("--{flag}"), value]).failure(2).says(flag);
        }
    }
}

#[test]
fn the_hosts_network_is_the_default_and_can_be_named() {
    let port = greeter();
    for user in BOTH {
        let project = with_base(user, &format!("RUN nc 127.0.0.1 {port} < /dev/null > /said || true\n"));
        for (mode, said) in [("default", "here\n"), ("host", "here\n"), ("none", "")] {
            let args = [&["--no-cache", "--network", mode], &busybox()[..]].concat();
            assert_eq!(project.built(&args, "said"), said, "{mode}");
        }
        let own = with_base(user, &format!("RUN --network=none nc 127.0.0.1 {port} < /dev/null > /said || true\n"));
        assert_eq!(own.built(&busybox(), "said"), "");
    }
}

#[test]
fn debug_logs_without_secrets() {
    for user in BOTH {
        let project = with_base(user, "RUN --mount=type=secret,id=key test -s /run/secrets/key\n");
        project.file("key", "hunter-two-secret");
        let key = format!("id=key,src={}", project.context().join("key").display());
        let output = project.build(&[&["--debug", "--secret", &key], &busybox()[..]].concat()).success();
        let output = output.says("DEBUG").silent_about("hunter-two");
        assert_eq!(output.stdout, "");
    }
}

#[test]
fn exit_codes() {
    for user in BOTH {
        let failing = with_base(user, "RUN exit 7\n");
        let _ = failing.build(&busybox()).failure(1).says("exit code: 7");
        let _ = failing.build(&["--tarrget", "x"]).failure(2).says("--target");
        let mut command = failing.command(binary());
        command.args(["--progress", "plian"]).arg(failing.context());
        let _ = run(command).failure(2).says("plain");
        let _ = failing.build(&["--config", "/nonexistent.toml"]).failure(2).says("/nonexistent.toml");
        let _ = Project::with(user, "FORM scratch\n").build(&[]).failure(3).says("Dockerfile:1");
        let _ = Project::with(user, "FROM scratch\nCOPY none /\n").build(&[]).failure(3).says("none");
        let _ = Project::new(user).build(&[]).failure(3).says("Dockerfile");
        let _ = Project::with(user, "FROM 127.0.0.1:1/none:1\n").build(&[]).failure(4).says("127.0.0.1:1");
        let _ = Project::with(user, "FROM scratch\n").build(&["--root", "/proc/none"]).failure(5).says("--root");
    }
}

#[test]
fn flags_of_later_versions_are_refused_by_name() {
    let project = Project::with(User::Root, "FROM scratch\n");
    for args in [
        &["--cache-from", "type=gha"][..],
        &["--cache-to", "type=s3,bucket=a"],
        &["--attest", "type=sbom"],
        &["--sbom=true"],
        &["--provenance=mode=max"],
        &["--builder", "other"],
        &["--resource=x"],
        &["--squash"],
        &["--rm=false"],
        &["--security-opt", "seccomp=unconfined"],
        &["--allow", "everything"],
    ] {
        let flag = args[0].split('=').next().unwrap();
        let _ = project.build(args).failure(2).says(flag);
    }
    let _ = project.build(&["--provenance=false", "--sbom=false", "--rm", "--force-rm", "--compress"]).success();
}

#[test]
fn the_state_directory_is_where_root_says_or_the_users_own() {
    let project = Project::with(User::Rootless, "FROM scratch\nCOPY a /\n");
    project.file("a", "");
    let mut command = project.command(binary());
    command.arg(project.context());
    let _ = run(command).success();
    assert!(project.home().join(".local/share/rbuild").is_dir());
    let mut command = project.command(binary());
    command.arg(project.context()).env("XDG_DATA_HOME", project.home().join("data"));
    let _ = run(command).success();
    assert!(project.home().join("data/rbuild").is_dir() && !project.state().exists());
}

#[test]
fn a_lone_dash_takes_a_dockerfile_of_standard_input() {
    for user in BOTH {
        let project = Project::new(user);
        let out = project.home().join("out");
        let command = project.rbuild_command(&["-o", text(&out), "-"]);
        let _ = fed(command, b"FROM scratch\nCOPY <<EOF /a\nhello\nEOF\n").success();
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "hello\n");
        let _ = fed(project.rbuild_command(&["-"]), b"FROM scratch\nCOPY a /\n").failure(3);
        let _ = fed(project.rbuild_command(&["-f", "-", "-"]), b"FROM scratch\n").failure(2);
    }
}
