//! What a solve leaves for others: its records, and those of the stores that they were found by.
//!
//! In: the nodes of a solve that is over. Out: a graph of records with results, made like BuildKit's: a vertex without inputs
//! is an anchor and never has a result; a vertex is left out when one of its inputs left nothing to link to; an item found in a
//! store comes with all its ancestors there, without their results, so that an export after a full hit repeats the import.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::SystemTime;

use super::adopt::{Adopted, adopt};
use super::cache::{ItemId, Need, Parent, Record};
use super::lookup::Table;
use super::node::Content;
use super::records::RecordGraph;

/// Records for export.
#[derive(Debug, Clone)]
pub struct Exported<R> {
    /// The records, with the results there are.
    pub graph: RecordGraph<R>,
    /// Per target, its items.
    pub targets: Vec<BTreeSet<ItemId>>,
}

impl<R: Clone> Exported<R> {
    /// Returns what one target is reached through, and nothing else.
    pub fn of_target(&self, target: usize) -> RecordGraph<R> {
        self.graph.ancestors(self.targets.get(target).into_iter().flatten().cloned().collect())
    }
}

impl<R> Default for Exported<R> {
    fn default() -> Self {
        Self { graph: RecordGraph::default(), targets: Vec::new() }
    }
}

/// Where a result is to be had.
enum Place<R> {
    Here(R),
    Store(usize, ItemId, String),
}

/// A result for an item: when it was saved, and where it is.
type Offer<R> = (SystemTime, Place<R>);

struct Collector<'a, R> {
    table: &'a Table<R>,
    graph: RecordGraph<R>,
    /// Items of stores, and what they are in the graph.
    taken: Adopted,
    /// Per vertex and output, the items that others link to.
    left: BTreeMap<(usize, usize), BTreeSet<ItemId>>,
    offers: BTreeMap<ItemId, Offer<R>>,
}

/// Collects the records of a solve; of one that failed, those of what finished.
pub(super) async fn collect<R: Clone>(
    table: &Table<R>,
    targets: &[(usize, usize)],
    (failed, need): (bool, Need),
) -> Exported<R> {
    let (taken, left, offers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut collector = Collector { table, graph: RecordGraph::new(), taken, left, offers };
    for v in wanted(table, targets, failed) {
        let outputs: Vec<usize> = table.nodes[v].outputs.keys().copied().collect();
        for o in outputs {
            let items = collector.vertex(v, o);
            collector.left.insert((v, o), items);
        }
    }
    let targets = targets.iter().map(|target| collector.left.get(target).cloned().unwrap_or_default()).collect();
    Exported { targets, graph: collector.load(need).await }
}

/// Returns what the targets depend on, or what finished of it, each after its inputs.
fn wanted<R>(table: &Table<R>, targets: &[(usize, usize)], failed: bool) -> BTreeSet<usize> {
    let finished = |&v: &usize| !table.nodes[v].values.is_empty();
    let mut stack: Vec<usize> = match failed {
        false => targets.iter().map(|target| target.0).collect(),
        true => (0..table.graph.len()).filter(finished).collect(),
    };
    let mut wanted = BTreeSet::new();
    while let Some(v) = stack.pop() {
        if wanted.insert(v) {
            stack.extend(table.graph.inputs(v).iter().map(|input| input.0));
        }
    }
    wanted
}

impl<R: Clone> Collector<'_, R> {
    /// Adds the records of one output and returns the items that others are linked to: that of its result, where it has one.
    fn vertex(&mut self, v: usize, o: usize) -> BTreeSet<ItemId> {
        let is_source = self.table.graph.inputs(v).is_empty();
        let found = self.found(v, o, is_source);
        if is_source {
            return found.into_iter().chain(self.own(v, o)).collect();
        }
        let value = self.table.nodes[v].values.get(&o).cloned();
        let matched = self.table.nodes[v].outputs[&o].matched.clone();
        let is_found = matched.is_some();
        let own = match matched.and_then(|hit| self.take(hit.store, &hit.item)) {
            Some(id) => self.join(v, BTreeSet::from([id])),
            None if value.is_none() && !found.is_empty() => self.join(v, found),
            None => self.own(v, o),
        };
        if let Some(value) = value {
            let at = self.saved_at(v, o);
            for id in &own {
                if is_found {
                    // It keeps its time, though it was saved here later than that.
                    self.offers.remove(id);
                }
                self.offer(id, (at, Place::Here(value.clone())));
            }
        }
        own
    }

    /// Adds what the stores have for an output.
    fn found(&mut self, v: usize, o: usize, is_source: bool) -> BTreeSet<ItemId> {
        let mut items = BTreeSet::new();
        for s in 0..self.table.stores.len() {
            for item in &self.table.nodes[v].outputs[&o].keys[s] {
                let Some(id) = self.take(s, item) else { continue };
                if !is_source {
                    self.offer_stored(&id, s, item);
                }
                items.insert(id);
            }
        }
        items
    }

    fn own(&mut self, v: usize, o: usize) -> BTreeSet<ItemId> {
        let inputs = self.table.graph.inputs(v).len();
        let links: Vec<BTreeSet<Parent>> = (0..inputs).map(|input| self.parents(v, input)).collect();
        if links.iter().any(BTreeSet::is_empty) {
            return BTreeSet::new();
        }
        let content: Vec<Option<ItemId>> = self.table.nodes[v].content.iter().map(Content::item).collect();
        let records = self.table.nodes[v].outputs[&o].records.clone();
        let record = |digest| Record { digest, links: links.clone(), content: content.clone() };
        records.into_iter().map(|digest| self.add(&record(digest))).collect()
    }

    /// Adds the links to items there are that lead to the same results.
    fn join(&mut self, v: usize, items: BTreeSet<ItemId>) -> BTreeSet<ItemId> {
        let parents: Vec<BTreeSet<Parent>> =
            (0..self.table.graph.inputs(v).len()).map(|input| self.parents(v, input)).collect();
        for id in &items {
            if let Some(record) = self.graph.record(id) {
                let joined = self.table.joined(v, record, |input| parents[input].clone());
                self.graph.add(id, &joined);
            }
        }
        items
    }

    fn parents(&mut self, v: usize, input: usize) -> BTreeSet<Parent> {
        let (u, o) = self.table.graph.inputs(v)[input];
        let selector = self.table.nodes[v].input_key(input).and_then(|key| key.selector.clone());
        let left = self.left.get(&(u, o)).into_iter().flatten();
        let mut parents: BTreeSet<Parent> =
            left.map(|item| Parent { item: item.clone(), selector: selector.clone() }).collect();
        if let Some(Content::Known(digest)) = self.table.nodes[v].content.get(input) {
            let item = self.add(&Record { digest: digest.clone(), links: Vec::new(), content: Vec::new() });
            parents.insert(Parent::content(item));
        }
        parents
    }

    fn add(&mut self, record: &Record) -> ItemId {
        let id = self.graph.identify(record);
        self.graph.add(&id, record);
        id
    }

    /// Adds an item of a store after all its ancestors.
    fn take(&mut self, s: usize, item: &ItemId) -> Option<ItemId> {
        let store = self.table.stores[s].as_ref()?;
        let graph = &mut self.graph;
        let add = |record: &Record| {
            let id = graph.identify(record);
            graph.add(&id, record);
            Ok::<_, Infallible>(id)
        };
        adopt((&**store, s, item), &mut self.taken, |_| true, add).unwrap_or_default()
    }

    fn offer_stored(&mut self, id: &ItemId, s: usize, item: &ItemId) {
        let Some(store) = &self.table.stores[s] else { return };
        let newest = store.results(item).into_iter().max_by_key(|result| result.created_at);
        if let Some(result) = newest {
            self.offer(id, (result.created_at, Place::Store(s, item.clone(), result.id)));
        }
    }

    /// Takes an offer that is newer than what is there, or as new and nearer.
    fn offer(&mut self, id: &ItemId, offer: Offer<R>) {
        let nearer = |old: &Offer<R>| offer.0 > old.0 || (offer.0 == old.0 && matches!(offer.1, Place::Here(_)));
        if self.offers.get(id).is_none_or(nearer) {
            self.offers.insert(id.clone(), offer);
        }
    }

    /// Returns when a result was saved: where it was found, else in the first store; where there is none, when it was made.
    fn saved_at(&self, v: usize, o: usize) -> SystemTime {
        let output = &self.table.nodes[v].outputs[&o];
        let found = output.matched.iter().map(|hit| (hit.store, &hit.item));
        let own = output.items.iter().map(|item| (0, item)).filter(|_| output.matched.is_none());
        let times = found.chain(own).filter_map(|(s, item)| {
            let results = self.table.stores.get(s)?.as_ref()?.results(item);
            results.into_iter().map(|result| result.created_at).max()
        });
        times.max().or(self.table.nodes[v].finished).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Asks the stores for the results they offered; what they cannot give is left out.
    async fn load(mut self, need: Need) -> RecordGraph<R> {
        for (id, (at, place)) in self.offers {
            let value = match place {
                Place::Here(value) => Some(value),
                Place::Store(s, item, result) => match &self.table.stores[s] {
                    Some(store) => store.load(&item, &result, need).await.ok(),
                    None => None,
                },
            };
            self.graph.set_result(&id, value.map(|value| (at, value)));
        }
        self.graph
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::super::Outcome;
    use super::super::cache::record_digest;
    use super::super::fake::{Memory, Run, Vtx, setup, vtx};
    use super::*;
    use crate::digest::Digest;

    /// An image, a context that is only known by content, a step on the first with the second, and another on that.
    fn build() -> Vec<Vtx> {
        let copy = vtx("copy").input("image").content("context");
        vec![vtx("image").also_key("chain"), vtx("context").random(), copy, vtx("run").input("copy")]
    }

    fn of(name: &str) -> Digest {
        record_digest(&Digest::compute(name), 0)
    }

    /// Records by digest with the digests each is reached from, and whether it has a result.
    fn shape(records: &Exported<String>) -> BTreeSet<(Digest, Vec<BTreeSet<Digest>>, bool)> {
        let digest = |id: &ItemId| records.graph.record(id).expect("known").digest;
        let links =
            |record: &Record| record.links.iter().map(|l| l.iter().map(|p| digest(&p.item)).collect()).collect();
        records.graph.items().map(|(_, i)| (i.record.digest.clone(), links(&i.record), i.result.is_some())).collect()
    }

    fn times(run: &Run) -> Vec<SystemTime> {
        let items = run.solution.records.graph.items();
        items.filter_map(|(_, item)| Some(item.result.as_ref()?.0)).collect()
    }

    #[tokio::test]
    async fn a_cold_solve_leaves_records_as_buildkit_does() {
        let store = Memory::named("local");
        let run = setup(&build(), &["run"]).store(&store).collect().run().await;
        let found = shape(&run.solution.records);
        let anchors: BTreeSet<&Digest> = found.iter().filter(|r| r.1.is_empty()).map(|r| &r.0).collect();
        assert_eq!(anchors.len(), 3, "both keys of the image and the content of the context");
        assert!(found.iter().filter(|r| r.1.is_empty()).all(|r| !r.2), "what has no inputs has no result");
        let copy = found.iter().find(|r| r.0 == of("copy")).expect("copy");
        assert_eq!((copy.1[0].clone(), copy.1[1].len(), copy.2), (BTreeSet::from([of("image"), of("chain")]), 1, true));
        let target = &run.solution.records.targets[0];
        assert_eq!(target.len(), 1);
        assert!(
            target.iter().all(|id| run.solution.records.graph.item(id).is_some_and(|i| i.record.digest == of("run")))
        );
    }

    #[tokio::test]
    async fn a_full_hit_leaves_what_it_found() {
        let store = Memory::named("remote");
        let first = setup(&build(), &["run"]).store(&store).collect().run().await;
        let fresh = Memory::named("local");
        let second = setup(&build(), &["run"]).store(&fresh).store(&store).collect().handles().run().await;
        assert_eq!(second.ran(), ["context"]);
        assert_eq!(shape(&second.solution.records), shape(&first.solution.records));
        assert_eq!(times(&second), times(&first), "results keep the time they were saved at");
        assert_eq!(store.handles.load(SeqCst), store.loads.load(SeqCst), "nothing was asked for by its bytes");
    }

    #[tokio::test]
    async fn what_a_step_reads_is_loaded_by_its_bytes() {
        let store = Memory::named("local");
        setup(&build(), &["copy"]).store(&store).run().await;
        setup(&build(), &["run"]).store(&store).handles().run().await;
        assert_eq!((store.loads.load(SeqCst), store.handles.load(SeqCst)), (1, 0));
    }

    #[tokio::test]
    async fn links_that_were_not_used_are_kept() {
        let store = Memory::named("local");
        setup(&build(), &["run"]).store(&store).run().await;
        let mut other = build();
        other[0] = vtx("image").key("other").also_key("chain");
        let run = setup(&other, &["run"]).store(&store).collect().run().await;
        assert_eq!(run.outcome("run"), Outcome::Cached);
        let found = shape(&run.solution.records);
        let copy = found.iter().find(|r| r.0 == of("copy")).expect("copy");
        assert_eq!(copy.1[0], BTreeSet::from([of("image"), of("chain"), of("other")]));
    }

    #[tokio::test]
    async fn a_failed_solve_leaves_what_finished() {
        let store = Memory::named("local");
        let mut failing = build();
        failing.push(vtx("last").input("run").fails());
        let run = setup(&failing, &["last"]).store(&store).collect().run().await;
        assert!(run.solution.results.is_err());
        let with_result: BTreeSet<Digest> =
            shape(&run.solution.records).into_iter().filter(|r| r.2).map(|r| r.0).collect();
        assert_eq!(with_result, BTreeSet::from([of("copy"), of("run")]));
    }

    #[tokio::test]
    async fn what_only_random_keys_lead_to_is_left_out() {
        let vertices = [vtx("context").random(), vtx("step").input("context"), vtx("next").input("step")];
        let run = setup(&vertices, &["next"]).store(&Memory::named("local")).collect().run().await;
        assert_eq!(run.solution.records.graph.items().count(), 0);
    }
}
