//! Tar archives as they are written here: POSIX ustar, with pax records where a value does not fit (POSIX.1-2017, pax).
//!
//! In: members with their content. Out: bytes on a writer. Invariants: a member's content is exactly as long as its header
//! says; the same members give the same bytes.

use std::io::{self, BufWriter, Read, Write};

/// Most bytes copied at once; layers are large, and every call costs.
const COPY: usize = 256 << 10;
const BLOCK: usize = 512;
/// Largest value of the eleven octal digits of a size.
const LARGEST_SIZE: u64 = 0o777_7777_7777;
/// Largest value of the seven octal digits of modes, owners and devices.
const LARGEST_ID: u64 = 0o777_7777;

/// Type of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Link,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

impl Kind {
    fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::Link => b'1',
            Self::Symlink => b'2',
            Self::CharDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
        }
    }
}

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Member<'a> {
    pub(super) kind: Kind,
    /// Path, with a slash at the end for a directory.
    pub(super) name: &'a [u8],
    /// Target of a link.
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    pub(super) device: (u32, u32),
    /// Extended attributes.
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl<'a> Member<'a> {
    /// A member with no owner and no time.
    pub(super) fn new(kind: Kind, name: &'a [u8], mode: u32, size: u64) -> Self {
        Self { kind, name, link: b"", mode, owner: (0, 0), size, mtime: 0, device: (0, 0), xattrs: &[] }
    }
}

/// Writes an archive.
pub(super) struct Writer<'w> {
    out: BufWriter<&'w mut dyn Write>,
}

impl<'w> Writer<'w> {
    pub(super) fn new(out: &'w mut dyn Write) -> Self {
        Self { out: BufWriter::with_capacity(COPY, out) }
    }

    /// Writes a member and its content, of which `content` must give exactly `member.size` bytes.
    pub(super) fn append(&mut self, member: &Member<'_>, content: &mut dyn Read) -> io::Result<()> {
        let records = pax_records(member);
        if !records.is_empty() {
            let mut header = Member::new(Kind::File, b"././@PaxHeader", 0o644, records.len() as u64);
            header.mtime = member.mtime.max(0);
            self.out.write_all(&block(&header, b'x'))?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.out.write_all(&block(member, member.kind.flag()))?;
        let copied = copy(content, member.size, &mut self.out)?;
        if copied != member.size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
        self.pad(member.size)
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let used = (size % BLOCK as u64) as usize;
        if used == 0 { Ok(()) } else { self.out.write_all(&[0; BLOCK][used..]) }
    }
}

/// Copies at most `limit` bytes and returns how many there were.
pub(super) fn copy(source: &mut dyn Read, limit: u64, out: &mut dyn Write) -> io::Result<u64> {
    let mut buffer = vec![0; usize::try_from(limit).unwrap_or(COPY).min(COPY)];
    let mut left = limit;
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(COPY).min(COPY);
        let count = match source.read(&mut buffer[..room]) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        out.write_all(&buffer[..count])?;
        left -= count as u64;
    }
    Ok(limit - left)
}

fn block(member: &Member<'_>, flag: u8) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let (prefix, name) = split_name(member.name).unwrap_or((b"", &member.name[..member.name.len().min(100)]));
    put(&mut block[..100], name);
    octal(&mut block[100..108], u64::from(member.mode & 0o7777));
    octal(&mut block[108..116], u64::from(member.owner.0));
    octal(&mut block[116..124], u64::from(member.owner.1));
    octal(&mut block[124..136], member.size);
    octal(&mut block[136..148], member.mtime.max(0).unsigned_abs());
    block[156] = flag;
    put(&mut block[157..257], member.link);
    put(&mut block[257..265], b"ustar\x0000");
    octal(&mut block[329..337], u64::from(member.device.0));
    octal(&mut block[337..345], u64::from(member.device.1));
    put(&mut block[345..500], prefix);
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

/// Splits a path so that it fits the two fields of the header; none if it cannot be.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((b"", name));
    }
    let slash = name.iter().enumerate().position(|(at, byte)| *byte == b'/' && at <= 155 && name.len() - at <= 101)?;
    (slash + 1 < name.len()).then(|| (&name[..slash], &name[slash + 1..]))
}

fn put(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Writes a number in octal with a NUL behind it; one that does not fit stands in a pax record and is zero here.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    let text = if text.len() > digits { "0".repeat(digits) } else { text };
    put(field, text.as_bytes());
}

fn pax_records(member: &Member<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &str, value: &[u8]| records.extend(record(key, value));
    if split_name(member.name).is_none() || !member.name.is_ascii() {
        add("path", member.name);
    }
    if member.link.len() > 100 || !member.link.is_ascii() {
        add("linkpath", member.link);
    }
    if member.size > LARGEST_SIZE {
        add("size", member.size.to_string().as_bytes());
    }
    if member.mtime < 0 || member.mtime.unsigned_abs() > LARGEST_SIZE {
        add("mtime", member.mtime.to_string().as_bytes());
    }
    for (key, id) in [("uid", member.owner.0), ("gid", member.owner.1)] {
        if u64::from(id) > LARGEST_ID {
            add(key, id.to_string().as_bytes());
        }
    }
    for (key, value) in member.xattrs {
        add(&format!("SCHILY.xattr.{}", String::from_utf8_lossy(key)), value);
    }
    records
}

/// A record starts with its own length in decimal, that number included.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_split_or_recorded() {
        let deep = [vec![b'd'; 120], vec![b'f'; 90]].join(&b'/');
        assert_eq!(split_name(&deep).map(|(a, b)| (a.len(), b.len())), Some((120, 90)));
        assert_eq!(split_name(&[b'x'; 101]), None);
        let member = Member::new(Kind::File, &[b'x'; 101], 0o644, 0);
        assert!(pax_records(&member).starts_with(b"111 path=xxx"));
    }

    #[test]
    fn record_lengths_count_themselves() {
        for length in [1, 90, 91, 92, 93, 94, 95, 990, 991, 992] {
            let record = record("path", &vec![b'x'; length]);
            let text = String::from_utf8(record.clone()).expect("ascii");
            let told = text.split_once(' ').and_then(|(n, _)| n.parse::<usize>().ok());
            assert_eq!(told, Some(record.len()));
        }
    }

    #[test]
    fn content_that_is_too_short_is_an_error() {
        let mut out = Vec::new();
        let member = Member::new(Kind::File, b"a", 0o644, 10);
        let error = Writer::new(&mut out).append(&member, &mut &b"short"[..]).expect_err("too short");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
