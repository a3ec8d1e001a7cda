//! `[cluster]`: whether this node is alone, and where the Redis is that it shares with others.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{RedisUrl, Secret};

/// `[cluster]`.
#[derive(Clone, PartialEq)]
pub struct ClusterConfig {
    /// Alone, or one of several nodes.
    pub driver: ClusterDriver,
    /// Stands in every key and channel name at Redis: clusters with different ids never meet on one Redis.
    pub id: String,
    /// What this node is called where nodes are listed; empty: its host name.
    pub node: String,
    /// The URL at which the other nodes reach the public listener of this one; empty: its own address.
    pub address: String,
    /// What the URLs lead to.
    pub topology: Topology,
    /// Where Redis is; never empty, and each a [`RedisUrl`]. May have passwords in them.
    pub urls: Vec<String>,
    /// The ACL user, instead of those of the URLs; empty: theirs, or else `default`.
    pub username: String,
    /// The password, instead of those of the URLs.
    pub password: Option<Secret>,
    /// PEM: the root certificates that `rediss://` trusts instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What Sentinels call the master.
    pub sentinel_master: String,
    /// The ACL user at Sentinels; empty: that of the URLs, or else `default`.
    pub sentinel_username: String,
    /// The password at Sentinels, instead of those of the URLs.
    pub sentinel_password: Option<Secret>,
    /// How long a node may be silent before the others remove what it contributed: members, subscriptions, users.
    pub lease: Duration,
    /// How long triggers, questions and new subscriptions wait for Redis before they fail.
    pub timeout: Duration,
    /// How long Redis keeps the events of a channel for nodes that were cut off for a moment; 0 = not at all.
    pub replay: Duration,
    /// How many events of one channel it keeps at most.
    pub replay_events: usize,
    /// Changes of one connection, such as new subscriptions, that may wait for Redis; above it, new ones are refused.
    pub pending_per_connection: usize,
    /// What happens when events were lost that cannot be replayed.
    pub on_gap: OnGap,
}

/// Who else there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterDriver {
    /// Nobody: all state is in this process.
    Single,
    /// Nodes that share a Redis.
    Redis,
}

/// What the URLs of a cluster lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One Redis server.
    Server,
    /// Sentinels, who know which server is the master.
    Sentinel,
    /// Some nodes of a Redis Cluster, who know the others.
    Cluster,
}

/// What happens when events were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnGap {
    /// They are counted, and the log tells of them.
    Log,
    /// Also, the clients of that channel are asked to reconnect: close code 4200.
    Reconnect,
}

impl Topology {
    /// All of them, with the names that they have in settings.
    pub const ALL: [(&'static str, Self); 3] =
        [("server", Self::Server), ("sentinel", Self::Sentinel), ("cluster", Self::Cluster)];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, topology)| *topology == self).map_or("", |(name, _)| name)
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            driver: ClusterDriver::Single,
            id: "fanfare".to_owned(),
            node: String::new(),
            address: String::new(),
            topology: Topology::Server,
            urls: vec!["redis://127.0.0.1:6379".to_owned()],
            username: String::new(),
            password: None,
            ca_file: None,
            sentinel_master: "mymaster".to_owned(),
            sentinel_username: String::new(),
            sentinel_password: None,
            lease: Duration::from_secs(8),
            timeout: Duration::from_secs(3),
            replay: Duration::from_secs(30),
            replay_events: 10_000,
            pending_per_connection: 2000,
            on_gap: OnGap::Log,
        }
    }
}

/// Like a derived one, but for the passwords in the URLs.
impl fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { driver, id, node, address, topology, urls, username, password, ca_file, .. } = self;
        let Self { sentinel_master, sentinel_username, sentinel_password, .. } = self;
        let Self { lease, timeout, replay, replay_events, pending_per_connection, on_gap, .. } = self;
        let urls: Vec<_> = urls.iter().map(|url| RedisUrl::masked(url)).collect();
        f.debug_struct("ClusterConfig")
            .field("driver", driver)
            .field("id", id)
            .field("node", node)
            .field("address", address)
            .field("topology", topology)
            .field("urls", &urls)
            .field("username", username)
            .field("password", password)
            .field("ca_file", ca_file)
            .field("sentinel_master", sentinel_master)
            .field("sentinel_username", sentinel_username)
            .field("sentinel_password", sentinel_password)
            .field("lease", lease)
            .field("timeout", timeout)
            .field("replay", replay)
            .field("replay_events", replay_events)
            .field("pending_per_connection", pending_per_connection)
            .field("on_gap", on_gap)
            .finish()
    }
}
