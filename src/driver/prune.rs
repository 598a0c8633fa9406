//! What is stored, and removing what is not to stay: `rbuild du`, `rbuild prune`, and the limits that hold after each build.
//!
//! ```text
//! stations ─▶ items ─▶ policy ─▶ moved to scratch, under the lock that no build shares ─▶ records, chains ─▶ deleted
//! ```
//!
//! In: a state directory, policies. Out: [`Item`]s. Invariants: layers and blobs go only while no build runs, caches and repositories
//! while no step has theirs. Each goes at once, by a rename, after all that stands on it: whoever is killed in between leaves a
//! smaller state directory, and the scratch folder that the next process removes. A record that names what is gone is a miss.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::diag::{Diagnostic, Kind, chain};
use crate::digest::Digest;
use crate::ops::{CacheMounts, RecordStore, Tree, TreeCodec};
use crate::snapshot::{LayerId, SnapshotOptions, Snapshots, StoredLayer};
use crate::source::git;
use crate::store::prune::{Disk, Item, ItemKind, Policy, choose, due};
use crate::store::usage::{Scan, Usage};
use crate::store::{LockedFolder, Store};

/// Time between two attempts to be alone in the state directory, where there is much time.
const RETRY: Duration = Duration::from_millis(50);
/// How long a program that was just started may hold what this process has given up: the kernel lets its parent go on before it closes
/// what the program is not to have.
const HANDOVER: Duration = Duration::from_millis(50);

/// Where an item lies.
enum Place {
    Layer(LayerId, Vec<Digest>),
    Blob(Digest),
    Folder(LockedFolder),
    Note(OsString),
}

/// A state directory as a heap of things.
struct Heap {
    store: Arc<Store>,
    snapshots: Arc<Snapshots>,
    caches: CacheMounts,
}

/// What there is.
struct Inventory {
    items: Vec<Item>,
    places: Vec<Place>,
}

/// Returns what is stored in the state directory at `root`.
///
/// # Errors
///
/// When it cannot be read.
pub fn disk_usage(root: &Path) -> Result<Vec<Item>, Diagnostic> {
    let heap = Heap::open(root)?;
    let sizes = heap.measure();
    let busy = alone(&heap.store)?.is_none();
    let _shared = heap.store.lock_shared().map_err(|error| Diagnostic::from_error(&error))?;
    let listed = heap.list(&sizes, busy).map_err(|error| unreadable(root, &error))?;
    Ok(listed.items)
}

/// What [`prune`] did.
#[derive(Debug, Default)]
pub struct Pruned {
    /// What was removed.
    pub items: Vec<Item>,
    /// How many more would have been, had no build been running.
    pub held: usize,
}

/// Removes what `policy` says, waiting so long for running builds to end; `waiting` is called if there are any.
///
/// # Errors
///
/// When something could not be read or moved away; what was removed before that is gone.
pub fn prune(root: &Path, policy: &Policy, patience: Duration, waiting: impl FnOnce()) -> Result<Pruned, Diagnostic> {
    let heap = Heap::open(root)?;
    let sizes = heap.measure();
    let mut lock = alone(&heap.store)?;
    if lock.is_none() && !patience.is_zero() {
        waiting();
        lock = wait_until_alone(&heap.store, patience)?;
    }
    let busy = lock.is_none();
    let failed = |error: io::Error| unreadable(root, &error);
    let Inventory { items, places } = heap.list(&sizes, busy).map_err(failed)?;
    let (gone, taken) = heap.remove(&items, &places, policy).map_err(failed)?;
    heap.tidy(&items, &gone, !busy);
    if !busy && policy.takes_everything() {
        crate::store::explain::clear(&heap.store).map_err(failed)?;
    }
    drop(lock);
    heap.delete(taken);
    let held = held(&items, policy, heap.store.disk(), gone.len());
    Ok(Pruned { items: gone.into_iter().map(|at| items[at].clone()).collect(), held })
}

/// Returns how many more than `gone` items would go if none were in use.
fn held(items: &[Item], policy: &Policy, disk: Disk, gone: usize) -> usize {
    let free: Vec<Item> = items.iter().map(|item| Item { in_use: false, ..item.clone() }).collect();
    if items == free { 0 } else { choose(&free, policy, disk, now()).len().saturating_sub(gone) }
}

/// Notes what a build used, and returns whether something may have to go.
pub(super) fn note(snapshots: &Snapshots, caches: &CacheMounts, policies: &[Policy]) -> bool {
    let (layers, added) = snapshots.touched();
    let used = layers.iter().map(LayerId::to_string).chain(caches.used()).collect();
    let store = snapshots.store();
    let nothing_stored = store.is_new() && layers.is_empty() && caches.used().is_empty();
    match store.note_usage(now(), used, added) {
        // It was not measured yet, and that would only find the documents of images.
        Ok(_) if nothing_stored => false,
        Ok(usage) => due(policies, &usage, store.disk(), now()),
        Err(error) => {
            tracing::debug!(%error, "failed to note what was used");
            false
        }
    }
}

/// Removes what the policies say, in their order, unless anybody builds; a fault is told in the log only.
pub(super) fn collect(root: &Path, policies: &[Policy]) {
    match try_collect(root, policies) {
        Ok(count) => tracing::debug!(count, "removed what the limits leave no room for"),
        Err(error) => tracing::debug!(error = %error.message, "failed to remove what the limits leave no room for"),
    }
}

fn try_collect(root: &Path, policies: &[Policy]) -> Result<usize, Diagnostic> {
    let heap = Heap::open(root)?;
    let sizes = heap.measure();
    let Some(lock) = wait_until_alone(&heap.store, HANDOVER)? else { return Ok(0) };
    let failed = |error: io::Error| unreadable(root, &error);
    let (mut count, mut taken) = (0, Vec::new());
    let mut inventory = heap.list(&sizes, false).map_err(failed)?;
    for policy in policies {
        let (gone, moved) = heap.remove(&inventory.items, &inventory.places, policy).map_err(failed)?;
        count += gone.len();
        taken.extend(moved);
        inventory = inventory.without(&gone);
    }
    heap.tidy(&inventory.items, &[], count > 0);
    drop(lock);
    heap.delete(taken);
    Ok(count)
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn unreadable(root: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic::new(Kind::Machine, format!("failed to go through the state directory {}: {error}", root.display()))
}

fn alone(store: &Store) -> Result<Option<crate::sys::lock::FileLock>, Diagnostic> {
    store.try_lock_exclusive().map_err(|error| Diagnostic::from_error(&error))
}

fn wait_until_alone(store: &Store, patience: Duration) -> Result<Option<crate::sys::lock::FileLock>, Diagnostic> {
    let start = Instant::now();
    loop {
        let lock = alone(store)?;
        if lock.is_some() || start.elapsed() >= patience {
            return Ok(lock);
        }
        std::thread::sleep(RETRY.min(patience / 10));
    }
}

impl Heap {
    fn open(root: &Path) -> Result<Self, Diagnostic> {
        let store = Store::open(root).map_err(|error| Diagnostic::from_error(&error))?;
        let options = SnapshotOptions { lazy: true, ..SnapshotOptions::default() };
        let opened = Snapshots::with_store(Arc::clone(&store), options);
        let snapshots = opened.map_err(|error| Diagnostic::from_error(&error))?;
        let caches = CacheMounts::open(&store).map_err(|error| Diagnostic::from_error(&error))?;
        Ok(Self { store, snapshots, caches })
    }

    fn folders(&self) -> Vec<(ItemKind, LockedFolder)> {
        let of = |kind, folders: io::Result<Vec<LockedFolder>>| {
            // What a state directory of before does not have, or what goes away meanwhile, is not there.
            folders.unwrap_or_default().into_iter().map(move |folder| (kind, folder))
        };
        let caches = of(ItemKind::CacheMount, self.caches.stored());
        caches.chain(of(ItemKind::GitCheckout, git::stored(&self.store))).collect()
    }

    /// Measures what is of any size; it takes long where there are many files, so nobody is kept waiting for it.
    fn measure(&self) -> BTreeMap<String, u64> {
        let size = |folder: &LockedFolder| folder.measure().unwrap_or(0);
        self.folders().into_iter().map(|(_, folder)| (folder.name.clone(), size(&folder))).collect()
    }

    fn list(&self, sizes: &BTreeMap<String, u64>, busy: bool) -> io::Result<Inventory> {
        let usage = self.store.usage();
        let mut found = Vec::new();
        let mut blobs = BTreeMap::new();
        for (digest, size, written) in self.store.blobs().map_err(io::Error::other)? {
            blobs.insert(digest, (size, written));
        }
        for layer in self.snapshots.stored()? {
            found.push(of_layer(layer, &mut blobs));
        }
        found.extend(blobs.into_iter().map(|(digest, stat)| of_blob(digest, stat)));
        let notes = self.store.root_dir().open_dir(OsStr::new("http")).and_then(|dir| dir.names());
        found.extend(notes.unwrap_or_default().into_iter().map(of_note));
        found.iter_mut().for_each(|(item, _)| item.in_use = busy);
        found.extend(self.folders().into_iter().map(|(kind, folder)| of_folder(kind, folder, sizes)));
        let (mut items, places): (Vec<Item>, Vec<Place>) = found.into_iter().unzip();
        items.iter_mut().for_each(|item| add_usage(item, &usage));
        Ok(Inventory { items, places })
    }

    /// Moves away what a policy says; returns the places of the items, and the names in the scratch folder.
    fn remove(&self, items: &[Item], places: &[Place], policy: &Policy) -> io::Result<(Vec<usize>, Vec<OsString>)> {
        let (mut gone, mut taken) = (Vec::new(), Vec::new());
        let chosen = choose(items, policy, self.store.disk(), now());
        if chosen.iter().any(|at| matches!(places[*at], Place::Layer(..))) {
            self.snapshots.keep_numbers()?;
        }
        for at in chosen {
            match &places[at] {
                Place::Layer(id, blobs) => {
                    taken.push(self.snapshots.take_away(*id)?);
                    blobs.iter().try_for_each(|blob| self.discard(blob))?;
                }
                Place::Blob(digest) => self.discard(digest)?,
                Place::Note(name) => self.store.root_dir().open_dir(OsStr::new("http"))?.unlink(name)?,
                Place::Folder(folder) => match folder.take_away(&self.store)? {
                    Some(name) => taken.push(name),
                    None => continue,
                },
            }
            gone.push(at);
        }
        Ok((gone, taken))
    }

    fn discard(&self, digest: &Digest) -> io::Result<()> {
        self.store.discard(digest).map_err(io::Error::other)
    }

    /// Removes what speaks of things that are gone; what cannot be removed is in nobody's way.
    fn tidy(&self, items: &[Item], gone: &[usize], alone: bool) {
        let gone: BTreeSet<usize> = gone.iter().copied().collect();
        let left = || items.iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, item)| item);
        let names: BTreeSet<&str> = left().map(|item| item.id.as_str()).collect();
        let oldest = left().map(|item| item.last_used).min().unwrap_or_else(now);
        let scan = Scan { at: now(), total: left().map(|item| item.size).sum(), oldest };
        if let Err(error) = self.store.note_scan(scan, |name| names.contains(name)) {
            tracing::debug!(%error, "failed to note what there is");
        }
        if !alone {
            return;
        }
        if let Err(error) = self.snapshots.tidy_chains() {
            tracing::debug!(%error, "failed to remove chain ids of layers that are gone");
        }
        if let Err(error) = self.snapshots.tidy_settled() {
            tracing::debug!(%error, "failed to shorten the list of layers that are on disk");
        }
        let lost = |value: &serde_json::Value| match Tree::from_record(value) {
            Some(Tree::Layers(chain)) => chain.layers().iter().any(|id| !names.contains(id.to_string().as_str())),
            _ => true,
        };
        let records = RecordStore::open(&self.store.records_path(), TreeCodec::new(Arc::clone(&self.snapshots)));
        if let Err(error) = records.and_then(|records| records.drop_lost(lost)) {
            tracing::debug!(error = %chain(&error), "failed to drop records of layers that are gone");
        }
    }

    /// Deletes what was moved away; nobody needs to wait for it.
    fn delete(&self, taken: Vec<OsString>) {
        for name in taken {
            if let Err(error) = self.store.scratch().dir().remove_all(&name) {
                tracing::warn!(%error, "failed to remove all of what is in nobody's way but for its space");
            }
        }
    }
}

impl Inventory {
    fn without(self, gone: &[usize]) -> Self {
        let gone: BTreeSet<usize> = gone.iter().copied().collect();
        let pairs = self.items.into_iter().zip(self.places).enumerate();
        let (items, places) = pairs.filter(|(at, _)| !gone.contains(at)).map(|(_, pair)| pair).unzip();
        Self { items, places }
    }
}

/// A layer takes the space of its blobs too; one that several layers have counts for the first.
fn of_layer(layer: StoredLayer, blobs: &mut BTreeMap<Digest, (u64, u64)>) -> (Item, Place) {
    let StoredLayer { id, info, stored } = layer;
    let mut own = Vec::new();
    let mut size = info.size;
    for blob in info.known_blobs() {
        if let Some((bytes, _)) = blobs.remove(&blob.digest) {
            size = size.saturating_add(bytes);
            own.push(blob.digest);
        }
    }
    let kind = if info.description == "build context" { ItemKind::LocalSource } else { ItemKind::Regular };
    let item = Item {
        id: id.to_string(),
        kind,
        parents: info.parent.top().iter().map(LayerId::to_string).collect(),
        below: info.parent.layers().iter().collect::<BTreeSet<_>>().into_iter().map(LayerId::to_string).collect(),
        size,
        created: stored,
        description: info.description,
        ..Item::default()
    };
    (item, Place::Layer(id, own))
}

fn of_blob(digest: Digest, (size, written): (u64, u64)) -> (Item, Place) {
    let description = "blob that no layer is known by".to_owned();
    (Item { id: digest.to_string(), size, created: written, description, ..Item::default() }, Place::Blob(digest))
}

fn of_note(name: OsString) -> (Item, Place) {
    let description = "note of what a web server sent".to_owned();
    let id = name.to_string_lossy().into_owned();
    (Item { id, kind: ItemKind::Internal, description, ..Item::default() }, Place::Note(name))
}

fn of_folder(kind: ItemKind, folder: LockedFolder, sizes: &BTreeMap<String, u64>) -> (Item, Place) {
    let item = Item {
        id: folder.name.clone(),
        kind,
        size: sizes.get(&folder.name).copied().unwrap_or(0),
        created: folder.created,
        last_used: folder.changed,
        description: folder.description.clone(),
        in_use: folder.in_use(),
        mutable: true,
        ..Item::default()
    };
    (item, Place::Folder(folder))
}

fn add_usage(item: &mut Item, usage: &Usage) {
    let used = usage.used.get(&item.id).copied().unwrap_or_default();
    item.last_used = item.last_used.max(used.at).max(item.created);
    item.usage_count = used.count;
}
