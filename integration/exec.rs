//! Steps in containers, as root and again as an unprivileged user; tests are named after the rows of the threat list.

mod confinement;
mod identity;
mod mounts;
mod streams;

use std::sync::{Mutex, OnceLock};

use rbuild::exec::{
    Entitlements, ExecError, ExecMount, ExecOptions, ExecSpec, Executor, MountSource, Outcome, RootTree, SecretData,
    Stream,
};
use rbuild::llb::ops::{NetMode, SecurityMode};
use tokio_util::sync::CancellationToken;

use crate::support::rootfs::Rootfs;
use crate::support::rootless::{self, User};
use crate::support::runtime;

/// A step to be changed before it runs.
struct Step {
    spec: ExecSpec,
}

/// What came of it.
#[derive(Debug)]
struct Ran {
    code: i32,
    output: String,
    outcome: Outcome,
}

impl Step {
    fn new(rootfs: &Rootfs, script: &str) -> Self {
        let spec = ExecSpec {
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: String::new(),
            extra_hosts: Vec::new(),
            network: NetMode::Unset,
            security: SecurityMode::Sandbox,
            ulimits: Vec::new(),
            cgroup_parent: String::new(),
            resources: None,
            shm_size: 0,
            root: RootTree { tree: rootfs.tree(), readonly: false },
            mounts: Vec::new(),
        };
        Self { spec }
    }

    fn with(mut self, change: impl FnOnce(&mut ExecSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    fn user(self, user: &str) -> Self {
        self.with(|spec| spec.user = user.to_owned())
    }

    fn cwd(self, cwd: &str) -> Self {
        self.with(|spec| spec.cwd = cwd.to_owned())
    }

    fn args(self, args: &[&str]) -> Self {
        self.with(|spec| spec.args = args.iter().map(|argument| (*argument).to_owned()).collect())
    }

    fn mount(self, dest: &str, readonly: bool, source: MountSource) -> Self {
        self.with(|spec| spec.mounts.push(ExecMount { dest: dest.to_owned(), readonly, source }))
    }

    fn try_run(self) -> Result<Ran, ExecError> {
        self.run_until(CancellationToken::new())
    }

    fn run_until(self, cancel: CancellationToken) -> Result<Ran, ExecError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let text = Mutex::new(Vec::new());
        let output = |_: Stream, bytes: &[u8]| text.lock().expect("lock").extend_from_slice(bytes);
        let outcome = runtime.block_on(executor().run(self.spec, &output, cancel))?;
        let output = String::from_utf8_lossy(&text.lock().expect("lock")).into_owned();
        Ok(Ran { code: outcome.status.code(), output, outcome })
    }

    /// Runs it and returns its output; it must end well.
    fn output(self) -> String {
        let ran = self.try_run().expect("the container was set up");
        assert_eq!(ran.code, 0, "{}", ran.output);
        ran.output
    }
}

fn executor() -> &'static Executor {
    static EXECUTOR: OnceLock<Executor> = OnceLock::new();
    EXECUTOR.get_or_init(|| {
        let entitlements = Entitlements { network_host: false, security_insecure: true };
        let program = crate::support::build::binary().into();
        let runtime = runtime::option();
        Executor::new(ExecOptions { program, entitlements, runtime, ..ExecOptions::default() }).expect("executor")
    })
}

fn secret(text: &str) -> MountSource {
    MountSource::Secret { data: SecretData::new(text.into()), uid: 0, gid: 0, mode: 0o400 }
}

/// A directory outside the tree that nothing may change.
struct Canary {
    temp: tempfile::TempDir,
}

impl Canary {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::write(temp.path().join("f"), "canary").expect("write");
        std::fs::create_dir(temp.path().join("y")).expect("mkdir");
        Self { temp }
    }

    fn path(&self) -> &str {
        self.temp.path().to_str().expect("UTF-8")
    }

    fn assert_untouched(&self) {
        let mut names: Vec<_> =
            std::fs::read_dir(self.temp.path()).expect("read").map(|entry| entry.expect("entry").file_name()).collect();
        names.sort();
        assert_eq!(names, ["f", "y"]);
        assert_eq!(std::fs::read_to_string(self.temp.path().join("f")).expect("read"), "canary");
        assert_eq!(std::fs::read_dir(self.temp.path().join("y")).expect("read").count(), 0);
    }
}

#[test]
fn as_user_all_of_this_again_without_root() {
    assert!(rootless::is_real_root(), "the tests run as root of the machine");
    let (said, output) = rootless::rerun(User::WithSubids, &["exec::", "--skip", "as_user_", "--test-threads=2"]);
    assert!(said.contains("mode: Subids, notices: [], max_id: 65536"), "{said}");
    assert!(output.contains("test result: ok"), "{output}");
    assert!(!output.contains("running 0 tests"), "{output}");
}

#[test]
fn as_user_e5_with_one_id_the_groups_stay_and_it_is_said() {
    assert!(rootless::is_real_root(), "the tests run as root of the machine");
    let name = "exec::identity::single_id_keeps_groups";
    let (said, output) = rootless::rerun(User::WithoutSubids, &["--ignored", "--exact", name]);
    assert!(said.contains("mode: SingleId"), "{said}");
    assert!(said.contains("/etc/subuid has no line for rbuild-single"), "{said}");
    assert!(said.contains("usermod --add-subuids"), "{said}");
    assert!(output.contains("1 passed"), "{output}");
}
