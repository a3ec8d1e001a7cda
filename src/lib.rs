//! Fanfare.
pub mod admin;
pub mod api;
pub mod apps;
pub mod auth;
pub mod channels;
pub mod config;
pub mod metrics;
pub mod node;
pub mod outbox;
pub mod protocol;
pub mod rate_limit;
pub mod server;
pub mod session;
pub mod shutdown;
pub mod socket;
pub mod websocket;
pub use config::Config;
pub use server::{Server, StartError};
