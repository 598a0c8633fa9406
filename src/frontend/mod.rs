//! The Dockerfile frontend: a Dockerfile and options to LLB, op for op and byte for byte as BuildKit's.
//!
//! ```text
//! options ─▶ parse ─▶ global args ─▶ stages ─▶ links, target ─▶ base images, triggers ─▶ instructions ─▶ definition
//!                                                                (Bridge, at once)       (RUN, COPY, …)   and config
//! ```
//!
//! In: a [`Request`]. Out: [`Lowered`]: one definition, image configuration and epoch per platform, and lint warnings. The
//! world is asked through a [`Bridge`] only; all else is pure.
//!
//! Invariants: nothing but the request and the bridge's answers decides the output. Only stages that the target needs ask
//! anything. Lowering is linear in the Dockerfile, but for environments, which each RUN holds whole.

mod args;
mod bases;
pub mod bridge;
mod chmod;
mod contexts;
mod copy;
mod dispatch;
mod env;
mod epoch;
pub mod error;
mod expose;
mod graph;
mod image;
mod lowering;
mod metadata;
mod mounts;
mod names;
mod options;
mod outline;
mod paths;
mod plan;
mod run;
mod signals;
mod sources;
mod stage;
pub mod subrequests;
mod syntax;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

pub use bridge::{Answer, Bridge, BridgeError, ResolveMode, ResolvedImage};
pub(crate) use contexts::REMOTE_FILE;
pub use error::{FrontendError, Problem};
pub use metadata::sounds_secret;
pub use syntax::{Channel, SyntaxNotice, channel_asked, syntax_notice};

use crate::dockerfile::instruction::Dockerfile;
use crate::dockerfile::lint::{CheckOptions, LintWarning, Linter};
use crate::dockerfile::parse::parse;
use crate::image::{ImageConfig, Platform};
use crate::llb::{Definition, SourceOp};
use lowering::{Given, Lowering};
use options::Options;

/// What to lower.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Name of the Dockerfile in messages.
    pub dockerfile_name: String,
    /// The Dockerfile.
    pub dockerfile: Vec<u8>,
    /// Options by the names `buildctl --opt` uses.
    pub options: BTreeMap<String, String>,
    /// Platforms of the worker, its own first.
    pub worker_platforms: Vec<Platform>,
    /// Id of the session that local sources belong to.
    pub session: String,
    /// Which language the Dockerfile may be in.
    pub channel: Channel,
}

/// What a request becomes.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// One result per target platform, in the order asked for.
    pub results: Vec<PlatformResult>,
    /// Whether the results are an index even if there is one only.
    pub multi_platform: bool,
    /// Lint warnings, in the order of discovery; with several platforms, those of the first.
    pub warnings: Vec<LintWarning>,
}

/// What a request becomes for one platform.
#[derive(Debug, Clone)]
pub struct PlatformResult {
    /// The target platform.
    pub platform: Platform,
    /// The ops.
    pub definition: Definition,
    /// The image configuration, as far as it is known before the build.
    pub config: ImageConfig,
    /// Configuration of the target's base image, unmodified.
    pub base_config: Option<ImageConfig>,
    /// Resolved `SOURCE_DATE_EPOCH` in seconds since 1970.
    pub epoch: Option<i64>,
    /// Whether the target stage was told not to use the cache.
    pub ignore_cache: bool,
}

/// A main context that is fetched.
#[derive(Debug, Clone)]
pub struct RemoteContext {
    /// The ops that make its tree.
    pub definition: Definition,
    /// Whether it is one file, `context`, which is the Dockerfile.
    pub is_dockerfile: bool,
}

/// Goes on with a file that asks for this frontend, or for none; [`lower`] and [`subrequests::call`] take it for granted.
pub fn accept_syntax(request: &Request) -> Result<(), FrontendError> {
    let build_arg = request.options.get("build-arg:BUILDKIT_SYNTAX").map(String::as_str);
    syntax::accept(&request.dockerfile, build_arg).map_err(|problem| {
        let text = String::from_utf8_lossy(&request.dockerfile).into();
        FrontendError { dockerfile: Some((request.dockerfile_name.clone(), text)), ..problem.into() }
    })
}

/// Lowers a Dockerfile, whatever frontend its `# syntax=` asks for.
pub async fn lower(request: &Request, bridge: &dyn Bridge) -> Result<Lowered, FrontendError> {
    let options = Options::parse(&request.options)?;
    let Parsed { dockerfile, lint, text } = parse_all(request, &options)?;
    let lowered = lower_parsed(request, &options, &dockerfile, lint, bridge).await;
    lowered.map_err(|error| FrontendError { dockerfile: Some((request.dockerfile_name.clone(), text)), ..error })
}

/// Returns the source of the main context, if the options name a remote one: the Dockerfile is then read from it.
///
/// It is a git repository, or a URL that is saved as the file `context`: an archive to unpack, or else the Dockerfile itself.
pub fn remote_context(options: &BTreeMap<String, String>) -> Result<Option<SourceOp>, FrontendError> {
    let options = Options::parse(options)?;
    Ok(contexts::remote_source(&options)?.map(|(source, _)| source))
}

/// A Dockerfile that has no mistake a parser can find.
struct Parsed {
    dockerfile: Dockerfile,
    lint: Linter,
    text: Arc<str>,
}

fn parse_all(request: &Request, options: &Options) -> Result<Parsed, FrontendError> {
    if request.dockerfile.is_empty() {
        let name = &request.dockerfile_name;
        let problem = Problem::new(format!("the Dockerfile ({name}) cannot be empty"));
        let problem = problem.said_upstream("the Dockerfile cannot be empty");
        return Err(problem.hinted("begin it with an image to start from: `FROM IMAGE`, or `FROM scratch`").into());
    }
    let text: Arc<str> = String::from_utf8_lossy(&request.dockerfile).into();
    match parse_request(request, options) {
        Ok((dockerfile, lint)) => Ok(Parsed { dockerfile, lint, text }),
        Err(error) => Err(FrontendError { dockerfile: Some((request.dockerfile_name.clone(), text)), ..error }),
    }
}

/// Returns the ops that make the tree of a remote main context, the same that [`lower`] begins with; none for a local one.
/// `head` holds the first bytes of the file that a URL gave.
pub fn remote_definition(
    options: &BTreeMap<String, String>,
    head: Option<&[u8]>,
) -> Result<Option<RemoteContext>, FrontendError> {
    let options = Options::parse(options)?;
    let archive = head.is_some_and(contexts::is_archive);
    let definition = contexts::remote_definition(&options, archive)?;
    Ok(definition.map(|definition| RemoteContext { definition, is_dockerfile: head.is_some() && !archive }))
}

fn parse_request(request: &Request, options: &Options) -> Result<(Dockerfile, Linter), FrontendError> {
    let argument = options.build_args.get("BUILDKIT_DOCKERFILE_CHECK").map(String::as_str);
    let checks = CheckOptions::of_build(&request.dockerfile, argument).map_err(Problem::from)?;
    let mut lint = Linter::new(checks);
    match parse(&request.dockerfile_name, &request.dockerfile, &mut lint) {
        Ok(dockerfile) => Ok((dockerfile, lint)),
        Err(errors) => {
            let problems = errors.into_iter().map(Problem::from).collect();
            Err(FrontendError { problems, dockerfile: None, warnings: lint.warnings })
        }
    }
}

async fn lower_parsed(
    request: &Request,
    options: &Options,
    dockerfile: &Dockerfile,
    lint: Linter,
    bridge: &dyn Bridge,
) -> Result<Lowered, FrontendError> {
    let build_platform = request.worker_platforms.first().cloned().unwrap_or_else(Platform::host);
    let given = Given {
        options,
        dockerfile,
        bridge,
        session: &request.session,
        channel: request.channel,
        build_platform: &build_platform,
    };
    let mut targets: Vec<Option<&Platform>> = options.target_platforms.iter().map(Some).collect();
    if targets.is_empty() {
        targets.push(None);
    }
    let outcomes = join_all(targets.into_iter().enumerate().map(async |(at, platform)| {
        // As in BuildKit, the first platform alone is warned of; so a warning that fails the build is one of it, too.
        let lint = if at == 0 { lint.clone() } else { Linter::unheard() };
        let mut lowering = Lowering::new(given, platform, lint);
        let result = lowering.run().await;
        (result, lowering.lint.warnings)
    }));
    let (mut results, mut problems) = (Vec::new(), Vec::new());
    let mut first_warnings = None;
    for (result, warnings) in outcomes.await {
        match result {
            Ok(result) => results.push(result),
            // Most of what is wrong is so on every platform.
            Err(more) => more.into_iter().for_each(|p| {
                if !problems.contains(&p) {
                    problems.push(p)
                }
            }),
        }
        first_warnings.get_or_insert(warnings);
    }
    let warnings = first_warnings.unwrap_or_default();
    if !problems.is_empty() {
        return Err(FrontendError { problems, dockerfile: None, warnings });
    }
    Ok(Lowered { results, multi_platform: options.multi_platform, warnings })
}

#[cfg(test)]
#[path = "lower_tests.rs"]
mod tests;
