//! The WebSocket transport: upgrades a request and runs one task that joins a socket, a session and an outbox.

mod alarm;
mod connection;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod handshake;
mod inbound;
mod outbound;
mod reader;

pub(crate) use alarm::Alarm;
pub use alarm::TimeLimits;
pub use handshake::{Asked, Context, Upgraded, accept, is_challenge, is_upgrade, switch, upgrade};
pub(crate) use inbound::{Inbound, Silence};
pub(crate) use outbound::{PING, farewell};
pub(crate) use reader::Message;
