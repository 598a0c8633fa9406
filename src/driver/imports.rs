//! Caches to read: asked for while the Dockerfile is being lowered, and in use when the solver starts.
//!
//! In: what `--cache-from` names. Out: stores for the solver. A cache that cannot be had is told of once and left out.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::setup::Stations;
use super::steps::Steps;
use crate::diag::chain;
use crate::ops::{ImportStore, Tree};
use crate::progress::{Event, Sink, Warning};
use crate::registry::Client;
use crate::remotecache::local::LocalPlace;
use crate::remotecache::repository::RepositoryPlace;
use crate::remotecache::{self, ImportSpec, Imported, Place, RemoteCacheError};
use crate::snapshot::Snapshots;
use crate::solver::CacheStore;

/// A cache that is being asked for.
struct Asked {
    place: Arc<dyn Place>,
    answer: JoinHandle<Result<Vec<Imported>, RemoteCacheError>>,
}

/// What a cache says of the build it is of.
#[derive(Debug)]
pub(super) struct Said {
    /// The cache.
    pub(super) cache: String,
    /// Foreign text.
    pub(super) text: String,
}

/// Caches that are being asked for.
pub(super) struct Imports {
    asked: Vec<Asked>,
    snapshots: Arc<Snapshots>,
    sink: Arc<dyn Sink>,
}

impl Imports {
    /// Asks for all caches at once.
    pub(super) fn start(specs: &[ImportSpec], stations: &Stations, sink: &Arc<dyn Sink>) -> Self {
        let steps = Steps::new(Arc::clone(sink));
        let ask = |spec: &ImportSpec| {
            let place = place(spec, &stations.client);
            let step = format!("importing cache manifest from {}", place.name());
            let (asked, steps) = (Arc::clone(&place), steps.clone());
            let answer = tokio::spawn(async move {
                let import: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(remotecache::import(&*asked));
                steps.run(&step, |_| import).await
            });
            Asked { place, answer }
        };
        let asked = specs.iter().map(ask).collect();
        Self { asked, snapshots: Arc::clone(&stations.snapshots), sink: Arc::clone(sink) }
    }

    /// Waits for the answers and returns what can be asked.
    ///
    /// With it comes what the first cache that says so says of the build it is of.
    pub(super) async fn stores(mut self) -> (Vec<Arc<dyn CacheStore<Tree>>>, Option<Said>) {
        let mut stores: Vec<Arc<dyn CacheStore<Tree>>> = Vec::new();
        let mut said = None;
        for Asked { place, answer } in std::mem::take(&mut self.asked) {
            let failed = match answer.await {
                Ok(Ok(caches)) => {
                    if caches.is_empty() {
                        self.notice(&*place, "it has no cache");
                    }
                    for mut cache in caches {
                        if let (None, Some(text)) = (&said, cache.explained.take()) {
                            said = Some(Said { cache: place.name().to_owned(), text });
                        }
                        let (place, snapshots) = (Arc::clone(&place), Arc::clone(&self.snapshots));
                        stores.push(Arc::new(ImportStore::new(cache, place, snapshots, Arc::clone(&self.sink))));
                    }
                    continue;
                }
                Ok(Err(error)) => chain(&error),
                Err(error) => error.to_string(),
            };
            self.notice(&*place, &failed);
        }
        (stores, said)
    }

    fn notice(&self, place: &dyn Place, why: &str) {
        let text = format!("building without the cache {}: {why}", place.name());
        self.sink.send(Event::Warning(Warning::notice(text)));
    }
}

fn place(spec: &ImportSpec, client: &Arc<Client>) -> Arc<dyn Place> {
    match spec {
        ImportSpec::Local { src, tag, digest } => Arc::new(LocalPlace::new(&absolute(src), tag, digest.clone())),
        ImportSpec::Registry { reference, .. } => Arc::new(RepositoryPlace::new(Arc::clone(client), reference)),
    }
}

pub(super) fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
