//! Header grammars of registries: `WWW-Authenticate` (RFC 9110, 11.6.1), `Link` (RFC 8288), rate limits.
//!
//! In: header values from foreign servers. Out: plain values; what does not follow the grammar is left out. Never panics,
//! never looks at more than [`HEADER_LIMIT`] bytes.

use std::collections::BTreeMap;

/// Longest header value looked at.
pub(crate) const HEADER_LIMIT: usize = 8 << 10;

/// What a server wants to see in `Authorization`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password.
    Basic,
    /// A token from a token server.
    Bearer {
        /// URL of the token server.
        realm: String,
        /// Name of the registry for the token server.
        service: Option<String>,
        /// The reason a token was refused: `insufficient_scope`, `invalid_token`.
        error: Option<String>,
    },
}

/// Parses the challenges of one `WWW-Authenticate` value, leaving out schemes that are not known.
pub(crate) fn challenges(value: &str) -> Vec<Challenge> {
    if value.len() > HEADER_LIMIT {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut scanner = Scanner(value);
    while let Some(scheme) = scanner.scheme() {
        let mut parameters = scanner.parameters();
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => found.push(Challenge::Basic),
            "bearer" => {
                if let Some(realm) = parameters.remove("realm") {
                    let (service, error) = (parameters.remove("service"), parameters.remove("error"));
                    found.push(Challenge::Bearer { realm, service, error });
                }
            }
            _ => {}
        }
    }
    found
}

struct Scanner<'a>(&'a str);

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

impl<'a> Scanner<'a> {
    fn skip(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
    }

    fn token(&mut self) -> Option<&'a str> {
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        if token.is_empty() {
            return None;
        }
        self.0 = rest;
        Some(token)
    }

    /// Takes the next scheme; characters that fit nowhere end the value.
    fn scheme(&mut self) -> Option<&'a str> {
        self.skip();
        self.token()
    }

    /// Takes `name=value` pairs up to the next scheme, which is a word with no `=` after it. The first of a name counts.
    fn parameters(&mut self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        loop {
            let before = self.0;
            self.skip();
            let Some((name, value)) = self.pair() else {
                self.0 = before;
                return found;
            };
            found.entry(name).or_insert(value);
        }
    }

    fn pair(&mut self) -> Option<(String, String)> {
        let name = self.token()?.to_ascii_lowercase();
        self.0 = self.0.trim_start().strip_prefix('=')?.trim_start();
        let value = match self.0.strip_prefix('"') {
            Some(rest) => self.quoted(rest)?,
            None => self.token()?.to_owned(),
        };
        Some((name, value))
    }

    fn quoted(&mut self, text: &'a str) -> Option<String> {
        let mut value = String::new();
        let mut characters = text.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.0 = &text[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(characters.next()?.1),
                c => value.push(c),
            }
        }
        None
    }
}

/// Returns the target of `rel="next"` in a `Link` value.
pub(crate) fn next_link(value: &str) -> Option<String> {
    if value.len() > HEADER_LIMIT {
        return None;
    }
    let mut rest = value;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>')?;
        let target = &rest[start + 1..end];
        let after = &rest[end + 1..];
        let parameters = &after[..after.find('<').unwrap_or(after.len())];
        if parameters.split([';', ',']).any(is_next) {
            return Some(target.to_owned());
        }
        rest = after;
    }
    None
}

fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    name.trim().eq_ignore_ascii_case("rel")
        && value.trim().trim_matches('"').split_whitespace().any(|r| r.eq_ignore_ascii_case("next"))
}

/// Describes a `RateLimit-Limit` value such as `100;w=21600`: `100 requests in 6 h`.
pub(crate) fn rate_window(value: &str) -> Option<String> {
    let (count, rest) = value.split_once(';')?;
    let count: u64 = count.trim().parse().ok()?;
    let seconds: u64 = rest.split(';').find_map(|p| p.trim().strip_prefix("w="))?.parse().ok()?;
    let window = match seconds {
        s if s % 3600 == 0 && s > 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 && s > 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    };
    Some(format!("{count} requests in {window}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), error: None }
    }

    #[test]
    fn parses_challenges() {
        for (value, expected) in [
            (r#"Bearer realm="https://a/t",service="s",scope="x:y:pull,push""#, vec![bearer("https://a/t", Some("s"))]),
            (r#"bearer realm = https , service=s"#, vec![bearer("https", Some("s"))]),
            (r#"Basic realm="x""#, vec![Challenge::Basic]),
            ("Basic", vec![Challenge::Basic]),
            (r#"Basic realm="a, Bearer realm=b", Bearer realm="c""#, vec![Challenge::Basic, bearer("c", None)]),
            (r#"Negotiate, Bearer realm="a\"b""#, vec![bearer("a\"b", None)]),
            (r#"Bearer realm="first",realm="second""#, vec![bearer("first", None)]),
            (r#"Bearer service="no realm""#, vec![]),
            (r#"Bearer realm="open"#, vec![]),
            ("", vec![]),
            ("====", vec![]),
        ] {
            assert_eq!(challenges(value), expected, "{value}");
        }
        assert_eq!(challenges(&format!("Basic realm=\"{}\"", "x".repeat(HEADER_LIMIT))), []);
    }

    #[test]
    fn finds_the_next_page() {
        for (value, expected) in [
            (r#"</v2/x?n=1&last=b>; rel="next""#, Some("/v2/x?n=1&last=b")),
            (r#"<a>; rel="prev", <b>; title=x; rel=next"#, Some("b")),
            (r#"<a>; rel="prev""#, None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next_link(value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn describes_rate_limits() {
        assert_eq!(rate_window("100;w=21600").as_deref(), Some("100 requests in 6 h"));
        assert_eq!(rate_window("5; w=90").as_deref(), Some("5 requests in 90 s"));
        assert_eq!(rate_window("many"), None);
    }

    proptest! {
        #[test]
        fn never_panics(value in "\\PC*", structured in r#"(Bearer|Basic|<|>|=|"|\\|,|;| |rel|next|realm|w=|é){0,40}"#) {
            for text in [&value, &structured] {
                let _ = (challenges(text), next_link(text), rate_window(text));
            }
        }

        #[test]
        fn reads_back_any_realm(realm in "[ -~é]{0,60}") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(challenges(&format!("Bearer realm=\"{quoted}\"")), vec![bearer(&realm, None)]);
        }
    }
}
