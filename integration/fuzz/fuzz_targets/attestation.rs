//! libFuzzer's way to the target of this name in `src/lib.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbuild_fuzz::run("attestation", data));
