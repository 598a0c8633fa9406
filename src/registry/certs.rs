//! Certificates for registries, from the files that are configured and from directories like `/etc/docker/certs.d`.
//!
//! ```text
//! /etc/docker/certs.d/HOST[:PORT]/   *.crt           authorities
//!                                    NAME.cert       certificate of ours
//!                                    NAME.key        its key
//! ```
//!
//! In: paths. Out: [`Material`]. Invariant: a file that is named and cannot be used is an error that names it, never "no
//! certificate"; only in the directories, which nobody of this build wrote, one that may not be read is passed over with a warning.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};

use super::client::HostOptions;
use super::trust::Material;
use crate::sys;

/// Longest file with certificates that is read; the bundles of systems have some 200 KiB.
const FILE_LIMIT: u64 = 8 << 20;
/// Files of authorities in a directory that is named as `ca`.
const AUTHORITY_ENDINGS: [&str; 3] = ["crt", "pem", "cer"];

/// A certificate to show to a registry, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// File with the certificate, followed by those of intermediate authorities, in PEM.
    pub certificate: PathBuf,
    /// File with its key, in PEM.
    pub key: PathBuf,
}

/// A file that cannot serve as certificate or key.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: {reason}", path.display())]
pub struct CertificateFileError {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// What to type, where that is known.
    pub remedy: Option<String>,
    /// Whether it is there and we may not read it.
    forbidden: bool,
}

impl CertificateFileError {
    fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into(), remedy: None, forbidden: false }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn unreadable(path: &Path, error: &io::Error) -> Self {
        let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
        let this = Self { forbidden, ..Self::new(path, crate::diag::chain(error)) };
        match forbidden {
            true => this.remedy(format!("let this user read it: `chmod a+r {}`, or a copy of its own", path.display())),
            false => this,
        }
    }
}

/// Reads what is configured for a registry, and what the directories `base/HOST` hold for one of its `names`.
pub(crate) fn material(
    options: &HostOptions,
    names: &[&str],
    bases: &[PathBuf],
) -> Result<Material, CertificateFileError> {
    let mut found = Material::default();
    for path in &options.authorities {
        for file in authority_files(path)? {
            found.authorities.extend(authorities(&file)?);
        }
    }
    for pair in &options.keypairs {
        found.identities.push(Arc::new(identity(pair)?));
    }
    let fitting = bases.iter().flat_map(|base| names.iter().filter(|name| is_name(name)).map(|name| base.join(name)));
    for directory in options.directories.iter().cloned().chain(fitting) {
        read_directory(&directory, &mut found)?;
    }
    Ok(found)
}

/// A mirror's name comes out of a file and may be anything; a directory of ours has one component.
fn is_name(name: &str) -> bool {
    !name.contains('/') && !matches!(name, "" | "." | "..")
}

/// Returns the files that `path`, a file or a directory of files, stands for.
fn authority_files(path: &Path) -> Result<Vec<PathBuf>, CertificateFileError> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let files: Vec<PathBuf> =
        list(path)?.into_iter().filter(|f| AUTHORITY_ENDINGS.iter().any(|e| ends(f, e))).collect();
    match files.is_empty() {
        true => Err(CertificateFileError::new(path, "the directory holds no *.crt, *.pem or *.cer")),
        false => Ok(files),
    }
}

fn ends(file: &Path, extension: &str) -> bool {
    file.extension() == Some(OsStr::new(extension))
}

/// Lists a directory in the order of names.
fn list(directory: &Path) -> Result<Vec<PathBuf>, CertificateFileError> {
    let failed = |error: io::Error| CertificateFileError::unreadable(directory, &error);
    let entries = std::fs::read_dir(directory).map_err(failed)?;
    let mut files = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    files.sort();
    Ok(files)
}

/// Reads a directory in the manner of `/etc/docker/certs.d/HOST`; one that is not there holds nothing.
fn read_directory(directory: &Path, found: &mut Material) -> Result<(), CertificateFileError> {
    if !directory.is_dir() {
        return Ok(());
    }
    let Some(files) = allowed(list(directory))? else { return Ok(()) };
    for file in files {
        if ends(&file, "crt") {
            found.authorities.extend(allowed(authorities(&file))?.into_iter().flatten());
        } else if ends(&file, "cert") {
            let pair = KeyPair { key: file.with_extension("key"), certificate: file };
            found.identities.extend(allowed(identity(&pair))?.map(Arc::new));
        } else if ends(&file, "key") && !file.with_extension("cert").exists() {
            let wanted = file.with_extension("cert");
            return Err(CertificateFileError::new(&file, format!("its certificate {} is missing", wanted.display())));
        }
    }
    Ok(())
}

/// Turns a file that may not be read into a warning.
fn allowed<T>(result: Result<T, CertificateFileError>) -> Result<Option<T>, CertificateFileError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.forbidden => {
            tracing::warn!("{error}; it is left out");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateFileError> {
    let failed = |error: io::Error| CertificateFileError::unreadable(path, &error);
    let file = sys::dir::open_without_waiting(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(CertificateFileError::new(path, "it is not a regular file"));
    }
    let mut text = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut text).map_err(failed)?;
    match text.len() as u64 > FILE_LIMIT {
        true => Err(CertificateFileError::new(path, "it is larger than 8 MiB")),
        false => Ok(text),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateFileError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| CertificateFileError::new(path, format!("it is no PEM: {error}")))?;
    if found.is_empty() {
        let shown = path.display();
        return Err(CertificateFileError::new(path, "there is no certificate in PEM form in it")
            .remedy(format!("if it is DER, convert it: `openssl x509 -inform der -in {shown} -out {shown}.pem`")));
    }
    Ok(found)
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateFileError> {
    let found = certificates(path)?;
    for certificate in &found {
        let added = RootCertStore::empty().add(certificate.clone());
        added.map_err(|error| CertificateFileError::new(path, format!("a certificate in it is damaged: {error}")))?;
    }
    Ok(found)
}

fn identity(pair: &KeyPair) -> Result<CertifiedKey, CertificateFileError> {
    let KeyPair { certificate, key } = pair;
    let chain = certificates(certificate)?;
    let text = read(key)?;
    let secret = PrivateKeyDer::from_pem_slice(&text).map_err(|_| no_key(key, &text))?;
    let provider = CryptoProvider::get_default().expect("clients install the provider first");
    let secret = provider
        .key_provider
        .load_private_key(secret)
        .map_err(|error| CertificateFileError::new(key, format!("the key is of no kind that is known: {error}")))?;
    let found = CertifiedKey::new(chain, secret);
    if belong_together(&found) {
        return Ok(found);
    }
    let reason = format!("it is not the key of {}", certificate.display());
    Err(CertificateFileError::new(key, reason).remedy("name the key that the certificate was made for"))
}

fn belong_together(pair: &CertifiedKey) -> bool {
    match pair.keys_match() {
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => false,
        // A certificate of version 1, as `openssl x509 -req` makes, is not taken apart; but it holds its key as it is.
        Err(Error::InvalidCertificate(_)) => {
            let public = pair.key.public_key();
            let holds = |key: &[u8]| pair.cert.iter().take(1).any(|c| c.windows(key.len()).any(|part| part == key));
            public.is_none_or(|key| holds(key.as_ref()))
        }
        _ => true,
    }
}

/// Says why no key was found; the parser's own words could quote it.
fn no_key(path: &Path, text: &[u8]) -> CertificateFileError {
    let has = |words: &[u8]| text.windows(words.len()).any(|part| part == words);
    if has(b"ENCRYPTED") {
        let shown = path.display();
        return CertificateFileError::new(path, "the key is encrypted")
            .remedy(format!("write it without a passphrase: `openssl pkey -in {shown} -out {shown}.plain`"));
    }
    CertificateFileError::new(path, "there is no private key in PEM form in it")
}
