//! The memory that the subscriptions of all clients take on this node, as estimated, and its bound
//! (`server.subscription_memory`).
//!
//! A subscription is charged to the [`Account`] of its connection before anything of it becomes visible.

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

/// The memory that the subscriptions of one connection take, given back when it is dropped.
#[derive(Debug)]
pub struct Account {
    app: Arc<AppSubscriptionMemory>,
    bytes: u64,
}

/// The texts of a subscription, which decide about what it takes.
#[derive(Debug, Clone, Copy)]
pub struct Texts {
    /// Bytes of the channel's name.
    pub name: usize,
    /// Bytes of the member's id and information, on a presence channel.
    pub member: Option<usize>,
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
    /// The account of a new connection.
    pub fn account(self: &Arc<Self>) -> Account {
        Account { app: Arc::clone(self), bytes: 0 }
    }

    /// A channel has its first subscriber, or lost its last one. Nobody is refused for that: the next subscription is.
    pub fn channel(&self, occupied: bool) {
        if occupied {
            self.add(CHANNEL);
        } else {
            self.give_back(CHANNEL);
        }
    }

    /// Whether there is room for a subscription of a connection that has so many already, if all takes so much with it.
    fn has_room(&self, (used, own): (u64, u64), held: usize) -> bool {
        let SubscriptionMemory { limit, apps, .. } = *self.node;
        let has_more_than_others = apps == 1 || own > limit / apps;
        let reserved = apps > 1 && has_more_than_others && used > limit - limit / RESERVE;
        let immodest = held >= MODEST && has_more_than_others && used > limit - limit / MODEST_RESERVE;
        used <= limit && !reserved && !immodest
    }

    /// Bytes that the app takes.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that all subscriptions of the node may take.
    pub fn limit(&self) -> u64 {
        self.node.limit
    }

    /// Returns what all apps take, and what this one does.
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

impl Account {
    /// Charges a subscription, if the connection holds so many before. False if there is no room: at all, for a connection
    /// with many subscriptions while less than a quarter is left; and where there are several apps, at all while less than
    /// a tenth is left. An app that has no more than its equal share is refused by none but the first of these. So neither a connection nor an app takes everything from
    /// others.
    pub fn charge(&mut self, texts: Texts, held: usize) -> bool {
        let bytes = texts.cost();
        let has_room = self.app.has_room(self.app.add(bytes), held);
        match has_room {
            true => self.bytes += bytes,
            false => self.app.give_back(bytes),
        }
        has_room
    }

    /// Gives back what a subscription with these texts was charged.
    pub fn give_back(&mut self, texts: Texts) {
        // Not more than was charged, whatever happens: the rest belongs to others.
        let bytes = texts.cost().min(self.bytes);
        self.bytes -= bytes;
        self.app.give_back(bytes);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.app.give_back(self.bytes);
    }
}

impl Texts {
    fn cost(self) -> u64 {
        SUBSCRIPTION + 2 * self.name as u64 + self.member.map_or(0, |texts| MEMBER + 2 * texts as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1024 * 1024;
    const PUBLIC: Texts = Texts { name: 10, member: None };
    const PRESENCE: Texts = Texts { name: 10, member: Some(100) };

    /// Subscribes connections that hold so many before, one each, as long as there is room.
    fn fill(app: &Arc<AppSubscriptionMemory>, held: usize) -> Vec<Account> {
        let subscribed = || {
            let mut account = app.account();
            account.charge(PUBLIC, held).then_some(account)
        };
        std::iter::from_fn(subscribed).collect()
    }

    #[test]
    fn everything_is_given_back_and_refused_charges_take_nothing() {
        let memory = SubscriptionMemory::new(LIMIT, 1);
        let app = memory.app();
        for _ in 0..3 {
            let accounts = fill(&app, 0);
            assert!(app.used() <= memory.limit() && app.used() > memory.limit() - 2 * SUBSCRIPTION);
            assert!(!app.account().charge(PRESENCE, 0));
            drop(accounts);
            assert_eq!((app.used(), memory.used.load(Ordering::Relaxed)), (0, 0));
        }
        let mut account = app.account();
        assert!(account.charge(PUBLIC, 0) && account.charge(PRESENCE, 1));
        account.give_back(PUBLIC);
        assert_eq!(app.used(), PRESENCE.cost());
        account.give_back(PRESENCE);
        account.give_back(PRESENCE);
        assert_eq!((app.used(), memory.used.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn connections_with_many_subscriptions_leave_room_for_others() {
        let memory = SubscriptionMemory::new(LIMIT, 1);
        let app = memory.app();
        let many = fill(&app, MODEST);
        assert!(app.used() <= memory.limit() * 3 / 4 && !many.is_empty());
        let modest = fill(&app, 0);
        assert!(app.used() > memory.limit() * 9 / 10 && modest.len() > many.len() / 4);
    }

    #[test]
    fn one_app_cannot_take_everything_from_another() {
        let memory = SubscriptionMemory::new(LIMIT, 2);
        let (greedy, modest) = (memory.app(), memory.app());
        let all = fill(&greedy, 0);
        assert!(greedy.used() > memory.limit() * 8 / 10, "{}", greedy.used());
        let some = fill(&modest, 0);
        assert!(modest.used() > memory.limit() / 11, "{}", modest.used());
        drop((all, some));
        // Nor can it keep the other's clients from having many.
        let all = fill(&greedy, MODEST);
        assert!(greedy.used() > memory.limit() * 7 / 10 && !fill(&modest, MODEST).is_empty());
        drop(all);
        assert_eq!((greedy.used(), modest.used()), (0, 0));
    }
}
