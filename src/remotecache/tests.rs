//! Round trips and hostile input; BuildKit's own bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proptest::prelude::*;

use super::config::{CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult, ChainedResult, Timestamp};
use super::manifest::{self, Form};
use super::place::Place;
use super::read::{self, Imported, RemoteLayer};
use super::write::{self, Times, Written};
use crate::digest::{DiffId, Digest};
use crate::image::{Descriptor, media};
use crate::solver::{ItemId, LinkQuery, Parent, Record, RecordGraph};

fn layer(blob: &Digest) -> RemoteLayer {
    let descriptor = Descriptor::new(media::OCI_LAYER_GZIP, blob.clone(), 1);
    RemoteLayer { descriptor, diff_id: DiffId(blob.clone()), created: None, description: String::new() }
}

fn import(config: &CacheConfig) -> Result<Imported, super::RemoteCacheError> {
    let blobs: BTreeMap<Digest, RemoteLayer> = config.layers.iter().map(|l| (l.blob.clone(), layer(&l.blob))).collect();
    Imported::new(config.clone(), blobs)
}

/// Makes the solver's graph of what was read.
fn graph(imported: &Imported) -> RecordGraph<Vec<RemoteLayer>> {
    let mut graph = RecordGraph::new();
    let mut ids: BTreeMap<usize, ItemId> = BTreeMap::new();
    // Records are sorted by digest, so parents may come later: as often as there are records is enough.
    for _ in 0..imported.len() {
        for number in 0..imported.len() {
            let record = imported.record(number).expect("record");
            if ids.contains_key(&number) || !record.inputs.iter().flatten().all(|(_, parent)| ids.contains_key(parent))
            {
                continue;
            }
            let parent = |(selector, parent): &(Option<Digest>, usize)| Parent {
                item: ids[parent].clone(),
                selector: selector.clone(),
            };
            let links: Vec<BTreeSet<Parent>> =
                record.inputs.iter().map(|links| links.iter().map(parent).collect()).collect();
            let added = Record { digest: record.digest.clone(), links, content: Vec::new() };
            // By all its links: records that only overlap stay apart, so that nothing but the order is at stake.
            let id = added.id();
            graph.add(&id, &added);
            if let Some(result) = record.results.first() {
                let layers = imported.layers(result).into_iter().cloned().collect();
                graph.set_result(&id, Some((result.created_at.system(), layers)));
            }
            ids.insert(number, id);
        }
    }
    graph
}

fn again(bytes: &[u8]) -> Written {
    let imported = import(&read::parse(bytes).expect("config")).expect("sound");
    write::write(&graph(&imported), &imported.times().collect())
}

/// The bytes of a config as BuildKit wrote them, of a case's layout whose blobs may lie in the pool.
fn written_by_buildkit(golden: &Path, layout: &Path) -> Option<Vec<u8>> {
    let blob = |digest: &str| {
        let name = format!("blobs/sha256/{}", digest.strip_prefix("sha256:").expect("sha256"));
        std::fs::read(layout.join(&name)).or_else(|_| std::fs::read(golden.join(&name))).expect("blob")
    };
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).ok()?).expect("index");
    let manifest = blob(index["manifests"][0]["digest"].as_str().expect("digest"));
    let super::manifest::Content::Cache { config, .. } = super::manifest::decode(&manifest, None).expect("manifest")
    else {
        panic!("{} is no cache", layout.display())
    };
    Some(blob(config.digest.as_str()))
}

#[test]
fn buildkits_configs_keep_their_bytes() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden/cache");
    let mut count = 0;
    for case in std::fs::read_dir(&golden).expect("goldens").map(|entry| entry.expect("entry").path()) {
        for name in ["cache-max", "cache-min"] {
            let Some(expected) = written_by_buildkit(&golden, &case.join(name)) else { continue };
            let found = again(&expected).config.encode();
            assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected), "{}", case.display());
            count += 1;
        }
    }
    assert!(count > 20, "{count} configs");
}

#[test]
fn times_keep_the_zone_they_were_written_in() {
    let text = format!(
        r#"{{"layers":[{{"blob":"{0}","parent":-1}}],"records":[{{"layers":[{{"layer":0,"createdAt":"2026-11-20T13:58:18.5+01:00"}}],"digest":"{0}"}}]}}"#,
        digest(1)
    );
    assert_eq!(String::from_utf8(again(text.as_bytes()).config.encode()).expect("utf-8"), text);
}

fn digest(number: usize) -> Digest {
    Digest::compute(number.to_string())
}

fn record(number: usize, inputs: &[&[(Option<usize>, i64)]], result: Option<i64>) -> CacheRecord {
    let input = |(selector, link): &(Option<usize>, i64)| CacheInput { selector: selector.map(digest), link: *link };
    CacheRecord {
        results: result.map(|layer| CacheResult { layer, created_at: Timestamp::default() }).into_iter().collect(),
        chains: Vec::new(),
        digest: digest(number),
        inputs: inputs.iter().map(|links| links.iter().map(input).collect()).collect(),
    }
}

fn stacked(parents: &[i64]) -> Vec<CacheLayer> {
    let layer =
        |(number, parent): (usize, &i64)| CacheLayer { blob: digest(number), parent: *parent, annotations: None };
    parents.iter().enumerate().map(layer).collect()
}

#[test]
fn circles_and_numbers_out_of_range_are_errors() {
    let bad_layers: [&[i64]; 4] = [&[0], &[1, 0], &[5], &[-2]];
    for parents in bad_layers {
        assert!(import(&CacheConfig { layers: stacked(parents), records: Vec::new() }).is_err(), "{parents:?}");
    }
    let bad_records = [
        vec![record(0, &[&[(None, 0)]], None)],
        vec![record(0, &[&[(None, 1)]], None), record(1, &[&[(None, 0)]], None)],
        vec![record(0, &[&[(None, i64::MAX)]], None)],
        vec![record(0, &[&[(None, -1)]], None)],
        vec![record(0, &[&[]], None)],
        vec![record(0, &[], Some(7))],
        vec![record(0, &[], Some(-1))],
    ];
    for records in bad_records {
        assert!(import(&CacheConfig { layers: stacked(&[-1]), records: records.clone() }).is_err(), "{records:?}");
    }
}

/// What two writers know of each other's records may lead in a circle; what is written does not.
#[test]
fn a_circle_in_a_graph_is_cut_when_it_is_written() {
    let link = |item: &ItemId| Parent { item: item.clone(), selector: None };
    let (root, a, b) = (ItemId::from(&digest(0)), ItemId::new("a"), ItemId::new("b"));
    let record =
        |number: usize, links: Vec<BTreeSet<Parent>>| Record { digest: digest(number), links, content: Vec::new() };
    let mut graph = RecordGraph::new();
    graph.add(&root, &record(0, Vec::new()));
    graph.add(&a, &record(1, vec![BTreeSet::from([link(&root), link(&b)])]));
    graph.add(&b, &record(2, vec![BTreeSet::from([link(&a), link(&root)])]));
    let written = write::write(&graph, &Times::new());
    assert!(import(&written.config).is_ok());
    let digests: BTreeSet<&Digest> = written.config.records.iter().map(|record| &record.digest).collect();
    assert_eq!(
        digests,
        BTreeSet::from([&digest(0), &digest(1), &digest(2)]),
        "both are reached from outside the circle"
    );
}

/// A blob that lies on several others is sorted by when these were come by: from what nothing is linked to, input by input.
#[test]
fn layers_of_one_blob_are_in_the_order_of_the_inputs() {
    let item = |number: usize| ItemId::from(&digest(number));
    let links = |numbers: &[usize]| -> Vec<BTreeSet<Parent>> {
        numbers.iter().map(|number| BTreeSet::from([Parent { item: item(*number), selector: None }])).collect()
    };
    for inputs in [[1, 2], [2, 1]] {
        let mut graph = RecordGraph::new();
        let mut add = |number: usize, inputs: &[usize], layers: &[usize]| {
            graph.add(&item(number), &Record { digest: digest(number), links: links(inputs), content: Vec::new() });
            let layers: Vec<RemoteLayer> = layers.iter().map(|number| layer(&digest(*number))).collect();
            graph.set_result(&item(number), (!layers.is_empty()).then_some((std::time::UNIX_EPOCH, layers)));
        };
        add(0, &[], &[]);
        add(1, &[0], &[11, 20]);
        add(2, &[0], &[12, 20]);
        add(3, &inputs, &[]);
        let layers = write::write(&graph, &Times::new()).config.layers;
        let twice = layers.iter().filter(|layer| layer.blob == digest(20));
        let below: Vec<&Digest> = twice.map(|layer| &layers[layer.parent as usize].blob).collect();
        assert_eq!(below, inputs.map(|record| digest(10 + record)).iter().collect::<Vec<_>>());
    }
}

/// Where several records lead nowhere, the order is the graph's, whatever was added first.
#[test]
fn layers_of_one_blob_are_in_one_order_whoever_added_what_first() {
    let item = |number: usize| ItemId::from(&digest(number));
    let write = |order: [usize; 4]| {
        let mut graph = RecordGraph::new();
        for number in order {
            let parent = number.checked_sub(2).filter(|parent| *parent > 0);
            let parent = parent.map(|parent| BTreeSet::from([Parent { item: item(parent), selector: None }]));
            let links = parent.into_iter().collect();
            graph.add(&item(number), &Record { digest: digest(number), links, content: Vec::new() });
            let layers = [10 + number, 20].map(|number| layer(&digest(number)));
            graph.set_result(&item(number), (number < 3).then_some((std::time::UNIX_EPOCH, layers.into())));
        }
        write::write(&graph, &Times::new()).config
    };
    let expected = write([1, 2, 3, 4]);
    assert_eq!(expected.layers.iter().filter(|layer| layer.blob == digest(20)).count(), 2);
    for order in [[2, 1, 4, 3], [1, 2, 4, 3], [2, 1, 3, 4]] {
        assert_eq!(write(order), expected, "{order:?}");
    }
}

#[test]
fn deep_chains_are_read_without_recursion() {
    let count = 30_000;
    let below = |number: usize| if number == 0 { -1 } else { number as i64 - 1 };
    let layers = stacked(&(0..count).map(below).collect::<Vec<_>>());
    let link = |number: usize| match number {
        0 => record(0, &[], None),
        _ => record(number, &[&[(None, number as i64 - 1)]], Some(number as i64)),
    };
    let imported = import(&CacheConfig { layers, records: (0..count).map(link).collect() }).expect("sound");
    let usable = (0..count).filter(|number| !imported.record(*number).expect("record").results.is_empty());
    assert_eq!(usable.count(), 999, "more layers than can be stacked are no result");
    let query = |number| LinkQuery { record: number, input: 0, selector: None };
    assert_eq!(imported.children(7, query(&digest(8))).collect::<Vec<_>>(), [8]);
}

#[test]
fn what_is_too_large_is_refused_unread() {
    let record = format!(r#"{{"digest":"{}"}},"#, digest(1));
    let text = format!(r#"{{"records":[{}"#, record.repeat(1_000_000));
    let error = read::parse(text.as_bytes()).expect_err("too large");
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[test]
fn a_result_without_its_blobs_is_none() {
    let config =
        CacheConfig { layers: stacked(&[-1, 0]), records: vec![record(0, &[], Some(1)), record(1, &[], Some(0))] };
    let only = BTreeMap::from([(digest(0), layer(&digest(0)))]);
    let imported = Imported::new(config, only).expect("sound");
    assert!(imported.record(0).expect("record").results.is_empty());
    let kept = &imported.record(1).expect("record").results;
    assert_eq!(imported.layers(&kept[0]).len(), 1);
}

#[test]
fn a_list_of_layers_needs_none_but_those() {
    let chained = |layers: &[i64]| CacheRecord {
        chains: vec![ChainedResult { layers: layers.to_vec(), created_at: Timestamp::default() }],
        ..record(0, &[], None)
    };
    let only = BTreeMap::from([(digest(1), layer(&digest(1)))]);
    for (list, is_there) in [(&[1][..], true), (&[1, 1], true), (&[0, 1], false), (&[], false)] {
        let config = CacheConfig { layers: stacked(&[-1, 0]), records: vec![chained(list)] };
        let imported = Imported::new(config, only.clone()).expect("sound");
        assert_eq!(imported.record(0).expect("record").results.len(), usize::from(is_there), "{list:?}");
    }
}

/// Documents by digest, of which the first is the root.
#[derive(Debug)]
struct Shelf(Vec<(Descriptor, Vec<u8>)>);

impl Place for Shelf {
    fn name(&self) -> &str {
        "shelf"
    }
    fn root(&self) -> BoxFuture<'_, Result<(Descriptor, Bytes), super::RemoteCacheError>> {
        let (descriptor, bytes) = self.0[0].clone();
        async { Ok((descriptor, bytes.into())) }.boxed()
    }
    fn document<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        _limit: u64,
    ) -> BoxFuture<'a, Result<Bytes, super::RemoteCacheError>> {
        let found = self.0.iter().find(|(known, _)| known.digest == descriptor.digest).map(|(_, bytes)| bytes.clone());
        let absent = || super::RemoteCacheError::invalid("it is not there");
        async move { found.map(Bytes::from).ok_or_else(absent) }.boxed()
    }
    fn blob<'a>(&'a self, _: &'a Descriptor) -> BoxFuture<'a, Result<super::place::Chunks, super::RemoteCacheError>> {
        async { Err(super::RemoteCacheError::invalid("no layers here")) }.boxed()
    }
}

/// An index of images that carry a cache, each of so many layers in its configuration and in its manifest.
fn images(of: &[(usize, usize)]) -> Shelf {
    let mut shelf = Vec::new();
    let mut put = |kind: &str, document: serde_json::Value| {
        let bytes = document.to_string().into_bytes();
        let descriptor = Descriptor::of(kind, &bytes);
        shelf.push((descriptor.clone(), bytes));
        serde_json::to_value(descriptor).expect("descriptor")
    };
    let records = serde_json::to_vec(&[record(7, &[], Some(0))]).expect("records");
    let cache = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, records);
    let mut entries = Vec::new();
    for (number, (diff_ids, layers)) in of.iter().enumerate() {
        let config = serde_json::json!({
            "architecture": format!("a{number}"), "os": "linux", "moby.buildkit.cache.v0": cache,
            "rootfs": {"type": "layers", "diff_ids": vec![digest(1); *diff_ids]},
        });
        let config = put(media::OCI_CONFIG, config);
        let layers = vec![Descriptor::new(media::OCI_LAYER_GZIP, digest(2), 1); *layers];
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": config, "layers": layers});
        entries.push(put(media::OCI_MANIFEST, manifest));
    }
    put(media::OCI_INDEX, serde_json::json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": entries}));
    let root = shelf.pop().expect("index");
    shelf.insert(0, root);
    Shelf(shelf)
}

#[tokio::test]
async fn an_image_that_is_not_sound_costs_only_its_own_cache() {
    let caches = |shelf: Shelf| async move { super::import(&shelf).await.map(|caches| caches.len()) };
    assert_eq!(caches(images(&[(1, 1), (1, 1)])).await.expect("sound"), 2);
    assert_eq!(caches(images(&[(1, 1), (2, 1), (1, 1)])).await.expect("one is left out"), 2);
    assert_eq!(caches(images(&[(2, 1)])).await.expect("none"), 0);
    let mut shelf = images(&[(1, 1), (1, 1)]);
    // The configuration of the first image, which comes after the index.
    shelf.0.remove(1);
    assert_eq!(caches(shelf).await.expect("the other"), 1);
    let mut shelf = images(&[(1, 1)]);
    shelf.0.remove(1);
    assert!(caches(shelf).await.is_err(), "what is wrong with the only one is told");
}

/// Sound configs: links and parents lead to lower numbers.
fn configs() -> impl Strategy<Value = CacheConfig> {
    let layers = prop::collection::vec(any::<prop::sample::Index>(), 0..8);
    let link = (prop::option::of(0usize..3), any::<prop::sample::Index>());
    let inputs = prop::collection::vec(prop::collection::vec(link, 1..3), 0..3);
    let records = prop::collection::vec((0usize..6, inputs, prop::option::of(any::<prop::sample::Index>())), 1..20);
    (layers, records).prop_map(|(layers, records)| {
        let parents: Vec<i64> = layers.iter().enumerate().map(|(n, index)| index.index(n + 1) as i64 - 1).collect();
        let layers = stacked(&parents);
        let records = records.into_iter().enumerate().map(|(n, (name, inputs, result))| {
            let inputs: Vec<Vec<(Option<usize>, i64)>> = match n {
                0 => Vec::new(),
                _ => inputs
                    .into_iter()
                    .map(|links| links.into_iter().map(|(s, i)| (s, i.index(n) as i64)).collect())
                    .collect(),
            };
            let inputs: Vec<&[(Option<usize>, i64)]> = inputs.iter().map(Vec::as_slice).collect();
            record(name, &inputs, result.filter(|_| !layers.is_empty()).map(|index| index.index(layers.len()) as i64))
        });
        CacheConfig { records: records.collect(), layers: layers.clone() }
    })
}

proptest! {
    #[test]
    fn what_was_written_is_written_again(config in configs()) {
        let first = write::write(&graph(&import(&config).expect("sound")), &Times::new());
        let bytes = first.config.encode();
        prop_assert_eq!(&again(&bytes).config.encode(), &bytes);
        prop_assert_eq!(first.layers.len(), first.config.layers.len());
    }

    #[test]
    fn any_numbers_end_in_an_answer(parents in prop::collection::vec(-2i64..6, 0..6), links in prop::collection::vec((-1i64..6, -1i64..6), 0..6)) {
        let records = links.iter().enumerate().map(|(n, (link, layer))| record(n, &[&[(None, *link)]], Some(*layer))).collect();
        let _ = import(&CacheConfig { layers: stacked(&parents), records });
    }
}

#[tokio::test]
async fn a_config_in_the_manifest_is_not_asked_for() {
    let (blob, config) = (digest(1), CacheConfig { layers: Vec::new(), records: vec![record(7, &[], None)] });
    let bytes = config.encode();
    let plain = Descriptor::of(super::config::MEDIA_TYPE, &bytes);
    let shelf = |described: Descriptor, is_there: bool| {
        let (kind, manifest) = manifest::encode(Form::Image, &[layer(&blob)], &described, BTreeMap::new());
        let root = (Descriptor::of(kind, &manifest), manifest);
        Shelf([root].into_iter().chain(is_there.then(|| (plain.clone(), bytes.clone()))).collect())
    };
    let caches = |shelf: Shelf| async move { super::import(&shelf).await.map(|caches| caches[0].len()) };
    let embedding = plain.clone().embedding(&bytes);
    assert_eq!(caches(shelf(embedding, false)).await.expect("in the manifest"), 1);
    assert!(caches(shelf(plain.clone(), false)).await.is_err());
    // What is not what the descriptor points to counts for nothing.
    let wrong = plain.clone().embedding(b"{}");
    assert_eq!(caches(shelf(wrong.clone(), true)).await.expect("asked for"), 1);
    assert!(caches(shelf(wrong, false)).await.is_err());
}
