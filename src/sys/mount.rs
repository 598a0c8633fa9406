//! Mounts as descriptors: made detached, used through their descriptor, gone when it is closed.
//!
//! In: file system names, options, descriptors. Out: descriptors of detached mounts. Invariant: nothing here attaches a mount
//! to a path of the host, so a process that dies leaves none; only the `__init` child attaches, inside its own namespace.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::mount::MsFlags;
use nix::sched::CloneFlags;
pub use rustix::mount::MountAttrFlags;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags};

/// One option of a file system.
#[derive(Debug, Clone, Copy)]
pub enum Option<'a> {
    /// `key`
    Flag(&'a str),
    /// `key=value`
    Value(&'a str, &'a OsStr),
}

/// Makes a detached mount of a new file system; on failure the error carries the kernel's own explanation where it gives one.
pub fn new_filesystem(kind: &str, options: &[Option<'_>], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let configured = configure(&context, options);
    let mounted = configured.and_then(|()| mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes));
    mounted.map_err(|errno| explain(&context, errno))
}

fn configure(context: &OwnedFd, options: &[Option<'_>]) -> rustix::io::Result<()> {
    for option in options {
        match option {
            Option::Flag(key) => mount::fsconfig_set_flag(context, *key)?,
            Option::Value(key, value) => mount::fsconfig_set_string(context, *key, *value)?,
        }
    }
    mount::fsconfig_create(context)
}

/// The kernel queues messages such as `e overlay: …` on the context; they say far more than the errno.
fn explain(context: &OwnedFd, errno: rustix::io::Errno) -> io::Error {
    let mut text = String::new();
    let mut buffer = [0u8; 1024];
    while let Ok(count) = rustix::io::read(context, &mut buffer) {
        if count == 0 {
            break;
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(told(&String::from_utf8_lossy(&buffer[..count])));
    }
    let error = io::Error::from(errno);
    if text.is_empty() { error } else { io::Error::new(error.kind(), format!("{error} ({text})")) }
}

/// Takes off the letter for error, warning or information that a message begins with.
fn told(message: &str) -> &str {
    ["e ", "w ", "i "].iter().find_map(|level| message.strip_prefix(level)).unwrap_or(message).trim()
}

/// Makes a detached copy of the mount that `tree` is in, rooted at `tree`; with all mounts below it if `recursive`.
pub fn clone_tree(tree: impl AsFd, recursive: Recursive) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive == Recursive::Yes {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(mount::open_tree(tree, c"", flags)?)
}

/// Whether mounts below a mount are meant too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recursive {
    /// They are.
    Yes,
    /// Only the mount itself.
    No,
}

/// Attaches a detached mount on the directory or file `target`, which stays the one that was opened whatever happens to
/// its path.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(mount::move_mount(mount, c"", target, c"", flags)?)
}

/// Sets attributes of a mount, and of all mounts below it if `recursive`, and cuts its propagation.
#[expect(unsafe_code, reason = "the call has no wrapper in nix or rustix")]
pub fn set_attributes(mount: impl AsFd, attributes: MountAttrFlags, recursive: Recursive) -> io::Result<()> {
    let request = libc::mount_attr {
        attr_set: u64::from(attributes.bits()),
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive == Recursive::Yes { libc::AT_RECURSIVE } else { 0 };
    let size = std::mem::size_of::<libc::mount_attr>();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&mount.as_fd());
    // SAFETY: path and request outlive the call, and the size is the request's.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const request, size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a detached overlay mount from options as one text, for kernels before 6.5; relative folders in it are resolved from
/// the working directory of the calling thread.
///
/// There is no detached form of mount(2): the mount is attached for a moment in the mount namespace of a thread of its own.
pub fn new_overlay_from_text(options: &OsStr, attributes: MsFlags) -> io::Result<OwnedFd> {
    let cwd = std::env::current_dir()?;
    let options = options.to_owned();
    let thread = std::thread::spawn(move || overlay_in_own_namespace(&cwd, &options, attributes));
    thread.join().map_err(|_| io::Error::other("the mounting thread panicked"))?
}

fn overlay_in_own_namespace(cwd: &Path, options: &OsStr, attributes: MsFlags) -> io::Result<OwnedFd> {
    let none: std::option::Option<&str> = None;
    nix::sched::unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    // By path, since the kernel takes layers only from mounts of the namespace it mounts in.
    nix::unistd::chdir(cwd)?;
    // Anywhere will do, since nobody else sees it.
    nix::mount::mount(Some("overlay"), "/proc", Some("overlay"), attributes, Some(options))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(mount::open_tree(rustix::fs::CWD, c"/proc", flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_passed_on_without_its_level() {
        assert_eq!(told("e VFS: Mount too revealing\n"), "VFS: Mount too revealing");
        assert_eq!(told("exfat: no"), "exfat: no");
        let wrong = [Option::Flag("no-such-option")];
        let error = new_filesystem("tmpfs", &wrong, MountAttrFlags::empty()).expect_err("no such option").to_string();
        assert!(error.contains("(tmpfs: Unknown parameter 'no-such-option')"), "{error}");
    }
}
