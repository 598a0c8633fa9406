//! `did you mean …?`: the nearest option, re-cased as the user wrote.
//!
//! In: a word and the options. Out: a suffix for a message. Distances are those of [`crate::diag::suggest`].

use crate::diag::suggest;

/// Whether case counts when a word is compared to the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// It counts.
    Sensitive,
    /// It does not; the suggestion takes the case of the word.
    Insensitive,
}

/// Returns the nearest option, or none if an option is the word itself or all are far.
pub fn nearest(word: &str, options: &[&str], case: Case) -> Option<String> {
    // Distance takes time; no option is near a word that is this much longer.
    if options.iter().all(|option| word.len() > 4 * (option.len() + 2)) {
        return None;
    }
    let exact = |option: &&str| match case {
        Case::Sensitive => *option == word,
        Case::Insensitive => option.to_lowercase() == word.to_lowercase(),
    };
    if options.iter().any(exact) {
        return None;
    }
    let found = suggest(word, options.iter().copied())?;
    Some(match case {
        Case::Sensitive => found.to_owned(),
        Case::Insensitive => recase(found, word),
    })
}

/// Returns ` (did you mean X?)`, or nothing.
pub fn suffix(word: &str, options: &[&str], case: Case) -> String {
    nearest(word, options, case).map(|found| format!(" (did you mean {found}?)")).unwrap_or_default()
}

fn recase(option: &str, like: &str) -> String {
    if like == like.to_lowercase() {
        option.to_lowercase()
    } else if like == like.to_uppercase() {
        option.to_uppercase()
    } else {
        option.to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_case_of_the_word() {
        let options = ["ENTRYPOINT", "ENV"];
        assert_eq!(suffix("FNTRYPOINT", &options, Case::Insensitive), " (did you mean ENTRYPOINT?)");
        assert_eq!(suffix("fntrypoint", &options, Case::Insensitive), " (did you mean entrypoint?)");
        assert_eq!(suffix("env", &options, Case::Insensitive), "");
        assert_eq!(suffix("form", &["from", "chown"], Case::Sensitive), " (did you mean from?)");
        assert_eq!(suffix("other", &["from", "chown"], Case::Sensitive), "");
    }
}
