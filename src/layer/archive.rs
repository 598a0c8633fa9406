//! Unpacks an archive into a live tree, as `ADD` does: names starting with `.wh.` are plain files here.
//!
//! In: a tar stream, compressed or not, a tree, a directory in it. Out: files in that directory. Invariant: links in the archive and
//! in the tree are followed inside the tree only.

use std::ffi::OsStr;
use std::io::{self, Read, Seek};

use super::LayerError;
use super::apply::{Applied, ApplyOptions, apply};
use super::decompress::Decoder;
use super::entry::EntryKind;
use super::tar_reader::TarReader;
use crate::sys::dir::Dir;

/// Returns whether `file` is a tar archive, compressed or not, and leaves it at its start.
pub fn is_archive<F: Read + Seek + Send>(file: &mut F) -> io::Result<bool> {
    file.rewind()?;
    let found = starts_with_member(&mut *file);
    file.rewind()?;
    Ok(found)
}

/// Anything that cannot be read as one is none; an archive without a member is one only if it is nothing but zeros.
fn starts_with_member(file: impl Read + Send) -> bool {
    let Ok(decoder) = Decoder::new(file) else { return false };
    matches!(TarReader::new(decoder).next(), Ok(Some(_)))
}

/// Returns the time of the newest regular file in an archive, in seconds since 1970; none if there is no file in it.
pub fn newest(archive: impl Read + Send) -> Result<Option<i64>, LayerError> {
    let decoder = Decoder::new(archive).map_err(|source| LayerError::Read { source })?;
    let mut members = TarReader::new(decoder);
    let mut newest = None;
    while let Some(member) = members.next()? {
        if member.kind == EntryKind::File {
            newest = newest.max(Some(member.mtime.seconds));
        }
    }
    Ok(newest)
}

/// Unpacks `archive` below `dest`, a path inside `root`.
pub fn extract(
    root: Dir,
    dest: &OsStr,
    archive: impl Read + Send,
    options: ApplyOptions,
) -> Result<Applied, LayerError> {
    let decoder = Decoder::new(archive).map_err(|source| LayerError::Read { source })?;
    apply(root, dest, decoder, options)
}
