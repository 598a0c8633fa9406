//! Signal names of Linux, as STOPSIGNAL takes them.

const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Tells whether a text is a number other than 0, or a signal's name with or without `SIG`, in any case.
pub(crate) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.contains(&name) || is_realtime(name)
}

/// The real-time signals in between are named by their distance to the nearer end.
fn is_realtime(name: &str) -> bool {
    let distance = |prefix: &str| {
        let digits = name.strip_prefix(prefix)?;
        digits.parse::<u32>().ok().filter(|n| *n > 0 && n.to_string() == digits)
    };
    distance("RTMIN+").is_some_and(|n| n <= 15) || distance("RTMAX-").is_some_and(|n| n <= 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_signals() {
        for name in ["TERM", "sigterm", "SIGRTMIN+15", "RTMAX-14", "9", "-1"] {
            assert!(is_signal(name), "{name}");
        }
        for name in ["", "0", "FOO", "SIGRTMIN+16", "SIGSIGTERM", "RTMIN+01"] {
            assert!(!is_signal(name), "{name}");
        }
    }
}
