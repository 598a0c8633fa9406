//! Files that have no name until they are complete: whatever ends the process, they leave nothing behind.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags};

use super::dir::{Dir, proc_path};

/// Makes a file without a name on the file system of `dir`; some file systems do not know such files.
pub fn create(dir: &Dir, permissions: u32) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = File::from(fs::openat(dir.as_fd(), ".", flags, Mode::from_raw_mode(permissions))?);
    // Naming it needs procfs, which may be missing.
    fs::statat(CWD, proc_path(file.as_fd(), None), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(file)
}

/// Gives such a file a name, which nothing may have yet.
pub fn name(file: &File, dir: &Dir, name: &OsStr) -> io::Result<()> {
    // Linking the descriptor itself takes a capability before Linux 6.10.
    let path = proc_path(file.as_fd(), None);
    Ok(fs::linkat(CWD, path, dir.as_fd(), name, AtFlags::SYMLINK_FOLLOW)?)
}
