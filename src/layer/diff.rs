//! Writes a layer in overlay's form as a tar, the way containerd's differ does, so that equal layers get BuildKit's diff ids.
//!
//! In: a layer's directory. Out: tar bytes. Invariants: names in byte order, parents first; the bytes depend on nothing but
//! the tree; sockets are left out; times are cut to seconds.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::apply::is_content_xattr;
use super::entry::{Entry, EntryKind};
use super::error::shown;
use super::place::{components, is_whiteout, join};
use super::{LayerError, OPAQUE, OPAQUE_VALUE, tar_writer};
use crate::sys::dir::{Dir, Kind, Stat, Time, device_numbers};
use crate::sys::walk::Walk;

const BUFFER: usize = 256 << 10;
const BLOCK: u64 = 512;

/// Writes the layer in `root` to `out`; times after `latest` (seconds) become that time.
pub fn write_tar(root: &Dir, latest: Option<i64>, out: &mut dyn Write) -> Result<(), LayerError> {
    let mut tar = Tar { out, latest, links: BTreeMap::new(), buffer: vec![0; BUFFER] };
    tar.members(root)?;
    // Two blocks of zeros end a tar, and nothing follows: Go pads no further.
    tar.write(&[0; 1024])
}

struct Tar<'a> {
    out: &'a mut dyn Write,
    latest: Option<i64>,
    /// First name of each file that has several.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl Tar<'_> {
    fn members(&mut self, root: &Dir) -> Result<(), LayerError> {
        // The note of a directory is how long the path of the one above is.
        let mut walk = Walk::new(root, 0).map_err(|source| walk_error(b"", source))?;
        let mut path = Vec::new();
        loop {
            let above = path.len();
            let Some(name) = walk.next_name() else {
                match walk.leave().map_err(|source| walk_error(&path, source))? {
                    Some((_, length)) => path.truncate(length),
                    None => return Ok(()),
                }
                continue;
            };
            path = join(&path, name.as_bytes());
            components(&path).map_err(|_| LayerError::TooDeep { path: shown(&path) })?;
            let stat = walk.here().stat(&name).map_err(|source| walk_error(&path, source))?;
            self.member(walk.here(), &name, &path, &stat)?;
            if !stat.is_dir() {
                path.truncate(above);
                continue;
            }
            walk.enter(&name, above).map_err(|source| walk_error(&path, source))?;
            self.opaque(walk.here(), &path)?;
        }
    }

    fn member(&mut self, dir: &Dir, name: &OsStr, path: &[u8], stat: &Stat) -> Result<(), LayerError> {
        if is_whiteout(stat) {
            return self.whiteout(path, name.as_bytes());
        }
        let Some(mut entry) = self.entry(path, stat) else { return Ok(()) };
        let failed = |source| walk_error(path, source);
        match entry.kind {
            EntryKind::File if stat.nlink > 1 => self.remember(&mut entry, stat),
            EntryKind::Symlink => {
                entry.link = dir.read_link(name).map_err(failed)?.into_vec();
                if stat.nlink > 1 {
                    self.remember(&mut entry, stat);
                }
            }
            _ if !stat.is_dir() && stat.nlink > 1 => self.remember(&mut entry, stat),
            _ => {}
        }
        entry.xattrs = content_xattrs(dir, name).map_err(failed)?;
        tar_writer::check_device(&entry)?;
        let header = tar_writer::header(&entry)?;
        self.write(&header)?;
        match entry.kind {
            EntryKind::File if entry.size > 0 => self.data(dir.open_file(name).map_err(failed)?, path, entry.size),
            _ => Ok(()),
        }
    }

    fn opaque(&mut self, dir: &Dir, path: &[u8]) -> Result<(), LayerError> {
        let opaque = dir.xattr(OsStr::new("."), OsStr::new(OPAQUE)).map_err(|source| walk_error(path, source))?;
        match opaque.as_deref() {
            Some(OPAQUE_VALUE) => self.marker(join(path, b".wh..wh..opq")),
            _ => Ok(()),
        }
    }

    /// Turns a further name of a file into a link to the first.
    fn remember(&mut self, entry: &mut Entry, stat: &Stat) {
        let first = self.links.entry((stat.dev, stat.ino)).or_insert_with(|| entry.name.clone());
        if *first != entry.name {
            entry.link.clone_from(first);
            entry.kind = EntryKind::HardLink;
            entry.size = 0;
        }
    }

    fn whiteout(&mut self, path: &[u8], name: &[u8]) -> Result<(), LayerError> {
        let parent = &path[..path.len() - name.len()];
        self.marker([parent, b".wh.", name].concat())
    }

    fn marker(&mut self, name: Vec<u8>) -> Result<(), LayerError> {
        self.write(&tar_writer::header(&plain(name, EntryKind::File))?)
    }

    /// None for sockets, which no tar holds.
    fn entry(&self, path: &[u8], stat: &Stat) -> Option<Entry> {
        let kind = match stat.kind() {
            Kind::File => EntryKind::File,
            Kind::Directory => EntryKind::Directory,
            Kind::Symlink => EntryKind::Symlink,
            Kind::CharDevice => EntryKind::CharDevice,
            Kind::BlockDevice => EntryKind::BlockDevice,
            Kind::Fifo => EntryKind::Fifo,
            Kind::Socket => return None,
        };
        let mut entry = plain(path.to_vec(), kind);
        if kind == EntryKind::Directory {
            entry.name.push(b'/');
        }
        if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            entry.device = device_numbers(stat.rdev);
        }
        entry.size = if kind == EntryKind::File { stat.size } else { 0 };
        (entry.mode, entry.uid, entry.gid) = (stat.permissions(), stat.uid, stat.gid);
        let seconds = stat.mtime.seconds;
        entry.mtime.seconds = self.latest.map_or(seconds, |latest| seconds.min(latest));
        Some(entry)
    }

    fn data(&mut self, mut file: File, path: &[u8], size: u64) -> Result<(), LayerError> {
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let count = file.read(&mut self.buffer[..want]).map_err(|source| walk_error(path, source))?;
            if count == 0 {
                return Err(walk_error(path, io::Error::other("it became shorter while being read")));
            }
            self.out.write_all(&self.buffer[..count]).map_err(|source| LayerError::Pack { source })?;
            left -= count as u64;
        }
        let padding = size.wrapping_neg() % BLOCK;
        self.write(&[0; BLOCK as usize][..padding as usize])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.out.write_all(bytes).map_err(|source| LayerError::Pack { source })
    }
}

fn plain(name: Vec<u8>, kind: EntryKind) -> Entry {
    Entry {
        kind,
        name,
        link: Vec::new(),
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Time::default(),
        device: (0, 0),
        xattrs: Vec::new(),
        sparse: None,
    }
}

fn walk_error(path: &[u8], source: io::Error) -> LayerError {
    LayerError::Walk { path: shown(path), source }
}

/// Returns the attributes that a layer holds, capabilities in the form that holds outside this user namespace too. Access lists are
/// none: no builder writes them, no cache key tells of them, and contexts get them from the directories above.
fn content_xattrs(dir: &Dir, name: &OsStr) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let found = dir.xattrs(name)?.into_iter().map(|(key, value)| (key.into_vec(), value));
    let content = found.filter(|(key, _)| is_content_xattr(key) && !key.starts_with(b"system."));
    Ok(content
        .map(|(key, value)| if key == b"security.capability" { (key, version_2(value)) } else { (key, value) })
        .collect())
}

/// Version 3 of a file's capabilities is version 2 and the user id of the namespace they count in.
fn version_2(value: Vec<u8>) -> Vec<u8> {
    const LENGTH: usize = 20;
    if value.len() != LENGTH + 4 || value[3] != 3 {
        return value;
    }
    let mut value = value;
    value.truncate(LENGTH);
    value[3] = 2;
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_lose_their_namespace() {
        let three: Vec<u8> = [&[1, 0, 0, 3][..], &[7; 16], &[9; 4]].concat();
        let two: Vec<u8> = [&[1, 0, 0, 2][..], &[7; 16]].concat();
        assert_eq!(version_2(three), two);
        assert_eq!(version_2(two.clone()), two);
    }
}
