//! Writing a blob: into the scratch folder, verified, then renamed to its digest.
//!
//! Nothing waits for the disk: file systems that order data before sizes leave a file that is too short after a power cut, which is
//! why whoever uses a blob compares its size, and a sync for each of many small layers takes longer than making them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use super::{Scratch, StoreError};
use crate::digest::{Digest, Hasher};
use crate::sys::dir::Dir;

/// A blob being written; dropped without [`BlobWriter::commit`] it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: Dir,
    scratch: Arc<Scratch>,
    name: OsString,
    file: File,
    hasher: Hasher,
}

impl BlobWriter {
    pub(super) fn new(blobs: Dir, scratch: &Arc<Scratch>) -> Result<Self, StoreError> {
        let name = scratch.unused();
        let file = scratch.dir().create_file(&name, 0o600).map_err(|source| StoreError::Write { source })?;
        Ok(Self { blobs, scratch: Arc::clone(scratch), name, file, hasher: Hasher::new() })
    }

    /// Verifies digest and size where given and stores the blob; returns its digest and size.
    pub fn commit(self, expected: Option<(&Digest, u64)>) -> Result<(Digest, u64), StoreError> {
        let (found, found_size) = (self.hasher.clone().finish(), self.hasher.length());
        if let Some((expected, expected_size)) = expected
            && (expected, expected_size) != (&found, found_size)
        {
            return Err(StoreError::Mismatch { expected: expected.clone(), expected_size, found, found_size });
        }
        self.publish(&found).map_err(|source| StoreError::Write { source })?;
        Ok((found, found_size))
    }

    fn publish(&self, digest: &Digest) -> io::Result<()> {
        self.scratch.dir().rename(&self.name, &self.blobs, OsStr::new(digest.hex()))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After a commit the name is gone; else the folder is swept at the latest when the next process starts.
        drop(self.scratch.dir().unlink(&self.name));
    }
}
