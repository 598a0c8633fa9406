//! JSON whose members stay in order, and have Go's names too.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;

use crate::image::canonical;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    /// A string, number, boolean or null.
    Leaf(Value),
    /// An array.
    List(Vec<Tree>),
    /// An object.
    Members(Vec<(String, Tree)>),
}

/// Members that are left out where they are empty.
const OPTIONAL: [&str; 27] = [
    "additionalspdxs",
    "annotations",
    "artifacttype",
    "argsescaped",
    "author",
    "cmd",
    "comment",
    "created",
    "data",
    "emptylayer",
    "entrypoint",
    "env",
    "exposedports",
    "healthcheck",
    "history",
    "labels",
    "osfeatures",
    "osversion",
    "platform",
    "slsa",
    "spdx",
    "stopsignal",
    "urls",
    "user",
    "variant",
    "volumes",
    "workingdir",
];

impl Tree {
    /// Reads what is to be written as JSON.
    pub(super) fn of(value: &impl Serialize) -> Self {
        serde_json::from_slice(&canonical::to_vec(value)).expect("what was written can be read")
    }

    /// Makes an object.
    pub(super) fn object<const N: usize>(members: [(&str, Tree); N]) -> Self {
        Self::Members(members.map(|(name, tree)| (name.to_owned(), tree)).into())
    }

    /// Returns a member by its own name or Go's: `os.version` is `OSVersion`.
    pub(super) fn member(&self, name: &str) -> Option<&Tree> {
        const EMPTY: &Tree = &Tree::Leaf(Value::Null);
        let Self::Members(members) = self else { return None };
        let exact = members.iter().find(|(known, _)| known == name);
        let found = exact.or_else(|| members.iter().find(|(known, _)| plain(known) == plain(name)));
        let omitted = || OPTIONAL.contains(&plain(name).as_str()).then_some(EMPTY);
        found.map(|(_, tree)| tree).or_else(omitted)
    }

    /// Returns what a key or number leads to.
    pub(super) fn at(&self, key: &str) -> Option<&Tree> {
        match self {
            Self::Members(members) => members.iter().find(|(known, _)| known == key).map(|(_, tree)| tree),
            Self::List(items) => items.get(key.parse::<usize>().ok()?),
            Self::Leaf(_) => None,
        }
    }

    /// Returns the text of a value that is no array and no object.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Leaf(Value::String(text)) => Some(text.clone()),
            Self::Leaf(Value::Null) => Some(String::new()),
            Self::Leaf(value) => Some(value.to_string()),
            Self::List(_) | Self::Members(_) => None,
        }
    }

    /// Returns indented JSON.
    pub(super) fn json(&self) -> String {
        String::from_utf8_lossy(&canonical::to_indented(self)).into_owned()
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '.')).flat_map(char::to_lowercase).collect()
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Leaf(value) => value.serialize(serializer),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Members(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(name, tree)| map.serialize_entry(name, tree))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Members(members))
    }
}
