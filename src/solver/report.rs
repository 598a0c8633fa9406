//! What is told about a solve: to an observer while it goes on, and as a record at its end.
//!
//! No clock is read here: an observer takes the time itself when it is called.

use std::sync::Arc;

use super::cache::{CacheError, ItemId};
use super::export::Exported;
use super::op::OpError;
use crate::diag::{Diagnose, Kind, Location};
use crate::digest::Digest;

/// How a vertex ended, as an observer is told.
#[derive(Debug, Clone, Copy)]
pub enum Completion<'a> {
    /// A cache had its result, or the result of what needed it.
    Cached,
    /// It ran.
    Ran,
    /// It failed, and thereby the solve.
    Failed(&'a SolveError),
    /// It was stopped because another failed or the caller asked.
    Canceled,
}

/// Told of every vertex; must not block.
///
/// A vertex may be completed as cached and start later all the same: when its result turns out to be needed after all. The
/// newest news is the valid one.
pub trait Observer: Send + Sync {
    /// Called when a vertex begins to run; loading a cached result is no run.
    fn started(&self, vertex: &Digest);

    /// Called when a vertex is done; a cached one that nobody evaluated was never started.
    fn completed(&self, vertex: &Digest, completion: Completion<'_>);

    /// Called when a cache could not help or not be written; the solve goes on.
    fn notice(&self, error: &CacheError);
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn started(&self, _vertex: &Digest) {}
    fn completed(&self, _vertex: &Digest, _completion: Completion<'_>) {}
    fn notice(&self, _error: &CacheError) {}
}

/// Why a solve gave no results.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SolveError {
    /// A vertex failed.
    #[error("failed to solve step {name:?}")]
    Vertex {
        /// Its digest.
        vertex: Digest,
        /// Its name.
        name: String,
        /// What its operation says.
        #[source]
        source: Arc<OpError>,
    },
    /// An operation broke the rules of its trait.
    #[error("step {name:?} {what}")]
    Contract {
        /// Digest of the vertex.
        vertex: Digest,
        /// Its name.
        name: String,
        /// What it did: `returned 1 results, output 2 is needed`.
        what: String,
    },
    /// A target is not in the graph.
    #[error("target {vertex} is not in the graph")]
    UnknownTarget {
        /// Its digest.
        vertex: Digest,
    },
    /// The caller asked to stop.
    #[error("the build was canceled")]
    Canceled,
}

impl SolveError {
    /// Returns the digest of the vertex that failed, if one did.
    pub fn vertex(&self) -> Option<&Digest> {
        match self {
            SolveError::Vertex { vertex, .. } | SolveError::Contract { vertex, .. } => Some(vertex),
            SolveError::UnknownTarget { .. } | SolveError::Canceled => None,
        }
    }
}

impl Diagnose for SolveError {
    fn kind(&self) -> Kind {
        match self {
            SolveError::Vertex { source, .. } => source.inner().kind(),
            _ => Kind::Build,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            SolveError::Vertex { source, .. } => source.inner().hints(),
            _ => Vec::new(),
        }
    }

    fn locations(&self) -> Vec<Location> {
        match self {
            SolveError::Vertex { source, .. } => source.inner().locations(),
            _ => Vec::new(),
        }
    }
}

/// How a vertex ended, as the record at the end says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It ran.
    Ran,
    /// A cache had its result, which was loaded.
    Cached,
    /// Nobody needed its result: what depends on it came from a cache.
    Covered,
    /// It failed.
    Failed,
    /// It was stopped.
    Canceled,
    /// The solve ended before it was its turn.
    NotReached,
}

/// The cache's part in one output of a vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputReport {
    /// Which output.
    pub output: usize,
    /// Its record digests: none for random keys and for what was not looked at.
    pub records: Vec<Digest>,
    /// The store and item that matched.
    pub matched: Option<(String, ItemId)>,
    /// Its items in the first store.
    pub items: Vec<ItemId>,
}

/// What happened to one vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VertexReport {
    /// The vertex.
    pub vertex: Digest,
    /// Its name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Its outputs that something depends on.
    pub outputs: Vec<OutputReport>,
}

/// What a solve gives.
#[derive(Debug)]
pub struct Solution<R> {
    /// One result per target, or why there are none.
    pub results: Result<Vec<R>, SolveError>,
    /// What happened to each vertex the targets depend on, each after its inputs.
    pub vertices: Vec<VertexReport>,
    /// The records to export, where they were asked for; those of what finished, when the solve failed.
    pub records: Exported<R>,
    /// How many moves of vertices it took: a measure of work that does not depend on the machine.
    pub moves: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no such file")]
    struct Missing;

    impl Diagnose for Missing {
        fn kind(&self) -> Kind {
            Kind::Dockerfile
        }
        fn hints(&self) -> Vec<String> {
            vec!["look".into()]
        }
    }

    #[test]
    fn a_failed_vertex_speaks_for_its_operation() {
        let source = Arc::new(OpError::from(Missing));
        let error = SolveError::Vertex { vertex: Digest::compute(b""), name: "COPY a b".into(), source };
        assert_eq!(crate::diag::chain(&error), "failed to solve step \"COPY a b\": no such file");
        assert_eq!(error.kind(), Kind::Dockerfile);
        assert_eq!(error.hints(), ["look"]);
    }
}
