//! Reads one directory: its own header and what is in it, as far as the filter lets it count.
//!
//! In: the root and a path below it. Out: a [`Listing`], sorted by name.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

use super::Filter;
use super::error::{ChecksumError, read_error};
use super::header::Header;
use super::tree::Ids;
use crate::digest::Digest;
use crate::pattern::MatchInfo;
use crate::sys::dir::{Dir, Kind, Stat};
use crate::sys::file::xattrs_of;

/// What a directory to read needs.
pub(super) struct Request {
    pub(super) node: u32,
    pub(super) path: Vec<u8>,
    pub(super) matched: MatchInfo,
}

/// What a directory holds.
pub(super) struct Listing {
    pub(super) header: Digest,
    pub(super) found: Vec<Found>,
}

/// One thing in a directory.
pub(super) struct Found {
    pub(super) name: OsString,
    pub(super) stat: Stat,
    pub(super) link: Option<OsString>,
    pub(super) matched: MatchInfo,
    /// A directory that counts only if something in it does.
    pub(super) excluded: bool,
}

/// How directories of a tree are read.
#[derive(Clone, Copy)]
pub(super) struct Scanner<'a> {
    pub(super) root: &'a Dir,
    pub(super) filter: Option<&'a Filter>,
    pub(super) ids: Ids,
}

impl Scanner<'_> {
    /// Reads the directory of `request`.
    pub(super) fn read(&self, request: &Request) -> Result<Listing, ChecksumError> {
        self.list(&self.open(request)?, request)
    }

    /// Opens the directory of `request`.
    pub(super) fn open(&self, request: &Request) -> Result<Dir, ChecksumError> {
        self.root.open_below(OsStr::from_bytes(&request.path)).map_err(|e| read_error(&request.path, e))
    }

    /// Reads the directory of `request`, which is open.
    pub(super) fn list(&self, dir: &Dir, request: &Request) -> Result<Listing, ChecksumError> {
        let path = &request.path;
        let mut listing =
            Listing { header: self.header(dir, path.is_empty()).map_err(|e| read_error(path, e))?, found: Vec::new() };
        for name in dir.names().map_err(|e| read_error(path, e))? {
            self.add(&mut listing, dir, request, name)?;
        }
        Ok(listing)
    }

    /// The root of a context is never sent to BuildKit, so it has no header there.
    fn header(&self, dir: &Dir, is_root: bool) -> io::Result<Digest> {
        if is_root && self.ids == Ids::Root {
            return Ok(Digest::compute(b""));
        }
        let stat = dir.stat_self()?;
        let xattrs = xattrs_of(dir)?;
        Ok(Header { stat: &stat, link: None, xattrs: &xattrs, ids: self.ids }.start().finish())
    }

    fn add(&self, listing: &mut Listing, dir: &Dir, request: &Request, name: OsString) -> Result<(), ChecksumError> {
        let path = join(&request.path, name.as_bytes());
        let (excluded, matched) = match self.filter {
            Some(filter) => filter.matches_with(&text(&path), &request.matched),
            None => (false, MatchInfo::default()),
        };
        // Without exceptions nothing below what is excluded can count, so it is not even looked at.
        if excluded && !self.filter.is_some_and(Filter::has_exclusions) {
            return Ok(());
        }
        let stat = dir.stat(&name).map_err(|e| read_error(&path, e))?;
        if excluded && !stat.is_dir() {
            return Ok(());
        }
        let link = match stat.kind() {
            Kind::Symlink => Some(dir.read_link(&name).map_err(|e| read_error(&path, e))?),
            _ => None,
        };
        listing.found.push(Found { name, stat, link, matched, excluded });
        Ok(())
    }
}

/// Returns `name` in the directory `path`.
pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + 1 + name.len());
    joined.extend_from_slice(path);
    if !path.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

/// Returns bytes as Go's matchers see them: a byte that is not UTF-8 is one replacement character.
pub(super) fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text.into()
}
