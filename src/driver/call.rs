//! Questions about a Dockerfile, answered without a build.

use std::sync::Arc;

use super::{Request, SOLVE, Setup, open};
use crate::diag::Diagnostic;
use crate::frontend::subrequests::{self, Call};
use crate::progress::Sink;

/// The answer to a question.
#[derive(Debug, Clone)]
pub struct Called {
    /// BuildKit's JSON.
    pub json: String,
    /// The text for people.
    pub text: String,
    /// How many warnings the answer holds.
    pub warnings: usize,
    /// What would stop a build, where the question was for that.
    pub failure: Option<Diagnostic>,
}

/// Asks the frontend about the Dockerfile of a build; images are resolved, nothing is pulled.
///
/// # Errors
///
/// Those of the frontend, where they are no part of the answer.
pub async fn call(setup: Setup, request: Request, call: Call, sink: Arc<dyn Sink>) -> Result<Called, Diagnostic> {
    let (build, request, bridge) = open(setup, request, sink, None).await?;
    match subrequests::call(&request, call, &bridge).await {
        Ok(answer) => {
            build.warn(&answer.aside);
            let failure = answer.failure.map(|error| error.into_diagnostic().while_doing(SOLVE));
            Ok(Called { json: answer.json, text: answer.text, warnings: answer.warnings, failure })
        }
        Err(error) => {
            build.warn(&error.warnings);
            Err(error.into_diagnostic().while_doing(SOLVE))
        }
    }
}
