//! The lines of a file around a mistake, as text.
//!
//! In: a [`Location`]. Out: a few lines, each of bounded length: what should be a Dockerfile can be anything.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::Location;

/// Lines shown around a marked range of one line; half as many around a longer one.
const CONTEXT_LINES: u32 = 2;

/// Characters shown of a line; longer than lines that people write.
const MAX_LINE: usize = 400;

/// Renders the lines around a location, the meant ones marked with `>>>` and, where known, the words underlined.
pub fn excerpt(location: &Location) -> String {
    let lines: Vec<&str> = location.text.split('\n').map(|l| l.trim_end_matches('\r')).collect();
    let Some(range) = location.ranges.first().filter(|r| r.start > 0 && (r.start as usize) <= lines.len()) else {
        return format!("{}\n", location.file);
    };
    let last = location.ranges.last().map_or(range.end, |r| r.end).max(range.start).min(lines.len() as u32);
    let around = if last > range.start { CONTEXT_LINES / 2 } else { CONTEXT_LINES };
    let first_shown = range.start.saturating_sub(around).max(1);
    let last_shown = (last + around).min(lines.len() as u32);
    let mut mark = location.mark.as_deref().filter(|mark| !mark.is_empty());
    let mut out = format!("{}:{}\n{}\n", location.file, range.start, "-".repeat(20));
    for number in first_shown..=last_shown {
        let line = lines[number as usize - 1];
        let meant = location.ranges.iter().any(|r| (r.start..=r.end).contains(&number));
        let found = mark.filter(|_| meant).and_then(|words| Some((line.find(words)?, words)));
        let line = window(line, found.map_or(0, |(at, _)| at));
        let _ = writeln!(out, " {number:>3} | {} {line}", if meant { ">>>" } else { "   " });
        if let Some((_, words)) = found {
            out.push_str(&underline(&line, words));
            mark = None;
        }
    }
    out.push_str(&"-".repeat(20));
    out.push('\n');
    out
}

/// Cuts a line that is too long, so that what begins at byte `at` is in it.
fn window(line: &str, at: usize) -> Cow<'_, str> {
    if line.chars().count() <= MAX_LINE {
        return line.into();
    }
    let before = line[..at].chars().count();
    let skipped = if before < MAX_LINE / 2 { 0 } else { before - MAX_LINE / 4 };
    shorten(line, skipped)
}

/// Returns as much of a text as is shown of a line, from a character on, with `…` for what is left out.
fn shorten(text: &str, skipped: usize) -> Cow<'_, str> {
    let kept: String = text.chars().skip(skipped).take(MAX_LINE).collect();
    let begins = if skipped > 0 { "…" } else { "" };
    let ends = if text.chars().nth(skipped + MAX_LINE).is_some() { "…" } else { "" };
    format!("{begins}{kept}{ends}").into()
}

/// Underlines words, or as much of them as is in the line.
fn underline(line: &str, words: &str) -> String {
    let shown: Vec<char> = line.trim_end_matches('…').chars().collect();
    let words: Vec<char> = words.chars().collect();
    let fits = |start: &usize| shown[*start..].iter().zip(&words).all(|(a, b)| a == b);
    let Some(start) = (0..shown.len()).find(fits) else { return String::new() };
    let lead: String = shown[..start].iter().map(|c| if *c == '\t' { '\t' } else { ' ' }).collect();
    format!("     |     {lead}{}\n", "^".repeat(words.len().min(shown.len() - start)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::LineRange;

    fn location(text: &str, line: u32, mark: &str) -> Location {
        let ranges = vec![LineRange { start: line, end: line }];
        Location { file: "Dockerfile".into(), text: text.into(), ranges, mark: Some(mark.into()) }
    }

    #[test]
    fn excerpt_marks_the_line_and_the_word() {
        let text = excerpt(&location("FROM scratch\nENV foo=bar\nCOPY --foo=bar / /\nENV bar=baz\n", 3, "--foo"));
        assert!(text.contains("   3 | >>> COPY --foo=bar / /\n     |          ^^^^^\n"), "{text}");
    }

    #[test]
    fn lines_without_end_are_cut_around_the_mark() {
        let garbage = "é".repeat(5000);
        let text = excerpt(&location(&garbage, 1, &garbage));
        assert!(text.chars().count() < 3 * MAX_LINE, "{text}");
        assert!(text.contains(&"^".repeat(MAX_LINE)) && !text.contains(&"^".repeat(MAX_LINE + 1)), "{text}");
        let text = excerpt(&location(&format!("RUN {garbage} --oops {garbage}"), 1, "--oops"));
        let (shown, marks) = (text.lines().nth(2).expect("line"), text.lines().nth(3).expect("marks"));
        let column = shown.chars().position(|c| c == '-').expect("shown");
        assert_eq!(marks.chars().position(|c| c == '^'), Some(column), "{text}");
        assert!(shown.contains(">>> …é") && shown.ends_with("é…"), "{text}");
    }
}
