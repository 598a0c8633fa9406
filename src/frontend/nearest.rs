//! `did you mean …?` for names in which case counts, such as those of variables and stages.

/// Distances from this on are too far to suggest.
const TOO_FAR: usize = 3;

/// Returns the first of the nearest options, or none if the word is one of them or all are far.
pub(crate) fn nearest<'o>(word: &str, options: &[&'o str]) -> Option<&'o str> {
    let word: Vec<char> = word.chars().collect();
    let mut best = (TOO_FAR, None);
    for option in options {
        let distance = distance(&word, option);
        if distance == 0 {
            return None;
        }
        if distance < best.0 {
            best = (distance, Some(*option));
        }
    }
    // Nothing can be meant by nothing.
    best.1.filter(|found| !found.is_empty())
}

/// Returns ` (did you mean X?)`, or nothing.
pub(crate) fn suffix(word: &str, options: &[&str]) -> String {
    nearest(word, options).map(|found| format!(" (did you mean {found}?)")).unwrap_or_default()
}

/// Counts the edits from one word to another; stops at those that differ too much in length.
fn distance(word: &[char], option: &str) -> usize {
    let option: Vec<char> = option.chars().collect();
    if word.len().abs_diff(option.len()) >= TOO_FAR {
        return TOO_FAR;
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
    row[option.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_counts() {
        for (word, options, expected) in [
            ("version", &["VERSION"][..], None),
            ("Foo", &["FOO"], Some("FOO")),
            ("TARGETARHC", &["TARGETOS", "TARGETARCH"], Some("TARGETARCH")),
            ("a", &["a", "b"], None),
            ("ab", &["abc", "abd"], Some("abc")),
            ("long", &["longer-by-far"], None),
        ] {
            assert_eq!(nearest(word, options), expected, "{word}");
        }
    }
}
