//! Tars as exports write them: members one after another, headers as in layers.
//!
//! In: members with their content. Out: bytes on a writer. Invariants: a member's content is exactly as long as its header
//! says; the same members give the same bytes.

use std::io::{self, BufWriter, Read, Write};

use crate::layer::entry::{Entry, EntryKind};
use crate::layer::tar_writer;
use crate::sys::dir::Time;

/// Most bytes copied at once; layers are large, and every call costs.
const COPY: usize = 256 << 10;
const BLOCK: usize = 512;

/// Returns a member with no owner and no time.
pub(super) fn member(kind: EntryKind, name: impl Into<Vec<u8>>, mode: u32, size: u64) -> Entry {
    Entry {
        kind,
        name: name.into(),
        link: Vec::new(),
        mode,
        uid: 0,
        gid: 0,
        size,
        mtime: Time::default(),
        device: (0, 0),
        xattrs: Vec::new(),
        sparse: None,
    }
}

/// Writes a tar.
pub(super) struct Writer<'w> {
    out: BufWriter<&'w mut dyn Write>,
}

impl<'w> Writer<'w> {
    pub(super) fn new(out: &'w mut dyn Write) -> Self {
        Self { out: BufWriter::with_capacity(COPY, out) }
    }

    /// Writes a member and its content, of which `content` must give exactly `member.size` bytes.
    pub(super) fn append(&mut self, member: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let header = tar_writer::header(member).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.out.write_all(&header)?;
        if copy(content, member.size, &mut self.out)? != member.size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
        let used = (member.size % BLOCK as u64) as usize;
        if used == 0 { Ok(()) } else { self.out.write_all(&[0; BLOCK][used..]) }
    }

    /// Ends the tar.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_that_is_too_short_is_an_error() {
        let mut out = Vec::new();
        let member = member(EntryKind::File, "a", 0o644, 10);
        let error = Writer::new(&mut out).append(&member, &mut &b"short"[..]).expect_err("too short");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
