//! Questions about a Dockerfile that need no build: BuildKit's subrequests.
//!
//! ```text
//! request ─▶ parse ─▶ (targets)
//!                └──▶ carry out all stages, or those of the target ─▶ lint · outline ─▶ Answer: JSON and text
//! ```
//!
//! In: a request, and which question. Out: an [`Answer`], in JSON with BuildKit's members and in the text that its clients
//! print. Nothing is built and nothing pulled; images are resolved, because their configurations say what a stage begins with.

mod describe;
mod json;
mod lint;
mod outline;
mod table;
mod targets;

use super::bridge::Bridge;
use super::lowering::Lowering;
use super::{FrontendError, Given, Options, Parsed, Problem, Request};
use crate::dockerfile::lint::LintWarning;
use crate::image::Platform;

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// What is to be said against the Dockerfile.
    Lint,
    /// What arguments, secrets, agents and caches the target uses.
    Outline,
    /// Which stages there are.
    Targets,
    /// Which questions can be asked.
    Describe,
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The JSON that BuildKit gives, without a newline at its end.
    pub json: String,
    /// The text for people.
    pub text: String,
    /// How many warnings the answer holds.
    pub warnings: usize,
    /// What would stop a build, where the answer holds that.
    pub failure: Option<FrontendError>,
    /// Warnings that are no part of the answer.
    pub aside: Vec<LintWarning>,
}

/// Answers a question about a Dockerfile.
pub async fn call(request: &Request, call: Call, bridge: &dyn Bridge) -> Result<Answer, FrontendError> {
    match call {
        Call::Describe => Ok(describe::answer()),
        Call::Targets => targets::answer(request),
        Call::Outline => outline::answer(request, bridge).await,
        Call::Lint => lint::answer(request, bridge).await,
    }
}

impl Answer {
    fn new(json: String, text: String) -> Self {
        Self { json, text, warnings: 0, failure: None, aside: Vec::new() }
    }
}

/// Which stages are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stages {
    Needed,
    All,
}

/// Carries out a Dockerfile for the first platform asked for, and looks at what came of it.
async fn carry_out<T>(
    request: &Request,
    options: &Options,
    stages: Stages,
    bridge: &dyn Bridge,
    look: impl FnOnce(&Lowering<'_>, super::stage::StageId) -> T,
) -> (Result<T, FrontendError>, Vec<LintWarning>) {
    let Parsed { dockerfile, lint, text } = match super::parse_all(request, options) {
        Ok(parsed) => parsed,
        Err(mut error) => {
            let warnings = std::mem::take(&mut error.warnings);
            return (Err(error), warnings);
        }
    };
    let own = request.worker_platforms.first().cloned().unwrap_or_else(Platform::host);
    let given = Given {
        options,
        dockerfile: &dockerfile,
        bridge,
        session: &request.session,
        channel: request.channel,
        build_platform: &own,
    };
    let mut lowering = Lowering::new(given, options.target_platforms.first(), lint);
    lowering.all_stages = stages == Stages::All;
    let outcome = lowering.carry_out().await.map(|target| look(&lowering, target));
    let failed = |problems: Vec<Problem>| FrontendError {
        problems,
        dockerfile: Some((request.dockerfile_name.clone(), text)),
        warnings: Vec::new(),
    };
    (outcome.map_err(failed), lowering.lint.warnings)
}
