//! Directories as descriptors: every name is one component below an open directory, every longer path is resolved inside a
//! root by the kernel.
//!
//! In: a directory descriptor and names. Out: descriptors, metadata, entries. Invariants: no function follows a symbolic
//! link in the last component unless its name says so; [`Dir::resolve`] never leaves the root and never passes a magic
//! link of procfs, whatever another process does to the tree meanwhile.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

pub use rustix::fs::OFlags;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, ResolveFlags, Timespec, Timestamps, Uid};

use super::walk::Walk;

/// How often a lookup is tried again when another process renames directories under it (`EAGAIN` from openat2).
const RESOLVE_TRIES: u32 = 128;

/// An open directory.
#[derive(Debug)]
pub struct Dir(OwnedFd);

/// Metadata of a file, not following links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// File type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Device number of a device file.
    pub rdev: u64,
    /// Device the file is on.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Number of names.
    pub nlink: u64,
    /// Blocks of 512 bytes in use.
    pub blocks: u64,
    /// Modification time.
    pub mtime: Time,
    /// Change time.
    pub ctime: Time,
}

/// A time as seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanoseconds: u32,
}

impl Time {
    /// Returns the whole seconds since 1970, 0 for times before.
    pub fn since_1970(self) -> u64 {
        u64::try_from(self.seconds).unwrap_or(0)
    }
}

/// Types of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Stat {
    /// Returns the type of the file.
    pub fn kind(&self) -> Kind {
        match FileType::from_raw_mode(self.mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            _ => Kind::File,
        }
    }

    /// Returns whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == Kind::Directory
    }

    /// Returns permission, set-id and sticky bits.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    fn from_raw(stat: &fs::Stat) -> Self {
        Self {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            rdev: stat.st_rdev,
            dev: stat.st_dev,
            ino: stat.st_ino,
            nlink: stat.st_nlink,
            blocks: stat.st_blocks as u64,
            mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
            ctime: Time { seconds: stat.st_ctime, nanoseconds: stat.st_ctime_nsec as u32 },
        }
    }
}

/// The error of a path with too many links, or with one that may not be followed.
pub fn too_many_links() -> io::Error {
    rustix::io::Errno::LOOP.into()
}

/// Returns the number of a device.
pub fn device(major: u32, minor: u32) -> u64 {
    fs::makedev(major, minor)
}

/// Returns the metadata of an open file.
pub fn stat_of(fd: impl AsFd) -> io::Result<Stat> {
    Ok(Stat::from_raw(&fs::fstat(fd)?))
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Dir {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Dir> for OwnedFd {
    fn from(dir: Dir) -> OwnedFd {
        dir.0
    }
}

/// Opens a file the user names for reading, following links, but not waiting for the writer of a pipe.
pub fn open_without_waiting(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(File::from(fs::open(path, flags, Mode::empty())?))
}

/// Less than this much space is none: file systems keep some back, and programs give up before the last byte.
const NO_SPACE: u64 = 256 << 10;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Dir {
    /// Opens a directory by path, following links: only for paths the user names.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::open(path, DIRECTORY, Mode::empty())?))
    }

    /// Opens the directory again, with its own position.
    pub fn reopen(&self) -> io::Result<Self> {
        Ok(Self(fs::openat(&self.0, c".", DIRECTORY, Mode::empty())?))
    }

    /// Returns another descriptor of the same open directory.
    pub fn duplicate(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Resolves a path as if this directory were `/`, following links inside it, and opens what it names.
    pub fn resolve(&self, path: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { OsStr::new(".") } else { path };
        let flags = flags | OFlags::CLOEXEC;
        for _ in 0..RESOLVE_TRIES {
            match fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
        Err(rustix::io::Errno::AGAIN.into())
    }

    /// Resolves a path as [`Dir::resolve`] does and opens the directory it names.
    pub fn resolve_dir(&self, path: &OsStr) -> io::Result<Self> {
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Self)
    }

    /// Opens the directory at `path` below this one: no component may be a link or `..`. The path may be of any length.
    pub fn open_below(&self, path: &OsStr) -> io::Result<Self> {
        let mut dir: Option<Self> = None;
        let mut rest = path.as_bytes();
        while !rest.is_empty() {
            let length = piece_length(rest);
            let from = dir.as_ref().unwrap_or(self);
            dir = Some(from.open_piece(OsStr::from_bytes(&rest[..length]))?);
            rest = rest[length..].strip_prefix(b"/").unwrap_or(&rest[length..]);
        }
        dir.map_or_else(|| self.reopen(), Ok)
    }

    fn open_piece(&self, path: &OsStr) -> io::Result<Self> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        for _ in 0..RESOLVE_TRIES {
            match fs::openat2(&self.0, path, DIRECTORY, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                result => return Ok(Self(result?)),
            }
        }
        Err(rustix::io::Errno::AGAIN.into())
    }

    /// Opens the directory `name`, which must not be a link.
    pub fn open_dir(&self, name: &OsStr) -> io::Result<Self> {
        Ok(Self(fs::openat(&self.0, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?))
    }

    /// Opens `name` for reading, not following a link and not waiting for the writer of a pipe.
    pub fn open_file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        Ok(File::from(fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Makes the file `name`, which must not exist, and opens it for writing.
    pub fn create_file(&self, name: &OsStr, permissions: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(&self.0, name, flags, Mode::from_raw_mode(permissions))?))
    }

    /// Opens a file for appending, making it if it is not there.
    pub fn append_file(&self, name: &OsStr, permissions: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(&self.0, name, flags, Mode::from_raw_mode(permissions))?))
    }

    /// Takes the directory that is standard input.
    pub fn standard_input() -> io::Result<Self> {
        Ok(Self(io::stdin().as_fd().try_clone_to_owned()?))
    }

    /// Waits until all that was written to the file system the directory is on is on disk.
    pub fn sync_file_system(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.0)?)
    }

    /// Returns the size of the file system the directory is on, and how much of it this user may still fill, in bytes.
    pub fn disk_space(&self) -> io::Result<(u64, u64)> {
        let disk = fs::fstatvfs(&self.0)?;
        Ok((disk.f_blocks.saturating_mul(disk.f_frsize), disk.f_bavail.saturating_mul(disk.f_frsize)))
    }

    /// Returns whether the file system the directory is on has next to no space or no inodes left for this user.
    pub fn is_disk_full(&self) -> io::Result<bool> {
        let disk = fs::fstatvfs(&self.0)?;
        // Some file systems do not count inodes, and say 0 of 0.
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize) < NO_SPACE || (disk.f_files > 0 && disk.f_favail == 0))
    }

    /// Returns the names in the directory, sorted by bytes, without `.` and `..`.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the metadata of `name` itself.
    pub fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(Stat::from_raw(&fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// Returns the metadata of `name` itself, or none if there is nothing of that name.
    pub fn try_stat(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match self.stat(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some),
        }
    }

    /// Returns the metadata of the directory.
    pub fn stat_self(&self) -> io::Result<Stat> {
        stat_of(&self.0)
    }

    /// Returns what the link `name` holds.
    pub fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        Ok(OsString::from_vec(fs::readlinkat(&self.0, name, Vec::new())?.into_bytes()))
    }

    /// Makes the directory `name`.
    pub fn make_dir(&self, name: &OsStr, permissions: u32) -> io::Result<()> {
        Ok(fs::mkdirat(&self.0, name, Mode::from_raw_mode(permissions))?)
    }

    /// Makes the symbolic link `name`.
    pub fn make_symlink(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        Ok(fs::symlinkat(target, &self.0, name)?)
    }

    /// Makes `name` another name of `old` in `from`; a link is linked itself, not followed.
    pub fn make_link(&self, name: &OsStr, from: &Dir, old: &OsStr) -> io::Result<()> {
        Ok(fs::linkat(&from.0, old, &self.0, name, AtFlags::empty())?)
    }

    /// Makes the device, pipe or socket `name`; `mode` holds type and permission bits.
    pub fn make_node(&self, name: &OsStr, mode: u32, rdev: u64) -> io::Result<()> {
        let kind = FileType::from_raw_mode(mode);
        Ok(fs::mknodat(&self.0, name, kind, Mode::from_raw_mode(mode & 0o7777), rdev)?)
    }

    /// Removes the file or link `name`.
    pub fn unlink(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes the empty directory `name`.
    pub fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes `name` and all below it, however deep, never following a link; what is not there is fine.
    pub fn remove_all(&self, name: &OsStr) -> io::Result<()> {
        match self.try_stat(name)? {
            None => return Ok(()),
            Some(stat) if stat.is_dir() => self.make_traversable(name, &stat)?,
            Some(_) => return self.unlink(name),
        }
        self.open_dir(name)?.remove_contents()?;
        self.remove_dir(name)
    }

    /// Removes all that is in the directory.
    fn remove_contents(&self) -> io::Result<()> {
        let mut walk = Walk::new(self, ())?;
        loop {
            if let Some(name) = walk.next_name() {
                let stat = walk.here().stat(&name)?;
                if stat.is_dir() {
                    walk.here().make_traversable(&name, &stat)?;
                    walk.enter(&name, ())?;
                } else {
                    walk.here().unlink(&name)?;
                }
                continue;
            }
            let Some((name, ())) = walk.leave()? else { return Ok(()) };
            walk.here().remove_dir(&name)?;
        }
    }

    /// A directory of mode 000 that this user owns can be emptied once it may be entered.
    fn make_traversable(&self, name: &OsStr, stat: &Stat) -> io::Result<()> {
        if stat.permissions() & 0o700 != 0o700 {
            // Not by name: between the look and the change a link could have come there.
            self.chmod(name, stat.permissions() | 0o700)?;
        }
        Ok(())
    }

    /// Renames `name` to `new` in `to`, replacing what is there.
    pub fn rename(&self, name: &OsStr, to: &Dir, new: &OsStr) -> io::Result<()> {
        Ok(fs::renameat(&self.0, name, &to.0, new)?)
    }

    /// Renames `name` to `new` in `to`, failing if there is anything of that name.
    pub fn rename_new(&self, name: &OsStr, to: &Dir, new: &OsStr) -> io::Result<()> {
        Ok(fs::renameat_with(&self.0, name, &to.0, new, fs::RenameFlags::NOREPLACE)?)
    }

    /// Changes owner and group of `name` itself.
    pub fn chown(&self, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        Ok(fs::chownat(&self.0, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Changes the permission bits of `name`, which must not be a link.
    pub fn chmod(&self, name: &OsStr, permissions: u32) -> io::Result<()> {
        let fd = fs::openat(&self.0, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if stat_of(&fd)?.kind() == Kind::Symlink {
            return Err(rustix::io::Errno::LOOP.into());
        }
        Ok(fs::chmod(proc_path(fd.as_fd(), None), Mode::from_raw_mode(permissions))?)
    }

    /// Sets access and modification time of `name` itself.
    pub fn set_time(&self, name: &OsStr, time: Time) -> io::Result<()> {
        Ok(fs::utimensat(&self.0, name, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Returns the extended attributes of `name` itself, sorted by name.
    pub fn xattrs(&self, name: &OsStr) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        list_xattrs(&proc_path(self.0.as_fd(), Some(name)))
    }

    /// Returns one extended attribute of `name` itself, or none.
    pub fn xattr(&self, name: &OsStr, key: &OsStr) -> io::Result<Option<Vec<u8>>> {
        read_xattr(&proc_path(self.0.as_fd(), Some(name)), key)
    }

    /// Sets an extended attribute of `name` itself.
    pub fn set_xattr(&self, name: &OsStr, key: &OsStr, value: &[u8]) -> io::Result<()> {
        let path = proc_path(self.0.as_fd(), Some(name));
        Ok(fs::lsetxattr(&path, key, value, fs::XattrFlags::empty())?)
    }

    /// Removes an extended attribute of `name` itself.
    pub fn remove_xattr(&self, name: &OsStr, key: &OsStr) -> io::Result<()> {
        Ok(fs::lremovexattr(proc_path(self.0.as_fd(), Some(name)), key)?)
    }
}

/// Returns major and minor number of a device.
pub fn device_numbers(rdev: u64) -> (u32, u32) {
    (fs::major(rdev), fs::minor(rdev))
}

/// Changes owner and group of an open file.
pub fn chown_of(fd: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    Ok(fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

/// Changes the permission bits of an open file.
pub fn chmod_of(fd: impl AsFd, permissions: u32) -> io::Result<()> {
    Ok(fs::fchmod(fd, Mode::from_raw_mode(permissions))?)
}

/// Sets an extended attribute of an open file.
pub fn set_xattr_of(fd: impl AsFd, key: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(fs::fsetxattr(fd, key, value, fs::XattrFlags::empty())?)
}

/// How much of a path one lookup takes: the kernel allows 4,095 bytes.
fn piece_length(path: &[u8]) -> usize {
    const LONGEST: usize = 3072;
    if path.len() <= LONGEST {
        return path.len();
    }
    // A component has at most 255 bytes, so there is a slash in reach unless the name is one the kernel refuses anyway.
    path[..LONGEST].iter().rposition(|b| *b == b'/').unwrap_or(LONGEST)
}

/// Sets access and modification time of an open file.
pub fn set_time_of(fd: impl AsFd, time: Time) -> io::Result<()> {
    Ok(fs::futimens(fd, &timestamps(time))?)
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

/// The name of a descriptor, or of a file in it, below our own procfs: for calls that have no descriptor form.
pub fn proc_path(fd: BorrowedFd<'_>, name: Option<&OsStr>) -> OsString {
    let mut path = OsString::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    if let Some(name) = name {
        path.push("/");
        path.push(name);
    }
    path
}

fn list_xattrs(path: &OsStr) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut buffer = vec![0u8; 512];
    let length = loop {
        match fs::llistxattr(path, &mut buffer[..]) {
            Ok(length) => break length,
            Err(rustix::io::Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 8, 0),
            Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    };
    let mut found = Vec::new();
    for key in buffer[..length].split(|b| *b == 0).filter(|k| !k.is_empty()) {
        let key = OsStr::from_bytes(key);
        if let Some(value) = read_xattr(path, key)? {
            found.push((key.to_owned(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn read_xattr(path: &OsStr, key: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0u8; 256];
    loop {
        match fs::lgetxattr(path, key, &mut buffer[..]) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(rustix::io::Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 16, 0),
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = Dir::open(temp.path()).expect("open");
        (temp, dir)
    }

    #[test]
    fn resolving_never_leaves_the_root() {
        let (temp, dir) = scratch();
        dir.make_dir(OsStr::new("root"), 0o755).expect("mkdir");
        std::fs::write(temp.path().join("secret"), "outside").expect("write");
        let root = dir.open_dir(OsStr::new("root")).expect("open");
        for (name, target) in [("up", "../secret"), ("absolute", "/secret"), ("far", "../../../../secret")] {
            root.make_symlink(OsStr::new(name), OsStr::new(target)).expect("symlink");
            assert!(root.resolve(OsStr::new(name), OFlags::RDONLY).is_err(), "{name}");
        }
        assert!(root.resolve(OsStr::new("../secret"), OFlags::RDONLY).is_err());
    }

    #[test]
    fn removes_trees_without_following_links() {
        let (temp, dir) = scratch();
        std::fs::create_dir_all(temp.path().join("tree/locked")).expect("mkdir");
        std::fs::write(temp.path().join("kept"), "kept").expect("write");
        std::os::unix::fs::symlink("../../kept", temp.path().join("tree/locked/link")).expect("symlink");
        dir.chmod(OsStr::new("tree"), 0o000).expect("chmod");
        dir.remove_all(OsStr::new("tree")).expect("remove");
        assert_eq!(dir.names().expect("names"), [OsStr::new("kept")]);
    }

    #[test]
    fn f8_a_directory_that_became_a_link_lends_nothing_its_mode() {
        let (temp, dir) = scratch();
        std::fs::create_dir(temp.path().join("outside")).expect("mkdir");
        dir.chmod(OsStr::new("outside"), 0o500).expect("chmod");
        dir.make_dir(OsStr::new("d"), 0o000).expect("mkdir");
        let seen = dir.stat(OsStr::new("d")).expect("stat");
        dir.remove_dir(OsStr::new("d")).expect("rmdir");
        dir.make_symlink(OsStr::new("d"), OsStr::new("outside")).expect("symlink");
        assert!(dir.make_traversable(OsStr::new("d"), &seen).is_err());
        assert_eq!(dir.stat(OsStr::new("outside")).expect("stat").permissions(), 0o500);
    }

    #[test]
    fn chmod_refuses_a_link() {
        let (_temp, dir) = scratch();
        dir.make_symlink(OsStr::new("link"), OsStr::new("/etc")).expect("symlink");
        assert!(dir.chmod(OsStr::new("link"), 0o777).is_err());
    }
}
