//! Source ops for what is fetched: images, git repositories, URLs, local directories.
//!
//! In: references and options. Out: [`SourceOp`]s with the attributes BuildKit's client sets. Nothing is fetched, and no
//! ssh host is asked for its key: that is left to the fetch.

use std::collections::BTreeMap;

use super::bridge::ResolveMode;
use super::paths;
use crate::dockerfile::gitref::GitRef;
use crate::image::canonical;
use crate::llb::SourceOp;

/// What is asked of a git repository beside what its reference says.
#[derive(Debug, Clone, Default)]
pub(crate) struct GitOptions {
    pub(crate) keep_git_dir: bool,
    pub(crate) checksum: String,
    /// `git.mtime`.
    pub(crate) mtime: String,
}

/// Returns the source of an image.
pub(crate) fn image(reference: &str, mode: ResolveMode) -> SourceOp {
    let attrs = mode.attribute().map(|mode| ("image.resolvemode".to_owned(), mode.to_owned()));
    SourceOp { identifier: format!("docker-image://{reference}"), attrs: attrs.into_iter().collect() }
}

/// Returns the source of an image in an OCI layout.
pub(crate) fn oci_layout(reference: &str, session: &str, store: &str) -> SourceOp {
    let mut attrs = BTreeMap::new();
    for (name, value) in [("oci.session", session), ("oci.store", store)] {
        if !value.is_empty() {
            attrs.insert(name.to_owned(), value.to_owned());
        }
    }
    SourceOp { identifier: format!("oci-layout://{reference}"), attrs }
}

/// Returns the source of a URL.
pub(crate) fn http(url: &str, filename: &str, checksum: Option<&str>) -> SourceOp {
    let mut attrs = BTreeMap::from([("http.filename".to_owned(), filename.to_owned())]);
    if let Some(checksum) = checksum {
        attrs.insert("http.checksum".into(), checksum.to_string());
    }
    SourceOp { identifier: url.to_owned(), attrs }
}

/// Returns the name of the file a URL is saved as.
pub(crate) fn http_filename(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    if url.bytes().any(|byte| byte.is_ascii_control()) {
        return "__unnamed__".into();
    }
    match percent_decode(path).as_deref().map(paths::base) {
        Some(".") | Some("/") | None => "__unnamed__".into(),
        Some(name) => name.to_owned(),
    }
}

/// Decodes `%41`; none where what follows a `%` is not hexadecimal.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok())?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the source of a local directory.
pub(crate) fn local(name: &str, session: &str, shared_key: String, excludes: &[String]) -> SourceOp {
    let mut attrs = BTreeMap::from([("local.sharedkeyhint".to_owned(), shared_key)]);
    if !session.is_empty() {
        attrs.insert("local.session".into(), session.to_owned());
    }
    if !excludes.is_empty() {
        attrs.insert("local.excludepatterns".into(), json_list(excludes));
    }
    SourceOp { identifier: format!("local://{name}"), attrs }
}

/// Prints a list of texts as JSON.
pub(crate) fn json_list(items: &[String]) -> String {
    String::from_utf8_lossy(&canonical::to_vec(items)).into_owned()
}

/// Returns the source of a git repository.
pub(crate) fn git(git: &GitRef, options: &GitOptions) -> SourceOp {
    let mut identifier = format!("git://{}{}", git.url.host, paths::join(&["/", &git.url.path]));
    if !git.reference.is_empty() || !git.subdir.is_empty() {
        identifier.push('#');
        identifier.push_str(&git.reference);
    }
    if !git.subdir.is_empty() {
        identifier.push(':');
        identifier.push_str(&git.subdir);
    }
    let mut attrs = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        if !value.is_empty() {
            attrs.insert(name.to_owned(), value.to_owned());
        }
    };
    let truth = |value: bool| if value { "true" } else { "" };
    set("git.authtokensecret", "GIT_AUTH_TOKEN");
    set("git.authheadersecret", "GIT_AUTH_HEADER");
    set("git.fullurl", &git.url.remote);
    set("git.keepgitdir", truth(options.keep_git_dir));
    set("git.checksum", &options.checksum);
    set("git.skipsubmodules", truth(git.submodules == Some(false)));
    set("git.mtime", &options.mtime);
    set("git.fetchbycommit", truth(git.fetch_by_commit));
    set("git.mountsshsock", if git.url.scheme == "ssh" { "default" } else { "" });
    SourceOp { identifier, attrs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_the_url() {
        for (url, name) in [
            ("https://h/a/b.tar?x=/y", "b.tar"),
            ("https://h/a/", "a"),
            ("https://h", "__unnamed__"),
            ("https://h/", "__unnamed__"),
            ("https://h/%41%2", "__unnamed__"),
            ("https://h/%41", "A"),
            ("https://h/a\tb", "__unnamed__"),
        ] {
            assert_eq!(http_filename(url), name, "{url}");
        }
    }

    #[test]
    fn layouts_and_locals() {
        assert!(oci_layout("a@b", "", "s").attrs.contains_key("oci.store"));
        let local = local("x", "S", "x".into(), &["a<b".to_owned()]);
        assert_eq!(local.attrs["local.excludepatterns"], "[\"a\\u003cb\"]");
    }
}
