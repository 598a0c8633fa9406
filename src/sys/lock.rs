//! Advisory locks on files (flock): held by the open descriptor, so the kernel drops them when their process dies.
//!
//! In: a directory and a name. Out: a [`FileLock`] that releases when dropped. Invariant: a lock never outlives its
//! process and those it was left open for, which makes "can I take it?" the same question as "is its owner dead?".

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, FlockOperation, Mode, OFlags};

use super::dir::Dir;

/// A lock that is held until dropped.
#[derive(Debug)]
pub struct FileLock {
    held: File,
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

    /// Takes the network namespace this thread is in, alone or with others, if nobody keeps it from that now. The lock is on the
    /// namespace itself: all who lock the same one meet, wherever they keep their files.
    pub fn try_network(alone: bool) -> io::Result<Option<Self>> {
        let file = File::open("/proc/thread-self/ns/net")?;
        let operation =
            if alone { FlockOperation::NonBlockingLockExclusive } else { FlockOperation::NonBlockingLockShared };
        match fs::flock(&file, operation) {
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(None),
            result => Ok(result.map(|()| Some(Self { held: file }))?),
        }
    }

    /// The descriptor that holds it: who inherits it holds the lock too.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.held.as_fd()
    }

    fn take(dir: &Dir, name: &OsStr, operation: FlockOperation) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
        loop {
            match fs::flock(&file, operation) {
                Err(rustix::io::Errno::INTR) => {}
                result => return Ok(result.map(|()| Self { held: File::from(file) })?),
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

    #[test]
    fn a_network_namespace_is_locked_like_a_file() {
        // That of the machine may be locked by others.
        let thread = std::thread::spawn(|| {
            crate::sys::ns::unshare(&[crate::sys::ns::Namespace::Net]).expect("a network namespace");
            let shared = FileLock::try_network(false).expect("asked").expect("free");
            assert!(FileLock::try_network(true).expect("asked").is_none());
            let other = FileLock::try_network(false).expect("asked").expect("shared");
            drop((shared, other));
            let alone = FileLock::try_network(true).expect("asked").expect("free");
            assert!(FileLock::try_network(false).expect("asked").is_none());
            drop(alone);
        });
        thread.join().expect("it went well");
    }
}
