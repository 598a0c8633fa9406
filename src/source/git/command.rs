//! Runs the program git: with no configuration but ours, within limits, its words passed on without what is secret.
//!
//! Invariants: nothing that a server, a repository or a user writes becomes an option; credentials are handed over in the
//! environment, never as arguments; no hook, helper, filter or pager runs; git talks by the protocols that are named and no
//! other; when the call is dropped, git and all it started are killed.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use super::error::GitError;
use super::spec::Remote;
use crate::registry::Proxies;
use crate::secrets::AgentProxy;
use crate::sys::child::{self, ChildLimits, Group};

/// Most bytes of output that are looked at.
const OUTPUT: usize = 16 << 20;
/// Most bytes of git's complaints that are kept for the message.
const COMPLAINTS: usize = 4 << 10;

/// Takes git's words, for the log.
pub type Log = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Limits of one call.
#[derive(Debug, Clone, Copy)]
pub struct GitLimits {
    /// Bytes of address space.
    pub memory: u64,
    /// Bytes of one file, such as a pack.
    pub file_size: u64,
    /// Time.
    pub time: Duration,
}

impl Default for GitLimits {
    fn default() -> Self {
        Self { memory: 16 << 30, file_size: 64 << 30, time: Duration::from_secs(3600) }
    }
}

/// Configuration for all calls: nothing runs, nothing is guessed, what is received is checked.
const CONFIG: &[(&str, &str)] = &[
    ("advice.detachedHead", "false"),
    ("core.askPass", ""),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.hooksPath", "/dev/null"),
    ("core.logAllRefUpdates", "false"),
    // Maps as much of a pack at once as its limit of memory bears.
    ("core.packedGitLimit", "2g"),
    ("core.packedGitWindowSize", "64m"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("core.symlinks", "true"),
    ("credential.helper", ""),
    ("fetch.recurseSubmodules", "false"),
    ("gc.auto", "0"),
    ("http.followRedirects", "false"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
    ("init.defaultBranch", "master"),
    ("maintenance.auto", "false"),
    ("safe.bareRepository", "explicit"),
    ("safe.directory", "*"),
    ("submodule.recurse", "false"),
    ("transfer.bundleURI", "false"),
    ("transfer.fsckObjects", "true"),
];

/// Faults of old commits that harm nobody, and that public repositories are full of.
const HARMLESS: &[&str] = &[
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badName",
    "badTimezone",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "missingTaggerEntry",
    "multipleAuthors",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
];

/// The program and what is the same in all calls.
#[derive(Debug, Clone)]
pub struct Program {
    /// Where it is; none if it is not on this machine.
    pub path: Option<PathBuf>,
    /// Where it finds `ssh`.
    pub search_path: OsString,
    /// Proxies.
    pub proxies: Proxies,
    /// Limits.
    pub limits: GitLimits,
}

/// What git needs to talk to one server.
#[derive(Clone, Default)]
pub(super) struct Access {
    /// Variables: ssh, credentials.
    pub(super) config: Vec<(String, String)>,
    pub(super) env: Vec<(&'static str, OsString)>,
    /// What serves the socket that the variables name, if that is this process.
    pub(super) agent: Option<Arc<AgentProxy>>,
}

/// A call of git.
#[derive(Clone)]
pub(super) struct Git<'a> {
    pub(super) program: &'a Program,
    pub(super) remote: &'a Remote,
    pub(super) log: &'a Log,
    /// How to talk to the remote; none for work on what is here.
    pub(super) access: Option<&'a Access>,
    pub(super) git_dir: Option<PathBuf>,
    pub(super) work_tree: Option<PathBuf>,
    pub(super) index: Option<PathBuf>,
    /// A repository of ours to read by its path.
    pub(super) local: Option<PathBuf>,
}

impl<'a> Git<'a> {
    pub(super) fn new(program: &'a Program, remote: &'a Remote, log: &'a Log) -> Self {
        Self { program, remote, log, access: None, git_dir: None, work_tree: None, index: None, local: None }
    }

    pub(super) fn on(&self, git_dir: &Path) -> Self {
        Self { git_dir: Some(git_dir.to_owned()), ..self.clone() }
    }

    /// Runs git and returns what it prints; what it prints and says is logged too.
    pub(super) async fn run(&self, action: &'static str, args: &[&str]) -> Result<Vec<u8>, GitError> {
        self.started(action, args, true).await
    }

    /// Runs git without a word in the log unless it fails.
    pub(super) async fn ask(&self, action: &'static str, args: &[&str]) -> Result<Vec<u8>, GitError> {
        self.started(action, args, false).await
    }

    async fn started(&self, action: &'static str, args: &[&str], logged: bool) -> Result<Vec<u8>, GitError> {
        let path = self.program.path.as_ref();
        let path = path.ok_or_else(|| GitError::NoGit { remote: self.remote.to_string() })?;
        let mut command = Command::new(path);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_clear();
        command.envs(self.environment()).current_dir(self.work_tree.as_deref().unwrap_or(Path::new("/")));
        let limits = self.program.limits;
        let bounds = ChildLimits { memory: Some(limits.memory), file_size: Some(limits.file_size) };
        child::confine(command.as_std_mut(), bounds);
        let mut child = command.spawn().map_err(|source| GitError::Start { source })?;
        let group = Group::new(child.id());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let quiet: Log = Arc::new(|_| ());
        let log = if logged { self.log } else { &quiet };
        let work = async {
            let (output, said) = tokio::join!(gather(stdout, OUTPUT, log), gather(stderr, OUTPUT, log));
            (output, said, child.wait().await)
        };
        let limit = |reason: String| GitError::Limit { action, remote: self.remote.to_string(), reason };
        let Ok((output, said, status)) = tokio::time::timeout(limits.time, work).await else {
            return Err(limit(format!("it took longer than {} s", limits.time.as_secs())));
        };
        let (Some(output), Some(said)) = (output, said) else {
            return Err(limit(format!("the answer is longer than {OUTPUT} bytes")));
        };
        let status = status.map_err(|source| GitError::Start { source })?;
        group.ended();
        match status.success() {
            true => Ok(output),
            false => Err(self.failed(action, &said, status)),
        }
    }

    fn failed(&self, action: &'static str, said: &[u8], status: std::process::ExitStatus) -> GitError {
        use std::os::unix::process::ExitStatusExt as _;
        let remote = self.remote.to_string();
        let said = &said[said.len().saturating_sub(COMPLAINTS)..];
        let said = String::from_utf8_lossy(said);
        let over = said.contains("signal 25") || status.signal() == Some(25);
        if over || said.contains("File too large") {
            let reason = format!("a file is larger than {} bytes", self.program.limits.file_size);
            return GitError::Limit { action, remote, reason };
        }
        if said.contains("out of memory") || said.contains("Out of memory") || said.contains("Cannot allocate memory") {
            let reason = format!("git needs more than {} bytes of memory", self.program.limits.memory);
            return GitError::Limit { action, remote, reason };
        }
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let said = if lines.is_empty() { format!("git ended with {status}") } else { lines.join("; ") };
        GitError::Failed { action, remote, said, host: self.remote.host.clone() }
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut env: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |name: &str, value: &OsStr| env.push((name.into(), value.to_owned()));
        set("PATH", &self.program.search_path);
        for (name, value) in [
            ("HOME", "/dev/null"),
            ("XDG_CONFIG_HOME", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_SYSTEM", "/dev/null"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_ADVICE", "0"),
            ("LC_ALL", "C"),
            ("TZ", "UTC"),
        ] {
            set(name, value.as_ref());
        }
        let proxies = &self.program.proxies;
        set("http_proxy", proxies.http.as_deref().unwrap_or_default().as_ref());
        set("https_proxy", proxies.https.as_deref().unwrap_or_default().as_ref());
        set("no_proxy", proxies.except.as_ref());
        set("GIT_ALLOW_PROTOCOL", self.protocols().as_ref());
        let places = [("GIT_DIR", &self.git_dir), ("GIT_WORK_TREE", &self.work_tree), ("GIT_INDEX_FILE", &self.index)];
        for (name, place) in places {
            if let Some(place) = place {
                set(name, place.as_os_str());
            }
        }
        for (name, value) in self.access.iter().flat_map(|access| &access.env) {
            set(name, value);
        }
        env.extend(config_variables(self.configuration()));
        env
    }

    /// The protocol of the remote; reading a repository of ours is the only use of `file`.
    fn protocols(&self) -> &str {
        match (&self.local, self.access) {
            (Some(_), _) => "file",
            (None, Some(_)) => &self.remote.scheme,
            (None, None) => "none",
        }
    }

    fn configuration(&self) -> Vec<(String, String)> {
        let mut config: Vec<(String, String)> =
            CONFIG.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        config.extend(HARMLESS.iter().map(|id| (format!("fetch.fsck.{id}"), "ignore".to_owned())));
        match &self.local {
            Some(path) => config.push(("remote.origin.url".into(), file_url(path))),
            None => config.push(("remote.origin.url".into(), self.remote.url.clone())),
        }
        config.extend(self.access.iter().flat_map(|access| access.config.clone()));
        config
    }
}

fn config_variables(config: Vec<(String, String)>) -> Vec<(OsString, OsString)> {
    let mut env = vec![("GIT_CONFIG_COUNT".into(), config.len().to_string().into())];
    for (at, (name, value)) in config.into_iter().enumerate() {
        env.push((format!("GIT_CONFIG_KEY_{at}").into(), name.into()));
        env.push((format!("GIT_CONFIG_VALUE_{at}").into(), value.into()));
    }
    env
}

/// Returns the URL of a path; git decodes it.
fn file_url(path: &Path) -> String {
    let mut url = String::from("file://");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => url.push(char::from(*byte)),
            byte => url.push_str(&format!("%{byte:02x}")),
        }
    }
    url
}

/// Reads a stream to its end, passing it on; none if it is longer than `limit`.
async fn gather(stream: Option<impl AsyncRead + Unpin>, limit: usize, log: &Log) -> Option<Vec<u8>> {
    let mut stream = stream?;
    let (mut all, mut chunk) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        // A pipe that breaks has ended.
        let count = stream.read(&mut chunk).await.unwrap_or(0);
        if count == 0 {
            return Some(all);
        }
        if all.len() + count > limit {
            return None;
        }
        log(&chunk[..count]);
        all.extend_from_slice(&chunk[..count]);
    }
}
