//! Signals: the first asks the build to stop, the second ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::diag::{Diagnostic, Kind};

/// Remembers which signal came.
#[derive(Debug, Clone, Default)]
pub(super) struct Signals(Arc<AtomicI32>);

impl Signals {
    /// Returns the first signal that came.
    pub(super) fn caught(&self) -> Option<i32> {
        Some(self.0.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }
}

/// Cancels `cancel` on SIGINT, SIGTERM and SIGHUP; a second one ends the process, and with it every step: their supervisors
/// see the end of their socket.
pub(super) fn watch(cancel: CancellationToken) -> std::io::Result<Signals> {
    let caught = Signals::default();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut stream = signal(kind)?;
        let (caught, cancel) = (caught.clone(), cancel.clone());
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if caught.0.swap(kind.as_raw_value(), Ordering::SeqCst) != 0 {
                    std::process::exit(128 + kind.as_raw_value());
                }
                cancel.cancel();
            }
        });
    }
    Ok(caught)
}

/// Says that a signal stopped the build.
pub(super) fn diagnostic(signal: i32) -> Diagnostic {
    Diagnostic::new(Kind::Interrupted(signal), format!("stopped by signal {signal}; nothing was left running"))
}
