//! A door for the fuzzers in `integration/fuzz` to the instructions of the filter, which are private otherwise.

/// One BPF instruction: code, distance if true, distance if false, operand.
pub type Parts = (u16, u8, u8, u32);

/// Returns the default program.
pub fn program() -> Vec<Parts> {
    super::default_program().iter().map(|i| (i.code, i.on_true, i.on_false, i.operand)).collect()
}
