//! The system call filter of a step: the default profile of Docker and containerd as one BPF program.
//!
//! In: `profile.tbl`, one row per system call that is allowed on some architecture. Out: a program. Its shape:
//!
//! ```text
//! architecture? ──┬─▶ native ──▶ x32 bit? ENOSYS ─▶ binary search over ranges of numbers ─▶ allow | EPERM | ENOSYS | argument rule
//!                 ├─▶ 32 bit ──▶ the same with its own numbers
//!                 └─▶ else ENOSYS
//! ```
//!
//! Invariants: every path ends in a return; `int` arguments are compared as 32 bits, as the kernel uses them; what is
//! above the highest known number is `ENOSYS`, so that a C library tries an older call; nothing is killed.

#[doc(hidden)]
pub mod fuzzing;
mod named;
mod program;
mod table;
#[cfg(test)]
mod tests;

use std::io;

pub use named::{Answer, Condition, NamedRule, named_rules};
pub use program::Instruction;

/// Compiles the default profile for this machine's architectures.
pub fn default_program() -> Vec<Instruction> {
    program::compile(&table::architectures())
}

/// Installs a program for this thread and all it will ever start; needs `CAP_SYS_ADMIN` in the user namespace.
#[expect(unsafe_code, reason = "the call has no wrapper in nix or rustix")]
pub fn install(program: &[Instruction]) -> io::Result<()> {
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter: Vec<libc::sock_filter> = program.iter().map(|i| i.to_raw()).collect();
    let request = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    // SAFETY: the request and the filter it points to outlive the call, which only reads them.
    match unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
