//! JSON as Go's `json.MarshalIndent` prints it, and places in a file.

use serde::Serialize;

use crate::diag::LineRange;

/// Returns a value as JSON, indented by two blanks, with the characters escaped that Go escapes.
pub(super) fn pretty<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_string_pretty(value).expect("plain data with string keys");
    let mut out = String::with_capacity(text.len());
    // Outside of strings JSON has none of these.
    for c in text.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}

/// Ranges of the one source there is.
#[derive(Debug, Serialize)]
pub(super) struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

#[derive(Debug, Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Debug, Serialize)]
struct Position {
    #[serde(skip_serializing_if = "is_zero")]
    line: u32,
}

fn is_zero(line: &u32) -> bool {
    *line == 0
}

impl Location {
    /// Takes over lines as they are.
    pub(super) fn new(lines: &[LineRange]) -> Self {
        let range = |r: &LineRange| Range { start: Position { line: r.start }, end: Position { line: r.end } };
        Self { ranges: lines.iter().map(range).collect() }
    }

    /// Sorts lines and joins those that overlap.
    pub(super) fn merged(lines: &[LineRange]) -> Self {
        let mut lines = lines.to_vec();
        lines.sort_unstable();
        let mut merged: Vec<LineRange> = Vec::new();
        for range in lines {
            match merged.last_mut().filter(|last| range.start <= last.end) {
                Some(last) => last.end = last.end.max(range.end),
                None => merged.push(range),
            }
        }
        Self::new(&merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_texts_are_gos() {
        let lines = [(3, 4), (1, 1), (4, 6), (8, 8)].map(|(start, end)| LineRange { start, end });
        let json = serde_json::to_string(&Location::merged(&lines)).expect("json");
        let range = |start: u32, end: u32| format!(r#"{{"start":{{"line":{start}}},"end":{{"line":{end}}}}}"#);
        assert_eq!(json, format!(r#"{{"ranges":[{},{},{}]}}"#, range(1, 1), range(3, 6), range(8, 8)));
        assert_eq!(serde_json::to_string(&Location::new(&[])).expect("json"), "{}");
        assert_eq!(pretty(&["a<&>\n"]), "[\n  \"a\\u003c\\u0026\\u003e\\n\"\n]");
    }
}
