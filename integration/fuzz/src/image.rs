//! Targets of images as documents: manifests, configurations, names, digests.

use std::collections::BTreeSet;

use rbuild::digest::Digest;
use rbuild::export::merge::{Entry, Listing, MergeOptions, Source, merge};
use rbuild::image::{Descriptor, ImageConfig, Platform, Reference, canonical};
use rbuild::registry::document::{self, Document};

use super::text::lowered;

/// A document is a manifest or an index, never both, or refused; printed canonically it reads as the same.
pub fn manifest(data: &[u8]) {
    let Ok((media_type, found)) = document::parse(data, None) else { return };
    let printed = match &found {
        Document::Manifest(manifest) => canonical::to_vec(manifest),
        Document::Index(index) => canonical::to_vec(index),
    };
    let (_, again) = document::parse(&printed, Some(&media_type)).expect("its own document");
    assert_eq!(again, found);
    if let Document::Index(_) = &found {
        merged(data, &media_type);
    }
    let other = match found {
        Document::Manifest(_) => rbuild::image::media::OCI_INDEX,
        Document::Index(_) => rbuild::image::media::OCI_MANIFEST,
    };
    assert!(document::parse(data, Some(other)).is_err(), "read as the other kind too");
}

/// What is merged of indexes lists each manifest once, and reads as what was listed.
fn merged(data: &[u8], media_type: &str) {
    let source = Source { entry: Entry::from(Descriptor::of(media_type, data)), bytes: data.to_vec() };
    let options = MergeOptions { annotations: Vec::new(), prefer_index: true, platforms: Vec::new() };
    let Ok(merged) = merge(&[source.clone(), source], &options) else { return };
    let listing = Listing::parse(&merged.bytes).expect("its own index");
    let digests: BTreeSet<&Digest> = listing.manifests.iter().map(|entry| &entry.digest).collect();
    assert_eq!(digests.len(), listing.manifests.len());
    assert_eq!(listing.manifests, merged.parts.into_iter().map(|(entry, _)| entry).collect::<Vec<_>>());
}

/// A configuration printed canonically reads as the same and prints as the same bytes; a build on a base image of it is
/// lowered, or refused, the same way twice.
pub fn image_config(data: &[u8]) {
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(data) {
        let printed = canonical::to_vec(&config);
        let again: ImageConfig = serde_json::from_slice(&printed).expect("its own configuration");
        assert_eq!(again, config);
        assert_eq!(canonical::to_vec(&again), printed);
    }
    let dockerfile =
        b"FROM base\nWORKDIR sub\nENV X=$PATH\nRUN make\nCOPY a b\nHEALTHCHECK NONE\nEXPOSE 80\nFROM base AS second\n";
    assert_eq!(lowered(dockerfile, data), lowered(dockerfile, data));
}

/// A reference prints, in full and in short, to what reads as the same; a platform likewise.
pub fn reference(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(found) = text.parse::<Reference>() {
        assert_eq!(found.to_string().parse().as_ref(), Ok(&found), "{found}");
        assert_eq!(found.familiar().parse().as_ref(), Ok(&found), "{}", found.familiar());
        assert!(!found.to_string().contains(|c: char| c.is_control() || c.is_whitespace()));
        assert!(!found.name().split('/').any(|part| matches!(part, "" | "." | "..")), "{found}");
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.format_all().parse::<Platform>().map(Platform::normalized), Ok(platform.normalized()));
    }
}

/// A digest prints as it was written: an algorithm that is known, and as many lower-case hexadecimal digits as that has.
pub fn digest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(digest) = text.parse::<Digest>() else { return };
    assert_eq!(digest.as_str(), text);
    assert_eq!(format!("{}:{}", digest.algorithm(), digest.hex()), text);
    assert!(digest.hex().len() >= 64 && digest.hex().bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    assert!(text.contains(digest.short()));
}

/// A statement or envelope is read or refused with a reason, and what an envelope holds is no longer than it is.
pub fn attestation(data: &[u8]) {
    use rbuild::driver::imagetools::attestations::{inside, parse};
    assert!(parse(data).err() != Some(String::new()));
    match inside(data) {
        Ok(statement) => assert!(statement.len() <= data.len() && parse(&statement).err() != Some(String::new())),
        Err(reason) => assert!(!reason.is_empty()),
    }
}

/// A place of an image is the same when it is read from what is shown of it, or refused with a reason.
pub fn image_location(data: &[u8]) {
    use rbuild::driver::imagetools::Location;
    let text = String::from_utf8_lossy(data);
    match Location::parse(&text) {
        Ok(location) => {
            let again = Location::parse(&location.to_string()).unwrap();
            assert_eq!((again.to_string(), again.name()), (location.to_string(), location.name()));
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
}
