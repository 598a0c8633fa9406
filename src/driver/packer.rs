//! Makes the blobs of new layers while later steps still run.
//!
//! In: layers as steps make them. Out: their blobs, each made once whoever asks first. Nothing is made for layers that no image
//! of the build will hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};

use super::uploader::Uploader;
use crate::diag::{Diagnostic, Kind};
use crate::digest::Digest;
use crate::image::media::Compression;
use crate::layer::{BlobInfo, PackOptions};
use crate::ops::LayerObserver;
use crate::snapshot::{LayerId, Snapshots};

type Cell = Arc<OnceCell<BlobInfo>>;

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Packing {
    /// The compression.
    pub(super) kind: Compression,
    /// Its level; none for the default.
    pub(super) level: Option<i32>,
    /// Whether a layer that was pulled in another form is converted.
    pub(super) force: bool,
}

impl Packing {
    fn options(self) -> PackOptions {
        PackOptions { level: self.level, ..PackOptions::new(self.kind) }
    }
}

/// Which layers are packed as soon as they are there, by the steps that make them.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Those that an output or a cache needs.
    pub(super) packed: BTreeSet<Digest>,
    /// Those that the outputs' registries get.
    pub(super) pushed: BTreeSet<Digest>,
}

/// Layers packed at once: each packs on all processors already, a second hides the first one's reading.
const AT_ONCE: usize = 2;

/// Packs layers.
#[derive(Clone)]
pub(super) struct Packer(Arc<Shared>);

struct Shared {
    snapshots: Arc<Snapshots>,
    packing: Packing,
    wanted: Wanted,
    uploader: Uploader,
    runtime: Handle,
    slots: Semaphore,
    cells: Mutex<BTreeMap<(LayerId, Packing), Cell>>,
    /// Layers that steps of this build made, which no registry can have yet.
    fresh: Mutex<BTreeSet<LayerId>>,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("packing", &self.0.packing).finish_non_exhaustive()
    }
}

impl Packer {
    /// Makes a packer that packs the layers of the steps in `wanted` as soon as they are there, and hands what is pushed to `uploader`.
    pub(super) fn new(snapshots: Arc<Snapshots>, packing: Packing, wanted: Wanted, uploader: Uploader) -> Self {
        let (runtime, slots) = (Handle::current(), Semaphore::new(AT_ONCE));
        let (cells, fresh) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { snapshots, packing, wanted, uploader, runtime, slots, cells, fresh }))
    }

    /// Returns what sends layers ahead of the push.
    pub(super) fn uploader(&self) -> &Uploader {
        &self.0.uploader
    }

    /// Returns how layers of images are packed.
    pub(super) fn packing(&self) -> Packing {
        self.0.packing
    }

    /// Returns the blob of a layer, making it if nobody has.
    pub(super) async fn blob(&self, layer: LayerId) -> Result<BlobInfo, Diagnostic> {
        self.blob_as(layer, self.0.packing).await
    }

    /// Returns the blob of a layer in some form, making it if nobody has.
    pub(super) async fn blob_as(&self, layer: LayerId, packing: Packing) -> Result<BlobInfo, Diagnostic> {
        let cell = self.cell(layer, packing);
        let made = cell.get_or_try_init(|| self.pack(layer, packing)).await?;
        Ok(made.clone())
    }

    /// Returns the blob of a layer in some form if it is there, or being made.
    pub(super) async fn known(&self, layer: LayerId, packing: Packing) -> Result<Option<BlobInfo>, Diagnostic> {
        let started = self.0.cells.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&(layer, packing));
        if started {
            return self.blob_as(layer, packing).await.map(Some);
        }
        let known = self.0.snapshots.packed(layer, packing.options(), packing.force);
        known.map_err(|error| Diagnostic::from_error(&error))
    }

    fn cell(&self, layer: LayerId, packing: Packing) -> Cell {
        let mut cells = self.0.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry((layer, packing)).or_default())
    }

    async fn pack(&self, layer: LayerId, packing: Packing) -> Result<BlobInfo, Diagnostic> {
        let _slot = self.0.slots.acquire().await;
        let shared = Arc::clone(&self.0);
        let work = move || match shared.snapshots.packed(layer, packing.options(), packing.force)? {
            Some(known) => Ok(known),
            None => shared.snapshots.pack(layer, packing.options()),
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(blob)) => {
                let fits = packing == self.0.packing;
                if fits && self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner).contains(&layer) {
                    self.0.uploader.send(&blob);
                }
                Ok(blob)
            }
            Ok(Err(error)) => Err(Diagnostic::from_error(&error)),
            Err(error) => Err(Diagnostic::new(Kind::Build, format!("failed to pack layer {layer}: {error}"))),
        }
    }
}

impl LayerObserver for Packer {
    fn layer(&self, vertex: &Digest, layer: LayerId) {
        if self.0.wanted.pushed.contains(vertex) {
            self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(layer);
        }
        if !self.0.wanted.packed.contains(vertex) {
            return;
        }
        let packer = self.clone();
        self.0.runtime.spawn(async move {
            // A failure comes back when an exporter asks for the layer, which is when it matters.
            let _ = packer.blob(layer).await;
        });
    }
}
