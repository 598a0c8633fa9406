//! Content to a registry: ask, mount, upload.
//!
//! In: a descriptor and a way to read the content anew. Out: whether it was there, was mounted, or was sent.
//! Invariant: the place an upload goes to is chosen by the server, so it gets our credential only at the registry's own
//! origin, and elsewhere nothing but the content, over TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use reqwest::header::{self, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::client::Client;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::transport::{self, Body, Call, Scope};
use super::url::location;
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

/// To ask for a new blob of up to this size takes as long as to send it.
const SMALL: u64 = 64 << 10;
/// Size of the pieces for servers that refuse a blob in one request.
const PIECE: u64 = 16 << 20;
const CONTENT_RANGE: HeaderName = header::CONTENT_RANGE;

/// One blob on its way to one repository.
struct Upload<'a> {
    endpoint: &'a Endpoint,
    repository: &'a str,
    descriptor: &'a Descriptor,
    open: &'a Open,
    sent: OnSent,
}

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
        let _permit = endpoint.blobs.acquire().await.expect("the semaphore is never closed");
        let upload = Upload { endpoint: &endpoint, repository, descriptor, open, sent };
        let pushed = match whereabouts {
            Whereabouts::Nowhere if descriptor.size <= SMALL => upload.run(None).await.map(|()| Pushed::Uploaded),
            Whereabouts::Nowhere => upload.where_missing(None).await,
            Whereabouts::Repositories(others) => {
                let mut others = others.iter().filter(|r| r.registry == target.registry && r.repository != repository);
                upload.where_missing(others.next()).await
            }
        }?;
        endpoint.note(repository, &descriptor.digest);
        Ok(pushed)
    }
}

/// Returns whether a repository has a blob.
pub(crate) async fn exists(
    endpoint: &Endpoint,
    repository: &str,
    descriptor: &Descriptor,
    scope: Scope,
) -> Result<bool, RegistryError> {
    let url = endpoint.url(&format!("{repository}/blobs/{}", descriptor.digest))?;
    let response = endpoint.send(&Call::new(Method::HEAD, url, vec![scope])).await?;
    match response.status() {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(transport::failure(endpoint, response, repository, "find a blob").await),
    }
}

enum Mount {
    Done,
    Session(Url),
    Refused,
}

impl Upload<'_> {
    /// Uploads what is not there and cannot be linked from `other`.
    async fn where_missing(&self, other: Option<&Reference>) -> Result<Pushed, RegistryError> {
        if exists(self.endpoint, self.repository, self.descriptor, Scope::push(self.repository)).await? {
            return Ok(Pushed::Existed);
        }
        let session = match other {
            None => None,
            Some(other) => match self.mount(&other.repository).await? {
                Mount::Done => return Ok(Pushed::Mounted),
                Mount::Session(url) => Some(url),
                Mount::Refused => None,
            },
        };
        self.run(session).await.map(|()| Pushed::Uploaded)
    }

    /// Tries to link the blob from another repository; being refused that is no error, it only costs the upload.
    async fn mount(&self, from: &str) -> Result<Mount, RegistryError> {
        let path = format!("{}/blobs/uploads/?mount={}&from={from}", self.repository, self.descriptor.digest);
        let scopes = vec![Scope::push(self.repository), Scope::pull(from)];
        let response = match self.endpoint.send(&Call::new(Method::POST, self.endpoint.url(&path)?, scopes)).await {
            // A token server may refuse the second scope outright.
            Err(RegistryError::Denied { .. }) => return Ok(Mount::Refused),
            result => result?,
        };
        match response.status() {
            StatusCode::CREATED => Ok(Mount::Done),
            StatusCode::ACCEPTED => self.location(&response).map(Mount::Session),
            _ => Ok(Mount::Refused),
        }
    }

    async fn run(&self, mut session: Option<Url>) -> Result<(), RegistryError> {
        let mut attempt = 1;
        loop {
            let error = match self.attempt(session.take()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // A cut upload cannot be told from a finished one whose answer was lost.
            let retry = error.is_transient() && attempt < self.endpoint.patience.attempts;
            if !retry {
                return Err(error);
            }
            tracing::debug!(blob = %self.descriptor.digest, attempt, %error, "upload failed, trying again");
            tokio::time::sleep(self.endpoint.backoff(attempt)).await;
            attempt += 1;
            let scope = Scope::push(self.repository);
            if exists(self.endpoint, self.repository, self.descriptor, scope).await? {
                return Ok(());
            }
        }
    }

    async fn attempt(&self, session: Option<Url>) -> Result<(), RegistryError> {
        let session = match session {
            Some(session) => session,
            None => self.start().await?,
        };
        let response = self.whole(session).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            // Servers without uploads in one request, and proxies that bound a request's size.
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::NOT_IMPLEMENTED => {
                self.pieces(self.start().await?).await
            }
            _ => Err(self.failure(response).await),
        }
    }

    async fn start(&self) -> Result<Url, RegistryError> {
        let url = self.endpoint.url(&format!("{}/blobs/uploads/", self.repository))?;
        let response = self.endpoint.send(&Call::new(Method::POST, url, vec![Scope::push(self.repository)])).await?;
        match response.status() {
            StatusCode::ACCEPTED => self.location(&response),
            _ => Err(self.failure(response).await),
        }
    }

    async fn failure(&self, response: Response) -> RegistryError {
        transport::failure(self.endpoint, response, self.repository, "take a blob").await
    }

    /// Sends all in one request.
    async fn whole(&self, session: Url) -> Result<Response, RegistryError> {
        let moved = Arc::new(AtomicU64::new(0));
        let make = || -> BoxFuture<'static, Result<reqwest::Body, RegistryError>> {
            let (opening, digest) = ((self.open)(), self.descriptor.digest.clone());
            let (sent, moved) = (Arc::clone(&self.sent), Arc::clone(&moved));
            Box::pin(async move {
                let reader = opening.await.map_err(|source| RegistryError::Content { digest, source })?;
                Ok(counted(reader, sent, moved))
            })
        };
        let body = Body::Stream { make: &make, length: self.descriptor.size, moved: &moved };
        self.put(Method::PUT, self.finished(session), body, None).await
    }

    /// Sends pieces, each to where the answer to the one before says.
    async fn pieces(&self, mut session: Url) -> Result<(), RegistryError> {
        let content = |source| RegistryError::Content { digest: self.descriptor.digest.clone(), source };
        let mut reader = (self.open)().await.map_err(content)?;
        let mut start = 0;
        loop {
            let mut piece = Vec::new();
            (&mut reader).take(PIECE).read_to_end(&mut piece).await.map_err(content)?;
            if piece.is_empty() {
                break;
            }
            let end = start + piece.len() as u64;
            let range = format!("{start}-{}", end - 1);
            let body = Body::Bytes(piece.into());
            let response = self.put(Method::PATCH, session, body, Some(range)).await?;
            if !matches!(response.status(), StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::OK) {
                return Err(self.failure(response).await);
            }
            session = self.location(&response)?;
            (self.sent)(end);
            start = end;
        }
        let response = self.put(Method::PUT, self.finished(session), Body::Empty, None).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            _ => Err(self.failure(response).await),
        }
    }

    async fn put(
        &self,
        method: Method,
        url: Url,
        body: Body<'_>,
        range: Option<String>,
    ) -> Result<Response, RegistryError> {
        let kind = HeaderValue::from_static("application/octet-stream");
        let mut call = Call::new(method, url, vec![Scope::push(self.repository)]).header(header::CONTENT_TYPE, kind);
        if let Some(range) = range {
            call = call.header(CONTENT_RANGE, HeaderValue::from_str(&range).expect("a range is ASCII"));
        }
        call.body = body;
        // A session that failed half-way is of no use; `run` starts a new one.
        call.attempts = Some(1);
        self.endpoint.send(&call).await
    }

    /// Reads where the upload goes on.
    fn location(&self, response: &Response) -> Result<Url, RegistryError> {
        let url = location(response.url(), response.headers())
            .ok_or_else(|| self.endpoint.protocol("an upload without a location"))?;
        if self.endpoint.owns(&url) || url.scheme() == "https" {
            return Ok(url);
        }
        Err(self.endpoint.refuse(&url, "it is another host, without TLS"))
    }

    fn finished(&self, mut session: Url) -> Url {
        session.query_pairs_mut().append_pair("digest", self.descriptor.digest.as_str());
        session
    }
}

/// Turns a reader into a body that reports its progress.
fn counted(reader: ByteReader, sent: OnSent, moved: Arc<AtomicU64>) -> reqwest::Body {
    let mut total = 0;
    let stream = tokio_util::io::ReaderStream::with_capacity(reader, 64 << 10).map(move |chunk| {
        if let Ok(chunk) = &chunk {
            total += chunk.len() as u64;
            moved.store(total, Ordering::Relaxed);
            sent(total);
        }
        chunk
    });
    reqwest::Body::wrap_stream(stream)
}
