//! Why there is no signature: what the log says, and what little the caller hears.

use hyper::StatusCode;

use crate::authorizers::{Blame, Refused};
use crate::protocol::InvalidChannelName;
use crate::request_body::BodyError;

use super::MAX_BODY;
use super::fields::Malformed;

/// Why a request, or one channel of a batch, is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// It is no request to this endpoint.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// The body is not there.
    #[error("{}", body(.0))]
    Body(BodyError),
    /// The key in `app_key` is that of no app with an authorizer.
    #[error("app_key is not the key of an app with an authorizer")]
    NoSuchApp,
    /// Nobody knows which app is meant.
    #[error("several apps have an authorizer, and the request does not say in app_key which one is meant")]
    WhichApp,
    /// The app is switched off.
    #[error("the app is disabled")]
    AppDisabled,
    /// A page of another origin.
    #[error("the origin is not in allowed_origins")]
    Origin,
    /// The name breaks §2.2.
    #[error(transparent)]
    Name(#[from] InvalidChannelName),
    /// Everybody may subscribe anyway.
    #[error("a public channel needs no signature")]
    Public,
    /// The authorizer says so.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Refusal {
    /// The HTTP status. pusher-js takes all but 200 for a no and reports the number: 403 says that it is final, 503 that it
    /// is worth another try.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Body(BodyError::Incomplete) => StatusCode::BAD_REQUEST,
            Self::Body(BodyError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyError::Timeout) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::Crowded) => StatusCode::SERVICE_UNAVAILABLE,
            _ if self.blame() == Blame::Backend => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::FORBIDDEN,
        }
    }

    /// What the caller is told: the form of its request is its own business, everything else is none of it.
    pub(super) fn public_text(&self) -> String {
        match self {
            Self::Malformed(_) | Self::Body(_) => format!("{self}\n"),
            _ if self.blame() == Blame::Backend => "Unavailable\n".to_owned(),
            _ => "Forbidden\n".to_owned(),
        }
    }

    /// Whose business it is.
    pub(super) fn blame(&self) -> Blame {
        match self {
            Self::Refused(refused) => refused.blame(),
            _ => Blame::Caller,
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

fn body(error: &BodyError) -> String {
    match error {
        BodyError::TooLarge => format!("the body is longer than {MAX_BODY} bytes"),
        BodyError::Incomplete => "the body could not be read".to_owned(),
        BodyError::Timeout => "the body was not received in time (server.request_timeout)".to_owned(),
        BodyError::Crowded => "the body took too long while many others came (server.body_memory)".to_owned(),
    }
}
