//! Work in progress of one process: a folder that lives as long as the process, and no longer.

use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::dir::Dir;
use crate::sys::lock::FileLock;

const TMP: &str = "tmp";
const GUARD: &str = "guard";
const LOCK: &str = "lock";

/// The scratch folder of this process.
#[derive(Debug)]
pub struct Scratch {
    tmp: Dir,
    name: OsString,
    dir: Dir,
    next: AtomicU64,
    _alive: FileLock,
}

impl Scratch {
    /// Makes a scratch folder below `root` and removes those of dead processes.
    pub(super) fn open(root: &Dir) -> io::Result<Self> {
        let tmp = super::subdir(root, TMP)?;
        // Without the guard a sweep could see a folder between its mkdir and its lock, and take it for abandoned.
        let guard = FileLock::exclusive(&tmp, OsStr::new(GUARD))?;
        sweep(&tmp)?;
        let name = unused(&tmp)?;
        let dir = tmp.open_dir(&name)?;
        let alive = FileLock::try_exclusive(&dir, OsStr::new(LOCK))?.ok_or(io::ErrorKind::WouldBlock)?;
        drop(guard);
        Ok(Self { tmp, name, dir, next: AtomicU64::new(0), _alive: alive })
    }

    /// Returns the folder.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns the folder's path relative to the state root, a short one.
    pub fn path(&self) -> OsString {
        let mut path = OsString::from("tmp/");
        path.push(&self.name);
        path
    }

    /// Returns a name that was not used in the folder before.
    pub fn unused(&self) -> OsString {
        OsString::from(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Makes a new folder in the scratch folder, and returns its name and itself.
    pub fn make_dir(&self) -> io::Result<(OsString, Dir)> {
        let name = self.unused();
        self.dir.make_dir(&name, 0o700)?;
        Ok((name.clone(), self.dir.open_dir(&name)?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Without the guard a sweep could come between the removal of the lock and of its folder, and trip over that.
        let _guard = FileLock::exclusive(&self.tmp, OsStr::new(GUARD));
        // What cannot be removed now is removed by the next process, which will find the lock free.
        drop(self.tmp.remove_all(&self.name));
    }
}

fn sweep(tmp: &Dir) -> io::Result<()> {
    for name in tmp.names()? {
        // What is no folder is none of ours, the guard aside.
        if !tmp.try_stat(&name)?.is_some_and(|stat| stat.is_dir()) {
            continue;
        }
        let dir = tmp.open_dir(&name)?;
        if let Some(_dead) = FileLock::try_exclusive(&dir, OsStr::new(LOCK))?
            && let Err(error) = tmp.remove_all(&name)
        {
            // It is in nobody's way but for the space it takes.
            tracing::warn!(%error, "failed to remove tmp/{} of a process that is gone", name.display());
        }
    }
    Ok(())
}

/// Process ids are not unique across the pid namespaces that may share a root, so the name is a number never in use.
fn unused(tmp: &Dir) -> io::Result<OsString> {
    for number in 1u64.. {
        let name = OsString::from(number.to_string());
        match tmp.make_dir(&name, 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| name),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
