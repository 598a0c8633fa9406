//! A graph of records in memory, as stores need it to answer a solver.
//!
//! In: records, results. Out: roots, children, results. Invariants: an item without parents is named by its record digest; an
//! item has at most one result, the one set last; links are only added, until items are taken apart for export.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::cache::{ItemId, LinkQuery, Parent, Record, StoredResult};
use crate::digest::Digest;

type LinkKey = (Digest, usize, Option<Digest>);

/// One item.
#[derive(Debug, Clone)]
pub struct Item<V> {
    /// Its record digest and all links known.
    pub record: Record,
    /// Its result and when that was saved.
    pub result: Option<(SystemTime, V)>,
}

/// Records by item and by link.
#[derive(Debug, Clone)]
pub struct RecordGraph<V> {
    items: BTreeMap<ItemId, Item<V>>,
    children: BTreeMap<ItemId, BTreeMap<LinkKey, BTreeSet<ItemId>>>,
}

impl<V> Default for RecordGraph<V> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), children: BTreeMap::new() }
    }
}

impl<V> RecordGraph<V> {
    /// Starts with no records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns all items, by id.
    pub fn items(&self) -> impl Iterator<Item = (&ItemId, &Item<V>)> {
        self.items.iter()
    }

    /// Returns an item.
    pub fn item(&self, id: &ItemId) -> Option<&Item<V>> {
        self.items.get(id)
    }

    /// Returns an item with its links; of one that is only linked to, its digest.
    pub fn record(&self, id: &ItemId) -> Option<Record> {
        if let Some(item) = self.items.get(id) {
            return Some(item.record.clone());
        }
        let digest = id.as_str().parse().ok().filter(|_| self.children.contains_key(id))?;
        Some(Record { digest, links: Vec::new(), content: Vec::new() })
    }

    /// Returns the item without parents of a record digest, be it saved itself or only linked to.
    pub fn root(&self, record: &Digest) -> Option<ItemId> {
        let id = ItemId::from(record);
        (self.items.contains_key(&id) || self.children.contains_key(&id)).then_some(id)
    }

    /// Returns the items reached from `parent` through a link.
    pub fn children(&self, parent: &ItemId, link: LinkQuery<'_>) -> Vec<ItemId> {
        let Some(links) = self.children.get(parent) else { return Vec::new() };
        let key = (link.record.clone(), link.input, link.selector.cloned());
        links.get(&key).map(|items| items.iter().cloned().collect()).unwrap_or_default()
    }

    /// Returns the result of an item as a solver asks for it.
    pub fn results(&self, id: &ItemId) -> Vec<StoredResult> {
        let result = self.items.get(id).and_then(|item| item.result.as_ref());
        let name = |created_at: SystemTime| {
            created_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos()).to_string()
        };
        result.map(|(at, _)| StoredResult { id: name(*at), created_at: *at }).into_iter().collect()
    }

    /// Returns the id `record` has or would get: that of an item that is, for every input, a child of one of the parents in
    /// [`Record::identity`], and that [agrees](Record::agrees_with) with it.
    pub fn identify(&self, record: &Record) -> ItemId {
        if record.links.is_empty() {
            return record.id();
        }
        let mut equal = self.reached(record, 0);
        for input in 1..record.links.len() {
            if equal.is_empty() {
                break;
            }
            let other = self.reached(record, input);
            equal.retain(|item| other.contains(item));
        }
        let agrees = |id: &ItemId| self.items.get(id).is_some_and(|item| record.agrees_with(&item.record));
        equal.into_iter().find(agrees).unwrap_or_else(|| record.id())
    }

    fn reached(&self, record: &Record, input: usize) -> BTreeSet<ItemId> {
        let children = |parent: &Parent| {
            let selector = parent.selector.as_ref();
            self.children(&parent.item, LinkQuery { record: &record.digest, input, selector })
        };
        record.identity(input).iter().flat_map(children).collect()
    }

    /// Returns whether `id` has all links of `record` already.
    pub fn has_links(&self, id: &ItemId, record: &Record) -> bool {
        let Some(item) = self.items.get(id) else { return false };
        item.record.links.iter().zip(&record.links).all(|(known, links)| links.is_subset(known))
    }

    /// Adds an item, or the links it does not have yet. A link to itself is left out.
    pub fn add(&mut self, id: &ItemId, record: &Record) {
        let inputs = record.links.len();
        let new = || Item {
            record: Record {
                digest: record.digest.clone(),
                links: vec![BTreeSet::new(); inputs],
                content: vec![None; inputs],
            },
            result: None,
        };
        let item = self.items.entry(id.clone()).or_insert_with(new);
        for (input, known) in item.record.content.iter_mut().enumerate().filter(|(_, known)| known.is_none()) {
            *known = record.content_of(input).cloned();
        }
        for (input, parents) in record.links.iter().enumerate().take(item.record.links.len()) {
            for parent in parents.iter().filter(|parent| parent.item != *id) {
                if item.record.links[input].insert(parent.clone()) {
                    let key = (record.digest.clone(), input, parent.selector.clone());
                    self.children.entry(parent.item.clone()).or_default().entry(key).or_default().insert(id.clone());
                }
            }
        }
    }

    /// Removes a link.
    pub(super) fn unlink(&mut self, id: &ItemId, input: usize, parent: &Parent) {
        let Some(item) = self.items.get_mut(id) else { return };
        if let Some(links) = item.record.links.get_mut(input) {
            links.remove(parent);
        }
        let key = (item.record.digest.clone(), input, parent.selector.clone());
        if let Some(links) = self.children.get_mut(&parent.item) {
            if let Some(children) = links.get_mut(&key) {
                children.remove(id);
            }
            links.retain(|_, children| !children.is_empty());
            if links.is_empty() {
                self.children.remove(&parent.item);
            }
        }
    }

    /// Removes an item, and what is reached through nothing else.
    pub(super) fn remove(&mut self, id: &ItemId) {
        let mut stack = vec![id.clone()];
        while let Some(id) = stack.pop() {
            let Some(record) = self.items.get(&id).map(|item| item.record.clone()) else { continue };
            for (input, links) in record.links.iter().enumerate() {
                links.iter().for_each(|parent| self.unlink(&id, input, parent));
            }
            self.items.remove(&id);
            let links = self.children.remove(&id).unwrap_or_default();
            for ((_, input, selector), children) in links {
                let parent = Parent { item: id.clone(), selector };
                for child in children {
                    self.unlink(&child, input, &parent);
                    let is_lost = |item: &Item<V>| item.record.links[input].is_empty();
                    if self.items.get(&child).is_some_and(is_lost) {
                        stack.push(child);
                    }
                }
            }
        }
    }

    /// Returns the graph of some items and what they are reached from.
    pub fn ancestors(&self, items: BTreeSet<ItemId>) -> Self
    where
        V: Clone,
    {
        let mut wanted = BTreeSet::new();
        let mut stack: Vec<ItemId> = items.into_iter().collect();
        while let Some(id) = stack.pop() {
            if wanted.insert(id.clone()) {
                let links = self.items.get(&id).into_iter().flat_map(|item| &item.record.links).flatten();
                stack.extend(links.map(|parent| parent.item.clone()));
            }
        }
        let mut graph = Self::new();
        for (id, item) in self.items.iter().filter(|(id, _)| wanted.contains(*id)) {
            graph.add(id, &item.record);
            graph.set_result(id, item.result.clone());
        }
        graph
    }

    /// Turns the results into others, or into none.
    pub fn map<W>(self, mut change: impl FnMut(&ItemId, V) -> Option<W>) -> RecordGraph<W> {
        let Self { items, children } = self;
        let changed = items.into_iter().map(|(id, item)| {
            let result = item.result.and_then(|(at, value)| Some((at, change(&id, value)?)));
            (id, Item { record: item.record, result })
        });
        RecordGraph { items: changed.collect(), children }
    }

    /// Sets or removes the result of an item; an unknown item is left alone.
    pub fn set_result(&mut self, id: &ItemId, result: Option<(SystemTime, V)>) {
        if let Some(item) = self.items.get_mut(id) {
            item.result = result;
        }
    }
}
