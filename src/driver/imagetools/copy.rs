//! A manifest from one repository to another, with all it points to.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::fetch;
use crate::diag::{Diagnostic, Kind};
use crate::driver::steps::{Shown, Step};
use crate::export::merge::Entry;
use crate::image::{Descriptor, Manifest, Reference};
use crate::registry::{Client, Document, OnSent};

/// Indexes in indexes are followed so deep.
const DEPTH: usize = 4;
/// Blobs worked on at once; the client bounds those of one registry.
const PARALLEL: usize = 4;

/// Where from and where to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) client: &'a Arc<Client>,
    pub(super) from: &'a Reference,
    pub(super) to: &'a Reference,
    pub(super) step: &'a Step,
}

impl Way<'_> {
    /// Copies a manifest or index, after what it points to; within one repository it is there.
    pub(super) async fn copy(self, entry: &Entry) -> Result<(), Diagnostic> {
        if self.from.name() == self.to.name() {
            return Ok(());
        }
        let part = format!("copying {} from {} to {}", entry.digest, self.from, self.to.name());
        let copied = async { self.whole(entry, DEPTH).await.map_err(Shown) };
        self.step.part(&part, copied).await.map_err(|Shown(diagnostic)| diagnostic)
    }

    async fn whole(self, entry: &Entry, depth: usize) -> Result<(), Diagnostic> {
        let name = Reference { tag: None, digest: Some(entry.digest.clone()), ..self.from.clone() };
        let fetched = fetch(self.client, &name).await?;
        match &fetched.document {
            Document::Index(_) if depth == 0 => {
                return Err(Diagnostic::new(Kind::Remote, format!("{name}: indexes are nested too deep")));
            }
            Document::Index(_) => {
                let listing = crate::export::merge::Listing::parse(&fetched.bytes);
                for inner in listing.map_err(|error| Diagnostic::from_error(&error))?.manifests {
                    Box::pin(self.whole(&inner, depth - 1)).await?;
                }
            }
            Document::Manifest(manifest) => self.blobs(manifest).await?,
        }
        let place = Reference { tag: None, digest: None, ..self.to.clone() };
        let pushed = self.client.push_manifest(&place, &fetched.entry.media_type, &fetched.bytes.into()).await;
        pushed.map(drop).map_err(|error| Diagnostic::from_error(&error))
    }

    async fn blobs(self, manifest: &Manifest) -> Result<(), Diagnostic> {
        let blobs = manifest.layers.iter().chain([&manifest.config]).filter(|blob| !is_elsewhere(blob));
        let copies = blobs.map(|blob| async move {
            let (step, id, total) = (self.step.clone(), format!("copying {}", blob.digest), blob.size);
            let sent: OnSent = Arc::new(move |current| step.progress(&id, current, total));
            self.client.copy_blob((self.from, self.to), blob, sent).await
        });
        let copied = stream::iter(copies).buffer_unordered(PARALLEL).try_collect::<Vec<_>>().await;
        copied.map(drop).map_err(|error| Diagnostic::from_error(&error))
    }
}

/// Layers that may not be handed on are not in registries.
fn is_elsewhere(blob: &Descriptor) -> bool {
    blob.media_type.contains(".nondistributable.") || blob.media_type.contains(".foreign.")
}
