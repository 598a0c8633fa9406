//! The list of what has gone wrong in other builders, row by row: what must hold here before anybody builds a foreign
//! Dockerfile, and which tests show it.
//!
//! Tests of this folder build with the real binary, as root and as a user without privilege, beside a [`HostCanary`]; those of
//! `exec` (run for both users too) and `registry` drive a station; the others are unit tests under the code. A test is named after
//! its row.
//!
//! | row | must hold | here | below |
//! | --- | --- | --- | --- |
//! | E1 | no step writes to a program of the host | `steps` | `exec::confinement`, `src/exec/launch` |
//! | E2 | no working directory through a descriptor, no descriptor left open | `steps` | `exec::identity`, `src/exec/target` |
//! | E3 | the caller's environment reaches no step | `steps` | `exec::identity`, `src/exec/process` |
//! | E4 | no capability is inheritable or ambient | `steps` | `exec::identity` |
//! | E5 | groups are the image's, never the caller's; with a single id they stay, and it is said | `steps` | `exec::identity`, `exec::as_user_e5…`, `src/exec/user` |
//! | E6 | a user is exactly the one named | `steps` | `exec::identity`, `src/exec/user` |
//! | E7 | `passwd` and `group` are read with bounds | `images` | `exec::identity`, `src/exec/user` |
//! | E8 | `/proc` and `/sys` are real, or nothing runs | `images` | `exec::confinement` |
//! | E9 | masks do not come from the image | `images` | `exec::confinement` |
//! | E10 | `/dev` is ours | `images` | `exec::confinement` |
//! | E11 | a working directory is made inside the image | `images` | `exec::identity` |
//! | E12 | a privilege needs its entitlement, whoever asks | `filter` | `exec::confinement`, `src/exec/message` |
//! | E13 | the filter is what its table says, for every number and entry | `filter` | `exec::confinement`, `src/sys/seccomp/tests` |
//! | E16 | a step ends with its first process; output takes no memory | `steps` | `exec::streams` |
//! | E17 | what an image says of itself changes nothing outside | `steps` | `src/export/image` |
//! | E18 | no program or library of an image runs outside a step | `images`, `supply` | `exec::confinement` |
//! | E19 | no process of the host is reached | `steps` | `exec::confinement` |
//! | M1 | a mount target is resolved once | `mounts`, `races` | `exec::mounts`, `src/exec/target` |
//! | M2 | a mount source is resolved once; an id is no path | `mounts`, `races` | `exec::mounts` |
//! | M3 | only what was made for a mount is removed after it | `mounts`, `races` | `exec::mounts`, `src/exec/target` |
//! | M4 | mount options are a closed list, nothing is propagated | `mounts` | `exec::mounts` |
//! | M5 | the context is never written | `mounts` | |
//! | M6 | what is read-only stays so, whatever a step does | `mounts` | `exec::mounts` |
//! | M7 | nobody changes a tree that another one reads | `mounts` | the types of `src/snapshot`: to seal a tree takes it away |
//! | M8 | `/etc/hosts` and `/etc/resolv.conf` are mounted inside the image | `images` | `exec::mounts` |
//! | M9 | no mount over what the sandbox makes | `mounts` | `exec::mounts`, `src/exec/target` |
//! | M10 | names of the state directory split no overlay option | `mounts` | `src/snapshot/tests`, `src/layer/tests/apply` |
//! | M11 | the state directory is private, ours, and no link | `state` | `src/store/tests` |
//! | M12 | devices from a layer or a step cannot be opened | `mounts` | `exec::mounts` |
//! | T1–T4, T6, T9 | no member of a layer leads outside | `layers` | `src/layer/tests/apply`, `src/snapshot/tests` |
//! | T5 | an archive of two meanings is refused | `layers` | `src/layer/tests/reader` |
//! | T7 | what a layer expands to is bounded | `layers` | `src/layer/tests/limits` |
//! | T8 | nothing is used that was not verified | `layers` | `registry::pull`, `src/store/tests`, `src/snapshot/tests`, `src/export/archive` |
//! | F1 | `..` stays inside | `files` | `src/ops/file/tests` |
//! | F2 | links of stages and of the context lead nowhere | `files` | `src/ops/file/tests` |
//! | F3 | Dockerfile and ignore file are plain files, never quoted when they are not | `files` | `src/source/local` |
//! | F4 | what is copied is what was hashed | `files` | `src/ops/file/tests` |
//! | F5 | special files hang nothing, links of the context lead nowhere | `files` | `src/ops/file/tests`, `src/source/local` |
//! | F6 | patterns take no time | `files` | `src/pattern/matcher_tests` |
//! | F8 | what is removed is what was made, whatever its modes | `files` | `src/sys/dir`, `src/snapshot/tests` |
//! | R1 | a password goes to the registry's own token server only | | `registry::security`, `src/registry/realm` |
//! | R2 | a redirect to another origin carries no credential | | `registry::security` |
//! | R3 | nor does an upload to another origin | | `registry::security` |
//! | R4 | servers send us to no address of the machine or its cloud | | `registry::security`, `src/registry/address` |
//! | R6 | a document has one meaning | | `registry::security`, `src/registry/document`, `src/source/select/tests` |
//! | R7 | a digest is a digest before it is used | | `registry::security`, `src/registry/document`, `src/source/oci_layout` |
//! | R8 | whatever a server sends is bounded | | `registry::security` |
//! | G1 | no name of a ref, host or path is an option to git | `sources` | `src/source/git/spec`, `src/source/git/refs` |
//! | G2 | a subdirectory of a repository is reached through no link | `sources` | |
//! | G3 | no hook, filter or submodule of a repository runs anything or writes elsewhere | `sources` | `src/source/git/submodule` |
//! | G4 | a token goes to its repository only | `sources` | `features::git`, `features::http`, `src/source/git/submodule` |
//! | G5 | git is not run in a context; there is no provenance yet to ask for | `sources` | |
//! | G6 | a ref called like a commit is not that commit | `sources` | |
//! | G7 | a password in a URL is in no log, image or state | `sources` | `src/source/git/spec`, `src/driver/graph` |
//! | G8 | what git and web servers send is bounded | `sources` | |
//! | S1 | no byte of a secret stays anywhere | `secret` | `src/secrets/secret` |
//! | S3 | a secret is a file in memory with the mode asked for, for one step | `secret` | `exec::mounts` |
//! | S4 | a secret or key of the workspace is reached through no link | `secret` | `src/secrets/secret`, `src/secrets/ssh` |
//! | S5 | an agent lists and signs, and does nothing else | `secret`, `features::ssh` | `src/secrets/agent`, `fuzz_smoke` |
//! | L1 | no foreign text is a command to a runner | `log` | `src/progress` |
//! | L2 | nor an escape sequence to a terminal | `log` | `src/progress/sanitize` |
//! | P1 | what is built is what is locked; there is no release yet to sign | `supply` | |
//! | P3 | dependencies are pinned, from the registry, not older than their mends, and of licenses that fit | `supply` | |
//!
//! Known to differ from the list: a secret for a variable lives in ordinary memory while its step is started; E14, E15, E20, E22,
//! T10 to T12, R5, R9 to R13 have tests below, where they have any, and none here.

mod deep;
mod files;
mod filter;
mod images;
mod layers;
mod log;
mod mounts;
mod races;
mod secret;
mod sources;
mod state;
mod steps;
mod supply;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::support::build::{BOTH, Output, Project, User, binary, run};
use crate::support::canary::HostCanary;
use crate::support::image::{Image, RawTar, tools};

/// Bounds against what would never end or take everything: a build that meets one fails with another code than its own.
const SECONDS: &str = "120";
const PRIVATE_MEMORY: u64 = 512 << 20;

/// A program for hostile steps.
fn probe() -> Vec<u8> {
    static PROBE: OnceLock<Vec<u8>> = OnceLock::new();
    let build = || {
        let temp = tempfile::tempdir().unwrap();
        let program = temp.path().join("probe");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/security/probe.c");
        let built = Command::new("cc").args(["-static", "-O1", source, "-o"]).arg(&program).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
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
        let output = run(self.command(args));
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
