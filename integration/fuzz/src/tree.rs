//! Directory trees for targets that touch the disk: something to look at from outside, and something that must not change.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A root to work in, and things beside it that nothing may touch.
pub struct Scene {
    temp: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Scene {
    /// Makes a root that holds links to the outside already, as a hostile tree would.
    pub fn new() -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let path = temp.path();
        for dir in ["host/dir", "root/d"] {
            fs::create_dir_all(path.join(dir)).expect("directory");
        }
        for file in ["host/file", "host/dir/file", "victim", "root/f"] {
            fs::write(path.join(file), "canary").expect("file");
        }
        let host = path.join("host");
        for (target, link) in [(host.as_path(), "abs"), (Path::new("../host"), "rel"), (Path::new("d"), "in")] {
            std::os::unix::fs::symlink(target, path.join("root").join(link)).expect("link");
        }
        let before = outside(path);
        Self { temp, before }
    }

    /// Returns the directory to work in.
    pub fn root(&self) -> PathBuf {
        self.temp.path().join("root")
    }

    /// Returns the directory that must stay as it is.
    pub fn host(&self) -> PathBuf {
        self.temp.path().join("host")
    }

    /// Panics if anything but the root changed.
    pub fn check(&self) {
        assert_eq!(outside(self.temp.path()), self.before, "something outside the root changed");
    }
}

fn outside(temp: &Path) -> BTreeMap<PathBuf, String> {
    let names: Vec<_> = fs::read_dir(temp).expect("readable").map(|entry| entry.expect("entry").file_name()).collect();
    let mut found = BTreeMap::new();
    for name in names.iter().filter(|name| *name != "root") {
        describe(&temp.join(name), &mut found);
    }
    found
}

/// Describes a file or tree: type, mode, owner, time, links, content.
pub fn describe(path: &Path, found: &mut BTreeMap<PathBuf, String>) {
    let stat = fs::symlink_metadata(path).expect("stat");
    let link = fs::read_link(path).unwrap_or_default();
    let content = if stat.is_file() { fs::read(path).unwrap_or_default() } else { Vec::new() };
    let fields = (stat.mode(), stat.uid(), stat.gid(), stat.mtime(), stat.mtime_nsec(), stat.nlink(), stat.ino());
    found.insert(path.to_owned(), format!("{fields:?} {link:?} {content:?}"));
    if stat.is_dir() {
        for entry in fs::read_dir(path).expect("readable") {
            describe(&entry.expect("entry").path(), found);
        }
    }
}
