//! A file tree as text, one line a file, so that two trees can be compared and a difference reads well.
//!
//! A line holds what an image promises of a file: type, permissions, owner, size, content, target or device, extended
//! attributes, and the first of its names. Times are left out.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use rbuild::digest::Digest;
use rbuild::sys::dir::{Dir, Kind, Stat, device_numbers};

/// Path, escaped, to what is there.
pub(crate) type Lines = BTreeMap<String, String>;

/// Unpacks one image of an OCI layout with umoci, as root, and returns its tree.
pub(crate) fn unpack(layout: &Path, tag: &str, rootfs: &Path) -> Lines {
    let image = format!("{}:{tag}", layout.display());
    let output = Command::new("umoci").args(["raw", "unpack", "--image", &image]).arg(rootfs).output();
    let output = output.expect("umoci is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lines(rootfs)
}

/// Returns the tree below a directory; the directory itself is `.`.
pub(crate) fn lines(root: &Path) -> Lines {
    let dir = Dir::open(root).unwrap();
    let mut walk = Walk { lines: Lines::new(), first_names: BTreeMap::new() };
    walk.lines.insert(".".into(), describe(&dir, OsStr::new("."), &dir.stat_self().unwrap()));
    walk.directory(&dir, b"");
    walk.lines
}

struct Walk {
    lines: Lines,
    first_names: BTreeMap<(u64, u64), String>,
}

impl Walk {
    fn directory(&mut self, dir: &Dir, prefix: &[u8]) {
        for name in dir.names().unwrap() {
            let path = [prefix, name.as_bytes()].concat();
            let shown = path.escape_ascii().to_string();
            let stat = dir.stat(&name).unwrap();
            let mut line = describe(dir, &name, &stat);
            if !stat.is_dir() && stat.nlink > 1 {
                let first = self.first_names.entry((stat.dev, stat.ino)).or_insert_with(|| shown.clone());
                line += &format!(" names={} first={first}", stat.nlink);
            }
            self.lines.insert(shown, line);
            if stat.is_dir() {
                self.directory(&dir.open_dir(&name).unwrap(), &[&path[..], b"/"].concat());
            }
        }
    }
}

fn describe(dir: &Dir, name: &OsStr, stat: &Stat) -> String {
    let mut line = format!("{:?} {:04o} {}:{}", stat.kind(), stat.permissions(), stat.uid, stat.gid);
    match stat.kind() {
        Kind::File => line += &format!(" {} {}", stat.size, content(dir.open_file(name).unwrap())),
        Kind::Symlink => line += &format!(" -> {}", dir.read_link(name).unwrap().as_bytes().escape_ascii()),
        Kind::CharDevice | Kind::BlockDevice => line += &format!(" {:?}", device_numbers(stat.rdev)),
        _ => {}
    }
    let mut attributes = dir.xattrs(name).unwrap();
    attributes.sort();
    for (key, value) in attributes {
        line += &format!(" {}={}", key.as_bytes().escape_ascii(), value.escape_ascii());
    }
    line
}

/// Text is shown as it is, the rest by digest.
fn content(mut file: File) -> String {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    if bytes.len() <= 60 && bytes.is_ascii() {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    Digest::compute(&bytes).as_str()[7..23].to_owned()
}
