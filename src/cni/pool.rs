//! Connected network namespaces, made when the first step asks, used again by later steps, released at the end.
//!
//! A step takes an idle namespace, or has one made; meanwhile others are made until there are as many as configured. One that
//! comes back is idle. Those beyond the configured number go when they were idle for long, all others when the pool is closed.
//!
//! Invariants: a namespace is made and released by tasks of the pool, never by a step, so that a step that is stopped leaves
//! none half made; one that was given to a step without confinement, which may have changed it, is not used again.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::attachment::{Attachment, Network};
use super::ledger::{self, Ledger};
use super::{CniError, Dns, bridge, turn};
use crate::sys::dir::Dir;
use crate::sys::{ns, proc};

/// How long one beyond the configured number may be idle.
const IDLE: Duration = Duration::from_secs(300);

/// Network namespaces of one build.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    network: Arc<Network>,
    /// How many are made ahead.
    target: usize,
    /// How long one beyond that may be idle.
    idle: Duration,
    root: Dir,
    state: Mutex<State>,
    first: tokio::sync::Mutex<First>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Idle>,
    /// Namespaces there are or will be, wherever they are.
    count: usize,
    /// Whether steps are mostly over.
    drained: bool,
    filled: bool,
    trimmed: bool,
    closed: bool,
    ledger: Option<Arc<Ledger>>,
    problems: Vec<String>,
}

/// What the first namespace waits for, or is known when there was one.
#[derive(Debug)]
struct First {
    is_over: bool,
    /// Releases addresses that may be needed.
    recovery: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Idle {
    namespace: Namespace,
    since: Instant,
}

/// A network namespace and how it is connected.
#[derive(Debug)]
struct Namespace {
    descriptor: OwnedFd,
    attachment: Attachment,
    ledger: Arc<Ledger>,
}

/// A namespace while a step uses it; it goes back when dropped.
#[derive(Debug)]
pub struct Lease {
    pool: Pool,
    namespace: Option<Namespace>,
    again: bool,
}

/// The path of a descriptor of this process, for its children and whoever they tell.
pub(super) fn path_of(descriptor: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", proc::own_pid(), descriptor.as_raw_fd())
}

impl Lease {
    /// Returns the namespace.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.namespace().descriptor.as_fd()
    }

    /// Returns a path of the namespace for programs that are started from here; it is one as long as this lives.
    pub fn path(&self) -> PathBuf {
        path_of(&self.namespace().descriptor).into()
    }

    /// Returns what the network says about resolving names.
    pub fn dns(&self) -> Dns {
        self.namespace().attachment.reply.as_ref().map(|reply| reply.dns.clone()).unwrap_or_default()
    }

    /// The namespace is not to be used again.
    pub fn spoil(&mut self) {
        self.again = false;
    }

    fn namespace(&self) -> &Namespace {
        self.namespace.as_ref().expect("it is there until this is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(namespace) = self.namespace.take() {
            self.pool.put(namespace, self.again);
        }
    }
}

impl Pool {
    /// Makes a pool that is empty; `target` namespaces are made ahead once a step has asked for one. Records are kept below the
    /// state directory `root`. The first namespace is made when `recovery` has ended.
    pub fn new(network: Arc<Network>, target: usize, root: Dir, recovery: Option<JoinHandle<()>>) -> Self {
        let first = tokio::sync::Mutex::new(First { is_over: false, recovery });
        let (state, stop, tasks) = (Mutex::default(), CancellationToken::new(), TaskTracker::new());
        Self(Arc::new(Inner { network, target, idle: IDLE, root, state, first, stop, tasks }))
    }

    /// Returns a namespace for a step; `hostname` is empty where the step has no name of its own, which networks may tell others.
    ///
    /// # Errors
    ///
    /// Those of the plugins.
    pub async fn get(&self, hostname: &str) -> Result<Lease, CniError> {
        let again = hostname.is_empty();
        if again && let Some(namespace) = self.take_idle() {
            tracing::debug!(id = namespace.attachment.id, "using a network namespace again");
            return Ok(Lease { pool: self.clone(), namespace: Some(namespace), again });
        }
        let (answer, made) = tokio::sync::oneshot::channel();
        let (pool, hostname) = (self.clone(), hostname.to_owned());
        self.state().count += 1;
        self.0.tasks.spawn(async move {
            let made = pool.make(&hostname).await;
            let lease = made.map(|namespace| Lease { pool, namespace: Some(namespace), again });
            // What nobody waits for any more goes back.
            drop(answer.send(lease));
        });
        self.fill();
        made.await.map_err(|_| CniError::Canceled)?
    }

    /// Releases what is idle while the build goes on with other things; from now on none are made ahead.
    pub fn drain(&self) {
        let idle = {
            let mut state = self.state();
            state.drained = true;
            std::mem::take(&mut state.idle)
        };
        for idle in idle {
            self.release_later(idle.namespace);
        }
    }

    /// Releases everything, and returns what could not be. No step may run any more.
    pub async fn close(&self) -> Vec<String> {
        self.state().closed = true;
        self.0.stop.cancel();
        self.drain();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        if let Some(recovery) = self.0.first.lock().await.recovery.take() {
            ledger::finish(recovery).await;
        }
        if let Some(bridge) = self.0.network.bridge.as_ref().filter(|_| self.state().ledger.is_some())
            && let Err(error) = bridge::remove_unused(bridge).await
        {
            self.state().problems.push(crate::diag::chain(&error));
        }
        let mut state = self.state();
        state.ledger = None;
        std::mem::take(&mut state.problems)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last is the likeliest to be in the processor's caches.
    fn take_idle(&self) -> Option<Namespace> {
        self.state().idle.pop().map(|idle| idle.namespace)
    }

    fn put(&self, namespace: Namespace, again: bool) {
        let mut state = self.state();
        if state.closed || !again {
            drop(state);
            return self.release_later(namespace);
        }
        state.idle.push(Idle { namespace, since: Instant::now() });
        let too_many = state.count > self.0.target;
        if too_many && !std::mem::replace(&mut state.trimmed, true) {
            let pool = self.clone();
            self.0.tasks.spawn(async move { pool.trim().await });
        }
    }

    fn release_later(&self, namespace: Namespace) {
        self.state().count -= 1;
        let pool = self.clone();
        self.0.tasks.spawn(async move { pool.release(namespace, false).await });
    }

    /// Makes namespaces ahead, one after the other beside the first steps; once.
    fn fill(&self) {
        if self.0.target == 0 || std::mem::replace(&mut self.state().filled, true) {
            return;
        }
        let pool = self.clone();
        self.0.tasks.spawn(async move {
            while pool.wants_one_more() {
                match pool.make("").await {
                    Ok(namespace) => pool.put(namespace, true),
                    // The step that needs one will say so.
                    Err(error) => return tracing::debug!(%error, "no network namespace was made ahead"),
                }
            }
        });
    }

    fn wants_one_more(&self) -> bool {
        let mut state = self.state();
        let wants = !state.closed && !state.drained && state.count < self.0.target;
        state.count += usize::from(wants);
        wants
    }

    /// Releases those beyond the configured number that were idle for long, until there are none or the pool is closed.
    async fn trim(&self) {
        loop {
            let next = self.state().idle.first().map_or_else(Instant::now, |idle| idle.since) + self.0.idle;
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.0.stop.cancelled() => return,
            }
            let mut state = self.state();
            while state.count > self.0.target
                && state.idle.first().is_some_and(|idle| idle.since.elapsed() >= self.0.idle)
            {
                let idle = state.idle.remove(0);
                drop(state);
                self.release_later(idle.namespace);
                state = self.state();
            }
            if state.count <= self.0.target {
                state.trimmed = false;
                return;
            }
        }
    }

    /// Makes a namespace and connects it; it counts already.
    async fn make(&self, hostname: &str) -> Result<Namespace, CniError> {
        let made = self.connect(hostname).await;
        if made.is_err() {
            self.state().count -= 1;
        }
        made
    }

    async fn connect(&self, hostname: &str) -> Result<Namespace, CniError> {
        let mut first = self.0.first.lock().await;
        if first.is_over {
            drop(first);
            let _turn = self.unless_closed(turn::take(false)).await??;
            return self.connect_now(hostname, false).await;
        }
        if let Some(recovery) = &mut first.recovery {
            // What it has to say it has said.
            let _ = self.unless_closed(recovery).await?;
            first.recovery = None;
        }
        let _turn = self.unless_closed(turn::take(true)).await??;
        let failed = |source| CniError::Record { action: "look at the bridge", source };
        let bridge = self.0.network.bridge.as_deref();
        let was_there = bridge.map(bridge::is_there).transpose().map_err(failed)?;
        let namespace = self.connect_now(hostname, was_there == Some(false)).await;
        if let (Some(bridge), Some(false)) = (bridge, was_there)
            && let Err(error) = bridge::mark(bridge)
        {
            self.state().problems.push(format!("the bridge {bridge} will stay, as it could not be marked: {error}"));
        }
        first.is_over = namespace.is_ok();
        namespace
    }

    async fn unless_closed<T>(&self, work: impl Future<Output = T>) -> Result<T, CniError> {
        tokio::select! {
            done = work => Ok(done),
            () = self.0.stop.cancelled() => Err(CniError::Canceled),
        }
    }

    async fn connect_now(&self, hostname: &str, makes_bridge: bool) -> Result<Namespace, CniError> {
        let ledger = self.ledger()?;
        let descriptor = ns::new_network().map_err(|source| CniError::Namespace { source })?;
        let mut attachment = Attachment::new(new_id()?, hostname, Arc::clone(&self.0.network));
        attachment.makes_bridge = makes_bridge;
        let mut namespace = Namespace { descriptor, attachment, ledger };
        let noted = |source| CniError::Record { action: "note down a network namespace", source };
        let ledger = Arc::clone(&namespace.ledger);
        let note = |attachment: &Attachment| ledger.write(attachment).map_err(noted);
        note(&namespace.attachment)?;
        let path = path_of(&namespace.descriptor);
        let added = self.unless_closed(namespace.attachment.add(&path, ledger.alive(), note)).await;
        match added.flatten() {
            Ok(()) => Ok(namespace),
            Err(error) => {
                // A plugin that refuses to connect may as well refuse to take off, which says nothing new.
                let refused =
                    matches!(error, CniError::Plugin { .. } | CniError::Reply { .. } | CniError::Start { .. });
                self.release(namespace, refused).await;
                Err(error)
            }
        }
    }

    /// Takes a namespace off its network; where that fails it stays on record, unless it was never on it.
    async fn release(&self, namespace: Namespace, refused: bool) {
        let Namespace { descriptor, attachment, ledger } = &namespace;
        let mut deleted = attachment.delete(&path_of(descriptor), ledger.alive()).await;
        if let (true, Err(error)) = (refused, &deleted) {
            tracing::debug!(%error, "a network that refused a namespace refuses to let it go");
            deleted = Ok(());
        }
        let forgotten = deleted.and_then(|()| {
            let failed = |source| CniError::Record { action: "remove the note of a network namespace", source };
            ledger.forget(&attachment.id).map_err(failed)
        });
        if let Err(error) = forgotten {
            let text = format!("a network namespace was not taken down: {}", crate::diag::chain(&error));
            self.state().problems.push(text);
        }
    }

    fn ledger(&self) -> Result<Arc<Ledger>, CniError> {
        let mut state = self.state();
        if let Some(ledger) = &state.ledger {
            return Ok(Arc::clone(ledger));
        }
        let failed = |source| CniError::Record { action: "note down network namespaces", source };
        let ledger = Arc::new(Ledger::open(&self.0.root).map_err(failed)?);
        state.ledger = Some(Arc::clone(&ledger));
        Ok(ledger)
    }
}

fn new_id() -> Result<String, CniError> {
    let random: [u8; 8] = crate::sys::random().map_err(|source| CniError::Namespace { source })?;
    Ok(format!("rbuild-{}", hex::encode(random)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::config::NetworkConfig;

    /// A place with a plugin that notes what it is asked, and a pool on it.
    struct Place {
        temp: tempfile::TempDir,
        pool: Pool,
    }

    impl Place {
        fn new(target: usize, idle: Duration) -> Self {
            let temp = tempfile::tempdir().expect("temp dir");
            let script = "#!/bin/sh\ntest -e $CNI_NETNS || exit 1\necho $CNI_COMMAND >> ${0%/*}/calls\necho '{}'\n";
            crate::sys::programs::plant(&temp.path().join("notes"), script);
            let config = NetworkConfig::parse(br#"{"cniVersion":"1.0.0","name":"n","type":"notes"}"#).expect("valid");
            let network = Network { config, dirs: vec![temp.path().into()], bridge: None };
            let pool = Pool::new(Arc::new(network), target, Dir::open(temp.path()).expect("open"), None);
            let mut inner = Arc::into_inner(pool.0).expect("nobody has it yet");
            inner.idle = idle;
            Self { temp, pool: Pool(Arc::new(inner)) }
        }

        fn count(&self, command: &str) -> usize {
            std::fs::read_to_string(self.temp.path().join("calls")).unwrap_or_default().matches(command).count()
        }

        async fn until(&self, command: &str, count: usize) {
            while self.count(command) < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }

        /// Nothing is left but the guard.
        fn is_clean(&self) -> bool {
            let left = std::fs::read_dir(self.temp.path().join("network")).expect("read").count();
            left == 1 && self.count("ADD") == self.count("DEL")
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_comes_back_is_used_again_unless_it_is_spoilt() {
        let place = Place::new(0, IDLE);
        for (spoil, named, added) in [(false, "", 1), (false, "", 1), (true, "", 1), (false, "", 2), (false, "a", 3)] {
            let mut lease = place.pool.get(named).await.expect("a namespace");
            assert!(lease.path().exists());
            if spoil {
                lease.spoil();
            }
            assert_eq!(place.count("ADD"), added);
        }
        assert_eq!(place.pool.close().await, Vec::<String>::new());
        assert!(place.is_clean());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn as_many_are_made_ahead_as_configured() {
        let place = Place::new(3, IDLE);
        let first = place.pool.get("").await.expect("a namespace");
        place.until("ADD", 3).await;
        drop(first);
        place.pool.drain();
        place.until("DEL", 1).await;
        assert_eq!(place.pool.close().await, Vec::<String>::new());
        assert!(place.is_clean() && place.count("ADD") == 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_idle_for_long_goes_down_to_the_configured_number() {
        let place = Place::new(1, Duration::ZERO);
        let leases = [place.pool.get("").await, place.pool.get("").await, place.pool.get("").await];
        drop(leases.map(|lease| lease.expect("a namespace")));
        place.until("DEL", 2).await;
        assert_eq!(place.pool.state().count, 1);
        // One more than that is idle again, and goes again.
        drop([place.pool.get("").await.expect("a namespace"), place.pool.get("").await.expect("a namespace")]);
        place.until("DEL", 3).await;
        assert_eq!(place.pool.close().await, Vec::<String>::new());
        assert!(place.is_clean() && place.count("ADD") == 4);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_step_that_no_longer_waits_leaves_its_namespace_to_the_next() {
        let place = Place::new(0, IDLE);
        let pool = place.pool.clone();
        let waiting = tokio::spawn(async move { pool.get("").await.map(drop) });
        while place.pool.state().count == 0 {
            tokio::task::yield_now().await;
        }
        waiting.abort();
        place.until("ADD", 1).await;
        while place.pool.state().idle.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(place.pool.get("").await.expect("a namespace"));
        assert_eq!(place.pool.close().await, Vec::<String>::new());
        assert!(place.is_clean() && place.count("ADD") == 1);
    }
}
