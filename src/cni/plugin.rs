//! Runs one plugin: its configuration as standard input, the rest of its task as variables, its answer as standard output.
//!
//! Invariants: a plugin is a file in one of the named directories; it gets the variables of the CNI specification and a PATH,
//! nothing else of this process's environment; it is killed with all it has started when its time is up or nobody waits for it
//! any more. While anything of it lives, the lock of this process's records is held.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{CniError, reply};
use crate::sys::child::{self, ChildLimits, Group};
use crate::sys::lock::FileLock;

/// Longest answer, and how much of its complaints is read.
const OUTPUT: u64 = 1 << 20;
/// Where plugins find programs such as iptables.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a plugin is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// Connect a namespace.
    Add,
    /// Undo that.
    Delete,
}

impl Verb {
    fn command(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Delete => "DEL",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Add => "set up",
            Self::Delete => "take down",
        }
    }

    /// DHCP servers and firewalls take their time; what is taken down waits for nobody.
    fn limit(self) -> Duration {
        Duration::from_secs(if self == Self::Add { 60 } else { 20 })
    }
}

/// The task of all plugins of a network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) verb: Verb,
    /// Name of the network, for messages.
    pub(super) network: &'a str,
    pub(super) id: &'a str,
    /// A path of the namespace.
    pub(super) namespace: &'a str,
    pub(super) interface: &'a str,
    pub(super) args: &'a str,
    pub(super) dirs: &'a [PathBuf],
    pub(super) alive: &'a FileLock,
}

/// Returns the program of a plugin.
pub(super) fn find(kind: &str, dirs: &[PathBuf]) -> Result<PathBuf, CniError> {
    let found = dirs.iter().map(|dir| dir.join(kind)).find(|path| path.is_file());
    found.ok_or_else(|| CniError::NoPlugin { plugin: kind.into(), dirs: dirs.to_owned() })
}

/// Runs a plugin and returns its answer.
pub(super) async fn run(call: &Call<'_>, kind: &str, request: Vec<u8>) -> Result<Vec<u8>, CniError> {
    let program = find(kind, call.dirs)?;
    let (began, limit) = (Instant::now(), call.verb.limit());
    let done = tokio::time::timeout(limit, execute(call, &program, request)).await;
    let timed_out = |_| CniError::TimedOut { what: format!("the CNI plugin {kind:?}"), seconds: limit.as_secs() };
    let (status, stdout, stderr) =
        done.map_err(timed_out)?.map_err(|source| CniError::Start { plugin: kind.into(), source })?;
    let took = began.elapsed().as_millis();
    tracing::debug!(plugin = %program.display(), command = call.verb.command(), id = call.id, %status, took, "ran a CNI plugin");
    if stdout.len() as u64 > OUTPUT {
        return Err(CniError::Reply { plugin: kind.into(), reason: format!("it is longer than {OUTPUT} bytes") });
    }
    if !status.success() {
        let message = reply::failure(&stdout, &stderr, &status.to_string());
        let (verb, network) = (call.verb.words(), call.network.to_owned());
        return Err(CniError::Plugin { plugin: kind.into(), verb, network, message });
    }
    Ok(stdout)
}

async fn execute(
    call: &Call<'_>,
    program: &Path,
    request: Vec<u8>,
) -> std::io::Result<(std::process::ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/").env_clear();
    command.envs([
        ("PATH", PATH),
        ("CNI_COMMAND", call.verb.command()),
        ("CNI_CONTAINERID", call.id),
        ("CNI_NETNS", call.namespace),
        ("CNI_IFNAME", call.interface),
        ("CNI_ARGS", call.args),
    ]);
    command.env("CNI_PATH", std::env::join_paths(call.dirs).map_err(std::io::Error::other)?);
    child::confine(command.as_std_mut(), ChildLimits::default());
    child::leave_open(command.as_std_mut(), call.alive.descriptor().try_clone_to_owned()?);
    let mut child = command.spawn()?;
    let group = Group::new(child.id());
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A plugin may answer without reading all; its answer counts.
            let _ = stdin.write_all(&request).await;
        }
    };
    let ((), stdout, stderr, status) = tokio::join!(feed, gather(stdout), gather(stderr), child.wait());
    let answer = (status?, stdout?, stderr?);
    group.ended();
    Ok(answer)
}

/// Keeps the beginning and reads on, so that nobody waits for room in the pipe.
async fn gather(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return Ok(kept) };
    (&mut stream).take(OUTPUT + 1).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::sys::dir::Dir;

    fn plant(dir: &Path, name: &str, script: &str) {
        crate::sys::programs::plant(&dir.join(name), &format!("#!/bin/sh\n{script}\n"));
    }

    #[tokio::test]
    async fn plugins_get_their_task_and_nothing_else() {
        let temp = tempfile::tempdir().expect("temp dir");
        let alive = FileLock::exclusive(&Dir::open(temp.path()).expect("open"), OsStr::new("lock")).expect("lock");
        plant(temp.path(), "tells", "cat; echo; env | sort");
        let dirs = [PathBuf::from("/nonexistent"), temp.path().to_owned()];
        let call = Call {
            verb: Verb::Add,
            network: "n",
            id: "i",
            namespace: "/proc/1/fd/1",
            interface: "eth0",
            args: "A=1",
            dirs: &dirs,
            alive: &alive,
        };
        let answer = run(&call, "tells", b"{\"x\":1}".to_vec()).await.expect("it ran");
        let answer = String::from_utf8(answer).expect("text");
        let expected = format!(
            "{{\"x\":1}}\nCNI_ARGS=A=1\nCNI_COMMAND=ADD\nCNI_CONTAINERID=i\nCNI_IFNAME=eth0\nCNI_NETNS=/proc/1/fd/1\n\
             CNI_PATH=/nonexistent:{}\nPATH={PATH}\nPWD=/\n",
            temp.path().display()
        );
        assert_eq!(answer.replace("_=/usr/bin/env\n", ""), expected);
    }

    #[tokio::test]
    async fn plugins_that_misbehave() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = Dir::open(temp.path()).expect("open");
        let alive = FileLock::exclusive(&dir, OsStr::new("lock")).expect("lock");
        plant(temp.path(), "fails", "echo '{\"code\":11,\"msg\":\"none left\"}'; exit 1");
        plant(temp.path(), "complains", "echo sorry >&2; exit 3");
        plant(temp.path(), "floods", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2");
        plant(temp.path(), "dies", "kill -9 $$");
        std::fs::write(temp.path().join("data"), "no program").expect("write");
        let dirs = [temp.path().to_owned()];
        let call = Call {
            verb: Verb::Delete,
            network: "n",
            id: "i",
            namespace: "",
            interface: "eth0",
            args: "",
            dirs: &dirs,
            alive: &alive,
        };
        for (kind, reason) in [
            ("fails", "the CNI plugin \"fails\" failed to take down the network \"n\": none left (code 11)"),
            ("complains", "failed to take down the network \"n\": sorry"),
            ("floods", "longer than 1048576 bytes"),
            ("dies", "signal: 9"),
            ("data", "failed to run the CNI plugin \"data\": Permission denied"),
            ("absent", "the CNI plugin \"absent\" is not in /"),
        ] {
            let error = run(&call, kind, b"{}".to_vec()).await.expect_err(kind);
            let error = crate::diag::chain(&error);
            assert!(error.contains(reason), "{kind}: {error}");
        }
    }

    #[tokio::test]
    async fn a_plugin_nobody_waits_for_is_killed_with_what_it_started_and_only_then_is_the_lock_free() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = Dir::open(temp.path()).expect("open");
        let alive = FileLock::exclusive(&dir, OsStr::new("lock")).expect("lock");
        plant(temp.path(), "hangs", "sleep 1000 & touch ${0%/*}/started; wait");
        let dirs = [temp.path().to_owned()];
        let call = Call {
            verb: Verb::Add,
            network: "n",
            id: "i",
            namespace: "",
            interface: "eth0",
            args: "",
            dirs: &dirs,
            alive: &alive,
        };
        let started = async {
            while !temp.path().join("started").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = run(&call, "hangs", Vec::new()) => panic!("it ended"),
            () = started => {}
        }
        drop(alive);
        // Killed processes end in their own time; one that lived on would hold the lock for long.
        let _free = FileLock::exclusive(&dir, OsStr::new("lock")).expect("free");
    }
}
