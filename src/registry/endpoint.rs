//! One registry: where it is, and the HTTP clients for it and for where it sends us.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::Resolve;
use reqwest::{NoProxy, Proxy, Url, redirect};
use tokio::sync::OnceCell;

use super::address::{self, GuardedResolver, PrivateNames, Reach};
use super::auth::{Accounts, Tokens};
use super::certs;
use super::challenge::Challenge;
use super::client::{ClientOptions, HostOptions, Patience, Proxies};
use super::credentials::Credentials;
use super::error::RegistryError;
use super::limits::Limits;
use super::outage::Outage;
use super::trust::{self, Material, SystemRoots, Trust};
use super::turns::Turns;
use super::upload::Session;
use super::url::{Origin, RedactedUrl, literal_address};
use crate::digest::Digest;

/// How long a blob that was there is taken to be there: what no manifest names, registries collect after a while.
const CERTAIN: Duration = Duration::from_secs(600);

/// Whether a registry speaks plain HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    /// As its settings have it.
    AsConfigured,
    /// It does.
    Http,
}

/// What all registries of a client share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) system: SystemRoots,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

/// One registry as this client sees it.
pub(crate) struct Endpoint {
    /// The name in references.
    pub(crate) host: String,
    pub(crate) origin: Origin,
    pub(crate) options: HostOptions,
    pub(crate) patience: Patience,
    pub(crate) credentials: Arc<dyn Credentials>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) limits: Limits,
    pub(crate) outage: Outage,
    /// Its authorities and our certificates for it.
    pub(crate) material: Material,
    /// The challenge the registry gave last, so that later requests need not be refused first.
    challenge: Mutex<Option<Challenge>>,
    pub(crate) accounts: Accounts,
    /// Blobs this client found in or put into repositories, and when: repository, digest.
    present: Mutex<BTreeMap<(String, Digest), Instant>>,
    /// Repositories that lacked a blob they were asked for.
    lacking: Mutex<BTreeSet<String>>,
    /// Repositories that were asked for a blob, or are being asked.
    questions: Mutex<BTreeMap<String, Arc<OnceCell<()>>>>,
    /// Who works on which blob, and who begins an upload to a repository.
    pub(crate) turns: Turns,
    /// Upload sessions that were begun and are not in use, by repository, and since when.
    kept: Mutex<BTreeMap<String, (Instant, Session)>>,
    /// Why the account was not sent to the token server, if it was not.
    withheld: Mutex<Option<String>>,
    base: Url,
    maker: Maker,
    direct: reqwest::Client,
    public: OnceLock<reqwest::Client>,
    private: OnceLock<reqwest::Client>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({} at {})", self.host, self.origin)
    }
}

impl Endpoint {
    pub(crate) fn new(
        host: &str,
        options: &ClientOptions,
        shared: &Shared,
        plain: Plain,
    ) -> Result<Self, RegistryError> {
        let options_of_host = options.hosts.get(host).cloned().unwrap_or_default();
        let material = material(host, &options_of_host, options)?;
        let base = base_url(host, &options_of_host, plain, material.is_some());
        let base = Url::parse(&base).map_err(|e| setup(host, &e.to_string()))?;
        let origin = Origin::of(&base).ok_or_else(|| setup(host, "no host"))?;
        let maker = Maker {
            host: host.to_owned(),
            user_agent: options.user_agent.clone(),
            proxies: options.proxies.clone(),
            patience: options.patience,
            resolver: Arc::clone(&shared.resolver),
            material: material.for_others(),
            system: shared.system.clone(),
            private_names: PrivateNames::default(),
        };
        let trust = if maker.speaks_tls(&base) { Trust::of(options_of_host.insecure) } else { Trust::Nobody };
        Ok(Self {
            host: host.to_owned(),
            direct: maker.make_for(Reach::Anywhere, trust, &material)?,
            options: options_of_host,
            patience: options.patience,
            credentials: Arc::clone(&options.credentials),
            tokens: Arc::clone(&shared.tokens),
            limits: Limits::new(options.blobs_at_once),
            outage: Outage::default(),
            material,
            challenge: Mutex::default(),
            accounts: Accounts::default(),
            present: Mutex::default(),
            lacking: Mutex::default(),
            questions: Mutex::default(),
            turns: Turns::default(),
            kept: Mutex::default(),
            withheld: Mutex::default(),
            origin,
            base,
            maker,
            public: OnceLock::new(),
            private: OnceLock::new(),
        })
    }

    /// Returns whether plain HTTP may be spoken where nothing answers over TLS.
    pub(crate) fn may_fall_back(&self) -> bool {
        self.options.insecure && self.origin.secure && speaks_http(&self.host, &self.options, self.material.is_some())
    }

    /// Returns whether there are no authorities: those of this machine could not be read.
    pub(crate) fn has_no_authorities(&self) -> bool {
        self.maker.system.are_none()
    }

    /// Returns whether anything answers in the protocol that is spoken; asked where the other is allowed too.
    pub(crate) async fn answers(&self) -> bool {
        let asked = self.direct.get(self.base.clone()).timeout(self.patience.connect).send().await;
        if let Err(error) = &asked {
            tracing::debug!(host = %self.host, %error, "no answer, trying plain HTTP");
        }
        asked.is_ok()
    }

    /// Returns the URL of `path` below `/v2/`. Repository, tag and digest are valid by their types, so nothing is escaped.
    pub(crate) fn url(&self, path: &str) -> Result<Url, RegistryError> {
        self.base.join(path).map_err(|e| setup(&self.host, &e.to_string()))
    }

    /// Returns whether a URL is at this registry's own origin.
    pub(crate) fn owns(&self, url: &Url) -> bool {
        Origin::of(url).as_ref() == Some(&self.origin)
    }

    /// Returns the HTTP client for a URL, after checking where it may lead.
    pub(crate) fn http_for(&self, url: &Url) -> Result<&reqwest::Client, RegistryError> {
        if self.owns(url) {
            return Ok(&self.direct);
        }
        let reach = if self.is_private() { Reach::Private } else { Reach::Public };
        if let Some(ip) = literal_address(url) {
            address::check(url.host_str().unwrap_or(""), ip, reach).map_err(|e| self.refuse(url, &e.to_string()))?;
        }
        let slot = if reach == Reach::Private { &self.private } else { &self.public };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let made = self.maker.make(reach, Trust::System)?;
        Ok(slot.get_or_init(|| made))
    }

    /// Returns whether the registry the user named is at a private or loopback address.
    fn is_private(&self) -> bool {
        match literal_address(&self.base) {
            Some(ip) => address::is_private(ip),
            None => self.maker.private_names.contains(&self.origin.host),
        }
    }

    /// Makes the error for a URL this registry chose and we do not follow.
    pub(crate) fn refuse(&self, url: &Url, reason: &str) -> RegistryError {
        let target = Box::new(RedactedUrl(url.clone()));
        RegistryError::Target { host: self.host.clone(), target, reason: reason.to_owned() }
    }

    /// Makes the error for an answer against the protocol.
    pub(crate) fn protocol(&self, reason: impl Into<String>) -> RegistryError {
        RegistryError::Protocol { host: self.host.clone(), reason: reason.into() }
    }

    /// Returns whether a repository is known to have a blob.
    pub(crate) fn has(&self, repository: &str, digest: &Digest) -> bool {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.get(&(repository.to_owned(), digest.clone())).is_some_and(|since| since.elapsed() < CERTAIN)
    }

    /// Returns the first question for a blob of a repository, which one asks and the others wait for.
    pub(crate) fn first_question(&self, repository: &str) -> Arc<OnceCell<()>> {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(questions.entry(repository.to_owned()).or_default())
    }

    /// Returns whether a repository was asked for a blob that it lacked.
    pub(crate) fn lacks_some(&self, repository: &str) -> bool {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).contains(repository)
    }

    /// Remembers that a repository lacked a blob.
    pub(crate) fn note_lack(&self, repository: &str) {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).insert(repository.to_owned());
    }

    /// Remembers that a repository has a blob.
    pub(crate) fn note(&self, repository: &str, digest: &Digest) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.insert((repository.to_owned(), digest.clone()), Instant::now());
    }

    /// Keeps an upload session of a repository that was begun for nothing in particular.
    pub(crate) fn keep_session(&self, repository: &str, session: Session) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(repository.to_owned(), (Instant::now(), session));
    }

    /// Takes the session that is kept, if it is not older than that; it is the caller's alone then.
    pub(crate) fn take_session(&self, repository: &str, oldest: Duration) -> Option<Session> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, session) = kept.remove(repository)?;
        if since.elapsed() <= oldest {
            return Some(session);
        }
        kept.insert(repository.to_owned(), (since, session));
        None
    }

    pub(crate) fn withheld(&self) -> Option<String> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers why the account was not sent to the token server.
    pub(crate) fn withhold(&self, reason: String) {
        *self.withheld.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// Remembers what the registry wants to see.
    pub(crate) fn note_challenge(&self, challenge: &Challenge) {
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge.clone());
    }

    pub(crate) fn last_challenge(&self) -> Option<Challenge> {
        self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn setup(host: &str, reason: &str) -> RegistryError {
    RegistryError::Setup { host: host.to_owned(), reason: reason.to_owned() }
}

/// Reads the certificates for a registry, which may lie under either name of Docker Hub's.
fn material(host: &str, of_host: &HostOptions, options: &ClientOptions) -> Result<Material, RegistryError> {
    let names: &[&str] = if host == "docker.io" { &["docker.io", HUB] } else { &[host] };
    certs::material(of_host, names, &options.certificates)
        .map_err(|source| RegistryError::CertificateFile { host: host.to_owned(), source })
}

/// Docker Hub's registry, which has another name than its references.
const HUB: &str = "registry-1.docker.io";

/// Who has certificates for a registry of this machine wants TLS; otherwise such registries speak HTTP.
fn speaks_http(host: &str, options: &HostOptions, has_certificates: bool) -> bool {
    options.http.unwrap_or_else(|| is_loopback(host) && !has_certificates)
}

fn base_url(host: &str, options: &HostOptions, plain: Plain, has_certificates: bool) -> String {
    let address = if host == "docker.io" { HUB } else { host };
    // With `insecure` TLS goes first.
    let http = plain == Plain::Http || (!options.insecure && speaks_http(host, options, has_certificates));
    format!("{}://{address}/v2/", if http { "http" } else { "https" })
}

/// What no proxy is asked for, as in Go's programs: another machine's loopback is never meant.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// Returns whether `host[:port]` is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    match name.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(std::net::IpAddr::V4(v4)) => v4.is_loopback(),
        Ok(std::net::IpAddr::V6(v6)) => v6.is_loopback(),
        Err(_) => name == "localhost",
    }
}

/// Makes the HTTP clients of one registry, or of whoever else fetches what a user named.
pub(crate) struct Maker {
    pub(crate) host: String,
    pub(crate) user_agent: String,
    pub(crate) proxies: Proxies,
    pub(crate) patience: Patience,
    pub(crate) resolver: Arc<dyn Resolve>,
    /// Authorities besides the system's.
    pub(crate) material: Material,
    pub(crate) system: SystemRoots,
    pub(crate) private_names: PrivateNames,
}

impl Maker {
    /// Returns whether what is asked of the origin of `base` goes through TLS, be it only to a proxy.
    fn speaks_tls(&self, base: &Url) -> bool {
        base.scheme() != "http" || self.proxies.http.as_ref().is_some_and(|proxy| !proxy.is_empty())
    }

    /// Makes a client that follows no redirect and reaches no further than `reach`.
    pub(crate) fn make(&self, reach: Reach, trust: Trust) -> Result<reqwest::Client, RegistryError> {
        self.make_for(reach, trust, &self.material)
    }

    /// Makes such a client with certificates.
    fn make_for(&self, reach: Reach, trust: Trust, material: &Material) -> Result<reqwest::Client, RegistryError> {
        let (inner, private) = (Arc::clone(&self.resolver), self.private_names.clone());
        let (proxies, exempt) = self.proxies()?;
        let resolver = GuardedResolver { inner, reach, exempt, private };
        let tls = trust::configure(trust, material, &self.system).map_err(|e| setup(&self.host, &e.to_string()))?;
        let mut builder = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(self.patience.connect)
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(resolver));
        for proxy in proxies {
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|e| self.failed(e))
    }

    fn proxies(&self) -> Result<(Vec<Proxy>, BTreeSet<String>), RegistryError> {
        let (mut proxies, mut hosts) = (Vec::new(), BTreeSet::new());
        let except = NoProxy::from_string(&format!("{},{LOOPBACK}", self.proxies.except));
        for (url, secure) in [(&self.proxies.http, false), (&self.proxies.https, true)] {
            let Some(url) = url.as_ref().filter(|u| !u.is_empty()) else { continue };
            let proxy = if secure { Proxy::https(url) } else { Proxy::http(url) }.map_err(|e| self.failed(e))?;
            proxies.push(proxy.no_proxy(except.clone()));
            let full = if url.contains("://") { url.clone() } else { format!("http://{url}") };
            hosts.extend(Url::parse(&full).ok().and_then(|u| u.host_str().map(str::to_owned)));
        }
        Ok((proxies, hosts))
    }

    fn failed(&self, error: reqwest::Error) -> RegistryError {
        setup(&self.host, &crate::diag::chain(&error.without_url()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_for_who_asks() {
        let configured = |http| HostOptions { http, ..HostOptions::default() };
        let insecure = |http| HostOptions { http, insecure: true, ..HostOptions::default() };
        for (host, options, certificates, expected) in [
            ("docker.io", configured(None), false, "https://registry-1.docker.io/v2/"),
            ("localhost", configured(None), false, "http://localhost/v2/"),
            ("localhost:5000", configured(None), false, "http://localhost:5000/v2/"),
            ("127.9.9.9:1", configured(None), false, "http://127.9.9.9:1/v2/"),
            ("[::1]:5000", configured(None), false, "http://[::1]:5000/v2/"),
            ("localhost.evil:80", configured(None), false, "https://localhost.evil:80/v2/"),
            ("127.0.0.1.evil", configured(None), false, "https://127.0.0.1.evil/v2/"),
            ("10.0.0.1", configured(None), false, "https://10.0.0.1/v2/"),
            ("r.io", configured(Some(true)), false, "http://r.io/v2/"),
            ("localhost:5000", configured(Some(false)), false, "https://localhost:5000/v2/"),
            ("localhost:5000", configured(None), true, "https://localhost:5000/v2/"),
            ("localhost:5000", configured(Some(true)), true, "http://localhost:5000/v2/"),
            ("localhost:5000", insecure(None), false, "https://localhost:5000/v2/"),
            ("r.io", insecure(Some(true)), false, "https://r.io/v2/"),
        ] {
            assert_eq!(base_url(host, &options, Plain::AsConfigured, certificates), expected, "{host}");
        }
        assert_eq!(base_url("r.io", &insecure(Some(true)), Plain::Http, false), "http://r.io/v2/");
    }

    #[test]
    fn only_who_speaks_tls_needs_authorities() {
        let maker = |proxy: Option<&str>| Maker {
            host: "r".into(),
            user_agent: "test".into(),
            proxies: Proxies { http: proxy.map(str::to_owned), ..Proxies::default() },
            patience: Patience::default(),
            resolver: Arc::new(super::super::address::SystemResolver::default()),
            material: Material::default(),
            system: SystemRoots::default(),
            private_names: PrivateNames::default(),
        };
        for (base, proxy, expected) in [
            ("http://localhost:5000/v2/", None, false),
            ("http://localhost:5000/v2/", Some(""), false),
            ("http://localhost:5000/v2/", Some("https://proxy"), true),
            ("https://r.io/v2/", None, true),
        ] {
            let base = Url::parse(base).expect("URL");
            assert_eq!(maker(proxy).speaks_tls(&base), expected, "{base} through {proxy:?}");
        }
    }
}
