//! Sends the blobs of new layers to the registries they are for while later steps still run, and links those of bases there.
//!
//! In: blobs as they are packed, and the layers that results start from. Out: the same in the repositories that the outputs and caches
//! name, best effort: the push at the end finds them there, and sends and reports what is missing. After a first failure nothing more is
//! sent ahead to that repository. A build that fails leaves blobs that no manifest names, which registries collect. Invariant: what
//! only a cache wants never takes all places that there are for transfers to a registry, so that an image need not wait for it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::Setup;
use super::packer::Packing;
use crate::digest::Digest;
use crate::export::push::Pusher;
use crate::export::{Blobs, ExportSpec};
use crate::image::media::Compression;
use crate::image::{Descriptor, Reference};
use crate::layer::BlobInfo;
use crate::registry::Client;
use crate::remotecache::{Mode, spec};
use crate::store::{Follower, Store};

/// Uploads to caches at once, fewer than a registry is asked to take.
const CACHES_AT_ONCE: usize = 2;

/// Blobs up to this size are sent once they are whole: to ask for one before costs less than to send it in vain.
const LARGE: u64 = 8 << 20;

/// Uploads ahead of the push.
#[derive(Clone)]
pub(super) struct Uploader(Arc<Shared>);

struct Shared {
    pusher: Pusher,
    places: BTreeMap<Packing, Vec<Arc<Place>>>,
    for_caches: Semaphore,
    running: Mutex<Vec<(Arc<Place>, JoinHandle<()>)>>,
    /// Layers of bases that are being linked; that ends with the build.
    links: Mutex<JoinSet<()>>,
}

/// A repository that gets layers.
#[derive(Debug)]
struct Place {
    repository: Reference,
    whom: Whom,
    /// Whether that is more than the layers of results.
    takes_all: bool,
    /// Whether layers that were pulled are sent in another form than they came in.
    converts: bool,
    given_up: AtomicBool,
}

/// A layer that is sent while it is made.
#[derive(Debug)]
pub(super) struct Stream {
    place: Arc<Place>,
    task: JoinHandle<()>,
}

/// For whom layers are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// An image.
    Image,
    /// A cache.
    Cache,
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
    /// Makes an uploader to the repositories that images and caches are pushed to.
    pub(super) fn new(client: Arc<Client>, store: Arc<Store>, setup: &Setup) -> Self {
        let pusher = Pusher { client, blobs: Arc::new(Packed(store)), observer: Arc::new(|_| ()) };
        let for_caches = Semaphore::new(CACHES_AT_ONCE);
        Self(Arc::new(Shared {
            pusher,
            places: places(setup),
            for_caches,
            running: Mutex::default(),
            links: Mutex::default(),
        }))
    }

    /// Starts to send a blob that is being made to the first repository whose image will have it, once it has grown large.
    pub(super) fn follow(&self, blob: Follower, packing: Packing, is_of_result: bool) -> Option<Stream> {
        let places = self.0.places.get(&packing).into_iter().flatten();
        let place =
            places.filter(|place| place.whom == Whom::Image && place.takes(is_of_result)).map(Arc::clone).next()?;
        let task = tokio::spawn(Arc::clone(&self.0).stream(Arc::clone(&place), blob, packing.compression()));
        Some(Stream { place, task })
    }

    /// Starts to send a blob of a new layer to every repository that wants it so; `stream` is what was begun for it while it was
    /// made.
    pub(super) fn send(&self, blob: &BlobInfo, packing: Packing, is_of_result: bool, stream: Option<Stream>) {
        let places = self.0.places.get(&packing).into_iter().flatten();
        let places: Vec<&Arc<Place>> = places.filter(|place| place.takes(is_of_result)).collect();
        let layer = Descriptor::new(blob.compression.oci_layer(), blob.digest.clone(), blob.size);
        let mut stream = stream;
        for place in &places {
            // What goes into an image of the same registry is linked from there.
            let is_linked = |other: &&Arc<Place>| {
                other.whom == Whom::Image && other.repository.registry == place.repository.registry
            };
            if place.whom == Whom::Image || !places.iter().any(is_linked) {
                let before = stream.take_if(|stream| Arc::ptr_eq(&stream.place, place));
                self.start(Arc::clone(place), layer.clone(), before.map(|stream| stream.task));
            }
        }
    }

    /// Starts to look for the layers that the results start from where images are pushed to, and to link them from the repositories
    /// in `origins`. Nobody waits for that: the push waits for its turn at each such layer.
    pub(super) fn link(&self, layers: &[&Descriptor], origins: &BTreeMap<Digest, Vec<Reference>>) {
        let with_origins = |layer: &&Descriptor| origins.get(&layer.digest).map(|of| ((*layer).clone(), of.clone()));
        let layers: Vec<(Descriptor, Vec<Reference>)> = layers.iter().filter_map(with_origins).collect();
        let places = self.0.places.values().flatten().filter(|place| place.whom == Whom::Image && !place.converts);
        let mut links = self.0.links.lock().unwrap_or_else(PoisonError::into_inner);
        for place in places.filter(|_| !layers.is_empty()) {
            let (client, place, layers) = (Arc::clone(&self.0.pusher.client), Arc::clone(place), layers.clone());
            links.spawn(async move {
                if let Err(error) = client.link_blobs(&place.repository, &layers).await {
                    tracing::debug!("layers of bases were not linked ahead: {}", crate::diag::chain(&error));
                }
            });
        }
    }

    fn start(&self, place: Arc<Place>, layer: Descriptor, before: Option<JoinHandle<()>>) {
        let upload = Arc::clone(&self.0).upload(Arc::clone(&place), layer);
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                // What it did not send is sent now.
                let _ = before.await;
            }
            upload.await;
        });
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner).push((place, task));
    }

    /// Waits for what is under way, so that the push sends nothing twice; leaves it be where something failed.
    pub(super) async fn settle(&self, whom: Whom) {
        for (place, task) in self.0.take_running(whom) {
            if place.given_up.load(Ordering::Relaxed) {
                task.abort();
            }
            // A task that was aborted or panicked has sent nothing that the push would miss.
            let _ = task.await;
        }
    }
}

impl Shared {
    async fn upload(self: Arc<Self>, place: Arc<Place>, layer: Descriptor) {
        let _turn = match place.whom {
            Whom::Image => None,
            Whom::Cache => self.for_caches.acquire().await.ok(),
        };
        if place.given_up.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.pusher.new_layer(&place.repository, &layer).await {
            place.given_up.store(true, Ordering::Relaxed);
            tracing::debug!("no uploads ahead of the push: {}", crate::diag::chain(&error));
        }
    }

    async fn stream(self: Arc<Self>, place: Arc<Place>, blob: Follower, compression: Compression) {
        let growing = blob.clone();
        let grows = tokio::task::spawn_blocking(move || growing.grows_beyond(LARGE)).await;
        if !grows.is_ok_and(|grows| grows) || place.given_up.load(Ordering::Relaxed) {
            return;
        }
        let ending = blob.clone();
        let became = async move {
            let (digest, size) = tokio::task::spawn_blocking(move || ending.stored()).await.ok()??;
            Some(Descriptor::new(compression.oci_layer(), digest, size))
        };
        let read = move || -> Box<dyn Read + Send> { Box::new(blob.reader()) };
        match self.pusher.growing_layer(&place.repository, read, Box::pin(became)).await {
            Ok(is_there) => tracing::debug!(is_there, "sent a layer while it was made"),
            Err(error) => tracing::debug!("a layer was not sent while it was made: {}", crate::diag::chain(&error)),
        }
    }

    fn take_running(&self, whom: Whom) -> Vec<(Arc<Place>, JoinHandle<()>)> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, left) = std::mem::take(&mut *running).into_iter().partition(|(place, _)| place.whom == whom);
        *running = left;
        taken
    }
}

impl Place {
    fn takes(&self, is_of_result: bool) -> bool {
        (is_of_result || self.takes_all) && !self.given_up.load(Ordering::Relaxed)
    }
}

/// Lists the repositories that get layers, by the form they get them in, each once.
fn places(setup: &Setup) -> BTreeMap<Packing, Vec<Arc<Place>>> {
    let mut by_name: BTreeMap<Packing, BTreeMap<String, Place>> = BTreeMap::new();
    let mut add = |packing: Packing, name: &Reference, whom, takes_all| {
        let repository = Reference { tag: None, digest: None, ..name.clone() };
        let given_up = AtomicBool::new(false);
        let place = Place { repository, whom, takes_all, converts: false, given_up };
        let place = by_name.entry(packing.of_new()).or_default().entry(name.name()).or_insert(place);
        place.takes_all |= takes_all;
        place.converts |= packing.is_forced();
    };
    for export in &setup.exports {
        if let ExportSpec::Image(target) = export
            && target.push
        {
            let packing = Packing::from(target.image.options.compression);
            target.image.names.iter().for_each(|name| add(packing, name, Whom::Image, false));
        }
    }
    for cache in &setup.caches_to {
        if let spec::Store::Registry { reference, .. } = &cache.store {
            add(cache.layers.into(), reference, Whom::Cache, cache.mode == Mode::Max);
        }
    }
    let places = |by_name: BTreeMap<String, Place>| by_name.into_values().map(Arc::new).collect();
    by_name.into_iter().map(|(packing, by_name)| (packing, places(by_name))).collect()
}
