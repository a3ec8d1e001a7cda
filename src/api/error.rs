//! What can be wrong with an API request, and its HTTP status (§4.1, §4.4).

use std::time::Duration;

use hyper::{Method, StatusCode};

use crate::auth::RequestError;
use crate::cluster::Unavailable;
use crate::node::TooManyListings;

/// Why a request is refused: one line of text that the library shows to its developer. A text about a limit names the
/// setting behind it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No such path.
    #[error("Not found")]
    NotFound,
    /// The path exists, for another method.
    #[error("Method not allowed, use {0}")]
    MethodNotAllowed(Method),
    /// The body is larger than the app allows.
    #[error("Request body exceeds the allowed maximum ({0} bytes, setting limits.http_body)")]
    BodyTooLarge(usize),
    /// The body did not arrive in time.
    #[error("Request body not received in time (setting server.request_timeout)")]
    BodyTimeout,
    /// The body took longest while too many others came.
    #[error("Request body took too long while many others came, try again (setting server.body_memory)")]
    BodyCrowded,
    /// The body broke off.
    #[error("Request body could not be read")]
    BodyIncomplete,
    /// The caller is not who it says.
    #[error(transparent)]
    Unauthorized(#[from] RequestError),
    /// The app is switched off.
    #[error("Application disabled")]
    AppDisabled,
    /// Too many requests.
    #[error("API rate limit exceeded (setting limits.api_requests_per_second)")]
    RateLimit(Duration),
    /// Too many channel listings at the same time.
    #[error(transparent)]
    TooManyListings(#[from] TooManyListings),
    /// The messages of the day are used up.
    #[error("Application is over its message quota (setting limits.messages_per_day)")]
    MessageQuota,
    /// The body is not a JSON object.
    #[error("Invalid JSON in request body")]
    InvalidJson,
    /// A parameter is not there.
    #[error("Missing required parameter: {0}")]
    Missing(&'static str),
    /// A parameter has the wrong type.
    #[error("Expected {0} parameter to be {1}")]
    Type(&'static str, &'static str),
    /// Query parameters that nobody asked for.
    #[error("The following query string parameters are extraneous: {0}")]
    Extraneous(String),
    /// The event name is empty, reserved or too long.
    #[error("Invalid event name: {0}")]
    EventName(String),
    /// The event name is too long.
    #[error("Invalid event name: longer than {0} characters (setting limits.event_name_length)")]
    EventNameTooLong(usize),
    /// A channel name breaks §2.2; the text says which.
    #[error("{0}")]
    ChannelName(String),
    /// The socket id does.
    #[error("{0}")]
    SocketId(String),
    /// The user id is empty or too long.
    #[error("Invalid user id: {0}")]
    UserId(String),
    /// An empty list.
    #[error("Expected {0} parameter to have at least one entry")]
    Empty(&'static str),
    /// Too many channels in one trigger.
    #[error("Cannot publish to more than {0} channels (setting limits.channels_per_event)")]
    TooManyChannels(usize),
    /// Too many events in one batch.
    #[error("Cannot publish more than {0} events in one batch (setting limits.events_per_batch)")]
    TooManyEvents(usize),
    /// The data is too long.
    #[error(
        "The data content of this event exceeds the allowed maximum ({0} bytes). See https://pusher.com/docs/channels/server_api/http-api#publishing-events for more info (setting limits.event_data)"
    )]
    DataTooLarge(usize),
    /// An attribute that does not exist, or not here.
    #[error("Invalid info attribute: {0}")]
    Info(String),
    /// User counts of channels that have none.
    #[error(
        "user_count may only be requested for presence channels - please supply filter_by_prefix beginning with presence-"
    )]
    UserCountPrefix,
    /// Users of a channel that has none.
    #[error("Users can only be retrieved for presence channels")]
    NotPresence,
    /// The other nodes could not be reached in time. Events were not published, or nobody knows.
    #[error("Not done or not known to be done, try again: {0}")]
    Unavailable(#[from] Unavailable),
}

impl ApiError {
    /// The HTTP status.
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge(_) | Self::DataTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::AppDisabled | Self::MessageQuota => StatusCode::FORBIDDEN,
            Self::RateLimit(_) | Self::TooManyListings(TooManyListings::OfApp(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) | Self::TooManyListings(TooManyListings::OfNode(_)) | Self::BodyCrowded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::BAD_REQUEST,
        }
    }
}
