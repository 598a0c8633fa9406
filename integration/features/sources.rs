//! Images of registries: media types, platforms, credentials, settings.

use std::fs;

use super::image::Layout;
use super::{text, tool};
use crate::support::build::{BOTH, Project, User, busybox, run};
use crate::support::registry::{PASSWORD, Registry, USER};

/// Pushes a small image of several platforms; the file `name` tells which.
fn push(project: &Project, name: &str, args: &[&str]) {
    project.file("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\nENV ARCH=$TARGETARCH\n");
    project.file("amd64/name", "amd64").file("arm64/name", "arm64").file("s390x/name", "s390x");
    let _ = project.build(&[&["-t", name, "--push"], args].concat()).success();
}

#[test]
fn images_and_indexes_of_both_kinds() {
    let registry = Registry::start();
    let base = Project::new(User::Root);
    let name = |tag: &str| format!("{}/base/{tag}:1", registry.host);
    push(&base, &name("oci"), &["--platform=linux/amd64"]);
    push(&base, &name("oci-index"), &["--platform=linux/amd64,linux/arm64"]);
    for (tag, platforms) in [("docker", "linux/amd64"), ("docker-index", "linux/amd64,linux/arm64")] {
        let output = format!("type=registry,oci-mediatypes=false,name={}", name(tag));
        let _ = base.build(&["--platform", platforms, "-o", &output]).success();
        let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{}", name(tag))]);
        assert!(raw.contains("application/vnd.docker.distribution.manifest"), "{raw}");
    }
    for user in BOTH {
        for tag in ["oci", "oci-index", "docker", "docker-index"] {
            let project = Project::with(
                user,
                &format!("FROM {}\nCOPY --from=0 /name /copied\nCOPY f /\n", name(tag))
                    .replace("COPY --from=0 /name /copied\n", ""),
            );
            project.file("f", "");
            assert_eq!(project.built(&["--platform=linux/amd64"], "name"), "amd64", "{tag}");
            if tag.ends_with("index") {
                assert_eq!(project.built(&["--platform=linux/arm64"], "name"), "arm64", "{tag}");
                let layout = Layout::built(&project, &["--platform=linux/arm64"]);
                assert_eq!(layout.config()["config"]["Env"][1], "ARCH=arm64");
                let _ = project.build(&["--platform=linux/s390x"]).failure(4).says("s390x");
                let digest: serde_json::Value = serde_json::from_str(&tool(
                    "skopeo",
                    &["inspect", "--tls-verify=false", &format!("docker://{}", name(tag))],
                ))
                .unwrap();
                let pinned =
                    format!("FROM --platform=linux/arm64 {}@{}\n", name(tag), digest["Digest"].as_str().unwrap());
                assert_eq!(Project::with(user, &pinned).built(&[], "name"), "arm64");
            }
        }
    }
}

#[test]
fn pull_asks_again_and_a_moved_tag_is_seen() {
    let registry = Registry::start();
    let name = format!("{}/moving:1", registry.host);
    for user in BOTH {
        let base = Project::with(user, "FROM scratch\nCOPY f /f\n");
        let project = Project::with(user, &format!("FROM {name}\nCOPY g /g\n"));
        project.file("g", "");
        for content in ["one", "two"] {
            base.file("f", content);
            let _ = base.build(&["-t", &name, "--push"]).success();
            assert_eq!(project.built(&["--pull"], "f"), content);
        }
        let again = project.build(&["--pull"]).success();
        assert_eq!(again.count("CACHED"), 2, "{}", again.stderr);
    }
}

#[test]
fn credentials_of_dockers_configuration() {
    let registry = Registry::with_login();
    let name = format!("{}/private:1", registry.host);
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY f /f\n");
        project.file("f", "one");
        let refused = project.build(&["-t", &name, "--push"]).failure(4);
        assert!(refused.stderr.contains("401") || refused.stderr.contains("credentials"), "{}", refused.stderr);
        let pair = tool("sh", &["-c", &format!("printf '{USER}:{PASSWORD}' | base64")]);
        let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{}\"}}}}}}", registry.host, pair.trim());
        let dir = project.home().join(".docker");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.json"), &config).unwrap();
        project.own(&dir);
        let pushed = project.build(&["--debug", "-t", &name, "--push"]).success();
        let _ = pushed.silent_about(PASSWORD).silent_about(pair.trim());
        let child = Project::with(user, &format!("FROM {name}\n"));
        let _ = child.build(&[]).failure(4);
        let mut command = child.rbuild_command(&["-o", text(&child.home().join("out"))]);
        command.arg(child.context()).env("DOCKER_CONFIG", &dir);
        if user == User::Rootless {
            let _ = run(command).success();
            assert_eq!(fs::read_to_string(child.home().join("out/f")).unwrap(), "one");
        }
        let wrong = config.replace(pair.trim(), "YTpi");
        fs::write(dir.join("config.json"), wrong).unwrap();
        let _ = project.build(&["-t", &name, "--push"]).failure(4).says(&registry.host);
    }
}

#[test]
fn settings_of_a_registry() {
    let registry = Registry::with_tls();
    let name = format!("{}/app:1", registry.host);
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY f /f\n");
        project.file("f", "one");
        // Without settings, hosts of this machine are spoken to without TLS.
        let _ = project.build(&["-t", &name, "--push"]).failure(4).says(&registry.host);
        let config = project.home().join("buildkitd.toml");
        fs::write(&config, format!("[registry.\"{}\"]\n  insecure = true\n  keypairs = []\n", registry.host)).unwrap();
        project.own(&config);
        let pushed = project.build(&["--config", text(&config), "-t", &name, "--push"]).success();
        let _ = pushed.says("keypairs`, did you mean `keypair`?");
        let output = format!("type=registry,registry.insecure=true,name={name}");
        let _ = project.build(&["-o", &output]).success();
        fs::write(&config, format!("[registry.\"{}\"]\n  http = true\n", registry.host)).unwrap();
        let _ = project.build(&["--config", text(&config), "-t", &name, "--push"]).failure(4);
        fs::write(&config, "[registry.\"x\"]\n  http = 7\n").unwrap();
        let _ = project.build(&["--config", text(&config)]).failure(2).says("buildkitd.toml:2");
    }
}

#[test]
fn a_stage_that_is_an_image_of_a_registry_can_be_copied_from_and_mounted() {
    let registry = Registry::start();
    let base = Project::with(User::Root, "FROM scratch\nCOPY f /dir/f\n");
    base.file("f", "from the registry");
    let name = format!("{}/lib:1", registry.host);
    let _ = base.build(&["-t", &name, "--push"]).success();
    for user in BOTH {
        let project = super::with_base(
            user,
            &format!(
                "COPY --from={name} /dir /copied\nRUN --mount=from={name},source=/dir,target=/m cp /m/f /mounted\n"
            ),
        );
        let out = project.files(&busybox());
        for path in ["copied/f", "mounted"] {
            assert_eq!(fs::read_to_string(out.join(path)).unwrap(), "from the registry");
        }
        let context = format!("alias=docker-image://{name}");
        let aliased = Project::with(user, "FROM alias\n");
        assert_eq!(aliased.built(&["--build-context", &context], "dir/f"), "from the registry");
    }
}

#[test]
fn a_layer_that_is_there_is_not_pulled_and_a_cached_build_pulls_none() {
    let registry = Registry::start();
    let base = Project::with(User::Root, "FROM scratch\nCOPY f /f\n");
    base.file("f", "one");
    let name = format!("{}/lib:1", registry.host);
    let _ = base.build(&["-t", &name, "--push"]).success();
    let project = Project::with(User::Rootless, &format!("FROM {name}\nCOPY g /g\n"));
    project.file("g", "");
    let target = format!("{}/app:1", registry.host);
    let first = project.build(&["-t", &target, "--push"]).success();
    let again = project.build(&["-t", &target, "--push"]).success();
    assert_eq!(again.count("CACHED"), 2, "{}", again.stderr);
    let layers: serde_json::Value =
        serde_json::from_str(&tool("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{target}")]))
            .unwrap();
    assert_eq!(layers["Layers"].as_array().unwrap().len(), 2);
    // A pull shows the layers it fetches.
    let layer = layers["Layers"][0].as_str().unwrap();
    assert!(first.stderr.contains(layer) && !again.stderr.contains(layer), "{}\n{}", first.stderr, again.stderr);
}
