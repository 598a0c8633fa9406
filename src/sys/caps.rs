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

/// Names by number.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Returns the names of those of a set that this process holds.
pub fn held_names(set: u64) -> io::Result<Vec<&'static str>> {
    let held = thread::capabilities(None)?.permitted.bits() & set;
    Ok(NAMES.iter().enumerate().filter(|(number, _)| held & (1 << number) != 0).map(|(_, name)| *name).collect())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_their_numbers() {
        let default: Vec<&str> = NAMES
            .iter()
            .enumerate()
            .filter(|(number, _)| DEFAULT & (1 << number) != 0)
            .map(|(_, name)| *name)
            .collect();
        let expected = [
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_KILL",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETPCAP",
            "CAP_NET_BIND_SERVICE",
            "CAP_NET_RAW",
            "CAP_SYS_CHROOT",
            "CAP_MKNOD",
            "CAP_AUDIT_WRITE",
            "CAP_SETFCAP",
        ];
        assert_eq!(default, expected);
        assert_eq!(NAMES[21], "CAP_SYS_ADMIN");
    }
}
