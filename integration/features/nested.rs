//! A state directory on an overlay, as in a container: no overlay mount is to be had on it, nor overlay's whiteouts.

use std::process::Command;

use crate::support::build::{BASE, BOTH, Project, binary, busybox, run};

/// An overlay at the place of the project's state directory; unmounted when dropped.
pub(super) struct Overlay(std::path::PathBuf);

impl Overlay {
    pub(super) fn mount(project: &Project) -> Self {
        let (disk, place) = (project.home().join("disk"), project.state());
        for part in ["lower", "upper", "work"] {
            std::fs::create_dir_all(disk.join(part)).unwrap();
            project.own(&disk.join(part));
        }
        std::fs::create_dir_all(&place).unwrap();
        let part = |name: &str| disk.join(name).display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}", part("lower"), part("upper"), part("work"));
        let mounted = Command::new("mount").args(["-t", "overlay", "-o", &options, "rbuild-test"]).arg(&place).status();
        assert!(mounted.unwrap().success());
        Self(place)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // Lazily: what a failed test left open must not keep it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn files_are_removed_by_steps_and_by_layers() {
    for user in BOTH {
        let project = Project::new(user);
        let _state = Overlay::mount(&project);
        let steps =
            "RUN mkdir -p /d/e && touch /d/a /d/b /d/e/c && ln /d/a /d/link\nRUN rm -r /d/a /d/e && mkdir /d/e\n";
        let check = "RUN test \"$(ls -R /d)\" = \"$(printf '/d:\\nb\\ne\\nlink\\n\\n/d/e:')\"\n";
        project.file("Dockerfile", format!("{BASE}{steps}{check}"));
        let output = project.build(&[&busybox()[..], &["-o", "type=oci,tar=false,dest=image"]].concat()).success();
        assert_eq!(output.count("every step copies its base"), 1, "{}", output.stderr);
        // Unpacked where nothing is known of it, the layers say the same.
        project.file("Dockerfile", format!("FROM made\n{check}"));
        let mut prune = project.command(binary());
        prune.args(["prune", "--all", "--force", "--root"]).arg(project.state());
        let _ = run(prune).success();
        let made = format!("made=oci-layout://{}", project.home().join("image").display());
        let output = project.build(&["--build-context", &made, "-o", "out"]).success();
        assert_eq!(output.count("CACHED"), 0, "{}", output.stderr);
        let left = std::fs::read_dir(project.home().join("out/d")).unwrap().count();
        assert_eq!(left, 3);
    }
}
