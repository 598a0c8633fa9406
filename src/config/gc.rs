//! How much may stay in the state directory: `gc`, the limits and `[[worker.oci.gcpolicy]]` of `buildkitd.toml`.
//!
//! In: the table `worker.oci`. Out: [`GcSettings`], and of these the policies. Where nothing is said the policies are those that BuildKit
//! has then.

use super::key::{Key, Read};
use crate::store::prune::{Filter, Policy, Space};

const DAY: u64 = 24 * 3600;
const GB: u64 = 1_000_000_000;

/// What the file says about what may stay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GcSettings {
    /// Whether nothing is ever removed.
    pub off: bool,
    /// `reservedSpace`, `maxUsedSpace`, `minFreeSpace`.
    pub limits: Limits,
    /// `gckeepstorage`, the old name of `reservedSpace`.
    pub keep_storage: Space,
    /// The policies, in order.
    pub policies: Vec<GcPolicy>,
}

/// Limits of space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// What always may stay.
    pub reserved: Space,
    /// What may stay at most.
    pub max_used: Space,
    /// What shall be free on the disk.
    pub min_free: Space,
}

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GcPolicy {
    /// Whether notes of this program go too.
    pub all: bool,
    /// Seconds for which what was used stays.
    pub keep_duration: u64,
    /// What it is about, of which one must hold.
    pub filters: Vec<String>,
    /// Its limits.
    pub limits: Limits,
    /// `keepBytes`, the old name of `reservedSpace`.
    pub keep_bytes: Space,
}

impl GcSettings {
    /// Returns what is to be removed after a build.
    pub fn policies(&self) -> Vec<Policy> {
        if self.off {
            return Vec::new();
        }
        let chosen = if self.policies.is_empty() { self.defaults() } else { self.policies.clone() };
        chosen.iter().map(GcPolicy::policy).collect()
    }

    /// Returns the limits that hold where there are no policies.
    pub(super) fn effective_limits(&self) -> Limits {
        let mut limits = self.limits;
        if limits == Limits::default() {
            limits.reserved = self.keep_storage;
        }
        if limits == Limits::default() {
            limits = Limits {
                reserved: Space::Share(10, 10 * GB),
                max_used: Space::Share(80, 100 * GB),
                min_free: Space::Percent(20),
            };
        }
        limits
    }

    /// BuildKit's: what is easily made again first, then what is old, then what is least used.
    fn defaults(&self) -> Vec<GcPolicy> {
        let limits = self.effective_limits();
        let easy = ["type==source.local", "type==exec.cachemount", "type==source.git.checkout"];
        let few = Limits { max_used: Space::Bytes(512_000_000), ..Limits::default() };
        vec![
            GcPolicy {
                filters: easy.map(str::to_owned).into(),
                keep_duration: 2 * DAY,
                limits: few,
                ..GcPolicy::default()
            },
            GcPolicy { keep_duration: 60 * DAY, limits, ..GcPolicy::default() },
            GcPolicy { limits, ..GcPolicy::default() },
            GcPolicy { all: true, limits, ..GcPolicy::default() },
        ]
    }
}

impl Limits {
    /// Returns them by the names of their keys.
    pub(super) fn named(self) -> [(&'static str, Space); 3] {
        [("reservedSpace", self.reserved), ("maxUsedSpace", self.max_used), ("minFreeSpace", self.min_free)]
    }
}

impl GcPolicy {
    fn policy(&self) -> Policy {
        let reserved = if self.limits.reserved == Space::default() { self.keep_bytes } else { self.limits.reserved };
        Policy {
            all: self.all,
            // A filter that means everything must never come of one that cannot be read.
            filter: Filter::parse(&self.filters).expect("filters are checked when they are read"),
            keep_duration: self.keep_duration,
            reserved,
            max_used: self.limits.max_used,
            min_free: self.limits.min_free,
        }
    }
}

/// A table of `[[worker.oci.gcpolicy]]`.
pub(super) static POLICY: &[Key<GcPolicy>] = &[
    Key::new("all", Read::Bool(|policy, on| policy.all = on)),
    Key::new("filters", Read::Words(filters)),
    Key::new("keepDuration", Read::Seconds(|policy, seconds| policy.keep_duration = seconds)),
    Key::new("keepBytes", Read::Space(|policy, space| policy.keep_bytes = space)),
    Key::new("reservedSpace", Read::Space(|policy, space| policy.limits.reserved = space)),
    Key::new("maxUsedSpace", Read::Space(|policy, space| policy.limits.max_used = space)),
    Key::new("minFreeSpace", Read::Space(|policy, space| policy.limits.min_free = space)),
];

fn filters(policy: &mut GcPolicy, list: Vec<String>) -> Result<(), String> {
    Filter::parse(&list).map_err(|error| crate::diag::chain(&error))?;
    policy.filters = list;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fuzzing::buildkitd;

    fn policies(text: &str) -> Vec<Policy> {
        buildkitd(text).expect("valid").settings.oci.gc.policies()
    }

    #[test]
    fn without_a_word_the_limits_are_those_of_buildkit() {
        let policies = policies("");
        let days: Vec<u64> = policies.iter().map(|policy| policy.keep_duration / DAY).collect();
        assert_eq!(
            (days, policies.iter().map(|p| p.all).collect()),
            (vec![2, 60, 0, 0], vec![false, false, false, true])
        );
        assert_eq!(policies[0].max_used, Space::Bytes(512_000_000));
        let last = &policies[3];
        let limits = [last.reserved, last.max_used, last.min_free];
        assert_eq!(limits, [Space::Share(10, 10 * GB), Space::Share(80, 100 * GB), Space::Percent(20)]);
    }

    #[test]
    fn old_and_new_names_in_any_case_and_all_forms_of_sizes() {
        assert!(policies("[worker.oci]\ngc = false\n").is_empty());
        assert_eq!(policies("[worker.oci]\ngckeepstorage = 5000\n")[3].reserved, Space::Bytes(5000));
        let both = policies("[worker.oci]\nGCKeepStorage = 5000\nMaxUsedSpace = \"10%\"\n");
        assert_eq!((both[3].reserved, both[3].max_used), (Space::Bytes(0), Space::Percent(10)));
        let text = "[[worker.oci.gcpolicy]]\nkeepBytes = \"1GB\"\nkeepDuration = 60\n[[worker.oci.gcpolicy]]\nreservedSpace = 7\nkeepBytes = 8\nkeepDuration = \"1m30s\"\nall = true\nfilters = [\"type==regular\"]\n";
        let own = policies(text);
        assert_eq!((own[0].reserved, own[0].keep_duration, own[0].all), (Space::Bytes(1 << 30), 60, false));
        assert_eq!((own[1].reserved, own[1].keep_duration, own[1].all), (Space::Bytes(7), 90, true));
    }
}
