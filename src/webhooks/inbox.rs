//! What waits to be written.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::letter::{Address, DeadLetter};
use super::queue::Event;
use super::unix_ms;

/// Bytes that may wait for the disk. Above it the oldest change is dropped: a new event is lost then, and counted; what
/// was to be forgotten is delivered again after a restart.
const MAX_INBOX: usize = 64 * 1024 * 1024;

/// Bytes that a change takes besides its text, roughly.
const OVERHEAD: usize = 200;

/// Something to write.
pub(super) enum Change {
    /// A new event.
    Keep(Address, Event),
    /// These events now make up one delivery; the sender is told when that is certain.
    Batch(Vec<u64>, u64, oneshot::Sender<()>),
    /// These events were delivered or dropped; the first one's delivery is over.
    Forget(Vec<u64>),
    /// These events were given up.
    Bury(DeadLetter),
    /// This dead letter gets another try, if its endpoint still exists.
    Revive(u64, oneshot::Sender<bool>),
    /// A backend is told that something is true, or no longer.
    Tell(String, bool),
    /// Everything before it has been written when the sender is told.
    Sync(oneshot::Sender<()>),
}

/// Something that happened, on its way to the endpoints that want to hear of it.
#[derive(Debug, Clone)]
pub(super) struct News {
    /// What it is about; see [`super::event::Happening::subject`].
    pub(super) subject: Arc<str>,
    /// The JSON object.
    pub(super) text: Arc<str>,
    /// What the backend is told by it: a fact with the app's id in front, and whether it is true.
    pub(super) told: Option<(String, bool)>,
}

/// What waits for the writer; see [`MAX_INBOX`] for what happens when it is too much.
pub(super) struct Inbox {
    pile: Mutex<Pile>,
    filled: Condvar,
}

#[derive(Default)]
struct Pile {
    changes: VecDeque<Change>,
    bytes: usize,
    /// Events that were dropped, by endpoint.
    dropped: HashMap<Address, usize>,
    /// The number of the next event.
    next_id: u64,
    /// When the last event came about, in milliseconds since 1970.
    last_ms: u64,
    closed: bool,
}

impl Inbox {
    /// An empty one, in which the first event gets the number `next_id`.
    pub(super) fn new(next_id: u64) -> Self {
        Self { pile: Mutex::new(Pile { next_id, ..Pile::default() }), filled: Condvar::new() }
    }

    /// Adds an event for each address, and what the backend now believes. Events get their numbers here, and their time,
    /// so that both tell the order.
    pub(super) fn keep(&self, to: &[&Address], news: News) {
        let News { subject, text, told } = news;
        let mut pile = self.pile.lock();
        // The system's clock may be set back.
        pile.last_ms = pile.last_ms.max(unix_ms());
        for address in to {
            let (id, time_ms) = (pile.next_id, pile.last_ms);
            pile.next_id += 1;
            let event = Event { id, subject: Arc::clone(&subject), time_ms, text: Arc::clone(&text) };
            pile.push(Change::Keep((*address).clone(), event));
        }
        if let Some((fact, is_true)) = told {
            pile.push(Change::Tell(fact, is_true));
        }
        drop(pile);
        self.filled.notify_one();
    }

    /// Everything that has come up, once there is something, and the events that were dropped; `None` at the end.
    pub(super) fn take(&self) -> Option<(VecDeque<Change>, HashMap<Address, usize>)> {
        let mut pile = self.pile.lock();
        while pile.changes.is_empty() {
            if pile.closed {
                return None;
            }
            self.filled.wait(&mut pile);
        }
        pile.bytes = 0;
        Some((std::mem::take(&mut pile.changes), std::mem::take(&mut pile.dropped)))
    }

    /// Adds a change.
    pub(super) fn push(&self, change: Change) {
        self.pile.lock().push(change);
        self.filled.notify_one();
    }

    /// As if the clock had been ahead.
    #[cfg(test)]
    pub(super) fn skip_numbers(&self, count: u64) {
        self.pile.lock().next_id += count;
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.pile.lock().closed = true;
        self.filled.notify_one();
    }
}

impl Pile {
    fn push(&mut self, change: Change) {
        self.bytes += change.size();
        self.changes.push_back(change);
        while self.bytes > MAX_INBOX {
            let Some(oldest) = self.changes.pop_front() else { return };
            self.bytes -= oldest.size();
            if let Change::Keep(to, _) = oldest {
                *self.dropped.entry(to).or_default() += 1;
            }
        }
    }
}

impl Change {
    fn size(&self) -> usize {
        let text = match self {
            Self::Keep(_, event) => event.text.len(),
            Self::Bury(letter) => letter.texts().map(str::len).sum(),
            Self::Tell(fact, _) => fact.len(),
            Self::Batch(ids, ..) | Self::Forget(ids) => size_of_val(&**ids),
            _ => 0,
        };
        text + OVERHEAD
    }
}
