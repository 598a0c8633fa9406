//! Image references: parse, normalise, print (distribution's reference grammar with Docker's defaults).

use std::fmt;
use std::str::FromStr;

use crate::digest::{self, Digest, ShapeError};

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Against the grammar.
    #[error("invalid reference format: {text:?}")]
    Format {
        /// The text.
        text: String,
    },
    /// An image id in place of a name.
    #[error("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")]
    Identifier {
        /// The text.
        text: String,
    },
    /// A repository longer than [`MAX_REPOSITORY`].
    #[error("repository name must not be more than {MAX_REPOSITORY} characters")]
    TooLong,
    /// A digest of the right look that is none.
    #[error("invalid reference format: {text:?}: {shape}")]
    Digest {
        /// The text.
        text: String,
        /// What is wrong with it.
        shape: ShapeError,
    },
    /// Upper-case letters in the repository.
    #[error("invalid reference format: repository name ({repository}) must be lowercase")]
    Uppercase {
        /// The repository.
        repository: String,
    },
}

/// Longest repository, in bytes.
const MAX_REPOSITORY: usize = 255;

/// Longest reference that is looked at.
const MAX_LENGTH: usize = 1024;

impl ReferenceError {
    /// Returns the message of BuildKit's own reader, which does not repeat the text.
    pub fn buildkit_message(&self) -> String {
        match self {
            Self::Format { .. } => "invalid reference format".to_owned(),
            Self::Digest { shape, .. } => shape.to_string(),
            Self::Identifier { .. } | Self::TooLong | Self::Uppercase { .. } => self.to_string(),
        }
    }
}

/// A normalised image reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Registry host and optional port, `docker.io` by default.
    pub registry: String,
    /// Repository path, with `library/` added on docker.io.
    pub repository: String,
    /// Tag, if one was given.
    pub tag: Option<String>,
    /// Digest, if one was given.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Returns the reference with tag `latest` where neither tag nor digest is given.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".into());
        }
        self
    }

    /// Returns the reference with its digest replaced.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// Returns `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns the short form people write, without `docker.io/` and `library/`, where that means the same.
    pub fn familiar(&self) -> String {
        let text = self.to_string();
        let Some(rest) = text.strip_prefix("docker.io/") else { return text };
        let single = rest.strip_prefix("library/").filter(|tail| !tail.contains('/'));
        let short = single.unwrap_or(rest);
        // The start of a repository on docker.io can look like another registry.
        if short.parse().as_ref() == Ok(self) { short.to_owned() } else { text }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let shown = || text.chars().take(300).collect();
        let format = || ReferenceError::Format { text: shown() };
        if text.len() > MAX_LENGTH {
            return Err(ReferenceError::TooLong);
        }
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(ReferenceError::Identifier { text: shown() });
        }
        // Before the parts are told apart: what counts as the name ends at the first colon, wherever it stands.
        let (_, remainder) = split_registry(text);
        let repository = remainder.split_once(':').map_or(remainder.as_str(), |(repository, _)| repository);
        if repository.to_lowercase() != repository {
            return Err(ReferenceError::Uppercase { repository: repository.to_owned() });
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let (registry, repository) = split_registry(name);
        let tag_ok = tag.is_none_or(is_tag);
        if !is_domain(&registry) || !is_repository(&repository) || !tag_ok || !digest.is_none_or(looks_like_digest) {
            return Err(format());
        }
        if repository.len() > MAX_REPOSITORY {
            return Err(ReferenceError::TooLong);
        }
        let digest = digest.map(|digest| digest::shape(digest).map(|()| digest)).transpose();
        let digest = digest.map_err(|shape| ReferenceError::Digest { text: shown(), shape })?;
        // SHA-384 is a digest, but none that content is kept by.
        let digest = digest.map(|digest| digest.parse::<Digest>().map_err(|_| format())).transpose()?;
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest })
    }
}

fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => ("docker.io", name),
    };
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    if registry == "docker.io" && !repository.contains('/') {
        return (registry.into(), format!("library/{repository}"));
    }
    (registry.into(), repository.into())
}

/// The first path element is a host when it looks like one, or cannot be part of a repository.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_ok = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return port_ok && v6.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    port_ok && host.split('.').all(label)
}

fn is_repository(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// `algorithm:digits`, of at least 32 digits.
fn looks_like_digest(text: &str) -> bool {
    let word = |w: &str| {
        w.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && w.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    text.split_once(':').is_some_and(|(algorithm, digits)| {
        let hex = digits.len() >= 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        hex && algorithm.split(['-', '_', '+', '.']).all(word)
    })
}

/// Letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(|b| alnum(*b)) || !bytes.last().is_some_and(|b| alnum(*b)) {
        return false;
    }
    bytes.split(|b| alnum(*b)).all(|sep| matches!(sep, b"" | b"." | b"_" | b"__") || sep.iter().all(|b| *b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Row {
        text: String,
        normal: Option<String>,
        error: String,
        familiar: String,
        tagged: String,
    }

    #[test]
    fn reads_the_table_of_references_as_buildkit_does() {
        let mut wrong = Vec::new();
        for row in crate::diag::table::<Row>("references") {
            let found = row.text.parse::<Reference>();
            let error = found.as_ref().err().map(ReferenceError::buildkit_message).unwrap_or_default();
            if found.as_ref().ok().map(ToString::to_string) != row.normal || error != row.error {
                wrong.push(format!("{}: {found:?} instead of {:?} {:?}", row.text, row.normal, row.error));
            } else if let Ok(found) = found
                && (found.clone().with_default_tag().to_string() != row.tagged
                    || (row.familiar.parse().as_ref() == Ok(&found) && found.familiar() != row.familiar))
            {
                wrong.push(format!("{}: {}", row.text, found.familiar()));
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    }

    #[test]
    fn normalises() {
        let hex = "a".repeat(64);
        let pinned = format!("alpine:3@sha256:{hex}");
        let pinned_full = format!("docker.io/library/alpine:3@sha256:{hex}");
        for (text, expected) in [
            ("alpine", "docker.io/library/alpine"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("localhost/a", "localhost/a"),
            ("localhost:5000/a:b", "localhost:5000/a:b"),
            ("[::1]:5000/a", "[::1]:5000/a"),
            ("ghcr.io/o/a__b-c.d:X_1", "ghcr.io/o/a__b-c.d:X_1"),
            (pinned.as_str(), pinned_full.as_str()),
        ] {
            assert_eq!(text.parse::<Reference>().expect(text).to_string(), expected);
        }
    }

    #[test]
    fn refuses() {
        let bare_id = "a".repeat(64);
        for text in ["", "Alpine", "a:", "a@sha256:x", "a b", "../a", "a//b", "a:-b", "-a", "a..b", &bare_id] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn says_what_buildkit_says() {
        let hex = "a".repeat(64);
        let long = "a".repeat(249);
        for (text, expected) in [
            ("busybox:", "invalid reference format"),
            ("a@sha256:xx", "invalid reference format"),
            (&format!("a@sha256:{}", "a".repeat(40)), "invalid checksum digest length"),
            (&format!("a@sha256:{}", "A".repeat(64)), "invalid checksum digest format"),
            (&format!("a@md5:{}", "a".repeat(32)), "unsupported digest algorithm"),
            (&hex, &format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings")),
            (&long, "repository name must not be more than 255 characters"),
            ("Alpine", "invalid reference format: repository name (library/Alpine) must be lowercase"),
        ] {
            assert_eq!(text.parse::<Reference>().expect_err(text).buildkit_message(), expected, "{text}");
        }
    }

    #[test]
    fn familiar_form() {
        for text in ["alpine:3", "a/b", "ghcr.io/a/b"] {
            assert_eq!(text.parse::<Reference>().expect(text).familiar(), text);
        }
    }

    #[test]
    fn the_short_form_never_means_another_image() {
        let long = format!("docker.io/library/{}", "a".repeat(64));
        for text in ["docker.io/x.y/z", "docker.io/docker.io/a", "docker.io/localhost/a", long.as_str()] {
            assert_eq!(text.parse::<Reference>().expect(text).familiar(), text);
        }
    }
}
