//! What `--cache-from` and `--cache-to` say: `type=…,key=value…`, or just a reference.
//!
//! In: one value as typed. Out: [`ImportSpec`]s and [`ExportTarget`]s; nothing is opened. A misspelt attribute is refused,
//! because one that is ignored costs a build. Values are not repeated in errors: they may hold keys to a store.

use std::path::PathBuf;
use std::time::Duration;

use super::RemoteCacheError;
use super::manifest::Form;
use crate::diag::suggest;
use crate::digest::Digest;
use crate::dockerfile::{csv, duration};
use crate::image::Reference;
use crate::image::media::Compression;

/// A cache to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportSpec {
    /// In a directory.
    Local {
        /// The directory.
        src: PathBuf,
        /// The tag.
        tag: String,
        /// The digest; counts more than the tag.
        digest: Option<Digest>,
    },
    /// In a registry: a cache, or an image that carries one.
    Registry {
        /// Where.
        reference: Reference,
        /// Whether the registry may speak plain HTTP.
        insecure: bool,
        /// How long it may keep silent, where that is said.
        timeout: Option<Duration>,
    },
}

/// Which results are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// That of the build, and others whose layers are there anyway.
    #[default]
    Min,
    /// Those of all steps.
    Max,
}

/// Where a cache is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// Into the image's configuration.
    Inline,
    /// Into a directory.
    Local {
        /// The directory.
        dest: PathBuf,
        /// The tag.
        tag: String,
        /// Whether blobs that no tag leads to are removed after it was written.
        reset: bool,
    },
    /// Into a registry.
    Registry {
        /// Where.
        reference: Reference,
        /// Whether the registry may speak plain HTTP.
        insecure: bool,
    },
}

/// How layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerChoice {
    /// The compression of new layers.
    pub kind: Option<Compression>,
    /// Its level.
    pub level: Option<i32>,
    /// Whether layers that are there in another form are converted.
    pub force: bool,
}

/// A cache to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportTarget {
    /// Where.
    pub store: Store,
    /// Which results.
    pub mode: Mode,
    /// The manifest's form.
    pub form: Form,
    /// How layers are packed.
    pub layers: LayerChoice,
    /// Whether a failure is none of the build's, where that is said.
    pub ignore_error: Option<bool>,
    /// Whether it is said along what the steps are made of.
    pub explain: bool,
}

const TYPES: &[&str] = &["registry", "local", "inline"];
const ABSENT: &[&str] = &["gha", "s3", "azblob"];
const LAYER_KEYS: &[&str] = &[
    "mode",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "image-manifest",
    "ignore-error",
    "explain",
];
const FROM: &str = "--cache-from";
const TO: &str = "--cache-to";

impl ImportSpec {
    /// Parses one value of `--cache-from`.
    pub fn parse(text: &str) -> Result<Vec<Self>, RemoteCacheError> {
        read_all(FROM, text)?.into_iter().map(Self::of).collect()
    }

    fn of(mut list: Attributes) -> Result<Self, RemoteCacheError> {
        match list.kind.as_str() {
            "local" => {
                let src = list.need("src", "add src=DIRECTORY")?.into();
                let tag = list.take("tag").unwrap_or_else(|| "latest".into());
                let digest = list.take("digest").map(|text| text.parse()).transpose();
                let digest = digest.map_err(|_| list.wrong("digest= is no digest"))?;
                list.finish(&["src", "tag", "digest"])?;
                Ok(Self::Local { src, tag, digest })
            }
            "registry" => {
                let (reference, insecure) = (list.reference()?, list.flag("registry.insecure")?.unwrap_or_default());
                let timeout = list.duration("timeout")?;
                list.finish(&["ref", "registry.insecure", "timeout"])?;
                Ok(Self::Registry { reference, insecure, timeout })
            }
            "inline" => {
                let hint = "name the image that carries the cache: --cache-from type=registry,ref=IMAGE";
                Err(list.hinted("type=inline is only written, not read", hint.into()))
            }
            _ => Err(list.unknown_type()),
        }
    }
}

impl ExportTarget {
    /// Parses one value of `--cache-to`.
    pub fn parse(text: &str) -> Result<Vec<Self>, RemoteCacheError> {
        read_all(TO, text)?.into_iter().map(Self::of).collect()
    }

    /// Returns the target that `--cache-to type=inline` names.
    pub fn inline() -> Self {
        let (form, layers) = (Form::default(), LayerChoice::default());
        Self { store: Store::Inline, mode: Mode::Min, form, layers, ignore_error: None, explain: true }
    }

    fn of(mut list: Attributes) -> Result<Self, RemoteCacheError> {
        // Unknown modes mean min to BuildKit; a misspelt one is more likely meant to be max.
        let mode = match list.take("mode").as_deref() {
            None | Some("" | "min") => Mode::Min,
            Some("max") => Mode::Max,
            Some(_) => return Err(list.hinted("mode= is neither min nor max", "write mode=max".into())),
        };
        let (form, layers) = (list.form()?, list.layers()?);
        let ignore_error = list.flag("ignore-error")?;
        let explain = list.flag("explain")?.unwrap_or(true);
        let store = list.store()?;
        Ok(Self { store, mode, form, layers, ignore_error, explain })
    }
}

/// One value as pairs.
#[derive(Debug)]
struct Attributes {
    flag: &'static str,
    kind: String,
    list: Vec<(String, String)>,
}

/// Bare words are references, each a cache of its own.
fn read_all(flag: &'static str, text: &str) -> Result<Vec<Attributes>, RemoteCacheError> {
    let spec = |problem: String, hint: Option<String>| RemoteCacheError::Spec { flag, problem, hint };
    let fields = csv::fields(text).map_err(|error| spec(error.to_string(), None))?;
    if fields.iter().all(|field| !field.contains('=')) {
        let bare = |field: &String| Attributes {
            flag,
            kind: "registry".into(),
            list: vec![("ref".into(), field.trim().to_owned())],
        };
        return Ok(fields.iter().map(bare).collect());
    }
    let mut attributes = Attributes { flag, kind: String::new(), list: Vec::new() };
    for field in &fields {
        let Some((key, value)) = field.split_once('=') else {
            return Err(spec("every field must be a key=value pair".into(), None));
        };
        match key.trim().to_lowercase().as_str() {
            "type" => attributes.kind = value.trim().to_owned(),
            key => attributes.list.push((key.to_owned(), value.to_owned())),
        }
    }
    if attributes.kind.is_empty() {
        return Err(spec("`type=` is missing".into(), Some(format!("the types are {}", TYPES.join(", ")))));
    }
    Ok(vec![attributes])
}

impl Attributes {
    fn wrong(&self, problem: impl Into<String>) -> RemoteCacheError {
        RemoteCacheError::Spec { flag: self.flag, problem: problem.into(), hint: None }
    }

    fn hinted(&self, problem: impl Into<String>, hint: String) -> RemoteCacheError {
        RemoteCacheError::Spec { flag: self.flag, problem: problem.into(), hint: Some(hint) }
    }

    fn unknown_type(&self) -> RemoteCacheError {
        if ABSENT.contains(&self.kind.as_str()) {
            let problem = format!("no cache backend of type `{}` is there in this version", self.kind);
            return self.hinted(problem, format!("the types are {}", TYPES.join(", ")));
        }
        let near = suggest(&self.kind, TYPES.iter().copied()).map(|near| format!("did you mean type={near}?"));
        let hint = near.unwrap_or_else(|| format!("the types are {}", TYPES.join(", ")));
        self.hinted(format!("no cache backend of type `{}` is known", self.kind), hint)
    }

    fn take(&mut self, key: &str) -> Option<String> {
        // The last of several wins, as everywhere.
        let at = self.list.iter().rposition(|(k, _)| k == key)?;
        let value = self.list[at].1.clone();
        self.list.retain(|(k, _)| k != key);
        Some(value)
    }

    fn need(&mut self, key: &str, hint: &str) -> Result<String, RemoteCacheError> {
        match self.take(key).filter(|value| !value.is_empty()) {
            Some(value) => Ok(value),
            None => Err(self.hinted(format!("{key}= is missing for type={}", self.kind), hint.into())),
        }
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, RemoteCacheError> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(_) => Err(self.wrong(format!("{key}= is neither true nor false"))),
        }
    }

    fn duration(&mut self, key: &str) -> Result<Option<Duration>, RemoteCacheError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let nanoseconds = duration::parse(&text).ok().and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
        match nanoseconds.filter(|nanoseconds| *nanoseconds > 0) {
            Some(nanoseconds) => Ok(Some(Duration::from_nanos(nanoseconds))),
            None => Err(self.hinted(format!("{key}= is no time"), format!("write {key}=15s"))),
        }
    }

    fn reference(&mut self) -> Result<Reference, RemoteCacheError> {
        let text = self.need("ref", "add ref=REGISTRY/REPOSITORY:TAG")?;
        let hint = "write ref=HOST/NAME:TAG, the name in lower case";
        let parsed = text.parse::<Reference>().map(Reference::with_default_tag);
        parsed.map_err(|error| self.hinted(error.to_string(), hint.into()))
    }

    fn form(&mut self) -> Result<Form, RemoteCacheError> {
        let oci = self.flag("oci-mediatypes")?;
        match (oci.unwrap_or(true), self.flag("image-manifest")?) {
            (true, None | Some(true)) => Ok(Form::Image),
            (true, Some(false)) => Ok(Form::Index),
            (false, None | Some(false)) => Ok(Form::DockerList),
            (false, Some(true)) => Err(self.wrong("image-manifest=true needs oci-mediatypes=true")),
        }
    }

    fn layers(&mut self) -> Result<LayerChoice, RemoteCacheError> {
        let kind = match self.take("compression").as_deref() {
            None => None,
            Some("uncompressed") => Some(Compression::Uncompressed),
            Some("gzip") => Some(Compression::Gzip),
            Some("zstd") => Some(Compression::Zstd),
            Some("estargz") => Some(Compression::Estargz),
            Some(_) => {
                let hint = "choose uncompressed, gzip, estargz or zstd".into();
                return Err(self.hinted("the compression is not known", hint));
            }
        };
        let level = self.take("compression-level").map(|text| text.parse::<i32>()).transpose();
        let level = level.map_err(|_| self.wrong("compression-level= is no number"))?;
        let most = if kind == Some(Compression::Zstd) { 22 } else { 9 };
        if level.is_some_and(|level| !(0..=most).contains(&level)) {
            return Err(self.wrong(format!("compression-level= must be between 0 and {most}")));
        }
        Ok(LayerChoice { kind, level, force: self.flag("force-compression")?.unwrap_or_default() })
    }

    fn store(mut self) -> Result<Store, RemoteCacheError> {
        match self.kind.as_str() {
            "inline" => self.finish(&["mode", "ignore-error"]).map(|()| Store::Inline),
            "local" => {
                let dest = self.need("dest", "add dest=DIRECTORY")?.into();
                let tag = self.take("tag").filter(|tag| !tag.is_empty()).unwrap_or_else(|| "latest".into());
                let reset = self.flag("reset")?.unwrap_or_default();
                self.finish(&[LAYER_KEYS, &["dest", "tag", "reset"]].concat())?;
                Ok(Store::Local { dest, tag, reset })
            }
            "registry" => {
                let (reference, insecure) = (self.reference()?, self.flag("registry.insecure")?.unwrap_or_default());
                if reference.digest.is_some() {
                    return Err(self.wrong("ref= has a digest, which only the export can tell"));
                }
                self.finish(&[LAYER_KEYS, &["ref", "registry.insecure"]].concat())?;
                Ok(Store::Registry { reference, insecure })
            }
            _ => Err(self.unknown_type()),
        }
    }

    /// Refuses what nobody asked for.
    fn finish(&self, known: &[&str]) -> Result<(), RemoteCacheError> {
        let Some((key, _)) = self.list.first() else { return Ok(()) };
        let problem = format!("unknown attribute {key:?} for type={}", self.kind);
        match suggest(key, known.iter().copied()) {
            Some(near) => Err(self.hinted(problem, format!("did you mean {near}=?"))),
            None => Err(self.wrong(problem)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> ImportSpec {
        ImportSpec::parse(text).expect(text).remove(0)
    }

    fn to(text: &str) -> ExportTarget {
        ExportTarget::parse(text).expect(text).remove(0)
    }

    #[test]
    fn reads_what_buildx_takes() {
        let local = ImportSpec::Local { src: "/c".into(), tag: "latest".into(), digest: None };
        assert_eq!(from("type=local,src=/c"), local);
        let bare = ImportSpec::parse("app:cache,other").expect("bare");
        assert_eq!(bare.len(), 2);
        assert!(
            matches!(&bare[1], ImportSpec::Registry { reference, insecure: false, timeout: None } if reference.tag.as_deref() == Some("latest"))
        );
        let export = to(
            "type=registry,ref=localhost:5000/c:x,mode=max,image-manifest=false,compression=zstd,force-compression=true,ignore-error=false",
        );
        assert_eq!((export.mode, export.form, export.ignore_error), (Mode::Max, Form::Index, Some(false)));
        assert_eq!(export.layers, LayerChoice { kind: Some(Compression::Zstd), level: None, force: true });
        assert_eq!(to("type=local,dest=d,oci-mediatypes=false").form, Form::DockerList);
        assert_eq!(to("type=inline"), ExportTarget::inline());
        assert!(!to("type=local,dest=d,explain=false").explain);
        let patient = from("type=registry,ref=a,timeout=1m30s");
        assert!(matches!(patient, ImportSpec::Registry { timeout: Some(limit), .. } if limit.as_secs() == 90));
    }

    #[test]
    fn refuses_what_would_be_ignored() {
        let cases = [
            ("type=local,src=c,tga=x", "tag="),
            ("type=lokal,src=c", "type=local"),
            ("src=c", "types are"),
            ("type=local", "src=DIRECTORY"),
            ("type=inline", "ref=IMAGE"),
            ("type=gha", "types are"),
            ("type=registry,ref=a,timeout=0", "timeout=15s"),
            ("type=registry,ref=a,timeout=soon", "timeout=15s"),
        ];
        for (text, hint) in cases {
            let error = ImportSpec::parse(text).expect_err(text);
            assert!(crate::diag::Diagnose::hints(&error).iter().any(|h| h.contains(hint)), "{text}: {error:?}");
        }
        for text in [
            "type=local,dest=d,mode=maxx",
            "type=registry,ref=a@sha256:0",
            "type=local,dest=d,image-manifest=true,oci-mediatypes=false",
            "type=inline,dest=x",
        ] {
            assert!(ExportTarget::parse(text).is_err(), "{text}");
        }
        let secret = ImportSpec::parse("type=s3,secret_access_key=hunter2").expect_err("absent");
        assert!(!secret.to_string().contains("hunter2"));
    }
}
