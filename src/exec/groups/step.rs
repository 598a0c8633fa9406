//! The group of one step, in the `__init` child.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::limits::Setting;
use super::place::write;
use crate::exec::error::Stage;
use crate::exec::wire::{During, Failure};
use crate::sys::dir::{Dir, OFlags};

/// How often the end of killed processes is looked for, and how long between two looks.
const LOOKS: (u32, Duration) = (200, Duration::from_millis(10));
/// More than any of the kernel's counters.
const MAX_TEXT: u64 = 64 << 10;

/// A group; removed by [`StepGroup::end`], or when dropped.
#[derive(Debug)]
pub(in crate::exec) struct StepGroup {
    parent: Dir,
    name: String,
    dir: Dir,
}

impl StepGroup {
    /// Makes it, and sets its limits.
    pub(in crate::exec) fn make(parent: OwnedFd, name: &str, settings: &[Setting]) -> Result<Self, Failure> {
        let parent = Dir::from(parent);
        let doing = "make the step's control group";
        let made = match parent.make_dir(OsStr::new(name), 0o755) {
            // A process of the same number was killed before it could remove it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                parent.remove_dir(OsStr::new(name)).and_then(|()| parent.make_dir(OsStr::new(name), 0o755))
            }
            made => made,
        };
        made.during(Stage::Group, doing)?;
        let dir = parent.open_dir(OsStr::new(name)).during(Stage::Group, doing)?;
        let group = Self { parent, name: name.to_owned(), dir };
        for (file, value) in settings {
            write(&group.dir, file, value).map_err(|error| not_set(file, value, &error))?;
        }
        Ok(group)
    }

    /// Returns the file that a process writes 0 to in order to be in it.
    pub(in crate::exec) fn door(&self) -> Result<OwnedFd, Failure> {
        self.dir
            .resolve(OsStr::new("cgroup.procs"), OFlags::WRONLY)
            .during(Stage::Group, "open the step's control group")
    }

    /// Returns whether the kernel killed a process of it for want of memory.
    pub(in crate::exec) fn ran_out_of_memory(&self) -> bool {
        let text = self.dir.resolve(OsStr::new("memory.events"), OFlags::RDONLY).and_then(read);
        text.is_ok_and(|text| killed(&text))
    }

    /// The step's processes have ended but for what shares the machine's; the kernel may take a moment to see it.
    fn remove(&self) -> io::Result<()> {
        // Kernels before 5.14 have no such file.
        let _killed = write(&self.dir, "cgroup.kill", "1");
        for _ in 0..LOOKS.0 {
            match self.parent.remove_dir(OsStr::new(&self.name)) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(LOOKS.1),
                result => return result,
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

impl Drop for StepGroup {
    fn drop(&mut self) {
        // What stays is removed by whoever comes by next.
        drop(self.remove());
    }
}

/// Puts the calling process into the group whose door this is.
pub(in crate::exec) fn join(door: &OwnedFd) -> Result<(), Failure> {
    let joined = door.as_fd().try_clone_to_owned().and_then(|door| io::Write::write_all(&mut File::from(door), b"0"));
    joined.during(Stage::Group, "join the step's control group")
}

fn not_set(file: &str, value: &str, error: &io::Error) -> Failure {
    let controller = file.split('.').next().unwrap_or(file);
    let message = match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{file} cannot be set: the controller {controller} is not delegated to rbuild")
        }
        _ => format!("failed to set {file} of the step's control group to {value:?}: {error}"),
    };
    Failure { stage: Stage::Group, message }
}

fn read(file: OwnedFd) -> io::Result<String> {
    let mut text = String::new();
    File::from(file).take(MAX_TEXT).read_to_string(&mut text)?;
    Ok(text)
}

fn killed(events: &str) -> bool {
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_for_want_of_memory_is_seen() {
        for (events, expected) in [
            ("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n", true),
            ("low 0\nmax 12\noom 1\noom_kill 0\n", false),
            ("", false),
        ] {
            assert_eq!(killed(events), expected, "{events:?}");
        }
    }

    #[test]
    fn a_controller_that_is_not_there_is_named() {
        let failure = not_set("memory.max", "5", &io::ErrorKind::NotFound.into());
        assert_eq!(failure.message, "memory.max cannot be set: the controller memory is not delegated to rbuild");
    }
}
