//! Advisory locks on files (flock): held by the open descriptor, so the kernel drops them when their process dies.
//!
//! In: a directory and a name. Out: a [`FileLock`] that releases when dropped. Invariant: a lock never outlives its
//! process, which makes "can I take it?" the same question as "is its owner dead?".

use std::ffi::OsStr;
use std::fs::File;
use std::io;

use rustix::fs::{self, FlockOperation, Mode, OFlags};

use super::dir::Dir;

/// A lock that is held until dropped.
#[derive(Debug)]
pub struct FileLock {
    _held: File,
}

impl FileLock {
    /// Waits until no other process holds `name` exclusively; any number of holders may share it.
    pub fn shared(dir: &Dir, name: &OsStr) -> io::Result<Self> {
        Self::take(dir, name, FlockOperation::LockShared)
    }

    /// Waits until nobody else holds `name`.
    pub fn exclusive(dir: &Dir, name: &OsStr) -> io::Result<Self> {
        Self::take(dir, name, FlockOperation::LockExclusive)
    }

    /// Takes `name` alone if nobody holds it now, else returns none.
    pub fn try_exclusive(dir: &Dir, name: &OsStr) -> io::Result<Option<Self>> {
        match Self::take(dir, name, FlockOperation::NonBlockingLockExclusive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            result => result.map(Some),
        }
    }

    /// Shares `name` if nobody holds it alone now, else returns none.
    pub fn try_shared(dir: &Dir, name: &OsStr) -> io::Result<Option<Self>> {
        match Self::take(dir, name, FlockOperation::NonBlockingLockShared) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            result => result.map(Some),
        }
    }

    fn take(dir: &Dir, name: &OsStr, operation: FlockOperation) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
        loop {
            match fs::flock(&file, operation) {
                Err(rustix::io::Errno::INTR) => {}
                result => return Ok(result.map(|()| Self { _held: File::from(file) })?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_excludes_exclusive_until_dropped() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = Dir::open(temp.path()).expect("open");
        let name = OsStr::new("lock");
        let (first, second) =
            (FileLock::shared(&dir, name).expect("lock"), FileLock::shared(&dir, name).expect("lock"));
        assert!(FileLock::try_exclusive(&dir, name).expect("try").is_none());
        drop((first, second));
        let alone = FileLock::try_exclusive(&dir, name).expect("try").expect("free");
        assert!(FileLock::try_exclusive(&dir, name).expect("try").is_none());
        drop(alone);
    }
}
