//! Starting a step and following it to its end.
//!
//! In: an [`ExecSpec`]. Out: its output through a callback, and an [`Outcome`]. Invariant: when [`Executor::run`] returns or
//! is dropped the socket to the child is closed, which makes the child kill the step.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::external;
use super::groups::Place;
use super::wire::{self, External, Report, StepResult};
use super::{
    DefaultNetwork, ExecError, ExecOptions, ExecSpec, ExitStatusKind, Machine, Outcome, Runtime, Stream, hostfiles,
    message,
};
use crate::cni::{Dns, Lease};
use crate::image::Platform;
use crate::llb::ops::{NetMode, SecurityMode};
use crate::sys::{dir, fds, mount};

/// How long output is read on after the process has ended.
const DRAIN: Duration = Duration::from_secs(1);
/// How long a child that was told to stop may take before it is killed.
const STOP: Duration = Duration::from_secs(5);
/// The most bytes of a report: names of mount points are the only long part.
const MAX_REPORT: u64 = wire::MAX_STEP;
/// Bytes of output handed on at once.
const CHUNK: usize = 64 << 10;

/// What receives the output of a step.
pub type Output<'a> = &'a (dyn Fn(Stream, &[u8]) + Send + Sync);

/// Runs the steps of one build.
#[derive(Debug)]
pub struct Executor {
    /// What containers start from.
    init: OnceCell<OwnedFd>,
    /// The program that starts containers, where that is not this one.
    runtime: Option<PathBuf>,
    /// The same with its options, asked for when the first step starts.
    external: OnceCell<External>,
    /// The parents of control groups, by name, and the number of the next step that has one.
    groups: Mutex<(BTreeMap<String, Place>, u64)>,
    pub(super) options: ExecOptions,
    pub(super) host_resolv_conf: String,
    pub(super) isolated_resolv_conf: String,
    machine: Machine,
    pub(super) network: DefaultNetwork,
}

impl Executor {
    /// Makes the copy of this program that containers start from, unless that can wait, and reads the host's resolver configuration.
    pub fn new(options: ExecOptions) -> Result<Self, ExecError> {
        hostfiles::check(&options.dns)?;
        if options.unfiltered && !options.entitlements.security_insecure {
            return Err(ExecError::Unfiltered);
        }
        let runtime = match &options.runtime {
            Runtime::BuiltIn => None,
            Runtime::Program(search) => Some(external::find(search)?),
        };
        let init = match options.lazy {
            true => OnceCell::new(),
            false => OnceCell::new_with(Some(protected_program(&options.program).map_err(prepare)?)),
        };
        let host_resolv_conf = hostfiles::host_resolv_conf(&options);
        let isolated_resolv_conf = hostfiles::isolated_resolv_conf(&options, &Dns::default());
        let (external, groups) = (OnceCell::new(), Mutex::default());
        let (machine, network) = (Machine::default(), DefaultNetwork::Host);
        let this =
            Self { init, runtime, external, groups, options, host_resolv_conf, isolated_resolv_conf, machine, network };
        if this.options.groups_wanted {
            this.group(&this.options.group_parent)?;
        }
        Ok(this)
    }

    /// Takes what was found out about the machine.
    #[must_use]
    pub fn on(self, machine: Machine) -> Self {
        Self { machine, ..self }
    }

    /// Tells whether programs of a platform run here, as far as that was found out.
    ///
    /// # Errors
    ///
    /// [`ExecError::Foreign`], with what to do about it.
    pub fn runs(&self, platform: &Platform) -> Result<(), ExecError> {
        self.machine.check(platform)
    }

    /// Gives steps another network than the host's that ask for none in particular.
    #[must_use]
    pub fn with_network(self, network: DefaultNetwork) -> Self {
        Self { network, ..self }
    }

    /// Tells whether the caller has granted what a step asks for.
    ///
    /// # Errors
    ///
    /// With the name of what was not granted.
    pub fn allows(&self, network: NetMode, security: SecurityMode) -> Result<(), ExecError> {
        message::check_granted(network, security, self.options.entitlements)
    }

    /// Runs one process to its end.
    pub async fn run(
        &self,
        spec: ExecSpec,
        output: Output<'_>,
        cancel: CancellationToken,
    ) -> Result<Outcome, ExecError> {
        self.allows(spec.network, spec.security)?;
        let runtime = tokio::select! {
            runtime = self.external() => runtime?,
            () = cancel.cancelled() => return Err(ExecError::Canceled),
        };
        let leased = self.lease(&spec, &cancel).await?;
        let (step, descriptors) = message::build((self, runtime), spec, leased.as_ref())?;
        let count = descriptors.len();
        let (header, body) = wire::encode_step(&step, count).ok_or_else(|| ExecError::Spec {
            reason: format!("more than {} MiB, or more than {} mounts", wire::MAX_STEP >> 20, fds::MAX_PER_MESSAGE),
        })?;
        let mut running = Self::start(self.init().await?, &header, &descriptors)
            .map_err(launch("start the container's first process"))?;
        drop(descriptors);
        let result = tokio::select! {
            result = running.follow(&body, output) => result.map_err(launch("talk to the container's first process")),
            () = cancel.cancelled() => Err(ExecError::Canceled),
        };
        running.stop().await.map_err(launch("stop the container's first process"))?;
        // Nothing of the step is left that could see what the next one does.
        drop(leased);
        outcome(result?)
    }

    /// Takes a namespace for a step that asks for no network in particular, where there are any.
    async fn lease(&self, spec: &ExecSpec, cancel: &CancellationToken) -> Result<Option<Lease>, ExecError> {
        let (DefaultNetwork::Pool(pool), NetMode::Unset) = (&self.network, spec.network) else { return Ok(None) };
        let mut lease = tokio::select! {
            lease = pool.get(&spec.hostname) => lease?,
            () = cancel.cancelled() => return Err(ExecError::Canceled),
        };
        if spec.security == SecurityMode::Insecure {
            // It may change devices, routes and filters.
            lease.spoil();
        }
        Ok(Some(lease))
    }

    /// Returns the directory that a group is made in, and the name of the next one.
    pub(super) fn group(&self, parent: &str) -> Result<(OwnedFd, String), ExecError> {
        let failed = |reason: String| ExecError::NoGroups { reason };
        let mut groups = self.groups.lock().map_err(|_| failed("poisoned lock".to_owned()))?;
        let (places, next) = &mut *groups;
        if !places.contains_key(parent) {
            let place = Place::prepare(parent).map_err(failed)?;
            tracing::debug!(path = place.path(), "steps have control groups");
            places.insert(parent.to_owned(), place);
        }
        *next += 1;
        let directory = places[parent].directory().map_err(|error| failed(error.to_string()))?;
        Ok((directory, Place::name_of(*next)))
    }

    async fn external(&self) -> Result<Option<External>, ExecError> {
        let Some(program) = &self.runtime else { return Ok(None) };
        self.external.get_or_try_init(|| external::ask(program)).await.cloned().map(Some)
    }

    /// Returns what containers start from, made now if it is not there yet.
    async fn init(&self) -> Result<BorrowedFd<'_>, ExecError> {
        let copy = || async {
            let program = self.options.program.clone();
            let copied = tokio::task::spawn_blocking(move || protected_program(&program)).await;
            copied.map_err(io::Error::other).flatten().map_err(prepare)
        };
        self.init.get_or_try_init(copy).await.map(AsFd::as_fd)
    }

    /// The step's header and descriptors are small enough for the socket's buffer, so they are there before the child is.
    fn start(init: BorrowedFd<'_>, header: &[u8], descriptors: &[OwnedFd]) -> io::Result<Running> {
        let (ours, theirs) = fds::socket_pair()?;
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        fds::send(&ours, header, &borrowed)?;
        let mut child = Command::new(dir::proc_path(init, None))
            .arg0("rbuild")
            .arg("__init")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let socket = std::os::unix::net::UnixStream::from(ours);
        socket.set_nonblocking(true)?;
        Ok(Running { child, socket: Some(UnixStream::from_std(socket)?), stdout, stderr })
    }
}

fn prepare(source: io::Error) -> ExecError {
    ExecError::Prepare { source }
}

fn launch(action: &'static str) -> impl FnOnce(io::Error) -> ExecError {
    move |source| ExecError::Launch { action, source }
}

/// A container can reach what it was started from through `/proc/self/exe`, so that is a copy in memory which nobody can
/// change, or, where `vm.memfd_noexec=2` forbids to execute one, the file behind a read-only mount of our own.
fn protected_program(program: &Path) -> io::Result<OwnedFd> {
    let file = File::open(program)?;
    match fds::sealed_copy("rbuild-init", &file) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => readonly_program(program),
        result => result,
    }
}

fn readonly_program(program: &Path) -> io::Result<OwnedFd> {
    let tree = mount::clone_tree(fds::open_path(program)?, mount::Recursive::No)?;
    let attributes = mount::MountAttrFlags::MOUNT_ATTR_RDONLY | mount::MountAttrFlags::MOUNT_ATTR_NOSUID;
    mount::set_attributes(&tree, attributes, mount::Recursive::No)?;
    Ok(tree)
}

struct Running {
    child: Child,
    socket: Option<UnixStream>,
    stdout: tokio::process::ChildStdout,
    stderr: tokio::process::ChildStderr,
}

impl Running {
    /// Sends the step, passes output on, and returns the report once it is there and the output is read.
    async fn follow(&mut self, body: &[u8], output: Output<'_>) -> io::Result<Report> {
        let Some(socket) = self.socket.as_mut() else { return Err(io::ErrorKind::NotConnected.into()) };
        let conversation = async {
            socket.write_all(body).await?;
            read_report(socket).await
        };
        let copying = async {
            tokio::join!(copy(&mut self.stdout, Stream::Stdout, output), copy(&mut self.stderr, Stream::Stderr, output))
        };
        tokio::pin!(copying);
        tokio::pin!(conversation);
        let mut copied = false;
        let report = loop {
            tokio::select! {
                report = &mut conversation => break report?,
                _ = &mut copying, if !copied => copied = true,
            }
        };
        if !copied {
            // What still holds the pipes open belongs to no step that is alive; its output is not waited for.
            let _elapsed = tokio::time::timeout(DRAIN, copying).await;
        }
        Ok(report)
    }

    /// Closes the socket and waits for the child, which kills what it has started.
    async fn stop(&mut self) -> io::Result<()> {
        self.socket = None;
        if let Ok(result) = tokio::time::timeout(STOP, self.child.wait()).await {
            return result.map(drop);
        }
        self.child.kill().await
    }
}

async fn read_report(socket: &mut UnixStream) -> io::Result<Report> {
    let length = socket.read_u64_le().await?;
    if length > MAX_REPORT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the report is too long"));
    }
    let mut body = vec![0u8; length as usize];
    socket.read_exact(&mut body).await?;
    serde_json::from_slice(&body).map_err(io::Error::other)
}

async fn copy(mut from: impl AsyncRead + Unpin, stream: Stream, output: Output<'_>) -> io::Result<()> {
    let mut buffer = vec![0u8; CHUNK];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            count => output(stream, &buffer[..count]),
        }
    }
}

fn outcome(report: Report) -> Result<Outcome, ExecError> {
    let status = match report.result {
        StepResult::Exited(code) => ExitStatusKind::Exited(code),
        StepResult::Signaled(signal) => ExitStatusKind::Signaled(signal),
        StepResult::Failed(failure) => {
            return Err(ExecError::Setup { stage: failure.stage, message: failure.message });
        }
    };
    let Report { stubs_left, notices, out_of_memory, .. } = report;
    Ok(Outcome { status, stubs_left, notices, out_of_memory })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;

    #[test]
    fn e1_both_kinds_of_first_program_run_and_cannot_be_written() {
        let temp = tempfile::tempdir().expect("temp dir");
        let program = temp.path().join("program");
        std::fs::copy("/bin/busybox", &program).expect("busybox-static is installed");
        for fd in [protected_program(&program), readonly_program(&program)] {
            let fd = fd.expect("protected");
            let path = dir::proc_path(fd.as_fd(), None);
            let mut command = std::process::Command::new(&path);
            let output = command.arg0("busybox").args(["echo", "runs"]).output().expect("started");
            assert_eq!(output.stdout, b"runs\n");
            let written =
                File::options().write(true).open(&path).and_then(|mut file| io::Write::write_all(&mut file, b"x"));
            assert!(written.is_err());
        }
    }

    #[test]
    fn a_run_can_move_between_threads() {
        fn is_send<T: Send>(_: fn(&'static Executor, ExecSpec, Output<'static>) -> T) {}
        is_send(|executor, spec, output| executor.run(spec, output, CancellationToken::new()));
    }
}
