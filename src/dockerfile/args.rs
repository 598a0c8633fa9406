//! The grammars of arguments: words with quotes, lists, exec form or text, name and value pairs.
//!
//! In: the text behind an instruction's keyword and flags. Out: [`Args`].

use super::error::Problem;
use super::goquote::quote;
use super::instruction::KeyValue;
use super::json_array::{self, JsonArray};
use super::text::{is_blank, split_blanks};

/// Arguments of an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Args {
    /// The items.
    pub items: Vec<String>,
    /// Whether they were written as a JSON array.
    pub json: bool,
}

impl Args {
    fn list(items: Vec<String>) -> Self {
        Self { items, json: false }
    }
}

/// Reads the whole text as one argument, or as none if it is empty.
pub(crate) fn whole(text: &str) -> Args {
    Args::list(if text.is_empty() { Vec::new() } else { vec![text.to_owned()] })
}

/// Reads a list separated by blanks.
pub(crate) fn list(text: &str) -> Args {
    if text.is_empty() {
        return Args::default();
    }
    Args::list(split_blanks(text).into_iter().map(str::to_owned).collect())
}

/// Reads an exec form, or the whole text as one argument.
pub(crate) fn json_or_whole(text: &str) -> Result<Args, Problem> {
    Ok(json(text)?.unwrap_or_else(|| whole(text)))
}

/// Reads a JSON array, or a list separated by blanks.
pub(crate) fn json_or_list(text: &str) -> Result<Args, Problem> {
    Ok(json(text)?.unwrap_or_else(|| list(text)))
}

fn json(text: &str) -> Result<Option<Args>, Problem> {
    match json_array::parse(text) {
        JsonArray::Strings(items) => Ok(Some(Args { items, json: true })),
        JsonArray::NotJson => Ok(None),
        JsonArray::OtherItems => {
            Err(Problem::syntax("when using JSON array syntax, arrays must be comprised of strings only")
                .marking(text)
                .hinted("put every item in double quotes"))
        }
    }
}

/// Reads `NAME=value …` or `NAME value`.
pub(crate) fn key_values(text: &str, keyword: &str, escape: char) -> Result<Vec<KeyValue>, Problem> {
    let words = words(text, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        return legacy_pair(text, keyword).map(|pair| vec![pair]);
    }
    words.iter().map(|word| pair(word)).collect()
}

fn pair(word: &str) -> Result<KeyValue, Problem> {
    let Some((key, value)) = word.split_once('=') else {
        return Err(Problem::syntax(format!(
            "Syntax error - can't find = in {}. Must be of the form: name=value",
            quote(word)
        ))
        .marking(word)
        .hinted(match word.starts_with('#') {
            true => "a comment has a line of its own",
            false => "quote a value that has blanks: NAME=\"a b\"",
        }));
    };
    Ok(KeyValue { key: key.to_owned(), value: value.to_owned(), legacy: false })
}

fn legacy_pair(text: &str, keyword: &str) -> Result<KeyValue, Problem> {
    let Some((key, value)) = text.split_once(is_blank) else {
        return Err(Problem::syntax(format!("{keyword} must have two arguments"))
            .marking(text)
            .hinted(format!("write `{keyword} {text}=value`")));
    };
    Ok(KeyValue { key: key.to_owned(), value: value.trim_start_matches(is_blank).to_owned(), legacy: true })
}

/// Splits at blanks outside quotes; quotes and escapes stay in the words, for the variable lexer to read.
pub fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        if c == escape && quote != Some('\'') {
            // A lone one at the end is dropped.
            if let Some(next) = chars.next() {
                word.extend([c, next]);
            }
            continue;
        }
        quote = match quote {
            None => Some(c).filter(|c| matches!(c, '\'' | '"')),
            open => open.filter(|open| *open != c),
        };
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_keep_quotes_and_escapes() {
        let cases: [(&str, &[&str]); 8] = [
            ("a=b c", &["a=b", "c"]),
            ("a='b c'\"d e\"  f", &["a='b c'\"d e\"", "f"]),
            ("a\\ b c\\", &["a\\ b", "c"]),
            ("'a\\' b", &["'a\\'", "b"]),
            ("\"a\\\" b\" c", &["\"a\\\" b\"", "c"]),
            ("'open  x", &["'open  x"]),
            ("a\u{a0}b", &["a", "b"]),
            ("", &[]),
        ];
        for (text, want) in cases {
            assert_eq!(words(text, '\\'), want, "{text}");
        }
    }

    #[test]
    fn pairs_in_both_forms() {
        let pairs = |text| key_values(text, "ENV", '\\').map_err(|p| p.message);
        let kv = |key: &str, value: &str, legacy| KeyValue { key: key.into(), value: value.into(), legacy };
        assert_eq!(pairs("a=b c=\"d e\""), Ok(vec![kv("a", "b", false), kv("c", "\"d e\"", false)]));
        assert_eq!(pairs("a  b=c  d"), Ok(vec![kv("a", "b=c  d", true)]));
        assert_eq!(pairs("=b"), Ok(vec![kv("", "b", false)]));
        assert_eq!(pairs(""), Ok(vec![]));
        assert_eq!(pairs("a"), Err("ENV must have two arguments".into()));
        let error = "Syntax error - can't find = in \"c\". Must be of the form: name=value";
        assert_eq!(pairs("a=b c"), Err(error.into()));
    }

    #[test]
    fn exec_form_or_the_rest() {
        assert!(json_or_whole("[\"a\"]").is_ok_and(|args| args.json && args.items == ["a"]));
        assert!(json_or_whole("[ a ]").is_ok_and(|args| !args.json && args.items == ["[ a ]"]));
        assert!(json_or_list("[a  b]").is_ok_and(|args| args.items == ["[a", "b]"]));
        assert!(json_or_whole("[1]").is_err());
        assert_eq!(json_or_whole("").expect("valid"), Args::default());
    }

    proptest! {
        #[test]
        fn words_hold_all_that_is_no_blank(text in "[a='\" ]{0,30}") {
            let kept: String = words(&text, '\\').concat().chars().filter(|c| !c.is_whitespace()).collect();
            let all: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            prop_assert_eq!(kept, all);
        }
    }
}
