//! An image as one tar: an OCI layout, and for Docker the same with a `manifest.json`.
//!
//! ```text
//! blobs/ blobs/sha256/ blobs/sha256/HEX…   0444, in order of digest
//! index.json                               the image under each of its names
//! manifest.json                            docker only: config, layers, names
//! oci-layout
//! ```
//!
//! In: an [`Image`] and the bytes of its layers. Out: the tar on a writer. Members are sorted by name and have no times and no
//! owners, so equal images give equal archives. Each layer is hashed while it is copied; one that differs from its digest
//! fails the export.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;

use super::image::Image;
use super::spec::ArchiveFormat;
use super::tarball::{self, Writer};
use super::{Blobs, ExportError};
use crate::digest::{Digest, HashingReader};
use crate::image::layout::{IMAGE_NAME, MARKER, MARKER_CONTENT, REF_NAME};
use crate::image::{Descriptor, Index, Reference, canonical, media};
use crate::layer::entry::EntryKind;

/// One element of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Where the bytes of a member come from.
enum Content<'a> {
    Inline(Cow<'a, [u8]>),
    Layer(&'a Descriptor),
}

/// Writes an archive to `out`; `shown` names the destination in errors.
pub fn write(archive: &Archive<'_>, blobs: &dyn Blobs, out: &mut dyn Write, shown: &Path) -> Result<(), ExportError> {
    let members = archive.members()?;
    let mut writer = Writer::new(out);
    for directory in ["blobs/", "blobs/sha256/"] {
        let member = tarball::member(EntryKind::Directory, directory, 0o755, 0);
        writer.append(&member, &mut io::empty()).map_err(ExportError::write(shown))?;
    }
    for (name, content) in &members {
        match content {
            Content::Inline(bytes) => {
                let mode = if name == "index.json" || name == "manifest.json" { 0o644 } else { 0o444 };
                let member = tarball::member(EntryKind::File, name.as_str(), mode, bytes.len() as u64);
                writer.append(&member, &mut &bytes[..]).map_err(ExportError::write(shown))?;
            }
            Content::Layer(layer) => append_layer(&mut writer, name, layer, blobs, shown)?,
        }
    }
    writer.finish().map_err(ExportError::write(shown))
}

/// What goes into an archive.
#[derive(Debug, Clone, Copy)]
pub struct Archive<'a> {
    /// The image.
    pub image: &'a Image,
    /// Its names.
    pub names: &'a [Reference],
    /// The format.
    pub format: ArchiveFormat,
}

impl<'a> Archive<'a> {
    fn members(&self) -> Result<BTreeMap<String, Content<'a>>, ExportError> {
        let mut members = BTreeMap::new();
        for document in self.image.documents() {
            members.insert(blob_path(&document.descriptor.digest), Content::Inline(Cow::Borrowed(&document.bytes[..])));
        }
        for (layer, _) in self.image.layers() {
            members.insert(blob_path(&layer.digest), Content::Layer(layer));
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(media::OCI_INDEX.into()),
            manifests: named(self.image, self.names),
            annotations: BTreeMap::new(),
        };
        let mut add = |name: &str, bytes: Vec<u8>| members.insert(name.to_owned(), Content::Inline(Cow::Owned(bytes)));
        add("index.json", canonical::to_vec(&index));
        add(MARKER, MARKER_CONTENT.to_vec());
        if self.format == ArchiveFormat::Docker {
            add("manifest.json", self.docker_manifest()?);
        }
        Ok(members)
    }

    fn docker_manifest(&self) -> Result<Vec<u8>, ExportError> {
        let [image] = &self.image.platforms[..] else {
            return Err(ExportError::options(
                "an archive for docker holds one platform; use type=oci for several".to_owned(),
            ));
        };
        let tags: Vec<String> = self.names.iter().filter(|name| name.tag.is_some()).map(Reference::familiar).collect();
        let manifest = DockerManifest {
            config: blob_path(&image.config.descriptor.digest),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: image.layers.iter().map(|(layer, _)| blob_path(&layer.digest)).collect(),
        };
        Ok(canonical::to_vec(&[manifest]))
    }
}

/// Returns the entries of an `index.json`: the image under each name, or once without one.
pub(super) fn named(image: &Image, names: &[Reference]) -> Vec<Descriptor> {
    let described = image.described();
    if names.is_empty() {
        return vec![described];
    }
    let entry = |name: &Reference| {
        let mut entry = described.clone();
        let short = name.tag.clone().unwrap_or_else(|| name.to_string());
        entry.annotations.insert(IMAGE_NAME.into(), name.to_string());
        entry.annotations.insert(REF_NAME.into(), short);
        entry
    };
    names.iter().map(entry).collect()
}

/// Returns the path of a blob inside a layout.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn append_layer(
    writer: &mut Writer<'_>,
    name: &str,
    layer: &Descriptor,
    blobs: &dyn Blobs,
    shown: &Path,
) -> Result<(), ExportError> {
    let mut source = Verified::open(layer, blobs)?;
    let member = tarball::member(EntryKind::File, name, 0o444, layer.size);
    let appended = writer.append(&member, &mut source);
    source.finish(appended, shown)
}

/// A blob that is checked while it is read.
pub(super) struct Verified<'a> {
    layer: &'a Descriptor,
    blobs: &'a dyn Blobs,
    reader: HashingReader<Box<dyn Read + Send>>,
    failed: Option<io::Error>,
}

impl<'a> Verified<'a> {
    pub(super) fn open(layer: &'a Descriptor, blobs: &'a dyn Blobs) -> Result<Self, ExportError> {
        let reader = blobs.open(&layer.digest).map_err(ExportError::blob(&layer.digest))?;
        Ok(Self { layer, blobs, reader: HashingReader::new(reader), failed: None })
    }

    /// Tells a failure to read from one to write, and checks what was read.
    pub(super) fn finish(mut self, copied: io::Result<()>, shown: &Path) -> Result<(), ExportError> {
        let digest = &self.layer.digest;
        if let Some(error) = self.failed {
            return Err(ExportError::blob(digest)(error));
        }
        let short = copied.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
        if !short {
            copied.map_err(ExportError::write(shown))?;
        }
        let more = self.reader.read(&mut [0]).map_err(ExportError::blob(digest))?;
        let (found, length) = self.reader.finish();
        // Only SHA-256 can be computed here; another algorithm's blob was checked when it came in.
        let same = digest.algorithm() != "sha256" || found == *digest;
        if short || more > 0 || !same {
            let found = format!("{length} bytes, {found}");
            self.blobs.reject(digest);
            return Err(ExportError::Mismatch { digest: digest.clone(), found });
        }
        Ok(())
    }
}

impl Read for Verified<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            io::Error::from(kind)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::export::image::tests::single;

    /// Blobs in memory; what is not there is an error.
    #[derive(Debug)]
    pub(in crate::export) struct Memory(pub(in crate::export) BTreeMap<Digest, Vec<u8>>);

    impl Blobs for Memory {
        fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
            let bytes = self.0.get(digest).cloned().ok_or(io::ErrorKind::NotFound)?;
            Ok(Box::new(io::Cursor::new(bytes)))
        }
    }

    fn archive(content: &[u8], stored: &[u8], format: ArchiveFormat) -> Result<Vec<u8>, ExportError> {
        let image = single(content);
        let names = ["app:1".parse().expect("name"), "ghcr.io/o/app:2".parse().expect("name")];
        let blobs = Memory([(Digest::compute(content), stored.to_vec())].into());
        let mut out = Vec::new();
        let archive = Archive { image: &image, names: &names, format };
        write(&archive, &blobs, &mut out, Path::new("out.tar")).map(|()| out)
    }

    /// Reads names and content back from the headers.
    fn members(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut members = BTreeMap::new();
        let mut rest = tar;
        while rest[0] != 0 {
            let text =
                |range: std::ops::Range<usize>| String::from_utf8_lossy(&rest[range]).trim_end_matches('\0').to_owned();
            let size = usize::from_str_radix(&text(124..136), 8).expect("size");
            members.insert(text(0..100), rest[512..512 + size].to_vec());
            rest = &rest[512 + size.next_multiple_of(512)..];
        }
        assert_eq!(rest.len(), 1024);
        members
    }

    #[test]
    fn holds_layout_and_docker_manifest() {
        let tar = archive(b"layer", b"layer", ArchiveFormat::Docker).expect("archive");
        assert_eq!(tar, archive(b"layer", b"layer", ArchiveFormat::Docker).expect("archive"));
        let members = members(&tar);
        let digest = Digest::compute(b"layer");
        assert_eq!(members[&blob_path(&digest)], b"layer");
        assert_eq!(members[MARKER], MARKER_CONTENT);
        let manifest: serde_json::Value = serde_json::from_slice(&members["manifest.json"]).expect("json");
        assert_eq!(manifest[0]["RepoTags"], serde_json::json!(["app:1", "ghcr.io/o/app:2"]));
        assert_eq!(manifest[0]["Layers"], serde_json::json!([blob_path(&digest)]));
        assert!(members.contains_key(manifest[0]["Config"].as_str().expect("path")));
        let index: Index = serde_json::from_slice(&members["index.json"]).expect("index");
        let names: Vec<_> =
            index.manifests.iter().map(|m| (&m.annotations[IMAGE_NAME], &m.annotations[REF_NAME])).collect();
        assert_eq!(names[0], (&"docker.io/library/app:1".into(), &"1".into()));
        assert_eq!(names[1], (&"ghcr.io/o/app:2".into(), &"2".into()));
        let oci = archive(b"layer", b"layer", ArchiveFormat::Oci).expect("archive");
        assert!(!self::members(&oci).contains_key("manifest.json"));
    }

    #[test]
    fn t8_a_layer_that_differs_fails_the_export() {
        for stored in [&b"other"[..], b"laye", b"layer and more", b""] {
            let error = archive(b"layer", stored, ArchiveFormat::Oci).expect_err("wrong content");
            assert!(matches!(error, ExportError::Mismatch { .. }), "{error}");
        }
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let image = single(b"layer");
        let blobs = Memory([(Digest::compute(b"layer"), b"layer".to_vec())].into());
        let archive = Archive { image: &image, names: &[], format: ArchiveFormat::Oci };
        let error = write(&archive, &blobs, &mut Full, Path::new("/mnt/out.tar")).expect_err("full");
        assert!(matches!(error, ExportError::Write { .. }));
        assert!(crate::diag::Diagnose::hints(&error)[0].contains("/mnt/out.tar"));
    }
}
