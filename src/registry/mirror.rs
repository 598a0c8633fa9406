//! Mirrors: who is asked in a registry's stead, and in which order.
//!
//! ```text
//! [registry."docker.io"] mirrors = ["mirror:5000", "harbor.example/proxy.docker.io"]
//!
//!   GET http(s)://mirror:5000/v2/library/alpine/manifests/3?ns=docker.io
//!   GET https://harbor.example/v2/proxy.docker.io/library/alpine/manifests/3?ns=docker.io
//!   GET https://registry-1.docker.io/v2/library/alpine/manifests/3
//! ```
//!
//! In: a reference, and a way to ask one place for it. Out: the first answer; the registry's own error where there is none.
//! Invariants: nothing is pushed to a mirror; content from a mirror is checked like any other, so that all it decides is what a tag
//! means; a mirror that gave a blob wrongly is not asked for it again. `ns` is containerd's; proxies of many registries go by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::Url;

use super::client::Client;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use crate::diag::{Diagnose as _, chain};
use crate::digest::Digest;
use crate::image::Reference;

/// One place where a reference may be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The reference as it is called there.
    pub(crate) reference: Reference,
    /// The registry that is stood in for; none for the registry itself.
    pub(crate) instead_of: Option<String>,
}

impl Place {
    /// The registry itself.
    pub(crate) fn origin(reference: &Reference) -> Self {
        Self { reference: reference.clone(), instead_of: None }
    }

    /// The place `mirror` has for a reference.
    fn mirrored(reference: &Reference, mirror: &str) -> Self {
        let (registry, path) = split(mirror);
        let repository = match path {
            "" => reference.repository.clone(),
            path => format!("{path}/{}", reference.repository),
        };
        let there = Reference { registry: registry.into(), repository, ..reference.clone() };
        // A registry may be listed as its own mirror, under whatever name; containerd tells it nothing then.
        let instead_of = (registry != reference.registry).then(|| reference.registry.clone());
        Self { reference: there, instead_of }
    }

    /// Returns the URL of what is at `path` below the repository.
    pub(crate) fn url(&self, endpoint: &Endpoint, path: &str) -> Result<Url, RegistryError> {
        let mut url = endpoint.url(&format!("{}/{path}", self.reference.repository))?;
        if let Some(registry) = &self.instead_of {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        Ok(url)
    }

    /// Returns how often to ask: who has others to ask does not wait for one.
    pub(crate) fn attempts(&self) -> Option<u32> {
        self.instead_of.is_some().then_some(1)
    }
}

/// Returns host and path of a mirror. A scheme says nothing: how a mirror is spoken to stands in its own section.
fn split(mirror: &str) -> (&str, &str) {
    let bare = mirror.split_once("://").map_or(mirror, |(_, rest)| rest);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    (host, path.trim_matches('/'))
}

/// What was learned of the mirrors so far.
#[derive(Debug, Default)]
pub(crate) struct Mirrors(Mutex<Learned>);

#[derive(Debug, Default)]
struct Learned {
    /// Which place answered last, by registry and repository.
    answered: BTreeMap<(String, String), String>,
    /// Mirrors that cannot be reached. They are not waited for again.
    dead: BTreeSet<String>,
    /// Blobs that came with the wrong bytes, and the repository they came from.
    spoiled: BTreeSet<(Digest, String)>,
    /// Mirrors of which something was said.
    told: BTreeSet<String>,
}

/// What is looked for, which decides who is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sought<'a> {
    /// What a name means: as configured, for mirrors may differ.
    Meaning,
    /// Content by digest, which is the same everywhere: who had the rest of the repository first.
    Content,
    /// A blob: like all content, but not from who gave it wrongly before.
    Blob(&'a Digest),
}

impl Sought<'_> {
    /// Returns what a manifest is sought as.
    pub(crate) fn manifest(reference: &Reference) -> Self {
        if reference.digest.is_some() { Self::Content } else { Self::Meaning }
    }
}

impl Mirrors {
    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists where a reference may be had, the registry itself last unless it is known to have it.
    fn places(&self, reference: &Reference, mirrors: &[String], sought: Sought<'_>) -> Vec<Place> {
        let learned = self.learned();
        let alive = mirrors.iter().filter(|mirror| !learned.dead.contains(split(mirror).0));
        let mut places: Vec<Place> = alive.map(|mirror| Place::mirrored(reference, mirror)).collect();
        if let Sought::Blob(digest) = sought {
            places.retain(|place| !learned.spoiled.contains(&(digest.clone(), place.reference.name())));
        }
        places.push(Place::origin(reference));
        let known = learned.answered.get(&key(reference)).filter(|_| sought != Sought::Meaning);
        if let Some(known) = known {
            places.sort_by_key(|place| place.reference.name() != *known);
        }
        places
    }

    fn note_answer(&self, reference: &Reference, place: &Place) {
        self.learned().answered.insert(key(reference), place.reference.name());
    }

    /// Remembers that a mirror gave a blob wrongly.
    pub(crate) fn note_spoiled(&self, place: &Place, blob: &Digest) {
        self.learned().spoiled.insert((blob.clone(), place.reference.name()));
    }

    /// Remembers and tells that a mirror failed. That it lacks something is what mirrors do.
    pub(crate) fn note_failure(&self, place: &Place, error: &RegistryError) {
        let mirror = &place.reference.registry;
        let missing = matches!(error, RegistryError::NotFound { .. } | RegistryError::Status { status: 404, .. });
        let dead = matches!(
            error,
            RegistryError::Unreachable { .. } | RegistryError::TimedOut { .. } | RegistryError::Tls { .. }
        );
        let mut learned = self.learned();
        if dead {
            learned.dead.insert(mirror.clone());
        }
        if missing || !learned.told.insert(mirror.clone()) {
            tracing::debug!(%mirror, reference = %place.reference, %error, "the mirror does not have it, trying the next host");
            return;
        }
        let registry = place.instead_of.as_deref().unwrap_or_default();
        let hint = remedy(error, registry).map(|hint| format!(" ({hint})")).unwrap_or_default();
        tracing::warn!("the mirror {mirror} is of no use for {registry}: {}{hint}", chain(error));
    }
}

/// What is damaged at a mirror need not be so at the registry, which is asked next.
fn remedy(error: &RegistryError, registry: &str) -> Option<String> {
    match error {
        RegistryError::Mismatch { .. } | RegistryError::Size { .. } => Some(format!(
            "the next host is asked; empty the mirror's cache, or take it out of `mirrors` under [registry.\"{registry}\"]"
        )),
        error => error.hints().into_iter().next(),
    }
}

fn key(reference: &Reference) -> (String, String) {
    (reference.registry.clone(), reference.repository.clone())
}

impl Client {
    /// Returns who is asked for the rest of a blob that the hosts of `left` did not give.
    pub(crate) fn next_place(&self, name: &Reference, blob: &Digest, left: &BTreeSet<String>) -> Place {
        let mirrors = self.mirrors_of(&name.registry).unwrap_or_default();
        let places = self.mirrors.places(name, mirrors, Sought::Blob(blob));
        places.into_iter().find(|place| !left.contains(&place.reference.name())).unwrap_or_else(|| Place::origin(name))
    }

    /// Asks the mirrors of a reference's registry, and at last itself, whose answer counts when none has one.
    pub(crate) async fn through_mirrors<T, F>(
        &self,
        reference: &Reference,
        sought: Sought<'_>,
        mut ask: impl FnMut(Place) -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let Some(mirrors) = self.mirrors_of(&reference.registry) else { return ask(Place::origin(reference)).await };
        let mut own = None;
        for place in self.mirrors.places(reference, mirrors, sought) {
            match ask(place.clone()).await {
                Ok(answer) => {
                    self.mirrors.note_answer(reference, &place);
                    return Ok(answer);
                }
                // What the configuration names and cannot be used is no reason to do without.
                Err(error @ (RegistryError::CertificateFile { .. } | RegistryError::Setup { .. })) => {
                    return Err(error);
                }
                Err(error) if place.instead_of.is_some() => self.mirrors.note_failure(&place, &error),
                Err(error) => own = Some(error),
            }
        }
        Err(own.expect("the registry itself is among the places"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().expect(text)
    }

    #[test]
    fn mirrors_have_hosts_and_paths() {
        for (mirror, expected) in [
            ("mirror:5000", ("mirror:5000", "library/alpine")),
            ("harbor.example/proxy.docker.io", ("harbor.example", "proxy.docker.io/library/alpine")),
            ("https://url/", ("url", "library/alpine")),
            ("https://url/path/", ("url", "path/library/alpine")),
            ("url/a/b", ("url", "a/b/library/alpine")),
        ] {
            let place = Place::mirrored(&reference("alpine:3"), mirror);
            let found = (place.reference.registry.as_str(), place.reference.repository.as_str());
            assert_eq!(found, expected, "{mirror}");
            assert_eq!((place.instead_of.as_deref(), place.attempts()), (Some("docker.io"), Some(1)));
            assert_eq!(place.reference.tag.as_deref(), Some("3"));
        }
        let own = Place::mirrored(&reference("r.io/a"), "r.io/sub");
        assert_eq!((own.instead_of, own.reference.repository.as_str()), (None, "sub/a"));
    }

    #[test]
    fn content_is_sought_where_its_repository_was_found() {
        let (mirrors, all) = (["a", "b"].map(str::to_owned), Mirrors::default());
        let image = reference("q.io/x:1");
        let order = |reference: &Reference, sought| -> Vec<String> {
            let places = all.places(reference, &mirrors, sought);
            places.into_iter().map(|place| place.reference.registry).collect()
        };
        assert_eq!(order(&image, Sought::Content), ["a", "b", "q.io"]);
        all.note_answer(&image, &Place::mirrored(&image, "b"));
        assert_eq!(order(&image, Sought::Content), ["b", "a", "q.io"]);
        assert_eq!(order(&image, Sought::Meaning), ["a", "b", "q.io"]);
        assert_eq!(order(&reference("q.io/y:1"), Sought::Content), ["a", "b", "q.io"]);
        all.note_answer(&image, &Place::origin(&image));
        assert_eq!(order(&image, Sought::Content), ["q.io", "a", "b"]);
    }

    #[test]
    fn who_gave_a_blob_wrongly_is_not_asked_for_it_again() {
        let (mirrors, all, image) = (["a/p", "b"].map(str::to_owned), Mirrors::default(), reference("q.io/x:1"));
        let (bad, good) = (Digest::compute("bad"), Digest::compute("good"));
        all.note_answer(&image, &Place::mirrored(&image, "a/p"));
        all.note_spoiled(&Place::mirrored(&image, "a/p"), &bad);
        let order = |digest: &Digest| -> Vec<String> {
            let places = all.places(&image, &mirrors, Sought::Blob(digest));
            places.into_iter().map(|place| place.reference.registry).collect()
        };
        assert_eq!(order(&bad), ["b", "q.io"]);
        assert_eq!(order(&good), ["a", "b", "q.io"]);
    }

    #[test]
    fn mirrors_that_cannot_be_reached_are_not_waited_for_again() {
        let (mirrors, all, image) = (["a/p", "b"].map(str::to_owned), Mirrors::default(), reference("q.io/x:1"));
        let place = Place::mirrored(&image, "a/p");
        all.note_failure(&place, &RegistryError::NotFound { reference: Box::new(image.clone()) });
        assert_eq!(all.places(&image, &mirrors, Sought::Meaning).len(), 3);
        all.note_failure(&place, &RegistryError::TimedOut { host: "a".into(), seconds: 1 });
        let left = all.places(&image, &mirrors, Sought::Meaning);
        assert_eq!(left.iter().map(|p| p.reference.registry.as_str()).collect::<Vec<_>>(), ["b", "q.io"]);
    }
}
