//! Names of steps: `[linux/amd64->arm64 build 2/7] RUN make`.

use super::env::EnvList;
use super::stage::Stage;
use crate::dockerfile::word::{Env, Lexer};
use crate::image::Platform;

/// Numbers the next step of a stage and returns its name.
pub(crate) fn step(stage: &mut Stage<'_>, text: &str, platform: Option<&Platform>) -> String {
    if stage.total == 0 {
        return text.to_owned();
    }
    stage.index += 1;
    current(stage, text, platform)
}

/// Returns the name of the step numbered last, with another text.
pub(crate) fn current(stage: &Stage<'_>, text: &str, platform: Option<&Platform>) -> String {
    if stage.total == 0 {
        return text.to_owned();
    }
    let mut name = String::from("[");
    if let Some(platform) = platform {
        let crossing = crossing(platform, &stage.state.env);
        name.push_str(&format!("{}{crossing} ", platform.format_all()));
    }
    if !stage.display.is_empty() {
        name.push_str(&format!("{} ", stage.display));
    }
    let width = stage.total.to_string().len();
    name.push_str(&format!("{:>width$}/{}] ", stage.index, stage.total));
    if stage.in_onbuild {
        name.push_str("ONBUILD ");
    }
    name + text
}

/// Returns a step's text: variables expanded, the first word in upper case.
pub(crate) fn text(lexer: &Lexer, text: &str, env: &dyn Env) -> String {
    let expanded = lexer.word(text, env).map_or_else(|_| text.to_owned(), |e| e.text);
    match expanded.split_once(' ') {
        Some((word, rest)) => format!("{} {rest}", word.to_uppercase()),
        None => expanded.to_uppercase(),
    }
}

/// Returns the first line of a heredoc, with dots where there is more.
pub(crate) fn summary(body: &str) -> String {
    let body = body.trim().replace("\r\n", "\n");
    match body.split_once('\n') {
        Some((first, _)) => format!("{first}..."),
        None => body,
    }
}

/// Says for which platform a cross-compiling step builds, as far as its variables tell.
fn crossing(base: &Platform, env: &EnvList) -> String {
    let Some(mut target) = platform_of(env) else { return String::new() };
    if target.os.is_empty() {
        target.os.clone_from(&base.os);
    }
    if target.architecture.is_empty() {
        target.architecture.clone_from(&base.architecture);
    }
    let target = target.normalized();
    if target.os != base.os {
        return format!("->{}", target.format_all());
    }
    match (target.architecture == base.architecture, target.variant.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!("->{}", target.architecture),
        (false, false) => format!("->{}/{}", target.architecture, target.variant),
    }
}

fn platform_of(env: &EnvList) -> Option<Platform> {
    if let Some(platform) = env.value("TARGETPLATFORM").and_then(|v| v.parse().ok()) {
        return Some(platform);
    }
    let names = ["TARGETOS", "TARGETARCH", "TARGETVARIANT"];
    if names.iter().all(|name| env.value(name).is_none()) {
        return None;
    }
    let value = |name| env.value(name).unwrap_or_default().to_owned();
    Some(Platform {
        os: value("TARGETOS"),
        architecture: value("TARGETARCH"),
        variant: value("TARGETVARIANT"),
        ..Platform::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_and_platforms_named() {
        let mut stage = Stage { total: 10, display: "b".into(), ..Stage::default() };
        assert_eq!(step(&mut stage, "RUN x", None), "[b  1/10] RUN x");
        stage.in_onbuild = true;
        let amd64 = Platform::new("linux", "amd64");
        stage.state.env.set("TARGETARCH", "arm");
        stage.state.env.set("TARGETVARIANT", "v6");
        assert_eq!(current(&stage, "X", Some(&amd64)), "[linux/amd64->arm/v6 b  1/10] ONBUILD X");
        stage.state.env.set("TARGETPLATFORM", "windows/amd64");
        assert_eq!(current(&stage, "X", Some(&amd64)), "[linux/amd64->windows/amd64 b  1/10] ONBUILD X");
    }

    #[test]
    fn heredocs_are_summed_up() {
        assert_eq!(summary("\n a\r\nb\n"), "a...");
        assert_eq!(summary("a\n"), "a");
    }
}
