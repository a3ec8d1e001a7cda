//! Where webhooks are until they are delivered: a small database on disk, or in memory where that is asked for.
//!
//! One thread writes. It takes everything that has come up since its last transaction and commits it at once, so that a
//! burst of events costs one sync of the disk and not one each; only then are events handed to their endpoints. Who
//! reports an event does not wait for any of it.
//!
//! The database is redb: written in Rust alone, a single file, transactions that survive a crash at any moment. What
//! else there is either needs a C library or is not maintained as a store of record.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use redb::DatabaseError;
use tokio::sync::oneshot;

use super::disk::Disk;
use super::letter::{Address, DeadLetter};
use super::queue::Event;
use super::tables::{self, Found};
use super::unix_ms;
use super::writer::Writer;

/// The file in the data directory.
const FILE: &str = "webhooks.redb";

/// Bytes that may wait for the disk. Above it the oldest change is dropped: a new event is lost then, and counted; what
/// was to be forgotten is delivered again after a restart.
const MAX_INBOX: usize = 64 * 1024 * 1024;

/// Bytes that a change takes besides its text, roughly.
const OVERHEAD: usize = 200;

pub use super::disk::StoreError;

/// What the writer tells the rest of the house.
pub(super) trait Readers: Send + Sync + 'static {
    /// An event is kept, and may be delivered. Answers with the numbers of those that had to go for it, by delivery.
    fn kept(&self, to: &Address, event: Event) -> Vec<Vec<u64>>;
    /// A dead letter is to be delivered after all.
    fn revived(&self, to: &Address, time_ms: u64, events: Vec<Event>);
    /// An event or a dead letter had to go: there is no room for it.
    fn dropped(&self, to: &Address, events: usize, why: &'static str);
    /// A transaction failed; its events are delivered all the same, if the process lives long enough.
    fn store_failed(&self);
}

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

/// The database and its writer.
pub(super) struct Store {
    disk: Arc<Disk>,
    inbox: Arc<Inbox>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Tells the ids of this store from those of others.
    id: u32,
}

/// What waits for the writer.
#[derive(Default)]
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

impl Store {
    /// Opens the store in this directory, which is made if need be; without one, in memory.
    ///
    /// # Errors
    /// The directory cannot be made, or the database not be opened: the text says why.
    pub(super) fn open(directory: Option<&Path>) -> Result<(Self, Found), String> {
        let Some(directory) = directory else {
            return Self::on(Disk::memory().map_err(|error| error.to_string())?);
        };
        let make = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        make.map_err(|error| format!("cannot be made: {error}"))?;
        let disk = Disk::file(&directory.join(FILE)).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => "is in use by another process".to_owned(),
            error => format!("{FILE} cannot be opened: {error}"),
        })?;
        Self::on(disk)
    }

    fn on(disk: Disk) -> Result<(Self, Found), String> {
        let (id, found) = tables::read_all(&disk).map_err(|error| format!("{FILE} cannot be read: {error}"))?;
        // Larger than every number before it, also of events that are long delivered.
        let next_id = (unix_ms() * 1000).max(found.last_id + 1);
        let inbox = Arc::new(Inbox { pile: Mutex::new(Pile { next_id, ..Pile::default() }), ..Inbox::default() });
        Ok((Self { disk: Arc::new(disk), inbox, writer: Mutex::default(), id }, found))
    }

    /// Starts the writer. `max_dead` is the bound of each endpoint's dead letters in bytes.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(&self, readers: Arc<dyn Readers>, max_dead: usize) -> io::Result<()> {
        let (disk, inbox) = (Arc::clone(&self.disk), Arc::clone(&self.inbox));
        let mut writer = Writer::new(disk, inbox, readers, max_dead);
        let thread = std::thread::Builder::new().name("webhooks".to_owned());
        *self.writer.lock() = Some(thread.spawn(move || writer.run())?);
        Ok(())
    }

    /// Writes what is left, stops the writer and closes the file.
    pub(super) fn close(&self) {
        self.inbox.pile.lock().closed = true;
        self.inbox.filled.notify_one();
        if let Some(writer) = self.writer.lock().take() {
            // Its panic was printed when it happened; there is nothing left to do about it.
            let _ = writer.join();
        }
    }

    /// Whether what it holds outlives the process.
    pub(super) fn is_durable(&self) -> bool {
        self.disk.is_durable()
    }

    /// The id of a delivery, by its first event's number: the same in every attempt, and after a restart.
    pub(super) fn delivery_id(&self, first: u64) -> String {
        format!("{:08x}-{first:x}", self.id)
    }

    /// The number in such an id.
    pub(super) fn parse_id(&self, id: &str) -> Option<u64> {
        let (store, first) = id.split_once('-')?;
        let ours = u32::from_str_radix(store, 16) == Ok(self.id);
        u64::from_str_radix(first, 16).ok().filter(|_| ours)
    }

    /// Hands an event to the writer, once for each address, and with it what the backend now believes. Events get their
    /// numbers here, and their time, so that both tell the order.
    pub(super) fn keep<'a>(
        &self,
        to: impl Iterator<Item = &'a Address>,
        subject: &Arc<str>,
        text: &Arc<str>,
        told: Option<(String, bool)>,
    ) {
        let mut pile = self.inbox.pile.lock();
        // The system's clock may be set back.
        pile.last_ms = pile.last_ms.max(unix_ms());
        for address in to {
            let (id, time_ms) = (pile.next_id, pile.last_ms);
            pile.next_id += 1;
            let event = Event { id, subject: Arc::clone(subject), time_ms, text: Arc::clone(text) };
            pile.push(Change::Keep(address.clone(), event));
        }
        // Nobody will read it where nothing outlives the process.
        if let Some((fact, is_true)) = told.filter(|_| self.is_durable()) {
            pile.push(Change::Tell(fact, is_true));
        }
        drop(pile);
        self.inbox.filled.notify_one();
    }

    /// Hands something else to the writer.
    pub(super) fn change(&self, change: Change) {
        self.inbox.push(change);
    }

    /// Waits until everything handed over so far is written.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn sync(&self) {
        let (done, written) = oneshot::channel();
        self.change(Change::Sync(done));
        // A writer that is gone has written all it ever will.
        let _ = written.await;
    }

    /// The newest dead letters, at most `limit`, of those that are `wanted`.
    pub(super) fn dead(
        &self,
        limit: usize,
        wanted: impl Fn(&DeadLetter) -> bool,
    ) -> Result<Vec<(u64, DeadLetter)>, StoreError> {
        tables::dead_letters(&self.disk, limit, wanted)
    }

    /// One dead letter.
    pub(super) fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        tables::dead_letter(&self.disk, id)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("id", &self.id).field("durable", &self.is_durable()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
