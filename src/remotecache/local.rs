//! A cache in an OCI layout directory: `type=local,src=…`.
//!
//! In: a directory anybody may have written. Out: verified documents and blobs. Invariant: nothing outside the directory is
//! read: names are digests, and links are not followed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::sync::mpsc;

use super::RemoteCacheError;
use super::place::{Chunks, Place};
use crate::digest::{Digest, Hasher};
use crate::image::layout::{IMAGE_NAME, REF_NAME};
use crate::image::{Descriptor, Index};
use crate::sys::dir::Dir;

/// Largest `index.json` that is read.
const INDEX_LIMIT: u64 = 16 << 20;
/// Largest manifest that is read.
const MANIFEST_LIMIT: u64 = 4 << 20;
/// Bytes read at once, and how many such pieces may wait.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;

/// Blobs of directories that were found to be other than their digest says, by who read them.
#[derive(Debug, Default)]
pub struct Damaged(Mutex<BTreeSet<Digest>>);

impl Damaged {
    fn note(&self, digest: &Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone());
    }

    /// Returns those found so far.
    pub fn found(&self) -> BTreeSet<Digest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A cache in a directory.
#[derive(Debug)]
pub struct LocalPlace {
    path: PathBuf,
    name: String,
    tag: String,
    digest: Option<Digest>,
    damaged: Arc<Damaged>,
}

impl LocalPlace {
    /// Names the cache of a tag, or of a digest where one is given.
    pub fn new(path: &Path, tag: &str, digest: Option<Digest>) -> Self {
        let name = format!("local:{}", path.display());
        Self { path: path.to_owned(), name, tag: tag.to_owned(), digest, damaged: Arc::default() }
    }

    /// Notes blobs that turn out to be damaged.
    #[must_use]
    pub fn noting(self, damaged: Arc<Damaged>) -> Self {
        Self { damaged, ..self }
    }

    fn failed(&self, name: &str, source: io::Error) -> RemoteCacheError {
        RemoteCacheError::Read { path: self.path.join(name), source }
    }

    fn find(&self) -> Result<(Descriptor, Bytes), RemoteCacheError> {
        let descriptor = match &self.digest {
            Some(digest) => self.by_digest(digest)?,
            None => self.by_tag()?,
        };
        let bytes = self.read(&descriptor, MANIFEST_LIMIT)?;
        Ok((descriptor, bytes))
    }

    /// A digest that is named need not be in the index; its type is in the document.
    fn by_digest(&self, digest: &Digest) -> Result<Descriptor, RemoteCacheError> {
        let file = self.open(digest)?;
        let size = file.metadata().map_err(|error| self.failed("blobs", error))?.len();
        Ok(Descriptor::new("", digest.clone(), size))
    }

    fn by_tag(&self) -> Result<Descriptor, RemoteCacheError> {
        let dir = Dir::open(&self.path).map_err(|error| self.failed("", error))?;
        let file = dir.open_file(OsStr::new("index.json")).map_err(|error| self.failed("index.json", error))?;
        let mut bytes = Vec::new();
        file.take(INDEX_LIMIT).read_to_end(&mut bytes).map_err(|error| self.failed("index.json", error))?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| RemoteCacheError::invalid(format!("its index.json is no OCI index: {error}")))?;
        let named = |key: &str| {
            let has = |entry: &&Descriptor| entry.annotations.get(key).is_some_and(|name| *name == self.tag);
            index.manifests.iter().rfind(has).cloned()
        };
        let absent = || RemoteCacheError::Absent { path: self.path.clone(), what: format!("{:?}", self.tag) };
        named(IMAGE_NAME).or_else(|| named(REF_NAME)).ok_or_else(absent)
    }

    fn open(&self, digest: &Digest) -> Result<File, RemoteCacheError> {
        let open = || {
            let blobs = Dir::open(&self.path)?.open_dir(OsStr::new("blobs"))?;
            blobs.open_dir(OsStr::new(digest.algorithm()))?.open_file(OsStr::new(digest.hex()))
        };
        let failed = |error: io::Error| self.failed(&format!("blobs/{}/{}", digest.algorithm(), digest.hex()), error);
        let file = open().map_err(failed)?;
        let is_file = file.metadata().map_err(failed)?.is_file();
        if is_file { Ok(file) } else { Err(failed(io::Error::other("not a regular file"))) }
    }

    fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, RemoteCacheError> {
        let digest = &descriptor.digest;
        if descriptor.size > limit {
            return Err(RemoteCacheError::invalid(format!("{digest} is larger than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        let read = self.open(digest)?.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|source| RemoteCacheError::Layer { digest: digest.clone(), source })?;
        if Digest::compute(&bytes) != *digest || bytes.len() as u64 != descriptor.size {
            self.damaged.note(digest);
            return Err(RemoteCacheError::Mismatch { digest: digest.clone() });
        }
        Ok(bytes.into())
    }
}

impl Place for LocalPlace {
    fn name(&self) -> &str {
        &self.name
    }

    fn root(&self) -> BoxFuture<'_, Result<(Descriptor, Bytes), RemoteCacheError>> {
        Box::pin(async { self.find() })
    }

    fn document<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        limit: u64,
    ) -> BoxFuture<'a, Result<Bytes, RemoteCacheError>> {
        Box::pin(async move { self.read(descriptor, limit) })
    }

    fn blob<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Chunks, RemoteCacheError>> {
        Box::pin(async move {
            let file = self.open(&descriptor.digest)?;
            let (sender, receiver) = mpsc::channel(PIECES);
            let (descriptor, damaged) = (descriptor.clone(), Arc::clone(&self.damaged));
            tokio::task::spawn_blocking(move || send(file, &descriptor, (&sender, &damaged)));
            Ok(stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|c| (c, receiver)) }).boxed())
        })
    }
}

/// Reads a blob piece by piece, and tells at its end if it was another.
fn send(
    mut file: File,
    descriptor: &Descriptor,
    (sender, damaged): (&mpsc::Sender<Result<Bytes, RemoteCacheError>>, &Damaged),
) {
    let mut hasher = Hasher::new();
    let digest = || descriptor.digest.clone();
    loop {
        let mut piece = vec![0; PIECE];
        let last = match file.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => Some(RemoteCacheError::Layer { digest: digest(), source }),
            Ok(count) => {
                piece.truncate(count);
                hasher.update(&piece);
                let right = || hasher.length() == descriptor.size && hasher.clone().finish() == descriptor.digest;
                match count {
                    0 if right() => return,
                    // One that grows while it is read would have no end.
                    _ if count == 0 || hasher.length() > descriptor.size => {
                        damaged.note(&descriptor.digest);
                        Some(RemoteCacheError::Mismatch { digest: digest() })
                    }
                    _ => None,
                }
            }
        };
        let done = last.is_some();
        // Nobody waits any more when the receiver is gone.
        if sender.blocking_send(last.map_or(Ok(Bytes::from(piece)), Err)).is_err() || done {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::media;
    use serde_json::json;

    fn layout() -> (tempfile::TempDir, Descriptor) {
        let temp = tempfile::tempdir().expect("temp dir");
        let blobs = temp.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("mkdir");
        let blob = Descriptor::of(media::OCI_MANIFEST, b"{}");
        std::fs::write(blobs.join(blob.digest.hex()), "{}").expect("write");
        let entry = |key: &str, name: &str| json!({"mediaType": blob.media_type, "digest": blob.digest, "size": 2, "annotations": {key: name}});
        let index = json!({"schemaVersion": 2, "manifests": [entry(REF_NAME, "a"), entry(IMAGE_NAME, "b")]});
        std::fs::write(temp.path().join("index.json"), index.to_string()).expect("write");
        (temp, blob)
    }

    async fn all(place: &LocalPlace, descriptor: &Descriptor) -> Result<Vec<u8>, RemoteCacheError> {
        let mut chunks = place.blob(descriptor).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend(chunk?);
        }
        Ok(bytes)
    }

    #[tokio::test]
    async fn tags_and_digests_are_found() {
        let (temp, blob) = layout();
        for tag in ["a", "b"] {
            let (found, _) = LocalPlace::new(temp.path(), tag, None).root().await.expect(tag);
            assert_eq!(found.digest, blob.digest);
        }
        let absent = LocalPlace::new(temp.path(), "c", None).root().await;
        assert!(matches!(absent, Err(RemoteCacheError::Absent { .. })));
        let by_digest = LocalPlace::new(temp.path(), "c", Some(blob.digest.clone())).root().await.expect("digest");
        assert_eq!(by_digest.0.digest, blob.digest);
        assert!(LocalPlace::new(&temp.path().join("none"), "a", None).root().await.is_err());
    }

    #[tokio::test]
    async fn damage_and_links_are_errors() {
        let (temp, blob) = layout();
        let place = LocalPlace::new(temp.path(), "a", None);
        assert_eq!(all(&place, &blob).await.expect("good"), b"{}");
        let file = temp.path().join("blobs/sha256").join(blob.digest.hex());
        for content in ["{]", "{", "{} ", ""] {
            std::fs::write(&file, content).expect("write");
            assert!(all(&place, &blob).await.is_err(), "{content}");
            assert!(place.document(&blob, 100).await.is_err(), "{content}");
        }
        std::fs::write(temp.path().join("good"), "{}").expect("write");
        std::fs::remove_file(&file).expect("remove");
        std::os::unix::fs::symlink("../../good", &file).expect("symlink");
        assert!(all(&place, &blob).await.is_err());
    }
}
