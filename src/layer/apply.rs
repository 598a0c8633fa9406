//! Unpacks a tar into a directory: as a layer in overlay's form, or as plain files.
//!
//! In: a tar stream, an open directory that nobody else writes to. Out: the files, and what could not be decided without
//! seeing lower layers. Invariants: nothing outside the directory is read or changed; of equal names the last wins; metadata
//! is set through descriptors of what was just made; the stream is read to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use super::entry::{Entry, EntryKind, MAX_BYTES, MAX_REMEMBERED, NOTE};
use super::error::shown;
use super::place::{Places, components, is_whiteout, join, make_whiteout};
use super::tar_reader::{TarReader, segments_of};
use super::{LayerError, OPAQUE, OPAQUE_VALUE, OVERLAY_PREFIX, times};
use crate::sys::dir::{self, Dir, Time};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
const RESERVED: &[u8] = b".wh..wh.";
const BUFFER: usize = 256 << 10;

/// What names starting with `.wh.` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// They hide files of lower layers; the tree gets overlay's form.
    Layer,
    /// Nothing; the tree is a live one.
    Plain,
}

/// Which owner files get when theirs is not mapped in this user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unmapped {
    /// None: that is an error.
    #[default]
    Refuse,
    /// Root, counted in [`Applied::squashed`].
    Squash,
}

/// How to unpack.
#[derive(Debug, Clone)]
pub struct ApplyOptions {
    /// What whiteouts mean.
    pub form: Form,
    /// Owner of all files instead of the tar's.
    pub owner: Option<(u32, u32)>,
    /// What to do about unmapped owners.
    pub unmapped: Unmapped,
}

impl ApplyOptions {
    /// Returns the options for a layer of an image.
    pub fn layer(unmapped: Unmapped) -> Self {
        Self { form: Form::Layer, owner: None, unmapped }
    }
}

/// What unpacking left open or could not do.
#[derive(Debug, Default)]
pub struct Applied {
    /// Directories the tar does not describe, as paths without links; the empty path is the root. Their metadata, and whether
    /// they are directories at all, is decided by the layers below.
    pub implicit: BTreeSet<Vec<u8>>,
    /// Hard links whose target was not in the tar when they came, by path. What is at such a path came later and counts.
    pub links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether anything of lower layers is hidden.
    pub hides: bool,
    /// Sum of the sizes of the files.
    pub size: u64,
    /// How many files got root as owner because theirs is not mapped.
    pub squashed: u64,
    /// How many device files this user may not make, and were left out.
    pub devices: u64,
}

/// Unpacks `tar` below `dest`, a path inside `root`; links are followed as if `root` were `/`.
pub fn apply(root: Dir, dest: &OsStr, tar: impl Read, options: ApplyOptions) -> Result<Applied, LayerError> {
    let base = components(dest.as_bytes()).map_err(|reason| refused(dest.as_bytes(), reason))?;
    let mut reader = TarReader::new(tar);
    let mut applier = Applier {
        base: base.iter().map(|part| part.to_vec()).collect(),
        places: Places::new(root),
        options,
        done: Applied::default(),
        times: BTreeMap::new(),
        remembered: 0,
        root_described: false,
        buffer: vec![0; BUFFER],
    };
    while let Some(entry) = reader.next()? {
        applier.entry(&entry, &mut reader.data())?;
        applier.check_memory()?;
    }
    reader.finish()?;
    applier.finish()
}

struct Applier {
    base: Rc<[Vec<u8>]>,
    places: Places,
    options: ApplyOptions,
    done: Applied,
    /// Times of directories, set last since every file made in one changes it; in order, so that lookups are short.
    times: BTreeMap<Vec<u8>, Time>,
    /// Bytes in `times` and in the links.
    remembered: u64,
    root_described: bool,
    buffer: Vec<u8>,
}

/// A member on its way: its name, the directory it goes to, its name there.
struct Target<'a> {
    entry: &'a Entry,
    parent: Dir,
    leaf: &'a OsStr,
    path: Vec<u8>,
}

fn refused(name: &[u8], reason: impl Into<String>) -> LayerError {
    LayerError::Refused { name: shown(name), reason: reason.into() }
}

impl Applier {
    fn entry(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<(), LayerError> {
        let own = components(&entry.name).map_err(|reason| refused(&entry.name, reason))?;
        let base = Rc::clone(&self.base);
        let parts: Vec<&[u8]> = base.iter().map(Vec::as_slice).chain(own.iter().copied()).collect();
        match parts.split_last() {
            _ if own.is_empty() => self.top(entry, &parts),
            Some((leaf, parent)) => self.member(entry, parent, leaf, data),
            None => Ok(()),
        }
    }

    /// A million directories are fine; what makes more of it than a machine has is not.
    fn check_memory(&self) -> Result<(), LayerError> {
        if self.remembered + self.places.implicit_bytes() > MAX_REMEMBERED {
            let what = "what must be remembered of directories and hard links of a layer, in bytes,";
            return Err(LayerError::Limit { what, limit: MAX_REMEMBERED });
        }
        Ok(())
    }

    /// The directory unpacked into may be described, but not replaced.
    fn top(&mut self, entry: &Entry, parts: &[&[u8]]) -> Result<(), LayerError> {
        if entry.kind != EntryKind::Directory {
            return Err(refused(&entry.name, "the root must be a directory"));
        }
        let failed = |source| unpack_error(entry, source);
        let place = self.places.open(parts).map_err(failed)?;
        let (dir, path) = (place.dir.reopen().map_err(failed)?, place.path.clone());
        self.root_described = true;
        self.directory_metadata(entry, &dir, path)
    }

    fn member(&mut self, entry: &Entry, parent: &[&[u8]], leaf: &[u8], data: &mut dyn Read) -> Result<(), LayerError> {
        let failed = |source| unpack_error(entry, source);
        let place = self.places.open(parent).map_err(failed)?;
        let path = join(&place.path, leaf);
        let parent = place.dir.duplicate().map_err(failed)?;
        let target = Target { entry, parent, leaf: OsStr::from_bytes(leaf), path };
        if self.options.form == Form::Layer && leaf.starts_with(WHITEOUT) {
            return self.whiteout(&target, leaf);
        }
        match entry.kind {
            EntryKind::File => self.file(&target, data),
            EntryKind::Directory => self.directory(&target),
            EntryKind::Symlink => self.symlink(&target),
            EntryKind::HardLink => self.hard_link(&target),
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => self.node(&target),
        }
    }

    /// Whiteouts concern lower layers only, so what this layer itself has there stays, in whatever order they come
    /// (OCI image-spec 1.1, layer.md#whiteouts).
    fn whiteout(&mut self, target: &Target<'_>, leaf: &[u8]) -> Result<(), LayerError> {
        if target.entry.kind != EntryKind::File || target.entry.size > 0 {
            return Err(refused(&target.entry.name, "a whiteout must be an empty regular file"));
        }
        let failed = |source| unpack_error(target.entry, source);
        if leaf == OPAQUE_MARKER {
            self.done.hides = true;
            return dir::set_xattr_of(&target.parent, OsStr::new(OPAQUE), OPAQUE_VALUE).map_err(failed);
        }
        if leaf.starts_with(RESERVED) {
            return Ok(());
        }
        let hidden = &leaf[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused(&target.entry.name, "a whiteout must name a file"));
        }
        self.done.hides = true;
        hide(&target.parent, OsStr::from_bytes(hidden)).map_err(failed)
    }

    fn file(&mut self, target: &Target<'_>, data: &mut dyn Read) -> Result<(), LayerError> {
        let entry = target.entry;
        let failed = |source| unpack_error(entry, source);
        let file = self.create(target, |dir, name| dir.create_file(name, 0o600))?;
        let stored: u64 = entry.sparse.as_ref().map_or(entry.size, |map| map.iter().map(|s| s.length).sum());
        self.done.size = self.done.size.saturating_add(stored);
        if self.done.size > MAX_BYTES {
            return Err(LayerError::Limit { what: "the size of the files in a layer", limit: MAX_BYTES });
        }
        match &entry.sparse {
            None => copy(data, &file, &mut self.buffer).map_err(failed)?,
            Some(_) => self.write_sparse(entry, &file, data).map_err(failed)?,
        }
        self.metadata_of(entry, &file)?;
        dir::set_time_of(&file, times::bounded(entry.mtime)).map_err(failed)
    }

    fn write_sparse(&mut self, entry: &Entry, file: &File, data: &mut dyn Read) -> io::Result<()> {
        file.set_len(entry.size)?;
        for segment in segments_of(entry) {
            let mut done = 0;
            while done < segment.length {
                let want = usize::try_from(segment.length - done).unwrap_or(BUFFER).min(BUFFER);
                data.read_exact(&mut self.buffer[..want])?;
                file.write_all_at(&self.buffer[..want], segment.offset + done)?;
                done += want as u64;
            }
        }
        Ok(())
    }

    fn directory(&mut self, target: &Target<'_>) -> Result<(), LayerError> {
        let failed = |source| unpack_error(target.entry, source);
        let made = match target.parent.make_dir(target.leaf, 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if target.parent.stat(target.leaf).map_err(failed)?.is_dir() {
                    Ok(())
                } else {
                    self.replace_by_directory(target)
                }
            }
            result => result,
        };
        made.map_err(failed)?;
        let dir = target.parent.open_dir(target.leaf).map_err(failed)?;
        self.directory_metadata(target.entry, &dir, target.path.clone())
    }

    /// What this layer had there before, a file or a whiteout, hides what lower layers have.
    fn replace_by_directory(&mut self, target: &Target<'_>) -> io::Result<()> {
        self.places.forget();
        target.parent.unlink(target.leaf)?;
        target.parent.make_dir(target.leaf, 0o700)?;
        if self.options.form == Form::Layer {
            self.done.hides = true;
            let dir = target.parent.open_dir(target.leaf)?;
            dir::set_xattr_of(&dir, OsStr::new(OPAQUE), OPAQUE_VALUE)?;
        }
        Ok(())
    }

    fn directory_metadata(&mut self, entry: &Entry, dir: &Dir, path: Vec<u8>) -> Result<(), LayerError> {
        self.metadata_of(entry, dir)?;
        self.places.described(&path);
        self.remembered += NOTE + path.len() as u64;
        self.times.insert(path, times::bounded(entry.mtime));
        Ok(())
    }

    fn symlink(&mut self, target: &Target<'_>) -> Result<(), LayerError> {
        let link = OsStr::from_bytes(&target.entry.link);
        self.create(target, |dir, name| dir.make_symlink(name, link))?;
        self.metadata_at(target)
    }

    fn node(&mut self, target: &Target<'_>) -> Result<(), LayerError> {
        let entry = target.entry;
        let (kind, device) = match entry.kind {
            EntryKind::CharDevice => (0o020_000, dir::device(entry.device.0, entry.device.1)),
            EntryKind::BlockDevice => (0o060_000, dir::device(entry.device.0, entry.device.1)),
            _ => (0o010_000, 0),
        };
        // On disk this would be a whiteout, which only `.wh.` names may make.
        if entry.kind == EntryKind::CharDevice && entry.device == (0, 0) {
            self.done.devices += 1;
            return Ok(());
        }
        let made = self.create(target, |dir, name| dir.make_node(name, kind | entry.mode, device));
        match made {
            // No user namespace may make real devices.
            Err(LayerError::Unpack { source, .. })
                if entry.kind != EntryKind::Fifo && source.kind() == io::ErrorKind::PermissionDenied =>
            {
                self.done.devices += 1;
                Ok(())
            }
            Err(error) => Err(error),
            Ok(()) => self.metadata_at(target),
        }
    }

    fn hard_link(&mut self, target: &Target<'_>) -> Result<(), LayerError> {
        let entry = target.entry;
        let failed = |source| unpack_error(entry, source);
        let own = components(&entry.link).map_err(|reason| refused(&entry.name, reason))?;
        let base = Rc::clone(&self.base);
        let parts: Vec<&[u8]> = base.iter().map(Vec::as_slice).chain(own.iter().copied()).collect();
        let Some((old, parent)) = parts.split_last() else {
            return Err(refused(&entry.name, "a hard link to the root"));
        };
        let old = OsStr::from_bytes(old);
        let from = self.places.root().resolve_dir(OsStr::from_bytes(&parent.join(&b'/')));
        let stat = match &from {
            Ok(from) => from.try_stat(old).map_err(failed)?,
            Err(_) => None,
        };
        match (from, stat) {
            (Ok(from), Some(stat)) if !is_whiteout(&stat) || self.options.form == Form::Plain => {
                if stat.is_dir() {
                    return Err(refused(&entry.name, "a hard link to a directory"));
                }
                if same_dir(&from, &target.parent).map_err(failed)? && old == target.leaf {
                    return Err(refused(&entry.name, "a hard link to itself"));
                }
                self.create(target, |dir, name| dir.make_link(name, &from, old))
            }
            _ if self.options.form == Form::Layer => {
                self.clear(target)?;
                self.defer(target.path.clone(), parts.join(&b'/'));
                Ok(())
            }
            _ => Err(refused(&entry.name, "a hard link to a file that is not there")),
        }
    }

    /// Leaves a hard link for when the layers below are there; one to another such link has the target of that.
    fn defer(&mut self, path: Vec<u8>, target: Vec<u8>) {
        let target = self.done.links.get(&target).cloned().unwrap_or(target);
        self.remembered += NOTE + (path.len() + target.len()) as u64;
        self.done.links.insert(path, target);
    }

    /// Makes something new, removing what has its name.
    fn create<T>(
        &mut self,
        target: &Target<'_>,
        make: impl Fn(&Dir, &OsStr) -> io::Result<T>,
    ) -> Result<T, LayerError> {
        match make(&target.parent, target.leaf) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.clear(target)?;
                make(&target.parent, target.leaf)
            }
            result => result,
        }
        .map_err(|source| unpack_error(target.entry, source))
    }

    fn clear(&mut self, target: &Target<'_>) -> Result<(), LayerError> {
        self.places.forget();
        target.parent.remove_all(target.leaf).map_err(|source| unpack_error(target.entry, source))
    }

    /// Sets owner, attributes and permissions of an open file, in this order: changing the owner clears set-id bits and
    /// capabilities.
    fn metadata_of(&mut self, entry: &Entry, fd: impl AsFd) -> Result<(), LayerError> {
        let (uid, gid) = self.owner(entry)?;
        let changed = dir::chown_of(fd.as_fd(), uid, gid);
        self.check_owner(entry, changed, || dir::chown_of(fd.as_fd(), 0, 0))?;
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| is_content_xattr(key)) {
            check_xattr(dir::set_xattr_of(fd.as_fd(), OsStr::from_bytes(key), value), key)
                .map_err(|source| unpack_error(entry, source))?;
        }
        dir::chmod_of(fd, entry.mode).map_err(|source| unpack_error(entry, source))
    }

    /// The same for what cannot be opened: links and devices.
    fn metadata_at(&mut self, target: &Target<'_>) -> Result<(), LayerError> {
        let (entry, parent, leaf) = (target.entry, &target.parent, target.leaf);
        let failed = |source| unpack_error(entry, source);
        let (uid, gid) = self.owner(entry)?;
        let changed = parent.chown(leaf, uid, gid);
        self.check_owner(entry, changed, || parent.chown(leaf, 0, 0))?;
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| is_content_xattr(key)) {
            check_xattr(parent.set_xattr(leaf, OsStr::from_bytes(key), value), key).map_err(failed)?;
        }
        if entry.kind != EntryKind::Symlink {
            parent.chmod(leaf, entry.mode).map_err(failed)?;
        }
        parent.set_time(leaf, times::bounded(entry.mtime)).map_err(failed)
    }

    fn owner(&self, entry: &Entry) -> Result<(u32, u32), LayerError> {
        let (uid, gid) = self.options.owner.unwrap_or((entry.uid, entry.gid));
        if uid == u32::MAX || gid == u32::MAX {
            return Err(refused(&entry.name, "its owner is out of range"));
        }
        Ok((uid, gid))
    }

    fn check_owner(
        &mut self,
        entry: &Entry,
        changed: io::Result<()>,
        squash: impl Fn() -> io::Result<()>,
    ) -> Result<(), LayerError> {
        let Err(source) = changed else { return Ok(()) };
        // EINVAL is what the kernel says of ids that the namespace does not map.
        if source.kind() != io::ErrorKind::InvalidInput {
            return Err(unpack_error(entry, source));
        }
        let (uid, gid) = self.owner(entry)?;
        match self.options.unmapped {
            Unmapped::Refuse => Err(LayerError::UnmappedOwner { name: shown(&entry.name), uid, gid }),
            Unmapped::Squash => {
                self.done.squashed += 1;
                squash().map_err(|source| unpack_error(entry, source))
            }
        }
    }

    fn finish(mut self) -> Result<Applied, LayerError> {
        for (path, time) in &self.times {
            if let Some(dir) = self.places.existing(path) {
                dir::set_time_of(dir, *time).map_err(|source| LayerError::Unpack { name: shown(path), source })?;
            }
        }
        self.done.implicit = self.places.into_implicit();
        if !self.root_described && self.options.form == Form::Layer {
            self.done.implicit.insert(Vec::new());
        }
        Ok(self.done)
    }
}

fn unpack_error(entry: &Entry, source: io::Error) -> LayerError {
    LayerError::Unpack { name: shown(&entry.name), source }
}

fn same_dir(one: &Dir, other: &Dir) -> io::Result<bool> {
    let (one, other) = (one.stat_self()?, other.stat_self()?);
    Ok((one.dev, one.ino) == (other.dev, other.ino))
}

/// Hides `name` of lower layers; a directory of this layer only stops being merged with theirs.
fn hide(parent: &Dir, name: &OsStr) -> io::Result<()> {
    match parent.try_stat(name)? {
        None => make_whiteout(parent, name),
        Some(stat) if stat.is_dir() => dir::set_xattr_of(parent.open_dir(name)?, OsStr::new(OPAQUE), OPAQUE_VALUE),
        Some(_) => Ok(()),
    }
}

fn copy(data: &mut dyn Read, mut file: &File, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match data.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => file.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Labels and hashes of a security module belong to the machine, `trusted.*` and `user.overlay.*` to overlay.
pub(crate) fn is_content_xattr(key: &[u8]) -> bool {
    let user = key.starts_with(b"user.") && !key.starts_with(OVERLAY_PREFIX.as_bytes());
    user || matches!(key, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

/// Some file systems have no attributes, links and devices no `user.*` ones, and an ACL may name unmapped ids.
fn check_xattr(result: io::Result<()>, key: &[u8]) -> io::Result<()> {
    match result {
        Err(error) if crate::sys::is_unsupported(&error) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && key.starts_with(b"user.") => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput && key.starts_with(b"system.") => Ok(()),
        result => result,
    }
}
