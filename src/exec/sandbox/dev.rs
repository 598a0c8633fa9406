//! `/dev` of a step: a tmpfs of its own, whose devices are binds of the host's.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::stage::open_node;
use super::{INERT, MountAttrFlags, Recursive};
use crate::exec::error::Stage as At;
use crate::exec::wire::{Confinement, During, Failure};
use crate::sys::dir::{self, Dir, Kind, OFlags};
use crate::sys::mount::{self, Option as FsOption};
use crate::sys::{fds, idmap};

/// Devices by name and number; each is made by the kernel with mode 0666.
const NODES: [(&str, (u32, u32)); 6] =
    [("null", (1, 3)), ("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("urandom", (1, 9)), ("tty", (5, 0))];

/// What a step without confinement gets besides, as in BuildKit, where the host has it: the log of the kernel, user-space devices,
/// virtual machines and networks, and files as disks.
const PRIVILEGED: [(&str, (u32, u32)); 6] = [
    ("kmsg", (1, 11)),
    ("cuse", (10, 203)),
    ("fuse", (10, 229)),
    ("kvm", (10, 232)),
    ("net/tun", (10, 200)),
    ("loop-control", (10, 237)),
];
/// The major number of files as disks.
const LOOP: u32 = 7;

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];

/// The group `tty` of most distributions.
const TTY_GROUP: u32 = 5;

/// Attaches it and returns it.
pub(super) fn attach(root: &Dir, shm_size: u64, confinement: Confinement) -> Result<Dir, Failure> {
    let dev = build(root, shm_size).during(At::Dev, "set up /dev")?;
    // Rootless, all that these are for is refused by the kernel anyway.
    if confinement == Confinement::Insecure && idmap::is_whole(&idmap::users().during(At::Dev, "read the id map")?) {
        attach_privileged(&dev).during(At::Dev, "set up the host's devices in /dev")?;
    }
    Ok(dev)
}

fn attach_privileged(dev: &Dir) -> io::Result<()> {
    dev.make_dir(OsStr::new("net"), 0o755)?;
    for (name, number) in PRIVILEGED {
        if let Some(node) = present(fds::open_path(&Path::new("/dev").join(name)))? {
            let stat = dir::stat_of(&node)?;
            if stat.kind() == Kind::CharDevice && stat.rdev == dir::device(number.0, number.1) {
                attach_node(dev, name, &node)?;
            }
        }
    }
    for entry in std::fs::read_dir("/dev")?.filter_map(Result::ok) {
        let name = entry.file_name();
        let minor = name.to_str().and_then(|name| name.strip_prefix("loop")).and_then(|number| number.parse().ok());
        let (Some(minor), Some(node)) = (minor, present(fds::open_path(&entry.path()))?) else { continue };
        let stat = dir::stat_of(&node)?;
        if stat.kind() == Kind::BlockDevice && stat.rdev == dir::device(LOOP, minor) {
            attach_node(dev, &format!("loop{minor}"), &node)?;
        }
    }
    Ok(())
}

/// Hosts differ in what they have.
fn present(opened: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn attach_node(dev: &Dir, name: &str, node: &OwnedFd) -> io::Result<()> {
    let path = OsStr::new(name);
    let (parent, last) = match name.split_once('/') {
        Some((parent, last)) => (dev.open_dir(OsStr::new(parent))?, OsStr::new(last)),
        None => (dev.reopen()?, path),
    };
    drop(parent.create_file(last, 0o644)?);
    mount::attach(mount::clone_tree(node, Recursive::No)?, parent.resolve(last, OFlags::PATH | OFlags::NOFOLLOW)?)
}

fn build(root: &Dir, shm_size: u64) -> io::Result<Dir> {
    let options = [FsOption::Value("mode", OsStr::new("755")), FsOption::Value("size", OsStr::new("65536k"))];
    let attributes = INERT.union(MountAttrFlags::MOUNT_ATTR_STRICTATIME);
    let tmpfs = mount::new_filesystem("tmpfs", &options, attributes)?;
    mount::attach(&tmpfs, root.open_dir(OsStr::new("dev"))?)?;
    let dev = Dir::from(tmpfs);
    for (name, to) in LINKS {
        dev.make_symlink(OsStr::new(name), OsStr::new(to))?;
    }
    for (name, number) in NODES {
        attach_node(&dev, name, &open_node(name, number)?)?;
    }
    let size = shm_size.to_string();
    let shm = [FsOption::Value("mode", OsStr::new("1777")), FsOption::Value("size", OsStr::new(&size))];
    attach_below(&dev, "shm", "tmpfs", &shm)?;
    attach_below(&dev, "mqueue", "mqueue", &[])?;
    attach_terminals(&dev)?;
    Ok(dev)
}

fn attach_below(dev: &Dir, name: &str, kind: &str, options: &[FsOption<'_>]) -> io::Result<()> {
    dev.make_dir(OsStr::new(name), 0o755)?;
    mount::attach(mount::new_filesystem(kind, options, INERT)?, dev.open_dir(OsStr::new(name))?)
}

/// The nodes of terminals are devices, so this mount alone may have them.
fn attach_terminals(dev: &Dir) -> io::Result<()> {
    let mut options = vec![
        FsOption::Flag("newinstance"),
        FsOption::Value("ptmxmode", OsStr::new("0666")),
        FsOption::Value("mode", OsStr::new("0620")),
    ];
    if idmap::contains(&idmap::groups()?, TTY_GROUP) {
        options.push(FsOption::Value("gid", OsStr::new("5")));
    }
    dev.make_dir(OsStr::new("pts"), 0o755)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
    mount::attach(mount::new_filesystem("devpts", &options, attributes)?, dev.open_dir(OsStr::new("pts"))?)
}
