//! Private ssh keys from files: what they are, and what they sign.
//!
//! In: the text of a key file, as OpenSSH (`BEGIN OPENSSH PRIVATE KEY`) or others write it (PKCS#8, PKCS#1, SEC 1). Out: an
//! [`SshKey`] that tells its public half and signs. Invariants: the private half is in memory only, and is never printed; what is no
//! key, or is locked by a passphrase, is refused and not guessed at.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;

use super::Secret;
use super::agent::{number, string};

/// Flags of a request to sign: which hash an RSA key is used with.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// Why a file is no key to sign with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is none at all.
    #[error("it holds no private key")]
    NoKey,
    /// A passphrase is needed.
    #[error("its key is locked by a passphrase")]
    Locked,
    /// The kind of key is not known.
    #[error("its key is of the unsupported kind {0}")]
    Kind(String),
    /// It breaks off, or contradicts itself.
    #[error("its key is damaged")]
    Damaged,
}

/// A private key.
pub struct SshKey {
    pair: Pair,
    blob: Vec<u8>,
    comment: String,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(&'static Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

struct Curve {
    name: &'static str,
    /// Bytes of a number of the curve.
    size: usize,
    algorithm: &'static EcdsaSigningAlgorithm,
}

static CURVES: [Curve; 3] = [
    Curve { name: "nistp256", size: 32, algorithm: &ECDSA_P256_SHA256_FIXED_SIGNING },
    Curve { name: "nistp384", size: 48, algorithm: &ECDSA_P384_SHA384_FIXED_SIGNING },
    Curve { name: "nistp521", size: 66, algorithm: &ECDSA_P521_SHA512_FIXED_SIGNING },
];

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshKey").field("comment", &self.comment).finish_non_exhaustive()
    }
}

impl SshKey {
    /// Reads the key in the text of a file; `name` is its comment where the file has none.
    ///
    /// # Errors
    ///
    /// When there is no key in it that can be used.
    pub fn parse(text: &[u8], name: &str) -> Result<Self, KeyError> {
        let (label, bytes) = pem(text)?;
        let bytes = bytes.expose();
        let (pair, comment) = match label.as_str() {
            "OPENSSH PRIVATE KEY" => openssh(bytes)?,
            "RSA PRIVATE KEY" => (Pair::Rsa(RsaKeyPair::from_der(bytes).map_err(damaged)?), String::new()),
            "EC PRIVATE KEY" | "PRIVATE KEY" => (der(bytes).ok_or(KeyError::Damaged)?, String::new()),
            "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Locked),
            other => {
                return Err(other.strip_suffix(" PRIVATE KEY").map_or(KeyError::NoKey, |k| KeyError::Kind(k.into())));
            }
        };
        let blob = pair.blob().ok_or(KeyError::Damaged)?;
        Ok(Self { pair, blob, comment: if comment.is_empty() { name.to_owned() } else { comment } })
    }

    /// Returns the public key, as the protocol of agents has it.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Returns what the key is called.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// Signs; none where the flags ask for what nobody should rely on any more, SHA-1.
    pub fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ed25519(pair) => Some(strings(&[b"ssh-ed25519", pair.sign(data).as_ref()])),
            Pair::Ecdsa(curve, pair) => {
                let signature = pair.sign(&random, data).ok()?;
                let (r, s) = signature.as_ref().split_at_checked(curve.size)?;
                let name = format!("ecdsa-sha2-{}", curve.name);
                Some(strings(&[name.as_bytes(), &strings(&[&signed(r), &signed(s)])]))
            }
            Pair::Rsa(pair) => {
                let (name, encoding): (&[u8], &'static dyn RsaEncoding) = match flags {
                    flags if flags & RSA_SHA2_512 != 0 => (b"rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & RSA_SHA2_256 != 0 => (b"rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, data, &mut signature).ok()?;
                Some(strings(&[name, &signature]))
            }
        }
    }
}

impl Pair {
    fn blob(&self) -> Option<Vec<u8>> {
        match self {
            Pair::Ed25519(pair) => Some(strings(&[b"ssh-ed25519", pair.public_key().as_ref()])),
            Pair::Ecdsa(curve, pair) => {
                let kind = format!("ecdsa-sha2-{}", curve.name);
                Some(strings(&[kind.as_bytes(), curve.name.as_bytes(), pair.public_key().as_ref()]))
            }
            Pair::Rsa(pair) => {
                let (inside, _) = der_element(0x30, pair.public_key().as_ref())?;
                let (n, rest) = der_element(0x02, inside)?;
                let (e, _) = der_element(0x02, rest)?;
                Some(strings(&[b"ssh-rsa", e, n]))
            }
        }
    }
}

/// Returns the label and the bytes of the first armoured block.
fn pem(text: &[u8]) -> Result<(String, Secret), KeyError> {
    let text = std::str::from_utf8(text).map_err(|_| KeyError::NoKey)?;
    let (_, rest) = text.split_once("-----BEGIN ").ok_or(KeyError::NoKey)?;
    let (label, rest) = rest.split_once("-----").ok_or(KeyError::NoKey)?;
    let (body, _) = rest.split_once("-----END ").ok_or(KeyError::Damaged)?;
    if body.contains("ENCRYPTED") {
        return Err(KeyError::Locked);
    }
    let armour = Secret::new(body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect());
    let mut bytes = Secret::new(vec![0; armour.expose().len()]);
    let read = base64::engine::general_purpose::STANDARD.decode_slice(armour.expose(), bytes.bytes_mut());
    let length = read.map_err(|_| KeyError::Damaged)?;
    Ok((label.to_owned(), Secret::new(bytes.expose()[..length].to_vec())))
}

/// A key of any kind as others than OpenSSH write it.
fn der(bytes: &[u8]) -> Option<Pair> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
        return Some(Pair::Ed25519(pair));
    }
    if let Ok(pair) = RsaKeyPair::from_pkcs8(bytes) {
        return Some(Pair::Rsa(pair));
    }
    let read =
        |curve: &'static Curve| EcdsaKeyPair::from_private_key_der(curve.algorithm, bytes).ok().map(|p| (curve, p));
    CURVES.iter().find_map(read).map(|(curve, pair)| Pair::Ecdsa(curve, pair))
}

/// OpenSSH's own form (`PROTOCOL.key` of its sources); the key and its comment.
fn openssh(bytes: &[u8]) -> Result<(Pair, String), KeyError> {
    let rest = bytes.strip_prefix(b"openssh-key-v1\0").ok_or(KeyError::Damaged)?;
    let mut outer = Fields(rest);
    let (cipher, _kdf, _options) = (outer.string()?, outer.string()?, outer.string()?);
    if cipher != b"none" {
        return Err(KeyError::Locked);
    }
    let count = outer.number()?;
    let (_public, private) = (outer.string()?, outer.string()?);
    let mut inner = Fields(private);
    if count != 1 || inner.number()? != inner.number()? {
        return Err(KeyError::Damaged);
    }
    let pair = inner.pair()?;
    let comment = String::from_utf8_lossy(inner.string()?).into_owned();
    Ok((pair, comment))
}

fn damaged<E>(_: E) -> KeyError {
    KeyError::Damaged
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Result<u32, KeyError> {
        let (value, rest) = number(self.0).ok_or(KeyError::Damaged)?;
        self.0 = rest;
        Ok(value)
    }

    fn string(&mut self) -> Result<&'a [u8], KeyError> {
        let (value, rest) = string(self.0).ok_or(KeyError::Damaged)?;
        self.0 = rest;
        Ok(value)
    }

    /// A number that is not negative, without leading zeros.
    fn unsigned(&mut self) -> Result<&'a [u8], KeyError> {
        let value = self.string()?;
        let zeros = value.iter().take_while(|byte| **byte == 0).count();
        Ok(&value[zeros..])
    }

    fn pair(&mut self) -> Result<Pair, KeyError> {
        match self.string()? {
            b"ssh-ed25519" => {
                let (public, private) = (self.string()?, self.string()?);
                let seed = private.get(..32).ok_or(KeyError::Damaged)?;
                Ed25519KeyPair::from_seed_and_public_key(seed, public).map(Pair::Ed25519).map_err(damaged)
            }
            b"ssh-rsa" => self.rsa(),
            kind => match CURVES.iter().find(|curve| kind == format!("ecdsa-sha2-{}", curve.name).as_bytes()) {
                Some(curve) => self.ecdsa(curve),
                None => Err(KeyError::Kind(String::from_utf8_lossy(kind).into_owned())),
            },
        }
    }

    fn ecdsa(&mut self, curve: &'static Curve) -> Result<Pair, KeyError> {
        let (_name, point, private) = (self.string()?, self.string()?, self.unsigned()?);
        let missing = curve.size.checked_sub(private.len()).ok_or(KeyError::Damaged)?;
        let private = Secret::new([&vec![0; missing], private].concat());
        let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm, private.expose(), point);
        pair.map(|pair| Pair::Ecdsa(curve, pair)).map_err(damaged)
    }

    fn rsa(&mut self) -> Result<Pair, KeyError> {
        let (n, e, d) = (self.unsigned()?, self.unsigned()?, self.unsigned()?);
        let (inverse, p, q) = (self.unsigned()?, self.unsigned()?, self.unsigned()?);
        let exponent = |prime: &[u8]| -> Option<Secret> {
            let (last, before) = prime.split_last().filter(|(last, _)| *last & 1 == 1)?;
            let less_one = Secret::new([before, &[last - 1]].concat());
            (prime.len() <= MAX_PRIME && d.len() <= 2 * MAX_PRIME).then(|| remainder(d, less_one.expose()))
        };
        let (d_p, d_q) = (exponent(p).ok_or(KeyError::Damaged)?, exponent(q).ok_or(KeyError::Damaged)?);
        let components = KeyPairComponents {
            public_key: PublicKeyComponents { n, e },
            d,
            p,
            q,
            dP: d_p.expose(),
            dQ: d_q.expose(),
            qInv: inverse,
        };
        RsaKeyPair::from_components(&components).map(Pair::Rsa).map_err(damaged)
    }
}

/// Longest prime of an RSA key of 8,192 bits, the longest that can be used.
const MAX_PRIME: usize = 8192 / 2 / 8;

/// Returns the remainder of a division of big-endian numbers, which the file leaves out and signing needs.
fn remainder(value: &[u8], divisor: &[u8]) -> Secret {
    let mut rest = Secret::new(vec![0; divisor.len() + 1]);
    let divisor = Secret::new([&[0], divisor].concat());
    for bit in value.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        let mut carry = bit;
        for byte in rest.bytes_mut().iter_mut().rev() {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
        if rest.expose() >= divisor.expose() {
            let mut borrow = false;
            for (byte, less) in rest.bytes_mut().iter_mut().zip(divisor.expose()).rev() {
                let (once, first) = byte.overflowing_sub(*less);
                let (twice, second) = once.overflowing_sub(u8::from(borrow));
                (*byte, borrow) = (twice, first || second);
            }
        }
    }
    rest
}

/// A number as the protocol has it: no leading zeros, but one before a set first bit, which would be a sign.
fn signed(value: &[u8]) -> Vec<u8> {
    let zeros = value.iter().take_while(|byte| **byte == 0).count();
    let value = &value[zeros..];
    let sign: &[u8] = if value.first().is_some_and(|byte| byte & 0x80 != 0) { &[0] } else { &[] };
    [sign, value].concat()
}

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u32).to_be_bytes(), *part].concat()).collect()
}

/// Returns the content of a DER element, and what is behind it.
fn der_element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x83 => {
            let (number, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (number.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    if found == tag { rest.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_those_of_the_division() {
        for (value, divisor) in
            [(0u32, 1u32), (1, 1), (255, 16), (65_535, 256), (1_000_000, 999), (4_294_967_295, 65_537)]
        {
            let bytes = |number: u32| number.to_be_bytes().to_vec();
            let expected = [vec![0], bytes(value % divisor)].concat();
            assert_eq!(remainder(&bytes(value), &bytes(divisor)).expose(), expected, "{value} % {divisor}");
        }
    }

    #[test]
    fn numbers_have_no_sign_and_no_leading_zeros() {
        for (value, expected) in
            [(&[0, 0x7f][..], &[0x7f][..]), (&[0x80], &[0, 0x80]), (&[0, 0], &[]), (&[1, 0], &[1, 0])]
        {
            assert_eq!(signed(value), expected);
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let block = |label: &str, body: &[u8]| {
            let body = base64::engine::general_purpose::STANDARD.encode(body);
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        let table = [
            (String::new(), KeyError::NoKey),
            ("ssh-ed25519 AAAA user@host".into(), KeyError::NoKey),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA".into(), KeyError::Damaged),
            (block("CERTIFICATE", b"x"), KeyError::NoKey),
            (block("DSA PRIVATE KEY", b"x"), KeyError::Kind("DSA".into())),
            (block("ENCRYPTED PRIVATE KEY", b"x"), KeyError::Locked),
            (block("OPENSSH PRIVATE KEY", b"openssh-key-v1\0\0\0\0\x04none"), KeyError::Damaged),
            (block("PRIVATE KEY", b"x"), KeyError::Damaged),
            (block("RSA PRIVATE KEY", b"x"), KeyError::Damaged),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAA==\n-----END RSA PRIVATE KEY-----".into(),
                KeyError::Locked,
            ),
        ];
        for (text, expected) in table {
            assert_eq!(SshKey::parse(text.as_bytes(), "f").err(), Some(expected), "{text}");
        }
    }
}
