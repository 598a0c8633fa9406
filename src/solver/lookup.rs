//! Looks up vertices in the stores: in each, the items that every input of a vertex leads to.
//!
//! An input leads to the children of its own items through the vertex's selector (definition key) and to those of its
//! content key through no selector. Reads nodes and stores; writes only what was found.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use super::adopt::Adopted;
use super::cache::{CacheStore, ItemId, LinkQuery};
use super::graph::Graph;
use super::node::{Content, Hit, Level, Node};
use crate::digest::Digest;

/// The nodes of a graph together with the stores they are looked up in.
pub(super) struct Table<R> {
    pub(super) graph: Graph<R>,
    pub(super) nodes: Vec<Node<R>>,
    /// None where a store could not be prepared.
    pub(super) stores: Vec<Option<Arc<dyn CacheStore<R>>>>,
    /// Per store, all items that were found for any vertex.
    pub(super) found: Vec<BTreeSet<ItemId>>,
    /// Items of further stores, and what they are in the first.
    pub(super) adopted: Adopted,
}

impl<R> Table<R> {
    /// Starts with nothing found.
    pub(super) fn new(graph: Graph<R>, nodes: Vec<Node<R>>, stores: Vec<Option<Arc<dyn CacheStore<R>>>>) -> Self {
        let found = vec![BTreeSet::new(); stores.len()];
        Self { graph, nodes, stores, found, adopted: Adopted::new() }
    }

    /// Looks a vertex up and notes its items and best results; returns whether every output has a result.
    ///
    /// The best is what the first store has, which is here already; else the newest that any other has.
    pub(super) fn search(&mut self, v: usize) -> bool {
        let wanted: Vec<usize> = self.nodes[v].outputs.keys().copied().collect();
        for o in wanted {
            let mut best: Option<(SystemTime, Hit)> = None;
            for s in 0..self.stores.len() {
                let found = self.candidates(v, o, s);
                let newest = self.newest(s, &found);
                let is_better = |(at, hit): &(SystemTime, Hit)| {
                    best.as_ref().is_none_or(|(known, best)| best.store > 0 && hit.store > 0 && at > known)
                };
                if newest.as_ref().is_some_and(is_better) {
                    best = newest;
                }
                self.found[s].extend(found.iter().cloned());
                self.output(v, o).keys[s].extend(found);
            }
            self.output(v, o).hit = best.map(|(_, hit)| hit);
        }
        self.nodes[v].is_hit()
    }

    /// Notes which stores can no longer have a match for `v`, judging by one input.
    pub(super) fn judge(&mut self, v: usize, input: usize) {
        let open = matches!(self.nodes[v].content[input], Content::Possible | Content::Pending);
        if open || !self.has_all_keys(v, input) {
            return;
        }
        for s in 0..self.stores.len() {
            if self.nodes[v].alive[s] && !self.leads_on(v, input, s) {
                self.nodes[v].alive[s] = false;
            }
        }
    }

    /// Returns whether an input will lead to no more records by definition than it does now.
    pub(super) fn has_all_keys(&self, v: usize, input: usize) -> bool {
        self.nodes[self.graph.inputs(v)[input].0].reached >= Level::Slow
    }

    /// Returns whether an input leads to any record of `v` in a store.
    pub(super) fn leads_on(&self, v: usize, input: usize, s: usize) -> bool {
        let records = self.nodes[v].outputs.values().flat_map(|output| &output.records);
        records.into_iter().any(|record| !self.reached_from(v, input, record, s).is_empty())
    }

    /// Returns whether an input leads to no record of `v` in any store that may still have a match.
    pub(super) fn is_unmatched(&self, v: usize, input: usize) -> bool {
        (0..self.stores.len()).all(|s| !self.nodes[v].alive[s] || !self.leads_on(v, input, s))
    }

    fn output(&mut self, v: usize, o: usize) -> &mut super::node::Output {
        self.nodes[v].outputs.get_mut(&o).expect("only outputs in use are looked up")
    }

    fn candidates(&self, v: usize, o: usize, s: usize) -> BTreeSet<ItemId> {
        let Some(store) = &self.stores[s] else { return BTreeSet::new() };
        let records = &self.nodes[v].outputs[&o].records;
        if self.graph.inputs(v).is_empty() {
            return records.iter().filter_map(|record| store.root(record)).collect();
        }
        records.iter().flat_map(|record| self.common(v, record, s)).collect()
    }

    fn common(&self, v: usize, record: &Digest, s: usize) -> BTreeSet<ItemId> {
        let mut found = self.reached_from(v, 0, record, s);
        for input in 1..self.graph.inputs(v).len() {
            if found.is_empty() {
                break;
            }
            let other = self.reached_from(v, input, record, s);
            found.retain(|item| other.contains(item));
        }
        found
    }

    fn reached_from(&self, v: usize, input: usize, record: &Digest, s: usize) -> BTreeSet<ItemId> {
        let (Some(store), Some(key)) = (&self.stores[s], self.nodes[v].input_key(input)) else {
            return BTreeSet::new();
        };
        let (u, o) = self.graph.inputs(v)[input];
        let by_definition = LinkQuery { record, input, selector: key.selector.as_ref() };
        let items = &self.nodes[u].outputs[&o].keys[s];
        let mut found: BTreeSet<ItemId> = items.iter().flat_map(|item| store.children(item, by_definition)).collect();
        if let Content::Known(content) = &self.nodes[v].content[input]
            && let Some(item) = store.root(content)
        {
            found.extend(store.children(&item, LinkQuery { record, input, selector: None }));
        }
        found
    }

    fn newest(&self, s: usize, items: &BTreeSet<ItemId>) -> Option<(SystemTime, Hit)> {
        let store = self.stores[s].as_ref()?;
        let all = items.iter().flat_map(|item| store.results(item).into_iter().map(move |result| (item, result)));
        let (item, result) = all.max_by(|a, b| (a.1.created_at, &a.1.id).cmp(&(b.1.created_at, &b.1.id)))?;
        Some((result.created_at, Hit { store: s, item: item.clone(), result: result.id }))
    }
}
