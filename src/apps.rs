//! An app at work: its configuration, how to find it, and what it has used of its quotas.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foldhash::fast::RandomState;
use hmac::{Hmac, KeyInit};
use parking_lot::Mutex;
use sha2::Sha256;

use crate::config::{AppConfig, Limits};
use crate::rate_limit::{Bucket, RateLimit};

/// One application.
#[derive(Debug)]
pub struct App {
    config: AppConfig,
    /// For each key pair, in its order, what becomes of the secret before any text does: half the work for a short one.
    macs: Vec<Hmac<Sha256>>,
    connections: Arc<AtomicU64>,
    seats: Arc<AtomicU64>,
    rates: Rates,
    api_requests: Mutex<Bucket>,
    messages: Mutex<DailyQuota>,
}

/// A counted place: it exists exactly as long as what it counts.
#[derive(Debug)]
pub struct Seat(Arc<AtomicU64>);

/// How often something may be done.
#[derive(Debug)]
pub struct Rates {
    /// Requests of the API, by all backends.
    pub api_requests: RateLimit,
    /// Client events of one connection.
    pub client_events: RateLimit,
    /// Messages of one connection, of whatever kind.
    pub messages: RateLimit,
    /// Leaves of one presence channel by one connection; `None` if it may leave and join as often as it likes.
    pub presence_leaves: Option<RateLimit>,
}

#[derive(Debug, Default)]
struct DailyQuota {
    day: u64,
    used: u64,
}

impl Rates {
    fn new(limits: &Limits) -> Self {
        // Client events have a limit of their own and come on top: raising that one must not need a second setting.
        let with_events = |count: u32| count.saturating_add(limits.client_events_per_second);
        let messages = match limits.messages_per_second {
            0 => RateLimit::per_second(0),
            rate => RateLimit::new(with_events(rate), with_events(limits.message_burst)),
        };
        let leaves = limits.presence_joins_per_minute;
        Self {
            api_requests: RateLimit::per_second(limits.api_requests_per_second),
            client_events: RateLimit::per_second(limits.client_events_per_second),
            messages,
            presence_leaves: (leaves > 0).then(|| RateLimit::per_minute(leaves)),
        }
    }
}

impl App {
    /// An app that nobody uses yet.
    pub fn new(config: AppConfig) -> Self {
        Self {
            macs: config.keys.iter().map(|pair| mac_of(pair.secret.expose())).collect(),
            rates: Rates::new(&config.limits),
            config,
            connections: Arc::default(),
            seats: Arc::default(),
            api_requests: Mutex::default(),
            messages: Mutex::default(),
        }
    }

    /// Its settings.
    pub fn config(&self) -> &AppConfig {
        &self.config
    }

    /// How often something may be done.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// The id, as in the paths of the HTTP API.
    pub fn id(&self) -> &str {
        &self.config.id
    }

    /// What verifies signatures that belong to one of its keys.
    pub fn mac(&self, key: &str) -> Option<&Hmac<Sha256>> {
        self.config.keys.iter().position(|pair| pair.key == key).map(|place| &self.macs[place])
    }

    /// Counts a connection for as long as the seat lives.
    pub fn count_connection(&self) -> Seat {
        Seat::take(&self.connections, 0).expect("without a limit there is always a place")
    }

    /// Open connections.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// A place in the app's quota of connections, unless none is left.
    pub fn take_seat(&self) -> Option<Seat> {
        Seat::take(&self.seats, self.config.limits.connections)
    }

    /// Connections that count towards the quota.
    pub fn seats(&self) -> u64 {
        self.seats.load(Ordering::Relaxed)
    }

    /// Counts one API request.
    ///
    /// # Errors
    /// The time until the next one is allowed.
    pub fn take_api_request(&self, now: Instant) -> Result<(), Duration> {
        self.api_requests.lock().take(&self.rates.api_requests, now)
    }

    /// Counts messages towards the quota of the day: all of them, or none if they do not fit.
    pub fn take_messages(&self, count: u64, now: SystemTime) -> bool {
        let limit = self.config.limits.messages_per_day;
        let day = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
        let mut quota = self.messages.lock();
        if quota.day != day {
            *quota = DailyQuota { day, used: 0 };
        }
        if limit > 0 && quota.used + count > limit {
            return false;
        }
        quota.used += count;
        true
    }
}

/// HMAC-SHA256 with this secret, before any text.
pub fn mac_of(secret: &str) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length")
}

impl Seat {
    /// A place among at most `limit`; 0 = no limit.
    pub fn take(taken: &Arc<AtomicU64>, limit: u64) -> Option<Self> {
        // Counted before it is given: two clients racing for the last place must not both get it.
        let fits = |taken| (limit == 0 || taken < limit).then_some(taken + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Finds something by app id or by app key.
#[derive(Debug)]
pub struct Directory<T> {
    by_id: HashMap<String, Arc<T>, RandomState>,
    by_key: HashMap<String, Arc<T>, RandomState>,
    all: Vec<Arc<T>>,
}

impl<T> Directory<T> {
    /// Lists entries under the ids and keys of their apps, which the configuration holds to be distinct.
    pub fn new(entries: impl IntoIterator<Item = T>, config: impl Fn(&T) -> &AppConfig) -> Self {
        let mut directory = Self { by_id: HashMap::default(), by_key: HashMap::default(), all: Vec::new() };
        for entry in entries.into_iter().map(Arc::new) {
            let config = config(&entry);
            directory.by_id.insert(config.id.clone(), Arc::clone(&entry));
            for pair in &config.keys {
                directory.by_key.insert(pair.key.clone(), Arc::clone(&entry));
            }
            directory.all.push(entry);
        }
        directory
    }

    /// By app id.
    pub fn by_id(&self, id: &str) -> Option<&Arc<T>> {
        self.by_id.get(id)
    }

    /// By any of the app's keys.
    pub fn by_key(&self, key: &str) -> Option<&Arc<T>> {
        self.by_key.get(key)
    }

    /// All of them, in the order of the configuration.
    pub fn all(&self) -> &[Arc<T>] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_seat_is_given_once() {
        let mut config = AppConfig::new("1", "k", "s");
        config.limits.connections = 2;
        let app = App::new(config);
        let (first, _second) = (app.take_seat().unwrap(), app.take_seat().unwrap());
        assert!(app.take_seat().is_none());
        drop(first);
        assert!(app.take_seat().is_some());
    }

    #[test]
    fn a_quota_starts_anew_each_day() {
        let mut config = AppConfig::new("1", "k", "s");
        config.limits.messages_per_day = 3;
        let app = App::new(config);
        let noon = UNIX_EPOCH + Duration::from_secs(86_400 * 3 / 2);
        assert!(app.take_messages(2, noon));
        assert!(!app.take_messages(2, noon));
        assert!(app.take_messages(1, noon));
        assert!(app.take_messages(3, noon + Duration::from_secs(86_400)));
    }
}
