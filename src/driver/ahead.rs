//! Hashes files of the context while images are asked for.
//!
//! In: the context, and paths that steps will read. Out: what is known of the context, which all that look at it share; nothing on disk.
//! What cannot be read is left to the step that needs it, whose error has a line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::source::local::Context;

/// The work of one thread, which ends after this is dropped: with the directory tree or the piece of files that it is at.
#[derive(Debug)]
pub(super) struct ReadAhead(Arc<AtomicBool>);

impl ReadAhead {
    /// Starts to hash what `paths` name.
    pub(super) fn start(context: Arc<Context>, paths: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        tokio::task::spawn_blocking(move || {
            let outcome = context.tree().hash_ahead(&paths, &stopped);
            tracing::debug!(files = paths.join(" "), ?outcome, "hashed files of the context ahead");
        });
        Self(stop)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
