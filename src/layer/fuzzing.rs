//! Doors for the fuzzers in `integration/fuzz` to the tar reader and writer, which are private otherwise.
//!
//! In: bytes, or members. Out: members with their data, or bytes.

use std::io::Read as _;

use super::LayerError;
use super::entry::{Entry, EntryKind};
use super::tar_reader::TarReader;
use super::tar_writer;
use crate::sys::dir::Time;

/// A member of a tar with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Type flag of the tar format, `0` to `6`.
    pub flag: u8,
    /// Name.
    pub name: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds since 1970.
    pub mtime: i64,
    /// Device numbers.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Size with holes.
    pub size: u64,
    /// The data that is stored: without holes.
    pub data: Vec<u8>,
}

const KINDS: [EntryKind; 7] = [
    EntryKind::File,
    EntryKind::HardLink,
    EntryKind::Symlink,
    EntryKind::CharDevice,
    EntryKind::BlockDevice,
    EntryKind::Directory,
    EntryKind::Fifo,
];

/// Reads all members of a tar.
pub fn members(tar: &[u8]) -> Result<Vec<Member>, LayerError> {
    let mut reader = TarReader::new(tar);
    let mut members = Vec::new();
    while let Some(entry) = reader.next()? {
        let mut data = Vec::new();
        reader.data().read_to_end(&mut data).map_err(|source| LayerError::Read { source })?;
        let place = KINDS.iter().position(|kind| *kind == entry.kind).unwrap_or_default();
        members.push(Member {
            flag: b'0' + place as u8,
            name: entry.name,
            link: entry.link,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            mtime: entry.mtime.seconds,
            device: entry.device,
            xattrs: entry.xattrs,
            size: entry.size,
            data,
        });
    }
    reader.finish()?;
    Ok(members)
}

/// Writes members as a tar.
pub fn write(members: &[Member]) -> Result<Vec<u8>, LayerError> {
    let mut tar = Vec::new();
    for member in members {
        let entry = Entry {
            kind: KINDS[usize::from(member.flag - b'0') % KINDS.len()],
            name: member.name.clone(),
            link: member.link.clone(),
            mode: member.mode,
            uid: member.owner.0,
            gid: member.owner.1,
            size: member.size,
            mtime: Time { seconds: member.mtime, nanoseconds: 0 },
            device: member.device,
            xattrs: member.xattrs.clone(),
            sparse: None,
        };
        tar.extend(tar_writer::header(&entry)?);
        tar.extend(&member.data);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    Ok(tar)
}
