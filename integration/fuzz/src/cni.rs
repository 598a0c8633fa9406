//! Targets of the station `cni`: configurations, what plugins answer, and records of what is to be taken down.

use rbuild::cni::fuzzing::{config, failure, record, result};

/// A configuration is read, the same when it is written for later, or refused with a reason; what it names is no path.
pub fn cni_config(data: &[u8]) {
    match config(data) {
        Ok((name, version, plugins, request)) => {
            assert!(!name.is_empty() && !name.contains('/') && name != ".." && !version.is_empty());
            assert!(!plugins.is_empty() && plugins.iter().all(|plugin| !plugin.contains('/') && plugin != ".."));
            let request: serde_json::Value = serde_json::from_slice(&request).unwrap();
            assert_eq!((request["name"].as_str(), request["type"].as_str()), (Some(&*name), Some(&*plugins[0])));
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
}

/// What a plugin says of resolvers becomes words of lines, and what it complains of a bounded message.
pub fn cni_reply(data: &[u8]) {
    match result(data) {
        Ok(dns) => {
            let words = dns.nameservers.iter().chain(&dns.search).chain(&dns.options);
            assert!(words.into_iter().all(|word| word.split_ascii_whitespace().eq([word.as_str()])));
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
    let message = failure(data);
    assert!(!message.is_empty() && message.len() < 1 << 16);
}

/// A record is read or refused with a reason.
pub fn cni_record(data: &[u8]) {
    assert!(record(data).err() != Some(String::new()));
}
