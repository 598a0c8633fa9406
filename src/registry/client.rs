//! The client: settings in, one [`Endpoint`] a registry, documents out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::Resolve;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};

use super::address::SystemResolver;
use super::certs::KeyPair;
use super::credentials::{Access, Credentials};
use super::document::{self, Document, MANIFEST_LIMIT};
use super::endpoint::{Endpoint, Plain, Shared};
use super::error::RegistryError;
use super::limits::BLOB_CONNECTIONS;
use super::mirror::{Mirrors, Place, Sought};
use super::transport::{self, Body, Call, Scope, Wish};
use super::trust::SystemRoots;
use crate::digest::Digest;
use crate::image::{Descriptor, Reference, media};

/// What is special about a registry.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// Whether to speak plain HTTP; where nothing is said, only with this machine, and not if there are certificates for it.
    pub http: Option<bool>,
    /// Do not verify the server's certificate. Together with `http`, TLS is tried first.
    pub insecure: bool,
    /// Files with authorities to trust besides the system's, or directories of such files.
    pub authorities: Vec<PathBuf>,
    /// Certificates to show, of which the one is taken that the registry asks for.
    pub keypairs: Vec<KeyPair>,
    /// Directories with `*.crt`, `*.cert` and `*.key` as in `/etc/docker/certs.d/HOST`.
    pub directories: Vec<PathBuf>,
    /// Registries that are asked first, in this order: `host`, `host:port`, or either with a path that goes before the
    /// repository. Nothing is pushed to them.
    pub mirrors: Vec<String>,
    /// Hosts, with port if not the default, that may see the credentials as token servers.
    pub trusted_realms: Vec<String>,
}

/// HTTP proxies as URLs.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// For `http` URLs.
    pub http: Option<String>,
    /// For `https` URLs.
    pub https: Option<String>,
    /// Hosts to reach directly, in the syntax of `NO_PROXY`.
    pub except: String,
}

/// How long to wait and how often to try again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next byte.
    pub idle: Duration,
    /// For a whole manifest, token or error.
    pub document: Duration,
    /// Attempts in all.
    pub attempts: u32,
    /// Wait before the second attempt; doubles with each.
    pub backoff: Duration,
    /// Longest wait a server may ask for before it counts as refusal.
    pub longest_wait: Duration,
    /// Bytes a second below which a blob's transfer is given up, beyond `document`.
    pub slowest: u64,
}

impl Patience {
    /// Returns how long to wait after that attempt failed, counted from 1.
    pub(crate) fn wait_after(&self, attempt: u32) -> Duration {
        self.backoff.saturating_mul(1 << (attempt - 1).min(6)).min(self.longest_wait)
    }

    /// Returns how long a request waits in all before it gives a registry up that refuses each attempt at once.
    pub(crate) fn of_a_request(&self) -> Duration {
        (1..self.attempts).map(|attempt| self.wait_after(attempt)).sum()
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            document: Duration::from_secs(120),
            attempts: 6,
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            slowest: 4 << 10,
        }
    }
}

/// Settings of a client.
pub struct ClientOptions {
    /// What is special about registries, by host as it stands in references.
    pub hosts: BTreeMap<String, HostOptions>,
    /// Who we are.
    pub credentials: Arc<dyn Credentials>,
    /// `User-Agent`.
    pub user_agent: String,
    /// Proxies.
    pub proxies: Proxies,
    /// Time limits.
    pub patience: Patience,
    /// Directories like `/etc/docker/certs.d`, in which a folder named like a registry holds its certificates.
    pub certificates: Vec<PathBuf>,
    /// Blobs moved at once with one registry.
    pub blobs_at_once: usize,
    /// Looks up names, the system's way if none.
    pub resolver: Option<Arc<dyn Resolve>>,
}

impl ClientOptions {
    /// Returns the settings for public registries.
    pub fn new(credentials: Arc<dyn Credentials>) -> Self {
        Self {
            hosts: BTreeMap::new(),
            credentials,
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).into(),
            proxies: Proxies::default(),
            patience: Patience::default(),
            certificates: Vec::new(),
            blobs_at_once: BLOB_CONNECTIONS,
            resolver: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("hosts", &self.hosts.keys().collect::<BTreeSet<_>>())
            .finish_non_exhaustive()
    }
}

/// Speaks to registries.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    shared: Shared,
    endpoints: Mutex<BTreeMap<String, Arc<Endpoint>>>,
    pub(crate) mirrors: Mirrors,
}

const ACCEPT: [&str; 4] = [media::OCI_INDEX, media::OCI_MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST];
/// Pages of a listing that are read.
const PAGES: usize = 100;

impl Client {
    /// Makes a client; connects to nothing yet.
    pub fn new(mut options: ClientOptions) -> Result<Arc<Self>, RegistryError> {
        // Another part of the program may have installed the provider already; then it is the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let resolver = options.resolver.take().unwrap_or_else(|| Arc::new(SystemResolver::default()));
        let shared = Shared { resolver, tokens: Arc::default(), system: SystemRoots::default() };
        merge_docker_hub(&mut options.hosts);
        Ok(Arc::new(Self { options, shared, endpoints: Mutex::default(), mirrors: Mirrors::default() }))
    }

    /// Returns the mirrors of a registry, none if it has none.
    pub(crate) fn mirrors_of(&self, registry: &str) -> Option<&[String]> {
        let host = self.options.hosts.get(registry)?;
        (!host.mirrors.is_empty()).then_some(&host.mirrors)
    }

    /// Returns whether content of a registry may come from other hosts too.
    pub fn has_mirrors(&self, registry: &str) -> bool {
        self.mirrors_of(registry).is_some()
    }

    /// Returns how many blobs are moved at once with one registry.
    pub fn blobs_at_once(&self) -> usize {
        self.options.blobs_at_once
    }

    /// Returns the endpoint of a registry, made once.
    pub(crate) async fn endpoint(&self, host: &str) -> Result<Arc<Endpoint>, RegistryError> {
        if let Some(endpoint) = self.endpoints().get(host) {
            return Ok(Arc::clone(endpoint));
        }
        let mut endpoint = Endpoint::new(host, &self.options, &self.shared, Plain::AsConfigured)?;
        if endpoint.may_fall_back() && !endpoint.answers().await {
            endpoint = Endpoint::new(host, &self.options, &self.shared, Plain::Http)?;
        }
        let endpoint = self.endpoints().entry(host.to_owned()).or_insert_with(|| Arc::new(endpoint)).clone();
        Ok(endpoint)
    }

    fn endpoints(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Endpoint>>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whether the registry is one and lets us in, without naming a repository.
    pub async fn ping(&self, host: &str) -> Result<(), RegistryError> {
        let endpoint = self.endpoint(host).await?;
        let call = Call::new(Method::GET, endpoint.url("")?, Vec::new());
        let response = endpoint.send(&call).await?;
        let wish = Wish { repository: "", access: Access::Pull, action: "confirm its version" };
        transport::expect(&endpoint, response, wish, &[StatusCode::OK]).await.map(drop)
    }

    /// Returns what a reference points to, without its content where the registry says enough of it.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        let sought = Sought::manifest(reference);
        self.through_mirrors(reference, sought, |place| async move { self.resolve_at(&place).await }).await
    }

    async fn resolve_at(&self, place: &Place) -> Result<Descriptor, RegistryError> {
        let reference = &place.reference;
        let endpoint = self.endpoint(&reference.registry).await?;
        let turn = endpoint.limits.document().await;
        let response = ask_manifest(&endpoint, place, Method::HEAD).await;
        drop(turn);
        let response = match response {
            // What is refused so comes without a reason, and may not be refused in full.
            Err(RegistryError::Denied { .. } | RegistryError::Status { .. }) => {
                return self.manifest_at(place).await.map(|(descriptor, _)| descriptor);
            }
            response => response?,
        };
        let headers = response.headers();
        let media_type = text(headers, header::CONTENT_TYPE.as_str());
        let size = text(headers, header::CONTENT_LENGTH.as_str()).and_then(|s| s.parse::<u64>().ok());
        let digest = stated_digest(headers).or_else(|| reference.digest.clone());
        let wrong = reference.digest.is_some() && digest != reference.digest;
        match (media_type, digest, size) {
            (Some(kind), Some(digest), Some(size)) if !wrong && ACCEPT.contains(&kind.as_str()) => {
                Ok(Descriptor::new(kind, digest, size))
            }
            _ => self.manifest_at(place).await.map(|(descriptor, _)| descriptor),
        }
    }

    /// Returns a manifest or index, checked against the digest of the reference and for having one meaning.
    pub async fn manifest(&self, reference: &Reference) -> Result<(Descriptor, Bytes), RegistryError> {
        let sought = Sought::manifest(reference);
        self.through_mirrors(reference, sought, |place| async move { self.manifest_at(&place).await }).await
    }

    async fn manifest_at(&self, place: &Place) -> Result<(Descriptor, Bytes), RegistryError> {
        let reference = &place.reference;
        let endpoint = self.endpoint(&reference.registry).await?;
        let _turn = endpoint.limits.document().await;
        let response = ask_manifest(&endpoint, place, Method::GET).await?;
        let (kind, stated) = (text(response.headers(), "content-type"), stated_digest(response.headers()));
        let what = format!("the manifest of {reference}");
        let bytes = transport::read(&endpoint, response, &what, MANIFEST_LIMIT).await?;
        let actual = Digest::compute(&bytes);
        let stated = stated.filter(|d| d.algorithm() == "sha256");
        if let Some(expected) = reference.digest.clone().or(stated).filter(|e| *e != actual) {
            return Err(RegistryError::Mismatch { expected, actual });
        }
        let (media_type, _) = parse(&reference.to_string(), &bytes, kind.as_deref())?;
        Ok((Descriptor::new(media_type, actual, bytes.len() as u64), bytes))
    }

    /// Returns the whole of a small blob, such as a configuration, verified.
    pub async fn small_blob(
        self: &Arc<Self>,
        name: &Reference,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Bytes, RegistryError> {
        if descriptor.size > limit {
            return Err(RegistryError::TooLarge { what: descriptor.digest.to_string(), limit });
        }
        loop {
            match self.collected(name, descriptor).await {
                Err(error) if error.is_spoiled() => {}
                result => return result,
            }
        }
    }

    async fn collected(self: &Arc<Self>, name: &Reference, descriptor: &Descriptor) -> Result<Bytes, RegistryError> {
        let mut stream = self.blob(name, descriptor).await?;
        let mut content = Vec::new();
        while let Some(chunk) = stream.chunk().await? {
            content.extend_from_slice(&chunk);
        }
        Ok(content.into())
    }

    /// Lists the tags of a repository, at most a hundred pages of them.
    pub async fn tags(&self, name: &Reference) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let endpoint = self.endpoint(&name.registry).await?;
        let mut next = Some(endpoint.url(&format!("{}/tags/list?n=1000", name.repository))?);
        let mut seen = BTreeSet::new();
        let mut tags = Vec::new();
        while let Some(url) = next.take().filter(|url| seen.len() < PAGES && seen.insert(url.to_string())) {
            let call = Call::new(Method::GET, url.clone(), vec![Scope::pull(&name.repository)]);
            let _turn = endpoint.limits.document().await;
            let response = endpoint.send(&call).await?;
            let wish = Wish { repository: &name.repository, access: Access::Pull, action: "list tags" };
            let response = transport::expect(&endpoint, response, wish, &[StatusCode::OK]).await?;
            next = next_page(&endpoint, &url, response.headers());
            let bytes = transport::read(&endpoint, response, "a list of tags", MANIFEST_LIMIT).await?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|_| RegistryError::Protocol {
                host: endpoint.host.clone(),
                reason: "a list of tags that is not JSON".into(),
            })?;
            tags.extend(page.tags.unwrap_or_default());
        }
        Ok(tags)
    }

    /// Stores a manifest or index under the tag of the reference, or its digest.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<Digest, RegistryError> {
        let endpoint = self.endpoint(&reference.registry).await?;
        let _turn = endpoint.limits.document().await;
        let digest = Digest::compute(bytes);
        if let Some(expected) = reference.digest.clone().filter(|d| *d != digest) {
            return Err(RegistryError::Mismatch { expected, actual: digest });
        }
        let target = reference.tag.clone().unwrap_or_else(|| digest.to_string());
        let url = endpoint.url(&format!("{}/manifests/{target}", reference.repository))?;
        let kind = HeaderValue::from_str(media_type).map_err(|_| RegistryError::Protocol {
            host: endpoint.host.clone(),
            reason: "a media type that is no header value".into(),
        })?;
        let mut call =
            Call::new(Method::PUT, url, vec![Scope::push(&reference.repository)]).header(header::CONTENT_TYPE, kind);
        call.body = Body::Bytes(bytes.clone());
        let response = endpoint.send(&call).await?;
        let good = [StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED];
        let wish = Wish { repository: &reference.repository, access: Access::Push, action: "store a manifest" };
        let response = transport::expect(&endpoint, response, wish, &good).await?;
        match stated_digest(response.headers()).filter(|d| *d != digest && d.algorithm() == "sha256") {
            Some(actual) => Err(RegistryError::Mismatch { expected: digest, actual }),
            None => Ok(digest),
        }
    }
}

/// Reads a document of the named reference.
pub(crate) fn parse(reference: &str, bytes: &[u8], stated: Option<&str>) -> Result<(String, Document), RegistryError> {
    document::parse(bytes, stated).map_err(|source| RegistryError::Document { reference: reference.to_owned(), source })
}

async fn ask_manifest(endpoint: &Endpoint, place: &Place, method: Method) -> Result<Response, RegistryError> {
    let Place { reference, .. } = place;
    let url = place.url(endpoint, &format!("manifests/{}", manifest_target(reference)))?;
    let mut call = Call::new(method, url, vec![Scope::pull(&reference.repository)])
        .header(header::ACCEPT, HeaderValue::from_str(&ACCEPT.join(", ")).expect("media types are ASCII"));
    call.attempts = place.attempts();
    let response = endpoint.send(&call).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(RegistryError::NotFound { reference: Box::new(reference.clone()) });
    }
    let wish = Wish { repository: &reference.repository, access: Access::Pull, action: "give a manifest" };
    transport::expect(endpoint, response, wish, &[StatusCode::OK]).await
}

/// Docker Hub's registry has other names, under which a file may speak of it.
fn merge_docker_hub(hosts: &mut BTreeMap<String, HostOptions>) {
    let other = ["index.docker.io", "registry-1.docker.io"].iter().find_map(|name| hosts.get(*name)).cloned();
    if let Some(options) = other {
        hosts.entry("docker.io".into()).or_insert(options);
    }
}

fn manifest_target(reference: &Reference) -> String {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => "latest".into(),
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn stated_digest(headers: &HeaderMap) -> Option<Digest> {
    text(headers, "docker-content-digest")?.parse().ok()
}

/// A next page elsewhere is no page of this registry.
fn next_page(endpoint: &Endpoint, url: &Url, headers: &HeaderMap) -> Option<Url> {
    let link = super::challenge::next_link(&text(headers, "link")?)?;
    url.join(&link).ok().filter(|next| endpoint.owns(next))
}
