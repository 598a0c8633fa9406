//! What can go wrong with a cache outside this machine's state directory.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::diag::{Diagnose, Kind};
use crate::digest::Digest;
use crate::registry::{DocumentError, RegistryError};

/// An error of a remote cache.
#[derive(Debug, thiserror::Error)]
pub enum RemoteCacheError {
    /// A value of `--cache-from` or `--cache-to` that says nothing usable.
    #[error("invalid value of {flag}: {problem}")]
    Spec {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        problem: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// The directory has no such cache.
    #[error("there is no cache {what} in {}", path.display())]
    Absent {
        /// The directory.
        path: PathBuf,
        /// The tag or digest that was looked for.
        what: String,
    },
    /// The directory could not be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory could not be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A document that is not what it should be.
    #[error("the cache is not usable: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// A manifest that is not what it should be.
    #[error("the cache's manifest is not usable")]
    Document {
        /// What is wrong.
        source: DocumentError,
    },
    /// Content that differs from its digest.
    #[error("blob {digest} has other content than its digest says")]
    Mismatch {
        /// The blob.
        digest: Digest,
    },
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Nothing came of it.
    #[error("it has not answered for {limit:?}")]
    Silent {
        /// How long it was waited for.
        limit: Duration,
    },
    /// A layer could not be had.
    #[error("failed to read layer {digest}")]
    Layer {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
}

impl RemoteCacheError {
    /// Says what is wrong with a document.
    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }
}

impl Diagnose for RemoteCacheError {
    fn kind(&self) -> Kind {
        match self {
            Self::Spec { .. } => Kind::Usage,
            Self::Registry(error) => error.kind(),
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => Kind::DiskFull,
            _ => Kind::Remote,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Spec { hint, .. } => hint.iter().cloned().collect(),
            Self::Registry(error) => error.hints(),
            _ => Vec::new(),
        }
    }
}
