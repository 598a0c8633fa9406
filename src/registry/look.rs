//! Whether a repository has a blob, or can have it from another one of the registry: asked and linked, nothing sent.
//!
//! In: a descriptor, and other repositories that have the blob. Out: [`Found`].
//!
//! To ask and to link cost a round trip each; they wait for a place among the blobs that are moved, but are done for all blobs before
//! the long uploads take these places. That a registry does not answer them as it should is no reason not to send.

use futures_util::future::try_join_all;
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
    /// Finds out which blobs the repository of `target` has, and links those it lacks from where they are: each comes with other
    /// repositories that have it. What is there then is not asked for again by [`Client::push_blob`]. Where the first
    /// would have to be sent, so will the others, and they are left to it.
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
        let Some(((first, others), rest)) = blobs.split_first() else { return Ok(()) };
        if link(to, first, others).await? {
            try_join_all(rest.iter().map(|(blob, others)| link(to, blob, others))).await?;
        }
        Ok(())
    }
}

/// Returns whether the repository has the blob, now.
async fn link(to: Target<'_>, blob: &Descriptor, others: &[Reference]) -> Result<bool, RegistryError> {
    let Target { endpoint, repository } = to;
    let _turn = endpoint.turns.wait(repository, &blob.digest).await;
    if endpoint.has(repository, &blob.digest) {
        return Ok(true);
    }
    match look(to, blob, others).await? {
        Found::Here(_) => endpoint.note(repository, &blob.digest),
        Found::Nowhere(Some(session)) => take_back(endpoint, repository, session.url).await,
        Found::Nowhere(None) => {}
    }
    Ok(endpoint.has(repository, &blob.digest))
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

/// Looks for a blob in the repository, and links it from `other`. To link finds what is there too: so that comes first where the
/// repository lacked something before, as one that is new lacks all.
pub(crate) async fn look(
    to: Target<'_>,
    descriptor: &Descriptor,
    others: &[Reference],
) -> Result<Found, RegistryError> {
    let Target { endpoint, repository } = to;
    let _place = endpoint.limits.place_for(&descriptor.media_type).await;
    let mut session = None;
    let mut other = others.iter().find(|other| other.registry == endpoint.host && other.repository != repository);
    if let Some(first) = other.take_if(|_| endpoint.lacks_some(repository)) {
        match mount(to, descriptor, &first.repository).await? {
            Found::Nowhere(begun) => session = begun,
            found => return Ok(found),
        }
    }
    match (is_there(to, descriptor).await?, other) {
        (true, _) => {
            if let Some(session) = session {
                take_back(endpoint, repository, session.url).await;
            }
            Ok(Found::Here(Pushed::Existed))
        }
        (false, None) => Ok(Found::Nowhere(session)),
        (false, Some(other)) => mount(to, descriptor, &other.repository).await,
    }
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
