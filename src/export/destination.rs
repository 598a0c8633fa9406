//! Files and directories of the host that an export writes: opened once, replaced whole, never through a link.
//!
//! In: paths the user names. Out: an [`OutputFile`] that takes its place only when it is complete, or an open directory.
//! Invariants: below the working directory no component of a path is a symbolic link, whether the path is relative or not (a
//! repository can hold `out → ~/.ssh`), and the last one of any other absolute path is none either; until [`OutputFile::commit`] the former file is untouched, and what is dropped before
//! leaves nothing.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use super::ExportError;
use super::draft::Draft;
use crate::sys::dir::{Dir, Kind, Stat};

/// What to do with a directory that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Make it, with its parents.
    Create,
    /// It is an error.
    Fail,
}

/// Opens a destination directory.
pub fn open_directory(path: &Path, missing: Missing) -> Result<Dir, ExportError> {
    let here = working_directory(path)?;
    let path = from_here(path, &here);
    let Some(parent) = path.parent().filter(|_| path.is_absolute()) else {
        return open_below(path, missing);
    };
    if missing == Missing::Create {
        std::fs::create_dir_all(parent).map_err(ExportError::write(parent))?;
    }
    let parent = Dir::open(parent).map_err(ExportError::write(path))?;
    match path.file_name() {
        Some(name) => enter(&parent, name, missing, path),
        // `/` and paths that end in `..` name a directory that exists and is no link.
        None => Dir::open(path).map_err(ExportError::write(path)),
    }
}

/// Absolute paths are often made by putting the working directory in front of a relative one.
fn from_here<'a>(path: &'a Path, here: &Path) -> &'a Path {
    // Below `/` are the system's own links, such as /var/run.
    let rest = here.parent().and_then(|_| path.strip_prefix(here).ok());
    rest.filter(|rest| !rest.as_os_str().is_empty()).unwrap_or(path)
}

fn working_directory(path: &Path) -> Result<PathBuf, ExportError> {
    std::env::current_dir().map_err(ExportError::write(path))
}

fn open_below(path: &Path, missing: Missing) -> Result<Dir, ExportError> {
    let root = if path.is_absolute() { "/" } else { "." };
    let mut dir = Dir::open(Path::new(root)).map_err(ExportError::write(path))?;
    for component in path.components() {
        match component {
            Component::Normal(name) => dir = enter(&dir, name, missing, path)?,
            Component::ParentDir => dir = dir.open_dir(OsStr::new("..")).map_err(ExportError::write(path))?,
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(dir)
}

fn enter(dir: &Dir, name: &OsStr, missing: Missing, whole: &Path) -> Result<Dir, ExportError> {
    let write = || ExportError::write(whole);
    match dir.try_stat(name).map_err(write())? {
        None if missing == Missing::Create => match dir.make_dir(name, 0o777) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(write()(error)),
            _ => {}
        },
        Some(stat) if stat.kind() == Kind::Symlink => return Err(link(whole, name)),
        Some(stat) if !stat.is_dir() => return Err(refused(whole, format!("{} is not a directory", name.display()))),
        _ => {}
    }
    dir.open_dir(name).map_err(write())
}

fn link(path: &Path, name: &OsStr) -> ExportError {
    refused(path, format!("{} is a symbolic link; name the directory or file it points to", name.display()))
}

fn refused(path: &Path, problem: String) -> ExportError {
    ExportError::Destination { path: path.to_owned(), problem }
}

/// A file that appears under its name only when it is complete.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    file: Output,
}

#[derive(Debug)]
enum Output {
    /// A pipe or a device.
    Existing(File),
    /// A file that gets a name.
    New(Draft, OsString),
}

/// What an output goes to, with its path from here.
enum Place {
    /// A pipe or a device, or something that is neither.
    Existing(PathBuf, Stat),
    /// A file of that name in that directory.
    Beside(Dir, OsString, PathBuf),
}

impl Place {
    fn find(path: &Path) -> Result<Self, ExportError> {
        let here = working_directory(path)?;
        let path = from_here(path, &here);
        let Some(name) = path.file_name() else {
            return Err(refused(path, "it is a directory".into()));
        };
        let parent = match path.parent() {
            Some(parent) if path.is_absolute() => Dir::open(parent).map_err(ExportError::write(path))?,
            Some(parent) => open_below(parent, Missing::Fail).map_err(|error| match error {
                ExportError::Write { source, .. } => ExportError::write(path)(source),
                other => other,
            })?,
            None => return Err(refused(path, "it is a directory".into())),
        };
        match parent.try_stat(name).map_err(ExportError::write(path))? {
            Some(stat) if stat.kind() == Kind::Symlink => Err(link(path, name)),
            Some(stat) if stat.is_dir() => Err(refused(path, "it is a directory".into())),
            Some(stat) if stat.kind() != Kind::File => Ok(Self::Existing(path.to_owned(), stat)),
            _ => Ok(Self::Beside(parent, name.to_owned(), path.to_owned())),
        }
    }
}

fn refuse_kind(path: &Path, stat: &Stat) -> Result<(), ExportError> {
    match stat.kind() {
        Kind::Fifo | Kind::CharDevice => Ok(()),
        _ => Err(refused(path, "it is neither a file nor a pipe".into())),
    }
}

impl OutputFile {
    /// Starts a file at `path`; its directory must exist.
    pub fn create(path: &Path) -> Result<Self, ExportError> {
        match Place::find(path)? {
            Place::Existing(path, stat) => Self::existing(&path, &stat),
            Place::Beside(parent, name, path) => Self::beside(parent, &name, &path),
        }
    }

    /// Starts a file in an open directory.
    pub fn create_in(dir: &Dir, name: &OsStr, shown: &Path) -> Result<Self, ExportError> {
        let dir = dir.open_dir(OsStr::new(".")).map_err(ExportError::write(shown))?;
        Self::beside(dir, name, shown)
    }

    /// A pipe or a device such as `/dev/null` is written to, not replaced.
    fn existing(path: &Path, stat: &Stat) -> Result<Self, ExportError> {
        refuse_kind(path, stat)?;
        let file = File::options().write(true).open(path).map_err(ExportError::write(path))?;
        Ok(Self { path: path.to_owned(), file: Output::Existing(file) })
    }

    fn beside(dir: Dir, name: &OsStr, path: &Path) -> Result<Self, ExportError> {
        let draft = Draft::create(dir).map_err(ExportError::write(path))?;
        Ok(Self { path: path.to_owned(), file: Output::New(draft, name.to_owned()) })
    }

    /// Gives the file its name, in place of what had it.
    pub fn commit(self) -> Result<(), ExportError> {
        match self.file {
            Output::Existing(mut file) => file.flush().map_err(ExportError::write(&self.path)),
            Output::New(draft, name) => {
                // Some file systems tell only now that the disk is full.
                let synced = draft.file.sync_all();
                synced.and_then(|()| draft.name(&name)).map_err(ExportError::write(&self.path))
            }
        }
    }

    /// Returns the open file.
    pub fn file(&self) -> &File {
        match &self.file {
            Output::Existing(file) => file,
            Output::New(draft, _) => &draft.file,
        }
    }

    /// Returns the path as the user knows it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

/// Looks whether a file can be written at `path`; nothing is changed.
pub fn check_file(path: &Path) -> Result<(), ExportError> {
    match Place::find(path)? {
        Place::Existing(path, stat) => refuse_kind(&path, &stat),
        Place::Beside(parent, _, path) => Draft::create(parent).map(drop).map_err(ExportError::write(path)),
    }
}

/// Looks whether a directory can be had at `path`; nothing is changed.
pub fn check_directory(path: &Path) -> Result<(), ExportError> {
    match open_directory(path, Missing::Fail) {
        Err(ExportError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        result => return result.map(drop),
    }
    let parents = path.ancestors().skip(1).map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    for parent in parents {
        match open_directory(parent, Missing::Fail) {
            Err(ExportError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            // It will have to be made in there.
            Ok(parent) => return Draft::create(parent).map(drop).map_err(ExportError::write(path)),
        }
    }
    Ok(())
}

/// Removes the file at `path`, if there is one: it is of an earlier build.
pub fn remove_file(path: &Path) -> Result<(), ExportError> {
    let place = match Place::find(path) {
        Err(ExportError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        place => place?,
    };
    match place {
        Place::Beside(parent, name, path) => match parent.unlink(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ExportError::write(path)(error)),
            _ => Ok(()),
        },
        Place::Existing(..) => Ok(()),
    }
}

/// Writes a whole small file.
pub fn write_file(path: &Path, content: &[u8]) -> Result<(), ExportError> {
    let mut file = OutputFile::create(path)?;
    file.write_all(content).map_err(ExportError::write(path))?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(dir: &Path) -> Vec<OsString> {
        Dir::open(dir).and_then(|dir| dir.names()).expect("names")
    }

    #[test]
    fn replaces_whole_or_not_at_all() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("out");
        write_file(&path, b"first").expect("write");
        let mut file = OutputFile::create(&path).expect("create");
        file.write_all(b"half").expect("write");
        drop(file);
        assert_eq!(std::fs::read(&path).expect("read"), b"first");
        assert_eq!(names(temp.path()), ["out"]);
        write_file(&path, b"second").expect("write");
        assert_eq!(std::fs::read(&path).expect("read"), b"second");
    }

    #[test]
    fn t12_a_destination_that_is_a_link_is_refused() {
        let temp = tempfile::tempdir().expect("temp dir");
        let canary = temp.path().join("canary");
        std::fs::write(&canary, "untouched").expect("write");
        std::fs::create_dir(temp.path().join("home")).expect("mkdir");
        symlink(&canary, temp.path().join("file")).expect("symlink");
        symlink(temp.path().join("home"), temp.path().join("dir")).expect("symlink");
        symlink("nowhere", temp.path().join("dangling")).expect("symlink");
        for name in ["file", "dangling"] {
            let error = write_file(&temp.path().join(name), b"x").expect_err(name);
            assert!(matches!(error, ExportError::Destination { .. }), "{error}");
        }
        for name in ["dir", "file", "canary"] {
            assert!(open_directory(&temp.path().join(name), Missing::Create).is_err(), "{name}");
        }
        assert_eq!(std::fs::read(&canary).expect("read"), b"untouched");
        assert!(names(&temp.path().join("home")).is_empty());
    }

    #[test]
    fn t12_a_relative_destination_passes_no_link() {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(temp.path().join("real")).expect("mkdir");
        symlink("real", temp.path().join("link")).expect("symlink");
        // The walk of relative paths, from here to the temporary directory.
        let up = std::env::current_dir().expect("cwd").components().count() - 1;
        let here: PathBuf = std::iter::repeat_n("..", up).collect();
        let base = here.join(temp.path().strip_prefix("/").expect("absolute"));
        assert!(open_directory(&base.join("real/new/deep"), Missing::Create).is_ok());
        assert!(temp.path().join("real/new/deep").is_dir());
        assert!(open_directory(&base.join("link/other"), Missing::Create).is_err());
        assert!(write_file(&base.join("link/file"), b"x").is_err());
        assert_eq!(names(&temp.path().join("real")), ["new"]);
    }

    #[test]
    fn t12_absolute_paths_below_the_working_directory_count_as_relative() {
        for (path, expected) in [
            ("/home/a/tree/out/x", "out/x"),
            ("/home/a/tree", "/home/a/tree"),
            ("/home/a/trees/x", "/home/a/trees/x"),
            ("out", "out"),
        ] {
            assert_eq!(from_here(Path::new(path), Path::new("/home/a/tree")), Path::new(expected));
        }
        assert_eq!(from_here(Path::new("/var/run/x"), Path::new("/")), Path::new("/var/run/x"));
    }

    #[test]
    fn writes_to_a_device() {
        write_file(Path::new("/dev/null"), b"gone").expect("write");
    }
}
