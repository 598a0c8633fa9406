//! Go's `path.Match`.
//!
//! In: a pattern of `*`, `?`, `[classes]` and escapes, and a name. Out: whether it matches, or that the pattern is
//! malformed. Time is bounded by pattern times name: a star only ever retries from the last star.

/// The pattern is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// One part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// `*`
    Star,
    /// `?`
    One,
    /// A character.
    Literal(char),
    /// `[a-z]`
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Token {
    /// Tells whether a character matches; a star, which takes any number, is not asked.
    pub(super) fn matches(&self, c: char) -> bool {
        match self {
            Token::Star => false,
            Token::One => c != '/',
            Token::Literal(literal) => *literal == c,
            Token::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

/// Tells whether a whole name matches a pattern; neither `*` nor `?` matches `/`.
pub fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    Ok(matches_tokens(&tokens(pattern)?, name))
}

/// Checks a pattern.
pub fn check(pattern: &str) -> Result<(), BadPattern> {
    tokens(pattern).map(drop)
}

fn matches_tokens(tokens: &[Token], name: &str) -> bool {
    let (mut at, mut rest) = (0, name);
    let mut retry: Option<(usize, &str)> = None;
    loop {
        let c = rest.chars().next();
        match (tokens.get(at), c) {
            (None, None) => return true,
            (Some(Token::Star), _) => {
                at += 1;
                retry = Some((at, rest));
                continue;
            }
            (Some(token), Some(c)) if token.matches(c) => {
                at += 1;
                rest = &rest[c.len_utf8()..];
                continue;
            }
            _ => {}
        }
        // The last star takes one more character; an earlier one need not, as it has matched up to here already.
        let Some((star, from)) = retry else { return false };
        let Some(c) = from.chars().next().filter(|c| *c != '/') else { return false };
        (at, rest) = (star, &from[c.len_utf8()..]);
        retry = Some((star, rest));
    }
}

/// Splits a pattern into its parts.
pub(super) fn tokens(pattern: &str) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::One,
            '\\' => Token::Literal(chars.next().ok_or(BadPattern)?),
            '[' => class(&mut chars)?,
            c => Token::Literal(c),
        });
    }
    Ok(tokens)
}

fn class(chars: &mut std::str::Chars<'_>) -> Result<Token, BadPattern> {
    let negated = chars.as_str().starts_with('^');
    if negated {
        chars.next();
    }
    let mut ranges = Vec::new();
    loop {
        if chars.as_str().starts_with(']') && !ranges.is_empty() {
            chars.next();
            return Ok(Token::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.as_str().starts_with('-') {
            chars.next();
            class_char(chars)?
        } else {
            low
        };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::str::Chars<'_>) -> Result<char, BadPattern> {
    match chars.next().ok_or(BadPattern)? {
        '-' | ']' => Err(BadPattern),
        '\\' => chars.next().ok_or(BadPattern),
        c => Ok(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(serde::Deserialize)]
    struct Row {
        pattern: String,
        name: String,
        /// None where the pattern is malformed.
        r#match: Option<bool>,
    }

    #[test]
    fn matches_the_table_of_globs_as_go_does() {
        for row in crate::diag::table::<Row>("globs") {
            assert_eq!(matches(&row.pattern, &row.name).ok(), row.r#match, "{:?} on {:?}", row.pattern, row.name);
        }
    }

    #[test]
    fn matches_like_go() {
        let cases = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("", "", true),
            ("**", "a", true),
        ];
        for (pattern, name, want) in cases {
            assert_eq!(matches(pattern, name), Ok(want), "{pattern} {name}");
        }
    }

    #[test]
    fn refuses_like_go() {
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "[\\", "[a-"] {
            assert_eq!(check(pattern), Err(BadPattern), "{pattern}");
        }
    }

    /// Every split is tried.
    fn naive(tokens: &[Token], name: &[char]) -> bool {
        match (tokens.first(), name.first()) {
            (None, None) => true,
            (Some(Token::Star), c) => {
                naive(&tokens[1..], name) || c.is_some_and(|c| *c != '/' && naive(tokens, &name[1..]))
            }
            (Some(token), Some(c)) => token.matches(*c) && naive(&tokens[1..], &name[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_matcher(pattern in "[ab*?/]{0,8}", name in "[ab/]{0,8}") {
            let tokens = tokens(&pattern).expect("no classes");
            let chars: Vec<char> = name.chars().collect();
            prop_assert_eq!(matches(&pattern, &name), Ok(naive(&tokens, &chars)));
        }

        #[test]
        fn never_panics(pattern in "[\\[\\]a^\\\\*?-]{0,12}", name in any::<String>()) {
            let _ = matches(&pattern, &name);
        }
    }
}
