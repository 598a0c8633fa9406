//! Wildcards in the source of a copy or a removal: what of a tree they name.
//!
//! In: a pattern. Out: entries in the order of a walk by names. What is below a match is not looked at.

use std::os::unix::ffi::OsStrExt;

use super::error::{ChecksumError, display};
use super::index::{Walker, components};
use super::scan::text;
use super::select::{fixed_prefix, has_wildcard};
use super::tree::{Entry, Tree};
use crate::pattern::go;

impl Tree<'_> {
    /// Returns what the clean, absolute `pattern` names, its part before the first wildcard resolved inside the tree and
    /// followed if it is a link and `follow`; none if it has no wildcard, so that it is to be taken as it is.
    pub fn glob(&self, pattern: &str, follow: bool) -> Result<Option<Vec<Entry>>, ChecksumError> {
        if !has_wildcard(pattern) {
            return Ok(None);
        }
        let prefix = fixed_prefix(pattern);
        let rest = pattern[prefix.len()..].trim_matches('/');
        self.walk(|walker| {
            let Some(base) = walker.resolve(prefix.as_bytes(), follow)?.1 else {
                return Err(ChecksumError::NotFound { path: display(prefix.as_bytes()) });
            };
            matches_below(walker, base, rest).map(Some)
        })
    }
}

fn matches_below(walker: &mut Walker<'_>, base: u32, pattern: &str) -> Result<Vec<Entry>, ChecksumError> {
    let failed = |source| ChecksumError::Glob { pattern: pattern.to_owned(), source };
    let depth = components(pattern.as_bytes()).len();
    // Only a class, or an escape before one, may match more components than it is written with.
    let exact_depth = !pattern.contains(['[', '\\']);
    let mut found = Vec::new();
    let mut waiting = vec![(Vec::new(), base)];
    while let Some((path, node)) = waiting.pop() {
        if !path.is_empty() && go::matches(pattern, &text(&path)).map_err(failed)? {
            found.push(walker.entry(node));
            continue;
        }
        if exact_depth && components(&path).len() >= depth {
            continue;
        }
        let children = walker.children(node)?.to_vec();
        for child in children.into_iter().rev() {
            waiting.push((super::scan::join(&path, walker.index.node(child).name.as_bytes()), child));
        }
    }
    Ok(found)
}
