//! Copies trees with all their metadata, and puts layers in overlay's form on top of one another by copying.
//!
//! In: open directories. Out: equal files. Invariants: no link is followed; file contents are shared with the original where
//! the file system can; hard links within one copied tree stay hard links.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::apply::is_content_xattr;
use super::place::is_whiteout;
use super::{OPAQUE, OPAQUE_VALUE};
use crate::sys::dir::{self, Dir, Kind, Stat};
use crate::sys::file;
use crate::sys::walk::{Descent, Walk};
use std::os::unix::ffi::OsStrExt;

/// Whether a tree of files, or a layer with whiteouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Tree,
    Layer,
}

/// Copies all in `from`, and the metadata of `from` itself, into the empty directory `to`.
pub(crate) fn tree(from: &Dir, to: &Dir) -> io::Result<()> {
    Copier { root: to, links: BTreeMap::new(), what: What::Tree }.contents(from, to, OsStr::new(""))
}

/// Puts the layer in `from` on top of the tree in `to`.
pub(crate) fn stack(from: &Dir, to: &Dir) -> io::Result<()> {
    Copier { root: to, links: BTreeMap::new(), what: What::Layer }.contents(from, to, OsStr::new(""))
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
#[derive(Debug)]
pub(crate) struct Copier<'a> {
    /// Where all copies are below.
    root: &'a Dir,
    /// Files with several names met so far: where the first copy is, below the root.
    links: BTreeMap<(u64, u64), OsString>,
    what: What,
}

impl<'a> Copier<'a> {
    /// Copies into `root`.
    pub(crate) fn new(root: &'a Dir) -> Self {
        Self { root, links: BTreeMap::new(), what: What::Tree }
    }

    /// Copies one entry of `from`, with all below it, to where `to` has come from the root.
    pub(crate) fn one(&mut self, from: &Dir, to: &Descent<'_>, name: &OsStr) -> io::Result<()> {
        let stat = from.stat(name)?;
        if !stat.is_dir() {
            return self.file(from, to, (OsStr::new(""), name), &stat);
        }
        make_directory(to.here(), name)?;
        self.contents(&from.open_dir(name)?, &to.here().open_dir(name)?, &join(&to.path(), name))
    }

    /// Copies what is in `from` to `to`, whose path below the root is `path`.
    fn contents(&mut self, from: &Dir, to: &Dir, path: &OsStr) -> io::Result<()> {
        let (mut from, mut to) = (Walk::new(from, ())?, Descent::new(to));
        self.make_room(from.here(), to.here())?;
        loop {
            let Some(name) = from.next_name() else {
                directory_metadata(from.here(), to.here())?;
                to.leave()?;
                if from.leave()?.is_none() {
                    return Ok(());
                }
                continue;
            };
            let stat = from.here().stat(&name)?;
            if stat.is_dir() {
                make_directory(to.here(), &name)?;
                to.enter(&name)?;
                from.enter(&name, ())?;
                self.make_room(from.here(), to.here())?;
            } else {
                self.file(from.here(), &to, (path, &name), &stat)?;
            }
        }
    }

    fn make_room(&self, from: &Dir, to: &Dir) -> io::Result<()> {
        if self.what == What::Layer && is_opaque(from)? {
            for name in to.names()? {
                to.remove_all(&name)?;
            }
        }
        Ok(())
    }

    /// Copies what is no directory; `place` is where `to` starts below the root, and the name.
    fn file(&mut self, from: &Dir, to: &Descent<'_>, place: (&OsStr, &OsStr), stat: &Stat) -> io::Result<()> {
        let (start, name) = place;
        if self.what == What::Layer {
            to.here().remove_all(name)?;
            if is_whiteout(stat) {
                return Ok(());
            }
        }
        let identity = (stat.dev, stat.ino);
        if let Some(first) = self.links.get(&identity) {
            let first = Path::new(first);
            let (above, first) = (first.parent().unwrap_or(first), first.file_name().unwrap_or_default());
            return to.here().make_link(name, &self.root.open_below(above.as_os_str())?, first);
        }
        file(from, name, to.here(), name)?;
        if stat.nlink > 1 && stat.kind() != Kind::CharDevice {
            self.links.insert(identity, join(&join(start, &to.path()), name));
        }
        Ok(())
    }
}

/// Makes a directory unless there is one; anything else makes way.
fn make_directory(parent: &Dir, name: &OsStr) -> io::Result<()> {
    match parent.try_stat(name)? {
        Some(there) if there.is_dir() => return Ok(()),
        Some(_) => parent.unlink(name)?,
        None => {}
    }
    parent.make_dir(name, 0o700)
}

fn join(path: &OsStr, name: &OsStr) -> OsString {
    Path::new(path).join(name).into_os_string()
}

/// Returns whether the directory hides what lower layers have there.
pub(crate) fn is_opaque(dir: &Dir) -> io::Result<bool> {
    let value = dir.xattr(OsStr::new("."), OsStr::new(OPAQUE))?;
    Ok(value.as_deref() == Some(OPAQUE_VALUE))
}
