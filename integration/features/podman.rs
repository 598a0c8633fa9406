//! `--load` with a real podman, whose store is one of the test's own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use super::text;
use crate::support::build::{BASE, BOTH, Output, Project, User, busybox, run};

/// A user's podman.
struct Podman<'a> {
    project: &'a Project,
}

impl<'a> Podman<'a> {
    fn new(project: &'a Project) -> Self {
        let home = project.home();
        for name in ["runtime", "bin"] {
            fs::create_dir(home.join(name)).unwrap();
        }
        let place = |name: &str| home.join(name).display().to_string();
        let text = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\nrootless_storage_path = \"{}\"\n",
            place("store-of-root"),
            place("run-of-root"),
            place("store-of-user"),
        );
        fs::write(home.join("storage.conf"), text).unwrap();
        // A search path without docker, which is looked for first.
        for program in ["podman", "newuidmap", "newgidmap", "setpriv"] {
            let found = ["/usr/bin", "/bin"].map(|dir| PathBuf::from(dir).join(program));
            symlink(found.iter().find(|path| path.exists()).expect(program), home.join("bin").join(program)).unwrap();
        }
        project.own(&home.join("runtime"));
        Self { project }
    }

    fn with_store(&self, mut command: Command) -> Command {
        let home = self.project.home();
        command.env("CONTAINERS_STORAGE_CONF", home.join("storage.conf")).env("XDG_RUNTIME_DIR", home.join("runtime"));
        command
    }

    /// Builds and loads.
    fn load(&self, args: &[&str]) -> Output {
        let mut command = self.project.rbuild_command(&[&busybox()[..], &["--load"], args].concat());
        command.arg(self.project.context()).env("PATH", self.project.home().join("bin"));
        run(self.with_store(command))
    }

    /// Asks podman as the user would.
    fn ask(&self, args: &[&str]) -> String {
        let mut command = self.project.command("podman");
        command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"]).args(args);
        run(self.with_store(command)).success().stdout
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // A user's podman may leave a process that holds its namespaces.
        let Ok(id) = fs::read_to_string(self.project.home().join("runtime/libpod/tmp/pause.pid")) else { return };
        let _ = Command::new("kill").arg(id.trim()).status();
    }
}

#[test]
fn load_hands_the_image_to_the_podman_of_the_user() {
    for user in BOTH {
        let project = Project::with(
            user,
            &format!("{BASE}RUN echo greeting > /greeting && chown 5:6 /greeting\nCMD [\"cat\", \"/greeting\"]\n"),
        );
        let podman = Podman::new(&project);
        let _ = podman
            .load(&["-t", "app:1", "-t", "example.org/team/app:2", "--label", "a=b"])
            .success()
            .says("importing to podman");
        let seen: serde_json::Value = serde_json::from_str(&podman.ask(&["image", "inspect", "app:1"])).unwrap();
        assert_eq!(seen[0]["Labels"]["a"], "b", "{seen}");
        assert_eq!(seen[0]["Config"]["Cmd"][1], "/greeting", "{seen}");
        let names = seen[0]["RepoTags"].as_array().unwrap();
        // Where a name without a registry belongs, podman says: to `localhost` if the image has several.
        assert!(names.iter().any(|name| name.as_str().unwrap().ends_with("/app:1")), "{names:?}");
        assert!(names.iter().any(|name| name == "example.org/team/app:2"), "{names:?}");
        // The machine's own store is another.
        let (own, other) = if user == User::Root { ("root", "user") } else { ("user", "root") };
        assert!(project.home().join(format!("store-of-{own}")).exists());
        assert!(!project.home().join(format!("store-of-{other}")).exists());
        let _ = podman.ask(&["create", "--name", "made", "--network", "none", "app:1"]);
        let listed = podman.ask(&["export", "made", "-o", text(&project.home().join("runtime/made.tar"))]);
        assert_eq!(listed, "");
        let listed = super::tool("tar", &["--numeric-owner", "-tvf", text(&project.home().join("runtime/made.tar"))]);
        assert!(listed.lines().any(|line| line.contains(" 5/6 ") && line.ends_with(" greeting")), "{listed}");
        if user == User::Root {
            // As many as the machine has, and not as podman would like.
            let limits = ["--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"];
            let run = [&["run", "--rm", "--network", "none"], &limits[..], &["app:1"]].concat();
            assert_eq!(podman.ask(&run), "greeting\n");
        }
        let _ = podman.ask(&["rm", "made"]);
    }
}
