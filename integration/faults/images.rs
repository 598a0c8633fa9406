//! An image, and a registry that gives it as slowly as a test wants.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rbuild::digest::Digest;
use tokio::runtime::Runtime;

use crate::support::build::{BASE, Project, User, busybox};
use crate::support::fake_registry::{Answer, Asked, End, FakeRegistry};

/// An image of busybox and 12 MB that do not compress.
pub(super) struct Image {
    _home: Project,
    manifest: Vec<u8>,
    blobs: std::path::PathBuf,
}

impl Image {
    /// Returns the image, made once.
    pub(super) fn get() -> &'static Self {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(Self::make)
    }

    fn make() -> Self {
        let random = "RUN dd if=/dev/urandom of=/random bs=1M count=12 && md5sum /random >/sums\n";
        let project = Project::with(User::Root, &format!("{BASE}{random}"));
        let args: Vec<&str> = busybox().into_iter().chain(["-o", "type=oci,dest=layout,tar=false"]).collect();
        let _ = project.build(&args).success();
        let layout = project.home().join("layout");
        let index: serde_json::Value =
            serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
        let digest: Digest = index["manifests"][0]["digest"].as_str().unwrap().parse().unwrap();
        let blobs = layout.join("blobs/sha256");
        let manifest = std::fs::read(blobs.join(digest.hex())).unwrap();
        Self { _home: project, manifest, blobs }
    }

    fn blob(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.blobs.join(name.rsplit_once("/blobs/sha256:")?.1)).ok()
    }
}

/// Percent of a layer that are sent before nothing more comes.
const ALL: u64 = 100;
/// Blobs from this size on are slow.
const LARGE: usize = 4 << 20;

/// A registry with the image.
pub(super) struct Pulls {
    server: Option<FakeRegistry>,
    runtime: Option<Runtime>,
    percent: Arc<AtomicU64>,
    stalled: Arc<AtomicBool>,
}

impl Pulls {
    /// Starts it.
    pub(super) fn start(image: &'static Image) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (percent, stalled) = (Arc::new(AtomicU64::new(ALL)), Arc::new(AtomicBool::new(false)));
        let (limit, flag) = (Arc::clone(&percent), Arc::clone(&stalled));
        let server = FakeRegistry::start(move |asked| answer(image, asked, limit.load(Ordering::SeqCst), &flag));
        let server = runtime.block_on(server);
        Self { server: Some(server), runtime: Some(runtime), percent, stalled }
    }

    pub(super) fn host(&self) -> &str {
        &self.server.as_ref().unwrap().host
    }

    /// From now on layers stop after so many percent.
    pub(super) fn stall_after(&self, percent: u64) {
        self.stalled.store(false, Ordering::SeqCst);
        self.percent.store(percent, Ordering::SeqCst);
    }

    pub(super) fn stall_never(&self) {
        self.stall_after(ALL);
    }

    /// Returns whether a layer was asked for that does not come.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::SeqCst)
    }
}

impl Drop for Pulls {
    fn drop(&mut self) {
        drop(self.server.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn answer(image: &Image, asked: &Asked, percent: u64, stalled: &AtomicBool) -> Answer {
    if asked.line.contains("/manifests/") {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        return Answer::new(200, image.manifest.clone()).header("content-type", media_type);
    }
    if asked.line.ends_with("/v2/") {
        return Answer::new(200, "");
    }
    let Some(blob) = image.blob(&asked.line) else { return Answer::new(404, "") };
    if percent == ALL || blob.len() < LARGE {
        return Answer::new(200, blob);
    }
    stalled.store(true, Ordering::SeqCst);
    let part = blob.len() * usize::try_from(percent).unwrap() / 100;
    Answer::new(200, blob[..part].to_vec()).ends(End::Stall)
}
