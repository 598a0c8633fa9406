//! One blob into one repository: an upload session, in one request or in pieces, taken up again where it was cut.
//!
//! ```text
//! start ─▶ PUT all ──────────────────────────────▶ done
//!   ▲        │ cut                    ▲
//!   │        ▼                        │ closing PUT
//!   │   GET session: how much? ─▶ PATCH from there, 16 MiB at a time
//!   └── session lost ◀────────────────┘
//! ```
//!
//! In: a way to read the content anew. Out: the content in the repository, whose digest the registry has checked.
//! Invariants: the place an upload goes to is chosen by the server, so it gets our credential only at the registry's own
//! origin, and elsewhere nothing but the content, over TLS. Failures without progress are counted, and time is bounded.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

use super::credentials::Access;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::look::exists;
use super::plan::{Next, Plan, Way};
use super::push::{OnSent, Open};
use super::transport::{self, Body, Call, Scope, Wish};
use super::url::location;
use crate::digest::Digest;
use crate::image::Descriptor;

/// Largest size of pieces that a registry may ask for.
const LARGEST_PIECE: u64 = 128 << 20;

/// A repository that takes blobs.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) repository: &'a str,
}

/// One blob on its way to one repository.
pub(crate) struct Upload<'a> {
    pub(crate) to: Target<'a>,
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) open: &'a Open,
    pub(crate) sent: OnSent,
}

/// Where an upload goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) url: Url,
    /// Bytes the registry has.
    offset: u64,
    /// Smallest piece it takes (OCI distribution-spec 1.1, `OCI-Chunk-Min-Length`).
    least: u64,
}

impl Target<'_> {
    /// Begins a session.
    pub(crate) async fn start(&self) -> Result<Session, RegistryError> {
        let response = self.begin().await?;
        match response.status() {
            StatusCode::ACCEPTED => self.session(&response),
            _ => Err(self.failure(response).await),
        }
    }

    /// Asks for a session; whether there is one, the answer tells.
    pub(crate) async fn begin(&self) -> Result<Response, RegistryError> {
        let url = self.endpoint.url(&format!("{}/blobs/uploads/", self.repository))?;
        self.endpoint.send(&Call::new(Method::POST, url, vec![Scope::push(self.repository)])).await
    }

    /// Reads out of an answer why a blob was not taken.
    pub(crate) async fn failure(&self, response: Response) -> RegistryError {
        let wish = Wish { repository: self.repository, access: Access::Push, action: "take a blob" };
        transport::failure(self.endpoint, response, wish).await
    }

    /// Sends something to a session, once.
    pub(crate) async fn put(
        &self,
        method: Method,
        url: Url,
        body: Body<'_>,
        range: Option<String>,
    ) -> Result<Response, RegistryError> {
        const CONTENT_RANGE: HeaderName = header::CONTENT_RANGE;
        let kind = HeaderValue::from_static("application/octet-stream");
        let mut call = Call::new(method, url, vec![Scope::push(self.repository)]).header(header::CONTENT_TYPE, kind);
        if let Some(range) = range {
            call = call.header(CONTENT_RANGE, HeaderValue::from_str(&range).expect("a range is ASCII"));
        }
        call.body = body;
        // A session that failed half-way is looked at before it is used again.
        call.attempts = Some(1);
        self.endpoint.send(&call).await
    }

    /// Reads out of the answer that began a session where it goes on.
    pub(crate) fn session(&self, response: &Response) -> Result<Session, RegistryError> {
        let least = response.headers().get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Session { url: self.place(response)?, offset: 0, least: least.unwrap_or(0) })
    }

    /// Reads out of an answer where a session goes on.
    pub(crate) fn place(&self, response: &Response) -> Result<Url, RegistryError> {
        let url = location(response.url(), response.headers())
            .ok_or_else(|| self.endpoint.protocol("an upload without a location"))?;
        if self.endpoint.owns(&url) || url.scheme() == "https" {
            return Ok(url);
        }
        Err(self.endpoint.refuse(&url, "it is another host, without TLS"))
    }

    /// Passes on that the registry has stored the blob, under the digest that is meant.
    pub(crate) async fn stored(&self, response: Response, digest: &Digest) -> Result<(), RegistryError> {
        if !matches!(response.status(), StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK) {
            return Err(self.failure(response).await);
        }
        let stated = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let stated: Option<Digest> = stated.and_then(|text| text.parse().ok());
        match stated.filter(|d| d.algorithm() == digest.algorithm() && d != digest) {
            Some(actual) => Err(RegistryError::Mismatch { expected: digest.clone(), actual }),
            None => Ok(()),
        }
    }
}

impl Upload<'_> {
    /// Sends the blob; `session` is one that was begun for it.
    pub(crate) async fn run(&self, session: Option<Session>) -> Result<(), RegistryError> {
        let deadline = Instant::now() + self.to.endpoint.transfer_limit(self.descriptor.size);
        let (mut plan, mut session) = (Plan::new(), session);
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                None => self.to.start().await?,
            };
            let Err(error) = self.attempt(&mut plan, &mut current).await else { return Ok(()) };
            let passing = self.to.endpoint.wait_after_error(&error, plan.failures + 1);
            let wait = match plan.after(&error, passing, self.to.endpoint.patience.attempts) {
                Next::After(wait) if Instant::now() + wait < deadline => wait,
                _ => return Err(error),
            };
            tracing::debug!(blob = %self.descriptor.digest, ?plan, %error, "upload failed, trying again");
            tokio::time::sleep(wait).await;
            // A cut upload cannot be told from a finished one whose answer was lost.
            let known =
                exists(self.to.endpoint, self.to.repository, self.descriptor, Scope::push(self.to.repository)).await;
            if known.is_ok_and(|there| there) {
                return Ok(());
            }
            session = self.resumed(current, &mut plan).await;
        }
    }

    /// Tries once; `current` becomes the session that may be taken up again.
    async fn attempt(&self, plan: &mut Plan, current: &mut Session) -> Result<(), RegistryError> {
        match plan.way {
            Way::Whole => self.whole(current).await,
            Way::Pieces => self.pieces(plan, current).await,
        }
    }

    /// Sends all in one request.
    pub(crate) async fn whole(&self, session: &Session) -> Result<(), RegistryError> {
        let (moved, broken) = (Arc::new(AtomicU64::new(0)), Broken::default());
        let make = || -> BoxFuture<'static, Result<reqwest::Body, RegistryError>> {
            let (opening, digest) = ((self.open)(), self.descriptor.digest.clone());
            let watch = Watch { sent: Arc::clone(&self.sent), moved: Arc::clone(&moved), broken: broken.clone() };
            Box::pin(async move {
                let reader = opening.await.map_err(|source| RegistryError::Content { digest, source })?;
                Ok(watched(reader, 0, watch))
            })
        };
        let body = Body::Stream { make: &make, length: Some(self.descriptor.size), moved: &moved };
        let answer = self.to.put(Method::PUT, self.finished(&session.url), body, None).await;
        if let Some(source) = broken.take() {
            return Err(RegistryError::Content { digest: self.descriptor.digest.clone(), source });
        }
        self.to.stored(answer?, &self.descriptor.digest).await
    }

    /// Sends what the registry does not have yet in pieces, each to where the answer to the one before says.
    async fn pieces(&self, plan: &mut Plan, session: &mut Session) -> Result<(), RegistryError> {
        let content = |source| RegistryError::Content { digest: self.descriptor.digest.clone(), source };
        let mut reader = (self.open)().await.map_err(content)?;
        skip(&mut reader, session.offset).await.map_err(content)?;
        while session.offset < self.descriptor.size {
            let mut piece = Vec::new();
            let length = plan.piece.max(session.least.min(LARGEST_PIECE));
            (&mut reader).take(length).read_to_end(&mut piece).await.map_err(content)?;
            if piece.is_empty() {
                return Err(content(io::ErrorKind::UnexpectedEof.into()));
            }
            let end = session.offset + piece.len() as u64;
            let response = self.piece(session, piece.into()).await?;
            session.url = self.to.place(&response)?;
            session.offset = received(response.headers()).unwrap_or(end);
            plan.reached(session.offset);
            if session.offset != end {
                return Err(self.out_of_step(session.offset, end));
            }
            plan.taken = true;
        }
        let response = self.to.put(Method::PUT, self.finished(&session.url), Body::Empty, None).await?;
        self.to.stored(response, &self.descriptor.digest).await
    }

    fn out_of_step(&self, has: u64, sent: u64) -> RegistryError {
        RegistryError::Status {
            host: self.to.endpoint.host.clone(),
            repository: self.to.repository.to_owned(),
            action: "take a piece of a blob",
            status: StatusCode::RANGE_NOT_SATISFIABLE.as_u16(),
            detail: format!(": it has {has} bytes where {sent} were sent"),
            access: Access::Push,
            logged_in: false,
        }
    }

    async fn piece(&self, session: &Session, piece: Bytes) -> Result<Response, RegistryError> {
        let (start, length) = (session.offset, piece.len() as u64);
        let moved = Arc::new(AtomicU64::new(0));
        let make = || -> BoxFuture<'static, Result<reqwest::Body, RegistryError>> {
            let watch = Watch { sent: Arc::clone(&self.sent), moved: Arc::clone(&moved), broken: Broken::default() };
            let reader = io::Cursor::new(piece.clone());
            Box::pin(async move { Ok(watched(reader, start, watch)) })
        };
        let body = Body::Stream { make: &make, length: Some(length), moved: &moved };
        let range = format!("{start}-{}", start + length - 1);
        let response = self.to.put(Method::PATCH, session.url.clone(), body, Some(range)).await?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::CREATED => Ok(response),
            _ => Err(self.to.failure(response).await),
        }
    }

    /// Asks how much of a session's content came, none where it is to be begun anew.
    async fn resumed(&self, session: Session, plan: &mut Plan) -> Option<Session> {
        if plan.way == Way::Whole && plan.only {
            return None;
        }
        let call = Call::new(Method::GET, session.url.clone(), vec![Scope::push(self.to.repository)]);
        let response = match self.to.endpoint.send_once(&call).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(blob = %self.descriptor.digest, %error, "the upload cannot be taken up again");
                return None;
            }
        };
        let answered = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::ACCEPTED | StatusCode::OK);
        let offset = received(response.headers()).filter(|offset| answered && *offset <= self.descriptor.size)?;
        let url = if response.headers().contains_key(header::LOCATION) {
            self.to.place(&response).ok()?
        } else {
            session.url
        };
        plan.reached(offset);
        if offset > 0 {
            plan.way = Way::Pieces;
            tracing::debug!(blob = %self.descriptor.digest, offset, "taking the upload up again");
        }
        Some(Session { url, offset, least: session.least })
    }

    fn finished(&self, session: &Url) -> Url {
        finished(session, &self.descriptor.digest)
    }
}

/// Returns where a session is closed.
pub(crate) fn finished(session: &Url, digest: &Digest) -> Url {
    let mut url = session.clone();
    url.query_pairs_mut().append_pair("digest", digest.as_str());
    url
}

/// Reads how many bytes a session has: `Range: 0-N`, N being the last of them. Nothing and one byte look the same, and count as
/// nothing.
pub(super) fn received(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::RANGE)?.to_str().ok()?;
    let value = value.strip_prefix("bytes=").unwrap_or(value);
    let (start, last) = value.split_once('-')?;
    let last: u64 = last.trim().parse().ok().filter(|_| start.trim() == "0")?;
    if last == 0 { Some(0) } else { last.checked_add(1) }
}

async fn skip(reader: &mut (impl AsyncRead + Unpin), count: u64) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut reader.take(count), &mut tokio::io::sink()).await?;
    if skipped == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Why content could not be read, for which the network is not to blame.
#[derive(Debug, Clone, Default)]
struct Broken(Arc<Mutex<Option<io::Error>>>);

impl Broken {
    fn note(&self, error: &io::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(io::Error::new(error.kind(), error.to_string()));
    }

    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Who is told how a body goes.
pub(crate) struct Watch {
    sent: OnSent,
    moved: Arc<AtomicU64>,
    broken: Broken,
}

impl Watch {
    /// Counts what is sent, and tells nobody.
    pub(crate) fn of(moved: Arc<AtomicU64>) -> Self {
        Self { sent: Arc::new(|_| ()), moved, broken: Broken::default() }
    }
}

/// Turns a reader into a body that reports its progress, which begins at `start`.
pub(crate) fn watched(reader: impl AsyncRead + Send + 'static, start: u64, watch: Watch) -> reqwest::Body {
    let mut total = 0;
    let stream = tokio_util::io::ReaderStream::with_capacity(reader, 64 << 10).map(move |chunk| {
        match &chunk {
            Ok(chunk) => {
                total += chunk.len() as u64;
                watch.moved.store(total, Ordering::Relaxed);
                (watch.sent)(start + total);
            }
            Err(error) => watch.broken.note(error),
        }
        chunk
    });
    reqwest::Body::wrap_stream(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_much_a_session_has() {
        for (value, expected) in [
            ("0-9", Some(10)),
            ("bytes=0-9", Some(10)),
            ("0-0", Some(0)),
            ("0-18446744073709551615", None),
            ("5-9", None),
            ("0", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static(value));
            assert_eq!(received(&headers), expected, "{value}");
        }
    }
}
