//! The program: decides its role by its first argument, before any thread exists.

use std::process::ExitCode;

#[cfg(target_env = "musl")]
#[global_allocator]
// musl's own allocator takes one lock for all threads, which makes unpacking and packing several times slower.
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|role| role == "__init") {
        rbuild::exec::init::init_main()
    }
    if std::env::args_os().nth(1).is_some_and(|role| role == rbuild::snapshot::SETTLE) {
        rbuild::snapshot::settle_main()
    }
    rbuild::cli::main()
}
