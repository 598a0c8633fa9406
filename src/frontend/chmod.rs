//! `--chmod`: octal, or symbolic as BSD's chmod reads it.

use super::error::Problem;

/// A mode for copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chmod {
    /// Octal value, -1 to keep, 0 where it is symbolic.
    pub(crate) mode: i32,
    /// Symbolic text, or empty.
    pub(crate) symbolic: String,
}

const HINT: &str = "write an octal number or letters: `--chmod=755`, `--chmod=u+x,go=rX`";

/// Reads the flag's value; empty keeps modes as they are.
pub(crate) fn parse(text: &str) -> Result<Chmod, Problem> {
    if text.is_empty() {
        return Ok(Chmod { mode: -1, symbolic: String::new() });
    }
    let octal = || {
        let message = format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
        Problem::new(message).marking(text).hinted(HINT)
    };
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let mode = i32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(octal)?;
        return Ok(Chmod { mode, symbolic: String::new() });
    }
    if !text.split(',').all(is_clause) {
        let problem = Problem::new(format!("invalid chmod parameter: '{text}': invalid syntax"));
        return Err(problem.said_upstream("invalid syntax").marking(text).hinted(HINT));
    }
    Ok(Chmod { mode: 0, symbolic: text.to_owned() })
}

/// `[ugoa]*([-+=]perm*)+`, perm being a bit, or a class to copy from.
fn is_clause(text: &str) -> bool {
    let rest = text.trim_start_matches(['u', 'g', 'o', 'a']);
    if !rest.starts_with(['+', '-', '=']) {
        return false;
    }
    rest.chars().all(|c| "+-=rwxXstugo".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_modes() {
        assert_eq!(parse("0755").expect("octal").mode, 0o755);
        assert_eq!(parse("").expect("none").mode, -1);
        for text in ["u+x,go=rX", "g=u", "+X", "a-w+t", "=", "u=go", "g+rwu", "go=u-w", "o=ux=g"] {
            assert_eq!(parse(text).expect(text), Chmod { mode: 0, symbolic: text.into() });
        }
        for text in ["10000", "64a", "foo", "u", "u+q", "u+x,", "99999", "u=a", "u=r,", ",u=r", "u=rz"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
