//! What has gone wrong in other builders, as attacks: `security/ROWS.md` says row by row what must hold and which tests show it.

mod cache;
mod checklist;
mod deep;
mod files;
mod filter;
mod images;
mod isolation;
mod layers;
mod log;
mod mounts;
mod outputs;
mod protocol;
mod races;
mod rows;
mod secret;
mod sources;
mod state;
mod steps;
mod supply;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::support::build::{BOTH, Output, Project, User, binary, run};
use crate::support::canary::HostCanary;
use crate::support::image::{Image, RawTar, tools};

/// Bounds against what would never end or take everything: a build that meets one fails with another code than its own.
const SECONDS: &str = "120";
const PRIVATE_MEMORY: u64 = 512 << 20;

/// Compiles a program of this folder.
fn compile(source: &str, program: &Path) {
    let source = format!("{}/integration/security/{source}", env!("CARGO_MANIFEST_DIR"));
    let built = Command::new("cc").args(["-static", "-O1", &source, "-o"]).arg(program).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// A program for hostile steps.
fn probe() -> Vec<u8> {
    static PROBE: OnceLock<Vec<u8>> = OnceLock::new();
    let build = || {
        let temp = tempfile::tempdir().unwrap();
        let program = temp.path().join("probe");
        compile("probe.c", &program);
        std::fs::read(program).unwrap()
    };
    PROBE.get_or_init(build).clone()
}

/// An image of busybox and the probe.
fn probing() -> Image {
    Image::of([tools().file("bin/probe", 0o755, probe())])
}

/// An image of busybox and what `add` adds.
fn image(add: impl FnOnce(RawTar) -> RawTar) -> Image {
    Image::of([tools(), add(RawTar::default())])
}

/// A build in which something hostile happens.
struct Scene {
    user: User,
    project: Project,
    canary: HostCanary,
    contexts: Vec<String>,
}

impl Scene {
    fn new(user: User) -> Self {
        Self { user, project: Project::new(user), canary: HostCanary::new(user), contexts: Vec::new() }
    }

    /// One with an image that the Dockerfile calls `evil`.
    fn with(user: User, evil: &Image) -> Self {
        let mut scene = Self::new(user);
        scene.image("evil", evil);
        scene
    }

    fn image(&mut self, name: &str, image: &Image) {
        self.contexts.extend(image.named(&self.project, name));
    }

    /// Returns rbuild's command line, bounded in time and memory; every path of the build's own is in it.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.project.command("timeout");
        command.args(["-k", "5", SECONDS, "prlimit", &format!("--data={PRIVATE_MEMORY}")]).arg(binary());
        command.arg("--root").arg(self.project.state()).args(["--progress", "plain"]);
        command.args(&self.contexts).args(args).arg(self.project.context());
        command
    }

    /// Builds a Dockerfile, in which `$H` is the canary's path.
    fn build(&self, dockerfile: &str, args: &[&str]) -> Output {
        self.project.file("Dockerfile", dockerfile.replace("$H", self.canary.path()));
        self.checked(self.command(args))
    }

    /// Builds a Dockerfile; with the output comes the most memory, in bytes, that a process of the build had resident.
    fn measured(&self, dockerfile: &str, args: &[&str]) -> (Output, u64) {
        self.project.file("Dockerfile", dockerfile.replace("$H", self.canary.path()));
        let temp = tempfile::tempdir().unwrap();
        let (peak, place) = (temp.path().join("peak"), temp.path().join("most"));
        compile("peak.c", &peak);
        let inner = self.command(args);
        let mut command = Command::new(peak);
        command.arg(&place).arg(inner.get_program()).args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.project.home()).stdin(Stdio::null());
        let output = self.checked(command);
        let most: u64 = std::fs::read_to_string(place).unwrap().parse().unwrap();
        (output, most << 10)
    }

    /// Runs a build and checks what must hold of every one.
    fn checked(&self, command: Command) -> Output {
        let output = run(command);
        let shown = format!("{}{}", output.stdout, output.stderr);
        assert!((0..=5).contains(&output.code), "{:?} ended with {}:\n{shown}", self.user, output.code);
        assert!(!shown.contains("panicked"), "{shown}");
        assert!(!shown.contains(self.canary.text()), "the canary's text is in:\n{shown}");
        self.canary.assert_untouched(&shown);
        output
    }

    /// Builds a Dockerfile into a directory.
    fn files(&self, dockerfile: &str, args: &[&str]) -> PathBuf {
        let out = self.project.home().join("out");
        let spec = format!("type=local,dest={}", out.display());
        let args: Vec<&str> = ["-o", &spec].into_iter().chain(args.iter().copied()).collect();
        let _ = self.build(dockerfile, &args).success();
        out
    }
}

/// Runs a test for both users at once.
fn as_both(test: impl Fn(User) + Sync) {
    std::thread::scope(|scope| {
        let runs = BOTH.map(|user| {
            scope.spawn({
                let test = &test;
                move || test(user)
            })
        });
        for run in runs {
            run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// Returns the lines of a step's output, without the step's number and time.
fn lines(output: &Output) -> Vec<String> {
    let line = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (step, time, text) = (words.next()?, words.next()?, words.next()?);
        (step.starts_with('#') && time.parse::<f64>().is_ok()).then(|| text.to_owned())
    };
    output.stderr.lines().filter_map(line).collect()
}
