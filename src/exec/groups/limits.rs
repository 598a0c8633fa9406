//! Limits of LLB as files of a control group.
//!
//! In: limits as Docker's flags have them. Out: names of files and what is written to them. The conversions are those of runc, which
//! BuildKit leaves them to.

use crate::llb::ops::LinuxResources;

/// A file of a group, and its content.
pub(in crate::exec) type Setting = (String, String);

/// The period of a quota that names none, in microseconds.
const PERIOD: u64 = 100_000;

/// Returns what limits come to; an error says which cannot be.
pub(in crate::exec) fn settings(limits: &LinuxResources) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    let mut set = |file: &str, value: String| settings.push((file.to_owned(), value));
    if limits.memory > 0 {
        set("memory.max", limits.memory.to_string());
    }
    if let Some(swap) = swap(limits)? {
        set("memory.swap.max", swap);
    }
    if limits.cpu_shares > 0 {
        set("cpu.weight", weight(limits.cpu_shares).to_string());
    }
    if limits.cpu_quota != 0 || limits.cpu_period != 0 {
        let period = if limits.cpu_period == 0 { PERIOD } else { limits.cpu_period };
        let quota = if limits.cpu_quota > 0 { limits.cpu_quota.to_string() } else { "max".to_owned() };
        set("cpu.max", format!("{quota} {period}"));
    }
    if !limits.cpuset_cpus.is_empty() {
        set("cpuset.cpus", limits.cpuset_cpus.clone());
    }
    if !limits.cpuset_mems.is_empty() {
        set("cpuset.mems", limits.cpuset_mems.clone());
    }
    Ok(settings)
}

/// Docker counts memory and swap together, the kernel each alone.
fn swap(limits: &LinuxResources) -> Result<Option<String>, String> {
    match (limits.memory_swap, limits.memory) {
        (0, _) => Ok(None),
        (..0, _) => Ok(Some("max".to_owned())),
        (_, ..=0) => Err("a limit of memory and swap needs one of memory".to_owned()),
        (both, memory) if both < memory => {
            Err(format!("the limit of memory and swap, {both}, is lower than that of memory, {memory}"))
        }
        (both, memory) => Ok(Some((both - memory).to_string())),
    }
}

/// Shares are 2 to 262,144 with 1,024 in the middle of what is used, weights 1 to 10,000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(change: impl FnOnce(&mut LinuxResources)) -> Result<Vec<(String, String)>, String> {
        let mut limits = LinuxResources::default();
        change(&mut limits);
        settings(&limits)
    }

    #[test]
    fn limits_become_files() {
        type Change = fn(&mut LinuxResources);
        let cases: [(Change, &[(&str, &str)]); 9] = [
            (|_| {}, &[]),
            (|l| l.memory = 5, &[("memory.max", "5")]),
            (|l| (l.memory, l.memory_swap) = (5, 8), &[("memory.max", "5"), ("memory.swap.max", "3")]),
            (|l| (l.memory, l.memory_swap) = (5, 5), &[("memory.max", "5"), ("memory.swap.max", "0")]),
            (|l| l.memory_swap = -1, &[("memory.swap.max", "max")]),
            (|l| l.cpu_shares = 1024, &[("cpu.weight", "39")]),
            (|l| l.cpu_quota = 50_000, &[("cpu.max", "50000 100000")]),
            (|l| l.cpu_period = 20_000, &[("cpu.max", "max 20000")]),
            (
                |l| (l.cpuset_cpus, l.cpuset_mems) = ("0-1".into(), "0".into()),
                &[("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
            ),
        ];
        for (change, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(file, text)| ((*file).into(), (*text).into())).collect();
            assert_eq!(of(change), Ok(expected));
        }
        assert_eq!((weight(2), weight(262_144), weight(u64::MAX)), (1, 10_000, 10_000));
    }

    #[test]
    fn swap_that_cannot_be_is_refused() {
        assert!(of(|l| l.memory_swap = 5).is_err());
        assert!(of(|l| (l.memory, l.memory_swap) = (5, 4)).is_err());
    }
}
