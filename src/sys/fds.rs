//! Descriptors: handing them to another process, sealed files in memory, what file system one is on.
//!
//! Invariant: every descriptor made here is closed on exec.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

/// The most descriptors one message takes (`SCM_MAX_FD`).
pub const MAX_PER_MESSAGE: usize = 253;

/// `f_type` of procfs.
pub const PROC_MAGIC: i64 = 0x9fa0;
/// `f_type` of sysfs.
pub const SYSFS_MAGIC: i64 = 0x6265_6572;
/// `f_type` of the unified cgroup hierarchy.
pub const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// `f_type` of devpts.
pub const DEVPTS_MAGIC: i64 = 0x1cd1;
/// `f_type` of message queues.
pub const MQUEUE_MAGIC: i64 = 0x1980_0202;

/// Makes two connected sockets.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Makes a pipe: reading end, writing end.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Sends bytes, at least one, with descriptors, at most [`MAX_PER_MESSAGE`].
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PER_MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives into `bytes` what [`send`] sent, and its descriptors; returns how many bytes.
pub fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((received.bytes, fds))
}

/// Copies a file into memory, where nobody can change it any more, as an executable.
pub fn sealed_copy(name: &str, mut source: &File) -> io::Result<OwnedFd> {
    source.rewind()?;
    let fd = memory_file(name, Executable::Yes)?;
    io::copy(&mut source, &mut File::from(fd.try_clone()?))?;
    seal(&fd)?;
    Ok(fd)
}

/// Puts bytes into a file in memory, where nobody can change them any more, to be read from its start.
pub fn sealed_bytes(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memory_file(name, Executable::No)?;
    let mut file = File::from(fd.try_clone()?);
    file.write_all(bytes)?;
    file.rewind()?;
    seal(&fd)?;
    Ok(fd)
}

#[derive(PartialEq, Eq)]
enum Executable {
    Yes,
    No,
}

/// Kernels before 6.3 know neither of the two flags; there every such file is executable.
fn memory_file(name: &str, executable: Executable) -> io::Result<OwnedFd> {
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let kind = if executable == Executable::Yes { MemfdFlags::EXEC } else { MemfdFlags::NOEXEC_SEAL };
    match rustix::fs::memfd_create(name, base | kind) {
        Err(rustix::io::Errno::INVAL) => Ok(rustix::fs::memfd_create(name, base)?),
        result => Ok(result?),
    }
}

/// `F_SEAL_EXEC`, since 6.3: the executable bits stay as they are.
const SEAL_EXEC: u32 = 0x20;

fn seal(fd: &OwnedFd) -> io::Result<()> {
    let _old_kernel_lacks_it = rustix::fs::fcntl_add_seals(fd, SealFlags::from_bits_retain(SEAL_EXEC));
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    Ok(rustix::fs::fcntl_add_seals(fd, seals)?)
}

/// Opens a path for use as a location only, following links: for paths of the host.
pub fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
}

/// Returns the type of the file system a descriptor is on.
pub fn filesystem_type(fd: impl AsFd) -> io::Result<i64> {
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs between targets")]
    Ok(rustix::fs::fstatfs(fd)?.f_type as i64)
}

/// Marks all descriptors from 3 on to be closed on exec, also ones that somebody else opened.
#[expect(unsafe_code, reason = "the call has no wrapper in nix or rustix")]
pub fn close_all_on_exec() -> io::Result<()> {
    let (first, last) = (3 as libc::c_uint, libc::c_uint::MAX);
    // SAFETY: the call only sets flags of descriptors.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Changes owner and permission bits of what an `O_PATH` descriptor names.
pub fn set_owner_and_mode(fd: BorrowedFd<'_>, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    let path = super::dir::proc_path(fd, None);
    std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

/// Reads at most `limit` bytes; more is an error.
pub fn read_at_most(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let message = format!("larger than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_cross_a_socket() {
        let (ours, theirs) = socket_pair().expect("socketpair");
        let bytes = sealed_bytes("test", b"hello").expect("memfd");
        send(&ours, b"x", &[bytes.as_fd()]).expect("send");
        let mut buffer = [0u8; 8];
        let (count, mut fds) = receive(&theirs, &mut buffer).expect("receive");
        assert_eq!((count, fds.len()), (1, 1));
        assert_eq!(read_at_most(&File::from(fds.remove(0)), 5).expect("read"), b"hello");
    }

    #[test]
    fn a_sealed_file_cannot_be_changed() {
        let fd = sealed_bytes("test", b"hello").expect("memfd");
        let mut file = File::from(fd);
        assert_eq!(file.write_all(b"x").expect_err("sealed").raw_os_error(), Some(libc::EPERM));
        assert!(file.set_len(0).is_err());
        let path = super::super::dir::proc_path(file.as_fd(), None);
        if let Ok(mut again) = File::options().write(true).open(path) {
            assert!(again.write_all(b"x").is_err());
        }
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let file = File::from(sealed_bytes("test", b"hello").expect("memfd"));
        assert_eq!(read_at_most(&file, 4).expect_err("too large").kind(), io::ErrorKind::FileTooLarge);
    }
}
