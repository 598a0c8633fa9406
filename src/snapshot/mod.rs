//! Stacks of layers as directory trees: prepare, commit, view.
//!
//! In: stacks of layers, changed trees, layer tars. Out: mounts, new layers, layer blobs. Invariants: a layer is a folder that appears
//! whole, by one rename, after all about it is written, and never changes afterwards (only its notes do); ids are not used twice
//! while a layer of a higher one exists; any number of processes may do this in one state root at once.
//!
//! ```text
//! ROOT/snapshots/ID/fs          a layer in overlay's form: char device 0:0 = removed, user.overlay.opaque=y = hides all below
//! ROOT/snapshots/ID/meta.json   its LayerInfo
//! ROOT/snapshots/settled        which layers outlive a power cut, see `durable`
//! ROOT/snapshots/ID             an empty folder: layers above and below it were removed, and ids start above it
//! ROOT/chains/HEX               a link whose text is the ID of the layer on top of the stack with that chain id
//! ROOT/tmp/NAME/N/{fs,work}     a layer in progress
//! ```
//!
//! Where the kernel refuses overlay, trees are made by copying and layers by comparing; all else is the same, but that a socket of mode
//! 07000 stands for what is removed where overlay's device cannot be made, as in a container, whose file system is an overlay. Layers of
//! the one form are not used where the other holds.

mod active;
mod adopt;
mod blobs;
mod chain;
mod durable;
mod error;
mod manner;
mod meta;
mod native;
mod overlay;
mod skeleton;
mod stored;
mod work;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub use active::{Active, View};
pub use adopt::{Origin, Unpacked};
pub use chain::{Chain, LayerId};
pub use durable::{ROLE as SETTLE, settle_main};
pub use error::SnapshotError;
pub use meta::LayerInfo;
pub use stored::StoredLayer;

use crate::digest::{ChainId, DiffId, HashingReader};
use crate::layer::ahead::read_ahead;
use crate::layer::apply::{ApplyOptions, Unmapped, apply};
use crate::layer::compare::{Found, copy_diff, extract_diff, normalize, prune};
use crate::layer::{BlobInfo, PackOptions, Packed, pack};
use crate::store::{Follower, Store};
use crate::sys::dir::Dir;
use durable::Durable;
use manner::{Manner, Trial};
use meta::StoredBlob;
use native::Trees;
use overlay::{MAX_LAYERS, Stack};
use skeleton::Skeletons;
use stored::Touched;
use work::Work;

const SNAPSHOTS: &str = "snapshots";
const CHAINS: &str = "chains";
const FS: &str = "fs";

/// How stacks of layers become trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnapshotKind {
    /// Overlay where the kernel allows it, else native.
    #[default]
    Auto,
    /// Overlay mounts.
    Overlay,
    /// Copies.
    Native,
}

/// How to keep layers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SnapshotOptions {
    /// How stacks become trees.
    pub kind: SnapshotKind,
    /// What to do about owners in layers that this user namespace does not map.
    pub unmapped: Unmapped,
    /// Which start of the machine this is; none to ask the kernel.
    pub boot: Option<u128>,
    /// Whether how trees are made is tried with the first of them and not before: where there may be none.
    pub lazy: bool,
}

/// The layers of one state root.
#[derive(Debug)]
pub struct Snapshots {
    store: Arc<Store>,
    dir: Dir,
    chains: Dir,
    options: SnapshotOptions,
    /// How trees are made.
    trial: Trial,
    trees: Trees,
    skeletons: Skeletons,
    next: AtomicU64,
    /// Held while the notes of a layer are read, changed and replaced.
    notes: Mutex<()>,
    touched: Mutex<Touched>,
    durable: Durable,
}

impl Snapshots {
    /// Opens the layers kept below the state root at `root`, making it if it is not there.
    pub fn open(root: &Path, options: SnapshotOptions) -> Result<Arc<Self>, SnapshotError> {
        Self::with_store(Store::open(root)?, options)
    }

    /// Opens the layers kept in the state root of `store`.
    pub fn with_store(store: Arc<Store>, options: SnapshotOptions) -> Result<Arc<Self>, SnapshotError> {
        let (dir, chains) = (store.folder(SNAPSHOTS)?, store.folder(CHAINS)?);
        let failed = |source| SnapshotError::Open { path: store.path().join(SNAPSHOTS), source };
        let trial = Trial::start(&store, &dir, options)?;
        let next = AtomicU64::new(highest(&dir).map_err(failed)? + 1);
        let (trees, skeletons, notes, touched) = Default::default();
        let durable = Durable::new(options.boot);
        let this = Self { store, dir, chains, options, trial, trees, skeletons, next, notes, touched, durable };
        Ok(Arc::new(this))
    }

    /// Returns the store of the same state root.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Returns how stacks become trees here, never [`SnapshotKind::Auto`].
    pub fn kind(&self) -> SnapshotKind {
        self.trial.manner().kind()
    }

    /// Returns the same if somebody has asked for it or for a tree.
    pub fn kind_if_known(&self) -> Option<SnapshotKind> {
        self.trial.found().map(Manner::kind)
    }

    /// Starts a tree that can be changed, equal to `parent`.
    pub fn prepare(&self, parent: &Chain) -> Result<Active, SnapshotError> {
        let failed = |source| SnapshotError::Prepare { source };
        let work = Work::new(self.store.scratch()).map_err(failed)?;
        let fs = work.make(FS).map_err(failed)?;
        match parent.top() {
            None => adopt::default_root(&fs).map_err(failed)?,
            Some(top) => crate::layer::copy::directory_metadata(&self.fs(top)?, &fs).map_err(failed)?,
        }
        if parent.is_empty() {
            return Ok(Active::plain(parent.clone(), work, fs));
        }
        let Some(mounter) = &self.trial.manner().mounter else {
            let lower = self.tree(parent)?;
            crate::layer::copy::tree(lower.dir(), &fs).map_err(failed)?;
            return Ok(Active::copied(parent.clone(), work, fs, lower));
        };
        work.make("work").map_err(failed)?;
        let upper = Some((work.path(FS), work.path("work")));
        let stack = Stack { lowers: self.lowers(parent)?, upper };
        Ok(Active::overlay(parent.clone(), work, fs, (Arc::clone(mounter), stack)))
    }

    /// Seals a changed tree as a new layer and returns its parent with that layer on top.
    pub fn commit(&self, active: Active, description: &str) -> Result<Chain, SnapshotError> {
        let (parent, work, found) = self.seal(active)?;
        Ok(parent.push(self.finish(&work, found, &parent, description)?))
    }

    fn finish(&self, work: &Work, found: Found, parent: &Chain, text: &str) -> Result<LayerId, SnapshotError> {
        let failed = |source| SnapshotError::Commit { source };
        let info = LayerInfo {
            created: Some(now()),
            description: text.to_owned(),
            size: found.size,
            hides: found.hides,
            parent: parent.clone(),
            owners: self.trial.manner().owners.clone(),
            boot: self.durable.boot(),
            ..LayerInfo::default()
        };
        info.create(work.dir()).map_err(failed)?;
        self.publish(work).map_err(failed)
    }

    fn seal(&self, active: Active) -> Result<(Chain, Work, Found), SnapshotError> {
        let failed = |source| SnapshotError::Commit { source };
        let sealed = active.into_sealed();
        if let Some(lower) = sealed.copied_from {
            let work = Work::new(self.store.scratch()).map_err(failed)?;
            let layer = work.make(FS).map_err(failed)?;
            let found = extract_diff(&sealed.fs, Some(lower.dir()), &layer).map_err(failed)?;
            return Ok((sealed.parent, work, found));
        }
        sealed.work.discard("work").map_err(failed)?;
        let found = if sealed.parent.is_empty() {
            normalize(&sealed.fs, None).map_err(failed)?
        } else {
            normalize(&sealed.fs, Some(self.view(&sealed.parent)?.dir())).map_err(failed)?
        };
        Ok((sealed.parent, sealed.work, found))
    }

    /// Returns the layers that make `upper` of `lower`: those between, where the one stands on the other, else a new one that holds
    /// what the trees differ in. On any other stack they change the same paths.
    pub fn diff(&self, lower: &Chain, upper: &Chain, description: &str) -> Result<Chain, SnapshotError> {
        if let Some(between) = upper.above(lower) {
            return Ok(between);
        }
        let failed = |source| SnapshotError::Commit { source };
        let work = Work::new(self.store.scratch()).map_err(failed)?;
        let layer = work.make(FS).map_err(failed)?;
        let (from, to) = (self.view(lower)?, self.view(upper)?);
        let found = copy_diff(to.dir(), from.dir(), &layer).map_err(failed)?;
        self.finish(&work, found, lower, description).map(|layer| Chain::empty().push(layer))
    }

    /// Returns `chain` as a read-only tree.
    pub fn view(&self, chain: &Chain) -> Result<View, SnapshotError> {
        let chain = &chain.distinct();
        let failed = |source| SnapshotError::Mount { count: chain.layers().len(), source };
        let Some(mounter) = self.trial.manner().mounter.as_ref().filter(|_| !chain.is_empty()) else {
            return View::copied(self.tree(chain)?).map_err(failed);
        };
        if let [only] = chain.layers()
            && !self.info(*only)?.hides
        {
            return View::layer(self.fs(*only)?).map_err(failed);
        }
        let stack = Stack { lowers: self.lowers(chain)?, upper: None };
        View::overlay(Arc::clone(mounter), stack).map_err(failed)
    }

    /// Unpacks a layer's tar, on its own: layers may be unpacked in any order and in parallel.
    pub fn unpack(&self, tar: impl Read + Send) -> Result<Unpacked, SnapshotError> {
        let failed = |source| SnapshotError::Prepare { source };
        let work = Work::new(self.store.scratch()).map_err(failed)?;
        let fs = work.make(FS).map_err(failed)?;
        let root = fs.reopen().map_err(failed)?;
        let options = ApplyOptions::layer(self.options.unmapped);
        // Decompressing and hashing take as long as making the files, so the two go on side by side.
        let mut tar = HashingReader::new(tar);
        let applied = read_ahead(&mut tar, |tar| apply(root, OsStr::new(""), tar, options)).map_err(failed)??;
        let (digest, tar_size) = tar.finish();
        Ok(Unpacked { work, fs, applied, diff_id: DiffId(digest), tar_size })
    }

    /// Puts an unpacked layer on top of `parent`, after checking that it is the one expected.
    pub fn adopt(
        &self,
        parent: &Chain,
        mut unpacked: Unpacked,
        expect: &DiffId,
        origin: Origin,
    ) -> Result<Chain, SnapshotError> {
        if unpacked.diff_id != *expect {
            return Err(SnapshotError::Mismatch { expected: expect.clone(), found: unpacked.diff_id });
        }
        let chain_id = self.chain_id_above(parent, expect)?;
        if let Some(known) = chain_id.as_ref().and_then(|id| self.find_layer(id)) {
            return Ok(parent.push(known));
        }
        let found = self.fit(parent, &mut unpacked)?;
        let mut info = LayerInfo {
            size: found.size,
            hides: found.hides,
            chain_id,
            owners: self.trial.manner().owners.clone(),
            boot: self.durable.boot(),
            squashed: unpacked.applied.squashed,
            devices: unpacked.applied.devices,
            ..origin.info(parent, expect)
        };
        if let Some(blob) = &origin.blob {
            info.add_blob(blob, None);
        }
        let failed = |source| SnapshotError::Commit { source };
        info.create(unpacked.work.dir()).map_err(failed)?;
        let layer = self.publish(&unpacked.work).map_err(failed)?;
        if let Some(id) = &info.chain_id {
            self.remember(id, layer).map_err(failed)?;
        }
        Ok(parent.push(layer))
    }

    fn fit(&self, parent: &Chain, unpacked: &mut Unpacked) -> Result<Found, SnapshotError> {
        let found = Found { hides: unpacked.applied.hides, size: unpacked.applied.size };
        if parent.is_empty() {
            adopt::fit(unpacked, None)?;
            // With nothing below there is nothing to hide.
            return normalize(&unpacked.fs, None).map_err(|source| SnapshotError::Commit { source });
        }
        if !unpacked.needs_lower() {
            return Ok(found);
        }
        let view = self.view(parent)?;
        adopt::fit(unpacked, Some(view.dir()))?;
        if found.hides {
            prune(&unpacked.fs, Some(view.dir())).map_err(|source| SnapshotError::Commit { source })?;
        }
        Ok(found)
    }

    /// None when a layer below was not pulled, so that the stack has no name others could know.
    fn chain_id_above(&self, parent: &Chain, diff_id: &DiffId) -> Result<Option<ChainId>, SnapshotError> {
        let Some(top) = parent.top() else { return Ok(Some(ChainId::extend(None, diff_id))) };
        Ok(self.info(top)?.chain_id.map(|below| ChainId::extend(Some(&below), diff_id)))
    }

    /// Returns the layer on top of the stack with that chain id, if it was pulled before.
    pub fn find_layer(&self, chain_id: &ChainId) -> Option<LayerId> {
        let text = self.chains.read_link(OsStr::new(chain_id.0.hex())).ok()?;
        let layer: LayerId = text.to_str()?.parse().ok()?;
        let found = (self.usable(layer)?.chain_id.as_ref() == Some(chain_id)).then_some(layer)?;
        self.touch(|touched| touched.used.extend([found]));
        Some(found)
    }

    fn remember(&self, chain_id: &ChainId, layer: LayerId) -> io::Result<()> {
        let scratch = self.store.scratch();
        let name = scratch.unused();
        scratch.dir().make_symlink(&name, OsStr::new(&layer.to_string()))?;
        scratch.dir().rename(&name, &self.chains, OsStr::new(chain_id.0.hex()))
    }

    /// Packs a layer into a blob of the store, or returns the one it was packed into or came from before.
    pub fn pack(&self, layer: LayerId, options: PackOptions) -> Result<BlobInfo, SnapshotError> {
        self.pack_followed(layer, options, None)
    }

    /// Does the same, and where a blob is made, hands what reads it meanwhile to `follow`.
    pub fn pack_followed(
        &self,
        layer: LayerId,
        options: PackOptions,
        follow: Option<&dyn Fn(Follower)>,
    ) -> Result<BlobInfo, SnapshotError> {
        if let Some(known) = self.known_blob(layer, options)? {
            return Ok(known);
        }
        let mut writer = self.store.writer()?;
        if let Some(follow) = follow {
            follow(writer.follow()?);
        }
        let Packed { out, diff_id, toc } = pack(&self.fs(layer)?, options, writer)?;
        let (digest, size) = out.commit(None)?;
        let blob = BlobInfo { diff_id, digest, size, compression: options.compression, toc };
        if options.latest.is_none() {
            self.note_blob(layer, &blob, options.level())?;
        }
        Ok(blob)
    }

    /// Returns the blob of a layer if it is there as `options` have it; unless `exactly`, also in the form it was pulled in.
    pub fn packed(
        &self,
        layer: LayerId,
        options: PackOptions,
        exactly: bool,
    ) -> Result<Option<BlobInfo>, SnapshotError> {
        if !exactly {
            let info = self.info(layer)?;
            let pulled = info.blobs.iter().rev().filter(|stored| stored.level.is_none()).find_map(StoredBlob::info);
            if let Some(blob) = pulled
                && self.store.blob(&blob.digest)?.is_some_and(|(_, size)| size == blob.size)
            {
                return Ok(Some(blob));
            }
        }
        self.known_blob(layer, options)
    }

    fn known_blob(&self, layer: LayerId, options: PackOptions) -> Result<Option<BlobInfo>, SnapshotError> {
        if options.latest.is_some() {
            return Ok(None);
        }
        let info = self.info(layer)?;
        let fits = |stored: &&StoredBlob| stored.level.is_none_or(|level| level == options.level());
        for blob in info.blobs.iter().rev().filter(fits).filter_map(StoredBlob::info) {
            // A blob of another size is damaged, and made again.
            let stored = self.store.blob(&blob.digest)?.is_some_and(|(_, size)| size == blob.size);
            if blob.compression == options.compression && stored {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    /// Returns what is known of a layer.
    pub fn info(&self, layer: LayerId) -> Result<LayerInfo, SnapshotError> {
        LayerInfo::load(&self.folder(layer)?).map_err(|source| SnapshotError::Missing { layer, source })
    }

    /// Returns whether all layers of `chain` are here and mean here what they meant where they were made.
    pub fn exists(&self, chain: &Chain) -> bool {
        let there = chain.layers().iter().all(|layer| self.usable(*layer).is_some());
        if there {
            self.touch(|touched| touched.used.extend(chain.layers()));
        }
        there
    }

    /// Returns what is known of a layer that is whole. One that was made while users were mapped otherwise counts as gone: its files
    /// belong to others now, or to root where there was but one id. So does one that a power cut may have damaged.
    fn usable(&self, layer: LayerId) -> Option<LayerInfo> {
        let info = self.info(layer).ok()?;
        let whole = info.owners == self.trial.manner().owners && self.durable.trusts(&self.dir, layer, &info);
        (whole && self.fs(layer).is_ok()).then_some(info)
    }

    /// Gives no new layer the id of one of `chain`: where layers were deleted by hand, others may still speak of them.
    pub fn pass_over(&self, chain: &Chain) {
        let above = chain.layers().iter().map(|layer| layer.0.saturating_add(1)).max().unwrap_or(0);
        self.next.fetch_max(above, Ordering::Relaxed);
    }

    fn folder(&self, layer: LayerId) -> Result<Dir, SnapshotError> {
        let opened = self.dir.open_dir(OsStr::new(&layer.to_string()));
        opened.map_err(|source| SnapshotError::Missing { layer, source })
    }

    fn fs(&self, layer: LayerId) -> Result<Dir, SnapshotError> {
        self.folder(layer)?.open_dir(OsStr::new(FS)).map_err(|source| SnapshotError::Missing { layer, source })
    }

    /// Returns the folders of a stack as the mounting thread names them, top first.
    fn lowers(&self, chain: &Chain) -> Result<Vec<OsString>, SnapshotError> {
        // The kernel takes no folder twice.
        let chain = &chain.distinct();
        let mut lowers = Vec::new();
        for (height, layer) in chain.layers().iter().enumerate().rev() {
            lowers.push(OsString::from(format!("{layer}/{FS}")));
            lowers.extend(self.skeletons.below(self, *layer, &chain.layers()[..height])?);
        }
        if lowers.len() > MAX_LAYERS {
            return Err(SnapshotError::TooManyLayers { count: lowers.len(), limit: MAX_LAYERS });
        }
        Ok(lowers)
    }

    fn tree(&self, chain: &Chain) -> Result<Arc<native::Tree>, SnapshotError> {
        self.trees.get(&chain.distinct(), self.store.scratch(), |layer| self.fs(layer))
    }

    /// Makes a finished folder a layer, by one rename.
    fn publish(&self, work: &Work) -> io::Result<LayerId> {
        loop {
            let layer = LayerId(self.next.fetch_add(1, Ordering::Relaxed));
            match work.rename(&self.dir, OsStr::new(&layer.to_string())) {
                // Another process was first.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => {
                    result?;
                    self.touch(|touched| touched.made.extend([layer]));
                    return Ok(layer);
                }
            }
        }
    }
}

fn poisoned(layer: LayerId) -> SnapshotError {
    SnapshotError::Missing { layer, source: io::Error::other("poisoned lock") }
}

fn highest(dir: &Dir) -> io::Result<u64> {
    let names = dir.names()?;
    Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).max().unwrap_or(0))
}

/// The time a layer is sealed, as its history shows it: RFC 3339 in UTC with nanoseconds.
fn now() -> String {
    let format = &time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::now_utc().format(format).expect("a time of this millennium")
}

#[cfg(test)]
mod tests;
