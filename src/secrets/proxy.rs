//! A socket for one step, behind which an agent answers what [`AgentFilter`] lets through.
//!
//! In: an agent and a directory that only this user can enter. Out: a socket in that directory, to be mounted into the
//! step. Invariants: each connection of the step has a connection to the agent and a filter of its own; when the proxy is
//! dropped, its connections are closed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use super::Keys;
use super::agent::{AgentFilter, Client, Reply, frame};
use super::ssh::Agent;
use crate::sys::OFlags;
use crate::sys::dir::{Dir, proc_path};

/// Connections a step may have at once; others wait.
const MAX_CONNECTIONS: usize = 64;
/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct AgentProxy {
    accepting: JoinHandle<()>,
}

impl AgentProxy {
    /// The socket's name in its directory.
    pub const NAME: &str = "agent";

    /// Makes the socket in `dir` and returns it, opened as a location, with the proxy that serves it. Must be called where a
    /// runtime is.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made.
    pub fn open(agent: Agent, dir: &Dir) -> io::Result<(Self, OwnedFd)> {
        let name = OsStr::new(Self::NAME);
        // Socket addresses are at most 108 bytes long, less than the path of a state directory may be.
        let listener = UnixListener::bind(Path::new(&proc_path(dir.as_fd(), Some(name))))?;
        let socket = dir.resolve(name, OFlags::PATH | OFlags::NOFOLLOW)?;
        Ok((Self { accepting: tokio::spawn(accept(listener, Arc::new(agent))) }, socket))
    }
}

impl Drop for AgentProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The set of connections goes with this task, and each connection with the set.
async fn accept(listener: UnixListener, agent: Arc<Agent>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                let Ok((step, _)) = accepted else { return };
                connections.spawn(connect(step, Arc::clone(&agent)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// An agent that is gone, or that breaks off, ends the step's connection; `ssh` says the rest.
async fn connect(step: UnixStream, agent: Arc<Agent>) {
    let result = match &*agent {
        Agent::Socket { path, raw } => pass_on(step, path, *raw).await,
        Agent::Keys(keys) => answer(step, keys).await,
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to an ssh agent ended");
    }
}

async fn pass_on(mut step: UnixStream, socket: &Path, raw: bool) -> io::Result<()> {
    let mut behind = UnixStream::connect(socket).await?;
    if raw {
        return tokio::io::copy_bidirectional(&mut step, &mut behind).await.map(drop);
    }
    filter(step, behind).await
}

/// The filter stands before our own agent too: one place says what a step may ask.
async fn answer(mut step: UnixStream, keys: &Keys) -> io::Result<()> {
    let mut filter = AgentFilter::new(None);
    let mut asked = vec![0u8; CHUNK];
    loop {
        let count = step.read(&mut asked).await?;
        if count == 0 {
            return Ok(());
        }
        for action in filter.client(&asked[..count]) {
            let replies = match action {
                // A frame is its length, in four bytes, and the request.
                Client::Forward(request) => filter.agent(&frame(&keys.answer(request.get(4..).unwrap_or_default()))),
                Client::Answer(answer) => vec![Reply::Answer(answer)],
                Client::Close => return Ok(()),
            };
            for reply in replies {
                let Reply::Answer(answer) = reply else { return Ok(()) };
                step.write_all(&answer).await?;
            }
        }
    }
}

async fn filter(mut step: UnixStream, mut agent: UnixStream) -> io::Result<()> {
    let mut filter = AgentFilter::new(None);
    let (mut asked, mut answered) = (vec![0u8; CHUNK], vec![0u8; CHUNK]);
    loop {
        tokio::select! {
            count = step.read(&mut asked) => match count? {
                0 => return Ok(()),
                count => for action in filter.client(&asked[..count]) {
                    match action {
                        Client::Forward(frame) => agent.write_all(&frame).await?,
                        Client::Answer(frame) => step.write_all(&frame).await?,
                        Client::Close => return Ok(()),
                    }
                },
            },
            count = agent.read(&mut answered) => match count? {
                0 => return Ok(()),
                count => for action in filter.agent(&answered[..count]) {
                    match action {
                        Reply::Answer(frame) => step.write_all(&frame).await?,
                        Reply::Close => return Ok(()),
                    }
                },
            },
        }
    }
}
