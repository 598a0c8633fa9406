//! The debug log: every request with where it went, every answer with its headers, so that one sees who served what.
//!
//! ```text
//! do request method=GET url=https://mirror:5000/v2/library/alpine/blobs/sha256:…?ns=docker.io headers=accept="…" authorization=[redacted]
//! fetch response received status=200 OK url=… headers=content-length="3623807" x-goog-hash="…"
//! ```
//!
//! In: requests and answers. Out: lines of `tracing` at level debug. Invariant: of headers and query values that could be a secret only
//! the name is told: those are all whose name says so, and every query value but a known few.

use std::fmt::{self, Write as _};

use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, RequestBuilder, StatusCode, Url};

use super::error::RegistryError;
use super::url::foreign_text;

/// Query values that say what is asked for and let nobody in.
const SHOWN: [&str; 9] = ["ns", "digest", "mount", "from", "n", "last", "scope", "service", "artifactType"];
/// What the names of headers with secrets contain.
const SECRET: [&str; 10] =
    ["auth", "cookie", "token", "secret", "signature", "credential", "password", "key", "session", "assertion"];
const REDACTED: &str = "[redacted]";

/// Tells a request before it is sent.
pub(crate) fn request(method: &Method, url: &Url, headers: &HeaderMap, authorized: bool) {
    let authorization = if authorized { " authorization=[redacted]" } else { "" };
    tracing::debug!(%method, url = %Shown(url), headers = %format_args!("{}{authorization}", Headers(headers)), "do request");
}

/// Tells a request that was made elsewhere.
pub(crate) fn built(request: &RequestBuilder) {
    if let Some(request) = request.try_clone().and_then(|request| request.build().ok()) {
        self::request(request.method(), request.url(), request.headers(), false);
    }
}

/// Tells an answer when its headers have come.
pub(crate) fn response(status: StatusCode, url: &Url, headers: &HeaderMap) {
    tracing::debug!(%status, url = %Shown(url), headers = %Headers(headers), "fetch response received");
}

/// Tells that there was no answer.
pub(crate) fn failure(url: &Url, error: &RegistryError) {
    tracing::debug!(url = %Shown(url), error = %crate::diag::chain(error), "request failed");
}

/// A URL with the values of its query that are no secrets.
pub(super) struct Shown<'a>(pub(super) &'a Url);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bare = self.0.clone();
        bare.set_query(None);
        write!(f, "{}", super::RedactedUrl(bare))?;
        for (at, (name, value)) in self.0.query_pairs().enumerate() {
            let name = foreign_text(&name);
            let value = if SHOWN.contains(&&*name) { foreign_text(&value) } else { "…".into() };
            write!(f, "{}{name}={value}", if at == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

/// Headers in their order, one after another.
pub(super) struct Headers<'a>(pub(super) &'a HeaderMap);

impl fmt::Display for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            if value.is_sensitive() || is_secret(name) {
                write!(f, "{space}{name}={REDACTED}")?;
                continue;
            }
            write!(f, "{space}{name}=\"")?;
            for c in foreign_text(&String::from_utf8_lossy(value.as_bytes())).chars() {
                f.write_char(if c == '"' { '\'' } else { c })?;
            }
            f.write_char('"')?;
        }
        Ok(())
    }
}

/// The challenge is named like a secret and is none: it says which token server to ask.
fn is_secret(name: &HeaderName) -> bool {
    name != reqwest::header::WWW_AUTHENTICATE && SECRET.iter().any(|word| name.as_str().contains(word))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn r13_urls_show_what_is_asked_for_and_no_secret() {
        for (url, expected) in [
            ("https://m:5000/v2/a/manifests/1?ns=docker.io", "https://m:5000/v2/a/manifests/1?ns=docker.io"),
            (
                "https://u:p@h/x?X-Amz-Signature=abc&sig=d&digest=sha256:1",
                "https://…@h/x?X-Amz-Signature=…&sig=…&digest=sha256:1",
            ),
            (
                "https://h/token?scope=repository:a:pull&account=me&_state=xyz",
                "https://h/token?scope=repository:a:pull&account=…&_state=…",
            ),
        ] {
            assert_eq!(Shown(&Url::parse(url).expect(url)).to_string(), expected);
        }
    }

    #[test]
    fn r13_headers_lose_their_secrets() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer abc"),
            ("set-cookie", "session=abc"),
            ("x-amz-security-token", "abc"),
            ("x-ms-encryption-key", "abc"),
            ("proxy-authorization", "Basic abc"),
            ("location", "https://h/v2/a/blobs/uploads/1?_state=abc&X-Amz-Signature=abc"),
            ("x-body", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.abc"),
            ("www-authenticate", "Bearer realm=\"https://h/token?access_token=abc\",service=\"r\""),
            ("x-goog-hash", "crc32c=n03x6A=="),
            ("x-cache", "a\x1b[31m"),
        ] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value.replace('\x1b', "?").as_bytes()).expect(value),
            );
        }
        let shown = Headers(&headers).to_string();
        assert!(!shown.contains("abc"), "{shown}");
        assert!(shown.starts_with("authorization=[redacted] set-cookie=[redacted]"), "{shown}");
        assert!(shown.contains("x-goog-hash=\"crc32c=n03x6A==\""), "{shown}");
        assert!(shown.contains("realm='https://h/token"), "{shown}");
        let mut marked = HeaderValue::from_static("abc");
        marked.set_sensitive(true);
        headers.insert("x-plain", marked);
        assert!(Headers(&headers).to_string().contains("x-plain=[redacted]"));
    }
}
