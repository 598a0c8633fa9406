//! Namespaces, the root of a mount namespace, names of the machine, the loopback device.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

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

/// Moves this thread into new namespaces; those of users and mounts want it to be the only one of its process.
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
pub fn loopback_up() -> io::Result<()> {
    Loopback::open()?.set_flags(libc::IFF_UP as libc::c_short)
}

/// Returns whether this process may change the devices of the network namespace it is in.
pub fn may_configure_network() -> io::Result<bool> {
    let mut loopback = Loopback::open()?;
    let flags = loopback.flags()?;
    // Nothing changes, and the kernel asks for the same right all the same.
    match loopback.set_flags(flags) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        result => result.map(|()| true),
    }
}

/// The loopback device of this network namespace.
struct Loopback {
    socket: OwnedFd,
    request: libc::ifreq,
}

impl Loopback {
    #[expect(unsafe_code, reason = "interface flags are read and set by ioctl only")]
    fn open() -> io::Result<Self> {
        let kind = rustix::net::SocketType::DGRAM;
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(rustix::net::AddressFamily::INET, kind, flags, None)?;
        // SAFETY: all zero bytes are a valid `ifreq`.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        Ok(Self { socket, request })
    }

    #[expect(unsafe_code, reason = "the kernel writes to a union")]
    fn flags(&mut self) -> io::Result<libc::c_short> {
        self.call(libc::SIOCGIFFLAGS as libc::c_ulong)?;
        // SAFETY: the kernel has put the flags there.
        Ok(unsafe { self.request.ifr_ifru.ifru_flags })
    }

    fn set_flags(&mut self, flags: libc::c_short) -> io::Result<()> {
        self.request.ifr_ifru.ifru_flags = flags;
        self.call(libc::SIOCSIFFLAGS as libc::c_ulong)
    }

    #[expect(unsafe_code, reason = "interface flags are read and set by ioctl only")]
    fn call(&mut self, what: libc::c_ulong) -> io::Result<()> {
        // SAFETY: the request is an initialised `ifreq` that outlives the call.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), what as _, &raw mut self.request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Makes a network namespace whose loopback device is up; it lives as long as the descriptor, and as who is in it.
pub fn new_network() -> io::Result<OwnedFd> {
    in_new_network(|| Ok(()))
}

/// Makes a network namespace with a device that leads nowhere; see [`super::netlink::add_stand_in`].
pub fn new_network_with(name: &str, addresses: &[(IpAddr, u8)]) -> io::Result<OwnedFd> {
    in_new_network(|| super::netlink::add_stand_in(name, addresses))
}

/// A thread has a network namespace of its own, which goes with it but for the descriptor.
fn in_new_network(furnish: impl FnOnce() -> io::Result<()> + Send) -> io::Result<OwnedFd> {
    let make = || {
        unshare(&[Namespace::Net])?;
        loopback_up()?;
        furnish()?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    };
    std::thread::scope(|scope| scope.spawn(make).join()).map_err(|_| io::Error::other("the thread panicked"))?
}

/// Moves this thread into a network namespace.
pub fn join_network(network: impl AsFd) -> io::Result<()> {
    Ok(nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink;

    fn names() -> Vec<String> {
        netlink::links().expect("asked").into_iter().map(|link| link.name).collect()
    }

    #[test]
    fn a_new_network_is_another_one_and_can_be_joined() {
        let own = names();
        let address = [("10.9.8.7".parse().expect("address"), 24)];
        let plain = new_network().expect("made");
        let furnished = new_network_with("eth0", &address).expect("made");
        let seen = |network: OwnedFd| {
            let thread = std::thread::spawn(move || join_network(network).map(|()| names()));
            thread.join().expect("it ended").expect("joined")
        };
        assert_eq!(seen(plain), ["lo"]);
        assert_eq!(seen(furnished).len(), 3);
        assert_eq!(names(), own);
        assert!(may_configure_network().expect("asked"));
    }
}
