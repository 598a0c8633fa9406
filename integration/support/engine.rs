//! A real docker engine with a state, a socket and a process tree of its own; it touches no network of the machine.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::build::Output;

/// How long the engine may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running engine; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Engine {
    process: Child,
    directory: TempDir,
}

impl Engine {
    /// Starts an engine whose socket belongs to `group`.
    pub(crate) fn start(group: u32) -> Self {
        let directory = TempDir::with_prefix("rbuild-dockerd-").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new("dockerd");
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--group", &group.to_string()]);
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(directory.path().join(name));
        }
        let config = directory.path().join("daemon.json");
        fs::write(&config, "{}").unwrap();
        command
            .arg("--config-file")
            .arg(config)
            .arg("--host")
            .arg(format!("unix://{}/socket", directory.path().display()));
        let process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let mut engine = Self { process: process.expect("docker.io is installed"), directory };
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(engine.socket()).is_err() {
            let alive = engine.process.try_wait().unwrap().is_none();
            assert!(
                alive && Instant::now() < deadline,
                "{}",
                fs::read_to_string(engine.directory.path().join("log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        engine
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// What `DOCKER_HOST` must say.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Runs docker against it.
    pub(crate) fn docker(&self, args: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.args(args).env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.directory.path());
        super::build::run(command)
    }
}

impl Drop for Engine {
    /// The engine ends its containerd itself when it is asked to end.
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
