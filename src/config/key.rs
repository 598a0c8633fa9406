//! What a table of `buildkitd.toml` may hold, as data: names, types, and where a value goes.
//!
//! A list of [`Key`]s describes a table. It is what the reader checks by, what suggestions are made of, and what the table of the docs is
//! compared with.

use std::collections::BTreeMap;

use super::buildkitd::{Outcome, Reader, Table, Value};
use crate::store::prune::Space;

/// One key of a table whose values go to a `T`.
pub(super) struct Key<T: 'static> {
    /// Its name, as BuildKit spells it; any case of it is read.
    pub(super) name: &'static str,
    /// What it may hold.
    pub(super) read: Read<T>,
    /// What it is good for.
    pub(super) effect: Effect,
}

/// What a key is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It does something.
    Works,
    /// It is about what rbuild does not have and does not miss; why. The log says so.
    Quiet(&'static str),
    /// It changes nothing, though one might expect it to; why. The user is told.
    Nothing(&'static str),
}

/// What a key may hold, and where that goes. An error is what is wrong with the value.
pub(super) enum Read<T: 'static> {
    Bool(fn(&mut T, bool)),
    Text(fn(&mut T, String)),
    /// A text of which not everything is valid.
    Word(fn(&mut T, &str) -> Result<(), String>),
    Texts(fn(&mut T, Vec<String>)),
    /// A list of texts of which not everything is valid.
    Words(fn(&mut T, Vec<String>) -> Result<(), String>),
    Number(fn(&mut T, i64) -> Result<(), String>),
    /// An amount of disk space: bytes, a text with a unit of 1024, or a percentage of the disk.
    Space(fn(&mut T, Space)),
    /// A time in seconds: a number of them, or a text such as `48h`.
    Seconds(fn(&mut T, u64)),
    /// A table of texts, of any name.
    Pairs(fn(&mut T, BTreeMap<String, String>)),
    /// A table of anything.
    Anything,
    /// A table whose values go to the same place.
    Table(&'static [Key<T>]),
    /// Tables whose values go to places of their own.
    Inner(&'static (dyn Inner<T> + Sync)),
}

impl<T> Key<T> {
    pub(super) const fn new(name: &'static str, read: Read<T>) -> Self {
        Self { name, read, effect: Effect::Works }
    }

    pub(super) const fn quiet(name: &'static str, read: Read<T>, why: &'static str) -> Self {
        Self { name, read, effect: Effect::Quiet(why) }
    }

    pub(super) const fn nothing(name: &'static str, read: Read<T>, why: &'static str) -> Self {
        Self { name, read, effect: Effect::Nothing(why) }
    }

    /// Lists the paths of the keys that hold no table, with `*` for names that are free and `[]` behind lists of tables.
    pub(super) fn paths(keys: &[Self], above: &str, found: &mut Vec<String>) {
        for key in keys {
            let name = super::buildkitd::quoted(key.name);
            let path = if above.is_empty() { name } else { format!("{above}.{name}") };
            match &key.read {
                Read::Table(keys) => Self::paths(keys, &path, found),
                Read::Inner(inner) => inner.paths(&path, found),
                _ => found.push(path),
            }
        }
    }
}

/// Tables that become values of another type.
pub(super) trait Inner<T> {
    /// Reads the value of a key.
    fn read(&self, reader: &mut Reader<'_>, value: &Value<'_>, into: &mut T) -> Outcome;
    /// Lists the paths of its keys.
    fn paths(&self, above: &str, found: &mut Vec<String>);
    /// What is expected.
    fn example(&self) -> &'static str;
}

/// One table that becomes part of the whole.
pub(super) struct Part<T: 'static, U: 'static> {
    pub(super) keys: &'static [Key<U>],
    pub(super) of: fn(&mut T) -> &mut U,
}

/// A list of tables.
pub(super) struct List<T: 'static, U: 'static> {
    pub(super) keys: &'static [Key<U>],
    pub(super) put: fn(&mut T, Vec<U>),
}

/// A table of tables, by names that are free.
pub(super) struct Named<T: 'static, U: 'static> {
    pub(super) keys: &'static [Key<U>],
    pub(super) of: fn(&mut T, String) -> &mut U,
}

impl<T, U> Inner<T> for Part<T, U> {
    fn read(&self, reader: &mut Reader<'_>, value: &Value<'_>, into: &mut T) -> Outcome {
        let table = reader.table(value, self.example())?;
        reader.keys(table, self.keys, (self.of)(into))
    }

    fn paths(&self, above: &str, found: &mut Vec<String>) {
        Key::paths(self.keys, above, found);
    }

    fn example(&self) -> &'static str {
        TABLE
    }
}

impl<T, U: Default> Inner<T> for List<T, U> {
    fn read(&self, reader: &mut Reader<'_>, value: &Value<'_>, into: &mut T) -> Outcome {
        let mut found = Vec::new();
        for (at, entry) in reader.list(value, self.example())?.iter().enumerate() {
            let table: &Table<'_> = reader.table(entry, self.example())?;
            let mut made = U::default();
            reader.below(super::Segment::Index(at), |reader| reader.entry(entry, table, self.keys, &mut made))?;
            found.push(made);
        }
        (self.put)(into, found);
        Ok(())
    }

    fn paths(&self, above: &str, found: &mut Vec<String>) {
        Key::paths(self.keys, &format!("{above}[]"), found);
    }

    fn example(&self) -> &'static str {
        "a list of tables, each under `[[NAME]]`"
    }
}

impl<T, U> Inner<T> for Named<T, U> {
    fn read(&self, reader: &mut Reader<'_>, value: &Value<'_>, into: &mut T) -> Outcome {
        for (key, value) in super::buildkitd::in_order(reader.table(value, self.example())?) {
            let name = key.get_ref().to_string();
            let table = reader.table(value, TABLE)?;
            let made = (self.of)(into, name.clone());
            reader.below(super::Segment::Name(name), |reader| reader.keys(table, self.keys, made))?;
        }
        Ok(())
    }

    fn paths(&self, above: &str, found: &mut Vec<String>) {
        Key::paths(self.keys, &format!("{above}.*"), found);
    }

    fn example(&self) -> &'static str {
        TABLE
    }
}

/// Values that are checked and go nowhere.
#[derive(Debug, Default)]
pub(super) struct Unread;

/// A table of such values.
pub(super) struct Checked {
    pub(super) keys: &'static [Key<Unread>],
}

impl<T> Inner<T> for Checked {
    fn read(&self, reader: &mut Reader<'_>, value: &Value<'_>, _: &mut T) -> Outcome {
        let table = reader.table(value, TABLE)?;
        reader.keys(table, self.keys, &mut Unread)
    }

    fn paths(&self, above: &str, found: &mut Vec<String>) {
        Key::paths(self.keys, above, found);
    }

    fn example(&self) -> &'static str {
        TABLE
    }
}

/// What is expected where a table is.
pub(super) const TABLE: &str = "a table, under `[NAME]`";

impl<T> Read<T> {
    /// Says what is expected.
    pub(super) fn expected(&self) -> &'static str {
        match self {
            Read::Bool(_) => "true or false",
            Read::Text(_) | Read::Word(_) => "a text in quotes",
            Read::Texts(_) | Read::Words(_) => "a list of texts: [\"…\"]",
            Read::Number(_) => "a whole number",
            Read::Space(_) => "a size: bytes, \"10GB\" or \"10%\"",
            Read::Seconds(_) => "a duration: seconds or \"48h\"",
            Read::Pairs(_) => "a table of texts",
            Read::Anything | Read::Table(_) => TABLE,
            Read::Inner(inner) => inner.example(),
        }
    }
}
