//! Owners by number or by name, names looked up in a tree's own `/etc/passwd` and `/etc/group`.
//!
//! In: a tree and what the instruction says. Out: numbers. Invariants: the files are opened inside the tree, must be regular
//! and are read up to 10 MiB; no library of the machine is asked. A name that is not found is 0, as in BuildKit, with a notice.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use super::Owners;
use super::error::FileOpError;
use crate::llb::{ChownOpt, UserOpt};
use crate::sys::dir::{Dir, Kind, stat_of};
use crate::sys::file::PLAIN_READ;
use crate::sys::idmap;

/// A user and a group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Longest file, BuildKit's number, and longest line read of it.
const MAX_FILE: u64 = 10 << 20;
const MAX_LINE: u64 = 64 << 10;

/// Returns the owner that `wanted` names in its trees; none if it names none.
pub fn find_owner(
    trees: Owners<'_>,
    wanted: Option<&ChownOpt>,
    notices: &mut Vec<String>,
) -> Result<Option<Owner>, FileOpError> {
    let Some(wanted) = wanted else { return Ok(None) };
    let mut owner = Owner { uid: 0, gid: 0 };
    match &wanted.user {
        Some(UserOpt::ById(id)) => owner = Owner { uid: *id, gid: *id },
        Some(UserOpt::ByName { name, .. }) => match look_up(trees.users, PASSWD, name)? {
            Some(fields) => owner = Owner { uid: number(&fields, 2), gid: number(&fields, 3) },
            None => notices.push(format!("user {name} is not in {PASSWD}: user 0 is used")),
        },
        None => {}
    }
    match &wanted.group {
        Some(UserOpt::ById(id)) => owner.gid = *id,
        Some(UserOpt::ByName { name, .. }) => match look_up(trees.groups, GROUP, name)? {
            Some(fields) => owner.gid = number(&fields, 2),
            None => notices.push(format!("group {name} is not in {GROUP}: the user's group {} is used", owner.gid)),
        },
        None => {}
    }
    owner.check()?;
    Ok(Some(owner))
}

impl Owner {
    /// Fails if no file can get this owner; the kernel would only say `Invalid argument`.
    fn check(self) -> Result<(), FileOpError> {
        let Self { uid, gid } = self;
        // Every namespace has a root.
        if (uid, gid) == (0, 0) {
            return Ok(());
        }
        let (users, groups) = (idmap::users().map_err(FileOpError::Ids)?, idmap::groups().map_err(FileOpError::Ids)?);
        match idmap::contains(&users, uid) && idmap::contains(&groups, gid) {
            true => Ok(()),
            false => Err(FileOpError::Unmapped { uid, gid }),
        }
    }
}

fn number(fields: &[String], at: usize) -> u32 {
    fields.get(at).and_then(|field| field.trim().parse().ok()).unwrap_or(0)
}

/// Returns the fields of the first line for `name`; none also if there is no such file.
fn look_up(root: Option<&Dir>, file: &'static str, name: &str) -> Result<Option<Vec<String>>, FileOpError> {
    let Some(root) = root else { return Ok(None) };
    let failed = |source| FileOpError::Owner { name: name.to_owned(), file, source };
    let open = match root.resolve(OsStr::new(file), PLAIN_READ) {
        Ok(fd) => File::from(fd),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    if stat_of(&open).map_err(failed)?.kind() != Kind::File {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    search(open, name).map_err(failed)
}

fn search(file: File, name: &str) -> io::Result<Option<Vec<String>>> {
    let mut lines = BufReader::new(file.take(MAX_FILE + 1));
    let mut read = 0;
    loop {
        let mut line = Vec::new();
        let length = lines.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line)? as u64;
        read += length;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        if length == 0 {
            return Ok(None);
        }
        if length > MAX_LINE || read > MAX_FILE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long, or a line of it is"));
        }
        if line.split(':').next() == Some(name) {
            return Ok(Some(line.split(':').map(str::to_owned).collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(passwd: &str, group: &str) -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(temp.path().join("etc")).expect("mkdir");
        std::fs::write(temp.path().join("etc/passwd"), passwd).expect("write");
        std::fs::write(temp.path().join("etc/group"), group).expect("write");
        let dir = Dir::open(temp.path()).expect("open");
        (temp, dir)
    }

    fn named(user: &str, group: Option<&str>) -> ChownOpt {
        let by_name = |name: &str| UserOpt::ByName { name: name.to_owned(), input: 0 };
        ChownOpt { user: Some(by_name(user)), group: group.map(by_name) }
    }

    #[test]
    fn names_are_found_in_the_tree() {
        let (_temp, root) = root("root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n", "root:x:0:\nstaff:x:50:a,b\n");
        let mut notices = Vec::new();
        let mut find =
            |wanted| find_owner(Owners::of(&root), Some(&wanted), &mut notices).expect("find").expect("owner");
        assert_eq!(find(named("web", None)), Owner { uid: 33, gid: 34 });
        assert_eq!(find(named("web", Some("staff"))), Owner { uid: 33, gid: 50 });
        assert_eq!(find(ChownOpt { user: Some(UserOpt::ById(7)), group: None }), Owner { uid: 7, gid: 7 });
        assert_eq!(find(named("nobody", Some("none"))), Owner { uid: 0, gid: 0 });
        assert_eq!(notices.len(), 2, "{notices:?}");
    }

    #[test]
    fn hostile_user_files_are_refused_quickly() {
        let (temp, root) = root("", "");
        let passwd = temp.path().join("etc/passwd");
        let find = || find_owner(Owners::of(&root), Some(&named("web", None)), &mut Vec::new());
        std::fs::File::create(&passwd).expect("create").set_len(8 << 30).expect("sparse");
        assert!(find().is_err());
        for target in ["/dev/zero", "../../../../../etc/passwd", "/proc/self/mem"] {
            std::fs::remove_file(&passwd).expect("remove");
            std::os::unix::fs::symlink(target, &passwd).expect("symlink");
            // Links end inside the tree: there is nothing there, so the name is unknown, or the loop is refused.
            assert!(find().is_err() || find().expect("find") == Some(Owner { uid: 0, gid: 0 }), "{target}");
        }
        std::fs::remove_file(&passwd).expect("remove");
        Dir::open(&temp.path().join("etc")).expect("open").make_node(OsStr::new("passwd"), 0o010_644, 0).expect("fifo");
        assert!(find().is_err());
    }
}
