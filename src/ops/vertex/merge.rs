//! COPY --link: trees on top of each other, without copying.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::blocking;
use crate::digest::Digest;
use crate::llb::MergeOp;
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

    fn exec(&self, inputs: Vec<Tree>, _cancel: CancellationToken) -> BoxFuture<'_, Result<Vec<Tree>, OpError>> {
        let (worker, op) = (Arc::clone(&self.worker), self.op.clone());
        Box::pin(blocking(move || {
            let mut chains = Vec::new();
            for index in &op.inputs {
                let input = usize::try_from(*index).ok().and_then(|at| inputs.get(at));
                let wrong = || OpsError::Invalid { reason: "a merge names an input it does not have".into() };
                chains.push(worker.layers_of(input.ok_or_else(wrong)?)?);
            }
            Ok(vec![Tree::Layers(Chain::merge(&chains))])
        }))
    }
}
