//! What `--output` says: `type=…,dest=…,name=…`, or just a path.
//!
//! In: one value as typed. Out: an [`ExportSpec`]. Nothing is opened. Unknown attributes are refused with the nearest known
//! one, because a misspelt `push` that is ignored costs a build.

use std::path::PathBuf;

use super::ExportError;
use super::annotations;
use super::image::{CompressionChoice, EpochChoice, ImageOptions, MediaTypes};
use crate::diag;
use crate::dockerfile::csv;
use crate::image::Reference;
use crate::image::media::Compression;

/// Where a stream of bytes goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dest {
    /// To standard output.
    Stdout,
    /// To a file.
    File(PathBuf),
}

/// Format of an image archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI layout in a tar.
    Oci,
    /// The same with Docker's `manifest.json`, for `docker load`.
    Docker,
}

/// Names and settings of an exported image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageTarget {
    /// Its names, each with a tag.
    pub names: Vec<Reference>,
    /// Settings of its documents.
    pub options: ImageOptions,
}

/// How an image is pushed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushTarget {
    /// The image.
    pub image: ImageTarget,
    /// Whether it is pushed at all.
    pub push: bool,
    /// Whether it is pushed without its tags.
    pub by_digest: bool,
    /// Whether the registry may speak plain HTTP.
    pub insecure: bool,
}

/// How result trees are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeTarget {
    /// Whether each platform gets a directory of its own; so if there are several, if none.
    pub platform_split: Option<bool>,
    /// Whether files the result lacks are removed from the destination.
    pub delete: bool,
    /// The epoch all files get.
    pub epoch: EpochChoice,
}

/// One destination of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportSpec {
    /// Push, or only compute digests.
    Image(PushTarget),
    /// Write a tar.
    Archive {
        /// Its format.
        format: ArchiveFormat,
        /// Where to.
        dest: Dest,
        /// The image.
        image: ImageTarget,
    },
    /// Write into an OCI layout directory.
    Layout {
        /// The directory.
        dest: PathBuf,
        /// The image.
        image: ImageTarget,
    },
    /// Hand to docker or podman.
    Load(ImageTarget),
    /// Write the files into a directory.
    Local {
        /// The directory.
        dest: PathBuf,
        /// How.
        tree: TreeTarget,
    },
    /// Write the files as a tar.
    Tar {
        /// Where to.
        dest: Dest,
        /// How.
        tree: TreeTarget,
    },
    /// Build for the cache only.
    CacheOnly,
}

const TYPES: &[&str] = &["image", "registry", "oci", "docker", "local", "tar", "cacheonly"];
const IMAGE_KEYS: &[&str] = &[
    "name",
    "oci-mediatypes",
    "compression",
    "compression-level",
    "force-compression",
    "source-date-epoch",
    "rewrite-timestamp",
    "prefer-nondist-layers",
    "oci-artifact",
    "attestation-inline",
];
const PUSH_KEYS: &[&str] =
    &["push", "push-by-digest", "registry.insecure", "name-canonical", "unpack", "store", "dangling-name-prefix"];
const TREE_KEYS: &[&str] = &["source-date-epoch", "platform-split", "mode", "attestation-prefix"];

impl ExportSpec {
    /// Parses one value of `--output`.
    pub fn parse(text: &str) -> Result<Self, ExportError> {
        Attributes::read(text).and_then(Attributes::into_spec).map_err(|(problem, hint)| ExportError::Spec {
            text: text.to_owned(),
            problem,
            hint,
        })
    }

    /// Returns the image settings, or none where files are exported or nothing is.
    pub fn image(&self) -> Option<&ImageTarget> {
        match self {
            Self::Image(target) => Some(&target.image),
            Self::Archive { image, .. } | Self::Layout { image, .. } | Self::Load(image) => Some(image),
            Self::Local { .. } | Self::Tar { .. } | Self::CacheOnly => None,
        }
    }

    /// Returns the media types that hold where `oci-mediatypes` is not given: Docker's for what docker is to load.
    pub fn default_media_types(&self) -> MediaTypes {
        match self {
            Self::Archive { format: ArchiveFormat::Docker, .. } | Self::Load(_) => MediaTypes::Docker,
            _ => MediaTypes::Oci,
        }
    }
}

type Problem = (String, Option<String>);

fn problem<T>(text: impl Into<String>) -> Result<T, Problem> {
    Err((text.into(), None))
}

#[derive(Debug)]
struct Attributes {
    kind: String,
    list: Vec<(String, String)>,
}

impl Attributes {
    fn read(text: &str) -> Result<Self, Problem> {
        let fields = csv::fields(text).map_err(|error| (error.to_string(), None))?;
        if let [bare] = &fields[..]
            && !bare.contains('=')
        {
            if bare.is_empty() {
                return problem("it is empty");
            }
            let kind = if bare == "-" { "tar" } else { "local" };
            return Ok(Self { kind: kind.into(), list: vec![("dest".into(), bare.clone())] });
        }
        let mut attributes = Self { kind: String::new(), list: Vec::new() };
        for field in &fields {
            let Some((key, value)) = field.split_once('=') else {
                return problem(format!("{field:?} must be a key=value pair"));
            };
            match key.trim().to_lowercase().as_str() {
                "type" => attributes.kind = value.into(),
                // Names of annotations keep their case.
                _ if key.trim().starts_with("annotation") => attributes.list.push((key.trim().into(), value.into())),
                key => attributes.list.push((key.into(), value.into())),
            }
        }
        if attributes.kind.is_empty() {
            return Err(("type= is missing".into(), Some(format!("the types are {}", TYPES.join(", ")))));
        }
        Ok(attributes)
    }

    fn into_spec(self) -> Result<ExportSpec, Problem> {
        let kind = self.kind.clone();
        match kind.as_str() {
            "image" | "registry" => self.push_target(kind == "registry").map(ExportSpec::Image),
            "oci" => self.oci(),
            "docker" => self.docker(),
            "local" | "tar" => self.tree(),
            "cacheonly" => self.finish(&[]).map(|()| ExportSpec::CacheOnly),
            other => {
                let hint = diag::suggest(other, TYPES.iter().copied()).map(|near| format!("did you mean type={near}?"));
                let hint = hint.or_else(|| Some(format!("the types are {}", TYPES.join(", "))));
                Err((format!("unknown type {other:?}"), hint))
            }
        }
    }

    fn take(&mut self, key: &str) -> Option<String> {
        // The last of several wins, as everywhere.
        let at = self.list.iter().rposition(|(k, _)| k == key)?;
        let value = self.list[at].1.clone();
        self.list.retain(|(k, _)| k != key);
        Some(value)
    }

    /// Reads a flag; present without a value it is true.
    fn flag(&mut self, key: &str) -> Result<Option<bool>, Problem> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => problem(format!("{key}={other} is neither true nor false")),
        }
    }

    fn refuse_flag(&mut self, key: &str, why: &str) -> Result<(), Problem> {
        match self.flag(key)? {
            Some(true) => problem(format!("{key}=true is not possible: {why}")),
            _ => Ok(()),
        }
    }

    /// Refuses what nobody asked for.
    fn finish(self, known: &[&[&str]]) -> Result<(), Problem> {
        let Some((key, _)) = self.list.first() else { return Ok(()) };
        let near = diag::suggest(key, known.concat());
        let hint = near.map(|near| format!("did you mean {near}=?"));
        Err((format!("unknown attribute {key:?} for type={}", self.kind), hint))
    }

    fn push_target(mut self, registry: bool) -> Result<PushTarget, Problem> {
        let image = self.image()?;
        let push = self.flag("push")?.unwrap_or(registry);
        let by_digest = self.flag("push-by-digest")?.unwrap_or_default();
        let insecure = self.flag("registry.insecure")?.unwrap_or_default();
        self.refuse_flag("unpack", "there is no image store to unpack to; use type=docker to load the image")?;
        // Without an image store, neither what is stored nor under which further name makes a difference.
        self.flag("store")?;
        self.flag("name-canonical")?;
        if let Some(prefix) = self.take("dangling-name-prefix") {
            return problem(format!("dangling-name-prefix={prefix} is not possible: there is no image store"));
        }
        if push && image.names.is_empty() {
            return Err(("a push needs a name".into(), Some("add name=registry/repository:tag, or use --tag".into())));
        }
        self.finish(&[&["type"], IMAGE_KEYS, PUSH_KEYS])?;
        Ok(PushTarget { image, push, by_digest, insecure })
    }

    fn oci(mut self) -> Result<ExportSpec, Problem> {
        let image = self.image()?;
        let tar = self.flag("tar")?.unwrap_or(true);
        let dest = self.dest();
        self.finish(&[&["type", "dest", "tar"], IMAGE_KEYS])?;
        match (tar, dest) {
            (_, None) => Err(("dest= is missing".into(), Some("add dest=PATH, or dest=- for standard output".into()))),
            (true, Some(dest)) => Ok(ExportSpec::Archive { format: ArchiveFormat::Oci, dest, image }),
            (false, Some(Dest::File(dest))) => Ok(ExportSpec::Layout { dest, image }),
            (false, Some(Dest::Stdout)) => problem("a directory cannot be written to standard output"),
        }
    }

    fn docker(mut self) -> Result<ExportSpec, Problem> {
        let image = self.image()?;
        if self.flag("tar")? == Some(false) {
            return Err(("tar=false makes no directory for docker".into(), Some("use type=oci,tar=false".into())));
        }
        let dest = self.dest();
        self.finish(&[&["type", "dest", "tar"], IMAGE_KEYS])?;
        Ok(match dest {
            Some(dest) => ExportSpec::Archive { format: ArchiveFormat::Docker, dest, image },
            None => ExportSpec::Load(image),
        })
    }

    fn tree(mut self) -> Result<ExportSpec, Problem> {
        let dest = self.dest();
        let platform_split = self.flag("platform-split")?;
        let epoch = self.epoch()?;
        self.take("attestation-prefix");
        let local = self.kind == "local";
        let delete = match self.take("mode").as_deref().map(str::trim) {
            None | Some("" | "copy") => false,
            Some("delete") if local => true,
            Some(other) => return problem(format!("mode={other} is not possible for type={}", self.kind)),
        };
        self.finish(&[&["type", "dest"], TREE_KEYS])?;
        let tree = TreeTarget { platform_split, delete, epoch };
        match (local, dest) {
            (_, None) => Err(("dest= is missing".into(), Some("add dest=PATH, or dest=- for standard output".into()))),
            (true, Some(Dest::Stdout)) => problem("a directory cannot be written to standard output"),
            (true, Some(Dest::File(dest))) => Ok(ExportSpec::Local { dest, tree }),
            (false, Some(dest)) => Ok(ExportSpec::Tar { dest, tree }),
        }
    }

    fn dest(&mut self) -> Option<Dest> {
        let dest = self.take("dest").filter(|dest| !dest.is_empty())?;
        Some(if dest == "-" { Dest::Stdout } else { Dest::File(dest.into()) })
    }

    fn image(&mut self) -> Result<ImageTarget, Problem> {
        let names = self.names()?;
        let media_types =
            self.flag("oci-mediatypes")?.map(|oci| if oci { MediaTypes::Oci } else { MediaTypes::Docker });
        let compression = self.compression()?;
        match compression.kind {
            Some(Compression::Zstd) if media_types == Some(MediaTypes::Docker) => {
                return problem("compression=zstd conflicts with oci-mediatypes=false");
            }
            Some(Compression::Estargz) if media_types == Some(MediaTypes::Docker) => {
                return problem("compression=estargz conflicts with oci-mediatypes=false");
            }
            _ => {}
        }
        let epoch = self.epoch()?;
        self.refuse_flag("rewrite-timestamp", "files keep their times; only the image configuration takes the epoch")?;
        // These three change nothing where there are no attestations and no foreign layers.
        for key in ["prefer-nondist-layers", "oci-artifact", "attestation-inline"] {
            self.flag(key)?;
        }
        let annotations = self.annotations()?;
        Ok(ImageTarget { names, options: ImageOptions { media_types, compression, annotations, epoch } })
    }

    fn names(&mut self) -> Result<Vec<Reference>, Problem> {
        let Some(value) = self.take("name") else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let reference: Reference =
                name.parse().map_err(|error: crate::image::reference::ReferenceError| (error.to_string(), None))?;
            names.push(reference.with_default_tag());
        }
        Ok(names)
    }

    fn compression(&mut self) -> Result<CompressionChoice, Problem> {
        let kind = match self.take("compression").as_deref() {
            None => None,
            Some("uncompressed") => Some(Compression::Uncompressed),
            Some("gzip") => Some(Compression::Gzip),
            Some("zstd") => Some(Compression::Zstd),
            Some("estargz") => Some(Compression::Estargz),
            Some(other) => {
                let hint = Some("choose uncompressed, gzip, estargz or zstd".into());
                return Err((format!("unsupported compression {other:?}"), hint));
            }
        };
        let level = match self.take("compression-level") {
            None => None,
            Some(text) => {
                Some(text.parse::<i32>().map_err(|_| (format!("compression-level={text} is no number"), None))?)
            }
        };
        let most = if kind == Some(Compression::Zstd) { 22 } else { 9 };
        if level.is_some_and(|level| !(0..=most).contains(&level)) {
            return problem(format!("compression-level must be between 0 and {most}"));
        }
        Ok(CompressionChoice { kind, level, force: self.flag("force-compression")?.unwrap_or_default() })
    }

    fn epoch(&mut self) -> Result<EpochChoice, Problem> {
        match self.take("source-date-epoch").as_deref() {
            None => Ok(EpochChoice::Build),
            Some("") => Ok(EpochChoice::None),
            Some(text) => match text.parse() {
                Ok(seconds) => Ok(EpochChoice::At(seconds)),
                Err(_) => problem(format!("source-date-epoch={text} is no number of seconds")),
            },
        }
    }

    fn annotations(&mut self) -> Result<Vec<annotations::Annotation>, Problem> {
        let mut found = Vec::new();
        let mut rest = Vec::new();
        for (key, value) in std::mem::take(&mut self.list) {
            match annotations::parse(&key, &value) {
                Some(annotation) => found.push(annotation.map_err(|text| (text, None))?),
                None => rest.push((key, value)),
            }
        }
        self.list = rest;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ExportSpec {
        ExportSpec::parse(text).expect(text)
    }

    fn error(text: &str) -> (String, Option<String>) {
        match ExportSpec::parse(text).expect_err(text) {
            ExportError::Spec { problem, hint, .. } => (problem, hint),
            other => panic!("{text}: {other}"),
        }
    }

    #[test]
    fn bare_paths_and_dashes() {
        let tree = TreeTarget::default();
        assert_eq!(parse("out/dir"), ExportSpec::Local { dest: "out/dir".into(), tree });
        assert_eq!(parse("."), ExportSpec::Local { dest: ".".into(), tree });
        assert_eq!(parse("-"), ExportSpec::Tar { dest: Dest::Stdout, tree });
        assert_eq!(parse("type=tar,dest=-"), ExportSpec::Tar { dest: Dest::Stdout, tree });
        assert_eq!(parse("type=cacheonly"), ExportSpec::CacheOnly);
    }

    #[test]
    fn registries_and_images() {
        let ExportSpec::Image(target) = parse(r#"type=image,"name=a/b,localhost:5000/c:d",push=true,unpack=false"#)
        else {
            panic!("an image")
        };
        let names: Vec<String> = target.image.names.iter().map(Reference::to_string).collect();
        assert_eq!(names, ["docker.io/a/b:latest", "localhost:5000/c:d"]);
        assert!(target.push && !target.by_digest);
        let ExportSpec::Image(target) = parse("type=registry,name=a,push-by-digest=true,registry.insecure=") else {
            panic!("an image")
        };
        assert!(target.push && target.by_digest && target.insecure);
    }

    #[test]
    fn image_settings() {
        let text = "type=oci,dest=x.tar,compression=zstd,compression-level=19,force-compression=true,annotation.A=b,\
                    source-date-epoch=12,oci-mediatypes=true";
        let ExportSpec::Archive { format, dest, image } = parse(text) else { panic!("an archive") };
        assert_eq!((format, dest), (ArchiveFormat::Oci, Dest::File("x.tar".into())));
        let compression = CompressionChoice { kind: Some(Compression::Zstd), level: Some(19), force: true };
        assert_eq!(image.options.compression, compression);
        assert_eq!(image.options.epoch, EpochChoice::At(12));
        assert_eq!(image.options.media_types, Some(MediaTypes::Oci));
        assert_eq!(image.options.annotations[0].key, "A");
        assert!(matches!(parse("type=docker,name=x"), ExportSpec::Load(_)));
        assert_eq!(parse("type=docker,name=x").default_media_types(), MediaTypes::Docker);
        assert_eq!(parse("type=image").default_media_types(), MediaTypes::Oci);
        assert!(parse("type=docker,name=x").image().is_some_and(|image| image.names.len() == 1));
        assert!(matches!(parse("type=oci,tar=false,dest=d"), ExportSpec::Layout { .. }));
    }

    #[test]
    fn refuses_with_a_hint() {
        assert_eq!(error("type=image,pusg=true").1.as_deref(), Some("did you mean push=?"));
        assert_eq!(error("type=locl,dest=x").1.as_deref(), Some("did you mean type=local?"));
        assert!(error("dest=x").1.is_some_and(|hint| hint.contains("cacheonly")));
        for text in [
            "",
            "type=local",
            "type=local,dest=-",
            "type=oci",
            "type=oci,tar=false,dest=-",
            "type=docker,tar=false,dest=x",
            "type=registry",
            "type=image,push=maybe",
            "type=image,unpack=true",
            "type=image,name=UPPER",
            "type=image,compression=lz4",
            "type=image,compression=estargz,oci-mediatypes=false",
            "type=image,compression=estargz,compression-level=10",
            "type=image,compression=gzip,compression-level=10",
            "type=image,compression=zstd,oci-mediatypes=false",
            "type=image,rewrite-timestamp=true",
            "type=image,source-date-epoch=soon",
            "type=image,annotation-layer.x=y",
            "type=tar,dest=x,mode=delete",
            "type=local,dest=x,name=y",
            "type=local,nonsense",
            r#"type=local,"dest=x"#,
        ] {
            let (problem, _) = error(text);
            assert!(!problem.is_empty(), "{text}");
        }
    }
}
