//! Platforms: parse, print, normalise and match (containerd's `platforms` rules).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system on a processor, by Go's names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// CPU architecture: `amd64`, `arm64`, …
    pub architecture: String,
    /// Operating system: `linux`, `windows`, …
    pub os: String,
    /// Version of the operating system.
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Required features of the operating system.
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// CPU variant: `v7`, `v8`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// A text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// A star.
    #[error("{text:?}: wildcards not yet supported")]
    Wildcard {
        /// The whole text.
        text: String,
    },
    /// The operating system has characters it may not have, or what follows in brackets is not closed.
    #[error(
        "{component:?} is an invalid OS component of {text:?}: OSAndVersion specifier component must match {OS_PATTERN:?}"
    )]
    Os {
        /// The component.
        component: String,
        /// The whole text.
        text: String,
    },
    /// A `%` in the operating system's version or features without two hexadecimal digits behind it.
    #[error("{text:?} has {what}: invalid URL escape {escape:?}")]
    Escape {
        /// The whole text.
        text: String,
        /// Where it is.
        what: String,
        /// The `%` and what follows.
        escape: String,
    },
    /// A component has characters it may not have.
    #[error(
        "{component:?} is an invalid component of {text:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\""
    )]
    Component {
        /// The component.
        component: String,
        /// The whole text.
        text: String,
    },
    /// One word that is neither a known operating system nor a known architecture.
    #[error("{text:?}: unknown operating system or architecture")]
    Unknown {
        /// The whole text.
        text: String,
    },
    /// Too many components.
    #[error("{text:?}: cannot parse platform specifier")]
    Shape {
        /// The whole text.
        text: String,
    },
}

/// What an operating system with its version and features looks like, as containerd says it.
const OS_PATTERN: &str = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$";

/// Operating systems by Go's names.
pub const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
/// Architectures by Go's names.
pub const KNOWN_ARCH: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// Makes a platform of an operating system and an architecture.
    pub fn new(os: &str, architecture: &str) -> Self {
        Self { os: os.into(), architecture: architecture.into(), ..Self::default() }
    }

    /// Returns the platform this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            "x86" => "386",
            other => other,
        };
        Self::new("linux", architecture).normalized()
    }

    /// Returns the platform with aliases resolved: `amd64/v1` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.os = match self.os.to_lowercase().as_str() {
            "macos" => "darwin".into(),
            os => os.into(),
        };
        let (architecture, variant) = normalize_arch(&self.architecture.to_lowercase(), &self.variant.to_lowercase());
        self.architecture = architecture;
        self.variant = variant;
        self.os_features.sort();
        self.os_features.dedup();
        self
    }

    /// `arm` alone says nothing of a variant.
    fn without_arm_v7(self) -> Self {
        let v7 = self.architecture == "arm" && self.variant == "v7";
        if v7 { Self { variant: String::new(), ..self } } else { self }
    }

    /// Prints `os(version+feature…)/arch/variant`, version and features only where there are any.
    pub fn format_all(&self) -> String {
        let mut features: Vec<&str> = self.os_features.iter().map(String::as_str).filter(|f| !f.is_empty()).collect();
        features.sort_unstable();
        features.dedup();
        if self.os.is_empty() || (self.os_version.is_empty() && features.is_empty()) {
            return self.to_string();
        }
        let mut options = escape_option(&self.os_version);
        features.into_iter().for_each(|feature| options.extend(["+", &escape_option(feature)]));
        let os = format!("{}({options})", self.os);
        Self { os, ..self.clone() }.to_string()
    }

    /// Returns how well an image of platform `self` serves a wish for `wanted`: 0 is best, none is not at all.
    ///
    /// A newer-variant wish is served by older variants (`arm/v7` by `arm/v6`, `arm64` by `arm/v7`), nearest first, and
    /// `amd64` by `386` at last.
    pub fn rank_for(&self, wanted: &Platform) -> Option<usize> {
        let have = self.clone().normalized();
        let want = wanted.clone().normalized();
        if have.os != want.os || (want.os == "windows" && !windows_runs(&want.os_version, &have.os_version)) {
            return None;
        }
        let have_key = (have.architecture.as_str(), have.variant.as_str());
        compatible(&want).iter().position(|(arch, variant)| (arch.as_str(), variant.as_str()) == have_key)
    }
}

/// Windows releases that run images of the release before them.
const WINDOWS_LONG_TERM: [u16; 2] = [20348, 26100];

/// Tells whether a Windows host of one version runs images of another; one that is not said runs, and is run by, any.
fn windows_runs(host: &str, image: &str) -> bool {
    let host = windows_version(host);
    if host == (0, 0, 0) || image.is_empty() {
        return true;
    }
    let image = windows_version(image);
    if (host.0, host.1) != (image.0, image.1) {
        return false;
    }
    let oldest = WINDOWS_LONG_TERM.into_iter().rev().find(|release| host.2 > *release).unwrap_or(WINDOWS_LONG_TERM[0]);
    match host.2 < WINDOWS_LONG_TERM[0] {
        true => host.2 == image.2,
        false => (oldest..=host.2).contains(&image.2),
    }
}

/// Reads `major.minor.build`; zeros where it is none.
fn windows_version(text: &str) -> (u8, u8, u16) {
    let mut parts = text.split('.');
    let mut next = || parts.next().unwrap_or_default();
    let (major, minor, build) = (next(), next(), next());
    match (major.parse(), minor.parse(), build.parse()) {
        (Ok(major), Ok(minor), Ok(build)) => (major, minor, build),
        _ => (0, 0, 0),
    }
}

fn normalize_arch(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.into(), variant.into())
}

/// Lists what can serve `want`, best first (containerd's `platformVector`).
fn compatible(want: &Platform) -> Vec<(String, String)> {
    let arch = want.architecture.as_str();
    let number = |v: &str| v.trim_start_matches('v').parse::<u32>().ok();
    let same = |variant: &str| (arch.to_owned(), variant.to_owned());
    let mut list = vec![same(&want.variant)];
    match arch {
        "amd64" => {
            for v in (1..number(&want.variant).unwrap_or(1)).rev() {
                list.push(same(&if v == 1 { String::new() } else { format!("v{v}") }));
            }
            list.push(("386".into(), String::new()));
        }
        "arm" => list.extend((5..number(&want.variant).unwrap_or(5)).rev().map(|v| same(&format!("v{v}")))),
        "arm64" => {
            if let Some(versions) = arm64_versions(&want.variant) {
                list = versions.iter().map(|v| same(v)).collect();
            } else {
                list.clear();
            }
            let v8 = want.variant.is_empty() || want.variant.starts_with("v8") || want.variant.starts_with("v9");
            let variant = if v8 { "v8" } else { want.variant.as_str() };
            let arm = Platform { variant: variant.into(), ..Platform::new(&want.os, "arm") };
            list.extend(compatible(&arm));
        }
        _ => {}
    }
    list
}

/// Lists the versions of arm64 that one includes, newest first and as normalised; none of one that is not known.
fn arm64_versions(variant: &str) -> Option<Vec<String>> {
    let version = if variant.is_empty() { "v8" } else { variant }.strip_prefix('v')?;
    let (major, minor) = match version.split_once('.') {
        Some((major, minor)) => (major, minor.parse().ok().filter(|minor| *minor > 0)?),
        None => (version, 0),
    };
    let down = |major: u32, minor: u32| (0..=minor).rev().map(move |minor| (major, minor));
    let included: Vec<(u32, u32)> = match (major, minor) {
        ("8", 0..=9) => down(8, minor).collect(),
        // Version 9 includes what came out of version 8 until then.
        ("9", 0..=7) => down(9, minor).chain(down(8, (minor + 5).min(9))).collect(),
        _ => return None,
    };
    let name = |(major, minor)| match (major, minor) {
        (8, 0) => String::new(),
        (major, 0) => format!("v{major}"),
        (major, minor) => format!("v{major}.{minor}"),
    };
    Some(included.into_iter().map(name).collect())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.os.is_empty() {
            return f.write_str("unknown");
        }
        f.write_str(&self.os)?;
        for part in [&self.architecture, &self.variant].into_iter().filter(|p| !p.is_empty()) {
            write!(f, "/{part}")?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Parses `os`, `arch`, `os/arch` or `os/arch/variant`; `(version+feature…)` may follow an operating system.
    ///
    /// As in containerd's, aliases are resolved, but `arm` says no variant and `arm64/v8` keeps it; [`Self::normalized`]
    /// settles that.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        if text.contains('*') {
            return Err(PlatformError::Wildcard { text: text.into() });
        }
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        let Os { name, version: os_version, features: os_features } = read_os(parts[0], text)?;
        parts[1..].iter().try_for_each(|component| check_component(component, text))?;
        let new = |arch: &str, variant: &str| {
            let named = Self { variant: variant.into(), ..Self::new(name, arch) }.normalized();
            Self { os_version: os_version.clone(), os_features: os_features.clone(), ..named }
        };
        match parts[..] {
            [part] => single(name, part, text).map(|p| Self { os_version, os_features, ..p }),
            [_, arch] => Ok(new(arch, "").without_arm_v7()),
            [_, arch, variant] => {
                let platform = new(arch, variant);
                let v8 = platform.architecture == "arm64" && platform.variant.is_empty();
                Ok(if v8 { Self { variant: "v8".into(), ..platform } } else { platform })
            }
            _ => Err(PlatformError::Shape { text: text.into() }),
        }
    }
}

/// Reads one component: an operating system, or else, as a whole, an architecture.
fn single(os: &str, part: &str, text: &str) -> Result<Platform, PlatformError> {
    let host = Platform::host();
    let lower = os.to_lowercase();
    let os = if lower == "macos" { "darwin".into() } else { lower };
    if KNOWN_OS.contains(&os.as_str()) {
        return Ok(Platform { os, ..host });
    }
    let platform = Platform::new(&host.os, part).normalized().without_arm_v7();
    match KNOWN_ARCH.contains(&platform.architecture.as_str()) {
        true => Ok(platform),
        false => Err(PlatformError::Unknown { text: text.into() }),
    }
}

/// A first component.
struct Os<'a> {
    name: &'a str,
    version: String,
    features: Vec<String>,
}

/// Reads `os` or `os(version+feature+feature)`, with `%` escapes in brackets.
fn read_os<'a>(part: &'a str, text: &str) -> Result<Os<'a>, PlatformError> {
    let wrong = || PlatformError::Os { component: part.into(), text: text.into() };
    let (name, options) = match part.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')').ok_or_else(wrong)?),
        None => (part, ""),
    };
    let (version, features) = options.split_once('+').map_or((options, None), |(version, rest)| (version, Some(rest)));
    let features: Vec<&str> = features.map(|features| features.split('+').collect()).unwrap_or_default();
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    let option = |text: &str| text.bytes().all(|b| valid(b) || b".%".contains(&b));
    let shaped = !name.is_empty() && name.bytes().all(valid) && option(version);
    if !shaped || !features.iter().all(|feature| !feature.is_empty() && option(feature)) {
        return Err(wrong());
    }
    let escape = |what: String, escape| PlatformError::Escape { text: text.into(), what, escape };
    let version = read_option(version).map_err(|e| escape(format!("an invalid OS version {version:?}"), e))?;
    let read = |feature: &&str| {
        read_option(feature).map_err(|e| escape(format!("invalid OS features: invalid os feature {feature:?}"), e))
    };
    let features = features.iter().map(read).filter(|f| f.as_ref().map_or(true, |f| !f.is_empty()));
    Ok(Os { name, version, features: features.collect::<Result<_, _>>()? })
}

/// Resolves `%xx`; fails with the escape that is none.
fn read_option(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = behind.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| format!("%{}", &behind[..behind.len().min(2)]))?);
        rest = &behind[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Escapes what means something in a platform.
fn escape_option(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' | '+' | '(' | ')' | '/' => escaped.push_str(&format!("%{:02X}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

fn check_component(component: &str, text: &str) -> Result<(), PlatformError> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if component.is_empty() || !component.bytes().all(valid) {
        return Err(PlatformError::Component { component: component.into(), text: text.into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Row {
        text: String,
        /// None where it is refused.
        parsed: Option<String>,
        normalized: Option<String>,
        error: Option<String>,
    }

    #[test]
    fn reads_the_table_of_platforms_as_containerd_does() {
        let mut wrong = Vec::new();
        for row in crate::diag::table::<Row>("platforms") {
            let found = row.text.parse::<Platform>();
            // The class of the error is part of its text in Go.
            let error = found.as_ref().err().map(|error| format!("{error}: invalid argument"));
            let parsed = found.as_ref().ok().map(Platform::format_all);
            let normalized = found.ok().map(|platform| platform.normalized().format_all());
            if (&parsed, &normalized, &error) != (&row.parsed, &row.normalized, &row.error) {
                wrong.push(format!("{}: {parsed:?} {normalized:?} {error:?} instead of {:?}", row.text, row.parsed));
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    }

    #[test]
    fn versions_and_features_stand_in_brackets() {
        for (text, version, features, expected) in [
            ("windows(10.0.20348+win32k)/amd64", "10.0.20348", &["win32k"][..], "windows(10.0.20348+win32k)/amd64"),
            ("linux(+b+a+b)/arm64/v8", "", &["b", "a", "b"], "linux(+a+b)/arm64/v8"),
            ("linux(a%2Bb+c%28%25)/386", "a+b", &["c(%"], "linux(a%2Bb+c%28%25)/386"),
            ("linux()/386", "", &[], "linux/386"),
        ] {
            let platform: Platform = text.parse().expect(text);
            assert_eq!(platform.os_version, version, "{text}");
            assert_eq!(platform.os_features, features, "{text}");
            assert_eq!(platform.format_all(), expected, "{text}");
        }
        let normalized = "linux(+b+a+b)/386".parse::<Platform>().expect("platform").normalized();
        assert_eq!(normalized.os_features, ["a", "b"]);
        for text in ["li.nux/amd64", "linux(a+)/386", "linux(a++b)/386", "linux(a/386", "linux(a)b/386", "linux(é)/386"]
        {
            let error = text.parse::<Platform>().expect_err(text).to_string();
            assert!(error.contains(" is an invalid OS component of "), "{error}");
        }
        let error = "linux(%zz)/386".parse::<Platform>().expect_err("escape").to_string();
        assert_eq!(error, "\"linux(%zz)/386\" has an invalid OS version \"%zz\": invalid URL escape \"%zz\"");
    }

    #[test]
    fn parses_and_normalises() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64/v8"),
            ("linux/aarch64/8", "linux/arm64/v8"),
            ("linux/arm64/9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/armel", "linux/arm/v6"),
            ("arm64", "linux/arm64"),
        ] {
            assert_eq!(text.parse::<Platform>().expect(text).to_string(), expected);
        }
        for text in ["", "linux/", "linux//v7", "a/b/c/d", "nonsense", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn older_variants_serve() {
        let want: Platform = "linux/arm/v7".parse().expect("platform");
        let rank = |text: &str| text.parse::<Platform>().expect("platform").rank_for(&want);
        assert_eq!((rank("linux/arm/v7"), rank("linux/arm/v6"), rank("linux/arm64")), (Some(0), Some(1), None));
        for (want, serving) in [
            ("linux/amd64/v3", &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"][..]),
            ("linux/arm64", &["linux/arm64/v8", "linux/arm/v8", "linux/arm", "linux/arm/v6", "linux/arm/v5"]),
            ("linux/arm64/v8.1", &["linux/arm64/v8.1", "linux/arm64", "linux/arm/v8"]),
            ("linux/arm64/v9.1", &["linux/arm64/v9.1", "linux/arm64/v9", "linux/arm64/v8.6", "linux/arm64/v8.5"]),
            ("windows(10.0.20348.1)/amd64", &["windows(10.0.20348.9)/amd64", "windows/386"]),
            ("windows(10.0.26100)/amd64", &["windows(10.0.20348)/amd64"]),
        ] {
            let want: Platform = want.parse().expect("platform");
            for (at, have) in serving.iter().enumerate() {
                assert_eq!(have.parse::<Platform>().expect("platform").rank_for(&want), Some(at), "{have} for {want}");
            }
        }
        for (want, have) in [
            ("linux/386", "linux/amd64"),
            ("linux/arm64", "linux/arm64/v9"),
            ("windows(10.0.17763)/amd64", "windows(10.0.20348)/amd64"),
            ("windows(10.0.20348)/amd64", "windows(10.0.26100)/amd64"),
        ] {
            let want: Platform = want.parse().expect("platform");
            assert_eq!(have.parse::<Platform>().expect("platform").rank_for(&want), None, "{have} for {want}");
        }
    }
}
