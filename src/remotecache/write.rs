//! A graph of records as a config: normalised and sorted exactly as BuildKit does, so that equal graphs have equal bytes.
//!
//! In: records whose results are stacks of layers. Out: the config, and its layers in its order. Where BuildKit leaves the order
//! to chance (records of equal digest whose links compare equal, several links between the same two records, one blob on several others
//! where several records lead nowhere), the order here is that of hashes over everything they lead to, or of the ids of the records that
//! lead nowhere, so that it is the graph's alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::config::{CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult, Timestamp};
use super::read::RemoteLayer;
use crate::digest::Digest;
use crate::solver::{ItemId, Record, RecordGraph};

/// A config and the layers it speaks of, in its order; one that lies on several others is there as often.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// The config.
    pub config: CacheConfig,
    /// Its layers.
    pub layers: Vec<RemoteLayer>,
}

/// How times are written that are not written in UTC: BuildKit writes them in its own zone, and what is exported again is to
/// have the same bytes.
pub type Times = BTreeMap<SystemTime, Timestamp>;

/// Makes the config of a graph.
pub fn write(graph: &RecordGraph<Vec<RemoteLayer>>, times: &Times) -> Written {
    let mut graph = graph.clone();
    graph.take_apart();
    let mut state = State::new(times);
    for id in ordered(&graph) {
        state.record(&graph, &id);
    }
    sorted(state)
}

/// Lists all items so that each comes after those it is linked to, as far as links go in no circle: what nothing is linked to
/// stands at the end of what leads to it, input by input. BuildKit goes the same way, and its order of layers is of that.
fn ordered(graph: &RecordGraph<Vec<RemoteLayer>>) -> Vec<ItemId> {
    let parents = |id: &ItemId| graph.record(id).into_iter().flat_map(|record| record.links).flatten();
    let linked: BTreeSet<ItemId> = graph.items().flat_map(|(id, _)| parents(id)).map(|parent| parent.item).collect();
    let (inner, leaves): (Vec<_>, Vec<_>) = graph.items().map(|(id, _)| id.clone()).partition(|id| linked.contains(id));
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    // In a circle there may be no leaf.
    for start in leaves.into_iter().chain(inner) {
        let mut stack = vec![(start, false)];
        while let Some((id, after)) = stack.pop() {
            if after {
                order.push(id);
            } else if seen.insert(id.clone()) {
                let open: Vec<ItemId> = parents(&id).map(|parent| parent.item).collect();
                stack.push((id, true));
                stack.extend(open.into_iter().rev().map(|parent| (parent, false)));
            }
        }
    }
    order
}

/// A layer.
#[derive(Clone)]
struct Layer {
    entry: CacheLayer,
    remote: RemoteLayer,
}

struct State<'a> {
    times: &'a Times,
    records: Vec<CacheRecord>,
    /// Of each record, a hash over it and all it is reached from.
    marks: Vec<Digest>,
    numbers: BTreeMap<ItemId, usize>,
    layers: Vec<Layer>,
    /// Layers by what they lie on.
    places: BTreeMap<(Option<usize>, Digest), usize>,
}

impl<'a> State<'a> {
    fn new(times: &'a Times) -> Self {
        let (records, marks, layers) = (Vec::new(), Vec::new(), Vec::new());
        Self { times, records, marks, numbers: BTreeMap::new(), layers, places: BTreeMap::new() }
    }

    fn record(&mut self, graph: &RecordGraph<Vec<RemoteLayer>>, id: &ItemId) {
        let Some(record) = graph.record(id) else { return };
        let inputs = self.inputs(&record);
        if inputs.iter().any(Vec::is_empty) {
            return;
        }
        let result = graph.item(id).and_then(|item| item.result.as_ref());
        let results = result.and_then(|(at, layers)| self.result(*at, layers)).into_iter().collect();
        self.numbers.insert(id.clone(), self.records.len());
        self.marks.push(self.mark(&record.digest, &inputs));
        self.records.push(CacheRecord { results, chains: Vec::new(), digest: record.digest, inputs });
    }

    fn inputs(&self, record: &Record) -> Vec<Vec<CacheInput>> {
        let mut inputs = Vec::with_capacity(record.links.len());
        for links in &record.links {
            let known = links.iter().filter_map(|link| Some((link, *self.numbers.get(&link.item)?)));
            let mut known: Vec<_> = known
                .map(|(link, number)| {
                    let record = &self.records[number];
                    (link.selector.as_ref(), &record.digest, &self.marks[number], number)
                })
                .collect();
            known.sort();
            let input = known
                .into_iter()
                .map(|(selector, .., number)| CacheInput { selector: selector.cloned(), link: number as i64 });
            inputs.push(input.collect());
        }
        inputs
    }

    fn mark(&self, digest: &Digest, inputs: &[Vec<CacheInput>]) -> Digest {
        let mut text = digest.to_string();
        for links in inputs {
            text.push('\n');
            for link in links {
                let selector = link.selector.as_ref().map_or("", Digest::as_str);
                text.push_str(&format!(" {selector}/{}", self.marks[link.link as usize]));
            }
        }
        Digest::compute(text)
    }

    /// Adds the layers of a result; none if it has none.
    fn result(&mut self, at: SystemTime, layers: &[RemoteLayer]) -> Option<CacheResult> {
        let mut below = None;
        for layer in layers {
            let digest = &layer.descriptor.digest;
            let next = self.layers.len();
            let place = *self.places.entry((below, digest.clone())).or_insert(next);
            if place == next {
                let parent = below.map_or(-1, |below| below as i64);
                let entry = CacheLayer { blob: digest.clone(), parent, annotations: None };
                self.layers.push(Layer { entry, remote: layer.clone() });
            }
            below = Some(place);
        }
        let created_at = self.times.get(&at).copied().unwrap_or_else(|| at.into());
        below.map(|top| CacheResult { layer: top as i64, created_at })
    }
}

fn sorted(state: State<'_>) -> Written {
    let (layers, new_layer) = sort_layers(state.layers);
    let (records, marks) = (state.records, state.marks);
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by(|a, b| compare(&records[*a], &records[*b], &records).then_with(|| marks[*a].cmp(&marks[*b])));
    let new_record = inverse(&order);
    let mut by_number: Vec<Option<CacheRecord>> = records.into_iter().map(Some).collect();
    let mut sorted = Vec::with_capacity(order.len());
    for number in order {
        let Some(mut record) = by_number[number].take() else { continue };
        for result in &mut record.results {
            result.layer = new_layer[result.layer as usize] as i64;
        }
        for links in &mut record.inputs {
            links.iter_mut().for_each(|link| link.link = new_record[link.link as usize] as i64);
            links.sort_by(|a, b| (a.link, &a.selector).cmp(&(b.link, &b.selector)));
        }
        sorted.push(record);
    }
    let (config_layers, layers) = layers.into_iter().unzip();
    Written { config: CacheConfig { layers: config_layers, records: sorted }, layers }
}

/// Sorts by digest, then by the number of what they lie on, and returns the new number of each.
fn sort_layers(layers: Vec<Layer>) -> (Vec<(CacheLayer, RemoteLayer)>, Vec<usize>) {
    let mut order: Vec<usize> = (0..layers.len()).collect();
    order.sort_by_key(|number| (&layers[*number].entry.blob, layers[*number].entry.parent));
    let new = inverse(&order);
    let moved = order.iter().map(|number| {
        let Layer { mut entry, remote, .. } = layers[*number].clone();
        if entry.parent >= 0 {
            entry.parent = new[entry.parent as usize] as i64;
        }
        (entry, remote)
    });
    (moved.collect(), new)
}

fn inverse(order: &[usize]) -> Vec<usize> {
    let mut new = vec![0; order.len()];
    for (at, number) in order.iter().enumerate() {
        new[*number] = at;
    }
    new
}

/// BuildKit's order: digest, number of inputs, then input by input number of links, selectors and digests of what is linked.
fn compare(a: &CacheRecord, b: &CacheRecord, records: &[CacheRecord]) -> std::cmp::Ordering {
    let links = |links: &[CacheInput]| -> Vec<(String, Digest)> {
        let text = |selector: &Option<Digest>| selector.as_ref().map_or(String::new(), Digest::to_string);
        links.iter().map(|link| (text(&link.selector), records[link.link as usize].digest.clone())).collect()
    };
    let inputs = || {
        let pairs = a.inputs.iter().zip(&b.inputs);
        let mut orders = pairs.map(|(a, b)| a.len().cmp(&b.len()).then_with(|| links(a).cmp(&links(b))));
        orders.find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    };
    a.digest.cmp(&b.digest).then(a.inputs.len().cmp(&b.inputs.len())).then_with(inputs)
}
