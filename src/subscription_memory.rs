//! The memory that the subscriptions of all clients take on this node, as estimated, and its bound
//! (`server.subscription_memory`).
//!
//! A subscription is charged before anything of it becomes visible, and its [`Charge`] lives with the session until the
//! subscription ends, however that happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::memory;

/// What one subscription takes: its entries in the session and in the channel.
const SUBSCRIPTION: u64 = 256;

/// What a channel takes while somebody is subscribed to it.
const CHANNEL: u64 = 768;

/// What a member of a presence channel takes besides its texts.
const MEMBER: u64 = 512;

/// Part of the whole that apps above their equal share cannot have, where there are several.
const RESERVE: u64 = 10;

/// Subscriptions up to which a connection is modest.
const MODEST: usize = 20;

/// Part of the whole that is for modest connections alone, so that a few with very many subscriptions do not keep everybody
/// else from the one that they need.
const MODEST_RESERVE: u64 = 4;

/// See the module.
#[derive(Debug)]
pub struct SubscriptionMemory {
    limit: u64,
    apps: u64,
    used: AtomicU64,
}

/// The part of one app.
#[derive(Debug)]
pub struct AppSubscriptionMemory {
    node: Arc<SubscriptionMemory>,
    used: AtomicU64,
}

/// What one subscription takes, given back when it is dropped.
#[derive(Debug)]
#[must_use = "the memory is given back when it is dropped"]
pub struct Charge {
    app: Arc<AppSubscriptionMemory>,
    bytes: u64,
}

impl SubscriptionMemory {
    /// A bound of so many bytes, or of a quarter of the machine's memory if that is 0, for this many apps. Where the system
    /// does not say how much memory there is, that is no bound.
    pub fn new(limit: usize, apps: usize) -> Arc<Self> {
        let limit = match limit {
            0 => memory::total().map_or(u64::MAX, |total| total / 4),
            limit => limit as u64,
        };
        Arc::new(Self { limit, apps: apps.max(1) as u64, used: AtomicU64::new(0) })
    }

    /// The part of an app.
    pub fn app(self: &Arc<Self>) -> Arc<AppSubscriptionMemory> {
        Arc::new(AppSubscriptionMemory { node: Arc::clone(self), used: AtomicU64::new(0) })
    }

    /// Bytes that all subscriptions may take.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

impl AppSubscriptionMemory {
    /// Charges a subscription with the length of the channel's name and, on a presence channel, of the member's id and
    /// information, of a connection that `held` so many before. `None` if there is no room: at all, for a connection with
    /// many subscriptions while less than a quarter is left, or, where there are several apps, for one that has more than
    /// its equal share while less than a tenth is left. So neither a connection nor an app takes everything from others.
    pub fn charge(self: &Arc<Self>, name: usize, member: Option<usize>, held: usize) -> Option<Charge> {
        let bytes = SUBSCRIPTION + 2 * name as u64 + member.map_or(0, |texts| MEMBER + 2 * texts as u64);
        let (used, own) = self.add(bytes);
        // Given back by its drop if there is no room.
        let charge = Charge { app: Arc::clone(self), bytes };
        let SubscriptionMemory { limit, apps, .. } = *self.node;
        let reserved = apps > 1 && used > limit - limit / RESERVE && own > limit / apps;
        let immodest = held >= MODEST && used > limit - limit / MODEST_RESERVE;
        (used <= limit && !reserved && !immodest).then_some(charge)
    }

    /// A channel has its first subscriber, or lost its last one. Nobody is refused for that: the next subscription is.
    pub fn channel(&self, occupied: bool) {
        if occupied {
            self.add(CHANNEL);
        } else {
            self.give_back(CHANNEL);
        }
    }

    /// Bytes that the app takes.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that all subscriptions of the node may take.
    pub fn limit(&self) -> u64 {
        self.node.limit
    }

    fn add(&self, bytes: u64) -> (u64, u64) {
        let add = |counter: &AtomicU64| counter.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (add(&self.node.used), add(&self.used))
    }

    fn give_back(&self, bytes: u64) {
        for counter in [&self.node.used, &self.used] {
            counter.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.app.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1024 * 1024;

    fn fill(app: &Arc<AppSubscriptionMemory>) -> Vec<Charge> {
        std::iter::from_fn(|| app.charge(10, None, 0)).collect()
    }

    #[test]
    fn everything_is_given_back_and_refused_charges_take_nothing() {
        let memory = SubscriptionMemory::new(LIMIT, 1);
        let app = memory.app();
        for _ in 0..3 {
            let charges = fill(&app);
            assert!(app.used() <= memory.limit() && app.used() > memory.limit() - 2 * SUBSCRIPTION);
            assert!(app.charge(10, Some(100), 0).is_none());
            drop(charges);
            assert_eq!((app.used(), memory.used.load(Ordering::Relaxed)), (0, 0));
        }
    }

    #[test]
    fn connections_with_many_subscriptions_leave_room_for_others() {
        let memory = SubscriptionMemory::new(LIMIT, 1);
        let app = memory.app();
        let many: Vec<_> = std::iter::from_fn(|| app.charge(10, None, MODEST)).collect();
        assert!(app.used() <= memory.limit() * 3 / 4 && !many.is_empty());
        let modest = fill(&app);
        assert!(app.used() > memory.limit() * 9 / 10 && modest.len() > many.len() / 4);
    }

    #[test]
    fn one_app_cannot_take_everything_from_another() {
        let memory = SubscriptionMemory::new(LIMIT, 2);
        let (greedy, modest) = (memory.app(), memory.app());
        let all = fill(&greedy);
        assert!(greedy.used() > memory.limit() * 8 / 10, "{}", greedy.used());
        let some = fill(&modest);
        assert!(modest.used() > memory.limit() / 11, "{}", modest.used());
        drop((all, some));
        assert_eq!((greedy.used(), modest.used()), (0, 0));
    }
}
