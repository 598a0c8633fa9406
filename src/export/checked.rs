//! A layer that is hashed while it is read: one that is not what its digest says ends in an error before its last byte.
//!
//! In: a reader, the layer's descriptor. Out: the same bytes. The last piece is held back until all is known to be right, so a
//! receiver that counts bytes never takes a damaged layer for a whole one.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use super::image::Image;
use super::{Blobs, ExportError};
use crate::digest::Hasher;
use crate::image::Descriptor;

/// What was found instead, once it was; copies share the answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Damage(Arc<OnceLock<String>>);

impl Damage {
    /// Returns what was found instead of the layer.
    pub(super) fn found(&self) -> Option<String> {
        self.0.get().cloned()
    }
}

/// The reader.
pub(super) struct Checked<R> {
    inner: R,
    hasher: Hasher,
    layer: Descriptor,
    damage: Damage,
}

impl<R: Read> Checked<R> {
    /// Wraps a reader of a layer.
    pub(super) fn new(inner: R, layer: Descriptor, damage: Damage) -> Self {
        Self { inner, hasher: Hasher::new(), layer, damage }
    }

    fn check(&self) -> io::Result<()> {
        let (found, length) = (self.hasher.clone().finish(), self.hasher.length());
        let same = self.layer.digest.algorithm() != "sha256" || found == self.layer.digest;
        if same && length == self.layer.size {
            return Ok(());
        }
        // A second attempt finds the same.
        let text = self.damage.0.get_or_init(|| format!("{length} bytes, {found}"));
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has other content than its digest says: {text}")))
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        if count == 0 && !buffer.is_empty() || self.hasher.length() >= self.layer.size {
            self.check()?;
        }
        Ok(count)
    }
}

/// Rejects all layers of an image that are damaged; those that cannot be read at all are left to who needs them.
pub fn reject_damaged(image: &Image, blobs: &dyn Blobs) {
    for (layer, _) in image.layers() {
        let Ok(reader) = blobs.open(&layer.digest) else { continue };
        let damage = Damage::default();
        let read = io::copy(&mut Checked::new(reader, layer.clone(), damage.clone()), &mut io::sink());
        if read.is_err() && damage.found().is_some() {
            blobs.reject(&layer.digest);
        }
    }
}

/// Reads all layers of an image; a damaged one is rejected, and an error.
pub fn check(image: &Image, blobs: &dyn Blobs) -> Result<(), ExportError> {
    for (layer, _) in image.layers() {
        let reader = blobs.open(&layer.digest).map_err(ExportError::blob(&layer.digest))?;
        let damage = Damage::default();
        let read = io::copy(&mut Checked::new(reader, layer.clone(), damage.clone()), &mut io::sink());
        if let Some(found) = damage.found() {
            blobs.reject(&layer.digest);
            return Err(ExportError::Mismatch { digest: layer.digest.clone(), found });
        }
        read.map_err(ExportError::blob(&layer.digest))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stored: &[u8]) -> (Result<Vec<u8>, io::ErrorKind>, Option<String>) {
        let damage = Damage::default();
        let mut reader = Checked::new(stored, Descriptor::of("x", b"layer"), damage.clone());
        let mut bytes = Vec::new();
        let result = reader.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.kind());
        (result, damage.found())
    }

    #[test]
    fn only_the_layer_itself_passes() {
        assert_eq!(read(b"layer"), (Ok(b"layer".to_vec()), None));
        for stored in [&b"lazer"[..], b"laye", b"layers", b""] {
            let (result, damage) = read(stored);
            assert_eq!(result, Err(io::ErrorKind::InvalidData));
            assert!(damage.is_some_and(|found| found.starts_with(&format!("{} bytes", stored.len()))));
        }
    }
}
