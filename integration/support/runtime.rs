//! Which container runtime the tests run steps by: rbuild's own, or the one that `RBUILD_TEST_RUNTIME` names.

use rbuild::exec::{Runtime, Search};

/// The variable.
pub(crate) const VARIABLE: &str = "RBUILD_TEST_RUNTIME";

/// Returns the name of the runtime; none for rbuild's own.
pub(crate) fn name() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let name = std::env::var(VARIABLE);
    name.ok().filter(|name| !name.is_empty())
}

/// Returns whether steps are run by rbuild itself.
pub(crate) fn is_built_in() -> bool {
    name().is_none()
}

/// Returns the option of an executor.
pub(crate) fn option() -> Runtime {
    let directories = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(std::path::PathBuf::from).to_vec();
    name().map_or(Runtime::BuiltIn, |name| Runtime::Program(Search { name, directories, workspaces: Vec::new() }))
}
