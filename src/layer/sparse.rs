//! Files with holes: the maps of GNU tar's four sparse forms.
//!
//! In: header bytes, PAX values or the start of the data. Out: segments. Invariant: segments are in order, do not overlap, and
//! end within the file.

/// A run of data in a file with holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub offset: u64,
    pub length: u64,
}

/// Checks the numbers of a map and returns its segments.
pub(crate) fn segments(numbers: &[u64], size: u64) -> Result<Vec<Segment>, String> {
    if !numbers.len().is_multiple_of(2) {
        return Err("sparse map with an odd count of numbers".into());
    }
    let mut end = 0u64;
    let mut segments = Vec::with_capacity(numbers.len() / 2);
    for pair in numbers.chunks_exact(2) {
        let segment = Segment { offset: pair[0], length: pair[1] };
        let past = segment.offset.checked_add(segment.length).ok_or("sparse map overflows")?;
        if segment.offset < end || past > size {
            return Err("sparse map out of order or beyond the file".into());
        }
        end = past;
        segments.push(segment);
    }
    Ok(segments)
}

/// Reads the comma-separated map of the forms 0.0 and 0.1.
pub(crate) fn parse_list(text: &str) -> Result<Vec<u64>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(|number| decimal(number.as_bytes())).collect()
}

/// Reads decimal digits, nothing else.
pub(crate) fn decimal(text: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(text).map_err(|_| "number that is no text")?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is no number"));
    }
    text.parse().map_err(|_| format!("number {text} is too large"))
}

/// Reads the pairs in a header of the oldest form; a pair starting with NUL ends them.
pub(crate) fn header_pairs(bytes: &[u8], number: fn(&[u8]) -> Option<i64>) -> Result<Vec<u64>, String> {
    let mut numbers = Vec::new();
    for pair in bytes.chunks_exact(24).take_while(|pair| pair[0] != 0) {
        for field in [&pair[..12], &pair[12..]] {
            let value = number(field).and_then(|value| u64::try_from(value).ok());
            numbers.push(value.ok_or("sparse map with a malformed number")?);
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_checked() {
        let cases: [(&[u64], u64, bool); 8] = [
            (&[], 0, true),
            (&[0, 5, 5, 0, 10, 2], 12, true),
            (&[0, 5, 4, 1], 12, false),
            (&[0], 12, false),
            (&[0, 13], 12, false),
            (&[u64::MAX, 2], u64::MAX, false),
            (&[1 << 62, 1], (1 << 62) + 1, true),
            (&[12, 0], 12, true),
        ];
        for (numbers, size, valid) in cases {
            assert_eq!(segments(numbers, size).is_ok(), valid, "{numbers:?}");
        }
        assert!(parse_list("1,-2").is_err() && parse_list("1,").is_err() && parse_list("+1,1").is_err());
    }
}
