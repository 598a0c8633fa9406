//! `rbuild imagetools` against real registries.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::platforms::two_stages;
use super::{text, tool};
use crate::support::build::{BOTH, Output, Project, User, binary, run};
use crate::support::emulation::Emulator;
use crate::support::registry::{PASSWORD, Registry, USER};

fn imagetools(project: &Project, args: &[&str]) -> Output {
    let mut command = project.command(binary());
    command.arg("imagetools").args(args);
    run(command)
}

fn raw(name: &str) -> String {
    tool("skopeo", &["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")])
}

/// A project with one small layer a platform.
fn copies(user: User) -> Project {
    let project = Project::with(user, "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /name\nCMD [\"/name\"]\n");
    project.file("amd64", "amd64").file("arm64", "arm64");
    project
}

/// Pushes the image of one platform without a tag, and returns its digest.
fn push_by_digest(project: &Project, name: &str, platform: &str) -> String {
    let metadata = project.home().join("metadata");
    let output = format!("type=image,name={name},push-by-digest=true,name-canonical=true,push=true");
    let _ = project.build(&["--platform", platform, "-o", &output, "--metadata-file", text(&metadata)]).success();
    let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    metadata["containerimage.digest"].as_str().unwrap().to_owned()
}

#[test]
fn an_index_merged_from_pushes_by_digest_is_that_of_one_build() {
    let registry = Registry::start();
    let _emulator = Emulator::arm64();
    for user in BOTH {
        let project = two_stages(user, &registry);
        let name = format!("{}/{user:?}/app", registry.host).to_lowercase();
        let built = format!("{name}:built");
        let _ = project.build(&["--platform", "linux/amd64,linux/arm64", "--push", "-t", &built]).success();
        let digests = ["linux/amd64", "linux/arm64"].map(|platform| push_by_digest(&project, &name, platform));
        let merged = format!("{name}:merged");
        let _ = imagetools(&project, &["create", "-t", &merged, &digests[0], &digests[1]]).success();
        assert_eq!(raw(&merged), raw(&built), "byte for byte");
        let pinned = digests.map(|digest| format!("{name}@{digest}"));
        let args = ["create", "--dry-run", &pinned[0], &pinned[1]];
        assert_eq!(imagetools(&project, &args).success().stdout, format!("{}\n", raw(&built)));
    }
}

#[test]
fn images_are_copied_between_repositories_and_registries() {
    let (one, other) = (Registry::with_access_log(), Registry::with_login());
    for user in BOTH {
        let project = copies(user);
        let who = format!("{user:?}").to_lowercase();
        let from = format!("{}/{who}/from:1", one.host);
        let _ = project.build(&["--platform", "linux/amd64,linux/arm64", "--push", "-t", &from]).success();
        let beside = format!("{}/{who}/beside:1", one.host);
        let _ = imagetools(&project, &["create", "-t", &beside, &from]).success();
        assert_eq!(raw(&beside), raw(&from));
        let mounts = one.requests().iter().filter(|line| line.contains(&format!("from={who}/from"))).count();
        assert!(mounts >= 2, "layers are linked and not sent:\n{}", one.requests().join("\n"));

        let elsewhere = format!("{}/{who}/there:1", other.host);
        let refused = imagetools(&project, &["create", "-t", &elsewhere, &from]).failure(4);
        let _ = refused.says(&other.host);
        fs::create_dir_all(project.home().join(".docker")).unwrap();
        let account = base64(&format!("{USER}:{PASSWORD}"));
        let accounts = format!(r#"{{"auths":{{"{}":{{"auth":"{account}"}}}}}}"#, other.host);
        fs::write(project.home().join(".docker/config.json"), accounts).unwrap();
        project.own(&project.home().join(".docker"));
        let metadata = project.home().join("created");
        let args = ["create", "--metadata-file", text(&metadata), "-t", &elsewhere, "-p", "linux/arm64", &from];
        let _ = imagetools(&project, &args).success().says("pushing");
        let created: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
        assert_eq!(created["image.name"], format!("{}/{who}/there", other.host));
        let inspected = imagetools(&project, &["inspect", &elsewhere, "--format", "{{.Manifest.Digest}}"]).success();
        assert_eq!(created["containerimage.descriptor"]["digest"], inspected.stdout.as_str());
        let there = imagetools(&project, &["inspect", "--raw", &elsewhere]).success().stdout;
        let index: Value = serde_json::from_str(&there).unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
        assert_eq!(index["manifests"][0]["platform"]["architecture"], "arm64");
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn sources_are_added_described_and_annotated() {
    let registry = Registry::start();
    let project = copies(User::Root);
    let name = format!("{}/parts", registry.host);
    let (amd, arm) = (push_by_digest(&project, &name, "linux/amd64"), push_by_digest(&project, &name, "linux/arm64"));
    let tag = format!("{name}:all");
    let _ = imagetools(&project, &["create", "-t", &tag, &amd]).success();
    let descriptor = project.home().join("descriptor");
    let platform = r#"{"os":"linux","architecture":"arm64","variant":"v9"}"#;
    fs::write(
        &descriptor,
        format!("{{\"digest\":\"{arm}\",\"platform\":{platform},\"annotations\":{{\"k\":\"v\"}}}}\n"),
    )
    .unwrap();
    let args = ["create", "--append", "-t", &tag, "-f", text(&descriptor), "--annotation", "index:note=here"];
    let _ = imagetools(&project, &args).success();
    let index: Value = serde_json::from_str(&raw(&tag)).unwrap();
    assert_eq!(index["annotations"]["note"], "here");
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!((&entries[0]["digest"], &entries[1]["digest"]), (&amd.as_str().into(), &arm.as_str().into()));
    assert_eq!((&entries[1]["platform"]["variant"], &entries[1]["annotations"]["k"]), (&"v9".into(), &"v".into()));
    let single = format!("{name}:single");
    let pinned = format!("{name}@{amd}");
    let _ = imagetools(&project, &["create", "--prefer-index=false", "-t", &single, &pinned]).success();
    assert_eq!(raw(&single), raw(&pinned));
    let missing = format!("{name}@sha256:{}", "0".repeat(64));
    let _ = imagetools(&project, &["create", "-t", &tag, &missing]).failure(4).says(&missing);
    let elsewhere = format!("{}/other:1", registry.host);
    let _ = imagetools(&project, &["create", "-t", &elsewhere, &tag, &amd]).failure(2).says("REPOSITORY@");
    let _ =
        imagetools(&project, &["create", "-t", &tag, "--annotation", "k=v", &amd]).failure(2).says("index:KEY=VALUE");
}

#[test]
fn an_image_is_shown_as_buildx_shows_it() {
    let registry = Registry::start();
    let project = copies(User::Rootless);
    let name = format!("{}/shown:1", registry.host);
    let _ = project.build(&["--platform", "linux/amd64,linux/arm64", "--push", "-t", &name]).success();
    let raw = raw(&name);
    assert_eq!(imagetools(&project, &["inspect", "--raw", &name]).success().stdout, raw);
    let listed = imagetools(&project, &["inspect", &name]).success().stdout;
    let index: Value = serde_json::from_str(&raw).unwrap();
    let digest = index["manifests"][1]["digest"].as_str().unwrap();
    let expected = format!(
        "  Name:      {name}@{digest}\n  MediaType: application/vnd.oci.image.manifest.v1+json\n  Platform:  linux/arm64\n"
    );
    assert!(listed.starts_with(&format!("Name:      {name}\nMediaType: ")) && listed.ends_with(&expected), "{listed}");
    assert_eq!(imagetools(&project, &["inspect", &name, "--format", "{{.Manifest}}"]).success().stdout, listed);
    let template = |template: &str| imagetools(&project, &["inspect", &name, "--format", template]);
    let whole: Value = serde_json::from_str(&template("{{json .}}").success().stdout).unwrap();
    assert_eq!(whole["name"], name.as_str());
    assert_eq!(whole["manifest"]["manifests"], index["manifests"]);
    assert_eq!(whole["image"]["linux/arm64"]["config"]["Cmd"][0], "/name");
    assert_eq!(template(r#"{{(index .Image "linux/amd64").Architecture}}"#).success().stdout, "amd64");
    let _ = template("{{range .Manifest.Manifests}}{{end}}").failure(2).says("{{json .Manifest}}");
    let _ = template("{{.Nothing}}").failure(2).says("there is no field");
    let _ = imagetools(&project, &["inspect", "--raw", "--format", "{{json .}}", &name]).failure(2);
    let missing = format!("{}/missing:1", registry.host);
    let _ = imagetools(&project, &["inspect", &missing]).failure(4).says(&missing);
}

#[test]
fn what_imagetools_is_not_told_it_asks_for() {
    let project = Project::new(User::Root);
    let _ = imagetools(&project, &[]).failure(2).says("rbuild imagetools create");
    let _ = imagetools(&project, &["create"]).failure(2).says("no sources");
    let _ = imagetools(&project, &["create", "--builder", "b", "-t", "r.invalid/a", "r.invalid/b"])
        .failure(2)
        .says("--builder");
    let mut command = Command::new(binary());
    command.args(["imagetools", "inspect", "oci-layout:///x"]);
    let _ = run(command).failure(2).says("in this version");
}
