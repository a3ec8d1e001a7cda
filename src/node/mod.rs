//! The verbs of the system, each written once: connect, subscribe, unsubscribe, trigger, sign in, terminate, ask. This is
//! the only place where configuration, signatures and state meet; edges and sessions call it and know nothing beneath.

mod connect;
mod gauges;
mod info;
mod publish;
mod subscribe;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::apps::{App, Directory};
use crate::channels::{Channels, Users};
use crate::config::AppConfig;
use crate::metrics::{AppMetrics, Metrics};
use crate::outbox::Outbox;
use crate::protocol::{ChannelName, SocketId, UserId};
use crate::webhooks::{AppWebhooks, Webhooks};

pub use connect::{Admission, Handshake, Refusal};
pub use gauges::Gauges;
pub use publish::{ClientEvent, Target, Trigger};
pub use subscribe::Request as SubscribeRequest;

/// One process, with all its apps.
#[derive(Debug)]
pub struct Node {
    tenants: Directory<Tenant>,
    webhooks: Webhooks,
    metrics: Metrics,
    seats: Arc<AtomicU64>,
    max_connections: u64,
}

/// An app and everything that is true of it on this node. Apps share nothing but the process.
#[derive(Debug)]
pub struct Tenant {
    /// The app.
    pub app: App,
    /// Its counters.
    pub metrics: AppMetrics,
    webhooks: Arc<AppWebhooks>,
    channels: Channels,
    users: Users,
}

/// A connection as the verbs see it.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its app.
    pub tenant: Arc<Tenant>,
    /// Its name.
    pub socket_id: SocketId,
    /// Its queue.
    pub outbox: Arc<Outbox>,
}

impl Node {
    /// A node for these apps that holds at most `max_connections`; 0 = no limit.
    pub fn new(apps: Vec<AppConfig>, webhooks: Webhooks, metrics: Metrics, max_connections: u64) -> Self {
        let tenants = apps.into_iter().map(|config| Tenant {
            metrics: metrics.app(&config.id),
            webhooks: webhooks.app(&config.id),
            channels: Channels::new(&config),
            users: Users::new(config.offline_delay),
            app: App::new(config),
        });
        let tenants = Directory::new(tenants, |tenant| tenant.app.config());
        Self { tenants, webhooks, metrics, seats: Arc::default(), max_connections }
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
            for channel in tenant.channels.tick(now) {
                tenant.count_changed(&channel);
            }
            for user_id in tenant.users.tick(now) {
                tenant.user_changed(&user_id);
            }
            tenant.webhooks.tick(now);
        }
    }
}

/// Something may have changed. Others may be changing it at the same moment, so webhooks look for themselves.
impl Tenant {
    fn channel_changed(&self, channel: &ChannelName) {
        self.webhooks.channel_changed(channel, || self.channels.occupancy(channel).subscriptions > 0);
    }

    fn member_changed(&self, channel: &ChannelName, user_id: &UserId) {
        self.webhooks.member_changed(channel, user_id, || self.channels.is_member(channel, user_id));
    }

    fn count_changed(&self, channel: &ChannelName) {
        self.webhooks.count_changed(channel, || self.channels.occupancy(channel).subscriptions);
    }

    fn user_changed(&self, user_id: &UserId) {
        self.webhooks.user_changed(user_id, || self.users.is_online(user_id));
    }
}
