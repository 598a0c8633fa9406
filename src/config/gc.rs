//! How much may stay in the state directory: `gc`, the limits and `[[worker.oci.gcpolicy]]` of `buildkitd.toml`.
//!
//! In: the table `worker.oci`. Out: [`GcSettings`], and of these the policies. Where nothing is said the policies are those that BuildKit
//! has then.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::buildkitd::Reader;
use crate::dockerfile::{duration, size};
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

    /// BuildKit's: what is easily made again first, then what is old, then what is least used.
    fn defaults(&self) -> Vec<GcPolicy> {
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

impl Reader<'_> {
    /// Reads a key of `worker.oci` if it is one of these; BuildKit takes them in any case.
    pub(super) fn gc(&self, key: &str, value: &Value<'_>, gc: &mut GcSettings) -> Result<bool, ConfigError> {
        match key.to_ascii_lowercase().as_str() {
            "gc" => gc.off = !self.bool_value(value)?,
            "gckeepstorage" => gc.keep_storage = self.space(value)?,
            "gcpolicy" => {
                let wrong = || self.wrong(value, "a list of tables");
                let list = value.get_ref().as_array().ok_or_else(wrong)?;
                gc.policies = list.iter().map(|entry| self.policy(self.table(entry)?)).collect::<Result<_, _>>()?;
            }
            other => return self.limit(other, value, &mut gc.limits),
        }
        Ok(true)
    }

    fn limit(&self, key: &str, value: &Value<'_>, limits: &mut Limits) -> Result<bool, ConfigError> {
        match key {
            "reservedspace" => limits.reserved = self.space(value)?,
            "maxusedspace" => limits.max_used = self.space(value)?,
            "minfreespace" => limits.min_free = self.space(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn policy(&self, table: &DeTable<'_>) -> Result<GcPolicy, ConfigError> {
        let mut policy = GcPolicy::default();
        for (key, value) in table {
            match key.get_ref().to_ascii_lowercase().as_str() {
                "all" => policy.all = self.bool_value(value)?,
                "keepbytes" => policy.keep_bytes = self.space(value)?,
                "keepduration" => policy.keep_duration = self.seconds(value)?,
                "filters" => policy.filters = self.filters(value)?,
                other if self.limit(other, value, &mut policy.limits)? => {}
                // What it should limit would go, or what it should remove would stay, without a word.
                other => return Err(self.wrong_at(key.span().start, format!("a gcpolicy has no key `{other}`"))),
            }
        }
        Ok(policy)
    }

    fn filters(&self, value: &Value<'_>) -> Result<Vec<String>, ConfigError> {
        let filters = self.texts(value, "a list of filters")?;
        match Filter::parse(&filters) {
            Ok(_) => Ok(filters),
            Err(error) => Err(self.wrong_at(value.span().start, crate::diag::chain(&error))),
        }
    }

    /// A number of bytes, a text with a unit of 1024, or a percentage of the disk.
    fn space(&self, value: &Value<'_>) -> Result<Space, ConfigError> {
        let wrong = || self.wrong(value, "a size: bytes, \"10GB\" or \"10%\"");
        let text = self.number_or_text(value).ok_or_else(wrong)?;
        if text.is_empty() {
            return Ok(Space::default());
        }
        if let Some(percent) = text.strip_suffix('%') {
            return percent.parse().map(Space::Percent).map_err(|_| wrong());
        }
        let bytes = size::parse(&text).map_err(|_| wrong())?;
        u64::try_from(bytes).map(Space::Bytes).map_err(|_| wrong())
    }

    /// A number of seconds, or a text such as `48h`.
    fn seconds(&self, value: &Value<'_>) -> Result<u64, ConfigError> {
        let wrong = || self.wrong(value, "a duration: seconds or \"48h\"");
        let text = self.number_or_text(value).ok_or_else(wrong)?;
        if text.is_empty() {
            return Ok(0);
        }
        if let Ok(seconds) = text.parse() {
            return Ok(seconds);
        }
        let nanoseconds = duration::parse(&text).map_err(|_| wrong())?;
        u64::try_from(nanoseconds).map(|n| n.div_ceil(GB)).map_err(|_| wrong())
    }

    fn number_or_text(&self, value: &Value<'_>) -> Option<String> {
        let number = value.get_ref().as_integer().map(|integer| integer.as_str().to_owned());
        number.or_else(|| value.get_ref().as_str().map(str::to_owned))
    }
}

type Value<'a> = Spanned<DeValue<'a>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fuzzing::buildkitd;

    fn policies(text: &str) -> Vec<Policy> {
        buildkitd(text).expect("valid").gc.policies()
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
