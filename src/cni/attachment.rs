//! One namespace on one network: connected and taken off by the plugins of the network, in order and in reverse.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CniError;
use super::config::NetworkConfig;
use super::plugin::{self, Call, Verb};
use super::reply::{self, Reply};
use crate::sys::lock::FileLock;

/// The device of a namespace, as BuildKit names it.
pub(super) const INTERFACE: &str = "eth0";

/// A network that is ready to be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub(super) config: NetworkConfig,
    /// Where its plugins are.
    pub(super) dirs: Vec<PathBuf>,
    /// A bridge that goes when nothing is on it.
    pub(super) bridge: Option<String>,
}

impl Network {
    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Says which plugin is missing.
    pub(super) fn check(&self) -> Result<(), CniError> {
        self.config.plugins.iter().try_for_each(|plugin| plugin::find(&plugin.kind, &self.dirs).map(drop))
    }
}

/// A namespace on a network, as far as plugins know it.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) id: String,
    args: String,
    network: Arc<Network>,
    /// What the last plugin to succeed answered.
    pub(super) reply: Option<Reply>,
    /// Whether the bridge was not there before, and is marked when this is done.
    pub(super) makes_bridge: bool,
}

/// An [`Attachment`] on disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    id: String,
    args: String,
    network: Value,
    dirs: Vec<PathBuf>,
    bridge: Option<String>,
    result: Option<Value>,
    #[serde(default)]
    makes_bridge: bool,
}

impl Attachment {
    /// Describes one that is to be; `hostname` is empty where the step has none of its own.
    pub(super) fn new(id: String, hostname: &str, network: Arc<Network>) -> Self {
        // What plugins that tell others the name of a host read; BuildKit passes the same.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let args = match hostname.chars().all(plain) && !hostname.is_empty() {
            true => format!("IgnoreUnknown=1;K8S_POD_NAME={hostname}"),
            // What has a meaning of its own in a list of arguments is no host name.
            false => String::new(),
        };
        Self { id, args, network, reply: None, makes_bridge: false }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let Network { config, dirs, bridge } = &*self.network;
        let record = Record {
            id: self.id.clone(),
            args: self.args.clone(),
            network: config.to_json(),
            dirs: dirs.clone(),
            bridge: bridge.clone(),
            result: self.reply.as_ref().map(|reply| reply.value.clone()),
            makes_bridge: self.makes_bridge,
        };
        serde_json::to_vec(&record).expect("texts and JSON are JSON")
    }

    pub(super) fn from_json(text: &[u8]) -> Result<Self, String> {
        let record: Record = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let config = NetworkConfig::parse(record.network.to_string().as_bytes())?;
        let reply = record.result.map(|value| reply::of_value(value, &config.version)).transpose()?;
        let network = Arc::new(Network { config, dirs: record.dirs, bridge: record.bridge });
        Ok(Self { id: record.id, args: record.args, network, reply, makes_bridge: record.makes_bridge })
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    fn call<'a>(&'a self, verb: Verb, namespace: &'a str, alive: &'a FileLock) -> Call<'a> {
        Call {
            verb,
            network: &self.network.config.name,
            id: &self.id,
            namespace,
            interface: INTERFACE,
            args: &self.args,
            dirs: &self.network.dirs,
            alive,
        }
    }

    /// Connects the namespace: each plugin is given the result of the one before it, once that is noted.
    pub(super) async fn add(
        &mut self,
        namespace: &str,
        alive: &FileLock,
        note: impl Fn(&Self) -> Result<(), CniError>,
    ) -> Result<(), CniError> {
        let network = Arc::clone(&self.network);
        for plugin in &network.config.plugins {
            let request = network.config.request(plugin, self.reply.as_ref().map(|reply| &reply.value));
            let answer = plugin::run(&self.call(Verb::Add, namespace, alive), &plugin.kind, request).await?;
            let reply = reply::parse(&answer, &network.config.version)
                .map_err(|reason| CniError::Reply { plugin: plugin.kind.clone(), reason })?;
            self.reply = Some(reply);
            note(self)?;
        }
        Ok(())
    }

    /// Undoes that, as far as each plugin can; the first error is told when all have tried.
    pub(super) async fn delete(&self, namespace: &str, alive: &FileLock) -> Result<(), CniError> {
        let config = &self.network.config;
        let result = self.reply.as_ref().filter(|_| config.tells_result()).map(|reply| &reply.value);
        let mut outcome = Ok(());
        for plugin in config.plugins.iter().rev() {
            let request = config.request(plugin, result);
            let done = plugin::run(&self.call(Verb::Delete, namespace, alive), &plugin.kind, request).await;
            outcome = outcome.and(done.map(drop));
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::sys::dir::Dir;

    /// Notes what it is asked in `calls`, and answers with its own name in the result; fails where a file says so.
    const PLUGIN: &str = r#"#!/bin/sh
here=${0%/*} name=${0##*/}
{ printf '%s %s ' "$CNI_COMMAND" "$name"; cat; echo; } >> "$here/calls"
[ ! -e "$here/$name.fails" ] || { echo '{"code":100,"msg":"told to"}'; exit 1; }
echo "{\"ips\":[{\"address\":\"10.0.0.2/24\"}],\"by\":\"$name\"}"
"#;

    struct Place {
        temp: tempfile::TempDir,
        alive: FileLock,
    }

    impl Place {
        fn new() -> Self {
            let temp = tempfile::tempdir().expect("temp dir");
            for name in ["one", "two", "three"] {
                crate::sys::programs::plant(&temp.path().join(name), PLUGIN);
            }
            let dir = Dir::open(temp.path()).expect("open");
            let alive = FileLock::exclusive(&dir, OsStr::new("lock")).expect("lock");
            Self { temp, alive }
        }

        fn attachment(&self, version: &str) -> Attachment {
            let text = format!(
                r#"{{"cniVersion":"{version}","name":"n","plugins":[{{"type":"one"}},{{"type":"two"}},{{"type":"three"}}]}}"#
            );
            let config = NetworkConfig::parse(text.as_bytes()).expect("valid");
            let dirs = vec![self.temp.path().to_owned()];
            Attachment::new("i".into(), "", Arc::new(Network { config, dirs, bridge: None }))
        }

        /// The calls since last time: command, plugin, and by whom the result was that it was given.
        fn calls(&self) -> Vec<String> {
            let path = self.temp.path().join("calls");
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            drop(std::fs::remove_file(&path));
            let call = |line: &str| {
                let mut words = line.splitn(3, ' ');
                let (command, name) = (words.next().expect("command"), words.next().expect("name"));
                let request: Value = serde_json::from_str(words.next().expect("request")).expect("JSON");
                let by = request["prevResult"]["by"].as_str().unwrap_or("-").to_owned();
                format!("{command} {name} {by}")
            };
            text.lines().map(call).collect()
        }
    }

    #[tokio::test]
    async fn results_are_passed_on_and_deleted_in_reverse() {
        let place = Place::new();
        for (version, deleted) in [("0.3.1", ["-"; 3]), ("1.0.0", ["three"; 3])] {
            let mut attachment = place.attachment(version);
            attachment.add("/x", &place.alive, |_| Ok(())).await.expect("added");
            assert_eq!(place.calls(), ["ADD one -", "ADD two one", "ADD three two"], "{version}");
            // As the next process would know it.
            let attachment = Attachment::from_json(&attachment.to_json()).expect("read back");
            assert_eq!(attachment.reply.as_ref().expect("a result").addresses.len(), 1);
            attachment.delete("/x", &place.alive).await.expect("deleted");
            let expected: Vec<String> =
                ["three", "two", "one"].iter().zip(deleted).map(|(name, by)| format!("DEL {name} {by}")).collect();
            assert_eq!(place.calls(), expected, "{version}");
        }
    }

    #[tokio::test]
    async fn what_failed_half_way_is_undone_by_all() {
        let place = Place::new();
        std::fs::write(place.temp.path().join("two.fails"), "").expect("write");
        let mut attachment = place.attachment("1.0.0");
        let error = attachment.add("/x", &place.alive, |_| Ok(())).await.expect_err("it fails");
        assert_eq!(error.to_string(), "the CNI plugin \"two\" failed to set up the network \"n\": told to (code 100)");
        let error = attachment.delete("/x", &place.alive).await.expect_err("it fails again").to_string();
        assert!(error.contains("\"two\" failed to take down"), "{error}");
        let expected = ["ADD one -", "ADD two one", "DEL three one", "DEL two one", "DEL one one"];
        assert_eq!(place.calls(), expected);
    }

    #[test]
    fn records_of_others_are_errors() {
        let good = String::from_utf8(Place::new().attachment("1.0.0").to_json()).expect("text");
        assert!(Attachment::from_json(good.as_bytes()).is_ok());
        for text in ["", "{}", &good.replace("\"id\"", "\"other\""), &good.replace("\"one\"", "\"../one\"")] {
            assert!(Attachment::from_json(text.as_bytes()).is_err(), "{text}");
        }
    }
}
