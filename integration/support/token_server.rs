//! A token server: it lets one account in and issues tokens that a registry can verify (RS256, with the certificate in `x5c`), as
//! the Docker token specification has them. It speaks TLS.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::pki::{Authority, Kind, Pair};
use super::registry::{PASSWORD, USER};

/// Who issues the tokens, as the registry is told.
pub(crate) const ISSUER: &str = "test issuer";
/// What the registry calls itself.
pub(crate) const SERVICE: &str = "test service";

/// A running server, for as long as the tests run.
#[derive(Debug)]
pub(crate) struct TokenServer {
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    asked: Arc<Mutex<Vec<String>>>,
}

struct Signer {
    key: RsaKeyPair,
    certificate: Vec<u8>,
}

impl TokenServer {
    /// Starts one with a certificate of `authority`, which signs the tokens too.
    pub(crate) fn start(authority: &Authority) -> Self {
        let pair = authority.issue("tokens", "IP:127.0.0.1", Kind::Rsa, "2");
        let (tls, signer) = (Arc::new(tls(&pair)), Arc::new(Signer::new(&pair)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (tls, signer, noted) = (Arc::clone(&tls), Arc::clone(&signer), Arc::clone(&noted));
                // A client that gives up is none of the server's business.
                std::thread::spawn(move || drop(serve(client, tls, &signer, &noted)));
            }
        });
        Self { host, asked }
    }

    /// The lines of a registry's configuration that make it go by this server.
    pub(crate) fn registry_lines(&self, authority: &Authority) -> String {
        format!(
            "auth:\n  token:\n    realm: https://{}/token\n    service: {SERVICE}\n    issuer: {ISSUER}\n    rootcertbundle: {}\n",
            self.host,
            authority.certificate().display()
        )
    }

    /// The requests so far: `GET /token?… as USER`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn tls(pair: &Pair) -> ServerConfig {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    ServerConfig::builder().with_no_client_auth().with_single_cert(chain(&pair.certificate), key).unwrap()
}

fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

fn serve(
    client: TcpStream,
    tls: Arc<ServerConfig>,
    signer: &Signer,
    noted: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, client));
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut user = "nobody".to_owned();
    loop {
        let mut header = String::new();
        if stream.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some(login) = login(&header) {
            user = login;
        }
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    noted.lock().unwrap().push(format!("{} {path} as {user}", line.split(' ').next().unwrap_or_default()));
    let body = match user.as_str() {
        "nobody" | USER => ("200 OK", json!({"token": signer.token(&user, &path), "expires_in": 300}).to_string()),
        _ => (
            "401 Unauthorized",
            json!({"errors": [{"code": "UNAUTHORIZED", "message": "no such account"}]}).to_string(),
        ),
    };
    let (status, text) = body;
    let stream = stream.get_mut();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// Reads the account out of a header, a wrong password being another account.
fn login(header: &str) -> Option<String> {
    let (name, value) = header.split_once(':')?;
    let encoded = value.trim().strip_prefix("Basic ").filter(|_| name.eq_ignore_ascii_case("authorization"))?;
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    Some(if text == format!("{USER}:{PASSWORD}") { USER.into() } else { "a stranger".into() })
}

impl Signer {
    fn new(pair: &Pair) -> Self {
        let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
        let key = RsaKeyPair::from_pkcs8(key.secret_der()).unwrap();
        Self { key, certificate: chain(&pair.certificate)[0].to_vec() }
    }

    /// Issues what was asked for to the account, and nothing to nobody.
    fn token(&self, user: &str, path: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let access: Vec<Value> = if user == USER { scopes(path).collect() } else { Vec::new() };
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [STANDARD.encode(&self.certificate)]});
        let claims = json!({
            "iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + 300, "nbf": now - 10, "iat": now, "jti": "1", "access": access,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Reads `scope=repository:NAME:ACTIONS` out of a request's query.
fn scopes(path: &str) -> impl Iterator<Item = Value> {
    let url = reqwest::Url::parse(&format!("https://host{path}")).unwrap();
    let all: Vec<String> =
        url.query_pairs().filter(|(name, _)| name == "scope").map(|(_, value)| value.into()).collect();
    all.into_iter().flat_map(|value| value.split(' ').map(str::to_owned).collect::<Vec<_>>()).filter_map(|scope| {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
    })
}
