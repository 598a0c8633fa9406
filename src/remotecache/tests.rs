//! Round trips and hostile input; BuildKit's own bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::config::{CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult, Timestamp};
use super::read::{self, Imported, RemoteLayer};
use super::write::{self, Written};
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
    let config = read::parse(bytes).expect("config");
    write::write(&graph(&import(&config).expect("sound")))
}

#[test]
fn buildkits_configs_keep_their_bytes() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden/cache");
    let mut count = 0;
    for case in std::fs::read_dir(golden).expect("goldens").map(|entry| entry.expect("entry").path()) {
        for name in ["cache-max.json", "cache-min.json"] {
            // The folder has them indented, so they are brought back into Go's form first.
            let Ok(text) = std::fs::read(case.join(name)) else { continue };
            let expected = read::parse(&text).expect("config").encode();
            let found = again(&expected).config.encode();
            assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected), "{}", case.display());
            count += 1;
        }
    }
    assert!(count > 20, "{count} configs");
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
        let first = write::write(&graph(&import(&config).expect("sound")));
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
