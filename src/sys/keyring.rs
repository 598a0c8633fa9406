//! Session keyrings: a process inherits its parent's, and with it the keys of the calling user.

use std::io;

/// Leaves the inherited session keyring for a new, empty, anonymous one; a kernel without keys needs none.
///
/// Where an outer container's filter refuses the call, it refuses all use of keys to the program too.
#[expect(unsafe_code, reason = "the call has no wrapper in nix or rustix")]
pub fn join_new_session() -> io::Result<()> {
    let name: *const libc::c_char = std::ptr::null();
    // SAFETY: the call takes a null name and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING as libc::c_long, name) };
    if result >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM) => Ok(()),
        _ => Err(error),
    }
}
