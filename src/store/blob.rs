//! Writing a blob: into the scratch folder, verified, then renamed to its digest.
//!
//! Nothing waits for the disk: file systems that order data before sizes leave a file that is too short after a power cut, which is
//! why whoever uses a blob compares its size, and a sync for each of many small layers takes longer than making them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use super::growth::Growth;
use super::{Follower, Scratch, StoreError};
use crate::digest::{Digest, Hasher};
use crate::sys::dir::Dir;

/// A file in the scratch folder that may become a blob; dropped before that, it leaves nothing.
#[derive(Debug)]
struct Draft {
    blobs: Dir,
    scratch: Arc<Scratch>,
    name: OsString,
    file: File,
}

impl Draft {
    fn new(blobs: Dir, scratch: &Arc<Scratch>) -> Result<Self, StoreError> {
        let name = scratch.unused();
        let file = scratch.dir().create_file(&name, 0o600).map_err(|source| StoreError::Write { source })?;
        Ok(Self { blobs, scratch: Arc::clone(scratch), name, file })
    }

    fn publish(&self, digest: &Digest) -> Result<(), StoreError> {
        let renamed = self.scratch.dir().rename(&self.name, &self.blobs, OsStr::new(digest.hex()));
        renamed.map_err(|source| StoreError::Write { source })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a commit the name is gone; else the folder is swept at the latest when the next process starts.
        drop(self.scratch.dir().unlink(&self.name));
    }
}

/// A blob being written; dropped without [`BlobWriter::commit`] it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    draft: Draft,
    hasher: Hasher,
    growth: Option<Growth>,
}

impl BlobWriter {
    pub(super) fn new(blobs: Dir, scratch: &Arc<Scratch>) -> Result<Self, StoreError> {
        Ok(Self { draft: Draft::new(blobs, scratch)?, hasher: Hasher::new(), growth: None })
    }

    /// Returns what reads the blob while it is written; to be called once, before anything is.
    pub fn follow(&mut self) -> Result<Follower, StoreError> {
        let opened = self.draft.scratch.dir().open_file(&self.draft.name);
        let file = opened.map_err(|source| StoreError::Write { source })?;
        Ok(self.growth.insert(Growth::default()).follower(file))
    }

    /// Verifies digest and size where given and stores the blob; returns its digest and size.
    pub fn commit(self, expected: Option<(&Digest, u64)>) -> Result<(Digest, u64), StoreError> {
        let (found, found_size) = (self.hasher.clone().finish(), self.hasher.length());
        if let Some((expected, expected_size)) = expected
            && (expected, expected_size) != (&found, found_size)
        {
            return Err(StoreError::Mismatch { expected: expected.clone(), expected_size, found, found_size });
        }
        self.draft.publish(&found)?;
        if let Some(growth) = &self.growth {
            growth.stored(&found);
        }
        Ok((found, found_size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.draft.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        if let Some(growth) = &self.growth {
            growth.grew(count);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob being written whose bytes are verified where they come from: hashing them twice would take as long as unpacking a part of
/// them. Dropped without [`VerifiedBlobWriter::commit`] it leaves nothing.
#[derive(Debug)]
pub struct VerifiedBlobWriter {
    draft: Draft,
    size: u64,
}

impl VerifiedBlobWriter {
    pub(super) fn new(blobs: Dir, scratch: &Arc<Scratch>) -> Result<Self, StoreError> {
        Ok(Self { draft: Draft::new(blobs, scratch)?, size: 0 })
    }

    /// Stores the blob; to be called only after the source has said that all it gave has this digest.
    pub fn commit(self, digest: &Digest, size: u64) -> Result<(), StoreError> {
        if self.size != size {
            return Err(StoreError::Length { digest: digest.clone(), expected: size, found: self.size });
        }
        self.draft.publish(digest)
    }
}

impl Write for VerifiedBlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.draft.file.write(bytes)?;
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
