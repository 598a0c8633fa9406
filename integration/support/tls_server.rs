//! A server of bytes over TLS, for what no HTTP library would send.
//!
//! A test gives a function that gets the connection once the client's request has been read; the server keeps which protocols the
//! clients offered.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::Acceptor;
use rustls::{ServerConfig, StreamOwned};

use super::pki::Pair;

/// A connection whose request has been read.
pub(crate) type Connection = StreamOwned<rustls::ServerConnection, TcpStream>;

/// Longest wait for a client that does not read.
const PATIENCE: Duration = Duration::from_secs(60);

type Behaviour = dyn Fn(&str, &mut Connection) -> io::Result<()> + Send + Sync;

/// A running server; stopped when dropped.
pub(crate) struct TlsServer {
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<ServerConfig>,
    behaviour: OnceLock<Box<Behaviour>>,
    offered: Mutex<Vec<Vec<String>>>,
    stopped: AtomicBool,
}

impl TlsServer {
    /// Starts a server with a certificate; `behaviour` gets the head of each connection's first request. Errors of connections
    /// are their ends.
    pub(crate) fn start(
        pair: &Pair,
        behaviour: impl Fn(&str, &mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::with_host(pair, |_| behaviour)
    }

    /// Starts one whose behaviour knows its host.
    pub(crate) fn with_host<B>(pair: &Pair, make: impl FnOnce(&str) -> B) -> Self
    where
        B: Fn(&str, &mut Connection) -> io::Result<()> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (behaviour, offered, stopped) = (OnceLock::new(), Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { config: Arc::new(config(pair)), behaviour, offered, stopped });
        assert!(shared.behaviour.set(Box::new(make(&host))).is_ok());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { host, shared }
    }

    /// The protocols that each client so far offered to speak.
    pub(crate) fn offered(&self) -> Vec<Vec<String>> {
        self.shared.offered.lock().unwrap().clone()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // It waits for a connection, which may fail if it has ended by itself.
        let _ = TcpStream::connect(&self.host);
    }
}

fn config(pair: &Pair) -> ServerConfig {
    // Another test may have installed it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certificate = CertificateDer::from_pem_file(&pair.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept() {
        if shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        let shared = Arc::clone(shared);
        // Clients that give up are what it is for.
        thread::spawn(move || drop(connection(socket, &shared)));
    }
}

fn connection(mut socket: TcpStream, shared: &Shared) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut acceptor = Acceptor::default();
    let accepted = loop {
        acceptor.read_tls(&mut socket)?;
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err((error, _)) => return Err(io::Error::other(error)),
        }
    };
    let names = |alpn: rustls::server::Accepted| {
        let names = alpn.client_hello().alpn().map(|all| all.map(|name| String::from_utf8_lossy(name).into_owned()));
        (names.map(Iterator::collect).unwrap_or_default(), alpn)
    };
    let (offered, accepted) = names(accepted);
    shared.offered.lock().unwrap().push(offered);
    let tls = accepted.into_connection(Arc::clone(&shared.config)).map_err(|(error, _)| io::Error::other(error))?;
    let mut stream = StreamOwned::new(tls, socket);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    shared.behaviour.get().expect("set at the start")(&String::from_utf8_lossy(&head), &mut stream)?;
    stream.flush()
}
