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

mod bases;
mod blobs;
mod bridge;
mod caches;
mod call;
mod contexts;
pub mod explain;
mod graph;
mod held;
pub mod imagetools;
mod imports;
mod networking;
mod outputs;
mod packer;
pub mod prune;
mod pushcheck;
pub mod request;
mod setup;
mod sources;
mod steps;
mod uploader;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::cdi::{Devices, Grants};
use crate::diag::{Diagnostic, Kind, Location};
use crate::digest::Digest;
use crate::exec::{Entitlements, ExecOptions, Executor, Machine};
use crate::export::stop::Stop;
use crate::frontend::{self, Lowered};
use crate::image::Reference;
use crate::llb::json;
use crate::ops::{CacheMounts, LayerObserver, Materialised, RecordStore, Tree, TreeCodec, Worker};
use crate::progress::{Event, Sink, Warning};
use crate::snapshot::SnapshotKind;
use crate::solver::{self, CacheStore, Exported, Graph, Need, SolveError};
use bases::Bases;
use blobs::BuildBlobs;
use bridge::DriverBridge;
use caches::Caches;
use contexts::Inputs;
use held::{Extent, Held};
use imports::Imports;
use networking::Networking;
use outputs::Solved;
use packer::{Packer, Wanted};
use pushcheck::PushCheck;
use setup::Stations;
use sources::Sources;
use steps::{Shown, Steps};
use uploader::Uploader;

pub use crate::store::explain::HistoryLimits;
pub use call::{Called, call};
pub use request::{ContextSource, DockerfileSource, Request};
pub use setup::Setup;

/// How long exports that are stopped may take to remove what they began.
const CLEAN_UP: Duration = Duration::from_secs(3);

/// How long the cache of a build that is stopped may take to be exported. CI services kill a job 10 to 30 seconds after they
/// asked it to stop, and some send a second signal before, which ends this too.
const CACHE_GRACE: Duration = Duration::from_secs(20);

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
    /// Keeps what steps are made of; none where that cannot be kept.
    recorder: Option<Arc<explain::Recorder>>,
    /// What lies where caches will be written.
    held: Vec<Option<Held>>,
    push_check: Arc<PushCheck>,
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
    let (root, limits) = (setup.root.clone(), setup.limits.clone());
    outputs::check(&setup)?;
    let mut over = false;
    let push_check = Arc::new(PushCheck::new(&cancel));
    let outcome = run(setup, request, sink, &push_check, &mut over).await;
    let outcome = outcome.map_err(|diagnostic| push_check.refusal().unwrap_or(diagnostic));
    push_check.end().await;
    if over && outcome.is_ok() {
        // This build no longer holds the state directory, and there is nothing else left to do.
        tokio::task::block_in_place(|| prune::collect(&root, &limits));
    }
    outcome.map_err(|diagnostic| name_full_disk(diagnostic, &root))
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

/// Builds; `over` becomes whether the limits of the state directory may leave no room for all that is there now.
async fn run(
    setup: Setup,
    request: Request,
    sink: Arc<dyn Sink>,
    push_check: &Arc<PushCheck>,
    over: &mut bool,
) -> Result<Outcome, Diagnostic> {
    let cancel = push_check.cancel();
    // Copying this program takes milliseconds, in which the rest can be made ready.
    let executor = tokio::task::spawn_blocking({
        let options = exec_options(&setup, &request);
        move || Executor::new(options)
    });
    let (build, lowered, bridge, imports) = tokio::select! {
        prepared = prepare(setup, request, sink, Some(push_check)) => prepared?,
        () = cancel.cancelled() => return Err(canceled()),
    };
    outputs::check_platforms(&build.setup, &lowered)?;
    let Stations { client, store, snapshots, .. } = &*build.stations;
    if !build.setup.may_run_nothing() {
        build.warn_of_copies(snapshots.kind());
    }
    let uploader = Uploader::new(Arc::clone(client), Arc::clone(store), &build.setup);
    let resolved = bridge.resolved();
    uploader.link(&graph::result_bases(&lowered, &resolved), &outputs::origins(&resolved));
    let bases = Bases::new(&resolved, &bridge.layouts, build.stations.images(), Arc::clone(store));
    let ahead = (build.wanted(&lowered), outputs::packings(&build.setup));
    let packer = Packer::new(Arc::clone(snapshots), ahead, bases, uploader);
    let executor = executor.await.map_err(|error| Diagnostic::new(Kind::Machine, crate::diag::chain(&error)))?;
    let executor = executor.map_err(|error| Diagnostic::from_error(&error))?;
    let (networking, network) = Networking::open(&build)?;
    let executor = executor.with_network(network);
    let worker = build.worker_for(&lowered, bridge, executor, Arc::new(packer.clone())).await?;
    let (stores, said) = tokio::select! {
        stores = imports.stores() => stores,
        () = cancel.cancelled() => return Err(canceled()),
    };
    if let (Some(recorder), Some(said)) = (&build.recorder, said) {
        recorder.compare_with(&said, build.setup.explained.is_some(), &*build.sink);
    }
    let work = Work { build: &build, lowered: &lowered, worker, packer, stores, networking: &networking };
    let need = if outputs::take_handles(&build.setup) { Need::Handle } else { Need::Bytes };
    let outcome = match work.once(need, &cancel).await {
        Err(Failure::Lost(diagnostic)) => {
            // The load that fails next is told of.
            tracing::debug!(error = %diagnostic.message, "a layer of a cache could not be had, solving again");
            work.once(Need::Bytes, &cancel).await.map_err(Failure::into_diagnostic)
        }
        outcome => outcome.map_err(Failure::into_diagnostic),
    };
    if let Some(kind) = snapshots.kind_if_known().filter(|_| build.setup.may_run_nothing()) {
        build.warn_of_copies(kind);
    }
    *over = prune::note(snapshots, &work.worker.caches, &build.setup.limits);
    if let Err(error) = snapshots.settle() {
        tracing::info!(%error, "layers of this build will be made again if the machine starts anew");
    }
    drop(work);
    networking.close().await;
    outcome
}

/// Why a build has no outcome.
enum Failure {
    /// For good.
    Final(Diagnostic),
    /// Because layers that were only named could not be had.
    Lost(Diagnostic),
}

impl Failure {
    fn into_diagnostic(self) -> Diagnostic {
        match self {
            Failure::Final(diagnostic) | Failure::Lost(diagnostic) => diagnostic,
        }
    }
}

/// A tree per platform, and the records.
type Outcomes = (Result<Vec<Tree>, Diagnostic>, Exported<Tree>);

/// What is to be solved.
struct Problem<'a> {
    lowered: &'a Lowered,
    worker: &'a Arc<Worker>,
    /// Caches besides the local one.
    stores: &'a [Arc<dyn CacheStore<Tree>>],
    /// In what form the results are wanted.
    need: Need,
    /// Whether the records are wanted, for the caches that are exported.
    kept: bool,
}

/// A build ready to be solved, more than once if need be.
struct Work<'a> {
    build: &'a Build,
    lowered: &'a Lowered,
    worker: Arc<Worker>,
    packer: Packer,
    stores: Vec<Arc<dyn CacheStore<Tree>>>,
    networking: &'a Networking,
}

impl Work<'_> {
    /// Solves and exports.
    async fn once(&self, need: Need, cancel: &CancellationToken) -> Result<Outcome, Failure> {
        let Work { lowered, worker, stores, .. } = self;
        let problem = Problem { lowered, worker, stores, need, kept: !self.build.setup.caches_to.is_empty() };
        let blobs = Arc::new(BuildBlobs::new(Arc::clone(&self.build.stations.store)));
        let (trees, records) = self.build.solve(problem, cancel.clone()).await.map_err(Failure::Final)?;
        self.networking.drain();
        let origins = outputs::origins(&self.worker.resolved);
        let trees = match trees {
            Ok(trees) => trees,
            Err(diagnostic) => {
                self.salvage((&records, Extent::Partial), (&blobs, &origins), cancel).await;
                return Err(Failure::Final(diagnostic));
            }
        };
        let solved = Solved { trees, records, origins };
        let outcome = match self.outputs(&solved, &blobs, cancel).await {
            Ok(outcome) => outcome,
            Err(diagnostic) if need == Need::Handle && blobs.is_lost() => return Err(Failure::Lost(diagnostic)),
            Err(diagnostic) => {
                self.salvage((&solved.records, Extent::Whole), (&blobs, &solved.origins), cancel).await;
                return Err(Failure::Final(diagnostic));
            }
        };
        let grace = if self.build.setup.cache_failed { CACHE_GRACE } else { CLEAN_UP };
        match self.caches((&solved.records, Extent::Whole), (&blobs, &solved.origins), (cancel, grace)).await {
            Some(Ok(())) => Ok(outcome),
            Some(Err(diagnostic)) if need == Need::Handle && blobs.is_lost() => Err(Failure::Lost(diagnostic)),
            Some(Err(diagnostic)) => Err(Failure::Final(diagnostic)),
            None => Err(Failure::Final(canceled())),
        }
    }

    /// Writes the outputs; when the build is cancelled, they have cleaned up when this returns.
    async fn outputs(
        &self,
        solved: &Solved,
        blobs: &Arc<BuildBlobs>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Diagnostic> {
        let stop = Stop::new();
        let mut export =
            std::pin::pin!(outputs::export(self.build, self.lowered, solved, (&self.packer, blobs), stop.clone()));
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

    /// Writes the caches of what finished before the build failed or was stopped; what goes wrong then is no longer of interest.
    async fn salvage(
        &self,
        records: (&Exported<Tree>, Extent),
        (blobs, origins): (&Arc<BuildBlobs>, &BTreeMap<Digest, Vec<Reference>>),
        cancel: &CancellationToken,
    ) {
        let Setup { cache_failed, caches_to, .. } = &self.build.setup;
        if !cache_failed || caches_to.is_empty() || self.build.push_check.is_refused() {
            return;
        }
        if cancel.is_cancelled() {
            let seconds = CACHE_GRACE.as_secs();
            let text = format!(
                "stopping; the cache of the steps that finished is exported first, for at most {seconds} seconds: a second signal ends that"
            );
            self.build.sink.send(Event::Warning(Warning::notice(text)));
        }
        match self.caches(records, (blobs, origins), (cancel, CACHE_GRACE)).await {
            Some(Err(diagnostic)) => tracing::debug!(error = %diagnostic.message, "the cache was not exported"),
            Some(Ok(())) => {}
            None => {
                let text = "the cache was not exported: there was no more time".to_owned();
                self.build.sink.send(Event::Warning(Warning::notice(text)));
            }
        }
    }

    /// Writes the caches; none if that did not end within `grace` after the build was cancelled.
    async fn caches(
        &self,
        (records, extent): (&Exported<Tree>, Extent),
        (blobs, origins): (&Arc<BuildBlobs>, &BTreeMap<Digest, Vec<Reference>>),
        (cancel, grace): (&CancellationToken, Duration),
    ) -> Option<Result<(), Diagnostic>> {
        let stop = Stop::new();
        let caches = Caches { build: self.build, records, packer: &self.packer, blobs, origins, stop: &stop, extent };
        let late = async {
            cancel.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        let mut written = std::pin::pin!(caches.write_all());
        tokio::select! {
            written = &mut written => Some(written),
            () = late => {
                stop.request();
                // Files that were begun are removed; a registry that does not answer is left.
                let _ = tokio::time::timeout(CLEAN_UP, written).await;
                None
            }
        }
    }
}

/// Options of the frontend that come to limits of steps.
const LIMITS: [&str; 8] =
    ["cgroup-parent", "memory", "memswap", "cpushares", "cpuperiod", "cpuquota", "cpusetcpus", "cpusetmems"];

fn exec_options(setup: &Setup, request: &Request) -> ExecOptions {
    let granted = |name: &str| request.allow.iter().any(|allowed| allowed == name);
    let entitlements =
        Entitlements { network_host: granted("network.host"), security_insecure: granted("security.insecure") };
    let groups_wanted = LIMITS.iter().any(|option| request.options.contains_key(*option));
    let lazy = setup.may_run_nothing();
    ExecOptions { entitlements, groups_wanted, lazy, ..setup.worker.clone() }
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
    let (_, lowered, ..) = prepare(setup, request, sink, None).await?;
    let definitions = lowered.results.iter().map(|result| &result.definition);
    Ok(definitions.flat_map(json::lines).collect())
}

/// Opens everything, reads the Dockerfile and lowers it; the check begins as soon as there is a client for it.
async fn prepare(
    setup: Setup,
    request: Request,
    sink: Arc<dyn Sink>,
    push_check: Option<&Arc<PushCheck>>,
) -> Result<(Build, Lowered, DriverBridge, Imports), Diagnostic> {
    let (build, request, bridge) = open(setup, request, Arc::clone(&sink), push_check).await?;
    let imports = Imports::start(&build.setup.caches_from, &build.stations, &sink);
    let begun = std::time::Instant::now();
    match frontend::lower(&request, &bridge).await {
        Ok(lowered) => {
            // What images are asked of registries meanwhile counts too.
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            let steps: usize = lowered.results.iter().map(|result| result.definition.vertices.len()).sum();
            tracing::debug!(platforms = lowered.results.len(), steps, ms, "lowered the Dockerfile");
            build.warn(&lowered.warnings);
            Ok((build, lowered, bridge, imports))
        }
        Err(error) => {
            build.warn(&error.warnings);
            Err(error.into_diagnostic().while_doing(SOLVE))
        }
    }
}

/// Opens everything and reads the Dockerfile; returns what the frontend is to be asked, and whom it may ask.
async fn open(
    setup: Setup,
    request: Request,
    sink: Arc<dyn Sink>,
    push_check: Option<&Arc<PushCheck>>,
) -> Result<(Build, frontend::Request, DriverBridge), Diagnostic> {
    let steps = Steps::new(Arc::clone(&sink));
    let stations = Arc::new(Stations::open(&setup)?);
    let push_check = push_check.cloned().unwrap_or_default();
    if setup.push_check {
        push_check.start(&stations.client, &setup.exports, &sink);
    }
    let sources = Sources::open(&setup, &request, &stations)?;
    let dockerfile = (String::new(), "".into());
    let recorder = explain::Recorder::open(&stations, &request, &*sink);
    let held = Held::start(&setup.caches_to, &stations.client);
    let mut build = Build { setup, request, stations, sources, sink, steps, dockerfile, recorder, held, push_check };
    let fetched = build.fetch_context().await?;
    let name = build.request.options.get("filename").map_or("Dockerfile", String::as_str);
    let title = format!("[internal] load build definition from {name}");
    let (request, scratch) = (build.request.clone(), build.stations.store.scratch_path());
    let inputs = build
        .steps
        .run(&title, async |step| {
            let started = SystemTime::now();
            let opened = Inputs::open(request, scratch, fetched).await?;
            step.over("transferring dockerfile:", opened.0.definition_size(), started);
            Ok(opened)
        })
        .await
        .map_err(|Shown(d)| d.while_doing(SOLVE))?;
    let (inputs, request) = inputs;
    build.request = request;
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
    let request = build.frontend_request(inputs.dockerfile);
    frontend::accept_syntax(&request).map_err(|error| error.into_diagnostic().while_doing(SOLVE))?;
    build.note_syntax(&request);
    Ok((build, request, bridge))
}

impl Build {
    fn frontend_request(&self, dockerfile: Vec<u8>) -> frontend::Request {
        let build_arg = self.request.options.get("build-arg:BUILDKIT_SYNTAX").map(String::as_str);
        let channel = frontend::channel_asked(&dockerfile, build_arg);
        frontend::Request {
            dockerfile_name: self.dockerfile.0.clone(),
            dockerfile,
            options: self.request.options.clone(),
            worker_platforms: vec![self.setup.build_platform()],
            session: "rbuild".into(),
            channel,
        }
    }

    /// Says that the frontend asked for may know more than this one.
    fn note_syntax(&self, request: &frontend::Request) {
        let build_arg = request.options.get("build-arg:BUILDKIT_SYNTAX").map(String::as_str);
        if let Some(notice) = frontend::syntax_notice(&request.dockerfile, build_arg) {
            self.sink.send(Event::Warning(self.warning(notice.message, &notice.lines)));
        }
    }

    /// Says why everything takes longer than it should.
    fn warn_of_copies(&self, kind: SnapshotKind) {
        if kind == SnapshotKind::Native {
            let text = format!(
                "no overlay mounts on the file system of {}: every step copies its base; a state directory elsewhere, such as \
                 on a volume of the container, is faster: --root DIR",
                self.setup.root.display()
            );
            self.sink.send(Event::Warning(Warning::notice(text)));
        }
    }

    /// Shows lint warnings.
    fn warn(&self, warnings: &[crate::dockerfile::lint::LintWarning]) {
        for warning in warnings {
            self.sink.send(Event::Warning(Warning {
                detail: vec![warning.rule.description().to_owned()],
                url: warning.rule.url(),
                ..self.warning(warning.summary(), &warning.lines)
            }));
        }
    }

    /// Makes a warning about the Dockerfile.
    fn warning(&self, short: String, lines: &[crate::diag::LineRange]) -> Warning {
        let title = format!("[internal] load build definition from {}", self.dockerfile.0);
        Warning {
            vertex: Digest::compute(format!("rbuild.step:{title}")),
            file: self.dockerfile.0.clone(),
            text: Arc::clone(&self.dockerfile.1),
            ranges: lines.to_vec(),
            ..Warning::notice(short)
        }
    }

    fn devices(&self) -> Result<Devices, Diagnostic> {
        let grants = Grants::among(self.request.allow.iter().map(String::as_str));
        let grants = grants.map_err(|error| Diagnostic::new(Kind::Usage, error.to_string()))?;
        Ok(Devices::new(self.setup.devices.clone(), grants))
    }

    fn worker(
        &self,
        bridge: DriverBridge,
        executor: Executor,
        layers: Arc<dyn LayerObserver>,
    ) -> Result<Worker, Diagnostic> {
        let contexts = bridge.contexts.clone();
        let layouts = bridge.layouts.clone();
        Ok(Worker {
            store: Arc::clone(&self.stations.store),
            snapshots: Arc::clone(&self.stations.snapshots),
            executor,
            bases: BTreeMap::new(),
            images: self.stations.images(),
            resolved: bridge.resolved(),
            layouts,
            contexts,
            http: Arc::clone(&self.sources.http),
            git: Arc::clone(&self.sources.git),
            secrets: self.request.secrets.clone(),
            agents: self.request.agents.clone(),
            devices: self.devices()?,
            caches: CacheMounts::open(&self.stations.store).map_err(|error| Diagnostic::from_error(&error))?,
            sink: Arc::clone(&self.sink),
            layers,
            witness: self.recorder.clone().map(|recorder| -> Arc<dyn crate::ops::Witness> { recorder }),
            materialised: Materialised::default(),
        })
    }

    /// Makes the worker of a build, which knows which steps can run here.
    async fn worker_for(
        &self,
        lowered: &Lowered,
        bridge: DriverBridge,
        executor: Executor,
        layers: Arc<dyn LayerObserver>,
    ) -> Result<Arc<Worker>, Diagnostic> {
        let bases = graph::base_platforms(lowered, &bridge.resolved());
        let platforms: Vec<_> = graph::run_platforms(lowered).into_iter().chain(bases.values().cloned()).collect();
        let machine = Machine::examine(&self.setup.machine(), &platforms).await;
        Ok(Arc::new(Worker { bases, ..self.worker(bridge, executor.on(machine), layers)? }))
    }

    /// Returns the steps whose layers are packed while others still run.
    fn wanted(&self, lowered: &Lowered) -> Wanted {
        let steps = || lowered.results.iter().flat_map(|result| graph::result_steps(&result.definition)).collect();
        let all = || lowered.results.iter().flat_map(|result| &result.definition.vertices).map(|v| v.digest.clone());
        let images = outputs::need_blobs(&self.setup);
        let packed = match images || !self.setup.caches_to.is_empty() {
            _ if caches::need_all(&self.setup.caches_to) => all().collect(),
            true => steps(),
            false => BTreeSet::new(),
        };
        Wanted { packed, of_results: steps() }
    }

    /// Solves all platforms in one graph; the records are there even if a step failed.
    async fn solve(&self, problem: Problem<'_>, cancel: CancellationToken) -> Result<Outcomes, Diagnostic> {
        let Problem { lowered, worker, stores, need, kept } = problem;
        let mut graph = Graph::new();
        for result in &lowered.results {
            let added = graph::add(&mut graph, worker, &result.definition, &result.platform);
            added.map_err(|(vertex, error)| self.placed(error, &vertex.digest, lowered).while_doing(SOLVE))?;
        }
        let edges: Vec<Option<solver::Edge>> = lowered.results.iter().map(|r| target(&r.definition)).collect();
        let definitions = lowered.results.iter().map(|result| &result.definition);
        let observer = Arc::new(graph::ProgressObserver::new(Arc::clone(&self.sink), definitions));
        let collect = if kept && caches::need_bytes(&self.setup.caches_to) { Need::Bytes } else { Need::Handle };
        let local = self.records().map(|records| -> Arc<dyn CacheStore<Tree>> { Arc::new(records) });
        let request = solver::Request {
            graph,
            targets: edges.iter().flatten().cloned().collect(),
            local,
            imports: stores.to_vec(),
            observer,
            cancel,
            parallelism: self.setup.parallelism.unwrap_or_else(processors),
            target_need: if collect == Need::Bytes { collect } else { need },
            collect: kept.then_some(collect),
        };
        let caches =
            request.local.iter().chain(&request.imports).map(|store| store.name().to_owned()).collect::<Vec<_>>();
        let solution = solver::solve(request).await;
        if let Some(recorder) = &self.recorder {
            recorder.keep(self, &caches, (lowered, worker), &solution.vertices);
        }
        let mut results = match solution.results {
            Ok(results) => results.into_iter(),
            Err(error) => return Ok((Err(self.failure(&error, lowered)), solution.records)),
        };
        let take = |edge: Option<solver::Edge>| edge.and_then(|_| results.next()).unwrap_or_else(Tree::empty);
        Ok((Ok(edges.into_iter().map(take).collect()), solution.records))
    }

    /// Opens the records of the state directory; a cache that cannot be had is no reason not to build.
    fn records(&self) -> Option<RecordStore> {
        let codec = TreeCodec::new(Arc::clone(&self.stations.snapshots));
        let records = match RecordStore::open(&self.stations.store.records_path(), codec) {
            Ok(records) => records,
            Err(error) => {
                let text = format!("building without the cache of the state directory: {}", crate::diag::chain(&error));
                self.sink.send(Event::Warning(Warning::notice(text)));
                return None;
            }
        };
        for tree in records.values().iter().filter_map(Tree::from_record) {
            if let Tree::Layers(chain) = tree {
                self.stations.snapshots.pass_over(&chain);
            }
        }
        Some(records)
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
