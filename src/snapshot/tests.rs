//! The same tests for overlay mounts and for copies.

mod diff;
mod links;

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use super::*;
use crate::diag::Diagnose;
use crate::digest::Digest;
use crate::image::media::Compression;

const KINDS: [SnapshotKind; 2] = [SnapshotKind::Overlay, SnapshotKind::Native];

struct Scene {
    temp: tempfile::TempDir,
    snapshots: Arc<Snapshots>,
}

fn open(temp: &tempfile::TempDir, kind: SnapshotKind) -> Arc<Snapshots> {
    open_in(temp, kind, None)
}

/// Opens the layers as in another start of the machine.
fn open_in(temp: &tempfile::TempDir, kind: SnapshotKind, boot: Option<u128>) -> Arc<Snapshots> {
    // Characters that options in one text would trip over.
    let root = temp.path().join("a:b,c\\d");
    Snapshots::open(&root, SnapshotOptions { kind, boot, ..SnapshotOptions::default() }).expect("open")
}

#[test]
fn what_can_wait_is_tried_with_the_first_tree() {
    for lazy in [true, false] {
        let temp = tempfile::tempdir().expect("temp dir");
        let open =
            || Snapshots::open(temp.path(), SnapshotOptions { lazy, ..SnapshotOptions::default() }).expect("open");
        let snapshots = open();
        let store = Arc::clone(snapshots.store());
        drop(snapshots);
        assert_eq!(store.scratch().unused() == "0", lazy, "a trial makes something");

        let snapshots = open();
        assert_eq!(snapshots.kind_if_known(), None);
        let tree = snapshots.prepare(&Chain::empty()).expect("prepare");
        snapshots.commit(tree, "a tree").expect("commit");
        assert_eq!(snapshots.kind_if_known(), Some(snapshots.kind()));
    }
}

impl Scene {
    fn new(kind: SnapshotKind) -> Self {
        let temp = tempfile::tempdir().expect("temp dir");
        let snapshots = open(&temp, kind);
        assert_eq!(snapshots.kind(), kind);
        Self { temp, snapshots }
    }

    /// Runs a shell script in a tree on top of `parent` and commits it.
    fn step(&self, parent: &Chain, script: &str) -> Chain {
        let active = self.snapshots.prepare(parent).expect("prepare");
        let dir = active.dir().expect("dir");
        run(&dir, script);
        drop(dir);
        self.snapshots.commit(active, script).expect("commit")
    }

    /// Lists a stack's tree: type, mode, owner, size, content of each name.
    fn list(&self, chain: &Chain) -> Vec<String> {
        let view = self.snapshots.view(chain).expect("view");
        let mut lines = Vec::new();
        list(view.dir(), "", &mut lines);
        lines
    }

    fn packed(&self, layer: LayerId) -> Vec<String> {
        let blob = self.snapshots.pack(layer, PackOptions::new(Compression::Uncompressed)).expect("pack");
        let (file, _) = self.snapshots.store().blob(&blob.digest).expect("blob").expect("there");
        let mut tar = tar::Archive::new(file);
        let name = |entry: io::Result<tar::Entry<'_, std::fs::File>>| {
            entry.expect("entry").path().expect("path").to_string_lossy().into_owned()
        };
        tar.entries().expect("entries").map(name).collect()
    }

    fn layer_path(&self, chain: &Chain) -> PathBuf {
        let top = chain.top().expect("layer").to_string();
        self.snapshots.store().path().join("snapshots").join(top).join("fs")
    }

    fn blob(&self, tar: &[u8]) -> (Unpacked, DiffId) {
        let unpacked = self.snapshots.unpack(tar).expect("unpack");
        (unpacked, DiffId(Digest::compute(tar)))
    }

    fn adopt(&self, parent: &Chain, tar: &[u8]) -> Chain {
        let (unpacked, diff_id) = self.blob(tar);
        self.snapshots.adopt(parent, unpacked, &diff_id, Origin::default()).expect("adopt")
    }
}

fn run(dir: &Dir, script: &str) {
    use std::os::fd::{AsFd, AsRawFd};
    let path = format!("/proc/{}/fd/{}", std::process::id(), dir.as_fd().as_raw_fd());
    let status = std::process::Command::new("sh").args(["-ec", script]).current_dir(path).status().expect("sh");
    assert!(status.success(), "{script}");
}

fn list(dir: &Dir, path: &str, lines: &mut Vec<String>) {
    for name in dir.names().expect("names") {
        let stat = dir.stat(&name).expect("stat");
        let path = format!("{path}/{}", name.to_string_lossy());
        let content = match stat.kind() {
            crate::sys::dir::Kind::File => io::read_to_string(dir.open_file(&name).expect("open")).expect("read"),
            crate::sys::dir::Kind::Symlink => dir.read_link(&name).expect("link").to_string_lossy().into_owned(),
            _ => String::new(),
        };
        lines.push(format!("{path} {:o} {}:{} {content}", stat.mode, stat.uid, stat.gid).trim_end().to_owned());
        if stat.is_dir() {
            list(&dir.open_dir(&name).expect("open"), &path, lines);
        }
    }
}

/// Makes a tar from members as (name, type, mode, content or link).
fn tar(members: &[(&str, u8, u32, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, mode, text) in members {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        let data = if *kind == b'0' { text.as_bytes() } else { b"" };
        header.set_size(data.len() as u64);
        if matches!(kind, b'1' | b'2') {
            header.set_link_name(text).expect("link");
        }
        header.set_path(name).expect("path");
        header.set_cksum();
        builder.append(&header, data).expect("append");
    }
    builder.into_inner().expect("tar")
}

#[test]
fn steps_build_on_one_another() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let one = scene.step(
            &Chain::empty(),
            "echo a > a; mkdir d; echo b > d/b; ln d/b d/c; chmod 1777 d; umask 0; mkdir -m 700 p",
        );
        let two = scene.step(&one, "rm a; echo new > d/n; chown 5:6 d/n; rm -r p; mkdir p; echo x > p/x");
        let three = scene.step(&two, "echo more >> d/b; rm d/c; ln -s d/b l");
        assert_eq!(
            scene.list(&three),
            [
                "/d 41777 0:0",
                "/d/b 100644 0:0 b\nmore",
                "/d/n 100644 5:6 new",
                "/l 120777 0:0 d/b",
                "/p 40755 0:0",
                "/p/x 100644 0:0 x"
            ]
            .map(str::to_owned),
            "{kind:?}"
        );
        assert_eq!(scene.list(&one).len(), 5, "{kind:?}: earlier layers stay");
        assert_eq!(scene.packed(three.top().expect("top")), ["d/", "d/b", "d/.wh.c", "l"], "{kind:?}");
        assert!(scene.snapshots.exists(&three) && !scene.snapshots.exists(&three.push(LayerId(999))));
    }
}

#[test]
fn layers_hold_no_more_than_what_changed() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let one = scene.step(&Chain::empty(), "mkdir -p d/e keep; echo a > d/a; touch -d @1000 d/a; echo b > d/e/b");
        // New directories, things made and removed again, a mode set to what it was, an owner likewise.
        let two = scene.step(&one, "mkdir -p n/m; touch gone; rm gone; chmod 755 keep; chown 0:0 d/a; rm -r d/e; mkdir -m 755 d/e; touch d/e/z");
        let names = scene.packed(two.top().expect("top"));
        let expected: &[&str] = match kind {
            SnapshotKind::Overlay => &["d/", "d/e/", "d/e/.wh..wh..opq", "d/e/z", "n/", "n/m/"],
            _ => &["d/", "d/e/", "d/e/.wh.b", "d/e/z", "n/", "n/m/"],
        };
        assert_eq!(names, expected, "{kind:?}");
        let three = scene.step(&two, "true");
        assert_eq!(scene.packed(three.top().expect("top")), [""; 0], "{kind:?}");
        // The first name of a file is as it was, but the second would have nothing to be a link to.
        let four = scene.step(&three, "ln d/a d/linked");
        assert_eq!(scene.packed(four.top().expect("top")), ["d/", "d/a", "d/linked"], "{kind:?}");
    }
}

#[test]
fn packed_layers_unpack_to_the_same_tree() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let base = scene.step(&Chain::empty(), "mkdir -p a/b c; echo 1 > a/b/f; echo 2 > c/g; mkfifo c/p");
        let top = scene.step(&base, "rm -r a/b; mkdir a/b; echo 3 > a/b/h; rm c/g; mknod c/null c 1 3; ln -s /x c/l");
        let mut parent = Chain::empty();
        for layer in top.layers() {
            for compression in [Compression::Gzip, Compression::Zstd] {
                let blob = scene.snapshots.pack(*layer, PackOptions::new(compression)).expect("pack");
                assert_eq!(scene.snapshots.pack(*layer, PackOptions::new(compression)).expect("again"), blob);
            }
            let info = scene.snapshots.info(*layer).expect("info").blob.expect("blob");
            let (file, size) = scene.snapshots.store().blob(&info.digest).expect("blob").expect("there");
            assert_eq!(size, info.size);
            let decoder = crate::layer::decompress::Decoder::new(file).expect("decoder");
            let unpacked = scene.snapshots.unpack(decoder).expect("unpack");
            let origin = Origin { blob: Some(info.clone()), ..Origin::default() };
            parent = scene.snapshots.adopt(&parent, unpacked, &info.diff_id, origin).expect("adopt");
        }
        assert_eq!(scene.list(&parent), scene.list(&top), "{kind:?}");
    }
}

#[test]
fn layers_unpacked_apart_fit_together() {
    let bottom = tar(&[
        ("run/", b'5', 0o700, ""),
        ("run/old", b'0', 0o644, "old"),
        ("var/", b'5', 0o711, ""),
        ("var/run", b'2', 0o777, "/run"),
        ("lib", b'2', 0o777, "usr/lib"),
        ("usr/lib/x", b'0', 0o4755, "x"),
    ]);
    let top = tar(&[
        ("var/run/f", b'0', 0o644, "f"),
        ("var/run/deep/g", b'0', 0o644, "g"),
        ("var/run/.wh.old", b'0', 0, ""),
        ("lib/y", b'1', 0, "lib/x"),
        ("lib/z", b'0', 0o600, "z"),
    ]);
    for kind in KINDS {
        let scene = Scene::new(kind);
        // In the wrong order, as a parallel pull does.
        let (upper, upper_id) = scene.blob(&top);
        let one = scene.adopt(&Chain::empty(), &bottom);
        let two = scene.snapshots.adopt(&one, upper, &upper_id, Origin::default()).expect("adopt");
        let expected = [
            "/lib 120777 0:0 usr/lib",
            "/run 40700 0:0",
            "/run/deep 40755 0:0",
            "/run/deep/g 100644 0:0 g",
            "/run/f 100644 0:0 f",
            "/usr 40755 0:0",
            "/usr/lib 40755 0:0",
            "/usr/lib/x 104755 0:0 x",
            "/usr/lib/y 104755 0:0 x",
            "/usr/lib/z 100600 0:0 z",
            "/var 40711 0:0",
            "/var/run 120777 0:0 /run",
        ];
        assert_eq!(scene.list(&two), expected, "{kind:?}");
        let root = std::fs::metadata(scene.layer_path(&two)).expect("stat");
        assert_eq!(root.permissions().mode() & 0o7777, 0o755);
        let view = scene.snapshots.view(&two).expect("view");
        let (x, y) = (view.dir().resolve_dir(OsStr::new("usr/lib")).expect("dir"), OsStr::new("y"));
        assert_eq!(x.stat(y).expect("stat").ino, x.stat(OsStr::new("x")).expect("stat").ino, "{kind:?}");
    }
}

#[test]
fn t3_links_into_lower_layers_stay_inside() {
    let bottom = tar(&[("d/", b'5', 0o755, ""), ("l", b'2', 0o777, "/etc")]);
    for (link, target) in [("h", "missing"), ("h", "d"), ("h", "l/passwd"), ("h", "d/../../etc/passwd")] {
        let scene = Scene::new(SnapshotKind::Overlay);
        let parent = scene.adopt(&Chain::empty(), &bottom);
        let tar = tar(&[(link, b'1', 0, target)]);
        let Ok(unpacked) = scene.snapshots.unpack(&tar[..]) else { continue };
        let diff_id = DiffId(Digest::compute(&tar));
        let error = scene.snapshots.adopt(&parent, unpacked, &diff_id, Origin::default()).expect_err(target);
        assert!(matches!(error, SnapshotError::Adopt { .. }), "{error}");
    }
}

#[test]
fn t8_wrong_content_leaves_nothing() {
    let scene = Scene::new(SnapshotKind::Overlay);
    let good = tar(&[("f", b'0', 0o644, "text")]);
    let trailing = [&good[..], b"trailing"].concat();
    let diff_id = DiffId(Digest::compute(&good));
    let unpacked = scene.snapshots.unpack(&trailing[..]).expect("unpack");
    let error = scene.snapshots.adopt(&Chain::empty(), unpacked, &diff_id, Origin::default()).expect_err("mismatch");
    assert!(matches!(error, SnapshotError::Mismatch { .. }));
    assert!(scene.snapshots.unpack(&good[..700]).is_err());
    let root = scene.snapshots.store().path();
    assert_eq!(std::fs::read_dir(root.join("snapshots")).expect("list").count(), 0);
    assert_eq!(scene.snapshots.store().scratch().dir().names().expect("names"), ["lock"]);
    scene.adopt(&Chain::empty(), &good);
}

#[test]
fn pulled_stacks_are_found_again() {
    let scene = Scene::new(SnapshotKind::Overlay);
    let (one, two) = (tar(&[("a", b'0', 0o644, "1")]), tar(&[("b", b'0', 0o644, "2")]));
    let chain = scene.adopt(&scene.adopt(&Chain::empty(), &one), &two);
    let ids = [DiffId(Digest::compute(&one)), DiffId(Digest::compute(&two))];
    let again = open(&scene.temp, SnapshotKind::Overlay);
    assert_eq!(again.find_layer(&ChainId::of(&ids).expect("chain")), chain.top());
    assert_eq!(again.find_layer(&ChainId::of(&ids[1..]).expect("chain")), None);
    assert_eq!(scene.adopt(&scene.adopt(&Chain::empty(), &one), &two), chain, "not kept twice");
    assert_eq!(again.list_of(&chain), 2);
}

impl Snapshots {
    fn list_of(&self, chain: &Chain) -> usize {
        self.view(chain).expect("view").dir().names().expect("names").len()
    }
}

#[test]
fn m10_layers_cannot_hide_by_attributes_or_devices() {
    let bottom = tar(&[("d/kept", b'0', 0o644, "1"), ("c", b'0', 0o644, "2")]);
    for kind in KINDS {
        let scene = Scene::new(kind);
        let one = scene.adopt(&Chain::empty(), &bottom);
        let top = tar(&[("d/", b'5', 0o755, ""), ("c", b'3', 0o644, "")]);
        let two = scene.adopt(&one, &top);
        assert_eq!(scene.list(&two), ["/c 100644 0:0 2", "/d 40755 0:0", "/d/kept 100644 0:0 1"], "{kind:?}");
    }
}

#[test]
fn pulled_layers_that_hide_nothing() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let one = scene.adopt(&Chain::empty(), &tar(&[("a", b'0', 0o644, "1")]));
        let two = scene.adopt(&one, &tar(&[("d/", b'5', 0o755, ""), ("d/.wh.x", b'0', 0, ""), (".wh.a", b'0', 0, "")]));
        assert_eq!(scene.list(&two), ["/d 40755 0:0"], "{kind:?}");
    }
}

#[test]
fn merged_stacks_hide_in_order() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let base = scene.step(&Chain::empty(), "mkdir d; echo 1 > d/a; echo 2 > d/b");
        let remove = scene.step(&base, "rm d/a");
        let add = scene.step(&Chain::empty(), "mkdir d; echo 3 > d/c");
        let merged = Chain::merge(&[remove.clone(), add]);
        assert_eq!(scene.list(&merged), ["/d 40755 0:0", "/d/b 100644 0:0 2", "/d/c 100644 0:0 3"], "{kind:?}");
        let gone = scene.step(&base, "rm -r d");
        let hidden = gone.push(remove.top().expect("top"));
        assert_eq!(scene.list(&hidden), ["/d 40755 0:0"], "{kind:?}: below stands a removed directory");
        // A layer that hides, alone: what it hides is not there anyway.
        let alone: Chain = vec![remove.top().expect("top")].into();
        assert_eq!(scene.list(&alone), ["/d 40755 0:0"], "{kind:?}");
        assert_eq!(scene.list(&Chain::empty()), [""; 0]);
    }
}

#[test]
fn views_cannot_be_written_and_devices_do_not_work() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let one = scene.step(&Chain::empty(), "mknod null c 1 3");
        let two = scene.step(&one, "echo x > x");
        for chain in [&one, &two] {
            let view = scene.snapshots.view(chain).expect("view");
            for dir in
                [view.dir().reopen().expect("dir"), Dir::from(view.mount().expect("mount")).reopen().expect("dir")]
            {
                assert!(dir.make_dir(OsStr::new("new"), 0o755).is_err());
                assert!(dir.stat(OsStr::new("null")).expect("stat").rdev != 0);
                assert!(dir.open_file(OsStr::new("null")).is_err(), "{kind:?}");
            }
        }
        let active = scene.snapshots.prepare(&two).expect("prepare");
        let dir = Dir::from(active.mount().expect("mount")).reopen().expect("dir");
        assert!(dir.open_file(OsStr::new("null")).is_err());
        dir.make_dir(OsStr::new("new"), 0o755).expect("writable");
    }
}

#[test]
fn deep_stacks() {
    let scene = Scene::new(SnapshotKind::Overlay);
    let mut chain = Chain::empty();
    for number in 0..MAX_LAYERS {
        let active = scene.snapshots.prepare(&Chain::empty()).expect("prepare");
        active.dir().expect("dir").make_dir(OsStr::new(&format!("d{number}")), 0o755).expect("mkdir");
        chain = chain.push(scene.snapshots.commit(active, "").expect("commit").top().expect("top"));
    }
    assert_eq!(scene.snapshots.list_of(&chain), MAX_LAYERS);
    let more = chain.push(scene.step(&Chain::empty(), "true").top().expect("top"));
    assert!(matches!(scene.snapshots.view(&more), Err(SnapshotError::TooManyLayers { .. })));
}

#[test]
fn two_openers_share_one_root() {
    let scene = Scene::new(SnapshotKind::Overlay);
    let other = open(&scene.temp, SnapshotKind::Overlay);
    let threads: Vec<_> = [Arc::clone(&scene.snapshots), other]
        .into_iter()
        .map(|snapshots| {
            std::thread::spawn(move || {
                let one = || {
                    let active = snapshots.prepare(&Chain::empty()).expect("prepare");
                    snapshots.commit(active, "").expect("commit").top().expect("top")
                };
                (0..20).map(|_| one()).collect::<Vec<_>>()
            })
        })
        .collect();
    let ids: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("thread")).collect();
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), distinct.len()), (40, 40));
}

#[test]
fn dropped_trees_leave_nothing() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let base = scene.step(&Chain::empty(), "mkdir d; echo x > d/x");
        let active = scene.snapshots.prepare(&base).expect("prepare");
        run(&active.dir().expect("dir"), "rm -r d; echo y > y");
        drop(active);
        assert_eq!(scene.snapshots.store().scratch().dir().names().expect("names"), ["lock"], "{kind:?}");
        assert_eq!(scene.list(&base).len(), 2);
    }
}

#[test]
fn layers_have_overlays_form_on_disk() {
    let scene = Scene::new(SnapshotKind::Overlay);
    let base = scene.step(&Chain::empty(), "mkdir d; echo x > d/x; echo f > f");
    let top = scene.step(&base, "rm f; rm -r d; mkdir d");
    let path = scene.layer_path(&top);
    let whiteout = std::fs::symlink_metadata(path.join("f")).expect("stat");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    let dir = Dir::open(&path).expect("open");
    let opaque = dir.xattr(OsStr::new("d"), OsStr::new(crate::layer::OPAQUE)).expect("xattr");
    assert_eq!(opaque.as_deref(), Some(crate::layer::OPAQUE_VALUE));
}

const CHILD: &str = "snapshot::tests::child_that_is_killed";

/// Makes layers in the working directory until it is killed.
#[test]
#[ignore = "run and killed by kill_9_leaves_a_usable_store"]
fn child_that_is_killed() {
    let root = std::env::current_dir().expect("cwd").join("state");
    let tar = tar(&[("d/f", b'0', 0o644, "text"), ("d/g", b'1', 0, "d/f")]);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while root.exists() && std::time::Instant::now() < end {
        let snapshots = Snapshots::open(&root, SnapshotOptions::default()).expect("open");
        let one = snapshots.commit(snapshots.prepare(&Chain::empty()).expect("prepare"), "").expect("commit");
        let unpacked = snapshots.unpack(&tar[..]).expect("unpack");
        let diff_id = unpacked.diff_id().clone();
        let two = snapshots.adopt(&one, unpacked, &diff_id, Origin::default()).expect("adopt");
        let active = snapshots.prepare(&two).expect("prepare");
        active.dir().expect("dir").make_dir(OsStr::new("new"), 0o755).expect("mkdir");
        let three = snapshots.commit(active, "").expect("commit");
        snapshots.pack(three.top().expect("top"), PackOptions::new(Compression::Gzip)).expect("pack");
    }
}

#[test]
fn kill_9_leaves_a_usable_store() {
    let temp = tempfile::tempdir().expect("temp dir");
    let root = temp.path().join("state");
    for milliseconds in [20, 35, 50, 80, 120] {
        drop(Snapshots::open(&root, SnapshotOptions::default()).expect("open"));
        let program = std::env::current_exe().expect("program");
        let mut command = std::process::Command::new(program);
        command.args(["--ignored", "--exact", CHILD]).current_dir(temp.path()).stdout(std::process::Stdio::null());
        let mut child = command.spawn().expect("spawn");
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        child.kill().expect("kill");
        child.wait().expect("wait");
        let snapshots = Snapshots::open(&root, SnapshotOptions::default()).expect("open again");
        let alive = std::fs::read_dir(root.join("tmp")).expect("list").count();
        assert_eq!(alive, 2, "the guard and this process's folder");
        for name in snapshots.dir.names().expect("names") {
            let layer: LayerId = name.to_str().expect("text").parse().expect("number");
            snapshots.view(&vec![layer].into()).expect("every layer is whole");
        }
        let blobs = std::fs::read_dir(root.join("blobs/sha256")).expect("list");
        for blob in blobs {
            let path = blob.expect("entry").path();
            let digest = Digest::compute(std::fs::read(&path).expect("read"));
            assert_eq!(path.file_name(), Some(OsStr::new(digest.hex())));
        }
    }
    let made = std::fs::read_dir(root.join("snapshots")).expect("list").count();
    assert!(made > 0, "the children got somewhere");
}

#[test]
fn trees_of_any_depth_are_layers() {
    // Deeper than the stack of a thread in tests, one frame for each directory.
    let path = "d/".repeat(1000);
    let nest = format!("for i in 1 2; do mkdir -p {path} && cd -P {path}; done");
    for kind in KINDS {
        let scene = Scene::new(kind);
        let one = scene.step(&Chain::empty(), &nest);
        let two = scene.step(&one, &format!("cd -P {path}; rm -r d; touch f"));
        let depth = |chain: &Chain| {
            let view = scene.snapshots.view(chain).expect("view");
            let mut walk = crate::sys::walk::Walk::new(view.dir(), 0usize).expect("walk");
            while let Some(name) = walk.next_name().filter(|name| name == "d") {
                let depth = *walk.note() + 1;
                walk.enter(&name, depth).expect("enter");
            }
            *walk.note()
        };
        assert_eq!((depth(&one), depth(&two)), (2000, 1000), "{kind:?}");
        let error = scene.snapshots.pack(one.top().expect("layer"), PackOptions::new(Compression::Uncompressed));
        assert!(error.expect_err("too deep").hints()[0].contains("1024 directories"));
        // What the standard library removes by recursion.
        let removed = std::process::Command::new("rm").arg("-rf").arg(scene.snapshots.store().path()).status();
        assert!(removed.expect("rm").success());
    }
}

#[test]
fn numbers_of_removed_layers_are_not_given_again() {
    for kind in KINDS {
        let mut scene = Scene::new(kind);
        let one = scene.step(&Chain::empty(), "touch a");
        let two = scene.step(&one, "touch b");
        let stored: Vec<LayerId> = scene.snapshots.stored().expect("list").iter().map(|layer| layer.id).collect();
        assert_eq!(stored, two.layers());
        for layer in [two.top(), one.top()].into_iter().flatten() {
            scene.snapshots.keep_numbers().expect("mark");
            let _ = scene.snapshots.take_away(layer).expect("remove");
            assert!(!scene.snapshots.exists(&two));
        }
        scene.snapshots = open(&scene.temp, kind);
        assert!(scene.snapshots.stored().expect("list").is_empty());
        let next = scene.step(&Chain::empty(), "touch c");
        assert!(next.top() > two.top(), "{next:?}");
        // One mark is enough.
        scene.snapshots.keep_numbers().expect("mark");
        assert_eq!(scene.snapshots.dir.names().expect("names").len(), 2);
        assert_eq!(scene.snapshots.touched().0, next.layers());
    }
}

#[test]
fn layers_that_may_not_be_on_disk_are_gone_when_the_machine_starts_anew() {
    for kind in KINDS {
        let mut scene = Scene::new(kind);
        let layer = |scene: &Scene, text: &str| scene.step(&Chain::empty(), &format!("echo {text} > f"));
        let in_boot = |scene: &mut Scene, boot| scene.snapshots = open_in(&scene.temp, kind, Some(boot));
        in_boot(&mut scene, 1);
        let synced = layer(&scene, "synced");
        assert_eq!(durable::settle(&scene.snapshots.dir, 1).expect("settle"), 1);
        let late = layer(&scene, "late");
        assert!(
            scene.snapshots.exists(&synced) && scene.snapshots.exists(&late),
            "both are there while the machine runs"
        );
        in_boot(&mut scene, 1);
        assert!(scene.snapshots.exists(&late), "another process sees what was written");

        // What a power cut leaves of a file that was not written back yet.
        std::fs::write(scene.snapshots.store().path().join(format!("snapshots/{}/fs/f", late.top().expect("top"))), "")
            .expect("damage");
        in_boot(&mut scene, 2);
        assert!(scene.snapshots.exists(&synced));
        assert!(!scene.snapshots.exists(&late));
        assert_eq!(
            durable::settle(&scene.snapshots.dir, 2).expect("settle"),
            0,
            "what was lost is not called whole later"
        );
        in_boot(&mut scene, 3);
        assert!(!scene.snapshots.exists(&late));
        scene.snapshots.tidy_settled().expect("tidy");
        in_boot(&mut scene, 3);
        assert!(scene.snapshots.exists(&synced));
    }
}
