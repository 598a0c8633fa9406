//! Items of one store as items of another graph, together with what leads to them; and what may be added to them there.
//!
//! An item that a result was found by stands for that result, whichever others the keys of a vertex lead to. So it keeps the
//! links it had where it was found, and gets only those of which it is known that they lead to that result as well.

use std::collections::{BTreeMap, BTreeSet};

use super::cache::{CacheError, CacheStore, ItemId, Parent, Record};
use super::lookup::Table;

/// Items by store, and what they are elsewhere; none while on the way, and for what cannot be linked.
pub(super) type Adopted = BTreeMap<(usize, ItemId), Option<ItemId>>;

/// Adds an item of store `s` after all its ancestors, of which those are enough that are `wanted`. Chains of records may be
/// long, so this does not recurse.
pub(super) fn adopt<R, E>(
    (store, s, item): (&dyn CacheStore<R>, usize, &ItemId),
    adopted: &mut Adopted,
    wanted: impl Fn(&Parent) -> bool,
    mut add: impl FnMut(&Record) -> Result<ItemId, E>,
) -> Result<Option<ItemId>, E> {
    let mut stack = vec![(item.clone(), None::<Record>)];
    while let Some((at, record)) = stack.pop() {
        if let Some(record) = record {
            let id = renamed(&record, s, adopted).map(|record| add(&record)).transpose()?;
            adopted.insert((s, at), id);
            continue;
        }
        if adopted.contains_key(&(s, at.clone())) {
            continue;
        }
        adopted.insert((s, at.clone()), None);
        let Some(record) = store.record(&at).map(|record| narrowed(record, &wanted)) else { continue };
        let parents: Vec<ItemId> = record.links.iter().flatten().map(|parent| parent.item.clone()).collect();
        stack.push((at, Some(record)));
        stack.extend(parents.into_iter().map(|parent| (parent, None)));
    }
    Ok(adopted.get(&(s, item.clone())).cloned().flatten())
}

/// Leaves out parents that nobody wants, unless nothing would be left of an input.
fn narrowed(mut record: Record, wanted: &impl Fn(&Parent) -> bool) -> Record {
    for input in 0..record.links.len() {
        let content = record.content_of(input).cloned();
        let kept = |parent: &&Parent| wanted(parent) || content.as_ref() == Some(&parent.item);
        let kept: BTreeSet<Parent> = record.links[input].iter().filter(kept).cloned().collect();
        if !kept.is_empty() {
            record.links[input] = kept;
        }
    }
    record
}

/// Returns a record with the names its parents have elsewhere; none if one of its inputs has no parent there.
fn renamed(record: &Record, s: usize, adopted: &Adopted) -> Option<Record> {
    let name = |item: &ItemId| adopted.get(&(s, item.clone())).cloned().flatten();
    let known = |parent: &Parent| Some(Parent { item: name(&parent.item)?, selector: parent.selector.clone() });
    let links: Vec<BTreeSet<Parent>> =
        record.links.iter().map(|parents| parents.iter().filter_map(known).collect()).collect();
    let content = record.content.iter().map(|item| name(item.as_ref()?)).collect();
    let is_whole = !links.iter().any(BTreeSet::is_empty);
    is_whole.then(|| Record { digest: record.digest.clone(), links, content })
}

impl<R> Table<R> {
    /// Returns what an item of another store is in the first, where it and its ancestors are saved.
    pub(super) fn adopt(&mut self, s: usize, item: &ItemId) -> Result<Option<ItemId>, CacheError> {
        let Some(Some(first)) = self.stores.first().cloned() else { return Ok(None) };
        let Some(from) = self.stores[s].clone() else { return Ok(None) };
        let found = &self.found[s];
        let wanted = |parent: &Parent| found.contains(&parent.item);
        adopt((&*from, s, item), &mut self.adopted, wanted, |record| first.save(record, None))
    }

    /// Adds to the item that a vertex was found by the links that lead to the same result: all keys of an input without
    /// inputs, and those of an input whose content is known to be the item's.
    pub(super) fn joined(&self, v: usize, mut found: Record, parents: impl Fn(usize) -> BTreeSet<Parent>) -> Record {
        for input in 0..found.links.len().min(self.graph.inputs(v).len()) {
            let seen = self.nodes[v].content.get(input).and_then(super::node::Content::item);
            let is_source = self.graph.inputs(self.graph.inputs(v)[input].0).is_empty();
            let is_same = match &seen {
                Some(item) => found.links[input].contains(&Parent::content(item.clone())),
                None => is_source,
            };
            if is_same {
                found.links[input].extend(parents(input));
            }
        }
        found
    }
}
