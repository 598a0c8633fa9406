//! What can go wrong with a file of a web server.

use std::io;

use crate::diag::{Diagnose, Kind};
use crate::digest::Digest;
use crate::snapshot::SnapshotError;
use crate::store::StoreError;

/// A file that cannot be had. URLs are kept without user, password and query values.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The URL is none.
    #[error("invalid URL {url}: {reason}")]
    Url {
        /// The URL as far as it can be shown.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// An attribute of the source has a value that means nothing.
    #[error("invalid value {value:?} of {name}")]
    Attribute {
        /// The attribute.
        name: String,
        /// Its value.
        value: String,
    },
    /// An attribute that this version does nothing about, and that must not be ignored.
    #[error("{name} is not there in this version of rbuild")]
    Unsupported {
        /// The attribute.
        name: String,
    },
    /// The network failed.
    #[error("failed to fetch {url}")]
    Network {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing came for too long.
    #[error("failed to fetch {url}: no answer within {seconds} s")]
    TimedOut {
        /// The URL.
        url: String,
        /// The limit.
        seconds: u64,
    },
    /// The server says no.
    #[error("failed to fetch {url}: the server answered {status}")]
    Status {
        /// The URL.
        url: String,
        /// Code and reason.
        status: String,
        /// The host, as it stands in the names of secrets.
        host: String,
        /// The code.
        code: u16,
    },
    /// The server sent us to where we do not go.
    #[error("failed to fetch {url}: refused a redirect to {target}: {reason}")]
    Redirect {
        /// The URL.
        url: String,
        /// Where to.
        target: String,
        /// Why not.
        reason: String,
    },
    /// The file is larger than anything is allowed to be.
    #[error("failed to fetch {url}: it is larger than {limit} bytes")]
    TooLarge {
        /// The URL.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// It is another file.
    #[error("digest mismatch for {url}: it is {found}, expected {expected}")]
    Mismatch {
        /// The URL.
        url: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A secret that the source names was not given.
    #[error("failed to fetch {url}: secret {id}: not found")]
    SecretMissing {
        /// The URL.
        url: String,
        /// Its id.
        id: String,
    },
    /// A secret cannot stand in a header.
    #[error("secret {id} cannot be sent: it is no header value")]
    SecretInvalid {
        /// Its id.
        id: String,
    },
    /// The client cannot be made.
    #[error("failed to set up the HTTP client")]
    Setup {
        /// Why.
        #[source]
        source: crate::registry::RegistryError,
    },
    /// The file cannot be written.
    #[error("failed to write {url} to the state directory")]
    Write {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The layer with the file cannot be made.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else who fetched the same failed, or a thread ended.
    #[error("stopped while fetching {url}")]
    Stopped {
        /// The URL.
        url: String,
    },
}

impl Diagnose for HttpError {
    fn kind(&self) -> Kind {
        match self {
            Self::Url { .. } | Self::Attribute { .. } | Self::Unsupported { .. } => Kind::Dockerfile,
            Self::SecretMissing { .. } | Self::SecretInvalid { .. } => Kind::Usage,
            Self::Write { .. } => Kind::Machine,
            Self::Snapshot(error) => error.kind(),
            Self::Store(error) => error.kind(),
            _ => Kind::Remote,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Status { code: 401 | 403, host, .. } => vec![format!(
                "if it needs a login, give a token with `--secret id=HTTP_AUTH_TOKEN_{host},env=VARIABLE`, or a whole \
                 header value with `--secret id=HTTP_AUTH_HEADER_{host},env=VARIABLE`"
            )],
            Self::Status { code: 404 | 410, .. } => vec!["check the URL: the server has no such file".into()],
            Self::Mismatch { found, .. } => vec![format!(
                "if the new file is the one you want, write `--checksum={found}`; else the server gives you another file"
            )],
            Self::SecretMissing { id, .. } => {
                vec![format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`")]
            }
            Self::SecretInvalid { id } => {
                vec![format!("{id} must be one line of printable ASCII characters")]
            }
            Self::Snapshot(error) => error.hints(),
            Self::Store(error) => error.hints(),
            _ => Vec::new(),
        }
    }
}
