//! What the tests are written with: a server, a Pusher client, a client of the HTTP API, a
//! backend that receives webhooks, and signatures.

mod api;
mod ask;
mod backend;
mod client;
mod http_client;
mod http_transport;
pub mod jwt;
mod message;
mod pem;
#[allow(dead_code, reason = "tests/cluster needs more of it")]
pub mod port;
#[allow(dead_code, reason = "tests/cluster needs more of it")]
pub mod process;
mod receiving;
#[allow(dead_code, reason = "tests/cluster needs more of it")]
pub mod redis;
pub mod requests;
mod rsa_key;
mod second_node;
pub mod server;
#[allow(dead_code, reason = "for tests/cluster and tests/abuse")]
pub mod serving;
pub mod sign;
mod temp_dir;
mod web;
mod wire;

use std::time::Duration;

pub use api::{Api, Call, Encoding, Http, Response};
pub use ask::Ask;
pub use backend::{Backend, Reply, Webhook};
pub use client::Client;
pub use http_client::{HttpClient, LIMIT};
pub use http_transport::{HttpSession, array};
pub use message::Message;
pub use pem::pem;
pub use receiving::{Packet, Receiving};
pub use redis::Redis;
pub use server::TestServer;
pub use temp_dir::TempDir;
pub use web::{Answer, Web};
pub use wire::{Item, Opcode, Wire, head, masked, unmasked};

/// How long a test waits for something that should arrive before it fails.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// The app of every test that does not ask for another one. The vectors of the protocol document use its credentials.
pub const APP_ID: &str = "42";
/// The app's key.
pub const KEY: &str = "app-key-1";
/// The app's secret.
pub const SECRET: &str = "app-secret-1";

/// Waits for something that should happen soon.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("no {what} within {DEADLINE:?}"),
    }
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// A message as the bytes a client sends, for tests that write by hand.
pub fn wire_masked(text: &str) -> Vec<u8> {
    wire::masked(true, Opcode::Text as u8, text.as_bytes())
}
