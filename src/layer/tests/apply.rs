//! What hostile and unusual tars may and may not do to the tree and to what is around it.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::super::entry::EntryKind;
use super::super::{OPAQUE, OPAQUE_VALUE};
use super::{Scene, Tar, entry};
use crate::layer::LayerError;
use crate::layer::apply::{ApplyOptions, Form, Unmapped};
use crate::sys::dir::Dir;
use std::ffi::OsStr;

fn opaque(scene: &Scene, path: &str) -> bool {
    let dir = Dir::open(&scene.root()).expect("open");
    dir.xattr(OsStr::new(path), OsStr::new(OPAQUE)).expect("xattr").as_deref() == Some(OPAQUE_VALUE)
}

fn is_hidden(scene: &Scene, path: &str) -> bool {
    std::fs::symlink_metadata(scene.root().join(path)).is_ok_and(|s| s.file_type().is_char_device() && s.rdev() == 0)
}

#[test]
fn t1_names_stay_inside() {
    for (name, lands) in [
        ("../x", None),
        ("a/../../x", None),
        ("a/..", None),
        ("/x", Some("x")),
        ("//x", Some("x")),
        ("./x", Some("x")),
        (".//a/./x", Some("a/x")),
    ] {
        let scene = Scene::new();
        let result = scene.apply(&Tar::default().file(name, "text"));
        assert_eq!(result.is_ok(), lands.is_some(), "{name}: {result:?}");
        if let Some(path) = lands {
            assert_eq!(scene.text(path).as_deref(), Some("text"), "{name}");
        }
    }
}

#[test]
fn t1_parent_symlink_stays_inside() {
    let scene = Scene::new();
    let host = scene.host();
    for (target, lands) in [
        ("/".to_owned(), "f"),
        ("..".to_owned(), "f"),
        ("../../../..".to_owned(), "f"),
        (host.clone(), &*format!("{}/f", &host[1..])),
        ("/proc/self/cwd".to_owned(), "proc/self/cwd/f"),
        ("l2".to_owned(), "f"),
    ] {
        let scene = Scene::new();
        scene.apply(&Tar::default().symlink("l2", "/").symlink("l", &target).file("l/f", "in")).expect("apply");
        assert_eq!(scene.text(lands).as_deref(), Some("in"), "{target}");
    }
}

#[test]
fn t1_var_run_lands_in_run() {
    let scene = Scene::new();
    scene.apply(&Tar::default().dir("var").symlink("var/run", "/run").file("var/run/f", "in")).expect("apply");
    assert_eq!(scene.text("run/f").as_deref(), Some("in"));
    assert!(scene.root().join("var/run").is_symlink());
}

#[test]
fn t1_link_loops_end() {
    let scene = Scene::new();
    assert!(scene.apply(&Tar::default().symlink("a", "b").symlink("b", "a").file("a/f", "x")).is_err());
}

#[test]
fn t2_metadata_never_follows_links() {
    let scene = Scene::new();
    let host = scene.host();
    let mut wide = entry(EntryKind::Directory, "d");
    (wide.mode, wide.uid) = (0o777, 7);
    scene.apply(&Tar::default().symlink("d", &host).raw(&wide, b"")).expect("apply");
    assert_eq!(std::fs::symlink_metadata(scene.root().join("d")).expect("stat").uid(), 7);
    let scene = Scene::new();
    scene.apply(&Tar::default().raw(&wide, b"").symlink("d", &scene.host())).expect("late times");
    assert!(scene.root().join("d").is_symlink());
}

#[test]
fn t3_hard_links_stay_inside() {
    let scene = Scene::new();
    let file = format!("{}/file", scene.host());
    for target in ["../victim", "a/../../victim", "", "/", ".", "dir", "self"] {
        let scene = Scene::new();
        let tar = Tar::default().dir("dir").file("self", "x").hard("self", target);
        assert!(scene.apply(&tar).is_err(), "{target}");
    }
    for target in ["victim", "/victim", &file, "later"] {
        let scene = Scene::new();
        let applied = scene.apply(&Tar::default().hard("l", target).file("later", "x")).expect(target);
        assert_eq!(applied.links, [(b"l".to_vec(), target.trim_start_matches('/').as_bytes().to_vec())].into());
        assert!(!scene.root().join("l").exists());
    }
    let scene = Scene::new();
    scene.apply(&Tar::default().symlink("s", &file).hard("l", "s")).expect("a link to a link");
    assert!(scene.root().join("l").is_symlink());
}

#[test]
fn t3_links_leave_metadata_alone() {
    let scene = Scene::new();
    let mut link = entry(EntryKind::HardLink, "b");
    (link.link, link.mode, link.uid) = (b"a".to_vec(), 0o4777, 9);
    scene.apply(&Tar::default().file("a", "text").raw(&link, b"")).expect("apply");
    let stat = std::fs::metadata(scene.root().join("a")).expect("stat");
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.nlink()), (0o644, 0, 2));
}

#[test]
fn t4_root_is_a_directory() {
    for name in [".", "./", "/"] {
        for kind in [EntryKind::Symlink, EntryKind::File, EntryKind::Fifo, EntryKind::HardLink] {
            let scene = Scene::new();
            assert!(scene.apply(&Tar::default().link(kind, name, "x")).is_err(), "{name} {kind:?}");
        }
        let scene = Scene::new();
        let mut root = entry(EntryKind::Directory, name);
        root.mode = 0o700;
        let applied = scene.apply(&Tar::default().raw(&root, b"")).expect("apply");
        assert!(!applied.implicit.contains(&b""[..]));
        assert_eq!(std::fs::metadata(scene.root()).expect("stat").mode() & 0o7777, 0o700);
    }
}

#[test]
fn t6_whiteout_names() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..."] {
        let scene = Scene::new();
        assert!(scene.apply(&Tar::default().file(name, "")).is_err(), "{name}");
    }
    let scene = Scene::new();
    assert!(scene.apply(&Tar::default().file(".wh.f", "data")).is_err());
    assert!(scene.apply(&Tar::default().dir(".wh.f")).is_err());
    scene.apply(&Tar::default().file(".wh..wh.plnk", "").file(".wh..wh.aufs", "")).expect("reserved names");
    assert_eq!(std::fs::read_dir(scene.root()).expect("list").count(), 0);
}

#[test]
fn t6_whiteouts_stay_inside_and_concern_lower_layers_only() {
    let scene = Scene::new();
    let tar =
        Tar::default().symlink("l", &scene.host()).file("l/.wh.file", "").file(".wh.gone", "").file(".wh.gone", "");
    assert!(scene.apply(&tar).expect("apply").hides);
    assert!(is_hidden(&scene, "gone"));
    for whiteout_first in [true, false] {
        let scene = Scene::new();
        let mut tar = Tar::default();
        if whiteout_first {
            tar = tar.file(".wh.f", "").file(".wh.d", "");
        }
        tar = tar.file("f", "new").dir("d").file("d/x", "new");
        if !whiteout_first {
            tar = tar.file(".wh.f", "").file(".wh.d", "");
        }
        scene.apply(&tar).expect("apply");
        assert_eq!((scene.text("f"), scene.text("d/x")), (Some("new".into()), Some("new".into())));
        assert!(opaque(&scene, "d"));
    }
}

#[test]
fn t6_opaque_directories() {
    let scene = Scene::new();
    scene.apply(&Tar::default().dir("d").file("d/kept", "x").file("d/.wh..wh..opq", "")).expect("apply");
    assert!(opaque(&scene, "d"));
    assert_eq!(scene.text("d/kept").as_deref(), Some("x"));
}

#[test]
fn t9_the_last_of_a_name_wins() {
    let make = |tar: Tar, kind: usize, host: &str| match kind {
        0 => tar.file("n", "text"),
        1 => tar.dir("n").file("n/below", "x"),
        2 => tar.symlink("n", host),
        3 => tar.hard("n", "other"),
        4 => tar.fifo("n"),
        _ => tar.char("n", (1, 3)),
    };
    for first in 0..6 {
        for second in 0..6 {
            for last in 0..6 {
                let scene = Scene::new();
                let host = scene.host();
                let tar = [first, second, last]
                    .into_iter()
                    .fold(Tar::default().file("other", "o"), |tar, kind| make(tar, kind, &host));
                scene.apply(&tar).expect("apply");
                let kind = std::fs::symlink_metadata(scene.root().join("n")).expect("stat").file_type();
                let found = [
                    kind.is_file(),
                    kind.is_dir(),
                    kind.is_symlink(),
                    kind.is_file(),
                    kind.is_fifo(),
                    kind.is_char_device(),
                ];
                assert!(found[last], "{first} {second} {last}");
                assert_eq!(scene.text("other").as_deref(), Some("o"));
            }
        }
    }
}

#[test]
fn t10_only_portable_attributes_are_set() {
    let scene = Scene::new();
    let mut file = entry(EntryKind::File, "f");
    let capability: Vec<u8> = [&[1, 0, 0, 2][..], &[0, 4, 0, 0], &[0; 12]].concat();
    for (key, value) in [
        ("user.kept", &b"v"[..]),
        ("user.overlay.redirect", b"/x"),
        ("user.overlay.opaque", b"y"),
        ("trusted.overlay.opaque", b"y"),
        ("trusted.x", b"y"),
        ("security.selinux", b"label"),
        ("security.capability", &capability),
    ] {
        file.xattrs.push((key.as_bytes().to_vec(), value.to_vec()));
    }
    scene.apply(&Tar::default().raw(&file, b"x")).expect("apply");
    let dir = Dir::open(&scene.root()).expect("open");
    let names: Vec<_> = dir.xattrs(OsStr::new("f")).expect("xattrs").into_iter().map(|(key, _)| key).collect();
    assert_eq!(names, ["security.capability", "user.kept"]);
}

#[test]
fn m10_only_whiteouts_make_whiteouts() {
    let scene = Scene::new();
    let mut dir = entry(EntryKind::Directory, "d");
    dir.xattrs.push((OPAQUE.as_bytes().to_vec(), OPAQUE_VALUE.to_vec()));
    let applied = scene.apply(&Tar::default().raw(&dir, b"").char("c", (0, 0))).expect("apply");
    assert!(!opaque(&scene, "d") && !is_hidden(&scene, "c") && !applied.hides);
    assert_eq!(applied.devices, 1);
}

#[test]
fn owners_modes_and_times_are_kept() {
    let scene = Scene::new();
    let mut file = entry(EntryKind::File, "d/f");
    (file.mode, file.uid, file.gid) = (0o6751, 70_000, 4_000_000_000);
    let mut dir = entry(EntryKind::Directory, "d");
    (dir.mode, dir.mtime.seconds) = (0o1711, 5);
    scene.apply(&Tar::default().raw(&dir, b"").raw(&file, b"x")).expect("apply");
    let stat = std::fs::metadata(scene.root().join("d/f")).expect("stat");
    assert_eq!(
        (stat.mode() & 0o7777, stat.uid(), stat.gid(), stat.mtime()),
        (0o6751, 70_000, 4_000_000_000, 1_700_000_000)
    );
    let stat = std::fs::metadata(scene.root().join("d")).expect("stat");
    assert_eq!((stat.permissions().mode() & 0o7777, stat.mtime()), (0o1711, 5));
}

#[test]
fn plain_form_gives_whiteouts_no_meaning() {
    let scene = Scene::new();
    let options = ApplyOptions { form: Form::Plain, owner: Some((3, 4)), unmapped: Unmapped::Refuse };
    scene.apply_with(&Tar::default().file("f", "x").file(".wh.f", "y").bytes(), options.clone()).expect("apply");
    assert_eq!((scene.text("f"), scene.text(".wh.f")), (Some("x".into()), Some("y".into())));
    let stat = std::fs::metadata(scene.root().join("f")).expect("stat");
    assert_eq!((stat.uid(), stat.gid()), (3, 4));
    let error = scene.apply_with(&Tar::default().hard("l", "missing").bytes(), options);
    assert!(matches!(error, Err(LayerError::Refused { .. })));
}

#[test]
fn unknown_owner_is_refused() {
    let scene = Scene::new();
    let mut file = entry(EntryKind::File, "f");
    file.uid = u32::MAX;
    assert!(matches!(scene.apply(&Tar::default().raw(&file, b"")), Err(LayerError::Refused { .. })));
}

#[test]
fn archives_are_known_by_content() {
    let tar = Tar::default().file("f", "x").bytes();
    let gzip = {
        use crate::image::media::Compression;
        use std::io::Write;
        let mut out = crate::layer::compress::Compressor::new(Vec::new(), Compression::Gzip, 1, 1).expect("gzip");
        out.write_all(&tar).expect("write");
        out.finish().expect("finish")
    };
    let cases = [
        (tar.clone(), true),
        (gzip, true),
        (b"just text".to_vec(), false),
        (Vec::new(), false),
        (vec![0; 1024], false),
    ];
    for (bytes, expected) in cases {
        let mut file = std::io::Cursor::new(bytes);
        file.set_position(3);
        assert_eq!(crate::layer::archive::is_archive(&mut file).expect("look"), expected);
        assert_eq!(file.position(), 0);
    }
}

#[test]
fn archives_unpack_into_a_live_tree() {
    let scene = Scene::new();
    let host = scene.host();
    std::fs::create_dir_all(scene.root().join("app/kept")).expect("mkdir");
    std::os::unix::fs::symlink("/etc", scene.root().join("app/link")).expect("symlink");
    std::os::unix::fs::symlink(&host, scene.root().join("app/host")).expect("symlink");
    let tar =
        Tar::default().file("link/f", "1").file("host/g", "2").dir("kept").hard("h", "link/f").file("new/.wh.x", "3");
    let root = Dir::open(&scene.root()).expect("open");
    let options = ApplyOptions { form: Form::Plain, owner: None, unmapped: Unmapped::Refuse };
    crate::layer::archive::extract(root, OsStr::new("/app"), &tar.bytes()[..], options).expect("extract");
    assert_eq!(scene.text("etc/f").as_deref(), Some("1"));
    assert_eq!(scene.text(&format!("{}/g", &host[1..])).as_deref(), Some("2"));
    assert_eq!((scene.text("app/h"), scene.text("app/new/.wh.x")), (Some("1".into()), Some("3".into())));
}
