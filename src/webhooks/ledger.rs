//! How much waits, by class and source, and which of it is dropped first.
//!
//! Open events go before trusted ones; within a class, the source for which most bytes wait loses its oldest event. So a
//! client that floods loses its own events, and nobody else's. Of what remains, the order does not change.
//!
//! Where several apps share a bound, the app for which most bytes wait loses first, whatever their class: one app's trusted
//! events are no reason to drop another app's open ones.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::source::Source;

use super::class::Class;

/// The ledgers of apps that share a bound. Everything costs O(log n).
#[derive(Debug, Default)]
pub(super) struct Ledgers {
    apps: HashMap<Arc<str>, Ledger>,
    /// By bytes; the last one loses.
    ranking: BTreeSet<(usize, Arc<str>)>,
}

/// The events that wait of one app, or for one endpoint. Everything costs O(log n).
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Of open ones, and of trusted ones.
    bytes: [usize; 2],
    accounts: HashMap<(Class, Source), Account>,
    ids: BTreeSet<(Class, Source, u64)>,
    ranking: BTreeSet<Rank>,
}

/// Something that waits, by its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) class: Class,
    pub(super) source: Source,
    pub(super) bytes: usize,
}

/// What waits of one source.
#[derive(Debug, Clone, Copy)]
struct Account {
    bytes: usize,
    oldest: u64,
}

/// The first one loses: by class, by bytes, and of equals the one that has waited longest.
type Rank = (Class, Reverse<usize>, u64, Source);

impl Ledgers {
    /// Something of this app waits.
    pub(super) fn add(&mut self, app: &str, entry: &Entry) {
        self.change(app, |ledger| ledger.add(entry));
    }

    /// It waits no longer.
    pub(super) fn remove(&mut self, app: &str, entry: &Entry) {
        self.change(app, |ledger| ledger.remove(entry));
    }

    /// The number of what is dropped first.
    pub(super) fn first_to_go(&self) -> Option<u64> {
        let (_, app) = self.ranking.last()?;
        self.apps.get(app)?.first_to_go()
    }

    /// Bytes that wait of one app's class.
    pub(super) fn bytes_of(&self, app: &str, class: Class) -> usize {
        self.apps.get(app).map_or(0, |ledger| ledger.bytes_of(class))
    }

    /// Apps of which something waits.
    pub(super) fn apps(&self) -> usize {
        self.apps.len()
    }

    fn change(&mut self, app: &str, change: impl FnOnce(&mut Ledger)) {
        let known = self.apps.get_key_value(app).map(|(app, _)| Arc::clone(app));
        let app = known.unwrap_or_else(|| app.into());
        let ledger = self.apps.entry(Arc::clone(&app)).or_default();
        let before = ledger.bytes();
        change(ledger);
        let after = ledger.bytes();
        self.ranking.remove(&(before, Arc::clone(&app)));
        match after {
            0 => drop(self.apps.remove(&app)),
            _ => drop(self.ranking.insert((after, app))),
        }
    }
}

impl Ledger {
    /// Something waits.
    pub(super) fn add(&mut self, entry: &Entry) {
        let Entry { id, class, source, bytes } = *entry;
        self.bytes[class as usize] += bytes;
        self.ids.insert((class, source, id));
        let before = self.accounts.get(&(class, source)).copied();
        let after = before.map_or(Account { bytes, oldest: id }, |before| Account {
            bytes: before.bytes + bytes,
            oldest: before.oldest.min(id),
        });
        self.replace((class, source), before, Some(after));
    }

    /// It waits no longer.
    pub(super) fn remove(&mut self, entry: &Entry) {
        let Entry { id, class, source, bytes } = *entry;
        let Some(before) = self.accounts.get(&(class, source)).copied() else { return };
        if !self.ids.remove(&(class, source, id)) {
            return;
        }
        self.bytes[class as usize] -= bytes;
        let oldest = self.ids.range((class, source, 0)..=(class, source, u64::MAX)).next();
        let after = oldest.map(|(.., oldest)| Account { bytes: before.bytes - bytes, oldest: *oldest });
        self.replace((class, source), Some(before), after);
    }

    /// The number of what is dropped first.
    pub(super) fn first_to_go(&self) -> Option<u64> {
        self.ranking.first().map(|(_, _, oldest, _)| *oldest)
    }

    /// Bytes that wait of a class.
    pub(super) fn bytes_of(&self, class: Class) -> usize {
        self.bytes[class as usize]
    }

    fn bytes(&self) -> usize {
        self.bytes.iter().sum()
    }

    fn replace(&mut self, key: (Class, Source), before: Option<Account>, after: Option<Account>) {
        let rank = |account: Account| (key.0, Reverse(account.bytes), account.oldest, key.1);
        if let Some(before) = before {
            self.ranking.remove(&rank(before));
        }
        match after {
            Some(after) => {
                self.ranking.insert(rank(after));
                self.accounts.insert(key, after);
            }
            None => drop(self.accounts.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, class: Class, source: u64) -> Entry {
        Entry { id, class, source: Source::from_number(source), bytes: 10 }
    }

    #[test]
    fn the_oldest_event_of_the_largest_source_goes_first_and_trusted_ones_last() {
        let mut ledger = Ledger::default();
        let entries = [
            entry(1, Class::Trusted, 1),
            entry(2, Class::Trusted, 2),
            entry(3, Class::Trusted, 2),
            entry(4, Class::Open, 3),
            entry(5, Class::Open, 1),
            entry(6, Class::Open, 1),
            entry(7, Class::Open, 1),
        ];
        entries.iter().for_each(|entry| ledger.add(entry));
        assert_eq!([Class::Open, Class::Trusted].map(|class| ledger.bytes_of(class)), [40, 30]);
        let mut order = Vec::new();
        while let Some(id) = ledger.first_to_go() {
            order.push(id);
            ledger.remove(entries.iter().find(|entry| entry.id == id).unwrap());
        }
        assert_eq!(order, [5, 6, 4, 7, 2, 1, 3]);
        assert!(ledger.accounts.is_empty() && ledger.ids.is_empty() && ledger.ranking.is_empty());
        assert_eq!(ledger.bytes, [0; 2]);
    }

    #[test]
    fn the_app_with_most_bytes_loses_first_and_its_trusted_events_before_open_ones_of_others() {
        let mut ledgers = Ledgers::default();
        let entries = [
            ("quiet", entry(1, Class::Open, 1)),
            ("quiet", entry(2, Class::Trusted, 1)),
            // Many sources with one event each.
            ("loud", entry(3, Class::Trusted, 2)),
            ("loud", entry(4, Class::Trusted, 3)),
            ("loud", entry(5, Class::Trusted, 4)),
            ("loud", entry(6, Class::Trusted, 5)),
            ("loud", entry(7, Class::Open, 6)),
        ];
        entries.iter().for_each(|(app, entry)| ledgers.add(app, entry));
        assert_eq!((ledgers.apps(), ledgers.bytes_of("quiet", Class::Trusted)), (2, 10));
        assert_eq!((ledgers.bytes_of("loud", Class::Trusted), ledgers.bytes_of("none", Class::Open)), (40, 0));
        let mut order = Vec::new();
        while let Some(id) = ledgers.first_to_go() {
            order.push(id);
            let (app, entry) = entries.iter().find(|(_, entry)| entry.id == id).unwrap();
            ledgers.remove(app, entry);
        }
        // Two of each are left when the first one of the quiet app goes.
        assert_eq!((&order[..3], &order[3..]), (&[7, 3, 4][..], &[1, 5, 2, 6][..]));
        assert!(ledgers.apps.is_empty() && ledgers.ranking.is_empty());
    }
}
