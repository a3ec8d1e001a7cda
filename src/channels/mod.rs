//! Who is subscribed on this node, who is a member, who is signed in, what was cached.
//!
//! Everything here is in memory and immediate: a method takes a lock, changes what is true, queues what subscribers must
//! hear and reports the edge. Nothing waits, so no lock is ever held across an await. Each channel has a lock of its own,
//! under which it decides and delivers, and one queue; that alone gives all its subscribers one order, and lets a
//! newcomer's member list and the member events after it neither miss nor repeat anyone.

mod agenda;
mod cache;
mod channel;
mod fan_out;
mod leaving;
mod presence;
mod registry;
mod replica;
mod shared;
mod tally;
mod users;
mod walk;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::metrics::counter::Counter;
use tokio::task::yield_now;
use tracing::warn;

use crate::config::AppConfig;
use crate::outbox::Outbox;
use crate::protocol::{ChannelName, CloseReason, EventData, Frame, Member, SocketId, SubscriptionError, UserId};
use crate::shutdown::Shutdown;
use crate::source::Source;
use crate::subscription_memory::AppSubscriptionMemory;

use agenda::{Agenda, Chore};
use cache::{Age, Cache};
use channel::{Cached, Channel, State};
use fan_out::Duty;
pub use leaving::Left;
use registry::Registry;
pub use replica::{Answer, Contribution, Everything, Life, News, Outcome, Position};
use tally::{Census, Tally};
pub use users::{Changed, Connection, Greeting, Users};
pub use walk::Walk;

/// Cached events that one tick drops: some milliseconds of work.
const EXPIRED_AT_ONCE: usize = 10_000;

/// The channels of one app on this node.
#[derive(Debug)]
pub struct Channels {
    registry: Registry,
    tally: Tally,
    agenda: Mutex<Agenda>,
    rules: Rules,
    /// Clients whose subscription had to be refused because the cluster was out of reach, by the address of their outbox:
    /// each once, however often it tries.
    stranded: Mutex<HashMap<usize, Weak<Outbox>>>,
    /// Frames that went to subscribers.
    delivered: Counter,
    /// Cached events that had to go before their time.
    evicted: Counter,
    /// The app's id, for the log.
    app: String,
    /// What is charged for channels that somebody is subscribed to.
    memory: Option<Arc<AppSubscriptionMemory>>,
    /// Who waits for the tasks that deliver to large channels.
    tasks: Shutdown,
}

/// What the app's configuration says about channels.
#[derive(Debug)]
struct Rules {
    presence_members: usize,
    presence_joins: u32,
    cache_ttl: Duration,
    counts: bool,
    count_threshold: usize,
    count_interval: Duration,
    error_events: bool,
    /// Whether other nodes have a share in these channels.
    shared: bool,
    /// How long a subscription waits for the cluster.
    patience: Duration,
    /// Where cached events are entered.
    cache: Arc<Cache>,
}

/// A connection that subscribes, and as whom.
#[derive(Debug)]
pub struct Subscriber {
    /// The connection.
    pub socket_id: SocketId,
    /// Its queue.
    pub outbox: Arc<Outbox>,
    /// The member it makes visible; exactly on presence channels.
    pub member: Option<Member>,
}

/// What a new subscription changed on this node.
#[derive(Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// It is the channel's first.
    pub occupied: bool,
    /// It is its user's first on this presence channel.
    pub member_added: bool,
    /// The channel is a cache channel with nothing to show.
    pub cache_miss: bool,
    /// Everybody was told the new number of subscribers.
    pub counted: bool,
    /// The cluster must hear of it.
    pub touched: bool,
    /// The connection had left, which nobody was told.
    pub rejoined: bool,
}

/// What the end of a subscription changed on this node.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// It was the channel's last.
    pub vacated: bool,
    /// It was this user's last on this presence channel.
    pub member_removed: Option<UserId>,
    /// Everybody was told the new number of subscribers.
    pub counted: bool,
    /// The cluster must hear of it.
    pub touched: bool,
}

/// What can be asked about a channel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Subscribed connections.
    pub subscriptions: usize,
    /// Distinct members, for presence channels.
    pub users: usize,
}

/// Events that wait in a channel. They go out when this is dropped, at once but for what takes longer than a turn; nobody
/// else sees to it. What is published meanwhile goes out along with them.
#[derive(Debug)]
#[must_use = "events go out when it is dropped"]
pub struct Delivery<'a> {
    channels: &'a Channels,
    channel: Arc<Channel>,
}

impl Delivery<'_> {
    /// Whether it is worth waiting until others have published who are ready to.
    pub fn is_large(&self) -> bool {
        self.channel.lock().subscribers.len() > fan_out::CHUNK
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        self.channels.run(&self.channel);
    }
}

/// What a tick has done.
#[derive(Debug, Default)]
pub struct Due {
    /// Channels whose subscribers were told their number.
    pub counted: Vec<ChannelName>,
    /// Channels of which the cluster must hear.
    pub touched: Vec<ChannelName>,
    /// Subscriptions that were refused although the cluster could be reached.
    pub unconfirmed: u64,
    /// Subscriptions that were refused because it could not.
    pub cut_off: u64,
    /// Leaves that were held back, and are told now.
    pub left: Vec<(ChannelName, Left)>,
}

impl Channels {
    /// No channels yet. In a cluster, subscriptions wait for it at most as long as `patience`. Deliveries are counted in
    /// `delivered`, and those that take longer are `tasks`.
    pub fn new(config: &AppConfig, patience: Option<Duration>, delivered: Counter, tasks: Shutdown) -> Self {
        let limits = &config.limits;
        let rules = Rules {
            presence_members: limits.presence_members,
            presence_joins: limits.presence_joins_per_minute,
            cache_ttl: limits.cache_ttl,
            counts: config.subscription_counts,
            count_threshold: limits.subscription_count_threshold,
            count_interval: limits.subscription_count_interval,
            error_events: config.subscription_error_events,
            shared: patience.is_some(),
            patience: patience.unwrap_or_default(),
            cache: Arc::new(Cache::new(limits.cache_size)),
        };
        let (registry, tally, agenda, stranded) = Default::default();
        let (app, evicted) = (config.id.clone(), Counter::default());
        Self { registry, tally, agenda, rules, stranded, delivered, evicted, app, memory: None, tasks }
    }

    /// Counts cached events that had to go before their time in `evicted`.
    pub fn counting_evicted(self, evicted: Counter) -> Self {
        Self { evicted, ..self }
    }

    /// Charges channels that somebody is subscribed to. Subscriptions themselves are charged where they are decided on.
    pub fn charging(self, memory: Arc<AppSubscriptionMemory>) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Subscribes a connection that is not subscribed yet and has shown whatever it must. Queues, in this order: the
    /// success, the cached event or the miss, `member_added` for the others, the new count for all. In a cluster it may
    /// have to wait, and reports no edge: the cluster decides.
    ///
    /// The caller flushes the newcomer's outbox, not under a lock: a system call would keep others waiting who subscribe.
    ///
    /// # Errors
    /// [`SubscriptionError::ChannelFull`] or [`SubscriptionError::TooManyJoins`].
    pub fn subscribe(
        &self,
        name: &ChannelName,
        subscriber: Subscriber,
        life: Life,
        now: Instant,
    ) -> Result<Subscribed, SubscriptionError> {
        let (result, chore) = self.with(name, |state| {
            if self.rules.shared {
                return match state.subscribe_shared(name, subscriber, &self.rules, life, now) {
                    Ok((subscribed, chore)) => (Ok(subscribed), chore),
                    Err(error) => (Err(error), None),
                };
            }
            let mut result = state.subscribe(name, subscriber, &self.rules, now);
            let Ok(subscribed) = &mut result else { return (result, None) };
            let (counted, chore) = state.count_changed(name, &self.rules, now);
            subscribed.counted = counted;
            (result, chore)
        });
        self.plan(name, chore);
        if result.is_err() {
            self.retire(name);
        }
        result
    }

    /// Ends a subscription; `None` if there is none.
    pub fn unsubscribe(&self, name: &ChannelName, socket_id: SocketId, now: Instant) -> Option<Unsubscribed> {
        let channel = self.get(name)?;
        let (left, chore) = self.work(&channel, |state| {
            if self.rules.shared {
                return Some((state.unsubscribe_shared(socket_id)?, None));
            }
            let mut left = state.unsubscribe(name, socket_id)?;
            let (counted, chore) = state.count_changed(name, &self.rules, now);
            left.counted = counted;
            Some((left, chore))
        })?;
        self.plan(name, chore);
        if left.vacated {
            self.retire(name);
        }
        Some(left)
    }

    /// Ends a subscription to a presence channel for its connection, and for everybody else not before this time.
    pub fn leave_later(&self, name: &ChannelName, socket_id: SocketId, source: Source, until: Instant) {
        let Some(channel) = self.get(name) else { return };
        let chore = self.work(&channel, |state| state.leave_later(socket_id, source, until));
        self.plan(name, chore);
    }

    /// Whether a connection has left, which is not told yet.
    pub fn is_leaving(&self, name: &ChannelName, socket_id: SocketId) -> bool {
        self.get(name).is_some_and(|channel| channel.lock().is_leaving(socket_id))
    }

    /// Queues an event that a backend published, and remembers it if the channel is a cache channel. Where neither is to be
    /// done it is not even encoded: backends publish much that nobody listens to. Returns its delivery, if nobody else has
    /// taken that on.
    pub fn publish(
        &self,
        name: &ChannelName,
        encode: impl FnOnce() -> Frame,
        data: &EventData,
        except: Option<SocketId>,
        now: Instant,
    ) -> Option<Delivery<'_>> {
        if !name.is_cache() {
            let channel = self.get(name)?;
            return self.queue(channel, encode(), except);
        }
        let frame = encode();
        self.with(name, |state| {
            state.deliver(frame.clone(), except);
            state.cached = Some(Cached::new(name, frame, Some(data.clone()), now + self.rules.cache_ttl, &self.rules));
        });
        self.evict(now);
        None
    }

    /// Delivers a frame to the subscribers of a channel, in the order of these calls.
    pub fn deliver(&self, name: &ChannelName, frame: Frame, except: Option<SocketId>) {
        if let Some(channel) = self.get(name) {
            drop(self.queue(channel, frame, except));
        }
    }

    /// Who is there; all zero for a channel nobody is subscribed to.
    pub fn occupancy(&self, name: &ChannelName) -> Occupancy {
        self.get(name).map(|channel| channel.lock().occupancy()).unwrap_or_default()
    }

    /// Whether a user is a member of a presence channel.
    pub fn is_member(&self, name: &ChannelName, user_id: &UserId) -> bool {
        self.get(name).is_some_and(|channel| channel.lock().is_member(user_id))
    }

    /// The members of a presence channel.
    pub fn members(&self, name: &ChannelName) -> Vec<UserId> {
        self.get(name).map(|channel| channel.lock().members()).unwrap_or_default()
    }

    /// The event a cache channel holds, and the time it has left.
    pub fn cached(&self, name: &ChannelName, now: Instant) -> Option<(EventData, Duration)> {
        self.get(name)?.lock().cached(now).and_then(|event| Some((event.data.clone()?, event.expires - now)))
    }

    /// Channels with at least one subscriber, and subscriptions of all connections.
    pub fn counts(&self) -> (u64, u64) {
        self.tally.read()
    }

    /// Bytes of all cached events.
    pub fn cached_bytes(&self) -> usize {
        self.rules.cache.bytes()
    }

    /// Whether a connection is subscribed.
    pub fn is_in_place(&self, name: &ChannelName, socket_id: SocketId) -> bool {
        self.get(name).is_some_and(|channel| channel.lock().subscribers.contains_key(&socket_id))
    }

    /// Whether a connection is subscribed, or waits to be.
    pub fn is_subscribed(&self, name: &ChannelName, socket_id: SocketId) -> bool {
        self.get(name).is_some_and(|channel| channel.lock().is_subscribed(socket_id))
    }

    /// Does what has become due: counts that were held back, cached events that have expired, subscriptions that the
    /// cluster did not confirm in time although it `is_reachable` or because it is not, leaves that were held back.
    pub fn tick(&self, now: Instant, is_reachable: impl Fn(&ChannelName) -> bool) -> Due {
        let mut due = Due::default();
        // The rest with the next tick: nobody is shown it any more.
        for _ in 0..EXPIRED_AT_ONCE {
            if !self.expire_one(now) {
                break;
            }
        }
        let mut stranded = Vec::new();
        loop {
            // A statement of its own: the agenda must not stay locked while its chores are done.
            let next = self.agenda.lock().pop_due(now);
            let Some((name, chore)) = next else { break };
            let Some(channel) = self.get(&name) else { continue };
            match chore {
                Chore::Count => {
                    let (sent, again) = self.work(&channel, |state| state.send_pending_count(&name, &self.rules, now));
                    self.plan(&name, again);
                    if sent {
                        due.counted.push(name);
                    }
                }
                Chore::GiveUp => {
                    let (error, refused) = match is_reachable(&name) {
                        true => (SubscriptionError::Unconfirmed(self.rules.patience), &mut due.unconfirmed),
                        false => (SubscriptionError::Unavailable, &mut due.cut_off),
                    };
                    let (gone, touched, again) =
                        self.work(&channel, |state| state.give_up(&name, &self.rules, &error, now));
                    *refused += gone.len() as u64;
                    self.plan(&name, again);
                    due.touched.extend(touched.then_some(name));
                    stranded.extend(gone);
                }
                Chore::Leave => {
                    let (left, again) = self.work(&channel, |state| state.tell_leaves(&name, &self.rules, now));
                    self.plan(&name, again);
                    if left.iter().any(|left| left.changed.vacated) {
                        self.retire(&name);
                    }
                    due.left.extend(left.into_iter().map(|left| (name.clone(), left)));
                }
            }
        }
        self.strand(&stranded);
        due
    }

    /// Remembers clients whose subscriptions were refused.
    fn strand(&self, outboxes: &[Arc<Outbox>]) {
        if outboxes.is_empty() {
            return;
        }
        let mut stranded = self.stranded.lock();
        stranded.retain(|_, outbox| outbox.strong_count() > 0);
        stranded.extend(outboxes.iter().map(|outbox| (Arc::as_ptr(outbox).addr(), Arc::downgrade(outbox))));
    }

    /// In a cluster: the channels that this node has a share in.
    pub fn shared(&self) -> Vec<ChannelName> {
        self.registry.names()
    }

    /// In a cluster: what to tell it about a channel, unless it is being told something already.
    pub fn contribute(&self, name: &ChannelName, life: Life) -> Option<Contribution> {
        self.get(name)?.lock().contribute(life)
    }

    /// In a cluster: what it says to a contribution.
    pub fn settle(
        &self,
        name: &ChannelName,
        life: Life,
        contribution: &Contribution,
        answer: Answer,
        now: Instant,
    ) -> Outcome {
        let Some(channel) = self.get(name) else { return Outcome::default() };
        let settle = |state: &mut State| state.settle(name, &self.rules, life, (contribution, answer), now);
        let mut outcome = self.work(&channel, settle);
        self.evict(now);
        if outcome.over {
            // Somebody may have come between the locks.
            outcome.over = self.retire(name);
        }
        outcome
    }

    /// In a cluster: news of a channel, in the order in which they come.
    pub fn hear(&self, name: &str, life: Life, position: Position, news: News, now: Instant) -> Outcome {
        let Some((name, channel)) = self.registry.get_entry(name) else { return Outcome::default() };
        let outcome = self.work(&channel, |state| state.hear(&name, &self.rules, life, (position, news), now));
        self.evict(now);
        outcome
    }

    /// In a cluster: asks the subscribers of a channel to connect anew.
    pub fn send_away(&self, name: &ChannelName) {
        if let Some(channel) = self.get(name) {
            channel.lock().send_away(&CloseReason::Resubscribe);
        }
    }

    /// In a cluster: asks all those to connect anew whose subscription was refused while it was out of reach.
    pub fn rescue(&self) -> usize {
        let stranded = std::mem::take(&mut *self.stranded.lock());
        let stranded = stranded.values().filter_map(Weak::upgrade);
        stranded.map(|outbox| outbox.close(CloseReason::Resubscribe)).count()
    }

    fn get(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        self.registry.get(name)
    }

    /// Works on a channel, which comes into being if it must, and delivers what comes of it.
    fn with<R>(&self, name: &ChannelName, work: impl FnOnce(&mut State) -> R) -> R {
        loop {
            let channel = self.registry.get_or_create(name);
            let state = channel.lock();
            // Somebody may have retired it between the map and the lock; then the map has no or another one by now.
            if !state.is_retired() {
                return self.finish(&channel, state, work);
            }
        }
    }

    /// Works on a channel, and delivers what comes of it.
    fn work<R>(&self, channel: &Arc<Channel>, work: impl FnOnce(&mut State) -> R) -> R {
        self.finish(channel, channel.lock(), work)
    }

    fn finish<R>(
        &self,
        channel: &Arc<Channel>,
        mut state: MutexGuard<'_, State>,
        work: impl FnOnce(&mut State) -> R,
    ) -> R {
        let before = Census::of(&state);
        let result = work(&mut state);
        let after = Census::of(&state);
        self.tally.changed(before, after);
        if let Some(memory) = self.memory.as_ref().filter(|_| before.is_wanted() != after.is_wanted()) {
            memory.channel(after.is_wanted());
        }
        let few = state.subscribers.len() <= fan_out::CHUNK;
        drop(state);
        if channel.queue().claim() {
            match few {
                true => self.run(channel),
                // Where somebody has just come or gone, others often follow: they are told of together.
                false => self.run_later(channel),
            }
        }
        result
    }

    fn queue(&self, channel: Arc<Channel>, frame: Frame, except: Option<SocketId>) -> Option<Delivery<'_>> {
        match channel.queue().publish(frame, except) {
            Duty::Nothing => None,
            Duty::Help => {
                channel.turn(&self.delivered);
                None
            }
            Duty::Run => Some(Delivery { channels: self, channel }),
        }
    }

    /// Delivers what waits in a channel: at once, but for what takes longer than a turn.
    fn run(&self, channel: &Arc<Channel>) {
        if channel.turn(&self.delivered) {
            self.tasks.spawn(deliver_all(Arc::clone(channel), self.delivered.clone()));
        }
    }

    /// Delivers what waits in a channel, after everybody who is ready now has had a turn.
    fn run_later(&self, channel: &Arc<Channel>) {
        let delivering = deliver_all(Arc::clone(channel), self.delivered.clone());
        self.tasks.spawn(async {
            yield_now().await;
            delivering.await;
        });
    }

    /// Drops the oldest cached events until the others have room. The last one is not spared if it alone is too large.
    fn evict(&self, now: Instant) {
        // What has expired is no loss; the next tick would have dropped it.
        while self.rules.cache.is_over() && self.expire_one(now) {}
        let mut evicted = 0;
        while let Some((age, name)) = self.rules.cache.pop_excess() {
            self.forget_cached(&name, age);
            evicted += 1;
        }
        if evicted > 0 {
            self.evicted.inc_by(evicted);
            let (app, limit) = (&self.app, self.rules.cache.limit());
            warn!(app, evicted, limit, "cached events dropped: the app is over its limits.cache_size");
        }
    }

    /// Drops the oldest cached event if its time has come.
    fn expire_one(&self, now: Instant) -> bool {
        let Some((age, name)) = self.rules.cache.pop_expired(now) else { return false };
        self.forget_cached(&name, age);
        true
    }

    /// Drops the cached event of this age, unless another one has replaced it.
    fn forget_cached(&self, name: &ChannelName, age: Age) {
        let Some(channel) = self.get(name) else { return };
        let mut state = channel.lock();
        let forgotten = state.cached.take_if(|cached| cached.age() == age);
        drop(state);
        if forgotten.is_some() {
            self.retire(name);
        }
    }

    /// Forgets a channel that has neither subscribers nor a cached event. True if it did.
    fn retire(&self, name: &ChannelName) -> bool {
        self.registry.remove_if(name, |channel| channel.lock().retire())
    }

    fn plan(&self, name: &ChannelName, chore: Option<(Instant, Chore)>) {
        if let Some((due, chore)) = chore {
            self.agenda.lock().plan(due, chore, name.clone());
        }
    }
}

/// Ends when nothing is left to deliver, and lets others have their turns until then.
async fn deliver_all(channel: Arc<Channel>, delivered: Counter) {
    while channel.turn(&delivered) {
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use crate::protocol::ServerEvent;

    use super::*;

    #[test]
    fn a_count_that_was_held_back_is_not_sent_when_everybody_knows_it_by_then() {
        const INTERVAL: Duration = Duration::from_secs(5);
        let mut config = AppConfig::new("42", "key", "secret");
        config.subscription_counts = true;
        config.limits.subscription_count_threshold = 2;
        config.limits.subscription_count_interval = INTERVAL;
        let (channels, start) = (Channels::new(&config, None, Counter::default(), Shutdown::default()), Instant::now());
        let name = ChannelName::parse("room", 200).unwrap();
        let come = |at: Instant| {
            let (socket_id, outbox) = (SocketId::random(), Arc::new(Outbox::new(1000)));
            let changed =
                channels.subscribe(&name, Subscriber { socket_id, outbox, member: None }, Life::default(), at).unwrap();
            (socket_id, changed.counted)
        };
        let counted: Vec<bool> = (0..2).map(|_| come(start).1).collect();
        let (third, third_counted) = come(start);
        assert_eq!((counted, third_counted), (vec![true, true], false));
        // Below the threshold again: told at once, and nothing is left to tell.
        let later = start + INTERVAL / 2;
        assert!(channels.unsubscribe(&name, third, later).unwrap().counted);
        assert!(channels.tick(start + INTERVAL, |_| true).counted.is_empty());
        // What is held back from here on waits for its own time.
        assert!(!come(start + INTERVAL).1);
        assert!(channels.tick(later + INTERVAL - Duration::from_millis(1), |_| true).counted.is_empty());
        assert_eq!(channels.tick(later + INTERVAL, |_| true).counted, [name]);
        assert!(channels.tick(later + 9 * INTERVAL, |_| true).counted.is_empty());
    }

    /// What a walk finds, and what all cached events take.
    fn walk(channels: &Arc<Channels>) -> ((u64, u64), usize) {
        let mut walk = Walk::new(Arc::clone(channels), "");
        let found: Vec<_> = std::iter::from_fn(|| walk.slice()).flatten().collect();
        let subscriptions = found.iter().map(|(_, occupancy)| occupancy.subscriptions as u64).sum();
        let cached = channels.registry.names().into_iter().filter_map(|name| {
            let channel = channels.registry.get(&name)?;
            let state = channel.lock();
            let event = state.cached.as_ref()?;
            let data = event.data.as_ref().map_or(0, |data| data.literal().len());
            Some(event.frame.len() + data + 2 * name.as_str().len() + cache::OVERHEAD)
        });
        ((found.len() as u64, subscriptions), cached.sum())
    }

    #[test]
    fn counts_and_the_account_of_the_cache_are_those_of_a_walk_whatever_happens_at_once() {
        let mut config = AppConfig::new("42", "key", "secret");
        config.limits.cache_size = 20_000;
        let (evicted, start) = (Counter::default(), Instant::now());
        let channels = Channels::new(&config, None, Counter::default(), Shutdown::default());
        let channels = Arc::new(channels.counting_evicted(evicted.clone()));
        let names = ["room", "cache-room"].map(|kind| {
            (0..30).map(|number| ChannelName::parse(&format!("{kind}-{number}"), 200).unwrap()).collect::<Vec<_>>()
        });
        let work = |seed: u64| {
            let mut random = StdRng::seed_from_u64(seed);
            let mut subscribed = Vec::new();
            for step in 0..5_000 {
                let now = start + Duration::from_millis(step);
                let name = &names[random.random_range(0..2)][random.random_range(0..30)];
                match random.random_range(0..10) {
                    0..4 => {
                        let (socket_id, outbox) = (SocketId::random(), Arc::new(Outbox::new(1000)));
                        let subscriber = Subscriber { socket_id, outbox, member: None };
                        channels.subscribe(name, subscriber, Life::default(), now).unwrap();
                        subscribed.push((name, socket_id));
                    }
                    4..8 if !subscribed.is_empty() => {
                        let (name, socket_id) = subscribed.swap_remove(random.random_range(0..subscribed.len()));
                        assert!(channels.unsubscribe(name, socket_id, now).is_some());
                    }
                    _ => {
                        let data = EventData::from_text(&"x".repeat(random.random_range(0..3000)));
                        let event = ServerEvent::Channel { event: "e", channel: "c", data: &data, user_id: None };
                        drop(channels.publish(name, || event.encode(), &data, None, now));
                    }
                }
            }
            subscribed
        };
        let subscribed: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || work(seed))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let (counts, cached) = walk(&channels);
        assert_eq!((channels.counts(), channels.cached_bytes()), (counts, cached));
        assert_eq!(counts.1, subscribed.len() as u64);
        assert!(evicted.get() > 0 && cached > 10_000 && cached <= 20_000, "{} evicted, {cached} bytes", evicted.get());
        for (name, socket_id) in subscribed {
            channels.unsubscribe(name, socket_id, start);
        }
        assert_eq!(walk(&channels), ((0, 0), cached));
        channels.tick(start + config.limits.cache_ttl + Duration::from_secs(60), |_| true);
        assert_eq!((channels.counts(), channels.cached_bytes(), channels.registry.names().len()), ((0, 0), 0, 0));
    }
}
