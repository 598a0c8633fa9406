//! Control groups of steps that have limits, in the unified hierarchy (cgroup v2), where rbuild may make some.
//!
//! ```text
//! /sys/fs/cgroup/BASE                 the machine's root group for root, else rbuild's own: what a manager delegated to it
//! /sys/fs/cgroup/BASE/rbuild-PID      rbuild itself, where its group has to be left for its controllers to be handed on
//! /sys/fs/cgroup/BASE/PARENT          --cgroup-parent, or `rbuild`
//! /sys/fs/cgroup/BASE/PARENT/rbuild-PID-N     one step, for as long as it runs
//! ```
//!
//! In: a parent's name, limits. Out: a directory that the step's group is made in, and what is written to its files. Invariants: no
//! file of the hierarchy is touched unless a step needs it; the `__init` child makes the group of its step and removes it, also when
//! rbuild was killed; what a killed child left is removed by the next that comes by.

mod limits;
mod place;
mod step;

pub(super) use limits::{Setting, settings};
pub(super) use place::Place;
pub(super) use step::{StepGroup, join};
