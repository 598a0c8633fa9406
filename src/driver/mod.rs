//! One build from request to result: the only place that knows every station.
//!
//! ```text
//! Request ─▶ inputs (contexts, Dockerfile) ─▶ frontend (asks the bridge) ─▶ definitions ─▶ graph ─▶ solver (drives ops)
//!                                                                                              └─▶ trees ─▶ outputs
//! ```
//!
//! In: a [`Request`] and a [`Setup`]. Out: an [`Outcome`], or one [`Diagnostic`]. What is left on disk is the stations' (state
//! directory) and the exporters' (what the user named). When the build is cancelled everything it started has ended before
//! [`build`] returns.

mod bridge;
mod contexts;
mod graph;
mod outputs;
mod packer;
pub mod request;
mod setup;
mod sources;
mod steps;
mod uploader;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::diag::{Diagnostic, Kind, Location};
use crate::digest::Digest;
use crate::exec::{Entitlements, ExecOptions, Executor};
use crate::export::stop::Stop;
use crate::frontend::{self, Lowered};
use crate::image::Platform;
use crate::llb::json;
use crate::ops::{CacheMounts, LayerObserver, Materialised, RecordStore, Tree, TreeCodec, Worker};
use crate::progress::{Event, Sink, Warning};
use crate::solver::{self, Graph, SolveError};
use bridge::DriverBridge;
use contexts::Inputs;
use outputs::Solved;
use packer::Packer;
use setup::Stations;
use sources::Sources;
use steps::{Shown, Steps};
use uploader::Uploader;

pub use request::{ContextSource, DockerfileSource, Request};
pub use setup::Setup;

/// How long exports that are stopped may take to remove what they began.
const CLEAN_UP: Duration = Duration::from_secs(3);

/// What BuildKit says before whatever stopped a build, and what people search logs for.
const SOLVE: &str = "failed to solve";

/// What a build leaves to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Digest of the image's manifest or index, where an image was made.
    pub image_id: Option<String>,
}

/// A build whose Dockerfile is lowered and whose worker is ready.
struct Build {
    setup: Setup,
    request: Request,
    stations: Arc<Stations>,
    sources: Sources,
    sink: Arc<dyn Sink>,
    steps: Steps,
    dockerfile: (String, Arc<str>),
}

/// Builds.
///
/// # Errors
///
/// The first thing that went wrong, with its place in the Dockerfile where it has one.
pub async fn build(
    setup: Setup,
    request: Request,
    sink: Arc<dyn Sink>,
    cancel: CancellationToken,
) -> Result<Outcome, Diagnostic> {
    let root = setup.root.clone();
    run(setup, request, sink, cancel).await.map_err(|diagnostic| name_full_disk(diagnostic, &root))
}

/// Says which disk it is that is full, unless whoever wrote to it did: all but the outputs lies in the state directory.
fn name_full_disk(diagnostic: Diagnostic, root: &Path) -> Diagnostic {
    if diagnostic.kind != Kind::DiskFull || !diagnostic.hints.is_empty() {
        return diagnostic;
    }
    let hint = format!(
        "free some space where the state directory {} is (df -h shows how much there is), or choose another with --root",
        root.display()
    );
    diagnostic.hinted(hint)
}

async fn run(
    setup: Setup,
    request: Request,
    sink: Arc<dyn Sink>,
    cancel: CancellationToken,
) -> Result<Outcome, Diagnostic> {
    let (build, lowered, bridge) = tokio::select! {
        prepared = prepare(setup, request, sink) => prepared?,
        () = cancel.cancelled() => return Err(canceled()),
    };
    let wanted: BTreeSet<Digest> = match outputs::need_blobs(&build.setup) {
        true => lowered.results.iter().flat_map(|result| graph::result_steps(&result.definition)).collect(),
        false => BTreeSet::new(),
    };
    let compression = outputs::compression(&build.setup);
    let Stations { client, store, snapshots, .. } = &*build.stations;
    let uploader = Uploader::new(Arc::clone(client), Arc::clone(store), &build.setup.exports);
    let packer = Packer::new(Arc::clone(snapshots), compression, wanted, uploader);
    let worker = Arc::new(build.worker(bridge, Arc::new(packer.clone()))?);
    let trees = build.solve(&lowered, &worker, cancel.clone()).await?;
    let solved = Solved { trees, origins: outputs::origins(&worker.resolved) };
    let stop = Stop::new();
    let mut export = std::pin::pin!(outputs::export(&build, &lowered, solved, &packer, stop.clone()));
    tokio::select! {
        outcome = &mut export => outcome,
        () = cancel.cancelled() => {
            stop.request();
            match tokio::time::timeout(CLEAN_UP, export).await {
                // It was quicker than the signal, and all is written.
                Ok(Ok(outcome)) => Ok(outcome),
                // What it says no longer matters; that it has cleaned up does.
                _ => Err(canceled()),
            }
        }
    }
}

fn canceled() -> Diagnostic {
    Diagnostic::new(Kind::Build, "the build was canceled")
}

/// Returns the LLB of a build, one JSON object an op; images are resolved, nothing is pulled.
///
/// # Errors
///
/// Those of the frontend.
pub async fn dump(setup: Setup, request: Request, sink: Arc<dyn Sink>) -> Result<Vec<String>, Diagnostic> {
    let (_, lowered, _) = prepare(setup, request, sink).await?;
    let definitions = lowered.results.iter().map(|result| &result.definition);
    Ok(definitions.flat_map(json::lines).collect())
}

/// Opens everything, reads the Dockerfile and lowers it.
async fn prepare(
    setup: Setup,
    request: Request,
    sink: Arc<dyn Sink>,
) -> Result<(Build, Lowered, DriverBridge), Diagnostic> {
    let steps = Steps::new(Arc::clone(&sink));
    let stations = Arc::new(Stations::open(&setup)?);
    let sources = Sources::open(&setup, &request, &stations)?;
    let dockerfile = (String::new(), "".into());
    let mut build = Build { setup, request, stations, sources, sink, steps, dockerfile };
    let fetched = build.fetch_context().await?;
    let name = build.request.options.get("filename").map_or("Dockerfile", String::as_str);
    let title = format!("[internal] load build definition from {name}");
    let (request, stations) = (&mut build.request, &build.stations);
    let inputs = build
        .steps
        .run(&title, |_| async { Inputs::open(request, stations, fetched).map_err(Shown) })
        .await
        .map_err(|Shown(d)| d.while_doing(SOLVE))?;
    let bridge = DriverBridge {
        steps: build.steps.clone(),
        images: build.stations.images(),
        layouts: inputs.layouts,
        contexts: inputs.contexts,
        own_ignore: inputs.own_ignore,
        sources: build.sources.clone(),
        stations: Arc::clone(&build.stations),
        resolved: Mutex::default(),
    };
    build.dockerfile = (inputs.dockerfile_name, String::from_utf8_lossy(&inputs.dockerfile).into());
    let lowered = frontend::lower(&build.frontend_request(inputs.dockerfile), &bridge).await;
    match lowered {
        Ok(lowered) => {
            let steps: usize = lowered.results.iter().map(|result| result.definition.vertices.len()).sum();
            tracing::debug!(platforms = lowered.results.len(), steps, "lowered the Dockerfile");
            build.warn(&lowered.warnings);
            Ok((build, lowered, bridge))
        }
        Err(error) => {
            build.warn(&error.warnings);
            Err(error.into_diagnostic().while_doing(SOLVE))
        }
    }
}

impl Build {
    fn frontend_request(&self, dockerfile: Vec<u8>) -> frontend::Request {
        frontend::Request {
            dockerfile_name: self.dockerfile.0.clone(),
            dockerfile,
            options: self.request.options.clone(),
            worker_platforms: vec![Platform::host()],
            session: "rbuild".into(),
        }
    }

    /// Shows lint warnings.
    fn warn(&self, warnings: &[crate::dockerfile::lint::LintWarning]) {
        let title = format!("[internal] load build definition from {}", self.dockerfile.0);
        let vertex = Digest::compute(format!("rbuild.step:{title}"));
        for warning in warnings {
            self.sink.send(Event::Warning(Warning {
                vertex: vertex.clone(),
                level: 1,
                short: warning.summary(),
                detail: vec![warning.rule.description().to_owned()],
                url: warning.rule.url(),
                file: self.dockerfile.0.clone(),
                text: Arc::clone(&self.dockerfile.1),
                ranges: warning.lines.clone(),
            }));
        }
    }

    fn worker(&self, bridge: DriverBridge, layers: Arc<dyn LayerObserver>) -> Result<Worker, Diagnostic> {
        let granted = |name: &str| self.request.allow.iter().any(|allowed| allowed == name);
        let entitlements =
            Entitlements { network_host: granted("network.host"), security_insecure: granted("security.insecure") };
        let executor = Executor::new(ExecOptions { entitlements, ..ExecOptions::default() });
        let contexts = bridge.contexts.clone();
        let layouts = bridge.layouts.clone();
        Ok(Worker {
            store: Arc::clone(&self.stations.store),
            snapshots: Arc::clone(&self.stations.snapshots),
            executor: executor.map_err(|error| Diagnostic::from_error(&error))?,
            images: self.stations.images(),
            resolved: bridge.into_resolved(),
            layouts,
            contexts,
            http: Arc::clone(&self.sources.http),
            git: Arc::clone(&self.sources.git),
            secrets: self.request.secrets.clone(),
            agents: self.request.agents.clone(),
            caches: CacheMounts::open(&self.stations.store).map_err(|error| Diagnostic::from_error(&error))?,
            sink: Arc::clone(&self.sink),
            layers,
            materialised: Materialised::default(),
        })
    }

    /// Solves all platforms in one graph and returns their trees.
    async fn solve(
        &self,
        lowered: &Lowered,
        worker: &Arc<Worker>,
        cancel: CancellationToken,
    ) -> Result<Vec<Tree>, Diagnostic> {
        let mut graph = Graph::new();
        for result in &lowered.results {
            let added = graph::add(&mut graph, worker, &result.definition, &result.platform);
            added.map_err(|(vertex, error)| self.placed(error, &vertex.digest, lowered).while_doing(SOLVE))?;
        }
        let edges: Vec<Option<solver::Edge>> = lowered.results.iter().map(|r| target(&r.definition)).collect();
        let definitions = lowered.results.iter().map(|result| &result.definition);
        let observer = Arc::new(graph::ProgressObserver::new(Arc::clone(&self.sink), definitions));
        let codec = TreeCodec::new(Arc::clone(&self.stations.snapshots));
        let records = RecordStore::open(&self.stations.store.records_path(), codec)
            .map_err(|error| Diagnostic::new(Kind::Machine, crate::diag::chain(&error)))?;
        for tree in records.values().iter().filter_map(Tree::from_record) {
            if let Tree::Layers(chain) = tree {
                self.stations.snapshots.pass_over(&chain);
            }
        }
        let request = solver::Request {
            graph,
            targets: edges.iter().flatten().cloned().collect(),
            stores: vec![Arc::new(records)],
            observer,
            cancel,
            parallelism: self.setup.parallelism.unwrap_or_else(processors),
        };
        let mut results = match solver::solve(request).await.results {
            Ok(results) => results.into_iter(),
            Err(error) => return Err(self.failure(&error, lowered)),
        };
        let take = |edge: Option<solver::Edge>| edge.and_then(|_| results.next()).unwrap_or_else(Tree::empty);
        Ok(edges.into_iter().map(take).collect())
    }

    /// Adds the lines of the Dockerfile that the failed step comes from.
    fn failure(&self, error: &SolveError, lowered: &Lowered) -> Diagnostic {
        let mut diagnostic = match error {
            SolveError::Vertex { source, .. } => {
                let inner = source.inner();
                Diagnostic { message: crate::diag::chain(inner), ..Diagnostic::from_error(error) }
            }
            _ => Diagnostic::from_error(error),
        };
        if let Some(digest) = error.vertex() {
            diagnostic = self.placed(diagnostic, digest, lowered);
        }
        diagnostic.while_doing(SOLVE)
    }

    /// Adds the lines of the Dockerfile that a step comes from.
    fn placed(&self, mut diagnostic: Diagnostic, step: &Digest, lowered: &Lowered) -> Diagnostic {
        if let Some(lines) = graph::lines_of(step, lowered.results.iter().map(|result| &result.definition)) {
            let (file, text) = (self.dockerfile.0.clone(), Arc::clone(&self.dockerfile.1));
            diagnostic.locations.insert(0, Location { file, text, ranges: lines, mark: None });
        }
        diagnostic
    }
}

fn target(definition: &crate::llb::Definition) -> Option<solver::Edge> {
    graph::edge(&crate::llb::Input::from(definition.result.as_ref()?))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}
