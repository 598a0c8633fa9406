//! File actions of LLB on a tree: copy, make files, directories and links, remove.
//!
//! In: an action, the tree it changes, the tree it copies from. Out: the changed tree and what the user should know.
//! Invariants: paths are resolved inside their tree and walked by descriptors, so no link leads out of it; what stands where
//! a file goes is removed, never opened for writing; owners, modes and times are set through the descriptor of what was just
//! made. On disk it leaves exactly what the action says; a failed action leaves a tree to throw away.

pub mod archive;
mod copy;
mod error;
mod make;
mod mode;
mod owner;
mod place;
mod remove;
#[cfg(test)]
mod tests;
mod write;

pub use error::FileOpError;
pub use owner::{Owner, find_owner};

use std::ffi::OsStr;
use std::fs::File;
use std::io;

use crate::checksum::Tree;
use crate::llb::{ChownOpt, FileActionKind};
use crate::sys::dir::Dir;

/// Returns whether a file is an archive that can be unpacked; the position of the file does not matter afterwards.
pub type IsArchive<'a> = dyn Fn(&File) -> io::Result<bool> + 'a;

/// Unpacks an archive into a directory of a tree, named by its path below the root of the tree; links are followed inside the
/// tree. All of it is owned by the owner if there is one. Returns notices for the user.
pub type Unpack<'a> = dyn Fn(&File, &Dir, &OsStr, Option<Owner>) -> Result<Vec<String>, UnpackError> + 'a;

/// Why an archive could not be unpacked.
pub type UnpackError = Box<dyn std::error::Error + Send + Sync>;

/// The trees an action works with.
#[expect(missing_debug_implementations, reason = "functions have nothing to print")]
pub struct Trees<'a> {
    /// What it changes.
    pub dest: &'a Dir,
    /// What it copies from.
    pub source: Option<&'a Tree<'a>>,
    /// The trees whose `/etc/passwd` and `/etc/group` name its owners.
    pub owners: Owners<'a>,
    /// How archives are recognised: [`archive::is_archive`].
    pub is_archive: &'a IsArchive<'a>,
    /// How archives are unpacked: [`archive::unpack`].
    pub unpack: &'a Unpack<'a>,
}

/// Where names of owners are looked up; the two may be different trees.
#[derive(Debug, Clone, Copy, Default)]
pub struct Owners<'a> {
    /// The tree with `/etc/passwd`.
    pub users: Option<&'a Dir>,
    /// The tree with `/etc/group`.
    pub groups: Option<&'a Dir>,
}

impl<'a> Owners<'a> {
    /// Takes one tree for both.
    pub fn of(tree: &'a Dir) -> Self {
        Self { users: Some(tree), groups: Some(tree) }
    }
}

/// Returns the owner that an action names.
pub fn owner_of(action: &FileActionKind) -> Option<&ChownOpt> {
    match action {
        FileActionKind::Copy(action) => action.owner.as_ref(),
        FileActionKind::Mkfile(action) => action.owner.as_ref(),
        FileActionKind::Mkdir(action) => action.owner.as_ref(),
        FileActionKind::Symlink(action) => action.owner.as_ref(),
        FileActionKind::Rm(_) => None,
    }
}

/// Carries out one action; returns notices for the user.
pub fn apply(action: &FileActionKind, trees: &Trees<'_>) -> Result<Vec<String>, FileOpError> {
    let mut notices = Vec::new();
    let owner = find_owner(trees.owners, owner_of(action), &mut notices)?;
    match action {
        FileActionKind::Copy(action) => notices.extend(copy::copy(action, trees, owner)?),
        FileActionKind::Mkfile(action) => make::file(action, trees.dest, owner)?,
        FileActionKind::Mkdir(action) => make::directory(action, trees.dest, owner)?,
        FileActionKind::Symlink(action) => make::symlink(action, trees.dest, owner)?,
        FileActionKind::Rm(action) => remove::remove(action, trees.dest)?,
    }
    Ok(notices)
}

/// Copies what counts of a tree into a directory, as for a mount of a build context.
pub fn materialise(tree: &Tree<'_>, dest: &Dir) -> Result<(), FileOpError> {
    let action = crate::llb::CopyAction {
        src: "/".to_owned(),
        dest: "/".to_owned(),
        mode: -1,
        timestamp: -1,
        dir_copy_contents: true,
        ..Default::default()
    };
    let not_asked = |_: &File| Ok(false);
    let unpack = |_: &File, _: &Dir, _: &OsStr, _| Ok(Vec::new());
    let trees = Trees { dest, source: Some(tree), owners: Owners::default(), is_archive: &not_asked, unpack: &unpack };
    copy::copy(&action, &trees, None).map(drop)
}
