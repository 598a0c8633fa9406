//! The program: decides its role by its first argument, before any thread exists.

fn main() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "__init") {
        rbuild::exec::init::init_main();
    }
}
