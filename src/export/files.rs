//! Result trees into a directory of the host (`type=local`).
//!
//! In: trees nobody vouches for, and a directory of the user. Out: files, directories and links below it, owned by the
//! caller. Invariants: the directory is opened once and all else happens below open directories; what is there is never
//! followed, so a link where the result has a directory is replaced; permissions lose set-id and sticky bits; devices and
//! sockets are left out; a file appears only when it is complete; nothing else is removed unless asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::ExportError;
use super::destination::{self, Missing};
use super::draft::{self, Draft};
use super::spec::TreeTarget;
use super::stop::Stop;
use super::tree::{self, Entry, Tree, Visitor};
use crate::sys::dir::{self, Dir, Kind, Time};
use crate::sys::walk::{Descent, Walk};

/// Permission bits that are carried over.
const PERMISSIONS: u32 = 0o777;

/// Bytes copied between two looks at the stop switch.
const PIECE: u64 = 64 << 20;

/// What an export into a directory did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// Files written.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Devices and sockets that were left out.
    pub skipped: Vec<PathBuf>,
}

/// Writes the trees into `dest`; `epoch`, if any, becomes the time of all files.
pub fn write(
    trees: &[Tree],
    dest: &Path,
    target: &TreeTarget,
    epoch: Option<i64>,
    stop: &Stop,
) -> Result<Written, ExportError> {
    let root = destination::open_directory(dest, Missing::Create)?;
    if target.delete && dest.canonicalize().is_ok_and(|path| path.parent().is_none()) {
        let problem = "mode=delete would empty the whole file system".into();
        return Err(ExportError::Destination { path: dest.to_owned(), problem });
    }
    let split = target.platform_split.unwrap_or(trees.len() > 1);
    let mut copy = Copy::new(&root, dest, epoch, target.delete);
    copy.stop = stop.clone();
    copy.remembers = target.delete || trees.len() > 1;
    for tree in trees {
        if split {
            let name = OsString::from(tree.directory());
            copy.begin_platform(&name)?;
            tree::walk(&tree.root, &mut copy)?;
            copy.end_platform(&name)?;
        } else {
            copy.owner = tree.directory();
            tree::walk(&tree.root, &mut copy)?;
        }
    }
    copy.remove_rest()?;
    Ok(copy.written)
}

/// State of one export.
struct Copy<'a> {
    root: &'a Dir,
    /// From the destination down to where we are.
    way: Descent<'a>,
    dest: &'a Path,
    /// Path of the platform's directory below the destination.
    prefix: PathBuf,
    /// Whose tree is being written, for the message about two that disagree.
    owner: String,
    /// Whether anyone will want to know what was written.
    remembers: bool,
    /// Every path written, with its tree.
    seen: BTreeMap<PathBuf, String>,
    /// Where the first name of a file with several went.
    links: BTreeMap<(u64, u64), PathBuf>,
    epoch: Option<i64>,
    delete: bool,
    stop: Stop,
    written: Written,
}

impl<'a> Copy<'a> {
    fn new(root: &'a Dir, dest: &'a Path, epoch: Option<i64>, delete: bool) -> Self {
        Self {
            root,
            way: Descent::new(root),
            dest,
            prefix: PathBuf::new(),
            owner: String::new(),
            remembers: true,
            seen: BTreeMap::new(),
            links: BTreeMap::new(),
            epoch,
            delete,
            stop: Stop::new(),
            written: Written::default(),
        }
    }

    fn begin_platform(&mut self, name: &OsStr) -> Result<(), ExportError> {
        self.links.clear();
        self.prefix = name.into();
        self.owner = name.to_string_lossy().into_owned();
        self.remember(name.into());
        self.open_directory(name, Path::new(name))
    }

    fn end_platform(&mut self, name: &OsStr) -> Result<(), ExportError> {
        self.way.leave().map_err(ExportError::write(self.dest))?;
        let failed = ExportError::write(self.dest.join(name));
        let Some(seconds) = self.epoch else { return Ok(()) };
        self.here().set_time(name, Time { seconds, nanoseconds: 0 }).map_err(failed)
    }

    /// Notes that `path` was written, and returns whose it was before.
    fn remember(&mut self, path: PathBuf) -> Option<String> {
        if !self.remembers {
            return None;
        }
        self.seen.insert(path, self.owner.clone())
    }

    fn here(&self) -> &Dir {
        self.way.here()
    }

    fn time(&self, mtime: Time) -> Time {
        self.epoch.map_or(mtime, |seconds| Time { seconds, nanoseconds: 0 })
    }

    /// Enters a directory of the destination, making it in place of anything that is none.
    fn open_directory(&mut self, name: &OsStr, path: &Path) -> Result<(), ExportError> {
        let write = || ExportError::write(self.dest.join(path));
        let here = self.here();
        let is_dir = here.try_stat(name).map_err(write())?.map(|stat| stat.is_dir());
        if is_dir == Some(false) {
            here.unlink(name).map_err(write())?;
        }
        if is_dir != Some(true) {
            // Until its content is complete nobody else needs to see it.
            here.make_dir(name, 0o700).map_err(write())?;
        }
        self.way.enter(name).map_err(ExportError::write(self.dest.join(path)))
    }

    /// Makes way for something that is no directory.
    fn clear(&self, name: &OsStr, path: &Path) -> Result<(), ExportError> {
        let shown = self.dest.join(path);
        match self.here().try_stat(name).map_err(ExportError::write(&shown))? {
            Some(stat) if stat.is_dir() => self.clear_directory(name, shown),
            _ => Ok(()),
        }
    }

    fn clear_directory(&self, name: &OsStr, shown: PathBuf) -> Result<(), ExportError> {
        if self.delete {
            return self.here().remove_all(name).map_err(ExportError::write(shown));
        }
        match self.here().remove_dir(name) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Err(ExportError::Destination {
                path: shown,
                problem: "the result has a file where this directory is; remove it first".into(),
            }),
            result => result.map_err(ExportError::write(shown)),
        }
    }

    /// Makes an entry under a temporary name by `make`, and gives it its own.
    fn place(
        &self,
        name: &OsStr,
        path: &Path,
        make: impl Fn(&Dir, &OsStr) -> io::Result<()>,
    ) -> Result<(), ExportError> {
        self.clear(name, path)?;
        let write = || ExportError::write(self.dest.join(path));
        let here = self.here();
        let temporary = draft::temporary_name();
        make(here, &temporary).and_then(|()| here.rename(&temporary, here, name)).map_err(|error| {
            // The failure itself is what the user hears of.
            let _ = here.unlink(&temporary);
            write()(error)
        })
    }

    fn file(&mut self, entry: &Entry<'_>, path: &Path) -> Result<(), ExportError> {
        self.clear(entry.name, path)?;
        let mut source = entry.dir.open_file(entry.name).map_err(entry.unreadable())?;
        let shown = self.dest.join(path);
        let here = self.here().duplicate().map_err(ExportError::write(&shown))?;
        let mut draft = Draft::create(here).map_err(ExportError::write(&shown))?;
        self.written.bytes += self.fill(&mut source, &mut draft.file, entry, &shown)?;
        draft.name(entry.name).map_err(ExportError::write(&shown))?;
        self.written.files += 1;
        Ok(())
    }

    fn fill(&self, source: &mut File, file: &mut File, entry: &Entry<'_>, shown: &Path) -> Result<u64, ExportError> {
        // Both descriptors stay bare inside, so that the kernel can copy; the switch is looked at between pieces.
        let mut bytes = 0;
        loop {
            self.stop.check().map_err(ExportError::write(shown))?;
            match io::copy(&mut source.take(PIECE), file).map_err(ExportError::write(shown))? {
                0 => break,
                count => bytes += count,
            }
        }
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(entry.stat.permissions() & PERMISSIONS);
        file.set_permissions(permissions).map_err(ExportError::write(shown))?;
        dir::set_time_of(&*file, self.time(entry.stat.mtime)).map_err(ExportError::write(shown))?;
        Ok(bytes)
    }

    fn symlink(&self, entry: &Entry<'_>, path: &Path) -> Result<(), ExportError> {
        let target = entry.dir.read_link(entry.name).map_err(entry.unreadable())?;
        let time = self.time(entry.stat.mtime);
        self.place(entry.name, path, |dir, name| {
            dir.make_symlink(name, &target)?;
            dir.set_time(name, time)
        })
    }

    /// Makes another name of a file that was written before; gives false if it is not there any more.
    fn hard_link(&self, first: &Path, entry: &Entry<'_>, path: &Path) -> Result<bool, ExportError> {
        let Some((dir, name)) = self.find(first).map_err(ExportError::write(self.dest.join(first)))? else {
            return Ok(false);
        };
        self.place(entry.name, path, |here, temporary| here.make_link(temporary, &dir, &name))?;
        Ok(true)
    }

    fn find(&self, path: &Path) -> io::Result<Option<(Dir, OsString)>> {
        let Some(name) = path.file_name() else { return Ok(None) };
        let dir = self.root.open_below(path.parent().unwrap_or(Path::new("")).as_os_str())?;
        let found = dir.try_stat(name)?.is_some_and(|stat| stat.kind() == Kind::File);
        Ok(found.then(|| (dir, name.to_owned())))
    }

    fn regular(&mut self, entry: &Entry<'_>, path: &Path) -> Result<(), ExportError> {
        let identity = (entry.stat.dev, entry.stat.ino);
        if entry.stat.nlink > 1 {
            if let Some(first) = self.links.get(&identity)
                && self.hard_link(first, entry, path)?
            {
                self.written.files += 1;
                return Ok(());
            }
            self.links.insert(identity, path.to_owned());
        }
        self.file(entry, path)
    }

    /// Removes what the result does not have, if that was asked for.
    fn remove_rest(&self) -> Result<(), ExportError> {
        if !self.delete {
            return Ok(());
        }
        let kept: BTreeSet<&Path> = self.seen.keys().map(PathBuf::as_path).collect();
        remove_unless(self.root, &kept).map_err(ExportError::write(self.dest))
    }
}

fn remove_unless(root: &Dir, kept: &BTreeSet<&Path>) -> io::Result<()> {
    let (mut walk, mut path) = (Walk::new(root, ())?, PathBuf::new());
    loop {
        let Some(name) = walk.next_name() else {
            if walk.leave()?.is_none() {
                return Ok(());
            }
            path.pop();
            continue;
        };
        path.push(&name);
        if !kept.contains(path.as_path()) {
            walk.here().remove_all(&name)?;
        } else if walk.here().stat(&name)?.is_dir() {
            walk.enter(&name, ())?;
            continue;
        }
        path.pop();
    }
}

impl Visitor for Copy<'_> {
    fn enter(&mut self, entry: &Entry<'_>) -> Result<(), ExportError> {
        let path = self.prefix.join(entry.path);
        let other = self.remember(path.clone());
        if let Some(other) = other.filter(|other| *other != self.owner && !entry.stat.is_dir()) {
            let (shown, owner) = (entry.path.display(), &self.owner);
            return Err(ExportError::options(format!(
                "both {other} and {owner} have /{shown}, and platform-split=false puts them in one place"
            )));
        }
        match entry.stat.kind() {
            Kind::Directory => self.open_directory(entry.name, &path),
            Kind::File => self.regular(entry, &path),
            Kind::Symlink => self.symlink(entry, &path),
            Kind::Fifo => {
                let mode = 0o010_000 | (entry.stat.permissions() & PERMISSIONS);
                self.place(entry.name, &path, |dir, name| dir.make_node(name, mode, 0))
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Socket => {
                self.written.skipped.push(entry.path.to_owned());
                Ok(())
            }
        }
    }

    fn leave(&mut self, entry: &Entry<'_>) -> Result<(), ExportError> {
        let shown = self.dest.join(&self.prefix).join(entry.path);
        self.way.leave().map_err(ExportError::write(&shown))?;
        let here = self.here();
        let finished = here
            .chmod(entry.name, entry.stat.permissions() & PERMISSIONS)
            .and_then(|()| here.set_time(entry.name, self.time(entry.stat.mtime)));
        finished.map_err(ExportError::write(shown))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn tree(path: &Path, platform: &str) -> Tree {
        Tree { platform: platform.parse().expect("platform"), root: Dir::open(path).expect("open") }
    }

    /// A result, a destination, and something outside both.
    fn scratch() -> (tempfile::TempDir, PathBuf, PathBuf, PathBuf) {
        let temp = tempfile::tempdir().expect("temp dir");
        let [result, dest, home] = ["result", "dest", "home"].map(|name| temp.path().join(name));
        for dir in [&result, &dest, &home] {
            std::fs::create_dir(dir).expect("mkdir");
        }
        std::fs::write(home.join("canary"), "untouched").expect("write");
        (temp, result, dest, home)
    }

    fn export(result: &Path, dest: &Path) -> Result<Written, ExportError> {
        write(&[tree(result, "linux/amd64")], dest, &TreeTarget::default(), None, &Stop::new())
    }

    fn untouched(home: &Path) -> bool {
        let names = Dir::open(home).and_then(|dir| dir.names()).expect("names");
        names == ["canary"] && std::fs::read(home.join("canary")).expect("read") == b"untouched"
    }

    #[test]
    fn copies_files_links_and_times() {
        let (_temp, result, dest, _) = scratch();
        std::fs::create_dir_all(result.join("d/empty")).expect("mkdir");
        std::fs::write(result.join("d/f"), "content").expect("write");
        std::fs::hard_link(result.join("d/f"), result.join("g")).expect("link");
        symlink("d/f", result.join("l")).expect("symlink");
        std::fs::set_permissions(result.join("d"), PermissionsExt::from_mode(0o555)).expect("chmod");
        std::fs::set_permissions(result.join("d/f"), PermissionsExt::from_mode(0o6751)).expect("chmod");
        let written = export(&result, &dest).expect("export");
        assert_eq!((written.files, written.bytes), (2, 7));
        let stat = |path: &str| std::fs::symlink_metadata(dest.join(path)).expect(path);
        assert_eq!(stat("d").mode() & 0o7777, 0o555);
        assert_eq!(stat("d/f").mode() & 0o7777, 0o751, "no set-id bits");
        assert_eq!(stat("d/f").ino(), stat("g").ino());
        assert_eq!(stat("d/f").mtime(), std::fs::metadata(result.join("g")).expect("stat").mtime());
        assert_eq!(std::fs::read_link(dest.join("l")).expect("link"), Path::new("d/f"));
        let again = export(&result, &dest).expect("again");
        assert_eq!(again, written);
    }

    #[test]
    fn t12_links_in_the_destination_are_replaced() {
        let (_temp, result, dest, home) = scratch();
        std::fs::create_dir(result.join("sub")).expect("mkdir");
        std::fs::write(result.join("sub/f"), "new").expect("write");
        std::fs::write(result.join("canary"), "new").expect("write");
        symlink(&home, dest.join("sub")).expect("symlink");
        symlink(home.join("canary"), dest.join("canary")).expect("symlink");
        export(&result, &dest).expect("export");
        assert!(untouched(&home));
        assert_eq!(std::fs::read(dest.join("sub/f")).expect("read"), b"new");
        assert_eq!(std::fs::read(dest.join("canary")).expect("read"), b"new");
    }

    #[test]
    fn t12_a_link_of_one_result_does_not_lead_the_next_outside() {
        let (temp, result, dest, home) = scratch();
        symlink(&home, result.join("k")).expect("symlink");
        let other = temp.path().join("other");
        std::fs::create_dir_all(other.join("k")).expect("mkdir");
        std::fs::write(other.join("k/f"), "x").expect("write");
        let trees = [tree(&result, "linux/amd64"), tree(&other, "linux/arm64")];
        let target = TreeTarget { platform_split: Some(false), ..TreeTarget::default() };
        write(&trees, &dest, &target, None, &Stop::new()).expect("export");
        assert!(untouched(&home));
        assert_eq!(std::fs::read(dest.join("k/f")).expect("read"), b"x");
    }

    #[test]
    fn t12_the_destination_itself_is_no_link() {
        let (temp, result, _, home) = scratch();
        std::fs::write(result.join("f"), "x").expect("write");
        symlink(&home, temp.path().join("out")).expect("symlink");
        let error = export(&result, &temp.path().join("out")).expect_err("a link");
        assert!(matches!(error, ExportError::Destination { .. }), "{error}");
        assert!(untouched(&home));
    }

    #[test]
    fn t12_devices_are_left_out() {
        let (_temp, result, dest, _) = scratch();
        let root = Dir::open(&result).expect("open");
        root.make_node(OsStr::new("null"), 0o020_666, 0x103).expect("mknod");
        let written = export(&result, &dest).expect("export");
        assert_eq!(written.skipped, [Path::new("null")]);
        assert!(!dest.join("null").exists());
    }

    #[test]
    fn a_stopped_export_leaves_no_half_file() {
        let (_temp, result, dest, _) = scratch();
        std::fs::write(result.join("f"), "x").expect("write");
        let stop = Stop::new();
        stop.request();
        assert!(write(&[tree(&result, "linux/amd64")], &dest, &TreeTarget::default(), None, &stop).is_err());
        assert!(Dir::open(&dest).and_then(|dir| dir.names()).expect("names").is_empty());
    }

    #[test]
    fn only_delete_mode_removes() {
        let (_temp, result, dest, home) = scratch();
        std::fs::write(result.join("f"), "new").expect("write");
        std::fs::create_dir_all(dest.join("f/full")).expect("mkdir");
        std::fs::write(dest.join("other"), "kept").expect("write");
        symlink(&home, dest.join("link")).expect("symlink");
        assert!(export(&result, &dest).is_err(), "a full directory stands in the way");
        assert!(dest.join("f/full").is_dir() && dest.join("other").is_file());
        let target = TreeTarget { delete: true, ..TreeTarget::default() };
        write(&[tree(&result, "linux/amd64")], &dest, &target, None, &Stop::new()).expect("export");
        assert_eq!(Dir::open(&dest).and_then(|dir| dir.names()).expect("names"), ["f"]);
        assert!(untouched(&home));
        assert!(write(&[], Path::new("/"), &target, None, &Stop::new()).is_err());
    }

    #[test]
    fn platforms_get_directories_of_their_own() {
        let (temp, result, dest, _) = scratch();
        std::fs::write(result.join("f"), "amd64").expect("write");
        let arm = temp.path().join("arm");
        std::fs::create_dir(&arm).expect("mkdir");
        std::fs::write(arm.join("f"), "arm64").expect("write");
        let trees = [tree(&result, "linux/amd64"), tree(&arm, "linux/arm/v7")];
        write(&trees, &dest, &TreeTarget::default(), Some(5), &Stop::new()).expect("export");
        assert_eq!(std::fs::read(dest.join("linux_amd64/f")).expect("read"), b"amd64");
        let file = std::fs::metadata(dest.join("linux_arm_v7/f")).expect("stat");
        assert_eq!(file.mtime(), 5);
        let target = TreeTarget { platform_split: Some(false), ..TreeTarget::default() };
        let error = write(&trees, &dest, &target, None, &Stop::new()).expect_err("both have /f");
        assert!(error.to_string().contains("platform-split"), "{error}");
    }
}
