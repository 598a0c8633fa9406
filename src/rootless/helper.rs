//! The process that stays outside and maps ids into the namespace that its parent enters.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use super::RootlessError;
use super::subids;
use crate::sys::fds;
use crate::sys::idmap::Extent;
use crate::sys::proc::{self, Child, Ended, Forked};

/// Where `newuidmap` is looked for: the caller's PATH may name directories that others can write to.
const DIRECTORIES: [&str; 5] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"];

/// How ids get into the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mapping {
    /// Many ids, by a helper.
    Many(Many),
    /// Only the caller's own id, by the process itself.
    Single,
}

/// Many ids: by `newuidmap` and `newgidmap`, or by the helper itself where it holds the capabilities for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Many {
    pub(super) programs: Option<(String, String)>,
    pub(super) users: Vec<Extent>,
    pub(super) groups: Vec<Extent>,
}

impl Many {
    /// Maps what `/etc/subuid` and `/etc/subgid` give the caller.
    pub(super) fn with_subids(uid: u32, gid: u32) -> Result<Self, RootlessError> {
        let programs = Some((find("newuidmap")?, find("newgidmap")?));
        let users = subids::map("/etc/subuid", uid, uid)?;
        let groups = subids::map("/etc/subgid", uid, gid)?;
        Ok(Self { programs, users, groups })
    }
}

fn find(program: &'static str) -> Result<String, RootlessError> {
    let mut paths = DIRECTORIES.iter().map(|directory| format!("{directory}/{program}"));
    let is_there = |path: &String| std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    paths.find(is_there).ok_or(RootlessError::NoMapper { program })
}

/// The helper, waiting for its parent to be in the namespace.
#[derive(Debug)]
pub(super) struct Helper {
    users: Child,
    groups: Child,
    /// Who maps, as errors have it.
    names: [&'static str; 2],
    /// Closed to let them start.
    gates: [OwnedFd; 2],
}

impl Helper {
    /// Starts one process for users and one for groups; each ends without doing anything if its parent dies first.
    pub(super) fn start(many: &Many) -> Result<Self, RootlessError> {
        let (newuidmap, newgidmap) = many.programs.as_ref().map(|(users, groups)| (&**users, &**groups)).unzip();
        let (users, first) = start_one(newuidmap, "uid_map", &many.users)?;
        let (groups, second) = start_one(newgidmap, "gid_map", &many.groups)?;
        let names = if many.programs.is_some() { ["newuidmap", "newgidmap"] } else { ["the kernel"; 2] };
        Ok(Self { users, groups, names, gates: [first, second] })
    }

    /// Lets them map, and waits for them.
    pub(super) fn map(self) -> Result<Mapped, RootlessError> {
        for gate in self.gates {
            let opened = File::from(gate).write_all(b"x");
            opened.map_err(|source| RootlessError::Namespace { action: "start the helper", source })?;
        }
        let [first, second] = self.names;
        match (finish(self.users, first)?, finish(self.groups, second)?) {
            (None, None) => Ok(Mapped::All),
            (Some(failed), Some(_)) => Ok(Mapped::Nothing(failed)),
            (Some(failed), None) | (None, Some(failed)) => Err(failed),
        }
    }
}

/// What became of the maps.
#[derive(Debug)]
pub(super) enum Mapped {
    /// Both are written.
    All,
    /// None is, so that the process can still map its own id.
    Nothing(RootlessError),
}

/// Waits for a helper; returns how it failed, if it did.
fn finish(child: Child, program: &'static str) -> Result<Option<RootlessError>, RootlessError> {
    let ended = child.wait().map_err(|source| RootlessError::Namespace { action: "wait for the helper", source })?;
    Ok(match ended {
        Ended::Exited(0) => None,
        Ended::Exited(code) => Some(RootlessError::MapperFailed { program, code }),
        Ended::Signaled(_) => Some(RootlessError::MapperFailed { program, code: u8::MAX }),
    })
}

fn start_one(program: Option<&str>, map: &str, extents: &[Extent]) -> Result<(Child, OwnedFd), RootlessError> {
    let failed = |source| RootlessError::Namespace { action: "start the helper", source };
    let parent = proc::own_pid();
    let (waiting, gate) = fds::pipe().map_err(failed)?;
    match proc::fork().map_err(failed)? {
        Forked::Parent(child) => Ok((child, gate)),
        Forked::Child => {
            drop(gate);
            proc::exit_now(u8::from(run(waiting, parent, program, map, extents).is_err()))
        }
    }
}

/// The gate of a parent that died gives nothing.
fn run(waiting: OwnedFd, parent: u32, program: Option<&str>, map: &str, extents: &[Extent]) -> io::Result<()> {
    File::from(waiting).read_exact(&mut [0u8])?;
    match program {
        None => std::fs::write(format!("/proc/{parent}/{map}"), text(extents)),
        Some(program) => {
            let numbers = extents.iter().flat_map(|e| [e.inside, e.outside, e.count]);
            let mut args = vec![CString::new(program)?, CString::new(parent.to_string())?];
            for number in numbers {
                args.push(CString::new(number.to_string())?);
            }
            Err(proc::exec(&args[0].clone(), &args, &[]))
        }
    }
}

fn text(extents: &[Extent]) -> String {
    extents.iter().map(|e| format!("{} {} {}\n", e.inside, e.outside, e.count)).collect()
}

/// Maps the caller's id to 0; the kernel allows that to anyone who gives up changing groups.
pub(super) fn map_own_id(uid: u32, gid: u32) -> Result<(), RootlessError> {
    let failed = super::error::within("map the caller's id");
    proc::make_dumpable().map_err(&failed)?;
    for (file, content) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
    {
        std::fs::write(format!("/proc/self/{file}"), content).map_err(&failed)?;
    }
    Ok(())
}
