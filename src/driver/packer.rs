//! Makes the blobs of new layers while later steps still run, and finds those of the layers below them.
//!
//! In: layers as steps make them. Out: their blobs, each made once in each compression that an output wants, whoever asks first. Nothing is
//! made for layers that no image of the build will hold. Invariant: a layer that was pulled keeps the blob it came in, in
//! whatever compression, unless an output forces another; and even then its tar stays what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};

use super::bases::Bases;
use super::uploader::Uploader;
use crate::diag::{Diagnose, Diagnostic, Kind};
use crate::digest::Digest;
use crate::export::image::CompressionChoice;
use crate::image::media::Compression;
use crate::layer::{BlobInfo, PackOptions};
use crate::ops::LayerObserver;
use crate::snapshot::{LayerId, SnapshotError, Snapshots};

type Cell = Arc<OnceCell<BlobInfo>>;

/// Layers packed at once: each packs on all processors already, a second hides the first one's reading.
const AT_ONCE: usize = 2;

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packing {
    kind: Compression,
    level: i32,
    /// Whether a layer that was pulled in another form is converted.
    force: bool,
}

impl From<CompressionChoice> for Packing {
    fn from(choice: CompressionChoice) -> Self {
        Self::new(choice.kind, choice.level, choice.force)
    }
}

impl Packing {
    /// Puts a choice together, with defaults for what it leaves open.
    pub(super) fn new(kind: Option<Compression>, level: Option<i32>, force: bool) -> Self {
        let kind = kind.unwrap_or_default();
        let level = PackOptions { level, ..PackOptions::new(kind) }.level();
        Self { kind, level, force }
    }

    /// Returns what new layers are compressed with.
    pub(super) fn compression(self) -> Compression {
        self.kind
    }

    fn options(self) -> PackOptions {
        PackOptions { level: Some(self.level), ..PackOptions::new(self.kind) }
    }

    /// Returns whether layers in other forms are converted.
    pub(super) fn is_forced(self) -> bool {
        self.force
    }

    /// Returns how a layer is packed that is new, and so has no other form yet.
    pub(super) fn of_new(self) -> Self {
        Self { force: false, ..self }
    }
}

/// Which layers are packed as soon as they are there, by the steps that make them.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Those that an output or a cache needs.
    pub(super) packed: BTreeSet<Digest>,
    /// Those of the results, which an image holds.
    pub(super) of_results: BTreeSet<Digest>,
}

/// Packs layers.
#[derive(Clone)]
pub(super) struct Packer(Arc<Shared>);

struct Shared {
    snapshots: Arc<Snapshots>,
    wanted: Wanted,
    packings: BTreeSet<Packing>,
    bases: Bases,
    uploader: Uploader,
    runtime: Handle,
    slots: Semaphore,
    cells: Mutex<BTreeMap<(LayerId, Packing), Cell>>,
    /// Layers that steps of this build made, which no registry can have yet, and whether they are those of a result.
    fresh: Mutex<BTreeMap<LayerId, bool>>,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("packings", &self.0.packings).finish_non_exhaustive()
    }
}

impl Packer {
    /// Makes a packer that packs what is wanted, in all `packings`, as soon as it is there, and hands what is new to `uploader`.
    pub(super) fn new(
        snapshots: Arc<Snapshots>,
        (wanted, packings): (Wanted, BTreeSet<Packing>),
        bases: Bases,
        uploader: Uploader,
    ) -> Self {
        let packings = packings.into_iter().map(Packing::of_new).collect();
        let (runtime, slots) = (Handle::current(), Semaphore::new(AT_ONCE));
        let (cells, fresh) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { snapshots, wanted, packings, bases, uploader, runtime, slots, cells, fresh }))
    }

    /// Returns what sends layers ahead of the push.
    pub(super) fn uploader(&self) -> &Uploader {
        &self.0.uploader
    }

    /// Returns the blob of a layer, making or fetching it if nobody has.
    pub(super) async fn blob(&self, layer: LayerId, packing: Packing) -> Result<BlobInfo, Diagnostic> {
        let packing = if self.is_fresh(layer) { packing.of_new() } else { packing };
        let cell = self.cell(layer, packing);
        let made = cell.get_or_try_init(|| self.make(layer, packing)).await?;
        Ok(made.clone())
    }

    /// Returns the blob of a layer if it is there, or being made.
    pub(super) async fn known(&self, layer: LayerId, packing: Packing) -> Result<Option<BlobInfo>, Diagnostic> {
        let form = if self.is_fresh(layer) { packing.of_new() } else { packing };
        let started = self.0.cells.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&(layer, form));
        if started {
            return self.blob(layer, packing).await.map(Some);
        }
        let known = self.0.snapshots.packed(layer, packing.options(), packing.force);
        known.map_err(|error| failed(&error))
    }

    /// Looks for all blobs anew, because some were found damaged.
    pub(super) fn forget(&self) {
        self.0.cells.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn cell(&self, layer: LayerId, packing: Packing) -> Cell {
        let mut cells = self.0.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry((layer, packing)).or_default())
    }

    fn is_fresh(&self, layer: LayerId) -> bool {
        self.is_of_result(layer).is_some()
    }

    /// Returns whether a new layer is that of a result; none if it is not new.
    fn is_of_result(&self, layer: LayerId) -> Option<bool> {
        self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner).get(&layer).copied()
    }

    async fn make(&self, layer: LayerId, packing: Packing) -> Result<BlobInfo, Diagnostic> {
        let _slot = self.0.slots.acquire().await;
        let options = packing.options();
        let Some(pulled) = self.pulled(layer).await? else {
            return self.make_new(layer, packing, options).await;
        };
        if !packing.force || pulled.compression == packing.kind {
            return Ok(pulled);
        }
        let convert = |from| self.on_a_thread(layer, move |snapshots| snapshots.recompress(layer, &from, options));
        match convert(pulled).await {
            Ok(blob) => Ok(blob),
            // A damaged blob is gone now, and another may be had.
            Err(error) => match self.pulled(layer).await? {
                Some(pulled) => convert(pulled).await,
                None => Err(error),
            },
        }
    }

    async fn make_new(&self, layer: LayerId, packing: Packing, options: PackOptions) -> Result<BlobInfo, Diagnostic> {
        let Some(is_of_result) = self.is_of_result(layer) else {
            return self.on_a_thread(layer, move |snapshots| snapshots.pack(layer, options)).await;
        };
        let (uploader, stream) = (self.0.uploader.clone(), Arc::new(Mutex::new(None)));
        let streaming = Arc::clone(&stream);
        let follow = move |blob| {
            *streaming.lock().unwrap_or_else(PoisonError::into_inner) = uploader.follow(blob, packing, is_of_result);
        };
        let pack = move |snapshots: &Snapshots| snapshots.pack_followed(layer, options, Some(&follow));
        let blob = self.on_a_thread(layer, pack).await?;
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.0.uploader.send(&blob, packing, is_of_result, stream);
        Ok(blob)
    }

    /// Returns the blob that a layer was pulled as, fetched again if it is gone; none of a layer that was made here.
    async fn pulled(&self, layer: LayerId) -> Result<Option<BlobInfo>, Diagnostic> {
        let Shared { snapshots, bases, .. } = &*self.0;
        let info = snapshots.info(layer).map_err(|error| failed(&error))?;
        let (named, noted) = (bases.of(info.chain_id.as_ref()), info.pulled());
        let named_blobs = || named.iter().map(|base| base.blob.clone());
        if let Some(blob) = self.held(named_blobs())? {
            return Ok(Some(blob));
        }
        let mut failure = None;
        for base in named {
            match bases.fetch(base).await {
                Ok(()) => return Ok(Some(base.blob.clone())),
                Err(error) => failure = Some(failed(&error)),
            }
        }
        match (self.held(noted.iter().cloned())?, failure) {
            (Some(blob), _) => Ok(Some(blob)),
            (None, Some(failure)) => Err(failure),
            (None, None) if noted.is_empty() || info.is_whole() => Ok(None),
            (None, None) => Err(lost(&noted[0].digest)),
        }
    }

    fn held(&self, blobs: impl Iterator<Item = BlobInfo>) -> Result<Option<BlobInfo>, Diagnostic> {
        for blob in blobs {
            if self.0.snapshots.holds(&blob).map_err(|error| failed(&error))? {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    async fn on_a_thread(
        &self,
        layer: LayerId,
        work: impl FnOnce(&Snapshots) -> Result<BlobInfo, SnapshotError> + Send + 'static,
    ) -> Result<BlobInfo, Diagnostic> {
        let snapshots = Arc::clone(&self.0.snapshots);
        match tokio::task::spawn_blocking(move || work(&snapshots)).await {
            Ok(result) => result.map_err(|error| failed(&error)).inspect_err(|diagnostic| {
                if diagnostic.kind == Kind::DiskFull {
                    self.0.snapshots.store().note_full_disk();
                }
            }),
            Err(error) => Err(Diagnostic::new(Kind::Build, format!("failed to pack layer {layer}: {error}"))),
        }
    }
}

fn failed(error: &dyn Diagnose) -> Diagnostic {
    Diagnostic::from_error(error)
}

fn lost(blob: &Digest) -> Diagnostic {
    let text = format!("layer {blob} is no longer in the state directory, and no image of this build has it");
    Diagnostic::new(Kind::Machine, text).hinted("build once with --no-cache")
}

impl LayerObserver for Packer {
    fn layer(&self, vertex: &Digest, layer: LayerId) {
        let Wanted { packed, of_results } = &self.0.wanted;
        if !packed.contains(vertex) {
            return;
        }
        self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(layer, of_results.contains(vertex));
        for packing in self.0.packings.clone() {
            let packer = self.clone();
            self.0.runtime.spawn(async move {
                // A failure comes back when an exporter asks for the layer, which is when it matters.
                let _ = packer.blob(layer, packing).await;
            });
        }
    }
}
