//! Programs that tests put in a place.

use std::path::Path;
use std::process::Command;

/// Writes a script that can be run at once. Another process does: a copy of our descriptor in a child that some other test has just
/// forked would keep it busy.
pub(crate) fn plant(path: &Path, text: &str) {
    let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let status = Command::new("sh").args(["-c", write, "sh", text]).arg(path).status();
    assert!(status.unwrap().success());
}
