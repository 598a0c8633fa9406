//! What a build works with, opened in order: state directory, snapshots, registry client.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::explain::Explained;
use crate::cdi::DeviceOptions;
use crate::diag::{Diagnostic, Kind, chain};
use crate::exec::ExecOptions;
use crate::export::ExportSpec;
use crate::layer::apply::Unmapped;
use crate::registry::auth_file::{AuthFile, HelperSearch};
use crate::registry::{Client, ClientOptions, HostOptions, Proxies};
use crate::remotecache::{ExportTarget, ImportSpec, spec};
use crate::snapshot::{SnapshotKind, SnapshotOptions, Snapshots};
use crate::source::ImageSource;
use crate::store::Store;
use crate::store::prune::Policy;
use crate::sys::lock::FileLock;

/// Settings of a build beyond what is built.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// State directory, absolute.
    pub root: PathBuf,
    /// What is special about registries, by host.
    pub registries: BTreeMap<String, HostOptions>,
    /// Files with registry credentials; the first that exists counts.
    pub auth_files: Vec<PathBuf>,
    /// Absolute directories in which helper programs are looked for.
    pub search_path: Vec<PathBuf>,
    /// Directories whose programs are not ours to run: the checkout, and the context.
    pub workspaces: Vec<PathBuf>,
    /// HTTP proxies.
    pub proxies: Proxies,
    /// How steps are run.
    pub worker: ExecOptions,
    /// How trees are made of layers.
    pub snapshotter: SnapshotKind,
    /// Steps that may run at once; none for as many as there are processors.
    pub parallelism: Option<usize>,
    /// Whether files of layers all get the one user id there is.
    pub squash_ids: bool,
    /// Devices that steps may be given.
    pub devices: DeviceOptions,
    /// File for the image's digest.
    pub iidfile: Option<PathBuf>,
    /// File for metadata of the result.
    pub metadata_file: Option<PathBuf>,
    /// Where the result goes.
    pub exports: Vec<ExportSpec>,
    /// Caches to read.
    pub caches_from: Vec<ImportSpec>,
    /// Caches to write.
    pub caches_to: Vec<ExportTarget>,
    /// Whether a cache that cannot be written fails the build.
    pub cache_strict: bool,
    /// Whether caches are written of what finished though a step failed.
    pub cache_failed: bool,
    /// What may stay in the state directory after the build.
    pub limits: Vec<Policy>,
    /// Where it is to be said why steps ran; nobody asks if there is none.
    pub explained: Option<Explained>,
}

/// The stations that own state, opened.
#[derive(Debug)]
pub(super) struct Stations {
    pub(super) store: Arc<Store>,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) client: Arc<Client>,
    /// Held while the build runs, so that nobody removes what it uses.
    _lock: FileLock,
}

impl Setup {
    /// Makes the registry client.
    pub(super) fn client(&self) -> Result<Arc<Client>, Diagnostic> {
        let mut options = ClientOptions::new(Arc::new(self.credentials()?));
        options.proxies = self.proxies.clone();
        options.hosts.clone_from(&self.registries);
        for host in self.insecure_hosts() {
            options.hosts.entry(host).or_default().insecure = true;
        }
        Client::new(options).map_err(|e| Diagnostic::from_error(&e))
    }

    /// Reads the first file with credentials that exists.
    fn credentials(&self) -> Result<AuthFile, Diagnostic> {
        let (directories, workspaces) = (self.search_path.clone(), self.workspaces.clone());
        let search = HelperSearch { directories, workspaces, ..HelperSearch::default() };
        let Some(file) = self.auth_files.iter().find(|file| file.exists()) else { return Ok(AuthFile::default()) };
        AuthFile::load(file, search).map_err(|error| Diagnostic::new(Kind::Usage, chain(&error)))
    }

    /// Hosts that `registry.insecure=true` of an output speaks of.
    fn insecure_hosts(&self) -> Vec<String> {
        let pushes = self.exports.iter().filter_map(|export| match export {
            ExportSpec::Image(push) if push.insecure => Some(push),
            _ => None,
        });
        let pushed = pushes.flat_map(|push| push.image.names.iter().map(|name| name.registry.clone()));
        pushed.chain(self.insecure_caches()).collect()
    }
}

impl Setup {
    fn insecure_caches(&self) -> impl Iterator<Item = String> {
        let from = self.caches_from.iter().filter_map(|spec| match spec {
            ImportSpec::Registry { reference, insecure: true } => Some(reference.registry.clone()),
            _ => None,
        });
        let to = self.caches_to.iter().filter_map(|target| match &target.store {
            spec::Store::Registry { reference, insecure: true } => Some(reference.registry.clone()),
            _ => None,
        });
        from.chain(to)
    }
}

impl Stations {
    /// Opens the state directory and what lies in it.
    pub(super) fn open(setup: &Setup) -> Result<Self, Diagnostic> {
        let failed = |error: &dyn crate::diag::Diagnose| Diagnostic::from_error(error);
        tracing::debug!(root = %setup.root.display(), outputs = setup.exports.len(), "opening the state directory");
        let store = Store::open(&setup.root).map_err(|e| failed(&e))?;
        let lock = store.lock_shared().map_err(|e| failed(&e))?;
        let unmapped = if setup.squash_ids { Unmapped::Squash } else { Unmapped::Refuse };
        let options = SnapshotOptions { unmapped, kind: setup.snapshotter, ..SnapshotOptions::default() };
        let snapshots = Snapshots::with_store(Arc::clone(&store), options).map_err(|e| failed(&e))?;
        Ok(Self { store, snapshots, client: setup.client()?, _lock: lock })
    }

    /// Returns the source of registry images.
    pub(super) fn images(&self) -> ImageSource {
        ImageSource::new(Arc::clone(&self.client), Arc::clone(&self.store), Arc::clone(&self.snapshots))
    }
}
