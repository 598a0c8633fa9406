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
    #[error("{text:?}: cannot parse platform specifier, expected os/arch or os/arch/variant")]
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
    /// A newer-variant wish is served by older variants (`arm/v7` by `arm/v6`, `arm64` by `arm/v7`), nearest first.
    pub fn rank_for(&self, wanted: &Platform) -> Option<usize> {
        let have = self.clone().normalized();
        let want = wanted.clone().normalized();
        let version_ok = want.os_version.is_empty() || have.os_version.is_empty() || version_prefix(&have, &want);
        if have.os != want.os || !version_ok {
            return None;
        }
        let have_key = (have.architecture.as_str(), have.variant.as_str());
        compatible(&want).iter().position(|(arch, variant)| (arch.as_str(), variant.as_str()) == have_key)
    }
}

fn version_prefix(have: &Platform, want: &Platform) -> bool {
    have.os_version == want.os_version || have.os_version.starts_with(&format!("{}.", want.os_version))
}

fn normalize_arch(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
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
    let mut list = vec![(arch.to_owned(), want.variant.clone())];
    let number = |v: &str| v.trim_start_matches('v').parse::<u32>().ok();
    match arch {
        "amd64" => {
            for v in (1..number(&want.variant).unwrap_or(1)).rev() {
                list.push((arch.into(), if v == 1 { String::new() } else { format!("v{v}") }));
            }
        }
        "arm" => list.extend((5..number(&want.variant).unwrap_or(7)).rev().map(|v| (arch.into(), format!("v{v}")))),
        "arm64" => list.extend((5..=8).rev().map(|v| ("arm".into(), format!("v{v}")))),
        _ => {}
    }
    list
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

    /// Parses `os`, `arch`, `os/arch`, `os(version)/arch` or `os/arch/variant`, and normalises it.
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
            [_, arch] => Ok(Self { os_version, ..Self::new(os, arch) }.normalized()),
            [_, arch, variant] => {
                let variant = variant.into();
                Ok(Self { os_version, variant, ..Self::new(os, arch) }.normalized())
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
    let platform = Platform::new(&host.os, word).normalized();
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

    #[test]
    fn parses_and_normalises() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
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
    }
}
