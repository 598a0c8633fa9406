//! Sends requests: redirects by our rules, authentication on 401, retries, limits on what is read.
//!
//! Invariants: a redirect that changes scheme, host or port drops the credential for the rest of the chain (back home too);
//! at most [`HOPS`] redirects; never from https to http. A body is read up to its limit and one byte.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url, header};

use super::challenge;
use super::credentials::Access;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::log;
use super::url::{foreign_text, location};

/// Redirects followed for one request.
const HOPS: usize = 5;
/// Bytes read of an answer that reports an error.
const ERROR_LIMIT: u64 = 64 << 10;

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope(pub(crate) String);

impl Scope {
    pub(crate) fn pull(repository: &str) -> Self {
        Self(format!("repository:{repository}:pull"))
    }

    pub(crate) fn push(repository: &str) -> Self {
        Self(format!("repository:{repository}:pull,push"))
    }
}

/// Makes a request body anew for each attempt.
pub(crate) type MakeBody<'a> = &'a (dyn Fn() -> BoxFuture<'static, Result<reqwest::Body, RegistryError>> + Send + Sync);

/// The body of a request.
#[derive(Clone)]
pub(crate) enum Body<'a> {
    Empty,
    Bytes(Bytes),
    /// A body, of known length or not; `moved` counts the bytes handed to the network.
    Stream {
        make: MakeBody<'a>,
        length: Option<u64>,
        moved: &'a AtomicU64,
    },
}

/// What a request is for, to be told when it is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) repository: &'a str,
    pub(crate) access: Access,
    /// What the registry is asked to do: `take a blob`.
    pub(crate) action: &'static str,
}

/// One request to a registry.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) body: Body<'a>,
    /// Tries for this request; the caller that counts its own asks for one.
    pub(crate) attempts: Option<u32>,
}

impl Call<'_> {
    pub(crate) fn new(method: Method, url: Url, mut scopes: Vec<Scope>) -> Self {
        scopes.sort();
        scopes.dedup();
        Self { method, url, headers: HeaderMap::new(), scopes, body: Body::Empty, attempts: None }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl Endpoint {
    /// Sends a request until it has an answer worth giving to the caller.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Response, RegistryError> {
        let attempts = call.attempts.unwrap_or(self.patience.attempts);
        let mut attempt = 1;
        loop {
            let result = self.authorized(call).await;
            let wait = match &result {
                Ok(response) => {
                    self.outage.ended();
                    self.wait_after(response, attempt)
                }
                Err(error) => self.wait_after_error(error, attempt),
            };
            match wait {
                Some(wait) if attempt < attempts => {
                    tracing::debug!(host = %self.host, attempt, ?wait, "trying again");
                    tokio::time::sleep(wait).await;
                    attempt += 1;
                }
                _ => return result,
            }
        }
    }

    /// Sends a request once, with what is known of the login, for what may well fail.
    pub(crate) async fn send_once(&self, call: &Call<'_>) -> Result<Response, RegistryError> {
        let authorization = if self.owns(&call.url) { self.authorization(&call.scopes).await? } else { None };
        self.follow(call, authorization.as_ref()).await
    }

    pub(crate) fn backoff(&self, attempt: u32) -> Duration {
        self.patience.wait_after(attempt)
    }

    /// Returns how long to wait before trying again what failed so, or none if that is no use.
    pub(crate) fn wait_after_error(&self, error: &RegistryError, attempt: u32) -> Option<Duration> {
        match error {
            RegistryError::RateLimited { retry_after: Some(seconds), .. } => {
                Some(Duration::from_secs(*seconds)).filter(|wait| *wait <= self.patience.longest_wait)
            }
            RegistryError::RateLimited { window, .. } => window.is_empty().then(|| self.backoff(attempt)),
            RegistryError::Unreachable { .. } if self.outage.goes_on(self.patience.of_a_request()) => None,
            error => error.is_transient().then(|| self.backoff(attempt)),
        }
    }

    /// Returns how long to wait before trying again what was answered so, or none if that is no use.
    fn wait_after(&self, response: &Response, attempt: u32) -> Option<Duration> {
        let asked = retry_after(response.headers(), SystemTime::now());
        match response.status().as_u16() {
            429 => match asked {
                Some(wait) => (wait <= self.patience.longest_wait).then_some(wait),
                // A quota over hours does not come back within a retry.
                None => (!response.headers().contains_key("ratelimit-limit")).then(|| self.backoff(attempt)),
            },
            status if is_passing(status) => {
                Some(asked.unwrap_or_else(|| self.backoff(attempt)).min(self.patience.longest_wait))
            }
            _ => None,
        }
    }

    async fn authorized(&self, call: &Call<'_>) -> Result<Response, RegistryError> {
        let owned = self.owns(&call.url);
        let known = if owned { self.authorization(&call.scopes).await? } else { None };
        let response = self.follow(call, known.as_ref()).await?;
        let unauthorized = response.status() == StatusCode::UNAUTHORIZED && self.owns(response.url());
        if !owned || !unauthorized {
            return Ok(response);
        }
        match self.answer(response.headers(), &call.scopes, known.as_ref()).await? {
            Some(authorization) => self.follow(call, Some(&authorization)).await,
            None => Ok(response),
        }
    }

    async fn follow(&self, call: &Call<'_>, authorization: Option<&HeaderValue>) -> Result<Response, RegistryError> {
        let mut url = call.url.clone();
        let mut authorization = authorization;
        for _ in 0..=HOPS {
            let response = self.once(call, &url, authorization).await?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let next = location(&url, response.headers()).ok_or_else(|| self.protocol("a redirect to nowhere"))?;
            self.check_redirect(call, &url, &next)?;
            if !self.owns(&next) {
                authorization = None;
            }
            url = next;
        }
        Err(self.refuse(&url, "too many redirects"))
    }

    fn check_redirect(&self, call: &Call<'_>, from: &Url, to: &Url) -> Result<(), RegistryError> {
        if call.method != Method::GET && call.method != Method::HEAD {
            return Err(self.refuse(to, "only reading follows redirects"));
        }
        match (from.scheme(), to.scheme()) {
            (_, "https") | ("http", "http") => Ok(()),
            ("https", "http") => Err(self.refuse(to, "it would leave TLS")),
            _ => Err(self.refuse(to, "it is not HTTP")),
        }
    }

    async fn once(
        &self,
        call: &Call<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let http = self.http_for(url)?;
        // A URL with a user in it would make the HTTP library add its own Authorization.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.refuse(url, "it has a user in it"));
        }
        log::request(&call.method, url, &call.headers, authorization.is_some());
        let result = self.exchange(http, call, url, authorization).await;
        match &result {
            Ok(response) => log::response(response.status(), url, response.headers()),
            Err(error) => log::failure(url, error),
        }
        result
    }

    async fn exchange(
        &self,
        http: &reqwest::Client,
        call: &Call<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut request = http.request(call.method.clone(), url.clone()).headers(call.headers.clone());
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        match &call.body {
            Body::Empty if call.method == Method::POST || call.method == Method::PUT => {
                request = request.header(header::CONTENT_LENGTH, 0);
            }
            Body::Empty => {}
            Body::Bytes(bytes) => request = request.body(bytes.clone()),
            Body::Stream { make, length, moved } => {
                request =
                    length.iter().fold(request, |request, length| request.header(header::CONTENT_LENGTH, *length));
                // What takes long to be made takes long to be sent.
                let length = length.unwrap_or(u64::MAX);
                let upload = self.while_moving(url, length, moved, request.body(make().await?).send());
                return self.within(self.transfer_limit(length), url, upload).await?;
            }
        }
        self.within(self.patience.idle, url, request.send()).await
    }

    /// Waits for an upload, and leaves it when no byte has moved for a while before all were sent.
    async fn while_moving(
        &self,
        url: &Url,
        length: u64,
        moved: &AtomicU64,
        work: impl Future<Output = reqwest::Result<Response>>,
    ) -> reqwest::Result<Result<Response, RegistryError>> {
        let mut work = std::pin::pin!(work);
        let mut before = None;
        loop {
            if let Ok(result) = tokio::time::timeout(self.patience.idle, &mut work).await {
                return result.map(Ok);
            }
            let now = Some(moved.load(Ordering::Relaxed));
            // Once all is sent, the server may take its time to store it.
            if now == before && now < Some(length) {
                let (host, seconds) = (self.host_of(url), self.patience.idle.as_secs());
                return Ok(Err(RegistryError::TimedOut { host, seconds }));
            }
            before = now;
        }
    }

    pub(crate) fn host_of(&self, url: &Url) -> String {
        if self.owns(url) { self.host.clone() } else { url.host_str().unwrap_or("").to_owned() }
    }

    /// Returns the longest a transfer of `length` bytes may take.
    pub(crate) fn transfer_limit(&self, length: u64) -> Duration {
        self.patience.document.saturating_add(Duration::from_secs(length / self.patience.slowest.max(1)))
    }

    /// Waits for the network, naming the host in what goes wrong.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        url: &Url,
        work: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, RegistryError> {
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result.map_err(|error| self.broken(url, error)),
            Err(_) => Err(RegistryError::TimedOut { host: self.host_of(url), seconds: limit.as_secs().max(1) }),
        }
    }
}

/// Returns whether a server that answers so may answer otherwise in a moment; those from 520 on are Cloudflare's for a server
/// behind it that fails.
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 500 | 502..=504 | 520..=527)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Reads `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = time::OffsetDateTime::parse(value, &time::format_description::well_known::Rfc2822).ok()?;
    Some(SystemTime::from(date).duration_since(now).unwrap_or_default())
}

/// Reads a whole answer, up to `limit`.
pub(crate) async fn read(
    endpoint: &Endpoint,
    mut response: Response,
    what: &str,
    limit: u64,
) -> Result<Bytes, RegistryError> {
    let too_large = || RegistryError::TooLarge { what: what.to_owned(), limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let url = response.url().clone();
    let deadline = tokio::time::Instant::now() + endpoint.patience.document;
    let mut content = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now()).min(endpoint.patience.idle);
        match endpoint.within(left, &url, response.chunk()).await? {
            None => return Ok(content.into()),
            Some(chunk) if content.len() as u64 + chunk.len() as u64 > limit => return Err(too_large()),
            Some(chunk) => content.extend_from_slice(&chunk),
        }
    }
}

/// Passes on an answer of a wanted status and turns any other into an error.
pub(crate) async fn expect(
    endpoint: &Endpoint,
    response: Response,
    wish: Wish<'_>,
    wanted: &[StatusCode],
) -> Result<Response, RegistryError> {
    if wanted.contains(&response.status()) {
        return Ok(response);
    }
    Err(failure(endpoint, response, wish).await)
}

/// Makes an error of an answer.
pub(crate) async fn failure(endpoint: &Endpoint, response: Response, wish: Wish<'_>) -> RegistryError {
    let (host, status) = (endpoint.host.clone(), response.status().as_u16());
    let (repository, access) = (wish.repository.to_owned(), wish.access);
    let logged_in = endpoint.is_known(wish.repository);
    let headers = response.headers().clone();
    if status == 429 {
        let value = headers.get("ratelimit-limit").and_then(|v| v.to_str().ok());
        let window = value.and_then(challenge::rate_window).map(|w| format!(" (limit: {w})")).unwrap_or_default();
        let retry_after = retry_after(&headers, SystemTime::now()).map(|d| d.as_secs());
        return RegistryError::RateLimited { host, window, retry_after, logged_in };
    }
    if status == 400
        && let Some(error) = endpoint.wants_tls(response.url()).await
    {
        return error;
    }
    // The body only explains; the status is what counts when the body cannot be read.
    let body = read(endpoint, response, "an error", ERROR_LIMIT).await.unwrap_or_default();
    let detail = explanation(&body).map(|d| format!(": {d}")).unwrap_or_default();
    if matches!(status, 401 | 403) {
        let withheld = endpoint.withheld();
        return RegistryError::Denied { host, repository, status, detail, access, logged_in, withheld };
    }
    RegistryError::Status { host, repository, action: wish.action, status, detail, access, logged_in }
}

/// Takes the messages out of an error document (OCI distribution-spec 1.1, error codes; token servers have their own).
pub(super) fn explanation(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Errors {
        errors: Vec<One>,
        details: String,
        message: String,
        error: String,
        error_description: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct One {
        code: String,
        message: String,
    }
    let errors: Errors = serde_json::from_slice(body).ok()?;
    let mut texts: Vec<String> = errors.errors.iter().take(3).map(|e| format!("{} {}", e.code, e.message)).collect();
    if texts.is_empty() {
        let parts = [errors.error, errors.error_description, errors.details, errors.message];
        texts.push(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "));
    }
    let text = foreign_text(&texts.join("; "));
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_retry_after() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        for (value, expected) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1993 08:49:37 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(value));
            assert_eq!(retry_after(&headers, now).map(|d| d.as_secs()), expected, "{value}");
        }
    }

    #[test]
    fn explains_errors() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[31m","detail":{}},{"code":"X"}]}"#;
        assert_eq!(explanation(body).as_deref(), Some("DENIED no[31m; X"));
        assert_eq!(explanation(b"<html>"), None);
        assert_eq!(explanation(b"{}"), None);
        for (body, expected) in [
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (r#"{"message":"Unauthorized."}"#, "Unauthorized."),
            (r#"{"error":"invalid_grant","error_description":"it has expired"}"#, "invalid_grant it has expired"),
        ] {
            assert_eq!(explanation(body.as_bytes()).as_deref(), Some(expected));
        }
    }
}
