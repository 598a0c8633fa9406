//! What can go wrong with the state root, and what to type about it.

use std::io;
use std::path::PathBuf;

use crate::diag::{Diagnose, Kind};
use crate::digest::Digest;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state root or one of its folders could not be opened or made.
    #[error("failed to open the state folder {path:?}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Other users could put their files in place of ours.
    #[error("the state folder {path:?} is not safe to use: {reason}")]
    Unsafe {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A lock could not be taken.
    #[error("failed to lock {path:?}")]
    Lock {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A blob could not be opened.
    #[error("failed to read the blob {digest}")]
    Read {
        /// Which.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// A damaged blob could not be removed.
    #[error("failed to remove the damaged blob {digest}")]
    Discard {
        /// Which.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// A blob could not be written.
    #[error("failed to write a blob")]
    Write {
        /// Why.
        source: io::Error,
    },
    /// The bytes are not what was expected.
    #[error("content does not match: expected {expected} with {expected_size} bytes, got {found} with {found_size}")]
    Mismatch {
        /// The digest asked for.
        expected: Digest,
        /// The size asked for.
        expected_size: u64,
        /// The digest of what came.
        found: Digest,
        /// The size of what came.
        found_size: u64,
    },
    /// A blob has not the length it should have.
    #[error("the blob {digest} came with {found} bytes instead of {expected}")]
    Length {
        /// Which.
        digest: Digest,
        /// The size asked for.
        expected: u64,
        /// The size of what came.
        found: u64,
    },
}

impl Diagnose for StoreError {
    fn kind(&self) -> Kind {
        match self {
            Self::Mismatch { .. } | Self::Length { .. } => Kind::Remote,
            _ => Kind::Machine,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Open { source, .. } | Self::Lock { source, .. } if source.kind() != io::ErrorKind::StorageFull => {
                vec!["name a folder that you can write to: `--root DIR`".into()]
            }
            Self::Unsafe { .. } => {
                vec!["name a folder that only you can write to: `--root ~/.local/share/rbuild`".into()]
            }
            _ => Vec::new(),
        }
    }
}
