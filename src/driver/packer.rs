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

/// Layers packed at once: each packs on all processors already, a second hides the first one's reading.
const AT_ONCE: usize = 2;

/// Packs layers.
#[derive(Clone)]
pub(super) struct Packer(Arc<Shared>);

struct Shared {
    snapshots: Arc<Snapshots>,
    compression: Compression,
    level: Option<i32>,
    wanted: BTreeSet<Digest>,
    uploader: Uploader,
    runtime: Handle,
    slots: Semaphore,
    cells: Mutex<BTreeMap<LayerId, Cell>>,
    /// Layers that steps of this build made, which no registry can have yet.
    fresh: Mutex<BTreeSet<LayerId>>,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("compression", &self.0.compression).finish_non_exhaustive()
    }
}

impl Packer {
    /// Makes a packer that packs the layers of the steps in `wanted` as soon as they are there, and hands them to `uploader`.
    pub(super) fn new(
        snapshots: Arc<Snapshots>,
        (compression, level): (Compression, Option<i32>),
        wanted: BTreeSet<Digest>,
        uploader: Uploader,
    ) -> Self {
        let (runtime, slots) = (Handle::current(), Semaphore::new(AT_ONCE));
        let (cells, fresh) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { snapshots, compression, level, wanted, uploader, runtime, slots, cells, fresh }))
    }

    /// Returns what sends layers ahead of the push.
    pub(super) fn uploader(&self) -> &Uploader {
        &self.0.uploader
    }

    /// Returns the blob of a layer, making it if nobody has.
    pub(super) async fn blob(&self, layer: LayerId) -> Result<BlobInfo, Diagnostic> {
        let cell = self.cell(layer);
        let made = cell.get_or_try_init(|| self.pack(layer)).await?;
        Ok(made.clone())
    }

    fn cell(&self, layer: LayerId) -> Cell {
        let mut cells = self.0.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry(layer).or_default())
    }

    async fn pack(&self, layer: LayerId) -> Result<BlobInfo, Diagnostic> {
        let _slot = self.0.slots.acquire().await;
        let shared = Arc::clone(&self.0);
        let work = move || {
            shared.snapshots.pack(layer, PackOptions { level: shared.level, ..PackOptions::new(shared.compression) })
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(blob)) => {
                if self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner).contains(&layer) {
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
        if !self.0.wanted.contains(vertex) {
            return;
        }
        self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(layer);
        let packer = self.clone();
        self.0.runtime.spawn(async move {
            // A failure comes back when an exporter asks for the layer, which is when it matters.
            let _ = packer.blob(layer).await;
        });
    }
}
