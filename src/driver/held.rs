//! What lies already where a cache is to be written.
//!
//! In: the targets of `--cache-to`. Out: caches that belong to others, to be merged into what is written. They do where the tag
//! has changed since this build began, and where this build has less to tell than the one before, because it failed or was
//! stopped. Otherwise a cache replaces the former one, as BuildKit's does, so that caches do not grow for ever. Nothing here can
//! fail a build: what cannot be read is as good as absent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::imports::absolute;
use crate::digest::Digest;
use crate::image::Reference;
use crate::registry::Client;
use crate::remotecache::local::LocalPlace;
use crate::remotecache::patient::{PATIENCE, PatientPlace};
use crate::remotecache::repository::RepositoryPlace;
use crate::remotecache::spec::Store;
use crate::remotecache::{self, ExportTarget, Imported, Place};

/// Where a cache is to be written.
#[derive(Debug, Clone)]
enum Target {
    Local { dest: PathBuf, tag: String },
    Registry { client: Arc<Client>, reference: Reference },
}

/// What lay there when the build began.
#[derive(Debug, Clone)]
pub(super) struct Held {
    target: Target,
    before: Arc<OnceCell<Option<Digest>>>,
}

/// What lies there now.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Its digest; none if nothing does.
    pub(super) digest: Option<Digest>,
    /// What of it is to be merged.
    pub(super) caches: Vec<Imported>,
}

/// Whether a build has all to tell that it was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// It has.
    Whole,
    /// It failed or was stopped.
    Partial,
}

impl Held {
    /// Asks what lies where each target will be written; none for one that has no place of its own.
    pub(super) fn start(targets: &[ExportTarget], client: &Arc<Client>) -> Vec<Option<Self>> {
        let held = targets.iter().map(|target| Self::of(&target.store, client));
        let start = |held: Option<Self>| {
            let asked = held.clone();
            tokio::spawn(async move {
                if let Some(held) = asked {
                    held.before().await;
                }
            });
            held
        };
        held.map(start).collect()
    }

    fn of(store: &Store, client: &Arc<Client>) -> Option<Self> {
        let target = match store {
            Store::Inline => return None,
            Store::Local { dest, tag, .. } => Target::Local { dest: absolute(Path::new(dest)), tag: tag.clone() },
            Store::Registry { reference, .. } => {
                Target::Registry { client: Arc::clone(client), reference: reference.clone() }
            }
        };
        Some(Self { target, before: Arc::default() })
    }

    async fn before(&self) -> Option<Digest> {
        self.before.get_or_init(|| self.now()).await.clone()
    }

    async fn now(&self) -> Option<Digest> {
        match self.target.place(None).root().await {
            Ok((descriptor, _)) => Some(descriptor.digest),
            Err(error) => {
                tracing::debug!("nothing to merge: {}", crate::diag::chain(&error));
                None
            }
        }
    }

    /// Returns what lies there now, with its caches where they are others'.
    pub(super) async fn others(&self, extent: Extent) -> Others {
        let before = self.before().await;
        let digest = self.now().await;
        let Some(now) = digest.as_ref().filter(|now| extent == Extent::Partial || before.as_ref() != Some(now)) else {
            return Others { digest, caches: Vec::new() };
        };
        let place = self.target.place(Some(now.clone()));
        let caches = remotecache::import(&*place).await.unwrap_or_else(|error| {
            tracing::debug!("what another build wrote is not merged: {}", crate::diag::chain(&error));
            Vec::new()
        });
        Others { digest, caches }
    }
}

impl Target {
    fn place(&self, digest: Option<Digest>) -> Box<dyn Place> {
        match self {
            Self::Local { dest, tag } => Box::new(LocalPlace::new(dest, tag, digest)),
            Self::Registry { client, reference } => {
                let reference = match digest {
                    Some(digest) => reference.clone().with_digest(digest),
                    None => reference.clone(),
                };
                let place = RepositoryPlace::new(Arc::clone(client), &reference);
                Box::new(PatientPlace::new(Arc::new(place), PATIENCE))
            }
        }
    }
}
