//! The digest of one file: its header as texts, then its bytes (tarsum version 1 without name and times).
//!
//! In: metadata, link target, extended attributes, an open file. Out: a digest.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
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

/// Overlay's own attributes are how a snapshot is stored, not what it holds; those of a context are the user's.
fn counts(name: &[u8], ids: Ids) -> bool {
    if name == b"security.capability" {
        return true;
    }
    let hidden: &[&[u8]] = match ids {
        Ids::Root => &[b"security.", b"system.", b"com.apple."],
        Ids::Keep => &[b"security.", b"system.", b"trusted.overlay.", b"user.overlay."],
    };
    !hidden.iter().any(|prefix| name.starts_with(prefix))
}

/// Hashes an open regular file; none if it changed meanwhile, other than by growing.
pub(super) fn hash_file(file: &File, header: &Header<'_>, buffer: &mut [u8]) -> io::Result<Option<Digest>> {
    let mut hasher = header.start();
    let length = each_chunk(file, header.stat.size, buffer, |chunk| {
        hasher.update(chunk);
        Ok(())
    })?;
    let now = stat_of(file)?;
    let same = length == header.stat.size && (same_content(&now, header.stat) || has_grown(&now, header.stat));
    Ok(same.then(|| hasher.finish()))
}

/// Copies the bytes of an open file that were hashed; returns the digest of header and bytes.
pub(super) fn copy_start(file: &File, header: &Header<'_>, mut to: &File) -> io::Result<Digest> {
    let mut hasher = header.start();
    each_chunk(file, header.stat.size, &mut vec![0; 64 << 10], |chunk| {
        hasher.update(chunk);
        to.write_all(chunk)
    })?;
    Ok(hasher.finish())
}

/// Reads up to `size` bytes; returns how many there were.
fn each_chunk(
    file: &File,
    size: u64,
    buffer: &mut [u8],
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let (mut start, mut length) = (file.take(size), 0);
    loop {
        match start.read(buffer) {
            Ok(0) => return Ok(length),
            Ok(count) => {
                take(&buffer[..count])?;
                length += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns whether two looks at a file saw the same file with the same content.
pub(super) fn same_content(a: &Stat, b: &Stat) -> bool {
    (a.dev, a.ino, a.size, a.mtime, a.ctime, a.mode) == (b.dev, b.ino, b.size, b.mtime, b.ctime, b.mode)
}

/// Returns whether the file of the look `before` may have got more bytes since, and nothing else: a log that is written. What was
/// empty may have been about to be written anew.
pub(super) fn has_grown(now: &Stat, before: &Stat) -> bool {
    (now.dev, now.ino, now.mode) == (before.dev, before.ino, before.mode) && before.size > 0 && now.size > before.size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_a_context_are_the_users() {
        let cases: [(&[u8], bool, bool); 7] = [
            (b"security.capability", true, true),
            (b"security.selinux", false, false),
            (b"system.posix_acl_access", false, false),
            (b"user.note", true, true),
            (b"user.overlay.opaque", true, false),
            (b"trusted.overlay.opaque", true, false),
            (b"com.apple.quarantine", false, true),
        ];
        for (name, context, snapshot) in cases {
            let found = (counts(name, Ids::Root), counts(name, Ids::Keep));
            assert_eq!(found, (context, snapshot), "{}", String::from_utf8_lossy(name));
        }
    }
}
