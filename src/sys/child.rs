//! Programs of the machine that run beside the build: bounded, in a group of their own, gone when the build is.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::ptr;

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// What a program may use; none is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChildLimits {
    /// Bytes of address space.
    pub memory: Option<u64>,
    /// Bytes of one file.
    pub file_size: Option<u64>,
}

/// Makes a program start with umask 022, in a process group of its own, within limits, and end when the thread that
/// started it does. That thread must live as long as the program may: one of the runtime's workers, not one for blocking work.
#[expect(unsafe_code, reason = "what runs between fork and exec is unsafe in general")]
pub fn confine(command: &mut Command, limits: ChildLimits) {
    command.process_group(0);
    // SAFETY: only system calls are made, nothing is allocated, and no lock is taken.
    unsafe {
        command.pre_exec(move || prepare(limits));
    }
}

fn prepare(limits: ChildLimits) -> io::Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    for (resource, limit) in [(Resource::As, limits.memory), (Resource::Fsize, limits.file_size)] {
        let Some(limit) = limit else { continue };
        let most = rustix::process::getrlimit(resource).maximum;
        let limit = Some(most.map_or(limit, |most| most.min(limit)));
        rustix::process::setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    }
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

/// Leaves a descriptor open in the program, and in what that starts.
#[expect(unsafe_code, reason = "what runs between fork and exec is unsafe in general")]
pub fn leave_open(command: &mut Command, descriptor: OwnedFd) {
    // SAFETY: one system call is made, nothing is allocated, and no lock is taken.
    unsafe {
        command.pre_exec(move || Ok(rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::empty())?));
    }
}

/// Starts this program anew in another role, with `input` as standard input and nothing else of ours, and does not wait for it.
pub fn detached(role: &str, input: impl AsFd) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("rbuild").arg(role).env_clear();
    command.stdin(input.as_fd().try_clone_to_owned()?).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(drop)
}

/// Makes a command execute `program` of the directory `root`, with that directory as its root, instead of what it names; if the
/// kernel does not, the command fails to start with the kernel's reason, and nothing else is tried.
#[expect(unsafe_code, reason = "what runs between fork and exec is unsafe in general")]
pub fn execute_in(command: &mut Command, root: OwnedFd, program: &'static CStr) {
    // SAFETY: only system calls are made, nothing is allocated, and no lock is taken.
    unsafe {
        command.pre_exec(move || Err(enter_and_execute(&root, program)));
    }
}

#[expect(unsafe_code, reason = "the wrappers of execve allocate")]
fn enter_and_execute(root: &OwnedFd, program: &CStr) -> io::Error {
    let entered = rustix::process::fchdir(root).and_then(|()| rustix::process::chroot(c"."));
    if let Err(error) = entered {
        return error.into();
    }
    let (args, env) = ([program.as_ptr(), ptr::null()], [ptr::null()]);
    // SAFETY: both lists end with a null pointer, and their texts outlive the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// A running program that [`confine`] has prepared; killed with all it started when dropped, unless it has ended.
#[derive(Debug)]
pub struct Group(Option<u32>);

impl Group {
    /// Takes the id of the program.
    pub fn new(leader: Option<u32>) -> Self {
        Self(leader)
    }

    /// Asks all of them to end.
    pub fn terminate(&self) {
        if let Some(leader) = self.0 {
            signal_group(leader, Signal::TERM);
        }
    }

    /// The program has ended, and its id may soon be another's.
    pub fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            signal_group(leader, Signal::KILL);
        }
    }
}

/// Sends a signal to all processes of a group that [`confine`] made.
fn signal_group(leader: u32, signal: Signal) {
    let leader = i32::try_from(leader).ok().and_then(Pid::from_raw);
    // A group without a process is what was wanted.
    let _ = leader.map(|leader| rustix::process::kill_process_group(leader, signal));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_umask_hold() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask; ulimit -c; ulimit -v; ulimit -f"]);
        confine(&mut command, ChildLimits { memory: Some(1 << 30), file_size: Some(1 << 20) });
        let output = command.output().expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0022\n0\n1048576\n2048\n");
    }

    #[test]
    fn what_is_left_open_reaches_grandchildren() {
        let bytes = crate::sys::fds::sealed_bytes("test", b"hello").expect("memfd");
        let number = std::os::fd::AsRawFd::as_raw_fd(&bytes);
        let mut command = Command::new("/bin/sh");
        // By its path: a shell need not know numbers of two digits.
        command.args(["-c", &format!("sh -c 'cat /proc/self/fd/{number}'; true")]);
        leave_open(&mut command, bytes);
        assert_eq!(command.output().expect("sh runs").stdout, b"hello");
    }

    #[test]
    fn a_group_goes_as_a_whole() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 60 & wait"]);
        confine(&mut command, ChildLimits::default());
        let mut child = command.spawn().expect("sh runs");
        drop(Group::new(Some(child.id())));
        assert!(!child.wait().expect("it ended").success());
    }
}
