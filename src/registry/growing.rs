//! A blob into a repository while it is being made: its digest is known only when its last byte is.
//!
//! ```text
//! POST ─▶ PATCH, which ends when the blob does ─▶ PUT with the digest ─▶ there
//!                    │ the digest is known, and the repository has it already
//!                    └─▶ DELETE ─▶ there
//! ```
//!
//! In: readers of the growing blob, and word of what it became. Out: whether the repository has it. Nothing is tried twice here:
//! what fails is sent again when it is whole, by [`super::upload`]. Invariant: as there, our credential stays with the registry.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures_util::future::BoxFuture;
use reqwest::{Method, Response, StatusCode, Url};

use super::client::Client;
use super::error::RegistryError;
use super::look::exists;
use super::precheck::take_back;
use super::push::Open;
use super::transport::{Body, Scope};
use super::upload::{Session, Target, Watch, finished, watched};
use crate::image::{Descriptor, Reference};

/// Resolves to what a growing blob became; none if it was given up.
pub type Became = BoxFuture<'static, Option<Descriptor>>;

impl Client {
    /// Sends a blob that is still being made to the repository of `target`, and returns whether it is there now: it is not where the
    /// blob was given up.
    ///
    /// # Errors
    ///
    /// Whatever hinders that, without a second attempt.
    pub async fn push_growing(&self, target: &Reference, open: &Open, became: Became) -> Result<bool, RegistryError> {
        let endpoint = self.endpoint(&target.registry).await?;
        let to = Target { endpoint: &endpoint, repository: &target.repository };
        let _place = endpoint.limits.blob().await;
        let session = to.start().await?;
        let first = session.url.clone();
        let result = to.follow(session, open, became).await;
        match &result {
            Ok(Followed::Stored(blob)) => endpoint.note(to.repository, &blob.digest),
            Ok(Followed::Existed(blob)) => {
                endpoint.note(to.repository, &blob.digest);
                take_back(&endpoint, to.repository, first).await;
            }
            Ok(Followed::GivenUp) | Err(_) => take_back(&endpoint, to.repository, first).await,
        }
        result.map(|followed| !matches!(followed, Followed::GivenUp))
    }
}

/// How it ended.
enum Followed {
    Stored(Descriptor),
    Existed(Descriptor),
    GivenUp,
}

impl Target<'_> {
    async fn follow(&self, session: Session, open: &Open, became: Became) -> Result<Followed, RegistryError> {
        let known = async {
            let blob = became.await?;
            // An answer that says nothing of use changes nothing.
            let there = exists(self.endpoint, self.repository, &blob, Scope::push(self.repository)).await;
            Some((blob, there.unwrap_or(false)))
        };
        let (mut sending, mut known) = (std::pin::pin!(self.grow(&session, open)), std::pin::pin!(known));
        let (answer, blob) = tokio::select! {
            answer = &mut sending => (answer?, known.await.map(|(blob, _)| blob)),
            found = &mut known => match found {
                Some((blob, true)) => return Ok(Followed::Existed(blob)),
                Some((blob, false)) => (sending.await?, Some(blob)),
                None => return Ok(Followed::GivenUp),
            },
        };
        let Some(blob) = blob else { return Ok(Followed::GivenUp) };
        self.close(&self.place(&answer)?, &blob).await?;
        Ok(Followed::Stored(blob))
    }

    /// Sends all there is and will be.
    async fn grow(&self, session: &Session, open: &Open) -> Result<Response, RegistryError> {
        let moved = Arc::new(AtomicU64::new(0));
        let make = || -> BoxFuture<'static, Result<reqwest::Body, RegistryError>> {
            let (opening, watch) = (open(), Watch::of(Arc::clone(&moved)));
            Box::pin(async move {
                let reader = opening.await.map_err(|source| RegistryError::Unfinished { source })?;
                Ok(watched(reader, 0, watch))
            })
        };
        let body = Body::Stream { make: &make, length: None, moved: &moved };
        let response = self.put(Method::PATCH, session.url.clone(), body, None).await?;
        let taken = [StatusCode::ACCEPTED, StatusCode::NO_CONTENT, StatusCode::OK, StatusCode::CREATED];
        if taken.contains(&response.status()) {
            return Ok(response);
        }
        Err(self.failure(response).await)
    }

    async fn close(&self, session: &Url, blob: &Descriptor) -> Result<(), RegistryError> {
        let response = self.put(Method::PUT, finished(session, &blob.digest), Body::Empty, None).await?;
        self.stored(response, &blob.digest).await
    }
}
