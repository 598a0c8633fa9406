//! Mount targets: which are allowed, and how one is found or made inside a root without ever leaving it.
//!
//! In: a root directory and a path as written. Out: a descriptor, and a list of what had to be made, which
//! [`remove`] takes away again. Invariants: a path is walked once, one component at a time, links are read and resolved
//! here, inside the root; what is made is made by name in an open parent; what is removed is still the inode that was made,
//! is empty, and leaves its parent's times as they were.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::ExecError;
use crate::sys::dir::{self, Dir, Kind, OFlags, Stat, Time};
use crate::sys::fds;

/// As many links as the kernel follows.
const MAX_LINKS: u32 = 40;
/// `PATH_MAX` without the NUL.
const MAX_PATH: usize = 4095;

/// Our own names in `/dev`, and what is below them.
const DEV_NAMES: [&str; 15] = [
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "fd", "stdin", "stdout", "stderr", "core",
    "mqueue", "console",
];

/// Cleans a mount target and refuses the ones no step may have.
pub(super) fn normalise(target: &str) -> Result<String, ExecError> {
    let refuse = |reason| Err(ExecError::Target { target: target.to_owned(), reason });
    if target.contains('\0') {
        return refuse("it contains a NUL");
    }
    if target.len() > MAX_PATH {
        return refuse("it is longer than 4,095 bytes");
    }
    let parts = clean(target);
    let path = parts.iter().fold(String::new(), |path, part| path + "/" + part);
    match parts[..] {
        [] => refuse("the root is not a mount target"),
        ["proc" | "sys", ..] => refuse("/proc and /sys belong to the sandbox"),
        ["dev"] => refuse("/dev belongs to the sandbox"),
        ["dev", name, ..] if DEV_NAMES.contains(&name) => refuse("it belongs to the sandbox"),
        _ => Ok(path),
    }
}

fn clean(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

/// Opens a path in a tree as a location, resolving links inside the tree.
pub(super) fn open_inside(tree: &Dir, path: &str) -> io::Result<OwnedFd> {
    tree.resolve(OsStr::new(path), OFlags::PATH)
}

/// What a path is to be if it has to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// Something that had to be made.
#[derive(Debug)]
pub(super) struct Made {
    parent: Dir,
    name: OsString,
    path: String,
    dev: u64,
    ino: u64,
    parent_time: Time,
}

/// Finds or makes `path` inside `root`, and adds what it made to `made`.
pub(super) fn reach(root: &Dir, path: &str, want: Want, made: &mut Vec<Made>) -> io::Result<OwnedFd> {
    let pending = path.split('/').map(OsString::from).collect();
    let mut walk = Walk { dirs: vec![root.reopen()?], pending, links: 0, path };
    while let Some(name) = walk.pending.pop_front() {
        if let Some(found) = walk.step(&name, want, made)? {
            return Ok(found);
        }
    }
    Ok(walk.dirs.pop().map(OwnedFd::from).expect("the root is never popped"))
}

/// A walk down from a root; `dirs` are the root and what has been entered below it.
struct Walk<'a> {
    dirs: Vec<Dir>,
    pending: VecDeque<OsString>,
    links: u32,
    path: &'a str,
}

impl Walk<'_> {
    /// Takes one component; returns a descriptor if it was the last and no directory.
    fn step(&mut self, name: &OsStr, want: Want, made: &mut Vec<Made>) -> io::Result<Option<OwnedFd>> {
        match name.as_bytes() {
            b"" | b"." => return Ok(None),
            b".." => {
                if self.dirs.len() > 1 {
                    self.dirs.pop();
                }
                return Ok(None);
            }
            _ => {}
        }
        let current = self.dirs.last().expect("the root is never popped");
        match current.try_stat(name)?.map(|stat| stat.kind()) {
            Some(Kind::Symlink) => self.follow(name)?,
            Some(Kind::Directory) => self.dirs.push(current.open_dir(name)?),
            Some(_) if self.is_last() => return current.resolve(name, OFlags::PATH | OFlags::NOFOLLOW).map(Some),
            Some(_) => return Err(io::ErrorKind::NotADirectory.into()),
            None if want == Want::File && self.is_last() => {
                made.push(make(current, name, self.path, |dir| dir.create_file(name, 0o644).map(drop))?);
                return current.resolve(name, OFlags::PATH | OFlags::NOFOLLOW).map(Some);
            }
            None => {
                made.push(make(current, name, self.path, |dir| dir.make_dir(name, 0o755))?);
                self.dirs.push(current.open_dir(name)?);
            }
        }
        Ok(None)
    }

    fn is_last(&self) -> bool {
        self.pending.iter().all(|name| name.is_empty() || name == ".")
    }

    /// Links of procfs such as `/proc/self/fd/7` lead to what they name whatever their text says: they are refused, but for
    /// those that are plain text.
    fn follow(&mut self, name: &OsStr) -> io::Result<()> {
        self.links += 1;
        let current = self.dirs.last().expect("the root is never popped");
        let plain = [&b"self"[..], b"thread-self", b"mounts", b"net"].contains(&name.as_bytes());
        if self.links > MAX_LINKS || (!plain && fds::filesystem_type(current.as_fd())? == fds::PROC_MAGIC) {
            return Err(dir::too_many_links());
        }
        let text = current.read_link(name)?;
        for part in text.as_bytes().split(|byte| *byte == b'/').rev() {
            self.pending.push_front(OsStr::from_bytes(part).to_owned());
        }
        if text.as_bytes().starts_with(b"/") {
            self.dirs.truncate(1);
        }
        Ok(())
    }
}

/// The parent's times are put back at once, so that a later look tells whether the step has changed the directory.
fn make(parent: &Dir, name: &OsStr, path: &str, how: impl FnOnce(&Dir) -> io::Result<()>) -> io::Result<Made> {
    let parent_time = parent.stat_self()?.mtime;
    how(parent)?;
    dir::set_time_of(parent, parent_time)?;
    let Stat { dev, ino, .. } = parent.stat(name)?;
    Ok(Made { parent: parent.reopen()?, name: name.to_owned(), path: path.to_owned(), dev, ino, parent_time })
}

impl Made {
    /// Gives the directory that was made to a user: never what another process has put in its place since.
    pub(super) fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        let made = self.parent.open_dir(&self.name)?;
        let Stat { dev, ino, .. } = made.stat_self()?;
        if (dev, ino) != (self.dev, self.ino) {
            return Err(io::Error::other(format!("{} was exchanged while it was made", self.path)));
        }
        dir::chown_of(&made, uid, gid)
    }

    /// Returns false if it was left because something is in it.
    fn remove(&self) -> io::Result<bool> {
        let Some(stat) = self.parent.try_stat(&self.name)? else { return Ok(true) };
        if (stat.dev, stat.ino) != (self.dev, self.ino) {
            return Ok(true);
        }
        let time = self.parent.stat_self()?.mtime;
        let removed = match stat.kind() {
            Kind::Directory => self.parent.remove_dir(&self.name),
            Kind::File if stat.size == 0 && stat.nlink == 1 => self.parent.unlink(&self.name),
            _ => return Ok(false),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(false),
            result => result?,
        }
        // What the step itself changed in the directory keeps the step's time.
        dir::set_time_of(&self.parent, if time == self.parent_time { self.parent_time } else { time })?;
        Ok(true)
    }
}

/// Removes what was made, the last first; returns the paths that had to stay.
pub(super) fn remove(made: &[Made]) -> Vec<String> {
    let stay = made.iter().rev().filter(|made| !made.remove().unwrap_or(false));
    stay.map(|made| made.path.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(temp.path().join("root")).expect("mkdir");
        let root = Dir::open(&temp.path().join("root")).expect("open");
        (temp, root)
    }

    #[test]
    fn m9_targets_of_the_sandbox_are_refused() {
        for (target, expected) in [
            ("/x", Some("/x")),
            ("x/../y//z/.", Some("/y/z")),
            ("/../../x", Some("/x")),
            ("/dev/shm", Some("/dev/shm")),
            ("/dev/fuse", Some("/dev/fuse")),
            ("/procs", Some("/procs")),
            ("/", None),
            ("", None),
            (".", None),
            ("/x/..", None),
            ("/proc", None),
            ("/proc/self", None),
            ("/x/../proc", None),
            ("//proc//1", None),
            ("/sys/fs", None),
            ("/dev", None),
            ("/dev/null", None),
            ("/dev/pts/0", None),
            ("/a\0b", None),
        ] {
            assert_eq!(normalise(target).ok().as_deref(), expected, "{target:?}");
        }
        assert!(normalise(&format!("/{}", "x".repeat(4095))).is_err());
        assert!(normalise(&format!("/{}", "x".repeat(4094))).is_ok());
    }

    #[test]
    fn m1_links_are_resolved_inside_the_root() {
        let (temp, root) = tree();
        let path = temp.path().join("root");
        for (name, to) in [("up", "../../.."), ("absolute", "/"), ("chain", "absolute/up/far"), ("far", "/a/b")] {
            symlink(to, path.join(name)).expect("symlink");
        }
        for target in ["up/one", "absolute/two", "chain/three", "far/../four", "../../five"] {
            let mut made = Vec::new();
            reach(&root, target, Want::Directory, &mut made).expect("reached");
            assert!(!made.is_empty(), "{target}");
        }
        for expected in ["one", "two", "a/b/three", "a/four", "five"] {
            assert!(path.join(expected).is_dir(), "{expected}");
        }
        assert_eq!(std::fs::read_dir(temp.path()).expect("read").count(), 1);
    }

    #[test]
    fn m1_a_loop_of_links_is_an_error() {
        let (temp, root) = tree();
        symlink("loop", temp.path().join("root/loop")).expect("symlink");
        assert!(reach(&root, "/loop/x", Want::Directory, &mut Vec::new()).is_err());
    }

    #[test]
    fn e2_magic_links_are_refused() {
        let root = Dir::open(std::path::Path::new("/")).expect("open");
        for target in ["/proc/self/fd/0", "/proc/self/cwd/x", "/proc/self/root"] {
            assert!(reach(&root, target, Want::Directory, &mut Vec::new()).is_err(), "{target}");
        }
    }

    #[test]
    fn e11_what_was_put_in_the_place_of_what_was_made_is_not_given_away() {
        let (temp, root) = tree();
        let path = temp.path().join("root");
        std::fs::create_dir(path.join("other")).expect("mkdir");
        symlink("other", path.join("link")).expect("symlink");
        std::fs::write(path.join("file"), "").expect("write");
        let other = root.stat(OsStr::new("other")).expect("stat");
        for name in ["other", "link", "file"] {
            let mut made = Vec::new();
            reach(&root, "/w", Want::Directory, &mut made).expect("reached");
            made[0].give_to(other.uid, other.gid).expect("it is still the one that was made");
            std::fs::remove_dir(path.join("w")).expect("rmdir");
            std::fs::rename(path.join(name), path.join("w")).expect("rename");
            assert!(made[0].give_to(other.uid, other.gid).is_err(), "{name}");
            std::fs::rename(path.join("w"), path.join(name)).expect("rename");
        }
    }

    #[test]
    fn m3_only_what_was_made_and_is_still_empty_is_removed() {
        let (temp, root) = tree();
        let path = temp.path().join("root");
        std::fs::create_dir(path.join("etc")).expect("mkdir");
        let time = Time { seconds: 1_000_000, nanoseconds: 7 };
        root.set_time(OsStr::new("etc"), time).expect("utimens");
        let mut made = Vec::new();
        for (target, want) in [
            ("/etc/hosts", Want::File),
            ("/etc/resolv.conf", Want::File),
            ("/x/y", Want::Directory),
            ("/kept/in", Want::Directory),
            ("/swapped", Want::File),
        ] {
            reach(&root, target, want, &mut made).expect("reached");
        }
        assert_eq!(root.stat(OsStr::new("etc")).expect("stat").mtime, time);
        std::fs::write(path.join("kept/in/file"), "").expect("write");
        // Not removed: its number would be free for what takes its place.
        std::fs::rename(path.join("swapped"), temp.path().join("outside")).expect("rename");
        symlink(temp.path().join("outside"), path.join("swapped")).expect("symlink");
        assert_eq!(remove(&made), ["/kept/in", "/kept/in"]);
        assert_eq!(root.stat(OsStr::new("etc")).expect("stat").mtime, time);
        assert_eq!(root.names().expect("names"), ["etc", "kept", "swapped"]);
        assert!(temp.path().join("outside").exists());
    }

    #[test]
    fn m3_a_removed_parent_that_became_a_link_is_not_followed() {
        let (temp, root) = tree();
        std::fs::create_dir_all(temp.path().join("outside/y")).expect("mkdir");
        let mut made = Vec::new();
        reach(&root, "/x/y", Want::Directory, &mut made).expect("reached");
        std::fs::remove_dir_all(temp.path().join("root/x")).expect("remove");
        symlink(temp.path().join("outside"), temp.path().join("root/x")).expect("symlink");
        assert!(remove(&made).is_empty());
        assert!(temp.path().join("outside/y").is_dir());
    }

    #[test]
    fn m3_a_directory_the_step_changed_keeps_the_steps_time() {
        let (temp, root) = tree();
        let mut made = Vec::new();
        std::fs::create_dir(temp.path().join("root/etc")).expect("mkdir");
        reach(&root, "/etc/hosts", Want::File, &mut made).expect("reached");
        let time = Time { seconds: 2_000_000_000, nanoseconds: 0 };
        root.set_time(OsStr::new("etc"), time).expect("utimens");
        assert!(remove(&made).is_empty());
        assert_eq!(root.stat(OsStr::new("etc")).expect("stat").mtime, time);
    }
}
