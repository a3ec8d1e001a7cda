//! The Pusher wire format as Rust types: parse what clients send, encode what they receive.
//!
//! Plain data: no sockets, no tasks, no clock. Text is understood once, here; past this module nobody parses JSON, looks
//! at a channel's prefix or remembers what 4201 means. Event data stays the JSON text it came as.
//!
//! A sign such as §2.5, here and elsewhere, names a section of the protocol reference that the project is written
//! against: 1 connection, 2 events, 3 authorisation, 4 HTTP API, 5 webhooks, 6 limits, 7 HTTP fallbacks, 8 timing,
//! 9 choices where Pusher's documentation is silent. What it says, the tests of `tests/it` say too, under the same words.

mod auth_parameter;
mod channel_name;
mod client_message;
mod close;
mod error;
mod event_data;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub mod json;
mod server_event;
mod socket_id;
mod user;

pub use auth_parameter::{AUTH_PARAMETERS, reads_as};
pub use channel_name::{ChannelName, InvalidChannelName, Kind, SERVER_TO_USER};
pub use client_message::ClientMessage;
pub use close::CloseReason;
pub use error::{ClientError, SubscriptionError};
pub use event_data::EventData;
pub use frame::Frame;
pub use server_event::ServerEvent;
pub use socket_id::{InvalidSocketId, SocketId};
pub use user::{InvalidUser, Member, SignIn, UserId};

/// The protocol versions that are served (§1.2).
pub const SUPPORTED_VERSIONS: std::ops::RangeInclusive<u32> = 4..=7;

/// Up to this version a fatal error is announced as a `pusher:error` event before the close frame (§1.5).
pub const LAST_VERSION_WITH_ERROR_EVENTS: u32 = 5;

/// A message above this many bytes ends its connection with 1009, whatever the app's own limit (§6).
pub const MAX_MESSAGE: usize = 1024 * 1024;
