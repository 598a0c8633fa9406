//! Places in the tree an action changes.
//!
//! In: paths as instructions have them. Out: paths without links, below the root, and directories made on the way.
//! Invariant: a path from [`real_path`] is only ever opened such that the kernel refuses a link in it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use super::error::FileOpError;
use super::owner::Owner;
use crate::sys::dir::{Dir, Stat, Time};
use crate::sys::file::{chmod_of, chown_of};

/// Links followed before giving up.
const MAX_LINKS: u32 = 255;

/// Returns a path below the root as shown to the user.
pub(super) fn display(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path).trim_start_matches('/'))
}

/// Splits a path into components, `.` and empty ones left out, `..` taken by name and never above the root.
pub(super) fn clean(path: &str) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in parts(path.as_bytes()) {
        match part {
            b".." => _ = kept.pop(),
            name => kept.push(name),
        }
    }
    kept.join(&b'/')
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// Splits a path without links into the directory and the name; none for the root.
pub(super) fn split(path: &[u8]) -> Option<(&[u8], &OsStr)> {
    if path.is_empty() {
        return None;
    }
    let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    Some((parent, OsStr::from_bytes(name)))
}

/// Returns `name` in `directory`.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// Returns the metadata of a path without links; none if nothing is there.
pub(super) fn stat(root: &Dir, path: &[u8]) -> io::Result<Option<Stat>> {
    let Some((parent, name)) = split(path) else { return root.stat_self().map(Some) };
    match root.open_below(OsStr::from_bytes(parent)) {
        Ok(dir) => dir.try_stat(name),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Resolves a path inside the tree, links followed also in its last component; what does not exist is taken by name.
pub(super) fn real_path(root: &Dir, path: &[u8]) -> Result<Vec<u8>, FileOpError> {
    let failed = |source| FileOpError::write("resolve", path, source);
    let mut current: Vec<Vec<u8>> = Vec::new();
    let mut rest: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == b".." {
            current.pop();
            continue;
        }
        let parent = current.join(&b'/');
        let name = OsStr::from_bytes(&part).to_owned();
        current.push(part);
        let Some(dir) = existing(root, &parent).map_err(failed)? else { continue };
        let Ok(target) = dir.read_link(&name) else { continue };
        links += 1;
        if links > MAX_LINKS {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "too many links")));
        }
        current.pop();
        if target.as_bytes().starts_with(b"/") {
            current.clear();
        }
        rest.extend(parts(target.as_bytes()).rev().map(<[u8]>::to_vec));
    }
    Ok(current.join(&b'/'))
}

fn existing(root: &Dir, path: &[u8]) -> io::Result<Option<Dir>> {
    match root.open_below(OsStr::from_bytes(path)) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How a directory that is made on the way looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewDirectory {
    pub(super) mode: u32,
    pub(super) owner: Option<Owner>,
    pub(super) time: Option<Time>,
}

impl NewDirectory {
    /// Makes `name` in `parent`, whatever the process's file creation mask is.
    pub(super) fn make(&self, parent: &Dir, name: &OsStr) -> io::Result<Dir> {
        parent.make_dir(name, 0o700)?;
        let dir = parent.open_dir(name)?;
        if let Some(Owner { uid, gid }) = self.owner {
            chown_of(&dir, uid, gid)?;
        }
        chmod_of(&dir, self.mode & 0o777)?;
        Ok(dir)
    }
}

/// Makes all directories of a path without links that are missing; returns the paths of those made, outermost first.
pub(super) fn make_all(root: &Dir, path: &[u8], new: &NewDirectory) -> Result<Vec<Vec<u8>>, FileOpError> {
    let mut made = Vec::new();
    if existing(root, path).map_err(|e| FileOpError::write("open", path, e))?.is_some() {
        return Ok(made);
    }
    let mut at: Vec<u8> = Vec::new();
    let mut dir = root.reopen().map_err(|e| FileOpError::write("open", b"", e))?;
    for part in parts(path) {
        at = join(&at, part);
        let name = OsStr::from_bytes(part);
        let failed = |e| FileOpError::write("make directory", &at, e);
        dir = match dir.try_stat(name).map_err(failed)? {
            Some(stat) if stat.is_dir() => dir.open_dir(name).map_err(failed)?,
            Some(_) => return Err(FileOpError::DirectoryOverFile { path: display(&at) }),
            None => {
                made.push(at.clone());
                new.make(&dir, name).map_err(failed)?
            }
        };
    }
    set_times(root, &made, new.time)?;
    Ok(made)
}

/// Sets the time of directories, innermost first; nothing if there is no time to set.
pub(super) fn set_times(root: &Dir, paths: &[Vec<u8>], time: Option<Time>) -> Result<(), FileOpError> {
    let Some(time) = time else { return Ok(()) };
    for path in paths.iter().rev() {
        set_time(root, path, time)?;
    }
    Ok(())
}

/// Sets the time of a directory.
pub(super) fn set_time(root: &Dir, path: &[u8], time: Time) -> Result<(), FileOpError> {
    let dir = root.open_below(OsStr::from_bytes(path));
    let set = dir.and_then(|dir| crate::sys::dir::set_time_of(&dir, time));
    set.map_err(|e| FileOpError::write("set the time of", path, e))
}

/// Returns the time an action gives to what it makes; none for the time it already has.
pub(super) fn action_time(nanoseconds: i64) -> Option<Time> {
    const SECOND: i64 = 1_000_000_000;
    let seconds = nanoseconds.div_euclid(SECOND);
    (nanoseconds != -1).then(|| Time { seconds, nanoseconds: nanoseconds.rem_euclid(SECOND) as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        for (path, expected) in
            [("..", ""), ("/..", ""), ("a/..", ""), ("a/../..", ""), ("../x", "x"), ("//a/./b/", "a/b")]
        {
            assert_eq!(clean(path), expected.as_bytes(), "{path}");
        }
    }

    #[test]
    fn links_are_resolved_inside_the_tree() {
        let temp = tempfile::tempdir().expect("temp dir");
        let root = Dir::open(temp.path()).expect("open");
        std::fs::create_dir_all(temp.path().join("a/b")).expect("mkdir");
        for (name, target) in
            [("up", "../../.."), ("abs", "/a"), ("dangling", "a/none/x"), ("loop", "loop"), ("a/back", "../a/b")]
        {
            std::os::unix::fs::symlink(target, temp.path().join(name)).expect("symlink");
        }
        let real = |path: &str| real_path(&root, path.as_bytes()).map(|p| String::from_utf8(p).expect("text"));
        assert_eq!(real("up/a").expect("resolve"), "a");
        assert_eq!(real("abs/b/f").expect("resolve"), "a/b/f");
        assert_eq!(real("dangling/y").expect("resolve"), "a/none/x/y");
        assert_eq!(real("a/back/../new").expect("resolve"), "a/new");
        assert!(real("loop").is_err());
    }

    #[test]
    fn times_before_1970_are_times() {
        assert_eq!(action_time(-1), None);
        assert_eq!(action_time(1_500_000_000), Some(Time { seconds: 1, nanoseconds: 500_000_000 }));
        assert_eq!(action_time(-1_500_000_000), Some(Time { seconds: -2, nanoseconds: 500_000_000 }));
    }
}
