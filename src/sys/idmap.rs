//! Which ids a user namespace knows.

use std::io;

/// One line of `/proc/PID/uid_map` or `gid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Parses the text of a map.
pub fn parse(text: &str) -> Vec<Extent> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Extent> {
    let mut words = line.split_ascii_whitespace().map(str::parse::<u32>);
    let (inside, outside, count) = (words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?);
    Some(Extent { inside, outside, count })
}

/// Returns whether `id` is one that the map gives a meaning.
pub fn contains(map: &[Extent], id: u32) -> bool {
    map.iter().any(|e| id >= e.inside && u64::from(id) < u64::from(e.inside) + u64::from(e.count))
}

/// Returns the highest id the map knows.
pub fn highest(map: &[Extent]) -> u32 {
    map.iter().map(|e| e.inside.saturating_add(e.count.saturating_sub(1))).max().unwrap_or(0)
}

/// Returns whether the map is that of the machine, which is no user namespace's.
pub fn is_whole(map: &[Extent]) -> bool {
    matches!(map, [Extent { inside: 0, outside: 0, count: u32::MAX }])
}

/// Reads this process's user map.
pub fn users() -> io::Result<Vec<Extent>> {
    Ok(parse(&std::fs::read_to_string("/proc/self/uid_map")?))
}

/// Reads this process's group map.
pub fn groups() -> io::Result<Vec<Extent>> {
    Ok(parse(&std::fs::read_to_string("/proc/self/gid_map")?))
}

/// Returns both maps of this process as one line: where it is another, ids on disk mean others.
pub fn own() -> io::Result<String> {
    let text = |map: Vec<Extent>| {
        let extents: Vec<_> = map.iter().map(|e| format!("{} {} {}", e.inside, e.outside, e.count)).collect();
        extents.join(", ")
    };
    Ok(format!("{}; {}", text(users()?), text(groups()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read() {
        let map = parse("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(map.len(), 2);
        assert_eq!(highest(&map), 65536);
        for (id, known) in [(0, true), (1, true), (65536, true), (65537, false), (u32::MAX, false)] {
            assert_eq!(contains(&map, id), known, "{id}");
        }
        assert!(contains(&parse("0 0 4294967295"), u32::MAX - 1));
        assert!(!contains(&parse("0 0 4294967295"), u32::MAX));
        assert!(is_whole(&parse("0 0 4294967295")) && !is_whole(&map));
    }
}
