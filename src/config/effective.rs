//! The effective configuration: what the file, flags, the environment and defaults say together, and which of them says what.
//!
//! In: a [`Configuration`], flags, an [`Environment`]. Out: one entry a key, in the order of their names, as TOML that means the same when it
//! is read, or as JSON. No key of the file holds a secret, and nothing else is in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Configuration, Environment, Limits, LogLevel, Segment, Settings, inline};
use crate::registry::BLOB_CONNECTIONS;
use crate::store::explain::BUILDS;
use crate::store::prune::Space;

/// Flags that say the same as a key.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--root`.
    pub root: Option<PathBuf>,
    /// `--debug`.
    pub debug: bool,
}

/// Who says a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag(&'static str),
    /// The file, in this line.
    File(u32),
    /// A variable of the environment.
    Environment(&'static str),
    /// Nobody.
    Default,
}

/// A key with its value as TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: String,
    /// Who says it.
    pub origin: Origin,
}

/// All keys that have a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    file: Option<PathBuf>,
    searched: PathBuf,
    entries: BTreeMap<Vec<Segment>, Entry>,
}

impl Configuration {
    /// Puts together what counts.
    pub fn effective(&self, flags: &Flags, environment: &Environment) -> Effective {
        let mut entries = defaults(&self.settings, environment);
        // BuildKit takes an empty text as none.
        for given in self.given.iter().filter(|given| given.value != "\"\"") {
            let entry = Entry { value: given.value.clone(), origin: Origin::File(given.line) };
            entries.insert(given.path.clone(), entry);
        }
        let mut put = |path: &[&str], value: String, origin| entries.insert(named(path), Entry { value, origin });
        if let Some(root) = &flags.root {
            put(&["root"], path(root), Origin::Flag("--root"));
        } else if let (Some(root), Some(line)) = (&self.settings.root, self.line(&["root"])) {
            put(&["root"], path(root), Origin::File(line));
        }
        if flags.debug {
            put(&["log", "level"], inline::text("debug"), Origin::Flag("--debug"));
        } else if let (None, Some((key, level))) = (self.settings.log.level, old_level(&self.settings)) {
            let origin = self.line(&[key]).map_or(Origin::Default, Origin::File);
            put(&["log", "level"], inline::text(level), origin);
        }
        Effective { file: self.file.clone(), searched: environment.buildkitd_config(), entries }
    }

    /// Returns the line of a key that is given.
    pub fn line(&self, path: &[&str]) -> Option<u32> {
        let path = named(path);
        self.given.iter().rev().find(|given| given.path == path).map(|given| given.line)
    }

    /// Returns where a key is given, as `FILE:LINE`.
    pub fn place(&self, path: &[&str]) -> String {
        let file = self.file.as_deref().unwrap_or(Path::new("")).display();
        self.line(path).map_or_else(|| file.to_string(), |line| format!("{file}:{line}"))
    }
}

impl Settings {
    /// Returns how much is to be logged, none where nothing is said.
    pub fn log_level(&self) -> Option<LogLevel> {
        self.log.level.or(match (self.trace, self.debug) {
            (true, _) => Some(LogLevel::Trace),
            (false, true) => Some(LogLevel::Debug),
            (false, false) => None,
        })
    }
}

/// The level that the keys from before `log.level` ask for, and which of them.
fn old_level(settings: &Settings) -> Option<(&'static str, &'static str)> {
    match (settings.trace, settings.debug) {
        (true, _) => Some(("trace", "trace")),
        (false, true) => Some(("debug", "debug")),
        (false, false) => None,
    }
}

fn named(path: &[&str]) -> Vec<Segment> {
    path.iter().map(|name| Segment::Name((*name).to_owned())).collect()
}

fn path(path: &Path) -> String {
    inline::text(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string())
}

/// What counts where nobody says anything.
fn defaults(settings: &Settings, environment: &Environment) -> BTreeMap<Vec<Segment>, Entry> {
    let mut entries = BTreeMap::new();
    let mut put = |path: &[&str], value: String, origin| {
        entries.insert(named(path), Entry { value, origin });
    };
    let (root, variable) = environment.default_root_and_why();
    put(&["root"], path(&root), variable.map_or(Origin::Default, Origin::Environment));
    for (path, value) in fixed() {
        put(path, value, Origin::Default);
    }
    let (number, age) = settings.history.map_or((BUILDS as u64, 0), |history| (history.max_entries, history.max_age));
    put(&["history", "maxEntries"], number.to_string(), Origin::Default);
    put(&["history", "maxAge"], age.to_string(), Origin::Default);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    put(&["worker", "oci", "max-parallelism"], threads.to_string(), Origin::Default);
    let gc = &settings.oci.gc;
    // What is not limited is not said, and the old name of a limit stands for itself.
    if !gc.off && gc.policies.is_empty() && gc.limits == Limits::default() && gc.keep_storage == Space::default() {
        for (name, space) in gc.effective_limits().named() {
            put(&["worker", "oci", name], space_text(space), Origin::Default);
        }
    }
    entries
}

/// Those that are the same everywhere.
fn fixed() -> [(&'static [&'static str], String); 11] {
    let (text, on) = (inline::text, |on: bool| on.to_string());
    let list = |list: &[&'static str]| inline::list(list.iter().copied());
    [
        (&["insecure-entitlements"], list(&["network.host", "security.insecure", "device"])),
        (&["log", "format"], text("text")),
        (&["log", "level"], text("warn")),
        (&["cdi", "disabled"], on(false)),
        (&["cdi", "specDirs"], list(&crate::cdi::SPEC_DIRS)),
        (&["frontend", "dockerfile.v0", "enabled"], on(true)),
        (&["system", "maxRegistryConcurrency"], BLOB_CONNECTIONS.to_string()),
        (&["worker", "oci", "enabled"], on(true)),
        (&["worker", "oci", "gc"], on(true)),
        (&["worker", "oci", "networkMode"], text("auto")),
        (&["worker", "oci", "snapshotter"], text("auto")),
    ]
}

fn space_text(space: Space) -> String {
    match space {
        Space::Bytes(bytes) => bytes.to_string(),
        Space::Percent(percent) | Space::Share(percent, _) => inline::text(&format!("{percent}%")),
    }
}

impl Effective {
    /// Writes it as a `buildkitd.toml`, with who says a value behind it.
    pub fn toml(&self) -> String {
        let mut text = match &self.file {
            Some(file) => format!("# configuration file: {}\n", on_a_line(file)),
            None => format!("# no configuration file: {} is not there\n", on_a_line(&self.searched)),
        };
        let mut table: &[Segment] = &[];
        // A table stands in one piece, and what belongs to none before all of them.
        let mut entries: Vec<_> = self.entries.iter().map(|(path, entry)| (split(path), entry)).collect();
        entries.sort_by_key(|((above, key), _)| (*above, *key));
        for ((above, key), entry) in entries {
            let said = self.said(&entry.origin);
            if above != table {
                table = above;
                text.push_str(&header(table));
            }
            let _ = match key {
                Some(key) => writeln!(text, "{} = {} # {said}", super::buildkitd::quoted(key), entry.value),
                None => writeln!(text, "# {said}"),
            };
        }
        text
    }

    /// Returns it as JSON: the file, and of each key its name, value and who says it.
    pub fn json(&self) -> serde_json::Value {
        let entry = |(path, entry): (&Vec<Segment>, &Entry)| {
            let from = match &entry.origin {
                Origin::Flag(_) => "flag",
                Origin::File(_) => "file",
                Origin::Environment(_) => "environment",
                Origin::Default => "default",
            };
            let (key, value) = (Segment::join(path), inline::json(&entry.value));
            serde_json::json!({ "key": key, "value": value, "from": from, "origin": self.said(&entry.origin) })
        };
        let entries: Vec<_> = self.entries.iter().map(entry).collect();
        serde_json::json!({ "file": self.file, "settings": entries })
    }

    fn said(&self, origin: &Origin) -> String {
        match origin {
            Origin::Flag(flag) => (*flag).to_owned(),
            Origin::File(line) => format!("{}:{line}", on_a_line(self.file.as_deref().unwrap_or(Path::new("")))),
            Origin::Environment(name) => format!("${name}"),
            Origin::Default => "default".to_owned(),
        }
    }
}

/// Splits a path into its table and its key; an empty table of a list has none.
fn split(path: &[Segment]) -> (&[Segment], Option<&str>) {
    match path.split_last() {
        Some((Segment::Name(key), above)) => (above, Some(key)),
        _ => (path, None),
    }
}

/// A comment ends with its line.
fn on_a_line(path: &Path) -> String {
    path.display().to_string().replace(char::is_control, "?")
}

fn header(table: &[Segment]) -> String {
    match table.split_last() {
        Some((Segment::Index(_), list)) => format!("\n[[{}]]\n", Segment::join(list)),
        _ => format!("\n[{}]\n", Segment::join(table)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fuzzing::buildkitd;

    fn environment() -> Environment {
        Environment::from_pairs([("HOME", "/home/a")], false)
    }

    fn of(text: &str, flags: &Flags) -> Effective {
        buildkitd(text).expect(text).effective(flags, &environment())
    }

    /// The value of a key and who says it.
    fn said(effective: &Effective, key: &str) -> (String, String) {
        let found = effective.entries.iter().find(|(path, _)| Segment::join(*path) == key);
        let (_, entry) = found.unwrap_or_else(|| panic!("{key} is not in\n{}", effective.toml()));
        (entry.value.clone(), effective.said(&entry.origin))
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_the_rest() {
        let flags = Flags { root: Some("/flag".into()), debug: true };
        let none = Flags::default();
        for (text, flags, key, value, origin) in [
            ("", &none, "root", "\"/home/a/.local/share/rbuild\"", "$HOME"),
            ("root = \"\"\n", &none, "root", "\"/home/a/.local/share/rbuild\"", "$HOME"),
            ("\nroot = \"/file\"\n", &none, "root", "\"/file\"", "buildkitd.toml:2"),
            ("root = \"/file\"\n", &flags, "root", "\"/flag\"", "--root"),
            ("", &none, "log.level", "\"warn\"", "default"),
            ("debug = true\n", &none, "log.level", "\"debug\"", "buildkitd.toml:1"),
            ("debug = true\ntrace = true\n", &none, "log.level", "\"trace\"", "buildkitd.toml:2"),
            ("debug = true\n[log]\nlevel = \"error\"\n", &none, "log.level", "\"error\"", "buildkitd.toml:3"),
            ("[log]\nlevel = \"error\"\n", &flags, "log.level", "\"debug\"", "--debug"),
            ("Debug = true\ndebug = false\n", &none, "debug", "false", "buildkitd.toml:2"),
            ("", &none, "history.maxEntries", "128", "default"),
            ("[history]\nmaxAge = \"1h\"\n", &none, "history.maxEntries", "0", "default"),
            ("[history]\nmaxAge = \"1h\"\n", &none, "history.maxAge", "\"1h\"", "buildkitd.toml:2"),
            ("", &none, "worker.oci.reservedSpace", "\"10%\"", "default"),
            (
                "[worker.oci]\nlabels = { b = \"1\", a = \"2\" }\n",
                &none,
                "worker.oci.labels",
                "{ a = \"2\", b = \"1\" }",
                "buildkitd.toml:2",
            ),
            (
                "[[worker.oci.gcpolicy]]\n[[worker.oci.gcpolicy]]\nall = true\n",
                &none,
                "worker.oci.gcpolicy[1].all",
                "true",
                "buildkitd.toml:3",
            ),
        ] {
            assert_eq!(said(&of(text, flags), key), (value.to_owned(), origin.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_printed_means_the_same_when_it_is_read() {
        let every = include_str!("../../testdata/config/every-key.toml");
        let policies = "[[worker.oci.gcpolicy]]\n[[worker.oci.gcpolicy]]\nall = true\n";
        for text in
            ["", every, "[history]\n", policies, "[worker.oci]\ngckeepstorage = 7\n", "[worker.oci]\ngc = false\n"]
        {
            let first = of(text, &Flags::default());
            let again = buildkitd(&first.toml()).expect(text);
            let second = again.effective(&Flags::default(), &environment());
            let values = |effective: &Effective| -> Vec<(Vec<Segment>, String)> {
                effective.entries.iter().map(|(path, entry)| (path.clone(), entry.value.clone())).collect()
            };
            assert_eq!(values(&second), values(&first), "{}", first.toml());
            assert_eq!(
                again.settings.oci.gc.policies().len(),
                buildkitd(text).expect(text).settings.oci.gc.policies().len()
            );
        }
        let settings = buildkitd(&of(every, &Flags::default()).toml()).expect("valid").settings;
        assert_eq!(settings, buildkitd(every).expect("valid").settings);
    }
}
