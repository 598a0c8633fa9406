//! Targets beside the kernel: lookups inside a root, the system call filter, users of an image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rbuild::exec::fuzzing::find_user;
use rbuild::sys::dir::{Dir, OFlags, stat_of};
use rbuild::sys::seccomp::fuzzing::{Parts, program};

use super::feed::Feed;
use super::tree::Scene;

const NAMES: [&str; 8] = ["a", "b", "c", "d", "f", "in", "a/b", "a/b/c"];
const PARTS: [&str; 12] = ["a", "b", "c", "d", "f", "in", "abs", "rel", "..", ".", "", "x"];

/// A path is resolved as a slow model does that never leaves the root: to the same file, or to none where the model finds none.
pub fn resolve_in_root(data: &[u8]) {
    let mut feed = Feed(data);
    let scene = Scene::new();
    let root = fs::canonicalize(scene.root()).expect("root");
    for _ in 0..usize::from(feed.byte() % 8) {
        let path = root.join(feed.choose(&NAMES));
        let (kind, target) = (feed.byte() % 3, path_of(&mut feed));
        let parent = path.parent().expect("a parent");
        if fs::canonicalize(parent).ok().as_deref() != Some(parent) {
            continue;
        }
        // A name may be taken: then there is one thing less in the tree.
        let _ = match kind {
            0 => fs::create_dir(&path),
            1 => fs::File::create_new(&path).map(drop),
            _ => std::os::unix::fs::symlink(target, &path),
        };
    }
    let path = path_of(&mut feed);
    let resolved = Dir::open(&root).expect("root").resolve(path.as_os_str(), OFlags::PATH);
    let found = resolved.ok().map(|fd| stat_of(&fd).expect("stat").ino);
    assert_eq!(found, model(&root, &path), "{}", path.display());
    scene.check();
}

fn path_of(feed: &mut Feed<'_>) -> PathBuf {
    let absolute = if feed.byte() & 1 == 0 { "" } else { "/" };
    let parts: Vec<&str> = (0..usize::from(feed.byte() % 6)).map(|_| feed.choose(&PARTS)).collect();
    let path = format!("{absolute}{}", parts.join("/"));
    // The kernel takes an empty link for an error when it is made.
    PathBuf::from(if path.is_empty() { "." } else { &path })
}

/// Walks name by name with nothing but `lstat` and `readlink`.
fn model(root: &Path, path: &Path) -> Option<u64> {
    let mut at: Vec<String> = Vec::new();
    let mut rest: Vec<String> = parts(path);
    let mut links = 0;
    let mut must_be_dir = ends_in_directory(path);
    while let Some(part) = rest.pop() {
        let here = at.iter().fold(root.to_owned(), |path, part| path.join(part));
        if !fs::symlink_metadata(&here).ok()?.is_dir() {
            return None;
        }
        match part.as_str() {
            "." => {}
            ".." => drop(at.pop()),
            name => match fs::read_link(here.join(name)) {
                Ok(target) => {
                    links += 1;
                    if links > 40 {
                        return None;
                    }
                    if target.is_absolute() {
                        at.clear();
                    }
                    must_be_dir |= rest.is_empty() && ends_in_directory(&target);
                    rest.extend(parts(&target));
                }
                Err(_) => at.push(name.to_owned()),
            },
        }
    }
    let stat = fs::symlink_metadata(at.iter().fold(root.to_owned(), |path, part| path.join(part))).ok()?;
    (stat.is_dir() || !must_be_dir).then(|| stat.ino())
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<String> {
    let text = path.to_string_lossy();
    text.split('/').filter(|part| !part.is_empty()).rev().map(str::to_owned).collect()
}

fn ends_in_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes.ends_with(b"/..") || bytes == b"." || bytes == b".."
}

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const HIGHEST: u32 = 469;

/// The program, in an interpreter, says what the table says, for every architecture, number and argument; every path returns.
pub fn seccomp_prog(data: &[u8]) {
    static PROGRAM: OnceLock<Vec<Parts>> = OnceLock::new();
    let mut feed = Feed(data);
    let (native, sibling) =
        if cfg!(target_arch = "x86_64") { (0xc000_003e, 0x4000_0003) } else { (0xc000_00b7, 0x4000_0028) };
    let arch = match feed.byte() {
        0..128 => native,
        128..224 => sibling,
        _ => feed.number() as u32,
    };
    let number = if feed.byte() & 3 == 0 { feed.number() as u32 } else { feed.number() as u32 % 600 };
    let first = if feed.byte() & 1 == 0 { feed.number() } else { u64::from(feed.byte()) };
    let mut call = [0u8; 64];
    call[..4].copy_from_slice(&number.to_le_bytes());
    call[4..8].copy_from_slice(&arch.to_le_bytes());
    call[16..24].copy_from_slice(&first.to_le_bytes());
    for byte in &mut call[24..] {
        *byte = feed.byte();
    }
    let column = if cfg!(target_arch = "x86_64") { 0 } else { 2 };
    let expected = match arch {
        arch if arch == native => expected(column, number, first),
        arch if arch == sibling => expected(column + 1, number, first),
        _ => ENOSYS,
    };
    assert_eq!(interpret(PROGRAM.get_or_init(program), &call), expected, "{arch:#x} {number} {first:#x}");
}

/// Returns 0 for a call that is done, else the errno.
fn interpret(program: &[Parts], call: &[u8; 64]) -> u32 {
    let (mut accumulator, mut at) = (0u32, 0usize);
    for _ in 0..program.len() {
        let (code, on_true, on_false, operand) = program[at];
        let jump = |yes: bool| usize::from(if yes { on_true } else { on_false });
        at += 1;
        match code {
            0x20 => accumulator = u32::from_le_bytes(call[operand as usize..][..4].try_into().expect("four bytes")),
            0x05 => at += operand as usize,
            0x15 => at += jump(accumulator == operand),
            0x35 => at += jump(accumulator >= operand),
            0x45 => at += jump(accumulator & operand != 0),
            0x06 if operand == 0x7fff_0000 => return 0,
            0x06 if operand >> 16 == 5 => return operand & 0xffff,
            other => panic!("instruction {other:#x} with {operand:#x}"),
        }
    }
    panic!("a path without a return");
}

fn expected(column: usize, number: u32, first: u64) -> u32 {
    static NAMES: OnceLock<BTreeMap<(usize, u32), &str>> = OnceLock::new();
    let low = first as u32;
    match NAMES.get_or_init(names).get(&(column, number)).copied() {
        Some("clone") if low & 0x7e02_0000 != 0 => EPERM,
        Some("socket") if low == 38 || low == 40 => EPERM,
        Some("personality") if ![0, 8, 0x2_0000, 0x2_0008, u32::MAX].contains(&low) => EPERM,
        Some("clone3") => ENOSYS,
        Some(_) => 0,
        None if number > HIGHEST => ENOSYS,
        None => EPERM,
    }
}

fn names() -> BTreeMap<(usize, u32), &'static str> {
    let mut names = BTreeMap::new();
    for line in include_str!("../../../src/sys/seccomp/profile.tbl").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().expect("a name");
        for (column, number) in words.skip(1).enumerate() {
            names.extend(number.parse().ok().map(|number| ((column, number), name)));
        }
    }
    names
}

/// User 0 comes of nothing, `0`, `root` or a line of the image that says so; digits are that number or an error; a group
/// of digits likewise; the group is the first of the groups.
pub fn passwd_user(data: &[u8]) {
    let mut feed = Feed(data);
    let (text, passwd, group) = (feed.text(), feed.text(), feed.rest());
    let Ok((uid, gid, groups, home)) = find_user(&passwd, &group, &text) else { return };
    let (user, named_group) = text.split_once(':').unwrap_or((&text, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let zero_line = |line: &str| line.trim().split(':').nth(2).and_then(|uid| uid.parse::<u32>().ok()) == Some(0);
    if uid == 0 {
        assert!(matches!(user, "" | "0" | "root") || passwd.lines().any(zero_line), "user 0 from {user:?}");
    }
    if digits(user) {
        assert_eq!(user.parse(), Ok(uid));
    }
    if digits(named_group) {
        assert_eq!(named_group.parse(), Ok(gid));
    }
    assert!(uid != u32::MAX && gid != u32::MAX && groups.iter().all(|id| *id != u32::MAX), "an id that means none");
    assert_eq!(groups.first(), Some(&gid));
    assert!(!home.is_empty());
}
