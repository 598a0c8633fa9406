//! LLB vertices as the solver's ops.

mod content;
mod devices;
mod exec;
mod file;
mod merge;
mod source;

pub(super) use file::copy_tree;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::image::Platform;
use crate::llb::{OpKind, Vertex};
use crate::ops::{OpsError, Tree, Worker, keys};
use crate::solver::{Op, OpError};

/// Makes the solver's op of a vertex.
///
/// # Errors
///
/// When the vertex asks for something this version cannot do.
pub fn op_of(
    worker: &Arc<Worker>,
    vertex: &Vertex,
    default_platform: &Platform,
) -> Result<Arc<dyn Op<Tree>>, OpsError> {
    let worker = Arc::clone(worker);
    let platform = vertex.op.platform.clone().unwrap_or_else(|| default_platform.clone()).normalized();
    let name = vertex.metadata.description.get("llb.customname").cloned().unwrap_or_default();
    let inputs = vertex.op.inputs.len();
    let digest = vertex.digest.clone();
    Ok(match &vertex.op.kind {
        Some(OpKind::Exec(op)) => {
            // Here, and not when it runs: what is in the cache needs it too, and nothing runs in vain before it.
            worker.executor.allows(op.network, op.security)?;
            // The key names the devices that are given, as BuildKit's does.
            let mut op = (**op).clone();
            let granted = worker.devices.granted(&op.cdi_devices)?;
            op.cdi_devices = granted.devices;
            let key = keys::exec(&op, &platform, inputs);
            let resources = vertex.metadata.resources.clone();
            Arc::new(exec::ExecVertex { worker, digest, name, op, key, resources, missing: granted.missing })
        }
        Some(OpKind::File(op)) => Arc::new(file::FileVertex::new(worker, digest, name, op.clone(), inputs)),
        Some(OpKind::Source(op)) => source::op_of(worker, digest, op, platform)?,
        Some(OpKind::Merge(op)) => Arc::new(merge::MergeVertex { worker, op: op.clone() }),
        Some(OpKind::Diff(op)) => Arc::new(merge::DiffVertex { worker, digest, name, op: op.clone() }),
        None => return Err(OpsError::Invalid { reason: "it has no kind".into() }),
    })
}

/// Runs blocking work on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, OpError> + Send + 'static) -> Result<T, OpError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(OpsError::Thread(error).into()),
    }
}

/// Runs blocking work until the solve is cancelled. Then nobody waits for its thread, which may be in the middle of a large file:
/// what it writes is in the scratch folder, which the next build removes if it is still there.
async fn blocking_until<T: Send + 'static>(
    cancel: CancellationToken,
    work: impl FnOnce() -> Result<T, OpError> + Send + 'static,
) -> Result<T, OpError> {
    cancel.run_until_cancelled(blocking(work)).await.unwrap_or_else(|| Err(OpsError::Canceled.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_work_that_is_cancelled() {
        let (cancel, (go_on, wait)) = (CancellationToken::new(), std::sync::mpsc::channel::<()>());
        let work = tokio::spawn(blocking_until(cancel.clone(), move || Ok(wait.recv().is_ok())));
        cancel.cancel();
        let outcome = work.await.expect("task");
        assert_eq!(outcome.expect_err("cancelled").to_string(), "canceled");
        drop(go_on);
        assert!(blocking_until(CancellationToken::new(), || Ok(true)).await.expect("work"));
    }
}
