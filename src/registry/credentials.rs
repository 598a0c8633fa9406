//! Who we are to a registry: the trait through which the client asks, and the answers.

use std::fmt;

use futures_util::future::BoxFuture;

use super::error::CredentialsError;
use super::url::Secret;

/// How to introduce ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// Nobody.
    Anonymous,
    /// By name and password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// By a refresh token, to be exchanged at the token server.
    Identity {
        /// The refresh token.
        token: Secret,
    },
    /// By a token to be sent as it is.
    Token {
        /// The bearer token.
        token: Secret,
    },
}

impl Account {
    /// Returns what tells this account from others in the token cache, without its secret.
    pub(crate) fn label(&self) -> String {
        match self {
            Account::Anonymous => String::new(),
            Account::Password { username, .. } => format!("user {username}"),
            Account::Identity { .. } => "identity".into(),
            Account::Token { .. } => "token".into(),
        }
    }
}

/// What is to be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Read it.
    Pull,
    /// Write to it, which is never done without reading.
    Push,
}

impl Access {
    /// Returns the actions of a token's scope.
    pub(crate) fn actions(self) -> &'static [&'static str] {
        match self {
            Access::Pull => &["pull"],
            Access::Push => &["pull", "push"],
        }
    }
}

/// Knows accounts. Asked every few minutes per registry and repository; may run a program, so it may be slow.
pub trait Credentials: Send + Sync + fmt::Debug {
    /// Returns the account for `repository` on `host`, which is `docker.io` for Docker Hub; [`Account::Anonymous`] if none
    /// is configured, an error if one is configured and cannot be had.
    fn account<'a>(
        &'a self,
        host: &'a str,
        repository: &'a str,
        access: Access,
    ) -> BoxFuture<'a, Result<Account, CredentialsError>>;
}

/// Knows no account.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCredentials;

impl Credentials for NoCredentials {
    fn account<'a>(&'a self, _: &'a str, _: &'a str, _: Access) -> BoxFuture<'a, Result<Account, CredentialsError>> {
        Box::pin(async { Ok(Account::Anonymous) })
    }
}
