//! Networks of steps, set up by CNI plugins: programs that connect a network namespace and take it off again.
//!
//! In: [`NetworkOptions`]: the mode, a network configuration, directories with plugins. Out: [`Lease`]s of connected network
//! namespaces, from a [`Pool`] that uses them again.
//!
//! ```text
//! options ─choose─▶ Network ─▶ Pool ──get──▶ Lease ─▶ a step joins its descriptor ─▶ back to the pool
//!                                │ make                                               │ at the end
//!                                ▼                                                    ▼
//!                  new namespace, record, plugins: ADD                  plugins: DEL, record removed
//! ```
//!
//! Invariants: a namespace is a descriptor of this process, which plugins reach below `/proc`, so that it goes with the
//! process; what plugins leave elsewhere (addresses taken, rules of a firewall) is on record before they are called, and
//! released by this process or, if that is killed, by the next one that opens the state directory. Plugins are bounded in
//! time and in what they say. No namespace is made before the first step asks.
//!
//! On disk, below the state directory:
//!
//! ```text
//! ROOT/network/guard      taken while owners come and go
//! ROOT/network/N/lock     held by one process, and by the plugins it has started
//! ROOT/network/N/ID.json  one namespace: what it was connected to, by which plugins, and what they answered
//! ```

mod attachment;
mod bridge;
mod choice;
mod config;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod leases;
mod ledger;
mod plugin;
mod pool;
mod reply;
mod turn;

pub use attachment::Network;
pub use choice::{BINARY_DIRS, Choice, Mode, NetworkOptions, choose};
pub use error::CniError;
pub use ledger::{finish, recover};
pub use pool::{Lease, Pool};
pub use reply::Dns;

/// The folder of the state directory that belongs to this station.
pub const FOLDER: &str = "network";
