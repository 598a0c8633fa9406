//! A container runtime of the machine, runc or crun, in the place of the last steps of the built-in executor.
//!
//! ```text
//! B, pid 1 of a pid namespace that the step does not see:
//!   namespaces but for pid and mount, and the whole tree, are made as for the built-in executor (super::sandbox)
//!   bundle in the staging tmpfs: config.json, state, log          (gone with the mount namespace)
//!   └─ RUNTIME run --detach, or create and start
//!                           ──▶ pid and mount namespace, /proc with its masks, limits, filter, identity, execve
//!   waits for the step's first process, which has become its child, and says how it ended
//! ```
//!
//! In: a plan. Out: how the step ended, or the runtime's own message. Invariants: nothing is left on disk or mounted, whoever is
//! killed when; control groups are ours alone to make, the runtime sees those of the machine read-only.

mod bundle;
mod run;
mod search;

pub(super) use run::run;
pub use search::Search;
pub(super) use search::{ask, find};
