//! A manifest from one repository or directory to another, with all it points to.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::location::Location;
use super::shelf;
use crate::diag::{Diagnostic, Kind};
use crate::driver::steps::{Shown, Step};
use crate::export::merge::Entry;
use crate::image::{Descriptor, Manifest};
use crate::registry::{Client, Document, OnSent};

/// Indexes in indexes are followed so deep.
const DEPTH: usize = 4;

/// Where from and where to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) client: &'a Arc<Client>,
    pub(super) from: &'a Location,
    pub(super) to: &'a Location,
    pub(super) step: &'a Step,
}

impl Way<'_> {
    /// Copies a manifest or index, after what it points to; within one repository it is there.
    pub(super) async fn copy(self, entry: &Entry) -> Result<(), Diagnostic> {
        if self.from.beside(&entry.digest) == self.to.beside(&entry.digest) {
            return Ok(());
        }
        let part = format!("copying {} from {} to {}", entry.digest, self.from, self.to.name());
        let copied = async { self.whole(entry, DEPTH).await.map_err(Shown) };
        self.step.part(&part, copied).await.map_err(|Shown(diagnostic)| diagnostic)
    }

    async fn whole(self, entry: &Entry, depth: usize) -> Result<(), Diagnostic> {
        let name = self.from.beside(&entry.digest);
        let fetched = shelf::fetch(self.client, &name).await?;
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
        shelf::put_document(self.client, self.to, (&fetched.entry.media_type, &fetched.bytes.into())).await
    }

    async fn blobs(self, manifest: &Manifest) -> Result<(), Diagnostic> {
        let blobs = manifest.layers.iter().chain([&manifest.config]).filter(|blob| !is_elsewhere(blob));
        let copies = blobs.map(|blob| async move {
            let (step, id, total) = (self.step.clone(), format!("copying {}", blob.digest), blob.size);
            let sent: OnSent = Arc::new(move |current| step.progress(&id, current, total));
            shelf::copy_blob(self.client, (self.from, self.to), blob, sent).await
        });
        stream::iter(copies).buffer_unordered(self.client.blobs_at_once()).try_collect::<Vec<()>>().await.map(drop)
    }
}

/// Layers that may not be handed on are not in registries.
fn is_elsewhere(blob: &Descriptor) -> bool {
    blob.media_type.contains(".nondistributable.") || blob.media_type.contains(".foreign.")
}
