//! How much is asked of one registry at once: `[system] maxRegistryConcurrency` blobs, and one document besides.
//!
//! As BuildKit has it, a document (a manifest, a configuration: whatever is JSON) waits for none of the blobs: it takes the
//! place that is kept for it, or one that no blob uses. A blob has its place until its last byte.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Blobs moved at once with one registry where nothing is said; BuildKit's number; more trips rate limits.
pub const BLOB_CONNECTIONS: usize = 4;

/// The places of one registry.
#[derive(Debug)]
pub(crate) struct Limits {
    blobs: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _blob: Option<OwnedSemaphorePermit>,
    _any: OwnedSemaphorePermit,
}

impl Limits {
    /// Makes places for `blobs` blobs, at least one.
    pub(crate) fn new(blobs: usize) -> Self {
        let blobs = blobs.clamp(1, Semaphore::MAX_PERMITS - 1);
        Self { blobs: Arc::new(Semaphore::new(blobs)), all: Arc::new(Semaphore::new(blobs + 1)) }
    }

    /// Waits for a place for content of a media type.
    pub(crate) async fn place_for(&self, media_type: &str) -> Place {
        match media_type.ends_with("+json") {
            true => self.document().await,
            false => self.blob().await,
        }
    }

    /// Waits for a place for a blob.
    pub(crate) async fn blob(&self) -> Place {
        let blob = take(&self.blobs).await;
        Place { _blob: Some(blob), _any: take(&self.all).await }
    }

    /// Waits for a place for a document.
    pub(crate) async fn document(&self) -> Place {
        Place { _blob: None, _any: take(&self.all).await }
    }
}

async fn take(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn documents_do_not_wait_for_blobs() {
        let limits = Limits::new(2);
        let blob = || limits.place_for("application/vnd.oci.image.layer.v1.tar+gzip").now_or_never();
        let document = || limits.place_for("application/vnd.oci.image.config.v1+json").now_or_never();
        let held = (blob().expect("first"), blob().expect("second"));
        assert!(blob().is_none(), "a third blob");
        let config = document().expect("the place for documents");
        assert!(document().is_none(), "a second document beside two blobs");
        drop(held);
        let documents = (document().expect("in the place of a blob"), document().expect("and of the other"));
        assert!(document().is_none() && blob().is_none());
        drop((config, documents));
        assert!(blob().is_some());
    }

    #[test]
    fn there_is_always_a_place() {
        assert!(Limits::new(0).place_for("x").now_or_never().is_some());
        assert!(Limits::new(usize::MAX).place_for("x").now_or_never().is_some());
    }
}
