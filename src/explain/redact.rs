//! Takes out of a text what looks like a secret, before the text is kept.
//!
//! Variables whose name sounds secret are hidden as a whole; this is for what hides in other texts: users and passwords in URLs,
//! values of their queries, what follows `Bearer`, and tokens that say by their first letters what they are. References to variables
//! stay: they are no secrets, and say where one comes from.

use std::borrow::Cow;

/// What stands in place of a secret.
const GONE: &str = "***";
/// How well-known tokens begin; what follows has at least [`TOKEN`] characters.
const PREFIXES: [&str; 18] = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "gldt-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "npm_",
    "pypi-",
    "dckr_pat_",
    "hf_",
    "sk-",
    "AKIA",
    "ASIA",
];
const TOKEN: usize = 16;

/// Returns the text without what looks like a secret.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_credential = false;
    while !rest.is_empty() {
        let gap = rest.find(|c| !is_gap(c)).unwrap_or(rest.len());
        out.push_str(&rest[..gap]);
        rest = &rest[gap..];
        let end = rest.find(is_gap).unwrap_or(rest.len());
        let word = &rest[..end];
        if is_credential && word.len() >= TOKEN / 2 && !is_reference(word) {
            out.push_str(GONE);
        } else {
            push_word(&mut out, word);
        }
        is_credential = ["bearer", "basic"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme));
        rest = &rest[end..];
    }
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

fn is_gap(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\'' | '"' | '`' | ';' | '|' | '<' | '>' | '(' | ')' | ',' | '\\')
}

/// Variables, and what has been taken out before.
fn is_reference(text: &str) -> bool {
    text.is_empty() || text.starts_with('$') || text == GONE
}

fn push_word(out: &mut String, word: &str) {
    let Some((scheme, rest)) = word.split_once("://") else { return push_tokens(out, word) };
    push_tokens(out, scheme);
    out.push_str("://");
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((user, host)) if user == "git" || user.split(':').all(is_reference) => {
            out.push_str(&format!("{user}@{host}"));
        }
        Some((_, host)) => out.push_str(&format!("{GONE}@{host}")),
        None => out.push_str(authority),
    }
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    push_word(out, path);
    if let Some(query) = query {
        out.push('?');
        push_query(out, query);
    }
}

fn push_query(out: &mut String, query: &str) {
    let (query, fragment) = query.split_once('#').map_or((query, None), |(query, rest)| (query, Some(rest)));
    for (at, pair) in query.split('&').enumerate() {
        if at > 0 {
            out.push('&');
        }
        match pair.split_once('=') {
            Some((key, value)) if !is_reference(value) => out.push_str(&format!("{key}={GONE}")),
            _ => push_tokens(out, pair),
        }
    }
    if let Some(fragment) = fragment {
        out.push('#');
        push_tokens(out, fragment);
    }
}

fn push_tokens(out: &mut String, mut text: &str) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    while !text.is_empty() {
        let start = text.find(is_part).unwrap_or(text.len());
        out.push_str(&text[..start]);
        text = &text[start..];
        let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
        out.push_str(if is_token(&text[..end]) { GONE } else { &text[..end] });
        text = &text[end..];
    }
}

fn is_token(text: &str) -> bool {
    let known = |prefix: &&str| text.strip_prefix(*prefix).is_some_and(|rest| rest.len() >= TOKEN);
    let is_jwt = text.starts_with("eyJ") && text.matches('.').count() == 2 && text.len() > 2 * TOKEN;
    is_jwt || PREFIXES.iter().any(known)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "hunter2hunter2hunter2";

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let jwt = format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIi{SECRET}.x{SECRET}");
        let cases = [
            ("curl https://u:S@h/x?a=1&b=", "curl https://***@h/x?a=***&b="),
            ("git clone https://S@github.com/a/b.git", "git clone https://***@github.com/a/b.git"),
            ("URL='https://h/f?sig=S#top'; true", "URL='https://h/f?sig=***#top'; true"),
            ("curl -H \"Authorization: Bearer S\" h", "curl -H \"Authorization: Bearer ***\" h"),
            ("echo ghp_S > f", "echo *** > f"),
            ("x=glpat-S,y=AKIAS", "x=***,y=***"),
            ("https://a:S@h/https://b:S@i", "https://***@h/https://***@i"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(&text.replace('S', SECRET)), expected, "{text}");
        }
        assert_eq!(redact(&format!("T={jwt}")), "T=***");
        for same in [
            "RUN make -j2 && echo done | tee /log",
            "git clone ssh://git@github.com/a/b https://$USER:$PASS@h/x?t=$TOKEN",
            "Authorization: Bearer $TOKEN",
            "sha256:8a5edab282632443219e051e4ade2d1d5bbc671c781051bf1437897cbdfea0f1 sk-x npm_config",
            "user@host:/path a?b=c mailto:x@y",
        ] {
            assert!(matches!(redact(same), Cow::Borrowed(_)), "{same}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends_and_is_not_changed_again(text in "[ -~éß\\n]{0,80}", url in any::<bool>()) {
            let text = if url { format!("x https://u:{SECRET}@{text}") } else { text };
            let once = redact(&text).into_owned();
            prop_assert_eq!(redact(&once).into_owned(), once.clone());
        }
    }
}
