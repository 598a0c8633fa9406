//! Content to a registry: ask, mount, upload.
//!
//! In: a descriptor and a way to read the content anew. Out: whether it was there, was mounted, or was sent. How it is asked for is
//! [`super::look`]'s, and how it is sent [`super::upload`]'s.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::AsyncRead;

use super::client::Client;
use super::error::RegistryError;
use super::look::{Found, look, turn_of};
use super::precheck::take_back;
use super::upload::{Target, Upload};
use crate::image::{Descriptor, Reference};

/// Content being read.
pub type ByteReader = Pin<Box<dyn AsyncRead + Send>>;

/// Opens the content from its start, once for each attempt.
pub type Open = dyn Fn() -> BoxFuture<'static, io::Result<ByteReader>> + Send + Sync;

/// Takes the number of bytes handed to the network so far; goes back to 0 when an upload starts again.
pub type OnSent = Arc<dyn Fn(u64) + Send + Sync>;

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was sent.
    Uploaded,
    /// It was there.
    Existed,
    /// It was linked from another repository of the registry.
    Mounted,
}

/// Where in a registry a blob may be besides where it is pushed to.
#[derive(Debug, Clone, Copy)]
pub enum Whereabouts<'a> {
    /// Nowhere: it was made a moment ago.
    Nowhere,
    /// In these repositories, and perhaps there already. Those of other registries count for nothing.
    Repositories(&'a [Reference]),
}

/// To ask for a blob of up to this size takes as long as to send it.
const SMALL: u64 = 64 << 10;
/// How long an upload that was begun ahead is used: to be told that it is gone costs more than to begin another.
const FRESH: Duration = Duration::from_secs(60);

impl Client {
    /// Makes sure the repository of `target` has a blob. What this client itself found or put there a moment ago is not asked for again.
    #[expect(
        clippy::too_many_arguments,
        reason = "what, how, where to and where from; a struct would only rename them"
    )]
    pub async fn push_blob(
        &self,
        target: &Reference,
        descriptor: &Descriptor,
        open: &Open,
        whereabouts: Whereabouts<'_>,
        sent: OnSent,
    ) -> Result<Pushed, RegistryError> {
        let endpoint = self.endpoint(&target.registry).await?;
        let repository = target.repository.as_str();
        let to = Target { endpoint: &endpoint, repository };
        let _turn = endpoint.turns.wait(&turn_of(to, descriptor)).await;
        if endpoint.has(repository, &descriptor.digest) {
            return Ok(Pushed::Existed);
        }
        let upload = Upload { to, descriptor, open, sent };
        let small = descriptor.size <= SMALL;
        // It may be there already, but to look for it takes as long.
        let is_candidate = small && matches!(whereabouts, Whereabouts::Nowhere | Whereabouts::Repositories([]));
        if is_candidate && send_in_kept_session(&upload).await {
            endpoint.note(repository, &descriptor.digest);
            return Ok(Pushed::Uploaded);
        }
        let found = match whereabouts {
            Whereabouts::Nowhere if small => Found::Nowhere(None),
            Whereabouts::Nowhere => look(to, descriptor, &[]).await?,
            Whereabouts::Repositories(others) => look(to, descriptor, others).await?,
        };
        let pushed = match found {
            Found::Here(pushed) => pushed,
            Found::Nowhere(session) => {
                let _place = endpoint.limits.place_for(&descriptor.media_type).await;
                upload.run(session).await.map(|()| Pushed::Uploaded)?
            }
        };
        endpoint.note(repository, &descriptor.digest);
        Ok(pushed)
    }
}

/// Sends a small blob with the upload that was begun ahead, if there is one; whatever goes wrong with that one, another is begun.
async fn send_in_kept_session(upload: &Upload<'_>) -> bool {
    let Target { endpoint, repository } = upload.to;
    // One may be about to begin.
    drop(endpoint.turns.wait(repository).await);
    let Some(session) = endpoint.take_session(repository, FRESH) else { return false };
    let _place = endpoint.limits.place_for(&upload.descriptor.media_type).await;
    let sent = upload.whole(&session).await;
    if let Err(error) = &sent {
        tracing::debug!(blob = %upload.descriptor.digest, %error, "not sent with the upload that was begun ahead");
        if matches!(error, RegistryError::Status { .. }) {
            take_back(endpoint, repository, session.url).await;
        }
    }
    sent.is_ok()
}
