//! Attributes of mounts that exist already (`mount_setattr`, Linux 5.12, which rustix does not wrap).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::mount::MountAttrFlags;

/// `struct mount_attr` of the kernel, in its first version.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Sets attributes on a mount, leaving its others and those of mounts below it.
pub fn set_attributes(mount: impl AsFd, attributes: MountAttrFlags) -> io::Result<()> {
    let attr = MountAttr { set: u64::from(attributes.bits()), clear: 0, propagation: 0, user_namespace: 0 };
    let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    let fd = mount.as_fd().as_raw_fd();
    // SAFETY: `path` is a C string and `attr` a structure of the size given, both alive during the call; `fd` is open.
    #[expect(unsafe_code, reason = "a system call without a wrapper")]
    let result =
        unsafe { libc::syscall(libc::SYS_mount_setattr, fd, path, flags, &raw const attr, size_of::<MountAttr>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
