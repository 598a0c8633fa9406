//! A server that counts what it is asked at once. It holds requests back until as many have come as are expected together, so that
//! the count does not depend on who is fast.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use rbuild::digest::{DiffId, Digest};
use rbuild::image::{Descriptor, ImageConfig, Manifest, media};

/// How long a request is held at most; who waits as long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a request is about, by which it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Layers that are read, and uploads.
    Blob,
    /// Manifests and configurations.
    Document,
    /// Whatever is no business of a registry.
    Other,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    now: usize,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<Kind, Count>,
    most_in_all: usize,
    /// Whether nothing is held any more.
    open: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    held: Kind,
    /// As many of the held kind open the gate.
    opens_at: Option<usize>,
    content: BTreeMap<String, Vec<u8>>,
    manifest: Vec<u8>,
}

/// The server, for as long as the tests run.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    /// The layers of the image that it has under every name.
    pub(crate) layers: Vec<Descriptor>,
    shared: Arc<Shared>,
}

impl Gate {
    /// Starts a server with an image of so many layers. It holds requests of a kind until `opens_at` have come together, or until
    /// [`Gate::open`].
    pub(crate) fn start(layers: usize, held: Kind, opens_at: Option<usize>) -> Self {
        let contents: Vec<Vec<u8>> = (0..layers).map(layer).collect();
        let layers: Vec<Descriptor> = contents.iter().map(|tar| Descriptor::of(media::OCI_LAYER, tar)).collect();
        let mut config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
        config.rootfs.kind = "layers".into();
        config.rootfs.diff_ids = contents.iter().map(|tar| DiffId(Digest::compute(tar))).collect();
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::OCI_MANIFEST.into()),
            config: Descriptor::of(media::OCI_CONFIG, &config),
            layers: layers.clone(),
            annotations: BTreeMap::new(),
        };
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let content = contents.into_iter().chain([config]).map(|c| (Digest::compute(&c).to_string(), c)).collect();
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { state, changed, held, opens_at, content, manifest });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                // A client that gives up is none of the server's business.
                std::thread::spawn(move || drop(shared.serve(client)));
            }
        });
        Self { host, layers, shared }
    }

    /// Waits until so many of a kind are asked at once.
    pub(crate) fn wait_for(&self, kind: Kind, count: usize) {
        let state = self.shared.state();
        let missing = |state: &mut State| state.counts.get(&kind).is_none_or(|found| found.now < count);
        let waited = self.shared.changed.wait_timeout_while(state, PATIENCE, missing).unwrap().1;
        assert!(!waited.timed_out(), "{count} requests of {kind:?} never came at once: {:?}", self.shared.state());
    }

    /// Lets go what is held, now and later.
    pub(crate) fn open(&self) {
        self.shared.state().open = true;
        self.shared.changed.notify_all();
    }

    /// The most requests of a kind at once.
    pub(crate) fn most(&self, kind: Kind) -> usize {
        self.shared.state().counts.get(&kind).map_or(0, |count| count.most)
    }

    /// The most requests at once.
    pub(crate) fn most_in_all(&self) -> usize {
        self.shared.state().most_in_all
    }
}

/// A tar with one file that no other layer has.
fn layer(number: usize) -> Vec<u8> {
    let text = format!("layer {number}");
    let mut header = tar::Header::new_ustar();
    header.set_path(format!("file-{number}")).unwrap();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, text.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, client: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let mut client = client;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut length = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                match header.trim().split_once(": ") {
                    Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                        length = value.parse().unwrap()
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            let kind = self.kind(&line);
            self.begin(kind);
            let body = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink());
            self.hold(kind);
            // It counts until the answer is written, for what is asked next may come before this thread goes on.
            self.end(kind);
            body?;
            self.answer(&mut client, line.trim())?;
        }
    }

    fn kind(&self, line: &str) -> Kind {
        let config =
            self.content.keys().find(|digest| line.contains(*digest)).is_some_and(|d| self.content[d][0] == b'{');
        match () {
            () if line.contains("/manifests/") || config => Kind::Document,
            () if line.contains("/blobs/") => Kind::Blob,
            () => Kind::Other,
        }
    }

    fn begin(&self, kind: Kind) {
        let mut state = self.state();
        let count = state.counts.entry(kind).or_default();
        count.now += 1;
        count.most = count.most.max(count.now);
        let (now, of_kind) = (count.now, kind == self.held);
        let all = state.counts.values().map(|count| count.now).sum();
        state.most_in_all = state.most_in_all.max(all);
        state.open |= of_kind && self.opens_at.is_some_and(|count| now >= count);
        self.changed.notify_all();
    }

    fn hold(&self, kind: Kind) {
        if kind == self.held {
            drop(self.changed.wait_timeout_while(self.state(), PATIENCE, |state| !state.open).unwrap());
        }
    }

    fn end(&self, kind: Kind) {
        self.state().counts.entry(kind).or_default().now -= 1;
        self.changed.notify_all();
    }

    fn answer(&self, client: &mut TcpStream, line: &str) -> std::io::Result<()> {
        let (method, path) = line.split_once(' ').unwrap_or_default();
        let name = path.split([' ', '?']).next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let (status, header, body): (&str, String, &[u8]) = match (method, self.content.get(name)) {
            ("GET", Some(content)) => ("200 OK", String::new(), content),
            _ if path.contains("/manifests/") && method != "PUT" => {
                ("200 OK", format!("Content-Type: {}\r\n", media::OCI_MANIFEST), &self.manifest)
            }
            ("POST", _) => ("202 Accepted", "Location: /v2/a/blobs/uploads/1\r\n".into(), b""),
            ("PUT", _) => ("201 Created", String::new(), b""),
            ("HEAD", _) => ("404 Not Found", String::new(), b""),
            _ => ("200 OK", String::new(), b""),
        };
        write!(client, "HTTP/1.1 {status}\r\n{header}Content-Length: {}\r\n\r\n", body.len())?;
        if method != "HEAD" {
            client.write_all(body)?;
        }
        client.flush()
    }
}
