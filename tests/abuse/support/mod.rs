//! What the attacks are written with: a server that is measured from outside, fresh clients that come while it is under
//! attack, and attackers.

mod attacker;
mod endpoint;
mod http2;
mod server;
mod siege;
mod visitor;

use std::time::Duration;

pub use crate::it::serving::{eventually, poll};
pub use attacker::Attacker;
pub use endpoint::Endpoint;
pub use http2::{Http2, Unfinished};
pub use server::Server;
pub use siege::{Siege, siege};
pub use visitor::{Visits, visit};

pub const MIB: u64 = 1024 * 1024;
pub const KIB: u64 = 1024;

/// Longer than anything takes for which no shorter time is promised, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The second app: it shares the server with the one that is attacked.
pub const NEIGHBOUR: (&str, &str, &str) = ("43", "neighbour-key", "neighbour-secret-1");

/// Lets an attack without an end go on for so long.
pub async fn lasting(time: Duration, attack: impl Future) {
    let _ = tokio::time::timeout(time, attack).await;
}
