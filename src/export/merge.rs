//! An index of manifests that are in registries already, with the bytes that `docker buildx imagetools create` gives it.
//!
//! In: manifests and indexes, each with what points to it. Out: the index, or one of them as it is, and what must be where it
//! is stored. Nothing is read or written. The rules are buildx's:
//!
//! * one index alone stays as it is, and so does one manifest if no index is preferred;
//! * indexes are replaced by what they list; what is listed twice stands once, at its first place, with the last platform and
//!   the annotations of both;
//! * it is Docker's kind of list if all that it lists is Docker's, else the OCI's;
//! * choosing platforms keeps what has none, and the attestations of what is kept.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ExportError;
use super::annotations::{Annotation, Target};
use crate::digest::Digest;
use crate::image::{Platform, canonical, media};

/// Annotations by which an attestation names what it attests.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION: &str = "attestation-manifest";

/// A descriptor with all members that the specification knows, in Go's order; of one that a user gives, all but the digest may
/// be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Media type of the content.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size in bytes.
    #[serde(default)]
    pub size: u64,
    /// Where else the content is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself, as base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// Platform of the manifest pointed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What kind of artifact the manifest is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
}

impl Entry {
    /// Returns whether it points to an index.
    pub fn is_index(&self) -> bool {
        media::is_index(&self.media_type)
    }

    /// Returns it with what a user's descriptor says otherwise; there, annotations replace all.
    ///
    /// # Errors
    ///
    /// If the user's descriptor speaks of other content.
    pub fn overlaid(self, user: &Entry) -> Result<Self, ExportError> {
        if user.size != 0 && user.size != self.size {
            return Err(ExportError::options(format!(
                "{} has {} bytes, and not {} as its descriptor says",
                self.digest, self.size, user.size
            )));
        }
        let annotations = if user.annotations.is_empty() { self.annotations } else { user.annotations.clone() };
        let media_type = if user.media_type.is_empty() { self.media_type } else { user.media_type.clone() };
        Ok(Self { media_type, annotations, platform: user.platform.clone().or(self.platform), ..self })
    }
}

impl From<crate::image::Descriptor> for Entry {
    fn from(descriptor: crate::image::Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type,
            digest: descriptor.digest,
            size: descriptor.size,
            urls: Vec::new(),
            annotations: descriptor.annotations,
            data: String::new(),
            platform: descriptor.platform,
            artifact_type: String::new(),
        }
    }
}

/// An index with all members that the specification knows, in Go's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this document.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What kind of artifact it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    /// What it lists.
    pub manifests: Vec<Entry>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Entry>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Listing {
    /// Reads an index.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, ExportError> {
        serde_json::from_slice(bytes).map_err(|error| ExportError::options(format!("failed to read an index: {error}")))
    }
}

/// A manifest or index that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What points to it; with its platform, if it is a manifest.
    pub entry: Entry,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// How manifests are put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeOptions {
    /// Annotations of the index and of what points to its manifests.
    pub annotations: Vec<Annotation>,
    /// Whether a single manifest gets an index too.
    pub prefer_index: bool,
    /// The platforms that are kept; all, if there are none.
    pub platforms: Vec<Platform>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// What points to it.
    pub entry: Entry,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What must be there before it, each with the number of the source it is from.
    pub parts: Vec<(Entry, usize)>,
}

/// Puts manifests and indexes together.
///
/// # Errors
///
/// If annotations have no place, or nothing is of a platform that was chosen.
pub fn merge(sources: &[Source], options: &MergeOptions) -> Result<Merged, ExportError> {
    check_annotations(&options.annotations)?;
    match sources {
        [only] if options.annotations.is_empty() && only.entry.is_index() => {
            let parts = Listing::parse(&only.bytes)?.manifests.into_iter().map(|entry| (entry, 0)).collect();
            choose(Merged { entry: only.entry.clone(), bytes: only.bytes.clone(), parts }, &options.platforms)
        }
        [only] if options.annotations.is_empty() && !options.prefer_index => {
            refuse_other(&only.entry, &options.platforms)?;
            let parts = vec![(only.entry.clone(), 0)];
            Ok(Merged { entry: only.entry.clone(), bytes: only.bytes.clone(), parts })
        }
        sources => choose(combine(sources, &options.annotations)?, &options.platforms),
    }
}

fn check_annotations(annotations: &[Annotation]) -> Result<(), ExportError> {
    let places = "write `index:KEY=VALUE` or `manifest-descriptor:KEY=VALUE`";
    let misplaced = |annotation: &&Annotation| !matches!(annotation.target, Target::Index | Target::ManifestDescriptor);
    match annotations.iter().find(misplaced) {
        Some(annotation) => Err(ExportError::options(format!(
            "annotation {:?} is for a manifest or for what points to an index, which are not made here: {places}",
            annotation.key
        ))),
        None => Ok(()),
    }
}

fn combine(sources: &[Source], annotations: &[Annotation]) -> Result<Merged, ExportError> {
    let mut parts: Vec<(Entry, usize)> = Vec::new();
    let mut places: BTreeMap<Digest, usize> = BTreeMap::new();
    for (from, source) in sources.iter().enumerate() {
        let entries = match source.entry.is_index() {
            true => Listing::parse(&source.bytes)?.manifests,
            false => vec![source.entry.clone()],
        };
        for entry in entries {
            match places.get(&entry.digest) {
                Some(at) => again(&mut parts[*at], entry, from),
                None => {
                    places.insert(entry.digest.clone(), parts.len());
                    parts.push((entry, from));
                }
            }
        }
    }
    let is_docker = parts.iter().all(|(entry, _)| entry.media_type.starts_with("application/vnd.docker."));
    let media_type = if is_docker { media::DOCKER_INDEX } else { media::OCI_INDEX };
    if is_docker && !annotations.is_empty() {
        return Err(ExportError::options(
            "a list of Docker manifests takes no annotations; build with OCI media types",
        ));
    }
    annotate(&mut parts, annotations);
    let listing = Listing {
        schema_version: 2,
        media_type: media_type.into(),
        artifact_type: String::new(),
        manifests: parts.iter().map(|(entry, _)| entry.clone()).collect(),
        subject: None,
        annotations: of(annotations, Target::Index).map(|a| (a.key.clone(), a.value.clone())).collect(),
    };
    Ok(written(&listing, media_type, parts))
}

fn written(listing: &Listing, media_type: &str, parts: Vec<(Entry, usize)>) -> Merged {
    let bytes = canonical::to_indented(listing);
    let entry = Entry::from(crate::image::Descriptor::of(media_type, &bytes));
    Merged { entry, bytes, parts }
}

/// What comes later knows better, and is fetched from there.
fn again((known, place): &mut (Entry, usize), entry: Entry, from: usize) {
    if known.media_type.is_empty() {
        known.media_type = entry.media_type;
    }
    known.platform = entry.platform.or(known.platform.take());
    known.annotations.extend(entry.annotations);
    *place = from;
}

fn of(annotations: &[Annotation], target: Target) -> impl Iterator<Item = &Annotation> {
    annotations.iter().filter(move |annotation| annotation.target == target)
}

fn annotate(parts: &mut [(Entry, usize)], annotations: &[Annotation]) {
    for annotation in of(annotations, Target::ManifestDescriptor) {
        let meant = |entry: &Entry| match (&annotation.platform, &entry.platform) {
            (None, _) => true,
            (Some(wanted), have) => have.as_ref().is_some_and(|have| is_same(have, wanted)),
        };
        for (entry, _) in parts.iter_mut().filter(|(entry, _)| meant(entry)) {
            entry.annotations.insert(annotation.key.clone(), annotation.value.clone());
        }
    }
}

/// Versions of the system are not compared.
fn is_same(one: &Platform, other: &Platform) -> bool {
    let (one, other) = (one.clone().normalized(), other.clone().normalized());
    (one.os, one.architecture, one.variant) == (other.os, other.architecture, other.variant)
}

fn is_wanted(entry: &Entry, platforms: &[Platform]) -> bool {
    let wanted = |platform: &Platform| platforms.iter().any(|wanted| is_same(platform, wanted));
    platforms.is_empty() || entry.platform.as_ref().is_none_or(wanted)
}

fn refuse_other(entry: &Entry, platforms: &[Platform]) -> Result<(), ExportError> {
    if is_wanted(entry, platforms) {
        return Ok(());
    }
    let platform = entry.platform.as_ref().map(Platform::to_string).unwrap_or_default();
    Err(ExportError::options(format!("the image is for {platform}, which is none of the platforms chosen")))
}

/// Keeps what is of the platforms chosen; if that is all, the bytes stay as they are.
fn choose(merged: Merged, platforms: &[Platform]) -> Result<Merged, ExportError> {
    let by_digest: BTreeMap<&Digest, &Entry> = merged.parts.iter().map(|(entry, _)| (&entry.digest, entry)).collect();
    let attested = |entry: &Entry| {
        let is_attestation = entry.annotations.get(REFERENCE_TYPE).is_some_and(|kind| kind == ATTESTATION);
        let digest = entry.annotations.get(REFERENCE_DIGEST).filter(|_| is_attestation)?;
        by_digest.get(&digest.parse::<Digest>().ok()?).copied()
    };
    let kept = |entry: &Entry| {
        is_wanted(entry, platforms) || attested(entry).is_some_and(|subject| is_wanted(subject, platforms))
    };
    let parts: Vec<(Entry, usize)> = merged.parts.iter().filter(|(entry, _)| kept(entry)).cloned().collect();
    if parts.len() == merged.parts.len() {
        return Ok(merged);
    }
    if parts.is_empty() {
        let have: BTreeSet<String> =
            merged.parts.iter().filter_map(|(entry, _)| entry.platform.as_ref()).map(Platform::to_string).collect();
        let have = have.into_iter().collect::<Vec<_>>().join(", ");
        return Err(ExportError::options(format!("none of the manifests is for a platform chosen; there is {have}")));
    }
    let manifests = parts.iter().map(|(entry, _)| entry.clone()).collect();
    let listing = Listing { manifests, ..Listing::parse(&merged.bytes)? };
    // A document may leave its type to what points to it.
    let chosen = written(&listing, &merged.entry.media_type, parts);
    Ok(Merged { entry: Entry { annotations: merged.entry.annotations, ..chosen.entry }, ..chosen })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::annotations;

    fn manifest(content: &str, media_type: &str, platform: Option<&str>) -> Source {
        let bytes = content.as_bytes().to_vec();
        let mut entry = Entry::from(crate::image::Descriptor::of(media_type, &bytes));
        entry.platform = platform.map(|text| text.parse().expect("platform"));
        Source { entry, bytes }
    }

    fn index(entries: &[&Source]) -> Source {
        let manifests = entries.iter().map(|source| source.entry.clone()).collect();
        let listing = Listing {
            schema_version: 2,
            media_type: String::new(),
            artifact_type: String::new(),
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let bytes = canonical::to_indented(&listing);
        Source { entry: Entry::from(crate::image::Descriptor::of(media::OCI_INDEX, &bytes)), bytes }
    }

    fn amd() -> Source {
        manifest("amd", media::OCI_MANIFEST, Some("linux/amd64"))
    }

    fn arm() -> Source {
        manifest("arm", media::OCI_MANIFEST, Some("linux/arm64"))
    }

    fn options(platforms: &[&str], attributes: &[&str]) -> MergeOptions {
        let annotation = |text: &&str| annotations::parse(text, "v").expect("annotation").expect("valid");
        MergeOptions {
            annotations: attributes.iter().map(annotation).collect(),
            prefer_index: true,
            platforms: platforms.iter().map(|text| text.parse().expect("platform")).collect(),
        }
    }

    fn read(merged: &Merged) -> Listing {
        Listing::parse(&merged.bytes).expect("index")
    }

    #[test]
    fn manifests_become_an_index_in_the_order_given() {
        let merged = merge(&[amd(), arm()], &options(&[], &[])).expect("merged");
        let text = String::from_utf8(merged.bytes.clone()).expect("utf-8");
        let entry = |source: &Source, arch: &str| {
            format!(
                "    {{\n      \"mediaType\": \"{}\",\n      \"digest\": \"{}\",\n      \"size\": 3,\n      \"platform\": {{\n        \
                 \"architecture\": \"{arch}\",\n        \"os\": \"linux\"\n      }}\n    }}",
                media::OCI_MANIFEST,
                source.entry.digest
            )
        };
        let expected = format!(
            "{{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"{}\",\n  \"manifests\": [\n{},\n{}\n  ]\n}}",
            media::OCI_INDEX,
            entry(&amd(), "amd64"),
            entry(&arm(), "arm64")
        );
        assert_eq!(text, expected);
        assert_eq!((&merged.entry.digest, merged.entry.size), (&Digest::compute(&text), text.len() as u64));
        assert_eq!(merged.parts.iter().map(|(_, from)| *from).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn one_source_stays_as_it_is_unless_an_index_is_preferred() {
        let both = index(&[&amd(), &arm()]);
        let same = merge(std::slice::from_ref(&both), &options(&[], &[])).expect("merged");
        assert_eq!((&same.bytes, same.parts.len()), (&both.bytes, 2));
        assert!(merge(&[amd()], &options(&[], &[])).expect("merged").entry.is_index());
        let plain = MergeOptions { prefer_index: false, ..options(&[], &[]) };
        assert_eq!(merge(&[amd()], &plain).expect("merged").bytes, b"amd");
        let annotated = merge(&[both], &options(&[], &["annotation-index.k"])).expect("merged");
        assert_eq!(read(&annotated).annotations["k"], "v");
    }

    #[test]
    fn what_is_listed_twice_stands_once() {
        let mut later = amd();
        later.entry.platform = Some("linux/amd64/v2".parse().expect("platform"));
        later.entry.annotations.insert("k".into(), "v".into());
        let merged = merge(&[index(&[&amd(), &arm()]), later], &options(&[], &[])).expect("merged");
        let listing = read(&merged);
        assert_eq!(listing.manifests.len(), 2);
        assert_eq!(listing.manifests[0].platform.as_ref().expect("platform").to_string(), "linux/amd64/v2");
        assert_eq!(listing.manifests[0].annotations["k"], "v");
        assert_eq!(merged.parts[0].1, 1);
    }

    #[test]
    fn a_list_of_dockers_manifests_is_dockers() {
        let docker = |text: &str| manifest(text, media::DOCKER_MANIFEST, Some("linux/amd64"));
        let merged = merge(&[docker("a"), docker("b")], &options(&[], &[])).expect("merged");
        assert_eq!(merged.entry.media_type, media::DOCKER_INDEX);
        assert_eq!(
            merge(&[docker("a"), arm()], &options(&[], &[])).expect("merged").entry.media_type,
            media::OCI_INDEX
        );
        assert!(merge(&[docker("a")], &options(&[], &["annotation-index.k"])).is_err());
    }

    #[test]
    fn annotations_have_a_place_or_are_refused() {
        let wanted = options(&[], &["annotation-index.i", "annotation-manifest-descriptor[linux/arm64].d"]);
        let listing = read(&merge(&[amd(), arm()], &wanted).expect("merged"));
        assert_eq!(listing.annotations.keys().collect::<Vec<_>>(), ["i"]);
        assert!(listing.manifests[0].annotations.is_empty());
        assert_eq!(listing.manifests[1].annotations["d"], "v");
        for misplaced in ["annotation.k", "annotation-index-descriptor.k"] {
            let error = merge(&[amd(), arm()], &options(&[], &[misplaced])).expect_err(misplaced);
            assert!(error.to_string().contains("index:KEY=VALUE"), "{error}");
        }
    }

    #[test]
    fn platforms_are_chosen_with_their_attestations() {
        let attestation = |of: &Source| {
            let mut found =
                manifest(&format!("about {}", of.entry.digest), media::OCI_MANIFEST, Some("unknown/unknown"));
            found.entry.annotations.insert(REFERENCE_TYPE.into(), ATTESTATION.into());
            found.entry.annotations.insert(REFERENCE_DIGEST.into(), of.entry.digest.to_string());
            found
        };
        let (amd, arm) = (amd(), arm());
        let (about_amd, about_arm) = (attestation(&amd), attestation(&arm));
        let whole = index(&[&amd, &arm, &about_amd, &about_arm]);
        let chosen = merge(std::slice::from_ref(&whole), &options(&["linux/arm64/v8"], &[])).expect("merged");
        let kept: Vec<&Digest> = chosen.parts.iter().map(|(entry, _)| &entry.digest).collect();
        assert_eq!(kept, [&arm.entry.digest, &about_arm.entry.digest]);
        assert_eq!(read(&chosen).manifests.len(), 2);
        assert!(
            !String::from_utf8_lossy(&chosen.bytes[..60]).contains("mediaType\": \"application/vnd.oci.image.index")
        );
        let error = merge(&[whole], &options(&["linux/s390x"], &[])).expect_err("nothing left");
        assert!(error.to_string().contains("linux/amd64, linux/arm64"), "{error}");
        let plain = MergeOptions { prefer_index: false, ..options(&["linux/s390x"], &[]) };
        assert!(merge(&[amd], &plain).is_err());
    }

    #[test]
    fn a_users_descriptor_overrules() {
        let user: Entry = serde_json::from_str(&format!(
            r#"{{"digest":"{}","platform":{{"architecture":"arm64","os":"linux","os.version":"10.1"}},"annotations":{{"a":"b"}}}}"#,
            amd().entry.digest
        ))
        .expect("descriptor");
        let merged = amd().entry.overlaid(&user).expect("same content");
        assert_eq!((merged.size, merged.media_type.as_str()), (3, media::OCI_MANIFEST));
        assert_eq!(merged.platform.expect("platform").os_version, "10.1");
        assert!(amd().entry.overlaid(&Entry { size: 4, ..user }).is_err());
    }
}
