//! Namespaces, the root of a mount namespace, names of the machine, the loopback device.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

/// Kinds of namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// Users and groups.
    User,
    /// Mounts.
    Mount,
    /// Processes, for children made from now on.
    Pid,
    /// Message queues and shared memory.
    Ipc,
    /// Host and domain name.
    Uts,
    /// The root of the cgroup tree as seen.
    Cgroup,
    /// Network devices, routes, sockets.
    Net,
}

impl Namespace {
    fn flag(self) -> UnshareFlags {
        match self {
            Self::User => UnshareFlags::NEWUSER,
            Self::Mount => UnshareFlags::NEWNS,
            Self::Pid => UnshareFlags::NEWPID,
            Self::Ipc => UnshareFlags::NEWIPC,
            Self::Uts => UnshareFlags::NEWUTS,
            Self::Cgroup => UnshareFlags::NEWCGROUP,
            Self::Net => UnshareFlags::NEWNET,
        }
    }
}

/// Moves this process, which has one thread, into new namespaces.
#[expect(unsafe_code, reason = "leaving shared state behind is unsafe in general")]
pub fn unshare(namespaces: &[Namespace]) -> io::Result<()> {
    let flags = namespaces.iter().fold(UnshareFlags::empty(), |flags, namespace| flags | namespace.flag());
    // SAFETY: none of the flags unshares the table of descriptors, so no descriptor changes its meaning.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Moves this process, which has one thread, into the mount namespace of another; its root is the root there.
pub fn enter_mounts_of(pid: u32) -> io::Result<()> {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
    let kind = Some(rustix::thread::LinkNameSpaceType::Mount);
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?)
}

/// Stops mounts from being propagated into and out of this mount namespace.
pub fn make_mounts_private() -> io::Result<()> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", flags)?)
}

/// Makes the mount whose root is `root` the root of this mount namespace and drops the old one; ends in `/`.
pub fn pivot(root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Sets the host name, and an empty domain name.
#[expect(unsafe_code, reason = "no wrapper for the domain name")]
pub fn set_names(hostname: &str) -> io::Result<()> {
    nix::unistd::sethostname(hostname)?;
    // SAFETY: the pointer is valid for the zero bytes that are read.
    match unsafe { libc::setdomainname(c"".as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Brings up `lo` in this network namespace.
#[expect(unsafe_code, reason = "interface flags are set by ioctl only")]
pub fn loopback_up() -> io::Result<()> {
    let kind = rustix::net::SocketType::DGRAM;
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(rustix::net::AddressFamily::INET, kind, flags, None)?;
    // SAFETY: all zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request is an initialised `ifreq` that outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
