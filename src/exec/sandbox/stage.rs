//! The staging tmpfs: where files and trees wait to be bound into the root.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::{INERT, INERT_READONLY};
use crate::exec::error::Stage as At;
use crate::exec::target::{self, Want};
use crate::exec::wire::{During, Failure, Step};
use crate::sys::dir::{Dir, Kind, OFlags};
use crate::sys::mount::{self, MountAttrFlags, Option as FsOption, Recursive};
use crate::sys::{dir, fds};

/// Directories of the host's tree that nothing here needs; the first one there is covered.
const COVERED: [&str; 4] = ["/tmp", "/run", "/etc", "/usr"];
/// Device number of `null`.
const NULL: (u32, u32) = (1, 3);

/// The staging tmpfs, attached.
#[derive(Debug)]
pub(in crate::exec) struct Stage {
    path: &'static Path,
    top: Dir,
    root_point: OwnedFd,
    null: OwnedFd,
}

impl Stage {
    /// Makes it, with the generated files in it.
    pub(super) fn new(step: &Step) -> Result<Self, Failure> {
        Self::make(step).during(At::Rootfs, "make a place to put the container together")
    }

    fn make(step: &Step) -> io::Result<Self> {
        let null = open_node("null", NULL)?;
        let options = [FsOption::Value("mode", OsStr::new("700"))];
        let tmpfs = mount::new_filesystem("tmpfs", &options, INERT)?;
        // A container runtime has to stay in sight.
        let hides =
            |path: &Path| step.runtime.as_ref().is_some_and(|runtime| Path::new(&runtime.program).starts_with(path));
        let mut candidates = COVERED.iter().map(Path::new).filter(|path| !hides(path));
        let covered = candidates.find_map(|path| Some((path, fds::open_path(path).ok()?)));
        let (path, point) = covered.ok_or(io::ErrorKind::NotFound)?;
        mount::attach(&tmpfs, point)?;
        let top = Dir::from(tmpfs);
        for name in ["root", "empty"] {
            top.make_dir(OsStr::new(name), 0o755)?;
        }
        for (name, text) in [("hosts", &step.hosts), ("resolv.conf", &step.resolv_conf)] {
            top.create_file(OsStr::new(name), 0o644)?.write_all(text.as_bytes())?;
        }
        let root_point = top.resolve(OsStr::new("root"), OFlags::PATH)?;
        Ok(Self { path, top, root_point, null })
    }

    /// Where it is.
    pub(in crate::exec) fn path(&self) -> &'static Path {
        self.path
    }

    /// Its top directory.
    pub(in crate::exec) fn top(&self) -> &Dir {
        &self.top
    }

    /// Where the root file system goes.
    pub(super) fn root_point(&self) -> &OwnedFd {
        &self.root_point
    }

    /// Makes a file with these bytes and returns a mount of it.
    pub(super) fn file(&self, name: &str, bytes: &[u8], owner: (u32, u32, u32)) -> io::Result<OwnedFd> {
        let mut file = self.top.create_file(OsStr::new(name), 0o600)?;
        file.write_all(bytes)?;
        let path = self.top.resolve(OsStr::new(name), OFlags::PATH)?;
        fds::set_owner_and_mode(path.as_fd(), owner.0, owner.1, owner.2)?;
        mount::clone_tree(&path, Recursive::No)
    }

    /// Attaches a tree here, so that parts of it can be mounted elsewhere.
    pub(super) fn park(&self, name: &str, tree: &OwnedFd) -> io::Result<()> {
        self.top.make_dir(OsStr::new(name), 0o700)?;
        mount::attach(tree, self.top.resolve(OsStr::new(name), OFlags::PATH)?)
    }

    /// Puts `hosts` and `resolv.conf` in place.
    pub(super) fn bind_files(&self, root: &Dir) -> Result<(), Failure> {
        for name in ["hosts", "resolv.conf"] {
            self.bind_file(root, name).during(At::Mounts, format!("mount /etc/{name}"))?;
        }
        Ok(())
    }

    fn bind_file(&self, root: &Dir, name: &str) -> io::Result<()> {
        let file = mount::clone_tree(self.top.resolve(OsStr::new(name), OFlags::PATH)?, Recursive::No)?;
        mount::set_attributes(&file, INERT_READONLY, Recursive::No)?;
        // It was there or was made; a second list of what is made stays empty.
        let point = target::reach(root, &format!("/etc/{name}"), Want::File, &mut Vec::new())?;
        mount::attach(file, point)
    }

    /// Hides what `point` names: a directory behind an empty one, anything else behind `null`.
    pub(super) fn mask(&self, point: &OwnedFd) -> io::Result<()> {
        if dir::stat_of(point)?.kind() == Kind::Directory {
            let empty = mount::clone_tree(self.top.resolve(OsStr::new("empty"), OFlags::PATH)?, Recursive::No)?;
            mount::set_attributes(&empty, INERT_READONLY, Recursive::No)?;
            return mount::attach(empty, point);
        }
        mount::attach(mount::clone_tree(&self.null, Recursive::No)?, point)
    }
}

/// Opens a device of the host and checks that it is the one its name says.
pub(super) fn open_node(name: &str, (major, minor): (u32, u32)) -> io::Result<OwnedFd> {
    let fd = fds::open_path(&Path::new("/dev").join(name))?;
    let stat = dir::stat_of(&fd)?;
    if stat.kind() != Kind::CharDevice || stat.rdev != dir::device(major, minor) {
        let message = format!("/dev/{name} of the host is not device {major}:{minor}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(fd)
}

/// Makes a mount read-only, with all below it.
pub(super) fn make_readonly(mount: &OwnedFd) -> io::Result<()> {
    mount::set_attributes(mount, INERT.union(MountAttrFlags::MOUNT_ATTR_RDONLY), Recursive::Yes)
}
