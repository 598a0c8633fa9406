//! Content digests: parse, print, and compute while bytes stream by.
//!
//! In: bytes, or a digest's text. Out: [`Digest`] values that are valid by construction, so that no
//! unchecked text ever becomes a file name or a request path.
//!
//! Invariants: a [`Digest`] is `sha256:` and 64, or `sha512:` and 128, lower-case hex digits (OCI image-spec
//! 1.1, descriptor.md#digests). [`Digest::compute`] and [`Hasher`] always give SHA-256.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A text that is not a digest this program accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {text:?}: expected sha256: and 64 or sha512: and 128 lower-case hex digits")]
pub struct DigestError {
    /// The refused text, cut to 160 bytes.
    pub text: String,
}

/// What is wrong with the shape of a digest, in the words of OCI's own reader (`go-digest`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// It is no `algorithm:digits`, or the digits are not the algorithm's.
    #[error("invalid checksum digest format")]
    Format,
    /// There are too many digits, or too few.
    #[error("invalid checksum digest length")]
    Length,
    /// Nobody knows the algorithm.
    #[error("unsupported digest algorithm")]
    Algorithm,
}

/// Tells whether a text is a digest by the algorithms OCI registers, SHA-384 included.
pub fn shape(text: &str) -> Result<(), ShapeError> {
    let (algorithm, encoded) = text.split_once(':').unwrap_or_default();
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ if is_algorithm(algorithm) && is_encoded(encoded) => return Err(ShapeError::Algorithm),
        _ => return Err(ShapeError::Format),
    };
    match encoded.len() {
        0 => Err(ShapeError::Format),
        found if found != length => Err(ShapeError::Length),
        _ if encoded.bytes().all(is_lower_hex) => Ok(()),
        _ => Err(ShapeError::Format),
    }
}

/// `component[+._-]component…`, in lower case.
fn is_algorithm(text: &str) -> bool {
    let plain = |c: &str| !c.is_empty() && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split(['+', '.', '_', '-']).all(plain)
}

fn is_encoded(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"=_-".contains(&b))
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// A content digest, `algorithm:hex`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Box<str>);

impl Digest {
    /// Computes the SHA-256 digest of `bytes`.
    pub fn compute(bytes: impl AsRef<[u8]>) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes.as_ref());
        hasher.finish()
    }

    /// Returns the whole text, `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the algorithm, `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        &self.0[..6]
    }

    /// Returns the hex digits, safe as a file name.
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// Returns the first 12 hex digits, for people.
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }

    fn from_sha256(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", hex::encode(bytes)).into())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = match text.split_once(':') {
            Some(("sha256", hex)) if hex.len() == 64 => hex,
            Some(("sha512", hex)) if hex.len() == 128 => hex,
            _ => "",
        };
        if digits.is_empty() || !digits.bytes().all(is_lower_hex) {
            return Err(DigestError { text: text.chars().take(160).collect() });
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The digest of a layer's uncompressed tar.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

/// The identity of a stack of layers (OCI image-spec 1.1, config.md#layer-chainid).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// Returns the chain id of `parent` (none for the bottom) with `diff_id` on top.
    pub fn extend(parent: Option<&ChainId>, diff_id: &DiffId) -> ChainId {
        match parent {
            None => ChainId(diff_id.0.clone()),
            Some(parent) => ChainId(Digest::compute(format!("{} {}", parent.0, diff_id.0))),
        }
    }

    /// Returns the chain id of a whole stack, bottom first; none for an empty stack.
    pub fn of(diff_ids: &[DiffId]) -> Option<ChainId> {
        diff_ids.iter().fold(None, |chain, id| Some(ChainId::extend(chain.as_ref(), id)))
    }
}

/// Computes a SHA-256 digest piece by piece.
#[derive(Clone, Default)]
pub struct Hasher {
    state: Sha256,
    length: u64,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({} bytes)", self.length)
    }
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// Returns how many bytes were added so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the digest of all bytes added.
    pub fn finish(self) -> Digest {
        Digest::from_sha256(&self.state.finalize())
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that hashes what is read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> HashingReader<R> {
    /// Wraps `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::new() }
    }

    /// Returns the digest and the number of bytes read so far.
    pub fn finish(self) -> (Digest, u64) {
        let length = self.hasher.length();
        (self.hasher.finish(), length)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// A writer that hashes what is written through it.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new() }
    }

    /// Returns the wrapped writer, the digest and the number of bytes written.
    pub fn finish(self) -> (W, Digest, u64) {
        let length = self.hasher.length();
        (self.inner, self.hasher.finish(), length)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_digest() {
        let long = format!("sha256:{}", "a".repeat(63));
        let upper = format!("sha256:{}", "A".repeat(64));
        for text in ["", "sha256:", "sha256:../../x", "md5:d41d8cd98f00b204e9800998ecf8427e", &long, &upper] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn computes_and_prints() {
        let digest = Digest::compute(b"");
        assert_eq!(digest.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.as_str().parse::<Digest>(), Ok(digest));
    }

    #[test]
    fn chain_id_of_one_layer_is_its_diff_id() {
        let one = DiffId(Digest::compute(b"one"));
        let two = DiffId(Digest::compute(b"two"));
        assert_eq!(ChainId::of(std::slice::from_ref(&one)), Some(ChainId(one.0.clone())));
        let both = Digest::compute(format!("{} {}", one.0, two.0));
        assert_eq!(ChainId::of(&[one, two]), Some(ChainId(both)));
    }
}
