//! One at a time for one blob of one repository: whoever comes second finds what the first one did.
//!
//! In: a repository and a digest. Out: a turn, given back when dropped. Invariant: a turn is taken before a place among the transfers,
//! never while one is held, so that nobody waits in a circle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::digest::Digest;

type Key = (String, Digest);

/// The turns of one registry.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<Key, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits until nobody else works on a blob of a repository.
    pub(crate) async fn wait(&self, repository: &str, blob: &Digest) -> OwnedMutexGuard<()> {
        let key = (repository.to_owned(), blob.clone());
        let turn = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        turn.lock_owned().await
    }
}
