//! How much waits, by class and source, and which of it is dropped first.
//!
//! Open events go before trusted ones; within a class, the source for which most bytes wait loses its oldest event. So a
//! client that floods loses its own events, and nobody else's. Of what remains, the order does not change.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::source::{Class, Source};

/// See the module. Everything costs O(log n).
#[derive(Debug, Default)]
pub(super) struct Ledger {
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

impl Ledger {
    /// Something waits.
    pub(super) fn add(&mut self, entry: &Entry) {
        let Entry { id, class, source, bytes } = *entry;
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
        let oldest = self.ids.range((class, source, 0)..=(class, source, u64::MAX)).next();
        let after = oldest.map(|(.., oldest)| Account { bytes: before.bytes - bytes, oldest: *oldest });
        self.replace((class, source), Some(before), after);
    }

    /// The number of what is dropped first.
    pub(super) fn first_to_go(&self) -> Option<u64> {
        self.ranking.first().map(|(_, _, oldest, _)| *oldest)
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
        let mut order = Vec::new();
        while let Some(id) = ledger.first_to_go() {
            order.push(id);
            ledger.remove(entries.iter().find(|entry| entry.id == id).unwrap());
        }
        assert_eq!(order, [5, 6, 4, 7, 2, 1, 3]);
        assert!(ledger.accounts.is_empty() && ledger.ids.is_empty() && ledger.ranking.is_empty());
    }
}
