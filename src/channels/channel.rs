//! One channel: its subscribers, members, cached event and count. Everything happens under its lock.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::metrics::counter::Counter;

use crate::outbox::Outbox;
use crate::protocol::{ChannelName, EventData, Frame, ServerEvent, SocketId, SubscriptionError, UserId};

use super::agenda::Chore;
use super::cache::{Age, Place};
use super::fan_out::{CHUNK, Queue, Round, Subscribers, Subscription, TURN};
use super::leaving::Leaving;
use super::presence::Presence;
use super::replica::{Position, Replica};
use super::{Occupancy, Rules, Subscribed, Subscriber, Unsubscribed};

/// A channel that somebody is subscribed to, or that holds a cached event.
#[derive(Debug)]
pub(super) struct Channel {
    state: Mutex<State>,
    queue: Arc<Queue>,
}

/// What is true of a channel.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) subscribers: Subscribers,
    /// What goes to all of them.
    queue: Arc<Queue>,
    round: Round,
    pub(super) presence: Option<Box<Presence>>,
    pub(super) cached: Option<Box<Cached>>,
    count: Count,
    /// In a cluster: what this node shares with the others.
    pub(super) replica: Option<Box<Replica>>,
    /// In a cluster: who will be subscribed once the cluster knows.
    pub(super) waiting: Vec<Waiting>,
    /// When a chore looks whether somebody has waited too long.
    pub(super) giving_up: Option<Instant>,
    /// Connections that have left a presence channel, which is told later.
    pub(super) leaving: Option<Box<Leaving>>,
    retired: bool,
}

/// Somebody who will be subscribed once the cluster knows.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) socket_id: SocketId,
    pub(super) outbox: Arc<Outbox>,
    pub(super) user_id: Option<UserId>,
    /// When it has waited too long.
    pub(super) until: Instant,
    /// Where the news stood when the cluster was told of it.
    pub(super) asked: Asked,
}

/// How far the cluster was asked about somebody who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Not yet.
    No,
    /// It is being told.
    Now,
    /// It has answered, at this place.
    At(Position),
}

/// The last event of a cache channel: what is replayed to newcomers, and what the HTTP API shows.
#[derive(Debug)]
pub(super) struct Cached {
    /// The event, encoded.
    pub(super) frame: Frame,
    /// Its data, where the HTTP API asks this node for it.
    pub(super) data: Option<EventData>,
    /// From when on it is forgotten.
    pub(super) expires: Instant,
    /// Its place among all cached events of the app.
    place: Place,
}

impl Cached {
    /// Enters an event among all cached events of the app.
    pub(super) fn new(
        name: &ChannelName,
        frame: Frame,
        data: Option<EventData>,
        expires: Instant,
        rules: &Rules,
    ) -> Box<Self> {
        let bytes = frame.len() + data.as_ref().map_or(0, |data| data.literal().len());
        Box::new(Self { place: rules.cache.enter(name, bytes, expires), frame, data, expires })
    }

    /// Tells it apart from all others.
    pub(super) fn age(&self) -> Age {
        self.place.age()
    }
}

/// The throttle of subscription counts (§2.11).
#[derive(Debug, Default)]
struct Count {
    last_sent: Option<Instant>,
    /// It has changed since.
    held_back: bool,
    /// A chore on the agenda looks at it.
    planned: bool,
}

impl Count {
    /// Until when a large channel has to wait for the next one.
    fn pause(&self, rules: &Rules, now: Instant) -> Option<Instant> {
        self.last_sent.map(|sent| sent + rules.count_interval).filter(|next| *next > now)
    }
}

impl Channel {
    /// A channel without subscribers.
    pub(super) fn new() -> Self {
        let queue = Arc::new(Queue::default());
        let state = State { queue: Arc::clone(&queue), ..State::default() };
        Self { state: Mutex::new(state), queue }
    }

    /// What is true of it, for as long as the guard lives.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// What goes to all subscribers, in this order.
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Delivers for a while. False if there is nothing left to do.
    pub(super) fn turn(&self, delivered: &Counter) -> bool {
        let mut state = self.state.lock();
        for _ in 0..TURN / CHUNK {
            let State { subscribers, queue, round, .. } = &mut *state;
            if !round.go_on(queue, subscribers, delivered) {
                return false;
            }
            MutexGuard::bump(&mut state);
        }
        true
    }
}

impl State {
    /// See [`super::Channels::subscribe`].
    pub(super) fn subscribe(
        &mut self,
        name: &ChannelName,
        subscriber: Subscriber,
        rules: &Rules,
        now: Instant,
    ) -> Result<Subscribed, SubscriptionError> {
        let rejoined = self.take_back_leave(&subscriber, rules)?;
        let mut member_added = false;
        if let Some(member) = subscriber.member.as_ref().filter(|_| !rejoined) {
            let presence = self.presence.get_or_insert_default();
            if !presence.contains(&member.user_id) && presence.len() >= rules.presence_members {
                return Err(SubscriptionError::ChannelFull { channel: name.clone(), limit: rules.presence_members });
            }
            // Alone, who is connected here is who there is.
            member_added = presence.join(member) && presence.add(member.clone());
        }
        let cache_miss = self.greet(name, &subscriber.outbox, now);
        let Subscriber { socket_id, outbox, member } = subscriber;
        if let Some(member) = member.as_ref().filter(|_| member_added) {
            self.deliver(ServerEvent::MemberAdded { channel: name.as_str(), member }.encode(), None);
        }
        let occupied = !rejoined && self.subscribers.is_empty() && self.leaving() == 0;
        let user_id = member.map(|member| member.user_id);
        self.add(socket_id, outbox, user_id);
        Ok(Subscribed { occupied, member_added, cache_miss, counted: false, touched: false, rejoined })
    }

    /// Tells a newcomer that the subscription is in place, who is here, and what the cached event is, as soon as the outbox
    /// is flushed. True if a cache channel had nothing to show.
    pub(super) fn greet(&self, name: &ChannelName, outbox: &Outbox, now: Instant) -> bool {
        let list = self.presence.as_ref().filter(|_| name.is_presence()).map(|presence| presence.list());
        let data = list.as_deref().unwrap_or("{}");
        outbox.hold(ServerEvent::SubscriptionSucceeded { channel: name.as_str(), data }.encode());
        let cached = self.cached(now).map(|event| event.frame.clone());
        let cache_miss = name.is_cache() && cached.is_none();
        if cache_miss {
            outbox.hold(ServerEvent::CacheMiss { channel: name.as_str() }.encode());
        }
        if let Some(frame) = cached {
            outbox.hold(frame);
        }
        cache_miss
    }

    /// See [`super::Channels::unsubscribe`].
    pub(super) fn unsubscribe(&mut self, name: &ChannelName, socket_id: SocketId) -> Option<Unsubscribed> {
        let user_id = match self.subscribers.swap_remove(&socket_id) {
            Some(subscription) => subscription.user_id,
            None => Some(self.end_leave(socket_id)?),
        };
        let member_removed = user_id.filter(|user_id| {
            // Only a presence channel has subscriptions with a user.
            self.presence.as_mut().is_some_and(|presence| {
                let last = presence.leave(user_id);
                presence.forget(user_id);
                last && presence.remove(user_id)
            })
        });
        if let Some(user_id) = &member_removed {
            self.deliver(ServerEvent::MemberRemoved { channel: name.as_str(), user_id }.encode(), None);
        }
        let vacated = self.subscribers.is_empty() && self.leaving() == 0;
        Some(Unsubscribed { vacated, member_removed, counted: false, touched: false })
    }

    /// Adds a subscriber, who gets everything that comes from here on.
    pub(super) fn add(&mut self, socket_id: SocketId, outbox: Arc<Outbox>, user_id: Option<UserId>) {
        let next = self.queue.next();
        self.subscribers.insert(socket_id, Subscription { outbox, user_id, next });
    }

    /// Queues a frame for all subscribers but one. Whoever has locked the channel sees to its delivery afterwards.
    pub(super) fn deliver(&self, frame: Frame, except: Option<SocketId>) {
        self.queue.push(frame, except);
    }

    /// The cached event, if it has not expired.
    pub(super) fn cached(&self, now: Instant) -> Option<&Cached> {
        self.cached.as_deref().filter(|event| event.expires > now)
    }

    /// Tells everybody the new count, at once or, in a large channel, with the next chore. Whether it was at once, and
    /// the chore.
    pub(super) fn count_changed(
        &mut self,
        name: &ChannelName,
        rules: &Rules,
        now: Instant,
    ) -> (bool, Option<(Instant, Chore)>) {
        if !rules.counts || name.is_presence() {
            return (false, None);
        }
        match self.count.pause(rules, now) {
            Some(next) if self.subscribers.len() > rules.count_threshold => {
                self.count.held_back = true;
                let planned = std::mem::replace(&mut self.count.planned, true);
                (false, (!planned).then_some((next, Chore::Count)))
            }
            _ => {
                self.send_count(name, now);
                (true, None)
            }
        }
    }

    /// The chore of a throttled count: sends it, unless everybody was told meanwhile. Whether it did, and when to look
    /// again.
    pub(super) fn send_pending_count(
        &mut self,
        name: &ChannelName,
        rules: &Rules,
        now: Instant,
    ) -> (bool, Option<(Instant, Chore)>) {
        self.count.planned = false;
        if !self.count.held_back {
            return (false, None);
        }
        match self.count.pause(rules, now) {
            Some(next) => {
                self.count.planned = true;
                (false, Some((next, Chore::Count)))
            }
            None => {
                self.send_count(name, now);
                (true, None)
            }
        }
    }

    fn send_count(&mut self, name: &ChannelName, now: Instant) {
        self.count.last_sent = Some(now);
        self.count.held_back = false;
        let count = self.subscribers.len();
        self.deliver(ServerEvent::SubscriptionCount { channel: name.as_str(), count }.encode(), None);
    }

    /// Whether a connection is subscribed, or will be.
    pub(super) fn is_subscribed(&self, socket_id: SocketId) -> bool {
        self.subscribers.contains_key(&socket_id) || self.is_waiting(socket_id)
    }

    /// How many are here.
    pub(super) fn occupancy(&self) -> Occupancy {
        let users = self.presence.as_ref().map_or(0, |presence| presence.len());
        Occupancy { subscriptions: self.subscribers.len() + self.leaving(), users }
    }

    /// Whether a user is here.
    pub(super) fn is_member(&self, user_id: &UserId) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.contains(user_id))
    }

    /// Who is here.
    pub(super) fn members(&self) -> Vec<UserId> {
        self.presence.as_ref().map(|presence| presence.user_ids()).unwrap_or_default()
    }

    /// Closes an empty channel for good; whoever still holds it must fetch another one. True if it was empty.
    pub(super) fn retire(&mut self) -> bool {
        let shared = self.replica.as_ref().is_some_and(|replica| !replica.is_over());
        // In a cluster the cached event is kept elsewhere, and for longer.
        let needed = self.cached.is_some() && self.replica.is_none();
        let is_empty = self.subscribers.is_empty() && self.waiting.is_empty() && self.leaving() == 0;
        self.retired = is_empty && !needed && !shared;
        self.retired
    }

    /// Whether the channel was given up.
    pub(super) fn is_retired(&self) -> bool {
        self.retired
    }
}
