//! Image configurations as instructions change them, and the history they leave.

use crate::image::{ContainerConfig, History, ImageConfig, Platform, RootFs};

/// `PATH` of an image that sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a history entry says about who wrote it.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// Whether an instruction makes a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// It does.
    Some,
    /// It does not.
    None,
}

/// Returns the configuration of an image with no content.
pub(crate) fn empty(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
        rootfs: RootFs { kind: "layers".into(), ..RootFs::default() },
        config: ContainerConfig { working_dir: "/".into(), ..ContainerConfig::default() },
        ..ImageConfig::default()
    };
    ensure_path(&mut image, &platform.os);
    image
}

/// Copies a configuration but not its history, which grows with every instruction.
pub(crate) fn without_history(image: &ImageConfig) -> ImageConfig {
    ImageConfig {
        created: image.created.clone(),
        author: image.author.clone(),
        architecture: image.architecture.clone(),
        variant: image.variant.clone(),
        os: image.os.clone(),
        os_version: image.os_version.clone(),
        os_features: image.os_features.clone(),
        config: image.config.clone(),
        rootfs: image.rootfs.clone(),
        history: Vec::new(),
    }
}

/// Adds `PATH` where there is none, except on Windows, which knows its own.
pub(crate) fn ensure_path(image: &mut ImageConfig, os: &str) {
    let known = image.config.env.iter().any(|e| split_env(e).0 == "PATH");
    if !known && os != "windows" {
        image.config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
}

/// Splits `NAME=value`.
pub(crate) fn split_env(assignment: &str) -> (&str, &str) {
    assignment.split_once('=').unwrap_or((assignment, ""))
}

/// Returns the platform an image says it is for.
pub(crate) fn platform(image: &ImageConfig) -> Platform {
    Platform {
        architecture: image.architecture.clone(),
        os: image.os.clone(),
        os_version: image.os_version.clone(),
        os_features: image.os_features.clone(),
        variant: image.variant.clone(),
    }
}

/// Makes an image say it is for `platform`; what the platform leaves open is kept where system and processor agree.
pub(crate) fn force_platform(image: &mut ImageConfig, platform: &Platform) {
    let same = platform.os == image.os && platform.architecture == image.architecture;
    image.os.clone_from(&platform.os);
    image.architecture.clone_from(&platform.architecture);
    if !platform.variant.is_empty() || !same {
        image.variant.clone_from(&platform.variant);
    }
    if !platform.os_version.is_empty() || !same {
        image.os_version.clone_from(&platform.os_version);
    }
    if !platform.os_features.is_empty() {
        image.os_features.clone_from(&platform.os_features);
    }
}

/// Resolves aliases in an image's platform.
pub(crate) fn normalize_platform(image: &mut ImageConfig) {
    let normal = platform(image).normalized();
    // What comes from no image is for Linux.
    image.os = if normal.os.is_empty() { "linux".into() } else { normal.os };
    image.architecture = normal.architecture;
    image.variant = normal.variant;
}

/// Tells whether an image has no content: neither layers nor history of any.
pub(crate) fn has_no_content(image: &ImageConfig) -> bool {
    image.rootfs.diff_ids.is_empty() && image.history.iter().all(|h| h.empty_layer)
}

/// Returns a history entry.
pub(crate) fn history(created_by: String, layer: Layer, epoch: Option<i64>) -> History {
    History {
        created: epoch.map(rfc3339),
        created_by,
        comment: HISTORY_COMMENT.into(),
        empty_layer: layer == Layer::None,
        ..History::default()
    }
}

/// Prints seconds since 1970 as RFC 3339; times outside the years it can say become their nearest bound.
pub(crate) fn rfc3339(seconds: i64) -> String {
    // The years 0 to 9999.
    let seconds = seconds.clamp(-62_167_219_200, 253_402_300_799);
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

/// Returns the words that run a shell-form command: the image's shell, or the system's, and the text.
pub(crate) fn with_shell(image: &ImageConfig, args: &[String]) -> Vec<String> {
    let mut words = match image.config.shell.as_slice() {
        [] if image.os == "windows" => ["cmd", "/S", "/C"].map(str::to_owned).to_vec(),
        [] => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
        shell => shell.to_vec(),
    };
    words.push(args.join(" "));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_images_have_a_path_but_not_on_windows() {
        assert_eq!(empty(&Platform::new("linux", "arm64")).config.env.len(), 1);
        assert_eq!(empty(&Platform::new("windows", "amd64")).config.env.len(), 0);
    }

    #[test]
    fn times_are_bounded() {
        assert_eq!(rfc3339(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_forced_platform_replaces_the_variant_of_another() {
        let mut image =
            ImageConfig { os: "linux".into(), architecture: "arm".into(), variant: "v6".into(), ..Default::default() };
        force_platform(&mut image, &Platform::new("linux", "arm"));
        assert_eq!(image.variant, "v6");
        force_platform(&mut image, &Platform::new("linux", "amd64"));
        assert_eq!(image.variant, "");
    }
}
