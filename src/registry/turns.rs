//! One at a time for one thing: whoever comes second finds what the first one did.
//!
//! In: the name of a thing, such as a blob of a repository. Out: a turn, given back when dropped. Invariant: a turn is taken before a
//! place among the transfers, never while one is held, so that nobody waits in a circle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// The turns of one registry.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits until nobody else works on `thing`.
    pub(crate) async fn wait(&self, thing: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(thing.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}
