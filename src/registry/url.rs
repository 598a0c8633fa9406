//! Where requests go: origins, and URLs that are safe to print.
//!
//! In: URLs of our own making and URLs chosen by servers. Out: [`Origin`]s to compare, [`RedactedUrl`]s for messages.
//! Invariant: no other type prints a URL, because user names, passwords and signatures live in them.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;
use reqwest::header::HeaderMap;

/// Scheme, host and port: what decides whether a credential may be sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Whether it is spoken to over TLS.
    pub secure: bool,
    /// Host name in lower case, or an address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Origin {
    /// Returns the origin of an `http` or `https` URL with a host.
    pub fn of(url: &Url) -> Option<Self> {
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = url.host_str()?.trim_end_matches('.').to_owned();
        Some(Self { secure, host, port: url.port_or_known_default()? })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.secure { "https" } else { "http" }, self.host, self.port)
    }
}

/// Returns the address a URL names without any lookup.
pub(crate) fn literal_address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// A URL that prints without user, password and query values.
#[derive(Clone, PartialEq, Eq)]
pub struct RedactedUrl(pub Url);

impl fmt::Display for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.0;
        write!(f, "{}://", url.scheme())?;
        if !url.username().is_empty() || url.password().is_some() {
            f.write_str("…@")?;
        }
        f.write_str(url.host_str().unwrap_or(""))?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(url.path())?;
        for (at, (name, _)) in url.query_pairs().enumerate() {
            write!(f, "{}{name}=…", if at == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A password or token; prints as nothing of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the secret itself, to be sent and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Longest text of a server repeated in a message.
const FOREIGN_TEXT: usize = 300;

/// Makes a server's words fit for a message: one line, bounded, without URLs' secrets and without tokens.
pub(crate) fn foreign_text(text: &str) -> String {
    let words = text.split_whitespace().map(redact_word);
    let line: String = words.collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(FOREIGN_TEXT).collect()
}

fn redact_word(word: &str) -> String {
    let first = [word.find("http://"), word.find("https://")].into_iter().flatten().min();
    let word = match first {
        Some(at) => redact_url(word, at),
        None => redact_query(word),
    };
    match word.find("eyJ").filter(|at| word.len() - at > 20) {
        Some(at) => format!("{}[redacted]", &word[..at]),
        None => word,
    }
}

fn redact_url(word: &str, at: usize) -> String {
    let url = word[at..].trim_end_matches(['"', '\'', ')', ',', ';', '>']);
    match Url::parse(url) {
        Ok(url) => format!("{}{}", &word[..at], RedactedUrl(url)),
        Err(_) => format!("{}[url]", &word[..at]),
    }
}

/// `access_token=abc` outside of a URL loses its value too.
fn redact_query(word: &str) -> String {
    const SECRET_NAMES: [&str; 5] = ["token", "sig", "password", "secret", "credential"];
    let Some((name, _)) = word.split_once('=') else { return word.to_owned() };
    let lower = name.to_lowercase();
    if SECRET_NAMES.iter().any(|secret| lower.contains(secret)) { format!("{name}=…") } else { word.to_owned() }
}

/// Resolves a `Location` header against the URL that answered with it.
pub(crate) fn location(base: &Url, headers: &HeaderMap) -> Option<Url> {
    let value = headers.get(reqwest::header::LOCATION)?.to_str().ok()?;
    base.join(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r13_urls_print_without_their_secrets() {
        for (text, expected) in [
            ("https://user:pw@host/p", "https://…@host/p"),
            ("https://host:8443/p?sig=abc&X-Amz-Signature=def", "https://host:8443/p?sig=…&X-Amz-Signature=…"),
            ("https://host/p?access_token=abc", "https://host/p?access_token=…"),
        ] {
            let url = RedactedUrl(Url::parse(text).expect(text));
            assert_eq!((url.to_string(), format!("{url:?}")), (expected.into(), expected.into()));
        }
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[secret]");
    }

    #[test]
    fn r13_foreign_texts_lose_tokens_and_control_characters() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln";
        for text in [
            format!("bad token {token}"),
            format!("bad token=\"{token}\""),
            format!("see https://u:p@h/x?access_token={token}"),
            format!("access_token={token}"),
            "access_token=c2lnbmF0dXJl password=p".to_owned(),
            "GET \"https://h/x?sig=c2ln\": no".to_owned(),
            "https://u:p@h/http://x".to_owned(),
            "https://u:p@h:70000/http://x".to_owned(),
        ] {
            let shown = foreign_text(&text);
            assert!(!shown.contains("c2ln") && !shown.contains("u:p@"), "{shown}");
        }
        // Letters whose lower case is longer.
        assert_eq!(foreign_text("İ=1 İİİİİtoken=abc"), "İ=1 İİİİİtoken=…");
        assert_eq!(foreign_text("a\x1b[31m\r\n::error::b"), "a[31m ::error::b");
        assert_eq!(foreign_text(&"x".repeat(5000)).len(), FOREIGN_TEXT);
    }

    #[test]
    fn origins_tell_ports_and_schemes_apart() {
        let origin = |text: &str| Origin::of(&Url::parse(text).expect(text));
        assert_eq!(origin("https://A.io/x"), origin("https://a.io:443/y"));
        assert_eq!(origin("https://a.io./x"), origin("https://a.io/"));
        for other in ["http://a.io", "https://a.io:444", "https://b.a.io", "https://a.io.evil"] {
            assert_ne!(origin("https://a.io"), origin(other), "{other}");
        }
        assert_eq!(origin("file:///etc/passwd"), None);
    }
}
