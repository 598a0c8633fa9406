//! Processes of one thread: fork, wait, signals, limits, identity, exec.
//!
//! Invariant: [`fork`] is called before any thread exists (start of the program, and `__init`), so the child may do all
//! that the parent may.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, WaitOptions};

/// A child process.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The parent.
    Parent(Child),
    /// The child.
    Child,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this code.
    Exited(u8),
    /// By this signal.
    Signaled(i32),
}

/// Makes a copy of this process, which must have one thread.
#[expect(unsafe_code, reason = "fork is unsafe in general")]
pub fn fork() -> io::Result<Forked> {
    // SAFETY: the process has one thread (this module's invariant), so no lock is held by another.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(Forked::Child),
        nix::unistd::ForkResult::Parent { child } => {
            let pid = Pid::from_raw(child.as_raw()).expect("a child's pid is positive");
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
            Ok(Forked::Parent(Child { pid, pidfd }))
        }
    }
}

impl Child {
    /// Kills it; if it is pid 1 of a namespace, all processes of the namespace.
    pub fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Waits for its end.
    pub fn wait(&self) -> io::Result<Ended> {
        wait_for_end(self.pid)
    }

    /// Its descriptor, readable once it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn wait_for_end(pid: Pid) -> io::Result<Ended> {
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                if let Some(ended) = how_it_ended(status) {
                    return Ok(ended);
                }
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes processes below this one its children when their parents end.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Waits for the end of the process with this number, in the numbers of this process's pid namespace: a child, or one that becomes a
/// child because another child ends.
pub fn wait_for(pid: u32) -> io::Result<Ended> {
    let wanted = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == wanted => {
                if let Some(ended) = how_it_ended(status) {
                    return Ok(ended);
                }
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn how_it_ended(status: rustix::process::WaitStatus) -> Option<Ended> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(Ended::Exited(code as u8)),
        (None, Some(signal)) => Some(Ended::Signaled(signal)),
        (None, None) => None,
    }
}

/// Kills all children of this process, those that [`adopt_orphans`] brings included, until none is left; gives up after
/// `rounds` of them.
pub fn kill_children(rounds: usize) -> io::Result<()> {
    for _ in 0..rounds {
        let children = children()?;
        for pid in &children {
            // It may have ended by itself.
            let _ended = rustix::process::kill_process(*pid, rustix::process::Signal::KILL);
        }
        // One that came after the look is not waited for but looked for again.
        let options = if children.is_empty() { WaitOptions::NOHANG } else { WaitOptions::empty() };
        match rustix::process::wait(options) {
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("processes go on starting others"))
}

/// Looks through all processes: the kernel's own list of children is not there on every machine.
fn children() -> io::Result<Vec<Pid>> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if parent_of(&stat) == Some(own) {
            found.extend(Pid::from_raw(pid));
        }
    }
    Ok(found)
}

/// The name of a program, in brackets, may hold anything.
fn parent_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Returns a descriptor of this process, readable once it has ended.
pub fn own_pidfd() -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?)
}

/// Returns this process's id.
pub fn own_pid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()
}

/// Returns whether `fd` is readable or closed by its other side now.
pub fn is_ready(fd: impl AsFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::event::poll(&mut fds, Some(&none))? > 0)
}

/// Waits until one of two descriptors is readable or closed by its other side; says which of them are.
pub fn wait_for_either(first: impl AsFd, second: impl AsFd) -> io::Result<(bool, bool)> {
    loop {
        let mut fds = [PollFd::new(&first, PollFlags::IN), PollFd::new(&second, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty())),
        }
    }
}

/// Has the kernel kill this process when its parent ends.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}

/// Keeps others of the same user from tracing this process and from reading its memory; writes no core.
pub fn make_undumpable() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_limit("core", 0, 0)
}

/// Decides whether memory comes in huge pages where the machine gives them unasked: a page of 2 MiB for each thread's first allocation
/// is most of what a small build would need. Programs started from here inherit it.
pub fn use_huge_pages(wanted: bool) -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(!wanted)?)
}

/// Gives the files of this process in procfs back to its user, who may have been changed since the program was started.
pub fn make_dumpable() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?)
}

/// Returns which start of the machine this is: a number the kernel makes up each time.
pub fn boot_id() -> Option<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    u128::from_str_radix(&text.trim_end().replace('-', ""), 16).ok()
}

/// Starts a new session, without a terminal.
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Sets the bits that new files never get.
pub fn set_umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}

/// Gives all signals their default effect and blocks none: the Rust runtime ignores `SIGPIPE`, and exec would hand that on.
#[expect(unsafe_code, reason = "setting a handler is unsafe in general")]
pub fn reset_signals() -> io::Result<()> {
    for signal in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default effect runs no code of ours.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    }
    Ok(nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// Names of limits as users write them, and their numbers.
const LIMITS: [(&str, nix::sys::resource::Resource); 15] = {
    use nix::sys::resource::Resource as R;
    [
        ("core", R::RLIMIT_CORE),
        ("cpu", R::RLIMIT_CPU),
        ("data", R::RLIMIT_DATA),
        ("fsize", R::RLIMIT_FSIZE),
        ("locks", R::RLIMIT_LOCKS),
        ("memlock", R::RLIMIT_MEMLOCK),
        ("msgqueue", R::RLIMIT_MSGQUEUE),
        ("nice", R::RLIMIT_NICE),
        ("nofile", R::RLIMIT_NOFILE),
        ("nproc", R::RLIMIT_NPROC),
        ("rss", R::RLIMIT_RSS),
        ("rtprio", R::RLIMIT_RTPRIO),
        ("rttime", R::RLIMIT_RTTIME),
        ("sigpending", R::RLIMIT_SIGPENDING),
        ("stack", R::RLIMIT_STACK),
    ]
};

fn limit(name: &str) -> io::Result<nix::sys::resource::Resource> {
    let found = LIMITS.iter().find(|(known, _)| *known == name).map(|(_, resource)| *resource);
    found.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("unknown limit {name:?}")))
}

/// Returns soft and hard value of a limit.
pub fn get_limit(name: &str) -> io::Result<(u64, u64)> {
    Ok(nix::sys::resource::getrlimit(limit(name)?)?)
}

/// Sets soft and hard value of a limit; `u64::MAX` is unlimited.
pub fn set_limit(name: &str, soft: u64, hard: u64) -> io::Result<()> {
    Ok(nix::sys::resource::setrlimit(limit(name)?, soft, hard)?)
}

/// Sets supplementary groups.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<nix::unistd::Gid> = groups.iter().map(|g| nix::unistd::Gid::from_raw(*g)).collect();
    Ok(nix::unistd::setgroups(&groups)?)
}

/// Sets group, then user: real, effective and saved.
pub fn set_ids(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::Uid::from_raw(uid), nix::unistd::Gid::from_raw(gid));
    nix::unistd::setresgid(gid, gid, gid)?;
    Ok(nix::unistd::setresuid(uid, uid, uid)?)
}

/// Returns whether this process may execute the file.
pub fn may_execute(path: &CStr) -> bool {
    let flags = rustix::fs::AtFlags::EACCESS;
    rustix::fs::accessat(rustix::fs::CWD, path, rustix::fs::Access::EXEC_OK, flags).is_ok()
}

/// Replaces this process's program; returns only if that fails.
pub fn exec(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    match nix::unistd::execve(path, args, env) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}

/// Makes descriptor `fd` the standard input.
pub fn use_as_stdin(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(fd)?)
}

/// Points standard output and error to `fd`.
pub fn use_as_output(fd: impl AsFd) -> io::Result<()> {
    rustix::stdio::dup2_stdout(&fd)?;
    Ok(rustix::stdio::dup2_stderr(&fd)?)
}

/// Ends this process at once, running no handler of the runtime.
#[expect(unsafe_code, reason = "skips destructors")]
pub fn exit_now(code: u8) -> ! {
    // SAFETY: the call ends the process.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Returns the directory this process is in, as the kernel names it: `(unreachable)…` if it is outside the root.
pub fn current_dir() -> io::Result<Vec<u8>> {
    Ok(rustix::process::getcwd(Vec::new())?.into_bytes())
}

/// Changes to an open directory.
pub fn change_dir(dir: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::fchdir(dir)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_stands_behind_the_name_of_the_program() {
        assert_eq!(parent_of("7 (a) S (b) 3) S 42 7 7 0"), Some(42));
        assert_eq!(parent_of("7 (a"), None);
    }

    #[test]
    fn limits_have_names() {
        assert!(get_limit("nofile").is_ok());
        assert_eq!(get_limit("nofiles").expect_err("unknown").kind(), io::ErrorKind::InvalidInput);
        assert!(LIMITS.is_sorted_by_key(|(name, _)| *name));
    }
}
