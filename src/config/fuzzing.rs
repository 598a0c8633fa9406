//! A door for the fuzzers in `integration/fuzz` to the reader of `buildkitd.toml`, which is private otherwise.

use super::{ConfigError, Configuration, buildkitd};

/// Parses the text of a configuration file.
pub fn buildkitd(text: &str) -> Result<Configuration, ConfigError> {
    buildkitd::parse("buildkitd.toml", text)
}
