//! Saves records in the first store: of what ran, of what came from elsewhere, and what leads to these.
//!
//! What ran is linked to the item of each input's result and to the input's content key. When an input has neither (its key is
//! random), nothing is saved, as nothing could ever find it. What was found is the item it was found by, which in another store
//! comes with its ancestors there: the keys of a vertex may lead to several items, of which only one is what was used.

use std::collections::BTreeSet;

use super::cache::{CacheError, CacheStore, ItemId, Parent, Record};
use super::lookup::Table;
use super::node::{Content, Hit};

impl<R: Clone> Table<R> {
    /// Saves the records of a vertex whose results are there, and makes them known to what depends on it.
    ///
    /// Results are saved along, except those that the first store gave itself.
    pub(super) fn keep(&mut self, v: usize) -> Result<(), CacheError> {
        self.nodes[v].tainted = self.is_tainted(v);
        let outputs: Vec<usize> = self.nodes[v].outputs.keys().copied().collect();
        outputs.into_iter().try_for_each(|o| self.keep_output(v, o))
    }

    /// Returns whether the items of `v` stand for older results too: those of what ran in spite of a cache, and of what ran
    /// because of that, unless the content in between was seen.
    fn is_tainted(&self, v: usize) -> bool {
        let hit = self.nodes[v].outputs.values().all(|output| output.matched.is_some());
        let unseen = |(input, (u, _)): (usize, &(usize, usize))| {
            self.nodes[*u].tainted && self.nodes[v].content[input].item().is_none()
        };
        !hit && (self.graph.vertex(v).ignore_cache || self.graph.inputs(v).iter().enumerate().any(unseen))
    }

    /// Returns the records of an output with their links; none when an input has no lasting key.
    pub(super) fn records(&self, v: usize, o: usize) -> Vec<Record> {
        let links: Vec<BTreeSet<Parent>> =
            (0..self.graph.inputs(v).len()).map(|input| self.parents(v, input)).collect();
        if links.iter().any(BTreeSet::is_empty) {
            return Vec::new();
        }
        let content: Vec<Option<ItemId>> = self.nodes[v].content.iter().map(Content::item).collect();
        let digests = self.nodes[v].outputs[&o].records.iter().cloned();
        digests.map(|digest| Record { digest, links: links.clone(), content: content.clone() }).collect()
    }

    /// Returns what leads to `v` through an input: the item of its result, or all there are of what has no inputs itself, and
    /// the content key.
    fn parents(&self, v: usize, input: usize) -> BTreeSet<Parent> {
        let (u, o) = self.graph.inputs(v)[input];
        let selector = self.nodes[v].input_key(input).and_then(|key| key.selector.clone());
        let output = &self.nodes[u].outputs[&o];
        let items: Vec<ItemId> = match self.graph.inputs(u).is_empty() {
            true => output.records.iter().map(ItemId::from).collect(),
            false => output.items.iter().cloned().collect(),
        };
        let mut parents: BTreeSet<Parent> =
            items.into_iter().map(|item| Parent { item, selector: selector.clone() }).collect();
        parents.extend(self.nodes[v].content[input].item().map(Parent::content));
        parents
    }

    fn keep_output(&mut self, v: usize, o: usize) -> Result<(), CacheError> {
        let Some(Some(store)) = self.stores.first().cloned() else { return Ok(()) };
        let matched = self.nodes[v].outputs[&o].matched.clone();
        let is_own = matched.as_ref().is_some_and(|hit| hit.store == 0);
        // A result found again by content is saved anew, so that it is the newest of its definition.
        let value = self.nodes[v].values.get(&o).filter(|_| !is_own || self.nodes[v].shaken).cloned();
        let records = match matched.filter(|_| !self.graph.inputs(v).is_empty()) {
            Some(hit) => self.found_record(v, &hit, &*store)?.into_iter().collect(),
            None => self.records(v, o),
        };
        let saved = records.iter().map(|record| store.save(record, value.as_ref()));
        let items: BTreeSet<ItemId> = saved.collect::<Result<_, _>>()?;
        let tainted = self.nodes[v].tainted;
        let output = self.nodes[v].outputs.get_mut(&o).expect("only outputs in use are saved");
        if !tainted {
            output.keys[0].extend(items.iter().cloned());
        }
        output.items = items;
        Ok(())
    }

    /// Returns the record of what a vertex was found by, as it is in the first store, with the links it has now.
    fn found_record(&mut self, v: usize, hit: &Hit, store: &dyn CacheStore<R>) -> Result<Option<Record>, CacheError> {
        let item = match hit.store {
            0 => Some(hit.item.clone()),
            s => self.adopt(s, &hit.item)?,
        };
        let record = item.and_then(|item| store.record(&item));
        Ok(record.map(|record| self.joined(v, record, |input| self.parents(v, input))))
    }
}
