//! What builds used, and how much there is: one line a build.
//!
//! ```text
//! ROOT/usage.log    one JSON object a line, oldest first
//! ROOT/usage.lock   locked while a line is appended or the log is replaced
//! ```
//!
//! In: the names of what a build used, the bytes it added, what a scan found. Out: [`Usage`]. Invariants: a line that cannot be read is
//! skipped, and a log that is lost costs only the order in which things are removed. A long log is rewritten beside and renamed over.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};

use serde::{Deserialize, Serialize};

use super::Scratch;
use crate::sys::dir::Dir;
use crate::sys::lock::FileLock;

const LOG: &str = "usage.log";
const LOCK: &str = "usage.lock";
/// The version of lines this program writes; others are skipped.
const VERSION: u32 = 1;
/// Longest log that is appended to.
const LONG: u64 = 64 << 10;
/// Longest log that is read.
const LONGEST: u64 = 16 << 20;
/// Most names that are remembered, those that were used last.
const MOST: usize = 20_000;

/// What is known of how things were used. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// When and by how many builds each was used.
    pub used: BTreeMap<String, Used>,
    /// Bytes that builds added after the scan.
    pub added: u64,
    /// What was found when all was measured last.
    pub scan: Option<Scan>,
}

/// The use of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// The last time.
    pub at: u64,
    /// How many builds.
    pub count: u64,
}

/// All that is stored, measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// When.
    pub at: u64,
    /// Bytes.
    pub total: u64,
    /// The last use of what was not used for longest.
    pub oldest: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Line {
    v: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    at: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    used: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    added: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scan: Option<Scan>,
    /// Names with last use and count: what lines before said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sums: Vec<(String, u64, u64)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Usage {
    fn take(&mut self, line: Line) {
        for (name, at, count) in line.sums.into_iter().chain(line.used.into_iter().map(|name| (name, line.at, 1))) {
            let used = self.used.entry(name).or_default();
            *used = Used { at: used.at.max(at), count: used.count.saturating_add(count) };
        }
        if line.scan.is_some() {
            (self.scan, self.added) = (line.scan, 0);
        }
        self.added = self.added.saturating_add(line.added);
    }

    /// Reads a log; what is no line of one is skipped.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut usage = Self::default();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if let Ok(line) = serde_json::from_slice::<Line>(line)
                && line.v == VERSION
            {
                usage.take(line);
            }
        }
        usage
    }

    /// Writes a log that says the same.
    pub fn encode(&self) -> Vec<u8> {
        let mut names: Vec<_> = self.used.iter().collect();
        names.sort_by_key(|(_, used)| std::cmp::Reverse(used.at));
        names.truncate(MOST);
        let sums = names.into_iter().map(|(name, used)| (name.clone(), used.at, used.count)).collect();
        line(&Line { v: VERSION, sums, scan: self.scan, added: self.added, ..Line::default() })
    }

    /// Reads the log of a state root; one that cannot be read says nothing.
    pub(super) fn load(root: &Dir) -> Self {
        read(root).map(|bytes| Self::parse(&bytes)).unwrap_or_default()
    }
}

fn read(root: &Dir) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    root.open_file(OsStr::new(LOG))?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A line begins on a fresh one even where the log ends in a torn one.
fn line(line: &Line) -> Vec<u8> {
    let mut bytes = vec![b'\n'];
    // Numbers and texts can always be written.
    bytes.extend(serde_json::to_vec(line).unwrap_or_default());
    bytes.push(b'\n');
    bytes
}

/// Notes that a build used `used` at `at`, and added `added` bytes; returns all that is known then.
pub(super) fn note(root: &Dir, scratch: &Scratch, at: u64, used: Vec<String>, added: u64) -> io::Result<Usage> {
    let _held = FileLock::exclusive(root, OsStr::new(LOCK))?;
    let known = read(root).unwrap_or_default();
    let mut usage = Usage::parse(&known);
    let next = Line { v: VERSION, at, used, added, ..Line::default() };
    let bytes = line(&next);
    usage.take(next);
    if (known.len() + bytes.len()) as u64 > LONG {
        replace(root, scratch, &usage)?;
    } else {
        root.append_file(OsStr::new(LOG), 0o600)?.write_all(&bytes)?;
    }
    Ok(usage)
}

/// Notes what a scan found, and forgets all names but those that `keep` says are there.
pub(super) fn note_scan(root: &Dir, scratch: &Scratch, scan: Scan, keep: impl Fn(&str) -> bool) -> io::Result<()> {
    let _held = FileLock::exclusive(root, OsStr::new(LOCK))?;
    let mut usage = Usage::load(root);
    usage.used.retain(|name, _| keep(name));
    (usage.scan, usage.added) = (Some(scan), 0);
    replace(root, scratch, &usage)
}

fn replace(root: &Dir, scratch: &Scratch, usage: &Usage) -> io::Result<()> {
    let name = scratch.unused();
    scratch.dir().create_file(&name, 0o600)?.write_all(&usage.encode())?;
    scratch.dir().rename(&name, root, OsStr::new(LOG))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn uses_add_up_over_torn_lines_and_rewriting() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("root");
        let store = Store::open(&path).expect("open");
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let _ = store.note_usage(10, names(&["1", "2"]), 100).expect("note");
        std::fs::OpenOptions::new()
            .append(true)
            .open(path.join(LOG))
            .expect("log")
            .write_all(b"{\"v\":1,\"used\":[")
            .expect("torn");
        let usage = store.note_usage(20, names(&["2"]), 5).expect("note");
        assert_eq!(usage.used["2"], Used { at: 20, count: 2 });
        assert_eq!((usage.used["1"].count, usage.added), (1, 105));
        store.note_scan(Scan { at: 30, total: 7, oldest: 10 }, |name| name == "2").expect("scan");
        let _ = store.note_usage(40, names(&["2", "3"]), 3).expect("note");
        let usage = store.usage();
        assert_eq!(usage.used.keys().collect::<Vec<_>>(), ["2", "3"]);
        assert_eq!((usage.used["2"], usage.added), (Used { at: 40, count: 3 }, 3));
        assert_eq!(usage.scan, Some(Scan { at: 30, total: 7, oldest: 10 }));
        assert_eq!(Usage::parse(&usage.encode()), usage);
    }

    #[test]
    fn a_log_does_not_grow_without_end() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("root");
        let store = Store::open(&path).expect("open");
        for build in 0..300 {
            let used = (0..100).map(|layer: u32| layer.to_string()).collect();
            let _ = store.note_usage(build, used, 1).expect("note");
        }
        assert!(std::fs::metadata(path.join(LOG)).expect("log").len() <= LONG);
        assert_eq!((store.usage().used["7"], store.usage().added), (Used { at: 299, count: 300 }, 300));
    }
}
