//! Flags to a build request: values parsed and checked, environment consulted, standard input looked at, nothing built.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use super::args::{BuildArgs, Limit};
use crate::cdi::Grants;
use crate::cli::misuse;
use crate::config::Environment;
use crate::diag::{Diagnostic, Kind, chain, suggest};
use crate::dockerfile::gitref;
use crate::driver::request::LayoutSource;
use crate::driver::{ContextSource, DockerfileSource, Request};
use crate::export::ExportSpec;
use crate::export::annotations::{self, Annotation};
use crate::export::spec::ImageTarget;
use crate::image::platform::{KNOWN_ARCH, KNOWN_OS, Platform};
use crate::image::reference::{Reference, ReferenceError};
use crate::ops::{Agents, Secrets};
use crate::remotecache::{ExportTarget, ImportSpec};
use crate::secrets::{SecretSpec, SshSpec, read_secret};
use crate::source::local::CONTEXT_HINT;

/// The largest Dockerfile read from standard input, in bytes.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// Turns flags into a request.
///
/// # Errors
///
/// A [`Kind::Usage`] diagnostic that names the flag and what it may say.
pub(super) fn build_request(
    args: &BuildArgs,
    environment: &Environment,
    stdin: &mut dyn Read,
) -> Result<Request, Diagnostic> {
    if let Some((refusal, remedy)) = args.absent.refused() {
        return Err(usage(refusal).hinted(remedy));
    }
    let mut request = Request { allow: entitlements(args)?, ..Request::default() };
    let (context, dockerfile) = sources(args, stdin)?;
    request.options = options(args, environment)?;
    if let DockerfileSource::File(path) = &dockerfile {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        request.options.insert("filename".into(), name);
    }
    if context == ContextSource::Remote {
        request.options.insert("context".into(), args.context.clone());
    }
    request.context = context;
    request.dockerfile = dockerfile;
    for value in &args.build_contexts {
        named_context(value, &mut request)?;
    }
    request.secrets = secrets(args, environment)?;
    request.agents = agents(args, environment)?;
    Ok(request)
}

fn secrets(args: &BuildArgs, environment: &Environment) -> Result<Secrets, Diagnostic> {
    let mut secrets = Secrets::default();
    let workspace = workspace()?;
    for text in &args.secrets {
        let wrap = |error| Diagnostic::from_error(&error);
        let spec = SecretSpec::parse(text).map_err(wrap)?;
        let secret = read_secret(&spec, &workspace, &|name| environment.bytes(name)).map_err(wrap)?;
        secrets.insert(spec.id, secret);
    }
    Ok(secrets)
}

fn agents(args: &BuildArgs, environment: &Environment) -> Result<Agents, Diagnostic> {
    let (own, workspace) = (environment.path("SSH_AUTH_SOCK"), workspace()?);
    let find = |text: &String| {
        let spec = SshSpec::parse(text)?;
        let agent = spec.agent(own.as_deref(), &workspace)?;
        Ok((spec.id, agent))
    };
    // A repository that is reached by ssh asks for the agent without a word, as with buildx.
    let by_ssh = args.ssh.is_empty() && own.is_some() && is_git_by_ssh(&args.context);
    let implied = by_ssh.then(|| "default".to_owned());
    let found = args.ssh.iter().chain(&implied).map(find).collect::<Result<_, crate::secrets::SecretError>>();
    found.map_err(|error| Diagnostic::from_error(&error))
}

fn workspace() -> Result<PathBuf, Diagnostic> {
    std::env::current_dir().map_err(|e| usage(format!("failed to find the working directory: {e}")))
}

/// The destinations that flags ask for: names, annotations, `--push` and `--load` worked into those of `--output`.
///
/// # Errors
///
/// A diagnostic that names the flag.
pub(super) fn exports(args: &BuildArgs) -> Result<Vec<ExportSpec>, Diagnostic> {
    let parse = |text: &String| ExportSpec::parse(text).map_err(|error| Diagnostic::from_error(&error));
    let names = names(args)?;
    let annotations = annotations(&args.annotations)?;
    let named_push = |text: &str| {
        if names.is_empty() { text.to_owned() } else { format!("{text},\"name={}\"", args.tags.join(",")) }
    };
    let mut exports = args.outputs.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let pushes = exports.iter_mut().filter_map(|export| match export {
        ExportSpec::Image(target) => Some(target),
        _ => None,
    });
    if args.push {
        let mut pushed = false;
        for target in pushes {
            (target.push, pushed) = (true, true);
        }
        if !pushed {
            exports.push(parse(&named_push("type=registry"))?);
        }
    }
    if args.load && !exports.iter().any(|export| matches!(export, ExportSpec::Load(_))) {
        exports.push(parse(&"type=docker".to_owned())?);
    }
    if exports.is_empty() && (args.quiet || args.iidfile.is_some() || args.metadata_file.is_some()) {
        exports.push(parse(&"type=image".to_owned())?);
    }
    for target in exports.iter_mut().filter_map(image_of) {
        if !names.is_empty() {
            target.names.clone_from(&names);
        }
        target.options.annotations.extend_from_slice(&annotations);
    }
    Ok(exports)
}

fn image_of(export: &mut ExportSpec) -> Option<&mut ImageTarget> {
    match export {
        ExportSpec::Image(push) => Some(&mut push.image),
        ExportSpec::Archive { image, .. } | ExportSpec::Layout { image, .. } | ExportSpec::Load(image) => Some(image),
        ExportSpec::Local { .. } | ExportSpec::Tar { .. } | ExportSpec::CacheOnly => None,
    }
}

fn names(args: &BuildArgs) -> Result<Vec<Reference>, Diagnostic> {
    let parse = |tag: &String| {
        let wrong = |e| usage(format!("invalid value of --tag: {e}")).hinted(tag_hint(tag, &e));
        let reference = tag.parse::<Reference>().map_err(wrong)?;
        match reference.digest {
            Some(_) => {
                Err(usage(format!("invalid value of --tag: {tag:?} has a digest, which only the build can tell")))
            }
            None => Ok(reference.with_default_tag()),
        }
    };
    args.tags.iter().map(parse).collect()
}

/// The usual reason is a workflow that takes the name from `github.repository`, which has the owner's capitals.
fn tag_hint(tag: &str, error: &ReferenceError) -> String {
    if matches!(error, ReferenceError::Format { .. }) {
        return "write `--tag NAME:TAG`, the name in lower case".into();
    }
    let (name, version) = match tag.rsplit_once(':') {
        Some((name, version)) if !version.contains('/') => (name, format!(":{version}")),
        _ => (tag, String::new()),
    };
    let lower = format!("{}{version}", name.to_lowercase());
    format!("write `--tag {lower}`; in a workflow, bash has `${{GITHUB_REPOSITORY,,}}` for the name in lower case")
}

/// `[level[,level]:]name=value`, as buildx takes it; each level may name a platform in brackets.
///
/// # Errors
///
/// A diagnostic that names the flag.
pub(super) fn annotations(texts: &[String]) -> Result<Vec<Annotation>, Diagnostic> {
    let mut found = Vec::new();
    for text in texts {
        let wrong = |why: &str| usage(format!("invalid value of --annotation: {text:?}: {why}"));
        let (key, value) =
            text.split_once('=').ok_or_else(|| wrong("it has no `=`").hinted("write `--annotation NAME=VALUE`"))?;
        let attributes = match key.split_once(':') {
            Some((levels, name)) if !levels.contains('.') => {
                levels.split(',').map(|level| format!("annotation-{level}.{name}")).collect()
            }
            _ => vec![format!("annotation.{key}")],
        };
        for attribute in attributes {
            let parsed = annotations::parse(&attribute, value).ok_or_else(|| wrong("unknown level"))?;
            found.push(parsed.map_err(|why| wrong(&why))?);
        }
    }
    Ok(found)
}

pub(super) fn usage(message: String) -> Diagnostic {
    Diagnostic::new(Kind::Usage, message)
}

/// The caches that flags name to read.
///
/// # Errors
///
/// A diagnostic that names the flag.
pub(super) fn caches_from(args: &BuildArgs) -> Result<Vec<ImportSpec>, Diagnostic> {
    let mut specs = Vec::new();
    for value in &args.cache_from {
        specs.extend(ImportSpec::parse(value).map_err(|error| Diagnostic::from_error(&error))?);
    }
    Ok(specs)
}

/// The caches that flags name to write; the build argument that buildx knows too asks for one inside the image.
///
/// # Errors
///
/// A diagnostic that names the flag.
pub(super) fn caches_to(args: &BuildArgs) -> Result<Vec<ExportTarget>, Diagnostic> {
    let mut targets = Vec::new();
    for value in &args.cache_to {
        targets.extend(ExportTarget::parse(value).map_err(|error| Diagnostic::from_error(&error))?);
    }
    let asked = |arg: &String| matches!(arg.as_str(), "BUILDKIT_INLINE_CACHE=1" | "BUILDKIT_INLINE_CACHE=true");
    if args.build_args.iter().any(asked) {
        targets.push(ExportTarget::inline());
    }
    Ok(targets)
}

fn limits(args: &BuildArgs) -> Result<Vec<Limit<'_>>, Diagnostic> {
    let wrong = |text: &str| usage(format!("invalid value of --resource: {text:?}"));
    args.limits.given().map_err(|text| {
        wrong(text).hinted(
            "write memory=, memory-swap=, cpu-shares=, cpu-period=, cpu-quota=, cpuset-cpus= or cpuset-mems= and a value",
        )
    })
}

const ENTITLEMENTS: &[&str] = &["network.host", "security.insecure", "device"];

fn entitlements(args: &BuildArgs) -> Result<Vec<String>, Diagnostic> {
    // A grant of a device has commas of its own.
    let split = |value: &String| match value.starts_with("device=") {
        true => vec![value.clone()],
        false => value.split(',').map(str::to_owned).collect(),
    };
    let mut granted: Vec<String> = args.allow.iter().flat_map(split).collect();
    Grants::among(granted.iter().map(String::as_str)).map_err(|error| {
        usage(error.to_string()).hinted("write `--allow device`, or `--allow device=VENDOR/CLASS=NAME`")
    })?;
    for name in granted.iter().filter(|name| !name.starts_with("device=")) {
        if !ENTITLEMENTS.contains(&name.as_str()) {
            let near = suggest(name, ENTITLEMENTS.iter().copied());
            let hint = near.map_or_else(
                || format!("it is one of {}", ENTITLEMENTS.join(", ")),
                |n| format!("did you mean `{n}`?"),
            );
            return Err(usage(format!("unknown entitlement {name:?} for --allow")).hinted(hint));
        }
    }
    if args.network == "host" {
        granted.push("network.host".into());
    }
    Ok(granted)
}

/// Finds out where context and Dockerfile come from.
fn sources(args: &BuildArgs, stdin: &mut dyn Read) -> Result<(ContextSource, DockerfileSource), Diagnostic> {
    let from_stdin = args.file.as_deref() == Some("-");
    match (args.context.as_str(), from_stdin) {
        ("-", true) => Err(usage("the context and the Dockerfile cannot both come from standard input".into())),
        ("-", false) => stdin_context(args, stdin),
        (path, true) => Ok((context(path)?, DockerfileSource::Inline(read_dockerfile(&mut Vec::new(), stdin)?))),
        (path, false) => {
            let file =
                args.file.as_ref().map_or(DockerfileSource::Default, |f| DockerfileSource::File(PathBuf::from(f)));
            Ok((context(path)?, file))
        }
    }
}

/// A directory that is there comes first, whatever it is called; then what is spelt like a URL or a git repository.
fn context(path: &str) -> Result<ContextSource, Diagnostic> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(ContextSource::Directory(path.into())),
        _ if is_remote(path)? => Ok(ContextSource::Remote),
        Ok(_) => Err(usage(format!("the context {path:?} is not a directory"))
            .hinted(format!("give its directory; if it is the Dockerfile: `rbuild -f {path} .`"))),
        Err(error) => {
            let told = usage(format!("failed to open the context {path:?}: {}", chain(&error)));
            Err(match misuse::meant_command(path) {
                Some(command) => told.hinted(format!("did you mean `rbuild {command} [OPTIONS]`?")),
                None => told.hinted(CONTEXT_HINT),
            })
        }
    }
}

/// Tells whether a context is fetched: a URL of a web server, or a git repository in any of its spellings.
fn is_remote(text: &str) -> Result<bool, Diagnostic> {
    let wrong = |error: gitref::GitRefError| {
        usage(format!("invalid git repository {:?}: {error}", redacted(text)))
            .hinted("write `URL.git#REF:SUBDIR`, or `URL.git?ref=REF&subdir=SUBDIR`")
    };
    let git = gitref::parse(text).map_err(wrong)?.is_some();
    Ok(git || text.starts_with("http://") || text.starts_with("https://"))
}

/// Tells whether the context is a git repository that is reached by ssh; a directory of that name comes first.
fn is_git_by_ssh(context: &str) -> bool {
    let git = gitref::parse(context).ok().flatten();
    git.is_some_and(|git| git.url.scheme == "ssh") && !std::path::Path::new(context).is_dir()
}

/// Drops user and password of a URL, and what follows a `?`.
fn redacted(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// Standard input holds a tar or a lone Dockerfile; the tar's magic at byte 257, or that of a compressor, tells.
fn stdin_context(args: &BuildArgs, stdin: &mut dyn Read) -> Result<(ContextSource, DockerfileSource), Diagnostic> {
    let mut head = Vec::new();
    stdin.take(512).read_to_end(&mut head).map_err(stdin_error)?;
    if looks_like_archive(&head) {
        let file = args.file.as_ref().map_or(DockerfileSource::Default, |f| DockerfileSource::File(PathBuf::from(f)));
        return Ok((ContextSource::StdinTar { head }, file));
    }
    if args.file.is_some() {
        return Err(usage("standard input holds no tar, so `--file` names nothing in it".into()));
    }
    Ok((ContextSource::Empty, DockerfileSource::Inline(read_dockerfile(&mut head, stdin)?)))
}

pub(super) fn looks_like_archive(head: &[u8]) -> bool {
    let magics: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    head.get(257..262) == Some(b"ustar") || magics.iter().any(|magic| head.starts_with(magic))
}

fn read_dockerfile(head: &mut Vec<u8>, stdin: &mut dyn Read) -> Result<Vec<u8>, Diagnostic> {
    stdin.take(MAX_DOCKERFILE + 1).read_to_end(head).map_err(stdin_error)?;
    if head.len() as u64 > MAX_DOCKERFILE {
        return Err(usage(format!("the Dockerfile on standard input is larger than {MAX_DOCKERFILE} bytes")));
    }
    Ok(std::mem::take(head))
}

fn stdin_error(error: std::io::Error) -> Diagnostic {
    usage(format!("failed to read standard input: {error}"))
}

/// The options that flags become, by the frontend's names.
fn options(args: &BuildArgs, environment: &Environment) -> Result<BTreeMap<String, String>, Diagnostic> {
    let mut options = BTreeMap::new();
    let mut set = |key: &str, value: String| options.insert(key.to_owned(), value);
    if let Some(epoch) = environment.text("SOURCE_DATE_EPOCH").filter(|e| !e.is_empty()) {
        set("build-arg:SOURCE_DATE_EPOCH", epoch.to_owned());
    }
    for arg in &args.build_args {
        if let Some((name, value)) = build_arg(arg, environment)? {
            set(&format!("build-arg:{name}"), value);
        }
    }
    for label in &args.labels {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        if name.is_empty() {
            return Err(
                usage(format!("invalid value of --label: {label:?} has no name")).hinted("write `--label NAME=VALUE`")
            );
        }
        set(&format!("label:{name}"), value.to_owned());
    }
    if let Some(target) = &args.target {
        set("target", target.clone());
    }
    if let Some(platforms) = platforms(args, environment)? {
        set("platform", platforms);
    }
    if args.no_cache && !args.no_cache_filter.is_empty() {
        let text = "`--no-cache` and `--no-cache-filter` ask for different things".to_owned();
        return Err(usage(text).hinted("leave out one of them"));
    }
    if args.no_cache {
        set("no-cache", String::new());
    } else if !args.no_cache_filter.is_empty() {
        set("no-cache", args.no_cache_filter.join(","));
    }
    if args.pull {
        set("image-resolve-mode", "pull".into());
    }
    if args.network != "default" {
        set("force-network-mode", args.network.clone());
    }
    if !args.ulimits.is_empty() {
        set("ulimit", args.ulimits.join(","));
    }
    if !args.add_hosts.is_empty() {
        set("add-hosts", args.add_hosts.iter().map(|h| add_host(h)).collect::<Result<Vec<_>, _>>()?.join(","));
    }
    if let Some(size) = &args.shm_size {
        let bytes = crate::dockerfile::size::parse(size);
        let wrong = |e| {
            usage(format!("invalid value of --shm-size: {e}")).hinted("write a number and a unit: `--shm-size 64m`")
        };
        let bytes = bytes.map_err(wrong)?;
        set("shm-size", bytes.to_string());
    }
    for (flag, option, value) in limits(args)? {
        set(option, limit(flag, value)?);
    }
    Ok(options)
}

/// Sizes are given with units, the rest as the frontend takes it.
fn limit(flag: &str, value: &str) -> Result<String, Diagnostic> {
    if !flag.starts_with("--memory") || value == "-1" {
        return Ok(value.to_owned());
    }
    let wrong =
        |e| usage(format!("invalid value of {flag}: {e}")).hinted(format!("write a number and a unit: `{flag} 512m`"));
    crate::dockerfile::size::parse(value).map(|bytes| bytes.to_string()).map_err(wrong)
}

/// Returns the platforms that flags name, or the environment where they name none; `local` is this machine's.
fn platforms(args: &BuildArgs, environment: &Environment) -> Result<Option<String>, Diagnostic> {
    let default = environment.text("DOCKER_DEFAULT_PLATFORM").unwrap_or_default();
    let named =
        args.platforms.iter().map(String::as_str).chain(default.split(',').filter(|_| args.platforms.is_empty()));
    let mut platforms = Vec::new();
    for platform in named.filter(|platform| !platform.is_empty()) {
        match platform {
            "local" => platforms.push(Platform::host().to_string()),
            platform => {
                known_platform(platform)?;
                platforms.push(platform.to_owned());
            }
        }
    }
    Ok(Some(platforms.join(",")).filter(|platforms| !platforms.is_empty()))
}

/// What no machine is called is a slip of the pen.
fn known_platform(text: &str) -> Result<(), Diagnostic> {
    let told = |why: String| usage(format!("invalid value of --platform: {why}"));
    let platform =
        text.parse::<Platform>().map(Platform::normalized).map_err(|e| told(e.to_string()).hinted(PLATFORM_HINT))?;
    let parts = [("operating system", &platform.os, KNOWN_OS), ("architecture", &platform.architecture, KNOWN_ARCH)];
    for (what, word, known) in parts {
        if !known.contains(&word.as_str()) {
            let near = suggest(word, known.iter().copied());
            let hint =
                near.map_or(PLATFORM_HINT.into(), |near| format!("did you mean `{}`?", text.replace(word, near)));
            return Err(told(format!("{text:?}: unknown {what} {word:?}")).hinted(hint));
        }
    }
    Ok(())
}

const PLATFORM_HINT: &str = "write OS/ARCH: `--platform linux/amd64`";

/// A bare name takes the environment's value, and is left out where that has none.
fn build_arg(arg: &str, environment: &Environment) -> Result<Option<(String, String)>, Diagnostic> {
    let (name, value) = match arg.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (arg, environment.text(arg).map(str::to_owned)),
    };
    if name.is_empty() {
        return Err(usage("invalid value of --build-arg: the name is missing".into())
            .hinted("write `--build-arg NAME=VALUE`, or `--build-arg NAME` for the environment's value"));
    }
    if name.starts_with("BUILDKIT_ATTEST_") {
        // BuildKit takes these for `--attest`.
        return Err(usage(format!("invalid value of --build-arg: {name}: attestations are not made by this version"))
            .hinted("leave it out"));
    }
    Ok(value.map(|value| (name.to_owned(), value)))
}

/// `name:ip` or `name=ip`, the address possibly in brackets; `host-gateway` needs a network of its own.
fn add_host(text: &str) -> Result<String, Diagnostic> {
    let wrong = |why: &str| usage(format!("invalid value of --add-host: {text:?}: {why}"));
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let (name, ip) = split.ok_or_else(|| wrong("it has no address").hinted("write `--add-host NAME:IP`"))?;
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() || ip.parse::<std::net::IpAddr>().is_err() {
        let told = wrong(&format!("{ip:?} is no address"));
        return Err(match ip {
            "host-gateway" => {
                told.hinted(format!("steps share the machine's network: write `--add-host {name}:127.0.0.1`"))
            }
            _ => told.hinted("write `--add-host NAME:IP`"),
        });
    }
    Ok(format!("{name}={ip}"))
}

/// What a named context may be.
const CONTEXT_FORMS: &str = "write `--build-context NAME=VALUE`, the value being a directory, the URL of an archive or a git repository, \
    `docker-image://IMAGE` or `oci-layout://DIR`";

/// `name=value`, the value being a directory, an OCI layout, an image, a URL or a git repository.
fn named_context(text: &str, request: &mut Request) -> Result<(), Diagnostic> {
    let wrong = |why: &str| usage(format!("invalid value of --build-context: {:?}: {why}", redacted(text)));
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("it has no `=`").hinted(CONTEXT_FORMS))?;
    let normalized = name.parse::<crate::image::Reference>().map_err(|e| wrong(&e.to_string()))?;
    let familiar = normalized.familiar();
    let name = familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned();
    let key = format!("context:{name}");
    if let Some(image) = value.strip_prefix("docker-image://") {
        image.parse::<Reference>().map_err(|e| wrong(&e.to_string()).hinted(CONTEXT_FORMS))?;
        request.options.insert(key, value.to_owned());
    } else if let Some(layout) = value.strip_prefix("oci-layout://") {
        request.layouts.insert(name, oci_layout(layout).map_err(|why| wrong(&why))?);
    } else if value.starts_with("target:") {
        return Err(wrong("targets of a bake file are not there in this version"));
    } else if !std::path::Path::new(value).is_dir() && is_remote(value)? {
        request.options.insert(key, value.to_owned());
    } else if value.contains("://") {
        return Err(wrong("it is of no known kind").hinted(CONTEXT_FORMS));
    } else {
        let failed = |e| wrong(&format!("failed to open {value:?}: {}", chain(&e))).hinted(CONTEXT_FORMS);
        let meta = std::fs::metadata(value).map_err(failed)?;
        if !meta.is_dir() {
            return Err(wrong(&format!("{value:?} is not a directory")).hinted(CONTEXT_FORMS));
        }
        request.options.insert(key, format!("local:{name}"));
        request.locals.insert(name, value.into());
    }
    Ok(())
}

/// `PATH[:tag][@digest]`.
fn oci_layout(text: &str) -> Result<LayoutSource, String> {
    let (rest, digest) = match text.rsplit_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse().map_err(|e: crate::digest::DigestError| e.to_string())?)),
        None => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
        _ => (rest, None),
    };
    Ok(LayoutSource { path: path.into(), tag, digest })
}
