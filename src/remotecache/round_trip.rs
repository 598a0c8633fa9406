//! Caches that are exported, merged and imported, by solves of fake vertices: what is found is what would have been made.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proptest::prelude::*;

use super::merge;
use super::read::{Imported, RemoteLayer};
use super::write::{self, Times, Written};
use crate::digest::{DiffId, Digest};
use crate::image::{Descriptor, media};
use crate::solver::fake::{Memory, Run, Vtx, setup, vtx};
use crate::solver::{
    CacheError, CacheStore, Exported, ItemId, LinkQuery, Need, Parent, Record, RecordGraph, StoredResult,
};

/// What the results of all solves were, by the blob that stands for each.
type Values = Arc<Mutex<BTreeMap<Digest, String>>>;

/// An exported cache as a store.
struct Remote {
    cache: Imported,
    values: Values,
}

impl CacheStore<String> for Remote {
    fn name(&self) -> &str {
        "remote"
    }
    fn root(&self, record: &Digest) -> Option<ItemId> {
        self.cache.root(record).map(name)
    }
    fn children(&self, parent: &ItemId, link: LinkQuery<'_>) -> Vec<ItemId> {
        self.cache.children(number(parent), link).map(name).collect()
    }
    fn results(&self, item: &ItemId) -> Vec<StoredResult> {
        let results = &self.cache.record(number(item)).expect("record").results;
        let stored = |(id, result): (usize, &super::read::ImportedResult)| StoredResult {
            id: id.to_string(),
            created_at: result.created_at.system(),
        };
        results.iter().enumerate().map(stored).collect()
    }
    fn record(&self, item: &ItemId) -> Option<Record> {
        let record = self.cache.record(number(item))?;
        let parent =
            |(selector, parent): &(Option<Digest>, usize)| Parent { item: name(*parent), selector: selector.clone() };
        let links = record.inputs.iter().map(|links| links.iter().map(parent).collect()).collect();
        let content = self.cache.content(record).into_iter().map(|number| number.map(name)).collect();
        Some(Record { digest: record.digest.clone(), links, content })
    }
    fn load(&self, item: &ItemId, result: &str, _need: Need) -> BoxFuture<'_, Result<String, CacheError>> {
        let record = self.cache.record(number(item)).expect("record");
        let layers = self.cache.layers(&record.results[result.parse::<usize>().expect("number")]);
        let value = self.values.lock().unwrap()[&layers[0].descriptor.digest].clone();
        async { Ok(value) }.boxed()
    }
    fn forget(&self, _item: &ItemId, _result: &str) {}
}

fn name(number: usize) -> ItemId {
    ItemId::new(number.to_string())
}

fn number(item: &ItemId) -> usize {
    item.as_str().parse().expect("number")
}

fn layers(values: &Values, exported: &Exported<String>) -> RecordGraph<Vec<RemoteLayer>> {
    exported.graph.clone().map(|_, value| {
        let descriptor = Descriptor::of(media::OCI_LAYER_GZIP, value.as_bytes());
        values.lock().unwrap().insert(descriptor.digest.clone(), value);
        let diff_id = DiffId(descriptor.digest.clone());
        Some(vec![RemoteLayer { descriptor, diff_id, created: None, description: String::new() }])
    })
}

/// Reads a cache; no circle passes.
fn imported(written: &Written) -> Imported {
    let blobs = written.layers.iter().map(|layer| (layer.descriptor.digest.clone(), layer.clone())).collect();
    Imported::new(written.config.clone(), blobs).expect("sound")
}

fn export(values: &Values, run: &Run) -> Imported {
    imported(&write::write(&layers(values, &run.solution.records), &Times::new()))
}

fn remote(values: &Values, cache: Imported) -> Arc<dyn CacheStore<String>> {
    Arc::new(Remote { cache, values: values.clone() })
}

/// A stage of some definition that gives `content`, a copy of part of it onto a base, and a step on that.
fn build(stage: &str, content: &str) -> Vec<Vtx> {
    let copy = vtx("copy").input("base").part("stage");
    vec![vtx("base"), vtx("stage").key(stage).value(content), copy, vtx("run").input("copy")]
}

fn forced(mut vertices: Vec<Vtx>, at: usize) -> Vec<Vtx> {
    vertices[at] = vertices[at].clone().ignore_cache();
    vertices
}

#[tokio::test]
async fn content_leads_to_what_was_made_of_it() {
    let (values, local) = (Values::default(), Memory::named("local"));
    let first = setup(&build("d", "one"), &["run"]).store(&local).run().await;
    let second = setup(&forced(build("d", "two"), 1), &["run"]).store(&local).run().await;
    assert_ne!(first.results(), second.results());
    let exported = setup(&build("d", "not made"), &["run"]).store(&local).collect().run().await;
    assert_eq!((exported.ran(), exported.results()), (vec![""; 0], second.results()), "the newest of its definition");
    let cache = || remote(&values, export(&values, &exported));
    for (content, made) in [("one", &first), ("two", &second)] {
        let other =
            setup(&build("other", content), &["run"]).store(&Memory::named("fresh")).import(cache()).run().await;
        assert_eq!(other.results(), made.results());
        assert_eq!(other.ran(), ["stage"], "{content}");
    }
    let same = setup(&build("d", "not made"), &["run"]).store(&Memory::named("fresh")).import(cache()).run().await;
    assert_eq!((same.ran(), same.results()), (vec![""; 0], second.results()));
}

#[tokio::test]
async fn what_two_writers_made_of_one_definition_stays_apart() {
    let values = Values::default();
    let one = setup(&build("d", "one"), &["run"]).store(&Memory::named("local")).collect().run().await;
    let two = setup(&build("d", "two"), &["run"]).store(&Memory::named("local")).collect().run().await;
    let mut graph = layers(&values, &one.solution.records);
    merge::merge(&mut graph, &export(&values, &two));
    for (content, made) in [("one", &one), ("two", &two)] {
        let cache = remote(&values, imported(&write::write(&graph, &Times::new())));
        let other = setup(&build("other", content), &["run"]).store(&Memory::named("fresh")).import(cache).run().await;
        assert_eq!((other.ran(), other.results()), (vec!["stage"], made.results()), "{content}");
    }
}

/// Vertices by the former ones they depend on, by a part of these or wholly.
type Dag = Vec<Vec<(usize, bool)>>;

fn vertices(dag: &Dag) -> Vec<Vtx> {
    let vertex = |i: usize| {
        let inputs = dag[i].iter().filter(|_| i > 0);
        inputs.fold(vtx(&format!("v{i}")), |vertex, &(seed, part)| {
            let name = format!("v{}", seed % i);
            if part { vertex.part(&name) } else { vertex.input(&name) }
        })
    };
    (0..dag.len()).map(vertex).collect()
}

/// One build of many.
#[derive(Debug, Clone)]
struct Round {
    /// Which root it has.
    root: usize,
    /// What the step gives that does not always give the same.
    content: u8,
    /// Whether that is made to run.
    forced: bool,
    /// Whether the cache is imported, exported, and merged with what lies there.
    cache: [bool; 3],
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let round = (0usize..2, 0u8..3, any::<bool>(), any::<[bool; 3]>());
    let round = round.prop_map(|(root, content, forced, cache)| Round { root, content, forced, cache });
    prop::collection::vec(round, 2..8)
}

/// Reads a cache as BuildKit does, which takes what shares a parent in every input for one record.
fn as_buildkit_reads(values: &Values, written: &Written) -> Arc<Memory> {
    let cache = imported(written);
    let store = Memory::named("buildkit");
    let mut graph = store.graph.lock().unwrap();
    let mut names: BTreeMap<usize, ItemId> = BTreeMap::new();
    for number in cache.order() {
        let record = cache.record(number).expect("record");
        let parent = |(selector, parent): &(Option<Digest>, usize)| Parent {
            item: names[parent].clone(),
            selector: selector.clone(),
        };
        let links = record.inputs.iter().map(|links| links.iter().map(parent).collect()).collect();
        let record_of_it = Record { digest: record.digest.clone(), links, content: Vec::new() };
        let id = graph.identify(&record_of_it);
        graph.add(&id, &record_of_it);
        let before = graph.item(&id).and_then(|item| Some(item.result.as_ref()?.0));
        if let Some(result) = record.results.first().filter(|result| Some(result.created_at.system()) > before) {
            let value = values.lock().unwrap()[&cache.layers(result)[0].descriptor.digest].clone();
            graph.set_result(&id, Some((result.created_at.system(), value)));
        }
        names.insert(number, id);
    }
    drop(graph);
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However builds with a step that does not always give the same were cached, exported and merged: a build whose step is
    /// not known by its definition gets what it would have made itself, of the caches and of the roots.
    #[test]
    fn no_cache_leads_to_what_was_made_of_other_content(
        dag in prop::collection::vec(prop::collection::vec((0usize..1000, any::<bool>()), 1..3), 3..9),
        rounds in rounds(),
        at in 0usize..9,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(async {
            let (values, at, target) = (Values::default(), at % (dag.len() - 1), format!("v{}", dag.len() - 1));
            let with = |key: &str, content: u8| {
                let mut all = vertices(&dag);
                all[at] = all[at].clone().key(key).value(&format!("content {content}"));
                all
            };
            let roots = [Memory::named("one"), Memory::named("two")];
            let mut tag: Option<Written> = None;
            for Round { root, content, forced: is_forced, cache: [imports, exports, merges] } in rounds {
                let all = with("unstable", content);
                let all = if is_forced { forced(all, at) } else { all };
                let mut solve = setup(&all, &[&target]).store(&roots[root]).collect();
                if let Some(tag) = tag.as_ref().filter(|_| imports) {
                    solve = solve.import(remote(&values, imported(tag)));
                }
                let run = solve.run().await;
                if exports {
                    let mut graph = layers(&values, &run.solution.records);
                    if let Some(tag) = tag.as_ref().filter(|_| merges) {
                        merge::merge(&mut graph, &imported(tag));
                    }
                    tag = Some(write::write(&graph, &Times::new()));
                }
            }
            for content in 0..3 {
                let other = with(&format!("stable {content}"), content);
                let clean = setup(&other, &[&target]).run().await;
                let mut caches: Vec<Arc<dyn CacheStore<String>>> = Vec::new();
                if let Some(tag) = &tag {
                    caches.push(remote(&values, imported(tag)));
                    caches.push(as_buildkit_reads(&values, tag));
                }
                for cache in caches {
                    let found = setup(&other, &[&target]).store(&Memory::named("fresh")).import(cache).run().await;
                    assert_eq!(found.results(), clean.results());
                }
                for root in &roots {
                    let found = setup(&other, &[&target]).store(root).run().await;
                    assert_eq!(found.results(), clean.results());
                }
            }
        });
    }
}
