//! What a source op asks of a web server.

use std::collections::BTreeMap;
use std::str::FromStr;

use reqwest::Url;

use super::error::HttpError;
use crate::digest::Digest;
use crate::image::canonical;
use crate::llb::SourceOp;
use crate::registry::RedactedUrl;

/// Header fields a source may set; others are dropped, as BuildKit does.
const HEADERS: [(&str, &str); 2] = [("accept", "Accept"), ("user-agent", "User-Agent")];

/// A file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSpec {
    /// The URL as given.
    pub url: String,
    /// Name of the file; empty for the server's choice.
    pub filename: String,
    /// Digest it must have.
    pub checksum: Option<Digest>,
    /// Permission bits; 0 for the default.
    pub perm: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Id of the secret that is sent as `Authorization`; empty for those named after the host.
    pub auth_header_secret: String,
    /// Header fields by canonical name.
    pub header: BTreeMap<&'static str, String>,
}

impl HttpSpec {
    /// Asks for a file under a name.
    pub fn new(url: &str, filename: &str) -> Self {
        Self {
            url: url.to_owned(),
            filename: filename.to_owned(),
            checksum: None,
            perm: 0,
            uid: 0,
            gid: 0,
            auth_header_secret: String::new(),
            header: BTreeMap::new(),
        }
    }

    /// Reads the attributes of a source op.
    ///
    /// # Errors
    ///
    /// When one of them cannot be read, or must not be ignored and is not known.
    pub fn from_op(op: &SourceOp) -> Result<Self, HttpError> {
        let mut spec = Self::new(&op.identifier, "");
        for (name, value) in &op.attrs {
            let invalid = || HttpError::Attribute { name: name.clone(), value: value.clone() };
            match name.as_str() {
                "http.filename" => spec.filename.clone_from(value),
                "http.checksum" => spec.checksum = Some(Digest::from_str(value).map_err(|_| invalid())?),
                "http.perm" => spec.perm = number(value).filter(|perm| *perm <= 0o7777).ok_or_else(invalid)?,
                "http.uid" => spec.uid = number(value).ok_or_else(invalid)?,
                "http.gid" => spec.gid = number(value).ok_or_else(invalid)?,
                "http.authheadersecret" => spec.auth_header_secret.clone_from(value),
                name if name.starts_with("http.sig.") => {
                    return Err(HttpError::Unsupported { name: name.to_owned() });
                }
                name => {
                    let field = name.strip_prefix("http.header.").map(str::to_ascii_lowercase);
                    let known = HEADERS.iter().find(|(lower, _)| Some(*lower) == field.as_deref());
                    spec.header.extend(known.map(|(_, canonical)| (*canonical, value.clone())));
                }
            }
        }
        Ok(spec)
    }

    /// Returns what tells one request from another: all but the digest that is wanted.
    pub(super) fn identity(&self) -> Digest {
        let header: Vec<String> = self.header.iter().map(|(name, value)| format!("{name}\0{value}")).collect();
        let numbers = format!("{}\0{}\0{}", self.perm, self.uid, self.gid);
        Digest::compute(canonical::to_vec(&[
            &[self.url.clone(), self.filename.clone(), numbers, self.auth_header_secret.clone()],
            &header[..],
        ]))
    }

    /// Returns the URL for messages.
    pub(super) fn shown(&self) -> String {
        match Url::parse(&self.url) {
            Ok(url) => RedactedUrl(url).to_string(),
            Err(_) => "that is no URL".into(),
        }
    }
}

/// Reads a number as Go's `ParseInt` with base 0 does: octal with a leading 0.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    u32::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(attrs: &[(&str, &str)]) -> SourceOp {
        let attrs = attrs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        SourceOp { identifier: "https://h/f".into(), attrs }
    }

    #[test]
    fn attributes_are_read() {
        let spec = HttpSpec::from_op(&op(&[
            ("http.filename", "f"),
            ("http.perm", "0644"),
            ("http.uid", "7"),
            ("http.header.accept", "a/b"),
            ("http.header.cookie", "dropped"),
            ("http.header.User-Agent", "me"),
        ]));
        let spec = spec.expect("valid");
        assert_eq!((spec.filename.as_str(), spec.perm, spec.uid, spec.gid), ("f", 0o644, 7, 0));
        assert_eq!(spec.header, BTreeMap::from([("Accept", "a/b".to_owned()), ("User-Agent", "me".to_owned())]));
        for attrs in
            [("http.perm", "rw"), ("http.perm", "010000"), ("http.checksum", "md5:1"), ("http.sig.pubkey", "k")]
        {
            assert!(HttpSpec::from_op(&op(&[attrs])).is_err(), "{attrs:?}");
        }
    }

    #[test]
    fn numbers_are_gos() {
        for (text, value) in [("0", Some(0)), ("0644", Some(420)), ("0x1f", Some(31)), ("10", Some(10)), ("08", None)] {
            assert_eq!(number(text), value, "{text}");
        }
        assert_eq!((number(""), number("-1"), number("+1"), number("0+1")), (None, None, None, None));
    }

    #[test]
    fn the_digest_wanted_is_not_part_of_the_identity() {
        let (mut one, other) = (HttpSpec::new("https://u:p@h/f?token=x", "f"), HttpSpec::new("https://h/f", "f"));
        assert_ne!(one.identity(), other.identity());
        assert!(!one.shown().contains('p') || !one.shown().contains("u:p"), "{}", one.shown());
        assert!(!one.shown().contains("=x"), "{}", one.shown());
        let before = one.identity();
        one.checksum = Some(Digest::compute("x"));
        assert_eq!(one.identity(), before);
    }
}
