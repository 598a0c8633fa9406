//! Rules as BPF.
//!
//! Each architecture's numbers are cut into ranges of equal rule; a balanced tree of "at least?" comparisons finds the range
//! in seven steps, and its leaf returns or checks arguments.

use super::table::{Architecture, HIGHEST, Rule, X32_BIT};

/// One BPF instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub(super) code: u16,
    pub(super) on_true: u8,
    pub(super) on_false: u8,
    pub(super) operand: u32,
}

impl Instruction {
    pub(super) fn to_raw(self) -> libc::sock_filter {
        libc::sock_filter { code: self.code, jt: self.on_true, jf: self.on_false, k: self.operand }
    }
}

pub(super) const LOAD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_AT_LEAST: u16 = 0x35;
pub(super) const JUMP_ANY_BIT: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;

pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const ERRNO_EPERM: u32 = 0x0005_0000 | libc::EPERM as u32;
pub(super) const ERRNO_ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// Offsets in `struct seccomp_data`; the low half of argument 0 comes first on little-endian machines.
pub(super) const OFFSET_NUMBER: u32 = 0;
pub(super) const OFFSET_ARCH: u32 = 4;
pub(super) const OFFSET_ARGUMENT: u32 = 16;

/// Flags of `clone` that make namespaces: mount, cgroup, uts, ipc, user, pid, net.
pub(super) const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
/// `AF_ALG` and `AF_VSOCK`.
pub(super) const REFUSED_FAMILIES: [u32; 2] = [38, 40];
/// Linux, Linux with a 3 GB address space or a 2.6 version number, and the query.
pub(super) const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

fn ret(value: u32) -> Instruction {
    Instruction { code: RETURN, on_true: 0, on_false: 0, operand: value }
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, on_true: 0, on_false: 0, operand: offset }
}

fn branch(code: u16, operand: u32, on_true: u8, on_false: u8) -> Instruction {
    Instruction { code, on_true, on_false, operand }
}

/// Compiles one program for all architectures.
pub(super) fn compile(architectures: &[Architecture]) -> Vec<Instruction> {
    let mut program = vec![load(OFFSET_ARCH)];
    for (index, architecture) in architectures.iter().enumerate() {
        let body = architecture_body(architecture, index == 0);
        // A conditional jump reaches 255 instructions only: jump over an unconditional one, which reaches any.
        program.push(branch(JUMP_EQUAL, architecture.audit, 1, 0));
        program.push(Instruction { code: JUMP, on_true: 0, on_false: 0, operand: body.len() as u32 });
        program.extend(body);
    }
    program.push(ret(ERRNO_ENOSYS));
    program
}

fn architecture_body(architecture: &Architecture, native: bool) -> Vec<Instruction> {
    let mut body = vec![load(OFFSET_NUMBER)];
    if native && cfg!(target_arch = "x86_64") {
        body.push(branch(JUMP_ANY_BIT, X32_BIT, 0, 1));
        body.push(ret(ERRNO_ENOSYS));
    }
    body.extend(search(&ranges(&architecture.rules)));
    body
}

/// Cuts all numbers into ranges of equal rule: first number and rule, the first range starting at 0.
fn ranges(rules: &[(u32, Rule)]) -> Vec<(u32, Rule)> {
    let mut ranges: Vec<(u32, Rule)> = Vec::new();
    let mut push = |start: u32, rule: Rule| match ranges.last_mut() {
        Some((last, kept)) if *last == start => *kept = rule,
        Some((_, kept)) if *kept == rule => {}
        _ => ranges.push((start, rule)),
    };
    push(0, Rule::Deny);
    let mut unknown_pushed = false;
    for (number, rule) in rules {
        if *number > HIGHEST && !unknown_pushed {
            push(HIGHEST + 1, Rule::Unknown);
            unknown_pushed = true;
        }
        push(*number, *rule);
        push(number + 1, if unknown_pushed { Rule::Unknown } else { Rule::Deny });
    }
    if !unknown_pushed {
        push(HIGHEST + 1, Rule::Unknown);
    }
    ranges
}

fn search(ranges: &[(u32, Rule)]) -> Vec<Instruction> {
    if let [(_, rule)] = ranges {
        return leaf(*rule);
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let (lower_code, upper_code) = (search(lower), search(upper));
    let mut code = Vec::with_capacity(lower_code.len() + upper_code.len() + 2);
    match u8::try_from(lower_code.len()) {
        Ok(distance) => code.push(branch(JUMP_AT_LEAST, upper[0].0, distance, 0)),
        Err(_) => {
            code.push(branch(JUMP_AT_LEAST, upper[0].0, 0, 1));
            code.push(Instruction { code: JUMP, on_true: 0, on_false: 0, operand: lower_code.len() as u32 });
        }
    }
    code.extend(lower_code);
    code.extend(upper_code);
    code
}

fn leaf(rule: Rule) -> Vec<Instruction> {
    match rule {
        Rule::Allow => vec![ret(ALLOW)],
        Rule::Deny => vec![ret(ERRNO_EPERM)],
        Rule::Unknown => vec![ret(ERRNO_ENOSYS)],
        Rule::Clone => {
            vec![load(OFFSET_ARGUMENT), branch(JUMP_ANY_BIT, NAMESPACE_FLAGS, 0, 1), ret(ERRNO_EPERM), ret(ALLOW)]
        }
        Rule::Socket => one_of(&REFUSED_FAMILIES, ERRNO_EPERM, ALLOW),
        Rule::Personality => one_of(&PERSONALITIES, ALLOW, ERRNO_EPERM),
    }
}

/// Returns `then` if the first argument is one of `values`, else `otherwise`.
fn one_of(values: &[u32], then: u32, otherwise: u32) -> Vec<Instruction> {
    let mut code = vec![load(OFFSET_ARGUMENT)];
    for (index, value) in values.iter().enumerate() {
        let to_then = (values.len() - index) as u8;
        code.push(branch(JUMP_EQUAL, *value, to_then, 0));
    }
    code.extend([ret(otherwise), ret(then)]);
    code
}
