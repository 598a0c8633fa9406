//! FROM and contexts: source ops as images that are pulled, and directories that are read where they lie.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::digest::Digest;
use crate::image::Platform;
use crate::llb::SourceOp;
use crate::ops::keys::{self, ImageKey, LocalKey};
use crate::ops::{OpsError, Tree, Worker};
use crate::solver::{CacheMap, Op, OpError};
use crate::source::local::Context;
use crate::source::{OciLayout, Reporter, ResolvedImage};

/// Makes the op of a source.
pub(super) fn op_of(
    worker: Arc<Worker>,
    digest: Digest,
    op: &SourceOp,
    platform: Platform,
) -> Result<Arc<dyn Op<Tree>>, OpsError> {
    let (scheme, rest) = op.identifier.split_once("://").unwrap_or((op.identifier.as_str(), ""));
    let unresolved = || OpsError::Invalid { reason: format!("{} was not resolved", op.identifier) };
    match scheme {
        "docker-image" | "oci-layout" => {
            let image =
                worker.resolved.get(&(op.identifier.clone(), platform.clone())).cloned().ok_or_else(unresolved)?;
            let store = op.attrs.get("oci.store").map_or("", String::as_str);
            let layout = worker.layouts.get(store).filter(|_| scheme == "oci-layout").cloned();
            Ok(Arc::new(ImageVertex { worker, digest, image, layout, platform }))
        }
        "local" => {
            let context = worker.contexts.get(rest).cloned().ok_or_else(unresolved)?;
            Ok(Arc::new(LocalVertex { name: rest.to_owned(), context }))
        }
        "git" => Err(OpsError::Unsupported { what: format!("a git source ({})", shown(rest)) }),
        "http" | "https" => Err(OpsError::Unsupported { what: format!("an http source ({})", shown(&op.identifier)) }),
        other => Err(OpsError::Unsupported { what: format!("a source of scheme {other:?}") }),
    }
}

/// A URL without what stands before the `@`, which may be a password, or after the `?`, which may be a token.
fn shown(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let url = url.split('?').next().unwrap_or_default();
    let authority = url[start..].split('/').next().unwrap_or_default();
    &url[authority.rfind('@').map_or(0, |at| start + at + 1)..]
}

/// An image of a registry or an OCI layout.
struct ImageVertex {
    worker: Arc<Worker>,
    digest: Digest,
    image: ResolvedImage,
    layout: Option<Arc<OciLayout>>,
    platform: Platform,
}

impl Op<Tree> for ImageVertex {
    fn cache_map(&self) -> BoxFuture<'_, Result<CacheMap, OpError>> {
        Box::pin(async {
            let digests = keys::image(&ImageKey {
                digest: &self.image.digest,
                platform: &self.platform,
                layer_limit: 0,
                config: &self.image.config_bytes,
            });
            Ok(CacheMap { digests, inputs: Vec::new() })
        })
    }

    fn content_key(&self, _input: usize, _result: Tree) -> BoxFuture<'_, Result<Option<Digest>, OpError>> {
        Box::pin(async { Ok(None) })
    }

    fn exec(&self, _inputs: Vec<Tree>, cancel: CancellationToken) -> BoxFuture<'_, Result<Vec<Tree>, OpError>> {
        Box::pin(async move {
            let reporter = Reporter { sink: Arc::clone(&self.worker.sink), vertex: self.digest.clone() };
            let pull = async {
                match &self.layout {
                    Some(layout) => {
                        layout.pull(&self.worker.store, &self.worker.snapshots, &self.image, &reporter).await
                    }
                    None => self.worker.images.pull(&self.image, &reporter).await,
                }
            };
            tokio::select! {
                chain = pull => Ok(vec![Tree::Layers(chain?)]),
                () = cancel.cancelled() => Err(OpsError::Canceled.into()),
            }
        })
    }

    fn bounded(&self) -> bool {
        false
    }
}

/// A directory of the caller's.
struct LocalVertex {
    name: String,
    context: Arc<Context>,
}

impl Op<Tree> for LocalVertex {
    fn cache_map(&self) -> BoxFuture<'_, Result<CacheMap, OpError>> {
        Box::pin(async {
            let key =
                LocalKey { session_id: "rbuild", include_patterns: None, exclude_patterns: None, follow_paths: None };
            Ok(CacheMap { digests: vec![keys::local(&self.name, &key)], inputs: Vec::new() })
        })
    }

    fn content_key(&self, _input: usize, _result: Tree) -> BoxFuture<'_, Result<Option<Digest>, OpError>> {
        Box::pin(async { Ok(None) })
    }

    fn exec(&self, _inputs: Vec<Tree>, _cancel: CancellationToken) -> BoxFuture<'_, Result<Vec<Tree>, OpError>> {
        Box::pin(async { Ok(vec![Tree::Context(Arc::clone(&self.context))]) })
    }

    fn bounded(&self) -> bool {
        false
    }
}
