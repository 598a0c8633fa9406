//! Where an image is, or is put: a registry, or a directory that is an OCI layout.
//!
//! In: what a user writes: `NAME[:TAG][@DIGEST]`, or buildx's `oci-layout://PATH[:TAG][@DIGEST]`. Out: a [`Location`]. Nothing is
//! read or written.

use std::fmt;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::image::Reference;

const SCHEME: &str = "oci-layout://";
/// The tag that is meant where none is said.
pub(super) const LATEST: &str = "latest";

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In a registry.
    Registry(Reference),
    /// In a directory.
    Layout(LayoutName),
}

/// An image of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutName {
    /// The directory, as it was written.
    pub path: PathBuf,
    /// The tag, if one was said.
    pub tag: Option<String>,
    /// The digest, if one was said.
    pub digest: Option<Digest>,
}

impl Location {
    /// Reads what a user wrote.
    ///
    /// # Errors
    ///
    /// With the reason, if it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix(SCHEME) {
            Some(rest) => LayoutName::parse(rest).map(Self::Layout),
            None => {
                let name = text.parse::<Reference>().map_err(|error| error.to_string())?;
                Ok(Self::Registry(name.with_default_tag()))
            }
        }
    }

    /// Returns the repository or directory.
    pub fn name(&self) -> String {
        match self {
            Self::Registry(name) => name.name(),
            Self::Layout(layout) => layout.path.display().to_string(),
        }
    }

    /// Returns the digest, if one was said.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Registry(name) => name.digest.as_ref(),
            Self::Layout(layout) => layout.digest.as_ref(),
        }
    }

    /// Returns the place of other content beside this.
    #[must_use]
    pub fn beside(&self, digest: &Digest) -> Self {
        let digest = Some(digest.clone());
        match self {
            Self::Registry(name) => Self::Registry(Reference { tag: None, digest, ..name.clone() }),
            Self::Layout(layout) => Self::Layout(LayoutName { tag: None, digest, path: layout.path.clone() }),
        }
    }

    /// Returns the same with a digest.
    #[must_use]
    pub fn pinned(&self, digest: &Digest) -> Self {
        match self {
            Self::Registry(name) => Self::Registry(Reference { digest: Some(digest.clone()), ..name.clone() }),
            Self::Layout(_) => self.beside(digest),
        }
    }
}

impl LayoutName {
    fn parse(text: &str) -> Result<Self, String> {
        let mut path = text;
        let mut digest = None;
        if let Some((before, after)) = path.rsplit_once('@')
            && is_like_digest(after)
        {
            digest = Some(after.parse::<Digest>().map_err(|error| error.to_string())?);
            path = before;
        }
        let mut tag = None;
        if let Some((before, after)) = path.rsplit_once(':')
            && is_tag(after)
        {
            tag = Some(after.to_owned());
            path = before;
        }
        match path {
            "" => Err("no directory is named".into()),
            path => Ok(Self { path: path.into(), tag, digest }),
        }
    }
}

/// Tells whether a text is a digest or was meant to be one: an algorithm and at least 32 digits.
fn is_like_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_+.".contains(c);
    let named = algorithm.starts_with(|c: char| c.is_ascii_alphabetic()) && algorithm.chars().all(inner);
    named && digits.len() >= 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Tells whether a text is a tag as registries have them.
fn is_tag(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    !text.is_empty() && text.len() <= 128 && text.chars().all(inner) && !text.starts_with(['.', '-'])
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(name) => name.fmt(f),
            Self::Layout(LayoutName { path, tag, digest }) => {
                write!(f, "{SCHEME}{}", path.display())?;
                match (tag, digest) {
                    (Some(tag), Some(digest)) => write!(f, ":{tag}@{digest}"),
                    (None, Some(digest)) => write!(f, "@{digest}"),
                    (tag, None) => write!(f, ":{}", tag.as_deref().unwrap_or(LATEST)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read_as_buildx_reads_them() {
        let digest = Digest::compute(b"x");
        let pinned = format!("oci-layout:///a/b:v1@{digest}");
        let bare = format!("oci-layout://a@{digest}");
        for (text, path, tag, shown) in [
            ("oci-layout:///a/b", "/a/b", None, "oci-layout:///a/b:latest"),
            ("oci-layout://./a:v1", "./a", Some("v1"), "oci-layout://./a:v1"),
            ("oci-layout:///a:b/c", "/a:b/c", None, "oci-layout:///a:b/c:latest"),
            ("oci-layout://a@b", "a@b", None, "oci-layout://a@b:latest"),
            ("oci-layout://a@b:1", "a@b", Some("1"), "oci-layout://a@b:1"),
            (&pinned, "/a/b", Some("v1"), &pinned),
            (&bare, "a", None, &bare),
        ] {
            let location = Location::parse(text).expect(text);
            let Location::Layout(layout) = &location else { panic!("{text} is no layout") };
            assert_eq!((layout.path.to_str(), layout.tag.as_deref()), (Some(path), tag), "{text}");
            assert_eq!(location.to_string(), shown);
        }
        assert_eq!(Location::parse("r.io/a").expect("name").to_string(), "r.io/a:latest");
        let short = format!("oci-layout:///a@sha256:{}", "0".repeat(32));
        for text in ["oci-layout://", "oci-layout://:v1", &short, "R.io/A"] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_lies_beside_has_no_tag() {
        let digest = Digest::compute(b"x");
        for (text, beside, pinned) in [
            ("r.io/a:1", format!("r.io/a@{digest}"), format!("r.io/a:1@{digest}")),
            ("oci-layout:///a:1", format!("oci-layout:///a@{digest}"), format!("oci-layout:///a@{digest}")),
        ] {
            let location = Location::parse(text).expect(text);
            assert_eq!(location.beside(&digest).to_string(), beside);
            assert_eq!(location.pinned(&digest).to_string(), pinned);
        }
    }
}
