//! What is on disk: which tables there are, and what the rules between them are.

use std::collections::{BTreeMap, HashMap};

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

use super::class::Class;
use super::disk::{Disk, StoreError};
use super::letter::{Address, DeadLetter, KeptBatch, KeptEvent};
use super::queue::Event;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Undelivered events by their number.
pub(super) const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
/// Deliveries of endpoints that get several events at once, by the number of the first.
const BATCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("batches");
/// Dead letters, by the number of their first event.
const DEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead");
/// What backends were told is true: an app's id, a space and the fact.
const TOLD: TableDefinition<'_, &str, ()> = TableDefinition::new("told");

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
    pub(super) last_id: u64,
}

/// The tables of one transaction.
pub(super) struct Tables<'t> {
    pub(super) meta: Table<'t, &'static str, u64>,
    pub(super) events: Table<'t, u64, &'static [u8]>,
    pub(super) batches: Table<'t, u64, &'static [u8]>,
    pub(super) dead: Table<'t, u64, &'static [u8]>,
    pub(super) told: Table<'t, &'static str, ()>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            events: transaction.open_table(EVENTS)?,
            batches: transaction.open_table(BATCHES)?,
            dead: transaction.open_table(DEAD)?,
            told: transaction.open_table(TOLD)?,
        })
    }

    pub(super) fn make_batch(&mut self, ids: &[u64], time_ms: u64) -> Result<(), StoreError> {
        self.batches.insert(ids[0], &*encode(&KeptBatch { time_ms, ids: ids.to_vec() }))?;
        Ok(())
    }

    pub(super) fn forget(&mut self, ids: &[u64]) -> Result<(), StoreError> {
        for id in ids {
            self.events.remove(id)?;
        }
        self.batches.remove(ids[0])?;
        Ok(())
    }

    /// Remembers the largest number of all, which no later event may have again, whatever the clock says by then.
    pub(super) fn note_number(&mut self, last: u64) -> Result<(), StoreError> {
        self.meta.insert("last", last)?;
        Ok(())
    }

    pub(super) fn take_letter(&mut self, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        Ok(self.dead.remove(id)?.and_then(|bytes| decode("dead letter", bytes.value())))
    }
}

/// How many bytes of dead letters each endpoint has.
pub(super) struct Graveyard {
    max: usize,
    plots: HashMap<Address, Plot>,
}

#[derive(Default)]
struct Plot {
    /// The first one goes first: open ones before trusted ones, and the older before the newer.
    letters: BTreeMap<(Class, u64), usize>,
    bytes: usize,
}

impl Graveyard {
    /// One that knows of none, with room for so many bytes of each endpoint.
    pub(super) fn new(max: usize) -> Self {
        Self { max, plots: HashMap::new() }
    }

    pub(super) fn survey(&mut self, disk: &Disk) -> Result<(), StoreError> {
        self.plots.clear();
        disk.read(|transaction| {
            for entry in transaction.open_table(DEAD)?.iter()? {
                let (id, bytes) = entry?;
                if let Some(letter) = decode::<DeadLetter>("dead letter", bytes.value()) {
                    let place = (letter.class(), id.value());
                    let plot = self.plots.entry(letter.to).or_default();
                    plot.letters.insert(place, bytes.value().len());
                    plot.bytes += bytes.value().len();
                }
            }
            Ok(())
        })
    }

    /// Adds a letter, and returns those for which there is no more room.
    pub(super) fn bury(&mut self, letter: &DeadLetter, id: u64, bytes: usize) -> Vec<u64> {
        if bytes > self.max {
            return vec![id];
        }
        let plot = self.plots.entry(letter.to.clone()).or_default();
        // It may be there already: an error does not always mean that nothing was written.
        plot.bytes -= plot.letters.insert((letter.class(), id), bytes).unwrap_or(0);
        plot.bytes += bytes;
        let mut gone = Vec::new();
        while plot.bytes > self.max {
            let Some(((_, id), bytes)) = plot.letters.pop_first() else { break };
            plot.bytes -= bytes;
            gone.push(id);
        }
        gone
    }

    pub(super) fn exhume(&mut self, letter: &DeadLetter, id: u64) {
        if let Some(plot) = self.plots.get_mut(&letter.to) {
            plot.bytes -= plot.letters.remove(&(letter.class(), id)).unwrap_or(0);
        }
    }
}

/// The newest dead letters, at most `limit`, of those that are `wanted`.
pub(super) fn dead_letters(
    disk: &Disk,
    limit: usize,
    wanted: impl Fn(&DeadLetter) -> bool,
) -> Result<Vec<(u64, DeadLetter)>, StoreError> {
    disk.read(|transaction| {
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
pub(super) fn dead_letter(disk: &Disk, id: u64) -> Result<Option<DeadLetter>, StoreError> {
    disk.read(|transaction| {
        let table = transaction.open_table(DEAD)?;
        Ok(table.get(id)?.and_then(|bytes| decode("dead letter", bytes.value())))
    })
}

/// Reads the whole store, and makes whatever is missing.
pub(super) fn read_all(disk: &Disk) -> Result<(u32, Found), StoreError> {
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

pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings, numbers and JSON always serialise")
}

/// What this version cannot read, another one wrote; it is reported and left alone.
fn decode<T: DeserializeOwned>(noun: &str, bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).inspect_err(|error| warn!(%error, "the store of webhooks has an unknown {noun}")).ok()
}
