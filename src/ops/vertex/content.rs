//! Content keys: what of an input an op looks at, hashed.

use crate::checksum::{self, ChecksumError, Ids, Selector, content_digest, files_of, scratch_digest};
use crate::digest::Digest;
use crate::ops::{ListFiles, OpsError, Tree, Worker};
use crate::solver::OpError;
use crate::source::local::Context;

/// Returns the content key of an input over what an op uses of it; none where the op has no such key. Of an input of a step,
/// the witness is told.
pub(super) fn content_of(
    worker: &Worker,
    tree: &Tree,
    selectors: Option<&[Selector]>,
    step: Option<(&Digest, usize)>,
) -> Result<Option<Digest>, OpError> {
    let Some(selectors) = selectors else { return Ok(None) };
    let digest = match tree {
        Tree::Context(context) => {
            let tree = context.tree();
            let digest = content_digest(&tree, selectors).map_err(|error| missing(context, error))?;
            tell(worker, step, &digest, (selectors, Some(&tree)));
            digest
        }
        Tree::Layers(chain) if chain.is_empty() => {
            let digest = scratch_digest(selectors)?;
            tell(worker, step, &digest, (selectors, None));
            digest
        }
        Tree::Lazy(_) => return Err(OpsError::NotFetched.into()),
        Tree::Layers(chain) => {
            let view = worker.snapshots.view(chain)?;
            let tree = checksum::Tree::new(view.dir(), None, Ids::Keep);
            let digest = content_digest(&tree, selectors)?;
            tell(worker, step, &digest, (selectors, Some(&tree)));
            digest
        }
    };
    Ok(Some(digest))
}

fn tell(
    worker: &Worker,
    step: Option<(&Digest, usize)>,
    digest: &Digest,
    (selectors, tree): (&[Selector], Option<&checksum::Tree<'_>>),
) {
    if let (Some(witness), Some(step)) = (&worker.witness, step) {
        let files: &ListFiles<'_> = &|each| tree.map_or(Ok(()), |tree| files_of(tree, selectors, each));
        witness.content(step, digest, selectors, files);
    }
}

/// A path that is not in the context may be there and hidden by a rule, which is what the user must know.
pub(super) fn missing(context: &Context, error: ChecksumError) -> OpError {
    match error {
        ChecksumError::NotFound { path } => context.missing(&path).into(),
        other => other.into(),
    }
}
