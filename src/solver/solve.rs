//! One solve from request to solution.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::cache::{CacheStore, ItemId, Need};
use super::export::{Exported, collect};
use super::graph::{Edge, Graph};
use super::lookup::Table;
use super::node::{Node, Output};
use super::report::{Observer, OutputReport, Solution, SolveError, VertexReport};
use super::scheduler::Scheduler;
use super::tasks::Tasks;

/// What is to be solved, and with what.
pub struct Request<R> {
    /// The graph.
    pub graph: Graph<R>,
    /// The results wanted, such as one per platform; what they do not depend on is left alone.
    pub targets: Vec<Edge>,
    /// Where results are looked up first, and saved; none where that cannot be had.
    pub local: Option<Arc<dyn CacheStore<R>>>,
    /// Where results are looked up besides, in this order.
    pub imports: Vec<Arc<dyn CacheStore<R>>>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
    /// Stops the solve.
    pub cancel: CancellationToken,
    /// How many bounded operations may run at once; 0 counts as 1.
    pub parallelism: usize,
    /// What the results of targets are for, as long as no step reads them.
    pub target_need: Need,
    /// Whether the records are to be collected for export, and what their results are for.
    pub collect: Option<Need>,
}

impl<R> fmt::Debug for Request<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("graph", &self.graph).field("targets", &self.targets).finish_non_exhaustive()
    }
}

/// Solves: returns one result per target and says what happened to each vertex.
pub async fn solve<R: Clone + Send + Sync + 'static>(request: Request<R>) -> Solution<R> {
    let targets = match resolve(&request) {
        Ok(targets) => targets,
        Err(error) => {
            return Solution { results: Err(error), vertices: Vec::new(), records: Exported::default(), moves: 0 };
        }
    };
    let indices: Vec<usize> = targets.iter().map(|target| target.0).collect();
    let stores = prepare((request.local, request.imports), &*request.observer).await;
    let mut nodes = nodes(&request.graph, &targets, stores.len());
    if request.target_need == Need::Handle {
        hand_on(&request.graph, &indices, &mut nodes);
    }
    let tasks = Tasks::new(&request.cancel);
    let table = Table::new(request.graph, nodes, stores);
    let mut scheduler = Scheduler::new(table, tasks, request.observer, request.parallelism);
    scheduler.run(&indices, &request.cancel).await;
    let records = match request.collect {
        Some(need) => collect(&scheduler.table, &targets, (scheduler.failure.is_some(), need)).await,
        None => Exported::default(),
    };
    let table = &scheduler.table;
    let results = match scheduler.failure {
        Some(error) => Err(error),
        None => Ok(targets.iter().map(|(v, o)| table.nodes[*v].values[o].clone()).collect()),
    };
    Solution { results, vertices: report(table), records, moves: scheduler.moves }
}

fn resolve<R>(request: &Request<R>) -> Result<Vec<(usize, usize)>, SolveError> {
    let find = |edge: &Edge| match request.graph.index_of(&edge.vertex) {
        Some(index) => Ok((index, edge.output)),
        None => Err(SolveError::UnknownTarget { vertex: edge.vertex.clone() }),
    };
    request.targets.iter().map(find).collect()
}

/// A cache, none where there is none to be had.
type Slot<R> = Option<Arc<dyn CacheStore<R>>>;

/// Prepares all stores at once; one that cannot be prepared is told of and left out. The local one keeps its number.
async fn prepare<R>((local, imports): (Slot<R>, Vec<Arc<dyn CacheStore<R>>>), observer: &dyn Observer) -> Vec<Slot<R>> {
    let all = std::iter::once(local).chain(imports.into_iter().map(Some));
    let prepared = all.map(|store| async {
        let store = store?;
        match store.prepare().await {
            Ok(()) => Some(store),
            Err(error) => {
                observer.notice(&error);
                None
            }
        }
    });
    join_all(prepared).await
}

/// Makes the nodes; outputs are those a target needs, directly or not. Descending indices are reverse dependency order.
fn nodes<R>(graph: &Graph<R>, targets: &[(usize, usize)], stores: usize) -> Vec<Node<R>> {
    let mut nodes: Vec<Node<R>> = (0..graph.len()).map(|_| Node::default()).collect();
    let output = || Output { keys: vec![BTreeSet::new(); stores], ..Output::default() };
    for &(v, o) in targets {
        nodes[v].outputs.entry(o).or_insert_with(output);
    }
    for v in (0..graph.len()).rev() {
        if nodes[v].outputs.is_empty() {
            continue;
        }
        for &(u, o) in graph.inputs(v) {
            nodes[u].outputs.entry(o).or_insert_with(output);
        }
    }
    for v in 0..graph.len() {
        nodes[v].shaken = graph.vertex(v).ignore_cache || graph.inputs(v).iter().any(|&(u, _)| nodes[u].shaken);
    }
    nodes
}

/// Marks the targets that no other vertex reads.
fn hand_on<R>(graph: &Graph<R>, targets: &[usize], nodes: &mut [Node<R>]) {
    let used = (0..graph.len()).filter(|&v| !nodes[v].outputs.is_empty());
    let read: BTreeSet<usize> = used.flat_map(|v| graph.inputs(v).iter().map(|input| input.0)).collect();
    for &target in targets.iter().filter(|target| !read.contains(target)) {
        nodes[target].need = Need::Handle;
    }
}

fn report<R>(table: &Table<R>) -> Vec<VertexReport> {
    let used = (0..table.graph.len()).filter(|&v| !table.nodes[v].outputs.is_empty());
    used.map(|v| {
        let vertex = table.graph.vertex(v);
        let outputs = table.nodes[v].outputs.iter().map(|(&o, output)| output_report(table, o, output)).collect();
        let outcome = table.nodes[v].outcome;
        VertexReport { vertex: vertex.digest.clone(), name: vertex.name.clone(), outcome, outputs }
    })
    .collect()
}

fn output_report<R>(table: &Table<R>, output: usize, state: &Output) -> OutputReport {
    let matched = state.matched.as_ref().or(state.hit.as_ref()).and_then(|hit| {
        let store = table.stores[hit.store].as_ref()?;
        Some((store.name().to_owned(), hit.item.clone()))
    });
    let items: BTreeSet<ItemId> = state.items.iter().chain(state.keys.first().into_iter().flatten()).cloned().collect();
    OutputReport { output, records: state.records.clone(), matched, items: items.into_iter().collect() }
}
