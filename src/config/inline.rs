//! Values of TOML as they stand behind a `=`, always in the same spelling.

use toml::de::DeValue;

/// Writes a text in quotes.
pub(super) fn text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Writes any value on one line.
pub(super) fn value(value: &DeValue<'_>) -> String {
    owned(value).to_string()
}

fn owned(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        // What does not fit is refused by who reads it; here it is shown.
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.into(),
            Err(_) => number.as_str().into(),
        },
        DeValue::Float(number) => number.as_str().parse().map_or_else(|_| number.as_str().into(), toml::Value::Float),
        DeValue::Boolean(on) => (*on).into(),
        DeValue::Datetime(time) => (*time).into(),
        DeValue::Array(list) => list.iter().map(|entry| owned(entry.get_ref())).collect::<Vec<_>>().into(),
        DeValue::Table(table) => {
            let pairs = table.iter().map(|(name, value)| (name.get_ref().to_string(), owned(value.get_ref())));
            toml::Value::Table(pairs.collect())
        }
    }
}
