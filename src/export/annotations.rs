//! Annotations as `annotation….KEY=value` attributes give them, and where each belongs.
//!
//! In: attribute names `annotation.KEY`, `annotation-TYPE.KEY`, `annotation-TYPE[PLATFORM].KEY`, where TYPE is `manifest`,
//! `manifest-descriptor`, `index` or `index-descriptor`. Out: ordered maps for one document.

use std::collections::BTreeMap;

use super::ExportError;
use crate::image::Platform;

/// What an annotation is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The manifest of an image.
    Manifest,
    /// The descriptor that points to a manifest.
    ManifestDescriptor,
    /// The index of a multi-platform image.
    Index,
    /// The descriptor that points to the index.
    IndexDescriptor,
}

/// One annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// What it is attached to.
    pub target: Target,
    /// The platform it is meant for; all if none.
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// Its text.
    pub value: String,
}

/// Parses an attribute; none if it is no annotation.
pub fn parse(attribute: &str, value: &str) -> Option<Result<Annotation, String>> {
    let rest = attribute.strip_prefix("annotation")?;
    let (head, key) = split_head(rest)?;
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Some(Err(format!("{attribute:?} needs a name without blanks")));
    }
    Some(parse_head(head).map(|(target, platform)| Annotation {
        target,
        platform,
        key: key.into(),
        value: value.into(),
    }))
}

/// A dot ends the head, except inside the brackets of a platform.
fn split_head(rest: &str) -> Option<(&str, &str)> {
    if let Some(close) = rest.find("].").filter(|_| rest.starts_with(['-', '[']) && rest.contains('[')) {
        return Some((&rest[..=close], &rest[close + 2..]));
    }
    let (head, key) = rest.split_once('.')?;
    (head.is_empty() || head.starts_with('-')).then_some((head, key))
}

fn parse_head(head: &str) -> Result<(Target, Option<Platform>), String> {
    let (kind, platform) = match head.split_once('[') {
        Some((kind, platform)) => (kind, platform.strip_suffix(']')),
        None => (head, None),
    };
    let target = match kind {
        "" | "-manifest" => Target::Manifest,
        "-manifest-descriptor" => Target::ManifestDescriptor,
        "-index" => Target::Index,
        "-index-descriptor" => Target::IndexDescriptor,
        other => return Err(format!("unrecognized annotation type {:?}", other.trim_start_matches('-'))),
    };
    let platform = platform
        .map(|text| text.parse::<Platform>().map(Platform::normalized).map_err(|error| error.to_string()))
        .transpose()?;
    Ok((target, platform))
}

/// Selects the annotations of one document, those for its platform winning over those for all.
pub(super) fn select(list: &[Annotation], target: Target, platform: Option<&Platform>) -> BTreeMap<String, String> {
    let of_target = |a: &&Annotation| a.target == target;
    let general = list.iter().filter(of_target).filter(|a| a.platform.is_none());
    let special = list.iter().filter(of_target).filter(|a| a.platform.is_some() && a.platform.as_ref() == platform);
    general.chain(special).map(|a| (a.key.clone(), a.value.clone())).collect()
}

/// Checks that the annotations can be written for these platforms and media types.
pub(super) fn check(list: &[Annotation], platforms: &[Platform], oci: bool, index: bool) -> Result<(), ExportError> {
    for annotation in list {
        if let Some(platform) = annotation.platform.as_ref().filter(|p| !platforms.contains(p)) {
            return Err(ExportError::options(format!(
                "annotation {} is for {platform}, which is not built",
                annotation.key
            )));
        }
        let of_index = matches!(annotation.target, Target::Index | Target::IndexDescriptor);
        if of_index && !index {
            return Err(ExportError::options("index annotations need a multi-platform image"));
        }
        if !oci && annotation.target != Target::Manifest {
            return Err(ExportError::options("these annotations cannot be written with oci-mediatypes=false"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_attributes() {
        let arm: Platform = "linux/arm64".parse().expect("platform");
        for (attribute, target, platform, key) in [
            ("annotation.a.b/c", Target::Manifest, None, "a.b/c"),
            ("annotation-index.a", Target::Index, None, "a"),
            ("annotation-manifest[linux/arm64].a", Target::Manifest, Some(arm.clone()), "a"),
            ("annotation[linux/arm64].a", Target::Manifest, Some(arm), "a"),
            ("annotation-manifest-descriptor.org.x", Target::ManifestDescriptor, None, "org.x"),
        ] {
            let expected = Annotation { target, platform, key: key.into(), value: "v".into() };
            assert_eq!(parse(attribute, "v"), Some(Ok(expected)), "{attribute}");
        }
        for attribute in ["annotation-layer.a", "annotation.", "annotation-index[no].a"] {
            assert!(matches!(parse(attribute, "v"), Some(Err(_))), "{attribute}");
        }
        for attribute in ["name", "annotations", "annotationx.y"] {
            assert_eq!(parse(attribute, "v"), None, "{attribute}");
        }
    }
}
