//! Whether a repository has a blob, or can have it from another one of the registry: asked and linked, nothing sent.
//!
//! In: a descriptor, and other repositories that have the blob. Out: [`Found`].
//!
//! To ask and to link cost a round trip each; they wait for a place among the blobs that are moved, but are done for all blobs before
//! the long uploads take these places. That a registry does not answer them as it should is no reason not to send.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};

use super::client::Client;
use super::credentials::Access;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::precheck::take_back;
use super::push::Pushed;
use super::transport::{self, Call, Scope, Wish};
use super::upload::{Session, Target};
use crate::image::{Descriptor, Reference};

/// Where a blob turned out to be.
pub(crate) enum Found {
    /// In the repository, now.
    Here(Pushed),
    /// Nowhere that helps; perhaps a session was begun for it.
    Nowhere(Option<Session>),
}

impl Client {
    /// Links blobs to the repository of `target` that it lacks, from where they are: each comes with other repositories that have it.
    /// Blobs that nothing can be done about are left out. What is there then is not asked for again by [`Client::push_blob`]. Where
    /// the first would have to be sent, so will the others, and they are left to it.
    ///
    /// # Errors
    ///
    /// Those of the registry, which the push would meet too.
    pub async fn link_blobs(
        &self,
        target: &Reference,
        blobs: &[(Descriptor, Vec<Reference>)],
    ) -> Result<(), RegistryError> {
        let endpoint = self.endpoint(&target.registry).await?;
        let to = Target { endpoint: &endpoint, repository: &target.repository };
        let mut linkable = blobs.iter().filter(|(_, others)| origin(to, others).is_some());
        let Some((first, others)) = linkable.next() else { return Ok(()) };
        if !link(to, first, others).await? {
            return Ok(());
        }
        // One that fails ends none of the others half-way.
        let links = join_all(linkable.map(|(blob, others)| link(to, blob, others))).await;
        links.into_iter().try_for_each(|link| link.map(drop))
    }
}

/// Returns whether the repository has the blob, now.
async fn link(to: Target<'_>, blob: &Descriptor, others: &[Reference]) -> Result<bool, RegistryError> {
    let Target { endpoint, repository } = to;
    let turn = endpoint.turns.wait(&turn_of(to, blob)).await;
    if endpoint.has(repository, &blob.digest) {
        return Ok(true);
    }
    let found = look(to, blob, others).await?;
    if let Found::Here(how) = found {
        if how == Pushed::Mounted {
            tracing::debug!(blob = %blob.digest, "Mounted ahead of the push");
        }
        endpoint.note(repository, &blob.digest);
    }
    drop(turn);
    if let Found::Nowhere(Some(session)) = found {
        take_back(endpoint, repository, session.url).await;
        return Ok(false);
    }
    Ok(matches!(found, Found::Here(_)))
}

/// Names the turn of whoever works on a blob of a repository.
pub(crate) fn turn_of(to: Target<'_>, blob: &Descriptor) -> String {
    format!("{}@{}", to.repository, blob.digest)
}

/// Returns the repository among `others` that a blob can be linked from.
fn origin<'o>(to: Target<'_>, others: &'o [Reference]) -> Option<&'o Reference> {
    others.iter().find(|other| other.registry == to.endpoint.host && other.repository != to.repository)
}

/// Returns whether a repository has a blob.
pub(crate) async fn exists(
    endpoint: &Endpoint,
    repository: &str,
    descriptor: &Descriptor,
    scope: Scope,
) -> Result<bool, RegistryError> {
    let access = if scope == Scope::push(repository) { Access::Push } else { Access::Pull };
    let url = endpoint.url(&format!("{repository}/blobs/{}", descriptor.digest))?;
    let response = endpoint.send(&Call::new(Method::HEAD, url, vec![scope])).await?;
    match response.status() {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(transport::failure(endpoint, response, Wish { repository, access, action: "find a blob" }).await),
    }
}

/// Looks for a blob in the repository, and links it from the first of `others` that is in the same registry. To link finds what is
/// there too: so that comes first where the repository lacked something before, as one that is new lacks all. The first question to a
/// repository is waited for, as its answer may spare the others.
pub(crate) async fn look(
    to: Target<'_>,
    descriptor: &Descriptor,
    others: &[Reference],
) -> Result<Found, RegistryError> {
    let Target { endpoint, repository } = to;
    let Some(other) = origin(to, others) else {
        let there = ask(to, descriptor).await?;
        return Ok(if there { Found::Here(Pushed::Existed) } else { Found::Nowhere(None) });
    };
    let (mut there, first) = (None, endpoint.first_question(repository));
    let question = async {
        there = Some(ask(to, descriptor).await?);
        Ok::<(), RegistryError>(())
    };
    first.get_or_try_init(|| question).await?;
    if there.is_none() && !endpoint.lacks_some(repository) {
        there = Some(ask(to, descriptor).await?);
    }
    if there == Some(true) {
        return Ok(Found::Here(Pushed::Existed));
    }
    let _place = endpoint.limits.place_for(&descriptor.media_type).await;
    match mount(to, descriptor, &other.repository).await? {
        Found::Nowhere(session) if there.is_none() => look_again(to, descriptor, session).await,
        found => Ok(found),
    }
}

/// Asks for a blob that could not be linked; `session` was begun instead of the link.
async fn look_again(to: Target<'_>, descriptor: &Descriptor, session: Option<Session>) -> Result<Found, RegistryError> {
    match (is_there(to, descriptor).await, session) {
        (Ok(false), session) => Ok(Found::Nowhere(session)),
        (there, None) => there.map(|_| Found::Here(Pushed::Existed)),
        (there, Some(session)) => {
            take_back(to.endpoint, to.repository, session.url).await;
            there.map(|_| Found::Here(Pushed::Existed))
        }
    }
}

/// Asks for the blob, in a place among the transfers.
async fn ask(to: Target<'_>, descriptor: &Descriptor) -> Result<bool, RegistryError> {
    let _place = to.endpoint.limits.place_for(&descriptor.media_type).await;
    is_there(to, descriptor).await
}

/// Asks for the blob; a registry that does not say counts as one that lacks it.
async fn is_there(Target { endpoint, repository }: Target<'_>, descriptor: &Descriptor) -> Result<bool, RegistryError> {
    match exists(endpoint, repository, descriptor, Scope::push(repository)).await {
        Ok(there) => {
            if !there {
                endpoint.note_lack(repository);
            }
            Ok(there)
        }
        // The answer to HEAD says no reason; that to the upload will.
        Err(error @ (RegistryError::Denied { .. } | RegistryError::Status { .. })) => {
            tracing::debug!(blob = %descriptor.digest, %error, "not known whether it is there");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Tries to link the blob from another repository; being refused that is no error, it only costs the upload.
async fn mount(to: Target<'_>, descriptor: &Descriptor, from: &str) -> Result<Found, RegistryError> {
    let path = format!("{}/blobs/uploads/?mount={}&from={from}", to.repository, descriptor.digest);
    let scopes = vec![Scope::push(to.repository), Scope::pull(from)];
    let response = match to.endpoint.send(&Call::new(Method::POST, to.endpoint.url(&path)?, scopes)).await {
        // A token server may refuse the second scope outright, and a registry not know what is asked.
        Err(error @ (RegistryError::Denied { .. } | RegistryError::Status { .. })) => {
            tracing::debug!(blob = %descriptor.digest, %from, %error, "not linked");
            return Ok(Found::Nowhere(None));
        }
        result => result?,
    };
    match response.status() {
        StatusCode::CREATED => Ok(Found::Here(Pushed::Mounted)),
        StatusCode::ACCEPTED => Ok(Found::Nowhere(Some(to.session(&response)?))),
        _ => Ok(Found::Nowhere(None)),
    }
}
