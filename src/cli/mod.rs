//! The command line: flags to a build request, and what a failure prints.
//!
//! In: arguments, environment, standard input. Out: an exit code; results on standard output, everything else on standard
//! error. [`main`] is called before any thread exists, because entering a user namespace wants that.

pub mod args;
mod call;
mod display;
pub mod du;
mod dump;
mod explain;
#[doc(hidden)]
pub mod fuzzing;
mod misuse;
mod notice;
pub mod prune;
mod request;
mod signals;
mod worker;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::cdi::{DeviceOptions, SPEC_DIRS};
use crate::config::{CdiSettings, Configuration, Environment, RegistryHost, Settings};
use crate::diag::{Diagnostic, Kind};
use crate::driver::{self, ContextSource, Outcome, Request, Setup};
use crate::export::ExportSpec;
use crate::progress::{Commands, Sink, sanitize};
use crate::registry::{HostOptions, Proxies};
use crate::remotecache::{ExportTarget, ImportSpec};
use crate::rootless;
use crate::snapshot::SnapshotKind;
use args::{BuildArgs, Cli, Command, DebugCommand};
use display::Screen;

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let environment = Environment::read(crate::sys::effective_uid() == 0);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match misuse::diagnostic(&error) {
            Some(diagnostic) => return fail(&diagnostic, &environment),
            None => {
                // A closed pipe while printing help is no failure.
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
        },
    };
    match run(cli, &environment) {
        Ok(code) => code,
        Err(diagnostic) => fail(&diagnostic, &environment),
    }
}

/// Tells the error, the last thing on standard error, and returns its exit code.
fn fail(diagnostic: &Diagnostic, environment: &Environment) -> ExitCode {
    // It quotes foreign files and servers.
    let text = sanitize::message(&diagnostic.render(), display::commands(environment));
    // Nobody is left to tell that standard error is closed; the exit code says the rest.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(diagnostic.kind.exit_code())
}

fn run(cli: Cli, environment: &Environment) -> Result<ExitCode, Diagnostic> {
    // A kernel that does not know the request only costs memory.
    let _ = crate::sys::proc::use_huge_pages(false);
    match cli.command {
        None => build_or_call(&cli.build, environment),
        Some(Command::Build(args)) => build_or_call(&args, environment),
        Some(Command::Prune(args)) => prune::prune(&args, environment),
        Some(Command::Du(args)) => du::du(&args, environment),
        Some(Command::Explain(args)) => explain::explain(&args, environment).map(done),
        Some(Command::Debug(DebugCommand::DumpLlb(args))) => dump::dump_llb(&args, environment).map(done),
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

fn build_or_call(args: &BuildArgs, environment: &Environment) -> Result<ExitCode, Diagnostic> {
    match call::asked(args)? {
        Some(asked) => call::call(args, environment, asked),
        None => build(args, environment).map(done),
    }
}

/// Everything a build needs that comes from flags, files and the environment.
struct Prepared {
    request: Request,
    settings: Settings,
    exports: Vec<ExportSpec>,
    caches_from: Vec<ImportSpec>,
    caches_to: Vec<ExportTarget>,
}

fn prepare(args: &BuildArgs, environment: &Environment) -> Result<Prepared, Diagnostic> {
    let loaded = Configuration::load(args.config.as_deref(), environment);
    let Configuration { settings, warnings, notes, .. } = loaded.map_err(|e| Diagnostic::from_error(&e))?;
    start_tracing(args, args.debug || settings.debug, display::commands(environment));
    warnings.iter().for_each(|warning| notice::tell(args, environment, warning));
    notes.iter().for_each(|note| tracing::debug!("{note}"));
    let request = request::build_request(args, environment, &mut std::io::stdin().lock())?;
    let exports = request::exports(args)?;
    let (caches_from, caches_to) = (request::caches_from(args)?, request::caches_to(args)?);
    Ok(Prepared { request, settings, exports, caches_from, caches_to })
}

fn build(args: &BuildArgs, environment: &Environment) -> Result<(), Diagnostic> {
    let prepared = prepare(args, environment)?;
    let snapshotter = worker::snapshotter(&prepared.settings.oci)?;
    let entered = rootless::enter().map_err(|error| Diagnostic::from_error(&error))?;
    for notice in &entered.notices {
        notice::tell(args, environment, notice);
    }
    worker::tell(args, environment, &prepared.settings.oci);
    if prepared.exports.is_empty() {
        notice::tell(args, environment, notice::NO_OUTPUT);
    }
    let (screen, sink) = Screen::start(args, environment);
    let squash = entered.mode == rootless::Mode::SingleId;
    let setup = Setup { snapshotter, ..setup(args, environment, &prepared, squash) };
    let explained = setup.explained.clone();
    let result = on_runtime(sink, |sink, cancel| driver::build(setup, prepared.request, sink, cancel));
    screen.finish();
    explain::tell(args, environment, explained.as_ref());
    finish(args, &result?)
}

/// Runs a future on a new runtime; signals cancel it, and their diagnostic replaces the one of being cancelled.
fn on_runtime<T, F>(
    sink: std::sync::Arc<dyn Sink>,
    work: impl FnOnce(std::sync::Arc<dyn Sink>, CancellationToken) -> F,
) -> Result<T, Diagnostic>
where
    F: Future<Output = Result<T, Diagnostic>>,
{
    let failed = |error: std::io::Error| Diagnostic::new(Kind::Machine, format!("failed to start threads: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    let result = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let signals = signals::watch(cancel.clone()).map_err(failed)?;
        let result = work(sink, cancel).await;
        match signals.caught() {
            Some(signal) if result.is_err() => Err(signals::diagnostic(signal)),
            _ => result,
        }
    });
    // Threads that pack or read may be long in one call. Nobody waits for them after a failure: what they write is in the scratch
    // folder, which the next build removes.
    runtime.shutdown_timeout(Duration::from_millis(if result.is_err() { 500 } else { 5000 }));
    result
}

fn devices(settings: &Settings) -> DeviceOptions {
    let CdiSettings { disabled, dirs, auto_allowed } = settings.cdi.clone();
    let dirs = match (disabled, dirs.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => SPEC_DIRS.map(Into::into).to_vec(),
        (false, false) => dirs,
    };
    DeviceOptions { dirs, auto_allowed }
}

fn setup(args: &BuildArgs, environment: &Environment, prepared: &Prepared, squash_ids: bool) -> Setup {
    let settings = &prepared.settings;
    let exports = prepared.exports.clone();
    let root = args.root.clone().or_else(|| settings.root.clone()).unwrap_or_else(|| environment.default_root());
    Setup {
        exports,
        root: std::path::absolute(&root).unwrap_or(root),
        registries: settings.registries.iter().map(|(host, o)| (host.clone(), host_options(o))).collect(),
        auth_files: environment.auth_files(),
        search_path: environment.search_path(),
        worker: worker::exec_options(
            &settings.oci,
            (environment.search_path(), workspaces(&prepared.request, environment)),
        ),
        workspaces: workspaces(&prepared.request, environment),
        snapshotter: SnapshotKind::Auto,
        proxies: proxies(environment),
        parallelism: settings.oci.max_parallelism,
        squash_ids,
        devices: devices(settings),
        iidfile: args.iidfile.clone(),
        metadata_file: args.metadata_file.clone(),
        caches_from: prepared.caches_from.clone(),
        caches_to: prepared.caches_to.clone(),
        cache_strict: args.cache_strict,
        cache_failed: args.cache_failed,
        limits: settings.oci.gc.policies(),
        explained: args.explain.then(Default::default),
    }
}

/// Returns the directories whose files others may have written. The user's home is none, though builds are started there.
fn workspaces(request: &Request, environment: &Environment) -> Vec<std::path::PathBuf> {
    let real = |path: std::path::PathBuf| path.canonicalize().ok();
    let home = real(environment.home());
    let context = match &request.context {
        ContextSource::Directory(path) => Some(path.clone()),
        ContextSource::StdinTar { .. } | ContextSource::Empty | ContextSource::Remote => None,
    };
    let found = [std::env::current_dir().ok(), context].into_iter().flatten().filter_map(real);
    found.filter(|path| path.parent().is_some() && home.as_ref().is_none_or(|home| !home.starts_with(path))).collect()
}

fn host_options(host: &RegistryHost) -> HostOptions {
    HostOptions {
        http: host.http.unwrap_or_default(),
        insecure: host.insecure.unwrap_or_default(),
        mirrors: host.mirrors.clone(),
        ..HostOptions::default()
    }
}

fn proxies(environment: &Environment) -> Proxies {
    Proxies {
        http: environment.first(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
        https: environment.first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
        except: environment.first(&["no_proxy", "NO_PROXY"]).unwrap_or_default(),
    }
}

/// Prints the image's digest where that was asked for.
fn finish(args: &BuildArgs, outcome: &Outcome) -> Result<(), Diagnostic> {
    if args.quiet
        && let Some(digest) = &outcome.image_id
    {
        match writeln!(std::io::stdout(), "{digest}") {
            // Whoever closed it has what it wanted, as for the other commands.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(closed_output(&error)),
            _ => {}
        }
    }
    Ok(())
}

fn closed_output(error: &std::io::Error) -> Diagnostic {
    Diagnostic::new(Kind::Machine, format!("failed to write to standard output: {}", crate::diag::chain(error)))
}

/// Standard error for log lines, which quote foreign names.
struct LogWriter(Commands);

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = sanitize::message(&String::from_utf8_lossy(line), self.0);
        std::io::stderr().write_all(text.as_bytes()).map(|()| line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A program that reads JSON gets no lines of a log, unless it asks.
fn start_tracing(args: &BuildArgs, debug: bool, commands: Commands) {
    let directives = match args.progress {
        _ if debug => "warn,rbuild=debug",
        args::ProgressMode::Rawjson => "off",
        _ => "warn",
    };
    let filter = tracing_subscriber::filter::EnvFilter::new(directives);
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    let subscriber = subscriber.with_writer(move || LogWriter(commands)).without_time().finish();
    // A second subscriber can only come from a second call in one process, as in tests; the first stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
