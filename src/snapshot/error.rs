//! What can go wrong with layers and stacks, and what to type about it.

use std::io;
use std::path::PathBuf;

use super::LayerId;
use crate::diag::{Diagnose, Kind};
use crate::digest::DiffId;
use crate::layer::LayerError;
use crate::store::StoreError;

/// An error of the snapshots.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store below failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bytes of a layer could not be read or written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The folder of the layers could not be used.
    #[error("failed to use the layer folder {path:?}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Overlay was demanded and the kernel refuses it here.
    #[error("the kernel refuses overlay mounts on {path:?}")]
    Overlay {
        /// The state root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A layer is not here, or not whole.
    #[error("failed to read layer {layer}")]
    Missing {
        /// Which.
        layer: LayerId,
        /// Why.
        source: io::Error,
    },
    /// More layers than the kernel stacks.
    #[error("cannot stack {count} layers: the kernel's limit is {limit}")]
    TooManyLayers {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A stack could not be mounted.
    #[error("failed to mount {count} layers")]
    Mount {
        /// How many.
        count: usize,
        /// Why.
        source: io::Error,
    },
    /// A new tree could not be made.
    #[error("failed to prepare a new layer")]
    Prepare {
        /// Why.
        source: io::Error,
    },
    /// A tree could not be turned into a layer.
    #[error("failed to commit a layer")]
    Commit {
        /// Why.
        source: io::Error,
    },
    /// An unpacked layer is not the one expected.
    #[error("layer content does not match: expected diff id {}, got {}", expected.0, found.0)]
    Mismatch {
        /// What the image config says.
        expected: DiffId,
        /// What was unpacked.
        found: DiffId,
    },
    /// An unpacked layer does not fit on the layers below it.
    #[error("failed to put a layer on top of the layers below it, at {path:?}")]
    Adopt {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl Diagnose for SnapshotError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Layer(error) => error.kind(),
            Self::Mismatch { .. } | Self::Adopt { .. } => Kind::Remote,
            Self::TooManyLayers { .. } => Kind::Build,
            _ => Kind::Machine,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Store(error) => error.hints(),
            Self::Layer(error) => error.hints(),
            Self::Overlay { .. } => {
                vec![
                    "keep the state on a local disk (ext4, xfs, btrfs or tmpfs): `--root DIR`; or write `snapshotter = \"auto\"` in \
                     [worker.oci], which copies trees where it has to"
                        .into(),
                ]
            }
            _ => Vec::new(),
        }
    }
}
