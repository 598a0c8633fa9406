//! The OCI distribution client: resolve, pull, push (OCI distribution-spec 1.1; Docker token authentication).
//!
//! ```text
//! Client ─▶ Endpoint (one a registry: origin, HTTP clients, limits) ─▶ transport (redirects, retries, 401)
//!   │                                                                     └▶ auth (challenge, token cache, realms)
//!   ├▶ mirror    who is asked in which order                 handshake, log  what went wrong, what went by
//!   ├▶ certs, trust  authorities and certificates of ours     limits   how much at once
//!   ├▶ document  manifests and indexes, checked            address  where a server may send us
//!   ├▶ copy      from one repository to another
//!   ├▶ blob      streams, verified, resumed by range       url      origins, redaction
//!   ├▶ push      look asks and mounts, upload sends, turns    keyring, auth_file, helper  docker's and podman's credentials
//!   └▶ precheck  may it be pushed to?                      refusal  what to do about a no
//! ```
//!
//! In: references, descriptors, content to push. Out: verified bytes. Nothing is kept on disk.
//!
//! Invariants:
//! * A credential goes to the origin it is configured for, or to a token server that passes `auth`'s realm rules, never over
//!   plain HTTP unless the user configured that host so, and never along a redirect to another origin.
//! * All content is checked against its digest and size; a short read is continued, a wrong byte is an error.
//! * Memory, pages, redirects, retries and time are bounded, whatever a server does.

pub mod address;
mod auth;
pub mod auth_file;
mod blob;
mod certs;
mod challenge;
mod client;
mod copy;
mod credentials;
pub mod document;
mod endpoint;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod growing;
mod handshake;
mod helper;
pub mod keyring;
mod limits;
mod log;
mod look;
mod mirror;
mod once;
mod outage;
mod plan;
mod precheck;
mod push;
mod realm;
mod refusal;
#[cfg(test)]
mod refusal_tests;
mod transport;
mod trust;
mod turns;
mod upload;
pub mod url;

pub use blob::BlobStream;
pub use certs::{CertificateFileError, KeyPair};
pub use client::{Client, ClientOptions, HostOptions, Patience, Proxies};
pub use credentials::{Access, Account, Credentials, NoCredentials};
pub use document::{CONFIG_LIMIT, Document, DocumentError, MANIFEST_LIMIT};
pub(crate) use endpoint::Maker;
pub(crate) use error::reason;
pub use error::{CredentialsError, RegistryError};
pub use growing::Became;
pub use limits::BLOB_CONNECTIONS;
pub use precheck::Permission;
pub use push::{ByteReader, OnSent, Open, Pushed, Whereabouts};
pub(crate) use trust::{Material, SystemRoots, Trust};
pub use url::{Origin, RedactedUrl, Secret};
