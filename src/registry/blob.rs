//! Blobs as streams: verified while they flow, continued where they were cut, at the next host if need be.
//!
//! In: a descriptor. Out: chunks whose sum has the descriptor's size and digest; the last call says so or fails. What a mirror
//! had part in and is wrong fails as [`RegistryError::Spoiled`]: opened again, it comes from the next host.
//! Invariant: never more than the stated size is passed on, and whoever reads to the end without an error has the content.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tokio::time::Instant;

use super::client::Client;
use super::credentials::Access;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::limits;
use super::mirror::{Place, Sought};
use super::transport::{self, Call, Scope, Wish};
use crate::digest::Hasher;
use crate::image::{Descriptor, Reference};

/// A blob on its way.
pub struct BlobStream {
    client: Arc<Client>,
    /// What it is of, as its registry calls it.
    name: Reference,
    endpoint: Arc<Endpoint>,
    place: Place,
    /// Mirrors that gave some of it.
    fed: Vec<Place>,
    /// Repositories that did not give all of it.
    left: BTreeSet<String>,
    descriptor: Descriptor,
    response: Option<Response>,
    /// None once all has come and is verified.
    hasher: Option<Hasher>,
    ended: bool,
    offset: u64,
    /// Bytes still to come that were had before.
    skip: u64,
    /// Cuts survived since the last byte.
    cuts: u32,
    deadline: Instant,
    turn: Option<limits::Place>,
}

/// Whether a blob that is read counts against those that are moved at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It does.
    Own,
    /// Whoever sends it to the same registry counts already; if all waited for a second turn, none would get one.
    Shared,
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobStream({} at {})", self.descriptor.digest, self.offset)
    }
}

impl Client {
    /// Opens a blob of the repository of `name`; waits while as many of this registry are being moved as may be.
    pub async fn blob(
        self: &Arc<Self>,
        name: &Reference,
        descriptor: &Descriptor,
    ) -> Result<BlobStream, RegistryError> {
        self.blob_in_turn(name, descriptor, Turn::Own).await
    }

    pub(super) async fn blob_in_turn(
        self: &Arc<Self>,
        name: &Reference,
        descriptor: &Descriptor,
        turn: Turn,
    ) -> Result<BlobStream, RegistryError> {
        let open = |place| async move { self.blob_at(name, place, descriptor, turn).await };
        self.through_mirrors(name, Sought::Blob(&descriptor.digest), open).await
    }

    async fn blob_at(
        self: &Arc<Self>,
        name: &Reference,
        place: Place,
        descriptor: &Descriptor,
        turn: Turn,
    ) -> Result<BlobStream, RegistryError> {
        let endpoint = self.endpoint(&place.reference.registry).await?;
        if descriptor.digest.algorithm() != "sha256" {
            return Err(endpoint.protocol(format!("{} is not a sha256 digest, the only kind read", descriptor.digest)));
        }
        let turn = match turn {
            Turn::Own => Some(endpoint.limits.place_for(&descriptor.media_type).await),
            Turn::Shared => None,
        };
        let deadline = Instant::now() + endpoint.transfer_limit(descriptor.size);
        let mut stream = BlobStream {
            client: Arc::clone(self),
            name: name.clone(),
            endpoint,
            place,
            fed: Vec::new(),
            left: BTreeSet::new(),
            descriptor: descriptor.clone(),
            response: None,
            hasher: Some(Hasher::new()),
            ended: false,
            offset: 0,
            skip: 0,
            cuts: 0,
            deadline,
            turn,
        };
        stream.open().await?;
        Ok(stream)
    }

    /// Returns whether the repository of `name` has a blob.
    pub async fn has_blob(&self, name: &Reference, descriptor: &Descriptor) -> Result<bool, RegistryError> {
        let endpoint = self.endpoint(&name.registry).await?;
        let _turn = endpoint.limits.document().await;
        super::look::exists(&endpoint, &name.repository, descriptor, Scope::pull(&name.repository)).await
    }
}

impl BlobStream {
    /// Turns the blob into a stream of chunks.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        stream::try_unfold(self, |mut blob| async move {
            let chunk = blob.chunk().await.map_err(io::Error::other)?;
            Ok(chunk.map(|chunk| (chunk, blob)))
        })
    }

    /// Returns the next bytes, or none once all have come and are verified.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let cut = match self.receive().await {
                Ok(Some(chunk)) => return self.accept(chunk).map(Some).map_err(|error| self.doubted(error)),
                Ok(None) if self.offset == self.descriptor.size => {
                    self.ended = true;
                    return self.verify().map(|()| None).map_err(|error| self.doubted(error));
                }
                Ok(None) => Ok(None),
                Err(error) if error.is_transient() && Instant::now() < self.deadline => Ok(Some(error)),
                Err(error) => Err(error),
            };
            let resumed = match cut {
                Ok(cut) => self.resume(cut).await,
                Err(error) => Err(error),
            };
            if let Err(error) = resumed {
                self.leave_mirror(error).await?;
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let Some(response) = self.response.as_mut() else { return Ok(None) };
        let (left, idle) = (self.deadline.saturating_duration_since(Instant::now()), self.endpoint.patience.idle);
        let url = response.url().clone();
        match self.endpoint.within(left.min(idle), &url, response.chunk()).await {
            // Not the pause is too long then, but the whole.
            Err(RegistryError::TimedOut { host, .. }) if left < idle => {
                let seconds = self.endpoint.transfer_limit(self.descriptor.size).as_secs();
                Err(RegistryError::TooSlow { host, digest: self.descriptor.digest.clone(), seconds })
            }
            result => result,
        }
    }

    fn accept(&mut self, mut chunk: Bytes) -> Result<Bytes, RegistryError> {
        let known = chunk.split_to(usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len()));
        self.skip -= known.len() as u64;
        if self.place.instead_of.is_some() && !chunk.is_empty() && !self.fed.contains(&self.place) {
            self.fed.push(self.place.clone());
        }
        let end = self.offset + chunk.len() as u64;
        if end > self.descriptor.size {
            return Err(self.wrong_size(end));
        }
        self.offset = end;
        if !chunk.is_empty() {
            self.cuts = 0;
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        // The last byte is not passed on before it is known to be right: whoever counts may take it for the end.
        if end == self.descriptor.size {
            self.verify()?;
        }
        Ok(chunk)
    }

    fn verify(&mut self) -> Result<(), RegistryError> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let actual = hasher.finish();
        match actual == self.descriptor.digest {
            true => Ok(()),
            false => Err(RegistryError::Mismatch { expected: self.descriptor.digest.clone(), actual }),
        }
    }

    /// Says who else can be asked for what is wrong, if a mirror had part in it.
    fn doubted(&self, error: RegistryError) -> RegistryError {
        let Some(mirror) = self.fed.last() else { return error };
        for place in &self.fed {
            self.client.mirrors.note_spoiled(place, &self.descriptor.digest);
        }
        self.client.mirrors.note_failure(mirror, &error);
        RegistryError::Spoiled { mirror: mirror.reference.registry.clone(), source: Box::new(error) }
    }

    fn wrong_size(&self, actual: u64) -> RegistryError {
        RegistryError::Size { digest: self.descriptor.digest.clone(), expected: self.descriptor.size, actual }
    }

    /// Asks for the rest after a cut; `cut` is what broke, none for a body that ended early.
    async fn resume(&mut self, cut: Option<RegistryError>) -> Result<(), RegistryError> {
        self.cuts += 1;
        if self.cuts >= self.endpoint.patience.attempts {
            return Err(cut.unwrap_or_else(|| self.wrong_size(self.offset)));
        }
        tracing::debug!(blob = %self.descriptor.digest, offset = self.offset, "transfer was cut, asking for the rest");
        tokio::time::sleep(self.endpoint.backoff(self.cuts)).await;
        self.connect(None).await
    }

    /// Asks the next hosts for the rest of what a mirror broke off; what the registry itself says is final.
    async fn leave_mirror(&mut self, mut error: RegistryError) -> Result<(), RegistryError> {
        while self.place.instead_of.is_some() {
            self.client.mirrors.note_failure(&self.place, &error);
            self.left.insert(self.place.reference.name());
            self.place = self.client.next_place(&self.name, &self.descriptor.digest, &self.left);
            match self.go_on().await {
                Ok(()) => return Ok(()),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    /// Asks another host for the rest.
    async fn go_on(&mut self) -> Result<(), RegistryError> {
        self.response = None;
        self.endpoint = self.client.endpoint(&self.place.reference.registry).await?;
        if self.turn.take().is_some() {
            self.turn = Some(self.endpoint.limits.place_for(&self.descriptor.media_type).await);
        }
        self.deadline = Instant::now() + self.endpoint.transfer_limit(self.descriptor.size);
        self.cuts = 0;
        self.open().await
    }

    /// Connects for the first time, when a mirror that does not answer is left for the next.
    async fn open(&mut self) -> Result<(), RegistryError> {
        let attempts = self.place.attempts();
        self.connect(attempts).await
    }

    async fn connect(&mut self, attempts: Option<u32>) -> Result<(), RegistryError> {
        self.response = None;
        let repository = &self.place.reference.repository;
        let url = self.place.url(&self.endpoint, &format!("blobs/{}", self.descriptor.digest))?;
        let mut call = Call::new(Method::GET, url, vec![Scope::pull(repository)])
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.offset > 0 {
            let range = format!("bytes={}-{}", self.offset, self.descriptor.size.saturating_sub(1));
            call = call.header(header::RANGE, HeaderValue::from_str(&range).expect("a range is ASCII"));
        }
        call.attempts = attempts;
        let mut response = self.endpoint.send(&call).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && call.headers.remove(header::RANGE).is_some() {
            response = self.endpoint.send(&call).await?;
        }
        let wanted = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let wish = Wish { repository, access: Access::Pull, action: "give a blob" };
        let response = transport::expect(&self.endpoint, response, wish, &wanted).await?;
        self.begin(response)
    }

    /// Checks where the answer starts: what was had before is skipped, such as all of it by a server that ignores ranges.
    fn begin(&mut self, response: Response) -> Result<(), RegistryError> {
        let start = match (response.status() == StatusCode::PARTIAL_CONTENT, content_range(response.headers())) {
            (false, _) => 0,
            (true, Some((_, Some(total)))) if total != self.descriptor.size => return Err(self.wrong_size(total)),
            (true, Some((start, _))) if start <= self.offset => start,
            (true, _) => return Err(self.endpoint.protocol("a part of a blob that was not asked for")),
        };
        let rest = self.descriptor.size - start;
        // What is announced shorter would not be longer next time.
        if let Some(length) = response.content_length().filter(|length| *length != rest) {
            return Err(self.wrong_size(start.saturating_add(length)));
        }
        self.response = Some(response);
        self.skip = self.offset - start;
        Ok(())
    }
}

/// Reads the start and the size of the whole, if said, out of `Content-Range: bytes 5-9/10`.
pub(super) fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = value.split_once('/').unwrap_or((value, "*"));
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_content_ranges() {
        for (value, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/*", Some((0, None))),
            ("bytes 7-9", Some((7, None))),
            ("bytes */10", None),
            ("items 1-2/3", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, HeaderValue::from_static(value));
            assert_eq!(content_range(&headers), expected, "{value}");
        }
    }
}
