//! How much may stay, and whether it is time to look.
//!
//! In: limits of `[worker.oci]` or of flags, sizes. Out: bytes to keep. The arithmetic is BuildKit's: as much as `max_used`, less
//! where the disk has less than `min_free`, but never less than `reserved`.

use super::{Filter, Item, ItemKind};
use crate::store::usage::Usage;

/// Seconds after which sizes are measured again: caches grow without being told of.
const MEASURE_AGAIN: u64 = 6 * 3600;
/// Seconds before looking again where nothing more could be removed.
const PAUSE: u64 = 600;

/// An amount of disk space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Bytes; 0 sets no limit.
    Bytes(u64),
    /// Percent of the disk.
    Percent(u64),
    /// Percent of the disk, but at most so many bytes.
    Share(u64, u64),
}

impl Default for Space {
    fn default() -> Self {
        Space::Bytes(0)
    }
}

/// The disk that the state root is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disk {
    /// Its size; 0 where it is not known.
    pub total: u64,
    /// What is free of it.
    pub free: u64,
}

impl Space {
    /// Returns the amount in bytes; percents are rounded up to gigabytes, as BuildKit does it.
    pub fn bytes(self, disk: Disk) -> u64 {
        match self {
            Space::Bytes(bytes) => bytes,
            Space::Share(percent, most) => Space::Percent(percent).bytes(disk).min(most),
            Space::Percent(0) => 0,
            Space::Percent(_) if disk.total == 0 => 2_000_000_000,
            Space::Percent(percent) => {
                let share = u128::from(disk.total) * u128::from(percent) / 100;
                u64::try_from((share / (1 << 30) + 1) * 1_000_000_000).unwrap_or(u64::MAX)
            }
        }
    }
}

/// What is to be removed.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Notes of this program as well.
    pub all: bool,
    /// Which items.
    pub filter: Filter,
    /// Only what was not used for so many seconds.
    pub keep_duration: u64,
    /// What always may stay.
    pub reserved: Space,
    /// What may stay at most.
    pub max_used: Space,
    /// What shall be free on the disk.
    pub min_free: Space,
}

impl Policy {
    /// Returns whether nothing is to stay, notes included.
    pub fn takes_everything(&self) -> bool {
        let unlimited = [self.reserved, self.max_used, self.min_free].iter().all(|space| *space == Space::Bytes(0));
        self.all && self.filter.is_for_all() && self.keep_duration == 0 && unlimited
    }

    /// Returns how many bytes may stay of `total`; none where no limit of space is set.
    pub fn keep_bytes(&self, total: u64, disk: Disk) -> Option<u64> {
        let (reserved, max, free) = (self.reserved.bytes(disk), self.max_used.bytes(disk), self.min_free.bytes(disk));
        if reserved == 0 && max == 0 && free == 0 {
            return None;
        }
        let short = free.saturating_sub(disk.free);
        let room = total.saturating_sub(short);
        let keep = match (max, short) {
            (0, 0) if free == 0 => 0,
            (0, 0) => total.saturating_add(1),
            (0, _) => room,
            (max, 0) => max,
            (max, _) => max.min(room),
        };
        Some(keep.max(reserved))
    }

    /// Returns whether an item may go if nothing stands on it.
    pub(super) fn wants(&self, item: &Item, now: u64) -> bool {
        let old = self.keep_duration == 0 || item.last_used.saturating_add(self.keep_duration) <= now;
        !item.in_use && (self.all || item.kind != ItemKind::Internal) && old && self.filter.matches(item)
    }
}

/// Returns whether any of the policies may have something to remove, as far as the log of usage tells.
pub fn due(policies: &[Policy], usage: &Usage, disk: Disk, now: u64) -> bool {
    let Some(scan) = &usage.scan else { return !policies.is_empty() };
    let total = scan.total.saturating_add(usage.added);
    let since = now.saturating_sub(scan.at);
    policies.iter().any(|policy| {
        let keep = policy.keep_bytes(total, disk);
        if since >= MEASURE_AGAIN && keep.is_some() {
            return true;
        }
        let over = keep.is_none_or(|keep| total >= keep);
        let old = now.saturating_sub(scan.oldest) >= policy.keep_duration;
        let again = since >= PAUSE.min(policy.keep_duration.max(1)) || usage.added > 0;
        over && old && again
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::usage::Scan;

    #[test]
    fn keeps_what_buildkit_keeps() {
        let disk = Disk { total: 100 << 30, free: 10 };
        // max, min_free, reserved, total, kept
        let cases = [
            (0, 0, 0, 50, None),
            (40, 0, 0, 50, Some(40)),
            (0, 5, 0, 50, Some(51)),
            (0, 30, 0, 50, Some(30)),
            (25, 30, 0, 50, Some(25)),
            (40, 30, 0, 50, Some(30)),
            (40, 100, 20, 50, Some(20)),
            (0, 0, 20, 50, Some(20)),
        ];
        for (max, free, reserved, total, kept) in cases {
            let policy = Policy {
                max_used: Space::Bytes(max),
                min_free: Space::Bytes(free),
                reserved: Space::Bytes(reserved),
                ..Policy::default()
            };
            assert_eq!(policy.keep_bytes(total, disk), kept, "{max} {free} {reserved}");
        }
        assert_eq!(Space::Percent(10).bytes(disk), 11_000_000_000);
        assert_eq!(Space::Percent(10).bytes(Disk::default()), 2_000_000_000);
        assert_eq!(Space::Percent(u64::MAX).bytes(Disk { total: u64::MAX, free: 0 }), u64::MAX);
    }

    #[test]
    fn looks_only_where_something_may_be_found() {
        let usage =
            |total, added, at, oldest| Usage { added, scan: Some(Scan { at, total, oldest }), ..Usage::default() };
        let size = [Policy { max_used: Space::Bytes(100), ..Policy::default() }];
        let age = [Policy { keep_duration: 50, ..Policy::default() }];
        let disk = Disk::default();
        assert!(due(&size, &Usage::default(), disk, 1000));
        assert!(!due(&[], &Usage::default(), disk, 1000));
        assert!(!due(&size, &usage(50, 10, 990, 0), disk, 1000));
        assert!(due(&size, &usage(50, 60, 990, 0), disk, 1000));
        assert!(!due(&age, &usage(50, 10, 990, 960), disk, 1000));
        assert!(due(&age, &usage(50, 10, 990, 940), disk, 1000));
        assert!(!due(&size, &usage(50, 0, 1000, 0), disk, 1000 + PAUSE));
        assert!(due(&size, &usage(50, 0, 1000, 0), disk, 1000 + MEASURE_AGAIN));
    }
}
