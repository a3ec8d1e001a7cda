//! Every setting as plain data. The structs here are what the rest of the program reads.
//!
//! A key has one line in `schema`, which names its `rule`. `load` walks these lines to fill a [`Config`] from the
//! `layers` (command line, environment, file, default), `write` to print one, `suggest` to guess what a misspelt
//! key meant. `validate` has the rules between keys. To add a setting: the field and its default here, the line in
//! `schema`, and its entry in `config/default.toml`, which a test demands.

mod auth;
mod claim_pattern;
mod cluster;
mod exposure;
mod fallbacks;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod layers;
mod load;
mod master_key;
mod memory_bounds;
mod pattern;
mod redis_url;
mod rule;
mod schema;
mod suggest;
mod validate;
mod validate_auth;
mod validate_cluster;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use auth::{AuthConfig, ForwardConfig, JwtAlgorithm, JwtConfig};
pub use claim_pattern::{ClaimPattern, Part};
pub use cluster::{ClusterConfig, ClusterDriver, OnGap, Topology};
pub use fallbacks::FallbacksConfig;
pub use layers::Sources;
pub use load::{ConfigError, Loaded};
pub use master_key::MasterKey;
pub use memory_bounds::Machine;
pub use pattern::{matches, origin_allowed};
pub use redis_url::{RedisPlace, RedisUrl};
pub use rule::is_url;
pub use validate_auth::member_name;

/// Every key with its meaning, allowed values, default and environment variable, as a file to start from: loading it
/// gives [`Config::default`].
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// The whole configuration of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The public listener: WebSocket and HTTP API.
    pub server: ServerConfig,
    /// HTTP transports for clients that cannot use WebSockets.
    pub fallbacks: FallbacksConfig,
    /// The private listener: health, metrics and webhooks.
    pub admin: AdminConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// How webhooks are kept and delivered.
    pub webhooks: WebhooksConfig,
    /// Alone, or together with other nodes.
    pub cluster: ClusterConfig,
    /// The apps, in the order of the file.
    pub apps: Vec<AppConfig>,
}

/// `[server]`: the public listener.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// A path in front of every public URL, such as `/realtime`, taken off before routing and before signatures are
    /// verified; empty for none.
    pub path_prefix: String,
    /// Connections of clients on this node; 0 = as many as the open-file limit allows. Above it: close code 4100.
    pub max_connections: u64,
    /// How long a client may take to send the head of a request or its body, and how long an idle keep-alive
    /// connection is kept.
    pub request_timeout: Duration,
    /// On shutdown, the time over which clients are closed and the last requests may finish.
    pub drain_period: Duration,
    /// Believe `X-Forwarded-For` and `X-Forwarded-Proto`: only behind a proxy that sets them.
    pub trust_forwarded_headers: bool,
    /// Connections of one IP address, or of one IPv6 network of 64 bits; 0 = no limit. Never more than half of what the
    /// node can hold.
    pub connections_per_address: u64,
    /// New connections per second of one IP address or IPv6 /64, ten seconds' worth at once; 0 = no limit.
    pub new_connections_per_address: u32,
    /// Bytes of request bodies that are being received and are not verified yet, of all clients together.
    pub body_memory: usize,
    /// Concurrent requests on one HTTP/2 connection.
    pub http2_streams: u32,
    /// How long a client may accept none of the data that waits for it before it is closed with 4100.
    pub write_timeout: Duration,
    /// Bytes that the kernel buffers per connection for sending; 0 = as many as the system likes.
    pub send_buffer: usize,
    /// Bytes that the subscriptions of all clients may take on this node, about; 0 = a quarter of the machine's memory.
    pub subscription_memory: usize,
    /// Channel listings of the HTTP API that are answered at the same time, for all apps. Above it: status 503.
    pub channel_listings: usize,
    /// TLS on the public listener, if it is not left to a proxy.
    pub tls: Option<TlsConfig>,
}

/// `[server.tls]`: PEM files.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsConfig {
    /// The certificate chain, leaf first.
    pub certificate: PathBuf,
    /// The private key of the leaf.
    pub private_key: PathBuf,
}

/// `[admin]`: the private listener.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Host names under which the listener may be addressed, besides loopback names and IP addresses.
    pub hosts: Vec<String>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// Text or JSON.
    pub format: LogFormat,
    /// A level, or directives such as `info,fanfare::session=debug`.
    pub level: String,
    /// Lines of one kind, of level `info` and above, within ten seconds; 0 = no limit. Further ones are counted and
    /// reported in one line.
    pub repeat_limit: u32,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: one line of text, coloured on a terminal.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// `[webhooks]`: what the webhooks of all apps have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhooksConfig {
    /// The directory for what waits to be delivered, made if need be; `None`: in memory only, and lost at the end.
    pub data_dir: Option<PathBuf>,
    /// How long an endpoint may take for its whole answer.
    pub timeout: Duration,
    /// How long a webhook is tried again, from its creation on, before it becomes a dead letter.
    pub retry_period: Duration,
    /// Requests to one endpoint at the same time, each about other channels.
    pub concurrency: usize,
    /// Bytes that may wait for one endpoint. Above it events are dropped, open ones first, and those of the source with
    /// most of them.
    pub max_pending: usize,
    /// Bytes of events, of all endpoints, that may wait to be written to disk. Above it they are dropped: those of the app
    /// with most bytes first, and of these in the same order.
    pub max_unwritten: usize,
    /// Bytes of dead letters of one endpoint; above it the oldest is dropped.
    pub max_dead: usize,
    /// After a start, the time in which clients of the process before may come back without anybody hearing of it.
    pub restart_grace: Duration,
}

/// `[[apps.webhooks]]`: an endpoint of the app's backend.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookConfig {
    /// Where the webhooks are sent.
    pub url: String,
    /// What is sent.
    pub events: Vec<WebhookEvent>,
    /// Patterns of the channels whose events are sent; empty = all.
    pub channels: Vec<String>,
    /// Further headers of the requests.
    pub headers: BTreeMap<String, Secret>,
    /// Events in one request.
    pub batch_size: usize,
    /// How long an event waits for others to share its request.
    pub batch_wait: Duration,
}

/// Something that a backend can be told about (protocol §5.2; those after `SubscriptionCount` are Fanfare's own).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookEvent {
    /// A channel has its first subscriber.
    ChannelOccupied,
    /// A channel's last subscriber is gone.
    ChannelVacated,
    /// A user's first connection is on a presence channel.
    MemberAdded,
    /// A user's last connection has left a presence channel.
    MemberRemoved,
    /// A client event was accepted.
    ClientEvent,
    /// Somebody subscribed to a cache channel that has nothing to show.
    CacheMiss,
    /// A channel has another number of subscribers.
    SubscriptionCount,
    /// A client has connected.
    ConnectionOpened,
    /// A connection has ended.
    ConnectionClosed,
    /// A user's first connection has signed in.
    UserOnline,
    /// A user's last connection is gone.
    UserOffline,
}

impl WebhookEvent {
    /// All of them, with the names that they have in settings and in webhooks. Pusher's come first.
    pub const ALL: [(&'static str, Self); 11] = [
        ("channel_occupied", Self::ChannelOccupied),
        ("channel_vacated", Self::ChannelVacated),
        ("member_added", Self::MemberAdded),
        ("member_removed", Self::MemberRemoved),
        ("client_event", Self::ClientEvent),
        ("cache_miss", Self::CacheMiss),
        ("subscription_count", Self::SubscriptionCount),
        ("connection_opened", Self::ConnectionOpened),
        ("connection_closed", Self::ConnectionClosed),
        ("user_online", Self::UserOnline),
        ("user_offline", Self::UserOffline),
    ];

    /// Those of Pusher, which an endpoint gets unless it asks for others.
    pub fn standard() -> Vec<Self> {
        Self::ALL[..7].iter().map(|(_, event)| *event).collect()
    }

    /// The name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, event)| *event == self).map_or("", |(name, _)| name)
    }
}

/// `[[apps]]`: one application, with its credentials, switches and limits. Every key but the credentials may also stand
/// in `[app_defaults]`, from where all apps inherit it.
#[derive(Debug, Clone, PartialEq)]
pub struct AppConfig {
    /// Names the app in the URLs of the HTTP API. `[A-Za-z0-9_-]+`; some libraries insist on digits.
    pub id: String,
    /// The credentials; the first pair is the oldest one. Never empty.
    pub keys: Vec<KeyPair>,
    /// Off: clients are closed with 4003 and API requests answered with 403.
    pub enabled: bool,
    /// More detail in error answers: the string a signature should have covered, and the clock skew.
    pub debug: bool,
    /// Patterns of origins that browsers may connect from, such as `https://*.example.com`, or of their hosts, such as
    /// `example.com`; empty = any. Clients that send no origin always may.
    pub allowed_origins: Vec<String>,
    /// Close unencrypted connections with 4000.
    pub require_tls: bool,
    /// Let clients send `client-` events.
    pub client_events: bool,
    /// Send `pusher_internal:subscription_count`.
    pub subscription_counts: bool,
    /// Follow the `pusher:error` about a refused subscription with the two events that clients wait for
    /// (protocol §2.6).
    pub subscription_error_events: bool,
    /// Tell signed-in users who of their watchlist is online.
    pub watchlists: bool,
    /// How long a user may be gone before watchers hear of it; 0 = at once.
    pub offline_delay: Duration,
    /// How long a channel may be empty, or a member gone, before webhooks tell of it.
    pub webhook_delay: Duration,
    /// Close connections that neither sign in nor subscribe to a private or presence channel in time (protocol §1.6).
    pub authorized_connections: bool,
    /// Treat a handshake without `protocol` as version 7 instead of closing it with 4008.
    pub assume_protocol_7: bool,
    /// The close code of a terminated user's connections: 4009 (stay away) or 4200 (come back).
    pub terminate_code: u16,
    /// What the app may use.
    pub limits: Limits,
    /// What the keys of encrypted channels are made of, in base64; only for those whom `auth` lets in. See
    /// [`AppConfig::master_key`].
    pub encryption_master_key: Option<Secret>,
    /// Who decides about subscriptions and sign-ins at `/pusher/auth` and `/pusher/user-auth`.
    pub auth: AuthConfig,
    /// Whom of the app's backend to tell what happens; each with a URL that no other of the app has.
    pub webhooks: Vec<WebhookConfig>,
}

/// An app key and the secret that belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyPair {
    /// The public half, part of the WebSocket URL.
    pub key: String,
    /// The private half.
    pub secret: Secret,
}

/// `[apps.limits]`. Sizes are in bytes, lengths in characters, and 0 switches a quota off where it says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Characters of a channel name, prefix included.
    pub channel_name_length: usize,
    /// Characters of an event name.
    pub event_name_length: usize,
    /// Bytes of an event's data, after JSON decoding.
    pub event_data: usize,
    /// Channels of one trigger.
    pub channels_per_event: usize,
    /// Events of one batch.
    pub events_per_batch: usize,
    /// Bytes of the body of an HTTP API request, and of what a client sends over an HTTP transport.
    pub http_body: usize,
    /// Distinct users in one presence channel.
    pub presence_members: usize,
    /// Characters of a user id.
    pub user_id_length: usize,
    /// Bytes of a member's `user_info`, as JSON.
    pub user_info: usize,
    /// Bytes of the `user_data` of a sign-in.
    pub user_data: usize,
    /// Ids in a watchlist; further ones are dropped with error 4302.
    pub watchlist_length: usize,
    /// Client events per second and connection.
    pub client_events_per_second: u32,
    /// Messages per second and connection, on top of the client events that are allowed; 0 = no limit. A faster client
    /// is read more slowly.
    pub messages_per_second: u32,
    /// Messages that a client may send at once before that rate applies.
    pub message_burst: u32,
    /// Times per minute that one connection may leave the same presence channel and join it again; 0 = no limit. Above
    /// it, leaves are told later, and not at all if the connection is back by then.
    pub presence_joins_per_minute: u32,
    /// Bytes of one message from a client.
    pub message: usize,
    /// Subscriptions of one connection; 0 = no limit.
    pub channels_per_connection: usize,
    /// Connections of the app; 0 = no limit. Above it: close code 4004.
    pub connections: u64,
    /// HTTP API requests per second; 0 = no limit. Above it: status 429.
    pub api_requests_per_second: u32,
    /// Channel listings of the HTTP API that are answered at the same time. Above it: status 429.
    pub channel_listings: usize,
    /// Events published over the HTTP API per day (UTC), counted once per channel; 0 = no limit. Above it: status 403.
    pub messages_per_day: u64,
    /// How long a cache channel keeps its event.
    pub cache_ttl: Duration,
    /// Bytes of the events that all cache channels of the app keep; above it the oldest is dropped.
    pub cache_size: usize,
    /// How far the `auth_timestamp` of an API request may be from the server's clock.
    pub auth_timestamp_window: Duration,
    /// Silence after which a client is expected to ping, and is pinged.
    pub activity_timeout: Duration,
    /// The wait for an answer to that ping before the connection is closed with 4201.
    pub pong_timeout: Duration,
    /// See [`AppConfig::authorized_connections`].
    pub authorization_timeout: Duration,
    /// Subscribers above which a channel's counts are throttled.
    pub subscription_count_threshold: usize,
    /// The time between two counts of a throttled channel.
    pub subscription_count_interval: Duration,
    /// Bytes that may wait for one slow client before it is closed with 4100.
    pub outbox: usize,
}

/// A text that never shows itself: `Debug` prints a mask.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for signing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: ServerConfig {
                listen: SocketAddr::from(([0, 0, 0, 0], 6001)),
                path_prefix: String::new(),
                max_connections: 0,
                request_timeout: Duration::from_secs(30),
                drain_period: Duration::from_secs(10),
                trust_forwarded_headers: false,
                connections_per_address: 10_000,
                new_connections_per_address: 200,
                body_memory: 64 * 1024 * 1024,
                http2_streams: 32,
                write_timeout: Duration::from_secs(30),
                send_buffer: 256 * 1024,
                subscription_memory: 0,
                channel_listings: 32,
                tls: None,
            },
            fallbacks: FallbacksConfig::default(),
            admin: AdminConfig { listen: SocketAddr::from(([127, 0, 0, 1], 9601)), hosts: Vec::new() },
            log: LogConfig { format: LogFormat::Text, level: "info".to_owned(), repeat_limit: 20 },
            webhooks: WebhooksConfig {
                data_dir: Some("fanfare-data".into()),
                timeout: Duration::from_secs(4),
                retry_period: Duration::from_secs(5 * 60),
                concurrency: 8,
                max_pending: 64 * 1024 * 1024,
                max_unwritten: 64 * 1024 * 1024,
                max_dead: 64 * 1024 * 1024,
                restart_grace: Duration::from_secs(20),
            },
            cluster: ClusterConfig::default(),
            apps: Vec::new(),
        }
    }
}

impl AppConfig {
    /// An app with these credentials and the default of everything else.
    pub fn new(id: impl Into<String>, key: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            keys: vec![KeyPair { key: key.into(), secret: Secret::new(secret) }],
            enabled: true,
            debug: false,
            allowed_origins: Vec::new(),
            require_tls: false,
            client_events: false,
            subscription_counts: false,
            subscription_error_events: true,
            watchlists: true,
            offline_delay: Duration::from_secs(3),
            webhook_delay: Duration::from_secs(3),
            authorized_connections: false,
            assume_protocol_7: false,
            terminate_code: 4009,
            limits: Limits::default(),
            encryption_master_key: None,
            auth: AuthConfig::default(),
            webhooks: Vec::new(),
        }
    }
}

impl WebhookConfig {
    /// An endpoint that gets Pusher's events, each in a request of its own.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            events: WebhookEvent::standard(),
            channels: Vec::new(),
            headers: BTreeMap::new(),
            batch_size: 1,
            batch_wait: Duration::from_millis(100),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channel_name_length: 164,
            event_name_length: 200,
            event_data: 10 * 1024,
            channels_per_event: 100,
            events_per_batch: 10,
            http_body: 1024 * 1024,
            presence_members: 100,
            user_id_length: 128,
            user_info: 1024,
            user_data: 32 * 1024,
            watchlist_length: 100,
            client_events_per_second: 10,
            messages_per_second: 100,
            message_burst: 2000,
            presence_joins_per_minute: 30,
            message: 64 * 1024,
            channels_per_connection: 1000,
            connections: 0,
            api_requests_per_second: 0,
            channel_listings: 4,
            messages_per_day: 0,
            cache_ttl: Duration::from_secs(30 * 60),
            cache_size: 64 * 1024 * 1024,
            auth_timestamp_window: Duration::from_secs(600),
            activity_timeout: Duration::from_secs(120),
            pong_timeout: Duration::from_secs(30),
            authorization_timeout: Duration::from_secs(30),
            subscription_count_threshold: 100,
            subscription_count_interval: Duration::from_secs(5),
            outbox: 1024 * 1024,
        }
    }
}
