//! From a reference to one image: which manifest of an index serves a platform, and whether its parts fit together.
//!
//! In: [`Contents`], a reference, a platform. Out: [`ResolvedImage`]. Invariants: an index is followed at most [`DEPTH`] deep
//! and at most [`DOCUMENTS`] documents are read; layers, diff ids and history of what comes out agree in number.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use super::SourceError;
use crate::digest::{ChainId, Digest};
use crate::image::media::{self, Compression};
use crate::image::{Descriptor, ImageConfig, Index, Manifest, Platform, Reference};
use crate::registry::{BLOB_CONNECTIONS, Document, document};

/// Indexes in indexes that are followed.
const DEPTH: usize = 4;
/// Documents read for one image.
const DOCUMENTS: usize = 32;

/// One image, ready to be pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// What was asked for.
    pub reference: Reference,
    /// What the reference points to: an index or the manifest.
    pub digest: Digest,
    /// The manifest.
    pub manifest_descriptor: Descriptor,
    /// What is in it.
    pub manifest: Manifest,
    /// The configuration as it came.
    pub config_bytes: Bytes,
    /// What is in it.
    pub config: ImageConfig,
    /// The platform by the configuration.
    pub platform: Platform,
}

impl ResolvedImage {
    /// Returns the identity of the stack up to each layer, bottom first.
    pub fn chain_ids(&self) -> Vec<ChainId> {
        let mut ids: Vec<ChainId> = Vec::new();
        for diff_id in &self.config.rootfs.diff_ids {
            ids.push(ChainId::extend(ids.last(), diff_id));
        }
        ids
    }
}

/// Where documents and blobs of an image come from.
pub(super) trait Contents: Send + Sync {
    /// Returns what the reference points to, verified.
    fn root<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<(Descriptor, Bytes), SourceError>>;

    /// Returns a document of at most `limit` bytes, verified.
    fn document<'a>(
        &'a self,
        reference: &'a Reference,
        descriptor: &'a Descriptor,
        limit: u64,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>>;

    /// Opens a blob; an end without an error means that all came and was verified.
    fn blob<'a>(
        &'a self,
        reference: &'a Reference,
        descriptor: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError>>;

    /// Returns how many blobs may be read at once.
    fn at_once(&self) -> usize {
        BLOB_CONNECTIONS
    }

    /// Returns whether a blob that is wrong may be right when it is opened again.
    fn has_others(&self, _reference: &Reference) -> bool {
        false
    }
}

/// A manifest or index still to be looked at.
struct Candidate {
    descriptor: Descriptor,
    bytes: Option<Bytes>,
    depth: usize,
    /// Whether an index said that it serves the platform, or nobody offered a choice.
    certain: bool,
}

struct Search<'a> {
    contents: &'a dyn Contents,
    reference: &'a Reference,
    wanted: &'a Platform,
    queue: VecDeque<Candidate>,
    have: BTreeSet<String>,
}

/// Finds the image for a platform.
pub(super) async fn resolve(
    contents: &dyn Contents,
    reference: &Reference,
    wanted: &Platform,
) -> Result<ResolvedImage, SourceError> {
    let (descriptor, bytes) = contents.root(reference).await?;
    let digest = descriptor.digest.clone();
    let root = Candidate { descriptor, bytes: Some(bytes), depth: 0, certain: true };
    let mut search = Search { contents, reference, wanted, queue: VecDeque::from([root]), have: BTreeSet::new() };
    for _ in 0..DOCUMENTS {
        let Some(candidate) = search.queue.pop_front() else { return Err(search.nothing()) };
        if let Some(image) = search.look(candidate, &digest).await? {
            return Ok(image);
        }
    }
    Err(unusable(reference, "it has too many indexes".into()))
}

fn unusable(reference: &Reference, reason: String) -> SourceError {
    SourceError::Image { reference: reference.familiar(), reason }
}

impl Search<'_> {
    async fn look(&mut self, candidate: Candidate, root: &Digest) -> Result<Option<ResolvedImage>, SourceError> {
        let descriptor = candidate.descriptor;
        let bytes = match candidate.bytes {
            Some(bytes) => bytes,
            None => self.contents.document(self.reference, &descriptor, document::MANIFEST_LIMIT).await?,
        };
        let parsed = document::parse(&bytes, Some(&descriptor.media_type)).map_err(|source| SourceError::Document {
            reference: self.reference.familiar(),
            digest: descriptor.digest.clone(),
            source,
        })?;
        match parsed.1 {
            Document::Index(_) if candidate.depth >= DEPTH => {
                Err(unusable(self.reference, format!("its indexes are nested more than {DEPTH} deep")))
            }
            Document::Index(index) => {
                self.expand(&index, candidate.depth + 1);
                Ok(None)
            }
            Document::Manifest(manifest) => {
                let image = self.finish(descriptor, *manifest, root).await?;
                if candidate.certain || image.platform.rank_for(self.wanted).is_some() {
                    return Ok(Some(image));
                }
                self.have.insert(image.platform.to_string());
                Ok(None)
            }
        }
    }

    /// Puts what may serve in front: the best platform, then what states none, nested indexes with it.
    fn expand(&mut self, index: &Index, depth: usize) {
        let known = |d: &&Descriptor| media::is_manifest(&d.media_type) || media::is_index(&d.media_type);
        let mut ranked: Vec<(usize, &Descriptor)> = Vec::new();
        let mut silent: Vec<&Descriptor> = Vec::new();
        for descriptor in index.manifests.iter().filter(known) {
            match descriptor.platform.as_ref().filter(|p| !p.os.is_empty() || !p.architecture.is_empty()) {
                None => silent.push(descriptor),
                Some(platform) => match platform.rank_for(self.wanted) {
                    Some(rank) => ranked.push((rank, descriptor)),
                    None if platform.os == "unknown" => {}
                    None => drop(self.have.insert(platform.to_string())),
                },
            }
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        let certain = ranked.into_iter().map(|(_, d)| (d, true));
        let all: Vec<_> = certain.chain(silent.into_iter().map(|d| (d, false))).collect();
        for (descriptor, certain) in all.into_iter().rev() {
            self.queue.push_front(Candidate { descriptor: descriptor.clone(), bytes: None, depth, certain });
        }
    }

    async fn finish(
        &self,
        descriptor: Descriptor,
        manifest: Manifest,
        root: &Digest,
    ) -> Result<ResolvedImage, SourceError> {
        check_types(&manifest).map_err(|reason| unusable(self.reference, reason))?;
        let config_bytes = self.contents.document(self.reference, &manifest.config, document::CONFIG_LIMIT).await?;
        let config = read_config(&config_bytes, &manifest).map_err(|reason| unusable(self.reference, reason))?;
        let platform = Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            os_version: config.os_version.clone(),
            os_features: config.os_features.clone(),
        };
        Ok(ResolvedImage {
            reference: self.reference.clone(),
            digest: root.clone(),
            manifest_descriptor: descriptor,
            manifest,
            config_bytes,
            config,
            platform: platform.normalized(),
        })
    }

    fn nothing(&self) -> SourceError {
        let have: Vec<&str> = self.have.iter().map(String::as_str).collect();
        SourceError::NoPlatform {
            reference: self.reference.familiar(),
            wanted: Box::new(self.wanted.clone()),
            have: if have.is_empty() { "none".into() } else { have.join(", ") },
        }
    }
}

fn check_types(manifest: &Manifest) -> Result<(), String> {
    let kind = manifest.config.media_type.as_str();
    if !matches!(kind, media::OCI_CONFIG | media::DOCKER_CONFIG) {
        return Err(format!("its configuration has media type {:?}, so it is another kind of artifact", shorten(kind)));
    }
    match manifest.layers.iter().find(|l| Compression::of_layer(&l.media_type).is_none()) {
        Some(layer) => Err(format!("layer {} has unknown media type {:?}", layer.digest, shorten(&layer.media_type))),
        None => Ok(()),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Reads a configuration and compares its counts with the manifest. History may be absent altogether, as the specification
/// has it; where there is one it cannot tell of more layers than there are.
fn read_config(bytes: &[u8], manifest: &Manifest) -> Result<ImageConfig, String> {
    let config: ImageConfig = serde_json::from_slice(bytes)
        .map_err(|e| format!("its configuration is invalid at line {}, column {}", e.line(), e.column()))?;
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(format!("its manifest has {layers} layers, its configuration {diff_ids}"));
    }
    let told = config.history.iter().filter(|h| !h.empty_layer).count();
    if told > layers {
        return Err(format!("its history tells of {told} layers, there are {layers}"));
    }
    if let Some(odd) = config.rootfs.diff_ids.iter().find(|d| d.0.algorithm() != "sha256") {
        return Err(format!("diff id {} is not a sha256 digest", odd.0));
    }
    Ok(config)
}

#[cfg(test)]
mod tests;
