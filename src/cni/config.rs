//! Network configurations: the text of a `.conf` or `.conflist` as a list of plugins, and what each of them is given to read.
//!
//! In: JSON of versions 0.1.0 to 1.1.0 of the CNI specification. Out: [`NetworkConfig`]. What only a plugin understands is
//! passed to it as it stands.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::CniError;
use crate::sys::fds;

/// More than any configuration has.
const MAX_FILE: u64 = 1 << 20;
const MAX_PLUGINS: usize = 64;
/// The newest version that is known here.
const NEWEST: [u32; 3] = [1, 1, 0];
/// What a configuration without version is of.
const OLDEST: &str = "0.1.0";

/// A network.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NetworkConfig {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) plugins: Vec<PluginConfig>,
}

/// What one plugin is configured with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PluginConfig {
    /// The name of its program.
    pub(super) kind: String,
    json: Map<String, Value>,
}

impl PluginConfig {
    /// Returns the plugin that gives addresses, and the directory where it is told to keep them.
    pub(super) fn ipam(&self) -> Option<(&str, Option<&str>)> {
        let ipam = self.json.get("ipam")?;
        Some((ipam.get("type")?.as_str()?, ipam.get("dataDir").and_then(Value::as_str).filter(|dir| !dir.is_empty())))
    }
}

impl NetworkConfig {
    /// Reads a file, and with a list the plugins in the folder of its name, as newer versions have it.
    pub(super) fn load(path: &Path) -> Result<Self, CniError> {
        let invalid = |path: &Path, reason| CniError::Config { path: path.to_owned(), reason };
        let text = read(path)?;
        let (mut config, folder) = Self::parse_with_folder(&text).map_err(|reason| invalid(path, reason))?;
        if folder {
            for file in plugin_files(&path.with_file_name(&config.name))? {
                let plugin = serde_json::from_slice(&read(&file)?).map_err(|error| error.to_string());
                let plugin = plugin.and_then(|value| PluginConfig::parse(&value));
                config.plugins.push(plugin.map_err(|reason| invalid(&file, reason))?);
            }
        }
        match config.plugins.len() {
            0 => Err(invalid(path, "it has no plugin".into())),
            1..=MAX_PLUGINS => Ok(config),
            _ => Err(invalid(path, format!("it has more than {MAX_PLUGINS} plugins"))),
        }
    }

    /// Reads a configuration that is complete in itself.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let (config, _) = Self::parse_with_folder(text)?;
        match config.plugins.len() {
            0 => Err("it has no plugin".into()),
            1..=MAX_PLUGINS => Ok(config),
            _ => Err(format!("it has more than {MAX_PLUGINS} plugins")),
        }
    }

    /// Reads a configuration, and says whether there may be more of it in a folder.
    fn parse_with_folder(text: &[u8]) -> Result<(Self, bool), String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let json = value.as_object().ok_or("it is no JSON object")?;
        let name = word(json, "name")?.ok_or("it has no \"name\"")?;
        check_name(name)?;
        // One plugin alone may stand in a file without a list around it.
        if json.contains_key("type") && !json.contains_key("plugins") {
            let version = version(json)?;
            return Ok((Self { name: name.into(), version, plugins: vec![PluginConfig::parse(&value)?] }, false));
        }
        let plugins = match json.get("plugins") {
            None => Vec::new(),
            Some(list) => list
                .as_array()
                .ok_or("its \"plugins\" are no list")?
                .iter()
                .map(PluginConfig::parse)
                .collect::<Result<_, _>>()?,
        };
        let folder = !truth(json, "loadOnlyInlinedPlugins")?;
        Ok((Self { name: name.into(), version: version(json)?, plugins }, folder))
    }

    /// Returns what a plugin reads: its own configuration, with name and version of the network and the result so far.
    pub(super) fn request(&self, plugin: &PluginConfig, result: Option<&Value>) -> Vec<u8> {
        let mut json = plugin.json.clone();
        json.insert("name".into(), self.name.clone().into());
        json.insert("cniVersion".into(), self.version.clone().into());
        if let Some(result) = result {
            json.insert("prevResult".into(), result.clone());
        }
        Value::Object(json).to_string().into_bytes()
    }

    /// Returns whether plugins are told the result of ADD when they are to undo it.
    pub(super) fn tells_result(&self) -> bool {
        numbers(&self.version).is_ok_and(|version| version >= [0, 4, 0])
    }

    /// Returns it as a list.
    pub(super) fn to_json(&self) -> Value {
        let plugins: Vec<Value> = self.plugins.iter().map(|plugin| Value::Object(plugin.json.clone())).collect();
        serde_json::json!({ "name": self.name, "cniVersion": self.version, "loadOnlyInlinedPlugins": true, "plugins": plugins })
    }
}

impl PluginConfig {
    fn parse(value: &Value) -> Result<Self, String> {
        let json = value.as_object().ok_or("a plugin is no JSON object")?;
        let kind = word(json, "type")?.filter(|kind| !kind.is_empty()).ok_or("a plugin has no \"type\"")?;
        if kind.contains(['/', '\0']) || [".", ".."].contains(&kind) {
            return Err(format!("the \"type\" {kind:?} is no name of a program"));
        }
        Ok(Self { kind: kind.into(), json: json.clone() })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CniError> {
    let bytes = File::open(path).and_then(|file| fds::read_at_most(&file, MAX_FILE));
    bytes.map_err(|source| CniError::Read { path: path.to_owned(), source })
}

/// No such folder is no plugin.
fn plugin_files(folder: &Path) -> Result<Vec<PathBuf>, CniError> {
    let failed = |source| CniError::Read { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries.take(MAX_PLUGINS) {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn word<'a>(json: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    let not_text = || format!("its {key:?} is no text");
    json.get(key).map(|value| value.as_str().ok_or_else(not_text)).transpose()
}

fn truth(json: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match json.get(key) {
        None | Some(Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(format!("its {key:?} is neither true nor false")),
    }
}

/// As the specification has it, and so no path.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    match name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain) {
        true => Ok(()),
        false => Err(format!("the \"name\" {name:?} has other characters than letters, digits, `.`, `_` and `-`")),
    }
}

/// Where a list offers several versions, the newest that is known.
fn version(json: &Map<String, Value>) -> Result<String, String> {
    let single = word(json, "cniVersion")?.filter(|version| !version.is_empty());
    single.map(numbers).transpose()?;
    let Some(offered) = json.get("cniVersions") else { return Ok(single.unwrap_or(OLDEST).into()) };
    let offered = offered.as_array().ok_or("its \"cniVersions\" are no list")?;
    let mut best: Option<([u32; 3], &str)> = None;
    for version in offered.iter().map(|version| version.as_str().ok_or("an entry of \"cniVersions\" is no text")) {
        let version = version?;
        let known = Some((numbers(version)?, version)).filter(|(numbers, _)| *numbers <= NEWEST);
        best = best.max(known);
    }
    let single_known = single.map(|text| numbers(text).map(|numbers| (numbers, text))).transpose()?;
    best = best.max(single_known.filter(|(numbers, _)| *numbers <= NEWEST));
    Ok(best.map(|(_, text)| text).or(single).unwrap_or(OLDEST).into())
}

fn numbers(version: &str) -> Result<[u32; 3], String> {
    let wrong = || format!("{version:?} is no version of CNI");
    let mut parts = version.split('.').map(str::parse::<u32>);
    let mut next = || parts.next().unwrap_or(Ok(0)).map_err(|_| wrong());
    let found = [next()?, next()?, next()?];
    if parts.next().is_some() || version.is_empty() { Err(wrong()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plugin_and_lists_are_read() {
        for (text, name, version, kinds) in [
            (r#"{"cniVersion":"0.3.1","name":"a","type":"bridge","bridge":"b0"}"#, "a", "0.3.1", vec!["bridge"]),
            (r#"{"name":"a","type":"bridge"}"#, "a", "0.1.0", vec!["bridge"]),
            (
                r#"{"cniVersion":"1.0.0","name":"a.b_c-1","plugins":[{"type":"bridge"},{"type":"firewall"}]}"#,
                "a.b_c-1",
                "1.0.0",
                vec!["bridge", "firewall"],
            ),
            (
                r#"{"cniVersion":"0.4.0","cniVersions":["1.1.0","9.0.0","1.0.0"],"name":"a","plugins":[{"type":"x"}]}"#,
                "a",
                "1.1.0",
                vec!["x"],
            ),
            (
                r#"{"cniVersion":"1.0","cniVersions":["0.4.0"],"name":"a","plugins":[{"type":"x"}]}"#,
                "a",
                "1.0",
                vec!["x"],
            ),
        ] {
            let config = NetworkConfig::parse(text.as_bytes()).expect(text);
            let found: Vec<&str> = config.plugins.iter().map(|plugin| plugin.kind.as_str()).collect();
            assert_eq!((config.name.as_str(), config.version.as_str(), found), (name, version, kinds), "{text}");
            assert_eq!(NetworkConfig::parse(config.to_json().to_string().as_bytes()), Ok(config), "{text}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_told() {
        for (text, reason) in [
            ("", "EOF"),
            ("[]", "no JSON object"),
            (r#"{"type":"bridge"}"#, "no \"name\""),
            (r#"{"name":7,"type":"bridge"}"#, "\"name\" is no text"),
            (r#"{"name":"../x","type":"bridge"}"#, "other characters"),
            (r#"{"name":"","type":"bridge"}"#, "other characters"),
            (r#"{"name":"a","type":""}"#, "no \"type\""),
            (r#"{"name":"a","type":"../sh"}"#, "no name of a program"),
            (r#"{"name":"a","type":".."}"#, "no name of a program"),
            (r#"{"name":"a","plugins":{}}"#, "no list"),
            (r#"{"name":"a","plugins":[]}"#, "no plugin"),
            (r#"{"name":"a","plugins":[1]}"#, "a plugin is no JSON object"),
            (r#"{"name":"a"}"#, "no plugin"),
            (r#"{"name":"a","cniVersion":"x","type":"b"}"#, "no version"),
            (r#"{"name":"a","cniVersion":"1.0.0.0","type":"b"}"#, "no version"),
            (r#"{"name":"a","loadOnlyInlinedPlugins":1,"plugins":[{"type":"b"}]}"#, "neither true nor false"),
        ] {
            let error = NetworkConfig::parse(text.as_bytes()).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_plugin_is_given_its_own_keys_and_those_of_the_network() {
        let text = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge","name":"other","ipam":{"type":"host-local"}}]}"#;
        let config = NetworkConfig::parse(text.as_bytes()).expect("valid");
        let result = serde_json::json!({"ips": []});
        let request: Value = serde_json::from_slice(&config.request(&config.plugins[0], Some(&result))).expect("JSON");
        let expected = serde_json::json!({
            "cniVersion": "1.0.0", "name": "n", "type": "bridge", "ipam": {"type": "host-local"}, "prevResult": {"ips": []},
        });
        assert_eq!(request, expected);
    }

    #[test]
    fn plugins_of_the_folder_of_a_list_come_last_in_order_of_their_names() {
        let temp = tempfile::tempdir().expect("temp dir");
        let write = |name: &str, text: &str| std::fs::write(temp.path().join(name), text).expect("write");
        std::fs::create_dir(temp.path().join("n")).expect("mkdir");
        write("n/20.conf", r#"{"type":"second"}"#);
        write("n/10.conf", r#"{"type":"first"}"#);
        write("n/10.txt", "no plugin");
        let kinds = |config: NetworkConfig| config.plugins.into_iter().map(|plugin| plugin.kind).collect::<Vec<_>>();
        write("a.conflist", r#"{"name":"n","plugins":[{"type":"own"}]}"#);
        assert_eq!(
            kinds(NetworkConfig::load(&temp.path().join("a.conflist")).expect("valid")),
            ["own", "first", "second"]
        );
        write("b.conflist", r#"{"name":"n","loadOnlyInlinedPlugins":"true","plugins":[{"type":"own"}]}"#);
        assert_eq!(kinds(NetworkConfig::load(&temp.path().join("b.conflist")).expect("valid")), ["own"]);
        write("c.json", r#"{"name":"n","type":"own"}"#);
        assert_eq!(kinds(NetworkConfig::load(&temp.path().join("c.json")).expect("valid")), ["own"]);
        write("n/30.conf", "{");
        let error = NetworkConfig::load(&temp.path().join("a.conflist")).expect_err("invalid").to_string();
        assert!(error.contains("n/30.conf is invalid: EOF"), "{error}");
    }
}
