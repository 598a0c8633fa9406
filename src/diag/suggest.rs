//! `did you mean …?`: the one engine for words of the user, whatever they name.
//!
//! In: a word and the options. Out: the nearest option, or none. The distance is Levenshtein's: single characters inserted,
//! deleted or replaced, each for one. An option is near within [`NEAREST`] edits, the first of equally near ones counts, and a
//! word that is an option itself gets no suggestion: then something else is wrong. BuildKit measures the same, and its texts of
//! errors and warnings hold what it found, so nothing here may be cleverer.

/// Edits within which an option is near.
const NEAREST: usize = 2;

/// Whether case counts when a word is compared to the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// It counts: names of flags, variables and stages.
    Sensitive,
    /// It does not; where the option is put into a text it takes the case of the word.
    Insensitive,
}

/// Returns the option nearest to `word`, whatever the case; none if it is one of them or all are far.
pub fn suggest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(word, options, Case::Insensitive)
}

/// Returns the option nearest to `word`, as the option is written; none if it is one of them or all are far.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>, case: Case) -> Option<&'a str> {
    let word: Vec<char> = folded(word, case);
    let mut best: Option<(usize, &str)> = None;
    for option in options {
        let distance = distance(&word, &folded(option, case));
        if distance == Some(0) {
            return None;
        }
        if let Some(distance) = distance.filter(|d| best.is_none_or(|(least, _)| *d < least)) {
            best = Some((distance, option));
        }
    }
    // Nothing can be meant by nothing.
    best.map(|(_, option)| option).filter(|option| !option.is_empty())
}

/// Returns ` (did you mean X?)`, or nothing.
pub fn did_you_mean<'a>(word: &str, options: impl IntoIterator<Item = &'a str>, case: Case) -> String {
    let found = nearest(word, options, case).map(|option| match case {
        Case::Sensitive => option.to_owned(),
        Case::Insensitive if word == word.to_uppercase() && word != word.to_lowercase() => option.to_uppercase(),
        Case::Insensitive => option.to_lowercase(),
    });
    found.map(|found| format!(" (did you mean {found}?)")).unwrap_or_default()
}

fn folded(text: &str, case: Case) -> Vec<char> {
    match case {
        Case::Sensitive => text.chars().collect(),
        Case::Insensitive => text.chars().flat_map(char::to_lowercase).collect(),
    }
}

/// Counts the edits from one word to another; none if there are more than [`NEAREST`].
fn distance(word: &[char], option: &[char]) -> Option<usize> {
    // Words that differ that much in length need no table: a word may be as long as a file.
    if word.len().abs_diff(option.len()) > NEAREST {
        return None;
    }
    let mut row: Vec<usize> = (0..=option.len()).collect();
    for (at, a) in word.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, b) in option.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().filter(|distance| *distance <= NEAREST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_within_two_edits() {
        for (word, options, sensitive, insensitive) in [
            ("FNTRYPOINT", &["ENTRYPOINT", "ENV"][..], Some("ENTRYPOINT"), Some("ENTRYPOINT")),
            ("fntrypoint", &["ENTRYPOINT"], None, Some("ENTRYPOINT")),
            ("version", &["VERSION"], None, None),
            ("Foo", &["FOO"], Some("FOO"), None),
            ("TARGETARHC", &["TARGETOS", "TARGETARCH"], Some("TARGETARCH"), Some("TARGETARCH")),
            ("a", &["a", "b"], None, None),
            ("ab", &["abc", "abd"], Some("abc"), Some("abc")),
            ("long", &["longer-by-far"], None, None),
            ("xyz", &["abcd"], None, None),
            ("ä", &["ö"], Some("ö"), Some("ö")),
        ] {
            assert_eq!(nearest(word, options.iter().copied(), Case::Sensitive), sensitive, "{word}");
            assert_eq!(suggest(word, options.iter().copied()), insensitive, "{word}");
        }
    }

    #[test]
    fn takes_the_case_of_the_word() {
        let options = ["ENTRYPOINT", "ENV"];
        assert_eq!(did_you_mean("FNTRYPOINT", options, Case::Insensitive), " (did you mean ENTRYPOINT?)");
        assert_eq!(did_you_mean("fntrypoint", options, Case::Insensitive), " (did you mean entrypoint?)");
        assert_eq!(did_you_mean("env", options, Case::Insensitive), "");
        assert_eq!(did_you_mean("form", ["from", "chown"], Case::Sensitive), " (did you mean from?)");
        assert_eq!(did_you_mean("other", ["from", "chown"], Case::Sensitive), "");
    }
}
