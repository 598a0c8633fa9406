//! The client: settings in, one [`Endpoint`] a registry, documents out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::Resolve;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};

use super::address::SystemResolver;
use super::auth::Tokens;
use super::credentials::{Access, Credentials};
use super::document::{self, Document, MANIFEST_LIMIT};
use super::endpoint::{Endpoint, Plain};
use super::error::RegistryError;
use super::transport::{self, Body, Call, Scope, Wish};
use crate::digest::Digest;
use crate::image::{Descriptor, Reference, media};

/// What is special about a registry.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// Speak plain HTTP.
    pub http: bool,
    /// Do not verify the server's certificate.
    pub insecure: bool,
    /// PEM bundles of authorities to trust besides the system's.
    pub authorities: Vec<Vec<u8>>,
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
    resolver: Resolver,
    endpoints: Mutex<BTreeMap<String, Arc<Endpoint>>>,
    tokens: Arc<Tokens>,
}

struct Resolver(Arc<dyn Resolve>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

const ACCEPT: [&str; 4] = [media::OCI_INDEX, media::OCI_MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST];
/// Pages of a listing that are read.
const PAGES: usize = 100;

impl Client {
    /// Makes a client; connects to nothing yet.
    pub fn new(mut options: ClientOptions) -> Result<Arc<Self>, RegistryError> {
        // Another part of the program may have installed the provider already; then it is the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let resolver = Resolver(options.resolver.take().unwrap_or_else(|| Arc::new(SystemResolver::default())));
        let (endpoints, tokens) = (Mutex::default(), Arc::default());
        Ok(Arc::new(Self { options, resolver, endpoints, tokens }))
    }

    /// Asks the mirrors of a reference's registry, and at last itself, whose answer counts when none has one.
    pub(crate) async fn through_mirrors<T, F>(
        &self,
        reference: &Reference,
        mut ask: impl FnMut(Reference) -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mirrors = self.options.hosts.get(&reference.registry).map_or(&[][..], |host| &host.mirrors);
        for mirror in mirrors {
            let (registry, path) = mirror.split_once('/').unwrap_or((mirror, ""));
            let path = path.trim_matches('/');
            let repository = match path {
                "" => reference.repository.clone(),
                path => format!("{path}/{}", reference.repository),
            };
            match ask(Reference { registry: registry.into(), repository, ..reference.clone() }).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tracing::debug!(%mirror, %reference, %error, "the mirror does not have it"),
            }
        }
        ask(reference.clone()).await
    }

    /// Returns the endpoint of a registry, made once.
    pub(crate) async fn endpoint(&self, host: &str) -> Result<Arc<Endpoint>, RegistryError> {
        if let Some(endpoint) = self.endpoints().get(host) {
            return Ok(Arc::clone(endpoint));
        }
        let mut endpoint = Endpoint::new(host, &self.options, (&self.resolver.0, &self.tokens), Plain::AsConfigured)?;
        if endpoint.options.insecure && !endpoint.answers().await {
            endpoint = Endpoint::new(host, &self.options, (&self.resolver.0, &self.tokens), Plain::Http)?;
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
        self.through_mirrors(reference, |place| async move { self.resolve_at(&place).await }).await
    }

    async fn resolve_at(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        let response = match self.ask_manifest(reference, Method::HEAD).await {
            // What is refused so comes without a reason, and may not be refused in full.
            Err(RegistryError::Denied { .. } | RegistryError::Status { .. }) => {
                return self.manifest_at(reference).await.map(|(descriptor, _)| descriptor);
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
            _ => self.manifest_at(reference).await.map(|(descriptor, _)| descriptor),
        }
    }

    /// Returns a manifest or index, checked against the digest of the reference and for having one meaning.
    pub async fn manifest(&self, reference: &Reference) -> Result<(Descriptor, Bytes), RegistryError> {
        self.through_mirrors(reference, |place| async move { self.manifest_at(&place).await }).await
    }

    async fn manifest_at(&self, reference: &Reference) -> Result<(Descriptor, Bytes), RegistryError> {
        let endpoint = self.endpoint(&reference.registry).await?;
        let response = self.ask_manifest(reference, Method::GET).await?;
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

    async fn ask_manifest(&self, reference: &Reference, method: Method) -> Result<Response, RegistryError> {
        let endpoint = self.endpoint(&reference.registry).await?;
        let target = manifest_target(reference);
        let url = endpoint.url(&format!("{}/manifests/{target}", reference.repository))?;
        let call = Call::new(method, url, vec![Scope::pull(&reference.repository)])
            .header(header::ACCEPT, HeaderValue::from_str(&ACCEPT.join(", ")).expect("media types are ASCII"));
        let response = endpoint.send(&call).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(RegistryError::NotFound { reference: Box::new(reference.clone()) });
        }
        let wish = Wish { repository: &reference.repository, access: Access::Pull, action: "give a manifest" };
        transport::expect(&endpoint, response, wish, &[StatusCode::OK]).await
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
