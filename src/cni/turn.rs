//! Whose turn it is to change the machine's network: a lock that all rbuilds of a network namespace meet at, whatever their
//! state directory is. It is on the namespace itself and leaves nothing on disk.
//!
//! Plugins that make a bridge trip over each other when they make the same one at the same time, so who is first is alone; and
//! a bridge that is no longer used goes only while nobody puts something on it.

use std::time::{Duration, Instant};

use super::CniError;
use crate::sys::lock::FileLock;

/// Time between two attempts.
const RETRY: Duration = Duration::from_millis(5);
/// Longer than a plugin may take.
const LIMIT: Duration = Duration::from_secs(90);

/// How long who clears up waits: others are quick unless a plugin hangs.
const COURTESY: Duration = Duration::from_secs(2);

/// Waits until this process may change the network: alone, or beside others.
pub(super) async fn take(alone: bool) -> Result<FileLock, CniError> {
    let told = || CniError::TimedOut { what: "another build that sets up a network".into(), seconds: LIMIT.as_secs() };
    within(LIMIT, alone).await?.ok_or_else(told)
}

/// Waits a little until nobody else changes the network.
pub(super) async fn try_alone() -> Result<Option<FileLock>, CniError> {
    within(COURTESY, true).await
}

async fn within(limit: Duration, alone: bool) -> Result<Option<FileLock>, CniError> {
    let began = Instant::now();
    loop {
        let lock = FileLock::try_network(alone);
        let lock = lock.map_err(|source| CniError::Record { action: "lock the machine's network", source })?;
        if lock.is_some() || began.elapsed() >= limit {
            return Ok(lock);
        }
        tokio::time::sleep(RETRY).await;
    }
}
