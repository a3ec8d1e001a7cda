//! How many channels are occupied and how many subscriptions there are, counted where they change: to ask costs nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use super::channel::State;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tally {
    occupied: AtomicU64,
    subscriptions: AtomicU64,
}

/// What one channel contributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Census {
    /// Those that have ended and are not told to be over among them.
    subscriptions: usize,
    /// Subscriptions that wait for the cluster.
    waiting: usize,
}

impl Census {
    pub(super) fn of(state: &State) -> Self {
        Self { subscriptions: state.subscribers.len() + state.leaving(), waiting: state.waiting.len() }
    }

    /// Whether anybody wants the channel.
    pub(super) fn is_wanted(self) -> bool {
        self.subscriptions > 0 || self.waiting > 0
    }
}

impl Tally {
    /// A channel has changed, and is still locked.
    pub(super) fn changed(&self, before: Census, after: Census) {
        change(&self.subscriptions, before.subscriptions as u64, after.subscriptions as u64);
        change(&self.occupied, u64::from(before.subscriptions > 0), u64::from(after.subscriptions > 0));
    }

    /// Channels with subscribers, and subscriptions.
    pub(super) fn read(&self) -> (u64, u64) {
        (self.occupied.load(Ordering::Relaxed), self.subscriptions.load(Ordering::Relaxed))
    }
}

fn change(counter: &AtomicU64, before: u64, after: u64) {
    if before != after {
        // Wraps around where it is less, and back: the sum is right.
        counter.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}
