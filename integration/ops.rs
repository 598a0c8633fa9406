//! Ops that no instruction of a Dockerfile becomes, or not alone, on real layers: merge and diff.
//!
//! In: a worker of a test's own, with layers that file ops make. Shown: that stacks are put together, and taken apart, without
//! a byte of them being copied.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::sync::{Arc, Mutex};

use rbuild::cdi::Devices;
use rbuild::digest::Digest;
use rbuild::exec::{ExecOptions, Executor};
use rbuild::image::Platform;
use rbuild::llb::{
    DiffOp, FileAction, FileActionKind, FileOp, Input, MergeOp, MkfileAction, Op, OpKind, OpMetadata, Vertex, encode,
};
use rbuild::ops::{CacheMounts, LayerObserver, Materialised, Secrets, Tree, Worker, op_of};
use rbuild::progress::{Event, Sink};
use rbuild::registry::{Client, ClientOptions, NoCredentials, Proxies};
use rbuild::snapshot::{Chain, LayerId, SnapshotKind, SnapshotOptions, Snapshots};
use rbuild::source::ImageSource;
use rbuild::source::git::{GitLimits, GitSource, Program};
use rbuild::source::http::{HttpLimits, HttpSource};
use tokio_util::sync::CancellationToken;

/// Hears nothing.
#[derive(Debug)]
struct Deaf;

impl Sink for Deaf {
    fn send(&self, _: Event) {}
}

/// Notes which steps made layers.
#[derive(Default)]
struct Made(Mutex<Vec<(Digest, LayerId)>>);

impl LayerObserver for Made {
    fn layer(&self, vertex: &Digest, layer: LayerId) {
        self.0.lock().unwrap().push((vertex.clone(), layer));
    }
}

struct Scene {
    temp: tempfile::TempDir,
    worker: Arc<Worker>,
    made: Arc<Made>,
}

impl Scene {
    fn new(kind: SnapshotKind) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let options = SnapshotOptions { kind, ..SnapshotOptions::default() };
        let snapshots = Snapshots::open(&temp.path().join("state"), options).unwrap();
        let store = Arc::clone(snapshots.store());
        let client = Client::new(ClientOptions::new(Arc::new(NoCredentials))).unwrap();
        let secrets = Arc::new(Secrets::default());
        let http = HttpSource::open(Proxies::default(), HttpLimits::default(), Arc::clone(&snapshots), secrets.clone());
        let http = Arc::new(http.unwrap());
        let (proxies, limits) = (Proxies::default(), GitLimits::default());
        let program = Program { path: None, search_path: "/usr/bin".into(), proxies, limits };
        let git = GitSource::open(program, Arc::clone(&snapshots), Arc::clone(&http), secrets, BTreeMap::new());
        let made = Arc::new(Made::default());
        let program = crate::support::build::binary().into();
        let worker = Worker {
            images: ImageSource::new(client, Arc::clone(&store), Arc::clone(&snapshots)),
            caches: CacheMounts::open(&store).unwrap(),
            executor: Executor::new(ExecOptions { program, ..ExecOptions::default() }).unwrap(),
            store,
            snapshots,
            bases: std::collections::BTreeMap::new(),
            resolved: BTreeMap::new(),
            layouts: BTreeMap::new(),
            contexts: BTreeMap::new(),
            http,
            git: Arc::new(git.unwrap()),
            secrets: Secrets::default(),
            agents: BTreeMap::new(),
            devices: Devices::default(),
            sink: Arc::new(Deaf),
            layers: made.clone(),
            witness: None,
            materialised: Materialised::default(),
        };
        Self { temp, worker: Arc::new(worker), made }
    }

    /// Carries out an op; returns its vertex' digest and its layers.
    async fn run(&self, kind: OpKind, inputs: &[&Chain]) -> (Digest, Chain) {
        let listed = (0..inputs.len()).map(|at| Input { digest: Digest::compute(at.to_string()), index: 0 }).collect();
        let op = Op { inputs: listed, kind: Some(kind), platform: None };
        let bytes = encode::op(&op);
        let digest = Digest::compute(&bytes);
        let vertex = Vertex { digest: digest.clone(), op, bytes, metadata: OpMetadata::default(), lines: Vec::new() };
        let op = op_of(&self.worker, &vertex, &Platform::host()).unwrap();
        let inputs = inputs.iter().map(|chain| Tree::Layers((*chain).clone())).collect();
        let result = op.exec(inputs, CancellationToken::new()).await.unwrap();
        match result.as_slice() {
            [Tree::Layers(chain)] => (digest, chain.clone()),
            other => panic!("{other:?}"),
        }
    }

    /// Puts a file on a stack.
    async fn file(&self, below: &Chain, path: &str, data: &str) -> Chain {
        let data = data.as_bytes().to_vec();
        let kind =
            FileActionKind::Mkfile(MkfileAction { path: path.into(), mode: 0o644, data, owner: None, timestamp: 7 });
        let input = if below.is_empty() { -1 } else { 0 };
        let action = FileAction { input, secondary_input: -1, output: 0, kind };
        let inputs = if below.is_empty() { vec![] } else { vec![below] };
        self.run(OpKind::File(FileOp { actions: vec![action] }), &inputs).await.1
    }

    /// Counts the layers on the disk.
    fn layers(&self) -> usize {
        fs::read_dir(self.temp.path().join("state/snapshots")).unwrap().count()
    }

    /// Reads a file of a stack.
    fn read(&self, chain: &Chain, name: &str) -> Option<String> {
        use std::io::Read as _;
        let view = self.worker.snapshots.view(chain).unwrap();
        let mut file = view.dir().open_file(OsStr::new(name)).ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        Some(text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn merges_stack_layers_and_copy_nothing() {
    for kind in [SnapshotKind::Overlay, SnapshotKind::Native] {
        let scene = Scene::new(kind);
        let base = scene.file(&Chain::empty(), "/f", "below").await;
        let base = scene.file(&base, "/kept", "kept").await;
        let top = scene.file(&Chain::empty(), "/f", "above").await;
        let (layers, made) = (scene.layers(), scene.made.0.lock().unwrap().len());
        let (_, merged) = scene.run(OpKind::Merge(MergeOp { inputs: vec![0, 1] }), &[&base, &top]).await;
        assert_eq!(merged.layers(), [base.layers(), top.layers()].concat(), "{kind:?}");
        assert_eq!((scene.layers(), scene.made.0.lock().unwrap().len()), (layers, made), "{kind:?}: no layer is new");
        assert_eq!(scene.read(&merged, "f").as_deref(), Some("above"), "{kind:?}");
        assert_eq!(scene.read(&merged, "kept").as_deref(), Some("kept"), "{kind:?}");
        let (_, turned) = scene.run(OpKind::Merge(MergeOp { inputs: vec![1, 0] }), &[&base, &top]).await;
        assert_eq!(scene.read(&turned, "f").as_deref(), Some("below"), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn diffs_of_stacks_are_the_layers_between_and_copy_nothing() {
    for kind in [SnapshotKind::Overlay, SnapshotKind::Native] {
        let scene = Scene::new(kind);
        let lower = scene.file(&Chain::empty(), "/a", "a").await;
        let upper = scene.file(&lower, "/b", "b").await;
        let upper = scene.file(&upper, "/c", "c").await;
        let (layers, made) = (scene.layers(), scene.made.0.lock().unwrap().len());
        let diff = |lower, upper| OpKind::Diff(DiffOp { lower, upper });
        let (_, between) = scene.run(diff(0, 1), &[&lower, &upper]).await;
        assert_eq!(between.layers(), &upper.layers()[1..], "{kind:?}");
        let (_, all) = scene.run(diff(-1, 0), &[&upper]).await;
        assert_eq!(all, upper, "{kind:?}");
        assert_eq!((scene.layers(), scene.made.0.lock().unwrap().len()), (layers, made), "{kind:?}: no layer is new");
        assert_eq!((scene.read(&between, "a"), scene.read(&between, "b").as_deref()), (None, Some("b")), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_of_strangers_is_one_layer_of_what_differs_and_is_reported() {
    for kind in [SnapshotKind::Overlay, SnapshotKind::Native] {
        let scene = Scene::new(kind);
        let lower = scene.file(&Chain::empty(), "/same", "same").await;
        let lower = scene.file(&lower, "/gone", "gone").await;
        let upper = scene.file(&Chain::empty(), "/same", "same").await;
        let upper = scene.file(&upper, "/new", "new").await;
        let layers = scene.layers();
        let (digest, diff) = scene.run(OpKind::Diff(DiffOp { lower: 0, upper: 1 }), &[&lower, &upper]).await;
        assert_eq!((diff.layers().len(), scene.layers()), (1, layers + 1), "{kind:?}");
        assert_eq!(scene.made.0.lock().unwrap().last(), Some(&(digest, diff.top().unwrap())), "{kind:?}");
        assert_eq!((scene.read(&diff, "same"), scene.read(&diff, "new").as_deref()), (None, Some("new")), "{kind:?}");
        let other = scene.file(&Chain::empty(), "/gone", "elsewhere").await;
        let moved = Chain::merge(&[other, diff]);
        assert_eq!((scene.read(&moved, "gone"), scene.read(&moved, "new").as_deref()), (None, Some("new")), "{kind:?}");
    }
}
