//! Values of TOML as they stand behind a `=`, always in the same spelling and on one line.

use std::fmt::Write as _;

use toml::de::DeValue;

/// Writes a text in quotes.
pub(super) fn text(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            // A String takes all that is written to it.
            c if c.is_control() => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Writes texts as a list.
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    format!("[{}]", texts.into_iter().map(text).collect::<Vec<_>>().join(", "))
}

/// Writes any value.
pub(super) fn value(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(string) => text(string),
        // What does not fit is refused by who reads it; here it is shown.
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.to_string(),
            Err(_) => number.as_str().to_owned(),
        },
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(list) => {
            let entries: Vec<String> = list.iter().map(|entry| self::value(entry.get_ref())).collect();
            format!("[{}]", entries.join(", "))
        }
        DeValue::Table(table) => {
            let mut pairs: Vec<_> = table.iter().map(|(name, value)| (name.get_ref(), value.get_ref())).collect();
            pairs.sort_by_key(|(name, _)| *name);
            let pair = |name: &str, value| format!("{} = {}", super::buildkitd::quoted(name), self::value(value));
            let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| pair(name, value)).collect();
            if pairs.is_empty() { "{}".into() } else { format!("{{ {} }}", pairs.join(", ")) }
        }
    }
}

/// Returns what stands behind a `=` as JSON.
pub(super) fn json(text: &str) -> serde_json::Value {
    let parsed = toml::from_str::<toml::Table>(&format!("v = {text}"));
    let value = parsed.ok().and_then(|mut table| table.remove("v"));
    value.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_read_as_it_was(any in any::<String>()) {
            let quoted = text(&any);
            prop_assert!(!quoted.contains('\n'));
            prop_assert_eq!(json(&quoted), serde_json::Value::String(any.clone()));
            prop_assert_eq!(json(&list([any.as_str(), "b"])), serde_json::json!([any, "b"]));
        }
    }
}
