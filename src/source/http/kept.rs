//! What is remembered of files fetched before: the server's entity tag, and the layer the file is in.
//!
//! ```text
//! ROOT/http/HEX    JSON, one a request: URL, name, owner; HEX is their hash
//! ```
//!
//! A note that cannot be read or written is one that is not there.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::snapshot::{Chain, LayerId, Snapshots};
use crate::store::Scratch;
use crate::sys::dir::Dir;

/// Files remembered of one request.
const ENTRIES: usize = 8;
/// Longest note that is read.
const LONGEST: u64 = 64 << 10;
/// Longest entity tag that is remembered.
const LONGEST_ETAG: usize = 1024;

/// A file fetched before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Without the mark of a weak one; empty if the server gave none.
    pub(super) etag: String,
    pub(super) digest: Digest,
    /// Its name in the layer.
    pub(super) filename: String,
    /// `Last-Modified` as the server wrote it.
    pub(super) last_modified: Option<String>,
    /// Number of the layer.
    pub(super) layer: u64,
}

impl Kept {
    /// Says in which layer a file is.
    pub(super) fn in_layer(mut self, chain: &Chain) -> Option<Self> {
        if self.etag.len() > LONGEST_ETAG {
            self.etag.clear();
        }
        self.layer = chain.top()?.0;
        Some(self)
    }

    /// Returns whether the two are the same file, whatever the server calls its versions.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        let same = |kept: &Self| (kept.digest.clone(), kept.filename.clone(), kept.last_modified.clone());
        same(self) == same(other)
    }

    pub(super) fn chain(&self) -> Chain {
        Chain::empty().push(LayerId(self.layer))
    }
}

/// What the layer of a file says it is, so that another with its number is not taken for it.
pub(super) fn description(request: &Digest, digest: &Digest) -> String {
    format!("http file {digest} of request {}", request.short())
}

/// Reads what is remembered of a request, of what is still there.
pub(super) fn load(dir: &Dir, snapshots: &Snapshots, request: &Digest) -> Vec<Kept> {
    let read = || {
        let mut text = Vec::new();
        let file = dir.open_file(OsStr::new(request.hex())).ok()?;
        file.take(LONGEST).read_to_end(&mut text).ok()?;
        serde_json::from_slice::<Vec<Kept>>(&text).ok()
    };
    let there = |kept: &Kept| {
        let layer = LayerId(kept.layer);
        snapshots.info(layer).is_ok_and(|info| info.description == description(request, &kept.digest))
            && snapshots.exists(&kept.chain())
    };
    read().unwrap_or_default().into_iter().filter(there).collect()
}

/// Remembers a file, the newest first.
pub(super) fn store(dir: &Dir, scratch: &Scratch, request: &Digest, kept: Kept, mut others: Vec<Kept>) {
    others.retain(|other| other.layer != kept.layer && (other.etag != kept.etag || other.digest != kept.digest));
    others.insert(0, kept);
    others.truncate(ENTRIES);
    let write = || {
        let name = scratch.unused();
        scratch.dir().create_file(&name, 0o600)?.write_all(&serde_json::to_vec(&others)?)?;
        scratch.dir().rename(&name, dir, OsStr::new(request.hex()))
    };
    if let Err(error) = write() {
        tracing::debug!(%error, "failed to remember a file of a web server");
    }
}
