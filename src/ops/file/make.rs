//! The actions that make one thing: a file, a directory, a link.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use super::error::FileOpError;
use super::owner::Owner;
use super::place::{NewDirectory, action_time, clean, display, make_all, real_path, set_time, split};
use crate::llb::{MkdirAction, MkfileAction, SymlinkAction};
use crate::sys::dir::{Dir, Kind, set_time_of};
use crate::sys::file::{chmod_of, chown_of};

/// Makes a directory; one that exists is left as it is.
pub(super) fn directory(action: &MkdirAction, dest: &Dir, owner: Option<Owner>) -> Result<(), FileOpError> {
    let path = real_path(dest, &clean(&action.path))?;
    let new = NewDirectory { mode: action.mode as u32 & 0o777, owner, time: action_time(action.timestamp) };
    if action.make_parents {
        return make_all(dest, &path, &new).map(drop);
    }
    let Some((parent, name)) = split(&path) else { return Ok(()) };
    let failed = |e| FileOpError::write("make directory", &path, e);
    let parent = dest.open_below(OsStr::from_bytes(parent)).map_err(failed)?;
    if parent.try_stat(name).map_err(failed)?.is_some() {
        return Ok(());
    }
    new.make(&parent, name).map_err(failed)?;
    new.time.map_or(Ok(()), |time| set_time(dest, &path, time))
}

/// Makes a file. One that exists is replaced and keeps its mode and owner, as if it were written to; its other names keep
/// their content.
pub(super) fn file(action: &MkfileAction, dest: &Dir, owner: Option<Owner>) -> Result<(), FileOpError> {
    let path = real_path(dest, &clean(&action.path))?;
    let (parent, name) = split(&path).ok_or_else(|| FileOpError::EmptyPath { path: action.path.clone() })?;
    let failed = |e| FileOpError::write("write", &path, e);
    let parent = dest.open_below(OsStr::from_bytes(parent)).map_err(failed)?;
    let (mut mode, mut owner) = (action.mode as u32 & 0o777, owner);
    if let Some(old) = parent.try_stat(name).map_err(failed)? {
        if old.is_dir() {
            return Err(FileOpError::FileOverDirectory { path: display(&path) });
        }
        if old.kind() == Kind::File {
            mode = old.permissions();
            owner = owner.or(Some(Owner { uid: old.uid, gid: old.gid }));
        }
        parent.unlink(name).map_err(failed)?;
    }
    let mut file = parent.create_file(name, 0o600).map_err(failed)?;
    file.write_all(&action.data).map_err(failed)?;
    if let Some(Owner { uid, gid }) = owner {
        chown_of(&file, uid, gid).map_err(failed)?;
    }
    chmod_of(&file, mode).map_err(failed)?;
    action_time(action.timestamp).map_or(Ok(()), |time| set_time_of(&file, time)).map_err(failed)
}

/// Makes a symbolic link where nothing may be yet.
pub(super) fn symlink(action: &SymlinkAction, dest: &Dir, owner: Option<Owner>) -> Result<(), FileOpError> {
    let path = real_path(dest, &clean(&action.newpath))?;
    let (parent, name) = split(&path).ok_or_else(|| FileOpError::EmptyPath { path: action.newpath.clone() })?;
    let failed = |e| FileOpError::write("make link", &path, e);
    let parent = dest.open_below(OsStr::from_bytes(parent)).map_err(failed)?;
    parent.make_symlink(name, OsStr::new(&action.oldpath)).map_err(failed)?;
    if let Some(Owner { uid, gid }) = owner {
        parent.chown(name, uid, gid).map_err(failed)?;
    }
    action_time(action.timestamp).map_or(Ok(()), |time| parent.set_time(name, time)).map_err(failed)
}
