//! An image to registries, under all its names.
//!
//! In: an [`Image`], its names, the bytes of its layers. Out: for each repository layers and configurations in parallel, then
//! the manifests by digest, and last, for each name, what the name points to: nobody sees a name whose content is not
//! there. A blob a repository has is not sent; one that another repository of the registry has is mounted from there. Layers
//! are opened only when they must be sent.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use super::checked::{Checked, Damage};
use super::image::Image;
use super::{Blobs, ExportError};
use crate::digest::Digest;
use crate::image::{Descriptor, Reference};
use crate::registry::{Became, ByteReader, Client, OnSent, Pushed, Whereabouts};

/// Blobs worked on at once; the client bounds the transfers to one registry further.
const PARALLEL: usize = 16;
/// Bytes read from a layer at once, and how many such pieces may wait for the network.
const PIECE: usize = 128 << 10;
const PIECES: usize = 4;
/// The files of docker-registry cannot be read for a moment while another client stores the same blob: waits before a
/// manifest that was refused for want of a blob is sent again.
const UNSETTLED: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800), Duration::from_millis(1600)];

/// What the part of a push is called in which the blobs go.
const LAYERS: &str = "pushing layers";

/// How names become places in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The image gets its tags.
    Tags,
    /// The image is stored under its digest only.
    Digest,
}

/// What a push tells on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushEvent {
    /// So many bytes of a blob are sent.
    Sent {
        /// The blob.
        blob: Digest,
        /// Bytes sent.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A part of the push began, or is over.
    Part {
        /// What BuildKit calls it: `pushing layers`, `pushing manifest for NAME`.
        id: String,
        /// When it began.
        started: SystemTime,
        /// When it ended, if it did.
        completed: Option<SystemTime>,
    },
    /// A blob is there.
    Blob {
        /// The blob.
        blob: Digest,
        /// How it came there.
        how: Pushed,
    },
}

/// Takes what a push tells, from any thread.
pub type Observer = Arc<dyn Fn(PushEvent) + Send + Sync>;

/// Pushes images.
#[derive(Clone)]
pub struct Pusher {
    /// The client for all registries; which of them are insecure is its setting.
    pub client: Arc<Client>,
    /// The layers.
    pub blobs: Arc<dyn Blobs>,
    /// Who wants to know.
    pub observer: Observer,
}

impl std::fmt::Debug for Pusher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pusher").finish_non_exhaustive()
    }
}

/// Where the bytes of a blob come from.
#[derive(Clone)]
enum Content {
    Inline(Bytes),
    Layer(Descriptor),
}

/// A blob, and repositories known to have it.
struct Item {
    descriptor: Descriptor,
    content: Content,
    origins: Vec<Reference>,
    /// Whether it was made a moment ago: no repository has it, and nobody needs to hash it again before it is sent.
    new: bool,
}

impl Pusher {
    /// Pushes an image under all `names`.
    pub async fn push(&self, image: &Image, names: &[Reference], naming: Naming) -> Result<(), ExportError> {
        self.push_after(future::ready(()), image, names, naming).await
    }

    /// Pushes an image under all `names`, its layers only after `settled`: what is sent ahead of them.
    pub async fn push_after(
        &self,
        settled: impl Future<Output = ()>,
        image: &Image,
        names: &[Reference],
        naming: Naming,
    ) -> Result<(), ExportError> {
        let settled = settled.shared();
        let mut repositories: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
        for name in names {
            repositories.entry(name.name()).or_default().push(name);
        }
        let mut done: Vec<Reference> = Vec::new();
        for names in repositories.values() {
            let place = Reference { tag: None, digest: None, ..names[0].clone() };
            self.part(LAYERS.into(), self.blobs(settled.clone(), image, (&place, &done))).await?;
            for (at, name) in names.iter().enumerate() {
                let manifests = async {
                    if at == 0 {
                        self.manifests(image, &place).await?;
                    }
                    self.name(image, name, naming).await
                };
                self.part(manifest_part(image, name, naming), manifests).await?;
            }
            done.push(place);
        }
        Ok(())
    }

    /// Tells when a part begins and when it is over; of one that fails, its error tells.
    async fn part(&self, id: String, work: impl Future<Output = Result<(), ExportError>>) -> Result<(), ExportError> {
        let started = SystemTime::now();
        (self.observer)(PushEvent::Part { id: id.clone(), started, completed: None });
        work.await?;
        (self.observer)(PushEvent::Part { id, started, completed: Some(SystemTime::now()) });
        Ok(())
    }

    /// Pushes one layer that was made just now to the repository of `place`.
    pub async fn new_layer(&self, place: &Reference, layer: &Descriptor) -> Result<(), ExportError> {
        let (descriptor, content) = (layer.clone(), Content::Layer(layer.clone()));
        self.blob(place, Item { descriptor, content, origins: Vec::new(), new: true }).await
    }

    /// Pushes one layer that is still being made to the repository of `place`, as far as that goes; what it becomes is not checked
    /// but by the registry. Returns whether it is there.
    pub async fn growing_layer(
        &self,
        place: &Reference,
        read: impl Fn() -> Box<dyn Read + Send> + Send + Sync + 'static,
        became: Became,
    ) -> Result<bool, ExportError> {
        let open = move || -> BoxFuture<'static, io::Result<ByteReader>> {
            let reader = read();
            Box::pin(async move { Ok(piped(reader)) })
        };
        let pushed = self.client.push_growing(place, &open, became).await;
        pushed.map_err(|source| ExportError::Push { name: place.to_string(), source: Box::new(source) })
    }

    async fn blobs(
        &self,
        settled: impl Future<Output = ()>,
        image: &Image,
        (place, done): (&Reference, &[Reference]),
    ) -> Result<(), ExportError> {
        let layers = async {
            settled.await;
            self.all(layers(image, done), place).await
        };
        // Layers come first: they take longest.
        future::try_join(layers, self.all(configs(image, done), place)).await.map(drop)
    }

    async fn all(&self, items: impl Iterator<Item = Item>, place: &Reference) -> Result<(), ExportError> {
        let pushes: Vec<_> = items.map(|item| self.blob(place, item)).collect();
        stream::iter(pushes).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await.map(drop)
    }

    async fn blob(&self, place: &Reference, item: Item) -> Result<(), ExportError> {
        let (blob, total) = (item.descriptor.digest.clone(), item.descriptor.size);
        let observer = Arc::clone(&self.observer);
        let sent: OnSent = Arc::new(move |current| observer(PushEvent::Sent { blob: blob.clone(), current, total }));
        let (blobs, damage) = (Arc::clone(&self.blobs), Damage::default());
        let (content, reported) = (item.content, (!item.new).then(|| damage.clone()));
        let open = move || open(Arc::clone(&blobs), content.clone(), reported.clone());
        let whereabouts = if item.new { Whereabouts::Nowhere } else { Whereabouts::Repositories(&item.origins) };
        let how = self.client.push_blob(place, &item.descriptor, &open, whereabouts, sent).await;
        if let Some(found) = damage.found() {
            self.blobs.reject(&item.descriptor.digest);
            return Err(ExportError::Mismatch { digest: item.descriptor.digest, found });
        }
        let how = how.map_err(|source| ExportError::Push { name: place.to_string(), source: Box::new(source) })?;
        (self.observer)(PushEvent::Blob { blob: item.descriptor.digest, how });
        Ok(())
    }

    /// Stores what the root points to; a single manifest is itself the root.
    async fn manifests(&self, image: &Image, place: &Reference) -> Result<(), ExportError> {
        let root = &image.root.descriptor.digest;
        let manifests = image.platforms.iter().map(|p| &p.manifest).filter(|m| m.descriptor.digest != *root);
        let pushes = manifests.map(|m| self.manifest(place.clone(), &m.descriptor.media_type, &m.bytes));
        stream::iter(pushes).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await.map(drop)
    }

    async fn manifest(&self, place: Reference, media_type: &str, bytes: &[u8]) -> Result<(), ExportError> {
        let bytes = Bytes::copy_from_slice(bytes);
        let mut waits = UNSETTLED.iter();
        let pushed = loop {
            let pushed = self.client.push_manifest(&place, media_type, &bytes).await;
            match (pushed, waits.next()) {
                (Err(error), Some(wait)) if error.lacks_a_blob() => tokio::time::sleep(*wait).await,
                (pushed, _) => break pushed,
            }
        };
        pushed.map(drop).map_err(|source| ExportError::Push { name: place.to_string(), source: Box::new(source) })
    }

    async fn name(&self, image: &Image, name: &Reference, naming: Naming) -> Result<(), ExportError> {
        let tag = match naming {
            Naming::Tags => name.tag.clone(),
            Naming::Digest => None,
        };
        let place = Reference { tag, ..name.clone() };
        self.manifest(place, &image.root.descriptor.media_type, &image.root.bytes).await
    }
}

/// Names the part in which `name` comes to point to the image, as BuildKit does.
fn manifest_part(image: &Image, name: &Reference, naming: Naming) -> String {
    let shown = match naming {
        Naming::Tags => Reference { digest: Some(image.root.descriptor.digest.clone()), ..name.clone() },
        Naming::Digest => Reference { tag: None, digest: None, ..name.clone() },
    };
    format!("pushing manifest for {shown}")
}

/// Lists the configurations; `done` are repositories that got all of them before.
fn configs(image: &Image, done: &[Reference]) -> impl Iterator<Item = Item> {
    image.platforms.iter().map(|platform| Item {
        descriptor: platform.config.descriptor.clone(),
        content: Content::Inline(Bytes::copy_from_slice(&platform.config.bytes)),
        origins: done.to_vec(),
        new: false,
    })
}

/// Lists the layers; `done` are repositories that got all of them before.
fn layers(image: &Image, done: &[Reference]) -> impl Iterator<Item = Item> {
    image.layers().into_iter().map(|(descriptor, layer)| Item {
        descriptor: descriptor.clone(),
        content: Content::Layer(descriptor.clone()),
        // What this push stored itself is certain to be there.
        origins: done.iter().chain(&layer.origins).cloned().collect(),
        new: false,
    })
}

/// Opens content that is checked as it is read if there is somebody to tell of damage; the registry checks all of it anyway.
fn open(blobs: Arc<dyn Blobs>, content: Content, damage: Option<Damage>) -> BoxFuture<'static, io::Result<ByteReader>> {
    Box::pin(async move {
        match content {
            Content::Inline(bytes) => Ok(Box::pin(io::Cursor::new(bytes)) as ByteReader),
            Content::Layer(layer) => {
                let digest = layer.digest.clone();
                let opened = tokio::task::spawn_blocking(move || blobs.open(&digest)).await;
                let reader = opened.map_err(io::Error::other)??;
                Ok(match damage {
                    Some(damage) => piped(Checked::new(reader, layer, damage)),
                    None => piped(reader),
                })
            }
        }
    })
}

/// Reads on a blocking thread, which ends when nobody takes its pieces any more.
fn piped(mut reader: impl Read + Send + 'static) -> ByteReader {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let item = match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    piece.truncate(count);
                    Ok(Bytes::from(piece))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = item.is_err();
            if sender.blocking_send(item).is_err() || failed {
                break;
            }
        }
    });
    let pieces = stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|p| (p, receiver)) });
    Box::pin(StreamReader::new(pieces))
}
