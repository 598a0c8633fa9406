//! What a build writes outside its state directory, where links lie in wait.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::{Scene, as_both, image};

#[test]
fn t12_links_in_a_destination_are_replaced_and_not_followed() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let out = scene.project.home().join("out");
        // What one result leaves is what the next one finds.
        scene.files("FROM evil\nRUN rm -rf /tmp && ln -s $H /k && ln -s $H/f /file && ln -s $H /tmp\n", &[]);
        assert!(fs::symlink_metadata(out.join("k")).unwrap().is_symlink());
        scene.files("FROM evil\nRUN mkdir -p /k/d && echo in > /k/f && echo in > /k/d/f && echo in > /file && echo in > /tmp/f\n", &[]);
        for name in ["k/f", "k/d/f", "file", "tmp/f"] {
            assert_eq!(fs::read_to_string(out.join(name)).unwrap(), "in\n", "{name}");
        }
        fs::remove_dir_all(out.join("k")).unwrap();
        symlink(scene.canary.path(), out.join("k")).unwrap();
        // Deletion does not follow them either.
        let spec = format!("type=local,mode=delete,dest={}", out.display());
        let _ = scene.build("FROM scratch\nCOPY Dockerfile /only\n", &["-o", &spec]).success();
        let left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["only"]);
    });
}

#[test]
fn t12_a_destination_is_no_link_whatever_is_written() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let home = scene.project.home();
        let host = scene.canary.path();
        fs::create_dir(home.join("in")).unwrap();
        for (name, to) in [
            ("l", host.to_owned()),
            ("f", format!("{host}/f")),
            ("new", format!("{host}/new")),
            ("in/l", host.to_owned()),
        ] {
            symlink(to, home.join(name)).unwrap();
        }
        scene.project.own(&home.join("in"));
        let absolute = |name: &str| home.join(name).display().to_string();
        for link in ["l", "in/l", "l/sub", "in/l/y"].map(str::to_owned).into_iter().chain(["l", "in/l"].map(absolute)) {
            for output in ["type=local,dest=", "type=oci,tar=false,dest=", ""] {
                let spec = format!("{output}{link}");
                let output = scene.build("FROM evil\n", &["-o", &spec]);
                assert!(output.code != 0 && output.stderr.contains("symbolic link"), "{spec}: {}", output.stderr);
            }
        }
        for file in ["f", "new", "l/f", "in/l/f"].map(str::to_owned).into_iter().chain(["f", "new"].map(absolute)) {
            for kind in ["tar", "oci", "docker"] {
                let output = scene.build("FROM evil\n", &["-o", &format!("type={kind},dest={file}")]);
                assert!(
                    output.code != 0 && output.stderr.contains("symbolic link"),
                    "{kind} {file}: {}",
                    output.stderr
                );
            }
            let image = format!("type=oci,dest={}", home.join("image.tar").display());
            for flag in ["--iidfile", "--metadata-file"] {
                let output = scene.build("FROM evil\n", &["-o", &image, flag, &file]);
                assert!(
                    output.code != 0 && output.stderr.contains("symbolic link"),
                    "{flag} {file}: {}",
                    output.stderr
                );
            }
        }
        for dest in ["l", "in/l", "l/y"] {
            let to = format!("type=local,dest={dest}");
            let output = scene.build("FROM evil\nRUN true\n", &["--cache-to", &to]).success();
            assert!(output.stderr.contains("the cache was not exported"), "{}", output.stderr);
            let _ = scene.build("FROM evil\nRUN true\n", &["--cache-to", &to, "--cache-strict"]).says("symbolic link");
        }
    });
}

#[test]
fn t12_files_of_a_result_are_the_callers_without_special_bits() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let dockerfile = "FROM evil\nRUN for b in 1 2 4 6 7; do touch /f$b && chmod ${b}755 /f$b; done; mkdir /d && chmod 7777 /d; \
            touch /owned && chown 1000:1000 /owned && chmod 4755 /owned; mkfifo /pipe; mknod /null c 1 3 2>/dev/null; true\n";
        let out = scene.files(dockerfile, &[]);
        let owner = fs::metadata(scene.project.home()).unwrap().uid();
        for name in ["f1", "f2", "f4", "f6", "f7", "owned"] {
            let stat = fs::symlink_metadata(out.join(name)).unwrap();
            assert_eq!((stat.permissions().mode() & 0o6000, stat.uid()), (0, owner), "{name}");
        }
        assert_eq!(fs::symlink_metadata(out.join("d")).unwrap().permissions().mode() & 0o6000, 0);
        assert!(!out.join("null").exists());
    });
}
