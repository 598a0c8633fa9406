//! What layers there are, and removing them.
//!
//! In: layers nobody uses. Out: their folders moved away whole. Invariants: no id is used again, for an empty folder stays under an id
//! above all that ever were; chain ids whose layer is gone lead nowhere, which is what they did before they were made.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::PoisonError;

use super::{LayerId, LayerInfo, Snapshots, highest};
use crate::layer::BlobInfo;

/// A layer as it is stored.
#[derive(Debug)]
pub struct StoredLayer {
    /// Its id.
    pub id: LayerId,
    /// What is known of it.
    pub info: LayerInfo,
    /// When it was stored, in seconds since 1970.
    pub stored: u64,
}

/// What a process used and made.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) used: BTreeSet<LayerId>,
    pub(super) made: BTreeSet<LayerId>,
}

impl Snapshots {
    /// Returns the layers that are here, whoever they mean anything to.
    pub fn stored(&self) -> io::Result<Vec<StoredLayer>> {
        let mut layers = Vec::new();
        for name in self.dir.names()? {
            let Some(id) = name.to_str().and_then(|name| name.parse::<LayerId>().ok()) else { continue };
            let info = match self.info(id) {
                Ok(info) => info,
                Err(_) if self.is_mark(&name) => continue,
                Err(_) => LayerInfo { description: "layer whose notes are lost".to_owned(), ..LayerInfo::default() },
            };
            layers.push(StoredLayer { id, info, stored: self.dir.stat(&name)?.mtime.since_1970() });
        }
        Ok(layers)
    }

    /// Sees to it that no layer made later gets a number that is in use now.
    pub fn keep_numbers(&self) -> io::Result<()> {
        let top = highest(&self.dir)?;
        let name = |number: u64| OsString::from(number.to_string());
        if top == 0 || self.is_mark(&name(top)) {
            return Ok(());
        }
        self.dir.make_dir(&name(top.saturating_add(1)), 0o700)?;
        for old in self.dir.names()?.iter().filter(|old| **old != name(top + 1) && self.is_mark(old)) {
            self.dir.remove_dir(old)?;
        }
        Ok(())
    }

    fn is_mark(&self, name: &OsStr) -> bool {
        self.dir.open_dir(name).and_then(|dir| dir.names()).is_ok_and(|names| names.is_empty())
    }

    /// Moves a layer away and returns its name in the scratch folder; call [`Snapshots::keep_numbers`] before.
    pub fn take_away(&self, layer: LayerId) -> io::Result<OsString> {
        self.store.take_away(&self.dir, OsStr::new(&layer.to_string()))
    }

    /// Removes the chain ids that lead to no layer.
    pub fn tidy_chains(&self) -> io::Result<()> {
        for name in self.chains.names()? {
            let target = self.chains.read_link(&name)?;
            if self.dir.try_stat(&target)?.is_none() {
                self.chains.unlink(&name)?;
            }
        }
        Ok(())
    }

    pub(super) fn touch(&self, note: impl FnOnce(&mut Touched)) {
        // Names added by whoever panicked are as good as any.
        note(&mut self.touched.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn made_any(&self) -> bool {
        !self.touched.lock().unwrap_or_else(PoisonError::into_inner).made.is_empty()
    }

    /// Returns the layers that this process used or made, and the bytes that those it made take, with their blobs.
    pub fn touched(&self) -> (Vec<LayerId>, u64) {
        let touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let sizes = touched.made.iter().filter_map(|layer| self.info(*layer).ok());
        let bytes = sizes.map(|info| info.size + info.known_blobs().iter().map(|blob| blob.size).sum::<u64>()).sum();
        (touched.used.union(&touched.made).copied().collect(), bytes)
    }
}

impl LayerInfo {
    /// Returns all blobs that are known to hold the layer, here or no longer.
    pub fn known_blobs(&self) -> Vec<BlobInfo> {
        self.blobs.iter().filter_map(super::StoredBlob::info).collect()
    }
}
