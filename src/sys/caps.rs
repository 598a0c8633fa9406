//! Capability sets of the calling thread.
//!
//! Invariant: the functions here only ever take capabilities away.

use std::io;

use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// The 14 capabilities a step's root has: those of containerd, BuildKit and Docker.
pub const DEFAULT: u64 = 0xa804_25fb;

/// `CAP_SYS_ADMIN`.
pub const SYS_ADMIN: u64 = 1 << 21;
/// `CAP_SETUID`.
pub const SETUID: u64 = 1 << 7;
/// `CAP_SETGID`.
pub const SETGID: u64 = 1 << 6;

/// Numbers a kernel may know; one beyond its last is refused with `EINVAL`.
const NUMBERS: std::ops::Range<u32> = 0..64;

/// Returns the effective set.
pub fn effective() -> io::Result<u64> {
    Ok(thread::capabilities(None)?.effective.bits())
}

/// Sets permitted and effective to what is both held and in `keep`, inheritable and ambient to nothing.
pub fn limit_to(keep: u64) -> io::Result<()> {
    thread::clear_ambient_capability_set()?;
    let held = thread::capabilities(None)?.permitted;
    let kept = held & CapabilitySet::from_bits_retain(keep);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(thread::set_capabilities(None, sets)?)
}

/// Takes everything not in `keep` out of the bounding set.
pub fn limit_bounding(keep: u64) -> io::Result<()> {
    for number in NUMBERS.filter(|n| keep & (1 << n) == 0) {
        if !drop_bounding(number)? {
            break;
        }
    }
    Ok(())
}

/// Returns false if the kernel knows no capability of this number.
#[expect(unsafe_code, reason = "rustix takes only capabilities that it knows by name")]
fn drop_bounding(number: u32) -> io::Result<bool> {
    // SAFETY: the call takes plain numbers.
    if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EINVAL) { Ok(false) } else { Err(error) }
}
