//! The OCI distribution client: resolve, pull, push (OCI distribution-spec 1.1; Docker token authentication).
//!
//! ```text
//! Client ─▶ Endpoint (one a registry: origin, HTTP clients, limits) ─▶ transport (redirects, retries, 401)
//!   │                                                                     └▶ auth (challenge, token cache, realms)
//!   ├▶ document  manifests and indexes, checked            address  where a server may send us
//!   ├▶ copy      from one repository to another
//!   ├▶ blob      streams, verified, resumed by range       url      origins, redaction
//!   └▶ push      mount, upload, manifests                  auth_file, helper  docker's credentials
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
mod challenge;
mod client;
mod copy;
mod credentials;
pub mod document;
mod endpoint;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod helper;
mod push;
mod realm;
mod transport;
pub mod url;

pub use blob::BlobStream;
pub use client::{Client, ClientOptions, HostOptions, Patience, Proxies};
pub use credentials::{Account, Credentials, NoCredentials};
pub use document::{CONFIG_LIMIT, Document, DocumentError, MANIFEST_LIMIT};
pub(crate) use endpoint::{Maker, Trust};
pub(crate) use error::reason;
pub use error::{CredentialsError, RegistryError};
pub use push::{ByteReader, OnSent, Open, Pushed, Whereabouts};
pub use url::{Origin, RedactedUrl, Secret};
