//! `/etc/subuid`, `/etc/subgid`, and the caller's name in `/etc/passwd`, read without the C library.

use std::fs::File;
use std::path::Path;

use super::RootlessError;
use crate::sys::fds;
use crate::sys::idmap::Extent;

/// More than these files ever have.
const MAX_FILE: u64 = 16 << 20;

/// Returns the map of one kind of id: 0 is the caller's own, from 1 on the ones it was given.
pub(super) fn map(file: &'static str, uid: u32, own: u32) -> Result<Vec<Extent>, RootlessError> {
    let name = name_of(&read("/etc/passwd").unwrap_or_default(), uid);
    let given = ranges(&read(file)?, name.as_deref(), uid);
    if given.is_empty() {
        return Err(RootlessError::NoSubids { file, user: name.unwrap_or_else(|| uid.to_string()) });
    }
    Ok(with_own(own, &given))
}

fn read(file: &'static str) -> Result<String, RootlessError> {
    if !Path::new(file).exists() {
        return Ok(String::new());
    }
    let bytes = File::open(file).and_then(|open| fds::read_at_most(&open, MAX_FILE));
    let bytes = bytes.map_err(|source| RootlessError::Read { file, source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let number = uid.to_string();
    let found = passwd.lines().find(|line| line.split(':').nth(2) == Some(&number));
    found.and_then(|line| line.split(':').next()).map(str::to_owned)
}

/// First id and count of each line for the user, by name or by number.
fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let mine = |line: &&str| line.split(':').next().is_some_and(|who| Some(who) == name || who == number);
    let range = |line: &str| {
        let mut fields = line.split(':').skip(1).map(|field| field.trim().parse::<u32>().ok());
        Some((fields.next()??, fields.next()??))
    };
    text.lines().filter(mine).filter_map(range).filter(|(_, count)| *count > 0).collect()
}

fn with_own(own: u32, given: &[(u32, u32)]) -> Vec<Extent> {
    let mut map = vec![Extent { inside: 0, outside: own, count: 1 }];
    let mut next = 1u32;
    for (outside, count) in given {
        let count = (*count).min(u32::MAX - next);
        map.push(Extent { inside: next, outside: *outside, count });
        next += count;
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_name_and_by_number() {
        let text = "other:100000:65536\nme:165536:65536\n1000:300000:10\n# me:1:1\nme:broken\nme:5:0\nmemo:1:1\n";
        assert_eq!(ranges(text, Some("me"), 1000), [(165_536, 65_536), (300_000, 10)]);
        assert_eq!(ranges(text, None, 1000), [(300_000, 10)]);
        assert_eq!(ranges(text, Some("nobody"), 7), []);
    }

    #[test]
    fn ranges_follow_each_other_after_the_callers_own_id() {
        let extent = |inside, outside, count| Extent { inside, outside, count };
        let expected = [extent(0, 1000, 1), extent(1, 165_536, 65_536), extent(65_537, 300_000, 10)];
        assert_eq!(with_own(1000, &[(165_536, 65_536), (300_000, 10)]), expected);
    }

    #[test]
    fn the_name_comes_from_passwd() {
        let passwd = "root:x:0:0:::\nme:x:1000:1000:::\n";
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("me"));
        assert_eq!(name_of(passwd, 1001), None);
    }
}
