//! Tells an app's backend what happened (§5): delayed where it may turn out not to have happened, in order, signed, tried
//! again, and kept on disk until it is delivered.
//!
//! ```text
//! node → AppWebhooks → facts: is that news? → Store: on disk → Endpoint: queue → attempt → the backend
//! ```
//!
//! `event` is what can be told, `facts` what an app's backend was told, `queue` the order in which an endpoint gets it,
//! `attempt` one request. Inbox and queues are bounded and fair: `class` says what it took to cause an event, `ledger` what is
//! dropped first, `line` who is served next, `topics` which events a later one makes pointless, and `untold` counts losses
//! for the log. `store` is what is kept: an `inbox`, and the `writer` thread that takes it to `tables` on a `disk`,
//! in the form of a `letter`. `report` is what an operator sees of all this. The node tells what has changed and never waits; each
//! endpoint has a task and a queue of its own, so whatever an endpoint does, it does to itself.

mod app;
mod attempt;
mod class;
mod disk;
mod endpoint;
mod event;
mod facts;
mod inbox;
mod ledger;
mod letter;
mod line;
mod queue;
mod report;
mod store;
mod tables;
mod topics;
mod untold;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{AppConfig, ClusterDriver, Config};
use crate::http_client::HttpClient;
use crate::metrics::Metrics;

use class::Lost;
use endpoint::Endpoint;
use facts::Fact;
use inbox::Change;
use letter::{Address, DeadLetter};
use queue::{Delivery, Event};
use store::Store;
use tables::Found;
use untold::Reporter;
use writer::Readers;

pub use app::{AppWebhooks, ClientEventNews, Decided};
pub use attempt::Attempt;
pub use report::{DeliveryReport, EndpointReport, ReplayError, State};
pub use store::StoreError;

/// The webhooks of all apps.
#[derive(Debug)]
pub struct Webhooks {
    apps: HashMap<String, Arc<AppWebhooks>>,
    endpoints: Arc<Endpoints>,
    store: Arc<Store>,
    client: HttpClient,
    reporter: Mutex<Reporter>,
}

/// Why webhooks cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be used.
    #[error("webhooks.data_dir: {}: {reason}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is an https:// endpoint, and no root certificate to recognise it by.
    #[error("apps.webhooks.url: https:// needs the system's root certificates: {0}")]
    RootCertificates(#[source] std::io::Error),
    /// The system gives no thread to write with.
    #[error("webhooks need a thread of their own: {0}")]
    Thread(#[source] std::io::Error),
}

#[derive(Debug)]
struct Endpoints {
    all: Vec<Arc<Endpoint>>,
    by_address: HashMap<Address, Arc<Endpoint>>,
    metrics: Metrics,
}

/// The tasks that deliver. Dropped, they stop where they are.
#[derive(Debug)]
pub struct Deliveries {
    tasks: JoinSet<()>,
    closing: CancellationToken,
}

impl Webhooks {
    /// Opens the store and fills the queues with what it holds. Without endpoints there is nothing to open.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(config: &Config, metrics: &Metrics) -> Result<Self, OpenError> {
        let mut all = Vec::new();
        for app in &config.apps {
            let endpoint = |webhook| Endpoint::new(app, webhook, &config.webhooks, metrics.app(&app.id));
            all.extend(app.webhooks.iter().map(endpoint).map(Arc::new));
        }
        let secure = all.iter().any(|endpoint| endpoint.address.url.starts_with("https:"));
        let client = HttpClient::new(secure).map_err(OpenError::RootCertificates)?;
        // What nobody listens to needs no place on disk.
        let directory = config.webhooks.data_dir.as_deref().filter(|_| !all.is_empty());
        let (store, found) = Store::open(directory, config.webhooks.max_unwritten)
            .map_err(|reason| OpenError::DataDir { path: directory.map(Into::into).unwrap_or_default(), reason })?;
        let by_address = all.iter().map(|endpoint| (endpoint.address.clone(), Arc::clone(endpoint))).collect();
        let endpoints = Arc::new(Endpoints { all, by_address, metrics: metrics.clone() });
        let store = Arc::new(store);
        store.start(Arc::clone(&endpoints) as Arc<dyn Readers>, config.webhooks.max_dead).map_err(OpenError::Thread)?;
        let app = |config: &AppConfig| {
            let of_app = |endpoint: &&Arc<Endpoint>| endpoint.address.app == config.id;
            let own = endpoints.all.iter().filter(of_app).map(Arc::clone).collect();
            let app = AppWebhooks::new(config, own, Arc::clone(&store), metrics.app(&config.id));
            (config.id.clone(), Arc::new(app))
        };
        let apps = config.apps.iter().map(app).collect();
        let webhooks = Self { apps, endpoints, store, client, reporter: Mutex::default() };
        let shared = config.cluster.driver == ClusterDriver::Redis;
        webhooks.take_over(found, Instant::now() + config.webhooks.restart_grace, shared);
        Ok(webhooks)
    }

    /// The part of one of the configured apps.
    ///
    /// # Panics
    /// There is no such app.
    pub fn app(&self, id: &str) -> Arc<AppWebhooks> {
        Arc::clone(&self.apps[id])
    }

    /// Starts to deliver.
    pub fn start(&self) -> Deliveries {
        if !self.endpoints.all.is_empty() {
            let (endpoints, pending) = (self.endpoints.all.len(), self.pending());
            info!(endpoints, pending, durable = self.store.is_durable(), "delivering webhooks");
        }
        let (mut tasks, closing) = (JoinSet::new(), CancellationToken::new());
        for endpoint in &self.endpoints.all {
            let (store, client) = (Arc::clone(&self.store), self.client.clone());
            tasks.spawn(Arc::clone(endpoint).run(store, client, closing.clone()));
        }
        Deliveries { tasks, closing }
    }

    /// Delivers what has not been tried yet, for as long as `patience`, and closes the store. Where nothing outlives the
    /// process, backends hear that everything has ended.
    pub async fn stop(&self, mut deliveries: Deliveries, patience: Duration) {
        if !self.store.is_durable() {
            self.apps.values().for_each(|app| app.end_all());
        }
        let orderly = async {
            self.store.sync().await;
            deliveries.closing.cancel();
            while deliveries.tasks.join_next().await.is_some() {}
        };
        let in_time = tokio::time::timeout(patience, orderly).await.is_ok();
        deliveries.tasks.shutdown().await;
        let left = self.pending();
        if left > 0 && self.store.is_durable() {
            info!(events = left, in_time, "webhooks wait on disk for the next start");
        } else if left > 0 {
            for endpoint in &self.endpoints.all {
                let lost = endpoint.queue.lock().left();
                endpoint.lost(lost, "the process ends and webhooks.data_dir is empty");
            }
        }
        let store = Arc::clone(&self.store);
        // Joins a thread that may be waiting for the disk.
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
        self.report(Instant::now(), true);
    }

    /// Logs what was lost and given up, each endpoint's at most once in ten seconds; all there is if this is the `last` call.
    /// To be called now and then.
    pub fn report(&self, now: Instant, last: bool) {
        self.reporter.lock().report(&self.endpoints.all, now, last);
    }

    /// Events of all endpoints that were not delivered yet.
    pub fn pending(&self) -> usize {
        self.endpoints.all.iter().map(|endpoint| endpoint.queue.lock().len()).sum()
    }

    /// Puts what the process before has left behind where it belongs. What it had told is over at `until`, unless it is
    /// seen to be true before.
    fn take_over(&self, found: Found, until: Instant, shared: bool) {
        let mut batch_of = HashMap::new();
        for batch in &found.batches {
            batch_of.extend(batch.ids.iter().map(|id| (*id, batch)));
        }
        // In order; what is homeless has no more to wait for, and counts as a delivery, too.
        let mut deliveries: BTreeMap<u64, (Address, u64, Vec<Event>)> = BTreeMap::new();
        for (to, event) in found.events {
            match (batch_of.get(&event.id), self.endpoints.by_address.get(&to)) {
                (None, Some(endpoint)) => {
                    let dropped = endpoint.push(event);
                    dropped.into_iter().for_each(|ids| self.store.change(Change::Forget(ids)));
                }
                (batch, _) => {
                    let (id, time_ms) = batch.map_or((event.id, event.time_ms), |batch| (batch.ids[0], batch.time_ms));
                    deliveries.entry(id).or_insert_with(|| (to, time_ms, Vec::new())).2.push(event);
                }
            }
        }
        let mut homeless: HashMap<Address, usize> = HashMap::new();
        for (to, time_ms, events) in deliveries.into_values() {
            if let Some(endpoint) = self.endpoints.by_address.get(&to) {
                endpoint.restore(time_ms, events);
                continue;
            }
            if self.apps.contains_key(&to.app) {
                self.endpoints.metrics.app(&to.app).webhooks_dead.inc();
            }
            let delivery = Delivery::untried(time_ms, events);
            let letter = DeadLetter::new(&to, &delivery, "the endpoint is no longer configured".into());
            self.store.change(Change::Bury(letter));
            *homeless.entry(to).or_default() += delivery.events.len();
        }
        for (to, events) in homeless {
            let (app, endpoint) = (&to.app, to.shown());
            warn!(app, endpoint, events, "webhooks of an endpoint that is no longer configured");
        }
        let mut told: HashMap<&str, Vec<Fact>> = HashMap::new();
        for entry in &found.told {
            let fact = entry.split_once(' ').and_then(|(app, fact)| Some((app, Fact::parse(fact)?)));
            match fact.filter(|(app, _)| self.apps.contains_key(*app)) {
                Some((app, fact)) => told.entry(app).or_default().push(fact),
                None => self.store.change(Change::Tell(entry.clone(), false)),
            }
        }
        for (app, facts) in told {
            self.apps[app].inherit(facts, until, shared);
        }
    }
}

impl Readers for Endpoints {
    fn kept(&self, to: &Address, event: Event) -> Vec<Vec<u64>> {
        self.by_address.get(to).map(|endpoint| endpoint.push(event)).unwrap_or_default()
    }

    fn revived(&self, to: &Address, time_ms: u64, events: Vec<Event>) {
        if let Some(endpoint) = self.by_address.get(to) {
            endpoint.restore(time_ms, events);
        }
    }

    fn dropped(&self, to: &Address, lost: Lost, why: &'static str) {
        if let Some(endpoint) = self.by_address.get(to) {
            endpoint.lost(lost, why);
        } else {
            // Dead letters of an endpoint that is no longer configured.
            let (count, Lost { trusted, open }) = (lost.count(), lost);
            warn!(app = to.app, endpoint = to.shown(), count, trusted, open, why, "webhook events dropped");
        }
    }

    fn collapsed(&self, to: &Address, events: u64) {
        if let Some(endpoint) = self.by_address.get(to) {
            endpoint.collapsed(events);
        }
    }

    fn facts_dropped(&self, app: &str, facts: u64) {
        // The log has one line for all endpoints of the app: the fact is the same for all of them. An app without any, or one
        // that is gone, has none to lose: what is left on disk of it is found, and removed, at every start.
        if let Some(endpoint) = self.all.iter().find(|endpoint| endpoint.address.app == app) {
            endpoint.untold.lock().facts_dropped(facts);
        }
    }

    fn store_failed(&self) {
        self.metrics.webhook_store_failed();
    }
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
