//! `rbuild imagetools` against real registries.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

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
    command.args(["imagetools", "inspect", "oci-layout:///nonexistent/x"]);
    let _ = run(command).failure(4).says("OCI layout /nonexistent/x").says("hint: ");
    let mut command = Command::new(binary());
    command.args(["imagetools", "inspect", "oci-layout://"]);
    let _ = run(command).failure(2).says("no directory is named");
}

/// Everything that an index of a directory leads to, read and verified by skopeo; what comes of it as a layout.
fn checked(project: &Project, from: &str) -> Value {
    let copy = project.home().join("checked");
    drop(fs::remove_dir_all(&copy));
    let to = format!("oci:{}:copy", copy.display());
    let _ = tool("skopeo", &["copy", "-q", "--all", "--preserve-digests", "--src-tls-verify=false", from, &to]);
    serde_json::from_slice(&fs::read(copy.join("index.json")).unwrap()).unwrap()
}

#[test]
fn images_go_from_registries_to_directories_and_back() {
    let (one, other) = (Registry::start(), Registry::start());
    for user in BOTH {
        let project = copies(user);
        let who = format!("{user:?}").to_lowercase();
        let name = format!("{}/{who}/parts", one.host);
        let (amd, arm) =
            (push_by_digest(&project, &name, "linux/amd64"), push_by_digest(&project, &name, "linux/arm64"));
        let layout = project.home().join("layout");
        let tag = |tag: &str| format!("oci-layout://{}:{tag}", layout.display());
        // Two manifests of a registry become an index of a directory.
        let pinned = [&amd, &arm].map(|digest| format!("{name}@{digest}"));
        let metadata = project.home().join("created");
        let args = ["create", "--metadata-file", text(&metadata), "-t", &tag("both"), &pinned[0], &pinned[1]];
        let _ = imagetools(&project, &args).success();
        let created: Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
        assert_eq!(created["image.name"], text(&layout));
        let index = checked(&project, &format!("oci:{}:both", layout.display()));
        assert_eq!(index["manifests"][0]["digest"], created["containerimage.descriptor"]["digest"]);
        let both = imagetools(&project, &["inspect", "--raw", &tag("both")]).success().stdout;
        let expected = imagetools(&project, &["create", "--dry-run", &pinned[0], &pinned[1]]).success().stdout;
        assert_eq!(format!("{both}\n"), expected);
        // From there to another registry, of one platform and as it is.
        let there = format!("{}/{who}/there:1", other.host);
        let _ = imagetools(&project, &["create", "-t", &there, &tag("both")]).success();
        assert_eq!(raw(&there), both);
        let _ = checked(&project, &format!("docker://{there}"));
        // Digests beside the others, added to what is there, under a name of their own.
        let second = project.home().join("second");
        let single = format!("oci-layout://{}", second.display());
        let of = |digest: &str| format!("oci-layout://{}@{digest}", layout.display());
        let _ = imagetools(&project, &["create", "-t", &single, &of(&amd)]).success();
        let args = ["create", "--append", "-t", &single, &of(&arm), "--annotation", "index:k=v"];
        let _ = imagetools(&project, &args).success();
        let index: Value =
            serde_json::from_str(&imagetools(&project, &["inspect", "--raw", &single]).success().stdout).unwrap();
        let digests: Vec<&str> =
            index["manifests"].as_array().unwrap().iter().map(|m| m["digest"].as_str().unwrap()).collect();
        assert_eq!((digests, &index["annotations"]["k"]), (vec![amd.as_str(), arm.as_str()], &"v".into()));
        let top: Value = serde_json::from_slice(&fs::read(second.join("index.json")).unwrap()).unwrap();
        assert_eq!(top["manifests"].as_array().unwrap().len(), 1, "the tag has moved: {top}");
        assert_eq!(top["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "latest");
        let _ = checked(&project, &format!("oci:{}:latest", second.display()));
        // Within one directory a name is all there is to write.
        let _ = imagetools(
            &project,
            &["create", "--prefer-index=false", "-t", &tag("amd"), "-p", "linux/amd64", &of(&amd)],
        )
        .success();
        let listed = imagetools(&project, &["inspect", &tag("amd")]).success().stdout;
        assert!(listed.starts_with(&format!("Name:      {}\n", tag("amd"))) && listed.contains(&amd), "{listed}");
        let wrong = of(&arm);
        let _ = imagetools(&project, &["create", "-t", &wrong, "--prefer-index=false", &of(&amd)])
            .failure(2)
            .says("wants another");
        let _ = imagetools(&project, &["inspect", &tag("none")])
            .failure(4)
            .says("has no image none")
            .says("it has amd, both");
    }
}

#[test]
fn a_directory_whose_blob_is_wrong_is_not_copied() {
    let registry = Registry::start();
    let project = copies(User::Rootless);
    let layout = project.home().join("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    let _ = project.build(&["--platform", "linux/amd64", "-t", "a:1", "-o", &output]).success();
    let from = format!("oci-layout://{}:1", layout.display());
    let manifest: Value =
        serde_json::from_str(&imagetools(&project, &["inspect", "--raw", &from]).success().stdout).unwrap();
    let digest = manifest["layers"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let blob = layout.join("blobs/sha256").join(digest);
    let mut content = fs::read(&blob).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, content).unwrap();
    project.own(&layout);
    let name = format!("{}/a:1", registry.host);
    let elsewhere = format!("oci-layout://{}:1", project.home().join("elsewhere").display());
    for target in [&name, &elsewhere] {
        let _ = imagetools(&project, &["create", "-t", target, &from]).failure(4).says(digest);
        assert_ne!(imagetools(&project, &["inspect", target]).code, 0, "nobody sees a name whose content is not there");
    }
}

/// Adds a manifest of statements about the manifest of `platform` to the index of a layout, and a tag for the new index.
fn attest(layout: &Path, index: &Value, platform: &str, statements: &[(&str, &str, String)]) {
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = rbuild::digest::Digest::compute(bytes);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.as_str(), "size": bytes.len()})
    };
    let layers = statements.iter().map(|(media_type, predicate, statement)| {
        let mut layer = put(media_type, statement.as_bytes());
        layer["annotations"] = json!({"in-toto.io/predicate-type": predicate});
        layer
    });
    let layers: Vec<Value> = layers.collect();
    let config = put("application/vnd.oci.image.config.v1+json", br#"{"architecture":"unknown","os":"unknown"}"#);
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers});
    let mut entry = put("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    let images = index["manifests"].as_array().unwrap();
    let is_it = |image: &&Value| image["platform"]["architecture"] == platform;
    let subject = &images.iter().find(is_it).unwrap()["digest"];
    entry["annotations"] =
        json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": subject});
    entry["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    let mut index = index.clone();
    index["manifests"].as_array_mut().unwrap().push(entry);
    let bytes = index.to_string();
    let mut root = put("application/vnd.oci.image.index.v1+json", bytes.as_bytes());
    root["annotations"] = json!({"org.opencontainers.image.ref.name": "attested"});
    let top = json!({"schemaVersion": 2, "manifests": [root]});
    fs::write(layout.join("index.json"), top.to_string()).unwrap();
}

#[test]
fn what_is_attested_is_shown_as_buildx_shows_it() {
    let registry = Registry::start();
    let project = copies(User::Rootless);
    let layout = project.home().join("layout");
    let from = |tag: &str| format!("oci-layout://{}:{tag}", layout.display());
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    let _ = project.build(&["--platform", "linux/amd64,linux/arm64", "-t", "a:1", "-o", &output]).success();
    let index: Value =
        serde_json::from_str(&imagetools(&project, &["inspect", "--raw", &from("1")]).success().stdout).unwrap();
    let plain = "application/vnd.in-toto+json";
    let payload = base64(r#"{"predicate":{"buildDefinition":{"buildType":"b<1>"}}}"#);
    let statements = [
        (plain, "https://spdx.dev/Document", r#"{"predicate":{"name":"first","z":1,"a":2}}"#.to_owned()),
        (plain, "https://spdx.dev/Document", r#"{"predicate":{"name":"second"}}"#.to_owned()),
        (
            "application/vnd.in-toto.provenance+dsse",
            "https://slsa.dev/provenance/v1",
            format!(r#"{{"payload":"{payload}"}}"#),
        ),
        (plain, "https://example.com/other", "not read".to_owned()),
    ];
    attest(&layout, &index, "amd64", &statements);
    project.own(&layout);
    let name = format!("{}/attested:1", registry.host);
    let _ = imagetools(&project, &["create", "-t", &name, &from("attested")]).success();
    let single = format!("{}/attested:amd64", registry.host);
    let _ = imagetools(&project, &["create", "-t", &single, "-p", "linux/amd64", &name]).success();
    for (image, template, expected) in [
        (
            &name,
            r#"{{json (index .SBOM "linux/amd64").SPDX}}"#,
            "{\n  \"a\": 2,\n  \"name\": \"first\",\n  \"z\": 1\n}",
        ),
        (&name, r#"{{(index (index .SBOM "linux/amd64").AdditionalSPDXs 0).name}}"#, "second"),
        (&name, r#"{{(index .Provenance "linux/amd64").SLSA.buildDefinition.buildType}}"#, "b<1>"),
        (&single, "{{.SBOM.SPDX.name}} {{.Provenance.SLSA.buildDefinition.buildType}}", "first b<1>"),
        (&single, "{{json .Provenance.SLSA.buildDefinition}}", "{\n  \"buildType\": \"b\\u003c1\\u003e\"\n}"),
        (&from("attested"), "{{(index .SBOM \"linux/amd64\").SPDX.name}}", "first"),
    ] {
        assert_eq!(
            imagetools(&project, &["inspect", image, "--format", template]).success().stdout,
            expected,
            "{template}"
        );
    }
    let whole = imagetools(&project, &["inspect", &single, "--format", "{{json .}}"]).success().stdout;
    assert!(!whole.contains("SPDX") && !whole.contains("SLSA"), "{whole}");
    // An image without has none, and a statement that cannot be read is an error.
    let bare = format!("{}/attested:arm64", registry.host);
    let _ = imagetools(&project, &["create", "-t", &bare, "-p", "linux/arm64", &name]).success();
    assert_eq!(imagetools(&project, &["inspect", &bare, "--format", "{{json .SBOM}}"]).success().stdout, "{}");
    attest(&layout, &index, "arm64", &[(plain, "https://spdx.dev/Document", "no statement".to_owned())]);
    project.own(&layout);
    let _ = imagetools(&project, &["inspect", &from("attested"), "--format", "{{json .SBOM}}"])
        .failure(4)
        .says("is not readable");
}
