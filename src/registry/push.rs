//! Content to a registry: ask, mount, upload.
//!
//! In: a descriptor and a way to read the content anew. Out: whether it was there, was mounted, or was sent. How it is sent is
//! [`super::upload`]'s.
//!
//! To ask and to mount cost a round trip each; they wait for a place among the blobs that are moved, but are done for all blobs before
//! the long uploads take these places. That a registry does not answer them as it should is no reason not to send.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncRead;

use super::client::Client;
use super::credentials::Access;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::precheck::take_back;
use super::transport::{self, Call, Scope, Wish};
use super::upload::{Session, Target, Upload};
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
    /// Makes sure the repository of `target` has a blob. What this client itself found or put there is not asked for again.
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
        if endpoint.has(repository, &descriptor.digest) {
            return Ok(Pushed::Existed);
        }
        let upload = Upload { to: Target { endpoint: &endpoint, repository }, descriptor, open, sent };
        let small = descriptor.size <= SMALL;
        // It may be there already, but to look for it takes as long.
        let is_candidate = small && matches!(whereabouts, Whereabouts::Nowhere | Whereabouts::Repositories([]));
        if is_candidate && send_in_kept_session(&upload).await {
            endpoint.note(repository, &descriptor.digest);
            return Ok(Pushed::Uploaded);
        }
        let found = match whereabouts {
            Whereabouts::Nowhere if small => Found::Nowhere(None),
            Whereabouts::Nowhere => look(&upload, None).await?,
            Whereabouts::Repositories(others) => {
                let mut others = others.iter().filter(|r| r.registry == target.registry && r.repository != repository);
                look(&upload, others.next()).await?
            }
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

/// Returns whether a repository has a blob.
pub(crate) async fn exists(
    endpoint: &Endpoint,
    repository: &str,
    descriptor: &Descriptor,
    scope: Scope,
) -> Result<bool, RegistryError> {
    let access = if scope == Scope::push(repository) { Access::Push } else { Access::Pull };
    let url = endpoint.url(&format!("{repository}/blobs/{}", descriptor.digest))?;
    let response = endpoint.send(&Call::new(Method::HEAD, url, vec![scope])).await?;
    match response.status() {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(transport::failure(endpoint, response, Wish { repository, access, action: "find a blob" }).await),
    }
}

/// Where a blob turned out to be.
enum Found {
    /// In the repository, now.
    Here(Pushed),
    /// Nowhere that helps; perhaps a session was begun for it.
    Nowhere(Option<Session>),
}

/// Looks for a blob in the repository, and links it from `other`. To link finds what is there too: so that comes first where the
/// repository lacked something before, as one that is new lacks all.
async fn look(upload: &Upload<'_>, other: Option<&Reference>) -> Result<Found, RegistryError> {
    let Target { endpoint, repository } = upload.to;
    let _place = endpoint.limits.place_for(&upload.descriptor.media_type).await;
    let mut session = None;
    let mut other = other;
    if let Some(first) = other.take_if(|_| endpoint.lacks_some(repository)) {
        match mount(upload, &first.repository).await? {
            Found::Nowhere(begun) => session = begun,
            found => return Ok(found),
        }
    }
    match (is_there(upload).await?, other) {
        (true, _) => {
            if let Some(session) = session {
                take_back(endpoint, repository, session.url).await;
            }
            Ok(Found::Here(Pushed::Existed))
        }
        (false, None) => Ok(Found::Nowhere(session)),
        (false, Some(other)) => mount(upload, &other.repository).await,
    }
}

/// Asks for the blob; a registry that does not say counts as one that lacks it.
async fn is_there(upload: &Upload<'_>) -> Result<bool, RegistryError> {
    let Target { endpoint, repository } = upload.to;
    match exists(endpoint, repository, upload.descriptor, Scope::push(repository)).await {
        Ok(there) => {
            if !there {
                endpoint.note_lack(repository);
            }
            Ok(there)
        }
        // The answer to HEAD says no reason; that to the upload will.
        Err(error @ (RegistryError::Denied { .. } | RegistryError::Status { .. })) => {
            tracing::debug!(blob = %upload.descriptor.digest, %error, "not known whether it is there");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Tries to link the blob from another repository; being refused that is no error, it only costs the upload.
async fn mount(upload: &Upload<'_>, from: &str) -> Result<Found, RegistryError> {
    let path = format!("{}/blobs/uploads/?mount={}&from={from}", upload.to.repository, upload.descriptor.digest);
    let scopes = vec![Scope::push(upload.to.repository), Scope::pull(from)];
    let response = match upload.to.endpoint.send(&Call::new(Method::POST, upload.to.endpoint.url(&path)?, scopes)).await
    {
        // A token server may refuse the second scope outright, and a registry not know what is asked.
        Err(error @ (RegistryError::Denied { .. } | RegistryError::Status { .. })) => {
            tracing::debug!(blob = %upload.descriptor.digest, %from, %error, "not linked");
            return Ok(Found::Nowhere(None));
        }
        result => result?,
    };
    match response.status() {
        StatusCode::CREATED => Ok(Found::Here(Pushed::Mounted)),
        StatusCode::ACCEPTED => Ok(Found::Nowhere(Some(upload.to.session(&response)?))),
        _ => Ok(Found::Nowhere(None)),
    }
}
