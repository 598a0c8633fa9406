//! The variable lexer: quotes, escapes, `$name` and `${name…}`, in one word or split into words.
//!
//! In: text and an [`Env`]. Out: [`Expanded`] text, or words, with the names that were looked up. One pass over the
//! input; nesting and growth are bounded ([`MAX_DEPTH`], [`MAX_LENGTH`]), so no input exhausts stack or memory.

use std::collections::{BTreeMap, BTreeSet};

use super::glob::{self, Greed};
use super::goquote::quote;
use super::name;
use crate::diag::{Diagnose, Kind};

/// How deep `${a:-${b:-…}}` may nest.
pub const MAX_DEPTH: usize = 100;

/// How long, in bytes, expanded text may get.
pub const MAX_LENGTH: usize = 16 << 20;

/// Where variables come from.
pub trait Env {
    /// Returns the value of a variable, if it is set.
    fn get(&self, name: &str) -> Option<String>;

    /// Returns the names of all variables.
    fn keys(&self) -> Vec<String>;
}

impl Env for [(String, String)] {
    fn get(&self, name: &str) -> Option<String> {
        self.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    fn keys(&self) -> Vec<String> {
        self.iter().map(|(key, _)| key.clone()).collect()
    }
}

impl Env for &[(String, String)] {
    fn get(&self, name: &str) -> Option<String> {
        Env::get(*self, name)
    }

    fn keys(&self) -> Vec<String> {
        Env::keys(*self)
    }
}

impl Env for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<String> {
        Env::get(self.as_slice(), name)
    }

    fn keys(&self) -> Vec<String> {
        Env::keys(self.as_slice())
    }
}

impl Env for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }

    fn keys(&self) -> Vec<String> {
        BTreeMap::keys(self).cloned().collect()
    }
}

/// How text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lexer {
    /// The character that takes the meaning of the next one away.
    pub escape: char,
    /// Keep quotes.
    pub raw_quotes: bool,
    /// Keep escape characters.
    pub raw_escapes: bool,
    /// Treat quotes as plain text.
    pub skip_process_quotes: bool,
    /// Leave references to unset variables as they are.
    pub skip_unset: bool,
}

/// Expanded text, and which variables it named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Names that were looked up and set.
    pub matched: BTreeSet<String>,
    /// Names that were looked up and not set.
    pub unmatched: BTreeSet<String>,
}

/// Words, and the names looked up that were set and not set.
pub type ExpandedWords = (Vec<String>, BTreeSet<String>, BTreeSet<String>);

/// Text could not be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {problem}", quote(input))]
pub struct WordError {
    /// The whole text.
    pub input: String,
    /// What is wrong with it.
    pub problem: WordProblem,
}

/// What is wrong with a text that could not be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordProblem {
    /// A quote or brace has no partner.
    #[error("unexpected end of statement while looking for matching {what}")]
    Unterminated {
        /// What is missing.
        what: String,
    },
    /// `${` with something else than a name behind it, or without its end.
    #[error("syntax error: {what}")]
    Syntax {
        /// What is wrong.
        what: &'static str,
    },
    /// `${name` is followed by nothing.
    #[error("syntax error: missing '}}'")]
    Unended,
    /// `${name` is followed by an operator that does not exist.
    #[error("unsupported modifier ({modifier}) in substitution")]
    Modifier {
        /// The operator.
        modifier: String,
    },
    /// `${name?message}` on an unset, or empty, variable.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message.
        message: String,
    },
    /// A pattern in `${name#pattern}` and the like.
    #[error("invalid pattern ({pattern}) in substitution: {problem}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// More nesting than [`MAX_DEPTH`].
    #[error("substitutions are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// More text than [`MAX_LENGTH`].
    #[error("the expanded text is longer than {MAX_LENGTH} bytes")]
    TooLong,
}

impl WordError {
    /// Returns BuildKit's message where it is another: it takes the end of the text for a modifier.
    pub fn buildkit_message(&self) -> Option<String> {
        let unended = matches!(self.problem, WordProblem::Unended);
        unended.then(|| {
            let problem = WordProblem::Modifier { modifier: char::REPLACEMENT_CHARACTER.to_string() };
            Self { input: self.input.clone(), problem }.to_string()
        })
    }
}

impl Diagnose for WordError {
    fn kind(&self) -> Kind {
        Kind::Dockerfile
    }

    fn hints(&self) -> Vec<String> {
        let hint = match &self.problem {
            WordProblem::Unterminated { .. } => {
                "write a quote that is meant literally with the escape character before it"
            }
            WordProblem::Modifier { .. } => "the modifiers are - :- + :+ ? :? # ## % %% / and //",
            WordProblem::Syntax { .. } | WordProblem::Unended => {
                "write ${NAME}; a literal $ needs the escape character before it"
            }
            WordProblem::Required { name, .. } => return vec![format!("set it: --build-arg {name}=VALUE")],
            WordProblem::Pattern { .. } => "in patterns only * ? \\ / and } may be escaped",
            WordProblem::TooDeep | WordProblem::TooLong => return Vec::new(),
        };
        vec![hint.to_owned()]
    }
}

impl Lexer {
    /// Builds a lexer that removes quotes and escapes and replaces unset variables by nothing.
    pub fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, skip_process_quotes: false, skip_unset: false }
    }

    /// Expands text as one word.
    pub fn word(&self, text: &str, env: &dyn Env) -> Result<Expanded, WordError> {
        let mut run = Run::new(self, text, env);
        match run.until(None, self.raw_escapes) {
            Ok((text, _)) => Ok(Expanded { text, matched: run.matched, unmatched: run.unmatched }),
            Err(problem) => Err(WordError { input: text.to_owned(), problem }),
        }
    }

    /// Expands text and splits the result at blanks that are not quoted.
    pub fn words(&self, text: &str, env: &dyn Env) -> Result<ExpandedWords, WordError> {
        let mut run = Run::new(self, text, env);
        match run.until(None, self.raw_escapes) {
            Ok((_, words)) => Ok((words, run.matched, run.unmatched)),
            Err(problem) => Err(WordError { input: text.to_owned(), problem }),
        }
    }
}

/// One run of the lexer.
struct Run<'a> {
    lexer: &'a Lexer,
    env: &'a dyn Env,
    rest: &'a str,
    raw_escapes: bool,
    depth: usize,
    /// The word being gathered. A nested run starts with it empty and so forgets what stood before it: BuildKit does
    /// this, and what EXPOSE makes of `${a:-1}` depends on it.
    gathered: String,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

/// Words of one run, nested or not.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    in_word: bool,
}

impl Words {
    fn push(&mut self, gathered: &mut String, c: char) {
        if !c.is_whitespace() {
            gathered.push(c);
            self.in_word = true;
        } else if self.in_word && !gathered.is_empty() {
            self.done.push(std::mem::take(gathered));
            self.in_word = false;
        }
    }

    fn push_raw(&mut self, gathered: &mut String, text: &str) {
        gathered.push_str(text);
        self.in_word = true;
    }

    fn finish(mut self, gathered: &mut String) -> Vec<String> {
        if !gathered.is_empty() {
            self.done.push(std::mem::take(gathered));
        }
        self.done
    }
}

type Step<T> = Result<T, WordProblem>;

impl<'a> Run<'a> {
    fn new(lexer: &'a Lexer, text: &'a str, env: &'a dyn Env) -> Self {
        Self {
            lexer,
            env,
            // As Go's scanner does at the start of each text.
            rest: text.strip_prefix('\u{feff}').unwrap_or(text),
            raw_escapes: lexer.raw_escapes,
            depth: 0,
            gathered: String::new(),
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Reads up to `stop`, which is consumed, or to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Step<(String, Vec<String>)> {
        if self.depth > MAX_DEPTH {
            return Err(WordProblem::TooDeep);
        }
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        self.depth += 1;
        let result = self.read(stop);
        self.depth -= 1;
        self.raw_escapes = outer;
        result
    }

    fn read(&mut self, stop: Option<char>) -> Step<(String, Vec<String>)> {
        let mut result = String::new();
        let mut words = Words::default();
        self.gathered.clear();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                return Ok((result, words.finish(&mut self.gathered)));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.push(&mut self.gathered, c));
                    result.push_str(&value);
                }
                '<' | '\'' | '"' if c == '<' || !self.lexer.skip_process_quotes => {
                    let text = self.quoted_or_heredoc(c)?;
                    words.push_raw(&mut self.gathered, &text);
                    result.push_str(&text);
                }
                _ => self.plain(&mut result, &mut words),
            }
            if result.len() > MAX_LENGTH {
                return Err(WordProblem::TooLong);
            }
        }
        match stop {
            Some(stop) => Err(WordProblem::Unterminated { what: stop.to_string() }),
            None => Ok((result, words.finish(&mut self.gathered))),
        }
    }

    fn plain(&mut self, result: &mut String, words: &mut Words) {
        let Some(c) = self.next() else { return };
        if c != self.lexer.escape {
            words.push(&mut self.gathered, c);
            result.push(c);
            return;
        }
        let mut kept = String::new();
        if self.raw_escapes {
            kept.push(c);
        }
        kept.extend(self.next());
        if !kept.is_empty() {
            words.push_raw(&mut self.gathered, &kept);
            result.push_str(&kept);
        }
    }

    fn quoted_or_heredoc(&mut self, opening: char) -> Step<String> {
        match opening {
            '\'' => self.single_quoted(),
            '"' => self.double_quoted(),
            _ => Ok(self.heredoc_operator()),
        }
    }

    /// Reads `<`, or `<<` with the blanks behind it, which so end up in the word.
    fn heredoc_operator(&mut self) -> String {
        self.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.next();
        let after = self.rest.trim_start_matches(['\t', '\r', ' ']);
        let blanks = &self.rest[..self.rest.len() - after.len()];
        self.rest = after;
        format!("<<{blanks}")
    }

    fn single_quoted(&mut self) -> Step<String> {
        self.next();
        let Some((text, rest)) = self.rest.split_once('\'') else {
            self.rest = "";
            return Err(WordProblem::Unterminated { what: "single-quote".to_owned() });
        };
        self.rest = rest;
        Ok(if self.lexer.raw_quotes { format!("'{text}'") } else { text.to_owned() })
    }

    fn double_quoted(&mut self) -> Step<String> {
        let mut result = String::new();
        let quote = self.next().filter(|_| self.lexer.raw_quotes);
        result.extend(quote);
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.next();
                    result.extend(quote);
                    return Ok(result);
                }
                '$' => result.push_str(&self.dollar()?),
                _ => self.double_quoted_char(&mut result),
            }
            if result.len() > MAX_LENGTH {
                return Err(WordProblem::TooLong);
            }
        }
        Err(WordProblem::Unterminated { what: "double-quote".to_owned() })
    }

    fn double_quoted_char(&mut self, result: &mut String) {
        let Some(mut c) = self.next() else { return };
        if c == self.lexer.escape {
            if self.raw_escapes {
                result.push(c);
            }
            match self.peek() {
                None => return,
                Some(next) if next == '"' || next == '$' || next == self.lexer.escape => {
                    self.next();
                    c = next;
                }
                Some(_) => {}
            }
        }
        result.push(c);
    }

    fn dollar(&mut self) -> Step<String> {
        self.next();
        if self.peek() == Some('{') {
            self.next();
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.lookup(name) {
            None if self.lexer.skip_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    fn braced(&mut self) -> Step<String> {
        match self.peek() {
            None => return Err(WordProblem::Syntax { what: "missing '}'" }),
            Some('{' | '}' | ':') => return Err(WordProblem::Syntax { what: "bad substitution" }),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(WordProblem::Unended),
            Some('}') => match self.lookup(name) {
                None if self.lexer.skip_unset => Ok(format!("${{{name}}}")),
                value => Ok(value.unwrap_or_default()),
            },
            Some(':') => {
                let operator = self.next();
                let modifier = format!(":{}", operator.map(String::from).unwrap_or_default());
                match operator {
                    Some('#' | '%') => Err(WordProblem::Modifier { modifier }),
                    operator => self.conditional(name, operator.unwrap_or_default(), &modifier),
                }
            }
            Some(operator @ ('+' | '-' | '?')) => self.conditional(name, operator, &operator.to_string()),
            Some(operator @ ('#' | '%')) => self.trimmed(name, operator),
            Some('/') => self.replaced(name),
            Some(other) => Err(WordProblem::Modifier { modifier: other.to_string() }),
        }
    }

    /// `${name-word}`, `${name+word}`, `${name?word}`, each with or without a colon.
    fn conditional(&mut self, name: &str, operator: char, modifier: &str) -> Step<String> {
        let word = self.nested('}', false, "missing '}'")?;
        let value = self.lookup(name);
        if value.is_none() && self.lexer.skip_unset {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        }
        let empty_counts = modifier.starts_with(':');
        let unset = value.is_none();
        let usable = value.filter(|value| !(empty_counts && value.is_empty()));
        match (operator, usable) {
            ('-', usable) => Ok(usable.unwrap_or(word)),
            ('+', usable) => Ok(usable.map(|_| word).unwrap_or_default()),
            ('?', Some(value)) => Ok(value),
            ('?', None) => Err(required(name, word, unset)),
            _ => Err(WordProblem::Modifier { modifier: modifier.to_owned() }),
        }
    }

    /// `${name#pattern}`, `${name##pattern}`, `${name%pattern}`, `${name%%pattern}`.
    fn trimmed(&mut self, name: &str, operator: char) -> Step<String> {
        let word = self.nested('}', true, "missing '}'")?;
        let value = match self.lookup(name) {
            None if self.lexer.skip_unset => return Ok(format!("${{{name}{operator}{word}}}")),
            value => value.unwrap_or_default(),
        };
        let (greed, pattern) = match word.strip_prefix(operator) {
            Some(pattern) => (Greed::Longest, pattern),
            None => (Greed::Shortest, word.as_str()),
        };
        match operator {
            '#' => glob::trim_prefix(pattern, &value, greed),
            _ => glob::trim_suffix(pattern, &value, greed),
        }
    }

    /// `${name/pattern/replacement}`, `${name//pattern/replacement}`.
    fn replaced(&mut self, name: &str) -> Step<String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.nested('/', true, "missing '/' in ${}")?;
        let replacement = self.nested('}', true, "missing '}'")?;
        match self.lookup(name) {
            None if self.lexer.skip_unset => Ok(format!("${{{name}/{pattern}/{replacement}}}")),
            value => glob::replace(&pattern, &value.unwrap_or_default(), &replacement, all),
        }
    }

    /// Reads a part of a substitution; where the text ends before it does, says `missing`.
    fn nested(&mut self, stop: char, raw_escapes: bool, missing: &'static str) -> Step<String> {
        match self.until(Some(stop), raw_escapes) {
            Ok((text, _)) => Ok(text),
            Err(WordProblem::TooDeep) => Err(WordProblem::TooDeep),
            Err(_) if self.rest.is_empty() => Err(WordProblem::Syntax { what: missing }),
            Err(problem) => Err(problem),
        }
    }

    /// Reads a name: digits, or one special character, or letters, digits and `_`.
    fn name(&mut self) -> &'a str {
        let text = self.rest;
        let len = match (name::digits(text), self.peek()) {
            (0, Some('@' | '*' | '#' | '?' | '-' | '$' | '!')) => 1,
            (0, _) => name::word(text),
            (digits, _) => digits,
        };
        let (name, rest) = text.split_at(len);
        self.rest = rest;
        name
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = self.env.get(name);
        let names = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        names.insert(name.to_owned());
        value
    }
}

fn required(name: &str, word: String, unset: bool) -> WordProblem {
    let message = match word.as_str() {
        "" if unset => "is not allowed to be unset".to_owned(),
        "" => "is not allowed to be empty".to_owned(),
        _ => word,
    };
    WordProblem::Required { name: name.to_owned(), message }
}

#[cfg(test)]
#[path = "word_tests.rs"]
mod tests;
