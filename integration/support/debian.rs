//! A real Debian (or Ubuntu) root file system as a tar, made once a machine.
//!
//! It comes from the package source that apt uses on this machine. Where none answers it is made of the machine's own packages, and that
//! is said; then there is no installing from the network in it. The tar stays in the directory of temporary files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// What the tests need besides the smallest system.
const EXTRA: &str = "libcap2-bin";

/// A root file system.
#[derive(Debug)]
pub(crate) struct Debian {
    /// Its tar.
    pub(crate) tar: PathBuf,
    /// A line of sources.list, where a package source can be reached now.
    pub(crate) source: Option<String>,
}

/// Returns the one of this machine.
pub(crate) fn debian() -> &'static Debian {
    static MADE: OnceLock<Debian> = OnceLock::new();
    MADE.get_or_init(|| {
        let codename = codename();
        let mirror = mirrors().into_iter().find(|mirror| answers(mirror, &codename));
        let kind = if mirror.is_some() { "packages" } else { "machine" };
        let place = |kind: &str| std::env::temp_dir().join(format!("rbuild-debian-{codename}-{kind}.tar"));
        if !is_own(&place("packages")) && !is_own(&place(kind)) {
            make(&place(kind), mirror.as_deref(), &codename);
        }
        let tar = if is_own(&place("packages")) { place("packages") } else { place("machine") };
        Debian { tar, source: mirror.map(|mirror| format!("deb {mirror} {codename} main\n")) }
    })
}

/// Whether an earlier run of this user made it: others may write to the directory of temporary files too.
fn is_own(place: &Path) -> bool {
    fs::symlink_metadata(place).is_ok_and(|meta| meta.is_file() && meta.uid() == rbuild::sys::effective_uid())
}

/// Another run may make it at the same time: the whole file is renamed to its place.
fn make(place: &Path, mirror: Option<&str>, codename: &str) {
    let dir = TempDir::with_prefix_in("rbuild-debootstrap-", std::env::temp_dir()).unwrap();
    let (rootfs, tar) = (dir.path().join("rootfs"), dir.path().join("tar"));
    if let Some(mirror) = mirror {
        let mut command = Command::new("debootstrap");
        command.args(["--variant=minbase", "--include", EXTRA, codename]).arg(&rootfs).arg(mirror);
        done(&mut command);
        let _ = fs::remove_dir_all(rootfs.join("var/cache/apt/archives"));
        let paths = ["--exclude=./var/lib/apt/lists/*", "--exclude=./dev/*", "."];
        done(
            Command::new("tar")
                .arg("-C")
                .arg(&rootfs)
                .args(["--xattrs", "--numeric-owner", "-cf"])
                .arg(&tar)
                .args(paths),
        );
    } else {
        // Not through the test's own output, which is shown only where it fails: whoever reads the result should know.
        let notice =
            "no package source of /etc/apt answers: the Debian of the tests is made of this machine's packages\n";
        std::io::stderr().write_all(notice.as_bytes()).unwrap();
        let list = dir.path().join("list");
        fs::write(&list, own_files().join("\n")).unwrap();
        done(
            Command::new("tar")
                .args(["-C", "/", "--no-recursion", "--numeric-owner", "-cf"])
                .arg(&tar)
                .arg("-T")
                .arg(list),
        );
    }
    fs::rename(tar, place).unwrap();
}

fn done(command: &mut Command) {
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output().unwrap();
    let (said, more) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}\n{more}");
}

fn output(program: &str, args: &[&str]) -> String {
    String::from_utf8(Command::new(program).args(args).output().unwrap().stdout).unwrap()
}

fn codename() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap();
    text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap().trim_matches('"').to_owned()
}

/// Whether apt's own downloader, with apt's configuration, gets the release file.
fn answers(mirror: &str, codename: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("{mirror}/dists/{codename}/Release");
    let mut command = Command::new("/usr/lib/apt/apt-helper");
    command.args(["-oAcquire::Retries=0", "-oAcquire::http::Timeout=10", "download-file", &url]);
    command.arg(dir.path().join("Release")).output().unwrap().status.success()
}

/// Every address in apt's sources, those of mirror lists included.
fn mirrors() -> Vec<String> {
    let listed = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let named = listed.filter(|path| path.extension().is_some_and(|end| end == "list" || end == "sources"));
    let files = named.chain([PathBuf::from("/etc/apt/sources.list")]);
    let texts: Vec<String> = files.filter_map(|path| fs::read_to_string(path).ok()).collect();
    let lines = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.trim_start().starts_with('#'));
    let mut found = Vec::new();
    for word in lines.flat_map(str::split_whitespace) {
        match word.strip_prefix("mirror+file:") {
            Some(list) => {
                found.extend(fs::read_to_string(list).unwrap_or_default().split_whitespace().map(str::to_owned))
            }
            None => found.push(word.to_owned()),
        }
    }
    found.retain(|word| word.starts_with("http://") || word.starts_with("https://"));
    found.iter().map(|word| word.trim_end_matches('/').to_owned()).collect()
}

/// Settings of apt that decide how it reaches the source.
pub(crate) fn apt_settings() -> String {
    let all = output("apt-config", &["dump"]);
    all.lines().filter(|line| line.starts_with("Acquire::")).map(|line| format!("{line}\n")).collect()
}

/// The files of the machine's required packages and of what they depend on, parents first.
fn own_files() -> Vec<String> {
    let mut files: BTreeSet<String> =
        ["dev", "proc", "sys", "run", "tmp", "root", "etc/passwd", "etc/group"].map(String::from).into();
    for link in ["bin", "sbin", "lib", "lib64", "etc/shadow", "etc/gshadow", "etc/login.defs"] {
        files.extend(Path::new("/").join(link).exists().then(|| link.to_owned()));
    }
    let packages = required();
    let list = output("dpkg-query", &[&["-L"], &packages.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
    for path in list.lines().map(Path::new).filter(|path| path.is_absolute() && fs::symlink_metadata(path).is_ok()) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        // Packages say /bin/x where /bin is a link.
        let real = fs::canonicalize(parent).unwrap().join(name);
        files.insert(real.strip_prefix("/").unwrap().to_str().unwrap().to_owned());
    }
    files.into_iter().collect()
}

fn required() -> BTreeSet<String> {
    let format = "-f=${binary:Package}\t${Package}\t${Priority}\t${Pre-Depends}, ${Depends}\t${Provides}\n";
    let text = output("dpkg-query", &["-W", format]);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut by_name: BTreeMap<&str, &Vec<&str>> =
        rows.iter().flat_map(|row| names(row[4]).map(move |name| (name, row))).collect();
    by_name.extend(rows.iter().map(|row| (row[1], row)));
    let mut waiting: Vec<&str> = rows.iter().filter(|row| row[2] == "required").map(|row| row[1]).collect();
    waiting.push(EXTRA);
    let mut found = BTreeSet::new();
    while let Some(row) = waiting.pop().and_then(|name| by_name.get(name)) {
        if found.insert(row[0].to_owned()) {
            waiting.extend(names(row[3]).filter(|name| by_name.contains_key(name)));
        }
    }
    found
}

/// The names in a list of dependencies, versions and architectures left out.
fn names(list: &str) -> impl Iterator<Item = &str> {
    let alternatives = list.split([',', '|']).map(str::trim);
    alternatives.filter_map(|one| one.split([' ', ':', '(']).next()).filter(|name| !name.is_empty())
}
