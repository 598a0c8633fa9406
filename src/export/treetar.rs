//! Result trees as one tar (`type=tar`).
//!
//! In: trees. Out: a tar on a writer, members in the order of the walk, owners and permissions as in the tree. Unlike a
//! directory, a tar can hold set-id bits, devices and foreign owners without harm to who writes it; sockets cannot be
//! archived and are left out. Invariant: the same trees and epoch give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::ExportError;
use super::spec::TreeTarget;
use super::tarball::{self, Writer};
use super::tree::{self, Entry, Tree, Visitor};
use crate::layer::entry::{Entry as Member, EntryKind};
use crate::sys::dir::{Kind, Time};

/// Extended attributes that mean something outside this machine.
fn is_portable(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// Writes the trees to `out`; `shown` names it in errors.
pub fn write(
    trees: &[Tree],
    target: &TreeTarget,
    epoch: Option<i64>,
    out: &mut dyn Write,
    shown: &Path,
) -> Result<(), ExportError> {
    let split = target.platform_split.unwrap_or(trees.len() > 1);
    let mut tar =
        TreeTar { writer: Writer::new(out), shown, prefix: Vec::new(), links: BTreeMap::new(), epoch, seen: None };
    if !split && trees.len() > 1 {
        tar.seen = Some(BTreeSet::new());
    }
    for tree in trees {
        tar.links.clear();
        if split {
            tar.prefix = format!("{}/", tree.directory()).into_bytes();
            let name = tar.prefix.clone();
            let mut member = tarball::member(EntryKind::Directory, name, 0o755, 0);
            member.mtime.seconds = epoch.unwrap_or_default();
            tar.append(&member, &mut io::empty())?;
        }
        tree::walk(&tree.root, &mut tar)?;
    }
    tar.writer.finish().map_err(ExportError::write(shown))
}

struct TreeTar<'w> {
    writer: Writer<'w>,
    shown: &'w Path,
    prefix: Vec<u8>,
    links: BTreeMap<(u64, u64), Vec<u8>>,
    epoch: Option<i64>,
    /// Paths written so far, where several trees go to one place.
    seen: Option<BTreeSet<PathBuf>>,
}

impl TreeTar<'_> {
    fn append(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), ExportError> {
        self.writer.append(member, content).map_err(ExportError::write(self.shown))
    }

    /// Returns whether a directory is there already; for anything else that is an error.
    fn is_repeated(&mut self, entry: &Entry<'_>) -> Result<bool, ExportError> {
        let Some(seen) = &mut self.seen else { return Ok(false) };
        let fresh = seen.insert(entry.path.to_owned());
        if !fresh && !entry.stat.is_dir() {
            let path = entry.path.display();
            let problem = format!("several platforms have /{path}, and platform-split=false puts them in one place");
            return Err(ExportError::options(problem));
        }
        Ok(!fresh)
    }

    /// Returns the type of the member, and what it links to.
    fn kind(&mut self, entry: &Entry<'_>, name: &[u8]) -> Result<Option<(EntryKind, Vec<u8>)>, ExportError> {
        Ok(Some(match entry.stat.kind() {
            Kind::Directory => (EntryKind::Directory, Vec::new()),
            Kind::CharDevice => (EntryKind::CharDevice, Vec::new()),
            Kind::BlockDevice => (EntryKind::BlockDevice, Vec::new()),
            Kind::Fifo => (EntryKind::Fifo, Vec::new()),
            Kind::Symlink => {
                let target = entry.dir.read_link(entry.name).map_err(entry.unreadable())?;
                (EntryKind::Symlink, target.into_vec())
            }
            Kind::File if entry.stat.nlink > 1 => {
                let identity = (entry.stat.dev, entry.stat.ino);
                match self.links.get(&identity) {
                    Some(first) => (EntryKind::HardLink, first.clone()),
                    None => {
                        self.links.insert(identity, name.to_vec());
                        (EntryKind::File, Vec::new())
                    }
                }
            }
            Kind::File => (EntryKind::File, Vec::new()),
            Kind::Socket => return Ok(None),
        }))
    }
}

impl Visitor for TreeTar<'_> {
    fn enter(&mut self, entry: &Entry<'_>) -> Result<(), ExportError> {
        if self.is_repeated(entry)? {
            return Ok(());
        }
        let mut name = self.prefix.clone();
        name.extend_from_slice(entry.path.as_os_str().as_bytes());
        let Some((kind, link)) = self.kind(entry, &name)? else { return Ok(()) };
        if kind == EntryKind::Directory {
            name.push(b'/');
        }
        let stat = &entry.stat;
        let xattrs: Vec<(Vec<u8>, Vec<u8>)> = match kind {
            EntryKind::File | EntryKind::Directory => {
                let all = entry.dir.xattrs(entry.name).map_err(entry.unreadable())?;
                all.into_iter()
                    .map(|(key, value)| (key.into_vec(), value))
                    .filter(|(key, _)| is_portable(key))
                    .collect()
            }
            _ => Vec::new(),
        };
        let size = if kind == EntryKind::File { stat.size } else { 0 };
        let mut member = tarball::member(kind, name, stat.permissions(), size);
        member.link = link;
        (member.uid, member.gid) = (stat.uid, stat.gid);
        member.mtime = Time { seconds: self.epoch.unwrap_or(stat.mtime.seconds), nanoseconds: 0 };
        member.device = device(stat.rdev);
        member.xattrs = xattrs;
        match kind {
            EntryKind::File => {
                let mut file = entry.dir.open_file(entry.name).map_err(entry.unreadable())?;
                self.append(&member, &mut file)
            }
            _ => self.append(&member, &mut io::empty()),
        }
    }

    fn leave(&mut self, _entry: &Entry<'_>) -> Result<(), ExportError> {
        Ok(())
    }
}

/// Splits a device number as Linux does.
fn device(rdev: u64) -> (u32, u32) {
    let major = ((rdev >> 8) & 0xfff) | ((rdev >> 32) & !0xfff);
    let minor = (rdev & 0xff) | ((rdev >> 12) & !0xff);
    (major as u32, minor as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::dir::Dir;

    #[test]
    fn holds_what_the_tree_holds() {
        let temp = tempfile::tempdir().expect("temp dir");
        let long = "n".repeat(180);
        std::fs::create_dir(temp.path().join("d")).expect("mkdir");
        std::fs::write(temp.path().join("d").join(&long), "content").expect("write");
        std::fs::hard_link(temp.path().join("d").join(&long), temp.path().join("h")).expect("link");
        std::os::unix::fs::symlink("d", temp.path().join("l")).expect("symlink");
        let tree =
            || Tree { platform: "linux/amd64".parse().expect("platform"), root: Dir::open(temp.path()).expect("open") };
        let tar = |trees: &[Tree]| {
            let mut out = Vec::new();
            write(trees, &TreeTarget::default(), Some(7), &mut out, Path::new("-")).expect("tar");
            out
        };
        let one = tar(&[tree()]);
        assert_eq!(one, tar(&[tree()]));
        let listing = list(&one);
        assert_eq!(listing, ["d/", &format!("d/{long}"), &format!("h link to d/{long}"), "l -> d"]);
        let mut arm = tree();
        arm.platform = "linux/arm64".parse().expect("platform");
        let both = list(&tar(&[tree(), arm]));
        assert!(both.contains(&"linux_amd64/".into()) && both.contains(&"linux_arm64/l -> d".into()), "{both:?}");
    }

    /// Lists with the tar of this machine, an independent reader.
    fn list(tar: &[u8]) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), tar).expect("write");
        let output =
            std::process::Command::new("tar").env("TZ", "UTC").arg("-tvf").arg(file.path()).output().expect("tar runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("utf-8");
        assert!(text.lines().all(|line| line.contains("1970-01-01 00:00")), "{text}");
        text.lines().map(|line| line.split_once("00:00 ").expect("time").1.to_owned()).collect()
    }
}
