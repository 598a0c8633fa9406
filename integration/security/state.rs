//! The state directory: private, ours, and not lent by anybody.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use super::{Scene, as_both, image};
use crate::support::build::User;
use crate::support::canary::HostCanary;

/// Names of everything below a directory.
pub(super) fn names_below(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            names.push(entry.file_name().to_string_lossy().into_owned());
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    names
}

/// Does something to a tree.
type Change = fn(&Path);

#[test]
fn m11_the_state_directory_is_for_its_owner_alone() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let state = scene.project.state();
        fs::create_dir(&state).unwrap();
        scene.project.own(&state);
        fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
        let _ = scene.build("FROM evil\nRUN cp /bin/busybox /own; chmod 4755 /own\n", &[]);
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o7777, 0o700);
        let mut other = Command::new("setpriv");
        other.args(["--reuid", "65533", "--regid", "65533", "--clear-groups", "--", "ls"]).arg(state.join("."));
        let output = other.output().unwrap();
        assert!(!output.status.success(), "{output:?}");
    });
}

#[test]
fn m11_a_state_directory_of_others_is_refused() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let state = scene.project.state();
        let refused = |case: &str| {
            let output = scene.build("FROM evil\nRUN true\n", &[]);
            assert!(output.code != 0 && output.stderr.contains("state"), "{case}: {}", output.stderr);
        };
        symlink(scene.canary.path(), &state).unwrap();
        refused("link");
        fs::remove_file(&state).unwrap();
        fs::create_dir(&state).unwrap();
        chown(&state, Some(65533), Some(65533)).unwrap();
        refused("owner");
        fs::remove_dir(&state).unwrap();
        fs::write(&state, "").unwrap();
        refused("file");
        fs::remove_file(&state).unwrap();
        if user == User::Root {
            fs::set_permissions(scene.project.home(), fs::Permissions::from_mode(0o777)).unwrap();
            refused("parent that anybody may write");
        }
    });
}

#[test]
fn the_canary_sees_every_change() {
    use std::os::unix::fs::OpenOptionsExt as _;
    let changes: [(&str, Change); 7] = [
        ("content", |dir| fs::write(dir.join("f"), "other").unwrap()),
        ("new file", |dir| fs::write(dir.join("y/new"), "").unwrap()),
        ("mode", |dir| fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o777)).unwrap()),
        ("owner", |dir| chown(dir.join("f"), Some(7), None).unwrap()),
        ("link", |dir| fs::hard_link(dir.join("private"), dir.join("y/private")).unwrap()),
        ("replaced", |dir| {
            fs::remove_file(dir.join("empty")).unwrap();
            fs::File::options().write(true).create_new(true).mode(0o644).open(dir.join("empty")).unwrap();
        }),
        ("removed", |dir| fs::remove_dir(dir.join("x")).unwrap()),
    ];
    for (name, change) in changes {
        let canary = HostCanary::new(User::Root);
        canary.assert_untouched(name);
        change(Path::new(canary.path()));
        assert!(!canary.is_untouched(), "{name}");
    }
}
