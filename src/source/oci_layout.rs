//! Images from an OCI layout on disk (OCI image-spec 1.1, image-layout.md).
//!
//! ```text
//! DIR/oci-layout   DIR/index.json   DIR/blobs/sha256/HEX
//! ```
//!
//! In: a directory the user names, opened once. Out: as for registries. Invariants: no link below the directory is followed,
//! only regular files are read, and all content is verified, since others may write there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};

use super::layers::{self, Reporter};
use super::select::{self, Contents, ResolvedImage};
use super::{SourceError, blob};
use crate::digest::{Digest, Hasher};
use crate::image::layout::{self, IMAGE_NAME, REF_NAME};
use crate::image::{Descriptor, Index, Platform, Reference};
use crate::registry::{Document, MANIFEST_LIMIT, RegistryError, document};
use crate::snapshot::{Chain, Snapshots};
use crate::store::Store;
use crate::sys::dir::{Dir, Kind, stat_of};

const CHUNK: usize = 64 << 10;

/// An open layout.
#[derive(Debug)]
pub struct OciLayout {
    name: String,
    dir: Dir,
}

impl OciLayout {
    /// Opens the layout at `path`.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        let failed = |source| SourceError::Layout { layout: name.clone(), path: ".".into(), source };
        let dir = Dir::open(path).map_err(failed)?;
        let opened = Self { name, dir };
        let marker = opened.read(layout::MARKER, MANIFEST_LIMIT)?;
        opened.check_version(&marker)?;
        Ok(opened)
    }

    /// Returns the digest that a tag, or no tag where there is one entry only, leads to.
    pub fn digest_of(&self, tag: Option<&str>) -> Result<Digest, SourceError> {
        let index = self.index()?;
        let name = Reference {
            registry: "localhost".into(),
            repository: "layout".into(),
            tag: tag.map(str::to_owned),
            digest: None,
        };
        let descriptor = pick(&index, &name).ok_or_else(|| self.absent(&index, &name))?;
        Ok(descriptor.digest.clone())
    }

    /// Finds an image by digest, by tag, or, where the layout has but one, by neither.
    pub async fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage, SourceError> {
        select::resolve(self, reference, platform).await
    }

    /// Makes the layers of an image available as snapshots.
    pub async fn pull(
        &self,
        store: &Arc<Store>,
        snapshots: &Arc<Snapshots>,
        image: &ResolvedImage,
        reporter: &Reporter,
    ) -> Result<Chain, SourceError> {
        layers::pull(self, store, snapshots, image, reporter).await
    }

    /// Brings the blob of one layer of an image into the store.
    pub async fn fetch(
        &self,
        store: &Arc<Store>,
        image: &ResolvedImage,
        layer: &Descriptor,
    ) -> Result<(), SourceError> {
        blob::fetch(self, store, image, layer).await
    }

    /// Returns what a digest, a tag, or neither where there is one entry only, leads to, without what its entry is called.
    pub fn manifest(&self, tag: Option<&str>, digest: Option<&Digest>) -> Result<(Descriptor, Bytes), SourceError> {
        let name = Reference {
            registry: "localhost".into(),
            repository: "layout".into(),
            tag: tag.map(str::to_owned),
            digest: digest.cloned(),
        };
        let (mut descriptor, bytes) = self.find(&name)?;
        for key in [REF_NAME, IMAGE_NAME] {
            descriptor.annotations.remove(key);
        }
        Ok((descriptor, bytes))
    }

    /// Returns the whole of a small blob, verified.
    pub fn small(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, SourceError> {
        let bytes = self.read_verified(&descriptor.digest, limit)?;
        let (expected, actual) = (descriptor.size, bytes.len() as u64);
        match actual == expected {
            true => Ok(bytes),
            false => Err(RegistryError::Size { digest: descriptor.digest.clone(), expected, actual }.into()),
        }
    }

    /// Opens a blob; an end without an error means that all came and was verified.
    pub fn blob_of(
        &self,
        descriptor: &Descriptor,
    ) -> Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError> {
        self.stream(descriptor)
    }

    fn check_version(&self, marker: &[u8]) -> Result<(), SourceError> {
        match layout::is_readable(marker) {
            true => Ok(()),
            false => Err(self.failed(layout::MARKER, io::Error::other("it is not of version 1"))),
        }
    }

    fn failed(&self, path: &str, source: io::Error) -> SourceError {
        SourceError::Layout { layout: self.name.clone(), path: path.to_owned(), source }
    }

    /// Opens a file by components, none of which may be a link.
    fn file(&self, path: &str) -> io::Result<File> {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut dir = self.dir.reopen()?;
        for parent in parents.split('/').filter(|p| !p.is_empty()) {
            dir = dir.open_dir(OsStr::new(parent))?;
        }
        let file = dir.open_file(OsStr::new(name))?;
        match stat_of(&file)?.kind() {
            Kind::File => Ok(file),
            _ => Err(io::Error::other("it is not a regular file")),
        }
    }

    fn read(&self, path: &str, limit: u64) -> Result<Bytes, SourceError> {
        let failed = |source| self.failed(path, source);
        let mut content = Vec::new();
        self.file(path).map_err(failed)?.take(limit + 1).read_to_end(&mut content).map_err(failed)?;
        if content.len() as u64 > limit {
            return Err(failed(io::Error::other(format!("it is larger than {limit} bytes"))));
        }
        Ok(content.into())
    }

    fn read_verified(&self, digest: &Digest, limit: u64) -> Result<Bytes, SourceError> {
        let bytes = self.read(&blob_path(digest), limit)?;
        let actual = Digest::compute(&bytes);
        match actual == *digest {
            true => Ok(bytes),
            false => Err(RegistryError::Mismatch { expected: digest.clone(), actual }.into()),
        }
    }

    fn index(&self) -> Result<Index, SourceError> {
        let bytes = self.read("index.json", MANIFEST_LIMIT)?;
        match document::parse(&bytes, None) {
            Ok((_, Document::Index(index))) => Ok(index),
            Ok(_) => Err(self.failed("index.json", io::Error::other("it is not an index"))),
            Err(error) => Err(self.failed("index.json", io::Error::other(error))),
        }
    }

    fn find(&self, reference: &Reference) -> Result<(Descriptor, Bytes), SourceError> {
        if let Some(digest) = &reference.digest {
            let bytes = self.read_verified(digest, MANIFEST_LIMIT)?;
            let parsed = document::parse(&bytes, None).map_err(|source| SourceError::Document {
                reference: reference.familiar(),
                digest: digest.clone(),
                source,
            })?;
            return Ok((Descriptor::of(parsed.0, &bytes), bytes));
        }
        let index = self.index()?;
        let descriptor = pick(&index, reference).ok_or_else(|| self.absent(&index, reference))?;
        let bytes = self.read_verified(&descriptor.digest, MANIFEST_LIMIT)?;
        Ok((descriptor.clone(), bytes))
    }

    fn absent(&self, index: &Index, reference: &Reference) -> SourceError {
        let names: BTreeSet<String> =
            index.manifests.iter().filter_map(|d| d.annotations.get(REF_NAME)).cloned().collect();
        let name = reference.tag.clone().unwrap_or_else(|| "without a tag".into());
        SourceError::NotInLayout { layout: self.name.clone(), name, have: names.into_iter().take(10).collect() }
    }

    fn stream(&self, descriptor: &Descriptor) -> Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError> {
        let path = blob_path(&descriptor.digest);
        let file = self.file(&path).map_err(|source| self.failed(&path, source))?;
        let reader =
            Verified { file, hasher: Hasher::new(), descriptor: descriptor.clone(), layout: self.name.clone() };
        // Reading a local file in pieces of 64 KiB is short enough for the runtime's threads.
        let stream = stream::try_unfold(reader, |mut reader| async move {
            let chunk = reader.next()?;
            Ok(chunk.map(|chunk| (chunk, reader)))
        });
        Ok(stream.boxed())
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Picks the entry of a tag: named by the tag alone, or by the whole reference. Without a tag the only entry, or `latest`.
fn pick<'a>(index: &'a Index, reference: &Reference) -> Option<&'a Descriptor> {
    let named = |tag: &str, descriptor: &Descriptor| {
        let full = [format!("{}:{tag}", reference.name()), format!("{}:{tag}", reference.repository)];
        let names = [REF_NAME, IMAGE_NAME].iter().filter_map(|key| descriptor.annotations.get(*key));
        names.into_iter().any(|name| name == tag || full.contains(name))
    };
    let by_tag = |tag: &str| index.manifests.iter().find(|d| named(tag, d));
    match (&reference.tag, &index.manifests[..]) {
        (Some(tag), _) => by_tag(tag),
        (None, [only]) => Some(only),
        (None, _) => by_tag("latest"),
    }
}

/// A file that is compared with its descriptor while it is read.
struct Verified {
    file: File,
    hasher: Hasher,
    descriptor: Descriptor,
    layout: String,
}

impl Verified {
    fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let mut chunk = vec![0; CHUNK];
        let count = self.file.read(&mut chunk).map_err(|source| SourceError::Layout {
            layout: self.layout.clone(),
            path: blob_path(&self.descriptor.digest),
            source,
        })?;
        chunk.truncate(count);
        self.hasher.update(&chunk);
        let (expected, actual) = (self.descriptor.size, self.hasher.length());
        let ended = count == 0;
        if actual > expected || (ended && actual < expected) {
            return Err(RegistryError::Size { digest: self.descriptor.digest.clone(), expected, actual }.into());
        }
        if !ended {
            return Ok(Some(chunk.into()));
        }
        let actual = self.hasher.clone().finish();
        match actual == self.descriptor.digest {
            true => Ok(None),
            false => Err(RegistryError::Mismatch { expected: self.descriptor.digest.clone(), actual }.into()),
        }
    }
}

impl Contents for OciLayout {
    fn root<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<(Descriptor, Bytes), SourceError>> {
        Box::pin(async move { self.find(reference) })
    }

    fn document<'a>(
        &'a self,
        _reference: &'a Reference,
        descriptor: &'a Descriptor,
        limit: u64,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        Box::pin(async move { self.small(descriptor, limit) })
    }

    fn blob<'a>(
        &'a self,
        _reference: &'a Reference,
        descriptor: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError>> {
        Box::pin(async move { self.stream(descriptor) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::diag::{Diagnose as _, chain};
    use crate::image::media;

    /// Writes a layout with one empty image under a tag; returns the image's digest.
    fn layout(dir: &Path, tags: &[&str]) -> Digest {
        std::fs::create_dir_all(dir.join("blobs/sha256")).expect("mkdir");
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
        let put = |kind: &str, text: String| {
            let descriptor = Descriptor::of(kind, text.as_bytes());
            std::fs::write(dir.join(blob_path(&descriptor.digest)), text).expect("write");
            descriptor
        };
        let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = put(media::OCI_CONFIG, config.into());
        let config = serde_json::to_string(&config).expect("plain data");
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        let manifest = put(media::OCI_MANIFEST, manifest);
        let tagged = |tag: &&str| {
            let mut entry = manifest.clone();
            entry.annotations.insert(REF_NAME.into(), (*tag).into());
            entry
        };
        let entries: Vec<Descriptor> = tags.iter().map(tagged).collect();
        let entries = serde_json::to_string(&entries).expect("plain data");
        std::fs::write(dir.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":{entries}}}"#))
            .expect("write");
        manifest.digest
    }

    async fn resolve(dir: &Path, reference: &str) -> Result<ResolvedImage, SourceError> {
        let reference = reference.parse().expect("reference");
        OciLayout::open(dir)?.resolve(&reference, &Platform::new("linux", "amd64")).await
    }

    #[tokio::test]
    async fn finds_images_by_tag_and_digest() {
        let temp = tempfile::tempdir().expect("temp dir");
        let digest = layout(temp.path(), &["v1", "r.io/app:v2", "latest"]);
        for reference in ["app:v1", "r.io/app:v2", "other", &format!("x@{digest}")] {
            assert_eq!(resolve(temp.path(), reference).await.expect(reference).digest, digest);
        }
        let error = resolve(temp.path(), "app:v3").await.expect_err("no such tag");
        assert!(error.to_string().ends_with("has no image v3"), "{error}");
        assert_eq!(error.hints(), ["it has latest, r.io/app:v2, v1"]);
        layout(temp.path(), &["only"]);
        assert_eq!(resolve(temp.path(), "whatever").await.expect("only one").digest, digest);
    }

    #[tokio::test]
    async fn reads_no_links_and_no_special_files() {
        let temp = tempfile::tempdir().expect("temp dir");
        let outside = temp.path().join("outside");
        let (good, dir) = (temp.path().join("good"), temp.path().join("layout"));
        let digest = layout(&good, &["v1"]);
        for path in ["oci-layout", "index.json", "blobs", "blobs/sha256", &blob_path(&digest)] {
            if dir.exists() {
                std::fs::remove_dir_all(&dir).expect("rm");
            }
            layout(&dir, &["v1"]);
            resolve(&dir, "a:v1").await.expect("good so far");
            std::fs::rename(dir.join(path), &outside).expect("mv");
            symlink(&outside, dir.join(path)).expect("symlink");
            assert!(resolve(&dir, "a:v1").await.is_err(), "{path} is a link");
            std::fs::remove_file(dir.join(path)).expect("rm");
            symlink("/dev/zero", dir.join(path)).expect("symlink");
            assert!(resolve(&dir, "a:v1").await.is_err(), "{path} is a device");
            if outside.is_dir() { std::fs::remove_dir_all(&outside) } else { std::fs::remove_file(&outside) }
                .expect("rm");
        }
    }

    #[tokio::test]
    async fn r7_blobs_are_verified() {
        let temp = tempfile::tempdir().expect("temp dir");
        let digest = layout(temp.path(), &["v1"]);
        let content = std::fs::read(temp.path().join(blob_path(&digest))).expect("read");
        let short = Descriptor::new(media::OCI_LAYER, digest.clone(), content.len() as u64 - 1);
        let long = Descriptor { size: content.len() as u64 + 1, ..short.clone() };
        let exact = Descriptor { size: content.len() as u64, ..short.clone() };
        let open = OciLayout::open(temp.path()).expect("layout");
        let read = |descriptor: Descriptor| {
            let stream = open.stream(&descriptor).expect("open");
            async move { stream.collect::<Vec<_>>().await.into_iter().collect::<Result<Vec<_>, _>>() }
        };
        assert_eq!(read(exact.clone()).await.expect("exact").concat(), content);
        assert!(read(short).await.is_err() && read(long).await.is_err());
        std::fs::write(temp.path().join(blob_path(&digest)), [&content[1..], b"x"].concat()).expect("write");
        assert!(read(exact).await.is_err());
        let error = resolve(temp.path(), "a:v1").await.expect_err("changed");
        assert!(chain(&error).contains("has digest"), "{error}");
    }
}
