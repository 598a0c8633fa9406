//! A cache that may never answer: waited for so long, and then done without.
//!
//! In: a place. Out: the same, whose questions end in an error when nothing came of it for a while. Invariant: after that it is
//! not waited for again, so a registry that swallows everything costs one wait in all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::time::Instant;

use super::RemoteCacheError;
use super::place::{Chunks, Place};
use crate::image::{Descriptor, Reference};

/// How long a cache may keep silent about its documents: without it, the build would have begun.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How many times as long it may about a blob, which may have to wait for its turn among others of the registry.
const BLOBS: u32 = 4;

/// A place that is not waited for for ever.
#[derive(Debug)]
pub struct PatientPlace {
    inner: Arc<dyn Place>,
    patience: Patience,
}

/// What is known of how a place answers.
#[derive(Debug, Clone)]
struct Patience {
    limit: Duration,
    moved: Arc<Mutex<Instant>>,
    given_up: Arc<AtomicBool>,
}

impl PatientPlace {
    /// Wraps a place that may keep silent for `limit`.
    pub fn new(inner: Arc<dyn Place>, limit: Duration) -> Self {
        let patience = Patience { limit, moved: Arc::new(Mutex::new(Instant::now())), given_up: Arc::default() };
        Self { inner, patience }
    }
}

impl Patience {
    fn for_blobs(&self) -> Self {
        Self { limit: self.limit.saturating_mul(BLOBS), ..self.clone() }
    }

    fn note(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn moved(&self) -> Instant {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an answer as long as anything comes from the place.
    async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, RemoteCacheError> {
        let begin = Instant::now();
        let mut work = std::pin::pin!(work);
        while !self.given_up.load(Ordering::Relaxed) {
            let end = self.moved().max(begin) + self.limit;
            tokio::select! {
                biased;
                answer = &mut work => {
                    self.note();
                    return Ok(answer);
                }
                () = tokio::time::sleep_until(end) => {
                    if self.moved().max(begin) + self.limit <= end {
                        self.given_up.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        Err(RemoteCacheError::Silent { limit: self.limit })
    }
}

impl Place for PatientPlace {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn root(&self) -> BoxFuture<'_, Result<(Descriptor, Bytes), RemoteCacheError>> {
        Box::pin(async { self.patience.within(self.inner.root()).await? })
    }

    fn document<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        limit: u64,
    ) -> BoxFuture<'a, Result<Bytes, RemoteCacheError>> {
        Box::pin(async move { self.patience.within(self.inner.document(descriptor, limit)).await? })
    }

    fn blob<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Chunks, RemoteCacheError>> {
        Box::pin(async move {
            let patience = self.patience.for_blobs();
            let chunks = patience.within(self.inner.blob(descriptor)).await??;
            let read = |state: Option<(Chunks, Patience)>| async move {
                let (mut chunks, patience) = state?;
                match patience.within(chunks.next()).await {
                    Ok(chunk) => Some((chunk?, Some((chunks, patience)))),
                    // Nothing more is asked of what ended in an error.
                    Err(error) => Some((Err(error), None)),
                }
            };
            Ok(stream::unfold(Some((chunks, patience)), read).boxed())
        })
    }

    fn at_once(&self) -> usize {
        self.inner.at_once()
    }

    fn repository(&self) -> Option<&Reference> {
        self.inner.repository()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Answers after a while, or never, and gives blobs piece by piece, as slowly.
    #[derive(Debug)]
    struct Slow(Option<Duration>, AtomicUsize);

    async fn wait(time: Option<Duration>) {
        match time {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    }

    impl Place for Slow {
        fn name(&self) -> &str {
            "slow"
        }
        fn root(&self) -> BoxFuture<'_, Result<(Descriptor, Bytes), RemoteCacheError>> {
            Box::pin(async {
                self.1.fetch_add(1, Ordering::SeqCst);
                wait(self.0).await;
                Ok((Descriptor::of("x", b""), Bytes::new()))
            })
        }
        fn document<'a>(&'a self, _: &'a Descriptor, _: u64) -> BoxFuture<'a, Result<Bytes, RemoteCacheError>> {
            Box::pin(async { self.root().await.map(|root| root.1) })
        }
        fn blob<'a>(&'a self, _: &'a Descriptor) -> BoxFuture<'a, Result<Chunks, RemoteCacheError>> {
            let time = self.0;
            let piece = move |left: u32| async move {
                wait(time).await;
                (left > 0).then(|| (Ok(Bytes::from_static(b"x")), left - 1))
            };
            Box::pin(async move { Ok(stream::unfold(9, piece).boxed()) })
        }
    }

    fn place(time: Option<Duration>, limit: u64) -> (Arc<Slow>, PatientPlace) {
        let slow = Arc::new(Slow(time, AtomicUsize::new(0)));
        (Arc::clone(&slow), PatientPlace::new(slow, Duration::from_millis(limit)))
    }

    #[tokio::test]
    async fn who_is_silent_too_long_is_not_asked_again() {
        let (slow, patient) = place(None, 20);
        let blob = Descriptor::of("x", b"");
        let mut begun = patient.blob(&blob).await.expect("it opens at once");
        assert!(matches!(begun.next().await, Some(Err(RemoteCacheError::Silent { .. }))));
        assert!(begun.next().await.is_none());
        assert!(patient.root().await.is_err() && patient.document(&blob, 1).await.is_err());
        assert!(patient.blob(&blob).await.is_err());
        assert_eq!(slow.1.load(Ordering::SeqCst), 0, "what is known to be silent is not asked");
        let (slow, patient) = place(None, 20);
        assert!(matches!(patient.root().await, Err(RemoteCacheError::Silent { .. })));
        assert!(patient.root().await.is_err());
        assert_eq!(slow.1.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn who_is_slow_is_waited_for() {
        // All pieces take longer than the limit, none of them does.
        let (_, patient) = place(Some(Duration::from_millis(30)), 60);
        assert!(patient.root().await.is_ok());
        let chunks = patient.blob(&Descriptor::of("x", b"")).await.expect("blob");
        assert_eq!(chunks.filter(|chunk| std::future::ready(chunk.is_ok())).count().await, 9);
        assert!(patient.root().await.is_ok());
    }
}
