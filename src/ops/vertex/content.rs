//! Content keys: what of an input an op looks at, hashed.

use crate::checksum::{self, ChecksumError, Ids, Selector, content_digest, scratch_digest};
use crate::digest::Digest;
use crate::ops::{OpsError, Tree, Worker};
use crate::solver::OpError;
use crate::source::local::Context;

/// Returns the content key of an input over what an op uses of it; none where the op has no such key.
pub(super) fn content_of(
    worker: &Worker,
    tree: &Tree,
    selectors: Option<&[Selector]>,
) -> Result<Option<Digest>, OpError> {
    let Some(selectors) = selectors else { return Ok(None) };
    let digest = match tree {
        Tree::Context(context) => {
            content_digest(&context.tree(), selectors).map_err(|error| missing(context, error))?
        }
        Tree::Layers(chain) if chain.is_empty() => scratch_digest(selectors)?,
        Tree::Lazy(_) => return Err(OpsError::NotFetched.into()),
        Tree::Layers(chain) => {
            let view = worker.snapshots.view(chain)?;
            content_digest(&checksum::Tree::new(view.dir(), None, Ids::Keep), selectors)?
        }
    };
    Ok(Some(digest))
}

/// A path that is not in the context may be there and hidden by a rule, which is what the user must know.
pub(super) fn missing(context: &Context, error: ChecksumError) -> OpError {
    match error {
        ChecksumError::NotFound { path } => context.missing(&path).into(),
        other => other.into(),
    }
}
