//! Whether the outputs may be pushed, asked while the build starts, so that it is stopped at once where they may not.
//!
//! In: the repositories that are pushed to. Out: the build's cancellation, and the refusal to be told instead of it. Nobody waits for the
//! answer but the end of the build, and that not for long: an upload that was begun for the question and that no blob took is taken back
//! then. What could not be taken back in time, registries remove by themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::diag::{Diagnostic, chain};
use crate::export::{ExportError, ExportSpec};
use crate::image::Reference;
use crate::progress::{Event, Sink, Warning};
use crate::registry::{Client, Permission};

/// The check of one build.
#[derive(Debug, Default)]
pub(super) struct PushCheck {
    cancel: CancellationToken,
    refusal: Arc<Mutex<Option<Diagnostic>>>,
    asked: Mutex<Option<Asked>>,
}

/// What is being asked, and of whom.
#[derive(Debug)]
struct Asked {
    client: Arc<Client>,
    places: Vec<Reference>,
    task: JoinHandle<()>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long the end of a build waits for registries to answer, and then for them to take back what was begun.
const PARTING: Duration = Duration::from_secs(2);

impl PushCheck {
    /// Makes the check of a build that `stop` stops.
    pub(super) fn new(stop: &CancellationToken) -> Self {
        Self { cancel: stop.child_token(), refusal: Arc::default(), asked: Mutex::default() }
    }

    /// Returns what stops the build, which is also a refusal.
    pub(super) fn cancel(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Starts to ask for all repositories that `exports` push to.
    pub(super) fn start(&self, client: &Arc<Client>, exports: &[ExportSpec], sink: &Arc<dyn Sink>) {
        let places = places(exports);
        if places.is_empty() {
            return;
        }
        let (cancel, refusal, sink) = (self.cancel.clone(), Arc::clone(&self.refusal), Arc::clone(sink));
        let task = tokio::spawn({
            let (client, places) = (Arc::clone(client), places.clone());
            async move {
                if let Err(diagnostic) = ask(&client, places, &*sink).await {
                    *refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(diagnostic);
                    cancel.cancel();
                }
            }
        });
        let asked = Asked { client: Arc::clone(client), places, task };
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
    }

    /// Takes back what was begun for the question and that nobody took.
    pub(super) async fn end(&self) {
        let Some(mut asked) = self.asked.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        // A registry that is about to answer has begun something.
        let answered = tokio::time::timeout(PARTING, &mut asked.task).await.is_ok();
        let taking = join_all(asked.places.iter().map(|place| asked.client.take_back(place)));
        if tokio::time::timeout(PARTING, taking).await.is_err() || !answered {
            tracing::debug!("an upload that was begun to ask may be left");
        }
    }

    /// Returns whether a push was refused, which is told instead of what else stopped the build.
    pub(super) fn is_refused(&self) -> bool {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Takes the refusal.
    pub(super) fn refusal(&self) -> Option<Diagnostic> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn places(exports: &[ExportSpec]) -> Vec<Reference> {
    let pushed = exports.iter().filter_map(|export| match export {
        ExportSpec::Image(target) if target.push => Some(&target.image.names),
        _ => None,
    });
    let bare = |name: &Reference| (name.name(), Reference { tag: None, digest: None, ..name.clone() });
    pushed.flatten().map(bare).collect::<BTreeMap<_, _>>().into_values().collect()
}

async fn ask(client: &Client, places: Vec<Reference>, sink: &dyn Sink) -> Result<(), Diagnostic> {
    let asked = places.into_iter().map(|place| async move { (client.check_push(&place).await, place) });
    let mut asked: FuturesUnordered<_> = asked.collect();
    while let Some((answer, place)) = asked.next().await {
        let name = place.to_string();
        match answer {
            Ok(Permission::Given) => tracing::debug!(%name, "it may be pushed to"),
            Ok(Permission::Unknown(error)) => {
                let text = format!("not known whether {name} may be pushed to: {}", chain(&error));
                sink.send(Event::Warning(Warning::notice(text)));
            }
            Err(source) => return Err(Diagnostic::from_error(&ExportError::Push { name, source: Box::new(source) })),
        }
    }
    Ok(())
}
