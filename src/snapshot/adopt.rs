//! Fits a layer that was unpacked on its own on top of the layers below it.
//!
//! In: the unpacked layer, the tree below. Out: the layer as if it had been unpacked into that tree: directories the tar does not describe
//! look as they do below; where they are links there, their content goes where the links lead, inside the root; hard links
//! to files below get a copy of these. Invariant: only the unpacked folder is written to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::work::Work;
use super::{Chain, LayerInfo, SnapshotError};
use crate::digest::DiffId;
use crate::layer::apply::Applied;
use crate::layer::copy::{self, directory_metadata, is_opaque};
use crate::layer::place::{is_whiteout, join};
use crate::layer::{BlobInfo, OPAQUE, OPAQUE_VALUE};
use crate::sys::dir::{self, Dir, Kind};
use crate::sys::walk::{Descent, Walk};

/// As many links as the kernel follows in one lookup.
const MAX_LINKS: u32 = 40;
const ROOT_MODE: u32 = 0o755;

/// A layer unpacked on its own; dropped, it leaves nothing.
#[derive(Debug)]
pub struct Unpacked {
    pub(super) work: Work,
    pub(super) fs: Dir,
    pub(super) applied: Applied,
    pub(super) diff_id: DiffId,
    pub(super) tar_size: u64,
}

impl Unpacked {
    /// Returns the digest of the tar.
    pub fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }

    /// Returns the size of the tar in bytes.
    pub fn tar_size(&self) -> u64 {
        self.tar_size
    }

    /// Returns what unpacking could not do: squashed owners, device files left out.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    pub(super) fn needs_lower(&self) -> bool {
        !self.applied.implicit.is_empty() || !self.applied.links.is_empty() || self.applied.hides
    }
}

/// Where an unpacked layer is from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The blob it was unpacked from.
    pub blob: Option<BlobInfo>,
    /// When it was made, as the image's history says.
    pub created: Option<String>,
    /// What made it.
    pub description: String,
}

impl Origin {
    pub(super) fn info(&self, parent: &Chain, diff_id: &DiffId) -> LayerInfo {
        LayerInfo {
            parent: parent.clone(),
            diff_id: Some(diff_id.clone()),
            created: self.created.clone(),
            description: self.description.clone(),
            ..LayerInfo::default()
        }
    }
}

/// Gives the root of an empty tree owner and permissions.
pub(super) fn default_root(root: &Dir) -> io::Result<()> {
    dir::chown_of(root, 0, 0)?;
    dir::chmod_of(root, ROOT_MODE)
}

/// Fits `unpacked` on the tree `lower`, or on nothing.
pub(super) fn fit(unpacked: &mut Unpacked, lower: Option<&Dir>) -> Result<(), SnapshotError> {
    let mut fitting = Fitting {
        fs: &unpacked.fs,
        lower,
        implicit: std::mem::take(&mut unpacked.applied.implicit),
        links: std::mem::take(&mut unpacked.applied.links),
        copies: BTreeMap::new(),
    };
    fitting.directories()?;
    for (path, target) in std::mem::take(&mut fitting.links) {
        fitting.link(&path, &target).map_err(|source| adopt_error(&path, source))?;
    }
    fitting.directories()
}

fn adopt_error(path: &[u8], source: io::Error) -> SnapshotError {
    SnapshotError::Adopt { path: String::from_utf8_lossy(path).into_owned(), source }
}

struct Fitting<'a> {
    fs: &'a Dir,
    lower: Option<&'a Dir>,
    implicit: BTreeSet<Vec<u8>>,
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where files from below were copied to.
    copies: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Fitting<'_> {
    fn directories(&mut self) -> Result<(), SnapshotError> {
        while let Some(path) = self.implicit.pop_first() {
            self.directory(&path).map_err(|source| adopt_error(&path, source))?;
        }
        Ok(())
    }

    fn directory(&mut self, path: &[u8]) -> io::Result<()> {
        let Some(lower) = self.lower else {
            return if path.is_empty() { default_root(self.fs) } else { Ok(()) };
        };
        if path.is_empty() {
            return directory_metadata(lower, self.fs);
        }
        // Something else may have taken its place later in the tar.
        let Some(own) = open_plain(self.fs, path)? else { return Ok(()) };
        let (parent, name) = split(path);
        let Some(below) = open_plain(lower, parent)? else { return Ok(()) };
        match below.try_stat(OsStr::from_bytes(name))? {
            None => Ok(()),
            Some(stat) if stat.is_dir() => directory_metadata(&below.open_dir(OsStr::from_bytes(name))?, &own),
            Some(_) if is_opaque(&own)? => Ok(()),
            Some(stat) if stat.kind() == Kind::Symlink => {
                let target = real_path(lower, path)?;
                self.relocate(path, &own, &target)
            }
            Some(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Moves the content of the directory at `path` to `target`.
    fn relocate(&mut self, path: &[u8], own: &Dir, target: &[u8]) -> io::Result<()> {
        let inside = target.starts_with(path) && target.get(path.len()).is_none_or(|byte| *byte == b'/');
        if inside {
            return Err(io::Error::other("a link to itself"));
        }
        let to = self.make(target)?;
        merge(own, &to)?;
        let (parent, name) = split(path);
        if let Some(parent) = open_plain(self.fs, parent)? {
            let time = parent.stat_self()?.mtime;
            parent.remove_all(OsStr::from_bytes(name))?;
            dir::set_time_of(&parent, time)?;
        }
        let moved = |old: &[u8]| match old.strip_prefix(path) {
            Some(rest) if rest.starts_with(b"/") => [target, rest].concat(),
            _ => old.to_vec(),
        };
        self.implicit = self.implicit.iter().map(|path| moved(path)).collect();
        self.links = std::mem::take(&mut self.links).into_iter().map(|(path, to)| (moved(&path), to)).collect();
        Ok(())
    }

    /// Opens the directory at `path` of the layer, making it and its parents, which then are implicit.
    fn make(&mut self, path: &[u8]) -> io::Result<Dir> {
        let mut dir = self.fs.reopen()?;
        let mut done = Vec::new();
        for part in parts(path) {
            done = join(&done, part);
            let name = OsStr::from_bytes(part);
            if dir.try_stat(name)?.is_none() {
                dir.make_dir(name, ROOT_MODE)?;
                self.implicit.insert(done.clone());
            }
            dir = dir.open_dir(name)?;
        }
        Ok(dir)
    }

    /// Makes a hard link to a file below, which is copied up for it: to where it is, if this layer shows it there.
    fn link(&mut self, path: &[u8], target: &[u8]) -> io::Result<()> {
        // Whatever came in the link's place later, it could not have been made without its target.
        let (parent, name) = self.below(target)?;
        let (place, leaf) = split(path);
        let leaf = OsStr::from_bytes(leaf);
        // The layer may have put something else there, or in place of a directory on the way, after the link.
        let Some(place) = open_plain(self.fs, place)? else { return Ok(()) };
        match place.try_stat(leaf)? {
            Some(stat) if !is_whiteout(&stat) => Ok(()),
            there => keeping_time(&place, || {
                there.map_or(Ok(()), |_| place.unlink(leaf))?;
                self.link_at((&place, leaf), path, (&parent, name))
            }),
        }
    }

    /// Returns the directory without links, and the name, of what may be linked to below.
    fn below<'t>(&self, target: &'t [u8]) -> io::Result<(Vec<u8>, &'t OsStr)> {
        let lower = self.lower.ok_or_else(|| missing(target))?;
        let (parent, name) = split(target);
        let (parent, name) = (real_path(lower, parent)?, OsStr::from_bytes(name));
        let dir = open_plain(lower, &parent)?.ok_or_else(|| missing(target))?;
        if dir.try_stat(name)?.ok_or_else(|| missing(target))?.is_dir() {
            return Err(io::Error::other("a hard link to a directory"));
        }
        Ok((parent, name))
    }

    fn link_at(&mut self, place: (&Dir, &OsStr), path: &[u8], target: (&[u8], &OsStr)) -> io::Result<()> {
        let (parent, name) = target;
        let lower = self.lower.ok_or(io::ErrorKind::NotFound)?;
        let below = open_plain(lower, parent)?.ok_or(io::ErrorKind::NotFound)?;
        let real = join(parent, name.as_bytes());
        if !self.copies.contains_key(&real) && self.shows(parent, name)? {
            let to = self.make(parent)?;
            keeping_time(&to, || copy::file(&below, name, &to, name))?;
            self.copies.insert(real.clone(), real.clone());
        }
        let Some(copy) = self.copies.get(&real) else {
            self.copies.insert(real, path.to_vec());
            return copy::file(&below, name, place.0, place.1);
        };
        let (parent, name) = split(copy);
        let from = open_plain(self.fs, parent)?.ok_or(io::ErrorKind::NotFound)?;
        place.0.make_link(place.1, &from, OsStr::from_bytes(name))
    }

    /// Returns whether the file `name` below stays to be seen through this layer, which has nothing of its own in its place.
    fn shows(&self, parent: &[u8], name: &OsStr) -> io::Result<bool> {
        let mut dir = self.fs.reopen()?;
        for part in parts(parent) {
            let part = OsStr::from_bytes(part);
            match dir.try_stat(part)? {
                _ if is_opaque(&dir)? => return Ok(false),
                None => return Ok(true),
                Some(stat) if stat.is_dir() => dir = dir.open_dir(part)?,
                Some(_) => return Ok(false),
            }
        }
        Ok(!is_opaque(&dir)? && dir.try_stat(name)?.is_none())
    }
}

/// Does something that changes the time of a directory, and sets it back.
fn keeping_time(dir: &Dir, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let time = dir.stat_self()?.mtime;
    change()?;
    dir::set_time_of(dir, time)
}

fn missing(target: &[u8]) -> io::Error {
    let text = format!("the target {:?} of a hard link is not there", String::from_utf8_lossy(target));
    io::Error::new(io::ErrorKind::NotFound, text)
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Opens a directory by a path without links; none if it is not there or is something else.
fn open_plain(root: &Dir, path: &[u8]) -> io::Result<Option<Dir>> {
    let mut dir = root.reopen()?;
    for part in parts(path) {
        let name = OsStr::from_bytes(part);
        match dir.try_stat(name)? {
            Some(stat) if stat.is_dir() => dir = dir.open_dir(name)?,
            _ => return Ok(None),
        }
    }
    Ok(Some(dir))
}

/// Follows all links in `path` as if `root` were `/`; what is not there is taken as it is written.
fn real_path(root: &Dir, path: &[u8]) -> io::Result<Vec<u8>> {
    let mut real: Vec<Vec<u8>> = Vec::new();
    let mut todo: VecDeque<Vec<u8>> = parts(path).map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(part) = todo.pop_front() {
        if part == b".." {
            real.pop();
            continue;
        }
        let here = open_plain(root, &real.join(&b'/'))?;
        let name = OsStr::from_bytes(&part);
        let stat = here.as_ref().map_or(Ok(None), |here| here.try_stat(name))?;
        let (Some(here), true) = (here, stat.is_some_and(|stat| stat.kind() == Kind::Symlink)) else {
            real.push(part);
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::other("too many symbolic links"));
        }
        let target = here.read_link(name)?.into_vec();
        if target.starts_with(b"/") {
            real.clear();
        }
        for part in parts(&target).rev() {
            todo.push_front(part.to_vec());
        }
    }
    Ok(real.join(&b'/'))
}

/// Moves all in `from` to `to`; directories that are in both are merged, of other things the moved ones win.
fn merge(from: &Dir, to: &Dir) -> io::Result<()> {
    let (mut from, mut to) = (Walk::new(from, ())?, Descent::new(to));
    merge_opaque(from.here(), to.here())?;
    loop {
        let Some(name) = from.next_name() else {
            to.leave()?;
            if from.leave()?.is_none() {
                return Ok(());
            }
            continue;
        };
        let (moved, there) = (from.here().stat(&name)?, to.here().try_stat(&name)?);
        if moved.is_dir() && there.is_some_and(|there| there.is_dir()) {
            from.enter(&name, ())?;
            to.enter(&name)?;
            merge_opaque(from.here(), to.here())?;
            continue;
        }
        to.here().remove_all(&name)?;
        from.here().rename(&name, to.here(), &name)?;
    }
}

fn merge_opaque(from: &Dir, to: &Dir) -> io::Result<()> {
    if is_opaque(from)? {
        dir::set_xattr_of(to, OsStr::new(OPAQUE), OPAQUE_VALUE)?;
    }
    Ok(())
}
