//! Instructions that change variables and the image configuration, but no files.

use std::collections::BTreeSet;

use super::dispatch::At;
use super::error::Problem;
use super::image::{self, Layer};
use super::lowering::{Lowering, is_outside_env};
use super::signals;
use super::stage::DeclaredArg;
use crate::diag::LineRange;
use crate::dockerfile::duration;
use crate::dockerfile::goquote::{plain_list, quote, quote_list};
use crate::dockerfile::instruction::{CommandLine, HealthcheckInstruction, KeyValue};
use crate::dockerfile::lint::Rule;
use crate::image::Healthcheck;

/// Words that make a variable's name sound secret.
const SECRET_WORDS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Words that make it sound harmless after all.
const HARMLESS_WORDS: [&str; 3] = ["public", "file", "version"];

/// Returns whether the name of a variable sounds as if its value were nobody else's business.
pub fn sounds_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
    has(&SECRET_WORDS) && !has(&HARMLESS_WORDS)
}

impl Lowering<'_> {
    pub(crate) fn dispatch_arg(&mut self, at: At<'_>, args: &[(String, Option<String>)]) -> Result<(), Problem> {
        let mut record = String::from("ARG");
        for (name, default) in args {
            self.check_secret_name(at, "ARG", name);
            let value = match (self.build_args.get(name), default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(self.expand(at.stage, at.source, default)?),
                (None, None) => self.globals.env.value(name).map(str::to_owned),
            };
            let is_lost = value.is_none() && self.globals.lost.has_any(&BTreeSet::from([name.clone()]));
            let stage = self.stages.get_mut(at.stage);
            if is_lost {
                stage.lost.add(name);
            }
            record.push_str(&format!(" {name}"));
            if let Some(value) = &value {
                record.push_str(&format!("={value}"));
                if !is_outside_env(name) {
                    stage.state.env.set(name, value.as_str());
                }
            }
            let is_global = default.is_none() && value.is_some() && !self.build_args.contains_key(name);
            stage.outline.arg(at.source, name, value.as_deref(), is_global);
            stage.args.push(DeclaredArg { name: name.clone(), value });
        }
        self.record(at.stage, record, Layer::None);
        Ok(())
    }

    pub(crate) fn dispatch_env(&mut self, at: At<'_>, pairs: &[KeyValue]) -> Result<(), Problem> {
        let pairs = self.expand_pairs(at, pairs)?;
        let mut record = String::from("ENV");
        for (name, value, legacy) in pairs {
            if legacy {
                self.report_legacy(at);
            }
            self.check_secret_name(at, "ENV", &name);
            record.push_str(&format!(" {name}={value}"));
            let stage = self.stages.get_mut(at.stage);
            let assignment = format!("{name}={value}");
            let env = &mut stage.image.config.env;
            // The image keeps the place of a variable, while processes see it last.
            match stage.env_places.get(&name) {
                Some(place) => env[*place] = assignment,
                None => {
                    stage.env_places.insert(name.clone(), env.len());
                    env.push(assignment);
                }
            }
            stage.state.env.set(&name, value);
        }
        self.record(at.stage, record, Layer::None);
        Ok(())
    }

    pub(crate) fn dispatch_label(&mut self, at: At<'_>, pairs: &[KeyValue]) -> Result<(), Problem> {
        let pairs = self.expand_pairs(at, pairs)?;
        let mut record = String::from("LABEL");
        for (name, value, legacy) in pairs {
            if legacy {
                self.report_legacy(at);
            }
            record.push_str(&format!(" {name}={value}"));
            self.stages.get_mut(at.stage).image.config.labels.insert(name, value);
        }
        self.record(at.stage, record, Layer::None);
        Ok(())
    }

    /// Expands all names and values before any takes effect.
    fn expand_pairs(&mut self, at: At<'_>, pairs: &[KeyValue]) -> Result<Vec<(String, String, bool)>, Problem> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let name = self.expand(at.stage, at.source, &pair.key)?;
            let value = self.expand(at.stage, at.source, &pair.value)?;
            expanded.push((name, value, pair.legacy));
        }
        Ok(expanded)
    }

    fn report_legacy(&mut self, at: At<'_>) {
        let word = &at.source.keyword;
        let message = format!("\"{word} key=value\" should be used instead of legacy \"{word} key value\" format");
        self.lint.instruction(Rule::LegacyKeyValueFormat, at.source, message);
    }

    fn check_secret_name(&mut self, at: At<'_>, instruction: &str, name: &str) {
        if sounds_secret(name) {
            let message =
                format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {})", quote(name));
            self.lint.instruction(Rule::SecretsUsedInArgOrEnv, at.source, message);
        }
    }

    pub(crate) fn dispatch_maintainer(&mut self, at: At<'_>, author: &str) -> Result<(), Problem> {
        author.clone_into(&mut self.stages.get_mut(at.stage).image.author);
        self.record(at.stage, format!("MAINTAINER {author}"), Layer::None);
        Ok(())
    }

    pub(crate) fn dispatch_cmd(&mut self, at: At<'_>, command: &CommandLine) -> Result<(), Problem> {
        let former = self.stages.get_mut(at.stage).former.cmd.replace(at.source.lines.clone());
        self.report_repeated(at, former);
        let args = self.command_words(at, command);
        let record = format!("CMD {}", quote_list(&args));
        let config = &mut self.stages.get_mut(at.stage).image.config;
        config.cmd = args;
        config.args_escaped = true;
        self.record(at.stage, record, Layer::None);
        Ok(())
    }

    pub(crate) fn dispatch_entrypoint(&mut self, at: At<'_>, command: &CommandLine) -> Result<(), Problem> {
        let former = self.stages.get_mut(at.stage).former.entrypoint.replace(at.source.lines.clone());
        self.report_repeated(at, former);
        let args = self.command_words(at, command);
        let record = format!("ENTRYPOINT {}", quote_list(&args));
        let stage = self.stages.get_mut(at.stage);
        stage.image.config.entrypoint = args;
        if stage.former.cmd.is_none() {
            stage.image.config.cmd.clear();
        }
        self.record(at.stage, record, Layer::None);
        Ok(())
    }

    fn command_words(&mut self, at: At<'_>, command: &CommandLine) -> Vec<String> {
        if !command.shell {
            return command.args.clone();
        }
        if self.stages.get(at.stage).image.config.shell.is_empty() {
            let word = &at.source.keyword;
            let message =
                format!("JSON arguments recommended for {word} to prevent unintended behavior related to OS signals");
            self.lint.instruction(Rule::JsonArgsRecommended, at.source, message);
        }
        image::with_shell(&self.stages.get(at.stage).image, &command.args)
    }

    /// Points to the former of two instructions of which only the last counts.
    fn report_repeated(&mut self, at: At<'_>, former: Option<Vec<LineRange>>) {
        let Some(lines) = former else { return };
        let word = &at.source.keyword;
        let message = format!(
            "Multiple {word} instructions should not be used in the same stage because only the last one will be used"
        );
        self.lint.located(Rule::MultipleInstructionsDisallowed, &at.source.comments, &lines, message);
    }

    pub(crate) fn dispatch_healthcheck(&mut self, at: At<'_>, check: &HealthcheckInstruction) -> Result<(), Problem> {
        let former = self.stages.get_mut(at.stage).former.healthcheck.replace(at.source.lines.clone());
        self.report_repeated(at, former);
        let record = format!(
            "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            plain_list(&check.test),
            duration::format(check.interval),
            duration::format(check.timeout),
            duration::format(check.start_period),
            duration::format(check.start_interval),
            check.retries,
        );
        self.stages.get_mut(at.stage).image.config.healthcheck = Some(Healthcheck {
            test: check.test.clone(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        });
        self.record(at.stage, record, Layer::None);
        Ok(())
    }

    pub(crate) fn dispatch_user(&mut self, at: At<'_>, user: &str) -> Result<(), Problem> {
        let user = self.expand(at.stage, at.source, user)?;
        let stage = self.stages.get_mut(at.stage);
        stage.state.user.clone_from(&user);
        stage.image.config.user.clone_from(&user);
        self.record(at.stage, format!("USER {user}"), Layer::None);
        Ok(())
    }

    pub(crate) fn dispatch_volume(&mut self, at: At<'_>, paths: &[String]) -> Result<(), Problem> {
        let mut volumes = Vec::new();
        for path in paths {
            volumes.push(self.expand(at.stage, at.source, path)?);
        }
        if volumes.iter().any(String::is_empty) {
            return Err(Problem::new("VOLUME specified can not be an empty string"));
        }
        let record = format!("VOLUME {}", plain_list(&volumes));
        self.stages.get_mut(at.stage).image.config.volumes.extend(volumes);
        self.record(at.stage, record, Layer::None);
        Ok(())
    }

    pub(crate) fn dispatch_stop_signal(&mut self, at: At<'_>, signal: &str) -> Result<(), Problem> {
        let signal = self.expand(at.stage, at.source, signal)?;
        if !signals::is_signal(&signal) {
            return Err(
                Problem::new(format!("invalid signal: {signal}")).hinted("use a name such as SIGTERM or a number")
            );
        }
        self.stages.get_mut(at.stage).image.config.stop_signal.clone_from(&signal);
        self.record(at.stage, format!("STOPSIGNAL {signal}"), Layer::None);
        Ok(())
    }

    pub(crate) fn dispatch_shell(&mut self, at: At<'_>, shell: &[String]) -> Result<(), Problem> {
        self.stages.get_mut(at.stage).image.config.shell = shell.to_vec();
        self.record(at.stage, format!("SHELL {}", plain_list(shell)), Layer::None);
        Ok(())
    }
}
