//! URLs of git repositories, in both spellings: `scheme://…` and `user@host:path`.
//!
//! In: text. Out: [`GitUrl`], whose `remote` is what git itself is given: without query and fragment. Parsing is as
//! lenient as Go's `net/url`, since which text is a URL decides what ADD does with it.

use std::collections::BTreeMap;

use crate::pattern::path::clean;

/// A parsed URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitUrl {
    /// `http`, `https`, `ssh` or `git`; `ssh` for `user@host:path`.
    pub scheme: String,
    /// User and password as written; empty if there are none.
    pub user: String,
    /// Host, with its port.
    pub host: String,
    /// Path, decoded.
    pub path: String,
    /// Values of the query, by key.
    pub query: BTreeMap<String, Vec<String>>,
    /// Branch, tag or commit in the fragment.
    pub reference: String,
    /// Directory in the fragment, cleaned, without a leading slash.
    pub subdir: String,
    /// What git is given.
    pub remote: String,
}

/// Parses a URL; none if the text is not one that git can use.
pub fn parse(text: &str) -> Option<GitUrl> {
    match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => standard(&scheme.to_ascii_lowercase(), rest),
        _ => scp_style(text),
    }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn standard(scheme: &str, rest: &str) -> Option<GitUrl> {
    if !matches!(scheme, "http" | "https" | "ssh" | "git") || rest.contains(|c: char| c.is_ascii_control()) {
        return None;
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, raw_path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if !is_host(host) {
        return None;
    }
    let (reference, subdir) = fragment_parts(&percent_decoded(fragment)?);
    let at = if authority.contains('@') { "@" } else { "" };
    Some(GitUrl {
        scheme: scheme.to_owned(),
        user: user.to_owned(),
        host: host.to_owned(),
        path: percent_decoded(raw_path)?,
        query: query_values(query),
        reference,
        subdir,
        remote: format!("{scheme}://{user}{at}{host}{}", escaped_path(raw_path)),
    })
}

/// Tells whether a host, with or without a port, is one to Go's parser.
fn is_host(host: &str) -> bool {
    let port = match host.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((_, port)) => port,
            None => return false,
        },
        None => &host[host.find(':').unwrap_or(host.len())..],
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port = port.is_empty() || (port.starts_with(':') && digits.bytes().all(|byte| byte.is_ascii_digit()));
    is_port && !host.contains([' ', '"', '<', '>', '^', '`', '{', '}', '|', '\\'])
}

fn scp_style(text: &str) -> Option<GitUrl> {
    let (user, rest) = text.split_once('@')?;
    let (host, rest) = rest.split_once(':')?;
    let is_user = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if user.is_empty() || host.is_empty() || !user.chars().all(is_user) || !host.chars().all(is_host) {
        return None;
    }
    if rest.contains('\n') {
        return None;
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (reference, subdir) = fragment_parts(fragment);
    Some(GitUrl {
        scheme: "ssh".to_owned(),
        user: user.to_owned(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query_values(query),
        reference,
        subdir,
        remote: format!("{user}@{host}:{path}"),
    })
}

/// Splits `ref:subdir`.
pub(crate) fn fragment_parts(fragment: &str) -> (String, String) {
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let subdir = clean(&format!("/{subdir}")).trim_start_matches('/').to_owned();
    (reference.to_owned(), subdir)
}

/// Reads a query; parts that are malformed are left out, as in Go.
pub(crate) fn query_values(query: &str) -> BTreeMap<String, Vec<String>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in query.split('&').filter(|part| !part.is_empty() && !part.contains(';')) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
        if let (Some(key), Some(value)) = (decoded(key), decoded(value)) {
            values.entry(key).or_default().push(value);
        }
    }
    values
}

/// Resolves `%XX`; none if a `%` is not followed by two hexadecimal digits.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit()? << 4 | digit()?;
        decoded.push(u8::try_from(value).ok()?);
    }
    Some(String::from_utf8_lossy(&decoded).into_owned())
}

/// Encodes what may not stand in a path.
fn escaped_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b' ' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f.. => {
                out.push_str(&format!("%{byte:02X}"));
            }
            byte => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_both_spellings() {
        let cases = [
            ("https://h/a.git", ("https", "h", "/a.git", "", "", "https://h/a.git")),
            ("HTTPS://u:p@h:1/a.git#b:/c/../d/", ("https", "h:1", "/a.git", "b", "d", "https://u:p@h:1/a.git")),
            ("ssh://git@h:22/a b?ref=x#%41", ("ssh", "h:22", "/a b", "A", "", "ssh://git@h:22/a%20b")),
            ("git@h:a/b.git?x=1#r:s", ("ssh", "h", "a/b.git", "r", "s", "git@h:a/b.git")),
            ("git@h:/a#r?x:s", ("ssh", "h", "/a", "r?x", "s", "git@h:/a")),
            ("git://[::1]:9418/a", ("git", "[::1]:9418", "/a", "", "", "git://[::1]:9418/a")),
        ];
        for (text, (scheme, host, path, reference, subdir, remote)) in cases {
            let url = parse(text).expect(text);
            let found = (url.scheme.as_str(), url.host.as_str(), url.path.as_str());
            assert_eq!(found, (scheme, host, path), "{text}");
            assert_eq!((url.reference.as_str(), url.subdir.as_str(), url.remote.as_str()), (reference, subdir, remote));
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in
            ["", "a/b", "ftp://h/a", "https://h:x/a", "https://h/%zz", "a b@h:c", "@h:c", "u@:c", "u@h", "git@h o:c"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(https://|git@)?[a-z@:/?#%&=.\\[\\]é]{0,30}") {
            let _ = parse(&text);
        }
    }
}
