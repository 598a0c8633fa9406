//! Environment variables in the order of their last assignment, which is the order a process of a RUN sees.

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::word::Env;

/// Variables by name; assigning again moves a variable to the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct EnvList {
    values: BTreeMap<String, (u64, String)>,
    next: u64,
}

impl EnvList {
    /// Sets a variable.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.values.insert(name.to_owned(), (self.next, value.into()));
        self.next += 1;
    }

    /// Removes a variable.
    pub(crate) fn remove(&mut self, name: &str) {
        self.values.remove(name);
    }

    /// Returns a variable's value.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(_, value)| value.as_str())
    }

    /// Returns `NAME=value` in order.
    pub(crate) fn assignments(&self) -> Vec<String> {
        self.ordered().into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Returns the variables in order.
    pub(crate) fn ordered(&self) -> Vec<(&str, &str)> {
        let mut all: Vec<_> =
            self.values.iter().map(|(name, (at, value))| (*at, name.as_str(), value.as_str())).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, name, value)| (name, value)).collect()
    }
}

/// Variables whose value nobody knows, because what sets them is wrong: what follows from that is not told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lost {
    all: bool,
    names: BTreeSet<String>,
}

impl Lost {
    /// Every variable that is not set again: what a base brings is not known.
    pub(crate) fn all(&mut self) {
        self.all = true;
    }

    /// This one.
    pub(crate) fn add(&mut self, name: &str) {
        self.names.insert(name.to_owned());
    }

    /// Tells whether one of these names, which have no value, may have had one.
    pub(crate) fn has_any(&self, unset: &BTreeSet<String>) -> bool {
        (self.all && !unset.is_empty()) || unset.iter().any(|name| self.names.contains(name))
    }
}

impl Env for EnvList {
    fn get(&self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }

    fn keys(&self) -> Vec<String> {
        self.ordered().into_iter().map(|(name, _)| name.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assigning_again_moves_to_the_end() {
        let mut env = EnvList::default();
        for (name, value) in [("A", "1"), ("B", "2"), ("A", "3"), ("C", "4")] {
            env.set(name, value);
        }
        env.remove("C");
        assert_eq!(env.assignments(), ["B=2", "A=3"]);
        assert_eq!(env.value("A"), Some("3"));
    }
}
