//! What all links share: the settings, the apps, and what this node has of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::{debug, error, info, warn};

use crate::apps::App;
use crate::channels::{Answer, Channels, Contribution, Life, News, Outcome, Position, Users};
use crate::config::{Config, OnGap};
use crate::metrics::{AppMetrics, ClusterMetrics, Metrics};
use crate::protocol::{ChannelName, UserId};
use crate::source::Source;
use crate::webhooks::{AppWebhooks, Decided};

use super::servers::{Reason, Servers};
use super::topic::{Subject, Topic, parse_key, partition};

/// What this node has of an app.
#[derive(Debug)]
pub struct Share {
    /// The app.
    pub app: Arc<App>,
    /// Its channels here.
    pub channels: Arc<Channels>,
    /// Its users here.
    pub users: Arc<Users>,
    /// Whom to tell.
    pub webhooks: Arc<AppWebhooks>,
    /// Its counters.
    pub metrics: AppMetrics,
}

/// See the module.
pub(super) struct Hub {
    pub(super) cluster: String,
    /// What this node is called where nodes are listed.
    pub(super) name: String,
    /// The name, and something that no other process has.
    pub(super) id: String,
    /// The URL at which other nodes reach this one.
    pub(super) address: String,
    pub(super) partitions: usize,
    /// Apps of other nodes, which the log has told of.
    strange_apps: Mutex<BTreeSet<String>>,
    /// Partitions that this node is connected to.
    pub(super) connected: AtomicUsize,
    pub(super) lease: Duration,
    pub(super) timeout: Duration,
    pub(super) replay: Duration,
    pub(super) replay_events: usize,
    pub(super) restart_grace: Duration,
    /// Topics that may wait for one connection before its further subscriptions are refused.
    pub(super) pending_per_connection: usize,
    on_gap: OnGap,
    pub(super) servers: Servers,
    shares: Vec<Share>,
    by_id: HashMap<String, usize>,
    pub(super) metrics: ClusterMetrics,
    /// Of the last sign of life, there and back: microseconds.
    pub(super) lag: AtomicU64,
    started: Instant,
}

impl Hub {
    /// # Errors
    /// The file with the certificates cannot be read.
    pub(super) fn new(
        config: &Config,
        shares: Vec<Share>,
        metrics: &Metrics,
        partitions: usize,
    ) -> Result<Self, Reason> {
        let cluster = &config.cluster;
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = if cluster.node.is_empty() { host().trim().to_owned() } else { cluster.node.clone() };
        let name = if name.is_empty() { "node".to_owned() } else { name };
        let by_id = shares.iter().enumerate().map(|(index, share)| (share.app.id().to_owned(), index)).collect();
        Ok(Self {
            cluster: cluster.id.clone(),
            id: format!("{name}-{:08x}", rand::random::<u32>()),
            name,
            address: cluster.address.clone(),
            partitions,
            strange_apps: Mutex::default(),
            connected: AtomicUsize::new(0),
            lease: cluster.lease,
            timeout: cluster.timeout,
            replay: cluster.replay,
            replay_events: cluster.replay_events,
            restart_grace: config.webhooks.restart_grace,
            pending_per_connection: cluster.pending_per_connection,
            on_gap: cluster.on_gap,
            servers: Servers::new(cluster, patience(cluster.lease))?,
            shares,
            by_id,
            metrics: metrics.cluster(),
            lag: AtomicU64::new(0),
            started: Instant::now(),
        })
    }

    /// How long an answer of Redis may take before it counts as lost.
    pub(super) fn patience(&self) -> Duration {
        patience(self.lease)
    }

    /// How long the nodes have to come back into a new generation.
    pub(super) fn settling(&self) -> Duration {
        self.lease
    }

    /// The place of an app.
    pub(super) fn app(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// What a topic is called at Redis.
    pub(super) fn key(&self, topic: &Topic) -> String {
        topic.subject.key(self.shares[topic.app].app.id())
    }

    /// The topics of a partition that this node has a share in.
    pub(super) fn topics(&self, of: usize) -> Vec<Topic> {
        let topics = self.shares.iter().enumerate().flat_map(|(app, share)| {
            let channels = share.channels.shared().into_iter().map(Subject::Channel);
            let users = share.users.shared().into_iter().map(Subject::User);
            channels.chain(users).map(move |subject| Topic { app, subject })
        });
        topics.filter(|topic| self.partitions == 1 || partition(&self.key(topic), self.partitions) == of).collect()
    }

    /// What to tell about a topic.
    pub(super) fn contribute(&self, topic: &Topic, life: Life) -> Option<Contribution> {
        let share = &self.shares[topic.app];
        match &topic.subject {
            Subject::Channel(name) => share.channels.contribute(name, life),
            Subject::User(user_id) => share.users.contribute(user_id, life),
        }
    }

    /// What the cluster says to it.
    pub(super) fn settle(&self, topic: &Topic, life: Life, contribution: &Contribution, answer: Answer) -> Outcome {
        let share = &self.shares[topic.app];
        match &topic.subject {
            Subject::Channel(name) => share.channels.settle(name, life, contribution, answer, Instant::now()),
            Subject::User(user_id) => share.users.settle(user_id, life, contribution, answer),
        }
    }

    /// News of a topic.
    pub(super) fn hear(&self, key: &str, life: Life, position: Position, news: News) -> Option<(Topic, Outcome)> {
        let (app, is_channel, name) = parse_key(key)?;
        let app = self.app(app)?;
        let share = &self.shares[app];
        let (outcome, again) = match is_channel {
            true => {
                let outcome = share.channels.hear(name, life, position, news, Instant::now());
                // Nearly always that is all.
                let name = if outcome.again { ChannelName::parse(name, usize::MAX).ok() } else { None };
                (outcome, name.map(Subject::Channel))
            }
            false => {
                let user_id = UserId::new(name);
                let outcome = share.users.hear(&user_id, life, position, news);
                let again = outcome.again;
                (outcome, again.then_some(Subject::User(user_id)))
            }
        };
        again.map(|subject| (Topic { app, subject }, outcome))
    }

    /// Counts what came of an answer, and reports what is lost.
    pub(super) fn count(&self, topic: &Topic, outcome: &Outcome) {
        let share = &self.shares[topic.app];
        if !outcome.gap {
            return;
        }
        self.metrics.gap();
        debug!(topic = self.key(topic), "events may be missing");
        if self.on_gap == OnGap::Reconnect {
            match &topic.subject {
                Subject::Channel(name) => share.channels.send_away(name),
                Subject::User(user_id) => share.users.send_away(user_id),
            }
        }
    }

    /// Cached events of an app that Redis had to drop before their time.
    pub(super) fn evicted(&self, app: &str, evicted: u64) {
        let Some(share) = self.app(app).map(|index| &self.shares[index]) else { return };
        share.metrics.cached_events_evicted.inc_by(evicted);
        let limit = share.app.config().limits.cache_size;
        warn!(app, evicted, limit, "cached events dropped at Redis: the app is over its limits.cache_size");
    }

    /// Webhook events that Redis had to drop, because too many of an app's class waited there.
    pub(super) fn edges_lost(&self, queue: &str, lost: u64) {
        let (class, app) = queue.split_once(':').unwrap_or_default();
        error!(app, class, lost, "webhook events lost: the cluster queue is full");
        if let Some(index) = self.app(app) {
            self.shares[index].metrics.cluster_webhook_events_lost.inc_by(lost);
        }
    }

    /// Whether a queue of webhook events is that of an app in this node's configuration. While an app is added or removed node
    /// by node, it may be in that of others only.
    pub(super) fn knows_app_of(&self, queue: &str) -> bool {
        let app = queue.split_once(':').map_or(queue, |(_, app)| app);
        let knows = self.app(app).is_some();
        // Once: they are seen again whenever the duty to tell backends changes hands.
        if !knows && self.strange_apps.lock().insert(app.to_owned()) {
            warn!(app, "webhook events wait at Redis for a node that has this app in its configuration");
        }
        knows
    }

    /// Redis answers. If it does so everywhere, clients whose subscription had failed are asked to connect anew.
    pub(super) fn rescue(&self) {
        if self.connected.load(Ordering::Relaxed) < self.partitions {
            return;
        }
        let rescued: usize = self.shares.iter().map(|share| share.channels.rescue()).sum();
        if rescued > 0 {
            info!(rescued, "clients whose subscription had failed are asked to reconnect");
        }
    }

    /// Tells backends what was decided, and returns when that is on disk.
    pub(super) async fn tell(&self, edges: &[String]) {
        for edge in edges {
            if self.tell_one(edge).is_none() {
                warn!(edge, "a webhook event of the cluster makes no sense; are all nodes of the same version?");
            }
        }
        if let Some(share) = self.shares.first() {
            share.webhooks.kept().await;
        }
    }

    fn tell_one(&self, edge: &str) -> Option<()> {
        let (kind, key, subject, source): (String, String, String, String) = serde_json::from_str(edge).ok()?;
        let (app, is_channel, name) = parse_key(&key)?;
        let webhooks = &self.shares[self.app(app)?].webhooks;
        let (channel, user_id);
        let decided = match is_channel {
            true => {
                channel = ChannelName::parse(name, usize::MAX).ok()?;
                user_id = UserId::new(&subject);
                match kind.as_str() {
                    "member_added" => Decided::MemberAdded(&channel, &user_id),
                    "member_removed" => Decided::MemberRemoved(&channel, &user_id),
                    "channel_occupied" => Decided::Occupied(&channel),
                    "channel_vacated" => Decided::Vacated(&channel),
                    "cache_miss" => Decided::CacheMiss(&channel),
                    "subscription_count" => Decided::Count(&channel, subject.parse().ok()?),
                    _ => return None,
                }
            }
            false => {
                user_id = UserId::new(name);
                match kind.as_str() {
                    "user_online" => Decided::Online(&user_id),
                    "user_offline" => Decided::Offline(&user_id),
                    _ => return None,
                }
            }
        };
        webhooks.decided(&decided, source.parse().ok().map(Source::from_number));
        Some(())
    }

    /// What the scripts have to know of the apps.
    pub(super) fn rules(&self) -> String {
        let rules = self.shares.iter().map(|share| {
            let config = share.app.config();
            let limits = &config.limits;
            let ms = |duration: Duration| duration.as_millis() as u64;
            let rules = json!({
                "presence_members": limits.presence_members,
                "cache_size": (limits.cache_size / self.partitions).max(1),
                "webhooks": share.webhooks.has_endpoints(),
                "webhook_delay": ms(config.webhook_delay),
                "offline_delay": ms(config.offline_delay),
                "counts": config.subscription_counts,
                "count_threshold": limits.subscription_count_threshold,
                "count_interval": ms(limits.subscription_count_interval),
            });
            (config.id.clone(), rules)
        });
        Value::Object(rules.collect()).to_string()
    }

    /// Connections of each app that count towards its quota.
    pub(super) fn connections(&self) -> impl Iterator<Item = (&str, u64)> {
        self.shares.iter().map(|share| (share.app.id(), share.app.seats()))
    }

    /// What other nodes see of this one.
    pub(super) fn about(&self, server: &str) -> String {
        json!({
            "name": self.name,
            "address": self.address,
            "version": env!("CARGO_PKG_VERSION"),
            "started_ms": unix_ms() - self.started.elapsed().as_millis() as u64,
            "connections": self.shares.iter().map(|share| share.app.connections()).sum::<u64>(),
            "lag_us": self.lag.load(Ordering::Relaxed),
            "lease_ms": self.lease.as_millis() as u64,
            "server": server,
        })
        .to_string()
    }
}

fn patience(lease: Duration) -> Duration {
    (lease / 2).max(Duration::from_millis(500))
}

/// Milliseconds of Unix time.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
