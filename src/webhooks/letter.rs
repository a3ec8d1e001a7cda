//! What is kept on disk, and in which form: JSON, so that an operator's tools can read it, too.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::source::Source;

use super::attempt::Attempt;
use super::class::Class;
use super::queue::{Delivery, Event};

/// The endpoint that something is for: by its URL, which is what stays the same when a configuration changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Address {
    /// The app's id.
    pub app: String,
    /// The endpoint's URL.
    pub url: String,
}

/// An event that was not delivered yet.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptEvent {
    pub(super) to: Address,
    pub(super) subject: Arc<str>,
    pub(super) time_ms: u64,
    /// Whose doing it is; versions before did not ask.
    #[serde(default)]
    pub(super) source: Option<u64>,
    pub(super) event: Box<RawValue>,
}

/// Which events make up one delivery.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptBatch {
    pub(super) time_ms: u64,
    pub(super) ids: Vec<u64>,
}

/// A delivery that was given up.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DeadLetter {
    /// The endpoint.
    pub to: Address,
    /// The `time_ms` of the request.
    pub time_ms: u64,
    /// Why it was given up.
    pub reason: String,
    /// How often it was tried.
    pub attempt_count: u32,
    /// The first and the last attempts.
    pub attempts: Vec<Attempt>,
    /// The events, in order.
    pub(super) events: Vec<DeadEvent>,
}

/// One of its events.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DeadEvent {
    pub(super) id: u64,
    pub(super) subject: Arc<str>,
    pub(super) event: Box<RawValue>,
}

impl Address {
    /// The URL for people: its query may hold a token.
    pub(super) fn shown(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
    }
}

impl KeptEvent {
    pub(super) fn new(to: &Address, event: &Event) -> Self {
        let Event { subject, time_ms, text, source, .. } = event;
        let source = Some(source.number());
        Self { to: to.clone(), subject: Arc::clone(subject), time_ms: *time_ms, source, event: raw(text) }
    }

    pub(super) fn into_event(self, id: u64) -> Event {
        let source = self.source.map_or_else(|| Source::subject(&self.subject), Source::from_number);
        Event { id, subject: self.subject, time_ms: self.time_ms, text: self.event.get().into(), source }
    }
}

impl DeadLetter {
    pub(super) fn new(to: &Address, delivery: &Delivery, reason: String) -> Self {
        let event =
            |event: &Event| DeadEvent { id: event.id, subject: Arc::clone(&event.subject), event: raw(&event.text) };
        Self {
            to: to.clone(),
            time_ms: delivery.time_ms,
            reason,
            attempt_count: delivery.attempt_count,
            attempts: delivery.attempts.clone(),
            events: delivery.events.iter().map(event).collect(),
        }
    }

    /// It is trusted if any of its events is.
    pub(super) fn class(&self) -> Class {
        self.events.iter().map(|event| Class::of(&event.subject)).max().unwrap_or(Class::Open)
    }

    /// The events, for another try.
    pub(super) fn into_events(self, time_ms: u64) -> Vec<Event> {
        let event = |dead: DeadEvent| {
            let source = Source::subject(&dead.subject);
            Event { id: dead.id, subject: dead.subject, time_ms, text: dead.event.get().into(), source }
        };
        self.events.into_iter().map(event).collect()
    }

    /// The JSON text of each event.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.events.iter().map(|event| event.event.get())
    }
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("events are encoded as JSON")
}

/// The body of a request: exactly what is signed (§5.1).
pub(super) fn body<'a>(time_ms: u64, events: impl Iterator<Item = &'a str>) -> String {
    format!(r#"{{"time_ms":{time_ms},"events":[{}]}}"#, events.collect::<Vec<_>>().join(","))
}
