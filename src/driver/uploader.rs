//! Sends the blobs of new layers to the registries they are for while later steps still run.
//!
//! In: blobs as they are packed. Out: the same in the repositories that the outputs name, best effort: the push at the end finds
//! them there, and sends and reports what is missing. After a first failure nothing more is tried here. A build that fails
//! leaves blobs that no manifest names, which registries collect.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use super::packer::Packing;
use crate::digest::Digest;
use crate::export::push::Pusher;
use crate::export::{Blobs, ExportSpec};
use crate::image::{Descriptor, Reference};
use crate::layer::BlobInfo;
use crate::registry::Client;
use crate::store::Store;

/// Uploads ahead of the push.
#[derive(Clone)]
pub(super) struct Uploader(Arc<Shared>);

struct Shared {
    pusher: Pusher,
    places: BTreeMap<Packing, Vec<Reference>>,
    given_up: AtomicBool,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Uploader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploader").field("places", &self.0.places).finish_non_exhaustive()
    }
}

/// Blobs as they lie in the store; what is damaged is for the push to find and to say.
struct Packed(Arc<Store>);

impl Blobs for Packed {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        match self.0.blob(digest).map_err(io::Error::other)? {
            Some((file, _)) => Ok(Box::new(file)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Uploader {
    /// Makes an uploader to the repositories that `exports` push to.
    pub(super) fn new(client: Arc<Client>, store: Arc<Store>, exports: &[ExportSpec]) -> Self {
        let bare = |name: &Reference| Reference { tag: None, digest: None, ..name.clone() };
        let mut by_name: BTreeMap<Packing, BTreeMap<String, Reference>> = BTreeMap::new();
        for export in exports {
            if let ExportSpec::Image(target) = export
                && target.push
            {
                let packing = Packing::from(target.image.options.compression).of_new();
                let places = target.image.names.iter().map(|name| (name.name(), bare(name)));
                by_name.entry(packing).or_default().extend(places);
            }
        }
        let pusher = Pusher { client, blobs: Arc::new(Packed(store)), observer: Arc::new(|_| ()) };
        let places = by_name.into_iter().map(|(packing, places)| (packing, places.into_values().collect())).collect();
        Self(Arc::new(Shared { pusher, places, given_up: AtomicBool::new(false), running: Mutex::default() }))
    }

    /// Starts to send a blob of a new layer to every repository that wants it so.
    pub(super) fn send(&self, blob: &BlobInfo, packing: Packing) {
        if !self.0.places.contains_key(&packing) || self.0.given_up.load(Ordering::Relaxed) {
            return;
        }
        let layer = Descriptor::new(blob.compression.oci_layer(), blob.digest.clone(), blob.size);
        let shared = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            for place in shared.places.get(&packing).into_iter().flatten() {
                if let Err(error) = shared.pusher.new_layer(place, &layer).await {
                    shared.given_up.store(true, Ordering::Relaxed);
                    tracing::debug!("no uploads ahead of the push: {}", crate::diag::chain(&error));
                    return;
                }
            }
        });
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Waits for what is under way, so that the push sends nothing twice; leaves it be once something failed.
    pub(super) async fn settle(&self) {
        let running = std::mem::take(&mut *self.0.running.lock().unwrap_or_else(PoisonError::into_inner));
        for task in running {
            if self.0.given_up.load(Ordering::Relaxed) {
                task.abort();
            }
            // A task that was aborted or panicked has sent nothing that the push would miss.
            let _ = task.await;
        }
    }
}
