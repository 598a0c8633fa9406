//! How trees and layers are made in a state root, found out by trying.
//!
//! In: a store, and what is wanted. Out: mounts or copies, and what the notes of layers must say to be of use here. Trying means a
//! mount, its end and the removal of what it left, which takes longer than all else before the first step; so it is done beside
//! that, and waited for by who needs to know, or by the end. Where there may be no trees it is left to the first who needs to know.

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;

use super::overlay::Mounter;
use super::{SnapshotError, SnapshotKind, SnapshotOptions};
use crate::layer::place::make_device_whiteout;
use crate::store::Store;
use crate::sys::dir::Dir;
use crate::sys::idmap;

/// Added to the note on owners of layers in which sockets are whiteouts.
const SOCKETS: &str = "; sockets are whiteouts";

/// How trees and layers are made.
#[derive(Debug)]
pub(super) struct Manner {
    /// None where trees are copies.
    pub(super) mounter: Option<Arc<Mounter>>,
    /// What owners on disk mean here, and whether whiteouts are not overlay's.
    pub(super) owners: String,
}

impl Manner {
    /// Returns what the user may know of it.
    pub(super) fn kind(&self) -> SnapshotKind {
        if self.mounter.is_some() { SnapshotKind::Overlay } else { SnapshotKind::Native }
    }
}

type Answer = Box<dyn FnOnce() -> Manner + Send>;

/// A manner that may still be tried.
pub(super) struct Trial {
    answer: LazyLock<Manner, Answer>,
    /// Whether a thread tries it.
    begun: bool,
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trial").finish_non_exhaustive()
    }
}

impl Trial {
    /// Tries what `kind` allows; only what leaves no choice is known at once.
    pub(super) fn start(store: &Arc<Store>, snapshots: &Dir, options: SnapshotOptions) -> Result<Self, SnapshotError> {
        let failed = |source| SnapshotError::Open { path: store.path().to_owned(), source };
        let owners = idmap::own().map_err(failed)?;
        let mounter = || snapshots.reopen().and_then(Mounter::start);
        let begun = options.kind == SnapshotKind::Auto && !options.lazy;
        let answer: Answer = match options.kind {
            SnapshotKind::Native => {
                let manner = copies(store, owners);
                Box::new(|| manner)
            }
            SnapshotKind::Overlay => {
                let tried = mounter().and_then(|mounter| mounter.probe(store).map(|()| Arc::new(mounter)));
                let mounter =
                    tried.map_err(|source| SnapshotError::Overlay { path: store.path().to_owned(), source })?;
                Box::new(|| Manner { mounter: Some(mounter), owners })
            }
            SnapshotKind::Auto => {
                let (store, snapshots) = (Arc::clone(store), snapshots.reopen());
                let trial = move || either(&store, snapshots.and_then(Mounter::start), owners);
                match begun {
                    true => waiting(trial).map_err(failed)?,
                    false => Box::new(trial),
                }
            }
        };
        Ok(Self { answer: LazyLock::new(answer), begun })
    }

    /// Returns the answer, waiting for it if need be.
    pub(super) fn manner(&self) -> &Manner {
        &self.answer
    }

    /// Returns the answer if there is one already.
    pub(super) fn found(&self) -> Option<&Manner> {
        LazyLock::get(&self.answer)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // The trial has files in the state directory, which it removes.
        if self.begun {
            LazyLock::force(&self.answer);
        }
    }
}

/// Has a thread try it.
fn waiting(trial: impl FnOnce() -> Manner + Send + 'static) -> io::Result<Answer> {
    let trial: JoinHandle<Manner> = std::thread::Builder::new().name("try-overlay".into()).spawn(trial)?;
    Ok(Box::new(|| trial.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
}

/// Mounts if they can be had, else copies.
fn either(store: &Store, mounter: io::Result<Mounter>, owners: String) -> Manner {
    match mounter.and_then(|mounter| mounter.probe(store).map(|()| mounter)) {
        Ok(mounter) => Manner { mounter: Some(Arc::new(mounter)), owners },
        Err(error) => {
            tracing::info!(%error, "no overlay mounts here: trees will be copied");
            copies(store, owners)
        }
    }
}

fn copies(store: &Store, mut owners: String) -> Manner {
    let devices = makes_device_whiteouts(store);
    if !devices.unwrap_or_else(|error| {
        tracing::debug!(%error, "failed to try whether overlay's whiteouts can be made");
        false
    }) {
        owners.push_str(SOCKETS);
    }
    Manner { mounter: None, owners }
}

/// Tries whether overlay's whiteouts can be made where `store` is.
fn makes_device_whiteouts(store: &Store) -> io::Result<bool> {
    let scratch = store.scratch();
    let (name, dir) = scratch.make_dir()?;
    let made = make_device_whiteout(&dir, std::ffi::OsStr::new("removed"));
    scratch.dir().remove_all(&name)?;
    match made {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        result => result.map(|()| true),
    }
}
