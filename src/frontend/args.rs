//! Build arguments of the global scope: those that are always there, and ARGs before the first FROM.

use std::collections::{BTreeMap, BTreeSet};

use super::env::{EnvList, Lost};
use super::error::Problem;
use super::lowering::expand_noting;
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
    /// ARGs whose default is wrong.
    pub(crate) lost: Lost,
}

impl Globals {
    /// Sets an ARG to its default; returns what is wrong with that, if it does not follow from what is wrong before.
    fn declare(&mut self, lexer: &Lexer, name: &str, default: &str) -> Option<Problem> {
        let mut unset = BTreeSet::new();
        let expanded = expand_noting(lexer, default, &self.env, &mut unset);
        let touched = self.lost.has_any(&unset);
        match expanded {
            Ok(value) if !touched => {
                self.env.set(name, value);
                None
            }
            outcome => {
                self.env.remove(name);
                self.lost.add(name);
                outcome.err().filter(|_| !touched).map(Problem::from)
            }
        }
    }

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
) -> (Globals, Vec<Problem>) {
    let mut globals = Globals { env: built_in.clone(), ..Globals::default() };
    let mut problems = Vec::new();
    for instruction in &dockerfile.meta_args {
        let InstructionKind::Arg(args) = &instruction.kind else { continue };
        for (name, default) in args {
            match (given.get(name), default) {
                (Some(value), _) => globals.env.set(name, value.clone()),
                (None, Some(default)) => {
                    let problem = globals.declare(lexer, name, default);
                    problems.extend(problem.map(|problem| problem.at(&instruction.source.lines)));
                }
                (None, None) => {}
            }
            globals.declared.insert(name.clone());
        }
    }
    (globals, problems)
}
