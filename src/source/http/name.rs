//! What a file from a web server is called, and when it was changed.
//!
//! In: URLs and header values, which are foreign. Out: one path component, never `.`, `..` or anything with a control
//! character; times of the three forms HTTP knows.

use std::collections::BTreeMap;

use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

use crate::dockerfile::giturl::percent_decoded;

/// What is used where no name can be.
const DEFAULT: &str = "download";

/// Returns the name of a file: the one asked for, else what `Content-Disposition` says, else the last part of the URL's path.
pub fn file_name(url: &str, wanted: &str, disposition: Option<&str>) -> String {
    if !wanted.is_empty() {
        return safe(wanted);
    }
    let told = disposition.and_then(disposition_name).filter(|name| !name.is_empty() && !name.ends_with('/'));
    safe(&told.unwrap_or_else(|| last_part(url)))
}

/// Returns the last part of a URL's path, decoded; empty if there is none.
fn last_part(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    percent_decoded(path).map(|path| base(&path).to_owned()).unwrap_or_default()
}

fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

fn safe(name: &str) -> String {
    let name = base(name.trim());
    if matches!(name, "" | "." | "..") || name.chars().any(char::is_control) {
        return DEFAULT.into();
    }
    name.to_owned()
}

/// Reads the file name of a `Content-Disposition` (RFC 6266); none where the value is malformed.
fn disposition_name(value: &str) -> Option<String> {
    let (kind, mut rest) = value.split_once(';')?;
    if kind.trim().is_empty() || !kind.trim().chars().all(is_token) {
        return None;
    }
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            break;
        }
        let (name, tail) = rest.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        let (value, tail) = parameter_value(tail.trim_start())?;
        if name.is_empty() || !name.chars().all(is_token) || parameters.insert(name, value).is_some() {
            return None;
        }
        let tail = tail.trim_start();
        rest = tail.strip_prefix(';').or_else(|| tail.is_empty().then_some(""))?;
    }
    let extended = parameters.get("filename*").and_then(|value| extended(value));
    extended.or_else(|| parameters.remove("filename")).or_else(|| pieces(&parameters))
}

/// Joins `filename*0`, `filename*1`, … (RFC 2231); those ending in `*` are encoded.
fn pieces(parameters: &BTreeMap<String, String>) -> Option<String> {
    let mut joined = String::new();
    for number in 0.. {
        let (plain, encoded) = (format!("filename*{number}"), format!("filename*{number}*"));
        match (parameters.get(&plain), parameters.get(&encoded)) {
            (Some(text), _) => joined.push_str(text),
            (None, Some(text)) if number == 0 => joined.push_str(&extended(text)?),
            (None, Some(text)) => joined.push_str(&percent_decoded(text)?),
            (None, None) => break,
        }
    }
    (!joined.is_empty()).then_some(joined)
}

/// A quoted text or a token, and what follows it.
fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !is_token(c)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            // A backslash of a Windows path stands for itself: only what must be escaped is.
            '\\' => match chars.clone().next() {
                Some((_, escaped @ ('"' | '\\'))) => {
                    value.push(escaped);
                    chars.next();
                }
                _ => value.push('\\'),
            },
            c => value.push(c),
        }
    }
    None
}

fn is_token(c: char) -> bool {
    c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c)
}

/// Decodes `UTF-8''na%20me`.
fn extended(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _language, text) = (parts.next()?, parts.next()?, parts.next()?);
    let known = charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii");
    percent_decoded(text).filter(|_| known)
}

/// Reads the time of a `Last-Modified`, in any of the three forms of RFC 9110.
pub fn http_time(text: &str) -> Option<OffsetDateTime> {
    let text = text.trim();
    fixed(text).or_else(|| asctime(text)).or_else(|| rfc850(text))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`; which day of the week it says does not matter.
fn fixed(text: &str) -> Option<OffsetDateTime> {
    let (_, rest) = text.strip_suffix(" GMT")?.split_once(", ")?;
    let format = format_description!("[day] [month repr:short] [year] [hour]:[minute]:[second]");
    PrimitiveDateTime::parse(rest, format).ok().map(PrimitiveDateTime::assume_utc)
}

/// `Sun Nov  6 08:49:37 1994`.
fn asctime(text: &str) -> Option<OffsetDateTime> {
    let format = format_description!(
        "[weekday repr:short] [month repr:short] [day padding:none] [hour]:[minute]:[second] [year]"
    );
    let words: Vec<&str> = text.split_whitespace().collect();
    PrimitiveDateTime::parse(&words.join(" "), format).ok().map(PrimitiveDateTime::assume_utc)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`; years below 69 are of this century.
fn rfc850(text: &str) -> Option<OffsetDateTime> {
    let (_, rest) = text.split_once(", ")?;
    let (date, clock) = rest.strip_suffix(" GMT")?.split_once(' ')?;
    let mut parts = date.splitn(3, '-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let year: i32 = year.parse().ok().filter(|_| year.len() == 2)?;
    let year = if year < 69 { 2000 + year } else { 1900 + year };
    let format = format_description!("[day] [month repr:short] [year] [hour]:[minute]:[second]");
    let time = PrimitiveDateTime::parse(&format!("{day} {month} {year} {clock}"), format).ok()?;
    Some(time.assume_utc())
}

/// Writes a time as HTTP does.
pub fn print_time(time: OffsetDateTime) -> String {
    let format =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    // The format has no part that a time could lack.
    time.to_offset(UtcOffset::UTC).format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn f7_names_of_urls_and_headers() {
        let url = "https://h/a/b%20c.tar?x=/y";
        for (wanted, disposition, name) in [
            ("", None, "b c.tar"),
            ("given", Some("attachment; filename=other"), "given"),
            ("../given", None, "given"),
            ("..", None, "download"),
            (" a\u{7}b", None, "download"),
            ("", Some("attachment; filename=plain.txt"), "plain.txt"),
            ("", Some("attachment; filename=\"quo;ted \\\" .txt\"; size=3"), "quo;ted \" .txt"),
            ("", Some("attachment; filename=\"../../etc/passwd\""), "passwd"),
            ("", Some("attachment; filename=\"..\""), "download"),
            ("", Some("attachment; filename=\"a\\\\..\\\\b\""), "a\\..\\b"),
            ("", Some("attachment; filename*=UTF-8''..%2f..%2fx"), "x"),
            ("", Some("attachment; filename*=UTF-8''a%00b"), "download"),
            ("", Some("attachment; filename=\"dir/\""), "b c.tar"),
            ("", Some("attachment; filename=\"\""), "b c.tar"),
            ("", Some("attachment; filename=\"a\u{1b}b\""), "download"),
            ("", Some("attachment; filename=plain; filename*=UTF-8''%e2%82%ac.txt"), "€.txt"),
            ("", Some("attachment; filename=plain; filename*=latin1''%a4"), "plain"),
            ("", Some("attachment; filename*0=\"long \"; filename*1=name"), "long name"),
            ("", Some("attachment; filename=a; filename=b"), "b c.tar"),
            ("", Some("attachment; filename=\"open"), "b c.tar"),
            ("", Some("inline"), "b c.tar"),
            ("", Some("; filename=x"), "b c.tar"),
        ] {
            assert_eq!(file_name(url, wanted, disposition), name, "{wanted:?} {disposition:?}");
        }
        for (url, name) in [
            ("https://h", "download"),
            ("https://h/", "download"),
            ("https://h/%2e%2e", "download"),
            ("https://h/a/%2e%2e%2fx", "x"),
            ("https://h/a%00b", "download"),
        ] {
            assert_eq!(file_name(url, "", None), name, "{url}");
        }
    }

    #[test]
    fn times_of_all_forms() {
        let expected = "Sun, 06 Nov 1994 08:49:37 GMT";
        for text in [expected, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            let time = http_time(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((time.unix_timestamp(), print_time(time)), (784_111_777, expected.into()), "{text}");
        }
        for text in ["", "yesterday", "Sun, 06 Nov 1994 25:49:37 GMT", "Sun, 06 Nov 1994 08:49:37"] {
            assert_eq!(http_time(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn f7_a_name_is_one_component(url in "(https://)?[a-z%/.0-9]{0,12}", name in "\\PC{0,12}|[./ ]{0,4}", told in "[a-z]{0,3};( )?filename[*]?=[\"a-z/.%'0-9\\\\]{0,16}") {
            let name = file_name(&url, &name, Some(&told));
            prop_assert!(!matches!(name.as_str(), "" | "." | ".."));
            prop_assert!(!name.contains('/') && !name.chars().any(char::is_control), "{name:?}");
        }

        #[test]
        fn times_print_as_they_were_read(seconds in 0i64..4_000_000_000) {
            let time = OffsetDateTime::from_unix_timestamp(seconds).expect("in range");
            prop_assert_eq!(http_time(&print_time(time)), Some(time));
        }
    }
}
