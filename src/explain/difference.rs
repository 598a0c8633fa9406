//! One thing that differs between two builds, and how it is said.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::record::{Ingredient, Kind};

/// Longer values are shortened when they are said.
const SHOWN: usize = 100;

/// In what a thing differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It has another value.
    Value,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// A file has other content, or another link target or attribute.
    Content,
    /// A file has other permission bits.
    Mode,
    /// A file has another owner or group.
    Owner,
    /// What was a file is a directory, or the like.
    Type,
    /// A file has another name.
    Renamed,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// What differs.
    pub kind: Kind,
    /// Its name, or path.
    pub name: String,
    /// In what.
    pub change: Change,
    /// What it was; none where that is not to be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

impl Difference {
    /// Compares an ingredient of two builds.
    pub(super) fn of(was: Option<&Ingredient>, now: Option<&Ingredient>) -> Option<Self> {
        let shown = |ingredient: &Ingredient| (!ingredient.hidden).then(|| ingredient.value.clone());
        let (any, change) = match (was, now) {
            (Some(was), Some(now)) if was.value == now.value && was.whole == now.whole => return None,
            (Some(_), Some(now)) => (now, Change::Value),
            (None, Some(now)) => (now, Change::Added),
            (Some(was), None) => (was, Change::Removed),
            (None, None) => return None,
        };
        let (mut from, mut to) = (was.and_then(shown), now.and_then(shown));
        if change == Change::Value && from == to {
            // They differ in what was not kept.
            (from, to) = (None, None);
        }
        Some(Self { kind: any.kind, name: any.name.clone(), change, from, to })
    }

    pub(super) fn values(self, from: &str, to: &str) -> Self {
        Self { from: Some(from.to_owned()), to: Some(to.to_owned()), ..self }
    }

    fn say_file(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, from, to) = (&self.name, self.from.as_deref(), self.to.as_deref());
        match (self.change, from, to) {
            (Change::Mode, Some(from), Some(to)) => write!(f, "mode of {name} {from} -> {to}"),
            (Change::Owner, Some(from), Some(to)) => write!(f, "owner of {name} {from} -> {to}"),
            (Change::Type, Some(from), Some(to)) => write!(f, "{name} is a {to}, was a {from}"),
            (Change::Renamed, _, Some(to)) => write!(f, "{name} renamed to {to}"),
            (Change::Added, ..) => write!(f, "{name} added"),
            (Change::Removed, ..) => write!(f, "{name} removed"),
            _ => write!(f, "{name} changed"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = match self.kind {
            Kind::File => return self.say_file(f),
            Kind::Command => "command",
            Kind::Arg => "ARG",
            Kind::Env => "ENV",
            Kind::Variable => "variable",
            Kind::Base => "",
            Kind::Mount => "mount",
            Kind::Platform => "platform",
            Kind::Setting => "setting",
        };
        let space = if noun.is_empty() || self.name.is_empty() { "" } else { " " };
        write!(f, "{noun}{space}{}", self.name)?;
        let quoted = matches!(self.kind, Kind::Arg | Kind::Env | Kind::Variable);
        let (from, to) = shortened(self.from.as_deref().unwrap_or_default(), self.to.as_deref().unwrap_or_default());
        let text = |value: &str| if quoted { format!("\"{value}\"") } else { value.to_owned() };
        match (self.change, &self.from, &self.to) {
            (Change::Added, _, Some(_)) => write!(f, " {} added", text(&to)),
            (Change::Added, ..) => write!(f, " added"),
            (Change::Removed, Some(_), _) => write!(f, " {} removed", text(&from)),
            (Change::Removed, ..) => write!(f, " removed"),
            (_, Some(_), Some(_)) => write!(f, " {} -> {}", text(&from), text(&to)),
            _ => write!(f, " changed"),
        }
    }
}

/// Shows long texts from a little before where they begin to differ, on one line.
fn shortened(from: &str, to: &str) -> (String, String) {
    let line = |text: &str| text.replace('\n', "\\n");
    let (from, to) = (line(from), line(to));
    if from.chars().count() <= SHOWN && to.chars().count() <= SHOWN {
        return (from, to);
    }
    let same = from.chars().zip(to.chars()).take_while(|(a, b)| a == b).count();
    let skip = if same > SHOWN / 2 { same - SHOWN / 4 } else { 0 };
    let cut = |text: &str| {
        let mut shown: String = if skip > 0 { "…".into() } else { String::new() };
        shown.extend(text.chars().skip(skip).take(SHOWN));
        if text.chars().count() > skip + SHOWN {
            shown.push('…');
        }
        shown
    };
    (cut(&from), cut(&to))
}
