//! Exported images as other programs see them: skopeo, umoci, a registry.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild::digest::{DiffId, Digest};
use rbuild::export::archive::{self, Archive};
use rbuild::export::destination::OutputFile;
use rbuild::export::image::{Image, ImageOptions, MediaTypes, Shape, assemble};
use rbuild::export::push::{Naming, PushEvent, Pusher};
use rbuild::export::spec::ArchiveFormat;
use rbuild::export::{Blobs, ExportLayer, ImageResult, layout};
use rbuild::image::media::Compression;
use rbuild::image::{History, ImageConfig, Platform, Reference};
use rbuild::registry::{Client, ClientOptions, NoCredentials, Pushed};

use crate::support::registry::Registry;

/// Layers made by tar and gzip.
#[derive(Default)]
struct Layers {
    blobs: BTreeMap<Digest, Vec<u8>>,
    opened: Mutex<Vec<Digest>>,
}

impl Blobs for Layers {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        self.opened.lock().expect("lock").push(digest.clone());
        Ok(Box::new(io::Cursor::new(self.blobs.get(digest).cloned().ok_or(io::ErrorKind::NotFound)?)))
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn json(program: &str, arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&run(program, arguments)).expect("json")
}

impl Layers {
    /// Adds a layer of one file.
    fn add(&mut self, name: &str, content: &str, compression: Compression) -> ExportLayer {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::write(temp.path().join(name), content).expect("write");
        let (dir, tar) = (temp.path().to_str().expect("utf-8"), temp.path().join("layer.tar"));
        let tar = tar.to_str().expect("utf-8");
        run("tar", &["--owner=0", "--group=0", "--mtime=@0", "-C", dir, "-cf", tar, name]);
        let diff_id = DiffId(Digest::compute(std::fs::read(tar).expect("read")));
        let path = match compression {
            Compression::Gzip => {
                run("gzip", &["-n", tar]);
                PathBuf::from(format!("{tar}.gz"))
            }
            _ => PathBuf::from(tar),
        };
        let blob = std::fs::read(path).expect("read");
        let (digest, size) = (Digest::compute(&blob), blob.len() as u64);
        self.blobs.insert(digest.clone(), blob);
        let created = Some("2026-01-02T03:04:05Z".into());
        let description = format!("COPY {name}");
        ExportLayer { diff_id, digest, size, compression, created, description, origins: Vec::new(), toc: None }
    }

    fn result(&mut self, platform: &str, text: &str) -> ImageResult {
        let platform: Platform = platform.parse().expect("platform");
        let layers =
            vec![self.add("base", "base", Compression::Gzip), self.add("file", text, Compression::Uncompressed)];
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..ImageConfig::default()
        };
        config.config.env.push("A=<b>&c".into());
        config.config.labels.insert("label".into(), "value".into());
        let entry = |created_by: &str| History { created_by: created_by.into(), ..History::default() };
        config.history = vec![entry("COPY base"), entry("COPY file")];
        ImageResult { platform, config, base_config: None, layers, epoch: None, inline_cache: None }
    }
}

fn single(layers: &mut Layers, types: MediaTypes) -> Image {
    let result = layers.result("linux/amd64", "amd64");
    assemble(&[result], Shape::Single, types, &ImageOptions::default()).expect("image")
}

fn multi(layers: &mut Layers) -> Image {
    let results = [layers.result("linux/amd64", "amd64"), layers.result("linux/arm64", "arm64")];
    assemble(&results, Shape::Multi, MediaTypes::Oci, &ImageOptions::default()).expect("image")
}

fn names(list: &[&str]) -> Vec<Reference> {
    list.iter().map(|name| name.parse::<Reference>().expect(name).with_default_tag()).collect()
}

fn write_archive(path: &Path, image: &Image, names: &[Reference], format: ArchiveFormat, layers: &Layers) {
    let mut file = OutputFile::create(path).expect("create");
    archive::write(&Archive { image, names, format }, layers, &mut file, path).expect("archive");
    file.commit().expect("commit");
}

#[test]
fn skopeo_reads_the_archives() {
    let temp = tempfile::tempdir().expect("temp dir");
    let mut layers = Layers::default();
    let names = names(&["example.org/app:1"]);
    let oci = temp.path().join("oci.tar");
    let image = single(&mut layers, MediaTypes::Oci);
    write_archive(&oci, &image, &names, ArchiveFormat::Oci, &layers);
    let source = format!("oci-archive:{}:1", oci.display());
    let seen = json("skopeo", &["inspect", &source]);
    assert_eq!(seen["Digest"], image.root.descriptor.digest.as_str());
    assert_eq!(seen["Labels"]["label"], "value");
    assert_eq!(seen["Env"][0], "A=<b>&c");

    let docker = temp.path().join("docker.tar");
    let image = single(&mut layers, MediaTypes::Docker);
    write_archive(&docker, &image, &names, ArchiveFormat::Docker, &layers);
    let source = format!("docker-archive:{}:example.org/app:1", docker.display());
    let seen = json("skopeo", &["inspect", "--config", &source]);
    assert_eq!(seen["created"], "2026-01-02T03:04:05Z");
    assert_eq!(seen["history"][1]["created_by"], "COPY file");
    let copy = format!("dir:{}", temp.path().join("copy").display());
    run("skopeo", &["copy", "--insecure-policy", "-q", &source, &copy]);
}

#[test]
fn umoci_unpacks_the_layout() {
    let temp = tempfile::tempdir().expect("temp dir");
    let mut layers = Layers::default();
    let dest = temp.path().join("layout");
    let image = single(&mut layers, MediaTypes::Oci);
    layout::write(&image, &names(&["app:1"]), &layers, &dest).expect("layout");
    layout::write(&multi(&mut layers), &names(&["app:many"]), &layers, &dest).expect("layout");
    let source = format!("{}:1", dest.display());
    let rootfs = temp.path().join("rootfs");
    run("umoci", &["raw", "unpack", "--rootless", "--image", &source, rootfs.to_str().expect("utf-8")]);
    assert_eq!(std::fs::read(rootfs.join("file")).expect("read"), b"amd64");
    assert_eq!(std::fs::read(rootfs.join("base")).expect("read"), b"base");
    let arm = format!("oci:{}:many", dest.display());
    let seen = json("skopeo", &["inspect", "--override-arch", "arm64", "--config", &arm]);
    assert_eq!(seen["architecture"], "arm64");
}

struct Push {
    pusher: Pusher,
    layers: Arc<Layers>,
    events: Arc<Mutex<Vec<PushEvent>>>,
}

impl Push {
    fn new(layers: Layers) -> Self {
        let (layers, events) = (Arc::new(layers), Arc::new(Mutex::new(Vec::new())));
        let client = Client::new(ClientOptions::new(Arc::new(NoCredentials))).expect("client");
        let sink = Arc::clone(&events);
        let observer = Arc::new(move |event| sink.lock().expect("lock").push(event));
        Self { pusher: Pusher { client, blobs: layers.clone(), observer }, layers, events }
    }

    /// Pushes, and returns how each blob came there.
    async fn push(&self, image: &Image, list: &[String], naming: Naming) -> Vec<Pushed> {
        self.events.lock().expect("lock").clear();
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        self.pusher.push(image, &names(&list), naming).await.expect("push");
        let how = |event: &PushEvent| if let PushEvent::Blob { how, .. } = event { Some(*how) } else { None };
        self.events.lock().expect("lock").iter().filter_map(how).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_once_mounts_and_names() {
    let registry = Registry::start();
    let host = &registry.host;
    let mut layers = Layers::default();
    let image = multi(&mut layers);
    let push = Push::new(layers);
    let list = [format!("{host}/a/app:1"), format!("{host}/a/app:2"), format!("{host}/b/app:1")];
    let how = push.push(&image, &list, Naming::Tags).await;
    // Three layers, one of them shared, and two configurations, in two repositories.
    assert_eq!(how.iter().filter(|how| **how == Pushed::Uploaded).count(), 5);
    assert_eq!(how.iter().filter(|how| **how == Pushed::Mounted).count(), 5);
    assert_eq!(push.layers.opened.lock().expect("lock").len(), 3, "mounted layers are not read");
    for name in &list {
        let seen = json("skopeo", &["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")]);
        assert_eq!(seen["manifests"][1]["platform"]["architecture"], "arm64");
    }
    let again = push.push(&image, &list[..1], Naming::Tags).await;
    assert!(again.iter().all(|how| *how == Pushed::Existed), "{again:?}");
    assert_eq!(push.layers.opened.lock().expect("lock").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_by_digest_leaves_no_tag() {
    let registry = Registry::start();
    let mut layers = Layers::default();
    let image = single(&mut layers, MediaTypes::Docker);
    let push = Push::new(layers);
    let name = format!("{}/app", registry.host);
    push.push(&image, std::slice::from_ref(&name), Naming::Digest).await;
    let place: Reference = name.parse().expect("name");
    assert!(push.pusher.client.resolve(&place.clone().with_default_tag()).await.is_err());
    let pinned = place.with_digest(image.root.descriptor.digest.clone());
    let found = push.pusher.client.resolve(&pinned).await.expect("by digest");
    assert_eq!(found.media_type, image.root.descriptor.media_type);
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_do_not_wait_for_what_layers_wait_for() {
    let registry = Registry::start();
    let mut layers = Layers::default();
    let image = multi(&mut layers);
    let push = Push::new(layers);
    let list = names(&[&format!("{}/app:1", registry.host)]);
    let (settle, settled) = tokio::sync::oneshot::channel::<()>();
    let seen = || push.events.lock().expect("lock").iter().filter(|e| matches!(e, PushEvent::Blob { .. })).count();
    let pushing = push.pusher.push_after(async { settled.await.expect("settled") }, &image, &list, Naming::Tags);
    let settling = async {
        // Both configurations; the layers are not even opened.
        while seen() < 2 {
            tokio::task::yield_now().await;
        }
        assert!(push.layers.opened.lock().expect("lock").is_empty());
        settle.send(()).expect("still waiting");
    };
    let both = async { tokio::join!(pushing, settling).0 };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("nothing hangs").expect("pushed");
    assert_eq!(seen(), 5);
    assert!(push.pusher.client.resolve(&list[0]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_cannot_be_read_names_nothing() {
    let registry = Registry::start();
    let mut layers = Layers::default();
    let image = single(&mut layers, MediaTypes::Oci);
    layers.blobs.clear();
    let push = Push::new(layers);
    let list = names(&[&format!("{}/app:1", registry.host)]);
    let error = push.pusher.push(&image, &list, Naming::Tags).await.expect_err("no layers");
    assert!(error.to_string().contains("failed to push"), "{error}");
    assert!(push.pusher.client.resolve(&list[0]).await.is_err());
}
