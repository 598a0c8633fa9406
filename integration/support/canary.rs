//! Things of the host that no build may touch: everything about them is noted before and compared after.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::build::User;

/// A directory tree outside the state directory, and the mounts of this machine.
///
/// It belongs to the user who builds: whatever gets out of its tree could change it.
pub(crate) struct HostCanary {
    temp: TempDir,
    text: String,
    before: BTreeMap<String, String>,
    mounts: Vec<String>,
}

impl HostCanary {
    /// Makes one.
    pub(crate) fn new(user: User) -> Self {
        let temp = TempDir::with_prefix("rbuild-canary-").unwrap();
        let text = format!("canary-{}", temp.path().file_name().unwrap().to_str().unwrap());
        let place = |name: &str| temp.path().join(name);
        for (name, mode) in [("", 0o755), ("d", 0o750), ("x", 0o755), ("y", 0o700)] {
            fs::create_dir_all(place(name)).unwrap();
            fs::set_permissions(place(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        for (name, mode) in
            [("f", 0o644), ("private", 0o600), ("group", 0o070), ("empty", 0o644), ("d/f", 0o640), ("setuid", 0o4711)]
        {
            fs::write(place(name), if name == "empty" { "" } else { &text }).unwrap();
            fs::set_permissions(place(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("f", place("link")).unwrap();
        fs::hard_link(place("f"), place("hard")).unwrap();
        assert!(Command::new("mkfifo").arg(place("fifo")).status().unwrap().success());
        if user == User::Rootless {
            assert!(
                Command::new("chown")
                    .args(["-RhP", "rbuild-test:rbuild-test"])
                    .arg(temp.path())
                    .status()
                    .unwrap()
                    .success()
            );
            chown(place("setuid"), Some(0), Some(0)).unwrap();
        }
        let before = look(temp.path());
        Self { text, before, mounts: mounts(temp.path()), temp }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &str {
        self.temp.path().to_str().unwrap()
    }

    /// What its files hold: found nowhere else.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether nothing has changed.
    pub(crate) fn is_untouched(&self) -> bool {
        look(self.temp.path()) == self.before && mounts(self.temp.path()) == self.mounts
    }

    /// Asserts that nothing has changed.
    pub(crate) fn assert_untouched(&self, case: &str) {
        assert_eq!(look(self.temp.path()), self.before, "{case}");
        assert_eq!(mounts(self.temp.path()), self.mounts, "{case}");
    }
}

/// Everything but access times.
fn look(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = match stat.file_type() {
            kind if kind.is_file() => fs::read(&path).unwrap_or_default(),
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            kind if kind.is_fifo() => b"fifo".to_vec(),
            _ => Vec::new(),
        };
        let owner = (stat.uid(), stat.gid(), stat.mode(), stat.ino(), stat.nlink());
        let times = (stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec());
        let line = format!("{owner:?} {times:?} {}", String::from_utf8_lossy(&content));
        if stat.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path.to_str().unwrap().to_owned(), line);
    }
    found
}

/// The mounts of this machine that other tests and the programs they start do not make or undo.
fn mounts(own: &Path) -> Vec<String> {
    let temp = std::env::temp_dir();
    let of_others = |point: &Path| {
        !point.starts_with(own)
            && [temp.as_path(), Path::new("/run"), Path::new("/var/lib")].iter().any(|d| point.starts_with(d))
    };
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = |line: &str| Path::new(line.split(' ').nth(4).unwrap()).to_owned();
    text.lines().filter(|line| !of_others(&point(line))).map(str::to_owned).collect()
}
