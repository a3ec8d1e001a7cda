//! The verbs of the system, each written once: connect, subscribe, unsubscribe, trigger, sign in, terminate, ask. This is
//! the only place where configuration, signatures and state meet; edges and sessions call it and know nothing beneath.

mod connect;
mod gauges;
mod info;
mod listing;
mod publish;
mod refusal;
mod subscribe;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Semaphore;
use tracing::warn;

use crate::addresses::Addresses;
use crate::apps::{App, Directory};
use crate::channels::{Channels, Users};
use crate::cluster::{Cause, Cluster, NodeReport, Recipient, RedisCluster, Share, Unavailable};
use crate::config::{ClusterDriver, Config};
use crate::metrics::{AppMetrics, Metrics};
use crate::outbox::Outbox;
use crate::protocol::{ChannelName, SocketId, UserId};
use crate::shutdown::Shutdown;
use crate::socket::PeerAddress;
use crate::source::Source;
use crate::subscription_memory::{Account, AppSubscriptionMemory, SubscriptionMemory};
use crate::webhooks::{AppWebhooks, Webhooks};

use listing::Places;

pub use connect::{Admission, Handshake};
pub use gauges::Gauges;
pub use listing::{Listing, TooManyListings};
pub use publish::{ClientEvent, Target, Trigger};
pub use refusal::{Refusal, Stranger};
pub use subscribe::{Request as SubscribeRequest, Subscription};

/// One process, with all its apps.
#[derive(Debug)]
pub struct Node {
    tenants: Directory<Tenant>,
    webhooks: Webhooks,
    metrics: Metrics,
    cluster: Cluster,
    started: Instant,
    seats: Arc<AtomicU64>,
    max_connections: u64,
    /// Clients by address.
    clients: Arc<Addresses>,
    listings: Places,
    /// Held while channels are walked over: however many listings there are, they have one thread's time at most.
    walking: Arc<Semaphore>,
    subscription_memory: Arc<SubscriptionMemory>,
}

/// An app and everything that is true of it on this node. Apps share nothing but the process.
#[derive(Debug)]
pub struct Tenant {
    /// The app.
    pub app: Arc<App>,
    /// Its counters.
    pub metrics: AppMetrics,
    webhooks: Arc<AppWebhooks>,
    channels: Arc<Channels>,
    users: Arc<Users>,
    listings: Places,
    subscription_memory: Arc<AppSubscriptionMemory>,
}

/// A connection as the verbs see it.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its app.
    pub tenant: Arc<Tenant>,
    /// Its name.
    pub socket_id: SocketId,
    /// Where it is, for the log.
    pub peer: PeerAddress,
    /// Its queue.
    pub outbox: Arc<Outbox>,
}

impl Node {
    /// A node for the apps of this configuration that holds at most `max_connections`; 0 = no limit. Clients are counted in
    /// `clients` by their address.
    ///
    /// # Errors
    /// A setting of the cluster that cannot be used, and why.
    pub fn new(
        config: &Config,
        webhooks: Webhooks,
        metrics: Metrics,
        shutdown: &Shutdown,
        max_connections: u64,
        clients: Arc<Addresses>,
    ) -> Result<Self, String> {
        let patience = (config.cluster.driver == ClusterDriver::Redis).then_some(config.cluster.timeout);
        let subscription_memory = SubscriptionMemory::new(config.server.subscription_memory, config.apps.len());
        let tenants = config.apps.iter().map(|app| {
            let metrics = metrics.app(&app.id);
            let delivered = &metrics.delivered;
            let subscription_memory = subscription_memory.app();
            let channels = Channels::new(app, patience, delivered.clone(), shutdown.clone());
            let channels = channels.counting_evicted(metrics.cached_events_evicted.clone());
            Tenant {
                webhooks: webhooks.app(&app.id),
                channels: Arc::new(channels.charging(Arc::clone(&subscription_memory))),
                listings: Places::new(app.limits.channel_listings),
                subscription_memory,
                users: Arc::new(Users::new(app.offline_delay, patience.is_some(), delivered.clone())),
                app: Arc::new(App::new(app.clone())),
                metrics,
            }
        });
        let tenants = Directory::new(tenants, |tenant| tenant.app.config());
        let cluster = match config.cluster.driver {
            ClusterDriver::Single => Cluster::Single,
            ClusterDriver::Redis => {
                let shares = tenants.all().iter().map(|tenant| tenant.share()).collect();
                Cluster::Redis(RedisCluster::new(config, shares, &metrics)?)
            }
        };
        let started = Instant::now();
        let listings = Places::new(config.server.channel_listings);
        Ok(Self {
            tenants,
            webhooks,
            metrics,
            cluster,
            started,
            seats: Arc::default(),
            max_connections,
            clients,
            listings,
            walking: Arc::new(Semaphore::new(1)),
            subscription_memory,
        })
    }

    /// Whether there are other nodes.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// All nodes there are.
    ///
    /// # Errors
    /// The others cannot be asked about.
    pub async fn nodes(&self) -> Result<Vec<NodeReport>, Unavailable> {
        match &self.cluster {
            Cluster::Redis(redis) => redis.nodes().await,
            Cluster::Single => Ok(vec![self.report("this node")]),
        }
    }

    /// What this node knows of itself.
    pub fn report(&self, name: &str) -> NodeReport {
        NodeReport {
            name: name.to_owned(),
            id: name.to_owned(),
            this: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            age_seconds: self.started.elapsed().as_secs(),
            connections: self.connections(),
            lag_ms: None,
            seen_ms: None,
        }
    }

    /// Apps by id and by key.
    pub fn tenants(&self) -> &Directory<Tenant> {
        &self.tenants
    }

    /// The webhooks of all apps.
    pub fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// The counters of the process.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Open connections of all apps.
    pub fn connections(&self) -> u64 {
        self.seats.load(Ordering::Relaxed)
    }

    /// Connections this node holds at most; 0 = no limit.
    pub fn max_connections(&self) -> u64 {
        self.max_connections
    }

    /// Does what has become due: throttled counts, expired cache, users whose offline delay is over, webhooks about what
    /// has ended. Called ten times a second.
    pub fn tick(&self, now: Instant) {
        for tenant in self.tenants.all() {
            let (app, redis) = (tenant.app.id(), self.cluster.redis());
            let is_reachable =
                |channel: &ChannelName| redis.is_none_or(|redis| redis.is_reachable(app, Recipient::Channel(channel)));
            let due = tenant.channels.tick(now, is_reachable);
            for channel in &due.counted {
                tenant.count_changed(channel, None);
            }
            for channel in &due.touched {
                self.touch(tenant, Recipient::Channel(channel), Cause::Node);
            }
            for (channel, left) in &due.left {
                self.unsubscribed(tenant, channel, left.socket_id, left.source, &left.changed);
            }
            self.note_not_subscribed(tenant, due.unconfirmed, due.cut_off);
            for user_id in tenant.users.tick(now) {
                tenant.user_changed(&user_id, None);
            }
            tenant.webhooks.tick(now);
        }
        self.webhooks.report(now, false);
    }
}

impl Node {
    /// The other nodes must hear of it.
    fn touch(&self, tenant: &Tenant, subject: Recipient<'_>, cause: Cause) {
        if let Cluster::Redis(redis) = &self.cluster {
            redis.touch(tenant.app.id(), subject, cause);
        }
    }

    /// Counts and logs subscriptions that the cluster did not take in time, by what kept it from that.
    fn note_not_subscribed(&self, tenant: &Tenant, unconfirmed: u64, cut_off: u64) {
        tenant.metrics.errors.inc_by(unconfirmed + cut_off);
        tenant.metrics.subscriptions_refused("cluster_slow", unconfirmed);
        tenant.metrics.subscriptions_refused("cluster", cut_off);
        let app = tenant.app.id();
        let Some(redis) = self.cluster.redis() else { return };
        if unconfirmed > 0 {
            let (refused, pending, lag) = (unconfirmed, redis.pending(), redis.lag());
            warn!(
                app,
                refused,
                pending,
                ?lag,
                "subscriptions refused: Redis did not confirm them within cluster.timeout"
            );
        }
        if cut_off > 0 {
            let reason = redis.obstacle();
            warn!(app, refused = cut_off, reason, "subscriptions refused: this node is cut off from the cluster");
        }
    }
}

impl Tenant {
    /// The memory account of a new connection's subscriptions.
    pub fn account(&self) -> Account {
        self.subscription_memory.account()
    }

    fn share(&self) -> Share {
        Share {
            app: Arc::clone(&self.app),
            channels: Arc::clone(&self.channels),
            users: Arc::clone(&self.users),
            webhooks: Arc::clone(&self.webhooks),
            metrics: self.metrics.clone(),
        }
    }
}

impl Client {
    /// Whose doing it is what this client causes: clients of the same source share what they may leave in a queue.
    fn source(&self) -> Source {
        Source::of(self.peer.network(), self.socket_id)
    }

    fn cause(&self) -> Cause {
        Cause::Client(self.source(), self.socket_id)
    }
}

/// Something may have changed, by this source if it is known. Others may be changing it at the same moment, so webhooks look
/// for themselves.
impl Tenant {
    fn channel_changed(&self, channel: &ChannelName, source: Source) {
        let is_occupied = || self.channels.occupancy(channel).subscriptions > 0;
        self.webhooks.channel_changed(channel, Some(source), is_occupied);
    }

    fn member_changed(&self, channel: &ChannelName, user_id: &UserId, source: Source) {
        self.webhooks.member_changed(channel, user_id, Some(source), || self.channels.is_member(channel, user_id));
    }

    fn count_changed(&self, channel: &ChannelName, source: Option<Source>) {
        self.webhooks.count_changed(channel, source, || self.channels.occupancy(channel).subscriptions);
    }

    fn user_changed(&self, user_id: &UserId, source: Option<Source>) {
        self.webhooks.user_changed(user_id, source, || self.users.is_online(user_id));
    }
}
