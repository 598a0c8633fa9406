//! A full disk in a step, in a pull and in an export: the error names the disk, and all is well once there is room.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::images::{Image, Pulls};
use super::{names, state_is_good};
use crate::support::build::{BASE, BOTH, Output, Project, busybox};

/// A small file system in memory; unmounted when dropped.
struct Disk {
    place: PathBuf,
}

impl Disk {
    /// Mounts one at a directory of the project's home that becomes its user's.
    fn mount(project: &Project, name: &str, size: &str) -> Self {
        let place = project.home().join(name);
        std::fs::create_dir(&place).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "rbuild-test"]).arg(&place).status();
        assert!(mounted.unwrap().success());
        project.own(&place);
        Self { place }
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.place).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: what a failed test left open must not keep it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}

/// Checks an error that names the disk and what to do about it.
fn full(output: Output, disk: &Path) {
    let output = output.failure(5).says("hint: ").says("free some space");
    assert!(output.stderr.contains(disk.to_str().unwrap()), "{}", output.stderr);
}

#[test]
fn in_a_run() {
    for user in BOTH {
        let project = Project::new(user);
        let disk = Disk::mount(&project, "state", "40m");
        project.file(
            "Dockerfile",
            format!("{BASE}RUN echo first >/first\nRUN dd if=/dev/zero of=/big bs=1M count=60 && echo done\n"),
        );
        full(project.build(&busybox()).says("dd: "), &disk.place);
        state_is_good(&project);
        disk.resize("200m");
        let output = project.build(&busybox()).success();
        assert_eq!(output.count("CACHED"), 3, "{}", output.stderr);
        state_is_good(&project);
    }
}

#[test]
fn in_a_run_whose_room_a_layer_gave_back() {
    for user in BOTH {
        let project = Project::new(user);
        let disk = Disk::mount(&project, "state", "40m");
        let args = [&busybox()[..], &["-o", "type=oci,dest=image.tar"]].concat();
        let heavy = format!("{BASE}RUN dd if=/dev/urandom of=/random bs=1M count=24\n");
        // Long enough for the layer above to be packed, as far as there is room.
        project.file("Dockerfile", format!("{heavy}RUN sleep 3; echo 'x: No space left on device'; exit 1\n"));
        full(project.build(&args), &disk.place);
        project.file("Dockerfile", format!("{heavy}RUN sleep 3; exit 1\n"));
        let _ = project.build(&args).failure(1).silent_about("disk");
        state_is_good(&project);
    }
}

#[test]
fn in_a_copy() {
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY big /big\n");
        let disk = Disk::mount(&project, "state", "8m");
        project.file("big", vec![7; 12 << 20]);
        full(project.build(&[]), &disk.place);
        state_is_good(&project);
        disk.resize("40m");
        let _ = project.build(&[]).success();
    }
}

#[test]
fn in_a_pull_and_while_packing() {
    for user in BOTH {
        let project = Project::new(user);
        let pulls = Pulls::start(Image::get());
        let disk = Disk::mount(&project, "state", "9m");
        let dockerfile = format!("FROM {}/app\nCOPY more /more\n", pulls.host());
        // Nothing but the base's layers can fill the disk.
        project.file("Dockerfile", format!("FROM {}/app\nRUN [\"/bin/busybox\", \"true\"]\n", pulls.host()));
        full(project.build(&[]), &disk.place);
        state_is_good(&project);
        project.file("Dockerfile", dockerfile);
        // It compresses badly, so that its blob is as large as the file.
        let random = std::fs::File::open("/dev/urandom").unwrap();
        let mut more = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(random, 12 << 20), &mut more).unwrap();
        project.file("more", more);
        // Room for the base, its blobs and the new layer, and none for the new layer's blob.
        disk.resize("46m");
        let _ = project.build(&[]).success();
        full(project.build(&["-o", "type=oci,dest=image.tar"]), &disk.place);
        state_is_good(&project);
        assert!(!project.home().join("image.tar").exists());
        disk.resize("100m");
        let _ = project.build(&["-o", "type=oci,dest=image.tar"]).success();
        state_is_good(&project);
    }
}

#[test]
fn in_an_export() {
    for user in BOTH {
        let project = Project::with(user, &format!("{BASE}RUN dd if=/dev/urandom of=/random bs=1M count=6\n"));
        let disk = Disk::mount(&project, "out", "3m");
        for output in [
            "type=oci,dest=out/image.tar",
            "type=docker,dest=out/image.tar",
            "type=tar,dest=out/files.tar",
            "type=oci,tar=false,dest=out",
            "type=local,dest=out/files",
        ] {
            let args = [&busybox()[..], &["-o", output]].concat();
            full(project.build(&args), Path::new("out"));
            let left: Vec<String> =
                names(&disk.place).into_iter().filter(|name| name.contains("tmp") || name.contains("tar")).collect();
            assert!(left.is_empty(), "{output}: {left:?}");
            disk.resize("100m");
            let _ = project.build(&args).success();
            assert!(
                Command::new("find").arg(&disk.place).args(["-mindepth", "1", "-delete"]).status().unwrap().success()
            );
            disk.resize("3m");
        }
        state_is_good(&project);
    }
}
