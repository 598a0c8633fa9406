//! Saves records in the first store: of what ran, of what came from elsewhere, and the anchors these are linked to.
//!
//! A record is linked to all items of each input and to the input's content key. When an input has neither (its key is
//! random), nothing is saved, as nothing could ever find it.

use std::collections::BTreeSet;

use super::cache::{CacheError, ItemId, Parent, Record};
use super::lookup::Table;
use super::node::Content;

impl<R: Clone> Table<R> {
    /// Saves the records of a vertex whose results are there, and makes them known to what depends on it.
    ///
    /// Results are saved along, except those that the first store gave itself.
    pub(super) fn keep(&mut self, v: usize) -> Result<(), CacheError> {
        self.nodes[v].tainted = self.is_tainted(v);
        // A result found again by content is saved anew, so that it is the newest of its definition.
        let renewed = self.nodes[v].shaken;
        self.anchor_inputs(v)?;
        let outputs: Vec<usize> = self.nodes[v].outputs.keys().copied().collect();
        for o in outputs {
            let own = self.nodes[v].outputs[&o].matched.as_ref().is_some_and(|hit| hit.store == 0);
            let value = if own && !renewed { None } else { self.nodes[v].values.get(&o).cloned() };
            self.keep_output(v, o, value.as_ref())?;
        }
        Ok(())
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

    fn parents(&self, v: usize, input: usize) -> BTreeSet<Parent> {
        let (u, o) = self.graph.inputs(v)[input];
        let selector = self.nodes[v].input_key(input).and_then(|key| key.selector.clone());
        let items = &self.nodes[u].outputs[&o].items;
        let mut parents: BTreeSet<Parent> =
            items.iter().map(|item| Parent { item: item.clone(), selector: selector.clone() }).collect();
        parents.extend(self.nodes[v].content[input].item().map(|item| Parent { item, selector: None }));
        parents
    }

    fn keep_output(&mut self, v: usize, o: usize, value: Option<&R>) -> Result<(), CacheError> {
        let Some(Some(store)) = self.stores.first().cloned() else { return Ok(()) };
        for record in self.records(v, o) {
            let item = store.save(&record, value)?;
            let tainted = self.nodes[v].tainted;
            let output = self.nodes[v].outputs.get_mut(&o).expect("only outputs in use are saved");
            output.items.insert(item.clone());
            if !tainted {
                output.keys[0].insert(item);
            }
        }
        Ok(())
    }

    /// Gives items to ancestors that have none, as they were only matched in another store. Ascending indices are
    /// dependency order, so this needs no recursion.
    fn anchor_inputs(&mut self, v: usize) -> Result<(), CacheError> {
        let mut missing = BTreeSet::new();
        let mut stack = vec![v];
        while let Some(at) = stack.pop() {
            for &(u, o) in self.graph.inputs(at) {
                let node = &self.nodes[u];
                let bare = !node.anchored && node.map.is_some() && node.outputs[&o].items.is_empty();
                if bare && missing.insert(u) {
                    stack.push(u);
                }
            }
        }
        for u in missing {
            self.nodes[u].anchored = true;
            let outputs: Vec<usize> = self.nodes[u].outputs.keys().copied().collect();
            for o in outputs {
                self.keep_output(u, o, None)?;
            }
        }
        Ok(())
    }
}
