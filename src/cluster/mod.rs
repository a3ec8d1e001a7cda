//! Makes many nodes look like one, by way of Redis.
//!
//! Redis is where decisions are made and put in order: scripts, each inside one partition, count who is subscribed and who
//! is a member, decide when that begins and ends anywhere, and publish it, numbered, in one step (`scripts/common.lua`
//! says what they keep). A node asks for a channel's messages only while it has subscribers to it, contributes what it has,
//! and follows the numbers; see `channels::replica`. What a node contributes is its own for as long as its lease lasts, so
//! nobody else's mistake or death can leave anything behind.
//!
//! ```text
//! node → Job     → life: publish    → publish.lua → SPUBLISH → link: receive → channels, users
//! node → touched → life: contribute → sync.lua    ↗
//!                  life: beat       → beat.lua    ↗ leases, and removing who let theirs end
//!                  life: tell       → duty.lua → webhooks, on one node
//! ```
//!
//! What nodes tell waits in a queue that is fair to the addresses and connections that caused it (`pending`,
//! `client_events`, `fair_queue`).
//!
//! `topic` is what things are called, `message` what crosses Redis, `answer` what scripts say, `servers` who has a
//! partition, `link` the connection to it, `life` what goes on there, `hub` what a node has, `sessions` which node has
//! which session of an HTTP transport. Redis keeps nothing that nodes could not bring back: when it restarts, fails
//! over or is emptied, a new generation begins, and they do.

mod answer;
mod client_events;
mod fair_queue;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod hub;
mod life;
mod link;
mod listing;
mod message;
mod pending;
mod scripts;
mod servers;
mod sessions;
mod topic;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{Value, pipe};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::channels::{Life, Occupancy};
use crate::config::{Config, Topology};
use crate::metrics::Metrics;
use crate::protocol::{ChannelName, EventData, Frame, SocketId, UserId};

use hub::{Hub, unix_ms};
use link::{Job, Link, Memory, Publication};
use topic::{Subject, Topic, partition};

pub use hub::Share;
pub use listing::Pages;
pub use pending::Cause;

/// Partitions where one server has all of them.
const ONE_SERVER: usize = 1;

/// Partitions at a Redis Cluster: enough to be spread well over a dozen servers. Each is a connection of each node.
const REDIS_CLUSTER: usize = 16;

/// Very much waits for a partition if it is so many times what one connection may have waiting.
const CROWD: usize = 50;

/// Changes that a connection may have waiting then, besides its subscriptions: so many come when somebody turns a page.
const PASSING: usize = 20;

/// Whether there are other nodes.
#[derive(Debug)]
pub enum Cluster {
    /// No: all state is in this process.
    Single,
    /// Yes, and they share a Redis.
    Redis(RedisCluster),
}

/// This node among others.
pub struct RedisCluster {
    hub: Arc<Hub>,
    links: Vec<Arc<Link>>,
    /// What the links know before they have begun.
    memories: Mutex<Vec<Memory>>,
}

/// The tasks of a running cluster. Dropped, they stop where they are.
#[derive(Debug)]
pub struct Running {
    tasks: JoinSet<()>,
    leaving: CancellationToken,
}

/// Redis did not do what it was asked to do, or not in time.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the cluster cannot be reached: {0}")]
pub struct Unavailable(String);

/// The reason why an event of a client is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientEventRefused {
    /// The node is not connected to Redis.
    CutOff,
    /// Redis is slow, and the sender has its share of the events that wait for it.
    TooMany,
}

/// An event for everybody who is subscribed to a channel, or signed in as a user, on any node.
#[derive(Debug)]
pub struct Event<'a> {
    /// Whom it is for.
    pub to: Recipient<'a>,
    /// Ready for sockets.
    pub frame: Frame,
    /// A connection that does not get it.
    pub except: Option<SocketId>,
    /// On a cache channel: how long newcomers are shown it, and its data.
    pub cached: Option<(Duration, &'a EventData)>,
}

/// Whom something is for.
#[derive(Debug, Clone, Copy)]
pub enum Recipient<'a> {
    /// The subscribers of a channel.
    Channel(&'a ChannelName),
    /// The connections of a user.
    User(&'a UserId),
}

/// A node, as `fanfare nodes` shows it.
#[derive(Debug, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Its name among all processes that ever were.
    pub id: String,
    /// It is the one that was asked.
    pub this: bool,
    /// Its version.
    pub version: String,
    /// Seconds since it started.
    pub age_seconds: u64,
    /// Open connections of all apps.
    pub connections: u64,
    /// How long Redis takes to answer it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<f64>,
    /// Milliseconds since its last sign of life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_ms: Option<u64>,
}

impl Cluster {
    /// What a node has to ask, if there are others.
    pub fn redis(&self) -> Option<&RedisCluster> {
        match self {
            Self::Single => None,
            Self::Redis(redis) => Some(redis),
        }
    }
}

impl RedisCluster {
    /// Joins nothing yet.
    ///
    /// # Errors
    /// A setting that cannot be used, and why.
    pub fn new(config: &Config, shares: Vec<Share>, metrics: &Metrics) -> Result<Self, String> {
        let partitions = match config.cluster.topology {
            Topology::Server | Topology::Sentinel => ONE_SERVER,
            Topology::Cluster => REDIS_CLUSTER,
        };
        let hub = Arc::new(Hub::new(config, shares, metrics, partitions)?);
        let (links, memories) = (0..partitions).map(|partition| Link::new(Arc::clone(&hub), partition)).unzip();
        Ok(Self { hub, links, memories: Mutex::new(memories) })
    }

    /// Connects, and stays connected.
    pub fn start(&self) -> Running {
        let (mut tasks, leaving) = (JoinSet::new(), CancellationToken::new());
        let memories = std::mem::take(&mut *self.memories.lock());
        for (link, memory) in self.links.iter().zip(memories) {
            tasks.spawn(Arc::clone(link).run(memory, leaving.clone()));
        }
        Running { tasks, leaving }
    }

    /// Takes back what this node contributed, within `grace`.
    pub async fn leave(&self, mut running: Running, grace: Duration) {
        running.leaving.cancel();
        let gone = timeout(grace, async { while running.tasks.join_next().await.is_some() {} });
        if gone.await.is_err() {
            warn!("could not take leave of the cluster; the others will find out when the lease of this node ends");
        }
    }

    /// The id of the cluster.
    pub fn cluster_id(&self) -> &str {
        &self.hub.cluster
    }

    /// What this node is called.
    pub fn node_name(&self) -> &str {
        &self.hub.name
    }

    /// Why this node is cut off from the others, if it is.
    pub fn obstacle(&self) -> Option<String> {
        self.links.iter().find_map(|link| link.obstacle())
    }

    /// The present life of the link that a channel or user depends on.
    pub fn life(&self, app: &str, subject: Recipient<'_>) -> Life {
        self.link(app, subject).life()
    }

    /// Something has changed that the others must hear. Never refused; see [`RedisCluster::has_room`].
    pub fn touch(&self, app: &str, subject: Recipient<'_>, cause: Cause) {
        let Some(index) = self.hub.app(app) else { return };
        self.link(app, subject).enqueue(cause, Topic { app: index, subject: subject.owned() });
    }

    /// Whether a connection that has `held` subscriptions may cause one more change of this channel or user: fewer of its
    /// changes than `cluster.pending_per_connection` wait to be told.
    ///
    /// What it has no more takes memory until that is told, which nobody is charged for. So while very much waits, a connection
    /// may have little waiting beside what it holds.
    pub fn has_room(&self, app: &str, subject: Recipient<'_>, cause: Cause, held: usize) -> bool {
        let most = self.hub.pending_per_connection;
        let pending = self.link(app, subject).pending.lock();
        let is_crowded = pending.len() >= most.saturating_mul(CROWD);
        let bound = if is_crowded { most.min(held.saturating_add(PASSING)) } else { most };
        pending.len_of(cause) < bound
    }

    /// `cluster.pending_per_connection`.
    pub fn pending_per_connection(&self) -> usize {
        self.hub.pending_per_connection
    }

    /// Changes that wait to be told.
    pub fn pending(&self) -> usize {
        self.links.iter().map(|link| link.pending.lock().len()).sum()
    }

    /// Whether this node is connected to what decides about a channel or user.
    pub fn is_reachable(&self, app: &str, subject: Recipient<'_>) -> bool {
        self.link(app, subject).obstacle().is_none()
    }

    /// Publishes events, in this order. Returns who is there, for each of them: taken means taken, on all nodes.
    ///
    /// # Errors
    /// At least one of them was not taken, or nobody knows.
    pub async fn publish(&self, app: &str, events: Vec<Event<'_>>) -> Result<Vec<Occupancy>, Unavailable> {
        let publications = events.iter().map(|event| {
            let body = message::event(&event.frame, event.except, event.cached.is_some());
            let cached = event.cached.map(|(ttl, data)| (ttl, data.literal().to_owned()));
            Publication { key: event.to.key(app), body, cached }
        });
        self.hand_over(publications.collect()).await
    }

    /// Closes the connections of a user, wherever they are.
    ///
    /// # Errors
    /// The order was not taken, or nobody knows.
    pub async fn terminate(&self, app: &str, user_id: &UserId, code: u16) -> Result<(), Unavailable> {
        let key = Recipient::User(user_id).key(app);
        let order = Publication { key, body: message::terminate(code), cached: None };
        self.hand_over(vec![order]).await.map(drop)
    }

    async fn hand_over(&self, publications: Vec<Publication>) -> Result<Vec<Occupancy>, Unavailable> {
        let count = publications.len();
        let mut by_partition: HashMap<usize, (Vec<usize>, Vec<Publication>)> = HashMap::new();
        for (index, publication) in publications.into_iter().enumerate() {
            let (indices, events) = by_partition.entry(self.partition(&publication.key)).or_default();
            indices.push(index);
            events.push(publication);
        }
        let until = Instant::now() + self.hub.timeout;
        let mut waiting = Vec::with_capacity(by_partition.len());
        for (partition, (indices, events)) in by_partition {
            let (answer, answered) = oneshot::channel();
            let job = Job { answer: Some(answer), events, until };
            let handed_over = timeout_at(until.into(), self.links[partition].jobs().send(job)).await;
            if !matches!(handed_over, Ok(Ok(()))) {
                let too_many = "more events wait to be published than Redis takes within cluster.timeout";
                return Err(Unavailable(self.links[partition].obstacle().unwrap_or_else(|| too_many.to_owned())));
            }
            waiting.push((partition, indices, answered));
        }
        let mut reach: Vec<Occupancy> = std::iter::repeat_with(Occupancy::default).take(count).collect();
        for (partition, indices, answered) in waiting {
            let Ok(Ok(answer)) = timeout_at(until.into(), answered).await else {
                return Err(self.unavailable(partition));
            };
            for (index, (subscriptions, users)) in indices.into_iter().zip(answer) {
                reach[index] = Occupancy { subscriptions: subscriptions as usize, users: users as usize };
            }
        }
        Ok(reach)
    }

    /// Publishes an event of a client, which waits for nothing.
    ///
    /// # Errors
    /// It is not going to be published.
    pub fn publish_client_event(
        &self,
        app: &str,
        sender: SocketId,
        event: &Event<'_>,
    ) -> Result<(), ClientEventRefused> {
        let key = event.to.key(app);
        let link = &self.links[self.partition(&key)];
        let body = message::event(&event.frame, event.except, false);
        let until = Instant::now() + self.hub.timeout;
        let job = Job { answer: None, events: vec![Publication { key, body, cached: None }], until };
        if link.obstacle().is_some() {
            self.hub.metrics.events_expired(1);
            return Err(ClientEventRefused::CutOff);
        }
        let is_taken = self.hub.app(app).is_some_and(|index| link.publish_for(index, sender, job));
        if !is_taken {
            self.hub.metrics.client_event_refused();
            warn!(app, socket_id = %sender, "client event refused: Redis is slower than this connection sends");
            return Err(ClientEventRefused::TooMany);
        }
        Ok(())
    }

    /// Whether an app may have one more connection: it has `connections` on this node, with the new one.
    ///
    /// # Errors
    /// Nobody could be asked in time.
    pub async fn take_seat(&self, app: &str, connections: u64, quota: u64) -> Result<bool, Unavailable> {
        match timeout(self.hub.timeout, self.links[0].seat(app, connections, quota)).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(reason)) => Err(Unavailable(reason)),
            Err(_) => Err(self.unavailable(0)),
        }
    }

    /// Who is there.
    ///
    /// # Errors
    /// Redis cannot be asked in time.
    pub async fn occupancy(&self, app: &str, channel: &ChannelName) -> Result<Occupancy, Unavailable> {
        let key = Recipient::Channel(channel).key(app);
        let ask = |line: &link::Line| {
            let mut questions = pipe();
            questions.cmd("HGET").arg(format!("{}t:{key}", line.keys)).arg("total");
            questions.cmd("HLEN").arg(format!("{}m:{key}", line.keys));
            questions
        };
        let answers = self.links[self.partition(&key)].ask(ask).await.map_err(Unavailable)?;
        Ok(occupancy(&answers))
    }

    /// The members of a presence channel.
    ///
    /// # Errors
    /// Redis cannot be asked in time.
    pub async fn members(&self, app: &str, channel: &ChannelName) -> Result<Vec<UserId>, Unavailable> {
        let key = Recipient::Channel(channel).key(app);
        let ask = |line: &link::Line| pipe().cmd("HKEYS").arg(format!("{}m:{key}", line.keys)).clone();
        let mut answers = self.links[self.partition(&key)].ask(ask).await.map_err(Unavailable)?;
        let members: Vec<String> =
            answers.pop().map(redis::from_redis_value).transpose().unwrap_or_default().unwrap_or_default();
        Ok(members.iter().map(|id| UserId::new(id)).collect())
    }

    /// The event a cache channel holds, and the time it has left.
    ///
    /// # Errors
    /// Redis cannot be asked in time.
    pub async fn cached(&self, app: &str, channel: &ChannelName) -> Result<Option<(EventData, Duration)>, Unavailable> {
        let key = Recipient::Channel(channel).key(app);
        let link = &self.links[self.partition(&key)];
        let key = format!("{}c:{key}", link.prefix());
        let ask = |_: &link::Line| pipe().cmd("HGET").arg(&key).arg("d").cmd("PTTL").arg(&key).clone();
        let answers = link.ask(ask).await.map_err(Unavailable)?;
        let [Value::BulkString(data), Value::Int(left)] = &*answers else { return Ok(None) };
        let data = serde_json::from_slice(data).ok().map(EventData::from_json);
        let left = u64::try_from(*left).unwrap_or(0);
        Ok(data.filter(|_| left > 0).map(|data| (data, Duration::from_millis(left))))
    }

    /// All occupied channels whose name begins with `prefix`, page by page.
    pub fn occupied(&self, app: &str, prefix: &str) -> Pages {
        Pages::new(&self.links, app, prefix)
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// Redis cannot be asked in time.
    pub async fn nodes(&self) -> Result<Vec<NodeReport>, Unavailable> {
        let ask = |line: &link::Line| {
            let mut questions = pipe();
            questions.cmd("TIME").cmd("ZRANGE").arg(format!("{}nodes", line.keys)).arg(0).arg(-1).arg("WITHSCORES");
            questions.cmd("HGETALL").arg(format!("{}info", line.keys));
            questions
        };
        let answers = self.links[0].ask(ask).await.map_err(Unavailable)?;
        let read = || {
            let [time, leases, about]: [Value; 3] = answers.try_into().ok()?;
            let (seconds, micros): (u64, u64) = redis::from_redis_value(time).ok()?;
            let leases: Vec<(String, f64)> = redis::from_redis_value(leases).ok()?;
            let leases: HashMap<String, f64> = leases.into_iter().collect();
            let about: HashMap<String, String> = redis::from_redis_value(about).ok()?;
            let now = seconds * 1000 + micros / 1000;
            Some(about.iter().filter_map(|(id, about)| self.report(id, about, *leases.get(id)?, now)).collect())
        };
        let mut nodes: Vec<NodeReport> = read().ok_or_else(|| Unavailable(answer::nonsense()))?;
        if !nodes.iter().any(|node| node.this) {
            return Err(Unavailable("the others have taken this node for dead; it is coming back".to_owned()));
        }
        nodes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(nodes)
    }

    fn report(&self, id: &str, about: &str, lease: f64, now: u64) -> Option<NodeReport> {
        let about: serde_json::Value = serde_json::from_str(about).ok()?;
        let number = |name: &str| about[name].as_u64();
        let (id, _life) = id.split_once('#')?;
        // A name under which a node was registered before it came back.
        let lease = (lease > now as f64).then_some(lease as u64)?;
        Some(NodeReport {
            name: about["name"].as_str()?.to_owned(),
            id: id.to_owned(),
            this: id == self.hub.id,
            version: about["version"].as_str()?.to_owned(),
            age_seconds: unix_ms().saturating_sub(number("started_ms")?) / 1000,
            connections: number("connections")?,
            lag_ms: Some(number("lag_us")? as f64 / 1000.0),
            seen_ms: Some((now + number("lease_ms")?).saturating_sub(lease)),
        })
    }

    /// Microseconds that Redis took to answer the last sign of life.
    pub fn lag(&self) -> Duration {
        Duration::from_micros(self.hub.lag.load(Ordering::Relaxed))
    }

    fn link(&self, app: &str, subject: Recipient<'_>) -> &Link {
        match self.links.as_slice() {
            // Without making up its name.
            [link] => link,
            links => &links[self.partition(&subject.key(app))],
        }
    }

    fn partition(&self, key: &str) -> usize {
        partition(key, self.links.len())
    }

    fn unavailable(&self, partition: usize) -> Unavailable {
        let reason = self.links[partition].obstacle();
        Unavailable(reason.unwrap_or_else(|| "Redis does not answer in time".to_owned()))
    }
}

impl fmt::Debug for RedisCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCluster")
            .field("cluster", &self.hub.cluster)
            .field("id", &self.hub.id)
            .finish_non_exhaustive()
    }
}

impl Recipient<'_> {
    fn owned(self) -> Subject {
        match self {
            Self::Channel(name) => Subject::Channel(name.clone()),
            Self::User(user_id) => Subject::User(user_id.clone()),
        }
    }

    fn key(self, app: &str) -> String {
        self.owned().key(app)
    }
}

/// What `HGET total` and `HLEN` of the members say.
fn occupancy(answers: &[Value]) -> Occupancy {
    let number = |answer: Option<&Value>| match answer {
        Some(Value::Int(number)) => usize::try_from(*number).unwrap_or(0),
        Some(Value::BulkString(text)) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0),
        _ => 0,
    };
    Occupancy { subscriptions: number(answers.first()), users: number(answers.get(1)) }
}
