//! Requests: which client may go where, redirects by our rules, credentials for the host the user named.
//!
//! Invariants: a redirect that changes scheme, host or port drops the credentials for the rest of the chain; never from https to
//! http; a URL that a server chose leads to no address of the machine or its cloud unless the first host is there too.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION};
use reqwest::{Method, Response, Url};

use super::error::HttpError;
use super::spec::HttpSpec;
use crate::dockerfile::giturl::percent_decoded;
use crate::registry::address::{self, PrivateNames, Reach, SystemResolver};
use crate::registry::url::literal_address;
use crate::registry::{Maker, Material, Origin, Patience, Proxies, RedactedUrl, SystemRoots, Trust};
use crate::source::SecretLookup;

/// Redirects followed for one request; Go's number.
const HOPS: usize = 10;
/// Attempts where the server or the way to it is at fault.
const ATTEMPTS: u32 = 3;
/// Time before the second attempt; each further one takes twice as long.
const BACKOFF: Duration = Duration::from_millis(300);

/// Limits of a transfer.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Time for a connection.
    pub connect: Duration,
    /// Time without a byte.
    pub idle: Duration,
    /// Bytes of one file.
    pub size: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), idle: Duration::from_secs(60), size: 64 << 30 }
    }
}

/// Sends requests.
pub(crate) struct Transfer {
    maker: Maker,
    limits: HttpLimits,
    anywhere: OnceLock<reqwest::Client>,
    public: OnceLock<reqwest::Client>,
    private: OnceLock<reqwest::Client>,
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Transfer {
    pub(crate) fn new(proxies: Proxies, limits: HttpLimits) -> Self {
        // Another part of the program may have installed the provider already; then it is the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let maker = Maker {
            host: "a web server".into(),
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).into(),
            proxies,
            patience: Patience { connect: limits.connect, ..Patience::default() },
            resolver: Arc::new(SystemResolver::default()),
            material: Material::default(),
            system: SystemRoots::default(),
            private_names: PrivateNames::default(),
        };
        let (anywhere, public, private) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { maker, limits, anywhere, public, private }
    }

    pub(crate) fn limits(&self) -> HttpLimits {
        self.limits
    }

    /// Sends a request until it has an answer worth reading.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response, HttpError> {
        let mut attempt = 1;
        loop {
            let result = self.follow(request).await;
            let again = match &result {
                Ok(response) => matches!(response.status().as_u16(), 429 | 502..=504),
                Err(HttpError::Network { cause, .. }) => cause.is_connect() || cause.is_request(),
                Err(_) => false,
            };
            if !again || attempt == ATTEMPTS {
                return result;
            }
            tracing::debug!(attempt, "trying again to fetch {}", RedactedUrl(request.url.clone()));
            tokio::time::sleep(BACKOFF * (1 << (attempt - 1))).await;
            attempt += 1;
        }
    }

    async fn follow(&self, request: &Request) -> Result<Response, HttpError> {
        let home = Origin::of(&request.url);
        let mut url = request.url.clone();
        let mut headers = request.headers.clone();
        for _ in 0..=HOPS {
            let client = self.client(request, &url)?;
            let sent = client.request(request.method.clone(), url.clone()).headers(headers.clone()).send();
            let response = self.within(&url, sent).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let refuse = |target: String, reason: &str| HttpError::Redirect {
                url: RedactedUrl(request.url.clone()).to_string(),
                target,
                reason: reason.to_owned(),
            };
            let next = location.and_then(|location| url.join(location).ok());
            let mut next = next.ok_or_else(|| refuse("nowhere".into(), "it names no URL"))?;
            let shown = RedactedUrl(next.clone()).to_string();
            match (url.scheme(), next.scheme()) {
                (_, "https") | ("http", "http") => {}
                ("https", "http") => return Err(refuse(shown, "it would leave TLS")),
                _ => return Err(refuse(shown, "it is not HTTP")),
            }
            without_user(&mut next);
            if Origin::of(&next) != home {
                headers.remove(AUTHORIZATION);
            }
            url = next;
        }
        let url = RedactedUrl(request.url.clone()).to_string();
        Err(HttpError::Redirect { url, target: "yet another URL".into(), reason: format!("there were {HOPS} before") })
    }

    /// Returns the client for a URL, after checking where it may lead.
    fn client(&self, request: &Request, url: &Url) -> Result<&reqwest::Client, HttpError> {
        let reach = match Origin::of(url) == Origin::of(&request.url) {
            true => Reach::Anywhere,
            false if self.is_private(&request.url) => Reach::Private,
            false => Reach::Public,
        };
        if let Some(ip) = literal_address(url) {
            address::check(url.host_str().unwrap_or(""), ip, reach).map_err(|error| HttpError::Redirect {
                url: RedactedUrl(request.url.clone()).to_string(),
                target: RedactedUrl(url.clone()).to_string(),
                reason: error.to_string(),
            })?;
        }
        let slot = match reach {
            Reach::Anywhere => &self.anywhere,
            Reach::Public => &self.public,
            Reach::Private => &self.private,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let made = self.maker.make(reach, Trust::System).map_err(|source| HttpError::Setup { source })?;
        Ok(slot.get_or_init(|| made))
    }

    fn is_private(&self, url: &Url) -> bool {
        match literal_address(url) {
            Some(ip) => address::is_private(ip),
            None => url.host_str().is_some_and(|host| self.maker.private_names.contains(host)),
        }
    }

    /// Waits for the network, but not for longer than it may be silent.
    pub(crate) async fn within<T>(
        &self,
        url: &Url,
        work: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, HttpError> {
        let host = || url.host_str().unwrap_or_default().to_owned();
        let url = || RedactedUrl(url.clone()).to_string();
        match tokio::time::timeout(self.limits.idle, work).await {
            Ok(result) => {
                result.map_err(|error| HttpError::Network { url: url(), host: host(), cause: error.without_url() })
            }
            Err(_) => Err(HttpError::TimedOut { url: url(), seconds: self.limits.idle.as_secs() }),
        }
    }
}

/// One request.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(super) headers: HeaderMap,
}

impl Request {
    /// Makes a GET with what the source asks for and the credentials there are for its host.
    pub(super) fn of(spec: &HttpSpec, secrets: &dyn SecretLookup) -> Result<Self, HttpError> {
        let mut url = parse(&spec.url)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &spec.header {
            let invalid = || HttpError::Attribute { name: format!("http.header.{name}"), value: value.clone() };
            let value = HeaderValue::from_str(value).map_err(|_| invalid())?;
            headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?, value);
        }
        if let Some(value) = authorization(spec, &url, secrets)? {
            headers.insert(AUTHORIZATION, value);
        }
        without_user(&mut url);
        Ok(Self { method: Method::GET, url, headers })
    }

    /// Makes a GET with a value for `Authorization`.
    pub(crate) fn plain(url: Url, authorization: Option<HeaderValue>) -> Self {
        let headers = authorization.into_iter().map(|value| (AUTHORIZATION, value)).collect();
        Self { method: Method::GET, url, headers }
    }

    /// Asks whether one of these entity tags is still that of the file.
    pub(super) fn with_etags(mut self, etags: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(etags) {
            self.headers.insert(IF_NONE_MATCH, value);
        }
        self
    }
}

pub(super) fn parse(text: &str) -> Result<Url, HttpError> {
    // What is no URL may hold a password anywhere.
    let invalid = |reason: String| HttpError::Url { url: "(not shown)".into(), reason };
    let url = Url::parse(text).map_err(|error| invalid(error.to_string()))?;
    match url.host_str().filter(|_| matches!(url.scheme(), "http" | "https")) {
        Some(_) => Ok(url),
        None => Err(invalid("it is neither http:// nor https:// with a host".into())),
    }
}

fn without_user(url: &mut Url) {
    // Both refuse only URLs without a host, which have no user either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
}

/// Finds what is sent as `Authorization`: a named secret, else a token or a header for the host, else the URL's user.
fn authorization(spec: &HttpSpec, url: &Url, secrets: &dyn SecretLookup) -> Result<Option<HeaderValue>, HttpError> {
    if !spec.auth_header_secret.is_empty() {
        let id = &spec.auth_header_secret;
        let missing = || HttpError::SecretMissing { url: spec.shown(), id: id.clone() };
        let secret = secrets.secret(id).ok_or_else(missing)?;
        return header_value(id, "", secret.expose()).map(Some);
    }
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    for (prefix, scheme) in [("HTTP_AUTH_TOKEN_", "Bearer "), ("HTTP_AUTH_HEADER_", "")] {
        let id = format!("{prefix}{host}");
        if let Some(secret) = secrets.secret(&id) {
            return header_value(&id, scheme, secret.expose()).map(Some);
        }
    }
    let (user, password) = (url.username(), url.password().unwrap_or_default());
    if user.is_empty() && password.is_empty() {
        return Ok(None);
    }
    basic(user, password).map(Some).ok_or_else(|| HttpError::Url { url: spec.shown(), reason: "its user".into() })
}

/// Returns `Basic …` for the user and password of a URL.
pub(crate) fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    let pair = format!("{}:{}", percent_decoded(user)?, percent_decoded(password)?);
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A line break at the end is what editors and `echo` leave.
fn header_value(id: &str, scheme: &str, secret: &[u8]) -> Result<HeaderValue, HttpError> {
    let value = [scheme.as_bytes(), secret.trim_ascii_end()].concat();
    let mut value = HeaderValue::from_bytes(&value).map_err(|_| HttpError::SecretInvalid { id: id.to_owned() })?;
    value.set_sensitive(true);
    Ok(value)
}
