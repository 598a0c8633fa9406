//! RUN: an exec op as a process on snapshots.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::blocking;
use super::content::content_of;
use super::devices::StepDevices;
use crate::checksum::Selector;
use crate::digest::Digest;
use crate::exec::{ExecMount, ExecSpec, ExitStatusKind, MountSource, RootTree, SecretData, Stream, proxy_variables};
use crate::llb::ops::LinuxResources;
use crate::llb::{ExecOp, FileOpt, Mount, MountType};
use crate::ops::caches::CacheUse;
use crate::ops::keys::OpKey;
use crate::ops::{OpsError, Tree, Worker};
use crate::progress;
use crate::secrets::{Agent, AgentProxy};
use crate::snapshot::{Active, View};
use crate::solver::{CacheMap, Op, OpError};

/// What programs say when a disk is full.
const NO_SPACE: &[u8] = b"No space left on device";

/// Where a program is looked for when the step says nothing.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An exec op of the graph.
pub(super) struct ExecVertex {
    pub(super) worker: Arc<Worker>,
    pub(super) digest: Digest,
    pub(super) name: String,
    pub(super) op: ExecOp,
    pub(super) key: OpKey,
    /// Limits of the process.
    pub(super) resources: Option<LinuxResources>,
    /// Names of optional devices that are not there.
    pub(super) missing: Vec<String>,
}

/// A step that is ready to run.
struct Prepared {
    spec: ExecSpec,
    kept: Kept,
}

/// What must stay alive while a step runs, and what becomes of it afterwards.
#[derive(Default)]
struct Kept {
    /// What the step may change, with the output it becomes; none where changes are thrown away.
    written: Vec<(Option<usize>, Active)>,
    /// Outputs that are their input, because nothing could be written.
    unchanged: Vec<(usize, Tree)>,
    views: Vec<View>,
    caches: Vec<Arc<CacheUse>>,
    agents: Vec<StepAgent>,
}

/// An agent's socket for one step, in a directory of its own.
struct StepAgent {
    worker: Arc<Worker>,
    folder: OsString,
    _proxy: AgentProxy,
}

impl Drop for StepAgent {
    fn drop(&mut self) {
        // What cannot be removed now goes with the scratch folder.
        drop(self.worker.store.scratch().dir().remove_all(&self.folder));
    }
}

impl Op<Tree> for ExecVertex {
    fn cache_map(&self) -> BoxFuture<'_, Result<CacheMap, OpError>> {
        Box::pin(async { Ok(self.key.map.clone()) })
    }

    fn content_key(&self, input: usize, result: Tree) -> BoxFuture<'_, Result<Option<Digest>, OpError>> {
        let (worker, paths) = (Arc::clone(&self.worker), self.key.content[input].clone());
        let step = self.digest.clone();
        Box::pin(blocking(move || content_of(&worker, &result, paths.as_deref(), Some((&step, input)))))
    }

    fn exec(&self, inputs: Vec<Tree>, cancel: CancellationToken) -> BoxFuture<'_, Result<Vec<Tree>, OpError>> {
        Box::pin(self.run(inputs, cancel))
    }
}

impl ExecVertex {
    async fn run(&self, inputs: Vec<Tree>, cancel: CancellationToken) -> Result<Vec<Tree>, OpError> {
        let caches = self.wait_for_caches(&inputs, &cancel).await?;
        let (worker, op, resources) = (Arc::clone(&self.worker), self.op.clone(), self.resources.clone());
        let (prepared, mut notices, missing) = blocking(move || {
            let mut devices = StepDevices::open(&worker.devices, &op.cdi_devices)?;
            let (notices, missing) = (std::mem::take(&mut devices.notices), std::mem::take(&mut devices.missing));
            let preparation =
                Preparation { worker: &worker, op: &op, resources, inputs: &inputs, kept: Kept::default() };
            let mut prepared = preparation.prepare(caches)?;
            devices.give(&mut prepared.spec);
            Ok((prepared, notices, missing))
        })
        .await?;
        let Prepared { spec, kept } = prepared;
        self.worker.tell_missing(&self.digest, &self.missing);
        self.worker.tell_missing(&self.digest, &missing);
        let command = spec.args.join(" ");
        let said_full = AtomicBool::new(false);
        let log = |stream, data: &[u8]| {
            if data.windows(NO_SPACE.len()).any(|text| text == NO_SPACE) {
                said_full.store(true, Ordering::Relaxed);
            }
            self.log(stream, data);
        };
        let outcome = self.worker.executor.run(spec, &log, cancel).await?;
        notices.extend(outcome.notices);
        for notice in &notices {
            self.log(Stream::Stderr, format!("{notice}\n").as_bytes());
        }
        if !self.is_success(outcome.status) {
            let status = status_text(outcome.status);
            if outcome.out_of_memory {
                return Err(OpsError::OutOfMemory { command, status }.into());
            }
            return Err(self.failed(command, status, said_full.into_inner()).into());
        }
        let (worker, vertex, name) = (Arc::clone(&self.worker), self.digest.clone(), self.name.clone());
        let outputs = blocking(move || commit(&worker, &vertex, kept, &name)).await?;
        collect(outputs)
    }

    /// Programs rarely say why they could not write, so the disk itself is asked, as long as it is as they left it. A layer that was
    /// packed meanwhile may have given its room back; then what the program said counts.
    fn failed(&self, command: String, status: String, said_full: bool) -> OpsError {
        let full = matches!(self.worker.store.root_dir().is_disk_full(), Ok(true));
        match full || (said_full && self.worker.store.had_full_disk()) {
            true => OpsError::DiskFull { command, status },
            false => OpsError::Failed { command, status },
        }
    }

    /// Caches with `locked` sharing are waited for here, where the build can still be stopped.
    async fn wait_for_caches(
        &self,
        inputs: &[Tree],
        cancel: &CancellationToken,
    ) -> Result<Vec<Arc<CacheUse>>, OpError> {
        let mut wanted = Vec::new();
        for mount in self.op.mounts.iter().filter(|m| m.mount_type == MountType::Cache) {
            let cache = mount.cache.clone().unwrap_or_default();
            let origin = self.origin(mount, inputs).await?;
            wanted.push((cache, origin));
        }
        Ok(self.worker.caches.acquire(&wanted, cancel).await??)
    }

    /// Tells what a cache starts with: the content of its input, so that a changed one starts anew.
    async fn origin(&self, mount: &Mount, inputs: &[Tree]) -> Result<String, OpError> {
        let Some(tree) = usize::try_from(mount.input).ok().and_then(|index| inputs.get(index)) else {
            return Ok(String::new());
        };
        let path = Selector { path: mount.selector.clone(), follow: true, ..Selector::default() };
        let (worker, tree) = (Arc::clone(&self.worker), tree.clone());
        let digest = blocking(move || content_of(&worker, &tree, Some(&[path]), None)).await?;
        Ok(digest.map_or_else(String::new, |digest| digest.to_string()))
    }

    fn log(&self, stream: Stream, data: &[u8]) {
        let stream = match stream {
            Stream::Stdout => progress::Stream::Stdout,
            Stream::Stderr => progress::Stream::Stderr,
        };
        let log =
            progress::Log { vertex: self.digest.clone(), stream, data: data.to_vec(), timestamp: SystemTime::now() };
        self.worker.sink.send(progress::Event::Log(log));
    }

    fn is_success(&self, status: ExitStatusKind) -> bool {
        match status {
            ExitStatusKind::Exited(code) if self.op.meta.valid_exit_codes.is_empty() => code == 0,
            ExitStatusKind::Exited(code) => self.op.meta.valid_exit_codes.contains(&i32::from(code)),
            ExitStatusKind::Signaled(_) => false,
        }
    }
}

fn status_text(status: ExitStatusKind) -> String {
    match status {
        ExitStatusKind::Exited(code) => format!("exit code: {code}"),
        ExitStatusKind::Signaled(signal) => format!("killed by signal {signal} (exit code: {})", 128 + signal),
    }
}

/// Seals what the step wrote; what was thrown away just goes, and caches are free for others.
fn commit(worker: &Worker, vertex: &Digest, kept: Kept, name: &str) -> Result<Vec<(usize, Tree)>, OpError> {
    let mut outputs = kept.unchanged;
    drop((kept.views, kept.caches, kept.agents));
    for (output, active) in kept.written {
        let Some(output) = output else { continue };
        let chain = worker.snapshots.commit(active, name)?;
        worker.made(vertex, &chain);
        outputs.push((output, Tree::Layers(chain)));
    }
    Ok(outputs)
}

/// Puts outputs in order; a gap would be an op that promises what it does not give.
fn collect(mut outputs: Vec<(usize, Tree)>) -> Result<Vec<Tree>, OpError> {
    outputs.sort_by_key(|(output, _)| *output);
    if outputs.iter().enumerate().any(|(at, (output, _))| at != *output) {
        return Err(OpsError::Invalid { reason: "the outputs of its mounts are not numbered 0, 1, 2, …".into() }.into());
    }
    Ok(outputs.into_iter().map(|(_, tree)| tree).collect())
}

/// Turns mounts into descriptors.
struct Preparation<'a> {
    worker: &'a Arc<Worker>,
    op: &'a ExecOp,
    resources: Option<LinuxResources>,
    inputs: &'a [Tree],
    kept: Kept,
}

impl Preparation<'_> {
    fn prepare(mut self, caches: Vec<Arc<CacheUse>>) -> Result<Prepared, OpError> {
        let root = self.op.mounts.iter().find(|m| m.dest == "/");
        let root = self.root(root.ok_or_else(|| invalid("it has no root file system"))?)?;
        let mut caches = caches.into_iter();
        let mut mounts = Vec::new();
        for mount in self.op.mounts.iter().filter(|m| m.dest != "/") {
            let source = match mount.mount_type {
                MountType::Bind => Some(self.bind(mount)?),
                MountType::Tmpfs => Some(MountSource::Tmpfs { size: mount.tmpfs_size.unwrap_or(0).max(0) as u64 }),
                MountType::Secret => self.secret(mount)?,
                MountType::Ssh => self.ssh(mount)?,
                MountType::Cache => {
                    let held = caches.next().ok_or_else(|| invalid("a cache mount was not acquired"))?;
                    Some(self.cache(mount, held)?)
                }
            };
            if let Some(source) = source {
                mounts.push(ExecMount { dest: mount.dest.clone(), readonly: mount.readonly, source });
            }
        }
        Ok(Prepared { spec: self.spec(root, mounts)?, kept: self.kept })
    }

    fn spec(&self, root: RootTree, mounts: Vec<ExecMount>) -> Result<ExecSpec, OpError> {
        let meta = &self.op.meta;
        Ok(ExecSpec {
            args: meta.args.clone(),
            env: self.environment()?,
            cwd: meta.cwd.clone(),
            user: meta.user.clone(),
            hostname: meta.hostname.clone(),
            extra_hosts: meta.extra_hosts.iter().map(|h| (h.host.clone(), h.ip.clone())).collect(),
            network: self.op.network,
            security: self.op.security,
            ulimits: meta.ulimit.clone(),
            cgroup_parent: meta.cgroup_parent.clone(),
            resources: self.resources.clone(),
            shm_size: 0,
            root,
            mounts,
        })
    }

    fn input(&self, mount: &Mount) -> Result<Tree, OpsError> {
        if mount.input < 0 {
            return Ok(Tree::empty());
        }
        let input = usize::try_from(mount.input).ok().and_then(|index| self.inputs.get(index));
        input.cloned().ok_or_else(|| invalid("a mount names an input it does not have"))
    }

    fn root(&mut self, mount: &Mount) -> Result<RootTree, OpError> {
        let tree = self.input(mount)?;
        let output = usize::try_from(mount.output).ok();
        let active = self.worker.snapshots.prepare(&self.worker.layers_of(&tree)?)?;
        let root = RootTree { tree: active.mount()?, readonly: mount.readonly };
        // Even a read-only root gets mount points made, which must not reach the input.
        match (mount.readonly, output) {
            (true, Some(output)) => {
                self.kept.unchanged.push((output, tree));
                self.kept.written.push((None, active));
            }
            (_, output) => self.kept.written.push((output, active)),
        }
        Ok(root)
    }

    fn bind(&mut self, mount: &Mount) -> Result<MountSource, OpError> {
        let tree = self.input(mount)?;
        let chain = self.worker.layers_of(&tree)?;
        let selector = mount.selector.clone();
        let output = usize::try_from(mount.output).ok();
        if mount.readonly {
            let view = self.worker.snapshots.view(&chain)?;
            let source = MountSource::Tree { tree: view.mount()?, selector };
            self.kept.views.push(view);
            self.kept.unchanged.extend(output.map(|output| (output, tree)));
            return Ok(source);
        }
        let active = self.worker.snapshots.prepare(&chain)?;
        let source = MountSource::Tree { tree: active.mount()?, selector };
        self.kept.written.push((output, active));
        Ok(source)
    }

    fn cache(&mut self, mount: &Mount, held: Arc<CacheUse>) -> Result<MountSource, OpError> {
        let dir = held.open(|dir| match mount.input {
            ..0 => Ok(()),
            _ => super::file::copy_tree(self.worker, &self.input(mount)?, &mount.selector, dir),
        })?;
        let source = MountSource::HostDir { dir, selector: String::new() };
        self.kept.caches.push(held);
        Ok(source)
    }

    fn secret(&self, mount: &Mount) -> Result<Option<MountSource>, OpError> {
        let FileOpt { id, uid, gid, mode, optional } = mount.secret.clone().unwrap_or_default();
        let data = self.secret_data(&id, optional)?;
        Ok(data.map(|data| MountSource::Secret { data, uid, gid, mode }))
    }

    fn secret_data(&self, id: &str, optional: bool) -> Result<Option<SecretData>, OpError> {
        match self.worker.secrets.get(id) {
            Some(secret) => Ok(Some(SecretData::new(secret.expose().to_vec()))),
            None if optional => Ok(None),
            None => Err(OpsError::SecretMissing { id: id.into() }.into()),
        }
    }

    fn ssh(&mut self, mount: &Mount) -> Result<Option<MountSource>, OpError> {
        let FileOpt { id, uid, gid, mode, optional } = mount.ssh.clone().unwrap_or_default();
        let id = if id.is_empty() { "default".to_owned() } else { id };
        match self.worker.agents.get(&id).cloned() {
            Some(agent) => {
                let socket = self.agent_socket(agent).map_err(|source| OpsError::SshSocket { id, source })?;
                Ok(Some(MountSource::SshAgent { socket, uid, gid, mode }))
            }
            None if optional => Ok(None),
            None => Err(OpsError::SshMissing { id }.into()),
        }
    }

    fn agent_socket(&mut self, agent: Agent) -> io::Result<OwnedFd> {
        let (folder, dir) = self.worker.store.scratch().make_dir()?;
        let (proxy, socket) = AgentProxy::open(agent, &dir)?;
        self.kept.agents.push(StepAgent { worker: Arc::clone(self.worker), folder, _proxy: proxy });
        Ok(socket)
    }

    /// The step's own variables, then proxies in both spellings, then secrets; a path where there is none.
    fn environment(&self) -> Result<Vec<String>, OpError> {
        let mut env = self.op.meta.env.clone();
        if let Some(proxy) = &self.op.meta.proxy_env {
            env.extend(proxy_variables(proxy));
        }
        for secret in &self.op.secret_env {
            if let Some(data) = self.secret_data(&secret.id, secret.optional)? {
                let unusable = |_| invalid(&format!("secret {} is no UTF-8 text and cannot be a variable", secret.id));
                let value = std::str::from_utf8(data.bytes()).map_err(unusable)?;
                env.push(format!("{}={value}", secret.name));
            }
        }
        if !env.iter().any(|variable| variable.starts_with("PATH=")) {
            env.push(DEFAULT_PATH.into());
        }
        Ok(env)
    }
}

fn invalid(reason: &str) -> OpsError {
    OpsError::Invalid { reason: reason.into() }
}
