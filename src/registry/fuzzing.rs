//! Doors for the fuzzers in `integration/fuzz` to the header grammars, the token server policy and the log, which are private
//! otherwise.

use reqwest::Url;
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE};

use super::challenge::{self, Challenge};
use super::log;
use super::realm::{self, Trust};
use super::url::{self, Origin};
use super::{auth, blob, transport, upload};

/// Returns the realms of the `Bearer` challenges in a `WWW-Authenticate` value.
pub fn realms(value: &str) -> Vec<String> {
    let realm = |challenge| match challenge {
        Challenge::Bearer { realm, .. } => Some(realm),
        Challenge::Basic => None,
    };
    challenge::challenges(value).into_iter().filter_map(realm).collect()
}

/// Returns whether the token server `realm` would see the account of the registry at `registry`; none if either is no URL.
pub fn sees_account(registry: &str, realm: &str, trusted: &[String]) -> Option<bool> {
    let registry = Origin::of(&Url::parse(registry).ok()?)?;
    Some(realm::judge(&registry, &Url::parse(realm).ok()?, trusted) == Trust::Account)
}

/// Returns the target of `rel="next"` in a `Link` value.
pub fn next_link(value: &str) -> Option<String> {
    challenge::next_link(value)
}

/// Describes a `RateLimit-Limit` value.
pub fn rate_window(value: &str) -> Option<String> {
    challenge::rate_window(value)
}

/// Resolves a `Location` value against the URL that answered with it.
pub fn location(base: &str, value: &[u8]) -> Option<Url> {
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, HeaderValue::from_bytes(value).ok()?);
    url::location(&Url::parse(base).ok()?, &headers)
}

fn headers(name: HeaderName, value: &[u8]) -> Option<HeaderMap> {
    Some(HeaderMap::from_iter([(name, HeaderValue::from_bytes(value).ok()?)]))
}

/// Reads the `Range` of an upload: how many bytes came.
pub fn upload_range(value: &[u8]) -> Option<u64> {
    upload::received(&headers(RANGE, value)?)
}

/// Reads `Content-Range`: the start, and the size of the whole.
pub fn content_range(value: &[u8]) -> Option<(u64, Option<u64>)> {
    blob::content_range(&headers(CONTENT_RANGE, value)?)
}

/// Reads the answer of a token server, and returns for how many seconds the token is used.
pub fn token_lifetime(body: &[u8]) -> Option<u64> {
    auth::parse_token(body, time::OffsetDateTime::UNIX_EPOCH).map(|(_, lifetime)| lifetime.as_secs())
}

/// Takes the messages out of an error document.
pub fn explanation(body: &[u8]) -> Option<String> {
    transport::explanation(body)
}

/// Parses a URL.
pub fn parse_url(text: &str) -> Option<Url> {
    Url::parse(text).ok()
}

/// Makes a server's words fit for a message.
pub fn foreign_text(text: &str) -> String {
    url::foreign_text(text)
}

/// Returns how the debug log shows a URL.
pub fn logged_url(url: &Url) -> String {
    log::Shown(url).to_string()
}

/// Returns how the debug log shows a header; none if it is none.
pub fn logged_header(name: &str, value: &[u8]) -> Option<String> {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?);
    Some(log::Headers(&headers).to_string())
}
