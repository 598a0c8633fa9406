//! May it be pushed to? Asked before a build, so that it fails in its first second and not after its last step.
//!
//! In: a repository. Out: [`Permission`], or the refusal. An upload is begun: there is no other question to which registries give the
//! answer that counts. It is kept for the first small blob that is pushed there, and taken back where none comes. Invariant: only
//! what a push would certainly meet is an error; a registry that does not answer, or answers what a push need not care about, leaves
//! the question open.

use std::time::Duration;

use reqwest::{Method, StatusCode};

use super::client::Client;
use super::credentials::Access;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::transport::{self, Call, Scope, Wish};
use super::upload::Target;
use crate::image::Reference;

/// What was found out.
#[derive(Debug)]
pub enum Permission {
    /// It may be pushed to.
    Given,
    /// It is not known, for this reason.
    Unknown(RegistryError),
}

impl Client {
    /// Finds out whether the repository of `target` may be pushed to. The upload that is begun for it stays until a blob takes it, or
    /// [`Client::take_back`] is called.
    ///
    /// # Errors
    ///
    /// The refusal that a push would meet.
    pub async fn check_push(&self, target: &Reference) -> Result<Permission, RegistryError> {
        match self.begin_upload(target).await {
            Ok(()) => Ok(Permission::Given),
            Err(error) if is_certain(&error) => Err(error),
            Err(error) => Ok(Permission::Unknown(error)),
        }
    }

    async fn begin_upload(&self, target: &Reference) -> Result<(), RegistryError> {
        let endpoint = self.endpoint(&target.registry).await?;
        let repository = target.repository.as_str();
        let target = Target { endpoint: &endpoint, repository };
        // A small blob waits for the upload that comes of this.
        let _turn = endpoint.turns.wait(repository).await;
        let _place = endpoint.limits.document().await;
        let response = target.begin().await?;
        let wish = Wish { repository, access: Access::Push, action: "begin an upload" };
        let response =
            transport::expect(&endpoint, response, wish, &[StatusCode::ACCEPTED, StatusCode::CREATED]).await?;
        match target.session(&response) {
            Ok(session) if response.status() == StatusCode::ACCEPTED => endpoint.keep_session(repository, session),
            Ok(session) => take_back(&endpoint, repository, session.url).await,
            Err(error) => tracing::debug!(%repository, %error, "the upload that was begun is of no use"),
        }
        Ok(())
    }

    /// Ends the upload that [`Client::check_push`] began, unless a blob has taken it.
    pub async fn take_back(&self, target: &Reference) {
        let Ok(endpoint) = self.endpoint(&target.registry).await else { return };
        if let Some(session) = endpoint.take_session(&target.repository, Duration::MAX) {
            take_back(&endpoint, &target.repository, session.url).await;
        }
    }
}

/// Ends a session that is not to be closed. Registries end it by themselves after a while, and some let nobody else.
pub(crate) async fn take_back(endpoint: &Endpoint, repository: &str, session: reqwest::Url) {
    if !endpoint.owns(&session) {
        return;
    }
    let call = Call::new(Method::DELETE, session, vec![Scope::push(repository)]);
    match endpoint.send_once(&call).await {
        Ok(response) => tracing::debug!(%repository, status = %response.status(), "took the upload back"),
        Err(error) => tracing::debug!(%repository, %error, "an upload was begun and not taken back"),
    }
}

/// Returns whether a push would meet the same. A 404 or 405 is no refusal by itself: some registries know other ways only.
fn is_certain(error: &RegistryError) -> bool {
    match error {
        RegistryError::Denied { .. } | RegistryError::Credentials { .. } => true,
        RegistryError::Tls { lasting, .. } => *lasting,
        RegistryError::CertificateFile { .. } => true,
        RegistryError::Status { status: 400 | 404, detail, .. } => {
            ["NAME_UNKNOWN", "NAME_INVALID"].iter().any(|code| detail.contains(code))
        }
        _ => false,
    }
}
