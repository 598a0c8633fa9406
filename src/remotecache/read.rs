//! An exported cache as a graph that can be asked: from foreign bytes, so nothing in it is believed.
//!
//! In: a config, and which of its blobs are there. Out: [`Imported`]. Invariants: no link or layer leads in a circle or out of
//! range; memory is proportional to the document, which is at most [`CONFIG_LIMIT`] bytes; nothing here recurses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::RemoteCacheError;
use super::config::{CacheConfig, CacheRecord, Timestamp};
use crate::digest::{DiffId, Digest};
use crate::image::Descriptor;
use crate::solver::LinkQuery;

/// Largest config that is read; BuildKit reads a quarter of this.
pub const CONFIG_LIMIT: u64 = 4 << 20;
/// Most layers of one result: more cannot be stacked.
const DEPTH_LIMIT: usize = 1000;

/// A layer as a blob somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLayer {
    /// The blob; its media type is of the OCI's.
    pub descriptor: Descriptor,
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// What made it.
    pub description: String,
}

/// A result of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedResult {
    /// When it was saved.
    pub created_at: Timestamp,
    layers: Layers,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Layers {
    Top(usize),
    List(Vec<usize>),
}

#[derive(Debug)]
struct Layer {
    blob: Digest,
    parent: Option<usize>,
    /// Whether it is there itself.
    there: bool,
    /// Whether it and all below it are there, and how many they are.
    depth: Option<usize>,
}

/// A record.
#[derive(Debug)]
pub struct ImportedRecord {
    /// Its digest.
    pub digest: Digest,
    /// Per input, selectors and records it is reached from.
    pub inputs: Vec<Vec<(Option<Digest>, usize)>>,
    /// Its results whose blobs are all there.
    pub results: Vec<ImportedResult>,
}

/// Parent, record digest, input, selector: all as numbers.
type LinkKey = (u32, u32, u32, u32);

/// A cache.
#[derive(Debug)]
pub struct Imported {
    blobs: BTreeMap<Digest, RemoteLayer>,
    layers: Vec<Layer>,
    records: Vec<ImportedRecord>,
    roots: BTreeMap<Digest, usize>,
    names: BTreeMap<Digest, u32>,
    /// Sorted.
    children: Vec<(LinkKey, u32)>,
    /// What is said of the build it is of, unread.
    pub explained: Option<String>,
}

/// Reads the bytes of a config.
pub fn parse(bytes: &[u8]) -> Result<CacheConfig, RemoteCacheError> {
    if bytes.len() as u64 > CONFIG_LIMIT {
        return Err(RemoteCacheError::invalid(format!("its config is larger than {CONFIG_LIMIT} bytes")));
    }
    serde_json::from_slice(bytes)
        .map_err(|e| RemoteCacheError::invalid(format!("its config is no cacheconfig.v0: {e}")))
}

impl Imported {
    /// Makes the graph of a config; results whose blobs are not in `blobs` are left out.
    pub fn new(config: CacheConfig, blobs: BTreeMap<Digest, RemoteLayer>) -> Result<Self, RemoteCacheError> {
        let layers = layers(&config, &blobs)?;
        let roots = roots(&config.records);
        let mut records = records(config.records, &layers, &roots)?;
        no_circle(&records)?;
        drop_mixed(&mut records);
        let mut imported =
            Self { blobs, layers, records, roots, names: BTreeMap::new(), children: Vec::new(), explained: None };
        imported.index();
        Ok(imported)
    }

    /// Returns the record without inputs of a digest.
    pub fn root(&self, digest: &Digest) -> Option<usize> {
        self.roots.get(digest).copied()
    }

    /// Returns a record by its number.
    pub fn record(&self, number: usize) -> Option<&ImportedRecord> {
        self.records.get(number)
    }

    /// Returns, per input of a record, the record that stands for its content where that can be told: it has no inputs, and is
    /// linked without a selector beside links that have one.
    ///
    /// Links of an input whose content is not used have no selector either, and then nothing needs to be told apart.
    pub fn content(&self, record: &ImportedRecord) -> Vec<Option<usize>> {
        let of = |links: &Vec<(Option<Digest>, usize)>| contents(links, &self.records).next();
        record.inputs.iter().map(of).collect()
    }

    /// Returns how times are written that are not in UTC.
    pub fn times(&self) -> impl Iterator<Item = (SystemTime, Timestamp)> {
        let all = self.records.iter().flat_map(|record| &record.results).map(|result| result.created_at);
        all.filter(|at| !at.is_utc()).map(|at| (at.system(), at))
    }

    /// Returns the numbers of all records, each after those it is linked to.
    pub fn order(&self) -> Vec<usize> {
        ordered(&self.records)
    }

    /// Returns how many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the records reached from `parent` through a link.
    pub fn children(&self, parent: usize, link: LinkQuery<'_>) -> impl Iterator<Item = usize> + '_ {
        let name = |digest: &Digest| self.names.get(digest).copied();
        let selector = link.selector.map_or(Some(0), name);
        let key = name(link.record).zip(selector).and_then(|(record, selector)| {
            Some((u32::try_from(parent).ok()?, record, u32::try_from(link.input).ok()?, selector))
        });
        let start = key.map_or(self.children.len(), |key| self.children.partition_point(|entry| entry.0 < key));
        let same = self.children[start..].iter().take_while(move |entry| Some(entry.0) == key);
        same.map(|entry| entry.1 as usize)
    }

    /// Returns the layers of a result, bottom first.
    pub fn layers(&self, result: &ImportedResult) -> Vec<&RemoteLayer> {
        let numbers = match &result.layers {
            Layers::List(list) => list.clone(),
            Layers::Top(top) => {
                let mut list: Vec<usize> =
                    std::iter::successors(Some(*top), |number| self.layers[*number].parent).collect();
                list.reverse();
                list
            }
        };
        numbers.iter().filter_map(|number| self.blobs.get(&self.layers[*number].blob)).collect()
    }

    fn index(&mut self) {
        let Self { names, records, children, .. } = self;
        let mut name = |digest: &Digest| match names.get(digest) {
            Some(name) => *name,
            None => {
                // Zero stands for no selector.
                let next = names.len() as u32 + 1;
                names.insert(digest.clone(), next);
                next
            }
        };
        for (number, record) in records.iter().enumerate() {
            let own = name(&record.digest);
            for (input, links) in record.inputs.iter().enumerate() {
                for (selector, parent) in links {
                    let selector = selector.as_ref().map_or(0, &mut name);
                    children.push(((*parent as u32, own, input as u32, selector), number as u32));
                }
            }
        }
        children.sort_unstable();
        children.dedup();
    }
}

fn index_of(number: i64, count: usize, what: &str) -> Result<usize, RemoteCacheError> {
    let index = usize::try_from(number).ok().filter(|index| *index < count);
    index.ok_or_else(|| RemoteCacheError::invalid(format!("{what} {number} is not among its {count}")))
}

fn layers(config: &CacheConfig, blobs: &BTreeMap<Digest, RemoteLayer>) -> Result<Vec<Layer>, RemoteCacheError> {
    let count = config.layers.len();
    let mut layers = Vec::with_capacity(count);
    for layer in &config.layers {
        let parent = match layer.parent {
            -1 => None,
            parent => Some(index_of(parent, count, "layer")?),
        };
        layers.push(Layer { blob: layer.blob.clone(), parent, there: blobs.contains_key(&layer.blob), depth: None });
    }
    measure(&mut layers)?;
    Ok(layers)
}

/// Finds out of each layer how deep it is; walks every layer once.
fn measure(layers: &mut [Layer]) -> Result<(), RemoteCacheError> {
    let mut done = vec![false; layers.len()];
    for start in 0..layers.len() {
        let mut path = Vec::new();
        let mut at = Some(start);
        while let Some(number) = at.filter(|number| !done[*number]) {
            if path.len() > layers.len() {
                return Err(RemoteCacheError::invalid("its layers lead in a circle"));
            }
            path.push(number);
            at = layers[number].parent;
        }
        for number in path.into_iter().rev() {
            let below = layers[number].parent.map_or(Some(0), |parent| layers[parent].depth);
            let there = layers[number].there;
            layers[number].depth = below.filter(|depth| there && *depth < DEPTH_LIMIT).map(|depth| depth + 1);
            done[number] = true;
        }
    }
    Ok(())
}

fn roots(records: &[CacheRecord]) -> BTreeMap<Digest, usize> {
    let mut roots = BTreeMap::new();
    for (number, record) in records.iter().enumerate().filter(|(_, record)| record.inputs.is_empty()) {
        roots.entry(record.digest.clone()).or_insert(number);
    }
    roots
}

/// Checks the records; links to records that are written more than once all go to the first.
fn records(
    records: Vec<CacheRecord>,
    layers: &[Layer],
    roots: &BTreeMap<Digest, usize>,
) -> Result<Vec<ImportedRecord>, RemoteCacheError> {
    let count = records.len();
    let original = |(number, record): (usize, &CacheRecord)| match record.inputs.is_empty() {
        true => roots.get(&record.digest).copied().unwrap_or(number),
        false => number,
    };
    let first: Vec<usize> = records.iter().enumerate().map(original).collect();
    let read = |record: CacheRecord| {
        let results = results(&record, layers)?;
        let mut inputs = Vec::with_capacity(record.inputs.len());
        for links in record.inputs {
            if links.is_empty() {
                return Err(RemoteCacheError::invalid("a record has an input without links"));
            }
            let link =
                |link: super::config::CacheInput| Ok((link.selector, first[index_of(link.link, count, "record")?]));
            inputs.push(links.into_iter().map(link).collect::<Result<_, RemoteCacheError>>()?);
        }
        Ok(ImportedRecord { digest: record.digest, inputs, results })
    };
    records.into_iter().map(read).collect()
}

fn results(record: &CacheRecord, layers: &[Layer]) -> Result<Vec<ImportedResult>, RemoteCacheError> {
    let mut results = Vec::new();
    for result in &record.results {
        let top = index_of(result.layer, layers.len(), "layer")?;
        if layers[top].depth.is_some() {
            results.push(ImportedResult { created_at: result.created_at, layers: Layers::Top(top) });
        }
    }
    for chain in &record.chains {
        let list = chain.layers.iter().map(|number| index_of(*number, layers.len(), "layer"));
        let list: Vec<usize> = list.collect::<Result<_, _>>()?;
        // In a list the parents say nothing, but a layer's own blob must be there.
        if !list.is_empty() && list.len() <= DEPTH_LIMIT && list.iter().all(|number| layers[*number].there) {
            results.push(ImportedResult { created_at: chain.created_at, layers: Layers::List(list) });
        }
    }
    Ok(results)
}

/// Lists the records so that each comes after those it is linked to; those of a circle are left out.
fn ordered(records: &[ImportedRecord]) -> Vec<usize> {
    let mut open: Vec<usize> = records.iter().map(|record| record.inputs.iter().map(Vec::len).sum()).collect();
    let mut children: Vec<Vec<u32>> = vec![Vec::new(); records.len()];
    for (number, record) in records.iter().enumerate() {
        record.inputs.iter().flatten().for_each(|(_, parent)| children[*parent].push(number as u32));
    }
    let mut order: Vec<usize> = (0..records.len()).filter(|number| open[*number] == 0).collect();
    let mut taken = 0;
    while let Some(number) = order.get(taken).copied() {
        taken += 1;
        for child in &children[number] {
            let child = *child as usize;
            open[child] -= 1;
            if open[child] == 0 {
                order.push(child);
            }
        }
    }
    order
}

/// Lists the links of an input that stand for content.
fn contents(links: &[(Option<Digest>, usize)], records: &[ImportedRecord]) -> impl Iterator<Item = usize> {
    let has_definition = links.iter().any(|(selector, _)| selector.is_some());
    let bare = links.iter().filter(move |(selector, _)| has_definition && selector.is_none());
    bare.map(|(_, parent)| *parent).filter(|parent| records[*parent].inputs.is_empty())
}

/// Removes the links of content that was mixed up: BuildKit takes what was made of several contents of one definition for one
/// record, whose result is of the newest. Which that is cannot be told any more; the definition still leads there.
fn drop_mixed(records: &mut [ImportedRecord]) {
    let mut mixed = Vec::new();
    for (number, record) in records.iter().enumerate() {
        for (input, links) in record.inputs.iter().enumerate() {
            let found: BTreeSet<usize> = contents(links, records).collect();
            if found.len() > 1 {
                mixed.push((number, input, found));
            }
        }
    }
    for (number, input, found) in mixed {
        records[number].inputs[input].retain(|(selector, parent)| selector.is_some() || !found.contains(parent));
    }
}

fn no_circle(records: &[ImportedRecord]) -> Result<(), RemoteCacheError> {
    if ordered(records).len() == records.len() {
        return Ok(());
    }
    Err(RemoteCacheError::invalid("its records lead in a circle"))
}
