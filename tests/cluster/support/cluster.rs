//! Some nodes around one Redis.

use super::{Cut, Node, Redis, Settings};

/// Nodes named `a`, `b`, `c` and so on, each with a proxy between itself and Redis.
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Their Redis.
    pub redis: Redis,
    /// What the nodes have in common.
    pub settings: Settings,
}

impl Cluster {
    /// So many nodes that see each other.
    pub async fn start(count: usize) -> Self {
        Self::with(count, |_| {}).await
    }

    /// The same with other settings.
    pub async fn with(count: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        let redis = Redis::start();
        let mut nodes = Vec::new();
        for name in ('a'..).take(count) {
            nodes.push(Node::start_behind(Cut::before(redis.addr()), &name.to_string(), &settings).await);
        }
        let cluster = Self { nodes, redis, settings };
        cluster.settled().await;
        cluster
    }

    /// The first two nodes.
    pub fn pair(&self) -> (&Node, &Node) {
        (&self.nodes[0], &self.nodes[1])
    }

    /// Waits until the nodes that run are ready and see each other, and nobody else.
    pub async fn settled(&self) {
        settled(&self.nodes).await;
    }
}

/// Waits until those of these nodes that run are ready and see each other, and nobody else.
pub async fn settled(nodes: &[Node]) {
    let running: Vec<_> = nodes.iter().filter(|node| node.runs()).collect();
    let names: Vec<_> = running.iter().map(|node| node.name.as_str()).collect();
    for node in running {
        node.ready().await;
        node.sees(&names).await;
    }
}
