//! Build arguments of the global scope: those that are always there, and ARGs before the first FROM.

use std::collections::{BTreeMap, BTreeSet};

use super::env::EnvList;
use super::error::Problem;
use crate::dockerfile::instruction::{Dockerfile, InstructionKind};
use crate::dockerfile::word::Lexer;
use crate::image::Platform;

/// The global scope.
#[derive(Debug, Clone, Default)]
pub(crate) struct Globals {
    /// Variables with a value.
    pub(crate) env: EnvList,
    /// ARGs declared before the first FROM, with a value or not.
    pub(crate) declared: BTreeSet<String>,
}

impl Globals {
    /// Tells whether a name means something in a FROM.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.declared.contains(name) || self.env.value(name).is_some()
    }

    /// Lists all names.
    pub(crate) fn names(&self) -> Vec<String> {
        let set = self.env.ordered().into_iter().map(|(name, _)| name.to_owned());
        set.chain(self.declared.iter().cloned()).collect()
    }
}

/// Returns the arguments that every build has; a build argument of the same name replaces the value.
pub(crate) fn built_in(build: &Platform, target: &Platform, stage: &str, given: &BTreeMap<String, String>) -> EnvList {
    let mut env = EnvList::default();
    let stage = if stage.is_empty() { "default" } else { stage };
    for (name, value) in [
        ("BUILDPLATFORM", build.to_string().as_str()),
        ("BUILDOS", &build.os),
        ("BUILDOSVERSION", &build.os_version),
        ("BUILDARCH", &build.architecture),
        ("BUILDVARIANT", &build.variant),
        ("TARGETPLATFORM", &target.format_all()),
        ("TARGETOS", &target.os),
        ("TARGETOSVERSION", &target.os_version),
        ("TARGETARCH", &target.architecture),
        ("TARGETVARIANT", &target.variant),
        ("TARGETSTAGE", stage),
    ] {
        env.set(name, given.get(name).map_or(value, String::as_str));
    }
    env
}

/// Evaluates the ARGs before the first FROM, left to right; a build argument's value is taken as it is.
pub(crate) fn meta(
    dockerfile: &Dockerfile,
    lexer: &Lexer,
    built_in: &EnvList,
    given: &BTreeMap<String, String>,
) -> Result<Globals, Problem> {
    let mut globals = Globals { env: built_in.clone(), declared: BTreeSet::new() };
    for instruction in &dockerfile.meta_args {
        let InstructionKind::Arg(args) = &instruction.kind else { continue };
        for (name, default) in args {
            let value = match (given.get(name), default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => {
                    let expanded = lexer.word(default, &globals.env);
                    Some(expanded.map_err(|e| Problem::from(e).at(&instruction.source.lines))?.text)
                }
                (None, None) => None,
            };
            if let Some(value) = value {
                globals.env.set(name, value);
            }
            globals.declared.insert(name.clone());
        }
    }
    Ok(globals)
}
