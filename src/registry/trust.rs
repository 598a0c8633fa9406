//! TLS with registries: whose certificates are accepted, and which of ours are shown.
//!
//! In: [`Material`] that [`super::certs`] read. Out: the configuration of an HTTP client. Invariants: our certificates are shown to
//! the registry they are for and to nobody it sends us to; a certificate that is not checked is one the user said so of.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Whose certificates an HTTP client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Those of the system's authorities, and of the configured ones.
    System,
    /// Any.
    Anyone,
    /// None: the client speaks plain HTTP only, and need not read some 300 files of authorities first.
    Nobody,
}

impl Trust {
    pub(crate) fn of(insecure: bool) -> Self {
        if insecure { Self::Anyone } else { Self::System }
    }
}

/// The authorities of the system, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name instead; where there are none at all, as in
/// an image made from scratch, those that Mozilla trusted when this program was built. Read once, when first needed.
#[derive(Default, Clone)]
pub(crate) struct SystemRoots(Arc<OnceLock<Vec<CertificateDer<'static>>>>);

impl SystemRoots {
    fn get(&self) -> &[CertificateDer<'static>] {
        self.0.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!("authorities of the system are missing: {}", crate::diag::chain(error));
            }
            let unread = found.errors.len();
            or_bundled(found.certs, unread)
        })
    }

    /// Returns whether they were read and there are none.
    pub(crate) fn are_none(&self) -> bool {
        self.0.get().is_some_and(Vec::is_empty)
    }
}

/// Returns the authorities that were found. What is there and could not be read is not made up for: it may have been fewer, or others.
fn or_bundled(found: Vec<CertificateDer<'static>>, unread: usize) -> Vec<CertificateDer<'static>> {
    if !found.is_empty() || unread > 0 {
        return found;
    }
    let bundled = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
    tracing::debug!(
        count = bundled.len(),
        "this machine has no authorities, those of Mozilla that came with rbuild count"
    );
    bundled.to_vec()
}

impl fmt::Debug for SystemRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemRoots({:?})", self.0.get().map(Vec::len))
    }
}

/// What is known about one registry's certificates.
#[derive(Debug, Default, Clone)]
pub(crate) struct Material {
    /// Authorities besides the system's.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    /// Certificates of ours with their keys.
    pub(crate) identities: Vec<Arc<CertifiedKey>>,
    /// Whether the registry asked for a certificate of ours.
    pub(crate) asked: Arc<AtomicBool>,
}

impl Material {
    /// Returns whether there is anything.
    pub(crate) fn is_some(&self) -> bool {
        !self.authorities.is_empty() || !self.identities.is_empty()
    }

    /// Returns the same without what only the registry itself may see.
    pub(crate) fn for_others(&self) -> Self {
        Self { authorities: self.authorities.clone(), ..Self::default() }
    }
}

/// Makes the TLS configuration of an HTTP client.
pub(crate) fn configure(trust: Trust, material: &Material, system: &SystemRoots) -> Result<ClientConfig, Error> {
    let provider = Arc::clone(CryptoProvider::get_default().expect("clients install the provider first"));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match verifier(trust, material, system, provider)? {
        Some(verifier) => builder.dangerous().with_custom_certificate_verifier(verifier),
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    let identities = Identities { keys: material.identities.clone(), asked: Arc::clone(&material.asked) };
    let mut config = builder.with_client_cert_resolver(Arc::new(identities));
    // As BuildKit: with HTTP/2 all blobs share one connection, and the windows of servers hold uploads back.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Makes what checks the server's certificate; none where no authority is known, so that none is accepted.
fn verifier(
    trust: Trust,
    material: &Material,
    system: &SystemRoots,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ServerCertVerifier>>, Error> {
    if trust == Trust::Anyone {
        return Ok(Some(Arc::new(Unchecked(provider))));
    }
    let mut roots = RootCertStore::empty();
    if trust == Trust::System {
        roots.add_parsable_certificates(material.authorities.iter().chain(system.get()).cloned());
    }
    if roots.is_empty() {
        return Ok(None);
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    Ok(Some(Arc::new(Checked { inner, own: material.authorities.clone(), system: system.clone() })))
}

/// Checks certificates by authorities, and accepts one of these that a server shows as its own.
///
/// `openssl req -x509` makes certificates that are authorities of their own, and the guides to private registries have them both
/// served and trusted. Go's TLS, and so Docker and BuildKit, accept that; webpki would not.
#[derive(Debug)]
struct Checked {
    inner: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
    system: SystemRoots,
}

impl Checked {
    fn knows(&self, certificate: &CertificateDer<'_>) -> bool {
        self.own.iter().chain(self.system.get()).any(|known| known == certificate)
    }
}

/// What webpki calls the certificate of an authority that a server shows as its own. It is looked for last but for the purpose,
/// so the dates have been checked by then.
const OWN_AUTHORITY: &str = "CaUsedAsEndEntity";

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(CertificateError::Other(error)))
                if format!("{error:?}").contains(OWN_AUTHORITY) && self.knows(end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Accepts any certificate, where the user said `insecure`.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Our certificates, and whether somebody wanted one.
#[derive(Debug)]
struct Identities {
    keys: Vec<Arc<CertifiedKey>>,
    asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for Identities {
    /// Takes the first that is of an authority the server names, else the first whose key it understands.
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        let usable = || self.keys.iter().filter(|key| key.key.choose_scheme(schemes).is_some());
        let wanted = usable().find(|key| issuers.iter().any(|issuer| is_of(key, issuer)));
        wanted.or_else(|| usable().next()).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Returns whether a chain names `issuer`, which is DER of a whole name as it stands in a certificate.
fn is_of(key: &CertifiedKey, issuer: &[u8]) -> bool {
    !issuer.is_empty() && key.cert.iter().any(|cert| cert.windows(issuer.len()).any(|part| part == issuer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_trusted_where_nobody_is_known() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let system = SystemRoots::default();
        configure(Trust::Nobody, &Material::default(), &system).expect("a configuration without authorities");
        assert!(system.0.get().is_none(), "the system's authorities were read though none is needed");
        assert!(!system.are_none());
    }

    #[test]
    fn where_the_system_has_none_mozillas_authorities_count() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let bundled = or_bundled(Vec::new(), 0);
        assert!(bundled.len() > 100, "{}", bundled.len());
        let (own, system) = (bundled[0].clone(), SystemRoots::default());
        assert_eq!(or_bundled(vec![own.clone()], 0), [own]);
        assert!(or_bundled(Vec::new(), 1).is_empty(), "nobody is trusted in place of what cannot be read");
        assert!(system.0.set(bundled.clone()).is_ok());
        let mut store = RootCertStore::empty();
        assert_eq!(store.add_parsable_certificates(bundled).1, 0, "all can be used");
        configure(Trust::System, &Material::default(), &system).expect("a configuration");
    }

    #[test]
    fn being_asked_for_a_certificate_is_noted() {
        let material = Material::default();
        let identities = Identities { keys: Vec::new(), asked: Arc::clone(&material.asked) };
        assert!(identities.resolve(&[b"issuer"], &[SignatureScheme::ED25519]).is_none());
        assert!(material.asked.load(Ordering::Relaxed));
        assert!(!material.for_others().asked.load(Ordering::Relaxed));
    }
}
