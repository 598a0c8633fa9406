//! Writes copies: files, links and nodes of one directory at a time, on all cores.
//!
//! In: entries of the source and where they go. Out: the copies with owner, mode, attributes and times. Invariant: a copy is
//! made under a new inode and everything about it is set through its descriptor or its own name, no link followed; a file
//! that is not what was hashed fails the copy.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::ffi::OsStrExt;

use super::error::FileOpError;
use super::mode::ModeChange;
use super::owner::Owner;
use super::place::{display, split};
use crate::checksum::{ChecksumError, Entry, spread};
use crate::sys::dir::{Dir, Kind, Time, set_time_of, stat_of};
use crate::sys::file::{chmod_of, chown_of, copy_data, set_xattr_of, xattrs_of};

/// The trees a copy goes between.
#[derive(Clone, Copy)]
pub(super) struct Roots<'a> {
    pub(super) source: &'a Dir,
    pub(super) dest: &'a Dir,
}

/// What copies look like where they differ from the source.
pub(super) struct Looks {
    pub(super) owner: Option<Owner>,
    pub(super) mode: Mode,
    pub(super) time: Option<Time>,
}

/// The mode of copies.
pub(super) enum Mode {
    Keep,
    Set(u32),
    Change(ModeChange),
}

/// What becomes of a directory that is there already where a directory is copied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// Nothing: it is where the copy goes.
    Keep,
    /// It gets the source's mode and keeps its owner: it is only passed through on the way to what patterns choose.
    Chmod,
    /// It looks like the source: it is copied itself.
    Dress,
}

impl Looks {
    fn owner_of(&self, entry: &Entry) -> (u32, u32) {
        self.owner.map_or((entry.stat.uid, entry.stat.gid), |owner| (owner.uid, owner.gid))
    }

    fn mode_of(&self, entry: &Entry) -> u32 {
        match &self.mode {
            Mode::Keep => entry.stat.permissions(),
            Mode::Set(mode) => *mode,
            Mode::Change(change) => change.apply(entry.stat.permissions(), entry.stat.is_dir()),
        }
    }

    pub(super) fn time_of(&self, entry: &Entry) -> Time {
        self.time.unwrap_or(entry.stat.mtime)
    }

    /// Directories that no source directory stands for.
    pub(super) fn new_directory_mode(&self) -> u32 {
        match self.mode {
            Mode::Set(mode) => mode,
            _ => 0o755,
        }
    }

    /// Makes the copy of a directory unless there is one; returns whether it was made.
    pub(super) fn make_directory(
        &self,
        roots: Roots<'_>,
        entry: &Entry,
        target: &[u8],
        there: Existing,
    ) -> Result<bool, FileOpError> {
        let failed = |e| FileOpError::write("make directory", target, e);
        let Some((parent, name)) = split(target) else { return Ok(false) };
        let parent = roots.dest.open_below(OsStr::from_bytes(parent)).map_err(failed)?;
        let made = match parent.try_stat(name).map_err(failed)? {
            None => parent.make_dir(name, 0o700).map(|()| true).map_err(failed)?,
            Some(stat) if stat.is_dir() => false,
            Some(_) => return Err(FileOpError::DirectoryOverFile { path: display(target) }),
        };
        if !made && there == Existing::Chmod {
            parent.chmod(name, entry.stat.permissions()).map_err(failed)?;
        }
        if made || there == Existing::Dress {
            let from = roots.source.open_below(OsStr::from_bytes(&entry.path)).map_err(|e| read_error(entry, e))?;
            let xattrs = xattrs_of(&from).map_err(|e| read_error(entry, e))?;
            let to = parent.open_dir(name).map_err(failed)?;
            self.dress(&to, entry, &xattrs).map_err(failed)?;
        }
        Ok(made)
    }

    /// Sets all but the time; the mode after the owner, which takes set-id bits away.
    fn dress(&self, to: impl std::os::fd::AsFd, entry: &Entry, xattrs: &[Xattr]) -> io::Result<()> {
        let (uid, gid) = self.owner_of(entry);
        chown_of(&to, uid, gid)?;
        chmod_of(&to, self.mode_of(entry))?;
        for (name, value) in xattrs.iter().filter(|(name, _)| is_copied(name.as_bytes())) {
            // A file system that cannot keep an attribute is no reason to fail, as in BuildKit.
            let _ = set_xattr_of(&to, name, value);
        }
        Ok(())
    }
}

type Xattr = (std::ffi::OsString, Vec<u8>);

/// Labels of this machine and of overlay are no content.
fn is_copied(name: &[u8]) -> bool {
    let hidden: [&[u8]; 3] = [b"security.", b"trusted.", b"user.overlay."];
    name == b"security.capability" || !hidden.iter().any(|prefix| name.starts_with(prefix))
}

/// Files of one directory, or one file.
pub(super) struct Batch {
    parent: Option<usize>,
    items: Vec<(Entry, Vec<u8>)>,
    bytes: u64,
}

impl Batch {
    pub(super) fn new(parent: Option<usize>, entry: Entry, target: Vec<u8>) -> Self {
        let mut batch = Self { parent, items: Vec::new(), bytes: 0 };
        batch.push(entry, target);
        batch
    }

    pub(super) fn takes(&self, parent: Option<usize>) -> bool {
        self.parent == parent && self.items.len() < 64 && self.bytes < 8 << 20
    }

    pub(super) fn push(&mut self, entry: Entry, target: Vec<u8>) {
        self.bytes += entry.stat.size;
        self.items.push((entry, target));
    }
}

/// Writes all batches; if several fail, the error is that of the first.
pub(super) fn flush(roots: Roots<'_>, looks: &Looks, batches: &[Batch]) -> Result<(), FileOpError> {
    spread(batches, |batch| write_batch(roots, looks, batch)).into_iter().collect()
}

fn write_batch(roots: Roots<'_>, looks: &Looks, batch: &Batch) -> Result<(), FileOpError> {
    let Some((first, first_target)) = batch.items.first() else { return Ok(()) };
    let from_path = split(&first.path).map_or(&b""[..], |(parent, _)| parent);
    let to_path = split(first_target).map_or(&b""[..], |(parent, _)| parent);
    let from = roots.source.open_below(OsStr::from_bytes(from_path)).map_err(|e| read_error(first, e))?;
    let to = roots.dest.open_below(OsStr::from_bytes(to_path)).map_err(|e| FileOpError::write("open", to_path, e))?;
    batch.items.iter().try_for_each(|(entry, target)| Copy { from: &from, to: &to, looks, entry, target }.write())
}

struct Copy<'a> {
    from: &'a Dir,
    to: &'a Dir,
    looks: &'a Looks,
    entry: &'a Entry,
    target: &'a [u8],
}

impl Copy<'_> {
    fn write(&self) -> Result<(), FileOpError> {
        let stat = &self.entry.stat;
        match stat.kind() {
            Kind::File => return self.file(),
            Kind::Symlink => {
                let link = self.entry.link.as_deref().unwrap_or_default();
                self.make(|name| self.to.make_symlink(name, link))?;
            }
            // A socket is a name without its process: BuildKit copies it as an empty file.
            Kind::Socket => drop(self.make(|name| self.to.create_file(name, 0o600))?),
            _ => self.make(|name| self.to.make_node(name, stat.mode, stat.rdev))?,
        }
        self.dress_by_name().map_err(|e| self.failed(e))
    }

    fn file(&self) -> Result<(), FileOpError> {
        let read = |e| read_error(self.entry, e);
        let from = self.from.open_file(self.source_name()).map_err(read)?;
        let to = self.make(|name| self.to.create_file(name, 0o600))?;
        if self.is_as_hashed(&from)? {
            copy_data(&from, &to).map_err(|e| self.failed(e))?;
        }
        if !self.is_as_hashed(&from)? {
            to.set_len(0).map_err(|e| self.failed(e))?;
            self.start(&from, &to)?;
        }
        let xattrs = xattrs_of(&from).map_err(read)?;
        self.looks.dress(&to, self.entry, &xattrs).map_err(|e| self.failed(e))?;
        set_time_of(&to, self.looks.time_of(self.entry)).map_err(|e| self.failed(e))
    }

    fn is_as_hashed(&self, from: &File) -> Result<bool, FileOpError> {
        let now = stat_of(from).map_err(|e| read_error(self.entry, e))?;
        Ok(now.kind() == Kind::File && self.entry.unchanged(&now))
    }

    /// Copies what was hashed of a file that has only grown since, such as the log of this very build.
    fn start(&self, mut from: &File, to: &File) -> Result<(), FileOpError> {
        let copied = from.rewind().and_then(|()| self.entry.copy_start(from, to));
        match copied.map_err(|e| self.failed(e))? {
            true => Ok(()),
            false => Err(ChecksumError::Changed { path: display(&self.entry.path) }.into()),
        }
    }

    /// Makes the copy; what is there already is unlinked, never opened.
    fn make<T>(&self, make: impl Fn(&OsStr) -> io::Result<T>) -> Result<T, FileOpError> {
        let name = self.target_name();
        match make(name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                make_room(self.to, name, self.target)?;
                make(name).map_err(|e| self.failed(e))
            }
            result => result.map_err(|e| self.failed(e)),
        }
    }

    fn dress_by_name(&self) -> io::Result<()> {
        let name = self.target_name();
        let (uid, gid) = self.looks.owner_of(self.entry);
        self.to.chown(name, uid, gid)?;
        if self.entry.stat.kind() != Kind::Symlink {
            self.to.chmod(name, self.looks.mode_of(self.entry))?;
        }
        for (key, value) in self.from.xattrs(self.source_name())?.iter().filter(|(key, _)| is_copied(key.as_bytes())) {
            // As for files: an attribute that cannot be kept is left out.
            let _ = self.to.set_xattr(name, key, value);
        }
        self.to.set_time(name, self.looks.time_of(self.entry))
    }

    fn source_name(&self) -> &OsStr {
        OsStr::from_bytes(self.entry.name())
    }

    fn target_name(&self) -> &OsStr {
        split(self.target).map_or(OsStr::new(""), |(_, name)| name)
    }

    fn failed(&self, source: io::Error) -> FileOpError {
        FileOpError::write("write", self.target, source)
    }
}

fn make_room(dir: &Dir, name: &OsStr, target: &[u8]) -> Result<(), FileOpError> {
    let failed = |e| FileOpError::write("replace", target, e);
    match dir.try_stat(name).map_err(failed)? {
        Some(stat) if stat.is_dir() => Err(FileOpError::FileOverDirectory { path: display(target) }),
        Some(_) => dir.unlink(name).map_err(failed),
        None => Ok(()),
    }
}

/// Makes `target` another name of `first`; the file keeps how it looks.
pub(super) fn link_again(dest: &Dir, target: &[u8], first: &[u8]) -> Result<(), FileOpError> {
    let failed = |e| FileOpError::write("link", target, e);
    let (Some((parent, name)), Some((old_parent, old_name))) = (split(target), split(first)) else { return Ok(()) };
    let parent = dest.open_below(OsStr::from_bytes(parent)).map_err(failed)?;
    let old_parent = dest.open_below(OsStr::from_bytes(old_parent)).map_err(failed)?;
    make_room(&parent, name, target)?;
    parent.make_link(name, &old_parent, old_name).map_err(failed)
}

/// What vanished between listing and copy has changed.
fn read_error(entry: &Entry, source: io::Error) -> FileOpError {
    let path = display(&entry.path);
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ChecksumError::Changed { path }.into(),
        _ => ChecksumError::Read { path, source }.into(),
    }
}
