//! What is fetched: web servers and git repositories, set up for one build; and a main context that comes from there.

use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::bridge::DriverBridge;
use super::request::{ContextSource, Request};
use super::setup::{Setup, Stations};
use super::{Build, Problem};
use crate::diag::{Diagnostic, Kind};
use crate::digest::Digest;
use crate::exec::Executor;
use crate::frontend::{self, Lowered, PlatformResult, RemoteContext};
use crate::image::{ImageConfig, Platform};
use crate::llb::SourceOp;
use crate::ops::{LayerObserver, Tree};
use crate::snapshot::{Chain, LayerId};
use crate::solver::Need;
use crate::source::git::{GitLimits, GitSource, Program};
use crate::source::http::{HttpLimits, HttpSource, HttpSpec};
use crate::source::local::Context;
use crate::sys::programs;

/// Bytes that tell an archive from a Dockerfile.
const HEAD: u64 = 1024;

/// Sources that are fetched.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub(super) http: Arc<HttpSource>,
    pub(super) git: Arc<GitSource>,
}

/// A main context that was fetched.
pub(super) struct Fetched {
    /// Its files.
    pub(super) tree: Context,
    /// Whether the only one, `context`, is the Dockerfile.
    pub(super) is_dockerfile: bool,
}

impl Sources {
    pub(super) fn open(setup: &Setup, request: &Request, stations: &Stations) -> Result<Self, Diagnostic> {
        let secrets = Arc::new(request.secrets.clone());
        let snapshots = || Arc::clone(&stations.snapshots);
        let http = HttpSource::open(setup.proxies.clone(), HttpLimits::default(), snapshots(), secrets.clone());
        let http = Arc::new(http.map_err(|error| Diagnostic::from_error(&error))?);
        let program = Program {
            path: programs::find("git", &setup.search_path, &setup.workspaces, Path::is_file),
            search_path: std::env::join_paths(programs::outside(&setup.search_path, &setup.workspaces))
                .unwrap_or_default(),
            proxies: setup.proxies.clone(),
            limits: GitLimits::default(),
        };
        let git = GitSource::open(program, snapshots(), Arc::clone(&http), secrets, request.agents.clone());
        let git = Arc::new(git.map_err(|error| Diagnostic::from_error(&error))?);
        Ok(Self { http, git })
    }

    /// Returns the first bytes of a URL's file.
    pub(super) async fn head(&self, url: &str, stations: &Stations) -> Result<Vec<u8>, Diagnostic> {
        let spec = HttpSpec::new(url, frontend::REMOTE_FILE);
        let fetched = self.http.fetch(&spec).await.map_err(|error| Diagnostic::from_error(&error))?;
        let mut head = Vec::new();
        let file = open_file(stations, &fetched.chain, &fetched.resolved.filename)?;
        let failed = |error: std::io::Error| Diagnostic::new(Kind::Machine, format!("failed to read a file: {error}"));
        file.take(HEAD).read_to_end(&mut head).map_err(failed)?;
        Ok(head)
    }
}

/// Opens the one file of a tree.
pub(super) fn open_file(stations: &Stations, chain: &Chain, name: &str) -> Result<std::fs::File, Diagnostic> {
    let view = stations.snapshots.view(chain).map_err(|error| Diagnostic::from_error(&error))?;
    let opened = view.dir().open_file(std::ffi::OsStr::new(name));
    opened.map_err(|error| Diagnostic::new(Kind::Machine, format!("failed to open {name}: {error}")))
}

/// Nobody waits for the layers of a context.
struct Unobserved;

impl LayerObserver for Unobserved {
    fn layer(&self, _vertex: &Digest, _layer: LayerId) {}
}

impl Build {
    /// Fetches the main context if it is a remote one: by the very ops that the build begins with, so that it is not fetched twice.
    pub(super) async fn fetch_context(&self) -> Result<Option<Fetched>, Diagnostic> {
        if self.request.context != ContextSource::Remote {
            return Ok(None);
        }
        let wrong = |error: frontend::FrontendError| error.into_diagnostic();
        let source = frontend::remote_context(&self.request.options).map_err(wrong)?;
        let head = match &source {
            Some(source) if !source.identifier.starts_with("git://") => Some(self.head_of(source).await?),
            _ => None,
        };
        let remote = frontend::remote_definition(&self.request.options, head.as_deref()).map_err(wrong)?;
        let nothing = || Diagnostic::new(Kind::Usage, "the context is neither a directory nor a URL");
        let RemoteContext { definition, is_dockerfile } = remote.ok_or_else(nothing)?;
        let platform = Platform::host();
        let result = PlatformResult {
            platform,
            definition,
            config: ImageConfig::default(),
            base_config: None,
            epoch: None,
            ignore_cache: false,
        };
        let lowered = Lowered { results: vec![result], multi_platform: false, warnings: Vec::new() };
        let executor = Executor::new(super::exec_options(&self.setup, &self.request));
        let executor = executor.map_err(|error| Diagnostic::from_error(&error))?;
        let worker = Arc::new(self.worker(self.empty_bridge(), executor, Arc::new(Unobserved))?);
        let problem = Problem { lowered: &lowered, worker: &worker, stores: &[], need: Need::Bytes, kept: false };
        let (trees, _) = self.solve(problem, CancellationToken::new()).await?;
        let Some(Tree::Layers(chain)) = trees?.into_iter().next() else { return Err(nothing()) };
        let view = self.stations.snapshots.view(&chain).map_err(|error| Diagnostic::from_error(&error))?;
        let failed =
            |error: std::io::Error| Diagnostic::new(Kind::Machine, format!("failed to open the context: {error}"));
        let tree = Context::of_tree(view.dir().duplicate().map_err(failed)?);
        Ok(Some(Fetched { tree, is_dockerfile }))
    }

    async fn head_of(&self, source: &SourceOp) -> Result<Vec<u8>, Diagnostic> {
        let name = "[internal] load remote build context";
        let head = async |_| self.sources.head(&source.identifier, &self.stations).await.map_err(super::steps::Shown);
        self.steps.run(name, head).await.map_err(|super::steps::Shown(diagnostic)| diagnostic)
    }

    fn empty_bridge(&self) -> DriverBridge {
        DriverBridge {
            steps: self.steps.clone(),
            images: self.stations.images(),
            layouts: Default::default(),
            contexts: Default::default(),
            own_ignore: None,
            sources: self.sources.clone(),
            stations: Arc::clone(&self.stations),
            resolved: Mutex::default(),
        }
    }
}
