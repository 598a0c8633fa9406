//! The blobs of a layer that was pulled: the bytes others know it by.
//!
//! In: layers, blobs of the store. Out: what a layer came from, and the same tar in another compression. Invariant: a tar is never made anew
//! from the files of a pulled layer, as these may lack what this user cannot make, and nobody else writes tars as we do.

use std::io;

use super::{LayerId, LayerInfo, SnapshotError, Snapshots, poisoned};
use crate::digest::{DiffId, HashingReader};
use crate::layer::decompress::Decoder;
use crate::layer::{BlobInfo, LayerError, PackOptions, Packed, convert};

impl Snapshots {
    /// Returns whether a blob is here, as far as its size tells.
    pub fn holds(&self, blob: &BlobInfo) -> Result<bool, SnapshotError> {
        Ok(self.store.blob(&blob.digest)?.is_some_and(|(_, size)| size == blob.size))
    }

    /// Packs the tar of a pulled layer otherwise, or returns the blob this was done with before. Where `from` turns out to be
    /// damaged, it is removed.
    pub fn recompress(&self, layer: LayerId, from: &BlobInfo, options: PackOptions) -> Result<BlobInfo, SnapshotError> {
        if let Some(known) = self.known_blob(layer, options)? {
            return Ok(known);
        }
        let made = self.converted(from, options);
        if made.is_err() {
            self.store.discard(&from.digest)?;
        }
        let blob = made?;
        self.note_blob(layer, &blob, options.level())?;
        Ok(blob)
    }

    fn converted(&self, from: &BlobInfo, options: PackOptions) -> Result<BlobInfo, SnapshotError> {
        let failed = |source| SnapshotError::Layer(LayerError::Pack { source });
        let Some((file, _)) = self.store.blob(&from.digest)? else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let mut tar = HashingReader::new(Decoder::new(file).map_err(failed)?);
        let Packed { out, diff_id, toc } = convert(&mut tar, options, self.store.writer()?).map_err(failed)?;
        let found = DiffId(tar.finish().0);
        if found != from.diff_id {
            return Err(SnapshotError::Mismatch { expected: from.diff_id.clone(), found });
        }
        let (digest, size) = out.commit(None)?;
        Ok(BlobInfo { diff_id, digest, size, compression: options.compression, toc })
    }

    /// Notes that a layer was packed into a blob.
    pub(super) fn note_blob(&self, layer: LayerId, blob: &BlobInfo, level: i32) -> Result<(), SnapshotError> {
        let _held = self.notes.lock().map_err(|_| poisoned(layer))?;
        let mut info = self.info(layer)?;
        info.add_blob(blob, Some(level));
        let folder = self.folder(layer)?;
        info.replace(&folder, self.store.scratch()).map_err(|source| SnapshotError::Commit { source })
    }
}

impl LayerInfo {
    /// Returns the blobs the layer was pulled as; none for one that was made here.
    pub fn pulled(&self) -> Vec<BlobInfo> {
        self.blobs.iter().filter(|blob| blob.level.is_none()).filter_map(super::StoredBlob::info).collect()
    }

    /// Returns whether its files are all that its tar told of, with their owners.
    pub fn is_whole(&self) -> bool {
        self.squashed == 0 && self.devices == 0
    }
}
