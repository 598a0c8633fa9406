//! `/dev` of a step: a tmpfs of its own, whose devices are binds of the host's.

use std::ffi::OsStr;
use std::io;

use super::stage::open_node;
use super::{INERT, MountAttrFlags, Recursive};
use crate::exec::error::Stage as At;
use crate::exec::wire::{During, Failure};
use crate::sys::dir::{Dir, OFlags};
use crate::sys::idmap;
use crate::sys::mount::{self, Option as FsOption};

/// Devices by name and number; each is made by the kernel with mode 0666.
const NODES: [(&str, (u32, u32)); 6] =
    [("null", (1, 3)), ("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("urandom", (1, 9)), ("tty", (5, 0))];

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
pub(super) fn attach(root: &Dir, shm_size: u64) -> Result<Dir, Failure> {
    build(root, shm_size).during(At::Dev, "set up /dev")
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
        dev.create_file(OsStr::new(name), 0o644)?;
        let node = mount::clone_tree(open_node(name, number)?, Recursive::No)?;
        mount::attach(node, dev.resolve(OsStr::new(name), OFlags::PATH | OFlags::NOFOLLOW)?)?;
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
