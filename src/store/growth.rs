//! A blob that is read while it is being written.
//!
//! In: the file of a [`super::BlobWriter`], and word of each write to it. Out: readers that wait for what is not written yet. Invariant: a
//! reader comes to an end only where the blob has, under its digest; one that was given up is an error.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::digest::Digest;

/// How far a blob is.
#[derive(Debug, Clone, Default)]
struct State {
    written: u64,
    end: Option<End>,
}

#[derive(Debug, Clone)]
enum End {
    Stored(Digest),
    GivenUp,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait_until(&self, ready: impl Fn(&State) -> bool) -> State {
        let waited = self.changed.wait_while(self.lock(), |state| !ready(state) && state.end.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The writer's side; dropped before the end, the blob is given up.
#[derive(Debug, Default)]
pub(super) struct Growth(Arc<Shared>);

impl Growth {
    /// Tells that so many bytes more can be read.
    pub(super) fn grew(&self, count: usize) {
        self.0.change(|state| state.written += count as u64);
    }

    /// Tells that the blob is whole and stored.
    pub(super) fn stored(&self, digest: &Digest) {
        self.0.change(|state| state.end = Some(End::Stored(digest.clone())));
    }

    /// Makes a follower that reads from `file`, which nobody else does, and that knows of what is written from now on.
    pub(super) fn follower(&self, file: File) -> Follower {
        Follower { shared: Arc::clone(&self.0), file: Arc::new(file) }
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.end.get_or_insert(End::GivenUp);
        });
    }
}

/// The readers' side. All of it waits on the calling thread.
#[derive(Debug, Clone)]
pub struct Follower {
    shared: Arc<Shared>,
    file: Arc<File>,
}

impl Follower {
    /// Waits until that many bytes are written, and returns whether the blob still grows then.
    pub fn grows_beyond(&self, bytes: u64) -> bool {
        self.shared.wait_until(|state| state.written > bytes).end.is_none()
    }

    /// Waits for the end, and returns digest and size of the blob; none if it was given up.
    pub fn stored(&self) -> Option<(Digest, u64)> {
        let state = self.shared.wait_until(|_| false);
        match state.end {
            Some(End::Stored(digest)) => Some((digest, state.written)),
            _ => None,
        }
    }

    /// Returns a reader of all of it.
    pub fn reader(&self) -> impl Read + Send + use<> {
        Reader { follower: self.clone(), at: 0 }
    }
}

#[derive(Debug)]
struct Reader {
    follower: Follower,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.follower.shared.wait_until(|state| state.written > self.at);
        if matches!(state.end, Some(End::GivenUp)) {
            return Err(io::Error::other("it was given up while it was being made"));
        }
        let there = usize::try_from(state.written - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.follower.file.read_at(&mut buffer[..there], self.at)?;
        if count == 0 && there > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}
