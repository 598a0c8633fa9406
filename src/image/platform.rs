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
    /// Too many components, or an unclosed version.
    #[error("{text:?}: cannot parse platform specifier")]
    Shape {
        /// The whole text.
        text: String,
    },
}

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
        self
    }

    /// `arm` alone says nothing of a variant.
    fn without_arm_v7(self) -> Self {
        let v7 = self.architecture == "arm" && self.variant == "v7";
        if v7 { Self { variant: String::new(), ..self } } else { self }
    }

    /// Prints `os(version)/arch/variant`, the version only where there is one.
    pub fn format_all(&self) -> String {
        if self.os_version.is_empty() {
            return self.to_string();
        }
        let rest = self.to_string();
        let tail = rest.split_once('/').map_or("", |(_, tail)| tail);
        format!("{}({})/{tail}", self.os, self.os_version)
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

    /// Parses `os`, `arch`, `os/arch`, `os(version)/arch` or `os/arch/variant`.
    ///
    /// As in containerd's, aliases are resolved, but `arm` says no variant and `arm64/v8` keeps it; [`Self::normalized`]
    /// settles that.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, os_version) = split_version(parts[0], text)?;
        let components = std::iter::once(os).chain(parts[1..].iter().copied());
        for component in components {
            check_component(component, text)?;
        }
        let os_version = os_version.to_owned();
        match parts[..] {
            [_] => single(os, text).map(|p| Self { os_version, ..p }),
            [_, arch] => Ok(Self { os_version, ..Self::new(os, arch).normalized().without_arm_v7() }),
            [_, arch, variant] => {
                let variant = variant.into();
                let platform = Self { os_version, variant, ..Self::new(os, arch) }.normalized();
                let v8 = platform.architecture == "arm64" && platform.variant.is_empty();
                Ok(if v8 { Self { variant: "v8".into(), ..platform } } else { platform })
            }
            _ => Err(PlatformError::Shape { text: text.into() }),
        }
    }
}

fn single(word: &str, text: &str) -> Result<Platform, PlatformError> {
    let host = Platform::host();
    let lower = word.to_lowercase();
    let os = if lower == "macos" { "darwin".into() } else { lower };
    if KNOWN_OS.contains(&os.as_str()) {
        return Ok(Platform { os, ..host });
    }
    let platform = Platform::new(&host.os, word).normalized().without_arm_v7();
    match KNOWN_ARCH.contains(&platform.architecture.as_str()) {
        true => Ok(platform),
        false => Err(PlatformError::Unknown { text: text.into() }),
    }
}

fn split_version<'a>(part: &'a str, text: &str) -> Result<(&'a str, &'a str), PlatformError> {
    let Some((os, rest)) = part.split_once('(') else { return Ok((part, "")) };
    match rest.strip_suffix(')') {
        Some(version) if version.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) => Ok((os, version)),
        _ => Err(PlatformError::Shape { text: text.into() }),
    }
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
    }

    #[test]
    fn reads_the_table_of_platforms_as_containerd_does() {
        let mut wrong = Vec::new();
        for row in crate::diag::table::<Row>("platforms") {
            let found = row.text.parse::<Platform>().ok();
            let parsed = found.as_ref().map(Platform::format_all);
            let normalized = found.map(|platform| platform.normalized().format_all());
            if (&parsed, &normalized) != (&row.parsed, &row.normalized) {
                wrong.push(format!("{}: {parsed:?} {normalized:?} instead of {:?}", row.text, row.parsed));
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
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
