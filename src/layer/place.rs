//! Where the members of a tar go: names looked up inside a root, one component at a time.
//!
//! In: names as they stand in a tar. Out: open parent directories. Invariants: no lookup leaves the root, whatever links the
//! tar or the tree below holds; links are followed as if the root were `/`; parents that are missing are made and
//! remembered as implicit.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::entry::{MAX_DEPTH, MAX_NAME, NOTE};
use super::{OPAQUE, OPAQUE_VALUE};
use crate::sys::dir::{Dir, Kind, Stat};

/// As many links as the kernel follows in one lookup.
const MAX_LINKS: u32 = 40;
/// Directories kept open at once; deeper trees open some again.
const MAX_OPEN: usize = 64;
/// Mode of directories the tar does not describe.
const IMPLICIT_MODE: u32 = 0o755;

/// Splits a name into components; an error says what is wrong with it.
pub(crate) fn components(name: &[u8]) -> Result<Vec<&[u8]>, String> {
    if name.contains(&0) {
        return Err("the name contains NUL".into());
    }
    let parts: Vec<_> = name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err("the name contains `..`".into());
    }
    if name.len() as u64 > MAX_NAME || parts.len() as u64 > MAX_DEPTH {
        return Err("the name is too long or too deep".into());
    }
    Ok(parts)
}

/// Joins path and name with a slash, but for the root.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// Mode of a socket that stands for a removed file. No tar holds sockets, so none comes with a layer.
const SOCKET_WHITEOUT: u32 = 0o147_000;

/// Returns whether it stands for a removed file.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    match stat.kind() {
        Kind::CharDevice => stat.rdev == 0,
        Kind::Socket => stat.mode & 0o7777 == SOCKET_WHITEOUT & 0o7777,
        _ => false,
    }
}

/// Makes what stands for the removed file `name`: overlay's device where it can be made, else a socket, which only copies of layers
/// understand. An overlay takes no such device itself, and the file system of a container is one.
pub(crate) fn make_whiteout(parent: &Dir, name: &OsStr) -> io::Result<()> {
    match make_device_whiteout(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => parent.make_node(name, SOCKET_WHITEOUT, 0),
        result => result,
    }
}

/// Makes the device that stands for the removed file `name` in overlay's form.
pub(crate) fn make_device_whiteout(parent: &Dir, name: &OsStr) -> io::Result<()> {
    parent.make_node(name, 0o020_000, 0)
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its name in the tar.
    name: Vec<u8>,
    /// Its path from the root, without links.
    pub path: Vec<u8>,
    pub dir: Dir,
}

/// Looks names up and keeps the last directories open: neighbours in a tar are neighbours in the tree.
#[derive(Debug)]
pub(crate) struct Places {
    root: Place,
    open: Vec<Place>,
    implicit: BTreeSet<Vec<u8>>,
    /// What all that were ever in it took.
    implicit_bytes: u64,
}

enum Step {
    Enter(Dir),
    Made(Dir),
    Follow(Vec<u8>),
}

impl Places {
    pub(crate) fn new(root: Dir) -> Self {
        let root = Place { name: Vec::new(), path: Vec::new(), dir: root };
        Self { root, open: Vec::new(), implicit: BTreeSet::new(), implicit_bytes: 0 }
    }

    pub(crate) fn root(&self) -> &Dir {
        &self.root.dir
    }

    /// Returns how much memory remembering the directories takes that were made without being described.
    pub(crate) fn implicit_bytes(&self) -> u64 {
        self.implicit_bytes
    }

    /// Returns the directories that were made without being described, as paths without links.
    pub(crate) fn into_implicit(self) -> BTreeSet<Vec<u8>> {
        self.implicit
    }

    /// Notes that the tar describes the directory at `path` after all.
    pub(crate) fn described(&mut self, path: &[u8]) {
        self.implicit.remove(path);
    }

    /// Closes all directories; needed whenever something is removed that a lookup may have passed.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
    }

    /// Opens the directory of these components, making what is missing.
    pub(crate) fn open(&mut self, components: &[&[u8]]) -> io::Result<&Place> {
        let mut known = self.keep_prefix(components);
        for part in &components[known..] {
            let top = self.open.last().unwrap_or(&self.root);
            let name = join(&top.name, part);
            let (path, dir) = match top.dir.open_dir(OsStr::from_bytes(part)) {
                Ok(dir) => (join(&top.path, part), dir),
                Err(_) => {
                    let start = top.path.clone();
                    self.walk(&start, part)?
                }
            };
            self.push(Place { name, path, dir });
            known += 1;
        }
        debug_assert_eq!(known, components.len());
        Ok(self.open.last().unwrap_or(&self.root))
    }

    /// Opens the directory at `path`, which holds no link, or returns none if there is none any more.
    pub(crate) fn existing(&mut self, path: &[u8]) -> Option<&Dir> {
        let parts = components(path).ok()?;
        for part in &parts[self.keep_prefix(&parts)..] {
            let top = self.open.last().unwrap_or(&self.root);
            let dir = top.dir.open_dir(OsStr::from_bytes(part)).ok()?;
            let (name, path) = (join(&top.name, part), join(&top.path, part));
            self.push(Place { name, path, dir });
        }
        Some(&self.open.last().unwrap_or(&self.root).dir)
    }

    /// Closes directories that are not on the way and returns how many components need no lookup.
    fn keep_prefix(&mut self, components: &[&[u8]]) -> usize {
        let wanted = components.join(&b'/');
        while let Some(top) = self.open.last() {
            let rest = wanted.strip_prefix(&top.name[..]);
            if rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/') {
                return top.name.split(|byte| *byte == b'/').count();
            }
            self.open.pop();
        }
        0
    }

    fn push(&mut self, place: Place) {
        if self.open.len() == MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push(place);
    }

    /// Looks up one component that is missing or a link, following links from `start` on as if the root were `/`.
    fn walk(&mut self, start: &[u8], part: &[u8]) -> io::Result<(Vec<u8>, Dir)> {
        let mut way: Vec<(Vec<u8>, Dir)> = Vec::new();
        for part in start.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            let dir = way.last().map_or(&self.root.dir, |(_, dir)| dir).open_dir(OsStr::from_bytes(part))?;
            way.push((part.to_vec(), dir));
        }
        let mut todo = VecDeque::from([part.to_vec()]);
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            if part == b".." {
                way.pop();
                continue;
            }
            let here = way.last().map_or(&self.root.dir, |(_, dir)| dir);
            match step(here, OsStr::from_bytes(&part))? {
                Step::Enter(dir) => way.push((part, dir)),
                Step::Made(dir) => {
                    way.push((part, dir));
                    let path = path_of(&way);
                    self.implicit_bytes += NOTE + path.len() as u64;
                    self.implicit.insert(path);
                }
                Step::Follow(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(io::Error::other("too many symbolic links"));
                    }
                    if target.starts_with(b"/") {
                        way.clear();
                    }
                    for part in target.split(|byte| *byte == b'/').rev().filter(|part| !matches!(*part, b"" | b".")) {
                        todo.push_front(part.to_vec());
                    }
                }
            }
        }
        let path = path_of(&way);
        let dir = way.pop().map_or_else(|| self.root.dir.reopen(), |(_, dir)| Ok(dir))?;
        Ok((path, dir))
    }
}

fn path_of(way: &[(Vec<u8>, Dir)]) -> Vec<u8> {
    way.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>().join(&b'/')
}

fn step(here: &Dir, name: &OsStr) -> io::Result<Step> {
    match here.try_stat(name)? {
        None => make(here, name).map(Step::Made),
        Some(stat) if stat.is_dir() => here.open_dir(name).map(Step::Enter),
        Some(stat) if stat.kind() == Kind::Symlink => Ok(Step::Follow(here.read_link(name)?.into_vec())),
        // The same layer removed the name before: what was there stays hidden.
        Some(stat) if is_whiteout(&stat) => {
            here.unlink(name)?;
            let dir = make(here, name)?;
            here.set_xattr(name, OsStr::new(OPAQUE), OPAQUE_VALUE)?;
            Ok(Step::Made(dir))
        }
        Some(_) => Err(io::ErrorKind::NotADirectory.into()),
    }
}

fn make(here: &Dir, name: &OsStr) -> io::Result<Dir> {
    here.make_dir(name, IMPLICIT_MODE)?;
    let dir = here.open_dir(name)?;
    crate::sys::dir::chmod_of(&dir, IMPLICIT_MODE)?;
    Ok(dir)
}
