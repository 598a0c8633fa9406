//! The reader of `buildkitd.toml`: text to settings, with the line of whatever is wrong, unknown or without effect.
//!
//! Names of keys are found as BuildKit finds them: as they are spelt, else in any case; where one is there twice so, the last counts. Names of
//! hosts and labels are taken as they are. A key that is unknown is told and passed over; a value of another type is an error.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::{Effect, Key, Read};
use super::keys::FILE;
use super::{ConfigError, Configuration, Given, Segment, Settings};
use crate::diag::{LineRange, Location, suggest};
use crate::dockerfile::{duration, size};
use crate::store::prune::Space;

pub(super) type Value<'a> = Spanned<DeValue<'a>>;
pub(super) type Table<'a> = DeTable<'a>;
pub(super) type Outcome = Result<(), ConfigError>;
type Name<'a> = Spanned<Cow<'a, str>>;

const SECOND: u64 = 1_000_000_000;

/// Parses the text of a configuration file.
pub(super) fn parse(file: &str, text: &str) -> Result<Configuration, ConfigError> {
    let mut reader = Reader::new(file, text);
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        ConfigError::Syntax {
            reason: error.message().to_owned(),
            location: Box::new(reader.location(offset, None)),
            hint: SYNTAX.into(),
        }
    })?;
    let mut settings = Settings::default();
    reader.keys(table.get_ref(), FILE, &mut settings)?;
    let Reader { given, warnings, notes, .. } = reader;
    Ok(Configuration { file: Some(file.into()), settings, given, warnings, notes })
}

/// Parses the bytes of a configuration file.
pub(super) fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Configuration, ConfigError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(file, text),
        Err(error) => {
            let text = String::from_utf8_lossy(bytes);
            // All before it is valid, so that it stands at the same place.
            let location = Reader::new(file, &text).location(error.valid_up_to(), None);
            Err(ConfigError::Syntax {
                reason: "the file is not UTF-8".into(),
                location: Box::new(location),
                hint: "save it as UTF-8".into(),
            })
        }
    }
}

const SYNTAX: &str =
    "the file is TOML: `key = \"text\"`, `key = true`, `key = 4`, `key = [\"a\", \"b\"]` below a `[table]`";

/// Lists what a table holds in the order of the file.
pub(super) fn in_order<'t, 'a>(table: &'t Table<'a>) -> Vec<(&'t Name<'a>, &'t Value<'a>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Writes a name as it stands in a path of TOML.
pub(super) fn quoted(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { super::inline::text(name) }
}

/// Reads tables by lists of keys.
pub(super) struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    /// Where lines start.
    lines: Vec<usize>,
    /// The table that is being read.
    at: Vec<Segment>,
    given: Vec<Given>,
    warnings: Vec<String>,
    notes: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a str, text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, lines, at: Vec::new(), given: Vec::new(), warnings: Vec::new(), notes: Vec::new() }
    }

    fn line(&self, offset: usize) -> u32 {
        self.lines.partition_point(|start| *start <= offset) as u32
    }

    fn location(&self, offset: usize, mark: Option<&str>) -> Location {
        let line = self.line(offset);
        let ranges = vec![LineRange { start: line, end: line }];
        Location { file: self.file.into(), text: self.text.into(), ranges, mark: mark.map(str::to_owned) }
    }

    /// Returns the path of a key of the table that is being read.
    fn path(&self, name: &str) -> String {
        Segment::join(self.at.iter().chain(std::iter::once(&Segment::Name(name.to_owned()))))
    }

    /// Reads what lies one level deeper.
    pub(super) fn below<R>(&mut self, segment: Segment, read: impl FnOnce(&mut Self) -> R) -> R {
        self.at.push(segment);
        let result = read(self);
        self.at.pop();
        result
    }

    /// Reads a table.
    pub(super) fn keys<T>(&mut self, table: &Table<'_>, keys: &'static [Key<T>], into: &mut T) -> Outcome {
        for (name, value) in in_order(table) {
            let written = name.get_ref().as_ref();
            let exact = keys.iter().find(|key| key.name == written);
            match exact.or_else(|| keys.iter().find(|key| key.name.eq_ignore_ascii_case(written))) {
                Some(key) => self.key(key, name, value, into)?,
                None => self.unknown(name, value, keys.iter().map(|key| key.name)),
            }
        }
        Ok(())
    }

    /// Reads a table of a list. One that says nothing is given all the same.
    pub(super) fn entry<T>(
        &mut self,
        value: &Value<'_>,
        table: &Table<'_>,
        keys: &'static [Key<T>],
        into: &mut T,
    ) -> Outcome {
        let before = self.given.len();
        self.keys(table, keys, into)?;
        if self.given.len() == before {
            let line = self.line(value.span().start);
            self.given.push(Given { path: self.at.clone(), value: "{}".into(), line });
        }
        Ok(())
    }

    fn key<T>(&mut self, key: &'static Key<T>, name: &Name<'_>, value: &Value<'_>, into: &mut T) -> Outcome {
        let place = format!("{}:{}: `{}`", self.file, self.line(name.span().start), self.path(key.name));
        match key.effect {
            Effect::Works => {}
            Effect::Quiet(why) => self.notes.push(format!("{place} has no effect: {why}")),
            Effect::Nothing(why) if is_empty(value) => self.notes.push(format!("{place} has no effect: {why}")),
            Effect::Nothing(why) => self.warnings.push(format!("{place} has no effect: {why}")),
        }
        self.below(Segment::Name(key.name.to_owned()), |reader| match &key.read {
            Read::Table(keys) => {
                let table = reader.table(value, key.read.expected())?;
                reader.keys(table, keys, into)
            }
            Read::Inner(inner) => inner.read(reader, value, into),
            read => {
                reader.scalar(read, name, value, into)?;
                reader.given(name, value);
                Ok(())
            }
        })
    }

    fn given(&mut self, name: &Name<'_>, value: &Value<'_>) {
        let line = self.line(name.span().start);
        self.given.push(Given { path: self.at.clone(), value: super::inline::value(value.get_ref()), line });
    }

    fn scalar<T>(&self, read: &Read<T>, name: &Name<'_>, value: &Value<'_>, into: &mut T) -> Outcome {
        let wrong = || self.wrong(value, read.expected());
        let refused = |reason: String| self.refused(name, value, reason);
        match read {
            Read::Bool(put) => put(into, value.get_ref().as_bool().ok_or_else(wrong)?),
            Read::Text(put) => put(into, value.get_ref().as_str().ok_or_else(wrong)?.to_owned()),
            Read::Word(put) => put(into, value.get_ref().as_str().ok_or_else(wrong)?).map_err(refused)?,
            Read::Texts(put) => put(into, self.texts(value, read.expected())?),
            Read::Words(put) => put(into, self.texts(value, read.expected())?).map_err(refused)?,
            Read::Number(put) => put(into, number(value).ok_or_else(wrong)?).map_err(refused)?,
            Read::Space(put) => put(into, space(value).ok_or_else(wrong)?),
            Read::Seconds(put) => put(into, seconds(value).ok_or_else(wrong)?),
            Read::Pairs(put) => put(into, self.pairs(value, read.expected())?),
            Read::Anything | Read::Table(_) | Read::Inner(_) => drop(self.table(value, read.expected())?),
        }
        Ok(())
    }

    fn unknown<'k>(&mut self, name: &Name<'_>, value: &Value<'_>, known: impl Iterator<Item = &'k str> + Clone) {
        let written = name.get_ref().as_ref();
        let near = || suggest(written, known.clone()).map(|near| format!(", did you mean `{}`?", quoted(near)));
        let advice = self.wants_quotes(written, value, known.clone()).or_else(|| elsewhere(written)).or_else(near);
        let (place, path) = (self.line(name.span().start), self.path(written));
        let advice = advice.unwrap_or_default();
        self.warnings.push(format!("{}:{place}: unknown key `{path}`{advice}", self.file));
    }

    /// Says so where a dot ended a name that has one.
    fn wants_quotes<'k>(
        &self,
        written: &str,
        value: &Value<'_>,
        mut known: impl Iterator<Item = &'k str>,
    ) -> Option<String> {
        let meant = match self.at.as_slice() {
            [Segment::Name(table), Segment::Name(host)] if table == "registry" && value.get_ref().is_table() => {
                format!("[registry.\"{host}.{written}…\"]")
            }
            _ => self.path(known.find(|name| name.split_once('.').is_some_and(|(start, _)| start == written))?),
        };
        Some(format!(", a name with dots stands in quotes: `{meant}`"))
    }

    fn wrong(&self, value: &Value<'_>, expected: &str) -> ConfigError {
        let name = Segment::join(&self.at);
        let (location, found) = (self.location(value.span().start, None), value.get_ref().type_str());
        let reason = format!("`{name}` is to be {expected}, but it is {}", described(found, value));
        ConfigError::Syntax {
            reason,
            location: Box::new(location),
            hint: format!("write {expected} behind `{name} =`, or remove the line"),
        }
    }

    fn refused(&self, name: &Name<'_>, value: &Value<'_>, reason: String) -> ConfigError {
        let path = Segment::join(&self.at);
        let location = self.location(value.span().start, Some(name.get_ref()));
        ConfigError::Syntax {
            reason: format!("`{path}`: {reason}"),
            location: Box::new(location),
            hint: format!("correct `{path}`, or remove the line"),
        }
    }

    pub(super) fn table<'t>(&self, value: &'t Value<'t>, expected: &str) -> Result<&'t Table<'t>, ConfigError> {
        value.get_ref().as_table().ok_or_else(|| self.wrong(value, expected))
    }

    pub(super) fn list<'t>(&self, value: &'t Value<'t>, expected: &str) -> Result<&'t [Value<'t>], ConfigError> {
        value.get_ref().as_array().map(|list| &**list).ok_or_else(|| self.wrong(value, expected))
    }

    fn texts(&self, value: &Value<'_>, expected: &str) -> Result<Vec<String>, ConfigError> {
        let text =
            |entry: &Value<'_>| entry.get_ref().as_str().map(str::to_owned).ok_or_else(|| self.wrong(entry, expected));
        self.list(value, expected)?.iter().map(text).collect()
    }

    fn pairs(&self, value: &Value<'_>, expected: &str) -> Result<BTreeMap<String, String>, ConfigError> {
        let pair = |(name, value): (&Name<'_>, &Value<'_>)| {
            let text = value.get_ref().as_str().ok_or_else(|| self.wrong(value, expected))?;
            Ok((name.get_ref().to_string(), text.to_owned()))
        };
        self.table(value, expected)?.iter().map(pair).collect()
    }
}

/// Says in which table a key of that name belongs.
fn elsewhere(written: &str) -> Option<String> {
    let mut paths = Vec::new();
    Key::paths(FILE, "", &mut paths);
    let mut paths = paths.iter().filter_map(|path| path.rsplit_once('.'));
    let (table, name) = paths.find(|(_, name)| name.eq_ignore_ascii_case(written))?;
    let table = table.replace('*', "\"HOST\"");
    Some(match table.strip_suffix("[]") {
        Some(list) => format!(", `{name}` belongs below `[[{list}]]`"),
        None => format!(", `{name}` belongs below `[{table}]`"),
    })
}

/// Whether a value says nothing.
fn is_empty(value: &Value<'_>) -> bool {
    matches!(value.get_ref().as_str(), Some("")) || matches!(value.get_ref().as_bool(), Some(false))
}

fn described(kind: &str, value: &Value<'_>) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    match value.get_ref() {
        DeValue::Table(_) | DeValue::Array(_) => format!("{article} {kind}"),
        scalar => format!("the {kind} {}", super::inline::value(scalar)),
    }
}

fn number(value: &Value<'_>) -> Option<i64> {
    let integer = value.get_ref().as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn number_or_text<'a>(value: &'a Value<'_>) -> Option<Cow<'a, str>> {
    match value.get_ref() {
        DeValue::String(text) => Some(Cow::Borrowed(text)),
        DeValue::Integer(_) => number(value).map(|number| Cow::Owned(number.to_string())),
        DeValue::Float(float) => Some(Cow::Borrowed(float.as_str())),
        _ => None,
    }
}

fn space(value: &Value<'_>) -> Option<Space> {
    let text = number_or_text(value)?;
    if text.is_empty() {
        return Some(Space::default());
    }
    if let Some(percent) = text.strip_suffix('%') {
        return percent.parse().ok().map(Space::Percent);
    }
    size::parse(&text).ok().and_then(|bytes| u64::try_from(bytes).ok()).map(Space::Bytes)
}

fn seconds(value: &Value<'_>) -> Option<u64> {
    let text = number_or_text(value)?;
    if text.is_empty() {
        return Some(0);
    }
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let nanoseconds = duration::parse(&text).ok()?;
    u64::try_from(nanoseconds).ok().map(|nanoseconds| nanoseconds.div_ceil(SECOND))
}
