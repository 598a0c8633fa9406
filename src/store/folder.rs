//! Folders of content that is used under a lock beside it: `FOLDER/lock` and `FOLDER/CONTENT`.
//!
//! In: such folders. Out: their sizes, and their content moved away. Invariant: only the content goes, and only while its lock can be
//! had alone; who holds the lock, now or later, finds either the whole content or none, and makes it anew.

use std::ffi::{OsStr, OsString};
use std::io;

use super::Store;
use crate::sys::dir::Dir;
use crate::sys::lock::FileLock;
use crate::sys::walk::Walk;

const LOCK: &str = "lock";

/// A folder with a lock and content.
#[derive(Debug)]
pub struct LockedFolder {
    /// Its path below the place where its like are.
    pub name: String,
    /// What is known of the content; empty where nothing is.
    pub description: String,
    /// When the content was made, in seconds since 1970.
    pub created: u64,
    /// When names in the content's root last changed.
    pub changed: u64,
    dir: Dir,
    content: &'static str,
}

impl LockedFolder {
    /// Returns the folder `dir` if it has any content.
    pub fn new(dir: Dir, name: String, content: &'static str) -> io::Result<Option<Self>> {
        let Some(stat) = dir.try_stat(OsStr::new(content))?.filter(|stat| stat.is_dir()) else { return Ok(None) };
        // The folder changes when its content appears, and the content itself with every use.
        let created = dir.stat_self()?.mtime.since_1970();
        let changed = stat.mtime.since_1970();
        Ok(Some(Self { name, description: String::new(), created, changed, dir, content }))
    }

    /// Returns the folder.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns whether anybody holds the lock now.
    pub fn in_use(&self) -> bool {
        !matches!(FileLock::try_exclusive(&self.dir, OsStr::new(LOCK)), Ok(Some(_)))
    }

    /// Returns the disk space its files take. What changes meanwhile is counted or not.
    pub fn measure(&self) -> io::Result<u64> {
        let root = self.dir.open_dir(OsStr::new(self.content))?;
        let mut walk = Walk::new(&root, ())?;
        let mut sum = 0u64;
        loop {
            let Some(name) = walk.next_name() else {
                if walk.leave()?.is_none() {
                    return Ok(sum);
                }
                continue;
            };
            match walk.here().try_stat(&name)? {
                Some(stat) if stat.is_dir() => walk.enter(&name, ())?,
                Some(stat) => sum = sum.saturating_add(stat.blocks.saturating_mul(512)),
                None => {}
            }
        }
    }

    /// Moves the content away and returns its name in the scratch folder of `store`; none if it is in use.
    pub fn take_away(&self, store: &Store) -> io::Result<Option<OsString>> {
        let Some(_held) = FileLock::try_exclusive(&self.dir, OsStr::new(LOCK))? else { return Ok(None) };
        store.take_away(&self.dir, OsStr::new(self.content)).map(Some)
    }
}
