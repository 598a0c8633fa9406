//! The exec form: whether arguments are a JSON array of strings, by the rules of Go's decoder.
//!
//! In: the text of arguments. Out: the strings, or why it is none. Unlike most decoders, Go's takes lone surrogates
//! (as U+FFFD), and whether it takes the rest decides between exec form and shell form; so this is its own parser.

/// What a text that might be an exec form is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonArray {
    /// An array of strings.
    Strings(Vec<String>),
    /// An array with something else in it.
    OtherItems,
    /// Not a JSON array: shell form.
    NotJson,
}

/// How deep Go's decoder follows nested values.
const MAX_DEPTH: usize = 10_000;

/// Reads a text as a JSON array.
pub fn parse(text: &str) -> JsonArray {
    let mut reader = Reader { rest: text.trim_start() };
    if !reader.rest.starts_with('[') {
        return JsonArray::NotJson;
    }
    match reader.array() {
        Some(items) if reader.rest.trim_start_matches(is_json_space).is_empty() => {
            items.map_or(JsonArray::OtherItems, JsonArray::Strings)
        }
        _ => JsonArray::NotJson,
    }
}

fn is_json_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn token(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start_matches(is_json_space);
        self.rest.chars().next()
    }

    fn take(&mut self, c: char) -> Option<()> {
        (self.token()? == c).then(|| self.rest = &self.rest[c.len_utf8()..])
    }

    /// Reads an array; `None` if it is malformed, `Some(None)` if it holds more than strings.
    fn array(&mut self) -> Option<Option<Vec<String>>> {
        self.take('[')?;
        let mut items = Some(Vec::new());
        if self.token()? == ']' {
            self.take(']')?;
            return Some(items);
        }
        loop {
            if self.token()? == '"' {
                let item = self.string()?;
                items = items.map(|mut items| {
                    items.push(item);
                    items
                });
            } else {
                self.skip_value()?;
                items = None;
            }
            if self.token()? == ']' {
                self.take(']')?;
                return Some(items);
            }
            self.take(',')?;
        }
    }

    /// Checks any value. Open brackets are kept in a list, so that depth costs no stack.
    fn skip_value(&mut self) -> Option<()> {
        let mut open: Vec<char> = Vec::new();
        loop {
            match self.token()? {
                c @ ('[' | '{') => {
                    self.take(c)?;
                    let end = if c == '[' { ']' } else { '}' };
                    if self.token()? == end {
                        self.take(end)?;
                    } else {
                        open.push(end);
                        if open.len() >= MAX_DEPTH {
                            return None;
                        }
                        self.key_of(end)?;
                        continue;
                    }
                }
                '"' => drop(self.string()?),
                _ => self.scalar()?,
            }
            if !self.close(&mut open)? {
                return Some(());
            }
        }
    }

    /// After a value: closes what ends here. Returns whether another value follows.
    fn close(&mut self, open: &mut Vec<char>) -> Option<bool> {
        while let Some(&end) = open.last() {
            if self.token()? != end {
                self.take(',')?;
                self.key_of(end)?;
                return Some(true);
            }
            self.take(end)?;
            open.pop();
        }
        Some(false)
    }

    /// In an object, reads a key and its colon.
    fn key_of(&mut self, end: char) -> Option<()> {
        if end == '}' {
            if self.token()? != '"' {
                return None;
            }
            self.string()?;
            self.take(':')?;
        }
        Some(())
    }

    fn scalar(&mut self) -> Option<()> {
        let end = self.rest.find(|c: char| is_json_space(c) || matches!(c, ',' | ']' | '}')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (matches!(word, "true" | "false" | "null") || is_number(word)).then_some(())
    }

    fn string(&mut self) -> Option<String> {
        let mut out = String::new();
        let mut chars = self.rest.strip_prefix('"')?.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => out.push(escape(&mut chars)?),
                c if c < ' ' => return None,
                c => out.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(out)
    }
}

fn escape(chars: &mut std::str::Chars<'_>) -> Option<char> {
    Some(match chars.next()? {
        c @ ('"' | '\\' | '/') => c,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return unicode_escape(chars),
        _ => return None,
    })
}

fn unicode_escape(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let first = hex4(chars)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    let mut ahead = chars.clone();
    if ahead.next() == Some('\\')
        && ahead.next() == Some('u')
        && let Some(second) = hex4(&mut ahead).filter(|second| (0xdc00..0xe000).contains(second))
    {
        *chars = ahead;
        return char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
    }
    Some(char::REPLACEMENT_CHARACTER)
}

fn hex4(chars: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |value, _| Some(value << 4 | chars.next()?.to_digit(16)?))
}

/// Tells whether a word is a JSON number that fits a float.
fn is_number(word: &str) -> bool {
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let rest = word.strip_prefix('-').unwrap_or(word);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.starts_with('0')) {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        if digits(fraction) == 0 {
            return false;
        }
        rest = &fraction[digits(fraction)..];
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits(exponent) == 0 {
            return false;
        }
        rest = &exponent[digits(exponent)..];
    }
    rest.is_empty() && word.parse::<f64>().is_ok_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decides_like_go() {
        let strings = |items: &[&str]| JsonArray::Strings(items.iter().map(|s| (*s).to_owned()).collect());
        let cases = [
            ("[]", strings(&[])),
            (" [\"a\" , \"b\"] ", strings(&["a", "b"])),
            (r#"["\u00e9\n\/\ud83d\ude00"]"#, strings(&["é\n/😀"])),
            (r#"["\ud83dx"]"#, strings(&["\u{fffd}x"])),
            (r#"["a", 1]"#, JsonArray::OtherItems),
            (r#"[null, {"a": [true, -1.5e3, "x"], "b": {}}]"#, JsonArray::OtherItems),
            ("[[[]]]", JsonArray::OtherItems),
            ("['a']", JsonArray::NotJson),
            ("[\"a\",]", JsonArray::NotJson),
            ("[\"a\"] x", JsonArray::NotJson),
            ("[\"a\"", JsonArray::NotJson),
            ("[\"a\" \"b\"]", JsonArray::NotJson),
            ("[\"\\x\"]", JsonArray::NotJson),
            ("[\"\t\"]", JsonArray::NotJson),
            ("[01]", JsonArray::NotJson),
            ("[1e999]", JsonArray::NotJson),
            ("[ -f x ]", JsonArray::NotJson),
            ("[{\"a\"}]", JsonArray::NotJson),
            ("echo", JsonArray::NotJson),
            ("", JsonArray::NotJson),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), want, "{text}");
        }
        assert_eq!(parse(&"[".repeat(1_000_000)), JsonArray::NotJson);
    }

    proptest! {
        #[test]
        fn agrees_with_serde(text in r#"\[[\[\]{}",:a01.e\- ntrulfs\\]{0,14}\]"#) {
            let want = match serde_json::from_str::<Vec<serde_json::Value>>(&text) {
                Err(_) => JsonArray::NotJson,
                Ok(items) => {
                    let strings: Option<Vec<String>> = items.iter().map(|i| i.as_str().map(str::to_owned)).collect();
                    strings.map_or(JsonArray::OtherItems, JsonArray::Strings)
                }
            };
            prop_assert_eq!(parse(&text), want);
        }

        #[test]
        fn takes_what_serde_writes(items in prop::collection::vec(any::<String>(), 0..4)) {
            let text = serde_json::to_string(&items).expect("strings");
            prop_assert_eq!(parse(&text), JsonArray::Strings(items));
        }
    }
}
