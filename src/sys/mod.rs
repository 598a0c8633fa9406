//! The only code that talks to the kernel beyond what std offers: descriptors, mounts, namespaces, ids, locks.
//!
//! In: descriptors and names of one path component, or paths resolved inside a root. Out: descriptors. Invariant: a path a
//! container could change is resolved once, to a descriptor, and never used as a string again.

pub mod apparmor;
pub mod caps;
pub mod child;
pub mod dir;
pub mod fds;
pub mod file;
pub mod idmap;
pub mod keyring;
pub mod lock;
pub mod mount;
pub mod netlink;
pub mod ns;
pub mod proc;
pub mod programs;
pub mod seccomp;
pub mod terminal;
pub mod unnamed;
pub mod walk;
pub mod workplace;

pub use nix::mount::MsFlags;
pub use rustix::fs::OFlags;
pub use rustix::mount::MountAttrFlags;

/// Returns the effective user id.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Returns the effective group id.
pub fn effective_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

/// Returns bytes that nobody can guess and that do not come twice.
pub fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // The kernel gives up to 256 bytes in one go.
    if count == N { Ok(bytes) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// The processor time of this thread: what it waits for does not count.
#[cfg(test)]
pub fn thread_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().expect("it is not negative")
}

/// Does what may take no more than so much of this thread's processor time, however busy the machine is; by the clock, which other
/// threads and whatever it waits for count too, no more than ten times that.
#[cfg(test)]
pub fn within<T>(limit: std::time::Duration, work: impl FnOnce() -> T) -> T {
    let (begin, clock) = (thread_time(), std::time::Instant::now());
    let result = work();
    let (took, passed) = (thread_time() - begin, clock.elapsed());
    assert!(took < limit && passed < limit * 10, "{took:?} of the processor, {passed:?} by the clock");
    result
}

/// Returns whether the file system or kernel lacks what was asked for.
pub fn is_unsupported(error: &std::io::Error) -> bool {
    [libc::EOPNOTSUPP, libc::ENOSYS].map(Some).contains(&error.raw_os_error())
}
