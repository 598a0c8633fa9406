//! The mounts that the step itself asks for.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;

use super::stage::Stage;
use super::{INERT, MountAttrFlags, Plan, Recursive, Source};
use crate::exec::error::Stage as At;
use crate::exec::target;
use crate::exec::wire::{self, During, Failure};
use crate::sys::dir::{self, Dir, Kind};
use crate::sys::fds;
use crate::sys::mount::{self, Option as FsOption};

/// More directories than a target has components.
const DEEPEST: u32 = 4096;

/// Attaches them in order, parents first.
pub(super) fn attach(plan: &Plan, stage: &Stage, root: &Dir, dev: &Dir) -> Result<(), Failure> {
    for (index, (wanted, source)) in plan.step.mounts.iter().zip(&plan.sources).enumerate() {
        let doing = format!("mount {}", wanted.dest);
        let mount = open(source, stage, &format!("mount{index}")).during(At::Mounts, &doing)?;
        let mut attributes = attributes(source);
        attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, wanted.readonly || matches!(source, Source::Secret { .. }));
        mount::set_attributes(&mount, attributes, Recursive::Yes).during(At::Mounts, &doing)?;
        let point = target::reach(root, &wanted.dest, source.want(), &mut Vec::new()).during(At::Mounts, &doing)?;
        refuse_own(&point, root, dev).during(At::Mounts, &doing)?;
        mount::attach(mount, point).during(At::Mounts, &doing)?;
    }
    Ok(())
}

fn attributes(source: &Source) -> MountAttrFlags {
    match source {
        Source::Secret { .. } => INERT,
        // The one mount of a step whose devices work.
        Source::Device { .. } => MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC),
        Source::Tree { .. } | Source::Tmpfs { .. } => {
            MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV)
        }
    }
}

/// A part of a tree can be copied once the tree is attached in this mount namespace.
fn open(source: &Source, stage: &Stage, name: &str) -> io::Result<OwnedFd> {
    match source {
        Source::Tree { tree: mount, selected: None, .. } | Source::Device { node: mount } => mount.try_clone(),
        Source::Tree { tree, selected: Some(selected), .. } => {
            stage.park(name, tree)?;
            mount::clone_tree(selected, Recursive::Yes)
        }
        Source::Secret { file, uid, gid, mode } => {
            stage.file(name, &fds::read_at_most(file, wire::MAX_STEP)?, (*uid, *gid, *mode))
        }
        Source::Tmpfs { size } => {
            let size = size.to_string();
            let options = [FsOption::Value("mode", OsStr::new("1777")), FsOption::Value("size", OsStr::new(&size))];
            mount::new_filesystem("tmpfs", &options, MountAttrFlags::empty())
        }
    }
}

/// A link of the image may lead a harmless target to what belongs to the sandbox.
fn refuse_own(point: &OwnedFd, root: &Dir, dev: &Dir) -> io::Result<()> {
    let kind = fds::filesystem_type(point)?;
    let (stat, dev) = (dir::stat_of(point)?, dev.stat_self()?);
    let own = [fds::PROC_MAGIC, fds::SYSFS_MAGIC, fds::DEVPTS_MAGIC, fds::MQUEUE_MAGIC].contains(&kind)
        || stat.kind() == Kind::CharDevice
        || (stat.dev, stat.ino) == (dev.dev, dev.ino)
        || (stat.is_dir() && is_below_the_kernels(point, root)?);
    if own { Err(io::Error::new(io::ErrorKind::InvalidInput, "the target belongs to the sandbox")) } else { Ok(()) }
}

/// Masks and control groups are mounts of other kinds, on `/proc` and `/sys`.
fn is_below_the_kernels(point: &OwnedFd, root: &Dir) -> io::Result<bool> {
    let top = root.stat_self()?;
    let mut at = Dir::from(point.try_clone()?);
    for _ in 0..DEEPEST {
        if [fds::PROC_MAGIC, fds::SYSFS_MAGIC].contains(&fds::filesystem_type(&at)?) {
            return Ok(true);
        }
        let stat = at.stat_self()?;
        if (stat.dev, stat.ino) == (top.dev, top.ino) {
            return Ok(false);
        }
        at = at.open_dir(OsStr::new(".."))?;
    }
    Ok(true)
}
