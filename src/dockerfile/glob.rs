//! The globs of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`.
//!
//! In: a pattern of `?`, `*` and escapes, and a value. Out: the value, cut or replaced. Matching is linear in the
//! value: a pattern becomes a regular expression, and the engine does not backtrack.

use regex::{Captures, NoExpand, Regex};

use super::name;
use super::word::{MAX_LENGTH, WordProblem};

/// Go's scanner drops it at the start of a text.
const MARK: char = '\u{feff}';

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
    let regex = compile(pattern, &tokens(pattern.strip_prefix(MARK).unwrap_or(pattern))?, greed, "^")?;
    Ok(regex.find(value).map_or(value, |found| &value[found.end()..]).to_owned())
}

/// Cuts a suffix that matches.
pub(crate) fn trim_suffix(pattern: &str, value: &str, greed: Greed) -> Result<String, WordProblem> {
    // An engine that finds the leftmost match finds the shortest suffix only when everything is turned around.
    let mut tokens = tokens(pattern.strip_suffix(MARK).unwrap_or(pattern))?;
    tokens.reverse();
    let regex = compile(pattern, &tokens, greed, "^")?;
    let reversed: String = value.chars().rev().collect();
    let Some(found) = regex.find(&reversed) else { return Ok(value.to_owned()) };
    Ok(reversed[found.end()..].chars().rev().collect())
}

/// Replaces the first match, or all. With all, `$0`, `${name}` and `$$` in the replacement are a template, as in Go's
/// regular expressions: the match, nothing (there are no groups), and a dollar sign.
pub(crate) fn replace(pattern: &str, value: &str, with: &str, all: bool) -> Result<String, WordProblem> {
    let regex = compile(pattern, &tokens(pattern.strip_prefix(MARK).unwrap_or(pattern))?, Greed::Longest, "")?;
    let count = if all { regex.find_iter(value).count() } else { 1 };
    if count.saturating_mul(with.len()).saturating_add(value.len()) > MAX_LENGTH {
        return Err(WordProblem::TooLong);
    }
    if !all {
        return Ok(regex.replacen(value, 1, NoExpand(with)).into_owned());
    }
    let template = template(with);
    let matches = template.iter().filter(|part| **part == Part::Match).count();
    if matches.saturating_mul(value.len()) > MAX_LENGTH {
        return Err(WordProblem::TooLong);
    }
    let filled = |captures: &Captures<'_>| template.iter().map(|part| part.fill(&captures[0])).collect::<String>();
    Ok(regex.replace_all(value, filled).into_owned())
}

/// A part of a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'t> {
    Text(&'t str),
    Match,
}

impl<'t> Part<'t> {
    fn fill<'a>(&self, found: &'a str) -> &'a str
    where
        't: 'a,
    {
        match self {
            Part::Text(text) => text,
            Part::Match => found,
        }
    }
}

fn template(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        parts.push(Part::Text(&rest[..at]));
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            parts.push(Part::Text("$"));
            rest = after;
        } else if let Some((name, after)) = group_name(rest) {
            // There are no groups but the match itself.
            if name == "0" {
                parts.push(Part::Match);
            }
            rest = after;
        } else {
            parts.push(Part::Text("$"));
        }
    }
    parts.push(Part::Text(rest));
    parts
}

/// Splits `name` or `{name}` off a text.
fn group_name(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{');
    let from = inner.unwrap_or(text);
    let (name, rest) = from.split_at(name::word(from));
    if name.is_empty() {
        return None;
    }
    match inner {
        Some(_) => Some((name, rest.strip_prefix('}')?)),
        None => Some((name, rest)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_where_all_are_replaced() {
        for (with, all, one) in [
            ("<$0>", "<a>b<a>", "<$0>ba"),
            ("${0}$1x-${name}$$", "a-$ba-$", "${0}$1x-${name}$$ba"),
            ("$ ${ ${0 ${a b} $", "$ ${ ${0 ${a b} $b$ ${ ${0 ${a b} $", "$ ${ ${0 ${a b} $ba"),
        ] {
            assert_eq!(replace("a", "aba", with, true).as_deref(), Ok(all));
            assert_eq!(replace("a", "aba", with, false).as_deref(), Ok(one));
        }
    }
}
