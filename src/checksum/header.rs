//! The digest of one file: its header as texts, then its bytes (tarsum version 1 without name and times).
//!
//! In: metadata, link target, extended attributes, an open file. Out: a digest.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use super::tree::Ids;
use crate::digest::{Digest, Hasher};
use crate::sys::dir::{Kind, Stat, device_numbers, stat_of};

/// What is hashed before the bytes of a file.
pub(super) struct Header<'a> {
    pub(super) stat: &'a Stat,
    pub(super) link: Option<&'a OsStr>,
    pub(super) xattrs: &'a [(OsString, Vec<u8>)],
    pub(super) ids: Ids,
}

impl Header<'_> {
    /// Returns a hasher that has taken the header.
    pub(super) fn start(&self) -> Hasher {
        let (uid, gid) = self.owner();
        let (major, minor) = self.device();
        let fields = format!(
            "namemode{}uid{uid}gid{gid}size{}typeflag{}linkname",
            self.mode(),
            if self.stat.kind() == Kind::File { self.stat.size } else { 0 },
            self.type_flag()
        );
        let mut hasher = Hasher::new();
        hasher.update(fields.as_bytes());
        hasher.update(self.link.map_or(b"", OsStrExt::as_bytes));
        hasher.update(format!("unamegnamedevmajor{major}devminor{minor}").as_bytes());
        for (name, value) in self.xattrs.iter().filter(|(name, _)| counts(name.as_bytes(), self.ids)) {
            hasher.update(name.as_bytes());
            hasher.update(value);
        }
        hasher
    }

    fn mode(&self) -> u32 {
        if self.stat.kind() == Kind::Symlink { 0o777 } else { self.stat.permissions() }
    }

    fn owner(&self) -> (u32, u32) {
        match self.ids {
            Ids::Keep => (self.stat.uid, self.stat.gid),
            Ids::Root => (0, 0),
        }
    }

    /// BuildKit never sees the numbers of devices it scans itself, only of those that a client sends.
    fn device(&self) -> (u32, u32) {
        let device = matches!(self.stat.kind(), Kind::CharDevice | Kind::BlockDevice);
        if self.ids == Ids::Keep || !device { (0, 0) } else { device_numbers(self.stat.rdev) }
    }

    fn type_flag(&self) -> char {
        match self.stat.kind() {
            Kind::File | Kind::Socket => '0',
            Kind::Symlink => '2',
            Kind::CharDevice => '3',
            Kind::BlockDevice => '4',
            Kind::Directory => '5',
            Kind::Fifo => '6',
        }
    }
}

/// Overlay's own attributes are how a tree is stored, not what it holds.
fn counts(name: &[u8], ids: Ids) -> bool {
    if name == b"security.capability" {
        return true;
    }
    let hidden: [&[u8]; 4] = [b"security.", b"system.", b"trusted.overlay.", b"user.overlay."];
    let from_mac = ids == Ids::Root && name.starts_with(b"com.apple.");
    !from_mac && !hidden.iter().any(|prefix| name.starts_with(prefix))
}

/// Hashes an open regular file; none if it changed meanwhile.
pub(super) fn hash_file(mut file: &File, header: &Header<'_>, buffer: &mut [u8]) -> io::Result<Option<Digest>> {
    let mut hasher = header.start();
    let mut length = 0u64;
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                length += count as u64;
                if length > header.stat.size {
                    return Ok(None);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let same = length == header.stat.size && same_content(&stat_of(file)?, header.stat);
    Ok(same.then(|| hasher.finish()))
}

/// Returns whether two looks at a file saw the same file with the same content.
pub(super) fn same_content(a: &Stat, b: &Stat) -> bool {
    (a.dev, a.ino, a.size, a.mtime, a.ctime, a.mode) == (b.dev, b.ino, b.size, b.mtime, b.ctime, b.mode)
}
