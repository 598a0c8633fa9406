//! Lists of the files a step reads by content: one line a file, with the parts of it that count.
//!
//! ```text
//! rbuild files 1
//! f 644 0 0 12 8f434346648f6b96 src/main.c     kind, mode, owner, group, size, start of the digest, path
//! more                                         last, where there are more files than are kept
//! ```
//!
//! The digest is that of the header and the content; 64 bits of it are enough to tell two versions of one file apart, as
//! whether anything differs at all was already decided by the whole content key.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::difference::{Change, Difference};
use super::record::Kind;

const HEAD: &str = "rbuild files 1\n";
const MORE: &str = "more\n";

/// Lists end before they are longer.
const LIMIT: usize = 32 << 20;

/// A file as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File<'a> {
    /// What it is: `f`, `d`, `l`, `p`, `c`, `b` or `s`.
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of a regular file.
    pub size: u64,
    /// Start of its digest.
    pub digest: &'a str,
}

/// A list that is being written.
#[derive(Debug)]
pub struct Writer {
    text: String,
    full: bool,
}

impl Default for Writer {
    fn default() -> Self {
        Self { text: HEAD.into(), full: false }
    }
}

impl Writer {
    /// Adds a file.
    pub fn add(&mut self, path: &[u8], file: File<'_>) {
        if self.text.len() + path.len() * 4 > LIMIT {
            self.full = true;
            return;
        }
        let File { kind, mode, uid, gid, size, digest } = file;
        let short = digest.get(..16).unwrap_or(digest);
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{kind} {mode:o} {uid} {gid} {size} {short} ");
        escape(path, &mut self.text);
        self.text.push('\n');
    }

    /// Returns the list.
    pub fn finish(mut self) -> Vec<u8> {
        if self.full {
            self.text.push_str(MORE);
        }
        self.text.into_bytes()
    }
}

/// Bytes that are no text, and those that end a line, as `\xNN`.
fn escape(path: &[u8], text: &mut String) {
    let hex = |bytes: &[u8], text: &mut String| {
        for byte in bytes {
            let _ = write!(text, "\\x{byte:02x}");
        }
    };
    for chunk in path.utf8_chunks() {
        if chunk.valid().bytes().any(|b| b.is_ascii_control() || b == b'\\') {
            for c in chunk.valid().chars() {
                if c.is_ascii_control() || c == '\\' { hex(&[c as u8], text) } else { text.push(c) }
            }
        } else {
            text.push_str(chunk.valid());
        }
        hex(chunk.invalid(), text);
    }
    if path.is_empty() {
        text.push('.');
    }
}

/// A list that was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct List<'a> {
    files: BTreeMap<&'a str, File<'a>>,
    /// Whether there were more.
    more: bool,
}

impl<'a> List<'a> {
    /// Reads a list; none if it is not one.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= LIMIT + 4096)?.strip_prefix(HEAD)?;
        let (text, more) = text.strip_suffix(MORE).map_or((text, false), |text| (text, true));
        let files = text.lines().map(line).collect::<Option<_>>()?;
        Some(Self { files, more })
    }

    /// Returns how many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Returns what differs from an earlier list: files that changed, are new, are gone, or have another name.
    pub fn differences(&self, before: &List<'_>) -> Vec<Difference> {
        let mut found = Vec::new();
        for (path, now) in &self.files {
            match before.files.get(path) {
                Some(was) if now != was => found.extend(change(path, was, now)),
                Some(_) => {}
                // Beyond the end of a shortened list nothing is known.
                None if before.more => {}
                None => found.push(Difference::file(path, Change::Added)),
            }
        }
        if !self.more {
            let gone = before.files.keys().filter(|path| !self.files.contains_key(*path));
            found.extend(gone.map(|path| Difference::file(path, Change::Removed)));
        }
        self.join_renames(before, found)
    }

    /// A file that is gone and one that is new are one with another name, if they are alike and no others are.
    fn join_renames(&self, before: &List<'_>, found: Vec<Difference>) -> Vec<Difference> {
        let mut by_digest: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
        for difference in &found {
            let path = difference.name.as_str();
            match difference.change {
                Change::Added if self.files[path].kind == 'f' => {
                    by_digest.entry(self.files[path].digest).or_default().1.push(path);
                }
                Change::Removed if before.files[path].kind == 'f' => {
                    by_digest.entry(before.files[path].digest).or_default().0.push(path);
                }
                _ => {}
            }
        }
        let renamed: BTreeMap<String, String> = by_digest
            .into_values()
            .filter_map(|(gone, new)| match (&gone[..], &new[..]) {
                ([gone], [new]) => Some(((*gone).to_owned(), (*new).to_owned())),
                _ => None,
            })
            .collect();
        let targets: std::collections::BTreeSet<&String> = renamed.values().collect();
        let mut joined = Vec::new();
        for difference in found {
            match (difference.change, renamed.get(&difference.name)) {
                (Change::Removed, Some(to)) => {
                    joined.push(Difference::file(&difference.name, Change::Renamed).values(&difference.name, to));
                }
                (Change::Added, _) if targets.contains(&difference.name) => {}
                _ => joined.push(difference),
            }
        }
        joined
    }
}

fn line(text: &str) -> Option<(&str, File<'_>)> {
    let mut parts = text.splitn(7, ' ');
    let mut next = || parts.next();
    let mut kind = next()?.chars();
    let file = File {
        kind: kind.next()?,
        mode: u32::from_str_radix(next()?, 8).ok()?,
        uid: next()?.parse().ok()?,
        gid: next()?.parse().ok()?,
        size: next()?.parse().ok()?,
        digest: next()?,
    };
    Some((next()?, file)).filter(|_| kind.next().is_none())
}

fn change(path: &str, was: &File<'_>, now: &File<'_>) -> Vec<Difference> {
    let one = |change, from: String, to: String| Difference::file(path, change).values(&from, &to);
    if was.kind != now.kind {
        return vec![one(Change::Type, kind_name(was.kind).into(), kind_name(now.kind).into())];
    }
    let mut found = Vec::new();
    if was.mode != now.mode {
        found.push(one(Change::Mode, format!("{:04o}", was.mode), format!("{:04o}", now.mode)));
    }
    if (was.uid, was.gid) != (now.uid, now.gid) {
        found.push(one(Change::Owner, format!("{}:{}", was.uid, was.gid), format!("{}:{}", now.uid, now.gid)));
    }
    // The digest covers mode and owner too, so by itself it says nothing where one of those differs.
    if found.is_empty() || was.size != now.size {
        found.insert(0, Difference::file(path, Change::Content));
    }
    found
}

fn kind_name(kind: char) -> &'static str {
    match kind {
        'f' => "file",
        'd' => "directory",
        'l' => "link",
        'p' => "fifo",
        'c' | 'b' => "device",
        _ => "socket",
    }
}

impl Difference {
    pub(super) fn file(path: &str, change: Change) -> Self {
        Self { kind: Kind::File, name: path.to_owned(), change, from: None, to: None }
    }
}
