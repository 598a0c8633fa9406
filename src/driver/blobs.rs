//! The bytes of layers, for exporters: of the state directory, else of the cache they were found in.
//!
//! In: digests. Out: readers. Invariant: what lies elsewhere and cannot be had, or is not what it should be, is noted, so that the
//! build can make it itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::runtime::Handle;

use crate::digest::Digest;
use crate::export::Blobs;
use crate::image::Descriptor;
use crate::ops::{LazyTree, Tree};
use crate::remotecache::Place;
use crate::remotecache::place::Chunks;
use crate::store::Store;

/// Blobs that are looked for at once.
const LOOKS: usize = 8;

/// Where a blob that the store does not hold can be read, and what it is.
type Elsewhere = (Arc<dyn Place>, Descriptor);

/// The blobs of one build.
#[derive(Debug)]
pub(super) struct BuildBlobs {
    store: Arc<Store>,
    elsewhere: Mutex<BTreeMap<Digest, Elsewhere>>,
    damaged: AtomicBool,
    lost: Arc<Lost>,
}

/// Blobs of caches that could not be had.
#[derive(Debug, Default)]
struct Lost(Mutex<BTreeSet<Digest>>);

impl Lost {
    fn note(&self, digest: &Digest) {
        self.all().insert(digest.clone());
    }

    fn all(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BuildBlobs {
    /// Starts with those of the state directory.
    pub(super) fn new(store: Arc<Store>) -> Self {
        let (damaged, lost) = (AtomicBool::new(false), Arc::default());
        Self { store, elsewhere: Mutex::default(), damaged, lost }
    }

    /// Adds those of a tree that was not fetched.
    pub(super) fn add(&self, tree: &Tree) {
        let Tree::Lazy(lazy) = tree else { return };
        let LazyTree { layers, place } = &**lazy;
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            let digest = layer.descriptor.digest.clone();
            elsewhere.entry(digest).or_insert_with(|| (Arc::clone(place), layer.descriptor.clone()));
        }
    }

    /// Returns whether a blob of the state directory was found damaged or gone since this was asked last.
    pub(super) fn take_damaged(&self) -> bool {
        self.damaged.swap(false, Ordering::Relaxed)
    }

    /// Returns whether a blob of a cache could not be had.
    pub(super) fn is_lost(&self) -> bool {
        !self.lost.all().is_empty()
    }

    /// Returns the blobs of caches that cannot be had, none if none was missed yet. One is seldom alone: all are looked for, and
    /// those of directories read.
    pub(super) async fn lost(&self) -> BTreeSet<Digest> {
        if self.is_lost() {
            let elsewhere: Vec<Elsewhere> =
                self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
            let absent = |(_, layer): &Elsewhere| !matches!(self.store.blob(&layer.digest), Ok(Some(_)));
            let looks = elsewhere.into_iter().filter(absent).map(|(place, layer)| async move {
                if !is_there(&*place, &layer).await {
                    self.lost.note(&layer.digest);
                }
            });
            stream::iter(looks).buffer_unordered(LOOKS).collect::<()>().await;
        }
        self.lost.all().clone()
    }

    fn elsewhere(&self, digest: &Digest) -> Option<Elsewhere> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn fetch(&self, place: &dyn Place, descriptor: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        let runtime = Handle::current();
        match runtime.block_on(place.blob(descriptor)) {
            Ok(chunks) => {
                let (digest, lost) = (descriptor.digest.clone(), Arc::clone(&self.lost));
                Ok(Box::new(Fetched { runtime, chunks, rest: Bytes::new(), digest, lost }))
            }
            Err(error) => {
                self.lost.note(&descriptor.digest);
                Err(io::Error::other(error))
            }
        }
    }
}

impl Blobs for BuildBlobs {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        match (self.store.blob(digest), self.elsewhere(digest)) {
            (Ok(Some((file, _))), _) => Ok(Box::new(file)),
            (_, Some((place, descriptor))) => self.fetch(&*place, &descriptor),
            (Ok(None), None) => {
                self.damaged.store(true, Ordering::Relaxed);
                Err(io::Error::new(io::ErrorKind::NotFound, format!("blob {digest} is not in the state directory")))
            }
            (Err(error), None) => Err(io::Error::other(error)),
        }
    }

    fn reject(&self, digest: &Digest) {
        if self.elsewhere(digest).is_some() {
            self.lost.note(digest);
        }
        self.damaged.store(true, Ordering::Relaxed);
        if let Err(error) = self.store.discard(digest) {
            tracing::warn!("{}", crate::diag::chain(&error));
        }
    }
}

/// Returns whether a blob can be had: a registry says so when it is asked, a directory's must be read.
async fn is_there(place: &dyn Place, layer: &Descriptor) -> bool {
    let Ok(mut chunks) = place.blob(layer).await else { return false };
    if place.repository().is_some() {
        return true;
    }
    while let Some(chunk) = chunks.next().await {
        if chunk.is_err() {
            return false;
        }
    }
    true
}

/// Chunks as a reader, for threads that may wait.
struct Fetched {
    runtime: Handle,
    chunks: Chunks,
    rest: Bytes,
    digest: Digest,
    lost: Arc<Lost>,
}

impl Read for Fetched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.runtime.block_on(self.chunks.next()) {
                None => return Ok(0),
                Some(Ok(chunk)) => self.rest = chunk,
                Some(Err(error)) => {
                    self.lost.note(&self.digest);
                    return Err(io::Error::other(error));
                }
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}
