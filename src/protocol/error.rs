//! Errors that the client hears of and survives (§2.12).

use std::time::Duration;

use super::{ChannelName, Frame, ServerEvent};

/// A `pusher:error`: the message is dropped, the connection lives. Each variant is one of Pusher's texts or one of ours
/// where Pusher's is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Not a JSON object, or nested too deeply.
    #[error("Received invalid JSON")]
    InvalidJson,
    /// A binary message.
    #[error("Binary messages are not supported, send text")]
    Binary,
    /// A message above the app's limit.
    #[error("Message exceeds the allowed maximum ({0} bytes)")]
    MessageTooLarge(usize),
    /// An unknown event with the `pusher:` prefix, or none at all.
    #[error("Unsupported event received on socket: {0}")]
    UnsupportedEvent(String),
    /// Subscribing twice.
    #[error("Existing subscription to channel {0}")]
    AlreadySubscribed(ChannelName),
    /// Unsubscribing without a subscription.
    #[error("No current subscription to channel {0}, or subscription in progress")]
    NotSubscribed(String),
    /// A refused sign-in.
    #[error("{0}")]
    SignIn(String),
    /// Signing in as somebody else.
    #[error("Connection already signed in as a different user")]
    SignedInAsAnother,
    /// Client events are off.
    #[error("To send client events, you must enable this feature in the Settings page of your dashboard.")]
    ClientEventsDisabled,
    /// Neither `pusher:` nor `client-`.
    #[error("Client event rejected - client events must be prefixed by 'client-'")]
    ClientEventPrefix,
    /// A client event without a channel or without data.
    #[error("Invalid client event (must contain channel and data)")]
    ClientEventIncomplete,
    /// The event name is too long.
    #[error("Invalid event name: {0}")]
    ClientEventName(String),
    /// A client event on a public channel.
    #[error("Client event rejected - only supported on private and presence channels")]
    ClientEventChannel,
    /// A client event from somebody who is not subscribed.
    #[error("Cannot broadcast client event (connection not subscribed to channel {0})")]
    ClientEventNotSubscribed(String),
    /// The data of a client event is too long.
    #[error(
        "The data content of this event exceeds the allowed maximum ({0} bytes). See https://pusher.com/docs/channels/server_api/http-api#publishing-events for more info"
    )]
    ClientEventTooLarge(usize),
    /// More client events than the app allows.
    #[error("The rate limit for sending client events exceeded the quota.")]
    ClientEventRate,
    /// The watchlist was cut.
    #[error("Watchlist limit exceeded. Only the first {0} user IDs are accepted.")]
    WatchlistTooLong(usize),
    /// A refused subscription.
    #[error("{0}")]
    Subscription(String),
    /// A client event that cannot be passed on.
    #[error("Client event rejected - the server cannot reach its cluster, try again later")]
    ClientEventUnavailable,
    /// A client event of somebody who sends more than the cluster takes.
    #[error("Client event rejected - the cluster is slow and too many of this connection's wait, try again later")]
    ClientEventsPending,
}

impl ClientError {
    /// The `code` of the event; most have none.
    pub const fn code(&self) -> Option<u16> {
        match self {
            Self::ClientEventRate => Some(4301),
            Self::WatchlistTooLong(_) => Some(4302),
            _ => None,
        }
    }
}

/// Why a subscription is refused (§2.6).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// The name breaks §2.2.
    #[error("{0}")]
    InvalidName(String),
    /// The token, its key or its signature.
    #[error("{0}")]
    Auth(String),
    /// The member data of a presence channel.
    #[error("{0}")]
    InvalidMember(String),
    /// The presence channel is full.
    #[error("Presence channel {channel} is over its limit of {limit} members")]
    ChannelFull {
        /// The channel.
        channel: ChannelName,
        /// The app's limit.
        limit: usize,
    },
    /// The connection has all the subscriptions it may have.
    #[error("Connection is over its limit of {0} channels")]
    TooManyChannels(usize),
    /// The node has all the subscriptions that it has memory for.
    #[error("The server has no memory left for further subscriptions (setting server.subscription_memory)")]
    OutOfMemory,
    /// The connection has left this presence channel and joined it again too often to do so as another user, or so many
    /// channels that nobody could remember one more.
    #[error(
        "Connection has left and joined presence channels too often (limits.presence_joins_per_minute = {0}), try again \
         in a minute"
    )]
    TooManyJoins(u32),
    /// In a cluster: too much of what the connection has changed waits to be told.
    #[error(
        "Too many subscriptions of this connection wait for the cluster (cluster.pending_per_connection = {0}), try again \
         later"
    )]
    Pending(usize),
    /// In a cluster: it was asked, but did not confirm the subscription in time.
    #[error("The cluster is slow and did not confirm the subscription within {0:?} (cluster.timeout), try again later")]
    Unconfirmed(Duration),
    /// In a cluster: the node is not connected to it.
    #[error("The server cannot reach its cluster, try again later")]
    Unavailable,
}

impl SubscriptionError {
    /// What the client is told: a `pusher:error` and, if the app wants them, the events that client libraries wait for.
    /// `channel` is the name as the client wrote it.
    pub fn frames(&self, channel: &str, events: bool) -> Vec<Frame> {
        let mut frames = vec![ServerEvent::Error(&ClientError::Subscription(self.to_string())).encode()];
        if events {
            frames.push(ServerEvent::SubscriptionError { channel, error: self }.encode());
            frames.push(ServerEvent::InternalSubscriptionError { channel }.encode());
        }
        frames
    }

    /// All that [`SubscriptionError::reason`] can be.
    pub const REASONS: [&'static str; 10] = [
        "name",
        "auth",
        "member",
        "presence_members",
        "channels_per_connection",
        "subscription_memory",
        "presence_joins",
        "cluster_pending",
        "cluster_slow",
        "cluster",
    ];

    /// The `reason` under which it is counted.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName(_) => "name",
            Self::Auth(_) => "auth",
            Self::InvalidMember(_) => "member",
            Self::ChannelFull { .. } => "presence_members",
            Self::TooManyChannels(_) => "channels_per_connection",
            Self::OutOfMemory => "subscription_memory",
            Self::TooManyJoins(_) => "presence_joins",
            Self::Pending(_) => "cluster_pending",
            Self::Unconfirmed(_) => "cluster_slow",
            Self::Unavailable => "cluster",
        }
    }

    /// The `type` and `status` that pusher-js hands to the application.
    pub const fn kind(&self) -> (&'static str, u16) {
        match self {
            Self::Auth(_) => ("AuthError", 401),
            Self::ChannelFull { .. } | Self::TooManyChannels(_) | Self::OutOfMemory => ("LimitReached", 403),
            Self::InvalidName(_) | Self::InvalidMember(_) => ("ValidationError", 400),
            // These pass by themselves.
            Self::TooManyJoins(_) | Self::Pending(_) => ("LimitReached", 429),
            Self::Unconfirmed(_) | Self::Unavailable => ("Unavailable", 503),
        }
    }
}
