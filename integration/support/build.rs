//! A build in a temporary directory: files in, the real binary run as root or as a user without privilege, output out.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use tempfile::TempDir;

use super::runtime;

/// Who runs the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// Root.
    Root,
    /// The user `rbuild-test`, which `integration/run` makes, with subordinate ids.
    Rootless,
}

/// Both, for tests that must hold for both.
pub(crate) const BOTH: [User; 2] = [User::Root, User::Rootless];

/// What a run left.
#[derive(Debug)]
#[must_use = "look at the output or at least at the exit code"]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Passes on a run that went well.
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Passes on a run that failed with `code`.
    pub(crate) fn failure(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that standard error says `text`.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is not in:\n{}", self.stderr);
        self
    }

    /// Asserts that standard error does not say `text`.
    pub(crate) fn silent_about(self, text: &str) -> Self {
        assert!(!self.stderr.contains(text), "{text:?} is in:\n{}", self.stderr);
        self
    }

    /// Returns how often standard error says `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.stderr.matches(text).count()
    }
}

/// A context directory, a state directory and a user.
#[derive(Debug)]
pub(crate) struct Project {
    user: User,
    home: TempDir,
}

/// The binary under test, at a place every user can reach: the one cargo built with the tests, or that of `RBUILD_UNDER_TEST`.
pub(crate) fn binary() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        // These tests may be the copy that lies there already.
        let beside = std::env::current_exe().unwrap().with_file_name("rbuild");
        #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
        let other = std::env::var_os("RBUILD_UNDER_TEST");
        let built = || PathBuf::from(env!("CARGO_BIN_EXE_rbuild"));
        let program = other.map_or_else(built, PathBuf::from);
        if beside.exists() { beside } else { copy_to_reach(&program, "rbuild") }
    })
}

/// Whether the binary under test is an optimised one, as that of `integration/run test` is.
pub(crate) fn is_optimised() -> bool {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let other = std::env::var_os("RBUILD_UNDER_TEST").is_some();
    other || !cfg!(debug_assertions)
}

/// This test program, at the same place.
pub(crate) fn tests() -> PathBuf {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let _ = binary();
    PLACE.get_or_init(|| copy_to_reach(&std::env::current_exe().unwrap(), "integration")).clone()
}

/// Copies a program out of the checkout, which other users may not be allowed to enter.
fn copy_to_reach(program: &Path, name: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let prefix = "rbuild-under-test-";
    let dir = std::env::temp_dir().join(format!("{prefix}{}", std::process::id()));
    if !dir.exists() {
        remove_copies_of_the_dead(prefix);
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let place = dir.join(name);
    fs::copy(program, &place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    place
}

/// Nothing is called when a test program ends, so the next one clears up.
fn remove_copies_of_the_dead(prefix: &str) {
    for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(prefix).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another run may be clearing up too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Project {
    /// Makes an empty project.
    pub(crate) fn new(user: User) -> Self {
        let home = TempDir::with_prefix("rbuild-it-").unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let project = Self { user, home };
        fs::create_dir(project.context()).unwrap();
        if user == User::Rootless {
            project.give(project.home.path());
            project.give(&project.context());
        }
        project
    }

    /// Makes a project that holds a Dockerfile.
    pub(crate) fn with(user: User, dockerfile: &str) -> Self {
        let project = Self::new(user);
        project.file("Dockerfile", dockerfile);
        project
    }

    /// Returns the directory of the project, which the user owns.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Returns the context directory.
    pub(crate) fn context(&self) -> PathBuf {
        self.home.path().join("context")
    }

    /// Returns the state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// Writes a file of the context.
    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let place = self.context().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, content).unwrap();
        self.own(&self.context());
        self
    }

    /// Gives a tree to the project's user.
    pub(crate) fn own(&self, path: &Path) {
        if self.user == User::Rootless {
            assert!(
                Command::new("chown").args(["-RhP", "rbuild-test:rbuild-test"]).arg(path).status().unwrap().success()
            );
        }
    }

    fn give(&self, path: &Path) {
        assert!(Command::new("chown").arg("rbuild-test:rbuild-test").arg(path).status().unwrap().success());
    }

    /// Returns a command that is run by the project's user in a clean environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.user {
            User::Root => Command::new(program),
            User::Rootless => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", "rbuild-test", "--regid", "rbuild-test", "--init-groups", "--"]).arg(program);
                command
            }
        };
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.home()).current_dir(self.home()).stdin(Stdio::null());
        command
    }

    /// Returns rbuild's command line with the project's state directory.
    pub(crate) fn rbuild_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(binary());
        command.arg("--root").arg(self.state()).args(["--progress", "plain"]).args(args);
        if let Some(name) = runtime::name().filter(|_| !args.contains(&"--config")) {
            command.arg("--config").arg(self.config(&format!("[worker.oci]\nbinary = {name:?}\n")));
        }
        command
    }

    /// Writes a configuration file and returns its path.
    pub(crate) fn config(&self, text: &str) -> PathBuf {
        let place = self.home().join("buildkitd.toml");
        fs::write(&place, text).unwrap();
        place
    }

    /// Runs rbuild with further arguments.
    pub(crate) fn rbuild(&self, args: &[&str]) -> Output {
        run(self.rbuild_command(args))
    }

    /// Builds the context, with further arguments.
    pub(crate) fn build(&self, args: &[&str]) -> Output {
        let context = self.context();
        let mut all = args.to_vec();
        all.push(context.to_str().unwrap());
        self.rbuild(&all)
    }

    /// Builds the context into a directory and returns it.
    pub(crate) fn files(&self, args: &[&str]) -> PathBuf {
        let out = self.home().join("out");
        let spec = format!("type=local,dest={}", out.display());
        let mut all = vec!["-o", spec.as_str()];
        all.extend(args);
        let _ = self.build(&all).success();
        out
    }

    /// Reads a file of a built directory.
    pub(crate) fn built(&self, args: &[&str], path: &str) -> String {
        let place = self.files(args).join(path);
        fs::read_to_string(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()))
    }
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Output {
    let output = command.output().unwrap();
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // Layers of a rootless state directory hold files of subordinate ids and modes that refuse even their owner.
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(self.home.path()).output();
    }
}

/// Arguments that make the machine's busybox the stage `host`.
pub(crate) fn busybox() -> [&'static str; 2] {
    ["--build-context", "host=/bin"]
}

/// The first lines of a Dockerfile that has busybox and nothing else.
pub(crate) const BASE: &str = "FROM scratch AS base\nCOPY --from=host busybox /bin/busybox\n\
    RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
