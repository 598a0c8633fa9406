//! The same Dockerfiles built by buildah: the same file trees.
//!
//! A case is a folder of `testdata/compare`: `Dockerfile`, `context` (a shell script that fills the build context), and
//! `Dockerfile.buildah` where Debian's buildah does not know what the Dockerfile says. Both images are unpacked by umoci.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::build::{BOTH, Project, User, run};
use crate::support::tree::{self, Lines};

/// What buildah leaves in the tree of an image with a RUN step and BuildKit, and so rbuild, does not.
const LEFT_BY_BUILDAH: &[(&str, &str)] = &[
    // Every container of buildah gets a host name file; BuildKit's steps get none.
    ("etc/hostname", "File 0755 0:0 0 \"\""),
];

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/compare")
}

/// A context made by the user who builds: modes and links are as the script says.
fn project(user: User, case: &str) -> Project {
    let project = Project::new(user);
    let folder = cases().join(case);
    for script in ["base", &format!("{case}/context")] {
        let mut command = project.command("sh");
        command.args(["-eu", "-c", &fs::read_to_string(cases().join(script)).unwrap()]);
        command.current_dir(project.context());
        let output = run(command).success();
        assert_eq!(output.stderr, "", "{case}: {script}");
    }
    for name in ["Dockerfile", "Dockerfile.buildah"] {
        if folder.join(name).exists() {
            // The context is the scripts' alone, so that a COPY of all of it is the same for both.
            fs::copy(folder.join(name), project.home().join(name)).unwrap();
        }
    }
    project
}

fn by_buildah(case: &str) -> Lines {
    let project = project(User::Root, case);
    let storage = TempDir::with_prefix("rbuild-buildah-").unwrap();
    let dockerfile = ["Dockerfile.buildah", "Dockerfile"].map(|name| project.home().join(name));
    let dockerfile = dockerfile.iter().find(|path| path.exists()).unwrap();
    let layout = project.home().join("layout");
    let buildah = |args: &[&str]| {
        let mut command = project.command("buildah");
        for (option, folder) in [("--root", "root"), ("--runroot", "run")] {
            command.arg(option).arg(storage.path().join(folder));
        }
        command.args(["--storage-driver", "vfs"]).args(args);
        let _ = run(command).success();
    };
    let (file, context) = (dockerfile.to_str().unwrap(), project.context());
    buildah(&[
        "bud",
        "--isolation",
        "chroot",
        "--network",
        "host",
        "-f",
        file,
        "-t",
        "case",
        context.to_str().unwrap(),
    ]);
    buildah(&["push", "-q", "case", &format!("oci:{}:case", layout.display())]);
    let mut lines = tree::unpack(&layout, "case", &project.home().join("rootfs"));
    for (path, line) in LEFT_BY_BUILDAH {
        if lines.get(*path).is_some_and(|found| found == line) {
            lines.remove(*path);
        }
    }
    lines
}

fn by_rbuild(user: User, case: &str) -> Lines {
    let project = project(user, case);
    let layout = project.home().join("layout");
    let output = format!("type=oci,tar=false,name=case:case,dest={}", layout.display());
    let file = project.home().join("Dockerfile");
    let _ = project.build(&["-o", &output, "-f", file.to_str().unwrap()]).success();
    tree::unpack(&layout, "case", &project.home().join("rootfs"))
}

/// Builds a case by both; differences are those that `expected` names, as `path: buildah's line | our line`.
fn compare(case: &str, users: &[User], expected: &[&str]) {
    let theirs = by_buildah(case);
    assert!(theirs.len() > 5, "{theirs:?}");
    for user in users {
        let found = differences(&theirs, &by_rbuild(*user, case)).join("\n");
        let expected = expected.join("\n");
        assert!(found == expected, "{case} as {user:?}, buildah's | ours:\n{found}\nexpected:\n{expected}");
    }
}

fn differences(theirs: &Lines, ours: &Lines) -> Vec<String> {
    let mut paths: Vec<&String> = theirs.keys().chain(ours.keys()).collect();
    paths.sort();
    paths.dedup();
    let line = |lines: &Lines, path| lines.get(path).cloned().unwrap_or_else(|| "nothing".into());
    let pairs = paths.into_iter().map(|path| (path, line(theirs, path), line(ours, path)));
    pairs
        .filter(|(_, theirs, ours)| theirs != ours)
        .map(|(path, theirs, ours)| format!("{path}: {theirs} | {ours}"))
        .collect()
}

/// Makes sure that no folder is forgotten: each is a test below.
#[test]
fn every_case_is_compared() {
    let here = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/compare.rs")).unwrap();
    for entry in fs::read_dir(cases()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "base" || here.contains(&format!("\"{name}\",")), "{name} is compared by no test");
    }
}

#[test]
fn copies() {
    // Directories made for `--chmod` get its mode from BuildKit, 0755 from buildah.
    compare("copy", &BOTH, &["mode: Directory 0755 0:0 | Directory 0750 0:0"]);
}

#[test]
fn copies_over_what_is_there() {
    // A link that a file is copied to: buildah replaces it; BuildKit follows it, here to `old/file`.
    compare("copy-over", &BOTH, &["old/link: File 0644 0:0 4 \"new\\n\" | Symlink 0777 0:0 -> file"]);
}

#[test]
fn copies_from_stages() {
    compare("copy-from", &BOTH, &[]);
}

#[test]
fn archives() {
    compare("archives", &BOTH, &[]);
}

#[test]
fn directories_of_workdir_and_user() {
    // `WORKDIR /x/../y`: a step enters it name by name, as in runc; buildah has cleaned it by then.
    compare("workdir", &BOTH, &["x: nothing | Directory 0755 0:0"]);
}

#[test]
fn deletions() {
    compare("deletions", &BOTH, &[]);
}

#[test]
fn modes_links_and_names() {
    compare(
        "modes",
        &BOTH,
        &[
            // The kernel's overlay parts a file of several names when a later step changes it through one; buildah copies.
            "again/h1: File 4755 0:0 2 \"h\\n\" names=2 first=again/h1 | File 4755 0:0 2 \"h\\n\"",
            // Set-user-id and set-group-id bits of the context: BuildKit copies them, buildah takes them off.
            "again/setgid: Directory 0755 0:0 | Directory 2755 0:0",
            "again/setgid/h3: File 4755 0:0 2 \"h\\n\" names=2 first=again/h1 | File 0644 0:0 2 \"h\\n\"",
            "src/setgid: Directory 0755 0:0 | Directory 2755 0:0",
        ],
    );
}

#[test]
fn volumes() {
    // A volume is a fact of the configuration in BuildKit; buildah makes its directory too.
    let made = ["srv", "srv/one", "srv/two"].map(|path| format!("{path}: Directory 0755 0:0 | nothing"));
    compare("volume", &BOTH, &made.each_ref().map(String::as_str));
}

#[test]
fn here_documents() {
    compare("heredocs", &BOTH, &[]);
}

#[test]
fn capabilities_and_access_lists() {
    compare("attributes", &BOTH, &[]);
}

#[test]
fn devices_and_capabilities() {
    compare("devices", &[User::Root], &[]);
}
