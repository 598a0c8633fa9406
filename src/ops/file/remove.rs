//! The action that removes files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::error::FileOpError;
use super::place::{clean, display, real_path, split};
use crate::checksum::{Ids, Tree};
use crate::llb::RmAction;
use crate::sys::dir::Dir;

/// Removes a path or all that a pattern names. A link is removed itself.
pub(super) fn remove(action: &RmAction, dest: &Dir) -> Result<(), FileOpError> {
    let path = clean(&action.path);
    if action.allow_wildcard {
        let pattern = display(&path);
        if let Some(found) = Tree::new(dest, None, Ids::Keep).glob(&pattern, false)? {
            return found.iter().try_for_each(|entry| remove_one(dest, &entry.path, action));
        }
    }
    remove_one(dest, &path, action)
}

fn remove_one(dest: &Dir, path: &[u8], action: &RmAction) -> Result<(), FileOpError> {
    let (parent, name) = split(path).ok_or_else(|| FileOpError::EmptyPath { path: action.path.clone() })?;
    let parent = real_path(dest, parent)?;
    let failed = |e| FileOpError::write("remove", path, e);
    let missing = || match action.allow_not_found {
        true => Ok(()),
        false => Err(FileOpError::NotFound { path: display(path) }),
    };
    let dir = match dest.open_below(OsStr::from_bytes(&parent)) {
        Ok(dir) => dir,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return missing(),
        Err(error) => return Err(failed(error)),
    };
    if dir.try_stat(name).map_err(failed)?.is_none() {
        return missing();
    }
    dir.remove_all(name).map_err(failed)
}
