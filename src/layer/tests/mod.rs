//! Tars made by hand, and a place beside the tree that must stay as it is.

mod apply;
mod compress;
mod fuzz;
mod golden;
mod limits;
mod reader;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::apply::{Applied, ApplyOptions, Unmapped, apply};
use super::entry::{Entry, EntryKind};
use super::{LayerError, tar_writer};
use crate::sys::dir::{Dir, Time};

/// Returns a member with root as owner and an old time.
pub(super) fn entry(kind: EntryKind, name: &str) -> Entry {
    let mode = if kind == EntryKind::Directory { 0o755 } else { 0o644 };
    Entry {
        kind,
        name: name.as_bytes().to_vec(),
        link: Vec::new(),
        mode,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Time { seconds: 1_700_000_000, nanoseconds: 0 },
        device: (0, 0),
        xattrs: Vec::new(),
        sparse: None,
    }
}

/// Puts a tar together.
#[derive(Default)]
pub(super) struct Tar(pub Vec<u8>);

impl Tar {
    pub(super) fn raw(mut self, entry: &Entry, data: &[u8]) -> Self {
        let entry = Entry { size: data.len() as u64, ..entry.clone() };
        self.0.extend(tar_writer::header(&entry).expect("header"));
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn file(self, name: &str, text: &str) -> Self {
        self.raw(&entry(EntryKind::File, name), text.as_bytes())
    }

    pub(super) fn dir(self, name: &str) -> Self {
        self.raw(&entry(EntryKind::Directory, name), b"")
    }

    pub(super) fn fifo(self, name: &str) -> Self {
        self.raw(&entry(EntryKind::Fifo, name), b"")
    }

    pub(super) fn char(self, name: &str, device: (u32, u32)) -> Self {
        self.raw(&Entry { device, ..entry(EntryKind::CharDevice, name) }, b"")
    }

    pub(super) fn link(self, kind: EntryKind, name: &str, target: &str) -> Self {
        self.raw(&Entry { link: target.as_bytes().to_vec(), ..entry(kind, name) }, b"")
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.link(EntryKind::Symlink, name, target)
    }

    pub(super) fn hard(self, name: &str, target: &str) -> Self {
        self.link(EntryKind::HardLink, name, target)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }
}

/// A folder to unpack into, with things beside it that nothing may touch.
pub(super) struct Scene {
    temp: tempfile::TempDir,
    before: BTreeMap<String, String>,
}

impl Scene {
    pub(super) fn new() -> Self {
        let temp = tempfile::tempdir().expect("temp dir");
        for path in ["root", "host/dir"] {
            std::fs::create_dir_all(temp.path().join(path)).expect("mkdir");
        }
        for path in ["host/file", "host/dir/file", "victim"] {
            std::fs::write(temp.path().join(path), "canary").expect("write");
        }
        let before = Self::canary(temp.path());
        Self { temp, before }
    }

    /// Returns the path of the folder that must stay as it is.
    pub(super) fn host(&self) -> String {
        self.temp.path().join("host").to_str().expect("text").to_owned()
    }

    pub(super) fn root(&self) -> std::path::PathBuf {
        self.temp.path().join("root")
    }

    pub(super) fn apply_with(&self, tar: &[u8], options: ApplyOptions) -> Result<Applied, LayerError> {
        let result = apply(Dir::open(&self.root()).expect("open"), OsStr::new(""), tar, options);
        assert_eq!(Self::canary(self.temp.path()), self.before, "something outside the root changed");
        result
    }

    pub(super) fn apply(&self, tar: &Tar) -> Result<Applied, LayerError> {
        self.apply_with(&tar.bytes(), ApplyOptions::layer(Unmapped::Refuse))
    }

    pub(super) fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root().join(path)).ok()
    }

    fn canary(temp: &Path) -> BTreeMap<String, String> {
        let paths = ["host", "host/file", "host/dir", "host/dir/file", "victim"];
        let state = |path: &&str| {
            let path = temp.join(path);
            let stat = std::fs::symlink_metadata(&path).expect("stat");
            let content = std::fs::read(&path).unwrap_or_default();
            let names = std::fs::read_dir(&path).map(Iterator::count).unwrap_or_default();
            let fields = (stat.mode(), stat.uid(), stat.gid(), stat.mtime(), stat.mtime_nsec(), stat.ino(), stat.nlink());
            ((*path.to_string_lossy()).to_owned(), format!("{fields:?} {content:?} {names}"))
        };
        paths.iter().map(state).collect()
    }
}
