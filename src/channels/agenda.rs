//! What channels have to do later.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::protocol::ChannelName;

/// Chores in the order they become due. A channel plans one of each kind, and one more only if it has to be earlier or the
/// channel was empty in between; those that are outlived do nothing. So the agenda is about as bounded as the channels.
#[derive(Debug, Default)]
pub(super) struct Agenda(BinaryHeap<Entry>);

/// Something that a channel does when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chore {
    /// Send the subscription count that was held back.
    Count,
    /// Send away who has waited too long for the cluster.
    GiveUp,
    /// Tell that a connection has left, which was held back.
    Leave,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    chore: Chore,
    name: ChannelName,
}

impl Agenda {
    /// Enters a chore.
    pub(super) fn plan(&mut self, due: Instant, chore: Chore, name: ChannelName) {
        self.0.push(Entry { due, chore, name });
    }

    /// Takes the next chore that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(ChannelName, Chore)> {
        if self.0.peek()?.due > now {
            return None;
        }
        self.0.pop().map(|entry| (entry.name, entry.chore))
    }
}

// Earliest first, and nothing but the time matters.
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Entry {}
