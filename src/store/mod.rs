//! What outlives a build: content-addressed blobs, cache records, locks.
//!
//! In: the state root's path, bytes. Out: verified blobs, places for work in progress. Invariants: the root belongs to this
//! user alone (mode 0700); a blob appears whole and verified under its digest, by one rename, or not at all; a process
//! that dies leaves only a scratch folder, which the next one removes.
//!
//! ```text
//! ROOT/lock                     shared while a build runs, exclusive for removing what is stored
//! ROOT/blobs/sha256/HEX         a blob
//! ROOT/usage.log                what builds used, see [`usage`]
//! ROOT/explain/                 what builds were made of: see `explain`
//! ROOT/tmp/guard                held while scratch folders are made or swept
//! ROOT/tmp/NAME/                what one process is working on
//! ROOT/tmp/NAME/lock            held by that process as long as it lives
//! ```

mod blob;
mod error;
pub mod explain;
mod folder;
mod growth;
pub mod prune;
pub mod records;
mod root;
mod scratch;
pub mod usage;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use blob::{BlobWriter, VerifiedBlobWriter};
pub use error::StoreError;
pub use folder::LockedFolder;
pub use growth::Follower;
pub use scratch::Scratch;

use crate::digest::Digest;
use crate::sys::dir::Dir;
use crate::sys::lock::FileLock;
use prune::Disk;
use usage::{Scan, Usage};

const LOCK: &str = "lock";
const BLOBS: &str = "blobs";

/// The blobs and the folders of one state root.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    root: Dir,
    sha256: Dir,
    sha512: Dir,
    scratch: Arc<Scratch>,
    is_new: bool,
    ran_out: AtomicBool,
}

impl Store {
    /// Opens the state root at `path`, making it if it is not there, and removes what dead processes left.
    pub fn open(path: &Path) -> Result<Arc<Self>, StoreError> {
        let root = root::open(path)?;
        let failed = |source| StoreError::Open { path: path.to_owned(), source };
        let is_new = root.try_stat(OsStr::new(BLOBS)).map_err(failed)?.is_none();
        let blobs = subdir(&root, BLOBS).map_err(failed)?;
        let sha256 = subdir(&blobs, "sha256").map_err(failed)?;
        let sha512 = subdir(&blobs, "sha512").map_err(failed)?;
        let scratch = Arc::new(Scratch::open(&root).map_err(failed)?);
        let (path, ran_out) = (path.to_owned(), AtomicBool::new(false));
        Ok(Arc::new(Self { path, root, sha256, sha512, scratch, is_new, ran_out }))
    }

    /// Returns whether there was nothing stored when the store was opened.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Returns the path the root was opened by, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the state root.
    pub fn root_dir(&self) -> &Dir {
        &self.root
    }

    /// Notes that something was given up because the disk was full, and its room given back.
    pub fn note_full_disk(&self) {
        self.ran_out.store(true, Ordering::Relaxed);
    }

    /// Returns whether the disk was full at some time since the store was opened, as far as was noted.
    pub fn had_full_disk(&self) -> bool {
        self.ran_out.load(Ordering::Relaxed)
    }

    /// Opens the folder `name` of the state root, making it if it is not there.
    pub fn folder(&self, name: &str) -> Result<Dir, StoreError> {
        subdir(&self.root, name).map_err(|source| StoreError::Open { path: self.path.join(name), source })
    }

    /// Returns where cache records are kept, for [`records::Records::open`].
    pub fn records_path(&self) -> PathBuf {
        self.path.join("records")
    }

    /// Returns the path of this process's scratch folder, for what wants a path: it goes when the process ends.
    pub fn scratch_path(&self) -> PathBuf {
        self.path.join(self.scratch.path())
    }

    /// Returns this process's place for work in progress.
    pub fn scratch(&self) -> &Arc<Scratch> {
        &self.scratch
    }

    /// Waits until nothing is being removed; hold it while building.
    pub fn lock_shared(&self) -> Result<FileLock, StoreError> {
        FileLock::shared(&self.root, OsStr::new(LOCK)).map_err(|source| self.lock_error(source))
    }

    /// Takes the lock alone if nobody builds now, else returns none; hold it while removing what is stored.
    pub fn try_lock_exclusive(&self) -> Result<Option<FileLock>, StoreError> {
        FileLock::try_exclusive(&self.root, OsStr::new(LOCK)).map_err(|source| self.lock_error(source))
    }

    fn lock_error(&self, source: io::Error) -> StoreError {
        StoreError::Lock { path: self.path.join(LOCK), source }
    }

    /// Opens a blob and returns it with its size, or none if it is not here.
    pub fn blob(&self, digest: &Digest) -> Result<Option<(File, u64)>, StoreError> {
        match self.try_blob(digest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some).map_err(|source| StoreError::Read { digest: digest.clone(), source }),
        }
    }

    /// Removes a blob that turned out to be damaged; what needs it makes or fetches it anew.
    pub fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        match self.blobs_of(digest).unlink(OsStr::new(digest.hex())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Discard { digest: digest.clone(), source: error })
            }
            _ => Ok(()),
        }
    }

    fn try_blob(&self, digest: &Digest) -> io::Result<(File, u64)> {
        let file = self.blobs_of(digest).open_file(OsStr::new(digest.hex()))?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    /// Returns the blobs that are here, each with its size and the time it was written, in seconds since 1970.
    pub fn blobs(&self) -> Result<Vec<(Digest, u64, u64)>, StoreError> {
        let mut blobs = Vec::new();
        for (dir, algorithm) in [(&self.sha256, "sha256"), (&self.sha512, "sha512")] {
            let failed = |source| StoreError::Open { path: self.path.join(BLOBS).join(algorithm), source };
            for name in dir.names().map_err(failed)? {
                let digest = name.to_str().and_then(|hex| format!("{algorithm}:{hex}").parse().ok());
                // What was removed since, or is no blob, takes no space of ours.
                if let (Some(digest), Ok(Some(stat))) = (digest, dir.try_stat(&name)) {
                    blobs.push((digest, stat.size, stat.mtime.since_1970()));
                }
            }
        }
        Ok(blobs)
    }

    /// Moves `name` of `dir` to where this process works, at once and whole, and returns its name in [`Store::scratch`].
    pub fn take_away(&self, dir: &Dir, name: &OsStr) -> io::Result<OsString> {
        let taken = self.scratch.unused();
        dir.rename(name, self.scratch.dir(), &taken).map(|()| taken)
    }

    /// Notes that a build used `used` at `at`, seconds since 1970, and added `added` bytes; returns all that is known then.
    pub fn note_usage(&self, at: u64, used: Vec<String>, added: u64) -> io::Result<Usage> {
        usage::note(&self.root, &self.scratch, at, used, added)
    }

    /// Notes what there is, and forgets how things were used that `keep` does not know.
    pub fn note_scan(&self, scan: Scan, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        usage::note_scan(&self.root, &self.scratch, scan, keep)
    }

    /// Returns how things were used, as far as that is known.
    pub fn usage(&self) -> Usage {
        Usage::load(&self.root)
    }

    /// Returns the space of the disk the root is on; one that does not tell has none.
    pub fn disk(&self) -> Disk {
        let (total, free) = self.root.disk_space().unwrap_or_default();
        Disk { total, free }
    }

    /// Starts a new blob.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        let sha256 = self.sha256.reopen().map_err(|source| StoreError::Write { source })?;
        BlobWriter::new(sha256, &self.scratch)
    }

    /// Starts a new blob of bytes that their source verifies.
    pub fn verified_writer(&self) -> Result<VerifiedBlobWriter, StoreError> {
        let sha256 = self.sha256.reopen().map_err(|source| StoreError::Write { source })?;
        VerifiedBlobWriter::new(sha256, &self.scratch)
    }

    fn blobs_of(&self, digest: &Digest) -> &Dir {
        if digest.algorithm() == "sha512" { &self.sha512 } else { &self.sha256 }
    }
}

/// Opens the folder `name`, making it private to this user if it is not there.
pub(crate) fn subdir(parent: &Dir, name: &str) -> io::Result<Dir> {
    let name = OsStr::new(name);
    match parent.make_dir(name, 0o700) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => parent.open_dir(name),
    }
}

#[cfg(test)]
mod tests;
