//! Registries that cannot be reached, that refuse, and that hold what is no image.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rbuild::digest::{DiffId, Digest};
use rbuild::image::{Descriptor, ImageConfig, Manifest, media};

use crate::support::build::{BOTH, Output, Project, User, run};
use crate::support::fake_registry::{Answer, Asked, End, FakeRegistry};
use crate::support::registry::Registry;

/// Builds on an image, with docker's configuration where one is given.
fn from(user: User, image: &str, docker: Option<&str>) -> Output {
    let project = Project::with(user, &format!("FROM {image}\nCOPY Dockerfile /\n"));
    if let Some(text) = docker {
        project.file("config.json", text);
    }
    let mut command = project.rbuild_command(&[]);
    command.env("DOCKER_CONFIG", project.context()).arg(project.context());
    run(command)
}

#[test]
fn a_registry_that_cannot_be_reached_is_named_with_the_cause() {
    for user in BOTH {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let message = format!("failed to reach registry {free}: Connection refused");
        let hint = format!("nothing answers at {free}");
        let output = from(user, &format!("{free}/a/b:c"), None).complains(4, &message, &hint);
        let _ = output.points_to("Dockerfile", 1, &format!("FROM {free}/a/b:c"));
    }
}

#[test]
fn a_host_that_does_not_exist() {
    // Names below `.invalid` are nobody's (RFC 2606); without a network there is no resolver to say so.
    let output = from(User::Rootless, "registry.invalid/a:1", None);
    let _ = output.complains(4, "failed to reach registry registry.invalid: ", "check the name registry.invalid");
}

#[test]
fn no_login_and_a_wrong_login() {
    let registry = Registry::with_login();
    let host = &registry.host;
    for user in BOTH {
        let image = format!("{host}/team/app:1");
        let hint = format!("log in with `docker login {host}`");
        let output = from(user, &image, None).complains(4, &format!("{host} refused access to team/app (401"), &hint);
        let _ = output.points_to("Dockerfile", 1, &format!("FROM {image}"));
        // `builder:s3cr3t-password`
        let login = format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"YnVpbGRlcjpzM2NyM3QtcGFzc3dvcmQ=\"}}}}}}");
        let output = from(user, &image, Some(&login)).complains(4, "(401", &hint);
        let _ = output.silent_about("s3cr3t").silent_about("YnVpbGRlcjp");
    }
    let broken = from(User::Rootless, &format!("{host}/a:1"), Some("{\"auths\": \"s3cr3t\""));
    let _ = broken.complains(2, "config.json", "").silent_about("s3cr3t");
}

#[test]
fn an_image_that_is_not_there() {
    let registry = Registry::start();
    let image = format!("{}/team/app:1", registry.host);
    for user in BOTH {
        let output = from(user, &image, None).complains(4, &format!("{image}: not found"), "check the spelling of");
        let _ = output.points_to("Dockerfile", 1, &format!("FROM {image}"));
    }
}

#[test]
fn a_push_that_is_refused() {
    let registry = Registry::with_login();
    let project = Project::with(User::Rootless, "FROM scratch\nCOPY Dockerfile /\n");
    let image = format!("{}/team/app:1", registry.host);
    let output = project.build(&["-t", &image, "--push"]);
    let hint = format!("`docker login {}`", registry.host);
    let _ = output
        .complains(4, &format!("failed to push {}/team/app", registry.host), &hint)
        .says("refused access to team/app");
}

/// An image of one layer.
struct Image {
    blobs: BTreeMap<Digest, Bytes>,
    manifest: Bytes,
    layer: Digest,
}

/// Makes an image whose layer is `blob`, said to unpack to `tar`.
fn image(tar: &[u8], blob: Bytes) -> Image {
    let mut config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
    config.rootfs.kind = "layers".into();
    config.rootfs.diff_ids = vec![DiffId(Digest::compute(tar))];
    let config = Bytes::from(serde_json::to_vec(&config).unwrap());
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::OCI_MANIFEST.into()),
        config: Descriptor::of(media::OCI_CONFIG, &config),
        layers: vec![Descriptor::of(media::OCI_LAYER_GZIP, &blob)],
        annotations: BTreeMap::new(),
    };
    let manifest = Bytes::from(serde_json::to_vec(&manifest).unwrap());
    let layer = Digest::compute(&blob);
    let blobs = [config, blob].into_iter().map(|content| (Digest::compute(&content), content)).collect();
    Image { blobs, manifest, layer }
}

impl Image {
    /// Serves it, and builds on it.
    async fn build(self, user: User) -> Output {
        let Self { blobs, manifest, .. } = self;
        let registry = FakeRegistry::start(move |asked| {
            let last = asked.line.rsplit('/').next().unwrap_or("");
            match last.parse().ok().and_then(|digest: Digest| blobs.get(&digest)) {
                Some(content) => Answer::new(200, content.clone()),
                None if asked.line.contains("/manifests/") => Answer::new(200, manifest.clone()),
                None => Answer::new(404, ""),
            }
        })
        .await;
        let name = format!("{}/team/app:1", registry.host);
        tokio::task::spawn_blocking(move || from(user, &name, None)).await.unwrap()
    }
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_that_are_not_there_are_told_with_those_that_are() {
    let entry = |architecture: &str| {
        format!(
            "{{\"mediaType\":\"{}\",\"digest\":\"{}\",\"size\":2,\"platform\":{{\"os\":\"linux\",\"architecture\":\"{architecture}\"}}}}",
            media::OCI_MANIFEST,
            Digest::compute(architecture),
        )
    };
    let index = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"manifests\":[{},{}]}}",
        media::OCI_INDEX,
        entry("s390x"),
        entry("riscv64")
    );
    let registry = FakeRegistry::start(move |_| Answer::new(200, index.clone())).await;
    let name = format!("{}/team/app:1", registry.host);
    let output = tokio::task::spawn_blocking(move || from(User::Rootless, &name, None)).await.unwrap();
    let message = "no image for platform linux/amd64 (there is linux/riscv64, linux/s390x)";
    let _ = output
        .complains(4, message, "choose one of linux/riscv64, linux/s390x with `--platform`")
        .says("Dockerfile:1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_are_damaged() {
    let tar = tar_of(&[Entry::File("a", "content")]);
    let good = gzip(&tar);
    for user in BOTH {
        let mut other = image(&tar, good.clone());
        let bytes = Bytes::from(vec![7; good.len()]);
        other.blobs.insert(other.layer.clone(), bytes.clone());
        let (layer, found) = (other.layer.clone(), Digest::compute(&bytes));
        let output = other.build(user).await.complains(4, layer.as_str(), "push the image again");
        let _ = output.says(found.as_str()).says("Dockerfile:1\n");
        let mut short = image(&tar, good.clone());
        short.blobs.insert(short.layer.clone(), good.slice(..good.len() - 9));
        let layer = short.layer.clone();
        let _ = short.build(user).await.complains(4, layer.as_str(), "push the image again");
        let text = image(&tar, Bytes::from_static(b"this is not gzip, whatever its name says"));
        let layer = text.layer.clone();
        let _ = text.build(user).await.complains(4, layer.as_str(), "push the image again");
        let cut = image(&tar, gzip(&tar[..700]));
        let layer = cut.layer.clone();
        let _ = cut.build(user).await.complains(4, layer.as_str(), "push the image again");
        let lying = image(b"another tar", good.clone());
        let layer = lying.layer.clone();
        let _ = lying.build(user).await.complains(4, layer.as_str(), "push the image again");
    }
}

/// An entry of a tar.
enum Entry<'a> {
    File(&'a str, &'a str),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
}

/// Makes a tar with names as they are, such as no builder writes.
fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        let (name, target, content, kind) = match entry {
            Entry::File(name, content) => (name, "", *content, tar::EntryType::Regular),
            Entry::Link(name, target) => (name, *target, "", tar::EntryType::Symlink),
            Entry::Hard(name, target) => (name, *target, "", tar::EntryType::Link),
        };
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(kind);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_lead_out_of_the_image_write_nothing_outside() {
    for user in BOTH {
        // Everybody may write here, so nothing but rbuild itself keeps the files out.
        let outside = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(outside.path(), open).unwrap();
        std::fs::write(outside.path().join("kept"), "kept").unwrap();
        let path = outside.path().to_str().unwrap();
        let (file, kept) = (format!("{path}/evil"), format!("{path}/kept"));
        let up = format!("../../../../../../../..{path}/evil");
        let layers: [(&[Entry<'_>], Option<&str>); 6] = [
            (&[Entry::File(&up, "x")], Some("..")),
            (&[Entry::File("a/../../evil", "x")], Some("..")),
            (&[Entry::File(&file, "x")], None),
            (&[Entry::Link("out", path), Entry::File("out/evil", "x")], None),
            (&[Entry::Link("out", &up), Entry::File("out", "x")], None),
            (&[Entry::Hard("link", &kept), Entry::File("link", "changed")], Some("link")),
        ];
        for (entries, refused) in layers {
            let tar = tar_of(entries);
            let output = image(&tar, gzip(&tar)).build(user).await;
            match refused {
                Some(name) => drop(output.complains(4, "failed to unpack layer", "push the image again").says(name)),
                None => drop(output.success()),
            }
            assert_eq!(names(outside.path()), ["kept"]);
            assert_eq!(std::fs::read_to_string(outside.path().join("kept")).unwrap(), "kept");
        }
    }
}

/// What a registry does to whoever asks for the manifest of an image.
type Trick = fn(&str, &Asked) -> Answer;

#[tokio::test(flavor = "multi_thread")]
async fn registries_that_play_tricks_are_left_and_nothing_is_kept() {
    let tricks: [(Trick, &str); 7] = [
        (|_, _| Answer::new(200, vec![b' '; 5 << 20]), "is larger than 4194304 bytes"),
        (|_, _| Answer::new(200, b"[".repeat(1 << 20)).ends(End::Never), "is larger than 4194304 bytes"),
        (|_, asked| Answer::redirect(format!("{}x", asked.line.split(' ').nth(1).unwrap())), "too many redirects"),
        (
            |_, _| {
                Answer::new(200, r#"{"schemaVersion":2,"manifests":[]}"#).header("content-type", media::OCI_MANIFEST)
            },
            "as an index",
        ),
        (|_, _| Answer::new(429, "").header("ratelimit-limit", "100;w=21600"), "(limit: 100 requests in 6 h)"),
        (
            |host, asked| match asked.line.contains("/token") {
                true => Answer::new(200, r#"{"token":"t"}"#),
                false => Answer::challenge(&format!("http://{host}/token")),
            },
            "refused access to team/app (401",
        ),
        // A gzip of 100 MB of zeros, which nobody asked for.
        (|_, _| Answer::new(200, gzip(&vec![0; 100 << 20])).header("content-encoding", "gzip"), "not a valid document"),
    ];
    for (number, (trick, message)) in tricks.into_iter().enumerate() {
        let host = Arc::new(Mutex::new(String::new()));
        let own = Arc::clone(&host);
        let registry = FakeRegistry::start(move |asked| trick(&own.lock().unwrap(), asked)).await;
        host.lock().unwrap().clone_from(&registry.host);
        let name = format!("{}/team/app:1", registry.host);
        let user = if number % 2 == 0 { User::Root } else { User::Rootless };
        let build = move || {
            let project = Project::with(user, &format!("FROM {name}\n"));
            let output = project.build(&["-t", "x", "-o", "type=cacheonly"]);
            let _ = output.complains(4, message, "");
            let kept = Command::new("find").arg(project.state().join("blobs")).args(["-type", "f"]).output().unwrap();
            assert!(kept.status.success() && kept.stdout.is_empty(), "{message}: {kept:?}");
        };
        tokio::task::spawn_blocking(build).await.unwrap();
        assert!(registry.asked().len() <= 6, "{message}: {:?}", registry.lines());
    }
}
