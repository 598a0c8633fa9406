//! Failures below HTTP, told so that the user can repair them.
//!
//! In: what the HTTP library reports, and what is known of the registry. Out: [`RegistryError::Tls`] with its remedy, or
//! [`RegistryError::Unreachable`] for what has nothing to do with certificates.

use std::error::Error as StdError;
use std::io;
use std::sync::atomic::Ordering;

use reqwest::Url;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::endpoint::Endpoint;
use super::error::RegistryError;

/// Bytes of an answer in which a server is asked for words about TLS.
const WORDS_LIMIT: usize = 4 << 10;

/// What helps against a proxy that answers 407.
pub(crate) const PROXY_LOGIN: &str =
    "put user and password into the proxy's URL: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT (and HTTP_PROXY)";

/// What an explanation is made of.
struct Facts<'a> {
    /// Who was to be reached.
    host: &'a str,
    /// Whose settings count.
    section: &'a str,
    /// Whether it wanted a certificate of ours and there was none to show.
    wants_certificate: bool,
    /// Whether it wanted one and was shown one.
    saw_certificate: bool,
    /// Whether there are no authorities, because those of this machine could not be read.
    no_authorities: bool,
}

/// Reason and remedy.
type Told = (String, String);

impl Endpoint {
    /// Makes the error for a connection that could not be made or broke.
    pub(crate) fn broken(&self, url: &Url, cause: reqwest::Error) -> RegistryError {
        let host = self.host_of(url);
        let asked = self.owns(url) && self.material.asked.load(Ordering::Relaxed);
        let facts = Facts {
            host: &host,
            section: &self.host,
            wants_certificate: asked && self.material.identities.is_empty(),
            saw_certificate: asked && !self.material.identities.is_empty(),
            no_authorities: self.has_no_authorities(),
        };
        let cut = facts.wants_certificate && !cause.is_timeout() && tls_error(&cause).is_none();
        let told = match tls_error(&cause) {
            Some(error) => facts.explain(error),
            None if cut => Some(facts.wants_ours()),
            None if url.scheme() == "http" && crate::diag::chain(&cause).contains("invalid HTTP version") => {
                Some(speaks_tls(&self.host))
            }
            None if no_http(&cause) => Some(speaks_no_http(&host)),
            None => proxy_login(&cause),
        };
        match told {
            // A cut may have another reason, and another try may tell it.
            Some((reason, remedy)) => RegistryError::Tls { host, reason, remedy, lasting: !cut },
            None => RegistryError::Unreachable { host, cause: cause.without_url() },
        }
    }

    /// Asks a registry that answered 400 to plain HTTP what it has against it: servers with TLS say so, though not to HEAD.
    pub(crate) async fn wants_tls(&self, url: &Url) -> Option<RegistryError> {
        if self.origin.secure || !self.owns(url) {
            return None;
        }
        let asked = self.http_for(url).ok()?.get(self.url("").ok()?).send();
        let mut response = tokio::time::timeout(self.patience.connect, asked).await.ok()?.ok()?;
        let mut words = Vec::new();
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(self.patience.connect, response.chunk()).await {
            words.extend_from_slice(&chunk);
            if words.len() >= WORDS_LIMIT {
                break;
            }
        }
        // Go's server and nginx; both name the protocol that the port is for.
        let says_so = words.windows(5).any(|word| word == b"HTTPS");
        let (reason, remedy) = speaks_tls(&self.host);
        says_so.then(|| RegistryError::Tls { host: self.host.clone(), reason, remedy, lasting: true })
    }
}

fn speaks_tls(host: &str) -> Told {
    let remedy = format!(
        "set `http = false` under [registry.\"{host}\"], and add its authority there with `ca = [\"FILE\"]` if it is of your own"
    );
    ("it speaks TLS and was asked over plain HTTP".into(), remedy)
}

/// What HTTP's reader says of bytes that are not HTTP/1.1, be they HTTP/2, and of heads that do not end.
const NO_HTTP: [&str; 3] = ["invalid HTTP version", "message head is too large", "invalid HTTP header"];

fn no_http(cause: &reqwest::Error) -> bool {
    let text = crate::diag::chain(cause);
    NO_HTTP.iter().any(|reason| text.contains(reason))
}

fn speaks_no_http(host: &str) -> Told {
    let remedy = format!("check that {host} is a registry, and what stands before it");
    ("it does not answer in HTTP/1.1".into(), remedy)
}

/// Explains a proxy that lets nobody in without a login.
fn proxy_login(cause: &reqwest::Error) -> Option<Told> {
    let wanted = crate::diag::chain(cause).contains("proxy authorization required");
    wanted.then(|| ("the proxy wants a login".into(), PROXY_LOGIN.into()))
}

/// Finds what TLS said among the causes.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error counts as the cause of what caused it, not as what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let wrapped = wrapped.and_then(|inner| tls_error(inner as &(dyn StdError + 'static)));
        if let Some(found) = wrapped.or_else(|| error.downcast_ref()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

impl Facts<'_> {
    fn explain(&self, error: &Error) -> Option<Told> {
        match error {
            Error::InvalidCertificate(error) => Some(self.explain_certificate(error)),
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Some(self.speaks_no_tls()),
            Error::AlertReceived(alert) => self.explain_alert(*alert),
            _ => None,
        }
    }

    fn explain_certificate(&self, error: &CertificateError) -> Told {
        let host = self.host;
        match error {
            CertificateError::Expired => self.outdated("its certificate has expired".into()),
            CertificateError::ExpiredContext { not_after, .. } => {
                self.outdated(format!("its certificate expired on {}", day(*not_after)))
            }
            CertificateError::NotValidYet => self.outdated("its certificate is not valid yet".into()),
            CertificateError::NotValidYetContext { not_before, .. } => {
                self.outdated(format!("its certificate is not valid before {}", day(*not_before)))
            }
            CertificateError::NotValidForName => self.other_name(&[]),
            CertificateError::NotValidForNameContext { presented, .. } => self.other_name(presented),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                "its certificate is of an authority that is not known here".into(),
                self.add_authority("its authority"),
            ),
            error if format!("{error:?}").contains("CaUsedAsEndEntity") => (
                "its certificate is one of an authority, and not one that is known here".into(),
                self.add_authority("that certificate itself"),
            ),
            error => {
                (format!("its certificate is not valid: {error}"), format!("have a new certificate made for {host}"))
            }
        }
    }

    fn add_authority(&self, what: &str) -> String {
        let section = self.section;
        let missing = "the authorities of this machine could not be read: install the package ca-certificates, or set SSL_CERT_FILE; ";
        let start = if self.no_authorities { missing } else { "" };
        format!(
            "{start}add {what}: `ca = [\"FILE\"]` under [registry.\"{section}\"] of buildkitd.toml, or save it as \
             /etc/docker/certs.d/{section}/ca.crt"
        )
    }

    fn outdated(&self, reason: String) -> Told {
        (reason, format!("renew the certificate of {}, or set the clock of this machine right", self.host))
    }

    fn other_name(&self, presented: &[String]) -> Told {
        let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
        let reason = match names.is_empty() {
            true => "its certificate names no host as subjectAltName".to_owned(),
            false => format!("its certificate is for {}", names.join(", ")),
        };
        let name = self.host.rsplit_once(':').map_or(self.host, |(name, _)| name);
        let remedy =
            format!("have the certificate made for {name} too (subjectAltName), or call the registry by a name in it");
        (reason, remedy)
    }

    fn speaks_no_tls(&self) -> Told {
        let remedy =
            format!("if {} speaks plain HTTP, set `http = true` under [registry.\"{}\"]", self.host, self.section);
        ("it does not speak TLS".into(), remedy)
    }

    fn wants_ours(&self) -> Told {
        let section = self.section;
        let remedy = format!(
            "name one: `[[registry.\"{section}\".keypair]]` with `key = \"FILE\"` and `cert = \"FILE\"`, or save them as \
             /etc/docker/certs.d/{section}/client.key and client.cert"
        );
        ("it wants a client certificate".into(), remedy)
    }

    fn explain_alert(&self, alert: AlertDescription) -> Option<Told> {
        if self.wants_certificate || alert == AlertDescription::CertificateRequired {
            return Some(self.wants_ours());
        }
        let remedy = format!(
            "check that the certificate in `keypair` of [registry.\"{}\"] is of an authority that {} knows, and has not expired",
            self.section, self.host
        );
        self.saw_certificate.then(|| (format!("it does not accept our client certificate ({alert:?})"), remedy))
    }
}

/// Takes `a.io` out of `DnsName("a.io")`, as certificates' names are told.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .map_or_else(|_| "an unknown day".into(), |t| t.date().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(wants: bool, saw: bool) -> Facts<'static> {
        Facts {
            host: "r.io:5000",
            section: "r.io:5000",
            wants_certificate: wants,
            saw_certificate: saw,
            no_authorities: false,
        }
    }

    #[test]
    fn each_failure_has_its_remedy() {
        let presented = vec!["DnsName(\"a.io\")".to_owned(), "IpAddress(10.0.0.1)".to_owned()];
        let expected = rustls::pki_types::ServerName::try_from("r.io").expect("name");
        let at = |days: u64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(days * 86_400));
        for (error, reason, remedy) in [
            (CertificateError::UnknownIssuer, "not known here", "/etc/docker/certs.d/r.io:5000/ca.crt"),
            (
                CertificateError::NotValidForNameContext { expected, presented },
                "for a.io, 10.0.0.1",
                "made for r.io too",
            ),
            (CertificateError::NotValidForName, "names no host", "subjectAltName"),
            (CertificateError::ExpiredContext { time: at(9), not_after: at(1) }, "expired on 1970-01-02", "renew"),
            (CertificateError::NotValidYet, "not valid yet", "clock"),
            (CertificateError::Revoked, "not valid: ", "new certificate"),
        ] {
            let (told, help) = facts(false, false).explain(&Error::InvalidCertificate(error)).expect("told");
            assert!(told.contains(reason) && help.contains(remedy), "{told}: {help}");
        }
    }

    #[test]
    fn alerts_are_about_our_certificate_only_where_one_was_asked_for() {
        let alert = |facts: Facts<'_>, alert| facts.explain(&Error::AlertReceived(alert)).map(|told| told.0);
        let wants = Some("it wants a client certificate".to_owned());
        assert_eq!(alert(facts(true, false), AlertDescription::BadCertificate), wants);
        assert_eq!(alert(facts(false, false), AlertDescription::CertificateRequired), wants);
        assert_eq!(alert(facts(false, false), AlertDescription::HandshakeFailure), None);
        let refused = alert(facts(false, true), AlertDescription::UnknownCA).expect("refused");
        assert!(refused.contains("does not accept our client certificate"), "{refused}");
    }

    #[test]
    fn tls_is_found_below_io_errors() {
        let inner = io::Error::other(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let outer = io::Error::other(inner);
        assert!(matches!(tls_error(&outer), Some(Error::InvalidCertificate(CertificateError::UnknownIssuer))));
        assert!(tls_error(&io::Error::other("none")).is_none());
    }
}
