//! Where webhooks are until they are delivered: a small database on disk, or in memory where that is asked for.
//!
//! One thread writes. It takes everything that has come up since its last transaction and commits it at once, so that a
//! burst of events costs one sync of the disk and not one each; only then are events handed to their endpoints. Who
//! reports an event does not wait for any of it.
//!
//! The database is redb: written in Rust alone, a single file, transactions that survive a crash at any moment. What
//! else there is either needs a C library or is not maintained as a store of record.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::letter::{Address, DeadLetter, KeptBatch, KeptEvent};
use super::queue::Event;
use super::unix_ms;

/// The file in the data directory.
const FILE: &str = "webhooks.redb";

/// Memory for pages of the database. Everything that is read often is in the queues anyway.
const CACHE: usize = 16 * 1024 * 1024;

/// Bytes that may wait for the disk. Above it the oldest change is dropped: a new event is lost then, and counted; what
/// was to be forgotten is delivered again after a restart.
const MAX_INBOX: usize = 64 * 1024 * 1024;

/// Bytes that a change takes besides its text, roughly.
const OVERHEAD: usize = 200;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Undelivered events by their number.
const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
/// Deliveries of more than one event, by the number of the first.
const BATCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("batches");
/// Dead letters, by the number of their first event.
const DEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead");
/// What backends were told is true: an app's id, a space and the fact.
const TOLD: TableDefinition<'_, &str, ()> = TableDefinition::new("told");

/// An error of the database: the file is another program's, broken, or on a disk that is full or gone.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StoreError(#[from] Box<redb::Error>);

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self(Box::new(error.into()))
            }
        })*
    };
}
from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError, CompactionError);

/// What the writer tells the rest of the house.
pub(super) trait Readers: Send + Sync + 'static {
    /// An event is kept, and may be delivered. Answers with the numbers of those that had to go for it.
    fn kept(&self, to: &Address, event: Event) -> Vec<u64>;
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
    database: Arc<Database>,
    inbox: Arc<Inbox>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Tells the ids of this store from those of others.
    id: u32,
    durable: bool,
}

#[derive(Default)]
struct Inbox {
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
            _ => 0,
        };
        text + OVERHEAD
    }
}

/// What a store holds when it is opened.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Events by endpoint, in order.
    pub(super) events: Vec<(Address, Event)>,
    /// Deliveries of several events.
    pub(super) batches: Vec<KeptBatch>,
    /// What backends were told is true, with the app's id in front.
    pub(super) told: Vec<String>,
    /// The largest number of any event.
    last_id: u64,
}

impl Store {
    /// Opens the store in this directory, which is made if need be; without one, in memory.
    ///
    /// # Errors
    /// The directory cannot be made, or the database not be opened: the text says why.
    pub(super) fn open(directory: Option<&Path>) -> Result<(Self, Found), String> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE);
        let mut database = match directory {
            None => builder.create_with_backend(InMemoryBackend::new()).map_err(|error| error.to_string())?,
            Some(directory) => {
                let make = DirBuilder::new().recursive(true).mode(0o700).create(directory);
                make.map_err(|error| format!("cannot be made: {error}"))?;
                let file = open_private(&directory.join(FILE));
                let file = file.map_err(|error| format!("{FILE} cannot be opened: {error}"))?;
                builder.create_file(file).map_err(|error| match error {
                    redb::DatabaseError::DatabaseAlreadyOpen => "is in use by another process".to_owned(),
                    error => format!("{FILE} cannot be opened: {error}"),
                })?
            }
        };
        let (id, found) = read_all(&mut database).map_err(|error| format!("{FILE} cannot be read: {error}"))?;
        // Larger than every number before it, also of events that are long delivered.
        let next_id = (unix_ms() * 1000).max(found.last_id + 1);
        let inbox = Arc::new(Inbox { pile: Mutex::new(Pile { next_id, ..Pile::default() }), ..Inbox::default() });
        let store =
            Self { database: Arc::new(database), inbox, writer: Mutex::default(), id, durable: directory.is_some() };
        Ok((store, found))
    }

    /// Starts the writer. `max_dead` is the bound of each endpoint's dead letters in bytes.
    pub(super) fn start(&self, readers: Arc<dyn Readers>, max_dead: usize) {
        let (database, inbox) = (Arc::clone(&self.database), Arc::clone(&self.inbox));
        let graveyard = Graveyard { max: max_dead, ..Graveyard::default() };
        let mut writer = Writer { database, inbox, readers, graveyard };
        let thread = std::thread::Builder::new().name("webhooks".to_owned());
        match thread.spawn(move || writer.run()) {
            Ok(handle) => *self.writer.lock() = Some(handle),
            Err(error) => error!(%error, "webhooks cannot be written: no thread"),
        }
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
        self.durable
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
        if let Some((fact, is_true)) = told.filter(|_| self.durable) {
            pile.push(Change::Tell(fact, is_true));
        }
        drop(pile);
        self.inbox.filled.notify_one();
    }

    /// Hands something else to the writer.
    pub(super) fn change(&self, change: Change) {
        self.inbox.pile.lock().push(change);
        self.inbox.filled.notify_one();
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
        let table = self.database.begin_read()?.open_table(DEAD)?;
        let mut letters = Vec::new();
        for entry in table.iter()?.rev() {
            let (id, bytes) = entry?;
            if let Some(letter) = decode("dead letter", bytes.value()).filter(&wanted) {
                letters.push((id.value(), letter));
                if letters.len() == limit {
                    break;
                }
            }
        }
        Ok(letters)
    }

    /// One dead letter.
    pub(super) fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        let table = self.database.begin_read()?.open_table(DEAD)?;
        Ok(table.get(id)?.and_then(|bytes| decode("dead letter", bytes.value())))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("id", &self.id).field("durable", &self.durable).finish_non_exhaustive()
    }
}

struct Writer {
    database: Arc<Database>,
    inbox: Arc<Inbox>,
    readers: Arc<dyn Readers>,
    graveyard: Graveyard,
}

/// What a transaction brings about once it is committed.
#[derive(Default)]
struct Effects {
    /// Dead letters that had to go, and how many events were in them.
    dropped: Vec<(Address, usize)>,
    revived: HashMap<u64, (Address, u64, Vec<Event>)>,
}

impl Writer {
    fn run(&mut self) {
        if let Err(error) = self.graveyard.fill(&self.database) {
            error!(%error, "dead letters cannot be read");
        }
        while let Some(changes) = self.take() {
            let effects = self.write(&changes).unwrap_or_else(|error| {
                error!(%error, changes = changes.len(), "webhooks cannot be written to disk");
                self.readers.store_failed();
                Effects::default()
            });
            self.announce(changes, effects);
        }
    }

    /// Everything that has come up; `None` at the end.
    fn take(&self) -> Option<VecDeque<Change>> {
        let mut pile = self.inbox.pile.lock();
        while pile.changes.is_empty() {
            if pile.closed {
                return None;
            }
            self.inbox.filled.wait(&mut pile);
        }
        pile.bytes = 0;
        let (changes, dropped) = (std::mem::take(&mut pile.changes), std::mem::take(&mut pile.dropped));
        drop(pile);
        for (to, events) in dropped {
            self.readers.dropped(&to, events, "the disk is too slow");
        }
        Some(changes)
    }

    fn write(&mut self, changes: &VecDeque<Change>) -> Result<Effects, StoreError> {
        let mut effects = Effects::default();
        if changes.iter().all(|change| matches!(change, Change::Sync(_))) {
            return Ok(effects);
        }
        let transaction = self.database.begin_write()?;
        let mut tables = Tables::open(&transaction)?;
        for change in changes {
            self.apply(&mut tables, change, &mut effects)?;
        }
        drop(tables);
        transaction.commit()?;
        Ok(effects)
    }

    fn apply(&mut self, tables: &mut Tables<'_>, change: &Change, effects: &mut Effects) -> Result<(), StoreError> {
        match change {
            Change::Keep(to, event) => {
                tables.events.insert(event.id, &*encode(&KeptEvent::new(to, event)))?;
            }
            Change::Batch(ids, time_ms, _) => tables.make_batch(ids, *time_ms)?,
            Change::Forget(ids) => tables.forget(ids)?,
            Change::Bury(letter) => {
                let ids: Vec<u64> = letter.events.iter().map(|event| event.id).collect();
                tables.forget(&ids)?;
                let text = encode(letter);
                tables.dead.insert(ids[0], &*text)?;
                for id in self.graveyard.bury(&letter.to, ids[0], text.len()) {
                    if let Some(letter) = tables.take_letter(id)? {
                        effects.dropped.push((letter.to, letter.events.len()));
                    }
                }
            }
            Change::Revive(id, _) => {
                let Some(letter) = tables.take_letter(*id)? else { return Ok(()) };
                // A new webhook about an old event: some libraries refuse one whose time is long past.
                let (to, time_ms) = (letter.to.clone(), unix_ms());
                self.graveyard.exhume(&to, *id);
                let events = letter.into_events(time_ms);
                for event in &events {
                    tables.events.insert(event.id, &*encode(&KeptEvent::new(&to, event)))?;
                }
                if events.len() > 1 {
                    tables.make_batch(&events.iter().map(|event| event.id).collect::<Vec<_>>(), time_ms)?;
                }
                effects.revived.insert(*id, (to, time_ms, events));
            }
            Change::Tell(fact, true) => drop(tables.told.insert(&**fact, ())?),
            Change::Tell(fact, false) => drop(tables.told.remove(&**fact)?),
            Change::Sync(_) => {}
        }
        Ok(())
    }

    /// Now it is certain. If the transaction failed, nothing is, but delivering from memory is better than not at all.
    /// A receiver that no longer waits for the answer does not matter.
    fn announce(&self, changes: VecDeque<Change>, mut effects: Effects) {
        for change in changes {
            match change {
                Change::Keep(to, event) => {
                    for id in self.readers.kept(&to, event) {
                        self.inbox.pile.lock().push(Change::Forget(vec![id]));
                    }
                }
                Change::Batch(_, _, done) | Change::Sync(done) => drop(done.send(())),
                Change::Revive(id, done) => {
                    let revived = effects.revived.remove(&id);
                    let _ = done.send(revived.is_some());
                    if let Some((to, time_ms, events)) = revived {
                        self.readers.revived(&to, time_ms, events);
                    }
                }
                Change::Forget(_) | Change::Bury(_) | Change::Tell(..) => {}
            }
        }
        for (to, events) in effects.dropped {
            self.readers.dropped(&to, events, "webhooks.max_dead");
        }
    }
}

/// The tables of one transaction.
struct Tables<'t> {
    events: Table<'t, u64, &'static [u8]>,
    batches: Table<'t, u64, &'static [u8]>,
    dead: Table<'t, u64, &'static [u8]>,
    told: Table<'t, &'static str, ()>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            events: transaction.open_table(EVENTS)?,
            batches: transaction.open_table(BATCHES)?,
            dead: transaction.open_table(DEAD)?,
            told: transaction.open_table(TOLD)?,
        })
    }

    fn make_batch(&mut self, ids: &[u64], time_ms: u64) -> Result<(), StoreError> {
        self.batches.insert(ids[0], &*encode(&KeptBatch { time_ms, ids: ids.to_vec() }))?;
        Ok(())
    }

    fn forget(&mut self, ids: &[u64]) -> Result<(), StoreError> {
        for id in ids {
            self.events.remove(id)?;
        }
        if ids.len() > 1 {
            self.batches.remove(ids[0])?;
        }
        Ok(())
    }

    fn take_letter(&mut self, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        Ok(self.dead.remove(id)?.and_then(|bytes| decode("dead letter", bytes.value())))
    }
}

/// How many bytes of dead letters each endpoint has.
#[derive(Default)]
struct Graveyard {
    max: usize,
    plots: HashMap<Address, Plot>,
}

#[derive(Default)]
struct Plot {
    letters: BTreeMap<u64, usize>,
    bytes: usize,
}

impl Graveyard {
    fn fill(&mut self, database: &Database) -> Result<(), StoreError> {
        for entry in database.begin_read()?.open_table(DEAD)?.iter()? {
            let (id, bytes) = entry?;
            if let Some(letter) = decode::<DeadLetter>("dead letter", bytes.value()) {
                let plot = self.plots.entry(letter.to).or_default();
                plot.letters.insert(id.value(), bytes.value().len());
                plot.bytes += bytes.value().len();
            }
        }
        Ok(())
    }

    /// Adds a letter, and returns those for which there is no more room.
    fn bury(&mut self, to: &Address, id: u64, bytes: usize) -> Vec<u64> {
        let plot = self.plots.entry(to.clone()).or_default();
        plot.letters.insert(id, bytes);
        plot.bytes += bytes;
        let mut gone = Vec::new();
        while plot.bytes > self.max {
            let Some((id, bytes)) = plot.letters.pop_first() else { break };
            plot.bytes -= bytes;
            gone.push(id);
        }
        gone
    }

    fn exhume(&mut self, to: &Address, id: u64) {
        if let Some(plot) = self.plots.get_mut(to) {
            plot.bytes -= plot.letters.remove(&id).unwrap_or(0);
        }
    }
}

/// Opens a file, or makes one that its owner alone may read: events hold what clients have sent, and URLs may hold tokens.
fn open_private(file: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(file)
}

/// Reads the whole store, and makes whatever is missing.
fn read_all(database: &mut Database) -> Result<(u32, Found), StoreError> {
    // What an outage left behind is free again; the file need not stay as large.
    database.compact()?;
    let transaction = database.begin_write()?;
    let mut found = Found::default();
    let id = {
        let mut meta = transaction.open_table(META)?;
        let known = meta.get("store")?.map(|id| id.value() as u32);
        let id = known.unwrap_or_else(rand::random);
        meta.insert("store", u64::from(id))?;
        id
    };
    {
        let tables = Tables::open(&transaction)?;
        for entry in tables.events.iter()? {
            let (id, bytes) = entry?;
            if let Some(kept) = decode::<KeptEvent>("event", bytes.value()) {
                found.events.push((kept.to.clone(), kept.into_event(id.value())));
            }
        }
        for entry in tables.batches.iter()? {
            found.batches.extend(decode::<KeptBatch>("batch", entry?.1.value()));
        }
        for entry in tables.told.iter()? {
            found.told.push(entry?.0.value().to_owned());
        }
        found.last_id = tables.dead.last()?.map_or(0, |(id, _)| id.value());
    }
    transaction.commit()?;
    let last = found.events.last().map_or(0, |(_, event)| event.id);
    found.last_id = found.last_id.max(last);
    Ok((id, found))
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings, numbers and JSON always serialise")
}

/// What this version cannot read, another one wrote; it is reported and left alone.
fn decode<T: DeserializeOwned>(noun: &str, bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).inspect_err(|error| warn!(%error, "the store of webhooks has an unknown {noun}")).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_its_owner_may_read_what_is_kept() {
        let directory = std::env::temp_dir().join(format!("fanfare-store-{}", std::process::id())).join("data");
        let (store, _) = Store::open(Some(&directory)).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join(FILE))), (0o700, 0o600));
        drop(store);
        std::fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    }
}
