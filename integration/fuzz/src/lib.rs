//! Fuzz targets: functions that take any bytes and panic when something the program promises does not hold.
//!
//! In: bytes, mutated from `../corpus/TARGET/`. Out: nothing; each function's documentation states its invariants. The
//! targets live here once and are driven twice: by libFuzzer through `../fuzz_targets/`, and by `integration/fuzz_smoke.rs`,
//! which includes this file and so needs no nightly Rust.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a broken invariant should stop with the place; this file is a crate and a module"
)]

mod archive;
mod cni;
mod feed;
mod image;
mod kernel;
mod layers;
mod network;
mod output;
mod state;
mod text;
mod tree;

/// A target: panics if an invariant does not hold.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("attestation", image::attestation),
    ("auth_file", network::auth_file),
    ("buildkitd_toml", state::buildkitd_toml),
    ("cache_config", state::cache_config),
    ("cache_spec", state::cache_spec),
    ("cdi_spec", state::cdi_spec),
    ("cni_config", cni::cni_config),
    ("cni_record", cni::cni_record),
    ("cni_reply", cni::cni_reply),
    ("content_disposition", text::content_disposition),
    ("csv_size_duration", text::csv_size_duration),
    ("decompress", archive::decompress),
    ("digest", image::digest),
    ("dockerfile", text::dockerfile),
    ("dockerignore", text::dockerignore),
    ("git_ref", text::git_ref),
    ("git_source", text::git_source),
    ("git_url", text::git_url),
    ("image_config", image::image_config),
    ("image_location", image::image_location),
    ("link_header", network::link_header),
    ("llb_encode", text::llb_encode),
    ("location", network::location),
    ("log_sanitize", output::log_sanitize),
    ("manifest", image::manifest),
    ("mount_spec", text::mount_spec),
    ("overlay_layers", layers::overlay_layers),
    ("passwd_user", kernel::passwd_user),
    ("records_log", state::records_log),
    ("explain_annotation", state::explain_annotation),
    ("explain_record", state::explain_record),
    ("redact", network::redact),
    ("reference", image::reference),
    ("registry_answer", network::registry_answer),
    ("resolve_in_root", kernel::resolve_in_root),
    ("seccomp_prog", kernel::seccomp_prog),
    ("shlex", text::shlex),
    ("ssh_agent_frame", output::ssh_agent_frame),
    ("ssh_key", output::ssh_key),
    ("stdin_context", state::stdin_context),
    ("tar_apply", archive::tar_apply),
    ("tar_read", archive::tar_read),
    ("tar_roundtrip", archive::tar_roundtrip),
    ("usage_log", state::usage_log),
    ("www_authenticate", network::www_authenticate),
];

/// Runs one target.
///
/// # Panics
///
/// When an invariant does not hold, or there is no target of that name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of that name");
    target(data);
}

/// Returns what a Dockerfile is lowered to, as text, on a base image that always is the same.
pub fn lowered(dockerfile: &[u8]) -> String {
    text::lowered(dockerfile, text::CONFIG)
}
