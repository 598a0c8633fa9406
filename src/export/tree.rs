//! Result trees: the merged file systems of a build, one a platform, and how they are walked.
//!
//! In: open directories. Out: entries, each directory before what is in it, names in order of bytes. Trees are foreign: names
//! are taken one component at a time below open directories, and links are told, never followed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::ExportError;
use crate::image::Platform;
use crate::sys::dir::{Dir, Stat};
use crate::sys::walk::Walk;

/// A result tree.
#[derive(Debug)]
pub struct Tree {
    /// The platform it was built for.
    pub platform: Platform,
    /// Its root.
    pub root: Dir,
}

impl Tree {
    /// Returns the name of the directory that holds the tree where there are several: `linux_arm64`.
    pub(super) fn directory(&self) -> String {
        self.platform.format_all().replace('/', "_")
    }
}

/// One entry of a tree.
pub(super) struct Entry<'a> {
    /// The directory it is in.
    pub(super) dir: &'a Dir,
    /// Its name in there.
    pub(super) name: &'a OsStr,
    /// Its path from the root of the tree.
    pub(super) path: &'a Path,
    pub(super) stat: Stat,
}

impl Entry<'_> {
    pub(super) fn unreadable(&self) -> impl FnOnce(std::io::Error) -> ExportError + use<> {
        ExportError::read(self.path)
    }
}

/// What is done with a tree on the way through it.
pub(super) trait Visitor {
    /// Takes an entry; a directory is entered afterwards.
    fn enter(&mut self, entry: &Entry<'_>) -> Result<(), ExportError>;

    /// Takes a directory again, after all that is in it.
    fn leave(&mut self, entry: &Entry<'_>) -> Result<(), ExportError>;
}

/// Walks a tree.
pub(super) fn walk(root: &Dir, visitor: &mut dyn Visitor) -> Result<(), ExportError> {
    let mut walk = Walk::new(root, ()).map_err(ExportError::read(Path::new("")))?;
    let mut path = PathBuf::new();
    loop {
        if let Some(name) = walk.next_name() {
            path.push(&name);
            let stat = walk.here().stat(&name).map_err(ExportError::read(&path))?;
            visitor.enter(&Entry { dir: walk.here(), name: &name, path: &path, stat })?;
            if stat.is_dir() {
                walk.enter(&name, ()).map_err(ExportError::read(&path))?;
            } else {
                path.pop();
            }
            continue;
        }
        let Some((name, ())) = walk.leave().map_err(ExportError::read(&path))? else { return Ok(()) };
        let stat = walk.here().stat(&name).map_err(ExportError::read(&path))?;
        visitor.leave(&Entry { dir: walk.here(), name: &name, path: &path, stat })?;
        path.pop();
    }
}
