//! `/proc` and `/sys` of a step.
//!
//! Invariants: `/proc` is a fresh one of the step's own pid namespace, or, for a step that shares the machine's processes, a copy of the
//! one that rbuild sees; what is hidden or read-only in it is so in the
//! mount made here, found through its descriptor; a path that the kernel does not have is skipped, any other error ends it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::stage::{self, Stage};
use super::{INERT, INERT_READONLY, MountAttrFlags, Recursive};
use crate::exec::error::Stage as At;
use crate::exec::wire::{Confinement, During, Failure, Processes, Step};
use crate::sys::dir::{Dir, OFlags};
use crate::sys::{fds, mount};

/// What is hidden in `/proc`.
pub(in crate::exec) const MASKED: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
/// What is read-only in `/proc`.
pub(in crate::exec) const READONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
const MASKED_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];
const CPUS: &str = "devices/system/cpu";

/// Attaches a procfs. A container runtime mounts the step's own itself: until then this one tells targets that belong to it.
pub(super) fn attach(root: &Dir, stage: &Stage, step: &Step) -> Result<Dir, Failure> {
    let proc = match step.processes {
        Processes::Own => mount::new_filesystem("proc", &[], INERT).during(At::Proc, "mount a fresh /proc")?,
        Processes::Shared => shared_procfs().during(At::Proc, "copy the mount of /proc")?,
    };
    let proc = attach_at(root, "proc", proc).during(At::Proc, "attach /proc")?;
    let masked_by_runtime = step.runtime.is_some() && step.processes == Processes::Own;
    if step.confinement == Confinement::Sandbox && !masked_by_runtime {
        hide(&proc, stage)?;
    }
    Ok(proc)
}

fn shared_procfs() -> io::Result<OwnedFd> {
    let copy = mount::clone_tree(fds::open_path(Path::new("/proc"))?, Recursive::Yes)?;
    mount::set_attributes(&copy, INERT, Recursive::Yes)?;
    Ok(copy)
}

fn hide(proc: &Dir, stage: &Stage) -> Result<(), Failure> {
    for path in MASKED {
        mask(proc, stage, path).during(At::Proc, format!("hide /proc/{path}"))?;
    }
    for path in READONLY {
        protect(proc, path).during(At::Proc, format!("make /proc/{path} read-only"))?;
    }
    Ok(())
}

fn attach_at(root: &Dir, name: &str, mount: OwnedFd) -> io::Result<Dir> {
    mount::attach(&mount, root.open_dir(OsStr::new(name))?)?;
    Ok(Dir::from(mount))
}

fn find(dir: &Dir, path: &str) -> io::Result<Option<OwnedFd>> {
    match dir.resolve(OsStr::new(path), OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn mask(dir: &Dir, stage: &Stage, path: &str) -> io::Result<()> {
    find(dir, path)?.map_or(Ok(()), |point| stage.mask(&point))
}

fn protect(proc: &Dir, path: &str) -> io::Result<()> {
    let Some(point) = find(proc, path)? else { return Ok(()) };
    let copy = mount::clone_tree(&point, Recursive::Yes)?;
    stage::make_readonly(&copy)?;
    mount::attach(copy, point)
}

/// Attaches a sysfs: a fresh one where the kernel gives it, which shows the step's own network devices, else the host's,
/// read-only in all its mounts; where neither can be had there is none, as with BuildKit without root.
pub(super) fn attach_sys(root: &Dir, stage: &Stage, step: &Step) -> Result<(), Failure> {
    let Some(mount) = new_sysfs(step).or_else(host_sysfs) else { return Ok(()) };
    let sys = attach_at(root, "sys", mount).during(At::Sys, "attach /sys")?;
    replace_cgroups(&sys, step).during(At::Sys, "attach /sys/fs/cgroup")?;
    if step.confinement == Confinement::Insecure {
        return Ok(());
    }
    for path in MASKED_SYS {
        mask(&sys, stage, path).during(At::Sys, format!("hide /sys/{path}"))?;
    }
    mask_thermal(&sys, stage).during(At::Sys, "hide the thermal counters")
}

/// Only steps without confinement may write to what shows the kernel.
fn kernel_attributes(step: &Step) -> MountAttrFlags {
    if step.confinement == Confinement::Insecure { INERT } else { INERT_READONLY }
}

fn new_sysfs(step: &Step) -> Option<OwnedFd> {
    mount::new_filesystem("sysfs", &[], kernel_attributes(step)).ok()
}

fn host_sysfs() -> Option<OwnedFd> {
    let host = fds::open_path(Path::new("/sys")).ok()?;
    if fds::filesystem_type(&host).ok()? != fds::SYSFS_MAGIC {
        return None;
    }
    let copy = mount::clone_tree(&host, Recursive::Yes).ok()?;
    stage::make_readonly(&copy).ok()?;
    Some(copy)
}

/// Programs read their limits there; the step's cgroup namespace makes its own group the root of what it sees.
fn replace_cgroups(sys: &Dir, step: &Step) -> io::Result<()> {
    let unified = fds::open_path(Path::new("/sys/fs/cgroup")).and_then(fds::filesystem_type);
    if !unified.is_ok_and(|kind| kind == fds::CGROUP2_MAGIC) {
        return Ok(());
    }
    let Ok(cgroups) = mount::new_filesystem("cgroup2", &[], kernel_attributes(step)) else { return Ok(()) };
    match find(sys, "fs/cgroup")? {
        Some(point) => mount::attach(cgroups, point),
        None => Ok(()),
    }
}

/// Covers the machine's control groups with ones that cannot be written, for a program that would make some. Where that cannot be had
/// the program finds out itself.
pub(in crate::exec) fn hide_cgroups() {
    let covered = mount::new_filesystem("cgroup2", &[], INERT_READONLY)
        .and_then(|cgroups| mount::attach(cgroups, fds::open_path(Path::new("/sys/fs/cgroup"))?));
    drop(covered);
}

fn mask_thermal(sys: &Dir, stage: &Stage) -> io::Result<()> {
    let Some(cpus) = find(sys, CPUS)? else { return Ok(()) };
    for name in Dir::from(cpus).reopen()?.names()? {
        let name = name.to_string_lossy();
        if name.strip_prefix("cpu").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())) {
            mask(sys, stage, &format!("{CPUS}/{name}/thermal_throttle"))?;
        }
    }
    Ok(())
}
