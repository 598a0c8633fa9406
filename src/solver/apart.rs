//! Takes apart what a reader of an exported graph would take for one item.
//!
//! BuildKit, and whoever reads what it wrote, cannot tell which links stand for content: records of one digest that share a
//! parent in every input are one to it, with the links of all and the newest result. Where a definition gave one content and
//! then another, content would so lead to results that were made of the other. In: a graph whose items know their content.
//! Out: the same, where of several such items only the one with the newest result is reached by definition; the others are
//! reached by their content alone, and left out where that is not known.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::cache::{ItemId, LinkQuery, Parent, Record};
use super::records::RecordGraph;

impl<V> RecordGraph<V> {
    /// Takes items of unlike content apart.
    pub fn take_apart(&mut self) {
        let ids: Vec<ItemId> = self.items().map(|(id, _)| id.clone()).collect();
        for id in ids {
            for other in self.overlapping(&id) {
                self.separate(&id, &other);
            }
        }
    }

    /// Returns the items that share a parent with `id` in every input though they are not of the same content.
    fn overlapping(&self, id: &ItemId) -> Vec<ItemId> {
        let Some(record) = self.item(id).map(|item| &item.record).filter(|record| !record.links.is_empty()) else {
            return Vec::new();
        };
        let reached = |input: usize| -> BTreeSet<ItemId> {
            let children = |parent: &Parent| {
                let selector = parent.selector.as_ref();
                self.children(&parent.item, LinkQuery { record: &record.digest, input, selector })
            };
            record.links[input].iter().flat_map(children).collect()
        };
        let mut found = reached(0);
        found.remove(id);
        for input in 1..record.links.len() {
            if found.is_empty() {
                break;
            }
            let other = reached(input);
            found.retain(|item| other.contains(item));
        }
        let differs = |other: &ItemId| self.item(other).is_some_and(|other| !record.agrees_with(&other.record));
        found.into_iter().filter(differs).collect()
    }

    fn separate(&mut self, one: &ItemId, two: &ItemId) {
        let (Some(a), Some(b)) = (self.item(one), self.item(two)) else { return };
        let shared = a.record.links.iter().zip(&b.record.links).all(|(a, b)| !a.is_disjoint(b));
        if !shared {
            return;
        }
        let saved = |result: &Option<(SystemTime, V)>| result.as_ref().map(|result| result.0);
        let (older, kept) = match (saved(&a.result), one) >= (saved(&b.result), two) {
            true => (two, &a.record),
            false => (one, &b.record),
        };
        let kept = kept.clone();
        self.narrow(older, &kept);
    }

    /// Leaves to an item its content where that differs from another's; where none is known to differ, nothing of it.
    fn narrow(&mut self, id: &ItemId, other: &Record) {
        let Some(record) = self.item(id).map(|item| item.record.clone()) else { return };
        let mut is_apart = false;
        for input in 0..record.links.len() {
            let Some(content) = record.content_of(input).filter(|own| other.content_of(input) != Some(*own)) else {
                continue;
            };
            let content = Parent::content(content.clone());
            if !record.links[input].contains(&content) {
                continue;
            }
            record.links[input].iter().filter(|link| **link != content).for_each(|link| self.unlink(id, input, link));
            is_apart = true;
        }
        if !is_apart {
            self.remove(id);
        }
    }
}
