//! A cache that was read from elsewhere as one of the solver's stores.
//!
//! In: a graph of records and where its blobs are. Out: trees: named only where their bytes are not needed, else fetched and
//! unpacked, layer by layer once. On disk the layers are those of `snapshot` and `store`. Invariant: it is only read; what could
//! not be loaded is not offered again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use super::tree::{LazyTree, Tree};
use crate::digest::Digest;
use crate::image::{Descriptor, History};
use crate::progress::{Event, Sink, Vertex};
use crate::remotecache::read::{ImportedRecord, ImportedResult};
use crate::remotecache::{Imported, Place, RemoteCacheError, RemoteLayer};
use crate::snapshot::Snapshots;
use crate::solver::{CacheError, CacheStore, ItemId, LinkQuery, Need, Parent, Record, StoredResult};
use crate::source::{Layer, LayerBlobs, Reporter, SourceError, pull_layers};

/// One imported cache.
pub struct ImportStore {
    imported: Imported,
    place: Arc<dyn Place>,
    snapshots: Arc<Snapshots>,
    sink: Arc<dyn Sink>,
    /// Results that could not be loaded.
    lost: Mutex<BTreeSet<(usize, usize)>>,
}

impl fmt::Debug for ImportStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImportStore({}, {} records)", self.place.name(), self.imported.len())
    }
}

impl ImportStore {
    /// Makes a store of a cache that lies at `place`; its layers become layers of `snapshots`.
    pub fn new(imported: Imported, place: Arc<dyn Place>, snapshots: Arc<Snapshots>, sink: Arc<dyn Sink>) -> Self {
        Self { imported, place, snapshots, sink, lost: Mutex::default() }
    }

    fn number(item: &ItemId) -> Option<usize> {
        item.as_str().parse().ok()
    }

    fn find(&self, item: &ItemId) -> Option<(usize, &ImportedRecord)> {
        let number = Self::number(item)?;
        Some((number, self.imported.record(number)?))
    }

    fn is_lost(&self, result: (usize, usize)) -> bool {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).contains(&result)
    }

    fn result(&self, item: &ItemId, result: &str) -> Option<&ImportedResult> {
        self.find(item)?.1.results.get(result.parse::<usize>().ok()?)
    }

    /// Fetches layers as a step of its own, so that one sees how long it takes.
    async fn fetch(&self, record: &Digest, layers: Vec<&RemoteLayer>) -> Result<Tree, SourceError> {
        let name = format!("pulling cached layers of {} from {}", record.short(), self.place.name());
        let mut vertex = Vertex {
            digest: Digest::compute(format!("rbuild.step:{name}")),
            inputs: Vec::new(),
            name,
            started: Some(SystemTime::now()),
            completed: None,
            cached: false,
            error: String::new(),
        };
        self.sink.send(Event::Vertex(vertex.clone()));
        let reporter = Reporter { sink: Arc::clone(&self.sink), vertex: vertex.digest.clone() };
        let fetched = self.pull(layers, &reporter).await;
        vertex.completed = Some(SystemTime::now());
        vertex.error = fetched.as_ref().err().map(|error| crate::diag::chain(error)).unwrap_or_default();
        self.sink.send(Event::Vertex(vertex));
        fetched
    }

    async fn pull(&self, layers: Vec<&RemoteLayer>, reporter: &Reporter) -> Result<Tree, SourceError> {
        let layers = layers.into_iter().map(|layer| Layer {
            descriptor: layer.descriptor.clone(),
            diff_id: layer.diff_id.clone(),
            history: History {
                created: layer.created.clone(),
                created_by: layer.description.clone(),
                ..History::default()
            },
        });
        let blobs = PlaceBlobs(Arc::clone(&self.place));
        let here = (self.snapshots.store(), &self.snapshots);
        pull_layers(&blobs, here, layers.collect(), reporter).await.map(Tree::Layers)
    }

    fn failed(&self, item: &ItemId, source: Option<Box<dyn std::error::Error + Send + Sync>>) -> CacheError {
        let digest = self.find(item).map_or_else(|| item.to_string(), |(_, record)| record.digest.to_string());
        CacheError { store: self.place.name().to_owned(), action: format!("failed to load {digest}"), source }
    }
}

/// The blobs of a place as the layers' source wants them.
struct PlaceBlobs(Arc<dyn Place>);

impl LayerBlobs for PlaceBlobs {
    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError>> {
        Box::pin(async move {
            let digest = descriptor.digest.clone();
            let chunks = self.0.blob(descriptor).await.map_err(|error| source_error(&digest, error))?;
            Ok(chunks.map(move |chunk| chunk.map_err(|error| source_error(&digest, error))).boxed())
        })
    }

    fn at_once(&self) -> usize {
        self.0.at_once()
    }
}

fn source_error(digest: &Digest, error: RemoteCacheError) -> SourceError {
    match error {
        RemoteCacheError::Registry(error) => error.into(),
        error => SourceError::Read { digest: digest.clone(), source: std::io::Error::other(error) },
    }
}

impl CacheStore<Tree> for ImportStore {
    fn name(&self) -> &str {
        self.place.name()
    }

    fn root(&self, record: &Digest) -> Option<ItemId> {
        self.imported.root(record).map(|number| ItemId::new(number.to_string()))
    }

    fn children(&self, parent: &ItemId, link: LinkQuery<'_>) -> Vec<ItemId> {
        let Some(parent) = Self::number(parent) else { return Vec::new() };
        self.imported.children(parent, link).map(|number| ItemId::new(number.to_string())).collect()
    }

    fn results(&self, item: &ItemId) -> Vec<StoredResult> {
        let Some((number, record)) = self.find(item) else { return Vec::new() };
        let there = record.results.iter().enumerate().filter(|(result, _)| !self.is_lost((number, *result)));
        there.map(|(id, result)| StoredResult { id: id.to_string(), created_at: result.created_at.system() }).collect()
    }

    fn record(&self, item: &ItemId) -> Option<Record> {
        let (_, record) = self.find(item)?;
        let name = |number: usize| ItemId::new(number.to_string());
        let parent =
            |(selector, parent): &(Option<Digest>, usize)| Parent { item: name(*parent), selector: selector.clone() };
        let links = record.inputs.iter().map(|links| links.iter().map(parent).collect()).collect();
        let content = self.imported.content(record).into_iter().map(|number| number.map(name)).collect();
        Some(Record { digest: record.digest.clone(), links, content })
    }

    fn load(&self, item: &ItemId, result: &str, need: Need) -> BoxFuture<'_, Result<Tree, CacheError>> {
        let (item, found) = (item.clone(), self.result(item, result));
        Box::pin(async move {
            let layers = found.map(|result| self.imported.layers(result)).ok_or_else(|| self.failed(&item, None))?;
            match need {
                Need::Handle => {
                    let layers = layers.into_iter().cloned().collect();
                    Ok(Tree::Lazy(Arc::new(LazyTree { layers, place: Arc::clone(&self.place) })))
                }
                Need::Bytes => {
                    let record = self.find(&item).map(|(_, record)| record.digest.clone());
                    let record = record.ok_or_else(|| self.failed(&item, None))?;
                    let fetched = self.fetch(&record, layers).await;
                    fetched.map_err(|error| self.failed(&item, Some(Box::new(error))))
                }
            }
        })
    }

    fn forget(&self, item: &ItemId, result: &str) {
        if let (Some(number), Ok(result)) = (Self::number(item), result.parse()) {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert((number, result));
        }
    }
}
