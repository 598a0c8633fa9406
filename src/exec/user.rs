//! The user of a step, from the image's own `/etc/passwd` and `/etc/group`.
//!
//! In: the root directory and a `USER` text. Out: ids, groups, home. Invariants: digits are always a number, never a name,
//! and one that fits; id 0 comes only from `0`, `root` or a line of the image; files are regular, at most 10 MiB with
//! lines of at most 64 KiB, opened without waiting.

use std::ffi::OsStr;
use std::fs::File;
use std::io;

use super::error::Stage;
use super::wire::Failure;
use crate::sys::dir::{self, Dir, Kind, OFlags};
use crate::sys::fds;

const MAX_FILE: u64 = 10 << 20;
const MAX_LINE: usize = 64 << 10;

/// Who a step runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// User.
    pub(super) uid: u32,
    /// Group.
    pub(super) gid: u32,
    /// Supplementary groups, the group itself first.
    pub(super) groups: Vec<u32>,
    /// Home directory.
    pub(super) home: String,
}

/// A user or group as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name<'a> {
    Number(u32),
    Text(&'a str),
}

/// Finds the user that `text` names in the root's own files; empty is user 0.
pub(super) fn find(root: &Dir, text: &str) -> Result<Identity, Failure> {
    let fail = |message| Failure { stage: Stage::User, message };
    let (user, group) = parse(text).map_err(|reason| fail(format!("invalid user {text:?}: {reason}")))?;
    let read = |path: &str| {
        read_file(root, path).map_err(|error| fail(format!("failed to read {path} of the image: {error}")))
    };
    let both_known = matches!((user, group), (Name::Number(_), Some(Name::Number(_))));
    // A pair of numbers needs no file but for the home directory, for which a bad file does not matter.
    let passwd = if both_known { read("/etc/passwd").unwrap_or_default() } else { read("/etc/passwd")? };
    let groups = if both_known { String::new() } else { read("/etc/group")? };
    lookup(&passwd, &groups, user, group).map_err(fail)
}

/// Finds the user that `text` names in these texts of the two files.
pub(super) fn find_in(passwd: &str, groups: &str, text: &str) -> Result<Identity, String> {
    let (user, group) = parse(text)?;
    lookup(passwd, groups, user, group)
}

fn parse(text: &str) -> Result<(Name<'_>, Option<Name<'_>>), &'static str> {
    if text.is_empty() {
        return Ok((Name::Number(0), None));
    }
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let group = group.filter(|group| !group.is_empty()).map(name).transpose()?;
    Ok((name(user)?, group))
}

fn name(text: &str) -> Result<Name<'_>, &'static str> {
    if text.is_empty() {
        return Err("no user is named");
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Name::Text(text));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err("a number may not start with 0");
    }
    match text.parse::<u32>() {
        Ok(number) if number != u32::MAX => Ok(Name::Number(number)),
        _ => Err("ids end at 4294967294"),
    }
}

fn read_file(root: &Dir, path: &str) -> io::Result<String> {
    let fd = match root.resolve(OsStr::new(path), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(String::new());
        }
        result => result?,
    };
    let stat = dir::stat_of(&fd)?;
    if stat.kind() != Kind::File || fds::filesystem_type(&fd)? == fds::PROC_MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    if stat.size > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 10 MiB"));
    }
    let bytes = fds::read_at_most(&File::from(fd), MAX_FILE)?;
    if bytes.split(|byte| *byte == b'\n').any(|line| line.len() > MAX_LINE) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 64 KiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of passwd: name, uid, gid, home.
fn passwd_line(line: &str) -> Option<(&str, u32, u32, &str)> {
    let fields: Vec<&str> = line.trim().split(':').collect();
    Some((fields.first()?, id(fields.get(2)?)?, id(fields.get(3)?)?, fields.get(5).unwrap_or(&"")))
}

/// Reads an id of a file. The highest is none: to the kernel it means "leave as it is", which would be root.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// A line of group: name, gid, members.
fn group_line(line: &str) -> Option<(&str, u32, &str)> {
    let fields: Vec<&str> = line.trim().split(':').collect();
    Some((fields.first()?, id(fields.get(2)?)?, fields.get(3).unwrap_or(&"")))
}

fn lookup(passwd: &str, groups: &str, user: Name<'_>, group: Option<Name<'_>>) -> Result<Identity, String> {
    let found = passwd.lines().filter_map(passwd_line).find(|(name, uid, ..)| match user {
        Name::Number(number) => number == *uid,
        Name::Text(text) => text == *name,
    });
    let (known_name, uid, gid, home) = match (found, user) {
        (Some((name, uid, gid, home)), _) => (Some(name), uid, gid, home),
        (None, Name::Number(number)) => (None, number, 0, ""),
        (None, Name::Text("root")) => (None, 0, 0, ""),
        (None, Name::Text(text)) => return Err(format!("no user {text:?} in /etc/passwd of the image")),
    };
    let gid = group.map_or(Ok(gid), |group| group_id(groups, group))?;
    let mut all = vec![gid];
    if let (None, Some(name)) = (group, known_name) {
        let member = |members: &str| members.split(',').any(|member| member == name);
        let further = groups.lines().filter_map(group_line).filter(|(_, _, members)| member(members));
        all.extend(further.map(|(_, id, _)| id).filter(|id| *id != gid));
    }
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity { uid, gid, groups: all, home: home.to_owned() })
}

fn group_id(groups: &str, group: Name<'_>) -> Result<u32, String> {
    match group {
        Name::Number(number) => Ok(number),
        Name::Text(text) => match groups.lines().filter_map(group_line).find(|(name, ..)| *name == text) {
            Some((_, id, _)) => Ok(id),
            None if text == "root" => Ok(0),
            None => Err(format!("no group {text:?} in /etc/group of the image")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbin:x:7:8::/bin:\n4294967296:x:0:0::/:\nbroken\nu:x:1000:1000::/home/u:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nbin:x:8:\ndocker:x:99:u,other\nwheel:x:10:other,u\nu:x:1000:\n";

    fn found(text: &str) -> Result<(u32, u32, Vec<u32>), String> {
        find_in(PASSWD, GROUP, text).map(|identity| (identity.uid, identity.gid, identity.groups))
    }

    #[test]
    fn e6_the_id_that_means_none_is_none_in_a_file_too() {
        let passwd = "u:x:4294967295:0::/:\ng:x:1:4294967295::/:\nv:x:1:1::/:\n";
        let group = "grp:x:4294967295:v\n";
        for text in ["u", "g", "v:grp"] {
            assert!(find_in(passwd, group, text).is_err(), "{text}");
        }
        assert_eq!(find_in(passwd, group, "v").map(|found| found.groups), Ok(vec![1]));
    }

    #[test]
    fn e6_numbers_are_exact_or_an_error_and_never_names() {
        for (text, expected) in [
            ("", Some((0, 0))),
            ("0", Some((0, 0))),
            ("root", Some((0, 0))),
            ("1", Some((1, 0))),
            ("2147483648", Some((2_147_483_648, 0))),
            ("4294967294", Some((4_294_967_294, 0))),
            ("1000:7", Some((1000, 7))),
            ("1:", Some((1, 0))),
            ("u:docker", Some((1000, 99))),
            ("4294967295", None),
            ("4294967296", None),
            ("-1", None),
            ("+1", None),
            (":1", None),
            (":", None),
            ("00", None),
            ("01", None),
            ("\u{0661}", None),
            ("nobody", None),
            ("u:nobody", None),
            ("1:4294967296", None),
        ] {
            let ids = found(text).ok().map(|(uid, gid, _)| (uid, gid));
            assert_eq!(ids, expected, "{text:?}");
        }
        assert!(found(&"9".repeat(300)).is_err());
    }

    #[test]
    fn e5_groups_come_from_the_image_unless_a_group_is_named() {
        for (text, expected) in
            [("u", vec![1000, 99, 10]), ("1000", vec![1000, 99, 10]), ("u:8", vec![8]), ("5", vec![0]), ("7", vec![8])]
        {
            assert_eq!(found(text).expect("known").2, expected, "{text}");
        }
    }

    fn image() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(temp.path().join("etc")).expect("mkdir");
        let root = Dir::open(temp.path()).expect("open");
        (temp, root)
    }

    #[test]
    fn e7_files_that_block_or_never_end_are_errors_at_once() {
        crate::sys::within(Duration::from_secs(2), files_that_block_or_never_end);
    }

    fn files_that_block_or_never_end() {
        type Make = fn(&std::path::Path);
        // What these files may cost in memory.
        const GROWTH: u64 = 32 << 20;
        let cases: [(&str, Make); 5] = [
            ("pipe", |path| {
                let dir = Dir::open(path.parent().expect("parent")).expect("open");
                dir.make_node(OsStr::new("passwd"), 0o010_644, 0).expect("mkfifo");
            }),
            ("directory", |path| std::fs::create_dir(path).expect("mkdir")),
            ("link to procfs", |path| std::os::unix::fs::symlink("/proc/self/mem", path).expect("symlink")),
            ("sparse", |path| File::create(path).and_then(|file| file.set_len(8 << 30)).expect("truncate")),
            ("long line", |path| std::fs::write(path, "x".repeat(MAX_LINE + 1)).expect("write")),
        ];
        for (name, make) in cases {
            let (temp, root) = image();
            make(&temp.path().join("etc/passwd"));
            let grown = allocation_counter::measure(|| {
                assert_eq!(find(&root, "u").expect_err(name).stage, Stage::User, "{name}");
            });
            assert!(grown.bytes_max < GROWTH, "{name}: {}", grown.bytes_max);
        }
        let (temp, root) = image();
        let line = format!("big:x:5:{}", "u,".repeat(10_000_000));
        std::fs::write(temp.path().join("etc/passwd"), PASSWD).expect("write");
        std::fs::write(temp.path().join("etc/group"), line).expect("write");
        let grown = allocation_counter::measure(|| assert!(find(&root, "u").is_err()));
        assert!(grown.bytes_max < GROWTH, "{}", grown.bytes_max);
    }

    #[test]
    fn e7_a_link_stays_in_the_image() {
        let (temp, root) = image();
        std::fs::write(temp.path().join("passwd"), "in:x:5:5::/:").expect("write");
        std::os::unix::fs::symlink("/passwd", temp.path().join("etc/passwd")).expect("symlink");
        assert_eq!(find(&root, "in").expect("found").uid, 5);
    }

    #[test]
    fn an_image_without_users_has_root_and_numbers() {
        let (_temp, root) = image();
        for (text, uid, home) in [("", 0, "/"), ("root", 0, "/"), ("7", 7, "/")] {
            let identity = find(&root, text).expect("known");
            assert_eq!((identity.uid, identity.home.as_str()), (uid, home), "{text}");
        }
        assert!(find(&root, "u").is_err());
    }
}
