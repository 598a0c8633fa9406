//! The values of `RUN --mount`.
//!
//! In: a value as written, and something that expands variables. Out: a [`MountSpec`]. Two steps: [`from_of`] when the
//! file is parsed, since stages must be known before anything is expanded, and [`parse`] when the step is lowered.

use super::csv::{self, CsvError};
use super::goquote::quote;
use super::size;
use super::text::parse_bool;
use super::word::WordError;
use crate::diag::{Case, Diagnose, Kind, did_you_mean};

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum MountType {
    /// A directory of another stage, image or context.
    #[default]
    Bind,
    /// A directory that is kept between builds.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret.
    Secret,
    /// An SSH agent.
    Ssh,
}

impl MountType {
    /// Returns the name, as `type=` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }

    fn takes_file_info(self) -> bool {
        matches!(self, Self::Cache | Self::Secret | Self::Ssh)
    }
}

/// How several builds share a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharing {
    /// All use it at once.
    Shared,
    /// Each gets its own.
    Private,
    /// One after the other.
    Locked,
}

/// A mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountSpec {
    /// What is mounted.
    pub kind: MountType,
    /// Stage, image or context it comes from.
    pub from: String,
    /// Path there; for a secret, its id.
    pub source: String,
    /// Where it goes.
    pub target: String,
    /// Whether it cannot be written.
    pub readonly: bool,
    /// Limit of a tmpfs in bytes, 0 for none.
    pub size: i64,
    /// Id of a cache, secret or agent.
    pub id: String,
    /// How a cache is shared, if said.
    pub sharing: Option<Sharing>,
    /// Whether a missing secret or agent fails the step.
    pub required: bool,
    /// Name of the variable that gets a secret.
    pub env: Option<String>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// Why a mount is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The value is no list of fields.
    #[error("failed to parse csv mounts: {problem}")]
    Csv {
        /// Why.
        problem: CsvError,
    },
    /// A variable in a field cannot be expanded.
    #[error(transparent)]
    Expand(#[from] WordError),
    /// A field is wrong; the text says which and how.
    #[error("{message}")]
    Field {
        /// What is wrong.
        message: String,
    },
}

impl Diagnose for MountError {
    fn kind(&self) -> Kind {
        Kind::Dockerfile
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Expand(error) => error.hints(),
            Self::Csv { .. } => vec!["quote a whole field that has commas or quotes: \"target=/a,b\"".to_owned()],
            Self::Field { .. } => {
                vec![
                    "a mount is KEY=VALUE fields, commas between them and no blanks: `--mount=type=cache,target=/path`"
                        .into(),
                ]
            }
        }
    }
}

impl MountError {
    /// Returns the offending words, as far as they are known.
    pub fn mark(&self) -> Option<String> {
        match self {
            Self::Expand(error) => Some(error.input.clone()),
            Self::Csv { .. } | Self::Field { .. } => None,
        }
    }
}

/// The keys there are.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

fn refuse<T>(message: impl Into<String>) -> Result<T, MountError> {
    Err(MountError::Field { message: message.into() })
}

fn fields(text: &str) -> Result<Vec<String>, MountError> {
    csv::fields(text).map_err(|problem| MountError::Csv { problem })
}

/// Returns the `from` of a mount, unexpanded, and checks that it needs no expansion; empty if there is none.
pub fn from_of(text: &str) -> Result<String, MountError> {
    let mut from = String::new();
    for field in fields(text)? {
        let Some((key, value)) = field.split_once('=') else { continue };
        if !key.eq_ignore_ascii_case("from") {
            continue;
        }
        if value.find('$').is_some_and(|at| at + 1 != value.len()) {
            return refuse("'from' doesn't support variable expansion, define alias stage instead");
        }
        value.clone_into(&mut from);
    }
    Ok(from)
}

/// Reads a mount; `expand` is applied to each value. `size` and `required` are known behind the `type` they belong to.
pub fn parse(text: &str, expand: &mut dyn FnMut(&str) -> Result<String, WordError>) -> Result<MountSpec, MountError> {
    let mut draft = Draft::default();
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(expand(value)?)),
            None => (field.to_lowercase(), None),
        };
        draft.set(&key, value, &field)?;
    }
    draft.finish()
}

/// A mount while its fields are read.
#[derive(Default)]
struct Draft {
    spec: MountSpec,
    readonly: Option<bool>,
}

impl Draft {
    fn set(&mut self, key: &str, value: Option<String>, field: &str) -> Result<(), MountError> {
        let Some(value) = value else { return self.set_bare(key, field) };
        let spec = &mut self.spec;
        match key {
            "type" => spec.kind = mount_type(&value)?,
            "from" => spec.from = value,
            "source" | "src" => spec.source = value,
            "target" | "dst" | "destination" => spec.target = value,
            "id" => spec.id = value,
            "env" => spec.env = Some(value),
            "readonly" | "ro" => self.readonly = Some(boolean(key, &value)?),
            "readwrite" | "rw" => self.readonly = Some(!boolean(key, &value)?),
            "required" => {
                self.allow_required()?;
                self.spec.required = boolean(key, &value)?;
            }
            "size" if spec.kind == MountType::Tmpfs => spec.size = bytes(key, &value)?,
            "size" => return self.unexpected(key),
            "sharing" => spec.sharing = Some(sharing(&value)?),
            "mode" => spec.mode = Some(number(key, &value, 8)?),
            "uid" => spec.uid = Some(number(key, &value, 10)?),
            "gid" => spec.gid = Some(number(key, &value, 10)?),
            _ => {
                let near = did_you_mean(key, KEYS, Case::Sensitive);
                return refuse(format!("unexpected key '{key}' in '{field}'{near}"));
            }
        }
        Ok(())
    }

    fn set_bare(&mut self, key: &str, field: &str) -> Result<(), MountError> {
        match key {
            "readonly" | "ro" => self.readonly = Some(true),
            "readwrite" | "rw" => self.readonly = Some(false),
            "required" => {
                self.allow_required()?;
                self.spec.required = true;
            }
            _ => return refuse(format!("invalid field '{field}' must be a key=value pair")),
        }
        Ok(())
    }

    fn allow_required(&self) -> Result<(), MountError> {
        match self.spec.kind {
            MountType::Secret | MountType::Ssh => Ok(()),
            _ => self.unexpected("required"),
        }
    }

    fn unexpected<T>(&self, key: &str) -> Result<T, MountError> {
        refuse(format!("unexpected key '{key}' for mount type '{}'", self.spec.kind.name()))
    }

    fn finish(self) -> Result<MountSpec, MountError> {
        let mut spec = self.spec;
        if !spec.kind.takes_file_info() {
            let given = [("mode", spec.mode), ("uid", spec.uid), ("gid", spec.gid)];
            if let Some((key, _)) = given.iter().find(|(_, value)| value.is_some()) {
                return refuse(format!("{key} not allowed for {} type mounts", quote(spec.kind.name())));
            }
        }
        let writable = matches!(spec.kind, MountType::Cache | MountType::Tmpfs);
        spec.readonly = self.readonly.unwrap_or(!writable);
        if spec.kind == MountType::Secret {
            check_secret(&spec)?;
        }
        if spec.sharing.is_some() && spec.kind != MountType::Cache {
            return refuse(format!("invalid cache sharing set for {} mount", spec.kind.name()));
        }
        Ok(spec)
    }
}

fn check_secret(spec: &MountSpec) -> Result<(), MountError> {
    if !spec.from.is_empty() {
        return refuse("secret mount should not have a from");
    }
    if spec.sharing.is_some() {
        return refuse("secret mount should not define sharing");
    }
    if spec.source.is_empty() && spec.target.is_empty() && spec.id.is_empty() {
        return refuse("invalid secret mount. one of source, target required");
    }
    if !spec.source.is_empty() && !spec.id.is_empty() {
        return refuse("both source and id can't be set");
    }
    Ok(())
}

fn mount_type(value: &str) -> Result<MountType, MountError> {
    let types = [MountType::Bind, MountType::Cache, MountType::Tmpfs, MountType::Secret, MountType::Ssh];
    if let Some(found) = types.into_iter().find(|kind| kind.name() == value.to_lowercase()) {
        return Ok(found);
    }
    let near = did_you_mean(value, types.map(MountType::name), Case::Sensitive);
    refuse(format!("unsupported mount type {}{near}", quote(value)))
}

fn sharing(value: &str) -> Result<Sharing, MountError> {
    match value.to_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => {
            let near = did_you_mean(value, ["shared", "private", "locked"], Case::Sensitive);
            refuse(format!("unsupported sharing value {}{near}", quote(value)))
        }
    }
}

fn boolean(key: &str, value: &str) -> Result<bool, MountError> {
    parse_bool(value).map_or_else(|| refuse(format!("invalid value for {key}: {value}")), Ok)
}

fn bytes(key: &str, value: &str) -> Result<i64, MountError> {
    size::parse(value).or_else(|_| refuse(format!("invalid value for {key}: {value}")))
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32, MountError> {
    // Unlike Go's, Rust's parser takes a plus sign.
    let digits = Some(value).filter(|value| !value.starts_with('+'));
    let number = digits.and_then(|value| u32::from_str_radix(value, radix).ok());
    number.map_or_else(|| refuse(format!("invalid value {value} for {key}")), Ok)
}

#[cfg(test)]
#[path = "mount_tests.rs"]
mod tests;
