//! What can go wrong with an image.

use std::io;

use crate::diag::{Diagnose, Kind};
use crate::digest::{DiffId, Digest};
use crate::image::Platform;
use crate::registry::{DocumentError, RegistryError};
use crate::snapshot::SnapshotError;
use crate::store::StoreError;

/// What to do about content that no program of ours has written so.
const DAMAGED: &str = "the image is damaged where it is kept: push the image again, or name another";

/// An image that cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store failed.
    #[error("failed to keep {digest}")]
    Store {
        /// What was to be kept.
        digest: Digest,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A layer's bytes cannot be read.
    #[error("failed to read layer {digest}")]
    Read {
        /// The layer's blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer cannot be unpacked or stacked.
    #[error("failed to unpack layer {digest}")]
    Unpack {
        /// The layer's blob.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<SnapshotError>,
    },
    /// A layer that is not what the configuration says.
    #[error("layer {digest} unpacks to {}, the image configuration says {}", found.0, expected.0)]
    DiffId {
        /// The layer's blob.
        digest: Digest,
        /// What the configuration says.
        expected: Box<DiffId>,
        /// What it is.
        found: Box<DiffId>,
    },
    /// The image exists, but not for this platform.
    #[error("{reference}: no image for platform {wanted} (there is {have})")]
    NoPlatform {
        /// The image.
        reference: String,
        /// The platform.
        wanted: Box<Platform>,
        /// Those there are, comma-separated.
        have: String,
    },
    /// A document of the image is not usable.
    #[error("{reference}: invalid manifest {digest}")]
    Document {
        /// The image.
        reference: String,
        /// The document.
        digest: Digest,
        /// What is wrong.
        #[source]
        source: DocumentError,
    },
    /// Documents that do not fit together.
    #[error("{reference} is not a usable image: {reason}")]
    Image {
        /// The image.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// An OCI layout cannot be read.
    #[error("failed to read {path} of the OCI layout {layout}")]
    Layout {
        /// The layout.
        layout: String,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An OCI layout has no such image.
    #[error("the OCI layout {layout} has no image {name}")]
    NotInLayout {
        /// The layout.
        layout: String,
        /// What was asked for.
        name: String,
        /// The tags there are.
        have: Vec<String>,
    },
    /// A task of ours was stopped.
    #[error("stopped while unpacking {digest}")]
    Stopped {
        /// The layer's blob.
        digest: Digest,
    },
}

impl SourceError {
    /// Returns whether the content is to be had from another host, should it be opened again.
    pub(super) fn is_spoiled(&self) -> bool {
        matches!(self, Self::Registry(error) if error.is_spoiled())
    }
}

impl Diagnose for SourceError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store { source, .. } => source.kind(),
            Self::Unpack { source, .. } => source.kind(),
            _ => Kind::Remote,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Registry(error) => error.hints(),
            Self::Store { source, .. } => source.hints(),
            Self::Unpack { source, .. } => match source.hints() {
                hints if hints.is_empty() && source.kind() == Kind::Remote => vec![DAMAGED.into()],
                hints => hints,
            },
            Self::DiffId { .. } | Self::Document { .. } | Self::Image { .. } => vec![DAMAGED.into()],
            Self::NoPlatform { have, .. } => vec![format!("choose one of {have} with `--platform`")],
            Self::Layout { path, source, .. }
                if source.kind() == io::ErrorKind::NotFound && !path.starts_with("blobs") =>
            {
                vec!["name a directory that holds `oci-layout` and `index.json`, such as `rbuild -o type=oci,tar=false,dest=DIR` makes".into()]
            }
            Self::NotInLayout { have, .. } if !have.is_empty() => vec![format!("it has {}", have.join(", "))],
            _ => Vec::new(),
        }
    }
}
