//! What another writer has put where a cache is about to be written, added to that cache.
//!
//! In: the records of a build with their layers, and a cache that was read. Out: the records of both. Invariants: what the build
//! has stays as it is; a record that both have gets the links of both, and the other's result only where the build has none;
//! what is of one definition but not of the same content is no such record.

use std::collections::BTreeSet;

use super::read::{Imported, ImportedRecord, RemoteLayer};
use crate::digest::Digest;
use crate::solver::{ItemId, Parent, Record, RecordGraph};

/// Adds the records of `other` to `graph`.
pub fn merge(graph: &mut RecordGraph<Vec<RemoteLayer>>, other: &Imported) {
    let mut names: Vec<Option<ItemId>> = vec![None; other.len()];
    for number in other.order() {
        let Some(record) = other.record(number) else { continue };
        let added = linked(other, record, &names);
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

fn linked(other: &Imported, record: &ImportedRecord, names: &[Option<ItemId>]) -> Record {
    let name = |number: usize| names.get(number)?.clone();
    let parent = |(selector, number): &(Option<Digest>, usize)| {
        Some(Parent { item: name(*number)?, selector: selector.clone() })
    };
    let links: Vec<BTreeSet<Parent>> =
        record.inputs.iter().map(|links| links.iter().filter_map(parent).collect()).collect();
    let content = other.content(record).into_iter().map(|number| name(number?)).collect();
    Record { digest: record.digest.clone(), links, content }
}
