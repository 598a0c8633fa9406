//! Symbolic modes as BSD's setmode(3) has them: `u+x,go=rX`.
//!
//! In: text and a mode. Out: the changed mode. The file creation mask counts as 0.

const SET_IDS: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const STANDARD: u32 = 0o6777;
const ANY_EXECUTE: u32 = 0o111;

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModeChange(Vec<Step>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Add(u32),
    Remove(u32),
    /// Adds only to directories and to what somebody may execute.
    AddIfExecutable(u32),
    /// Copies the bits of the class `from` (a shift) to the classes whose bits are in `to`.
    Copy {
        from: u32,
        to: u32,
        op: u8,
    },
}

impl ModeChange {
    /// Parses a symbolic mode.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        for clause in text.split(',') {
            Clause::new(clause.as_bytes()).parse(&mut steps)?;
        }
        Some(Self(steps))
    }

    /// Returns the permission bits after the change.
    pub(super) fn apply(&self, mode: u32, directory: bool) -> u32 {
        let executable = directory || mode & ANY_EXECUTE != 0;
        self.0.iter().fold(mode, |now, step| match *step {
            Step::Add(bits) => now | bits,
            Step::Remove(bits) => now & !bits,
            Step::AddIfExecutable(bits) => now | if executable { bits } else { 0 },
            Step::Copy { from, to, op } => copy_class(now, from, to, op),
        })
    }
}

fn copy_class(mode: u32, from: u32, to: u32, op: u8) -> u32 {
    let spread = |bits: u32| (bits << 6 | bits << 3 | bits) & to;
    let value = spread(mode >> from & 0o7);
    match op {
        b'-' => mode & !value,
        b'=' => mode & !spread(0o7) | value,
        _ => mode | value,
    }
}

/// One clause: who, then operators each with permissions.
struct Clause<'a> {
    rest: &'a [u8],
    who: u32,
    /// Whether `=` has cleared what it clears.
    cleared: bool,
}

impl<'a> Clause<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { rest: text, who: 0, cleared: false }
    }

    fn parse(&mut self, steps: &mut Vec<Step>) -> Option<()> {
        self.parse_who();
        loop {
            let (op, rest) = self.rest.split_first()?;
            self.rest = rest;
            self.who &= !STICKY;
            match op {
                b'+' | b'-' => {}
                b'=' => self.cleared = false,
                _ => return None,
            }
            self.parse_permissions(*op, steps);
            if self.rest.is_empty() {
                return Some(());
            }
        }
    }

    fn parse_who(&mut self) {
        while let Some((class, rest)) = self.rest.split_first() {
            self.who |= match class {
                b'a' => STANDARD,
                b'u' => 0o4700,
                b'g' => 0o2070,
                b'o' => 0o0007,
                _ => return,
            };
            self.rest = rest;
        }
    }

    fn parse_permissions(&mut self, op: u8, steps: &mut Vec<Step>) {
        let (mut bits, mut if_executable) = (0, 0);
        // Set-id and sticky bits mean nothing to others alone.
        let special = self.who == 0 || self.who & !0o7 != 0;
        while let Some((letter, rest)) = self.rest.split_first() {
            match letter {
                b'r' => bits |= 0o444,
                b'w' => bits |= 0o222,
                b'x' => bits |= ANY_EXECUTE,
                b'X' if op == b'-' => bits |= ANY_EXECUTE,
                b'X' => if_executable = ANY_EXECUTE,
                b's' if special => bits |= SET_IDS,
                b't' if special => {
                    self.who |= STICKY;
                    bits |= STICKY;
                }
                b's' | b't' => {}
                b'u' | b'g' | b'o' => {
                    if bits != 0 {
                        self.change(op, bits, steps);
                    }
                    self.cleared |= op == b'=';
                    self.add_if_executable(if_executable, steps);
                    (bits, if_executable) = (0, 0);
                    let from = match letter {
                        b'u' => 6,
                        b'g' => 3,
                        _ => 0,
                    };
                    let to = if self.who == 0 { 0o777 } else { self.who & 0o777 };
                    steps.push(Step::Copy { from, to, op });
                }
                _ => break,
            }
            self.rest = rest;
        }
        if bits != 0 || op == b'=' && !self.cleared {
            self.cleared |= op == b'=';
            self.change(op, bits, steps);
        }
        self.add_if_executable(if_executable, steps);
    }

    fn change(&self, op: u8, bits: u32, steps: &mut Vec<Step>) {
        let bits = if self.who == 0 { bits } else { bits & self.who };
        match op {
            b'-' => steps.push(Step::Remove(bits)),
            b'=' => {
                steps.push(Step::Remove(if self.who == 0 { STANDARD } else { self.who }));
                steps.push(Step::Add(bits));
            }
            _ => steps.push(Step::Add(bits)),
        }
    }

    fn add_if_executable(&self, bits: u32, steps: &mut Vec<Step>) {
        if bits != 0 {
            steps.push(Step::AddIfExecutable(if self.who == 0 { bits } else { bits & self.who }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_as_chmod_does() {
        let table = [
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("a+x", 0o600, false, 0o711),
            ("go=rX", 0o700, false, 0o755),
            ("go=rX", 0o600, false, 0o644),
            ("go=rX", 0o600, true, 0o655),
            ("g=u", 0o640, false, 0o660),
            ("go=u-w", 0o750, false, 0o755),
            ("o=", 0o777, false, 0o770),
            ("u=rwx,go=", 0o644, false, 0o700),
            ("+X", 0o644, false, 0o644),
            ("+X", 0o644, true, 0o755),
            ("-X", 0o755, false, 0o644),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, false, 0o2755),
            ("o+s", 0o755, false, 0o755),
            ("+t", 0o777, true, 0o1777),
            ("u-s", 0o4755, false, 0o755),
            ("u=rw", 0o4755, false, 0o655),
            ("a-w", 0o666, false, 0o444),
            ("u+x+w", 0o444, false, 0o744),
            ("ug-r,o+w", 0o444, false, 0o006),
        ];
        for (text, before, directory, after) in table {
            let change = ModeChange::parse(text).expect(text);
            assert_eq!(change.apply(before, directory), after, "{text} on {before:o}");
        }
    }

    #[test]
    fn refuses_what_is_no_mode() {
        for text in ["", "u", "u+x,", ",u+x", "u*x", "u+q", "z+x", "+x z"] {
            assert_eq!(ModeChange::parse(text), None, "{text}");
        }
    }
}
