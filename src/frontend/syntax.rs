//! Which frontend a build asks for: `# syntax=` of the file, or the build argument `BUILDKIT_SYNTAX`, which comes first.
//!
//! In: a Dockerfile and options. Out: leave to go on with the frontend at hand, or a refusal. `dockerfile.v0` and the images
//! `docker/dockerfile` and `docker/dockerfile-upstream`, of Docker Hub or of a mirror that keeps the path, whatever their
//! channel, are this frontend: nothing is pulled. An image of another name speaks another language, so a build with it would
//! be a wrong result, and is refused.
//!
//! The language is that of version 1.26. A tag `labs`, or one that ends with `-labs`, names the labs channel, which has `RUN
//! --device` on top; whoever makes the request says whether that counts.

use std::str::FromStr;

use super::error::Problem;
use crate::diag::LineRange;
use crate::dockerfile::goquote::quote;
use crate::dockerfile::parse::syntax_directive;
use crate::image::Reference;

/// The version of BuildKit's Dockerfile frontend that this one is alike: major and minor.
const VERSION: (u32, u32) = (1, 26);

/// The name BuildKit has for the frontend it comes with.
const BUILT_IN: &str = "dockerfile.v0";

/// Repositories of Docker's frontend; mirrors keep these last two parts of the path.
const REPOSITORIES: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// Channels without a version.
const CHANNELS: [&str; 4] = ["", "latest", "labs", "experimental"];

/// What a version of the language is made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Channel {
    /// What stays as it is.
    #[default]
    Stable,
    /// What is tried out, on top of it.
    Labs,
}

/// A frontend that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    reference: String,
    /// The line of the directive; none for the build argument.
    lines: Vec<LineRange>,
}

/// What is to be told of the frontend asked for, though the build goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxNotice {
    /// The message.
    pub message: String,
    /// The line of the directive; none for the build argument.
    pub lines: Vec<LineRange>,
}

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
enum Meant {
    /// The frontend at hand.
    This,
    /// It in a version, or a channel, that may know more.
    Newer,
    /// Something else.
    Other,
}

/// Returns what a user should know of the frontend asked for: a version newer than this one.
pub fn syntax_notice(dockerfile: &[u8], build_arg: Option<&str>) -> Option<SyntaxNotice> {
    let asked = asked(dockerfile, build_arg).filter(|asked| meant(&asked.reference) == Meant::Newer)?;
    let (major, minor) = VERSION;
    let message = format!(
        "the frontend {} may be newer than the built-in one, which is {major}.{minor} and is used: what came later is not understood",
        quote(&asked.reference)
    );
    Some(SyntaxNotice { message, lines: asked.lines })
}

/// Returns the channel of the frontend asked for.
pub fn channel_asked(dockerfile: &[u8], build_arg: Option<&str>) -> Channel {
    match asked(dockerfile, build_arg) {
        Some(asked) if is_labs(tag_of(&asked.reference)) => Channel::Labs,
        _ => Channel::Stable,
    }
}

fn is_labs(tag: &str) -> bool {
    tag == "labs" || tag.ends_with("-labs")
}

/// Returns the tag of an image, empty if it has none.
fn tag_of(reference: &str) -> &str {
    let named = reference.split('@').next().unwrap_or_default();
    named.rsplit('/').next().and_then(|last| last.split_once(':')).map_or("", |(_, tag)| tag)
}

/// Goes on with a file that asks for this frontend, or for none.
pub(super) fn accept(dockerfile: &[u8], build_arg: Option<&str>) -> Result<(), Problem> {
    let Some(asked) = asked(dockerfile, build_arg) else { return Ok(()) };
    if meant(&asked.reference) == Meant::Other {
        return Err(refusal(&asked));
    }
    tracing::debug!(frontend = asked.reference, "the frontend asked for is the built-in one: no image is pulled");
    Ok(())
}

fn refusal(asked: &Asked) -> Problem {
    let message = format!("the frontend {} is not there in this version of rbuild", quote(&asked.reference));
    let told = match asked.lines.is_empty() {
        true => Problem::usage(format!("failed with build-arg:BUILDKIT_SYNTAX: {message}"))
            .hinted("leave out `--build-arg BUILDKIT_SYNTAX`"),
        false => Problem { mark: Some(asked.reference.clone()), ..Problem::new(message).at(&asked.lines) }
            .hinted("remove the line if the file is a Dockerfile"),
    };
    told.hinted("`docker/dockerfile` in any version or channel means the built-in frontend")
}

fn asked(dockerfile: &[u8], build_arg: Option<&str>) -> Option<Asked> {
    if let Some(command_line) = build_arg {
        let reference = command_line.trim().split(' ').next().unwrap_or_default();
        return Some(Asked { reference: reference.to_owned(), lines: Vec::new() });
    }
    let found = syntax_directive(dockerfile)?;
    Some(Asked { reference: found.reference, lines: found.lines })
}

fn meant(reference: &str) -> Meant {
    if reference == BUILT_IN {
        return Meant::This;
    }
    let Ok(image) = Reference::from_str(reference) else { return Meant::Other };
    let name = image.name();
    let is_ours = |repository: &&str| name.strip_suffix(*repository).is_some_and(|host| host.ends_with('/'));
    if !REPOSITORIES.iter().any(is_ours) {
        return Meant::Other;
    }
    let tag = tag_of(reference);
    match CHANNELS.contains(&tag) || is_known_version(tag) {
        true => Meant::This,
        false => Meant::Newer,
    }
}

/// Tells whether a tag is a version, with or without a channel behind it, that this frontend knows all of.
fn is_known_version(tag: &str) -> bool {
    let version = tag.split('-').next().unwrap_or_default();
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), None) => major <= VERSION.0,
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) <= VERSION,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_this_frontend_a_newer_one_or_another() {
        let digest = format!("docker/dockerfile@sha256:{}", "a".repeat(64));
        let pinned = format!("docker/dockerfile:1.7@sha256:{}", "a".repeat(64));
        for (reference, expected) in [
            ("dockerfile.v0", Meant::This),
            ("docker/dockerfile", Meant::This),
            ("docker/dockerfile:1", Meant::This),
            ("docker/dockerfile:1.26", Meant::This),
            ("docker/dockerfile:1.4.3-labs", Meant::This),
            ("docker/dockerfile:labs", Meant::This),
            ("docker/dockerfile:1-labs", Meant::This),
            ("docker/dockerfile:1.0-experimental", Meant::This),
            ("docker.io/docker/dockerfile:1", Meant::This),
            ("docker/dockerfile-upstream:1.2", Meant::This),
            ("mirror.example:5000/hub/docker/dockerfile:1", Meant::This),
            (&digest, Meant::This),
            (&pinned, Meant::This),
            ("docker/dockerfile:1.27", Meant::Newer),
            ("docker/dockerfile:1.27-labs", Meant::Newer),
            ("docker/dockerfile:2", Meant::Newer),
            ("docker/dockerfile-upstream:master", Meant::Newer),
            ("docker/dockerfiles:1", Meant::Other),
            ("dockerfile", Meant::Other),
            ("dockerfile:1", Meant::Other),
            ("team/dockerfile:1", Meant::Other),
            ("mydocker/dockerfile:1", Meant::Other),
            ("docker/dockerfile/other:1", Meant::Other),
            ("Docker/Dockerfile", Meant::Other),
            ("", Meant::Other),
        ] {
            assert_eq!(meant(reference), expected, "{reference}");
        }
    }

    #[test]
    fn a_tag_names_the_channel() {
        for (reference, channel) in [
            ("docker/dockerfile:1-labs", Channel::Labs),
            ("docker/dockerfile:labs", Channel::Labs),
            ("docker/dockerfile-upstream:master-labs", Channel::Labs),
            ("mirror.example:5000/docker/dockerfile:1.14-labs", Channel::Labs),
            ("docker/dockerfile:1", Channel::Stable),
            ("docker/dockerfile", Channel::Stable),
            ("labs.example:5000/docker/dockerfile", Channel::Stable),
            ("docker/dockerfile:1-labs-not", Channel::Stable),
        ] {
            let text = format!("# syntax={reference}\nFROM scratch\n");
            assert_eq!(channel_asked(text.as_bytes(), None), channel, "{reference}");
            assert_eq!(channel_asked(b"# syntax=docker/dockerfile:1-labs\n", Some(reference)), channel, "{reference}");
        }
        let pinned = format!("docker/dockerfile:1-labs@sha256:{}", "a".repeat(64));
        assert_eq!(channel_asked(b"FROM scratch\n", Some(&pinned)), Channel::Labs);
        assert_eq!(channel_asked(b"FROM scratch\n", None), Channel::Stable);
    }

    #[test]
    fn the_build_argument_comes_first() {
        let text = b"# syntax=docker/dockerfile:1.99\nFROM scratch\n";
        let notice = syntax_notice(text, None).expect("newer");
        assert_eq!(notice.lines, [LineRange { start: 1, end: 1 }]);
        assert_eq!(syntax_notice(text, Some(" docker/dockerfile:1 --more")), None);
        assert!(syntax_notice(b"FROM scratch\n", Some("docker/dockerfile:9")).expect("newer").lines.is_empty());
    }
}
