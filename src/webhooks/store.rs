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
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use redb::{DatabaseError, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::disk::Disk;
use super::letter::{Address, DeadLetter, KeptBatch, KeptEvent};
use super::queue::Event;
use super::unix_ms;

/// The file in the data directory.
const FILE: &str = "webhooks.redb";

/// Bytes that may wait for the disk. Above it the oldest change is dropped: a new event is lost then, and counted; what
/// was to be forgotten is delivered again after a restart.
const MAX_INBOX: usize = 64 * 1024 * 1024;

/// The pause after a failure before the file is opened anew once more.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Bytes that a change takes besides its text, roughly.
const OVERHEAD: usize = 200;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Undelivered events by their number.
const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
/// Deliveries of endpoints that get several events at once, by the number of the first.
const BATCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("batches");
/// Dead letters, by the number of their first event.
const DEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead");
/// What backends were told is true: an app's id, a space and the fact.
const TOLD: TableDefinition<'_, &str, ()> = TableDefinition::new("told");

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
            Self::Batch(ids, ..) | Self::Forget(ids) => size_of_val(&**ids),
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
    /// Deliveries that were begun.
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
        let (id, found) = read_all(&disk).map_err(|error| format!("{FILE} cannot be read: {error}"))?;
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
        let graveyard = Graveyard { max: max_dead, ..Graveyard::default() };
        let mut writer = Writer { disk, inbox, readers, graveyard, last_failure: None };
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
        self.disk.read(|transaction| {
            let mut letters = Vec::new();
            for entry in transaction.open_table(DEAD)?.iter()?.rev() {
                let (id, bytes) = entry?;
                if let Some(letter) = decode("dead letter", bytes.value()).filter(&wanted) {
                    letters.push((id.value(), letter));
                    if letters.len() == limit {
                        break;
                    }
                }
            }
            Ok(letters)
        })
    }

    /// One dead letter.
    pub(super) fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        self.disk.read(|transaction| {
            let table = transaction.open_table(DEAD)?;
            Ok(table.get(id)?.and_then(|bytes| decode("dead letter", bytes.value())))
        })
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

struct Writer {
    disk: Arc<Disk>,
    inbox: Arc<Inbox>,
    readers: Arc<dyn Readers>,
    graveyard: Graveyard,
    /// When nothing could be written, not even after the file was opened anew.
    last_failure: Option<Instant>,
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
        self.survey();
        while let Some(changes) = self.take() {
            let effects = self.write(&changes).or_else(|error| {
                self.readers.store_failed();
                self.recover(&error)?;
                self.write(&changes)
            });
            if effects.is_err() {
                self.survey();
            }
            let effects = effects.unwrap_or_else(|error| {
                if self.may_complain() {
                    error!(%error, changes = changes.len(), "webhooks are in memory only: they cannot be written to disk");
                    self.last_failure = Some(Instant::now());
                }
                Effects::default()
            });
            self.announce(changes, effects);
        }
    }

    /// Opens the file anew, if that was not in vain a moment ago.
    fn recover(&mut self, error: &StoreError) -> Result<(), StoreError> {
        if self.may_complain() {
            warn!(%error, "the store of webhooks fails; it is opened again");
            self.disk.reopen()?;
            self.survey();
        }
        Ok(())
    }

    /// Not each of a thousand failures in a second deserves a line, or another look at a large file.
    fn may_complain(&self) -> bool {
        self.last_failure.is_none_or(|failure| failure.elapsed() >= FAILURE_PAUSE)
    }

    /// Looks at what dead letters there are: what a failed transaction was to bury or revive, it has not.
    fn survey(&mut self) {
        if let Err(error) = self.graveyard.survey(&self.disk)
            && self.may_complain()
        {
            error!(%error, "dead letters cannot be read");
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
        let (disk, graveyard) = (&self.disk, &mut self.graveyard);
        disk.write(|transaction| {
            let mut tables = Tables::open(transaction)?;
            for change in changes {
                apply(graveyard, &mut tables, change, &mut effects)?;
            }
            tables.note_numbers(changes)
        })?;
        Ok(effects)
    }

    /// Now it is certain. If the transaction failed, nothing is, but delivering from memory is better than not at all.
    /// A receiver that no longer waits for the answer does not matter.
    fn announce(&self, changes: VecDeque<Change>, mut effects: Effects) {
        for (to, events) in std::mem::take(&mut effects.dropped) {
            self.readers.dropped(&to, events, "webhooks.max_dead");
        }
        for change in changes {
            match change {
                Change::Keep(to, event) => {
                    for ids in self.readers.kept(&to, event) {
                        self.inbox.pile.lock().push(Change::Forget(ids));
                    }
                }
                Change::Batch(_, _, done) | Change::Sync(done) => drop(done.send(())),
                Change::Revive(id, done) => {
                    let revived = effects.revived.remove(&id);
                    let is_revived = revived.is_some();
                    if let Some((to, time_ms, events)) = revived {
                        self.readers.revived(&to, time_ms, events);
                    }
                    let _ = done.send(is_revived);
                }
                Change::Forget(_) | Change::Bury(_) | Change::Tell(..) => {}
            }
        }
    }
}

fn apply(
    graveyard: &mut Graveyard,
    tables: &mut Tables<'_>,
    change: &Change,
    effects: &mut Effects,
) -> Result<(), StoreError> {
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
            for id in graveyard.bury(&letter.to, ids[0], text.len()) {
                if let Some(letter) = tables.take_letter(id)? {
                    effects.dropped.push((letter.to, letter.events.len()));
                }
            }
        }
        Change::Revive(id, _) => {
            let Some(letter) = tables.take_letter(*id)? else { return Ok(()) };
            // A new webhook about an old event: some libraries refuse one whose time is long past.
            let (to, time_ms) = (letter.to.clone(), unix_ms());
            graveyard.exhume(&to, *id);
            let events = letter.into_events(time_ms);
            for event in &events {
                tables.events.insert(event.id, &*encode(&KeptEvent::new(&to, event)))?;
            }
            tables.make_batch(&events.iter().map(|event| event.id).collect::<Vec<_>>(), time_ms)?;
            effects.revived.insert(*id, (to, time_ms, events));
        }
        Change::Tell(fact, true) => drop(tables.told.insert(&**fact, ())?),
        Change::Tell(fact, false) => drop(tables.told.remove(&**fact)?),
        Change::Sync(_) => {}
    }
    Ok(())
}

/// The tables of one transaction.
struct Tables<'t> {
    meta: Table<'t, &'static str, u64>,
    events: Table<'t, u64, &'static [u8]>,
    batches: Table<'t, u64, &'static [u8]>,
    dead: Table<'t, u64, &'static [u8]>,
    told: Table<'t, &'static str, ()>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            meta: transaction.open_table(META)?,
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
        self.batches.remove(ids[0])?;
        Ok(())
    }

    /// Remembers the largest number of all, which no later event may have again, whatever the clock says by then.
    fn note_numbers(&mut self, changes: &VecDeque<Change>) -> Result<(), StoreError> {
        let number = |change: &Change| if let Change::Keep(_, event) = change { Some(event.id) } else { None };
        if let Some(last) = changes.iter().filter_map(number).max() {
            self.meta.insert("last", last)?;
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
    fn survey(&mut self, disk: &Disk) -> Result<(), StoreError> {
        self.plots.clear();
        disk.read(|transaction| {
            for entry in transaction.open_table(DEAD)?.iter()? {
                let (id, bytes) = entry?;
                if let Some(letter) = decode::<DeadLetter>("dead letter", bytes.value()) {
                    let plot = self.plots.entry(letter.to).or_default();
                    plot.letters.insert(id.value(), bytes.value().len());
                    plot.bytes += bytes.value().len();
                }
            }
            Ok(())
        })
    }

    /// Adds a letter, and returns those for which there is no more room.
    fn bury(&mut self, to: &Address, id: u64, bytes: usize) -> Vec<u64> {
        if bytes > self.max {
            return vec![id];
        }
        let plot = self.plots.entry(to.clone()).or_default();
        // It may be there already: an error does not always mean that nothing was written.
        plot.bytes -= plot.letters.insert(id, bytes).unwrap_or(0);
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

/// Reads the whole store, and makes whatever is missing.
fn read_all(disk: &Disk) -> Result<(u32, Found), StoreError> {
    // What an outage left behind is free again; the file need not stay as large.
    disk.compact()?;
    disk.write(|transaction| {
        let mut tables = Tables::open(transaction)?;
        let known = tables.meta.get("store")?.map(|id| id.value() as u32);
        let id = known.unwrap_or_else(rand::random);
        tables.meta.insert("store", u64::from(id))?;
        let mut found = Found::default();
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
        let last = |table: &Table<'_, u64, &[u8]>| Ok::<_, StoreError>(table.last()?.map_or(0, |(id, _)| id.value()));
        let noted = tables.meta.get("last")?.map_or(0, |id| id.value());
        found.last_id = noted.max(last(&tables.events)?).max(last(&tables.dead)?);
        Ok((id, found))
    })
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

    use super::super::attempt::Attempt;
    use super::super::disk::ram::Ram;
    use super::super::queue::Delivery;
    use super::*;

    /// What the writer has told.
    #[derive(Default)]
    struct Told {
        kept: Mutex<Vec<u64>>,
        revived: Mutex<Vec<(u64, Vec<u64>)>>,
        dropped: Mutex<usize>,
        failures: Mutex<usize>,
    }

    impl Readers for Told {
        fn kept(&self, _: &Address, event: Event) -> Vec<Vec<u64>> {
            self.kept.lock().push(event.id);
            Vec::new()
        }

        fn revived(&self, _: &Address, time_ms: u64, events: Vec<Event>) {
            self.revived.lock().push((time_ms, events.iter().map(|event| event.id).collect()));
        }

        fn dropped(&self, _: &Address, events: usize, _: &'static str) {
            *self.dropped.lock() += events;
        }

        fn store_failed(&self) {
            *self.failures.lock() += 1;
        }
    }

    fn start(ram: &Ram, max_dead: usize) -> (Store, Found, Arc<Told>) {
        let (store, found) = Store::on(ram.disk()).unwrap();
        let told = Arc::new(Told::default());
        store.start(Arc::clone(&told) as Arc<dyn Readers>, max_dead).unwrap();
        (store, found, told)
    }

    fn to() -> Address {
        Address { app: "42".to_owned(), url: "http://a/".to_owned() }
    }

    fn keep(store: &Store, subject: &str) {
        store.keep([to()].iter(), &subject.into(), &r#"{"name":"x"}"#.into(), None);
    }

    fn sync(store: &Store) {
        let (done, written) = oneshot::channel();
        store.change(Change::Sync(done));
        written.blocking_recv().unwrap();
    }

    fn letter(ids: &[u64], answer: &str) -> DeadLetter {
        let event = |id: &u64| Event { id: *id, subject: "a".into(), time_ms: *id, text: "{}".into() };
        let mut delivery = Delivery::untried(7, ids.iter().map(event).collect());
        delivery.attempts.push(Attempt { answer: answer.to_owned(), ..Attempt::answered(500) });
        DeadLetter::new(&to(), &delivery, "status 500".to_owned())
    }

    fn dead(store: &Store) -> Vec<u64> {
        store.dead(usize::MAX, |_| true).unwrap().into_iter().map(|(id, _)| id).collect()
    }

    fn ids(found: &Found) -> Vec<u64> {
        found.events.iter().map(|(_, event)| event.id).collect()
    }

    #[test]
    fn what_was_written_survives_a_crash_and_only_that_is_announced() {
        let ram = Ram::default();
        let (store, found, told) = start(&ram, 0);
        assert!(found.events.is_empty());
        for subject in ["a", "b", "a"] {
            keep(&store, subject);
        }
        store.keep(std::iter::empty(), &"a".into(), &"{}".into(), Some(("42 occupied a".to_owned(), true)));
        sync(&store);
        let kept = told.kept.lock().clone();
        let (done, written) = oneshot::channel();
        store.change(Change::Batch(kept[..2].to_vec(), 9, done));
        written.blocking_recv().unwrap();

        let (store, found, _) = start(&ram.after_a_crash(), 0);
        assert_eq!(ids(&found), kept);
        let (address, event) = &found.events[1];
        assert_eq!((address, &*event.subject, &*event.text), (&to(), "b", r#"{"name":"x"}"#));
        assert_eq!(found.told, ["42 occupied a"]);
        assert_eq!((found.batches[0].time_ms, &found.batches[0].ids[..]), (9, &kept[..2]));
        store.change(Change::Forget(kept[..2].to_vec()));
        store.change(Change::Tell("42 occupied a".to_owned(), false));
        drop(store);
    }

    #[test]
    fn nothing_is_left_of_what_was_delivered_or_has_ended() {
        let ram = Ram::default();
        let (store, _, told) = start(&ram, 1000);
        keep(&store, "a");
        store.keep(std::iter::empty(), &"a".into(), &"{}".into(), Some(("42 occupied a".to_owned(), true)));
        sync(&store);
        let kept = told.kept.lock().clone();
        let (done, _) = oneshot::channel();
        store.change(Change::Batch(kept.clone(), 9, done));
        store.change(Change::Forget(kept));
        store.change(Change::Tell("42 occupied a".to_owned(), false));
        sync(&store);
        let (_, found, _) = start(&ram.after_a_crash(), 1000);
        assert!(found.events.is_empty() && found.batches.is_empty() && found.told.is_empty(), "{found:?}");
    }

    #[test]
    fn a_number_is_never_used_again_even_if_the_clock_goes_back() {
        let ram = Ram::default();
        let (store, _, told) = start(&ram, 0);
        // An hour ahead of the clock, as if that had been set back since.
        store.inbox.pile.lock().next_id += 60 * 60 * 1_000_000;
        keep(&store, "a");
        sync(&store);
        let last = told.kept.lock()[0];
        store.change(Change::Forget(vec![last]));
        sync(&store);
        let (store, found, told) = start(&ram.after_a_crash(), 0);
        assert!(found.events.is_empty());
        keep(&store, "a");
        sync(&store);
        assert!(told.kept.lock()[0] > last, "{} again after {last}", told.kept.lock()[0]);
        assert_eq!(store.parse_id(&store.delivery_id(last)), Some(last));
    }

    #[test]
    fn what_another_version_wrote_is_left_alone() {
        let ram = Ram::default();
        drop(start(&ram, 0));
        ram.disk()
            .write(|transaction| {
                let mut tables = Tables::open(transaction)?;
                let far = u64::MAX / 2;
                tables.events.insert(far, &b"\xff\x00"[..])?;
                tables.events.insert(1, &br#"{"to":{"app":"42"}}"#[..])?;
                tables.batches.insert(1, &b"[]"[..])?;
                tables.dead.insert(1, &b"{}"[..])?;
                Ok(())
            })
            .unwrap();
        let (store, found, told) = start(&ram, 0);
        assert!(found.events.is_empty() && found.batches.is_empty());
        assert!(dead(&store).is_empty());
        assert!(store.dead_letter(1).unwrap().is_none());
        keep(&store, "a");
        sync(&store);
        assert!(told.kept.lock()[0] > u64::MAX / 2, "a number that is taken");
        let disk = ram.after_a_crash().disk();
        let left = disk.read(|transaction| Ok(transaction.open_table(EVENTS)?.get(u64::MAX / 2)?.is_some())).unwrap();
        assert!(left);
    }

    #[test]
    fn the_oldest_dead_letters_go_and_those_of_the_process_before_count() {
        let ram = Ram::default();
        let size = encode(&letter(&[11, 12], "x")).len();
        let (store, _, told) = start(&ram, 2 * size);
        for first in [11, 21, 31] {
            store.change(Change::Bury(letter(&[first, first + 1], "x")));
        }
        sync(&store);
        assert_eq!((dead(&store), *told.dropped.lock()), (vec![31, 21], 2));

        let (store, _, told) = start(&ram.after_a_crash(), 2 * size);
        store.change(Change::Bury(letter(&[41, 42], "x")));
        sync(&store);
        assert_eq!((dead(&store), *told.dropped.lock()), (vec![41, 31], 2));
        // One that gets another try makes room.
        let (done, revived) = oneshot::channel();
        store.change(Change::Revive(31, done));
        assert!(revived.blocking_recv().unwrap());
        store.change(Change::Bury(letter(&[51, 52], "x")));
        sync(&store);
        assert_eq!((dead(&store), *told.dropped.lock()), (vec![51, 41], 2));
        assert_eq!(told.revived.lock()[0].1, [31, 32]);
        // For one that is larger than all the room there is, no other has to go.
        store.change(Change::Bury(letter(&[61], &"x".repeat(3 * size))));
        sync(&store);
        assert_eq!((dead(&store), *told.dropped.lock()), (vec![51, 41], 3));
    }

    #[test]
    fn a_revived_letter_is_a_delivery_again_and_only_once() {
        let ram = Ram::default();
        let (store, _, told) = start(&ram, 10_000);
        store.change(Change::Bury(letter(&[1, 2], "x")));
        for expected in [true, false] {
            let (done, revived) = oneshot::channel();
            store.change(Change::Revive(1, done));
            assert_eq!(revived.blocking_recv(), Ok(expected));
        }
        sync(&store);
        let (time_ms, events) = told.revived.lock()[0].clone();
        assert_eq!(events, [1, 2]);
        let (_, found, _) = start(&ram.after_a_crash(), 10_000);
        assert_eq!((ids(&found), found.events[0].1.time_ms), (vec![1, 2], time_ms));
        assert_eq!((found.batches[0].time_ms, &found.batches[0].ids), (time_ms, &vec![1, 2]));
    }

    #[test]
    fn a_disk_that_fails_once_costs_nothing() {
        let size = encode(&letter(&[1], "x")).len();
        let mut failed = 0;
        for successes in 0..20 {
            let ram = Ram::default();
            let (store, _, told) = start(&ram, 2 * size);
            store.change(Change::Bury(letter(&[1], "x")));
            store.change(Change::Bury(letter(&[2], "x")));
            keep(&store, "a");
            sync(&store);
            ram.fail(successes, 1);
            store.change(Change::Bury(letter(&[3], "x")));
            keep(&store, "b");
            sync(&store);
            failed += *told.failures.lock();
            for _ in 0..2 {
                keep(&store, "c");
                sync(&store);
            }
            assert!(*told.failures.lock() <= 1);
            assert_eq!(dead(&store), [3, 2], "{successes}");
            let kept = told.kept.lock().clone();
            assert_eq!(kept.len(), 4);
            let (store, found, _) = start(&ram.after_a_crash(), 2 * size);
            assert_eq!(ids(&found), kept, "{successes}");
            // The bound still is what it was.
            store.change(Change::Bury(letter(&[4], "x")));
            sync(&store);
            assert_eq!(dead(&store), [4, 3], "{successes}");
        }
        assert!(failed > 0, "no transaction has failed");
    }

    #[test]
    fn without_a_disk_webhooks_are_delivered_from_memory() {
        let ram = Ram::default();
        let (store, _, told) = start(&ram, 1000);
        ram.fail(0, u32::MAX);
        keep(&store, "a");
        sync(&store);
        keep(&store, "b");
        sync(&store);
        assert_eq!((told.kept.lock().len(), *told.failures.lock()), (2, 2));
        assert!(store.dead(1, |_| true).is_err());
    }

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
