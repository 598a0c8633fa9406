//! Answers the frontend's questions: image configs from registries and layouts, ignore files from contexts, times of remote sources.
//!
//! Every image is resolved once a build, however often it is asked for, and what was resolved is kept for the ops.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::OnceCell;

use super::setup::Stations;
use super::sources::Sources;
use super::steps::{Step, Steps};
use crate::diag::{Diagnostic, Kind};
use crate::frontend::{Answer, Bridge, BridgeError, ResolveMode, ResolvedImage};
use crate::image::{Platform, Reference};
use crate::layer::archive;
use crate::llb::SourceOp;
use crate::source::git::{GitError, GitSpec};
use crate::source::http::{HttpError, HttpSpec};
use crate::source::local::{Context, MAX_FILE};
use crate::source::{self, ImageSource, OciLayout};

type Cell = Arc<OnceCell<source::ResolvedImage>>;

/// An ignore file's name and text.
pub(super) type IgnoreFile = (String, Vec<u8>);

/// The driver's bridge.
pub(super) struct DriverBridge {
    pub(super) steps: Steps,
    pub(super) images: ImageSource,
    pub(super) layouts: BTreeMap<String, Arc<OciLayout>>,
    pub(super) contexts: BTreeMap<String, Arc<Context>>,
    /// The ignore file beside the Dockerfile that is for it alone.
    pub(super) own_ignore: Option<IgnoreFile>,
    pub(super) sources: Sources,
    pub(super) stations: Arc<Stations>,
    pub(super) resolved: Mutex<BTreeMap<(String, Platform), Cell>>,
}

impl fmt::Debug for DriverBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverBridge").finish_non_exhaustive()
    }
}

impl DriverBridge {
    /// Returns what was resolved: by source identifier and platform.
    pub(super) fn resolved(&self) -> BTreeMap<(String, Platform), source::ResolvedImage> {
        let cells = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = BTreeMap::new();
        for ((name, platform), cell) in &*cells {
            let (Some(image), platform) = (cell.get(), platform.clone().normalized()) else { continue };
            // Steps name an image by its digest, contexts of `docker-image://` as it was written.
            let bare = name.split_once('@').map_or(name.as_str(), |(bare, _)| bare);
            let identifier = format!("{bare}@{}", image.digest);
            found.insert((identifier, platform.clone()), image.clone());
            found.insert((name.clone(), platform), image.clone());
        }
        found
    }

    fn cell(&self, scheme: &str, reference: &Reference, platform: &Platform) -> Cell {
        // With the digest, if it has one: a name may be pinned to several in one build.
        let name = format!("{scheme}://{reference}");
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(resolved.entry((name, platform.clone())).or_default())
    }
}

impl Bridge for DriverBridge {
    fn resolve_image<'a>(
        &'a self,
        reference: &'a Reference,
        platform: &'a Platform,
        _mode: ResolveMode,
    ) -> Answer<'a, ResolvedImage> {
        Box::pin(async move {
            let cell = self.cell("docker-image", reference, platform);
            let name = format!("[internal] load metadata for {reference}");
            let resolved =
                async |_| self.images.resolve(reference, platform).await.map_err(|e| BridgeError::from_error(&e));
            let image = cell.get_or_try_init(|| self.steps.run(&name, resolved)).await?;
            Ok(ResolvedImage { digest: image.digest.clone(), config: image.config_bytes.to_vec() })
        })
    }

    fn resolve_oci_layout<'a>(
        &'a self,
        store: &'a str,
        reference: &'a Reference,
        platform: &'a Platform,
    ) -> Answer<'a, ResolvedImage> {
        Box::pin(async move {
            let unknown = || BridgeError {
                kind: Kind::Usage,
                message: format!("unknown OCI layout {store:?}"),
                hints: Vec::new(),
            };
            let layout = self.layouts.get(store).ok_or_else(unknown)?;
            let cell = self.cell("oci-layout", reference, platform);
            let context = Reference { digest: None, ..reference.clone() }.familiar();
            let name = format!("[context {context}] load metadata for {reference}");
            let resolved = async |_| layout.resolve(reference, platform).await.map_err(|e| BridgeError::from_error(&e));
            let image = cell.get_or_try_init(|| self.steps.run(&name, resolved)).await?;
            Ok(ResolvedImage { digest: image.digest.clone(), config: image.config_bytes.to_vec() })
        })
    }

    fn read_ignore<'a>(&'a self, local: &'a str, names: &'a [String]) -> Answer<'a, Option<(String, Vec<u8>)>> {
        Box::pin(async move {
            if local == "dockerfile" {
                return Ok(self.own_ignore.clone().filter(|(name, _)| names.contains(name)));
            }
            let Some(context) = self.contexts.get(local) else { return Ok(None) };
            let title = match local {
                "context" => format!("[internal] load {}", names.join(" or ")),
                named => format!("[context {named}] load {}", names.join(" or ")),
            };
            self.steps.run(&title, async |step| read_first(context, names, local, &step)).await
        })
    }

    fn source_time<'a>(&'a self, source: &'a SourceOp) -> Answer<'a, Option<i64>> {
        Box::pin(async move {
            let name = format!("[internal] load time of {}", super::graph::shown_identifier(&source.identifier));
            let git = source.identifier.starts_with("git://");
            self.steps
                .run(&name, async |step| match git {
                    true => self.commit_time(source, &step).await.map(Some),
                    false => self.file_time(source).await,
                })
                .await
        })
    }

    fn http_head<'a>(&'a self, url: &'a str) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            self.sources
                .head(url, &self.stations)
                .await
                .map_err(|Diagnostic { kind, message, hints, .. }| BridgeError { kind, message, hints })
        })
    }
}

/// Reads the first of the files that is there.
fn read_first(
    context: &Context,
    names: &[String],
    local: &str,
    step: &Step,
) -> Result<Option<IgnoreFile>, BridgeError> {
    let started = SystemTime::now();
    let read = |name: &String| {
        let content = context.read_file(name, MAX_FILE).map_err(|error| BridgeError::from_error(&error));
        content.map(|content| content.map(|content| (name.clone(), content))).transpose()
    };
    let found = names.iter().find_map(read).transpose()?;
    step.over(&format!("transferring {local}:"), found.as_ref().map_or(0, |(_, text)| text.len() as u64), started);
    Ok(found)
}

impl DriverBridge {
    async fn commit_time(&self, source: &SourceOp, step: &Step) -> Result<i64, BridgeError> {
        let failed = |error: GitError| BridgeError::from_error(&error);
        let spec = GitSpec::from_op(source).map_err(failed)?;
        self.sources.git.commit_time(&spec, &step.log()).await.map_err(failed)
    }

    /// What the server says, else the newest file where it is an archive.
    async fn file_time(&self, source: &SourceOp) -> Result<Option<i64>, BridgeError> {
        let failed = |error: HttpError| BridgeError::from_error(&error);
        let spec = HttpSpec::from_op(source).map_err(failed)?;
        let resolved = self.sources.http.resolve(&spec).await.map_err(failed)?;
        if resolved.last_modified.is_some() {
            return Ok(resolved.last_modified);
        }
        let fetched = self.sources.http.fetch(&spec).await.map_err(failed)?;
        let opened = super::sources::open_file(&self.stations, &fetched.chain, &fetched.resolved.filename);
        let file =
            opened.map_err(|error| BridgeError { kind: error.kind, message: error.message, hints: error.hints })?;
        // What is no archive has no time.
        let newest = tokio::task::spawn_blocking(move || archive::newest(file).unwrap_or_default()).await;
        newest.map_err(|error| BridgeError::remote(error.to_string()))
    }
}
