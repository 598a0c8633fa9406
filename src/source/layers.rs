//! Layers in one pass: stream → hash → store and, from the same bytes, decompress → unpack; adopted in order.
//!
//! ```text
//! LayerBlobs::blob ─▶ channel ─▶ Incoming ─┬▶ VerifiedBlobWriter
//!  (async, verified)                       └▶ Decoder ─▶ Snapshots::unpack ─▶ diff id checked ─▶ blob committed
//! ```
//!
//! A layer has two threads: one decompresses and hashes, one makes the files. Layers are put on top of each other as they come, in
//! order, while others are still on their way.
//!
//! In: layers of an image or of a cache, and where their blobs are. Out: their chain. Invariants: as many layers at once as blobs
//! may be read, between [`FEWEST`] and [`MOST`], and about [`CHUNKS`] chunks between network and disk however many they are; a blob
//! is in the store, and a layer in a chain, only after digest, size and diff id were found right and the stream was read to its end.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{Semaphore, mpsc};

use super::SourceError;
use super::select::{Contents, ResolvedImage};
use crate::digest::{ChainId, DiffId, Digest};
use crate::image::media::Compression;
use crate::image::{Descriptor, History};
use crate::layer::decompress::Decoder;
use crate::layer::{BlobInfo, Toc};
use crate::progress::{Event, Sink, Status};
use crate::registry::BLOB_CONNECTIONS;
use crate::snapshot::{Chain, LayerId, Origin, Snapshots, Unpacked};
use crate::store::{Store, StoreError, VerifiedBlobWriter};

/// Layers fetched and unpacked at once: fewer leave processors idle where blobs are here already.
const FEWEST: usize = 4;
/// More have no use for the two threads and the decompressor that each takes.
const MOST: usize = 32;
/// Chunks of all layers on their way from the network to threads that unpack; one has up to 400 KB.
const CHUNKS: usize = 24;
/// Time between two reports of one layer.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Tells how far the layers are.
#[derive(Debug, Clone)]
pub struct Reporter {
    /// Takes the events.
    pub sink: Arc<dyn Sink>,
    /// The step they belong to.
    pub vertex: Digest,
}

/// One layer's report.
struct Report<'a> {
    reporter: &'a Reporter,
    descriptor: &'a Descriptor,
    started: SystemTime,
    last: SystemTime,
}

impl<'a> Report<'a> {
    fn start(reporter: &'a Reporter, descriptor: &'a Descriptor) -> Self {
        let now = SystemTime::now();
        let report = Self { reporter, descriptor, started: now, last: now };
        report.send(0, now, None);
        report
    }

    fn progress(&mut self, current: u64) {
        let now = SystemTime::now();
        if now.duration_since(self.last).is_ok_and(|passed| passed >= REPORT_EVERY) {
            self.last = now;
            self.send(current, now, None);
        }
    }

    fn done(&self) {
        let now = SystemTime::now();
        self.send(self.descriptor.size, now, Some(now));
    }

    /// Tells that the layer's files are there; they were made while it came, from `started` on.
    fn extracted(&self, started: SystemTime) {
        let Reporter { sink, vertex } = self.reporter;
        let (id, times) = (format!("extracting {}", self.descriptor.digest), (started, SystemTime::now()));
        sink.send(Event::Status(Status::over(vertex.clone(), id, 0, times)));
    }

    fn send(&self, current: u64, timestamp: SystemTime, completed: Option<SystemTime>) {
        self.reporter.sink.send(Event::Status(Status {
            id: self.descriptor.digest.to_string(),
            vertex: self.reporter.vertex.clone(),
            current,
            total: self.descriptor.size,
            timestamp,
            started: Some(self.started),
            completed,
        }));
    }
}

/// Where the blobs of layers are.
pub trait LayerBlobs: Send + Sync {
    /// Opens a blob; an end without an error means that all came and was verified.
    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError>>;

    /// Returns how many blobs may be read at once.
    fn at_once(&self) -> usize {
        BLOB_CONNECTIONS
    }

    /// Returns whether a blob that is wrong may be right when it is opened again.
    fn has_others(&self) -> bool {
        false
    }
}

/// The blobs of one image.
struct ImageBlobs<'a> {
    contents: &'a dyn Contents,
    image: &'a ResolvedImage,
}

impl LayerBlobs for ImageBlobs<'_> {
    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError>> {
        self.contents.blob(&self.image.reference, descriptor)
    }

    fn at_once(&self) -> usize {
        self.contents.at_once()
    }

    fn has_others(&self) -> bool {
        self.contents.has_others(&self.image.reference)
    }
}

/// One layer to be pulled.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its blob.
    pub descriptor: Descriptor,
    /// Digest of its tar.
    pub diff_id: DiffId,
    /// When and by what it was made.
    pub history: History,
}

impl Layer {
    fn origin(&self) -> Origin {
        let (created, description) = (self.history.created.clone(), self.history.created_by.clone());
        Origin { blob: Some(self.blob_info()), created, description }
    }

    fn blob_info(&self) -> BlobInfo {
        let toc = Toc::read(&self.descriptor.annotations);
        let stated = Compression::of_layer(&self.descriptor.media_type).unwrap_or_default();
        BlobInfo {
            diff_id: self.diff_id.clone(),
            digest: self.descriptor.digest.clone(),
            size: self.descriptor.size,
            compression: if toc.is_some() { Compression::Estargz } else { stated },
            toc,
        }
    }

    fn unpack_failed(&self, source: crate::snapshot::SnapshotError) -> SourceError {
        SourceError::Unpack { digest: self.descriptor.digest.clone(), source: Box::new(source) }
    }

    fn store_failed(&self, source: StoreError) -> SourceError {
        SourceError::Store { digest: self.descriptor.digest.clone(), source }
    }

    fn read_failed(&self, source: io::Error) -> SourceError {
        SourceError::Read { digest: self.descriptor.digest.clone(), source }
    }
}

/// What pulling needs besides the layers.
struct Puller<'a> {
    blobs: &'a dyn LayerBlobs,
    store: &'a Arc<Store>,
    snapshots: &'a Arc<Snapshots>,
    reporter: &'a Reporter,
    /// One for each layer worked on at once; what is unpacked and waits for the layers below it takes none.
    slots: Semaphore,
    /// Chunks that may wait for the thread of one layer.
    queue: usize,
}

/// Makes all layers of an image available, bottom first.
pub(super) async fn pull(
    contents: &dyn Contents,
    store: &Arc<Store>,
    snapshots: &Arc<Snapshots>,
    image: &ResolvedImage,
    reporter: &Reporter,
) -> Result<Chain, SourceError> {
    pull_layers(&ImageBlobs { contents, image }, (store, snapshots), layers_of(image), reporter).await
}

/// Makes layers available, bottom first; those that are there already are not fetched.
pub async fn pull_layers(
    blobs: &dyn LayerBlobs,
    (store, snapshots): (&Arc<Store>, &Arc<Snapshots>),
    layers: Vec<Layer>,
    reporter: &Reporter,
) -> Result<Chain, SourceError> {
    let at_once = blobs.at_once().clamp(FEWEST, MOST);
    let (slots, queue) = (Semaphore::new(at_once), CHUNKS.div_ceil(at_once));
    let puller = Puller { blobs, store, snapshots, reporter, slots, queue };
    let known = known(snapshots, &layers);
    let wanted: Vec<Layer> = layers.iter().zip(&known).filter(|(_, k)| k.is_none()).map(|(l, _)| l.clone()).collect();
    let count = wanted.len().max(1);
    let (done, mut unpacked) = mpsc::channel(count);
    let unpack = async move {
        let mut layers = stream::iter(wanted.into_iter().map(|layer| puller.layer(layer))).buffered(count);
        while let Some(layer) = layers.next().await {
            // Without a receiver one of them failed before.
            let _ = done.send(layer).await;
        }
        Ok(())
    };
    let stack = async {
        let mut chain = Chain::empty();
        for (layer, known) in layers.iter().zip(known) {
            chain = match known {
                Some(id) => chain.push(id),
                None => {
                    let next = unpacked.recv().await.expect("one for each layer that is not known")?;
                    adopt(snapshots, chain, next, layer).await?
                }
            };
        }
        Ok(chain)
    };
    // Whichever fails first ends both.
    tokio::try_join!(unpack, stack).map(|((), chain)| chain)
}

fn known(snapshots: &Snapshots, layers: &[Layer]) -> Vec<Option<LayerId>> {
    let stacked = layers.iter().scan(None, |below: &mut Option<ChainId>, layer| {
        let id = ChainId::extend(below.as_ref(), &layer.diff_id);
        *below = Some(id.clone());
        Some(id)
    });
    stacked.map(|id| snapshots.find_layer(&id)).collect()
}

/// Puts together what is said of each layer; a history that is too short leaves the upper ones without.
fn layers_of(image: &ResolvedImage) -> Vec<Layer> {
    let mut history = image.config.history.iter().filter(|h| !h.empty_layer);
    let pairs = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
    let layers = pairs.map(|(descriptor, diff_id)| Layer {
        descriptor: descriptor.clone(),
        diff_id: diff_id.clone(),
        history: history.next().cloned().unwrap_or_default(),
    });
    layers.collect()
}

async fn adopt(
    snapshots: &Arc<Snapshots>,
    parent: Chain,
    unpacked: Unpacked,
    layer: &Layer,
) -> Result<Chain, SourceError> {
    let (snapshots, owned) = (Arc::clone(snapshots), layer.clone());
    let work = move || snapshots.adopt(&parent, unpacked, &owned.diff_id, owned.origin());
    let adopted = tokio::task::spawn_blocking(work).await;
    let digest = layer.descriptor.digest.clone();
    adopted.map_err(|_| SourceError::Stopped { digest })?.map_err(|e| layer.unpack_failed(e))
}

impl Puller<'_> {
    /// Unpacks one layer, from the store if its blob is there and good, else from where the image is.
    async fn layer(&self, layer: Layer) -> Result<Unpacked, SourceError> {
        let _slot = self.slots.acquire().await;
        let digest = layer.descriptor.digest.clone();
        let report = Report::start(self.reporter, &layer.descriptor);
        if let Ok(Some((file, size))) = self.store.blob(&digest)
            && size == layer.descriptor.size
        {
            let (snapshots, owned) = (Arc::clone(self.snapshots), layer.clone());
            let began = SystemTime::now();
            let unpacked = tokio::task::spawn_blocking(move || unpack(&snapshots, &owned, file)).await;
            match unpacked.map_err(|_| SourceError::Stopped { digest: digest.clone() })? {
                Ok(unpacked) => {
                    report.done();
                    report.extracted(began);
                    return Ok(unpacked);
                }
                // A damaged blob is one that is not there.
                Err(error) => tracing::debug!(%digest, %error, "stored blob is not usable, fetching it"),
            }
        }
        self.fetch(&layer, report).await
    }

    /// Fetches a layer; what was made of it is thrown away where it was wrong, and it comes anew from the next host.
    async fn fetch(&self, layer: &Layer, mut report: Report<'_>) -> Result<Unpacked, SourceError> {
        loop {
            match self.fetch_once(layer, &mut report).await {
                Err(error) if error.is_spoiled() => {}
                result => return result,
            }
        }
    }

    async fn fetch_once(&self, layer: &Layer, report: &mut Report<'_>) -> Result<Unpacked, SourceError> {
        let digest = &layer.descriptor.digest;
        let mut chunks = self.blobs.blob(&layer.descriptor).await?;
        let (sender, receiver) = mpsc::channel(self.queue);
        let (store, snapshots, owned) = (Arc::clone(self.store), Arc::clone(self.snapshots), layer.clone());
        let began = SystemTime::now();
        let unpacking = tokio::task::spawn_blocking(move || receive(&store, &snapshots, &owned, receiver));
        let mut current = 0;
        let mut broken = None;
        while let Some(chunk) = chunks.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            };
            current += chunk.len() as u64;
            report.progress(current);
            if sender.send(Piece::Data(chunk)).await.is_err() {
                // What cannot be unpacked may not be what it should be; at its end one knows.
                if self.blobs.has_others() {
                    broken = first_error(chunks).await;
                }
                break;
            }
        }
        if broken.is_none() {
            report.done();
            // The thread has ended only if it failed, and says so itself.
            let _ = sender.send(Piece::End).await;
        }
        drop(sender);
        let unpacked = unpacking.await.map_err(|_| SourceError::Stopped { digest: digest.clone() })?;
        match broken {
            Some(error) => Err(error),
            None => unpacked.inspect(|_| report.extracted(began)),
        }
    }
}

/// Reads a blob to its end.
async fn first_error(mut chunks: BoxStream<'static, Result<Bytes, SourceError>>) -> Option<SourceError> {
    while let Some(chunk) = chunks.next().await {
        if let Err(error) = chunk {
            return Some(error);
        }
    }
    None
}

/// What comes through the channel of a layer.
enum Piece {
    Data(Bytes),
    /// All came, and was verified.
    End,
}

/// Stores and unpacks what comes through a channel.
fn receive(
    store: &Store,
    snapshots: &Snapshots,
    layer: &Layer,
    receiver: mpsc::Receiver<Piece>,
) -> Result<Unpacked, SourceError> {
    let writer = store.verified_writer().map_err(|e| layer.store_failed(e))?;
    let mut incoming = Incoming { receiver, rest: Bytes::new(), ended: false, writer };
    let unpacked = unpack(snapshots, layer, &mut incoming)?;
    // It was read to its end, which is there only after a piece that says that all is right.
    let (digest, size) = (&layer.descriptor.digest, layer.descriptor.size);
    incoming.writer.commit(digest, size).map_err(|e| layer.store_failed(e))?;
    Ok(unpacked)
}

/// Unpacks a layer from its blob, reads the blob to its end, and checks the diff id.
fn unpack(snapshots: &Snapshots, layer: &Layer, mut blob: impl Read + Send) -> Result<Unpacked, SourceError> {
    let decoder = Decoder::new(&mut blob).map_err(|e| layer.read_failed(e))?;
    let unpacked = snapshots.unpack(decoder).map_err(|e| layer.unpack_failed(e))?;
    io::copy(&mut blob, &mut io::sink()).map_err(|e| layer.read_failed(e))?;
    if *unpacked.diff_id() != layer.diff_id {
        return Err(SourceError::DiffId {
            digest: layer.descriptor.digest.clone(),
            expected: Box::new(layer.diff_id.clone()),
            found: Box::new(unpacked.diff_id().clone()),
        });
    }
    Ok(unpacked)
}

/// Reads the pieces of a channel as one stream, and writes them to the blob on the way.
struct Incoming {
    receiver: mpsc::Receiver<Piece>,
    rest: Bytes,
    ended: bool,
    writer: VerifiedBlobWriter,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                // Not every end of a channel is the end of a blob.
                None => return Err(io::Error::other("the transfer was given up")),
                Some(Piece::End) => self.ended = true,
                Some(Piece::Data(chunk)) => {
                    self.writer.write_all(&chunk)?;
                    self.rest = chunk;
                }
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}
