//! Makes foreign bytes fit to be shown: the one place that decides what of a process's output reaches a terminal or a log.
//!
//! In: chunks of bytes as a process wrote them ([`Sanitizer`]), or a whole text such as a step's name ([`escape`]).
//! Out: text with nothing in it that moves a cursor, sets a title, opens a link or reorders letters. Invariants: the output
//! does not depend on how the bytes were cut into chunks; of control characters only tab and newline come out, and ESC only
//! as the start of a colour sequence; a newline ends every sequence, so that nothing after it can be hidden; a colour never
//! outlives its line.

use std::fmt::Write as _;
use std::mem;

use super::Commands;

/// Longest line passed on, in bytes; the rest of it is dropped.
pub const LINE_LIMIT: usize = 1 << 20;

/// Stands at the end of a line that was cut.
const CUT_MARK: &str = " [line cut]";

/// Longest parameter list of a colour sequence that is looked at; longer ones are dropped.
const PARAMETER_LIMIT: usize = 64;

/// Longest memory of colours that are still on; a process that stacks up more loses the oldest.
const STYLE_LIMIT: usize = 128;

/// Whether colours of foreign text are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colors {
    /// They are.
    Keep,
    /// They are removed like any other sequence.
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ground,
    Escape,
    EscapeIntermediate,
    Sequence,
    /// Of no interest: waiting for its end.
    SkippedSequence,
    /// An operating system command or another string, which ends with BEL or ST.
    Text,
    TextEscape,
}

/// Cleans one stream of bytes.
#[derive(Debug)]
pub struct Sanitizer {
    colors: Colors,
    state: State,
    parameters: String,
    /// Start of a character whose end has not come yet.
    partial: Vec<u8>,
    /// The colours that are on, to be taken up again on the next line.
    style: String,
    line_length: usize,
    cut: bool,
    /// A carriage return has ended the line already; a line feed after it adds nothing.
    swallow_newline: bool,
}

impl Sanitizer {
    /// Starts at the beginning of a line.
    pub fn new(colors: Colors) -> Self {
        Self {
            colors,
            state: State::Ground,
            parameters: String::new(),
            partial: Vec::new(),
            style: String::new(),
            line_length: 0,
            cut: false,
            swallow_newline: false,
        }
    }

    /// Takes a chunk and returns what of it can be shown; lines end with a newline.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let mut out = String::with_capacity(bytes.len());
        let mut joined = mem::take(&mut self.partial);
        let mut rest = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.text(text, &mut out);
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    self.text(std::str::from_utf8(valid).unwrap_or_default(), &mut out);
                    let Some(bad) = error.error_len() else {
                        self.partial = after.to_vec();
                        break;
                    };
                    self.character(char::REPLACEMENT_CHARACTER, &mut out);
                    rest = &after[bad..];
                }
            }
        }
        out
    }

    /// Ends the stream: returns what was held back.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        if !mem::take(&mut self.partial).is_empty() {
            self.character(char::REPLACEMENT_CHARACTER, &mut out);
        }
        if self.line_length > 0 && !self.style.is_empty() {
            out.push_str("\x1b[0m");
        }
        self.style.clear();
        self.state = State::Ground;
        out
    }

    fn text(&mut self, text: &str, out: &mut String) {
        for c in text.chars() {
            self.character(c, out);
        }
    }

    fn character(&mut self, c: char, out: &mut String) {
        if c == '\n' || c == '\r' {
            self.state = State::Ground;
            return self.line_end(c, out);
        }
        match (self.state, c) {
            (State::Text, '\x1b') => self.state = State::TextEscape,
            (State::Text, '\x07' | '\u{9c}') | (State::TextEscape, '\\') => self.state = State::Ground,
            (State::Text, _) => {}
            (_, '\x18' | '\x1a') => self.state = State::Ground,
            (_, '\x1b') => self.state = State::Escape,
            (State::Ground, _) => self.ground(c, out),
            (State::Escape | State::TextEscape, _) => self.escape(c),
            (State::EscapeIntermediate, _) => self.end_unless(c, ' '..='/'),
            (State::Sequence, _) => self.sequence(c, out),
            (State::SkippedSequence, _) => self.end_unless(c, ' '..='?'),
        }
    }

    fn ground(&mut self, c: char, out: &mut String) {
        match c {
            '\u{9b}' => self.start_sequence(),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => self.state = State::Text,
            '\t' => self.emit(c, out),
            c if c.is_control() || is_reordering(c) => {}
            c => self.emit(c, out),
        }
    }

    fn escape(&mut self, c: char) {
        match c {
            '[' => self.start_sequence(),
            ']' | 'P' | 'X' | '^' | '_' => self.state = State::Text,
            ' '..='/' => self.state = State::EscapeIntermediate,
            _ => self.state = State::Ground,
        }
    }

    fn start_sequence(&mut self) {
        self.parameters.clear();
        self.state = State::Sequence;
    }

    fn sequence(&mut self, c: char, out: &mut String) {
        match c {
            '0'..='9' | ';' | ':' if self.parameters.len() < PARAMETER_LIMIT => self.parameters.push(c),
            'm' => {
                self.state = State::Ground;
                self.color(out);
            }
            ' '..='?' => self.state = State::SkippedSequence,
            _ => self.state = State::Ground,
        }
    }

    fn end_unless(&mut self, c: char, range: std::ops::RangeInclusive<char>) {
        if !range.contains(&c) {
            self.state = State::Ground;
        }
    }

    fn color(&mut self, out: &mut String) {
        if self.colors == Colors::Drop || self.cut {
            return;
        }
        let Some(kept) = color_parameters(&self.parameters) else { return };
        let sequence = format!("\x1b[{kept}m");
        if kept == "0" || kept.starts_with("0;") {
            self.style.clear();
        }
        if kept != "0" {
            if self.style.len() + sequence.len() > STYLE_LIMIT {
                self.style.clear();
            }
            self.style.push_str(&sequence);
        }
        // At the start of a line the colours wait in `style` for the first letter.
        if self.line_length > 0 {
            out.push_str(&sequence);
            self.line_length += sequence.len();
        }
    }

    fn emit(&mut self, c: char, out: &mut String) {
        self.swallow_newline = false;
        if self.cut {
            return;
        }
        if self.line_length == 0 {
            out.push_str(&self.style);
            self.line_length = self.style.len();
        }
        if self.line_length + c.len_utf8() > LINE_LIMIT {
            self.cut = true;
            return out.push_str(CUT_MARK);
        }
        out.push(c);
        self.line_length += c.len_utf8();
    }

    fn line_end(&mut self, c: char, out: &mut String) {
        let swallowed = if c == '\n' { mem::take(&mut self.swallow_newline) } else { self.line_length == 0 };
        if swallowed {
            return;
        }
        if self.line_length > 0 && !self.style.is_empty() {
            out.push_str("\x1b[0m");
        }
        out.push('\n');
        self.line_length = 0;
        self.cut = false;
        self.swallow_newline = c == '\r';
    }
}

/// Keeps what changes colour, weight, slant or underline; blinking and hidden text go.
fn color_parameters(parameters: &str) -> Option<String> {
    let mut kept: Vec<&str> = Vec::new();
    let mut rest = parameters.split(';');
    while let Some(parameter) = rest.next() {
        match parameter.split(':').next().unwrap_or_default() {
            "" => kept.push("0"),
            "38" | "48" if parameter.contains(':') => kept.push(parameter),
            "38" | "48" => {
                let mode = rest.next()?;
                let count = match mode {
                    "5" => 1,
                    "2" => 3,
                    _ => return None,
                };
                kept.extend([parameter, mode]);
                for _ in 0..count {
                    kept.push(rest.next()?);
                }
            }
            code if is_plain_color(code.parse().ok()?) => kept.push(code),
            _ => {}
        }
    }
    if kept.is_empty() { None } else { Some(kept.join(";")) }
}

fn is_plain_color(code: u16) -> bool {
    matches!(code, 0..=4 | 7 | 9 | 21..=24 | 27 | 29..=37 | 39..=47 | 49 | 90..=97 | 100..=107)
}

/// Whether a character changes the order in which others are shown, or breaks a line where a newline would not.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns `text` on one line, with every control and reordering character written out, as in `\n` or `\u{202e}`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || is_reordering(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Returns a text of several lines, such as an error with an excerpt of a foreign file, as it can be shown: letters, newlines
/// and tabs, and no commands where `commands` says so.
pub fn message(text: &str, commands: Commands) -> String {
    let mut sanitizer = Sanitizer::new(Colors::Drop);
    let clean = sanitizer.push(text.as_bytes()) + &sanitizer.finish();
    match commands {
        Commands::Defuse => clean.split_inclusive('\n').map(defuse_commands).collect(),
        Commands::PassOn => clean,
    }
}

/// Returns a line in which GitHub's runner finds no command: it takes `##[command]` anywhere in a line, and `::command::`
/// where a line starts with it but for white space. A zero-width space between the signs breaks both.
pub fn defuse_commands(line: &str) -> String {
    let line = line.replace("##[", "#\u{200b}#[").replace("##vso[", "#\u{200b}#vso[");
    // What is shown first may stand behind a colour sequence or a space the runner trims.
    let start = line.len() - line.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').len();
    match line[start..].strip_prefix("::") {
        Some(rest) => format!("{}:\u{200b}:{rest}", &line[..start]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clean(bytes: &[u8]) -> String {
        let mut sanitizer = Sanitizer::new(Colors::Keep);
        let mut out = sanitizer.push(bytes);
        out.push_str(&sanitizer.finish());
        out
    }

    #[test]
    fn l2_keeps_text_and_colours_only() {
        for (bytes, expected) in [
            (&b"plain\ttext\n"[..], "plain\ttext\n"),
            (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x07\n", "link\n"),
            (b"\x1b]52;c;cm0gLXJm\x07copied", "copied"),
            (b"\x1b]0;title\x07", ""),
            (b"\x1bPq#0\x1b\\after", "after"),
            (b"\xc2\x9b31mx\xc2\x9b2J", "\x1b[31mx\x1b[0m"),
            (b"\x9b31m", "\u{fffd}31m"),
            (b"50%\r\x1b[2K100%\r\n", "50%\n100%\n"),
            (b"a\r\r\n\r\nb", "a\n\nb"),
            (b"\x1b[1;31mred\nstill\x1b[0m\n", "\x1b[1;31mred\x1b[0m\n\x1b[1;31mstill\x1b[0m\n"),
            (b"\x1b[8mhidden\x1b[5;32mgreen\x1b[m", "hidden\x1b[32mgreen\x1b[0m"),
            (b"\x1b[38;5;8mx\x1b[38;2;1;2;3my", "\x1b[38;5;8mx\x1b[38;2;1;2;3my\x1b[0m"),
            (b"\x1b[10;10Hx\x1b[?25lx\x1b(Bx\x1bcx\x1b[>4;2mx", "xxxxx"),
            ("a\u{202e}b\u{2066}c\u{200f}d\u{2028}e".as_bytes(), "abcde"),
            (b"bell\x07 del\x7f nul\0 back\x08.", "bell del nul back."),
            (b"bad \xff\xfe utf \xe2\x82", "bad \u{fffd}\u{fffd} utf \u{fffd}"),
            (b"\x1b]0;never ended\nshown", "\nshown"),
        ] {
            assert_eq!(clean(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn l2_a_long_escape_or_line_stays_small() {
        let mut long = b"\x1b]52;c;".to_vec();
        long.resize(10 << 20, b'A');
        assert_eq!(clean(&long), "");
        let mut line = vec![b'x'; LINE_LIMIT + 10];
        line.extend_from_slice(b"\nnext\n");
        let shown = clean(&line);
        assert_eq!(shown.len(), LINE_LIMIT + CUT_MARK.len() + "\nnext\n".len());
        assert!(shown.ends_with("x [line cut]\nnext\n"));
    }

    #[test]
    fn l1_l2_messages_keep_lines_and_nothing_else() {
        let text = "Dockerfile:1\n 1 | >>> RUN\t##[group]x \x1b[2J\r::error::y\nerror: \x1b[31mbad\n";
        let plain = "Dockerfile:1\n 1 | >>> RUN\t##[group]x \n::error::y\nerror: bad\n";
        assert_eq!(message(text, Commands::PassOn), plain);
        let defused = plain.replace("##[", "#\u{200b}#[").replace("::error", ":\u{200b}:error");
        assert_eq!(message(text, Commands::Defuse), defused);
    }

    #[test]
    fn escapes_names() {
        assert_eq!(escape("RUN a\nb\x1b[2J\u{202e}\u{9b}é"), "RUN a\\nb\\u{1b}[2J\\u{202e}\\u{9b}é");
    }

    /// The sanitiser lets nothing through but these.
    fn is_allowed(out: &str) -> bool {
        let mut rest = out;
        while let Some(c) = rest.chars().next() {
            if let Some(sequence) = rest.strip_prefix("\x1b[") {
                let Some(end) = sequence.find('m') else { return false };
                if !sequence[..end].bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':') {
                    return false;
                }
                rest = &sequence[end + 1..];
                continue;
            }
            if (c.is_control() && c != '\n' && c != '\t') || is_reordering(c) {
                return false;
            }
            rest = &rest[c.len_utf8()..];
        }
        true
    }

    /// Bytes in which escape sequences are likely.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<u8>().prop_map(|b| vec![b]),
            "[ -~]{0,4}".prop_map(String::into_bytes),
            prop::sample::select(vec![
                "\x1b[", "\x1b]0;", "\x1b\\", "\x07", "\r", "\n", "\r\n", "31m", "0m", "m", ";", "38;5;", "\u{9b}",
                "\u{9d}", "\u{202e}", "é", "漢", "\x1b", "\x18", "2J",
            ])
            .prop_map(|s| s.as_bytes().to_vec()),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn l2_only_allowed_characters_come_out(bytes in hostile()) {
            let out = clean(&bytes);
            prop_assert!(is_allowed(&out), "{:?}", out);
        }

        #[test]
        fn chunks_make_no_difference(bytes in hostile(), cuts in prop::collection::vec(1usize..5, 0..60)) {
            let mut sanitizer = Sanitizer::new(Colors::Keep);
            let mut out = String::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                out.push_str(&sanitizer.push(chunk));
                rest = after;
            }
            out.push_str(&sanitizer.push(rest));
            out.push_str(&sanitizer.finish());
            prop_assert_eq!(out, clean(&bytes));
        }

        #[test]
        fn dropped_colours_leave_no_escape(bytes in hostile()) {
            let mut sanitizer = Sanitizer::new(Colors::Drop);
            let mut out = sanitizer.push(&bytes);
            out.push_str(&sanitizer.finish());
            prop_assert!(!out.contains('\x1b'), "{:?}", out);
        }
    }
}
