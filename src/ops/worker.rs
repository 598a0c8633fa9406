//! What the ops of one build share: the state directory's stations, the contexts, the executor, secrets, and where news go.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::caches::CacheMounts;
use super::{OpsError, Tree, vertex};
use crate::cdi::Devices;
use crate::checksum::{ChecksumError, Entry, Selector};
use crate::digest::Digest;
use crate::exec::Executor;
use crate::image::Platform;
use crate::progress::{Event, Log, Sink, Stream};
use crate::secrets::{Agent, Secret};
use crate::snapshot::{Chain, LayerId, Snapshots};
use crate::solver::OpError;
use crate::source::git::GitSource;
use crate::source::http::HttpSource;
use crate::source::local::Context;
use crate::source::{ImageSource, OciLayout, ResolvedImage, SecretLookup};
use crate::store::Store;

/// Told of each layer a step made, at once, so that its blob can be made while later steps run.
pub trait LayerObserver: Send + Sync {
    /// Takes a new layer and the step that made it.
    fn layer(&self, vertex: &Digest, layer: LayerId);
}

/// Lists files: calls back with each and its digest.
pub type ListFiles<'a> = dyn Fn(&mut dyn FnMut(&Entry, &Digest)) -> Result<(), ChecksumError> + 'a;

/// Told of what keys are made of, as far as only running a build shows it.
pub trait Witness: Send + Sync {
    /// Takes the content key of an input of a step, which covers what the selectors name; `files` lists what that is.
    fn content(&self, input: (&Digest, usize), content: &Digest, selectors: &[Selector], files: &ListFiles<'_>);

    /// Takes what a source resolved to.
    fn resolved(&self, step: &Digest, to: String);
}

/// Secrets by id.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, Arc<Secret>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    /// Adds a secret.
    pub fn insert(&mut self, id: String, secret: Secret) {
        self.0.insert(id, Arc::new(secret));
    }

    /// Returns the secret of an id.
    pub fn get(&self, id: &str) -> Option<&Secret> {
        self.0.get(id).map(Arc::as_ref)
    }
}

impl SecretLookup for Secrets {
    fn secret(&self, id: &str) -> Option<&Secret> {
        self.get(id)
    }
}

/// Ssh agents by id.
pub type Agents = BTreeMap<String, Agent>;

/// What the ops of one build share.
pub struct Worker {
    /// Blobs.
    pub store: Arc<Store>,
    /// Trees.
    pub snapshots: Arc<Snapshots>,
    /// Processes.
    pub executor: Executor,
    /// Platforms of the images that steps start from, by step; a step that starts from nothing has none.
    pub bases: BTreeMap<Digest, Platform>,
    /// Images of registries.
    pub images: ImageSource,
    /// Images the frontend resolved, by source identifier and platform.
    pub resolved: BTreeMap<(String, Platform), ResolvedImage>,
    /// OCI layouts by store name.
    pub layouts: BTreeMap<String, Arc<OciLayout>>,
    /// Local contexts by name.
    pub contexts: BTreeMap<String, Arc<Context>>,
    /// Files of web servers.
    pub http: Arc<HttpSource>,
    /// Git repositories.
    pub git: Arc<GitSource>,
    /// Secrets.
    pub secrets: Secrets,
    /// Ssh agents.
    pub agents: Agents,
    /// Devices of the machine.
    pub devices: Devices,
    /// Directories that outlive the build.
    pub caches: CacheMounts,
    /// Where logs and status go.
    pub sink: Arc<dyn Sink>,
    /// Told of new layers.
    pub layers: Arc<dyn LayerObserver>,
    /// Told of what keys are made of; nobody where that is not recorded.
    pub witness: Option<Arc<dyn Witness>>,
    /// Contexts that were copied into layers because a step mounts them, by address of the context.
    pub materialised: Materialised,
}

/// Contexts as layers, each made once a build.
#[derive(Debug, Default)]
pub struct Materialised(Mutex<Vec<(Arc<Context>, Chain)>>);

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("resolved", &self.resolved.keys()).finish_non_exhaustive()
    }
}

impl Worker {
    /// Reports the top layer of a chain a step has made.
    pub(super) fn made(&self, vertex: &Digest, chain: &Chain) {
        if let Some(layer) = chain.top() {
            self.layers.layer(vertex, layer);
        }
    }

    /// Says in the log of a step which optional devices are not there.
    pub(super) fn tell_missing(&self, vertex: &Digest, missing: &[String]) {
        for name in missing {
            let text = format!("the optional device {name} is not registered, the step does without it\n");
            self.sink.send(Event::Log(Log {
                vertex: vertex.clone(),
                stream: Stream::Stderr,
                data: text.into_bytes(),
                timestamp: SystemTime::now(),
            }));
        }
    }

    /// Reports what a source resolved to.
    pub(super) fn resolved(&self, vertex: &Digest, to: impl FnOnce() -> String) {
        if let Some(witness) = &self.witness {
            witness.resolved(vertex, to());
        }
    }

    /// Returns a tree as layers; a context is copied into one, without what its rules ignore.
    pub(super) fn layers_of(&self, tree: &Tree) -> Result<Chain, OpError> {
        let context = match tree {
            Tree::Layers(chain) => return Ok(chain.clone()),
            Tree::Context(context) => context,
            Tree::Lazy(_) => return Err(OpsError::NotFetched.into()),
        };
        let mut made = self.materialised.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, chain)) = made.iter().find(|(known, _)| Arc::ptr_eq(known, context)) {
            return Ok(chain.clone());
        }
        let active = self.snapshots.prepare(&Chain::empty())?;
        vertex::copy_tree(self, tree, "/", &active.dir()?)?;
        let chain = self.snapshots.commit(active, "build context")?;
        made.push((Arc::clone(context), chain.clone()));
        Ok(chain)
    }
}
