//! The network of steps: chosen before the first one, released after the last, together with what killed builds left.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::{Build, Setup, processors};
use crate::cni::{self, Choice, NetworkOptions, Pool};
use crate::diag::Diagnostic;
use crate::exec::DefaultNetwork;
use crate::progress::{Event, Sink, Warning};
use crate::sys::programs;

/// Networks that are to be released.
pub(super) struct Networking {
    pool: Option<Pool>,
    /// Releases what killed builds left; the pool waits for it where there is one.
    recovery: Option<JoinHandle<()>>,
    sink: Arc<dyn Sink>,
}

impl Networking {
    /// Chooses the network of steps; nothing is made yet.
    ///
    /// # Errors
    ///
    /// When a network is configured that cannot be had.
    pub(super) fn open(build: &Build) -> Result<(Self, DefaultNetwork), Diagnostic> {
        let failed = |error: &dyn crate::diag::Diagnose| Diagnostic::from_error(error);
        let Setup { network, search_path, workspaces, .. } = &build.setup;
        let search_path = programs::outside(search_path, workspaces);
        let choice = cni::choose(&NetworkOptions { search_path, ..network.clone() }).map_err(|error| failed(&error))?;
        let network = match &choice {
            Choice::Network(network) => network.name(),
            Choice::Host => "the host's",
            Choice::None => "none",
        };
        tracing::debug!(network, "chose the network of steps");
        let copy = || build.stations.store.root_dir().duplicate();
        let opened = copy().and_then(|root| Ok((root, copy()?)));
        let (root, again) = opened.map_err(|source| failed(&cni::CniError::Namespace { source }))?;
        let sink = Arc::clone(&build.sink);
        let recovery = tokio::spawn(async move { tell(&*sink, cni::recover(&root).await) });
        let sink = Arc::clone(&build.sink);
        let Choice::Network(network) = choice else {
            let default = if choice == Choice::None { DefaultNetwork::None } else { DefaultNetwork::Host };
            return Ok((Self { pool: None, recovery: Some(recovery), sink }, default));
        };
        // More than run at once are of no use.
        let ahead = build.setup.network.pool_size.min(build.setup.parallelism.unwrap_or_else(processors));
        let pool = Pool::new(network, ahead, again, Some(recovery));
        Ok((Self { pool: Some(pool.clone()), recovery: None, sink }, DefaultNetwork::Pool(pool)))
    }

    /// Begins to release what is idle: steps are over, or nearly so.
    pub(super) fn drain(&self) {
        self.pool.iter().for_each(Pool::drain);
    }

    /// Releases everything. No step may run any more.
    pub(super) async fn close(self) {
        if let Some(pool) = &self.pool {
            tell(&*self.sink, pool.close().await);
        }
        if let Some(recovery) = self.recovery {
            cni::finish(recovery).await;
        }
    }
}

fn tell(sink: &dyn Sink, problems: Vec<String>) {
    for problem in problems {
        sink.send(Event::Warning(Warning::notice(problem)));
    }
}
