//! Pid 1 of a step on its way to the program: namespaces and mounts; [`super::process`] does the rest.
//!
//! In: a [`Plan`]. Out: nothing but a failure; on success the process has become the program. Everything is attached through
//! descriptors. A staging tmpfs covers a directory of the host's tree, in this mount namespace only:
//!
//! ```text
//! stage/root      the root file system, where the program's tree is put together
//! stage/hosts …   files that are bound into it
//! stage/empty     what hides directories
//! stage/N         trees of which only a part is mounted
//! ```
//!
//! A step that shares the machine's processes is no pid 1, and its `/proc` is a copy of the machine's.
//!
//! Invariant: after the pivot nothing of the host's tree or the stage can be reached by a path.

mod dev;
mod procfs;
mod stage;
mod user_mounts;

use std::fs::File;
use std::os::fd::OwnedFd;

use super::error::Stage as At;
use super::groups;
use super::process;
use super::target::Want;
use super::user::Identity;
use super::wire::{Confinement, During, Failure, Network, Step};
use crate::sys::dir::Dir;
use crate::sys::mount::{self, MountAttrFlags, Recursive};
use crate::sys::ns::{self, Namespace};
use crate::sys::proc;

pub(super) use procfs::{MASKED, READONLY, hide_cgroups};
pub(super) use stage::Stage;

/// How many of the processes that a step left running are killed before that is given up.
pub(super) const KILL_ROUNDS: usize = 1 << 16;

/// All that pid 1 needs, made before it exists.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) step: Step,
    pub(super) tree: OwnedFd,
    pub(super) sources: Vec<Source>,
    pub(super) identity: Identity,
    pub(super) set_groups: bool,
    pub(super) supervisor: OwnedFd,
    /// The way into the step's control group.
    pub(super) group: Option<OwnedFd>,
}

/// What is mounted, opened.
#[derive(Debug)]
pub(super) enum Source {
    /// A tree, or the selected part of it.
    Tree { tree: OwnedFd, selected: Option<OwnedFd>, want: Want },
    /// A node of the machine.
    Device { node: OwnedFd },
    /// Memory.
    Tmpfs { size: u64 },
    /// A file made of these bytes.
    Secret { file: File, uid: u32, gid: u32, mode: u32 },
}

impl Source {
    /// Returns what its mount point has to be.
    pub(super) fn want(&self) -> Want {
        match self {
            Self::Tree { want, .. } => *want,
            Self::Tmpfs { .. } => Want::Directory,
            Self::Secret { .. } | Self::Device { .. } => Want::File,
        }
    }
}

/// No set-id programs, no devices, no programs at all.
const INERT: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
/// The same, and no writing.
const INERT_READONLY: MountAttrFlags = INERT.union(MountAttrFlags::MOUNT_ATTR_RDONLY);

/// Becomes the program; returns only if something fails.
pub(super) fn enter_and_execute(plan: &Plan) -> Failure {
    match enter(plan).and_then(|root| process::execute(plan, &root)) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn enter(plan: &Plan) -> Result<Dir, Failure> {
    let Assembled { root, .. } = assemble(plan)?;
    ns::pivot(&root).during(At::Pivot, "make the image's tree the root")?;
    Ok(root)
}

/// The step's tree, put together.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) root: Dir,
    pub(super) dev: Dir,
    pub(super) proc: Dir,
    pub(super) stage: Stage,
}

/// Enters namespaces and puts the tree together in them.
pub(super) fn assemble(plan: &Plan) -> Result<Assembled, Failure> {
    isolate(plan)?;
    let stage = Stage::new(&plan.step)?;
    let root = attach_root(plan, &stage)?;
    let dev = dev::attach(&root, plan.step.shm_size, plan.step.confinement)?;
    let proc = procfs::attach(&root, &stage, &plan.step)?;
    procfs::attach_sys(&root, &stage, &plan.step)?;
    stage.bind_files(&root)?;
    user_mounts::attach(plan, &stage, &root, &dev)?;
    ns::set_names(&plan.step.hostname).during(At::Namespaces, "set the host name")?;
    Ok(Assembled { root, dev, proc, stage })
}

fn isolate(plan: &Plan) -> Result<(), Failure> {
    process::stay_with(&plan.supervisor)?;
    proc::new_session().during(At::Namespaces, "start a session")?;
    // Before the namespace is made that takes it for the top.
    plan.group.as_ref().map_or(Ok(()), groups::join)?;
    let mut namespaces = vec![Namespace::Mount, Namespace::Ipc, Namespace::Uts, Namespace::Cgroup];
    if plan.step.network == Network::Own {
        namespaces.push(Namespace::Net);
    }
    ns::unshare(&namespaces).during(At::Namespaces, "make namespaces")?;
    ns::make_mounts_private().during(At::Namespaces, "make all mounts private")?;
    if plan.step.network == Network::Own {
        ns::loopback_up().during(At::Namespaces, "bring up the loopback device")?;
    }
    proc::set_umask(0o022);
    Ok(())
}

/// Mount points have been made already, so that a root that may not be written to is covered by a read-only copy at once.
fn attach_root(plan: &Plan, stage: &Stage) -> Result<Dir, Failure> {
    let doing = "attach the root file system";
    if plan.step.confinement == Confinement::Sandbox {
        mount::set_attributes(&plan.tree, MountAttrFlags::MOUNT_ATTR_NODEV, Recursive::Yes)
            .during(At::Rootfs, doing)?;
    }
    mount::attach(&plan.tree, stage.root_point()).during(At::Rootfs, doing)?;
    let writable = plan.tree.try_clone().during(At::Rootfs, doing)?;
    if !plan.step.readonly {
        return Ok(Dir::from(writable));
    }
    let readonly = mount::clone_tree(&writable, Recursive::Yes).during(At::Rootfs, doing)?;
    mount::set_attributes(&readonly, MountAttrFlags::MOUNT_ATTR_RDONLY, Recursive::Yes).during(At::Rootfs, doing)?;
    mount::attach(&readonly, &writable).during(At::Rootfs, doing)?;
    Ok(Dir::from(readonly))
}
