//! Sizes and times as progress lines show them.

use std::time::{Duration, SystemTime};

/// Prints a size with decimal units, `528B` or `1.05MB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count}B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

/// Prints how much is done of how much, or nothing where neither is known.
pub(super) fn amount(current: u64, total: u64) -> String {
    match (current, total) {
        (0, 0) => String::new(),
        (current, 0) => bytes(current),
        (current, total) => format!("{} / {}", bytes(current), bytes(total)),
    }
}

/// The time from `start` to `end`, zero if clocks went backwards.
pub(super) fn elapsed(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

/// Prints the time of a log line since its step began: four digits where there are as many.
pub(super) fn log_time(since: Duration) -> String {
    let seconds = since.as_secs_f64();
    let precision = match seconds {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.precision$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_sizes_and_times() {
        assert_eq!([0, 999, 1000, 1_048_576, 3_370_706].map(bytes), ["0B", "999B", "1.00kB", "1.05MB", "3.37MB"]);
        assert_eq!(amount(5, 0), "5B");
        assert_eq!(amount(0, 2000), "0B / 2.00kB");
        for (millis, text) in [(123, "0.123"), (12_340, "12.34"), (123_450, "123.5")] {
            assert_eq!(log_time(Duration::from_millis(millis)), text);
        }
    }
}
