//! Why each step of a build ran or was cached: what its key is made of, compared with an earlier build.
//!
//! In: what a build knows of its steps ([`BuildRecord`]), that of an earlier build, and lists of the files that steps read
//! ([`files`]). Out: a [`Report`] with one reason a step, as words and as JSON. Pure: who keeps records on disk is
//! `store::explain`, who collects them is the driver.
//!
//! # Ingredients
//!
//! An [`Ingredient`] is one part of what is hashed into the digest of an op's cache map, taken from the very text that is
//! hashed, so that two ops have equal ingredients exactly when they have equal digests. Of what an op reads by content there
//! is the content key, and a list of files kept under a name made of that key: an unchanged context is not listed again.
//!
//! What looks like a secret ([`redact`]) is taken out of every text before it is kept; a digest tells whether it changed.
//!
//! # Which reason
//!
//! Steps of two builds are paired by stage and likeness ([`pair`]). For one that ran, the first of these that is true is said:
//!
//! 1. It was told not to use the cache.
//! 2. There is no build to compare with, or no step like it in that build.
//! 3. Its own ingredients differ.
//! 4. What it reads by content differs, file by file.
//! 5. A step it is built on differs for one of these reasons; that step is named.
//! 6. It failed, or was not reached, in that build.
//! 7. Nothing that is known of it differs: its result was removed or never exported, and it is said what was compared.
//!
//! So a difference is only named where it is one of the key. What is compared with is a build, not the cache: a step that
//! differs from the last build and is cached all the same is simply cached.
//!
//! Without a build of its own to compare with, a build is compared with that which wrote a cache it imports: what crosses is said
//! in `remotecache::explained`.
//!
//! # JSON
//!
//! `build`, `against` (ids; `against` may be missing), `caches` (what was asked, in order) and `steps`; a step has `name`,
//! `outcome` (`ran`, `cached`, `covered`, `failed`, `canceled`, `not-reached`), `cache` (where a cached one was found), `reason` (`cached`,
//! `covered`, `source`, `no-cache`, `first`, `new`, `changed`, `earlier-step`, `failed-before`, `not-reached-before`, `unknown`,
//! `not-run`), `text`, `step` (the earlier step that changed), `differences` and `more` (differences that are not listed). A
//! difference has `kind` (`command`, `arg`, `env`, `variable`, `base`, `mount`, `platform`, `setting`, `file`), `name`, `change`
//! (`value`, `added`, `removed`, `content`, `mode`, `owner`, `type`, `renamed`), and `from` and `to` where there are such.

mod compare;
mod difference;
pub mod files;
pub mod pair;
mod record;
mod redact;
#[cfg(test)]
mod tests;

pub use compare::{Reason, Report, StepReport, compare, complete};
pub use difference::{Change, Difference};
pub use record::{BuildRecord, Ingredient, Kind, RecordError, Step, StepInput, StepOutcome};
pub use redact::redact;
