//! Selectors: which paths of a tree a digest covers, with wildcards and patterns.
//!
//! In: a tree and selectors. Out: a digest over the digests of all selectors. Invariant: the walk visits what BuildKit's
//! visits, in its order; directories in a pattern walk count by their header and what is included below them.

use super::error::{ChecksumError, display};
use super::index::{ROOT, Walker, components};
use super::scan::text;
use super::tree::{Entry, Tree};
use crate::digest::{Digest, Hasher};
use crate::pattern::{MatchInfo, Matcher, go};
use std::os::unix::ffi::OsStrExt;

/// Which part of a tree counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// Path from the root, or a pattern.
    pub path: String,
    /// Whether a link named by the path is followed.
    pub follow: bool,
    /// Whether the path is a pattern.
    pub wildcard: bool,
    /// What counts below the path; all if empty.
    pub include: Vec<String>,
    /// What does not.
    pub exclude: Vec<String>,
    /// Paths of which something must be included.
    pub required: Vec<String>,
}

impl Selector {
    fn plain(&self) -> bool {
        !self.wildcard && self.include.is_empty() && self.exclude.is_empty()
    }

    /// The path as BuildKit's keys have it: with a leading slash, and empty for the root.
    fn clean_path(&self) -> String {
        let parts = components(self.path.as_bytes());
        let mut clean: Vec<Vec<u8>> = Vec::new();
        for part in parts {
            if part == b".." { drop(clean.pop()) } else { clean.push(part) }
        }
        clean.iter().map(|part| format!("/{}", String::from_utf8_lossy(part))).collect()
    }
}

/// Returns the digest over all selectors of a tree; no selector stands for the whole tree.
pub fn content_digest(tree: &Tree<'_>, selectors: &[Selector]) -> Result<Digest, ChecksumError> {
    let whole = [Selector::default()];
    let selectors = if selectors.is_empty() { &whole[..] } else { selectors };
    tree.walk(|walker| {
        let digests = selectors.iter().map(|selector| selected(walker, selector));
        Ok(combine(&digests.collect::<Result<Vec<_>, _>>()?))
    })
}

/// Lists what the digest over all selectors of a tree covers, each file and directory with its own digest; what was hashed
/// before is not read again.
pub fn files_of(
    tree: &Tree<'_>,
    selectors: &[Selector],
    each: &mut dyn FnMut(&Entry, &Digest),
) -> Result<(), ChecksumError> {
    let whole = [Selector::default()];
    let selectors = if selectors.is_empty() { &whole[..] } else { selectors };
    tree.walk(|walker| {
        for selector in selectors {
            for node in covered(walker, selector)? {
                if let Some(digest) = walker.index.node(node).own() {
                    each(&walker.entry(node), digest);
                }
            }
        }
        Ok(())
    })
}

fn covered(walker: &mut Walker<'_>, selector: &Selector) -> Result<Vec<u32>, ChecksumError> {
    let path = selector.clean_path();
    if selector.plain() {
        let found = walker.resolve(path.as_bytes(), selector.follow)?.1;
        return Ok(found.map(|node| walker.index.below(node)).unwrap_or_default());
    }
    let mut walk = PatternWalk::new(selector, path)?;
    let mut nodes = Vec::new();
    for item in walk.run(walker)? {
        let linked = item.top && selector.follow && walker.index.node(item.node).link.is_some();
        match walker.resolve(&item.path, true)?.1.filter(|_| linked) {
            Some(node) => nodes.extend(walker.index.below(node)),
            None => nodes.push(item.node),
        }
    }
    Ok(nodes)
}

/// Returns the digest over all selectors of the empty tree, in which only the root can be selected.
pub fn scratch_digest(selectors: &[Selector]) -> Result<Digest, ChecksumError> {
    if let Some(selector) = selectors.iter().find(|selector| !selector.clean_path().is_empty()) {
        return Err(ChecksumError::NotFound { path: selector.path.clone() });
    }
    Ok(combine(&vec![Digest::compute(b""); selectors.len().max(1)]))
}

fn combine(digests: &[Digest]) -> Digest {
    let texts: Vec<&str> = digests.iter().map(Digest::as_str).collect();
    Digest::compute(texts.join("\0"))
}

/// Returns the selectors in the order they are hashed, without those that others cover.
pub fn dedupe(selectors: &[Selector]) -> Vec<Selector> {
    let mut kept = Vec::new();
    for follow in [false, true] {
        let plain = selectors.iter().filter(|s| s.plain() && s.follow == follow);
        let paths: Vec<&str> = plain.map(|s| s.path.as_str()).collect();
        for path in without_covered(&paths) {
            kept.push(Selector { path: path.to_owned(), follow, ..Selector::default() });
        }
    }
    kept.extend(selectors.iter().filter(|s| !s.plain()).cloned());
    kept.sort_by(|a, b| a.path.cmp(&b.path));
    kept
}

fn without_covered<'a>(paths: &[&'a str]) -> Vec<&'a str> {
    let set: std::collections::BTreeSet<&str> = paths.iter().copied().collect();
    let covers = |over: &str, path: &str| {
        over != path && path.strip_prefix(over).is_some_and(|rest| over.ends_with('/') || rest.starts_with('/'))
    };
    set.iter().copied().filter(|path| !set.iter().any(|over| covers(over, path))).collect()
}

pub(super) fn selected(walker: &mut Walker<'_>, selector: &Selector) -> Result<Digest, ChecksumError> {
    let path = selector.clean_path();
    if selector.plain() {
        return plain(walker, path.as_bytes(), selector.follow);
    }
    let mut walk = PatternWalk::new(selector, path)?;
    let included = walk.run(walker)?;
    for required in &selector.required {
        if !included.iter().any(|item| item.path.starts_with(required.as_bytes())) {
            return Err(ChecksumError::NotFound { path: required.clone() });
        }
    }
    walk.digest(walker, &included)
}

fn plain(walker: &mut Walker<'_>, path: &[u8], follow: bool) -> Result<Digest, ChecksumError> {
    match walker.resolve(path, follow)?.1 {
        Some(node) => walker.digest(node),
        None => Err(ChecksumError::NotFound { path: display(path) }),
    }
}

/// One thing that counts, with its path as the selector spells it.
struct Included {
    path: Vec<u8>,
    node: u32,
    top: bool,
}

/// A directory around the current one.
struct Above {
    path: Vec<u8>,
    node: u32,
    top: bool,
    include: MatchInfo,
    exclude: MatchInfo,
    included: bool,
}

struct PatternWalk<'a> {
    selector: &'a Selector,
    path: String,
    /// The path up to its first component with a wildcard, as written.
    prefix: String,
    include: Option<Matcher>,
    exclude: Option<Matcher>,
    above: Vec<Above>,
    last_match: Option<Vec<u8>>,
}

impl<'a> PatternWalk<'a> {
    fn new(selector: &'a Selector, path: String) -> Result<Self, ChecksumError> {
        let prefix = if selector.wildcard { fixed_prefix(&path).to_owned() } else { path.clone() };
        Ok(Self {
            selector,
            path,
            prefix,
            include: matcher(&selector.include)?,
            exclude: matcher(&selector.exclude)?,
            above: Vec::new(),
            last_match: None,
        })
    }

    /// Returns what is included, in the order of keys, the directories around it before it.
    fn run(&mut self, walker: &mut Walker<'_>) -> Result<Vec<Included>, ChecksumError> {
        let mut included = Vec::new();
        let follow = self.selector.wildcard && self.prefix != self.path;
        let Some(start) = walker.resolve(self.prefix.as_bytes(), follow)?.1 else { return Ok(included) };
        if !self.selector.wildcard {
            walker.load_all(start)?;
        }
        let mut waiting = vec![(self.prefix.clone().into_bytes(), start)];
        while let Some((path, node)) = waiting.pop() {
            let below = self.visit(walker, &mut included, &path, node)?;
            if below == Below::Walk && walker.index.node(node).stat.is_dir() {
                let children = walker.children(node)?.to_vec();
                for child in children.into_iter().rev() {
                    let name = walker.index.node(child).name.as_bytes();
                    waiting.push(([&path, &b"/"[..], name].concat(), child));
                }
            }
        }
        Ok(included)
    }

    fn visit(
        &mut self,
        walker: &mut Walker<'_>,
        included: &mut Vec<Included>,
        path: &[u8],
        node: u32,
    ) -> Result<Below, ChecksumError> {
        while self.above.last().is_some_and(|above| !under(path, &above.path)) {
            self.above.pop();
        }
        let directory = walker.index.node(node).stat.is_dir();
        if node == ROOT && self.path.is_empty() && path.is_empty() {
            return Ok(Below::Walk);
        }
        if self.selector.wildcard && !self.matches(path)? {
            return Ok(if self.may_match_below(path) { Below::Walk } else { Below::Skip });
        }
        if directory && self.selector.wildcard && self.last_match.as_deref() == Some(path) {
            walker.load_all(node)?;
        }
        let base = self.last_match.as_deref().unwrap_or(self.path.as_bytes());
        let candidate = text(relative(path, base)).into_owned();
        let (counts, include, exclude) = self.counts(&candidate);
        let top = self.above.is_empty();
        let skip = !counts && exclude.1 && !self.exclude.as_ref().is_some_and(Matcher::has_exclusions);
        if counts {
            for above in self.above.iter_mut().filter(|above| !above.included) {
                above.included = true;
                included.push(Included { path: above.path.clone(), node: above.node, top: above.top });
            }
            included.push(Included { path: path.to_vec(), node, top });
        }
        if directory {
            let (include, exclude) = (include, exclude.0);
            self.above.push(Above { path: path.to_vec(), node, top, include, exclude, included: counts });
        }
        Ok(if skip { Below::Skip } else { Below::Walk })
    }

    /// Whether a path matches the wildcard, or is below the last one that did.
    fn matches(&mut self, path: &[u8]) -> Result<bool, ChecksumError> {
        if self.last_match.as_deref().is_some_and(|last| under(path, last)) {
            return Ok(true);
        }
        let failed = |source| ChecksumError::Glob { pattern: self.path.clone(), source };
        let matched = go::matches(&self.path, &text(path)).map_err(failed)?;
        if matched {
            self.last_match = Some(path.to_vec());
        }
        Ok(matched)
    }

    /// Neither `*` nor `?` matches a slash, so a match has as many components as the pattern; a class may match one.
    fn may_match_below(&self, path: &[u8]) -> bool {
        if self.path.contains(['[', '\\']) {
            return true;
        }
        let (pattern, found) = (components(self.path.as_bytes()), components(path));
        let fits = |(pattern, name): (&Vec<u8>, &Vec<u8>)| go::matches(&text(pattern), &text(name)).unwrap_or(true);
        found.len() < pattern.len() && pattern.iter().zip(&found).all(fits)
    }

    /// Whether the patterns let a path count; the match of each list is for what is below; and whether it was excluded.
    fn counts(&self, candidate: &str) -> (bool, MatchInfo, (MatchInfo, bool)) {
        let none = MatchInfo::default();
        let above = self.above.last();
        let mut include = MatchInfo::default();
        if let Some(matcher) = &self.include {
            let (matched, info) = matcher.matches_with(candidate, above.map_or(&none, |a| &a.include));
            if !matched {
                return (false, info, (none, false));
            }
            include = info;
        }
        let Some(matcher) = &self.exclude else { return (true, include, (none, false)) };
        let (matched, info) = matcher.matches_with(candidate, above.map_or(&none, |a| &a.exclude));
        (!matched, include, (info, matched))
    }

    fn digest(&self, walker: &mut Walker<'_>, included: &[Included]) -> Result<Digest, ChecksumError> {
        let nodes: Vec<u32> = included.iter().map(|item| item.node).collect();
        walker.hash(&nodes)?;
        let mut digests = Vec::with_capacity(included.len());
        for item in included {
            digests.push(self.item_digest(walker, item)?);
        }
        match (included, &digests[..]) {
            ([], _) => return Ok(Digest::compute(b"")),
            ([item], [digest]) if base_name(&item.path) == base_name(self.path.as_bytes()) => return Ok(digest.clone()),
            _ => {}
        }
        let mut hasher = Hasher::new();
        for (item, digest) in included.iter().zip(&digests) {
            let rest = item.path.strip_prefix(self.prefix.as_bytes()).unwrap_or(&item.path);
            let key: Vec<u8> = rest.iter().map(|b| if *b == b'/' { 0 } else { *b }).collect();
            hasher.update(if key.is_empty() { b"\0" } else { &key });
            hasher.update(digest.as_str().as_bytes());
        }
        Ok(hasher.finish())
    }

    /// Only links that are in no included directory are followed.
    fn item_digest(&self, walker: &mut Walker<'_>, item: &Included) -> Result<Digest, ChecksumError> {
        let node = walker.index.node(item.node);
        if item.top && self.selector.follow && node.link.is_some() {
            return plain(walker, &item.path, true);
        }
        Ok(node.own().expect("hashed or read before").clone())
    }
}

/// Whether what is below a directory is of interest.
#[derive(PartialEq, Eq)]
enum Below {
    Walk,
    Skip,
}

fn matcher(patterns: &[String]) -> Result<Option<Matcher>, ChecksumError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let failed = |source| ChecksumError::Pattern { pattern: patterns.join(", "), source };
    Matcher::new(patterns).map(Some).map_err(failed)
}

/// The part of a pattern before its first component with a wildcard, without the slash after it.
pub(super) fn fixed_prefix(path: &str) -> &str {
    let mut end = 0;
    for part in path.split_inclusive('/') {
        if has_wildcard(part) {
            break;
        }
        end += part.len();
    }
    path[..end].trim_end_matches('/')
}

/// Returns whether a path has an unescaped `*`, `?` or `[`.
pub(super) fn has_wildcard(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    false
}

fn under(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

fn relative<'p>(path: &'p [u8], base: &[u8]) -> &'p [u8] {
    match path.strip_prefix(base) {
        Some(b"") => b"",
        Some(rest) => rest.strip_prefix(b"/").unwrap_or(path),
        None => path,
    }
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or_default()
}
