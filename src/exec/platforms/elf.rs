//! Architectures as ELF files name them, and the smallest program of each: one that ends well.
//!
//! In: Go's name of an architecture. Out: the bytes of a program, and the bytes and mask by which the kernel tells programs of
//! the architecture from others (`binfmt_misc`).

/// Where the program is loaded, and where pages of any size may begin.
const BASE: u64 = 0x40_0000;
const ALIGN: u64 = 0x1_0000;
/// Bytes of a file that tell its architecture.
pub(super) const MAGIC: usize = 20;
/// Kinds of files and of segments.
const EXECUTABLE: u16 = 2;
const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;
const READ_EXECUTE: u32 = 5;
/// Sizes of the file header and of one program header.
const HEADERS_64: (u16, u16) = (64, 56);
const HEADERS_32: (u16, u16) = (52, 32);

/// An architecture.
#[derive(Debug)]
pub(super) struct Architecture {
    /// Go's name.
    pub(super) name: &'static str,
    /// QEMU's name.
    pub(super) qemu: &'static str,
    machine: u16,
    wide: bool,
    big_endian: bool,
    flags: u32,
    /// Instructions that end the process with code 0.
    code: &'static [u8],
}

/// The architectures that are known, each with `exit(0)`.
#[rustfmt::skip]
const KNOWN: &[Architecture] = &[
    Architecture { name: "amd64", qemu: "x86_64", machine: 62, wide: true, big_endian: false, flags: 0,
        code: &[0x31, 0xff, 0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05] },
    Architecture { name: "386", qemu: "i386", machine: 3, wide: false, big_endian: false, flags: 0,
        code: &[0x31, 0xdb, 0xb8, 0x01, 0, 0, 0, 0xcd, 0x80] },
    Architecture { name: "arm64", qemu: "aarch64", machine: 183, wide: true, big_endian: false, flags: 0,
        code: &[0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4] },
    Architecture { name: "arm", qemu: "arm", machine: 40, wide: false, big_endian: false, flags: 0x0500_0000,
        code: &[0x00, 0x00, 0xa0, 0xe3, 0x01, 0x70, 0xa0, 0xe3, 0x00, 0x00, 0x00, 0xef] },
    Architecture { name: "riscv64", qemu: "riscv64", machine: 243, wide: true, big_endian: false, flags: 0,
        code: &[0x13, 0x05, 0x00, 0x00, 0x93, 0x08, 0xd0, 0x05, 0x73, 0x00, 0x00, 0x00] },
    // Flag 2 is the second ABI: the entry point is code, not a function descriptor.
    Architecture { name: "ppc64le", qemu: "ppc64le", machine: 21, wide: true, big_endian: false, flags: 2,
        code: &[0x00, 0x00, 0x60, 0x38, 0x01, 0x00, 0x00, 0x38, 0x02, 0x00, 0x00, 0x44] },
    Architecture { name: "ppc64", qemu: "ppc64", machine: 21, wide: true, big_endian: true, flags: 2,
        code: &[0x38, 0x60, 0x00, 0x00, 0x38, 0x00, 0x00, 0x01, 0x44, 0x00, 0x00, 0x02] },
    Architecture { name: "s390x", qemu: "s390x", machine: 22, wide: true, big_endian: true, flags: 0,
        code: &[0xa7, 0x29, 0x00, 0x00, 0x0a, 0x01] },
    Architecture { name: "mips64le", qemu: "mips64el", machine: 8, wide: true, big_endian: false, flags: 0x6000_0000,
        code: &[0xc2, 0x13, 0x02, 0x24, 0x25, 0x20, 0x00, 0x00, 0x0c, 0x00, 0x00, 0x00] },
    Architecture { name: "mips64", qemu: "mips64", machine: 8, wide: true, big_endian: true, flags: 0x6000_0000,
        code: &[0x24, 0x02, 0x13, 0xc2, 0x00, 0x00, 0x20, 0x25, 0x00, 0x00, 0x00, 0x0c] },
    Architecture { name: "loong64", qemu: "loongarch64", machine: 258, wide: true, big_endian: false, flags: 0x43,
        code: &[0x04, 0x00, 0x80, 0x02, 0x0b, 0x74, 0x81, 0x02, 0x00, 0x00, 0x2b, 0x00] },
];

/// Returns the architecture of a name.
pub(super) fn architecture(name: &str) -> Option<&'static Architecture> {
    KNOWN.iter().find(|known| known.name == name)
}

impl Architecture {
    /// Returns the program.
    pub(super) fn program(&self) -> Vec<u8> {
        let (header, segment) = if self.wide { HEADERS_64 } else { HEADERS_32 };
        let start = u64::from(header + segment);
        let size = start + self.code.len() as u64;
        let mut file = self.ident().to_vec();
        self.put(&mut file, EXECUTABLE);
        self.put(&mut file, self.machine);
        self.put(&mut file, 1u32);
        self.address(&mut file, BASE + start);
        self.address(&mut file, u64::from(header));
        self.address(&mut file, 0);
        self.put(&mut file, self.flags);
        for number in [header, segment, 1, 0, 0, 0] {
            self.put(&mut file, number);
        }
        self.put(&mut file, LOAD);
        if self.wide {
            self.put(&mut file, READ_EXECUTE);
        }
        for number in [0, BASE, BASE, size, size] {
            self.address(&mut file, number);
        }
        if !self.wide {
            self.put(&mut file, READ_EXECUTE);
        }
        self.address(&mut file, ALIGN);
        file.extend_from_slice(self.code);
        file
    }

    fn ident(&self) -> [u8; 16] {
        let class = if self.wide { 2 } else { 1 };
        let order = if self.big_endian { 2 } else { 1 };
        [0x7f, b'E', b'L', b'F', class, order, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    /// Returns the bytes at the start of a program, and those bits of them that count: its system does not, nor whether it is
    /// relocatable.
    pub(super) fn magic(&self) -> ([u8; MAGIC], [u8; MAGIC]) {
        let (mut magic, mut mask) = ([0; MAGIC], [0xff; MAGIC]);
        magic.copy_from_slice(&self.program()[..MAGIC]);
        mask[7] = 0;
        mask[if self.big_endian { 17 } else { 16 }] = 0xfe;
        (magic, mask)
    }

    fn put<const N: usize>(&self, file: &mut Vec<u8>, number: impl Bytes<N>) {
        file.extend(number.ordered(self.big_endian));
    }

    fn address(&self, file: &mut Vec<u8>, number: u64) {
        match self.wide {
            true => self.put(file, number),
            // All of them lie far below 4 GiB.
            false => self.put(file, number as u32),
        }
    }
}

/// A number as bytes in either order.
trait Bytes<const N: usize> {
    fn ordered(self, big_endian: bool) -> [u8; N];
}

macro_rules! bytes {
    ($($number:ty => $size:literal),*) => {
        $(impl Bytes<$size> for $number {
            fn ordered(self, big_endian: bool) -> [u8; $size] {
                if big_endian { self.to_be_bytes() } else { self.to_le_bytes() }
            }
        })*
    };
}

bytes!(u16 => 2, u32 => 4, u64 => 8);

/// Tells whether the start of a file is that of a program for this processor's byte order that needs no other file to start:
/// what a container has in place of its libraries is not what it was linked with.
pub(super) fn is_static(head: &[u8]) -> bool {
    let number = |at: usize, size: usize| {
        let bytes = head.get(at..at.checked_add(size)?)?;
        let mut wide = [0; 8];
        match cfg!(target_endian = "little") {
            true => wide[..size].copy_from_slice(bytes),
            false => wide[8 - size..].copy_from_slice(bytes),
        }
        usize::try_from(u64::from_ne_bytes(wide)).ok()
    };
    let wide = cfg!(target_pointer_width = "64");
    let ident = (head.get(..4), head.get(4).copied());
    if ident != (Some(b"\x7fELF"), Some(if wide { 2 } else { 1 })) {
        return false;
    }
    let (first, sizes) = if wide { (number(32, 8), 54) } else { (number(28, 4), 42) };
    let (Some(first), Some(size), Some(count)) = (first, number(sizes, 2), number(sizes + 2, 2)) else { return false };
    let kind = |at: usize| number(first.checked_add(at.checked_mul(size)?)?, 4);
    (0..count).all(|at| kind(at).is_some_and(|kind| kind != INTERPRETER as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_the_headers_of_their_architecture() {
        for known in KNOWN {
            let program = known.program();
            let headers = if known.wide { 120 } else { 84 };
            assert_eq!(program.len(), headers + known.code.len(), "{}", known.name);
            assert_eq!(program[program.len() - known.code.len()..], *known.code);
        }
        let (magic, mask) = architecture("arm64").expect("known").magic();
        assert_eq!(magic, *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0");
        assert_eq!(mask, *b"\xff\xff\xff\xff\xff\xff\xff\0\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff");
        let (magic, mask) = architecture("s390x").expect("known").magic();
        assert_eq!((&magic[16..], &mask[16..]), (&[0, 2, 0, 22][..], &[0xff, 0xfe, 0xff, 0xff][..]));
    }

    #[test]
    fn each_program_ends_well_in_its_emulator() {
        let temp = tempfile::tempdir().expect("temp dir");
        for known in KNOWN {
            let file = temp.path().join(known.name);
            std::fs::write(&file, known.program()).expect("write");
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
            let emulator = format!("/usr/bin/qemu-{}-static", known.qemu);
            let ended = std::process::Command::new(&emulator).arg(&file).status();
            assert!(ended.expect("qemu-user-static is installed").success(), "{}", known.name);
        }
    }

    #[test]
    fn static_programs_are_told_from_others() {
        let head = |path: &str| std::fs::read(path).expect(path);
        assert!(is_static(&head("/bin/busybox")), "busybox-static is installed");
        assert!(!is_static(&head("/bin/sh")));
        for text in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0"] {
            assert!(!is_static(text));
        }
        let mut wild = head("/bin/busybox")[..64].to_vec();
        wild[32..40].fill(0xff);
        assert!(!is_static(&wild));
    }
}
