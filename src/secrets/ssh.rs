//! The text of `--ssh`: `default`, `NAME=SOCKET`, or `NAME=KEY,KEY`.

use std::path::PathBuf;

use super::SecretError;

/// An ssh agent, or keys, as named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSpec {
    /// Its id.
    pub id: String,
    /// A socket or key files; none for the caller's agent.
    pub paths: Vec<PathBuf>,
    /// Whether the socket is passed on without a filter.
    pub raw: bool,
}

impl SshSpec {
    /// Parses the value of one `--ssh`.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let wrong = |problem: String| SecretError::Text { option: "--ssh", problem };
        let (id, value) = text.split_once('=').map_or((text, ""), |(id, value)| (id, value));
        let mut spec = Self { id: id.to_owned(), paths: Vec::new(), raw: false };
        for part in value.split(',').filter(|part| !part.is_empty()) {
            match part.strip_prefix("raw=") {
                Some("true" | "1" | "t" | "T" | "TRUE" | "True") => spec.raw = true,
                Some("false" | "0" | "f" | "F" | "FALSE" | "False") => spec.raw = false,
                Some(other) => return Err(wrong(format!("raw is true or false, not {other:?}"))),
                None => spec.paths.push(part.into()),
            }
        }
        if spec.id.is_empty() {
            return Err(wrong("it has no name".into()));
        }
        if spec.raw && spec.paths.len() != 1 {
            return Err(wrong("raw needs exactly one socket".into()));
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_names_sockets_and_keys() {
        let spec = |id: &str, paths: &[&str], raw| SshSpec {
            id: id.into(),
            paths: paths.iter().map(Into::into).collect(),
            raw,
        };
        let table = [
            ("default", spec("default", &[], false)),
            ("git=/run/agent.sock", spec("git", &["/run/agent.sock"], false)),
            ("git=a,b", spec("git", &["a", "b"], false)),
            ("git=/s,raw=true", spec("git", &["/s"], true)),
        ];
        for (text, expected) in table {
            assert_eq!(SshSpec::parse(text).expect(text), expected, "{text}");
        }
        for text in ["", "=x", "a=raw=true", "a=x,raw=maybe", "a=x,y,raw=true"] {
            assert!(SshSpec::parse(text).is_err(), "{text}");
        }
    }
}
