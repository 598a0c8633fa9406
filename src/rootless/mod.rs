//! Stage 0: from the calling user to root of a namespace of its own.
//!
//! In: the process as started, with one thread. Out: the same process with uid 0 and all capabilities in a user namespace
//! (or as real root), in a mount namespace whose mounts nobody else sees. Which ids exist there:
//!
//! ```text
//! Root      all that exist outside
//! Subids    0 → the caller, 1… → the ids given to it in /etc/subuid and /etc/subgid, or the ones of an outer container
//! SingleId  0 → the caller, no others
//! ```
//!
//! Ids other than one's own are mapped by `newuidmap` and `newgidmap`, which a helper process executes that stays outside.
//! Nothing is left on disk. Afterwards the process cannot be traced by the calling user and writes no core.

mod error;
mod helper;
mod subids;

pub use error::RootlessError;

use crate::sys::idmap::{self, Extent};
use crate::sys::ns::{self, Namespace};
use crate::sys::{caps, effective_gid, effective_uid, proc};
use helper::{Helper, Many, Mapped, Mapping};

/// What was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The real root's, or an equal one of an outer container: only a mount namespace was made.
    Root,
    /// A user namespace with many ids.
    Subids,
    /// A user namespace with one id.
    SingleId,
}

/// The state after [`enter`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// What was entered.
    pub mode: Mode,
    /// What the user should know.
    pub notices: Vec<String>,
    /// The highest id that exists.
    pub max_id: u32,
}

/// Enters the namespaces; must be called before any thread exists.
pub fn enter() -> Result<Entered, RootlessError> {
    let (uid, gid) = (effective_uid(), effective_gid());
    let held = caps::effective().map_err(|source| RootlessError::Inspect { what: "capabilities", source })?;
    let (mode, notices) = if uid == 0 && held & caps::SYS_ADMIN != 0 {
        ns::unshare(&[Namespace::Mount]).map_err(error::refused)?;
        (Mode::Root, Vec::new())
    } else {
        let (mapping, mut notices) = choose(uid, gid, held)?;
        let (mode, more) = enter_user_namespace(mapping, (uid, gid))?;
        notices.extend(more);
        (mode, notices)
    };
    ns::make_mounts_private().map_err(error::within("make mounts private"))?;
    proc::make_undumpable().map_err(|source| RootlessError::Namespace { action: "protect the process", source })?;
    let users = idmap::users().map_err(|source| RootlessError::Inspect { what: "the id map", source })?;
    Ok(Entered { mode, notices, max_id: idmap::highest(&users) })
}

/// Decides how ids are mapped; real ids of the caller, and what it holds.
fn choose(uid: u32, gid: u32, held: u64) -> Result<(Mapping, Vec<String>), RootlessError> {
    let inspect = |source| RootlessError::Inspect { what: "the id map", source };
    if uid == 0 && held & caps::SETUID != 0 && held & caps::SETGID != 0 {
        let users = identity(&idmap::users().map_err(inspect)?);
        let groups = identity(&idmap::groups().map_err(inspect)?);
        return Ok((Mapping::Many(Many { programs: None, users, groups }), Vec::new()));
    }
    match Many::with_subids(uid, gid) {
        Ok(many) => Ok((Mapping::Many(many), Vec::new())),
        Err(reason) => Ok((Mapping::Single, single_notices(&reason))),
    }
}

/// Says why there is one id only, and what can be done.
fn single_notices(reason: &RootlessError) -> Vec<String> {
    let notice = format!("{}; only user 0 exists in the build, so chown and USER fail", crate::diag::chain(reason));
    std::iter::once(notice).chain(crate::diag::Diagnose::hints(reason)).collect()
}

/// Every id that exists keeps its number.
fn identity(map: &[Extent]) -> Vec<Extent> {
    map.iter().map(|e| Extent { inside: e.inside, outside: e.inside, count: e.count }).collect()
}

fn enter_user_namespace(mapping: Mapping, (uid, gid): (u32, u32)) -> Result<(Mode, Vec<String>), RootlessError> {
    let namespaces = [Namespace::User, Namespace::Mount];
    let helper = match &mapping {
        Mapping::Single => None,
        Mapping::Many(many) => Some(Helper::start(many)?),
    };
    ns::unshare(&namespaces).map_err(error::refused)?;
    let reason = match helper.map(Helper::map).transpose()? {
        Some(Mapped::All) => return Ok((Mode::Subids, Vec::new())),
        Some(Mapped::Nothing(reason)) => Some(reason),
        None => None,
    };
    helper::map_own_id(uid, gid)?;
    Ok((Mode::SingleId, reason.as_ref().map(single_notices).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_root_keeps_the_ids_it_has() {
        let outer = idmap::parse("0 1000 1\n1 100000 65536\n");
        let inner = identity(&outer);
        assert!(inner.iter().all(|extent| extent.inside == extent.outside));
        assert_eq!(idmap::highest(&inner), idmap::highest(&outer));
    }
}
