//! Open files: their data copied by the kernel where it can, their metadata changed through the descriptor.
//!
//! In: descriptors. Out: the same files changed. Invariant: nothing here looks a path up.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, SeekFrom};

use rustix::io::Errno;

use super::OFlags;
use super::dir::stat_of;
pub use super::dir::{chmod_of, chown_of, set_xattr_of};

/// Files up to this size are copied through memory: one read and one write beat any other call.
const SMALL: u64 = 128 * 1024;

/// Longest piece asked from the kernel at once.
const PIECE: u64 = 1 << 30;

/// Flags to open a file for reading that may turn out to be a pipe or a terminal: opening it never waits.
pub const PLAIN_READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Returns whether opening failed because of a link that must not be followed.
pub fn is_link_refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Returns whether opening failed because there is no process or device behind the file: a socket, a device without a driver.
pub fn is_nothing_behind(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NXIO.raw_os_error())
}

/// Copies all data of `from` to the empty file `to`: shared blocks if the file system can, else in the kernel, else through
/// memory. Holes stay holes. Returns how many bytes the copy is long.
pub fn copy_data(from: &File, to: &File) -> io::Result<u64> {
    let stat = stat_of(from)?;
    if stat.size == 0 {
        return Ok(0);
    }
    if stat.size <= SMALL && stat.blocks * 512 >= stat.size {
        return copy_small(from, to, stat.size);
    }
    if fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(stat_of(to)?.size);
    }
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, stat.size)? {
        copy_range(from, to, start, end)?;
        at = end;
    }
    fs::ftruncate(to, stat.size)?;
    Ok(stat.size)
}

fn copy_small(from: &File, to: &File, size: u64) -> io::Result<u64> {
    let mut buffer = vec![0u8; size as usize];
    let mut length = 0;
    while length < buffer.len() {
        match rustix::io::pread(from, &mut buffer[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    write_at(to, &buffer[..length], 0)?;
    Ok(length as u64)
}

/// The next range that holds data at or after `at`; file systems that do not know holes answer with all of it.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let start = match fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, size))),
        Err(error) => return Err(error.into()),
    };
    let end = fs::seek(file, SeekFrom::Hole(start))?.min(size);
    Ok((start < end).then_some((start, end)))
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let length = (end - read_at).min(PIECE) as usize;
        match fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), length) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            // The errors Go's os package takes as "not between these two files".
            Err(Errno::NOSYS | Errno::XDEV | Errno::INVAL | Errno::IO | Errno::OPNOTSUPP | Errno::PERM) => {
                return copy_through_memory(from, to, read_at, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_through_memory(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0u8; 256 * 1024];
    let mut at = start;
    while at < end {
        let length = (end - at).min(buffer.len() as u64) as usize;
        match rustix::io::pread(from, &mut buffer[..length], at) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                write_at(to, &buffer[..count], at)?;
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn write_at(to: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(to, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Returns the extended attributes of an open file, sorted by name.
pub fn xattrs_of(fd: impl AsFd) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let fd = fd.as_fd();
    let mut names = vec![0u8; 512];
    let length = loop {
        match fs::flistxattr(fd, &mut names[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) if names.len() < 1 << 20 => names.resize(names.len() * 8, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    };
    let mut found = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        if let Some(value) = xattr_of(fd, OsStr::from_bytes(name))? {
            found.push((OsStr::from_bytes(name).to_owned(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn xattr_of(fd: impl AsFd, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let fd = fd.as_fd();
    let mut value = vec![0u8; 256];
    loop {
        match fs::fgetxattr(fd, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < 1 << 20 => value.resize(value.len() * 16, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn copies_data_of_any_size_and_keeps_holes() {
        for (size, hole) in [(0u64, 0u64), (5, 0), (SMALL, 0), (SMALL + 1, 0), (4096, 8 << 20), (300_000, 3 << 20)] {
            let mut from = tempfile::tempfile().expect("file");
            from.seek(SeekFrom::Start(hole)).expect("seek");
            let data: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            from.write_all(&data).expect("write");
            let to = tempfile::NamedTempFile::new().expect("file");
            assert_eq!(copy_data(&from, to.as_file()).expect("copy"), if size == 0 { 0 } else { hole + size });
            let copied = std::fs::read(to.path()).expect("read");
            assert!(copied[copied.len() - data.len()..] == data[..], "{size} after {hole}");
            if hole > 0 {
                let blocks = to.as_file().metadata().expect("stat").blocks();
                assert!(blocks * 512 < hole / 2, "{blocks} blocks for {size} after {hole}");
            }
        }
    }
}
