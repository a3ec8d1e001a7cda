//! The thread that writes: takes what has come up, commits all of it at once, and says what came of it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::class::Lost;
use super::disk::{Disk, StoreError};
use super::inbox::{Change, Inbox, Work};
use super::letter::{Address, KeptEvent};
use super::queue::Event;
use super::tables::{Graveyard, Tables, encode};
use super::unix_ms;

/// The pause after a failure before the file is opened anew once more.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// What the writer tells the rest of the house.
pub(super) trait Readers: Send + Sync + 'static {
    /// An event is kept, and may be delivered. Answers with the numbers of those that are over for it, by delivery.
    fn kept(&self, to: &Address, event: Event) -> Vec<Vec<u64>>;
    /// A dead letter is to be delivered after all.
    fn revived(&self, to: &Address, time_ms: u64, events: Vec<Event>);
    /// An event or a dead letter had to go: there is no room for it.
    fn dropped(&self, to: &Address, lost: Lost, why: &'static str);
    /// Events need not be told any more.
    fn collapsed(&self, to: &Address, events: u64);
    /// Facts that the backend of an app was told will not be written: there is no room for it.
    fn facts_dropped(&self, app: &str, facts: u64);
    /// A transaction failed; its events are delivered all the same, if the process lives long enough.
    fn store_failed(&self);
}

/// See the module.
pub(super) struct Writer {
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
    /// Events in dead letters that had to go.
    dropped: Vec<(Address, Lost)>,
    revived: HashMap<u64, (Address, u64, Vec<Event>)>,
}

impl Writer {
    /// `max_dead` is the bound of each endpoint's dead letters in bytes.
    pub(super) fn new(disk: Arc<Disk>, inbox: Arc<Inbox>, readers: Arc<dyn Readers>, max_dead: usize) -> Self {
        Self { disk, inbox, readers, graveyard: Graveyard::new(max_dead), last_failure: None }
    }

    /// Works until the inbox is closed and empty.
    pub(super) fn run(&mut self) {
        self.survey();
        while let Some(work) = self.inbox.take() {
            let (changes, events) = (work.changes.len(), work.events());
            // Without a writer, nobody would ever be told anything again, and whoever waits for it would wait for ever.
            if catch_unwind(AssertUnwindSafe(|| self.work(work))).is_err() {
                error!(changes, events, "panicked over a transaction of webhooks: what was not told of it yet is lost");
                self.readers.store_failed();
                if let Err(error) = self.disk.reopen() {
                    error!(%error, "the store of webhooks cannot be opened again");
                }
                self.survey();
            }
        }
    }

    fn work(&mut self, Work { changes, losses }: Work) {
        for (to, lost) in losses.dropped {
            self.readers.dropped(&to, lost, "webhooks.max_unwritten");
        }
        for (to, events) in losses.collapsed {
            self.readers.collapsed(&to, events);
        }
        for (app, facts) in losses.facts {
            self.readers.facts_dropped(&app, facts);
        }
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

    fn write(&mut self, changes: &[Change]) -> Result<Effects, StoreError> {
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
            let number = |change: &Change| if let Change::Keep(_, event) = change { Some(event.id) } else { None };
            changes.iter().filter_map(number).max().map_or(Ok(()), |last| tables.note_number(last))
        })?;
        Ok(effects)
    }

    /// Now it is certain. If the transaction failed, nothing is, but delivering from memory is better than not at all.
    /// A receiver that no longer waits for the answer does not matter.
    fn announce(&self, changes: Vec<Change>, mut effects: Effects) {
        for (to, lost) in std::mem::take(&mut effects.dropped) {
            self.readers.dropped(&to, lost, "webhooks.max_dead");
        }
        for change in changes {
            match change {
                Change::Keep(to, event) => {
                    for ids in self.readers.kept(&to, event) {
                        self.inbox.push(Change::Forget(ids));
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
            for id in graveyard.bury(letter, ids[0], text.len()) {
                if let Some(letter) = tables.take_letter(id)? {
                    let mut lost = Lost::default();
                    letter.events.iter().for_each(|event| lost.add(&event.subject));
                    effects.dropped.push((letter.to, lost));
                }
            }
        }
        Change::Revive(id, _) => {
            let Some(letter) = tables.take_letter(*id)? else { return Ok(()) };
            // A new webhook about an old event: some libraries refuse one whose time is long past.
            let (to, time_ms) = (letter.to.clone(), unix_ms());
            graveyard.exhume(&letter, *id);
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
