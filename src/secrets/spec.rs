//! The text of `--secret`: `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`.

use std::path::PathBuf;

use super::SecretError;
use crate::dockerfile::csv;

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretOrigin {
    /// A file.
    File(PathBuf),
    /// A variable.
    Env(String),
    /// The variable named as the secret if it is set, else the file named so.
    ByName,
}

/// A secret as named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSpec {
    /// Its id.
    pub id: String,
    /// Where it comes from.
    pub origin: SecretOrigin,
}

impl SecretSpec {
    /// Parses the value of one `--secret`.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        // Who mistypes it may have written the secret itself, so what was written is not repeated.
        let wrong = |problem: String| SecretError::Text { option: "--secret", problem };
        let (mut id, mut file, mut env, mut kind) = (None, None, None, None);
        for field in csv::fields(text).map_err(|error| wrong(error.to_string()))? {
            let (key, value) = field.split_once('=').ok_or_else(|| wrong("a field is not key=value".into()))?;
            match key.to_ascii_lowercase().as_str() {
                "id" => id = Some(value.to_owned()),
                "src" | "source" => file = Some(value.to_owned()),
                "env" => env = Some(value.to_owned()),
                "type" if value == "file" || value == "env" => kind = Some(value.to_owned()),
                "type" => return Err(wrong(format!("unsupported type {value:?}, expected file or env"))),
                _ => return Err(wrong(format!("unexpected key {key:?}, expected id, src, env or type"))),
            }
        }
        if kind.as_deref() == Some("env") && env.is_none() {
            env = file.take();
        }
        let id = id.filter(|id| !id.is_empty()).ok_or_else(|| wrong("it has no id".into()))?;
        let given = |value: Option<String>| value.filter(|value| !value.is_empty());
        let origin = match (given(env), given(file)) {
            (Some(name), _) => SecretOrigin::Env(name),
            (None, Some(path)) => SecretOrigin::File(path.into()),
            (None, None) => SecretOrigin::ByName,
        };
        Ok(Self { id, origin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_buildkit_does() {
        let file = |path: &str| SecretOrigin::File(path.into());
        let table = [
            ("id=a,src=/x/y", "a", file("/x/y")),
            ("id=a,source=b=c", "a", file("b=c")),
            ("ID=a,env=TOKEN", "a", SecretOrigin::Env("TOKEN".into())),
            ("type=env,id=a,src=TOKEN", "a", SecretOrigin::Env("TOKEN".into())),
            ("type=file,id=a,src=f", "a", file("f")),
            ("id=a", "a", SecretOrigin::ByName),
            ("id=a,\"src=with,comma\"", "a", file("with,comma")),
            ("id=a,\"src=q\"\"q\"", "a", file("q\"q")),
        ];
        for (text, id, origin) in table {
            assert_eq!(SecretSpec::parse(text).expect(text), SecretSpec { id: id.into(), origin }, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "id", "id=", "src=x", "id=a,type=x", "id=a,foo=b", "id=a,\"src=x", "id=a,\"src=x\"y"] {
            assert!(SecretSpec::parse(text).is_err(), "{text}");
        }
    }
}
