//! One line of comma separated values, by the rules of RFC 4180 as Go's readers apply them.
//!
//! In: the value of `--mount`, `--device` and a few options. Out: its fields.

/// Why a line is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// The line is empty.
    #[error("EOF")]
    Empty,
    /// A quote inside a field that did not begin with one.
    #[error("parse error on line 1, column {column}: bare \" in non-quoted field")]
    BareQuote {
        /// Byte column, from 1.
        column: usize,
    },
    /// A quoted field that does not end, or is followed by more than a comma.
    #[error("parse error on line 1, column {column}: extraneous or missing \" in quoted-field")]
    Quote {
        /// Byte column, from 1.
        column: usize,
    },
}

/// Splits one line into its fields; one newline at the end is ignored.
pub fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut at = Some(0);
    while let Some(start) = at {
        let (field, next) = match line[start..].starts_with('"') {
            true => quoted(line, start + 1)?,
            false => unquoted(line, start)?,
        };
        fields.push(field);
        at = next;
    }
    Ok(fields)
}

/// Reads a bare field; returns it and where the next one starts.
fn unquoted(line: &str, start: usize) -> Result<(String, Option<usize>), CsvError> {
    let end = line[start..].find(',').map(|at| start + at);
    let field = &line[start..end.unwrap_or(line.len())];
    match field.find('"') {
        Some(at) => Err(CsvError::BareQuote { column: start + at + 1 }),
        None => Ok((field.to_owned(), end.map(|end| end + 1))),
    }
}

/// Reads a field after its opening quote; returns it and where the next one starts.
fn quoted(line: &str, start: usize) -> Result<(String, Option<usize>), CsvError> {
    let mut field = String::new();
    let mut from = start;
    loop {
        let Some(quote) = line[from..].find('"').map(|at| from + at) else {
            return Err(CsvError::Quote { column: from + 1 });
        };
        field.push_str(&line[from..quote]);
        match line.as_bytes().get(quote + 1) {
            None => return Ok((field, None)),
            Some(b',') => return Ok((field, Some(quote + 2))),
            Some(b'"') => field.push('"'),
            Some(_) => return Err(CsvError::Quote { column: quote + 1 }),
        }
        from = quote + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splits_and_unquotes() {
        let cases: [(&str, &[&str]); 7] = [
            ("a,b=c", &["a", "b=c"]),
            ("a,", &["a", ""]),
            (",", &["", ""]),
            ("\"a,\"\"b\",c", &["a,\"b", "c"]),
            ("\"\"", &[""]),
            ("a\r\n", &["a"]),
            ("type=bind,\"source=x,y\"", &["type=bind", "source=x,y"]),
        ];
        for (line, want) in cases {
            assert_eq!(fields(line).expect(line), want, "{line}");
        }
    }

    #[test]
    fn refuses_stray_quotes() {
        let cases = [
            ("", "EOF"),
            ("\n", "EOF"),
            ("a,b\"c", "parse error on line 1, column 4: bare \" in non-quoted field"),
            ("\"a\"b", "parse error on line 1, column 3: extraneous or missing \" in quoted-field"),
            ("\"a", "parse error on line 1, column 2: extraneous or missing \" in quoted-field"),
        ];
        for (line, want) in cases {
            assert_eq!(fields(line).expect_err(line).to_string(), want);
        }
    }

    proptest! {
        #[test]
        fn quoting_can_be_undone(items in prop::collection::vec("[^\r\n]{0,8}", 1..5)) {
            let line: Vec<String> = items.iter().map(|item| format!("\"{}\"", item.replace('"', "\"\""))).collect();
            prop_assert_eq!(fields(&line.join(",")).ok(), Some(items));
        }

        #[test]
        fn never_panics(line in any::<String>()) {
            let _ = fields(&line);
        }
    }
}
