//! What `--allow device` grants: all devices, or some by name, one of them perhaps under another name.

use std::collections::BTreeMap;

use crate::dockerfile::csv::{self, CsvError};

/// Why a grant is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// It is no list of fields.
    #[error("invalid device grant {text:?}: {problem}")]
    Csv {
        /// As given.
        text: String,
        /// What is wrong.
        problem: CsvError,
    },
    /// A field is none that is known.
    #[error("invalid field {field:?} of the device grant {text:?}, expected alias=NAME")]
    Field {
        /// As given.
        text: String,
        /// The field.
        field: String,
    },
}

/// Devices that are granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    pub(super) all: bool,
    /// Names as steps use them, with the device that is meant where it is another.
    pub(super) names: BTreeMap<String, Option<String>>,
}

impl Grants {
    /// Collects the grants among values of `--allow`; the others are passed over.
    ///
    /// # Errors
    ///
    /// With the first that is not understood.
    pub fn among<'a>(allowed: impl IntoIterator<Item = &'a str>) -> Result<Self, GrantError> {
        let mut grants = Self::default();
        for value in allowed {
            let (key, text) = value.split_once('=').unwrap_or((value, ""));
            if key == "device" {
                grants.add(text)?;
            }
        }
        Ok(grants)
    }

    fn add(&mut self, text: &str) -> Result<(), GrantError> {
        if text.is_empty() {
            self.all = true;
            return Ok(());
        }
        let fields = csv::fields(text).map_err(|problem| GrantError::Csv { text: text.to_owned(), problem })?;
        let Some((device, rest)) = fields.split_first() else { return Ok(()) };
        let mut alias = None;
        for field in rest {
            let name = field.strip_prefix("alias=");
            let wrong = || GrantError::Field { text: text.to_owned(), field: field.clone() };
            alias = Some(name.ok_or_else(wrong)?.to_owned());
        }
        match alias.filter(|alias| !alias.is_empty()) {
            Some(alias) => self.names.insert(alias, Some(device.clone())),
            None => self.names.insert(device.clone(), None),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_all_some_or_aliases() {
        let none = Grants::among(["network.host"]).expect("valid");
        assert_eq!(none, Grants::default());
        assert!(Grants::among(["device"]).expect("valid").all);
        assert!(Grants::among(["device="]).expect("valid").all);
        let some = Grants::among(["device=v.com/c=a", "device=v.com/c=b,alias=gpu"]).expect("valid");
        let expected = [("gpu".to_owned(), Some("v.com/c=b".to_owned())), ("v.com/c=a".to_owned(), None)];
        assert_eq!((some.all, some.names), (false, expected.into()));
        for (value, message) in [
            ("device=a,b", "invalid field \"b\" of the device grant \"a,b\", expected alias=NAME"),
            (
                "device=a\"",
                "invalid device grant \"a\\\"\": parse error on line 1, column 2: bare \" in non-quoted field",
            ),
        ] {
            assert_eq!(Grants::among([value]).expect_err(value).to_string(), message);
        }
    }
}
