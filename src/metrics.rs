//! Typed counters and their Prometheus text. Gauges are not kept here: whoever knows the live state reports it at each
//! scrape, so that none can drift.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::protocol::{CloseReason, SubscriptionError};

/// All counters of the process. Clones are the same counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    refused: Family<RefusalLabel, Counter>,
    connections_dropped: Family<DropLabel, Counter>,
    connections_evicted: Counter,
    bodies_evicted: Counter,
    api_requests: Family<StatusLabel, Counter>,
    auth_requests: Family<OutcomeLabel, Counter>,
    opened: Family<AppLabel, Counter>,
    closed: Family<CloseLabel, Counter>,
    received: Family<AppLabel, Counter>,
    errors: Family<AppLabel, Counter>,
    pauses: Family<AppLabel, Counter>,
    published: Family<AppLabel, Counter>,
    client_events: Family<AppLabel, Counter>,
    delivered: Family<AppLabel, Counter>,
    dropped: Family<AppLabel, Counter>,
    subscriptions_refused: Family<ReasonLabel, Counter>,
    cached_events_evicted: Family<AppLabel, Counter>,
    listings_refused: Family<AppLabel, Counter>,
    presence_rejoins_hidden: Family<AppLabel, Counter>,
    webhook_events: Family<AppLabel, Counter>,
    webhooks_delivered: Family<AppLabel, Counter>,
    webhooks_failed: Family<AppLabel, Counter>,
    webhooks_dead: Family<AppLabel, Counter>,
    webhooks_dropped: Family<AppLabel, Counter>,
    webhooks_collapsed: Family<AppLabel, Counter>,
    cluster_webhook_events_lost: Family<AppLabel, Counter>,
    webhook_store_errors: Counter,
    relay: RelayMetrics,
    cluster: ClusterMetrics,
}

/// The counters of requests for sessions of other nodes.
#[derive(Debug, Clone, Default)]
pub struct RelayMetrics {
    relayed: Counter,
    failed: Counter,
}

/// The counters of a node among others.
#[derive(Debug, Clone, Default)]
pub struct ClusterMetrics {
    gaps: Counter,
    links_lost: Counter,
    nodes_removed: Counter,
    events_expired: Counter,
    client_events_refused: Counter,
}

/// The counters of one app, looked up once.
#[derive(Debug, Clone)]
pub struct AppMetrics {
    app: String,
    closed: Family<CloseLabel, Counter>,
    api_requests: Family<StatusLabel, Counter>,
    subscriptions_refused: Family<ReasonLabel, Counter>,
    /// What nearly all API requests count, from the first one on.
    api_successes: OnceLock<Counter>,
    /// Connections that were accepted.
    pub opened: Counter,
    /// Messages from clients.
    pub received: Counter,
    /// `pusher:error` events sent to clients.
    pub errors: Counter,
    /// Times that a client was not listened to for a moment, as it had sent too many messages.
    pub pauses: Counter,
    /// Events published over the HTTP API, once per channel.
    pub published: Counter,
    /// Client events passed on.
    pub client_events: Counter,
    /// Frames put into outboxes by fan-out: one per event and subscriber.
    pub delivered: Counter,
    /// Frames that a slow client missed because its outbox overflowed.
    pub dropped: Counter,
    /// Cached events that had to go before their time.
    pub cached_events_evicted: Counter,
    /// Channel listings refused because too many were being answered.
    pub listings_refused: Counter,
    /// Events for webhook endpoints, once per endpoint.
    pub webhook_events: Counter,
    /// Presence channels left and joined again above the limit, which nobody was told.
    pub presence_rejoins_hidden: Counter,
    /// Webhook requests that were answered with 2xx.
    pub webhooks_delivered: Counter,
    /// Webhook requests that failed; most are tried again.
    pub webhooks_failed: Counter,
    /// Webhooks that were given up.
    pub webhooks_dead: Counter,
    /// Events that were lost because too many waited.
    pub webhooks_dropped: Counter,
    /// Events that a later one made pointless before they were sent.
    pub webhooks_collapsed: Counter,
    /// Events that were lost because too many waited at Redis.
    pub cluster_webhook_events_lost: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AppLabel {
    app: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabel {
    code: u16,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CloseLabel {
    app: String,
    code: u16,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    app: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    app: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    app: String,
    outcome: AuthOutcome,
}

/// How a question to the auth endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthOutcome {
    /// With a signature.
    Allowed,
    /// Without one.
    Denied,
    /// Nobody could decide.
    Failed,
    /// Nobody was asked, as too many questions were under way.
    Busy,
}

impl EncodeLabelValue for AuthOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Busy => "busy",
        };
        name.encode(encoder)
    }
}

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("fanfare");
        macro_rules! counter {
            ($name:literal, $help:literal) => {{
                let family = Family::default();
                registry.register($name, $help, family.clone());
                family
            }};
        }
        macro_rules! single {
            ($name:literal, $help:literal) => {{
                let counter = Counter::default();
                registry.register($name, $help, counter.clone());
                counter
            }};
        }
        let metrics = Self {
            refused: counter!("connections_refused", "Connections refused at the handshake, by close code and reason"),
            connections_dropped: counter!(
                "connections_dropped",
                "Connections closed as soon as they were accepted, by reason"
            ),
            connections_evicted: single!(
                "connections_evicted",
                "Idle HTTP connections closed because the open-file limit was reached"
            ),
            bodies_evicted: single!("bodies_evicted", "Request bodies refused because server.body_memory was full"),
            api_requests: counter!("api_requests", "HTTP API requests, by app and status"),
            auth_requests: counter!("auth_requests", "Channels and sign-ins that the auth endpoint decided about"),
            opened: counter!("connections_opened", "Connections accepted"),
            closed: counter!("connections_closed", "Connections ended, by close code and reason; 0 = by the client"),
            received: counter!("messages_received", "Messages from clients"),
            errors: counter!("client_errors", "pusher:error events sent to clients"),
            pauses: counter!(
                "client_pauses",
                "Times that nothing was read from a client for a moment because of limits.messages_per_second"
            ),
            published: counter!("events_published", "Events published over the HTTP API, counted once per channel"),
            client_events: counter!("client_events", "Client events passed on"),
            delivered: counter!("frames_delivered", "Frames put into outboxes by fan-out"),
            dropped: counter!("frames_dropped", "Frames that slow clients missed before they were closed with 4100"),
            subscriptions_refused: counter!("subscriptions_refused", "Subscriptions refused, by reason"),
            cached_events_evicted: counter!(
                "cached_events_evicted",
                "Cached events dropped before their time because of limits.cache_size"
            ),
            listings_refused: counter!(
                "channel_listings_refused",
                "Channel listings of the HTTP API refused because too many were being answered"
            ),
            presence_rejoins_hidden: counter!(
                "presence_rejoins_hidden",
                "Presence channels left and joined again above limits.presence_joins_per_minute, which nobody was told"
            ),
            webhook_events: counter!("webhook_events", "Events for webhook endpoints, counted once per endpoint"),
            webhooks_delivered: counter!("webhooks_delivered", "Webhook requests answered with 2xx"),
            webhooks_failed: counter!(
                "webhooks_failed",
                "Webhook requests that failed, and are tried again if time is left"
            ),
            webhooks_dead: counter!("webhooks_dead", "Webhooks given up after their time, which became dead letters"),
            webhooks_dropped: counter!("webhook_events_dropped", "Webhook events lost because too many waited"),
            webhooks_collapsed: counter!(
                "webhook_events_collapsed",
                "Webhook events not sent because later ones made them pointless while they waited"
            ),
            cluster_webhook_events_lost: counter!(
                "cluster_webhook_events_lost",
                "Webhook events lost because too many waited at Redis"
            ),
            webhook_store_errors: single!("webhook_store_errors", "Failures to write webhooks to disk"),
            relay: RelayMetrics::new(&mut registry),
            cluster: ClusterMetrics::new(&mut registry),
            registry: Arc::new(Mutex::new(registry)),
        };
        for reason in ["address_limit", "address_rate", "open_files"] {
            drop(metrics.connections_dropped.get_or_create(&DropLabel { reason }));
        }
        metrics
    }

    /// The counters of requests for sessions of other nodes.
    pub fn relay(&self) -> RelayMetrics {
        self.relay.clone()
    }

    /// The counters of a node among others.
    pub fn cluster(&self) -> ClusterMetrics {
        self.cluster.clone()
    }

    /// The counters of one app, which are exported from here on, even at zero.
    pub fn app(&self, id: &str) -> AppMetrics {
        let label = AppLabel { app: id.to_owned() };
        let of = |family: &Family<AppLabel, Counter>| family.get_or_create(&label).clone();
        for reason in SubscriptionError::REASONS {
            drop(self.subscriptions_refused.get_or_create(&ReasonLabel { app: id.to_owned(), reason }));
        }
        AppMetrics {
            app: id.to_owned(),
            closed: self.closed.clone(),
            api_requests: self.api_requests.clone(),
            subscriptions_refused: self.subscriptions_refused.clone(),
            api_successes: OnceLock::new(),
            opened: of(&self.opened),
            received: of(&self.received),
            errors: of(&self.errors),
            pauses: of(&self.pauses),
            published: of(&self.published),
            client_events: of(&self.client_events),
            delivered: of(&self.delivered),
            dropped: of(&self.dropped),
            cached_events_evicted: of(&self.cached_events_evicted),
            listings_refused: of(&self.listings_refused),
            presence_rejoins_hidden: of(&self.presence_rejoins_hidden),
            webhook_events: of(&self.webhook_events),
            webhooks_delivered: of(&self.webhooks_delivered),
            webhooks_failed: of(&self.webhooks_failed),
            webhooks_dead: of(&self.webhooks_dead),
            webhooks_dropped: of(&self.webhooks_dropped),
            webhooks_collapsed: of(&self.webhooks_collapsed),
            cluster_webhook_events_lost: of(&self.cluster_webhook_events_lost),
        }
    }

    /// Counts a connection that was refused.
    pub fn refused(&self, reason: &CloseReason) {
        self.refused.get_or_create(&RefusalLabel { code: reason.code(), reason: reason.name() }).inc();
    }

    /// Counts a connection that was closed as soon as it was accepted, or a client that was refused for its address.
    pub fn connection_dropped(&self, reason: &'static str) {
        self.connections_dropped.get_or_create(&DropLabel { reason }).inc();
    }

    /// Counts idle connections that were closed to make room.
    pub fn connections_evicted(&self, count: usize) {
        self.connections_evicted.inc_by(count as u64);
    }

    /// The counter of bodies that had to make room.
    pub fn bodies_evicted(&self) -> Counter {
        self.bodies_evicted.clone()
    }

    /// Counts an API request for an app that does not exist, by its HTTP status.
    pub fn stray_api_request(&self, status: u16) {
        self.api_requests.get_or_create(&StatusLabel { app: String::new(), status }).inc();
    }

    /// Counts a failure to write webhooks to disk.
    pub fn webhook_store_failed(&self) {
        self.webhook_store_errors.inc();
    }

    /// Counts a channel or a sign-in that the auth endpoint was asked about; `app` is empty if nobody knows which it is.
    pub fn auth_request(&self, app: &str, outcome: AuthOutcome) {
        self.auth_requests.get_or_create(&OutcomeLabel { app: app.to_owned(), outcome }).inc();
    }

    /// Adds a source of gauges.
    pub fn register(&self, gauges: Box<dyn Collector>) {
        self.registry.lock().register_collector(gauges);
    }

    /// Everything as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.registry.lock()).expect("writing to a string cannot fail");
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl RelayMetrics {
    fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let relayed = "Requests of clients with HTTP transports that were passed on to the node of their session";
        registry.register("fallback_requests_relayed", relayed, metrics.relayed.clone());
        let failed = "Those among them that the other node did not answer";
        registry.register("fallback_relay_failures", failed, metrics.failed.clone());
        metrics
    }

    /// Counts a request that is passed on.
    pub fn relayed(&self) {
        self.relayed.inc();
    }

    /// Counts one that was not answered.
    pub fn failed(&self) {
        self.failed.inc();
    }
}

impl ClusterMetrics {
    fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let counters = [
            ("cluster_gaps", "Channels and users whose clients here may have missed events", &metrics.gaps),
            ("cluster_links_lost", "Connections to Redis that broke", &metrics.links_lost),
            ("cluster_nodes_removed", "Silent nodes whose contributions this one removed", &metrics.nodes_removed),
            (
                "cluster_events_expired",
                "Events that Redis did not take in time, or that were on their way to it when the connection broke",
                &metrics.events_expired,
            ),
            (
                "cluster_client_events_refused",
                "Client events refused because Redis was slower than their connection sent them",
                &metrics.client_events_refused,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        metrics
    }

    /// Counts a client event that was refused.
    pub fn client_event_refused(&self) {
        self.client_events_refused.inc();
    }

    /// Counts a topic whose events may be incomplete here.
    pub fn gap(&self) {
        self.gaps.inc();
    }

    /// Counts a connection that broke.
    pub fn link_lost(&self) {
        self.links_lost.inc();
    }

    /// Counts a silent node that was removed.
    pub fn node_removed(&self) {
        self.nodes_removed.inc();
    }

    /// Counts events that were not published, or not for certain.
    pub fn events_expired(&self, events: u64) {
        self.events_expired.inc_by(events);
    }
}

impl AppMetrics {
    /// Counts an API request by its HTTP status.
    pub fn api_request(&self, status: u16) {
        let counter = || self.api_requests.get_or_create(&StatusLabel { app: self.app.clone(), status }).clone();
        match status {
            200 => self.api_successes.get_or_init(counter).inc(),
            _ => counter().inc(),
        };
    }

    /// Counts subscriptions that were refused for the same reason.
    pub fn subscriptions_refused(&self, reason: &'static str, count: u64) {
        debug_assert!(SubscriptionError::REASONS.contains(&reason), "{reason} is not exported at zero");
        self.subscriptions_refused.get_or_create(&ReasonLabel { app: self.app.clone(), reason }).inc_by(count);
    }

    /// Counts the end of a connection: by the server's close code and reason, or 0 if the client closed or vanished.
    pub fn closed(&self, reason: Option<&CloseReason>) {
        let (code, reason) = reason.map_or((0, "client"), |reason| (reason.code(), reason.name()));
        self.closed.get_or_create(&CloseLabel { app: self.app.clone(), code, reason }).inc();
    }
}
