//! The state root: made private, and refused where others could have prepared it.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::StoreError;
use crate::sys::dir::{self, Dir, Stat};
use crate::sys::{effective_gid, effective_uid};

/// Opens the root, making it and its parents; it ends up with mode 0700.
pub(super) fn open(path: &Path) -> Result<Dir, StoreError> {
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    make(path).map_err(failed)?;
    let (parent, name) = split(path).map_err(failed)?;
    let refuse = |reason: &str| StoreError::Unsafe { path: path.to_owned(), reason: reason.to_owned() };
    if others_may_replace(&parent.stat_self().map_err(failed)?) {
        return Err(refuse("its parent folder can be written by other users"));
    }
    if !parent.stat(&name).map_err(failed)?.is_dir() {
        return Err(refuse("it is a symbolic link or a file"));
    }
    let root = parent.open_dir(&name).map_err(failed)?;
    let stat = root.stat_self().map_err(failed)?;
    if stat.uid != effective_uid() {
        return Err(refuse("it belongs to another user"));
    }
    if stat.permissions() & 0o777 != 0o700 {
        dir::chmod_of(&root, 0o700).map_err(failed)?;
    }
    Ok(root)
}

fn make(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn split(path: &Path) -> io::Result<(Dir, std::ffi::OsString)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    Ok((Dir::open(parent)?, name.to_owned()))
}

/// With the sticky bit only owners rename; a group of one's own (umask 002 systems) has no other members.
fn others_may_replace(parent: &Stat) -> bool {
    let mode = parent.permissions();
    let group = mode & 0o020 != 0 && parent.gid != effective_gid();
    mode & 0o1000 == 0 && (mode & 0o002 != 0 || group)
}
