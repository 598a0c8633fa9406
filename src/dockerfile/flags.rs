//! Flags in front of an instruction's arguments: found in any instruction, then checked against what it takes.
//!
//! In: the text behind the keyword. Out: the flag words and the rest; then values by name.

use std::collections::BTreeMap;

use super::error::Problem;
use crate::diag::{Case, did_you_mean};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// `true` or `false`, or nothing for true.
    Bool,
    /// One value.
    One,
    /// A value, and the flag may be repeated.
    Many,
}

/// Checked flags.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    values: BTreeMap<String, Vec<String>>,
}

/// Splits flag words off the front of arguments; quotes and escapes in them are resolved.
///
/// BuildKit reads them byte by byte and takes each byte for a character: `é` becomes `Ã©`, and `à` ends the word, because its
/// second byte is then a space. What flags say is part of cache keys, so they are read like that here too.
pub fn split(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = skip_spaces(text);
    while rest.starts_with("--") {
        let (word, after) = flag_word(rest, escape);
        rest = after;
        if word == "--" {
            return (flags, rest);
        }
        flags.push(word);
        rest = skip_spaces(rest);
    }
    (flags, rest)
}

fn skip_spaces(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_ascii() && c.is_whitespace())
}

/// Returns the text from a byte on, or from the next character that begins behind it.
fn from_boundary(text: &str, at: usize) -> &str {
    let boundary = (at..text.len()).find(|at| text.is_char_boundary(*at));
    boundary.map_or("", |at| &text[at..])
}

fn flag_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.bytes().map(char::from).enumerate();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, from_boundary(text, at)),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, c)| c)),
            _ => word.push(c),
        }
    }
    (word, "")
}

impl Flags {
    /// Checks flag words against what an instruction takes.
    pub(crate) fn check(words: &[String], known: &[(&str, Takes)]) -> Result<Self, Problem> {
        let mut flags = Self::default();
        for word in words {
            flags.add(word, known).map_err(|problem| problem.marking(word.as_str()))?;
        }
        Ok(flags)
    }

    fn add(&mut self, word: &str, known: &[(&str, Takes)]) -> Result<(), Problem> {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (word, None),
        };
        let name = flag.strip_prefix("--").unwrap_or(flag);
        let Some((_, takes)) = known.iter().find(|(known, _)| *known == name) else {
            return Err(unknown(flag, name, known));
        };
        if *takes != Takes::Many && self.values.contains_key(name) {
            return Err(Problem::meaning(format!("duplicate flag specified: {flag}")));
        }
        let value = match takes {
            Takes::Bool => boolean(flag, value)?,
            Takes::One | Takes::Many => value.ok_or_else(|| missing(flag))?.to_owned(),
        };
        self.values.entry(name.to_owned()).or_default().push(value);
        Ok(())
    }

    /// Tells whether a flag was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Returns a flag's value, empty if it was not given.
    pub(crate) fn one(&self, name: &str) -> String {
        self.values.get(name).and_then(|values| values.first()).cloned().unwrap_or_default()
    }

    /// Returns the values of a flag that may be repeated.
    pub(crate) fn many(&self, name: &str) -> Vec<String> {
        self.values.get(name).cloned().unwrap_or_default()
    }

    /// Returns a boolean flag, none if it was not given.
    pub(crate) fn boolean(&self, name: &str) -> Option<bool> {
        self.values.get(name).and_then(|values| values.first()).map(|value| value == "true")
    }
}

fn unknown(flag: &str, name: &str, known: &[(&str, Takes)]) -> Problem {
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let problem =
        Problem::meaning(format!("unknown flag: {flag}{}", did_you_mean(name, names.iter().copied(), Case::Sensitive)));
    match names.is_empty() {
        true => problem.hinted("this instruction takes no flags"),
        false => problem.hinted(format!("the flags are --{}", names.join(", --"))),
    }
}

fn missing(flag: &str) -> Problem {
    Problem::meaning(format!("missing a value on flag: {flag}")).hinted(format!("write `{flag}=VALUE`"))
}

fn boolean(flag: &str, value: Option<&str>) -> Result<String, Problem> {
    match value.map(str::to_lowercase).as_deref() {
        Some("") => Err(missing(flag)),
        None | Some("true") => Ok("true".to_owned()),
        Some("false") => Ok("false".to_owned()),
        Some(_) => {
            let value = value.unwrap_or_default();
            Err(Problem::meaning(format!("expecting boolean value for flag {flag}, not: {value}"))
                .hinted(format!("write `{flag}=true` or `{flag}=false`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: [(&str, Takes); 3] = [("link", Takes::Bool), ("from", Takes::One), ("exclude", Takes::Many)];

    #[test]
    fn splits_flags_from_arguments() {
        let cases: [(&str, &[&str], &str); 11] = [
            ("a --b", &[], "a --b"),
            ("--a --b=c  d e", &["--a", "--b=c"], "d e"),
            ("--a=\"b c\"'d' e", &["--a=b cd"], "e"),
            ("--a=b\\ c d", &["--a=b c"], "d"),
            ("--a=b\\", &["--a=b"], ""),
            ("--a -- --b", &["--a"], " --b"),
            ("--ä=ö x", &["--Ã¤=Ã¶"], "x"),
            ("--exclude=à --b c", &["--exclude=Ã", "--b"], "c"),
            ("--a=à\u{3000}", &["--a=Ã"], "\u{3000}"),
            ("-a", &[], "-a"),
            ("--a='x", &["--a=x"], ""),
        ];
        for (text, flags, rest) in cases {
            let (found, after) = split(text, '\\');
            assert_eq!(
                (found.as_slice(), after),
                (flags.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>().as_slice(), rest),
                "{text}"
            );
        }
    }

    #[test]
    fn checks_flags() {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let flags = Flags::check(&words(&["--link", "--exclude=a", "--exclude=", "--from=x"]), &KNOWN).expect("valid");
        assert_eq!(
            (flags.boolean("link"), flags.one("from"), flags.many("exclude")),
            (Some(true), "x".into(), words(&["a", ""]))
        );
        assert!(Flags::check(&words(&["--link=FALSE"]), &KNOWN).is_ok_and(|f| f.boolean("link") == Some(false)));
        let cases: [(&[&str], &str); 7] = [
            (&["--form=x"], "unknown flag: --form (did you mean from?)"),
            (&["--zzz=bar"], "unknown flag: --zzz"),
            (&["--from=a", "--from=b"], "duplicate flag specified: --from"),
            (&["--from"], "missing a value on flag: --from"),
            (&["--link="], "missing a value on flag: --link"),
            (&["--link=maybe"], "expecting boolean value for flag --link, not: maybe"),
            (&["--From=x"], "unknown flag: --From (did you mean from?)"),
        ];
        for (list, want) in cases {
            assert_eq!(Flags::check(&words(list), &KNOWN).expect_err("bad").message, want);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let (_, rest) = split(&text, '\\');
            prop_assert!(text.ends_with(rest));
        }
    }
}
