//! A door for the fuzzers in `integration/fuzz` to what reads configurations, answers and records, which is private otherwise.

use super::attachment::Attachment;
use super::config::NetworkConfig;
use super::{Dns, reply};

/// A configuration: name, version, names of plugins, and what the first of them is given to read.
pub type Read = (String, String, Vec<String>, Vec<u8>);

/// Reads a configuration; an error is a message.
pub fn config(text: &[u8]) -> Result<Read, String> {
    let config = NetworkConfig::parse(text)?;
    let again = NetworkConfig::parse(config.to_json().to_string().as_bytes());
    assert_eq!(again.as_ref(), Ok(&config), "what is written for later is the same");
    let request = config.plugins.first().map(|plugin| config.request(plugin, None)).unwrap_or_default();
    let kinds = config.plugins.iter().map(|plugin| plugin.kind.clone()).collect();
    Ok((config.name, config.version, kinds, request))
}

/// Reads the result of a plugin; returns what it says about resolvers.
pub fn result(text: &[u8]) -> Result<Dns, String> {
    reply::parse(text, "1.0.0").map(|reply| reply.dns)
}

/// Reads the error of a plugin.
pub fn failure(text: &[u8]) -> String {
    reply::failure(text, text, "exit status: 1")
}

/// Reads a record of the state directory.
pub fn record(text: &[u8]) -> Result<(), String> {
    Attachment::from_json(text).map(drop)
}
