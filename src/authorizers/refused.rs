//! Why somebody may not. The one who asked hears none of it: it is for the log.

use super::tokens::TokenError;
use crate::protocol::InvalidUser;

/// Why the answer is no, or why there is none.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no token, or a bad one.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The token is good, and the channel is not its owner's.
    #[error("no pattern in auth.jwt.channels fits this channel and the claims of the token")]
    Channel,
    /// The token does not say whose it is.
    #[error("the claims of the token make no user id (auth.jwt.user_id)")]
    NoUserId,
    /// The backend says no.
    #[error("the backend answered {0}")]
    Backend(&'static str),
    /// The backend cannot be asked about sign-ins.
    #[error("nobody may sign in, as auth.forward.user_url is not set")]
    NoSignIn,
    /// The server would not accept what the authorizer says of the user.
    #[error("the user data would be refused: {0}")]
    User(#[from] InvalidUser),
    /// The server would not accept that much of it.
    #[error("the user data would be refused: longer than {0} bytes (limits.user_data)")]
    UserTooLong(usize),
    /// Nobody could decrypt the channel.
    #[error("an encrypted channel needs encryption_master_key in the app")]
    NoMasterKey,
    /// The backend was not asked: it was busy with other questions all the time.
    #[error("the backend was not asked: earlier questions, from this address or from many, are not answered yet")]
    NoTurn,
    /// The backend did not decide.
    #[error("the backend did not decide: {0}")]
    Undecided(String),
}

/// Whose business a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The one who asked.
    Caller,
    /// Whoever wrote the configuration, or issues the tokens.
    Operator,
    /// The backend, or the issuer, or the way to them; later the answer may be another one.
    Backend,
}

impl Refused {
    /// The same of what the backend said: it is the backend's business then, and may change.
    pub(super) fn by_backend(self) -> Self {
        match self {
            Self::NoUserId => Self::Undecided("it allowed, but named no user".to_owned()),
            Self::User(_) | Self::UserTooLong(_) => Self::Undecided(self.to_string()),
            other => other,
        }
    }

    /// Whose business it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Token(TokenError::Unreachable) | Self::NoTurn | Self::Undecided(_) => Blame::Backend,
            Self::Token(_) | Self::Channel | Self::NoUserId | Self::Backend(_) => Blame::Caller,
            Self::NoSignIn | Self::User(_) | Self::UserTooLong(_) | Self::NoMasterKey => Blame::Operator,
        }
    }
}
