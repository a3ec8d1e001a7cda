//! The webhooks of one app, as the node sees them: it says what may have changed, and how to look.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::{AppConfig, WebhookEvent};
use crate::metrics::AppMetrics;
use crate::protocol::{ChannelName, CloseReason, EventData, SocketId, UserId};
use crate::source::Source;

use super::endpoint::Endpoint;
use super::event::Happening;
use super::facts::{Fact, Facts, Turn};
use super::inbox::{Change, News};
use super::letter::Address;
use super::store::Store;

/// How long the same cache channel is not reported again (§5.2).
const MISS_PAUSE: Duration = Duration::from_secs(10);

/// Cache channels that are remembered for that. Others may be reported again sooner.
const MAX_MISSES: usize = 100_000;

/// Ends that are told in one go, between which clients get their turn at the lock; and those in one tick. A hundred thousand
/// channels that one client has left at once are told over some seconds.
const ENDED: [usize; 2] = [100, 5000];

/// What an app's backend is told.
#[derive(Debug)]
pub struct AppWebhooks {
    app: String,
    delay: Duration,
    endpoints: Vec<Arc<Endpoint>>,
    store: Arc<Store>,
    metrics: AppMetrics,
    /// Also the lock under which events get their order, where order matters.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    facts: Facts,
    misses: Misses,
}

/// Cache channels that were reported as empty, and when; in this order.
#[derive(Debug, Default)]
struct Misses {
    reported: HashMap<ChannelName, Instant>,
    order: VecDeque<(Instant, ChannelName)>,
}

/// What the nodes of a cluster have decided together, and one of them tells. It was looked at and waited for already.
#[derive(Debug, Clone, Copy)]
pub enum Decided<'a> {
    /// A channel was occupied.
    Occupied(&'a ChannelName),
    /// A channel was vacated.
    Vacated(&'a ChannelName),
    /// A member came.
    MemberAdded(&'a ChannelName, &'a UserId),
    /// A member left.
    MemberRemoved(&'a ChannelName, &'a UserId),
    /// A user came online.
    Online(&'a UserId),
    /// A user went offline.
    Offline(&'a UserId),
    /// A channel has this many subscribers.
    Count(&'a ChannelName, usize),
    /// A cache channel had nothing to show.
    CacheMiss(&'a ChannelName),
}

/// A client event that was passed on.
#[derive(Debug, Clone, Copy)]
pub struct ClientEventNews<'a> {
    /// The channel.
    pub channel: &'a ChannelName,
    /// The event's name.
    pub event: &'a str,
    /// Its data, as forwarded.
    pub data: &'a EventData,
    /// The sender's connection.
    pub from: SocketId,
    /// The sender, on a presence channel.
    pub user_id: Option<&'a UserId>,
}

impl AppWebhooks {
    pub(super) fn new(
        config: &AppConfig,
        endpoints: Vec<Arc<Endpoint>>,
        store: Arc<Store>,
        metrics: AppMetrics,
    ) -> Self {
        let (app, delay) = (config.id.clone(), config.webhook_delay);
        Self { app, delay, endpoints, store, metrics, state: Mutex::default() }
    }

    /// Takes over what the process before had told. In a cluster that is nothing any more: the nodes know together.
    pub(super) fn inherit(&self, mut told: Vec<Fact>, until: Instant, shared: bool) {
        // Members leave before their channels are vacated.
        told.sort_by_key(|fact| !matches!(fact, Fact::Member(..)));
        let mut state = self.state.lock();
        for fact in told {
            match self.follows(&fact) && !shared {
                true => state.facts.inherit(fact, until),
                false => self.store.change(Change::Tell(self.entry(&fact), false)),
            }
        }
    }

    /// A channel may have been occupied or vacated, by this source if it is known.
    pub fn channel_changed(&self, channel: &ChannelName, source: Option<Source>, is_occupied: impl FnOnce() -> bool) {
        self.look(|| Fact::Occupied(channel.clone()), source, is_occupied, self.delay);
    }

    /// A user may have come to a presence channel, or left it.
    pub fn member_changed(
        &self,
        channel: &ChannelName,
        user_id: &UserId,
        source: Option<Source>,
        is_member: impl FnOnce() -> bool,
    ) {
        self.look(|| Fact::Member(channel.clone(), user_id.clone()), source, is_member, self.delay);
    }

    /// A user may have come online or gone offline. The app's `offline_delay` is over by then.
    pub fn user_changed(&self, user_id: &UserId, source: Option<Source>, is_online: impl FnOnce() -> bool) {
        self.look(|| Fact::Online(user_id.clone()), source, is_online, Duration::ZERO);
    }

    /// A channel may have another number of subscribers.
    pub fn count_changed(&self, channel: &ChannelName, source: Option<Source>, count: impl FnOnce() -> usize) {
        if self.wants(WebhookEvent::SubscriptionCount, Some(channel)) {
            let _order = self.state.lock();
            self.tell(&Happening::Count(channel, count()), source, None);
        }
    }

    /// Somebody has subscribed to a cache channel that has nothing to show.
    pub fn cache_miss(&self, channel: &ChannelName, source: Source, now: Instant) {
        if self.wants(WebhookEvent::CacheMiss, Some(channel)) {
            let mut state = self.state.lock();
            if state.misses.is_news(channel, now) {
                self.tell(&Happening::Channel(WebhookEvent::CacheMiss, channel), Some(source), None);
            }
        }
    }

    /// Tells what a cluster has decided, caused by this source if it is known.
    pub fn decided(&self, decided: &Decided<'_>, source: Option<Source>) {
        let happening = match *decided {
            Decided::Occupied(channel) => Happening::Channel(WebhookEvent::ChannelOccupied, channel),
            Decided::Vacated(channel) => Happening::Channel(WebhookEvent::ChannelVacated, channel),
            Decided::MemberAdded(channel, id) => Happening::Member(WebhookEvent::MemberAdded, channel, id),
            Decided::MemberRemoved(channel, id) => Happening::Member(WebhookEvent::MemberRemoved, channel, id),
            Decided::Online(id) => Happening::User(WebhookEvent::UserOnline, id),
            Decided::Offline(id) => Happening::User(WebhookEvent::UserOffline, id),
            Decided::Count(channel, count) => Happening::Count(channel, count),
            Decided::CacheMiss(channel) => Happening::Channel(WebhookEvent::CacheMiss, channel),
        };
        self.tell(&happening, source, None);
    }

    /// Waits until everything told so far, of any app, is on disk.
    pub async fn kept(&self) {
        self.store.sync().await;
    }

    /// Whether anybody is told anything.
    pub fn has_endpoints(&self) -> bool {
        !self.endpoints.is_empty()
    }

    /// A client event was passed on.
    pub fn client_event(&self, source: Source, news: &ClientEventNews<'_>) {
        let ClientEventNews { channel, event, data, from, user_id } = *news;
        self.tell(&Happening::ClientEvent { channel, event, data, from, user_id }, Some(source), None);
    }

    /// A client was greeted.
    pub fn connection_opened(&self, source: Source, socket_id: SocketId) {
        self.tell(&Happening::Opened(socket_id), Some(source), None);
    }

    /// A connection has ended: for this reason, or because the client went or vanished.
    pub fn connection_closed(
        &self,
        source: Source,
        socket_id: SocketId,
        reason: Option<&CloseReason>,
        user_id: Option<&UserId>,
    ) {
        if self.wants(WebhookEvent::ConnectionClosed, None) {
            let code = reason.map_or(0, CloseReason::code);
            let reason = reason.map_or_else(|| "Closed by the client".to_owned(), ToString::to_string);
            self.tell(&Happening::Closed { socket_id, code, reason: &reason, user_id }, Some(source), None);
        }
    }

    /// Tells what has ended long enough ago.
    pub fn tick(&self, now: Instant) {
        if self.endpoints.is_empty() {
            return;
        }
        let [at_once, in_all] = ENDED;
        for slice in 0..in_all / at_once {
            let mut state = self.state.lock();
            if slice == 0 {
                state.misses.expire(now);
            }
            for _ in 0..at_once {
                let Some((fact, source)) = state.facts.next_ended(now) else { return };
                self.tell_fact(&fact, source, &Turn::Ended);
            }
        }
    }

    /// Events that were not delivered yet.
    pub fn pending(&self) -> u64 {
        self.endpoints.iter().map(|endpoint| endpoint.queue.lock().len() as u64).sum()
    }

    /// Tells that everything has ended.
    pub(super) fn end_all(&self) {
        let mut state = self.state.lock();
        for fact in state.facts.end_all() {
            self.tell_fact(&fact, None, &Turn::Ended);
        }
    }

    fn look(
        &self,
        fact: impl FnOnce() -> Fact,
        source: Option<Source>,
        is_true: impl FnOnce() -> bool,
        delay: Duration,
    ) {
        if self.endpoints.is_empty() {
            return;
        }
        let fact = fact();
        if self.follows(&fact) {
            let mut state = self.state.lock();
            if let Some(turn) = state.facts.look(&fact, source, is_true(), delay, Instant::now()) {
                self.tell_fact(&fact, source, &turn);
            }
        }
    }

    /// Whether anybody wants to hear of the beginning or the end of it.
    fn follows(&self, fact: &Fact) -> bool {
        let wanted = |turn| {
            let happening = fact.happening(&turn);
            self.wants(happening.kind(), happening.channel())
        };
        wanted(Turn::Began) || wanted(Turn::Ended)
    }

    fn wants(&self, kind: WebhookEvent, channel: Option<&ChannelName>) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.wants(kind, channel.map(ChannelName::as_str)))
    }

    fn tell_fact(&self, fact: &Fact, source: Option<Source>, turn: &Turn) {
        self.tell(&fact.happening(turn), source, Some((self.entry(fact), *turn == Turn::Began)));
    }

    /// Hands it to the endpoints that want it, and keeps what the backend is `told` by it, also if that is nothing.
    fn tell(&self, happening: &Happening<'_>, source: Option<Source>, told: Option<(String, bool)>) {
        let (kind, channel) = (happening.kind(), happening.channel().map(ChannelName::as_str));
        let wanting = self.endpoints.iter().filter(|endpoint| endpoint.wants(kind, channel));
        let to: Vec<&Address> = wanting.map(|endpoint| &endpoint.address).collect();
        if to.is_empty() && told.is_none() {
            return;
        }
        self.metrics.webhook_events.inc_by(to.len() as u64);
        let subject = happening.subject();
        let source = source.unwrap_or_else(|| Source::subject(&subject));
        self.store.keep(&to, News { subject: subject.into(), text: happening.encode().into(), source, told });
    }

    /// A fact in the store, which all apps share.
    fn entry(&self, fact: &Fact) -> String {
        format!("{} {fact}", self.app)
    }
}

impl Misses {
    fn is_news(&mut self, channel: &ChannelName, now: Instant) -> bool {
        self.expire(now);
        if self.reported.contains_key(channel) {
            return false;
        }
        if self.reported.len() < MAX_MISSES {
            self.reported.insert(channel.clone(), now);
            self.order.push_back((now, channel.clone()));
        }
        true
    }

    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(reported, _)| *reported + MISS_PAUSE <= now) {
            let (_, channel) = self.order.pop_front().expect("it has a front");
            self.reported.remove(&channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_is_news_once_within_the_pause_and_nothing_is_left_of_it() {
        let (mut misses, start) = (Misses::default(), Instant::now());
        let channel = |name: &str| ChannelName::parse(name, 200).unwrap();
        assert!(misses.is_news(&channel("cache-a"), start));
        assert!(!misses.is_news(&channel("cache-a"), start + MISS_PAUSE / 2));
        assert!(misses.is_news(&channel("cache-b"), start + MISS_PAUSE / 2));
        assert!(misses.is_news(&channel("cache-a"), start + MISS_PAUSE));
        assert!(!misses.is_news(&channel("cache-b"), start + MISS_PAUSE));
        misses.expire(start + MISS_PAUSE * 2);
        assert!(misses.reported.is_empty() && misses.order.is_empty());
    }

    #[test]
    fn a_miss_that_finds_no_room_is_news_each_time_and_costs_no_memory() {
        let (mut misses, start) = (Misses::default(), Instant::now());
        let channel = |n: usize| ChannelName::parse(&format!("cache-{n}"), 200).unwrap();
        assert!((0..MAX_MISSES).all(|n| misses.is_news(&channel(n), start)));
        for _ in 0..2 {
            assert!(misses.is_news(&channel(MAX_MISSES), start));
        }
        assert!(!misses.is_news(&channel(0), start));
        assert_eq!((misses.reported.len(), misses.order.len()), (MAX_MISSES, MAX_MISSES));
        // Those make room when their pause is over.
        assert!(misses.is_news(&channel(MAX_MISSES), start + MISS_PAUSE));
        assert!(!misses.is_news(&channel(MAX_MISSES), start + MISS_PAUSE));
    }
}
