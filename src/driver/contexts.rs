//! The build context, named contexts and the Dockerfile, opened and read.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bridge::IgnoreFile;
use super::request::{ContextSource, DockerfileSource, Request};
use super::sources::Fetched;
use super::steps::Shown;
use crate::diag::{Diagnostic, Kind};
use crate::frontend;
use crate::layer::apply::{ApplyOptions, Form, Unmapped};
use crate::layer::archive;
use crate::source::OciLayout;
use crate::source::local::{Context, MAX_FILE};
use crate::sys::dir::Dir;

/// What is opened before the frontend starts.
#[derive(Debug)]
pub(super) struct Inputs {
    /// Local directories by name; the main one is `context`.
    pub(super) contexts: BTreeMap<String, Arc<Context>>,
    /// OCI layouts by store name.
    pub(super) layouts: BTreeMap<String, Arc<OciLayout>>,
    /// Name of the Dockerfile as shown.
    pub(super) dockerfile_name: String,
    /// Its bytes.
    pub(super) dockerfile: Vec<u8>,
    /// The ignore file that is for this Dockerfile alone, beside it.
    pub(super) own_ignore: Option<IgnoreFile>,
}

impl Inputs {
    /// Opens everything a request names; the digests of OCI layouts are added to the request's options.
    ///
    /// On a thread of its own: the tar of a context comes as slowly as whoever writes it likes, and the build can be stopped
    /// meanwhile.
    pub(super) async fn open(
        mut request: Request,
        temporary: PathBuf,
        fetched: Option<Fetched>,
    ) -> Result<(Self, Request), Shown> {
        let work = move || Self::open_all(&mut request, &temporary, fetched).map(|inputs| (inputs, request));
        match tokio::task::spawn_blocking(work).await {
            Ok(opened) => opened.map_err(Shown),
            Err(error) => Err(Shown(Diagnostic::new(Kind::Build, format!("failed to open the context: {error}")))),
        }
    }

    /// Returns how many bytes the Dockerfile and its own ignore file have.
    pub(super) fn definition_size(&self) -> u64 {
        (self.dockerfile.len() + self.own_ignore.as_ref().map_or(0, |(_, text)| text.len())) as u64
    }

    fn open_all(request: &mut Request, temporary: &Path, fetched: Option<Fetched>) -> Result<Self, Diagnostic> {
        let single = fetched.as_ref().is_some_and(|fetched| fetched.is_dockerfile);
        let main = match fetched {
            Some(fetched) => fetched.tree,
            None => main_context(&request.context, temporary)?,
        };
        if single && request.dockerfile == DockerfileSource::Default {
            // The only file there is.
            request.dockerfile = DockerfileSource::File(frontend::REMOTE_FILE.into());
        }
        let (dockerfile_name, dockerfile) = dockerfile(request, &main)?;
        // What is fetched is taken as it is.
        let (own_ignore, main) = match request.context {
            ContextSource::Remote => (None, main),
            _ => {
                let own = own_ignore(request, &main, &dockerfile_name)?;
                let main = with_rules(main, own.as_ref().filter(|(_, text)| !text.is_empty()))?;
                (own, main)
            }
        };
        let mut contexts = BTreeMap::from([("context".to_owned(), Arc::new(main))]);
        for (name, path) in &request.locals {
            let context = Context::open(path).map_err(|e| Diagnostic::from_error(&e))?;
            contexts.insert(name.clone(), Arc::new(with_rules(context, None)?));
        }
        let layouts = layouts(request)?;
        Ok(Self { contexts, layouts, dockerfile_name, dockerfile, own_ignore })
    }
}

/// Opens the OCI layouts, and pins each to a digest, as the frontend wants it.
fn layouts(request: &mut Request) -> Result<BTreeMap<String, Arc<OciLayout>>, Diagnostic> {
    let mut layouts = BTreeMap::new();
    for (index, (name, source)) in request.layouts.iter().enumerate() {
        let layout = OciLayout::open(&source.path).map_err(|e| Diagnostic::from_error(&e))?;
        let digest = match &source.digest {
            Some(digest) => digest.clone(),
            None => layout.digest_of(source.tag.as_deref()).map_err(|e| Diagnostic::from_error(&e))?,
        };
        // A name of its own, because the frontend would take the tag of the context's off.
        let store = format!("layout{index}");
        request.options.insert(format!("context:{name}"), format!("oci-layout://{store}@{digest}"));
        layouts.insert(store, Arc::new(layout));
    }
    Ok(layouts)
}

/// Applies the ignore file that counts: the Dockerfile's own, else the context's.
fn with_rules(context: Context, own: Option<&IgnoreFile>) -> Result<Context, Diagnostic> {
    let common = ".dockerignore".to_owned();
    let found = match own {
        Some(own) => Some(own.clone()),
        None => {
            context.read_file(&common, MAX_FILE).map_err(|e| Diagnostic::from_error(&e))?.map(|text| (common, text))
        }
    };
    match found {
        Some((name, text)) => context.with_rules(&name, &text).map_err(|e| Diagnostic::from_error(&e)),
        None => Ok(context),
    }
}

/// Reads `NAME.dockerignore` beside the Dockerfile.
fn own_ignore(request: &Request, context: &Context, dockerfile: &str) -> Result<Option<IgnoreFile>, Diagnostic> {
    let name = format!("{dockerfile}.dockerignore");
    let text = match (&request.dockerfile, &request.context) {
        (DockerfileSource::File(path), ContextSource::Directory(_)) => {
            let place = beside_context(path, &request.context);
            let parent = place.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let folder = Context::open(parent).map_err(|e| Diagnostic::from_error(&e))?;
            folder.read_file(&name, MAX_FILE)
        }
        (DockerfileSource::Inline(_), _) => Ok(None),
        (DockerfileSource::File(path), _) => context.read_file(&format!("{}.dockerignore", path.display()), MAX_FILE),
        _ => context.read_file(&name, MAX_FILE),
    };
    Ok(text.map_err(|e| Diagnostic::from_error(&e))?.map(|text| (name, text)))
}

fn main_context(source: &ContextSource, temporary: &Path) -> Result<Context, Diagnostic> {
    let opened = match source {
        ContextSource::Directory(path) => Context::open(path),
        ContextSource::StdinTar { head } => {
            let mut stream = Cursor::new(head.clone()).chain(std::io::stdin());
            Context::from_archive(&mut stream, temporary, &unpack)
        }
        ContextSource::Empty | ContextSource::Remote => {
            Context::from_archive(&mut std::io::empty(), temporary, &|_, _| Ok(()))
        }
    };
    opened.map_err(|error| Diagnostic::from_error(&error))
}

/// The context's files are the caller's, whatever owners the archive names.
fn unpack(stream: &mut (dyn Read + Send), dir: &Dir) -> std::io::Result<()> {
    let options = ApplyOptions { form: Form::Plain, owner: Some((0, 0)), unmapped: Unmapped::Squash };
    archive::extract(dir.reopen()?, OsStr::new(""), stream, options).map(drop).map_err(std::io::Error::other)
}

fn dockerfile(request: &Request, context: &Context) -> Result<(String, Vec<u8>), Diagnostic> {
    match &request.dockerfile {
        DockerfileSource::Inline(text) => Ok(("Dockerfile".into(), text.clone())),
        DockerfileSource::File(path) => Ok((file_name(path), named_dockerfile(path, &request.context, context)?)),
        DockerfileSource::Default => default_dockerfile(context),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `Dockerfile`, else `dockerfile`, at the root of the context.
fn default_dockerfile(context: &Context) -> Result<(String, Vec<u8>), Diagnostic> {
    for name in ["Dockerfile", "dockerfile"] {
        if let Some(text) = context.read_file(name, MAX_FILE).map_err(|e| Diagnostic::from_error(&e))? {
            return Ok((name.into(), text));
        }
    }
    let error = missing(Path::new("Dockerfile"), &nothing_there());
    match near_dockerfile(context) {
        Some(name) => Err(error.hinted(format!("the context has `{name}`: name it with `--file`"))),
        None => Err(error.hinted("name the Dockerfile with `--file`, or give the directory it is in as the context")),
    }
}

/// Other names under which people keep their only Dockerfile.
fn near_dockerfile(context: &Context) -> Option<String> {
    let names = context.dir().names().ok()?;
    let mut names = names.into_iter().filter_map(|name| name.into_string().ok());
    names.find(|name| {
        let folded = name.to_lowercase();
        folded == "containerfile" || (folded.contains("dockerfile") && !folded.ends_with(".dockerignore"))
    })
}

/// A file the user names: of this machine, or of the context where that is a tar.
fn named_dockerfile(path: &Path, source: &ContextSource, context: &Context) -> Result<Vec<u8>, Diagnostic> {
    let fetched = matches!(source, ContextSource::Remote) && !path.is_absolute();
    if fetched || matches!(source, ContextSource::StdinTar { .. } | ContextSource::Empty) {
        let found = context.read_file(&path.to_string_lossy(), MAX_FILE).map_err(|e| Diagnostic::from_error(&e))?;
        return found.ok_or_else(|| missing(path, &nothing_there()));
    }
    let place = beside_context(path, source);
    // A socket cannot even be opened.
    let file = crate::sys::dir::open_without_waiting(&place).map_err(|error| match place.metadata() {
        Ok(meta) if !meta.is_file() => not_a_file(path, meta.is_dir()),
        _ => missing(path, &error),
    })?;
    let meta = file.metadata().map_err(|error| missing(path, &error))?;
    if !meta.is_file() {
        return Err(not_a_file(path, meta.is_dir()));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(|error| missing(path, &error))?;
    if text.len() as u64 > MAX_FILE {
        let message = format!("failed to read dockerfile: {} is larger than {MAX_FILE} bytes", path.display());
        return Err(Diagnostic::new(Kind::Dockerfile, message));
    }
    Ok(text)
}

fn not_a_file(path: &Path, is_directory: bool) -> Diagnostic {
    let path = path.display();
    let message = format!("failed to read dockerfile: {path} is not a regular file");
    Diagnostic::new(Kind::Dockerfile, message).hinted(match is_directory {
        true => format!("name the file in it: `--file {path}/Dockerfile`"),
        false => "give a file, or the text on standard input: `--file -`".into(),
    })
}

/// A name that is not there from the working directory is looked for in the context too.
fn beside_context(path: &Path, source: &ContextSource) -> PathBuf {
    match source {
        ContextSource::Directory(context) if !path.exists() && context.join(path).exists() => context.join(path),
        _ => path.to_owned(),
    }
}

/// `ENOENT` in the system's words; those of the library's own kind are others.
fn nothing_there() -> std::io::Error {
    std::io::Error::from_raw_os_error(2)
}

fn missing(path: &Path, error: &std::io::Error) -> Diagnostic {
    let message = format!("failed to read dockerfile: open {}: {}", path.display(), crate::diag::chain(error));
    let diagnostic = Diagnostic::new(Kind::Dockerfile, message);
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            diagnostic.hinted(format!("make it readable: `chmod +r {}`", path.display()))
        }
        std::io::ErrorKind::NotFound if path != Path::new("Dockerfile") => {
            diagnostic.hinted("`--file` is looked for from the current directory, then from the context")
        }
        _ => diagnostic,
    }
}
