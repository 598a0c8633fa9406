//! A file that an export is writing: without a name until it is complete, so that even a killed process leaves nothing that a later
//! build could take for a part of its context.
//!
//! In: an open directory. Out: a file of the right name, in place of what had it. On disk, only where the file system knows no files
//! without names, and for a moment where a file is replaced: `.rbuild-PID-N.tmp`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::dir::Dir;
use crate::sys::unnamed;

const PERMISSIONS: u32 = 0o666;

/// The file; dropped before [`Draft::name`] it leaves nothing.
#[derive(Debug)]
pub(super) struct Draft {
    dir: Dir,
    pub(super) file: File,
    temporary: Option<OsString>,
}

impl Draft {
    /// Starts a file in `dir`.
    pub(super) fn create(dir: Dir) -> io::Result<Self> {
        match unnamed::create(&dir, PERMISSIONS) {
            Ok(file) => Ok(Self { dir, file, temporary: None }),
            Err(_) => Self::create_named(dir),
        }
    }

    fn create_named(dir: Dir) -> io::Result<Self> {
        loop {
            let name = temporary_name();
            match dir.create_file(&name, PERMISSIONS) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => return result.map(|file| Self { dir, file, temporary: Some(name) }),
            }
        }
    }

    /// Gives the file its name, in place of what had it.
    pub(super) fn name(mut self, name: &OsStr) -> io::Result<()> {
        if self.temporary.is_none() {
            match unnamed::name(&self.file, &self.dir, name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.link()?,
                result => return result,
            }
        }
        if let Some(temporary) = &self.temporary {
            self.dir.rename(temporary, &self.dir, name)?;
            self.temporary = None;
        }
        Ok(())
    }

    /// There is no call that replaces a file by one without a name.
    fn link(&mut self) -> io::Result<()> {
        loop {
            let name = temporary_name();
            match unnamed::name(&self.file, &self.dir, &name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => {
                    self.temporary = result.is_ok().then_some(name);
                    return result;
                }
            }
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The export has failed already, and that is what the user needs to hear of.
            let _ = self.dir.unlink(temporary);
        }
    }
}

/// Returns a name that is most likely free.
pub(super) fn temporary_name() -> OsString {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    OsString::from(format!(".rbuild-{}-{number}.tmp", std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::Path;

    use super::*;

    #[test]
    fn both_kinds_replace_and_leave_nothing() {
        let temp = tempfile::tempdir().expect("temp dir");
        let open = || Dir::open(temp.path()).expect("dir");
        let names = || open().names().expect("names");
        for create in [Draft::create, Draft::create_named] {
            let mut draft = create(open()).expect("create");
            draft.file.write_all(b"dropped").expect("write");
            drop(draft);
            assert!(!names().iter().any(|name| name.to_string_lossy().starts_with(".rbuild")));
            for content in ["one", "two"] {
                let mut draft = create(open()).expect("create");
                draft.file.write_all(content.as_bytes()).expect("write");
                draft.name(OsStr::new("file")).expect("name");
                assert_eq!(std::fs::read_to_string(temp.path().join("file")).expect("read"), content);
                assert_eq!(names(), ["file"]);
            }
        }
        let draft = Draft::create(open()).expect("create");
        let visible = names().len() > 1;
        assert_eq!(visible, draft.temporary.is_some());
        assert!(Path::new(&temporary_name()) != Path::new(&temporary_name()));
    }
}
