//! What an operator sees of webhooks, and may do with them.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::attempt::Attempt;
use super::endpoint::Endpoint;
use super::inbox::Change;
use super::letter::{Address, DeadLetter, body};
use super::queue::Delivery;
use super::store::StoreError;
use super::{Webhooks, unix_ms};

/// An endpoint and how it goes.
#[derive(Debug, Serialize)]
pub struct EndpointReport {
    /// The app's id.
    pub app: String,
    /// The URL.
    pub url: String,
    /// Events that wait.
    pub pending: usize,
    /// Bytes that they take.
    pub pending_bytes: usize,
    /// Requests that succeeded since the start.
    pub delivered: u64,
    /// Requests that failed since the last one that succeeded.
    pub failures_in_a_row: u32,
    /// When one last succeeded, in milliseconds since 1970.
    pub last_success_ms: Option<u64>,
    /// The last one that failed.
    pub last_failure: Option<Attempt>,
}

/// A delivery that is under way or was given up.
#[derive(Debug, Serialize)]
pub struct DeliveryReport {
    /// As in the header `X-Fanfare-Delivery`.
    pub id: String,
    /// The app's id.
    pub app: String,
    /// The endpoint's URL.
    pub url: String,
    /// What will happen to it.
    pub state: State,
    /// The `time_ms` of the request.
    pub time_ms: u64,
    /// How often it was tried.
    pub attempt_count: u32,
    /// The first and the last attempts.
    pub attempts: Vec<Attempt>,
    /// The events, as they are sent.
    pub events: Vec<Box<RawValue>>,
}

/// What will happen to a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum State {
    /// It is being sent.
    Sending,
    /// It will be sent again.
    Retrying {
        /// In so many milliseconds.
        in_ms: u64,
    },
    /// It was given up.
    Dead {
        /// Why.
        reason: String,
    },
}

/// Why something cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// No dead letter has this id.
    #[error("no dead letter has the id {0}")]
    Unknown(String),
    /// Its endpoint is no longer in the configuration.
    #[error("no endpoint {0} is configured any more")]
    NoEndpoint(String),
    /// There is no such endpoint to send a test to.
    #[error("no endpoint of that app and URL is configured")]
    NothingToTest,
    /// The store does not answer.
    #[error("the store of webhooks cannot be read: {0}")]
    Store(#[from] StoreError),
}

impl Webhooks {
    /// All endpoints, in the order of the configuration.
    pub fn endpoints(&self) -> Vec<EndpointReport> {
        let report = |endpoint: &Arc<Endpoint>| {
            let history = endpoint.history.lock().clone();
            let queue = endpoint.queue.lock();
            EndpointReport {
                app: endpoint.address.app.clone(),
                url: endpoint.address.url.clone(),
                pending: queue.len(),
                pending_bytes: queue.bytes(),
                delivered: history.delivered,
                failures_in_a_row: queue.failures_in_a_row(),
                last_success_ms: history.last_success_ms,
                last_failure: history.last_failure,
            }
        };
        self.endpoints.all.iter().map(report).collect()
    }

    /// The oldest deliveries under way and the newest dead letters, at most `limit` of each; those of one app, if it is
    /// named.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn deliveries(&self, app: Option<&str>, limit: usize) -> Result<Vec<DeliveryReport>, StoreError> {
        let of_app = |candidate: &str| app.is_none_or(|app| app == candidate);
        let mut reports = Vec::new();
        for endpoint in self.endpoints.all.iter().filter(|endpoint| of_app(&endpoint.address.app)) {
            let queue = endpoint.queue.lock();
            let oldest = queue.deliveries().take(limit);
            reports.extend(oldest.map(|(delivery, due)| self.open_report(endpoint, delivery, due)));
        }
        reports.sort_by_key(|report| report.time_ms);
        reports.truncate(limit);
        let dead = self.store.dead(limit, |letter| of_app(&letter.to.app))?;
        reports.extend(dead.into_iter().map(|(id, letter)| self.dead_report(id, &letter)));
        Ok(reports)
    }

    /// One delivery.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn delivery(&self, id: &str) -> Result<Option<DeliveryReport>, StoreError> {
        let Some(number) = self.store.parse_id(id) else { return Ok(None) };
        for endpoint in &self.endpoints.all {
            let queue = endpoint.queue.lock();
            if let Some(delivery) = queue.delivery(number) {
                return Ok(Some(self.open_report(endpoint, delivery, queue.next_attempt(number))));
            }
        }
        Ok(self.store.dead_letter(number)?.map(|letter| self.dead_report(number, &letter)))
    }

    /// Sends a dead letter once more, as a new webhook about the same events.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn replay(&self, id: &str) -> Result<(), ReplayError> {
        let unknown = || ReplayError::Unknown(id.to_owned());
        let number = self.store.parse_id(id).ok_or_else(unknown)?;
        let letter = self.store.dead_letter(number)?.ok_or_else(unknown)?;
        if !self.endpoints.by_address.contains_key(&letter.to) {
            return Err(ReplayError::NoEndpoint(letter.to.url));
        }
        let (done, revived) = oneshot::channel();
        self.store.change(Change::Revive(number, done));
        // Somebody else may have been faster.
        if revived.await == Ok(true) { Ok(()) } else { Err(unknown()) }
    }

    /// The ids of all dead letters, of one app if it is named; the oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn dead_letters(&self, app: Option<&str>) -> Result<Vec<String>, StoreError> {
        let of_app = |letter: &DeadLetter| app.is_none_or(|app| app == letter.to.app);
        let letters = self.store.dead(usize::MAX, of_app)?;
        Ok(letters.iter().rev().map(|(id, _)| self.store.delivery_id(*id)).collect())
    }

    /// Sends an event that did not happen, signed like any other: to the endpoints of this app and with this URL, or to
    /// all. It is tried once, and kept nowhere. Answers with each URL and what came of it.
    ///
    /// # Errors
    /// [`ReplayError::NothingToTest`].
    pub async fn test(
        &self,
        app: Option<&str>,
        url: Option<&str>,
        event: &RawValue,
    ) -> Result<Vec<(String, Attempt)>, ReplayError> {
        let chosen = |endpoint: &&Arc<Endpoint>| {
            let Address { app: own_app, url: own_url } = &endpoint.address;
            app.is_none_or(|app| app == own_app) && url.is_none_or(|url| url == own_url)
        };
        let mut answers = Vec::new();
        for endpoint in self.endpoints.all.iter().filter(chosen) {
            let body = body(unix_ms(), [event.get()].into_iter());
            let id = format!("test-{:016x}", rand::random::<u64>());
            answers.push((endpoint.address.url.clone(), endpoint.target.send(&self.client, &id, body).await));
        }
        match answers.is_empty() {
            true => Err(ReplayError::NothingToTest),
            false => Ok(answers),
        }
    }

    fn open_report(&self, endpoint: &Endpoint, delivery: &Delivery, due: Option<Instant>) -> DeliveryReport {
        let state = match due {
            None => State::Sending,
            Some(due) => State::Retrying { in_ms: due.saturating_duration_since(Instant::now()).as_millis() as u64 },
        };
        DeliveryReport {
            id: self.store.delivery_id(delivery.events[0].id),
            app: endpoint.address.app.clone(),
            url: endpoint.address.url.clone(),
            state,
            time_ms: delivery.time_ms,
            attempt_count: delivery.attempt_count,
            attempts: delivery.attempts.clone(),
            events: raw(delivery.events.iter().map(|event| &*event.text)),
        }
    }

    fn dead_report(&self, id: u64, letter: &DeadLetter) -> DeliveryReport {
        DeliveryReport {
            id: self.store.delivery_id(id),
            app: letter.to.app.clone(),
            url: letter.to.url.clone(),
            state: State::Dead { reason: letter.reason.clone() },
            time_ms: letter.time_ms,
            attempt_count: letter.attempt_count,
            attempts: letter.attempts.clone(),
            events: raw(letter.texts()),
        }
    }
}

fn raw<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Box<RawValue>> {
    texts.filter_map(|text| RawValue::from_string(text.to_owned()).ok()).collect()
}
