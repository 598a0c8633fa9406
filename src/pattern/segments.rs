//! One pattern of an ignore file, compiled.
//!
//! In: a cleaned pattern. Out: [`Compiled`], which tells whether a path matches. Simple shapes are string comparisons;
//! their odd corners (`**foo` is a suffix, `foo**` a prefix, across `/`) are those of the reference implementation. The
//! rest is matched by a search that visits each pair of wildcard and position once.

use super::go::{Token, tokens};

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Compiled {
    /// The path is this.
    Exact(String),
    /// The path begins with this.
    Prefix(String),
    /// The path ends with this.
    Suffix(String),
    /// The path matches these parts.
    Parts(Vec<Part>),
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Anything Go's `path.Match` knows.
    Go(Token),
    /// `**`: nothing, or any number of directories.
    Dirs,
    /// `**` at the end: everything.
    Rest,
}

impl Compiled {
    /// Compiles a cleaned pattern that Go's `path.Match` takes.
    pub(super) fn new(pattern: &str) -> Self {
        let parts = parts(pattern);
        let (last, front) = match parts.split_last() {
            Some((last, front)) => (last, front),
            None => return Self::Exact(String::new()),
        };
        let plain = !pattern.contains(['\\', '[', ']']);
        if plain && let Some(text) = literal(&parts) {
            return Self::Exact(text);
        }
        if plain
            && matches!(last, Part::Rest)
            && let Some(text) = literal(front)
        {
            return Self::Prefix(text);
        }
        if plain && matches!(parts[0], Part::Dirs) && literal(&parts[1..]).is_some() {
            // A slash behind the `**` is part of the suffix.
            return Self::Suffix(pattern[2..].to_owned());
        }
        Self::Parts(parts)
    }

    /// Tells whether a path matches.
    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(text) => path.starts_with(text.as_str()),
            Self::Suffix(text) => path.ends_with(text.as_str()) || text.strip_prefix('/') == Some(path),
            Self::Parts(parts) => Search::new(parts, path, Until::End).run(),
        }
    }

    /// Tells whether a path, or a parent of it, matches.
    pub(super) fn matches_or_parent(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => path.strip_prefix(text.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/')),
            // Whatever begins a parent begins the path.
            Self::Prefix(_) => self.matches(path),
            Self::Suffix(_) => self.matches(path) || path.match_indices('/').any(|(at, _)| self.matches(&path[..at])),
            Self::Parts(parts) => Search::new(parts, path, Until::Slash).run(),
        }
    }
}

/// What must follow a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The end.
    End,
    /// The end, or a slash: then it is a parent that matches. So all parents take one search.
    Slash,
}

fn parts(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let tokens = tokens(pattern).unwrap_or_default();
    let mut rest = tokens.as_slice();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != Token::Star || rest.first() != Some(&Token::Star) {
            parts.push(Part::Go(first.clone()));
            continue;
        }
        rest = &rest[1..];
        rest = rest.strip_prefix(&[Token::Literal('/')]).unwrap_or(rest);
        parts.push(if rest.is_empty() { Part::Rest } else { Part::Dirs });
    }
    parts
}

fn literal(parts: &[Part]) -> Option<String> {
    parts
        .iter()
        .map(|part| match part {
            Part::Go(Token::Literal(c)) => Some(*c),
            _ => None,
        })
        .collect()
}

/// A search for a way to match.
struct Search<'a> {
    parts: &'a [Part],
    path: &'a str,
    until: Until,
    /// Ways not tried yet: part and byte position.
    open: Vec<(usize, usize)>,
    /// For each wildcard, the positions it was tried at.
    tried: Vec<u64>,
    /// For each part, how many wildcards are before it.
    wildcards: Vec<usize>,
}

impl<'a> Search<'a> {
    fn new(parts: &'a [Part], path: &'a str, until: Until) -> Self {
        let mut count = 0;
        let mut wildcards = Vec::with_capacity(parts.len());
        for part in parts {
            wildcards.push(count);
            count += usize::from(matches!(part, Part::Dirs | Part::Go(Token::Star)));
        }
        let bits = count * (path.len() + 1);
        Self { parts, path, until, open: vec![(0, 0)], tried: vec![0; bits.div_ceil(64)], wildcards }
    }

    fn run(&mut self) -> bool {
        while let Some((part, at)) = self.open.pop() {
            if self.follow(part, at) {
                return true;
            }
        }
        false
    }

    /// Follows one way as far as it goes; other ways that begin on it are noted.
    fn follow(&mut self, mut part: usize, mut at: usize) -> bool {
        loop {
            let c = self.path[at..].chars().next();
            let next = match (self.parts.get(part), c) {
                (None, Some('/')) => return self.until == Until::Slash,
                (None, c) => return c.is_none(),
                (Some(Part::Rest), _) => return true,
                (Some(Part::Dirs), _) => self.skip_directory(part, at),
                (Some(Part::Go(Token::Star)), c) => self.skip_char(part, at, c),
                (Some(Part::Go(token)), Some(c)) => token.matches(c).then_some((part + 1, at + c.len_utf8())),
                (Some(Part::Go(_)), None) => None,
            };
            let Some(next) = next else { return false };
            (part, at) = next;
        }
    }

    fn skip_directory(&mut self, part: usize, at: usize) -> Option<(usize, usize)> {
        self.try_after(part, at)?;
        let slash = self.path[at..].find('/')?;
        Some((part, at + slash + 1))
    }

    fn skip_char(&mut self, part: usize, at: usize, c: Option<char>) -> Option<(usize, usize)> {
        self.try_after(part, at)?;
        let c = c.filter(|c| *c != '/')?;
        Some((part, at + c.len_utf8()))
    }

    /// Notes that the wildcard may end here; none if that was tried before.
    fn try_after(&mut self, part: usize, at: usize) -> Option<()> {
        let bit = self.wildcards[part] * (self.path.len() + 1) + at;
        let word = &mut self.tried[bit / 64];
        let mask = 1 << (bit % 64);
        if *word & mask != 0 {
            return None;
        }
        *word |= mask;
        self.open.push((part + 1, at));
        Some(())
    }
}
