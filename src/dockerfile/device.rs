//! The values of `RUN --device`.
//!
//! In: a value as written; nothing in it is expanded. Out: a [`DeviceSpec`].

use super::csv::{self, CsvError};
use super::text::parse_bool;
use crate::diag::{Case, did_you_mean};

/// A device by its CDI name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceSpec {
    /// `VENDOR/CLASS=NAME`, `VENDOR/CLASS`, `VENDOR/CLASS=*`, or the class that a device's annotations give it.
    pub name: String,
    /// Whether the step fails without it.
    pub required: bool,
}

/// Why a device is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The value is no list of fields.
    #[error("failed to parse csv devices: {problem}")]
    Csv {
        /// Why.
        problem: CsvError,
    },
    /// A field is wrong; the text says which and how.
    #[error("{message}")]
    Field {
        /// What is wrong.
        message: String,
    },
}

/// Reads a device. What is no key this knows is the name, if there is none yet: a name has an equals sign too.
pub fn parse(text: &str) -> Result<DeviceSpec, DeviceError> {
    let mut device = DeviceSpec::default();
    for field in csv::fields(text).map_err(|problem| DeviceError::Csv { problem })? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => device.required = required(value)?,
            ("name", Some(_)) if !device.name.is_empty() => {
                return refuse(format!("device name already set to {}", device.name));
            }
            ("name", Some(value)) => value.clone_into(&mut device.name),
            _ if device.name.is_empty() => device.name = field,
            (_, None) => return refuse(format!("invalid field '{field}' must be a key=value pair")),
            (key, Some(_)) => {
                let near = did_you_mean(key, ["name", "required"], Case::Sensitive);
                return refuse(format!("unexpected key '{key}' in '{field}'{near}"));
            }
        }
    }
    Ok(device)
}

fn required(value: &str) -> Result<bool, DeviceError> {
    parse_bool(value).ok_or_else(|| DeviceError::Field { message: format!("invalid value for required: {value}") })
}

fn refuse<T>(message: String) -> Result<T, DeviceError> {
    Err(DeviceError::Field { message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_device() {
        for (text, expected) in [
            ("vendor1.com/device=foo", Ok(("vendor1.com/device=foo", false))),
            ("vendor1.com/device", Ok(("vendor1.com/device", false))),
            ("vendor1.com/device=*,required", Ok(("vendor1.com/device=*", true))),
            ("name=vendor1.com/device=foo,required=false", Ok(("vendor1.com/device=foo", false))),
            ("required=1,gpu", Ok(("gpu", true))),
            ("required=t", Ok(("", true))),
            ("name", Ok(("name", false))),
            ("a,b", Err("invalid field 'b' must be a key=value pair")),
            ("a,name=b", Err("device name already set to a")),
            ("a,b=c", Err("unexpected key 'b' in 'b=c'")),
            ("a,requird=1", Err("unexpected key 'requird' in 'requird=1' (did you mean required?)")),
            ("a,required=yes", Err("invalid value for required: yes")),
            ("", Err("failed to parse csv devices: EOF")),
        ] {
            let found = parse(text).map(|device| (device.name, device.required)).map_err(|error| error.to_string());
            let expected = expected.map(|(name, required)| (name.to_owned(), required)).map_err(str::to_owned);
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
