//! FROM, contexts and remote ADD: source ops as images that are pulled, directories that are read where they lie, files of web
//! servers and trees of git repositories.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::blocking_until;
use crate::digest::Digest;
use crate::image::Platform;
use crate::llb::SourceOp;
use crate::ops::keys::{self, GitKey, HeaderField, HttpKey, ImageKey, LocalKey};
use crate::ops::{OpsError, Tree, Worker};
use crate::progress::{Event, Log, Status, Stream};
use crate::solver::{CacheMap, Op, OpError};
use crate::source::git::{self, GitSpec};
use crate::source::http::HttpSpec;
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
            let follow = op.attrs.get("local.followpaths").map(|list| serde_json::from_str(list));
            let invalid =
                |error: serde_json::Error| OpsError::Invalid { reason: format!("local.followpaths: {error}") };
            let paths = follow.transpose().map_err(invalid)?.unwrap_or_default();
            Ok(Arc::new(LocalVertex { worker, digest, name: rest.to_owned(), context, paths }))
        }
        "git" => {
            let spec = GitSpec::from_op(op).map_err(|error| OpsError::Git(Box::new(error)))?;
            Ok(Arc::new(GitVertex { worker, digest, spec }))
        }
        "http" | "https" => {
            let spec = HttpSpec::from_op(op).map_err(|error| OpsError::Http(Box::new(error)))?;
            Ok(Arc::new(HttpVertex { worker, digest, spec }))
        }
        other => Err(OpsError::Unsupported { what: format!("a source of scheme {other:?}") }),
    }
}

/// An image of a registry or an OCI layout.
struct ImageVertex {
    worker: Arc<Worker>,
    digest: Digest,
    image: ResolvedImage,
    layout: Option<Arc<OciLayout>>,
    platform: Platform,
}

impl ImageVertex {
    /// Tells which image it is, as BuildKit does where it asks for it; here that was done before.
    fn tell_what(&self) {
        let reference =
            crate::image::Reference { digest: Some(self.image.digest.clone()), ..self.image.reference.clone() };
        let (id, now) = (format!("resolve {reference}"), SystemTime::now());
        self.worker.sink.send(Event::Status(Status::over(self.digest.clone(), id, 0, (now, now))));
    }
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
            self.tell_what();
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
    worker: Arc<Worker>,
    digest: Digest,
    name: String,
    context: Arc<Context>,
    /// What of it the build uses; all if empty.
    paths: Vec<String>,
}

impl LocalVertex {
    /// Tells how much of the context the build reads; nothing is transferred. Its directories are read for that, which the
    /// steps that use it would do next.
    fn tell_size(worker: &Worker, digest: Digest, name: &str, (context, paths): (&Context, &[String])) {
        let started = SystemTime::now();
        // What cannot be read is told of by the step that needs it.
        let Ok(bytes) = context.tree().size_of(paths) else { return };
        let (id, times) = (format!("transferring {name}:"), (started, SystemTime::now()));
        worker.sink.send(Event::Status(Status::over(digest, id, bytes, times)));
    }
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

    fn exec(&self, _inputs: Vec<Tree>, cancel: CancellationToken) -> BoxFuture<'_, Result<Vec<Tree>, OpError>> {
        let (worker, digest, name) = (Arc::clone(&self.worker), self.digest.clone(), self.name.clone());
        let (context, paths) = (Arc::clone(&self.context), self.paths.clone());
        Box::pin(blocking_until(cancel, move || {
            Self::tell_size(&worker, digest, &name, (&context, &paths));
            Ok(vec![Tree::Context(context)])
        }))
    }

    fn bounded(&self) -> bool {
        false
    }
}

/// A file of a web server.
struct HttpVertex {
    worker: Arc<Worker>,
    digest: Digest,
    spec: HttpSpec,
}

impl Op<Tree> for HttpVertex {
    fn cache_map(&self) -> BoxFuture<'_, Result<CacheMap, OpError>> {
        Box::pin(async {
            let spec = &self.spec;
            let resolved = self.worker.http.resolve(spec).await?;
            self.worker.resolved(&self.digest, || format!("{} {}", resolved.digest, resolved.last_modified_text()));
            let header: Vec<HeaderField<'_>> =
                spec.header.iter().map(|(name, value)| HeaderField { name, value }).collect();
            let digest = keys::http(&HttpKey {
                filename: &resolved.filename,
                perm: spec.perm,
                uid: spec.uid,
                gid: spec.gid,
                checksum: &resolved.digest,
                last_mod_time: &resolved.last_modified_text(),
                auth_header_secret: &spec.auth_header_secret,
                header: &header,
            });
            Ok(CacheMap { digests: vec![digest], inputs: Vec::new() })
        })
    }

    fn content_key(&self, _input: usize, _result: Tree) -> BoxFuture<'_, Result<Option<Digest>, OpError>> {
        Box::pin(async { Ok(None) })
    }

    fn exec(&self, _inputs: Vec<Tree>, cancel: CancellationToken) -> BoxFuture<'_, Result<Vec<Tree>, OpError>> {
        Box::pin(async move {
            tokio::select! {
                fetched = self.worker.http.fetch(&self.spec) => {
                    let chain = fetched?.chain;
                    self.worker.made(&self.digest, &chain);
                    Ok(vec![Tree::Layers(chain)])
                }
                () = cancel.cancelled() => Err(OpsError::Canceled.into()),
            }
        })
    }

    fn bounded(&self) -> bool {
        false
    }
}

/// A tree of a git repository.
struct GitVertex {
    worker: Arc<Worker>,
    digest: Digest,
    spec: GitSpec,
}

impl GitVertex {
    /// Passes git's words on as output of the step.
    fn log(&self) -> git::Log {
        let (sink, vertex) = (Arc::clone(&self.worker.sink), self.digest.clone());
        Arc::new(move |data| {
            let (vertex, data, timestamp) = (vertex.clone(), data.to_vec(), SystemTime::now());
            sink.send(Event::Log(Log { vertex, stream: Stream::Stderr, data, timestamp }));
        })
    }
}

impl Op<Tree> for GitVertex {
    fn cache_map(&self) -> BoxFuture<'_, Result<CacheMap, OpError>> {
        Box::pin(async {
            let spec = &self.spec;
            let resolved = self.worker.git.resolve(spec, &self.log()).await?;
            self.worker.resolved(&self.digest, || resolved.key_sha(spec).to_owned());
            let digest = keys::git(&GitKey {
                commit: resolved.key_sha(spec),
                keep_git_dir: spec.keep_git_dir,
                reference: &resolved.reference,
                subdir: &spec.subdir,
                skip_submodules: spec.skip_submodules,
                mtime: &spec.mtime,
                bundle: false,
            });
            Ok(CacheMap { digests: vec![digest], inputs: Vec::new() })
        })
    }

    fn content_key(&self, _input: usize, _result: Tree) -> BoxFuture<'_, Result<Option<Digest>, OpError>> {
        Box::pin(async { Ok(None) })
    }

    fn exec(&self, _inputs: Vec<Tree>, cancel: CancellationToken) -> BoxFuture<'_, Result<Vec<Tree>, OpError>> {
        Box::pin(async move {
            let log = self.log();
            tokio::select! {
                chain = self.worker.git.fetch(&self.spec, &log) => {
                    let chain = chain?;
                    self.worker.made(&self.digest, &chain);
                    Ok(vec![Tree::Layers(chain)])
                }
                () = cancel.cancelled() => Err(OpsError::Canceled.into()),
            }
        })
    }

    fn bounded(&self) -> bool {
        false
    }
}
