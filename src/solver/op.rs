//! What the solver asks of an operation.
//!
//! In: an operation's own description of its cache key, the content keys of its inputs, its run. Out: nothing is decided
//! here; the scheduler calls the three verbs of [`Op`] in the order its phases need them.

use std::error::Error;
use std::fmt;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::diag::Diagnose;
use crate::digest::Digest;

/// Why an operation failed; whatever its station says about it.
#[derive(Debug)]
pub struct OpError(Box<dyn Diagnose + Send + Sync>);

impl OpError {
    /// Returns the station's error.
    pub fn inner(&self) -> &(dyn Diagnose + Send + Sync + 'static) {
        &*self.0
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for OpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl<E: Diagnose + Send + Sync + 'static> From<E> for OpError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

/// One of the digests that describe an operation without its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheDigest {
    /// Stands for the same work in every build.
    Stable(Digest),
    /// Stands for this build only; never stored and never looked up.
    Random(Digest),
}

/// How one input enters the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputKey {
    /// Narrows the definition key of the input: the paths that are used.
    pub selector: Option<Digest>,
    /// Whether [`Op::content_key`] gives a key for this input.
    pub content: bool,
}

/// An operation's part of the cache key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMap {
    /// One digest, or several equally good ones for an operation without inputs.
    pub digests: Vec<CacheDigest>,
    /// One entry per input.
    pub inputs: Vec<InputKey>,
}

/// An operation; `R` is what it makes.
pub trait Op<R>: Send + Sync {
    /// Returns its part of the cache key. Called at most once, before anything of it or its inputs runs.
    fn cache_map(&self) -> BoxFuture<'_, Result<CacheMap, OpError>>;

    /// Tells whether it can run here at all. Called when it is certain that it has to, before any of its inputs is made for it.
    ///
    /// # Errors
    ///
    /// What would stop its run.
    fn check(&self) -> Result<(), OpError> {
        Ok(())
    }

    /// Returns the key of the content it uses of an input, or none when that input has no such key.
    ///
    /// Called at most once per input whose [`InputKey::content`] is set, when the input's result is there.
    fn content_key(&self, input: usize, result: R) -> BoxFuture<'_, Result<Option<Digest>, OpError>>;

    /// Runs it and returns one result per output.
    ///
    /// Called at most once, with the results of all inputs. When `cancel` fires it must end what it started and return
    /// soon, with any error; the solver waits for it.
    fn exec(&self, inputs: Vec<R>, cancel: CancellationToken) -> BoxFuture<'_, Result<Vec<R>, OpError>>;

    /// Returns whether its run counts against the number of runs allowed at once; downloads do not.
    fn bounded(&self) -> bool {
        true
    }
}
