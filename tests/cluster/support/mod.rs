//! What the tests are written with: nodes and the Redis between them, ways to disturb both, and clients that do not
//! mind.

mod cluster;
mod cut;
mod node;
mod recorder;
mod topologies;
mod traffic;

use std::time::Duration;

pub use crate::it::serving::eventually;
pub use crate::it::{Backend, Client, Message, Redis, Reply};
pub use cluster::{Cluster, settled};
pub use cut::Cut;
pub use node::{Node, Settings};
pub use recorder::Recorder;
pub use topologies::{RedisCluster, Sentinels};
pub use traffic::{Sent, Traffic};

pub const ADDED: &str = "pusher_internal:member_added";
pub const REMOVED: &str = "pusher_internal:member_removed";
pub const SUCCEEDED: &str = "pusher_internal:subscription_succeeded";

/// Longer than anything takes for which no shorter time is promised, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How much later than promised something may be before it is late: this machine runs all nodes and their clients.
pub const SLACK: Duration = Duration::from_secs(2);

/// [`eventually`] for a question that is answered with yes or no.
pub async fn eventually_true(what: &str, time: Duration, mut ask: impl AsyncFnMut() -> bool) {
    eventually(what, time, async || if ask().await { Ok(()) } else { Err("not so".to_owned()) }).await;
}
