//! Why a connection ends (§1.5).

/// Bytes of an unknown app key in a close reason.
const MAX_KEY: usize = 40;

/// Why the server ends a connection. The code decides what pusher-js does next: below 1016 and 41xx it comes back after
/// a second, 42xx at once, 40xx only when the application asks for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer broke RFC 6455.
    #[error("{0}")]
    WebSocketProtocol(String),
    /// A text message was not UTF-8.
    #[error("Text messages must be valid UTF-8")]
    InvalidUtf8,
    /// A message above [`super::MAX_MESSAGE`].
    #[error("Message too large")]
    MessageTooLarge,
    /// The app requires TLS, the connection is plain.
    #[error("Application only accepts SSL connections, reconnect using wss://")]
    TlsRequired,
    /// No app has this key; see [`CloseReason::unknown_app`].
    #[error("App key {0} not in this cluster. Did you forget to specify the cluster?")]
    UnknownApp(String),
    /// The app is switched off.
    #[error("Application disabled")]
    AppDisabled,
    /// The app's own limit of connections.
    #[error("Application is over connection quota")]
    OverQuota,
    /// An upgrade on any path but `/app/{key}`.
    #[error("Path not found")]
    PathNotFound,
    /// `protocol` is not an integer.
    #[error("Invalid version string format")]
    InvalidVersion,
    /// `protocol` is not one we speak.
    #[error("Unsupported protocol version")]
    UnsupportedVersion,
    /// No `protocol` at all.
    #[error("No protocol version supplied")]
    NoVersion,
    /// Neither signed in nor subscribed to anything that needs a signature, within the app's time.
    #[error("Connection not authorized within timeout")]
    NotAuthorized,
    /// A browser came from a page the app does not list.
    #[error("Origin not allowed")]
    OriginNotAllowed,
    /// The backend terminated the user's connections; the code is the app's choice (§2.13).
    #[error("You got disconnected by the app.")]
    Terminated(u16),
    /// The server has no place left, by setting or by its open-file limit.
    #[error("Over capacity")]
    OverCapacity,
    /// The client's address has as many connections or sessions as one may have, or opens them too quickly.
    #[error("Over capacity")]
    AddressOverCapacity,
    /// The client reads more slowly than its channels speak, and its outbox is full.
    #[error("Over capacity")]
    SlowConsumer,
    /// A message of the client has begun, and its end has not come in time.
    #[error("Message not completed in time")]
    UnfinishedMessage,
    /// The server stops; another one, or its successor, is ready.
    #[error("Server is shutting down")]
    ShuttingDown,
    /// Something was missed, or could not be asked for, while the other nodes were out of reach; all is well again.
    #[error("Reconnected to the cluster, subscribe again")]
    Resubscribe,
    /// Nothing came back within the pong timeout.
    #[error("Pong reply not received in time")]
    NoPong,
}

impl CloseReason {
    /// No app has this key, of which only as much is kept as a close frame has room for: 123 bytes with everything else.
    pub fn unknown_app(key: &str) -> Self {
        Self::UnknownApp(key[..key.floor_char_boundary(MAX_KEY)].to_owned())
    }

    /// The close code.
    pub const fn code(&self) -> u16 {
        match self {
            Self::WebSocketProtocol(_) => 1002,
            Self::InvalidUtf8 => 1007,
            Self::MessageTooLarge => 1009,
            Self::TlsRequired => 4000,
            Self::UnknownApp(_) => 4001,
            Self::AppDisabled => 4003,
            Self::OverQuota => 4004,
            Self::PathNotFound => 4005,
            Self::InvalidVersion => 4006,
            Self::UnsupportedVersion => 4007,
            Self::NoVersion => 4008,
            Self::NotAuthorized | Self::OriginNotAllowed => 4009,
            Self::Terminated(code) => *code,
            Self::OverCapacity | Self::AddressOverCapacity | Self::SlowConsumer | Self::UnfinishedMessage => 4100,
            Self::ShuttingDown | Self::Resubscribe => 4200,
            Self::NoPong => 4201,
        }
    }

    /// Its name in metrics: several reasons share a close code.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::WebSocketProtocol(_) => "websocket_protocol",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::MessageTooLarge => "message_too_large",
            Self::TlsRequired => "tls_required",
            Self::UnknownApp(_) => "unknown_app",
            Self::AppDisabled => "app_disabled",
            Self::OverQuota => "over_quota",
            Self::PathNotFound => "path_not_found",
            Self::InvalidVersion => "invalid_version",
            Self::UnsupportedVersion => "unsupported_version",
            Self::NoVersion => "no_version",
            Self::NotAuthorized => "not_authorized",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::Terminated(_) => "terminated",
            Self::OverCapacity => "over_capacity",
            Self::AddressOverCapacity => "address_over_capacity",
            Self::SlowConsumer => "slow_consumer",
            Self::UnfinishedMessage => "unfinished_message",
            Self::ShuttingDown => "shutting_down",
            Self::Resubscribe => "resubscribe",
            Self::NoPong => "no_pong",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_into_a_close_frame() {
        let long = CloseReason::unknown_app(&"é".repeat(500)).to_string();
        assert!(long.len() <= 123, "{} bytes", long.len());
    }
}
