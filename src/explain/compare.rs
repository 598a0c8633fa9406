//! A build compared with an earlier one: one reason a step.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::difference::{Change, Difference};
use super::files::List;
use super::pair::{Name, pair};
use super::record::{BuildRecord, Ingredient, Kind, Step, StepInput, StepOutcome};

/// Differences of one step that are listed.
const LISTED: usize = 20;

/// What kind of reason it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A cache had it.
    Cached,
    /// What depends on it was cached.
    Covered,
    /// A source that a step needed.
    Source,
    /// It was told not to use the cache.
    NoCache,
    /// There is no build to compare with.
    First,
    /// No step of the other build is like it.
    New,
    /// It differs.
    Changed,
    /// A step before it differs.
    EarlierStep,
    /// It failed in the other build.
    FailedBefore,
    /// The other build ended before it.
    NotReachedBefore,
    /// Nothing known differs.
    Unknown,
    /// It did not run in this build.
    NotRun,
}

/// Why a step ran or was cached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub outcome: StepOutcome,
    /// The cache that had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Why.
    pub reason: Reason,
    /// The same in words.
    pub text: String,
    /// The earlier step that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What differs, the first of it.
    pub differences: Vec<Difference>,
    /// How many more things differ.
    pub more: usize,
}

/// A build compared with another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The build.
    pub build: String,
    /// The other build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// Where results were looked up.
    pub caches: Vec<String>,
    /// The steps.
    pub steps: Vec<StepReport>,
}

impl Report {
    /// Returns the report as lines of text.
    pub fn text(&self) -> String {
        let mut text = match &self.against {
            Some(against) => format!("explain: build {}, compared with build {against}\n", self.build),
            None => format!("explain: build {}, the first that is known of this context\n", self.build),
        };
        for step in &self.steps {
            let did = match step.outcome {
                StepOutcome::Ran => "ran",
                StepOutcome::Cached | StepOutcome::Covered => "cached",
                StepOutcome::Failed => "failed",
                StepOutcome::Canceled => "was stopped",
                StepOutcome::NotReached => "was not reached",
            };
            // Writing to a string cannot fail.
            let _ = match step.text.as_str() {
                "" => writeln!(text, "{} {did}", step.name),
                why => writeln!(text, "{} {did}: {why}", step.name),
            };
        }
        text
    }
}

/// Why a step's key is another than that of the step it was.
#[derive(Debug)]
enum Cause {
    Ignored,
    New,
    Differs(Vec<Difference>),
    Earlier(usize),
    /// It was built on this step.
    Moved(String),
}

/// Says why each step of `now` ran or was cached; `lists` reads lists of files by name.
pub fn compare(now: &BuildRecord, before: Option<&BuildRecord>, lists: &dyn Fn(&str) -> Option<Vec<u8>>) -> Report {
    let comparison = Comparison::new(now, before, lists);
    Report {
        build: now.id.clone(),
        against: before.map(|before| before.id.clone()),
        caches: now.caches.clone(),
        steps: (0..now.steps.len()).map(|at| comparison.report(at)).collect(),
    }
}

/// Adds what an earlier build knew of the content that steps read, where a step was found by its definition alone, and its
/// definition is the same all the way down: then its content is that of before.
pub fn complete(now: &mut BuildRecord, before: &BuildRecord) {
    let comparison = Comparison::new(now, Some(before), &|_| None);
    let mut known = Vec::new();
    for (at, step) in now.steps.iter().enumerate() {
        let found = matches!(step.outcome, StepOutcome::Cached | StepOutcome::Covered);
        if let (true, None, Some(was)) = (found, &comparison.causes[at], comparison.was(at)) {
            let missing = |(_, (input, _)): &(usize, (&StepInput, &StepInput))| input.content.is_none();
            let inputs = step.inputs.iter().zip(&was.inputs).enumerate().filter(missing);
            known.extend(inputs.map(|(input, (_, was))| (at, input, was.content.clone(), was.files.clone())));
        }
    }
    for (at, input, content, files) in known {
        let input = &mut now.steps[at].inputs[input];
        (input.content, input.files) = (content, files);
    }
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// Images are paired whatever their digest is; steps of several platforms among those of their own.
fn pair_name(step: &Step) -> String {
    let name = match step.source {
        true => step.name.split_once("@sha256:").map_or(step.name.as_str(), |(name, _)| name),
        false => &step.name,
    };
    let parts = Name::of(name);
    format!("[{} {} 1/1] {}", step.platform, parts.stage, parts.command)
}

struct Comparison<'a> {
    now: &'a BuildRecord,
    before: Option<&'a BuildRecord>,
    pairs: Vec<Option<usize>>,
    lists: &'a dyn Fn(&str) -> Option<Vec<u8>>,
    causes: Vec<Option<Cause>>,
}

impl<'a> Comparison<'a> {
    fn new(now: &'a BuildRecord, before: Option<&'a BuildRecord>, lists: &'a dyn Fn(&str) -> Option<Vec<u8>>) -> Self {
        let names = |record: &BuildRecord| record.steps.iter().map(pair_name).collect::<Vec<_>>();
        let (old, new) = (before.map(names).unwrap_or_default(), names(now));
        let pairs = pair(&strs(&old), &strs(&new));
        let mut comparison = Self { now, before, pairs, lists, causes: Vec::new() };
        for at in 0..now.steps.len() {
            let cause = comparison.cause(at);
            comparison.causes.push(cause);
        }
        comparison
    }

    fn was(&self, at: usize) -> Option<&Step> {
        self.before?.steps.get((*self.pairs.get(at)?)?)
    }

    fn cause(&self, at: usize) -> Option<Cause> {
        let step = &self.now.steps[at];
        if step.ignore_cache {
            return Some(Cause::Ignored);
        }
        let Some(was) = self.was(at) else { return Some(Cause::New) };
        let mut differences = own_differences(was, step);
        for (input, other) in step.inputs.iter().zip(&was.inputs) {
            if let (Some(content), Some(before)) = (&input.content, &other.content)
                && content != before
            {
                differences.extend(self.file_differences(input, other));
            }
        }
        if differences.is_empty() { self.inherited(step, was) } else { Some(Cause::Differs(differences)) }
    }

    fn file_differences(&self, input: &StepInput, other: &StepInput) -> Vec<Difference> {
        let read = |input: &StepInput| (self.lists)(input.files.as_deref()?);
        let (now, before) = (read(input), read(other));
        let lists = now.as_deref().and_then(List::read).zip(before.as_deref().and_then(List::read));
        let found = lists.map(|(now, before)| now.differences(&before)).unwrap_or_default();
        if !found.is_empty() {
            return found;
        }
        // That something differs is known, what it is was not kept.
        let from = self.now.steps.get(input.step).map_or("", |step| &step.name);
        vec![Difference::file(&format!("what it reads of {from}"), Change::Content)]
    }

    /// The first step it is built on whose key is another; inputs whose content is known were compared by that.
    fn inherited(&self, step: &Step, was: &Step) -> Option<Cause> {
        for (at, input) in step.inputs.iter().enumerate() {
            let other = was.inputs.get(at);
            if input.content.is_some() && other.is_some_and(|other| other.content.is_some()) {
                continue;
            }
            match &self.causes[input.step] {
                Some(Cause::Earlier(root)) => return Some(Cause::Earlier(*root)),
                Some(_) => return Some(Cause::Earlier(input.step)),
                None => {}
            }
            let same = other.is_some_and(|o| self.pairs[input.step] == Some(o.step) && o.output == input.output);
            if !same {
                let name = other.and_then(|o| self.before?.steps.get(o.step)).map_or("", |step| &step.name);
                return Some(Cause::Moved(name.to_owned()));
            }
        }
        None
    }

    fn report(&self, at: usize) -> StepReport {
        let step = &self.now.steps[at];
        let plain = |reason, text: &str| StepReport {
            name: step.name.clone(),
            outcome: step.outcome,
            cache: step.cache.clone(),
            reason,
            text: text.to_owned(),
            step: None,
            differences: Vec::new(),
            more: 0,
        };
        match (step.outcome, &self.causes[at]) {
            (StepOutcome::Cached, _) => {
                plain(Reason::Cached, &format!("from {}", step.cache.as_deref().unwrap_or("a cache")))
            }
            (StepOutcome::Covered, _) => plain(Reason::Covered, "not needed, what depends on it is cached"),
            (StepOutcome::NotReached, _) => plain(Reason::NotRun, ""),
            (_, Some(Cause::Differs(found))) => {
                let mut report = plain(Reason::Changed, &listed(found));
                report.more = found.len().saturating_sub(LISTED);
                report.differences = found.iter().take(LISTED).cloned().collect();
                report
            }
            _ if step.source => {
                plain(Reason::Source, "its files were needed, to run a step or to see whether they changed")
            }
            (_, Some(Cause::Ignored)) => {
                plain(Reason::NoCache, self.now.no_cache.as_deref().unwrap_or("it was told not to use the cache"))
            }
            _ if self.before.is_none() => {
                let text = format!("not in any cache (first build here; asked: {})", self.asked());
                plain(Reason::First, &text)
            }
            (_, Some(Cause::New)) => plain(Reason::New, "no step like it in the build compared with"),
            (_, Some(Cause::Earlier(root))) => {
                let mut report = plain(Reason::EarlierStep, &self.earlier(*root));
                report.step = Some(self.now.steps[*root].name.clone());
                report
            }
            (_, Some(Cause::Moved(name))) => {
                plain(Reason::EarlierStep, &format!("it is built on another step than before, which was {name}"))
            }
            (_, None) => self.unexplained(at, plain),
        }
    }

    fn earlier(&self, root: usize) -> String {
        let name = &self.now.steps[root].name;
        match &self.causes[root] {
            Some(Cause::Ignored) => format!("an earlier step ran without the cache: {name}"),
            Some(Cause::New) => format!("an earlier step is new: {name}"),
            Some(Cause::Differs(found)) => format!("an earlier step changed: {name} ({})", listed(found)),
            _ => format!("an earlier step changed: {name}"),
        }
    }

    /// Nothing that is known differs.
    fn unexplained(&self, at: usize, plain: impl Fn(Reason, &str) -> StepReport) -> StepReport {
        let step = &self.now.steps[at];
        match self.was(at).map(|was| was.outcome) {
            Some(StepOutcome::Failed) => {
                plain(Reason::FailedBefore, "it failed in the build compared with, so there was no result to keep")
            }
            Some(StepOutcome::Canceled | StepOutcome::NotReached) => {
                plain(Reason::NotReachedBefore, "the build compared with ended before it had a result")
            }
            _ => {
                let text = format!(
                    "nothing that is known of it changed ({}), so its result was removed or never exported; asked: {}",
                    compared(step),
                    self.asked()
                );
                plain(Reason::Unknown, &text)
            }
        }
    }

    fn asked(&self) -> String {
        if self.now.caches.is_empty() { "no cache could be read".into() } else { self.now.caches.join(", ") }
    }
}

fn listed(found: &[Difference]) -> String {
    let first = found.first().map(ToString::to_string).unwrap_or_default();
    match found.len() {
        0 | 1 => first,
        count => format!("{first} (and {} more)", count - 1),
    }
}

/// What was compared, in words.
fn compared(step: &Step) -> String {
    let count = |kinds: &[Kind]| step.ingredients.iter().filter(|i| kinds.contains(&i.kind)).count();
    let variables = count(&[Kind::Arg, Kind::Env, Kind::Variable]);
    let rest = step.ingredients.len() - variables - count(&[Kind::Mount]);
    let contents = step.inputs.iter().filter(|input| input.content.is_some()).count();
    format!(
        "compared: {rest} settings, {variables} variables, {} mounts, {} inputs, {contents} of them by content",
        count(&[Kind::Mount]),
        step.inputs.len()
    )
}

/// Compares two steps' own keys.
fn own_differences(was: &Step, now: &Step) -> Vec<Difference> {
    let by_name = |step: &Step| -> BTreeMap<(Kind, String), Ingredient> {
        step.ingredients.iter().map(|i| ((i.kind, i.name.clone()), i.clone())).collect()
    };
    let (old, new) = (by_name(was), by_name(now));
    let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let mut found: Vec<Difference> =
        keys.into_iter().filter_map(|key| Difference::of(old.get(key), new.get(key))).collect();
    let (from, to) = (Name::of(&was.name).command, Name::of(&now.name).command);
    if from != to && found.iter().any(|difference| difference.kind == Kind::Command) {
        // The instruction says it better than what became of it.
        found.retain(|difference| difference.kind != Kind::Command);
        let command =
            Difference { kind: Kind::Command, name: String::new(), change: Change::Value, from: None, to: None };
        found.insert(0, command.values(from, to));
    }
    found
}
