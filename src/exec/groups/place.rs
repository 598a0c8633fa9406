//! Where groups of steps can be made, found and made ready before the first of them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::sys::dir::{Dir, OFlags};
use crate::sys::{fds, idmap, proc};

/// Where the hierarchy is.
const ROOT: &str = "/sys/fs/cgroup";
/// The parent of steps that name none.
const DEFAULT_PARENT: &str = "rbuild";
/// What the limits of steps need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "cpuset"];
/// What names of groups begin with.
const PREFIX: &str = "rbuild-";
/// Errors that no controller will be spared.
const FINAL: [io::ErrorKind; 3] =
    [io::ErrorKind::ResourceBusy, io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
/// More than any of the kernel's lists.
const MAX_TEXT: u64 = 1 << 20;

/// A directory of the hierarchy that groups of steps are made in.
#[derive(Debug)]
pub(in crate::exec) struct Place {
    dir: Dir,
    path: String,
}

impl Place {
    /// Makes the parent `name` ready; an error says why there can be none.
    pub(in crate::exec) fn prepare(name: &str) -> Result<Self, String> {
        let kind = fds::open_path(Path::new(ROOT)).and_then(fds::filesystem_type);
        if !kind.is_ok_and(|kind| kind == fds::CGROUP2_MAGIC) {
            return Err(format!("there is no unified control group hierarchy (cgroup v2) at {ROOT}"));
        }
        let base = base().map_err(|error| format!("failed to find the control group of this process: {error}"))?;
        let name = if name.is_empty() { DEFAULT_PARENT } else { name };
        Self::below(Path::new(ROOT), &base, name)
    }

    fn below(root: &Path, base: &str, name: &str) -> Result<Self, String> {
        let mut path = base.trim_matches('/').to_owned();
        let told = |path: &str, error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                format!("the control group /{path} is not delegated to this user: {error}")
            }
            io::ErrorKind::ResourceBusy => format!("processes other than rbuild are in the control group /{path}"),
            _ => format!("failed to make groups in the control group /{path}: {error}"),
        };
        let mut dir = Dir::open(&root.join(&path)).map_err(|error| told(&path, error))?;
        for part in parts(name)? {
            hand_on(&dir).map_err(|error| told(&path, error))?;
            dir = enter(&dir, part).map_err(|error| told(&path, error))?;
            path = format!("{path}/{part}").trim_start_matches('/').to_owned();
        }
        hand_on(&dir).map_err(|error| told(&path, error))?;
        remove_those_of_the_dead(&dir);
        Ok(Self { dir, path })
    }

    /// Returns a descriptor of the directory.
    pub(in crate::exec) fn directory(&self) -> io::Result<OwnedFd> {
        self.dir.reopen().map(OwnedFd::from)
    }

    /// Returns its path below the root of the hierarchy.
    pub(in crate::exec) fn path(&self) -> &str {
        &self.path
    }

    /// Returns the name of the group of this process's step of this number.
    pub(in crate::exec) fn name_of(number: u64) -> String {
        format!("{PREFIX}{}-{number}", proc::own_pid())
    }
}

fn parts(name: &str) -> Result<Vec<&str>, String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty()).collect();
    match parts.iter().find(|part| [".", ".."].contains(part) || part.contains('\0')) {
        Some(part) => Err(format!("{part:?} is no name of a control group")),
        None => Ok(parts),
    }
}

/// Root makes its groups at the top, as container runtimes do; all others in the group that they were given.
fn base() -> io::Result<String> {
    if idmap::is_whole(&idmap::users()?) {
        return Ok(String::new());
    }
    let text = std::fs::read_to_string("/proc/self/cgroup")?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::"));
    own.map(str::to_owned).ok_or_else(|| io::Error::other("it is in none"))
}

fn enter(dir: &Dir, name: &str) -> io::Result<Dir> {
    match dir.make_dir(OsStr::new(name), 0o755) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    dir.open_dir(OsStr::new(name))
}

/// Lets groups below this one have the controllers it has. Groups but the topmost hand them on only if no process is in them, and
/// the one process that may be is this. Some controllers are handed on nevertheless, and make the groups below useless.
fn hand_on(dir: &Dir) -> io::Result<()> {
    let (there, on) = (words(dir, "cgroup.controllers")?, words(dir, "cgroup.subtree_control")?);
    let is_missing = |name: &&&str| there.iter().any(|there| there == *name) && !on.iter().any(|on| on == *name);
    let missing: Vec<&&str> = CONTROLLERS.iter().filter(is_missing).collect();
    if !missing.is_empty() && !is_topmost(dir)? {
        leave(dir)?;
        if !words(dir, "cgroup.procs")?.is_empty() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
    }
    for name in missing {
        match write(dir, "cgroup.subtree_control", &format!("+{name}")) {
            Err(error) if FINAL.contains(&error.kind()) => return Err(error),
            // A limit that needs it says so.
            Err(error) => tracing::debug!(%error, controller = name, "failed to hand a controller on"),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn words(dir: &Dir, file: &str) -> io::Result<Vec<String>> {
    let file = File::from(dir.resolve(OsStr::new(file), OFlags::RDONLY)?);
    let mut text = String::new();
    file.take(MAX_TEXT).read_to_string(&mut text)?;
    Ok(text.split_ascii_whitespace().map(str::to_owned).collect())
}

/// Writes to a file of a group.
pub(super) fn write(dir: &Dir, file: &str, text: &str) -> io::Result<()> {
    // The kernel takes it in one piece.
    File::from(dir.resolve(OsStr::new(file), OFlags::WRONLY)?).write_all(text.as_bytes())
}

/// The top of the whole hierarchy is of no type, and may hold processes beside groups.
fn is_topmost(dir: &Dir) -> io::Result<bool> {
    Ok(dir.try_stat(OsStr::new("cgroup.type"))?.is_none())
}

/// Moves this process out of a group, if it is in it, into one below.
fn leave(dir: &Dir) -> io::Result<()> {
    let own = proc::own_pid().to_string();
    if !words(dir, "cgroup.procs")?.contains(&own) {
        return Ok(());
    }
    remove_those_of_the_dead(dir);
    let leaf = enter(dir, &format!("{PREFIX}{own}"))?;
    write(&leaf, "cgroup.procs", &own)
}

/// A group with a process in it cannot be removed, so a wrong guess does no harm.
fn remove_those_of_the_dead(dir: &Dir) {
    for name in dir.names().unwrap_or_default() {
        let owner = name.to_str().and_then(owner);
        if owner.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            // Another process may be doing the same.
            drop(dir.remove_dir(&name));
        }
    }
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_groups_stay_below_their_base() {
        assert_eq!(parts("/a//b.slice/"), Ok(vec!["a", "b.slice"]));
        for name in ["..", "a/../b", "./a"] {
            assert!(parts(name).is_err(), "{name}");
        }
        assert_eq!(
            (owner("rbuild-12-3"), owner("rbuild-7"), owner("rbuild"), owner("x-1-1")),
            (Some(12), Some(7), None, None)
        );
    }

    #[test]
    fn where_no_group_can_be_made_the_reason_is_given() {
        let temp = tempfile::tempdir().expect("temp dir");
        let error = Place::below(temp.path(), "/user.slice", "x").expect_err("nothing there");
        assert!(error.contains("the control group /user.slice"), "{error}");
    }
}
