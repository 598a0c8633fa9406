//! Files of web servers.
//!
//! ```text
//! spec ─▶ HEAD with the entity tags known ─▶ same: the layer that is there
//!     └─▶ GET ─▶ channel ─▶ (gunzip) ─▶ hash ─▶ file in a new layer     (blocking thread)
//! ```
//!
//! In: [`HttpSpec`]s. Out: [`Fetched`]: digest, name, time, and a layer that holds the one file. On disk: notes below `http/` (see
//! `kept`) and layers. Invariants: a file becomes a layer only when its stream has ended well; within one build a request is sent
//! once; where a digest is wanted, no other file is ever returned; what a server sends is bounded in time and size.

mod error;
mod kept;
pub mod name;
mod spec;
pub(crate) mod transfer;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_ENCODING, ETAG, HeaderMap, LAST_MODIFIED};
use reqwest::{Method, Response};
use sha2::Digest as _;
use tokio::sync::{OnceCell, mpsc};

pub use error::HttpError;
pub use spec::HttpSpec;
pub use transfer::HttpLimits;

use super::SecretLookup;
use crate::digest::{Digest, Hasher};
use crate::layer::decompress::{Codec, Decoder};
use crate::registry::{Proxies, RedactedUrl};
use crate::snapshot::{Active, Chain, Snapshots};
use crate::sys::dir::{self, Dir, Time};
use kept::Kept;
use transfer::{Request, Transfer};

/// Chunks on their way from the network to the disk.
const QUEUE: usize = 16;
/// Permission bits of a file where none are asked for.
const DEFAULT_PERM: u32 = 0o600;

/// What is known of a file once the server was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its name.
    pub filename: String,
    /// `Last-Modified`, in seconds since 1970; none if the server did not say or was not asked.
    pub last_modified: Option<i64>,
}

impl Resolved {
    /// Returns the time as HTTP writes it; empty if there is none.
    pub fn last_modified_text(&self) -> String {
        let time = self.last_modified.and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
        time.map(name::print_time).unwrap_or_default()
    }
}

/// A file that is here.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// What it is.
    pub resolved: Resolved,
    /// Its digest by SHA-512.
    sha512: Option<Digest>,
    /// The tree that holds it.
    pub chain: Chain,
}

/// Fetches files, each once.
pub struct HttpSource {
    transfer: Arc<Transfer>,
    snapshots: Arc<Snapshots>,
    secrets: Arc<dyn SecretLookup>,
    notes: Dir,
    fetched: Mutex<BTreeMap<Digest, Arc<OnceCell<Fetched>>>>,
}

impl std::fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpSource").field("transfer", &self.transfer).finish_non_exhaustive()
    }
}

impl HttpSource {
    /// Opens the notes of earlier builds; connects to nothing yet.
    ///
    /// # Errors
    ///
    /// When the place for notes cannot be made.
    pub fn open(
        proxies: Proxies,
        limits: HttpLimits,
        snapshots: Arc<Snapshots>,
        secrets: Arc<dyn SecretLookup>,
    ) -> Result<Self, HttpError> {
        let notes = snapshots.store().folder("http")?;
        let transfer = Arc::new(Transfer::new(proxies, limits));
        Ok(Self { transfer, snapshots, secrets, notes, fetched: Mutex::default() })
    }

    /// Returns what sends the requests, for whoever asks web servers about other things.
    pub(crate) fn transfer(&self) -> &Arc<Transfer> {
        &self.transfer
    }

    /// Returns what a file is; a server is asked only if no digest is wanted.
    ///
    /// # Errors
    ///
    /// When the file cannot be had.
    pub async fn resolve(&self, spec: &HttpSpec) -> Result<Resolved, HttpError> {
        if let Some(digest) = &spec.checksum {
            transfer::parse(&spec.url)?;
            let filename = name::file_name(&spec.url, &spec.filename, None);
            return Ok(Resolved { digest: digest.clone(), filename, last_modified: None });
        }
        Ok(self.fetch(spec).await?.resolved)
    }

    /// Makes a file available as a tree.
    ///
    /// # Errors
    ///
    /// When it cannot be had, or is another than was wanted.
    pub async fn fetch(&self, spec: &HttpSpec) -> Result<Fetched, HttpError> {
        let cell = {
            let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(fetched.entry(spec.identity()).or_default())
        };
        let fetched = cell.get_or_try_init(|| self.fetch_once(spec)).await?;
        self.check(spec, fetched).await?;
        Ok(fetched.clone())
    }

    /// Compares what came with what was wanted.
    async fn check(&self, spec: &HttpSpec, fetched: &Fetched) -> Result<(), HttpError> {
        let Some(expected) = &spec.checksum else { return Ok(()) };
        let found = match (expected.algorithm(), &fetched.sha512) {
            ("sha512", Some(found)) => found.clone(),
            ("sha512", None) => self.hash_again(spec, fetched).await?,
            _ => fetched.resolved.digest.clone(),
        };
        match found == *expected {
            true => Ok(()),
            false => Err(HttpError::Mismatch { url: spec.shown(), expected: expected.clone(), found }),
        }
    }

    /// Returns the digest by SHA-512 of a file that was fetched when nobody asked for that.
    async fn hash_again(&self, spec: &HttpSpec, fetched: &Fetched) -> Result<Digest, HttpError> {
        let view = self.snapshots.view(&fetched.chain)?;
        let name = fetched.resolved.filename.clone();
        let hashing = tokio::task::spawn_blocking(move || {
            let (mut file, mut hasher) = (view.dir().open_file(OsStr::new(&name))?, sha2::Sha512::new());
            let mut buffer = vec![0; 128 << 10];
            loop {
                match file.read(&mut buffer)? {
                    0 => return long_digest(hasher),
                    count => hasher.update(&buffer[..count]),
                }
            }
        });
        let digest = hashing.await.map_err(|_| HttpError::Stopped { url: spec.shown() })?;
        digest.map_err(|source| HttpError::Write { url: spec.shown(), source })
    }

    async fn fetch_once(&self, spec: &HttpSpec) -> Result<Fetched, HttpError> {
        let identity = spec.identity();
        let known = kept::load(&self.notes, &self.snapshots, &identity);
        let plain_name = name::file_name(&spec.url, &spec.filename, None);
        let pinned = |kept: &&Kept| spec.checksum.as_ref() == Some(&kept.digest) && kept.filename == plain_name;
        if let Some(kept) = known.iter().find(pinned) {
            return Ok(of_kept(kept));
        }
        let request = Request::of(spec, &*self.secrets)?;
        let tags: Vec<&str> = known.iter().map(|kept| kept.etag.as_str()).filter(|etag| !etag.is_empty()).collect();
        let asking = request.clone().with_etags(&tags.join(", "));
        if !tags.is_empty() {
            // Some servers give entity tags and do not know them again, so they are first compared here.
            let head = Request { method: Method::HEAD, ..asking.clone() };
            if let Ok(response) = self.transfer.send(&head).await
                && let Some(kept) = unchanged(spec, &response, &known)
            {
                return Ok(of_kept(kept));
            }
        }
        let mut response = self.transfer.send(if tags.is_empty() { &request } else { &asking }).await?;
        if response.status().as_u16() == 304 {
            if let Some(kept) = unchanged(spec, &response, &known) {
                return Ok(of_kept(kept));
            }
            response = self.transfer.send(&request).await?;
        }
        if !response.status().is_success() {
            return Err(status_error(spec, &response));
        }
        self.download(spec, response, known).await
    }

    async fn download(&self, spec: &HttpSpec, response: Response, known: Vec<Kept>) -> Result<Fetched, HttpError> {
        let identity = spec.identity();
        let filename = name_of(spec, response.headers());
        let etag = text(response.headers(), ETAG.as_str()).map(|etag| weak(&etag).to_owned()).unwrap_or_default();
        let last_modified = text(response.headers(), LAST_MODIFIED.as_str());
        let seconds = last_modified.as_deref().and_then(name::http_time).map(time::OffsetDateTime::unix_timestamp);
        let (active, written) = self.save(spec, &filename, seconds, response).await?;
        let note = Kept { etag, digest: written.sha256.clone(), filename: filename.clone(), last_modified, layer: 0 };
        // Where the same is there already, nothing new is kept.
        let chain = match known.iter().find(|kept| kept.is_same_file(&note)) {
            Some(kept) => kept.chain(),
            None => self.snapshots.commit(active, &kept::description(&identity, &written.sha256))?,
        };
        if let Some(kept) = note.in_layer(&chain) {
            kept::store(&self.notes, self.snapshots.store().scratch(), &identity, kept, known);
        }
        let resolved = Resolved { digest: written.sha256, filename, last_modified: seconds };
        Ok(Fetched { resolved, sha512: written.sha512, chain })
    }

    /// Streams a body into a file of a new tree.
    async fn save(
        &self,
        spec: &HttpSpec,
        filename: &str,
        modified: Option<i64>,
        mut response: Response,
    ) -> Result<(Active, Written), HttpError> {
        let active = self.snapshots.prepare(&Chain::empty())?;
        let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE);
        let place = Place {
            dir: active.dir()?,
            name: filename.to_owned(),
            perm: if spec.perm == 0 { DEFAULT_PERM } else { spec.perm },
            owner: (spec.uid, spec.gid),
            modified: modified.unwrap_or(0),
            sha512: spec.checksum.as_ref().is_some_and(|digest| digest.algorithm() == "sha512"),
        };
        let gzip = text(response.headers(), CONTENT_ENCODING.as_str()).is_some_and(|e| e.eq_ignore_ascii_case("gzip"));
        let writing = tokio::task::spawn_blocking(move || place.write(Chunks { receiver, rest: Bytes::new() }, gzip));
        let limit = self.transfer.limits().size;
        let url = response.url().clone();
        let too_large = || HttpError::TooLarge { url: RedactedUrl(url.clone()).to_string(), limit };
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut received = 0;
        while let Some(chunk) = self.transfer.within(&url, response.chunk()).await? {
            received += chunk.len() as u64;
            if received > limit {
                return Err(too_large());
            }
            // Whoever writes has stopped, and says why.
            if sender.send(chunk).await.is_err() {
                break;
            }
        }
        drop(sender);
        let written = writing.await.map_err(|_| HttpError::Stopped { url: spec.shown() })?;
        Ok((active, written.map_err(|source| HttpError::Write { url: spec.shown(), source })?))
    }
}

fn of_kept(kept: &Kept) -> Fetched {
    let time = kept.last_modified.as_deref().and_then(name::http_time).map(time::OffsetDateTime::unix_timestamp);
    let resolved = Resolved { digest: kept.digest.clone(), filename: kept.filename.clone(), last_modified: time };
    Fetched { resolved, sha512: None, chain: kept.chain() }
}

/// Returns the file an answer says is still the same. One that names no tag speaks of the only one it was asked about.
fn unchanged<'a>(spec: &HttpSpec, response: &Response, known: &'a [Kept]) -> Option<&'a Kept> {
    let not_modified = response.status().as_u16() == 304;
    if !not_modified && response.status().as_u16() != 200 {
        return None;
    }
    let tagged: Vec<&Kept> = known.iter().filter(|kept| !kept.etag.is_empty()).collect();
    let found = match (text(response.headers(), ETAG.as_str()), &tagged[..]) {
        (Some(etag), _) => tagged.into_iter().find(|kept| kept.etag == weak(&etag)),
        (None, [only]) if not_modified => Some(*only),
        _ => None,
    };
    found.filter(|kept| kept.filename == name_of(spec, response.headers()))
}

fn status_error(spec: &HttpSpec, response: &Response) -> HttpError {
    let host = transfer::parse(&spec.url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    HttpError::Status {
        url: spec.shown(),
        status: response.status().to_string(),
        host,
        code: response.status().as_u16(),
    }
}

fn name_of(spec: &HttpSpec, headers: &HeaderMap) -> String {
    let disposition = headers.get(CONTENT_DISPOSITION).map(|value| String::from_utf8_lossy(value.as_bytes()));
    name::file_name(&spec.url, &spec.filename, disposition.as_deref())
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Drops the mark of a weak entity tag: both kinds are compared alike.
fn weak(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

/// What was written.
struct Written {
    sha256: Digest,
    sha512: Option<Digest>,
}

/// A file to write.
struct Place {
    dir: Dir,
    name: String,
    perm: u32,
    owner: (u32, u32),
    modified: i64,
    sha512: bool,
}

impl Place {
    fn write(self, chunks: Chunks, gzip: bool) -> io::Result<Written> {
        let mut file = self.dir.create_file(OsStr::new(&self.name), 0o600)?;
        let mut hasher = Hasher::new();
        let mut long = self.sha512.then(sha2::Sha512::new);
        let mut body: Box<dyn Read + Send> = if gzip { gunzip(chunks)? } else { Box::new(chunks) };
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = body.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            long.iter_mut().for_each(|long| long.update(&buffer[..count]));
            file.write_all(&buffer[..count])?;
        }
        if self.owner != (0, 0) {
            dir::chown_of(&file, self.owner.0, self.owner.1)?;
        }
        dir::chmod_of(&file, self.perm)?;
        dir::set_time_of(&file, Time { seconds: self.modified, nanoseconds: 0 })?;
        let sha512 = long.map(long_digest).transpose()?;
        Ok(Written { sha256: hasher.finish(), sha512 })
    }
}

fn long_digest(hasher: sha2::Sha512) -> io::Result<Digest> {
    format!("sha512:{}", hex::encode(hasher.finalize())).parse().map_err(io::Error::other)
}

/// A body that was compressed on its way is unpacked, as Go's client does; the file is what the server holds.
fn gunzip(chunks: Chunks) -> io::Result<Box<dyn Read + Send>> {
    let decoder = Decoder::new(chunks)?;
    match decoder.codec() {
        Codec::Gzip => Ok(Box::new(decoder)),
        _ => Err(io::Error::other("the server says it is compressed with gzip, and it is not")),
    }
}

/// The chunks of a body as a reader.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.rest = chunk,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}
