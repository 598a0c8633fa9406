//! What a build works with, opened in order: state directory, snapshots, registry client.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::explain::Explained;
use super::imports::Learnt;
use crate::cdi::DeviceOptions;
use crate::cni::NetworkOptions;
use crate::diag::{Diagnostic, Kind, chain};
use crate::exec::{ExecOptions, MachineOptions};
use crate::export::ExportSpec;
use crate::image::Platform;
use crate::layer::apply::Unmapped;
use crate::registry::auth_file::HelperSearch;
use crate::registry::keyring::{Keyring, Places};
use crate::registry::{Client, ClientOptions, HostOptions, Proxies};
use crate::remotecache::{ExportTarget, ImportSpec, spec};
use crate::snapshot::{SnapshotKind, SnapshotOptions, Snapshots};
use crate::source::ImageSource;
use crate::store::Store;
use crate::store::explain::HistoryLimits;
use crate::store::prune::Policy;
use crate::sys::lock::FileLock;

/// Settings of a build beyond what is built.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// State directory, absolute.
    pub root: PathBuf,
    /// What is special about registries, by host.
    pub registries: BTreeMap<String, HostOptions>,
    /// Directories like `/etc/docker/certs.d` with certificates for registries.
    pub certificates: Vec<PathBuf>,
    /// Blobs moved at once with one registry; none for BuildKit's number.
    pub registry_concurrency: Option<usize>,
    /// Where registry credentials may stand.
    pub accounts: Places,
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
    /// Platforms that the configuration says this machine runs, the one builds are for by default first.
    pub platforms: Vec<Platform>,
    /// Whether this process is in a user namespace that was made for it alone.
    pub own_namespace: bool,
    /// Devices that steps may be given.
    pub devices: DeviceOptions,
    /// The network of steps that ask for none in particular.
    pub network: NetworkOptions,
    /// File for the image's digest.
    pub iidfile: Option<PathBuf>,
    /// File for metadata of the result.
    pub metadata_file: Option<PathBuf>,
    /// Where the result goes.
    pub exports: Vec<ExportSpec>,
    /// Whether it is found out before the build if the image may be pushed.
    pub push_check: bool,
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
    /// How many records of builds are kept.
    pub history: HistoryLimits,
    /// Where it is to be said why steps ran; nobody asks if there is none.
    pub explained: Option<Explained>,
}

/// The stations that own state, opened.
#[derive(Debug)]
pub(super) struct Stations {
    pub(super) store: Arc<Store>,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) client: Arc<Client>,
    /// What was learnt of the caches that are imported.
    pub(super) learnt: Arc<Learnt>,
    /// Held while the build runs, so that nobody removes what it uses.
    _lock: FileLock,
}

impl Setup {
    /// Makes the registry client.
    pub(super) fn client(&self) -> Result<Arc<Client>, Diagnostic> {
        let mut options = ClientOptions::new(Arc::new(self.credentials()?));
        options.proxies = self.proxies.clone();
        options.hosts.clone_from(&self.registries);
        options.certificates.clone_from(&self.certificates);
        options.blobs_at_once = self.registry_concurrency.unwrap_or(options.blobs_at_once);
        for host in self.insecure_hosts() {
            let host = options.hosts.entry(host).or_default();
            (host.insecure, host.http) = (true, Some(true));
        }
        Client::new(options).map_err(|e| Diagnostic::from_error(&e))
    }

    /// Returns whether caches may have the results of all steps, so that what is made for the first step may be made for nothing.
    pub(super) fn may_run_nothing(&self) -> bool {
        !self.caches_from.is_empty()
    }

    /// Returns what is known of the machine beyond itself.
    pub(super) fn machine(&self) -> MachineOptions {
        MachineOptions {
            declared: self.platforms.clone(),
            directories: self.search_path.clone(),
            workspaces: self.workspaces.clone(),
            own_namespace: self.own_namespace,
        }
    }

    /// Returns the platform that steps run on by themselves.
    pub(super) fn build_platform(&self) -> Platform {
        self.platforms.first().cloned().unwrap_or_else(Platform::host).normalized()
    }

    fn credentials(&self) -> Result<Keyring, Diagnostic> {
        let (directories, workspaces) = (self.search_path.clone(), self.workspaces.clone());
        let search = HelperSearch { directories, workspaces, ..HelperSearch::default() };
        Keyring::open(&self.accounts, search).map_err(|error| Diagnostic::new(Kind::Usage, chain(&error)))
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
            ImportSpec::Registry { reference, insecure: true, .. } => Some(reference.registry.clone()),
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
        let (kind, lazy) = (setup.snapshotter, setup.may_run_nothing());
        let options = SnapshotOptions { unmapped, kind, lazy, ..SnapshotOptions::default() };
        let snapshots = Snapshots::with_store(Arc::clone(&store), options).map_err(|e| failed(&e))?;
        Ok(Self { store, snapshots, client: setup.client()?, learnt: Arc::default(), _lock: lock })
    }

    /// Returns the source of registry images.
    pub(super) fn images(&self) -> ImageSource {
        ImageSource::new(Arc::clone(&self.client), Arc::clone(&self.store), Arc::clone(&self.snapshots))
    }
}
