//! Records of builds, and lists of the files their steps read: who says why a step ran compares them.
//!
//! In: bytes under names. Out: the same. Invariants: a file appears whole, by a rename from the scratch folder; there are never
//! much more records than [`HistoryLimits`] say, nor [`LISTS`] lists, nor [`BYTES`] bytes of either, the oldest go first. Whoever
//! finds that one is gone knows less, and nothing else.
//!
//! ```text
//! ROOT/explain/builds/KEY.ID    a build of the project KEY
//! ROOT/explain/files/NAME       a list of files
//! ```

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Store, subdir};
use crate::sys::dir::{Dir, Time};

const FOLDER: &str = "explain";
const BUILDS_FOLDER: &str = "builds";
const FILES_FOLDER: &str = "files";

/// Records that are kept where nobody says otherwise.
pub const BUILDS: usize = 128;
/// Lists that are kept.
const LISTS: usize = 256;
/// Bytes of either that are kept.
const BYTES: u64 = 64 << 20;
/// Longer files are none of ours.
const LONGEST: u64 = 64 << 20;

/// Removes all of it; only for who has the state directory alone.
///
/// # Errors
///
/// Those of the file system.
pub fn clear(store: &Store) -> io::Result<()> {
    match store.root_dir().remove_all(OsStr::new(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Which records go: one that is beyond the number of the newest and also older than the age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// The number.
    pub builds: usize,
    /// The age.
    pub age: Duration,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { builds: BUILDS, age: Duration::ZERO }
    }
}

/// The folder.
#[derive(Debug)]
pub struct Explanations {
    builds: Dir,
    files: Dir,
}

impl Explanations {
    /// Opens the folder of a store, making it if it is not there.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn open(store: &Store) -> io::Result<Self> {
        let folder = subdir(store.root_dir(), FOLDER)?;
        Ok(Self { builds: subdir(&folder, BUILDS_FOLDER)?, files: subdir(&folder, FILES_FOLDER)? })
    }

    /// Opens the folder below a state root for reading; none if nothing was ever kept.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn read_only(root: &Path) -> io::Result<Option<Self>> {
        let open = || -> io::Result<Self> {
            let folder = Dir::open(root)?.open_dir(OsStr::new(FOLDER))?;
            Ok(Self {
                builds: folder.open_dir(OsStr::new(BUILDS_FOLDER))?,
                files: folder.open_dir(OsStr::new(FILES_FOLDER))?,
            })
        };
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Returns the newest record of a project.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn newest(&self, project: &str) -> io::Result<Option<Vec<u8>>> {
        self.find(|name| name.strip_prefix(project).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Returns the record of the build whose id starts so.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn build(&self, id: &str) -> io::Result<Option<Vec<u8>>> {
        self.find(|name| name.split_once('.').is_some_and(|(_, rest)| !id.is_empty() && rest.starts_with(id)))
    }

    fn find(&self, wanted: impl Fn(&str) -> bool) -> io::Result<Option<Vec<u8>>> {
        let mut found = list(&self.builds)?;
        found.retain(|(_, name, _)| wanted(name));
        match found.pop() {
            Some((_, name, _)) => read(&self.builds, &name),
            None => Ok(None),
        }
    }

    /// Keeps the record of a build.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn save(&self, store: &Store, (project, id): (&str, &str), record: &[u8]) -> io::Result<()> {
        write(store, &self.builds, &format!("{project}.{id}"), record)
    }

    /// Removes what is beyond the limits.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn trim(&self, limits: HistoryLimits, now: SystemTime) -> io::Result<()> {
        trim(&self.builds, limits, now)?;
        trim(&self.files, HistoryLimits { builds: LISTS, age: Duration::ZERO }, now)
    }

    /// Returns whether there is a list of that name; if so it counts as new.
    pub fn has_list(&self, name: &str) -> bool {
        // A list that cannot be touched only goes earlier.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let time = Time { seconds: now.as_secs() as i64, nanoseconds: now.subsec_nanos() };
        self.files.set_time(OsStr::new(name), time).is_ok()
    }

    /// Returns a list.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn list(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        read(&self.files, name)
    }

    /// Keeps a list.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn save_list(&self, store: &Store, name: &str, list: &[u8]) -> io::Result<()> {
        write(store, &self.files, name, list)
    }
}

fn write(store: &Store, to: &Dir, name: &str, bytes: &[u8]) -> io::Result<()> {
    let scratch = store.scratch();
    let temporary = scratch.unused();
    scratch.dir().create_file(&temporary, 0o600)?.write_all(bytes)?;
    scratch.dir().rename(&temporary, to, OsStr::new(name))
}

fn read(from: &Dir, name: &str) -> io::Result<Option<Vec<u8>>> {
    if name.contains('/') || name.starts_with('.') || name.is_empty() {
        return Ok(None);
    }
    let file = match from.open_file(OsStr::new(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// When a file was written or used, its name, its size.
type Kept = ((i64, u32), String, u64);

/// Returns what is kept, the newest last.
fn list(dir: &Dir) -> io::Result<Vec<Kept>> {
    let mut found = Vec::new();
    for name in dir.names()? {
        let (Some(stat), Some(name)) = (dir.try_stat(&name)?, name.to_str()) else { continue };
        found.push(((stat.mtime.seconds, stat.mtime.nanoseconds), name.to_owned(), stat.size));
    }
    found.sort();
    Ok(found)
}

fn trim(dir: &Dir, limits: HistoryLimits, now: SystemTime) -> io::Result<()> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(limits.age);
    let since = (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos());
    let mut bytes = 0;
    for (at, (time, name, size)) in list(dir)?.into_iter().rev().enumerate() {
        bytes += size;
        // What is made in this moment may have any time of this second.
        let old = limits.age.is_zero() || time < since;
        if (at >= limits.builds && old) || (at > 0 && bytes > BYTES) {
            match dir.unlink(OsStr::new(&name)) {
                // Another build was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_record_goes_when_it_is_beyond_the_number_and_older_than_the_age() {
        let root = tempfile::tempdir().expect("temporary");
        let store = Store::open(root.path()).expect("store");
        let folder = Explanations::open(&store).expect("folder");
        let now = SystemTime::now();
        let names = |dir: &Dir| list(dir).expect("listed").into_iter().map(|(_, name, _)| name).collect::<Vec<_>>();
        // The record `hN` is N hours old.
        for age in 0..6 {
            folder.save(&store, ("p", &format!("h{age}")), b"record").expect("saved");
            let seconds = (now - HOUR * age).duration_since(UNIX_EPOCH).expect("later").as_secs();
            let time = Time { seconds: seconds as i64, nanoseconds: 0 };
            folder.builds.set_time(OsStr::new(&format!("p.h{age}")), time).expect("set");
        }
        for (builds, age, left) in [
            (10, Duration::ZERO, 6),
            (0, HOUR * 24, 6),
            (5, HOUR * 24, 6),
            (1, HOUR * 9 / 2, 5),
            (3, HOUR * 3 / 2, 3),
            (2, Duration::ZERO, 2),
            (0, Duration::ZERO, 0),
        ] {
            folder.trim(HistoryLimits { builds, age }, now).expect("trimmed");
            let expected: Vec<String> = (0..left).rev().map(|age| format!("p.h{age}")).collect();
            assert_eq!(names(&folder.builds), expected, "{builds} {age:?}");
        }
    }
}
