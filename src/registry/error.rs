//! What can go wrong with a registry, and what the user can do about each.
//!
//! Invariant: no variant holds a secret; URLs are [`RedactedUrl`]s, texts of servers went through `foreign_text`.

use std::io;

use super::certs::CertificateFileError;
use super::credentials::Access;
use super::document::DocumentError;
use super::handshake::PROXY_LOGIN;
use super::refusal::{self, Refusal};
use super::transport::is_passing;
use super::url::RedactedUrl;
use crate::diag::{Diagnose, Kind};
use crate::digest::Digest;
use crate::image::Reference;

/// Credentials that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not as it should be.
    #[error("{path} is not usable: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong; never text of the file.
        reason: String,
    },
    /// A credential helper failed.
    #[error("credential helper {helper} failed: {reason}")]
    Helper {
        /// Name of the helper.
        helper: String,
        /// What went wrong.
        reason: String,
    },
}

/// A failed exchange with a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it broke.
    #[error("failed to reach registry {host}: {}", reason(cause))]
    Unreachable {
        /// The host that was to be reached.
        host: String,
        /// Why; told by its deepest cause alone, so it is no source of this error.
        cause: reqwest::Error,
    },
    /// Certificates that do not fit, or TLS on one side only.
    #[error("failed to reach registry {host}: {reason}")]
    Tls {
        /// The host that was to be reached.
        host: String,
        /// What does not fit.
        reason: String,
        /// What to do.
        remedy: String,
        /// Whether it will be the same next time.
        lasting: bool,
    },
    /// A file with a certificate or key that cannot be used.
    #[error("a certificate for {host} is not to be had")]
    CertificateFile {
        /// The registry it is for.
        host: String,
        /// What is wrong with it.
        #[source]
        source: CertificateFileError,
    },
    /// No answer in time.
    #[error("{host} did not answer within {seconds} s")]
    TimedOut {
        /// The host.
        host: String,
        /// The time waited.
        seconds: u64,
    },
    /// Content that comes, but too slowly.
    #[error("{host} did not send all of {digest} within {seconds} s")]
    TooSlow {
        /// The host.
        host: String,
        /// The content.
        digest: Digest,
        /// The time it was given.
        seconds: u64,
    },
    /// 401 or 403.
    #[error("{host} refused access to {repository} ({status}{detail})")]
    Denied {
        /// The registry as the user names it.
        host: String,
        /// The repository.
        repository: String,
        /// The status.
        status: u16,
        /// The server's reason, with a leading `: `; may be empty.
        detail: String,
        /// What was to be done.
        access: Access,
        /// Whether an account was used.
        logged_in: bool,
        /// Why credentials that exist were not sent.
        withheld: Option<String>,
    },
    /// 404 to a manifest.
    #[error("{reference}: not found")]
    NotFound {
        /// What was asked for.
        reference: Box<Reference>,
    },
    /// 429, also after waiting as told.
    #[error("{host} refuses more requests for now{window}")]
    RateLimited {
        /// The registry.
        host: String,
        /// The limit, with a leading ` (`; may be empty.
        window: String,
        /// Seconds to wait as the server says.
        retry_after: Option<u64>,
        /// Whether an account was used.
        logged_in: bool,
    },
    /// Any other refusal.
    #[error("{host} answered {status} when asked to {action}{detail}")]
    Status {
        /// The server.
        host: String,
        /// The repository.
        repository: String,
        /// What it was asked.
        action: &'static str,
        /// The status.
        status: u16,
        /// The server's reason, with a leading `: `; may be empty.
        detail: String,
        /// What was to be done.
        access: Access,
        /// Whether an account was used.
        logged_in: bool,
    },
    /// A URL chosen by a server that is not followed.
    #[error("{host} sent us to {target}, which is refused: {reason}")]
    Target {
        /// The registry.
        host: String,
        /// Where it sent us.
        target: Box<RedactedUrl>,
        /// Why not.
        reason: String,
    },
    /// An answer that breaks the protocol.
    #[error("{host} gave an invalid answer: {reason}")]
    Protocol {
        /// The server.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// A document longer than is read.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What it was.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// Content that is not what its digest says.
    #[error("content of {expected} has digest {actual}")]
    Mismatch {
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// Content that is not as long as its descriptor says.
    #[error("{digest} is {actual} bytes long, its descriptor says {expected}")]
    Size {
        /// The content.
        digest: Digest,
        /// The size in the descriptor.
        expected: u64,
        /// What came, or how much had come when it was given up.
        actual: u64,
    },
    /// Content that is wrong and came from a mirror; opened again, it comes from the next host.
    #[error("the mirror {mirror} gave what is not the content")]
    Spoiled {
        /// The mirror.
        mirror: String,
        /// What is wrong with it.
        #[source]
        source: Box<RegistryError>,
    },
    /// A manifest that is not usable.
    #[error("invalid manifest of {reference}")]
    Document {
        /// Whose.
        reference: String,
        /// What is wrong.
        #[source]
        source: DocumentError,
    },
    /// Content to push cannot be read.
    #[error("failed to read {digest} to push it")]
    Content {
        /// The content.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Content that is still being made cannot be read.
    #[error("failed to read a blob while it is made")]
    Unfinished {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No credentials to be had though they are configured.
    #[error("failed to get credentials for {host}")]
    Credentials {
        /// The registry.
        host: String,
        /// Why.
        #[source]
        source: CredentialsError,
    },
    /// The HTTP client cannot be made.
    #[error("failed to set up HTTP for {host}: {reason}")]
    Setup {
        /// The registry.
        host: String,
        /// Why.
        reason: String,
    },
}

impl RegistryError {
    /// Returns whether a manifest was refused because a blob it names is not there.
    pub fn lacks_a_blob(&self) -> bool {
        matches!(self, Self::Status { status: 400 | 404, detail, .. } if detail.contains("BLOB_UNKNOWN"))
    }

    /// Returns whether the content is to be had from another host, should it be opened again.
    pub fn is_spoiled(&self) -> bool {
        match self {
            Self::Spoiled { .. } => true,
            Self::Content { source, .. } => Self::is_spoiled_in(source),
            _ => false,
        }
    }

    /// Returns whether such an error is among the causes of another.
    pub fn is_spoiled_in(error: &(dyn std::error::Error + 'static)) -> bool {
        if let Some(error) = error.downcast_ref::<Self>() {
            return error.is_spoiled();
        }
        // An I/O error counts as the cause of what caused it, not as what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.is_some_and(|inner| Self::is_spoiled_in(inner)) || error.source().is_some_and(Self::is_spoiled_in)
    }

    /// Returns whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { cause, .. } => !is_lasting(cause),
            Self::TimedOut { .. } | Self::Tls { lasting: false, .. } => true,
            Self::Status { status, .. } => is_passing(*status),
            _ => false,
        }
    }
}

/// The deepest cause says what happened; those above it only which library noticed.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut deepest: &dyn std::error::Error = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    match crate::diag::chain(deepest) {
        text if text.contains(NO_RECORD) => "no such host".into(),
        text => text,
    }
}

/// What the resolver says of a name that does not exist.
const NO_RECORD: &str = "no record";

/// A refused address, an unknown name or a bad certificate will be the same next time.
fn is_lasting(error: &reqwest::Error) -> bool {
    const LASTING: [&str; 5] =
        ["refused to connect to", "certificate", NO_RECORD, "InvalidContentType", "corrupt message"];
    let text = crate::diag::chain(error);
    error.is_builder() || LASTING.iter().any(|l| text.contains(l))
}

impl Diagnose for RegistryError {
    fn kind(&self) -> Kind {
        Kind::Remote
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Unreachable { host, cause } => unreachable_hints(host, cause),
            Self::Tls { remedy, .. } => vec![remedy.clone()],
            Self::CertificateFile { source, .. } => source.remedy.iter().cloned().collect(),
            Self::Status { status: 407, .. } => vec![PROXY_LOGIN.into()],
            Self::Status { host, status: 405, detail, .. } if detail.contains("UNSUPPORTED") => {
                vec![format!("if {host} is a proxy of another registry, push to that one")]
            }
            Self::TimedOut { host, .. } | Self::TooSlow { host, .. } => {
                vec![format!("check that {host} can be reached from here, and any proxy")]
            }
            Self::Denied { host, repository, status, detail, access, logged_in, withheld } => {
                let (access, logged_in) = (*access, *logged_in);
                let refusal = Refusal { host, repository, status: *status, text: detail, access, logged_in };
                withheld.iter().cloned().chain(refusal::remedies(&refusal)).collect()
            }
            Self::Status { host, repository, status, detail, access, logged_in, .. } => {
                let (access, logged_in) = (*access, *logged_in);
                refusal::remedies(&Refusal { host, repository, status: *status, text: detail, access, logged_in })
            }
            Self::NotFound { reference } => {
                vec![format!("check the spelling of {}, and that it was pushed", reference.familiar())]
            }
            Self::RateLimited { host, retry_after, logged_in, .. } => {
                refusal::after_limit(host, *retry_after, *logged_in)
            }
            Self::Credentials { source: CredentialsError::File { path, .. }, .. } => {
                vec![format!("repair {path}, or name another directory in DOCKER_CONFIG")]
            }
            Self::Mismatch { .. } | Self::Size { .. } => {
                vec!["the image is damaged where it is kept: push the image again, or name another".into()]
            }
            _ => Vec::new(),
        }
    }
}

fn unreachable_hints(host: &str, error: &reqwest::Error) -> Vec<String> {
    let text = crate::diag::chain(error);
    if text.contains("InvalidContentType") || text.contains("corrupt message") {
        return vec![format!("if {host} speaks plain HTTP, set `http = true` under [registry.\"{host}\"]")];
    }
    if text.contains("certificate") {
        return vec![format!("add the authority of {host} with `ca = [\"FILE\"]` under [registry.\"{host}\"]")];
    }
    if text.contains("Connection refused") {
        return vec![format!(
            "nothing answers at {host}: check the name and the port, that the registry runs, and HTTPS_PROXY"
        )];
    }
    vec![format!("check the name {host}, the network, and HTTPS_PROXY")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_say_what_to_do() {
        let denied = RegistryError::Denied {
            host: "r.io".into(),
            repository: "a/b".into(),
            status: 401,
            detail: String::new(),
            access: Access::Pull,
            logged_in: false,
            withheld: Some("add X to trusted-realms".into()),
        };
        assert_eq!(denied.hints(), ["add X to trusted-realms", "log in with `docker login r.io`"]);
        let reference: Reference = "alpine:nope".parse().expect("reference");
        let missing = RegistryError::NotFound { reference: Box::new(reference) };
        assert_eq!(missing.to_string(), "docker.io/library/alpine:nope: not found");
        assert!(missing.hints()[0].contains("alpine:nope"));
    }
}
