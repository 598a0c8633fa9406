//! Times as PAX writes them: decimal seconds with a fraction.

use crate::sys::dir::Time;

/// Reads `1700000000.25`; digits beyond nanoseconds are dropped.
pub(crate) fn parse(text: &str) -> Option<Time> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = nanoseconds.fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    if negative && nanoseconds > 0 {
        return Some(Time { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Some(Time { seconds, nanoseconds })
}

/// Returns the time a file gets: what lies before 1970, or too late for nanoseconds in 64 bits, becomes 1970, as in
/// containerd.
pub(crate) fn bounded(time: Time) -> Time {
    const LAST: i64 = i64::MAX / 1_000_000_000;
    if (0..LAST).contains(&time.seconds) { time } else { Time::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pax_times() {
        let cases = [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.", Some((1, 0))),
            ("1.0000000019", Some((1, 1))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("9223372036854775807", Some((i64::MAX, 0))),
            ("9223372036854775808", None),
            ("-9223372036854775808.1", None),
            ("NaN", None),
            ("", None),
            ("1.x", None),
            ("1e9", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn far_times_become_zero() {
        for seconds in [-1, i64::MIN, i64::MAX] {
            assert_eq!(bounded(Time { seconds, nanoseconds: 1 }), Time::default());
        }
        let now = Time { seconds: 1_700_000_000, nanoseconds: 7 };
        assert_eq!(bounded(now), now);
    }
}
