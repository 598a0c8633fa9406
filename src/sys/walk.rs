//! Walks through trees of any depth, with few descriptors and no recursion.
//!
//! In: an open directory. Out: the directories below it, one at a time. Invariants: no link is followed; at most
//! [`MAX_OPEN`] directories are open in a walk, and the stack does not grow with the tree; a walk that goes down only
//! never opens a directory twice.

use std::ffi::{OsStr, OsString};
use std::io;
use std::vec::IntoIter;

use super::dir::Dir;

/// Most directories kept open at once: those that are innermost.
const MAX_OPEN: usize = 48;
/// As many are opened again together when a walk comes back to closed ones, since each time the way starts at the root.
const REOPENED: usize = 32;

/// The way from a root down to one directory, of which only the last part is open.
#[derive(Debug)]
pub struct Descent<'a> {
    root: &'a Dir,
    names: Vec<OsString>,
    /// The innermost directories, in the order of `names`.
    open: Vec<Dir>,
}

impl<'a> Descent<'a> {
    /// Starts at `root`.
    pub fn new(root: &'a Dir) -> Self {
        Self { root, names: Vec::new(), open: Vec::new() }
    }

    /// Returns the directory the way leads to.
    pub fn here(&self) -> &Dir {
        self.open.last().unwrap_or(self.root)
    }

    /// Returns how many directories are between the root and here, the last one included.
    pub fn depth(&self) -> usize {
        self.names.len()
    }

    /// Returns the way as a path below the root.
    pub fn path(&self) -> OsString {
        self.names.join(OsStr::new("/"))
    }

    /// Goes on to the directory `name`, which must not be a link.
    pub fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        let below = self.here().open_dir(name)?;
        if self.open.len() == MAX_OPEN {
            self.open.drain(..MAX_OPEN - REOPENED);
        }
        self.open.push(below);
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Goes back to the directory above and returns the name of the one that was left; none at the root.
    pub fn leave(&mut self) -> io::Result<Option<OsString>> {
        let Some(name) = self.names.pop() else { return Ok(None) };
        self.open.pop();
        if self.open.is_empty() && !self.names.is_empty() {
            self.reopen()?;
        }
        Ok(Some(name))
    }

    fn reopen(&mut self) -> io::Result<()> {
        let (above, last) = self.names.split_at(self.names.len().saturating_sub(REOPENED));
        let above = self.root.open_below(&above.join(OsStr::new("/")))?;
        for name in last {
            let dir = self.open.last().unwrap_or(&above).open_dir(name)?;
            self.open.push(dir);
        }
        Ok(())
    }
}

/// A walk through a tree: the names in each directory on the way that were not taken yet, and what the caller notes for it.
///
/// ```text
/// loop {
///     if let Some(name) = walk.next_name() { …; walk.enter(&name, note)?; continue }   // a directory is entered or not
///     … walk.here() is a directory that is done …
///     let Some((name, note)) = walk.leave()? else { break };                           // now walk.here() is the one above
/// }
/// ```
#[derive(Debug)]
pub struct Walk<'a, T> {
    way: Descent<'a>,
    levels: Vec<(IntoIter<OsString>, T)>,
    note: T,
    rest: IntoIter<OsString>,
}

impl<'a, T> Walk<'a, T> {
    /// Starts in `root`, whose note is `note`.
    pub fn new(root: &'a Dir, note: T) -> io::Result<Self> {
        Ok(Self { way: Descent::new(root), levels: Vec::new(), note, rest: root.names()?.into_iter() })
    }

    /// Returns the directory the walk is in.
    pub fn here(&self) -> &Dir {
        self.way.here()
    }

    /// Returns the note of the directory the walk is in.
    pub fn note(&mut self) -> &mut T {
        &mut self.note
    }

    /// Takes the next name in the directory the walk is in, in byte order; none when all were taken.
    pub fn next_name(&mut self) -> Option<OsString> {
        self.rest.next()
    }

    /// Returns the names that were not taken yet.
    pub fn names(&self) -> &[OsString] {
        self.rest.as_slice()
    }

    /// Goes into the directory `name`, which must not be a link.
    pub fn enter(&mut self, name: &OsStr, note: T) -> io::Result<()> {
        self.way.enter(name)?;
        let rest = std::mem::replace(&mut self.rest, self.way.here().names()?.into_iter());
        self.levels.push((rest, std::mem::replace(&mut self.note, note)));
        Ok(())
    }

    /// Goes back to the directory above, and returns the name and note of the one that was left; none at the root.
    pub fn leave(&mut self) -> io::Result<Option<(OsString, T)>> {
        let Some(name) = self.way.leave()? else { return Ok(None) };
        let Some((rest, note)) = self.levels.pop() else { return Ok(None) };
        self.rest = rest;
        Ok(Some((name, std::mem::replace(&mut self.note, note))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of directories `a`, each with the directories `beside` as well. In memory, where thousands of them are cheap.
    fn chain(depth: usize, beside: &[&str]) -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("temp dir");
        let root = Dir::open(temp.path()).expect("open");
        let mut at = root.reopen().expect("open");
        for _ in 0..depth {
            for name in beside.iter().chain(&["a"]) {
                at.make_dir(OsStr::new(name), 0o755).expect("mkdir");
            }
            at = at.open_dir(OsStr::new("a")).expect("open");
        }
        (temp, root)
    }

    /// More than a thread's stack or a process's descriptors would take, were there a frame or a descriptor for each.
    const DEPTH: usize = 4000;

    #[test]
    fn a_walk_visits_every_directory_once_and_comes_back() {
        let (_temp, root) = chain(DEPTH, &["b"]);
        let mut walk = Walk::new(&root, 0usize).expect("walk");
        let (mut entered, mut left, mut deepest) = (0, 0, 0);
        loop {
            if let Some(name) = walk.next_name() {
                let depth = *walk.note() + 1;
                walk.enter(&name, depth).expect("enter");
                (entered, deepest) = (entered + 1, deepest.max(depth));
                continue;
            }
            assert!(walk.way.open.len() <= MAX_OPEN);
            let at = *walk.note();
            let Some((name, depth)) = walk.leave().expect("leave") else { break };
            assert_eq!((depth, *walk.note()), (at, at - 1));
            assert!(walk.here().stat(&name).expect("it is in the directory above").is_dir());
            left += 1;
        }
        assert_eq!((entered, left, deepest), (2 * DEPTH, 2 * DEPTH, DEPTH));
        root.remove_all(OsStr::new("a")).expect("remove");
    }

    #[test]
    fn trees_are_removed_whatever_their_depth() {
        let (_temp, root) = chain(20_000, &[]);
        let small = std::thread::Builder::new().stack_size(128 << 10);
        let removed = small.spawn(move || root.remove_all(OsStr::new("a")).map(|()| root)).expect("thread");
        let root = removed.join().expect("no overflow").expect("removed");
        assert!(root.names().expect("names").is_empty());
    }

    #[test]
    fn links_are_not_entered() {
        let (temp, root) = chain(1, &[]);
        std::os::unix::fs::symlink("a", temp.path().join("c")).expect("link");
        assert!(Descent::new(&root).enter(OsStr::new("c")).is_err());
    }
}
