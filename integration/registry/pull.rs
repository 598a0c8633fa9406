//! Whole images: pushed to docker-registry or served by a hostile one, pulled into a store and snapshots.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::Path;

use rbuild::digest::DiffId;
use rbuild::image::{ImageConfig, Manifest, Platform};
use rbuild::progress::{Event, Sink};
use rbuild::snapshot::{Chain, SnapshotOptions, Snapshots};
use rbuild::source::{ImageSource, OciLayout, Reporter, SourceError};
use rbuild::store::Store;

use super::*;
use crate::support::fault_proxy::{Fault, FaultProxy};

/// Keeps the events.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Sink for Recorder {
    fn send(&self, event: Event) {
        self.0.lock().expect("lock").push(event);
    }
}

/// A state root of its own.
struct State {
    root: tempfile::TempDir,
    store: Arc<Store>,
    snapshots: Arc<Snapshots>,
    recorder: Arc<Recorder>,
}

impl State {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("temp dir");
        let store = Store::open(root.path()).expect("store");
        let snapshots = Snapshots::with_store(Arc::clone(&store), SnapshotOptions::default()).expect("snapshots");
        Self { root, store, snapshots, recorder: Arc::default() }
    }

    fn source(&self, account: Account) -> ImageSource {
        ImageSource::new(client(account), Arc::clone(&self.store), Arc::clone(&self.snapshots))
    }

    fn reporter(&self) -> Reporter {
        Reporter { sink: Arc::clone(&self.recorder) as Arc<dyn Sink>, vertex: Digest::compute("step") }
    }

    async fn pull(&self, name: &Reference) -> Result<Chain, SourceError> {
        let source = self.source(Account::Anonymous);
        let image = source.resolve(name, &amd64()).await?;
        source.pull(&image, &self.reporter()).await
    }

    fn read(&self, chain: &Chain, path: &str) -> String {
        let view = self.snapshots.view(chain).expect("view");
        let file = view.dir().resolve(OsStr::new(path), rbuild::sys::OFlags::RDONLY).expect(path);
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).expect("read");
        text
    }

    fn has(&self, digest: &Digest) -> bool {
        self.store.blob(digest).expect("store").is_some()
    }
}

fn amd64() -> Platform {
    Platform::new("linux", "amd64")
}

/// One layer: its tar, and the tar compressed.
#[derive(Clone)]
struct TestLayer {
    diff_id: DiffId,
    blob: Bytes,
}

fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        builder.append_data(&mut header, name, content.as_bytes()).expect("entry");
    }
    builder.into_inner().expect("tar")
}

fn test_layer(files: &[(&str, &str)]) -> TestLayer {
    let tar = tar_of(files);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("compress");
    TestLayer { diff_id: DiffId(Digest::compute(&tar)), blob: gzip.finish().expect("compress").into() }
}

/// An image: its blobs by digest, and its manifest.
struct TestImage {
    blobs: BTreeMap<Digest, Bytes>,
    manifest: Bytes,
}

fn test_image(layers: &[TestLayer]) -> TestImage {
    let mut config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
    config.rootfs.kind = "layers".into();
    config.rootfs.diff_ids = layers.iter().map(|l| l.diff_id.clone()).collect();
    let config = Bytes::from(serde_json::to_vec(&config).expect("plain data"));
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::OCI_MANIFEST.into()),
        config: Descriptor::of(media::OCI_CONFIG, &config),
        layers: layers.iter().map(|l| Descriptor::of(media::OCI_LAYER_GZIP, &l.blob)).collect(),
        annotations: BTreeMap::new(),
    };
    let manifest = Bytes::from(serde_json::to_vec(&manifest).expect("plain data"));
    let contents = layers.iter().map(|l| l.blob.clone()).chain([config]);
    TestImage { blobs: contents.map(|c| (Digest::compute(&c), c)).collect(), manifest }
}

impl TestImage {
    async fn push(&self, target: &Reference) {
        let client = client(Account::Anonymous);
        for (digest, content) in &self.blobs {
            let descriptor = Descriptor::new("", digest.clone(), content.len() as u64);
            client
                .push_blob(target, &descriptor, &*opener(content), Whereabouts::Repositories(&[]), silent())
                .await
                .expect("blob");
        }
        client.push_manifest(target, media::OCI_MANIFEST, &self.manifest).await.expect("manifest");
    }

    /// Serves the image, with one blob's bytes replaced by others.
    async fn serve(&self, replaced: Digest, bytes: Bytes) -> FakeRegistry {
        let (manifest, mut blobs) = (self.manifest.clone(), self.blobs.clone());
        blobs.insert(replaced, bytes);
        FakeRegistry::start(move |asked| {
            let last = asked.line.rsplit('/').next().unwrap_or("");
            match last.parse().ok().and_then(|digest: Digest| blobs.get(&digest)) {
                Some(content) => Answer::new(200, content.clone()),
                None if asked.line.contains("/manifests/") => Answer::new(200, manifest.clone()),
                None => Answer::new(404, ""),
            }
        })
        .await
    }
}

fn three_layers() -> Vec<TestLayer> {
    let big = "0123456789abcdef".repeat(60_000);
    vec![
        test_layer(&[("etc/a", "bottom"), ("etc/gone", "x"), ("big", &big)]),
        test_layer(&[("etc/a", "middle"), ("etc/.wh.gone", "")]),
        test_layer(&[("etc/b", "top")]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_layers_once() {
    let registry = Registry::start();
    let target = reference(&registry.host, "app:v1");
    test_image(&three_layers()).push(&target).await;
    let state = State::new();
    let source = state.source(Account::Anonymous);
    let image = source.resolve(&target, &amd64()).await.expect("resolve");
    let chain = source.pull(&image, &state.reporter()).await.expect("pull");
    assert_eq!(chain.layers().len(), 3);
    assert_eq!((state.read(&chain, "etc/a"), state.read(&chain, "etc/b")), ("middle".into(), "top".into()));
    assert!(
        state
            .snapshots
            .view(&chain)
            .expect("view")
            .dir()
            .resolve(OsStr::new("etc/gone"), rbuild::sys::OFlags::PATH)
            .is_err()
    );
    for layer in &image.manifest.layers {
        assert!(state.has(&layer.digest));
        let events = state.recorder.0.lock().expect("lock");
        let done = events.iter().filter(|e| {
            matches!(e, Event::Status(s) if s.id == layer.digest.as_str() && s.completed.is_some() && s.current == layer.size)
        });
        assert_eq!(done.count(), 1, "{}", layer.digest);
    }
    drop(registry);
    let pinned = target.clone().with_digest(image.digest.clone());
    let again = source.resolve(&pinned, &amd64()).await.expect("everything is here");
    assert_eq!(source.pull(&again, &state.reporter()).await.expect("no registry needed").layers(), chain.layers());
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_in_the_store_are_not_fetched() {
    let layers = three_layers();
    let image = test_image(&layers);
    let none = Digest::compute("none");
    let registry = image.serve(none, Bytes::new()).await;
    let state = State::new();
    let mut writer = state.store.writer().expect("writer");
    writer.write_all(&layers[0].blob).expect("write");
    writer.commit(None).expect("commit");
    let chain = state.pull(&reference(&registry.host, "a:b")).await.expect("pull");
    assert_eq!(chain.layers().len(), 3);
    let digest = Digest::compute(&layers[0].blob);
    assert!(!registry.lines().iter().any(|l| l.contains(digest.as_str())), "{:?}", registry.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_from_an_oci_layout_that_skopeo_wrote() {
    let registry = Registry::start();
    let target = reference(&registry.host, "app:v1");
    test_image(&three_layers()).push(&target).await;
    let state = State::new();
    let path = state.root.path().join("layout");
    skopeo(&[
        "copy",
        "-q",
        "--src-tls-verify=false",
        &format!("docker://{target}"),
        &format!("oci:{}:x", path.display()),
    ]);
    let layout = OciLayout::open(&path).expect("layout");
    let image = layout.resolve(&"any:x".parse().expect("reference"), &amd64()).await.expect("resolve");
    let chain = layout.pull(&state.store, &state.snapshots, &image, &state.reporter()).await.expect("pull");
    assert_eq!(state.read(&chain, "etc/a"), "middle");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_asked_for_once_and_the_rest_by_digest() {
    let image = test_image(&three_layers());
    let manifest = Descriptor::of(media::OCI_MANIFEST, &image.manifest);
    let index = Bytes::from(format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{{"mediaType":"{}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
        media::OCI_INDEX,
        manifest.media_type,
        manifest.digest,
        manifest.size
    ));
    let (root, mut contents) = (index.clone(), image.blobs.clone());
    contents.insert(manifest.digest.clone(), image.manifest.clone());
    let asked_before = Mutex::new(false);
    let registry = FakeRegistry::start(move |asked| {
        let last = asked.line.rsplit('/').next().unwrap_or("");
        match last.parse().ok().and_then(|digest: Digest| contents.get(&digest)) {
            Some(content) => Answer::new(200, content.clone()),
            // The tag moves on as soon as it was looked at.
            None if std::mem::replace(&mut *asked_before.lock().expect("lock"), true) => Answer::new(200, "{}"),
            None => Answer::new(200, root.clone()),
        }
    })
    .await;
    let state = State::new();
    let chain = state.pull(&reference(&registry.host, "a:v1")).await.expect("pull");
    assert_eq!(chain.layers().len(), 3);
    let lines = registry.lines();
    let manifests: Vec<&str> = lines.iter().filter(|line| line.contains("/manifests/")).map(String::as_str).collect();
    assert_eq!(manifests, ["GET /v2/a/manifests/v1".into(), format!("GET /v2/a/manifests/{}", manifest.digest)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_of_what_a_network_never_lets_through() {
    let registry = Registry::start();
    let good = test_layer(&[("f", &"content ".repeat(50_000))]);
    let digest = Digest::compute(&good.blob);
    let size = good.blob.len();
    test_image(std::slice::from_ref(&good)).push(&reference(&registry.host, "app:1")).await;
    let state = State::new();
    let layer = format!("blobs/{digest}");
    let fault = move |line: &str, count: usize| match line.ends_with(&layer) {
        // It goes on once, and never again.
        true if count == 1 => Fault::CutResponse(size / 2),
        true => Fault::CutResponse(0),
        false => Fault::Pass,
    };
    let proxy = FaultProxy::start(&registry.host, fault).await;
    let error = state.pull(&reference(&proxy.host, "app:1")).await.expect_err("cut");
    assert!(matches!(error, SourceError::Registry(_)), "{error:?}");
    nothing_of(&state, &digest, &good.diff_id);
    assert!(state.pull(&reference(&registry.host, "app:1")).await.is_ok(), "another way gets all of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn t8_nothing_unverified_stays() {
    let good = test_layer(&[("f", &"content ".repeat(50_000))]);
    let digest = Digest::compute(&good.blob);
    let image = test_image(std::slice::from_ref(&good));
    let mut tail = good.blob.to_vec();
    *tail.last_mut().expect("not empty") ^= 1;
    let trailing = [&good.blob[..], b"trailing"].concat();
    let state = State::new();
    for (what, bytes) in [("wrong tail", tail), ("trailing bytes", trailing), ("short", good.blob[..9].to_vec())] {
        let registry = image.serve(digest.clone(), bytes.into()).await;
        let error = state.pull(&reference(&registry.host, "a:b")).await.expect_err(what);
        assert!(matches!(error, SourceError::Registry(_)), "{what}: {error:?}");
        nothing_of(&state, &digest, &good.diff_id);
    }
    let registry = image.serve(digest.clone(), good.blob.clone()).await;
    let chain = state.pull(&reference(&registry.host, "a:b")).await.expect("second pull");
    assert!(state.has(&digest));
    assert_eq!(state.read(&chain, "f"), "content ".repeat(50_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn t8_a_layer_with_another_diff_id_is_refused() {
    let good = test_layer(&[("f", "content")]);
    let wrong = TestLayer { diff_id: DiffId(Digest::compute("other")), ..good.clone() };
    let digest = Digest::compute(&good.blob);
    let registry = test_image(std::slice::from_ref(&wrong)).serve(Digest::compute("none"), Bytes::new()).await;
    let state = State::new();
    let error = state.pull(&reference(&registry.host, "a:b")).await.expect_err("refused");
    assert!(matches!(error, SourceError::DiffId { .. }), "{error:?}");
    nothing_of(&state, &digest, &wrong.diff_id);
    nothing_of(&state, &digest, &good.diff_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn t8_bytes_after_the_compressed_stream_are_refused() {
    let good = test_layer(&[("f", "content")]);
    let padded = TestLayer { blob: [&good.blob[..], b"garbage after gzip"].concat().into(), ..good };
    let digest = Digest::compute(&padded.blob);
    let registry = test_image(std::slice::from_ref(&padded)).serve(Digest::compute("none"), Bytes::new()).await;
    let state = State::new();
    state.pull(&reference(&registry.host, "a:b")).await.expect_err("refused");
    nothing_of(&state, &digest, &padded.diff_id);
}

fn nothing_of(state: &State, digest: &Digest, diff_id: &DiffId) {
    assert!(!state.has(digest));
    let chain_id = rbuild::digest::ChainId(diff_id.0.clone());
    assert!(state.snapshots.find_layer(&chain_id).is_none());
    let left = names_below(&state.root.path().join("snapshots"));
    assert!(left.is_empty(), "{left:?}");
}

fn names_below(path: &Path) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(path).expect("snapshots").map(|e| e.expect("entry").file_name()).collect()
}
