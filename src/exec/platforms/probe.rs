//! Whether programs of an architecture run here: by running one.
//!
//! In: an architecture. Out: whether its smallest program ended well in a root that holds nothing else, as a container's does
//! not hold the emulator either. The kernel's list of emulators could not tell as much: containers mostly cannot see it, and
//! what the processor and the kernel run by themselves is not on it.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::elf::Architecture;
use crate::sys::child;
use crate::sys::dir::Dir;
use crate::sys::mount::{self, MountAttrFlags, Option as FsOption};

/// What a probe takes at most; emulators need a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const NAME: &str = "probe";

/// What a probe tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The program ran.
    Runs,
    /// The kernel knows no way to run it.
    Unknown,
    /// The kernel has an emulator for it that cannot be reached from a container.
    OutOfReach,
    /// It was started and did not end well.
    Fails,
}

/// A process that another thread forks at the wrong moment keeps the program open for writing until it executes its own.
const BUSY_TRIES: usize = 50;
const BUSY_WAIT: Duration = Duration::from_millis(4);

/// Runs the program of an architecture.
pub(super) async fn probe(architecture: &Architecture) -> io::Result<Verdict> {
    let root = root(architecture)?;
    for _ in 1..BUSY_TRIES {
        match try_in(&root).await {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => tokio::time::sleep(BUSY_WAIT).await,
            verdict => return verdict,
        }
    }
    try_in(&root).await
}

async fn try_in(root: &Dir) -> io::Result<Verdict> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    child::execute_in(&mut command, root.as_fd().try_clone_to_owned()?, c"/probe");
    let mut command = tokio::process::Command::from(command);
    match command.kill_on_drop(true).spawn() {
        Err(error) => refused(error),
        Ok(mut child) => {
            let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
            let well = matches!(ended, Ok(Ok(status)) if status.success());
            Ok(if well { Verdict::Runs } else { Verdict::Fails })
        }
    }
}

fn refused(error: io::Error) -> io::Result<Verdict> {
    const NO_EXECUTABLE: i32 = 8;
    match error.raw_os_error() {
        Some(NO_EXECUTABLE) => Ok(Verdict::Unknown),
        // The program is there: what is not is its emulator.
        _ if error.kind() == io::ErrorKind::NotFound => Ok(Verdict::OutOfReach),
        _ => Err(error),
    }
}

/// Makes a file system that holds nothing but the program.
fn root(architecture: &Architecture) -> io::Result<Dir> {
    let options = [FsOption::Value("mode", OsStr::new("755"))];
    let tmpfs = mount::new_filesystem("tmpfs", &options, MountAttrFlags::empty())?;
    let root = Dir::from(tmpfs);
    root.create_file(OsStr::new(NAME), 0o755)?.write_all(&architecture.program())?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::super::elf::architecture;
    use super::*;

    #[tokio::test]
    async fn what_the_processor_runs_runs() {
        let own = architecture(&crate::image::Platform::host().architecture).expect("known");
        assert_eq!(probe(own).await.expect("probed"), Verdict::Runs);
    }

    #[test]
    fn refusals_are_told_apart() {
        let refused = |number| refused(io::Error::from_raw_os_error(number));
        assert_eq!(refused(8).expect("told"), Verdict::Unknown);
        assert_eq!(refused(2).expect("told"), Verdict::OutOfReach);
        assert!(refused(13).is_err());
    }
}
