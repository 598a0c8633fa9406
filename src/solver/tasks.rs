//! The tasks of a solve: each asks one operation or store one thing and brings back one answer.
//!
//! All stop when the solve is cancelled: questions are dropped, runs are told through their token and waited for.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cache::{CacheError, CacheStore, Need};
use super::node::Hit;
use super::op::{CacheMap, Op, OpError};
use crate::digest::Digest;

/// What a task brings back, with the index of its vertex.
pub(super) enum Answer<R> {
    /// The question was dropped.
    Dropped,
    /// A cache map.
    Mapped(usize, Result<CacheMap, OpError>),
    /// The content key of an input.
    Content(usize, usize, Result<Option<Digest>, OpError>),
    /// Results out of caches.
    Loaded(usize, Loaded<R>),
    /// Results of a run.
    Ran(usize, Result<Vec<R>, OpError>),
}

/// How loading went.
pub(super) enum Loaded<R> {
    /// The results by output.
    All(BTreeMap<usize, R>),
    /// The first that could not be loaded.
    Failed(Hit, CacheError),
    /// The solve was cancelled.
    Canceled,
}

/// A result to load: for which output, from where, what.
pub(super) type Wanted<R> = (usize, Arc<dyn CacheStore<R>>, Hit);

/// The tasks under way.
pub(super) struct Tasks<R> {
    set: JoinSet<Answer<R>>,
    cancel: CancellationToken,
}

impl<R: Clone + Send + Sync + 'static> Tasks<R> {
    /// Starts with none; they stop when `parent` is cancelled.
    pub(super) fn new(parent: &CancellationToken) -> Self {
        Self { set: JoinSet::new(), cancel: parent.child_token() }
    }

    /// Stops all.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Waits for an answer; none when no task is left. A panic of an operation goes on here.
    pub(super) async fn next(&mut self) -> Option<Answer<R>> {
        match self.set.join_next().await? {
            Ok(answer) => Some(answer),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Some(Answer::Dropped),
            },
        }
    }

    /// Asks for a cache map.
    pub(super) fn map(&mut self, v: usize, op: &Arc<dyn Op<R>>) {
        let op = op.clone();
        self.ask(async move { Answer::Mapped(v, op.cache_map().await) }, Answer::Dropped);
    }

    /// Asks for the content key of an input.
    pub(super) fn content(&mut self, v: usize, input: usize, op: &Arc<dyn Op<R>>, value: R) {
        let op = op.clone();
        self.ask(async move { Answer::Content(v, input, op.content_key(input, value).await) }, Answer::Dropped);
    }

    /// Asks stores for results.
    pub(super) fn load(&mut self, v: usize, wanted: Vec<Wanted<R>>, need: Need) {
        self.ask(async move { Answer::Loaded(v, load_all(wanted, need).await) }, Answer::Loaded(v, Loaded::Canceled));
    }

    /// Runs an operation.
    pub(super) fn run(&mut self, v: usize, op: &Arc<dyn Op<R>>, inputs: Vec<R>) {
        let (op, cancel) = (op.clone(), self.cancel.clone());
        self.set.spawn(async move { Answer::Ran(v, op.exec(inputs, cancel).await) });
    }

    fn ask(&mut self, question: impl Future<Output = Answer<R>> + Send + 'static, dropped: Answer<R>) {
        let cancel = self.cancel.clone();
        self.set.spawn(async move { cancel.run_until_cancelled(question).await.unwrap_or(dropped) });
    }
}

async fn load_all<R>(wanted: Vec<Wanted<R>>, need: Need) -> Loaded<R> {
    let mut values = BTreeMap::new();
    for (output, store, hit) in wanted {
        match store.load(&hit.item, &hit.result, need).await {
            Ok(value) => values.insert(output, value),
            Err(error) => return Loaded::Failed(hit, error),
        };
    }
    Loaded::All(values)
}
