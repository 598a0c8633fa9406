//! A tree whose content counts, and what has been learnt of it so far.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::Filter;
use super::error::{ChecksumError, read_error};
use super::header::{self, Header};
use super::index::{Index, Walker};
use super::scan::Scanner;
use crate::digest::Digest;
use crate::sys::dir::{Dir, Kind, Stat, stat_of};
use crate::sys::file::xattrs_of;

/// Whose files they are taken to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// The owners the tree says: snapshots.
    Keep,
    /// Root, whoever owns them here: build contexts.
    Root,
}

/// What is known of a tree; clones share it.
#[derive(Clone, Default)]
pub struct SharedIndex(Arc<Mutex<Option<Index>>>);

impl fmt::Debug for SharedIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedIndex")
    }
}

/// A directory tree as its digests see it.
#[derive(Debug)]
pub struct Tree<'a> {
    /// Its root.
    pub dir: &'a Dir,
    /// What of it does not count.
    pub filter: Option<&'a Filter>,
    /// Whose files they are taken to be.
    pub ids: Ids,
    index: SharedIndex,
}

/// Something in a tree, as it was when it was read.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its path below the root, without a leading slash; empty for the root.
    pub path: Vec<u8>,
    /// Its metadata; owner and group are those the tree shows.
    pub stat: Stat,
    /// What it points to, if it is a link.
    pub link: Option<OsString>,
    /// The digest of header and bytes, if these were hashed while `stat` was true of it.
    pub hashed: Option<Digest>,
    pub(super) node: u32,
    pub(super) ids: Ids,
}

impl Entry {
    /// Returns the last component of the path.
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }

    /// Returns whether `now`, the metadata of the opened file, is still what was hashed; true if nothing was hashed.
    pub fn unchanged(&self, now: &Stat) -> bool {
        self.hashed.is_none() || header::same_content(now, &Stat { uid: now.uid, gid: now.gid, ..self.stat })
    }

    /// Copies to the empty file `to` what was hashed of `from`, which has changed since; returns whether it is still there.
    pub fn copy_start(&self, from: &File, to: &File) -> io::Result<bool> {
        let Some(hashed) = self.hashed.as_ref().filter(|_| self.stat.size > 0) else { return Ok(false) };
        if !header::has_grown(&stat_of(from)?, &self.stat) {
            return Ok(false);
        }
        let xattrs = xattrs_of(from)?;
        // The owner in `stat` is the one that counts.
        let header = Header { stat: &self.stat, link: None, xattrs: &xattrs, ids: self.ids };
        Ok(header::copy_start(from, &header, to)? == *hashed)
    }
}

impl<'a> Tree<'a> {
    /// Makes a tree of which nothing is known yet.
    pub fn new(dir: &'a Dir, filter: Option<&'a Filter>, ids: Ids) -> Self {
        Self { dir, filter, ids, index: SharedIndex::default() }
    }

    /// Makes the same tree with what is known of it from before; the index must come from the same directory and filter.
    #[must_use]
    pub fn with_index(self, index: SharedIndex) -> Self {
        Self { index, ..self }
    }

    /// Returns what `path` names, links in it resolved inside the tree, and a link itself only if `follow`.
    pub fn entry(&self, path: &[u8], follow: bool) -> Result<Option<Entry>, ChecksumError> {
        self.walk(|walker| Ok(walker.resolve(path, follow)?.1.map(|node| walker.entry(node))))
    }

    /// Returns what is in a directory of this tree, by name.
    pub fn children(&self, entry: &Entry) -> Result<Vec<Entry>, ChecksumError> {
        self.walk(|walker| {
            let children = walker.children(entry.node)?.to_vec();
            Ok(children.into_iter().map(|node| walker.child_entry(entry, node)).collect())
        })
    }

    /// Reads all directories from `entry` down at once, on all cores.
    pub fn read_ahead(&self, entry: &Entry) -> Result<(), ChecksumError> {
        self.walk(|walker| walker.load_all(entry.node))
    }

    /// Returns how many bytes the files have that `paths` name, which may have wildcards; those of all files if there are none.
    /// What is read for that is what hashing them reads first, and is not read again.
    pub fn size_of(&self, paths: &[String]) -> Result<u64, ChecksumError> {
        let whole = [String::new()];
        let mut tops = Vec::new();
        for path in if paths.is_empty() { &whole[..] } else { paths } {
            match self.glob(path, true)? {
                Some(found) => tops.extend(found.iter().map(|entry| entry.node)),
                None => tops.extend(self.entry(path.as_bytes(), true)?.map(|entry| entry.node)),
            }
        }
        self.walk(|walker| {
            let mut nodes = Vec::new();
            for top in tops {
                walker.load_all(top)?;
                nodes.extend(walker.index.below(top));
            }
            nodes.sort_unstable();
            nodes.dedup();
            let stats = nodes.into_iter().map(|node| walker.index.node(node).stat);
            Ok(stats.filter(|stat| stat.kind() == Kind::File).map(|stat| stat.size).sum())
        })
    }

    pub(super) fn walk<R>(
        &self,
        act: impl FnOnce(&mut Walker<'_>) -> Result<R, ChecksumError>,
    ) -> Result<R, ChecksumError> {
        let mut index = self.index.0.lock().unwrap_or_else(PoisonError::into_inner);
        if index.is_none() {
            *index = Some(Index::new(self.dir.stat_self().map_err(|e| read_error(b"", e))?));
        }
        let scanner = Scanner { root: self.dir, filter: self.filter, ids: self.ids };
        let index = index.as_mut().expect("made above");
        act(&mut Walker { scanner, index })
    }
}
