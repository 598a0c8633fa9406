//! Hard links of a layer to files of the layers below, in whatever order its members come.

use super::*;

/// Adopts `members` on a layer with `etc/owned`.
fn after(kind: SnapshotKind, members: &[(&str, u8, u32, &str)]) -> (Scene, Chain) {
    let scene = Scene::new(kind);
    let bottom = tar(&[("etc/", b'5', 0o755, ""), ("etc/owned", b'0', 0o600, "hi"), ("d/", b'5', 0o755, "")]);
    let one = scene.adopt(&Chain::empty(), &bottom);
    let two = scene.adopt(&one, &tar(members));
    (scene, two)
}

fn check(members: &[(&str, u8, u32, &str)], expected: &[&str]) {
    for kind in KINDS {
        let (scene, chain) = after(kind, members);
        let list = scene.list(&chain);
        let found: Vec<&str> = list.iter().map(String::as_str).filter(|line| !line.contains(" 40")).collect();
        assert_eq!(found, expected, "{kind:?} {members:?}");
    }
}

#[test]
fn a_link_names_what_was_there_when_it_was_made() {
    // The file is replaced after the link was made.
    check(
        &[("y", b'1', 0, "etc/owned"), ("etc/owned", b'0', 0o644, "NEW"), ("z", b'1', 0, "y")],
        &["/etc/owned 100644 0:0 NEW", "/y 100600 0:0 hi", "/z 100600 0:0 hi"],
    );
    // It is removed.
    check(&[("z", b'1', 0, "etc/owned"), ("etc/.wh.owned", b'0', 0, "")], &["/z 100600 0:0 hi"]);
    check(&[("z", b'1', 0, "etc/owned"), ("etc/.wh..wh..opq", b'0', 0, "")], &["/z 100600 0:0 hi"]);
    check(&[("z", b'1', 0, "etc/owned"), ("etc", b'0', 0o644, "file")], &["/etc 100644 0:0 file", "/z 100600 0:0 hi"]);
}

#[test]
fn what_comes_in_place_of_a_link_counts() {
    check(
        &[("x", b'1', 0, "etc/owned"), ("x", b'0', 0o644, "file")],
        &["/etc/owned 100600 0:0 hi", "/x 100644 0:0 file"],
    );
    check(
        &[("d/x", b'1', 0, "etc/owned"), ("d", b'0', 0o644, "file")],
        &["/d 100644 0:0 file", "/etc/owned 100600 0:0 hi"],
    );
    // A whiteout hides what is below, not what the layer itself has.
    check(&[("x", b'1', 0, "etc/owned"), (".wh.x", b'0', 0, "")], &["/etc/owned 100600 0:0 hi", "/x 100600 0:0 hi"]);
}

#[test]
fn a_link_to_nothing_is_an_error_whatever_comes_later() {
    let members = [("x", b'1', 0, "none"), ("x", b'0', 0o644, "")];
    for kind in KINDS {
        let scene = Scene::new(kind);
        let one = scene.adopt(&Chain::empty(), &tar(&[("etc/", b'5', 0o755, "")]));
        let (unpacked, diff_id) = scene.blob(&tar(&members));
        let error = scene.snapshots.adopt(&one, unpacked, &diff_id, Origin::default()).expect_err("no target");
        assert!(matches!(error, SnapshotError::Adopt { path, .. } if path == "x"));
    }
}

#[test]
fn links_to_one_file_stay_one_file_and_directories_keep_their_time() {
    let members =
        [("d/", b'5', 0o755, ""), ("d/x", b'1', 0, "etc/owned"), ("y", b'1', 0, "d/x"), ("z", b'1', 0, "etc/owned")];
    let gone = [&members[..], &[("etc/.wh.owned", b'0', 0, "")]].concat();
    for (kind, members, names) in KINDS.into_iter().flat_map(|kind| [(kind, &members[..], 4), (kind, &gone[..], 3)]) {
        let (scene, chain) = after(kind, members);
        let layer = scene.layer_path(&chain);
        let stat = |path: &str| std::fs::symlink_metadata(layer.join(path)).expect(path);
        assert_eq!((stat("y").ino(), stat("z").ino()), (stat("d/x").ino(), stat("d/x").ino()));
        assert_eq!((stat("y").nlink(), stat("d").mtime()), (names, 1_700_000_000), "{kind:?}");
    }
}
