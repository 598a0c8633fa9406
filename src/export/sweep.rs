//! Removes from a layout what its index no longer leads to: `reset=true` of a local cache.
//!
//! In: a layout. Out: nothing but blobs that can be reached. Invariants: nothing is removed while anybody writes there, who may have
//! blobs that no index names yet: writers hold the directory shared, and this wants it alone; nothing is removed if any
//! document that the index leads to cannot be read.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use super::ExportError;
use crate::digest::Digest;
use crate::image::{Descriptor, media};
use crate::sys::dir::{Dir, Kind};

/// Largest document that is read.
const DOCUMENT_LIMIT: u64 = 16 << 20;

/// What points on, of manifests and indexes alike.
#[derive(Deserialize)]
struct Pointers {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// Holds the directory of a layout while blobs are written.
#[derive(Debug)]
pub(super) struct Writing(File);

impl Writing {
    /// Waits until nobody removes blobs there.
    pub(super) fn start(dest: &Path) -> Result<Self, ExportError> {
        let open = || {
            let dir = File::open(dest)?;
            dir.lock_shared().map(|()| Self(dir))
        };
        open().map_err(ExportError::write(dest))
    }

    /// Removes what the index does not lead to; returns whether that could be done, which it cannot while others write there.
    pub(super) fn sweep(self, root: &Dir, dest: &Path) -> Result<bool, ExportError> {
        match self.0.try_lock() {
            Ok(()) => remove_unreached(root).map(|()| true).map_err(ExportError::write(dest)),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(ExportError::write(dest)(error)),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // To close the file is not enough: a program that was started a moment ago has a copy of it until it is executed.
        let _ = self.0.unlock();
    }
}

fn remove_unreached(root: &Dir) -> io::Result<()> {
    let blobs = root.open_dir(OsStr::new("blobs"))?.open_dir(OsStr::new("sha256"))?;
    let kept = reached(root, &blobs)?;
    for name in blobs.names()? {
        let is_file = blobs.try_stat(&name)?.is_some_and(|stat| stat.kind() == Kind::File);
        if is_file && !kept.contains(&name) {
            blobs.unlink(&name)?;
        }
    }
    Ok(())
}

fn reached(root: &Dir, blobs: &Dir) -> io::Result<BTreeSet<OsString>> {
    let mut kept = BTreeSet::new();
    let mut open = read(root, OsStr::new("index.json"))?.manifests;
    while let Some(descriptor) = open.pop() {
        let name = OsString::from(Digest::hex(&descriptor.digest));
        let is_document = media::is_manifest(&descriptor.media_type) || media::is_index(&descriptor.media_type);
        // Each document is read once, so a circle ends.
        if kept.insert(name.clone()) && is_document {
            let Pointers { config, layers, manifests } = read(blobs, &name)?;
            open.extend(config.into_iter().chain(layers).chain(manifests));
        }
    }
    Ok(kept)
}

fn read(dir: &Dir, name: &OsStr) -> io::Result<Pointers> {
    let mut bytes = Vec::new();
    dir.open_file(name)?.take(DOCUMENT_LIMIT).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}
