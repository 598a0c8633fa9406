//! A layer in progress: a folder in the scratch folder, removed when dropped unless it was published.

use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::Arc;

use super::overlay::below;
use crate::store::Scratch;
use crate::sys::dir::Dir;

#[derive(Debug)]
pub(super) struct Work {
    scratch: Arc<Scratch>,
    name: OsString,
    dir: Dir,
}

impl Work {
    pub(super) fn new(scratch: &Arc<Scratch>) -> io::Result<Self> {
        let (name, dir) = scratch.make_dir()?;
        Ok(Self { scratch: Arc::clone(scratch), name, dir })
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Makes a folder in it.
    pub(super) fn make(&self, name: &str) -> io::Result<Dir> {
        self.dir.make_dir(OsStr::new(name), 0o700)?;
        self.dir.open_dir(OsStr::new(name))
    }

    /// Returns the path of `name` in it, relative to ROOT/snapshots.
    pub(super) fn path(&self, name: &str) -> OsString {
        below(&[OsStr::new(".."), &self.scratch.path(), &self.name, OsStr::new(name)])
    }

    /// Moves a folder out of it, if there is one, and removes that.
    pub(super) fn discard(&self, name: &str) -> io::Result<()> {
        if self.dir.try_stat(OsStr::new(name))?.is_none() {
            return Ok(());
        }
        let rubbish = self.scratch.unused();
        self.dir.rename(OsStr::new(name), self.scratch.dir(), &rubbish)?;
        // A mount that a dying process still holds may keep it busy; it goes with the scratch folder.
        drop(self.scratch.dir().remove_all(&rubbish));
        Ok(())
    }

    /// Moves it to `new` in `to`, where nothing may have that name.
    pub(super) fn rename(&self, to: &Dir, new: &OsStr) -> io::Result<()> {
        self.scratch.dir().rename_new(&self.name, to, new)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed goes with the scratch folder.
        drop(self.scratch.dir().remove_all(&self.name));
    }
}
