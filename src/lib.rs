//! Fanfare.
pub mod apps;
pub mod auth;
pub mod channels;
pub mod config;
pub mod metrics;
pub mod node;
pub mod outbox;
pub mod protocol;
pub mod rate_limit;
pub mod session;
pub mod shutdown;
pub mod socket;
pub mod websocket;
pub use config::Config;
