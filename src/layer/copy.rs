//! Copies trees with all their metadata, and puts layers in overlay's form on top of one another by copying.
//!
//! In: open directories. Out: equal files. Invariants: no link is followed; file contents are shared with the original where
//! the file system can; hard links within one copied tree stay hard links.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

use super::apply::is_content_xattr;
use super::place::is_whiteout;
use super::{OPAQUE, OPAQUE_VALUE};
use crate::sys::dir::{self, Dir, Kind, Stat};
use crate::sys::file;
use std::os::unix::ffi::OsStrExt;

/// Files with several names met so far: where the first copy is.
type Links = BTreeMap<(u64, u64), (Dir, std::ffi::OsString)>;

/// Whether a tree of files, or a layer with whiteouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum What {
    #[default]
    Tree,
    Layer,
}

/// Copies all in `from`, and the metadata of `from` itself, into the empty directory `to`.
pub(crate) fn tree(from: &Dir, to: &Dir) -> io::Result<()> {
    Copier { links: Links::new(), what: What::Tree }.contents(from, to)
}

/// Puts the layer in `from` on top of the tree in `to`.
pub(crate) fn stack(from: &Dir, to: &Dir) -> io::Result<()> {
    Copier { links: Links::new(), what: What::Layer }.contents(from, to)
}

/// Copies the metadata of the directory `from` to `to`: owner, permissions, attributes, time.
pub(crate) fn directory_metadata(from: &Dir, to: &Dir) -> io::Result<()> {
    let stat = from.stat_self()?;
    dir::chown_of(to, stat.uid, stat.gid)?;
    for (key, value) in from.xattrs(OsStr::new("."))? {
        if is_content_xattr(key.as_bytes()) {
            dir::set_xattr_of(to, &key, &value)?;
        }
    }
    dir::chmod_of(to, stat.permissions())?;
    dir::set_time_of(to, stat.mtime)
}

/// Copies one file that is no directory; nothing of its name may be in `to`.
pub(crate) fn file(from: &Dir, name: &OsStr, to: &Dir, new: &OsStr) -> io::Result<()> {
    let stat = from.stat(name)?;
    match stat.kind() {
        Kind::File => return regular(from, name, (to, new), &stat),
        Kind::Symlink => to.make_symlink(new, &from.read_link(name)?)?,
        _ => to.make_node(new, stat.mode, stat.rdev)?,
    }
    to.chown(new, stat.uid, stat.gid)?;
    for (key, value) in from.xattrs(name)? {
        if is_content_xattr(key.as_bytes()) {
            to.set_xattr(new, &key, &value)?;
        }
    }
    if stat.kind() != Kind::Symlink {
        to.chmod(new, stat.permissions())?;
    }
    to.set_time(new, stat.mtime)
}

fn regular(from: &Dir, name: &OsStr, to: (&Dir, &OsStr), stat: &Stat) -> io::Result<()> {
    let (source, target) = (from.open_file(name)?, to.0.create_file(to.1, 0o600)?);
    file::copy_data(&source, &target)?;
    dir::chown_of(target.as_fd(), stat.uid, stat.gid)?;
    for (key, value) in from.xattrs(name)? {
        if is_content_xattr(key.as_bytes()) {
            dir::set_xattr_of(&target, &key, &value)?;
        }
    }
    dir::chmod_of(&target, stat.permissions())?;
    dir::set_time_of(&target, stat.mtime)
}

/// Copies parts of one tree, among which hard links stay hard links.
#[derive(Debug, Default)]
pub(crate) struct Copier {
    links: Links,
    what: What,
}

impl Copier {
    fn contents(&mut self, from: &Dir, to: &Dir) -> io::Result<()> {
        if self.what == What::Layer && is_opaque(from)? {
            for name in to.names()? {
                to.remove_all(&name)?;
            }
        }
        for name in from.names()? {
            self.one(from, to, &name)?;
        }
        directory_metadata(from, to)
    }

    /// Copies one entry, with all below it.
    pub(crate) fn one(&mut self, from: &Dir, to: &Dir, name: &OsStr) -> io::Result<()> {
        let stat = from.stat(name)?;
        if stat.is_dir() {
            if to.try_stat(name)?.is_some_and(|there| !there.is_dir()) {
                to.unlink(name)?;
            }
            if to.try_stat(name)?.is_none() {
                to.make_dir(name, 0o700)?;
            }
            return self.contents(&from.open_dir(name)?, &to.open_dir(name)?);
        }
        if self.what == What::Layer {
            to.remove_all(name)?;
            if is_whiteout(&stat) {
                return Ok(());
            }
        }
        self.linked(from, to, name, &stat)
    }

    fn linked(&mut self, from: &Dir, to: &Dir, name: &OsStr, stat: &Stat) -> io::Result<()> {
        let identity = (stat.dev, stat.ino);
        if let Some((dir, first)) = self.links.get(&identity) {
            return to.make_link(name, dir, first);
        }
        file(from, name, to, name)?;
        if stat.nlink > 1 && stat.kind() != Kind::CharDevice {
            self.links.insert(identity, (to.duplicate()?, name.to_owned()));
        }
        Ok(())
    }
}

/// Returns whether the directory hides what lower layers have there.
pub(crate) fn is_opaque(dir: &Dir) -> io::Result<bool> {
    let value = dir.xattr(OsStr::new("."), OsStr::new(OPAQUE))?;
    Ok(value.as_deref() == Some(OPAQUE_VALUE))
}
