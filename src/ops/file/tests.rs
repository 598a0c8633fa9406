//! File actions on small trees: what they leave, and what they refuse.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::checksum::{ChecksumError, Ids, content_digest};
use crate::llb::{ChownOpt, CopyAction, MkdirAction, MkfileAction, RmAction, SymlinkAction, UserOpt};
use crate::sys::dir::Time;

/// A source, a destination, and a place neither may touch.
struct Scene {
    _temp: tempfile::TempDir,
    source: PathBuf,
    dest: PathBuf,
    canary: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("temp dir");
        let [source, dest, canary] = ["source", "dest", "canary"].map(|name| temp.path().join(name));
        for dir in [&source, &dest, &canary] {
            fs::create_dir(dir).expect("mkdir");
        }
        fs::write(canary.join("f"), "canary").expect("write");
        Self { _temp: temp, source, dest, canary }
    }

    fn put(&self, name: &str, data: &str) -> &Self {
        put(&self.source, name, data);
        self
    }

    fn there(&self, name: &str, data: &str) -> &Self {
        put(&self.dest, name, data);
        self
    }

    fn apply(&self, action: FileActionKind) -> Result<Vec<String>, FileOpError> {
        let source = Dir::open(&self.source).expect("open");
        self.apply_from(&Tree::new(&source, None, Ids::Keep), action)
    }

    fn apply_from(&self, tree: &Tree<'_>, action: FileActionKind) -> Result<Vec<String>, FileOpError> {
        let dest = Dir::open(&self.dest).expect("open");
        let trees = Trees {
            dest: &dest,
            source: Some(tree),
            owners: Owners::of(&dest),
            is_archive: &archive::is_archive,
            unpack: &archive::unpack,
        };
        let before = look(&self.canary);
        let result = apply(&action, &trees);
        assert_eq!(look(&self.canary), before, "the canary was touched");
        result
    }

    fn copy(&self, src: &str, dest: &str) -> Result<(), FileOpError> {
        self.apply(FileActionKind::Copy(action(src, dest))).map(drop)
    }

    /// The destination as lines: path, and content, link target or kind.
    fn result(&self) -> Vec<String> {
        look(&self.dest).into_iter().map(|(path, what, _)| format!("{path} {what}")).collect()
    }
}

fn put(root: &Path, name: &str, data: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
    fs::write(path, data).expect("write");
}

fn look(root: &Path) -> Vec<(String, String, (u32, u32, u32))> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).expect("list") {
            let path = entry.expect("entry").path();
            let stat = path.symlink_metadata().expect("stat");
            let kind = stat.file_type();
            let what = if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).expect("link").display())
            } else if kind.is_dir() {
                waiting.push(path.clone());
                "dir".to_owned()
            } else if kind.is_file() {
                fs::read_to_string(&path).expect("read")
            } else {
                "special".to_owned()
            };
            let name = path.strip_prefix(root).expect("below").display().to_string();
            found.push((name, what, (stat.mode(), stat.uid(), stat.gid())));
        }
    }
    found.sort();
    found
}

/// A copy as COPY makes it.
fn action(src: &str, dest: &str) -> CopyAction {
    CopyAction {
        src: src.to_owned(),
        dest: dest.to_owned(),
        mode: -1,
        timestamp: -1,
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyAction::default()
    }
}

#[test]
fn copies_go_where_buildkit_puts_them() {
    let table: &[(&str, &str, &[&str])] = &[
        ("/a", "/x", &["x A"]),
        ("/a", "/x/", &["x dir", "x/a A"]),
        ("/a", "/new/deep/x", &["new dir", "new/deep dir", "new/deep/x A"]),
        ("/a", "/", &["a A"]),
        ("/a", "/old", &["old dir", "old/a A", "old/kept K"]),
        ("/d", "/x", &["x dir", "x/b B", "x/l -> b", "x/s dir", "x/s/c C"]),
        ("/d", "/old/", &["old dir", "old/b B", "old/kept K", "old/l -> b", "old/s dir", "old/s/c C"]),
        ("/d/s", "/", &["c C"]),
        ("/d/l", "/x/", &["x dir", "x/l B"]),
        ("/[ad]", "/x/", &["x dir", "x/a A", "x/b B", "x/l -> b", "x/s dir", "x/s/c C"]),
        ("/d/?", "/x/", &["x dir", "x/b B", "x/c C", "x/l B"]),
        ("/none*", "/x/", &[]),
        ("/../../a", "/../x", &["x A"]),
        ("/link/b", "/x", &["x B"]),
        ("/link/*b", "/x", &["x B"]),
    ];
    for (src, dest, expected) in table {
        let scene = Scene::new();
        scene.put("a", "A").put("d/b", "B").put("d/s/c", "C");
        symlink("b", scene.source.join("d/l")).expect("symlink");
        symlink("/d", scene.source.join("link")).expect("symlink");
        if dest.contains("old") {
            scene.there("old/kept", "K");
        }
        scene.copy(src, dest).unwrap_or_else(|e| panic!("{src} {dest}: {e}"));
        assert_eq!(scene.result(), *expected, "{src} {dest}");
    }
}

#[test]
fn a_directory_itself_is_copied_if_asked() {
    let scene = Scene::new();
    scene.put("d/b", "B").there("old/kept", "K");
    let whole = |dest: &str| CopyAction { dir_copy_contents: false, ..action("/d", dest) };
    scene.apply(FileActionKind::Copy(whole("/old"))).expect("copy");
    scene.apply(FileActionKind::Copy(whole("/new"))).expect("copy");
    assert_eq!(scene.result(), ["new dir", "new/b B", "old dir", "old/d dir", "old/d/b B", "old/kept K"]);
}

#[test]
fn copies_refuse_to_mix_files_and_directories() {
    let scene = Scene::new();
    scene.put("f", "F").put("d/f/x", "X").put("e/f", "F").there("f", "old").there("dir/f/x", "old");
    let error = scene.copy("/e", "/dir").expect_err("file over directory");
    assert_eq!(error.to_string(), "cannot replace to directory /dir/f with file");
    let error = scene.copy("/d", "/").expect_err("directory over file");
    assert_eq!(error.to_string(), "cannot copy to non-directory: /f");
    let error = scene.copy("/f", "/f/x").expect_err("file as parent");
    assert_eq!(error.to_string(), "cannot copy to non-directory: /f");
    let replace = CopyAction { always_replace: true, ..action("/d", "/") };
    scene.apply(FileActionKind::Copy(replace)).expect("replaced");
    assert_eq!(fs::read_to_string(scene.dest.join("f/x")).expect("read"), "X");
    for path in ["/none", "/none/*"] {
        assert!(matches!(
            scene.copy(path, "/"),
            Err(FileOpError::NotFound { .. } | FileOpError::Source(ChecksumError::NotFound { .. }))
        ));
    }
}

#[test]
fn copies_look_like_the_source() {
    let scene = Scene::new();
    scene.put("d/file", "x").put("d/again", "y");
    let source = Dir::open(&scene.source.join("d")).expect("open");
    source.chown(OsStr::new("file"), 7, 8).expect("chown");
    source.chmod(OsStr::new("file"), 0o4751).expect("chmod");
    source.set_xattr(OsStr::new("file"), OsStr::new("user.note"), b"kept").expect("xattr");
    source.set_time(OsStr::new("file"), Time { seconds: 1000, nanoseconds: 5 }).expect("time");
    fs::hard_link(scene.source.join("d/file"), scene.source.join("d/other")).expect("link");
    source.make_node(OsStr::new("fifo"), 0o010_640, 0).expect("fifo");
    source.make_dir(OsStr::new("sub"), 0o700).expect("mkdir");
    source.chmod(OsStr::new("sub"), 0o2711).expect("chmod");
    source.set_time(OsStr::new("sub"), Time { seconds: 2000, nanoseconds: 0 }).expect("time");
    scene.copy("/d", "/x").expect("copy");
    let copy = Dir::open(&scene.dest.join("x")).expect("open");
    let file = copy.stat(OsStr::new("file")).expect("stat");
    assert_eq!((file.uid, file.gid, file.permissions(), file.nlink), (7, 8, 0o4751, 2));
    assert_eq!(file.mtime, Time { seconds: 1000, nanoseconds: 5 });
    assert_eq!(copy.xattr(OsStr::new("file"), OsStr::new("user.note")).expect("xattr").as_deref(), Some(&b"kept"[..]));
    assert_eq!(copy.stat(OsStr::new("other")).expect("stat").ino, file.ino);
    assert_eq!(copy.stat(OsStr::new("fifo")).expect("stat").mode, 0o010_640);
    let sub = copy.stat(OsStr::new("sub")).expect("stat");
    assert_eq!((sub.permissions(), sub.mtime.seconds), (0o2711, 2000));
}

#[test]
fn owner_mode_and_time_can_be_given() {
    let scene = Scene::new();
    scene.put("d/s/file", "x").there("etc/passwd", "web:x:33:34::/:/bin/sh\n");
    let user = UserOpt::ByName { name: "web".into(), input: 0 };
    let octal = CopyAction {
        owner: Some(ChownOpt { user: Some(user), group: None }),
        mode: 0o1750,
        timestamp: 5_000_000_000,
        ..action("/d", "/new/x")
    };
    assert_eq!(scene.apply(FileActionKind::Copy(octal)).expect("copy"), Vec::<String>::new());
    for (path, mode) in [("new", 0o750), ("new/x", 0o750), ("new/x/s", 0o1750), ("new/x/s/file", 0o1750)] {
        let stat = fs::metadata(scene.dest.join(path)).expect(path);
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777, stat.mtime()), (33, 34, mode, 5), "{path}");
    }
    let symbolic = CopyAction { mode: 0, mode_str: "go=u".into(), ..action("/d/s/file", "/f") };
    scene.apply(FileActionKind::Copy(symbolic)).expect("copy");
    assert_eq!(fs::metadata(scene.dest.join("f")).expect("stat").mode() & 0o777, 0o666);
    let wrong = CopyAction { mode_str: "u+q".into(), ..action("/d/s/file", "/f") };
    assert!(matches!(scene.apply(FileActionKind::Copy(wrong)), Err(FileOpError::Mode { .. })));
    let nobody = ChownOpt { user: Some(UserOpt::ByName { name: "nobody".into(), input: 0 }), group: None };
    let unknown = CopyAction { owner: Some(nobody), ..action("/d/s/file", "/g") };
    assert_eq!(scene.apply(FileActionKind::Copy(unknown)).expect("copy").len(), 1);
    assert_eq!(fs::metadata(scene.dest.join("g")).expect("stat").uid(), 0);
}

#[test]
fn patterns_choose_what_is_copied() {
    let table: &[(&[&str], &[&str], &[&str])] = &[
        (&[], &["*.o"], &["a.c", "d dir", "d/b.c", "d/e dir", "d/e/f.c"]),
        (&[], &["d"], &["a.c", "a.o"]),
        (&[], &["d", "!d/b.c"], &["a.c", "a.o", "d dir", "d/b.c"]),
        (&["d/*/f.c"], &[], &["d dir", "d/e dir", "d/e/f.c"]),
        (&["**/*.c"], &["d/e"], &["a.c", "d dir", "d/b.c"]),
        (&["nothing"], &[], &[]),
    ];
    for (include, exclude, expected) in table {
        let scene = Scene::new();
        for name in ["a.c", "a.o", "d/b.c", "d/e/f.c"] {
            scene.put(name, "");
        }
        let list = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect();
        let copy = CopyAction { include_patterns: list(include), exclude_patterns: list(exclude), ..action("/", "/") };
        scene.apply(FileActionKind::Copy(copy)).expect("copy");
        let found: Vec<String> = scene.result().iter().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(found, *expected, "{include:?} {exclude:?}");
    }
}

/// A ustar archive of empty files.
fn tar(names: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        for (at, field) in
            [(100, "0000640"), (108, "0000003"), (116, "0000004"), (124, "00000000000"), (136, "00000000007")]
        {
            header[at..at + field.len()].copy_from_slice(field.as_bytes());
        }
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend_from_slice(&header);
    }
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

#[test]
fn archives_are_unpacked_where_asked() {
    let scene = Scene::new();
    scene.put("plain", "x").put("short", "");
    fs::write(scene.source.join("a.tar"), tar(&["f", "d/g"])).expect("write");
    fs::write(scene.source.join("evil.tar"), tar(&["../../canary/f"])).expect("write");
    let owner = Some(ChownOpt { user: Some(UserOpt::ById(9)), group: None });
    for src in ["/a.tar", "/plain", "/short"] {
        let copy = CopyAction { attempt_unpack: true, owner: owner.clone(), ..action(src, "/x/") };
        scene.apply(FileActionKind::Copy(copy)).expect("copy");
    }
    assert_eq!(scene.result(), ["x dir", "x/d dir", "x/d/g ", "x/f ", "x/plain x", "x/short "]);
    assert_eq!(fs::metadata(scene.dest.join("x/f")).expect("stat").uid(), 9);
    scene.copy("/a.tar", "/kept.tar").expect("copy");
    assert!(scene.dest.join("kept.tar").is_file());
    let evil = CopyAction { attempt_unpack: true, ..action("/evil.tar", "/x/") };
    assert!(matches!(scene.apply(FileActionKind::Copy(evil)), Err(FileOpError::Unpack { .. })));
}

#[test]
fn f1_dot_dot_and_the_root_stay_inside() {
    for path in ["..", "/..", "a/..", "a/../..", ".", "", "/"] {
        let scene = Scene::new();
        scene.put("f", "F").there("kept", "K");
        let mkfile = MkfileAction { path: path.into(), mode: 0o644, timestamp: -1, ..MkfileAction::default() };
        assert!(matches!(scene.apply(FileActionKind::Mkfile(mkfile)), Err(FileOpError::EmptyPath { .. })), "{path}");
        for allow_wildcard in [false, true] {
            let rm = RmAction { path: path.into(), allow_not_found: true, allow_wildcard };
            assert!(matches!(scene.apply(FileActionKind::Rm(rm)), Err(FileOpError::EmptyPath { .. })), "{path}");
        }
        let link = SymlinkAction { oldpath: "x".into(), newpath: path.into(), ..SymlinkAction::default() };
        assert!(matches!(scene.apply(FileActionKind::Symlink(link)), Err(FileOpError::EmptyPath { .. })), "{path}");
        let mkdir = MkdirAction { path: path.into(), mode: 0o700, make_parents: true, timestamp: -1, owner: None };
        scene.apply(FileActionKind::Mkdir(mkdir)).expect("the root exists");
        scene.copy("/f", path).expect("into the root");
        assert_eq!(scene.result(), ["f F", "kept K"], "{path}");
    }
    let scene = Scene::new();
    scene.there("d/f", "F");
    symlink("d", scene.dest.join("l")).expect("symlink");
    let rm = |path: &str| FileActionKind::Rm(RmAction { path: path.into(), ..RmAction::default() });
    scene.apply(rm("/l")).expect("rm");
    assert_eq!(scene.result(), ["d dir", "d/f F"]);
    assert!(matches!(scene.apply(rm("/none")), Err(FileOpError::NotFound { .. })));
}

#[test]
fn f2_links_lead_nowhere_outside() {
    let scene = Scene::new();
    scene.put("f", "F");
    let canary = scene.canary.to_str().expect("text").to_owned();
    for (name, target) in [("l", "/".to_owned()), ("out", canary.clone()), ("up", format!("../../../../..{canary}"))] {
        symlink(&target, scene.source.join(name)).expect("symlink");
        symlink(&target, scene.dest.join(name)).expect("symlink");
    }
    // What a link names is looked for below the root, where it is not.
    for src in ["/out/f", "/up/f", "/l/canary/f", "/out*/f"] {
        assert!(scene.copy(src, "/got/").is_err() || !scene.dest.join("got/f").exists(), "{src}");
    }
    scene.copy("/l/f", "/in").expect("inside");
    scene.copy("/f", "/out/").expect("inside");
    assert!(scene.dest.join(canary.trim_start_matches('/')).join("f").is_file());
    let owner = Some(ChownOpt { user: Some(UserOpt::ById(7)), group: None });
    symlink(format!("{canary}/f"), scene.source.join("dangling")).expect("symlink");
    let copy = CopyAction { follow_symlink: false, owner, mode: 0o777, ..action("/dangling", "/dangling") };
    scene.apply(FileActionKind::Copy(copy)).expect("the link itself");
    assert_eq!(scene.dest.join("dangling").symlink_metadata().expect("stat").uid(), 7);
    let mkfile = MkfileAction { path: "/up/new".into(), mode: 0o600, timestamp: -1, ..MkfileAction::default() };
    scene.apply(FileActionKind::Mkfile(mkfile)).unwrap_or_default();
    scene.copy("/f", "/up/f").expect("inside");
}

#[test]
fn f4_what_changes_after_hashing_is_not_copied() {
    let scene = Scene::new();
    scene.put("d/a", "one").put("d/b", "two");
    let source = Dir::open(&scene.source).expect("open");
    let tree = Tree::new(&source, None, Ids::Root);
    content_digest(&tree, &[]).expect("digest");
    scene.apply_from(&tree, FileActionKind::Copy(action("/d", "/x"))).expect("unchanged");
    scene.put("d/b", "TWO");
    let error = scene.apply_from(&tree, FileActionKind::Copy(action("/d", "/y"))).expect_err("changed");
    assert_eq!(error.to_string(), "changed while building: /d/b");
    fs::remove_file(scene.source.join("d/a")).expect("remove");
    let error = scene.apply_from(&tree, FileActionKind::Copy(action("/d", "/z"))).expect_err("gone");
    assert_eq!(error.to_string(), "changed while building: /d/a");
}

#[test]
fn a_log_is_copied_as_long_as_it_was_when_hashed() {
    let scene = Scene::new();
    for size in [3, 5000, 300_000] {
        let log = "l".repeat(size);
        scene.put("log", &log).put("new", "");
        let source = Dir::open(&scene.source).expect("open");
        let tree = Tree::new(&source, None, Ids::Root);
        let hashed = content_digest(&tree, &[]).expect("digest");
        scene.put("log", &format!("{log} and more"));
        scene.apply_from(&tree, FileActionKind::Copy(action("/log", "/d/log"))).expect("grown");
        assert!(fs::read_to_string(scene.dest.join("d/log")).expect("read") == log, "{size}");
        scene.apply_from(&tree, FileActionKind::Copy(action("/new", "/d/new"))).expect("empty");
        let dest = Dir::open(&scene.dest.join("d")).expect("open");
        assert_eq!(content_digest(&Tree::new(&dest, None, Ids::Root), &[]).expect("digest"), hashed);
        // Longer, but not by an end.
        scene.put("log", &format!("x{log}")).put("new", "no longer");
        for (name, to) in [("/log", "/other"), ("/new", "/new")] {
            let error = scene.apply_from(&tree, FileActionKind::Copy(action(name, to))).expect_err("changed");
            assert_eq!(error.to_string(), format!("changed while building: {name}"));
        }
        fs::remove_dir_all(scene.dest.join("d")).expect("remove");
    }
}

#[test]
fn f4_a_writer_never_gets_another_content_through() {
    let scene = Scene::new();
    scene.put("f", &"a".repeat(5000));
    let path = scene.source.join("f");
    let stop = tokio_util::sync::CancellationToken::new();
    let mut copied = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0.. {
                if stop.is_cancelled() {
                    return;
                }
                fs::write(&path, if turn % 2 == 0 { "b" } else { "a" }.repeat(5000)).expect("write");
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
        });
        // However this ends, the writer does.
        let _stop = stop.clone().drop_guard();
        for _ in 0..300 {
            let source = Dir::open(&scene.source).expect("open");
            let tree = Tree::new(&source, None, Ids::Root);
            let Ok(hashed) = content_digest(&tree, &[]) else { continue };
            if scene.apply_from(&tree, FileActionKind::Copy(action("/f", "/d/f"))).is_ok() {
                copied += 1;
                let mode = fs::metadata(&path).expect("stat").mode();
                fs::set_permissions(scene.dest.join("d/f"), PermissionsExt::from_mode(mode)).expect("chmod");
                let dest = Dir::open(&scene.dest.join("d")).expect("open");
                assert_eq!(content_digest(&Tree::new(&dest, None, Ids::Root), &[]).expect("digest"), hashed);
            }
        }
    });
    assert!(copied > 0, "the writer won every time");
}

#[test]
fn f5_deep_trees_are_hashed_and_copied() {
    let scene = Scene::new();
    let mut dir = Dir::open(&scene.source).expect("open");
    for _ in 0..1500 {
        dir.make_dir(OsStr::new("d"), 0o755).expect("mkdir");
        dir = dir.open_dir(OsStr::new("d")).expect("open");
    }
    dir.create_file(OsStr::new("end"), 0o644).expect("create");
    let source = Dir::open(&scene.source).expect("open");
    crate::sys::within(std::time::Duration::from_secs(5), || {
        let tree = Tree::new(&source, None, Ids::Root);
        let hashed = content_digest(&tree, &[]).expect("digest");
        let dest = Dir::open(&scene.dest).expect("open");
        materialise(&tree, &dest).expect("copy");
        assert_eq!(content_digest(&Tree::new(&dest, None, Ids::Root), &[]).expect("digest"), hashed);
    });
}

#[test]
fn existing_directories_and_files_are_kept_or_replaced() {
    let scene = Scene::new();
    scene.there("d/f", "old");
    fs::hard_link(scene.dest.join("d/f"), scene.dest.join("d/other")).expect("link");
    fs::set_permissions(scene.dest.join("d"), PermissionsExt::from_mode(0o711)).expect("chmod");
    let mkdir = |path: &str, make_parents| {
        let owner = Some(ChownOpt { user: Some(UserOpt::ById(5)), group: None });
        FileActionKind::Mkdir(MkdirAction {
            path: path.into(),
            mode: 0o750,
            make_parents,
            owner,
            timestamp: 9_000_000_000,
        })
    };
    scene.apply(mkdir("/d", true)).expect("kept");
    scene.apply(mkdir("/d", false)).expect("kept");
    assert_eq!(fs::metadata(scene.dest.join("d")).expect("stat").mode() & 0o777, 0o711);
    scene.apply(mkdir("/n/m", true)).expect("made");
    assert!(scene.apply(mkdir("/no/parent", false)).is_err());
    for path in ["n", "n/m"] {
        let stat = fs::metadata(scene.dest.join(path)).expect("stat");
        assert_eq!((stat.uid(), stat.mode() & 0o777), (5, 0o750), "{path}");
    }
    let data = b"new".to_vec();
    let mkfile = MkfileAction { path: "/d/f".into(), mode: 0o600, data, owner: None, timestamp: -1 };
    scene.apply(FileActionKind::Mkfile(mkfile)).expect("written");
    assert_eq!(scene.result(), ["d dir", "d/f new", "d/other old", "n dir", "n/m dir"]);
    let link = SymlinkAction { oldpath: "../x".into(), newpath: "/d/l".into(), owner: None, timestamp: 3_000_000_000 };
    scene.apply(FileActionKind::Symlink(link.clone())).expect("made");
    assert_eq!(scene.dest.join("d/l").symlink_metadata().expect("stat").mtime(), 3);
    assert!(scene.apply(FileActionKind::Symlink(SymlinkAction { newpath: "/d/f".into(), ..link })).is_err());
    let rm = RmAction { path: "/d/?".into(), allow_wildcard: true, allow_not_found: false };
    scene.apply(FileActionKind::Rm(rm)).expect("removed");
    assert_eq!(scene.result(), ["d dir", "d/other old", "n dir", "n/m dir"]);
}

#[test]
fn owners_are_those_of_the_trees_that_are_named() {
    let scene = Scene::new();
    scene.put("f", "").there("etc/passwd", "web:x:1:2::/:/bin/sh\n");
    let other = tempfile::tempdir().expect("temp dir");
    put(other.path(), "etc/passwd", "web:x:33:34::/:/bin/sh\n");
    put(other.path(), "etc/group", "staff:x:50:\n");
    let (source, dest, names) = (Dir::open(&scene.source), Dir::open(&scene.dest), Dir::open(other.path()));
    let (source, dest, names) = (source.expect("open"), dest.expect("open"), names.expect("open"));
    let by_name = |name: &str| Some(UserOpt::ByName { name: name.into(), input: 0 });
    let owner = Some(ChownOpt { user: by_name("web"), group: by_name("staff") });
    let make = |owners: Owners<'_>, path: &str| {
        let tree = Tree::new(&source, None, Ids::Keep);
        let (is_archive, unpack) = (&archive::is_archive, &archive::unpack);
        let copy = FileActionKind::Copy(CopyAction { owner: owner.clone(), ..action("/f", path) });
        let trees = Trees { dest: &dest, source: Some(&tree), owners, is_archive, unpack };
        let notices = apply(&copy, &trees).expect("copy");
        let stat = fs::metadata(scene.dest.join(path)).expect("stat");
        (stat.uid(), stat.gid(), notices.len())
    };
    assert_eq!(make(Owners::of(&names), "one"), (33, 50, 0));
    assert_eq!(make(Owners { users: Some(&dest), groups: Some(&names) }, "two"), (1, 50, 0));
    assert_eq!(make(Owners::default(), "none"), (0, 0, 2));
}

#[test]
fn directories_passed_through_get_the_mode_and_keep_the_owner() {
    let scene = Scene::new();
    scene.put("d/e/f", "").there("d/e/old", "");
    fs::set_permissions(scene.source.join("d/e"), PermissionsExt::from_mode(0o750)).expect("chmod");
    let dest = Dir::open(&scene.dest.join("d")).expect("open");
    dest.chown(OsStr::new("e"), 7, 8).expect("chown");
    let owner = Some(ChownOpt { user: Some(UserOpt::ById(3)), group: None });
    let look = || {
        let stat = fs::metadata(scene.dest.join("d/e")).expect("stat");
        (stat.uid(), stat.gid(), stat.mode() & 0o777)
    };
    let chosen = CopyAction { include_patterns: vec!["d/e/f".into()], owner: owner.clone(), ..action("/", "/") };
    scene.apply(FileActionKind::Copy(chosen)).expect("copy");
    assert_eq!(look(), (7, 8, 0o750));
    scene.apply(FileActionKind::Copy(CopyAction { owner, ..action("/", "/") })).expect("copy");
    assert_eq!(look(), (3, 3, 0o750));
}

#[test]
fn a_path_that_is_required_must_be_there() {
    let scene = Scene::new();
    scene.put("d/f", "F");
    let copy = |required: &str| {
        let required_paths = vec![required.to_owned()];
        scene.apply(FileActionKind::Copy(CopyAction { required_paths, ..action("/", "/") })).map(drop)
    };
    assert_eq!(copy("/d/g").expect_err("missing").to_string(), "\"/d/g\": not found");
    assert!(scene.result().is_empty(), "nothing is copied before that is known");
    copy("/d/f").expect("copy");
    assert_eq!(scene.result(), ["d dir", "d/f F"]);
}

#[test]
fn parents_wildcards_and_links_are_as_the_options_say() {
    let scene = Scene::new();
    scene.put("d/f", "F").put("*", "star");
    symlink("d/f", scene.source.join("l")).expect("symlink");
    symlink("d", scene.source.join("dl")).expect("symlink");
    let apply = |copy: CopyAction| scene.apply(FileActionKind::Copy(copy)).map(drop);
    let error = apply(CopyAction { create_dest_path: false, ..action("/d/f", "/no/parent/f") }).expect_err("no parent");
    assert_eq!(error.to_string(), "\"/no/parent\": not found");
    apply(CopyAction { create_dest_path: false, ..action("/d/f", "/here") }).expect("the root is there");
    let none = apply(CopyAction { allow_empty_wildcard: false, ..action("/x*", "/") }).expect_err("no match");
    assert_eq!(none.to_string(), "\"/x*\": not found");
    apply(CopyAction { allow_wildcard: false, ..action("/*", "/literal") }).expect("a name like any other");
    apply(CopyAction { follow_symlink: false, ..action("/l", "/link") }).expect("the link itself");
    apply(CopyAction { follow_symlink: false, ..action("/dl", "/dirlink") }).expect("the link itself");
    apply(action("/l", "/followed")).expect("what it names");
    apply(CopyAction { follow_symlink: false, ..action("/dl/f", "/through") }).expect("parents are followed");
    let expected = ["dirlink -> d", "followed F", "here F", "link -> d/f", "literal star", "through F"];
    assert_eq!(scene.result(), expected);
}

#[test]
fn removing_follows_its_options() {
    let scene = Scene::new();
    for name in ["a.o", "b.o", "d/c.o", "*.o", "full/x/y"] {
        scene.there(name, "");
    }
    symlink("full", scene.dest.join("l")).expect("symlink");
    symlink("nowhere", scene.dest.join("dangling")).expect("symlink");
    let rm = |path: &str, allow_wildcard, allow_not_found| {
        scene.apply(FileActionKind::Rm(RmAction { path: path.into(), allow_wildcard, allow_not_found })).map(drop)
    };
    rm("/*.o", false, false).expect("a name like any other");
    assert!(scene.dest.join("a.o").exists());
    rm("/*.o", true, false).expect("both");
    rm("/*.none", true, false).expect("no match is no path that is missing");
    assert!(matches!(rm("/none", false, false), Err(FileOpError::NotFound { .. })));
    assert!(matches!(rm("/none/deep", false, false), Err(FileOpError::NotFound { .. })));
    rm("/none/deep", false, true).expect("allowed");
    rm("/l/x", false, false).expect("through a link");
    rm("/dangling", false, false).expect("the link itself");
    rm("/full", false, false).expect("with all below");
    assert_eq!(scene.result(), ["d dir", "d/c.o ", "l -> full"]);
}

#[test]
fn what_is_made_has_its_owner_mode_and_time() {
    let scene = Scene::new();
    let owner = || Some(ChownOpt { user: Some(UserOpt::ById(5)), group: Some(UserOpt::ById(6)) });
    let timestamp = 7_000_000_000;
    let (path, data) = ("/m/f".to_owned(), b"data".to_vec());
    let mkfile = MkfileAction { path, mode: 0o7640, data, owner: owner(), timestamp };
    let missing = scene.apply(FileActionKind::Mkfile(mkfile.clone()));
    assert!(missing.is_err(), "its directory is not made");
    let (path, make_parents) = ("/m/n/o".to_owned(), true);
    let mkdir = MkdirAction { path, mode: 0o7711, make_parents, owner: owner(), timestamp };
    scene.apply(FileActionKind::Mkdir(mkdir)).expect("mkdir");
    let (oldpath, newpath) = ("f".to_owned(), "/m/l".to_owned());
    scene.apply(FileActionKind::Symlink(SymlinkAction { oldpath, newpath, owner: owner(), timestamp })).expect("link");
    scene.apply(FileActionKind::Mkfile(mkfile)).expect("mkfile");
    for (path, mode) in [("m/n", 0o711), ("m/n/o", 0o711), ("m/f", 0o640), ("m/l", 0o777)] {
        let stat = scene.dest.join(path).symlink_metadata().expect(path);
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (5, 6, mode), "{path}");
        // Making `o` in it changed the time of `n` before it was set; what came into `m` later changed that of `m`.
        assert_eq!(stat.mtime(), 7, "{path}");
    }
}
