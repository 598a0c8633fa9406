//! Caches to read: asked for while the Dockerfile is being lowered, and in use when the solver starts.
//!
//! In: what `--cache-from` names. Out: stores for the solver. A cache that cannot be had is told of once and left out.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use tokio::task::JoinHandle;

use super::setup::Stations;
use super::steps::Steps;
use crate::diag::chain;
use crate::ops::{ImportStore, Tree};
use crate::progress::{Event, Sink, Warning};
use crate::remotecache::local::{Damaged, LocalPlace};
use crate::remotecache::patient::{PATIENCE, PatientPlace};
use crate::remotecache::repository::RepositoryPlace;
use crate::remotecache::write::Times;
use crate::remotecache::{self, ImportSpec, Imported, Place, RemoteCacheError};
use crate::snapshot::Snapshots;
use crate::solver::CacheStore;

/// A cache that is being asked for.
struct Asked {
    place: Arc<dyn Place>,
    answer: JoinHandle<Result<Vec<Imported>, RemoteCacheError>>,
}

/// What was learnt of imported caches that matters when caches are exported.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    /// Blobs of directories that are not what they should be.
    pub(super) damaged: Arc<Damaged>,
    /// How times were written that others wrote.
    pub(super) times: OnceLock<Times>,
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
    learnt: Arc<Learnt>,
    sink: Arc<dyn Sink>,
}

impl Imports {
    /// Asks for all caches at once.
    pub(super) fn start(specs: &[ImportSpec], stations: &Stations, sink: &Arc<dyn Sink>) -> Self {
        let steps = Steps::new(Arc::clone(sink));
        let ask = |spec: &ImportSpec| {
            let place = place(spec, stations);
            let step = format!("importing cache manifest from {}", place.name());
            let (asked, steps) = (Arc::clone(&place), steps.clone());
            let answer = tokio::spawn(async move {
                let import: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(remotecache::import(&*asked));
                steps.run(&step, |_| import).await
            });
            Asked { place, answer }
        };
        let asked = specs.iter().map(ask).collect();
        let (snapshots, learnt) = (Arc::clone(&stations.snapshots), Arc::clone(&stations.learnt));
        Self { asked, snapshots, learnt, sink: Arc::clone(sink) }
    }

    /// Waits for the answers and returns what can be asked.
    ///
    /// With it comes what the first cache that says so says of the build it is of.
    pub(super) async fn stores(mut self) -> (Vec<Arc<dyn CacheStore<Tree>>>, Option<Said>) {
        let mut stores: Vec<Arc<dyn CacheStore<Tree>>> = Vec::new();
        let (mut said, mut times) = (None, Times::new());
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
                        times.extend(cache.times());
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
        // It is asked once a build.
        let _ = self.learnt.times.set(times);
        (stores, said)
    }

    fn notice(&self, place: &dyn Place, why: &str) {
        let text = format!("building without the cache {}: {why}", place.name());
        self.sink.send(Event::Warning(Warning::notice(text)));
    }
}

fn place(spec: &ImportSpec, stations: &Stations) -> Arc<dyn Place> {
    match spec {
        ImportSpec::Local { src, tag, digest } => {
            let place = LocalPlace::new(&absolute(src), tag, digest.clone());
            Arc::new(place.noting(Arc::clone(&stations.learnt.damaged)))
        }
        ImportSpec::Registry { reference, timeout, .. } => {
            let place = RepositoryPlace::new(Arc::clone(&stations.client), reference);
            Arc::new(PatientPlace::new(Arc::new(place), timeout.unwrap_or(PATIENCE)))
        }
    }
}

pub(super) fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
