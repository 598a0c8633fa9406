//! The globs of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`.
//!
//! In: a pattern of `?`, `*` and escapes, and a value. Out: the value, cut or replaced. Matching is linear in the
//! value: a pattern becomes a regular expression, and the engine does not backtrack.

use regex::{NoExpand, Regex};

use super::word::{MAX_LENGTH, WordProblem};

/// Which of several matches is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greed {
    /// The shortest.
    Shortest,
    /// The longest.
    Longest,
}

/// Cuts a prefix that matches.
pub(crate) fn trim_prefix(pattern: &str, value: &str, greed: Greed) -> Result<String, WordProblem> {
    let regex = compile(pattern, &tokens(pattern)?, greed, "^")?;
    Ok(regex.find(value).map_or(value, |found| &value[found.end()..]).to_owned())
}

/// Cuts a suffix that matches.
pub(crate) fn trim_suffix(pattern: &str, value: &str, greed: Greed) -> Result<String, WordProblem> {
    // An engine that finds the leftmost match finds the shortest suffix only when everything is turned around.
    let mut tokens = tokens(pattern)?;
    tokens.reverse();
    let regex = compile(pattern, &tokens, greed, "^")?;
    let reversed: String = value.chars().rev().collect();
    let Some(found) = regex.find(&reversed) else { return Ok(value.to_owned()) };
    Ok(reversed[found.end()..].chars().rev().collect())
}

/// Replaces the first match, or all; the replacement is taken as it is.
pub(crate) fn replace(pattern: &str, value: &str, with: &str, all: bool) -> Result<String, WordProblem> {
    let regex = compile(pattern, &tokens(pattern)?, Greed::Longest, "")?;
    let count = if all { regex.find_iter(value).count() } else { 1 };
    if count.saturating_mul(with.len()).saturating_add(value.len()) > MAX_LENGTH {
        return Err(WordProblem::TooLong);
    }
    Ok(regex.replacen(value, if all { 0 } else { 1 }, NoExpand(with)).into_owned())
}

#[derive(Debug, Clone, Copy)]
enum Token {
    Star,
    One,
    Literal(char),
}

fn tokens(pattern: &str) -> Result<Vec<Token>, WordProblem> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::One,
            '\\' => Token::Literal(escaped(pattern, chars.next())?),
            c => Token::Literal(c),
        });
    }
    Ok(tokens)
}

fn escaped(pattern: &str, c: Option<char>) -> Result<char, WordProblem> {
    match c {
        Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Ok(c),
        c => {
            let problem = format!("invalid escape '\\{}'", c.map(String::from).unwrap_or_default());
            Err(WordProblem::Pattern { pattern: pattern.to_owned(), problem })
        }
    }
}

fn compile(pattern: &str, tokens: &[Token], greed: Greed, anchor: &str) -> Result<Regex, WordProblem> {
    let mut source = anchor.to_owned();
    for token in tokens {
        match token {
            Token::Star if greed == Greed::Longest => source.push_str(".*"),
            Token::Star => source.push_str(".*?"),
            Token::One => source.push('.'),
            Token::Literal(c) => source.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&source)
        .map_err(|_| WordProblem::Pattern { pattern: pattern.to_owned(), problem: "pattern is too long".to_owned() })
}
