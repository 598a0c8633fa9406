//! One line of comma-separated fields (RFC 4180), as the values of `--output` are written.

/// Splits a line into fields; a field in double quotes may hold commas, and two quotes for one.
pub(super) fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(rest)?,
        };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

fn plain_field(text: &str) -> Result<(String, Option<&str>), &'static str> {
    let (field, after) = match text.split_once(',') {
        Some((field, after)) => (field, Some(after)),
        None => (text, None),
    };
    if field.contains('"') {
        return Err("a quote in a field that does not start with one");
    }
    Ok((field.to_owned(), after))
}

fn quoted_field(text: &str) -> Result<(String, Option<&str>), &'static str> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or("a quoted field without its closing quote")?;
        field.push_str(part);
        if let Some(more) = after.strip_prefix('"') {
            field.push('"');
            rest = more;
        } else if after.is_empty() {
            return Ok((field, None));
        } else {
            let after = after.strip_prefix(',').ok_or("text behind the closing quote of a field")?;
            return Ok((field, Some(after)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        for (line, fields) in [
            ("", vec![""]),
            ("a,b", vec!["a", "b"]),
            ("a,,", vec!["a", "", ""]),
            (r#"type=image,"name=a,b",push=true"#, vec!["type=image", "name=a,b", "push=true"]),
            (r#""say ""x""",y"#, vec![r#"say "x""#, "y"]),
        ] {
            assert_eq!(split(line).expect(line), fields, "{line}");
        }
        for line in [r#"a"b"#, r#""a"#, r#""a"b"#] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
