//! One member of a tar, all its headers put together.

use super::sparse::Segment;
use crate::sys::dir::Time;

/// Longest name of a member in bytes.
pub(crate) const MAX_NAME: u64 = 4096;
/// Most components of a name.
pub(crate) const MAX_DEPTH: u64 = 1024;
/// Largest extended header (PAX block or GNU long name) in bytes.
pub(crate) const MAX_EXTENDED: u64 = 1 << 20;
/// Largest extended attribute in bytes, the kernel's own limit.
pub(crate) const MAX_XATTR: u64 = 64 << 10;
/// Most members of one tar.
pub(crate) const MAX_ENTRIES: u64 = 10_000_000;
/// Most bytes of files in one tar.
pub(crate) const MAX_BYTES: u64 = 100 << 30;
/// Most bytes remembered of a layer until it is unpacked or put on those below.
pub(crate) const MAX_REMEMBERED: u64 = 128 << 20;
/// What remembering a name takes beside its bytes.
pub(crate) const NOTE: u64 = 64;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// A member without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub kind: EntryKind,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Size of the file, holes included.
    pub size: u64,
    pub mtime: Time,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data goes, if the file has holes.
    pub sparse: Option<Vec<Segment>>,
}
