//! The WebSocket transport: upgrades a request and runs one task that joins a socket, a session and an outbox.

mod connection;
mod handshake;
mod inbound;
mod outbound;
mod reader;

pub use handshake::{Asked, Context, Upgraded, is_upgrade, switch, upgrade};
