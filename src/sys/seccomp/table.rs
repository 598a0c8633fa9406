//! `profile.tbl` as numbers and rules per architecture.

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// It is done.
    Allow,
    /// `EPERM`.
    Deny,
    /// `ENOSYS`.
    Unknown,
    /// Allowed without any flag for a new namespace.
    Clone,
    /// Allowed but for `AF_ALG` and `AF_VSOCK`.
    Socket,
    /// Allowed for the personalities of plain Linux.
    Personality,
}

/// One architecture: its audit number and its rules by number, sorted.
#[derive(Debug, Clone)]
pub(super) struct Architecture {
    pub(super) audit: u32,
    pub(super) rules: Vec<(u32, Rule)>,
}

/// The highest number that the profile was written for; all architectures share it.
pub(super) const HIGHEST: u32 = 469;

/// Bit that x86_64 sets in the numbers of its x32 calls.
pub(super) const X32_BIT: u32 = 0x4000_0000;

const TABLE: &str = include_str!("profile.tbl");

/// `AUDIT_ARCH_*` numbers and the columns of the table: the native architecture first, then its 32-bit sibling.
#[cfg(target_arch = "x86_64")]
const COLUMNS: [(u32, usize); 2] = [(0xc000_003e, 0), (0x4000_0003, 1)];
#[cfg(target_arch = "aarch64")]
const COLUMNS: [(u32, usize); 2] = [(0xc000_00b7, 2), (0x4000_0028, 3)];

/// Returns the rules of this machine's architectures, native first.
pub(super) fn architectures() -> Vec<Architecture> {
    COLUMNS.iter().map(|(audit, column)| Architecture { audit: *audit, rules: rules(*column) }).collect()
}

fn rules(column: usize) -> Vec<(u32, Rule)> {
    let mut rules: Vec<(u32, Rule)> = TABLE.lines().filter_map(|line| row(line, column)).collect();
    rules.sort_unstable_by_key(|(number, _)| *number);
    rules.dedup_by_key(|(number, _)| *number);
    rules
}

fn row(line: &str, column: usize) -> Option<(u32, Rule)> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let rule = rule(words.next()?)?;
    Some((words.nth(column)?.parse().ok()?, rule))
}

fn rule(word: &str) -> Option<Rule> {
    Some(match word {
        "allow" => Rule::Allow,
        "enosys" => Rule::Unknown,
        "clone" => Rule::Clone,
        "socket" => Rule::Socket,
        "personality" => Rule::Personality,
        _ => return None,
    })
}

/// Returns the rules of this machine's architectures by name; the architectures agree in them.
pub(super) fn names() -> impl Iterator<Item = (&'static str, Rule)> {
    TABLE.lines().filter_map(|line| {
        let has_number = COLUMNS.iter().any(|(_, column)| row(line, *column).is_some());
        let mut words = line.split_ascii_whitespace();
        let (name, rule) = (words.next()?, rule(words.next()?)?);
        has_number.then_some((name, rule))
    })
}

#[cfg(test)]
pub(super) fn number_of(name: &str, column: usize) -> Option<u32> {
    let line = TABLE.lines().find(|line| line.split_ascii_whitespace().next() == Some(name))?;
    line.split_ascii_whitespace().nth(2 + column)?.parse().ok()
}
