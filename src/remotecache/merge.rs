//! What another writer has put where a cache is about to be written, added to that cache.
//!
//! In: the records of a build with their layers, and a cache that was read. Out: the records of both. Invariants: what the build
//! has stays as it is; a record that both have gets the links of both, and the other's result only where the build has none.

use std::collections::BTreeSet;

use super::read::{Imported, ImportedRecord, RemoteLayer};
use crate::digest::Digest;
use crate::solver::{ItemId, Parent, Record, RecordGraph};

/// Adds the records of `other` to `graph`.
pub fn merge(graph: &mut RecordGraph<Vec<RemoteLayer>>, other: &Imported) {
    let mut names: Vec<Option<ItemId>> = vec![None; other.len()];
    for number in other.order() {
        let Some(record) = other.record(number) else { continue };
        let added = linked(record, &names);
        let id = graph.identify(&added);
        graph.add(&id, &added);
        let has_result = graph.item(&id).is_some_and(|item| item.result.is_some());
        if let Some(result) = record.results.iter().max_by_key(|result| result.created_at).filter(|_| !has_result) {
            let layers = other.layers(result).into_iter().cloned().collect();
            graph.set_result(&id, Some((result.created_at.system(), layers)));
        }
        names[number] = Some(id);
    }
}

fn linked(record: &ImportedRecord, names: &[Option<ItemId>]) -> Record {
    let parent = |(selector, number): &(Option<Digest>, usize)| {
        let item = names.get(*number)?.clone()?;
        Some(Parent { item, selector: selector.clone() })
    };
    let links: Vec<BTreeSet<Parent>> =
        record.inputs.iter().map(|links| links.iter().filter_map(parent).collect()).collect();
    Record { digest: record.digest.clone(), links, content: Vec::new() }
}
