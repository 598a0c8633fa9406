//! COPY --link and what other frontends make of it: trees on top of each other, and what makes one tree of another.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::blocking_until;
use crate::digest::Digest;
use crate::llb::{DiffOp, MergeOp};
use crate::ops::keys;
use crate::ops::{OpsError, Tree, Worker};
use crate::snapshot::Chain;
use crate::solver::{CacheMap, Op, OpError};

/// A merge op of the graph.
pub(super) struct MergeVertex {
    pub(super) worker: Arc<Worker>,
    pub(super) op: MergeOp,
}

impl Op<Tree> for MergeVertex {
    fn cache_map(&self) -> BoxFuture<'_, Result<CacheMap, OpError>> {
        Box::pin(async { Ok(keys::merge(&self.op).map) })
    }

    fn content_key(&self, _input: usize, _result: Tree) -> BoxFuture<'_, Result<Option<Digest>, OpError>> {
        Box::pin(async { Ok(None) })
    }

    fn exec(&self, inputs: Vec<Tree>, cancel: CancellationToken) -> BoxFuture<'_, Result<Vec<Tree>, OpError>> {
        let (worker, op) = (Arc::clone(&self.worker), self.op.clone());
        Box::pin(blocking_until(cancel, move || {
            let mut chains = Vec::new();
            for index in &op.inputs {
                chains.push(layers_of(&worker, &inputs, *index, "a merge")?);
            }
            Ok(vec![Tree::Layers(Chain::merge(&chains))])
        }))
    }
}

/// A diff op of the graph.
pub(super) struct DiffVertex {
    pub(super) worker: Arc<Worker>,
    pub(super) digest: Digest,
    pub(super) name: String,
    pub(super) op: DiffOp,
}

impl Op<Tree> for DiffVertex {
    fn cache_map(&self) -> BoxFuture<'_, Result<CacheMap, OpError>> {
        Box::pin(async { Ok(keys::diff(&self.op).map) })
    }

    fn content_key(&self, _input: usize, _result: Tree) -> BoxFuture<'_, Result<Option<Digest>, OpError>> {
        Box::pin(async { Ok(None) })
    }

    fn exec(&self, inputs: Vec<Tree>, cancel: CancellationToken) -> BoxFuture<'_, Result<Vec<Tree>, OpError>> {
        let (worker, op) = (Arc::clone(&self.worker), self.op.clone());
        let (digest, name) = (self.digest.clone(), self.name.clone());
        Box::pin(blocking_until(cancel, move || {
            let lower = layers_of(&worker, &inputs, op.lower, "a diff")?;
            let upper = layers_of(&worker, &inputs, op.upper, "a diff")?;
            let chain = worker.snapshots.diff(&lower, &upper, &name)?;
            // Layers that were there before are those of the steps that made them.
            if upper.above(&lower).is_none() {
                worker.made(&digest, &chain);
            }
            Ok(vec![Tree::Layers(chain)])
        }))
    }
}

/// Returns an input as layers; a negative number stands for the empty tree.
fn layers_of(worker: &Worker, inputs: &[Tree], index: i64, what: &str) -> Result<Chain, OpError> {
    if index < 0 {
        return Ok(Chain::empty());
    }
    let input = usize::try_from(index).ok().and_then(|at| inputs.get(at));
    let wrong = || OpsError::Invalid { reason: format!("{what} names an input it does not have") };
    worker.layers_of(input.ok_or_else(wrong)?)
}
