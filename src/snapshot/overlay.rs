//! Stacks of layers as overlay mounts, detached.
//!
//! In: folders relative to ROOT/snapshots. Out: descriptors of mounts. Invariants: always `userxattr`, so that layers have
//! one format whether root or a user made them; never `redirect_dir` or `metacopy`, which no tar could express; device
//! files never work in any of them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;

use crate::layer::place::make_device_whiteout;
use crate::store::Store;
use crate::sys::dir::Dir;
use crate::sys::mount::{self, Option as FsOption};
use crate::sys::workplace::Workplace;
use crate::sys::{MountAttrFlags, MsFlags};

/// The kernel's own limit (`OVL_MAX_STACK`).
pub(super) const MAX_LAYERS: usize = 500;

/// Longest text of options: a page with the zero that ends it.
const MAX_TEXT: usize = 4095;

/// What to stack, all paths relative to ROOT/snapshots.
#[derive(Debug, Clone, Default)]
pub(super) struct Stack {
    /// Read-only folders, top first.
    pub lowers: Vec<OsString>,
    /// The folder changes go to, and overlay's work folder beside it; none for a read-only stack.
    pub upper: Option<(OsString, OsString)>,
}

/// Makes overlay mounts, on a thread that stands in ROOT/snapshots: the kernel takes folders as text of at most 255 bytes.
#[derive(Debug)]
pub(super) struct Mounter {
    place: Workplace,
}

impl Mounter {
    pub(super) fn start(snapshots: Dir) -> io::Result<Self> {
        Ok(Self { place: Workplace::start("overlay-mounter", snapshots)? })
    }

    /// Mounts `stack`, detached.
    pub(super) fn mount(&self, stack: Stack) -> io::Result<OwnedFd> {
        self.place.run(move || stack.mount())
    }

    /// Tries whether a stack can be mounted and changed where `store` is.
    pub(super) fn probe(&self, store: &Store) -> io::Result<()> {
        let scratch = store.scratch();
        let (name, dir) = scratch.make_dir()?;
        for part in ["lower", "upper", "work"] {
            dir.make_dir(OsStr::new(part), 0o700)?;
        }
        let lower = dir.open_dir(OsStr::new("lower"))?;
        lower.make_dir(OsStr::new("gone"), 0o700)?;
        // Layers that are unpacked have whiteouts that the kernel did not make.
        make_device_whiteout(&lower, OsStr::new("removed"))?;
        let path = |part: &str| below(&[OsStr::new(".."), &scratch.path(), &name, OsStr::new(part)]);
        let stack = Stack { lowers: vec![path("lower")], upper: Some((path("upper"), path("work"))) };
        // A whiteout takes all an upper needs: a device file, an attribute, a rename from the work folder.
        Dir::from(self.mount(stack)?).open_dir(OsStr::new("."))?.remove_dir(OsStr::new("gone"))?;
        scratch.dir().remove_all(&name)
    }
}

/// Joins relative path parts.
pub(super) fn below(parts: &[&OsStr]) -> OsString {
    parts.join(OsStr::new("/"))
}

impl Stack {
    fn mount(&self) -> io::Result<OwnedFd> {
        let attributes = match self.upper {
            Some(_) => MountAttrFlags::MOUNT_ATTR_NODEV,
            None => MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_RDONLY,
        };
        match mount::new_filesystem("overlay", &self.options(), attributes) {
            // Before 6.5 the kernel has no `lowerdir+`, and says EINVAL.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.mount_with_one_string().map_err(|second| if is_too_long(&second) { second } else { error })
            }
            result => result,
        }
    }

    fn options(&self) -> Vec<FsOption<'_>> {
        let mut options = vec![FsOption::Flag("userxattr"), FsOption::Value("index", OsStr::new("off"))];
        options.extend(self.lowers.iter().map(|path| FsOption::Value("lowerdir+", path)));
        if let Some((upper, work)) = &self.upper {
            options.push(FsOption::Value("upperdir", upper));
            options.push(FsOption::Value("workdir", work));
            // A tree that is not committed is thrown away after a crash, so nothing in it needs to be durable.
            options.push(FsOption::Flag("volatile"));
        }
        options
    }

    /// The form of kernels 5.11 to 6.4: one text of at most a page.
    fn mount_with_one_string(&self) -> io::Result<OwnedFd> {
        let data = self.text();
        // What is longer the kernel would cut, and mount another stack or say that a folder is not there.
        if data.len() > MAX_TEXT {
            return Err(too_long(self.lowers.len()));
        }
        let read_only = if self.upper.is_none() { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        mount::new_overlay_from_text(&data, MsFlags::MS_NODEV | read_only)
    }

    fn text(&self) -> OsString {
        let mut data = OsString::from("userxattr,index=off,lowerdir=");
        data.push(self.lowers.join(OsStr::new(":")));
        if let Some((upper, work)) = &self.upper {
            for (key, value) in [(",upperdir=", upper), (",workdir=", work), (",volatile", &OsString::new())] {
                data.push(key);
                data.push(value);
            }
        }
        data
    }
}

fn too_long(count: usize) -> io::Error {
    let text = format!("{count} layers are too many for this kernel: before Linux 6.5 their names must fit in a page");
    io::Error::new(io::ErrorKind::ArgumentListTooLong, text)
}

fn is_too_long(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ArgumentListTooLong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_form_mounts_the_same_tree() {
        let temp = tempfile::tempdir().expect("temp dir");
        for (path, text) in [("1/a", "one"), ("2/a", "two"), ("2/b", "b")] {
            let path = temp.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        }
        let place = Workplace::start("test", Dir::open(temp.path()).expect("open")).expect("start");
        let stack = Stack { lowers: vec!["2".into(), "1".into()], upper: None };
        let tree = place.run(move || stack.mount_with_one_string()).expect("mount");
        let dir = Dir::from(tree).reopen().expect("reopen");
        assert_eq!(dir.names().expect("names"), ["a", "b"]);
        let a = dir.resolve(OsStr::new("a"), crate::sys::OFlags::RDONLY).expect("open");
        assert_eq!(io::read_to_string(std::fs::File::from(a)).expect("read"), "two");
    }

    #[test]
    fn old_kernels_form_says_when_it_is_too_long() {
        let temp = tempfile::tempdir().expect("temp dir");
        let lowers = |count: usize| (0..count).map(|n| OsString::from(format!("{}/fs", 12_345 + n))).collect();
        for (count, fits) in [(400, true), (500, false)] {
            let stack = Stack { lowers: lowers(count), upper: None };
            let place = Workplace::start("test", Dir::open(temp.path()).expect("open")).expect("start");
            let error = place.run(move || stack.mount_with_one_string()).expect_err("no such folders");
            assert_eq!(is_too_long(&error), !fits, "{count}: {error}");
        }
    }
}
