//! `buildkitd.toml`: text to settings, with the line of whatever is wrong or has no effect.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ConfigError, RegistryHost, Settings, location};

type Entry<'a> = (&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>);

/// Parses the text of a configuration file.
pub(super) fn parse(file: &str, text: &str) -> Result<Settings, ConfigError> {
    let reader = Reader { file, text };
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        ConfigError::Syntax { reason: error.message().to_owned(), location: Box::new(location(file, text, offset)) }
    })?;
    let mut settings = Settings::default();
    for entry in table.get_ref() {
        reader.top_level(entry, &mut settings)?;
    }
    Ok(settings)
}

pub(super) struct Reader<'a> {
    file: &'a str,
    text: &'a str,
}

impl Reader<'_> {
    fn top_level(&self, (key, value): Entry<'_>, settings: &mut Settings) -> Result<(), ConfigError> {
        match key.get_ref().as_ref() {
            "root" => settings.root = Some(self.text_value(value)?.into()),
            "debug" => settings.debug = self.bool_value(value)?,
            "registry" => {
                for entry in self.table(value)? {
                    self.registry(entry, settings)?;
                }
            }
            "worker" => {
                for entry in self.table(value)? {
                    self.worker(entry, settings)?;
                }
            }
            "cdi" => {
                for entry in self.table(value)? {
                    self.cdi(entry, settings)?;
                }
            }
            // Settings of a daemon's sockets and tracing: there is no daemon to which they could apply.
            "grpc" | "otel" | "trace" => {}
            name => self.warn(key.span().start, name, settings),
        }
        Ok(())
    }

    fn registry(&self, (host, value): Entry<'_>, settings: &mut Settings) -> Result<(), ConfigError> {
        let mut options = RegistryHost::default();
        for (key, value) in self.table(value)? {
            match key.get_ref().as_ref() {
                "http" => options.http = self.bool_value(value)?,
                "insecure" => options.insecure = self.bool_value(value)?,
                "mirrors" => options.mirrors = self.texts(value, "a list of registries")?,
                name => self.warn(key.span().start, &format!("registry.{:?}.{name}", host.get_ref()), settings),
            }
        }
        settings.registries.insert(host.get_ref().to_string(), options);
        Ok(())
    }

    fn worker(&self, (kind, value): Entry<'_>, settings: &mut Settings) -> Result<(), ConfigError> {
        if kind.get_ref() != "oci" {
            return Ok(());
        }
        for (key, value) in self.table(value)? {
            match key.get_ref().as_ref() {
                "enabled" | "rootless" => {}
                "max-parallelism" => settings.max_parallelism = Some(self.count(value)?),
                name if self.gc(name, value, &mut settings.gc)? => {}
                name => self.warn(key.span().start, &format!("worker.oci.{name}"), settings),
            }
        }
        Ok(())
    }

    fn cdi(&self, (key, value): Entry<'_>, settings: &mut Settings) -> Result<(), ConfigError> {
        match key.get_ref().as_ref() {
            "disabled" => settings.cdi_disabled = self.bool_value(value)?,
            "specDirs" => {
                let dirs = self.texts(value, "a list of directories")?;
                settings.cdi_dirs = Some(dirs.into_iter().map(Into::into).collect());
            }
            "autoAllowed" => settings.cdi_auto_allowed = self.texts(value, "a list of devices")?,
            name => self.warn(key.span().start, &format!("cdi.{name}"), settings),
        }
        Ok(())
    }

    fn warn(&self, offset: usize, key: &str, settings: &mut Settings) {
        let line = location(self.file, self.text, offset).ranges[0].start;
        settings.warnings.push(format!("{}:{line}: `{key}` has no effect in this version of rbuild", self.file));
    }

    pub(super) fn wrong(&self, value: &Spanned<DeValue<'_>>, expected: &str) -> ConfigError {
        let found = value.get_ref().type_str();
        self.wrong_at(value.span().start, format!("expected {expected}, found {found}"))
    }

    pub(super) fn wrong_at(&self, offset: usize, reason: String) -> ConfigError {
        let place = location(self.file, self.text, offset);
        ConfigError::Syntax { reason, location: Box::new(place) }
    }

    pub(super) fn table<'t>(&self, value: &'t Spanned<DeValue<'t>>) -> Result<&'t DeTable<'t>, ConfigError> {
        value.get_ref().as_table().ok_or_else(|| self.wrong(value, "a table"))
    }

    pub(super) fn texts(&self, value: &Spanned<DeValue<'_>>, expected: &str) -> Result<Vec<String>, ConfigError> {
        let wrong = || self.wrong(value, expected);
        let list = value.get_ref().as_array().ok_or_else(wrong)?;
        list.iter().map(|entry| self.text_value(entry)).collect()
    }

    pub(super) fn bool_value(&self, value: &Spanned<DeValue<'_>>) -> Result<bool, ConfigError> {
        value.get_ref().as_bool().ok_or_else(|| self.wrong(value, "true or false"))
    }

    fn text_value(&self, value: &Spanned<DeValue<'_>>) -> Result<String, ConfigError> {
        value.get_ref().as_str().map(str::to_owned).ok_or_else(|| self.wrong(value, "a text"))
    }

    fn count(&self, value: &Spanned<DeValue<'_>>) -> Result<usize, ConfigError> {
        let number = value.get_ref().as_integer().and_then(|i| i.as_str().parse().ok());
        number.filter(|n| *n > 0).ok_or_else(|| self.wrong(value, "a positive whole number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Diagnose;

    #[test]
    fn reads_registries_and_limits() {
        let text = "debug = true\n[registry.\"localhost:5000\"]\n  http = true\n  mirrors = [\"a\", \"b/c\"]\n  keypair = []\n[worker.oci]\n  max-parallelism = 4\n[grpc]\n  debugAddress = \"x\"\n";
        let settings = parse("b.toml", text).expect("valid");
        let mirrors = vec!["a".to_owned(), "b/c".to_owned()];
        assert_eq!(settings.registries["localhost:5000"], RegistryHost { http: true, insecure: false, mirrors });
        assert_eq!((settings.max_parallelism, settings.debug), (Some(4), true));
        let warning = "b.toml:5: `registry.\"localhost:5000\".keypair` has no effect in this version of rbuild";
        assert_eq!(settings.warnings, [warning]);
    }

    #[test]
    fn reads_where_devices_are_described() {
        let text = "[cdi]\n disabled = true\n specDirs = [\"/a\", \"/b\"]\n autoAllowed = [\"v.com/c\"]\n other = 1\n";
        let settings = parse("b.toml", text).expect("valid");
        assert_eq!(settings.cdi_dirs, Some(vec!["/a".into(), "/b".into()]));
        assert_eq!((settings.cdi_disabled, settings.cdi_auto_allowed), (true, vec!["v.com/c".to_owned()]));
        assert_eq!(settings.warnings, ["b.toml:5: `cdi.other` has no effect in this version of rbuild"]);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line) in [
            ("a = \n", 1),
            ("\n[registry.x]\nhttp = 1\n", 3),
            ("[worker.oci]\nmax-parallelism = 0\n", 2),
            ("[worker.oci]\ngckeepstorage = \"ten\"\n", 2),
            ("[[worker.oci.gcpolicy]]\nall = true\nfilters = [\"size==1\"]\n", 3),
            ("[[worker.oci.gcpolicy]]\nkeepByte = 1\n", 2),
        ] {
            let error = parse("b.toml", text).expect_err(text);
            assert_eq!(error.locations()[0].ranges[0].start, line, "{text}");
        }
    }
}
