//! Heredocs: which words of a line announce one.
//!
//! In: a logical line, or one word of it. Out: [`Heredoc`]s without their bodies, which follow in the file.

use std::collections::BTreeMap;

use super::instruction::Heredoc;
use super::word::{Lexer, WordError};

/// Finds the heredocs a line announces, in order. A line that cannot be read as words announces none.
pub fn in_line(line: &str) -> Result<Vec<Heredoc>, WordError> {
    let lexer = Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lexer::new('\\') };
    let Ok((words, _, _)) = lexer.words(line, &BTreeMap::new()) else { return Ok(Vec::new()) };
    words.iter().filter_map(|word| in_word(word).transpose()).collect()
}

/// Reads one word as the announcement of a heredoc: `[fd]<<[-]name`.
pub fn in_word(word: &str) -> Result<Option<Heredoc>, WordError> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (fd, rest) = word.split_at(digits);
    let Some(rest) = rest.strip_prefix("<<") else { return Ok(None) };
    let chomp = rest.starts_with('-');
    let name = rest.strip_prefix('-').unwrap_or(rest);
    let name = name.trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
    if name.is_empty() || name.contains('<') {
        return Ok(None);
    }
    let Some((name, expand)) = delimiter(name)? else { return Ok(None) };
    let (fd, body) = (fd.parse().unwrap_or(0), String::new());
    Ok(Some(Heredoc { name, fd, expand, chomp, body, bytes: None, not_text: None }))
}

/// Returns the delimiter without quotes, and whether it had none; nothing if it is not one word.
fn delimiter(text: &str) -> Result<Option<(String, bool)>, WordError> {
    let lexer = Lexer { skip_unset: true, ..Lexer::new('\\') };
    let raw = Lexer { raw_quotes: true, ..lexer };
    let (mut words, _, _) = lexer.words(text, &BTreeMap::new())?;
    let (raw_words, _, _) = raw.words(text, &BTreeMap::new())?;
    let quotes = |word: &str| word.matches(['\'', '"']).count();
    match (words.pop(), raw_words.as_slice()) {
        (Some(word), [raw_word]) if words.is_empty() => {
            let expand = quotes(&word) == quotes(raw_word);
            Ok(Some((word, expand)))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_heredocs_in_lines() {
        type Found = (&'static str, bool, bool);
        let cases: [(&str, &[Found]); 13] = [
            ("RUN <<EOF", &[("EOF", true, false)]),
            ("RUN cat << EOF", &[("EOF", true, false)]),
            ("RUN <<- EOF", &[]),
            ("RUN <<-'EOF' 3<<\"B C\"", &[("EOF", false, true), ("B C", false, false)]),
            ("RUN <<$EOF", &[("$EOF", true, false)]),
            ("RUN <<\\'EOF", &[("'EOF", true, false)]),
            ("RUN cat <<<x", &[]),
            ("RUN x=$(( 1<<2 ))", &[("2", true, false)]),
            ("RUN x=$((1<<2))", &[]),
            ("RUN 'a <<EOF'", &[]),
            ("RUN it's <<EOF", &[]),
            ("COPY --chown=a <<A <<B /x", &[("A", true, false), ("B", true, false)]),
            ("RUN echo <<", &[]),
        ];
        for (line, want) in cases {
            let found = in_line(line).expect(line);
            let found: Vec<_> = found.iter().map(|h| (h.name.as_str(), h.expand, h.chomp)).collect();
            assert_eq!(found, want, "{line}");
        }
    }

    #[test]
    fn reads_the_descriptor() {
        assert_eq!(in_word("12<<E").expect("valid").map(|h| h.fd), Some(12));
        assert_eq!(in_word("a<<E").expect("valid"), None);
    }

    proptest! {
        #[test]
        fn never_panics(line in "[a<\\-'\"$ \\\\0-9]{0,30}") {
            let _ = (in_line(&line), in_word(&line));
        }
    }
}
