//! Fake vertices, a store in memory and a recording observer, for tests of the scheduler alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::diag::{Diagnose, Kind};
use crate::digest::Digest;

/// How often each verb of a vertex was called.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) maps: AtomicUsize,
    pub(crate) contents: AtomicUsize,
    pub(crate) runs: AtomicUsize,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failed(String);

impl Diagnose for Failed {
    fn kind(&self) -> Kind {
        Kind::Build
    }
}

/// A vertex in the making.
#[derive(Debug, Clone)]
pub(crate) struct Vtx {
    pub(crate) name: String,
    keys: Vec<String>,
    random: bool,
    inputs: Vec<(String, usize, InputKey)>,
    value: Option<String>,
    outputs: usize,
    delay: Duration,
    fails: bool,
    unable: bool,
    ignore_cache: bool,
    bounded: bool,
}

pub(crate) fn vtx(name: &str) -> Vtx {
    Vtx {
        name: name.into(),
        keys: vec![name.into()],
        random: false,
        inputs: Vec::new(),
        value: None,
        outputs: 1,
        delay: Duration::ZERO,
        fails: false,
        unable: false,
        ignore_cache: false,
        bounded: true,
    }
}

impl Vtx {
    pub(crate) fn key(mut self, key: &str) -> Self {
        self.keys = vec![key.into()];
        self
    }
    pub(crate) fn also_key(mut self, key: &str) -> Self {
        self.keys.push(key.into());
        self
    }
    pub(crate) fn random(mut self) -> Self {
        self.random = true;
        self
    }
    pub(crate) fn input(self, name: &str) -> Self {
        self.input_key(name, 0, InputKey::default())
    }
    pub(crate) fn content(self, name: &str) -> Self {
        self.input_key(name, 0, InputKey { selector: None, content: true })
    }
    /// Depends on a part of an input and on the content of that.
    pub(crate) fn part(self, name: &str) -> Self {
        self.input_key(name, 0, InputKey { selector: Some(Digest::compute("part")), content: true })
    }
    pub(crate) fn input_key(mut self, name: &str, output: usize, key: InputKey) -> Self {
        self.inputs.push((name.into(), output, key));
        self
    }
    pub(crate) fn value(mut self, value: &str) -> Self {
        self.value = Some(value.into());
        self
    }
    pub(crate) fn outputs(mut self, outputs: usize) -> Self {
        self.outputs = outputs;
        self
    }
    pub(crate) fn delay(mut self, milliseconds: u64) -> Self {
        self.delay = Duration::from_millis(milliseconds);
        self
    }
    pub(crate) fn fails(mut self) -> Self {
        self.fails = true;
        self
    }
    pub(crate) fn unable(mut self) -> Self {
        self.unable = true;
        self
    }
    pub(crate) fn unbounded(mut self) -> Self {
        self.bounded = false;
        self
    }
    pub(crate) fn ignore_cache(mut self) -> Self {
        self.ignore_cache = true;
        self
    }
}

struct FakeOp {
    vtx: Vtx,
    counts: Arc<Counts>,
}

impl Op<String> for FakeOp {
    fn cache_map(&self) -> BoxFuture<'_, Result<CacheMap, OpError>> {
        self.counts.maps.fetch_add(1, SeqCst);
        let digest = |key: &String| match self.vtx.random {
            true => CacheDigest::Random(Digest::compute(key)),
            false => CacheDigest::Stable(Digest::compute(key)),
        };
        let digests = self.vtx.keys.iter().map(digest).collect();
        let inputs = self.vtx.inputs.iter().map(|i| i.2.clone()).collect();
        async { Ok(CacheMap { digests, inputs }) }.boxed()
    }

    fn bounded(&self) -> bool {
        self.vtx.bounded
    }

    fn check(&self) -> Result<(), OpError> {
        if self.vtx.unable { Err(Failed(format!("{} cannot run here", self.vtx.name)).into()) } else { Ok(()) }
    }

    fn content_key(&self, _input: usize, result: String) -> BoxFuture<'_, Result<Option<Digest>, OpError>> {
        self.counts.contents.fetch_add(1, SeqCst);
        async move { Ok(Some(Digest::compute(result))) }.boxed()
    }

    fn exec(&self, inputs: Vec<String>, cancel: CancellationToken) -> BoxFuture<'_, Result<Vec<String>, OpError>> {
        async move {
            self.counts.runs.fetch_add(1, SeqCst);
            if !self.vtx.delay.is_zero() {
                tokio::select! {
                    () = cancel.cancelled() => return Err(Failed("stopped".into()).into()),
                    () = tokio::time::sleep(self.vtx.delay) => {}
                }
            }
            if self.vtx.fails {
                return Err(Failed(format!("{} failed", self.vtx.name)).into());
            }
            let made = || Digest::compute(format!("{}({})", self.vtx.keys[0], inputs.join(","))).short().to_owned();
            let value = self.vtx.value.clone().unwrap_or_else(made);
            Ok((0..self.vtx.outputs).map(|o| if o == 0 { value.clone() } else { format!("{value}#{o}") }).collect())
        }
        .boxed()
    }
}

/// A store in memory that can be told to fail.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) name: String,
    pub(crate) graph: Mutex<RecordGraph<String>>,
    pub(crate) broken: Mutex<BTreeSet<String>>,
    pub(crate) loads: AtomicUsize,
    pub(crate) handles: AtomicUsize,
    /// How often it was asked for roots, children, results or records.
    pub(crate) questions: AtomicUsize,
    pub(crate) unprepared: bool,
    clock: AtomicU64,
}

impl Memory {
    pub(crate) fn named(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.into(), ..Self::default() })
    }
    /// Makes every result with this value fail to load.
    pub(crate) fn break_value(&self, value: &str) {
        self.broken.lock().unwrap().insert(value.into());
    }
    /// Leaves a result to those records only whose value is `kept`, as a cache of the last stage does.
    pub(crate) fn keep_only(&self, kept: &str) {
        let mut graph = self.graph.lock().unwrap();
        let other = |result: &Option<(SystemTime, String)>| result.as_ref().is_some_and(|(_, value)| value != kept);
        let bare: Vec<ItemId> =
            graph.items().filter(|(_, item)| other(&item.result)).map(|(id, _)| id.clone()).collect();
        bare.iter().for_each(|id| graph.set_result(id, None));
    }
    fn error(&self, action: &str) -> CacheError {
        CacheError { store: self.name.clone(), action: action.into(), source: None }
    }
}

impl CacheStore<String> for Memory {
    fn name(&self) -> &str {
        &self.name
    }
    fn prepare(&self) -> BoxFuture<'_, Result<(), CacheError>> {
        let outcome = if self.unprepared { Err(self.error("unreachable")) } else { Ok(()) };
        async { outcome }.boxed()
    }
    fn root(&self, record: &Digest) -> Option<ItemId> {
        self.questions.fetch_add(1, SeqCst);
        self.graph.lock().unwrap().root(record)
    }
    fn children(&self, parent: &ItemId, link: LinkQuery<'_>) -> Vec<ItemId> {
        self.questions.fetch_add(1, SeqCst);
        self.graph.lock().unwrap().children(parent, link)
    }
    fn results(&self, item: &ItemId) -> Vec<StoredResult> {
        self.questions.fetch_add(1, SeqCst);
        self.graph.lock().unwrap().results(item)
    }
    fn record(&self, item: &ItemId) -> Option<Record> {
        self.questions.fetch_add(1, SeqCst);
        self.graph.lock().unwrap().record(item)
    }
    fn load(&self, item: &ItemId, _result: &str, need: Need) -> BoxFuture<'_, Result<String, CacheError>> {
        self.loads.fetch_add(1, SeqCst);
        if need == Need::Handle {
            self.handles.fetch_add(1, SeqCst);
        }
        let value = self.graph.lock().unwrap().item(item).and_then(|i| i.result.clone()).map(|r| r.1);
        let value = value.filter(|v| !self.broken.lock().unwrap().contains(v));
        let outcome = value.ok_or_else(|| self.error("failed to load"));
        async { outcome }.boxed()
    }
    fn forget(&self, item: &ItemId, _result: &str) {
        self.graph.lock().unwrap().set_result(item, None);
    }
    fn save(&self, record: &Record, result: Option<&String>) -> Result<ItemId, CacheError> {
        let mut graph = self.graph.lock().unwrap();
        let id = graph.identify(record);
        graph.add(&id, record);
        if let Some(value) = result {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(self.clock.fetch_add(1, SeqCst));
            graph.set_result(&id, Some((at, value.clone())));
        }
        Ok(id)
    }
}

/// Writes down what it is told, by name.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    names: BTreeMap<Digest, String>,
    pub(crate) lines: Mutex<Vec<String>>,
}

impl Diary {
    fn note(&self, vertex: &Digest, what: &str) {
        self.lines.lock().unwrap().push(format!("{} {what}", self.names[vertex]));
    }
}

impl Observer for Diary {
    fn started(&self, vertex: &Digest) {
        self.note(vertex, "started");
    }
    fn completed(&self, vertex: &Digest, completion: Completion<'_>) {
        let what = match completion {
            Completion::Cached => "cached".to_owned(),
            Completion::Ran => "ran".to_owned(),
            Completion::Failed(error) => format!("failed: {}", crate::diag::chain(error)),
            Completion::Canceled => "canceled".to_owned(),
        };
        self.note(vertex, &what);
    }
    fn notice(&self, error: &CacheError) {
        self.lines.lock().unwrap().push(format!("notice: {error}"));
    }
}

/// A solve that is over.
pub(crate) struct Run {
    pub(crate) solution: Solution<String>,
    pub(crate) counts: BTreeMap<String, Arc<Counts>>,
    pub(crate) lines: Vec<String>,
}

impl Run {
    pub(crate) fn results(&self) -> &[String] {
        self.solution.results.as_ref().expect("solved")
    }
    /// Returns the names of what ran, each as often as it did, sorted.
    pub(crate) fn ran(&self) -> Vec<&str> {
        self.counts.iter().flat_map(|(name, c)| std::iter::repeat_n(name.as_str(), c.runs.load(SeqCst))).collect()
    }
    pub(crate) fn outcome(&self, name: &str) -> Outcome {
        self.solution.vertices.iter().find(|v| v.name == name).expect("in the report").outcome
    }
    pub(crate) fn contents(&self, name: &str) -> usize {
        self.counts[name].contents.load(SeqCst)
    }
}

/// A solve to be.
pub(crate) struct Setup {
    vertices: Vec<Vtx>,
    targets: Vec<(String, usize)>,
    local: Option<Arc<dyn CacheStore<String>>>,
    imports: Vec<Arc<dyn CacheStore<String>>>,
    parallelism: usize,
    target_need: Need,
    collect: Option<Need>,
    pub(crate) cancel: CancellationToken,
}

pub(crate) fn setup(vertices: &[Vtx], targets: &[&str]) -> Setup {
    Setup {
        vertices: vertices.to_vec(),
        targets: targets.iter().map(|t| ((*t).to_owned(), 0)).collect(),
        local: None,
        imports: Vec::new(),
        parallelism: 4,
        target_need: Need::Bytes,
        collect: None,
        cancel: CancellationToken::new(),
    }
}

impl Setup {
    /// Adds a store: the first is that where results are saved.
    pub(crate) fn store(mut self, store: &Arc<Memory>) -> Self {
        match self.local {
            None => self.local = Some(store.clone()),
            Some(_) => self.imports.push(store.clone()),
        }
        self
    }
    /// Adds a store that is only read.
    pub(crate) fn import(mut self, store: Arc<dyn CacheStore<String>>) -> Self {
        self.imports.push(store);
        self
    }
    pub(crate) fn parallelism(mut self, parallelism: usize) -> Self {
        self.parallelism = parallelism;
        self
    }
    pub(crate) fn collect(mut self) -> Self {
        self.collect = Some(Need::Handle);
        self
    }
    pub(crate) fn handles(mut self) -> Self {
        self.target_need = Need::Handle;
        self
    }
    pub(crate) fn target(mut self, name: &str, output: usize) -> Self {
        self.targets.push((name.into(), output));
        self
    }

    pub(crate) async fn run(self) -> Run {
        let digest = |name: &str| Digest::compute(format!("vertex {name}"));
        let mut counts: BTreeMap<String, Arc<Counts>> = BTreeMap::new();
        let mut graph = Graph::new();
        for vtx in self.vertices {
            let own: Arc<Counts> = counts.entry(vtx.name.clone()).or_default().clone();
            let inputs = vtx.inputs.iter().map(|(n, o, _)| Edge { vertex: digest(n), output: *o }).collect();
            let (name, ignore_cache) = (vtx.name.clone(), vtx.ignore_cache);
            let op = Arc::new(FakeOp { vtx, counts: own });
            graph.add(Vertex { digest: digest(&name), name, op, inputs, ignore_cache }).expect("inputs come first");
        }
        let names = counts.keys().map(|name: &String| (digest(name), name.clone())).collect();
        let diary = Arc::new(Diary { names, lines: Mutex::default() });
        let targets = self.targets.iter().map(|(n, o)| Edge { vertex: digest(n), output: *o }).collect();
        let request = Request {
            graph,
            targets,
            local: self.local,
            imports: self.imports,
            observer: diary.clone(),
            cancel: self.cancel,
            parallelism: self.parallelism,
            target_need: self.target_need,
            collect: self.collect,
        };
        let solution = solve(request).await;
        let lines = diary.lines.lock().unwrap().clone();
        Run { solution, counts, lines }
    }
}
