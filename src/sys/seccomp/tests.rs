//! The program against a table function, through an interpreter of BPF that shares no code with the compiler.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::program::Instruction;
use super::table::{self, HIGHEST};
use super::{default_program, program};

/// What a call comes to: 0 allowed, else the errno.
fn interpret(code: &[Instruction], data: &[u8; 64]) -> u32 {
    let (mut accumulator, mut at) = (0u32, 0usize);
    for _ in 0..code.len() {
        let instruction = code[at];
        let (k, taken) = (instruction.operand, |yes: bool| {
            usize::from(if yes { instruction.on_true } else { instruction.on_false })
        });
        at += 1;
        match instruction.code {
            0x20 => {
                let bytes = data[k as usize..][..4].try_into().expect("four bytes");
                accumulator = u32::from_le_bytes(bytes);
            }
            0x05 => at += k as usize,
            0x15 => at += taken(accumulator == k),
            0x35 => at += taken(accumulator >= k),
            0x45 => at += taken(accumulator & k != 0),
            0x06 if k == 0x7fff_0000 => return 0,
            0x06 => {
                assert_eq!(k >> 16, 5, "only errors, nothing is killed");
                return k & 0xffff;
            }
            other => panic!("unknown instruction {other:#x}"),
        }
    }
    panic!("a path without a return");
}

fn call(arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [0u8; 64];
    data[..4].copy_from_slice(&number.to_le_bytes());
    data[4..8].copy_from_slice(&arch.to_le_bytes());
    for (index, argument) in arguments.iter().enumerate() {
        data[16 + index * 8..][..8].copy_from_slice(&argument.to_le_bytes());
    }
    static PROGRAM: OnceLock<Vec<Instruction>> = OnceLock::new();
    interpret(PROGRAM.get_or_init(default_program), &data)
}

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The rules as prose has them, read from the table by name.
fn expected(column: usize, number: u32, first: u64) -> u32 {
    static NAMES: OnceLock<BTreeMap<(usize, String), &str>> = OnceLock::new();
    let low = first as u32;
    match NAMES.get_or_init(names).get(&(column, number.to_string())).copied() {
        Some("clone") if low & 0x7e02_0000 != 0 => EPERM,
        Some("socket") if low == 38 || low == 40 => EPERM,
        Some("personality") if ![0, 8, 0x2_0000, 0x2_0008, u32::MAX].contains(&low) => EPERM,
        Some("clone3") => ENOSYS,
        Some(_) => 0,
        None if number > HIGHEST => ENOSYS,
        None => EPERM,
    }
}

fn names() -> BTreeMap<(usize, String), &'static str> {
    let mut names = BTreeMap::new();
    for line in include_str!("profile.tbl").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().expect("a name");
        for (column, number) in words.skip(1).enumerate() {
            names.insert((column, number.to_owned()), name);
        }
    }
    names
}

fn architectures() -> Vec<(u32, usize)> {
    let first = if cfg!(target_arch = "x86_64") { 0 } else { 2 };
    table::architectures().iter().enumerate().map(|(index, a)| (a.audit, first + index)).collect()
}

#[test]
fn e13_every_number_gets_what_the_table_says() {
    for (arch, column) in architectures() {
        for number in 0..=1024 {
            for first in [0, 0x1000_0000, 38, 39, 40, 41] {
                let got = call(arch, number, [first, 0, 0, 0, 0, 0]);
                assert_eq!(got, expected(column, number, first), "{arch:#x} {number} {first}");
            }
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn e13_argument_rules_look_at_the_int_that_the_kernel_uses() {
    const X86_64: u32 = 0xc000_003e;
    let number = |name| table::number_of(name, 0).expect("known");
    let wide = 1u64 << 32;
    for (name, first, result) in [
        ("socket", 2, 0),
        ("socket", 38, EPERM),
        ("socket", wide + 38, EPERM),
        ("socket", 39, 0),
        ("socket", 40, EPERM),
        ("socket", wide + 40, EPERM),
        ("socket", 41, 0),
        ("clone", 0x0001_1200, 0),
        ("clone", 0x1000_0000, EPERM),
        ("clone", 0x0002_0000, EPERM),
        ("personality", 0xffff_ffff, 0),
        ("personality", 4, EPERM),
        ("clone3", 0, ENOSYS),
        ("ptrace", 0, 0),
        ("chroot", 0, 0),
    ] {
        assert_eq!(call(X86_64, number(name), [first, 0, 0, 0, 0, 0]), result, "{name} {first:#x}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn e13_what_is_never_allowed_is_refused() {
    // mount, umount2, unshare, setns, pivot_root, bpf, keyctl, io_uring_setup, userfaultfd, kexec_load, reboot, open_by_handle_at
    for number in [165, 166, 272, 308, 155, 321, 250, 425, 323, 246, 169, 304] {
        assert_eq!(call(0xc000_003e, number, [0; 6]), EPERM, "{number}");
    }
}

#[test]
fn e13_other_architectures_and_x32_do_not_exist() {
    for number in [0, 1, 2, 39, 200] {
        assert_eq!(call(0xc000_00f3, number, [0; 6]), ENOSYS);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(call(0xc000_003e, 0x4000_0000 | number, [0; 6]), ENOSYS);
            assert_eq!(call(0xc000_003e, u32::MAX, [0; 6]), ENOSYS);
        }
    }
}

#[test]
fn e13_the_program_fits_the_kernels_limit() {
    let length = default_program().len();
    assert!((100..4096).contains(&length), "{length}");
    assert_eq!(program::compile(&[]).len(), 2);
}

proptest! {
    #[test]
    fn e13_seccomp_prog(number in any::<u32>(), first in any::<u64>(), index in 0usize..2) {
        let (arch, column) = architectures()[index];
        let number = if number % 2 == 0 { number % 512 } else { number };
        let native = index == 0 && cfg!(target_arch = "x86_64");
        let wanted = if native && number & 0x4000_0000 != 0 { ENOSYS } else { expected(column, number, first) };
        prop_assert_eq!(call(arch, number, [first, 0, 0, 0, 0, 0]), wanted);
    }
}
