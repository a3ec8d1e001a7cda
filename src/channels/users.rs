//! Who is signed in on this node, and who watches whom (§2.9, §2.10).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use crate::outbox::Outbox;
use crate::protocol::{CloseReason, Frame, Member, ServerEvent, SocketId, UserId};

use super::replica::{Answer, Contribution, Life, News, Outcome, Position, Replica};

/// The signed-in users of one app. One lock for all of them: a sign-in touches the user and everybody on the watchlist,
/// and whoever watches must see exactly the changes after the status it was given.
#[derive(Debug)]
pub struct Users {
    state: Mutex<State>,
    offline_delay: Duration,
    /// Whether users have connections on other nodes.
    shared: bool,
    /// Frames of events that went to connections.
    delivered: Counter,
}

/// A connection that signs in.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its name.
    pub socket_id: SocketId,
    /// Its queue.
    pub outbox: Arc<Outbox>,
}

/// What a connection that signs in is told.
#[derive(Debug)]
pub struct Greeting {
    /// Before the status of the watchlist.
    pub success: Frame,
    /// After it, if something is wrong with the list.
    pub complaint: Option<Frame>,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<UserId, User>,
    /// Users whose last connection closed, and when that becomes known; in this order, as the delay is the same for all.
    leaving: VecDeque<(Instant, UserId)>,
    /// In a cluster: who will be signed in once all is known, by their number.
    arrivals: HashMap<u64, Arrival>,
    last_arrival: u64,
}

/// A connection that signs in, and waits for the cluster.
#[derive(Debug)]
struct Arrival {
    user_id: UserId,
    connection: Connection,
    watchlist: Vec<UserId>,
    greeting: Greeting,
    /// Users of whom nothing is known yet.
    unknown: usize,
}

/// Somebody who is online, or whom somebody watches.
#[derive(Debug, Default)]
struct User {
    connections: HashMap<SocketId, Arc<Outbox>>,
    watchers: HashMap<SocketId, Arc<Outbox>>,
    /// What watchers believe. Stays true for the delay after the last connection.
    online: bool,
    /// When the last connection closed.
    left: Option<Instant>,
    /// In a cluster: what this node shares with the others.
    replica: Option<Box<Replica>>,
    /// Own connections among the arrivals.
    arriving: usize,
    /// Arrivals that have to do with this user, who may be known already.
    awaited: usize,
    /// Arrivals that wait until this user is known.
    expected_by: Vec<u64>,
}

impl Users {
    /// Nobody yet. A user who is gone for less than `offline_delay` was never away. Deliveries are counted in `delivered`.
    pub fn new(offline_delay: Duration, shared: bool, delivered: Counter) -> Self {
        Self { state: Mutex::default(), offline_delay, shared, delivered }
    }

    /// Adds a connection of a user and lets it watch others, after `greeting`. It hears the status of all of them first,
    /// then every change. In a cluster all this may have to wait until the status of everybody is known. The caller flushes
    /// the connection's outbox.
    pub fn sign_in(
        &self,
        user_id: &UserId,
        connection: &Connection,
        watchlist: &[UserId],
        greeting: Greeting,
        life: impl Fn(&UserId) -> Life,
    ) -> Changed {
        let mut state = self.state.lock();
        if !self.shared {
            let online = state.enter(user_id, connection, watchlist, greeting);
            return Changed { online, touched: Vec::new() };
        }
        state.last_arrival += 1;
        let number = state.last_arrival;
        let mut touched = Vec::new();
        let mut unknown = 0;
        for concerned in concerned(user_id, watchlist) {
            let user = state.users.entry(concerned.clone()).or_default();
            let own = concerned == user_id;
            user.arriving += usize::from(own);
            user.awaited += 1;
            let replica = user.replica.get_or_insert_default();
            let live = replica.is_live(life(concerned));
            if !live {
                user.expected_by.push(number);
                unknown += 1;
            }
            if own || !live {
                replica.touch();
                touched.push(concerned.clone());
            }
        }
        let (user_id, connection, watchlist) = (user_id.clone(), connection.clone(), watchlist.to_vec());
        state.arrivals.insert(number, Arrival { user_id, connection, watchlist, greeting, unknown });
        if unknown == 0 {
            state.arrive(number);
        }
        Changed { online: false, touched }
    }

    /// In a cluster: whether a connection signs in, and waits for what is not known yet.
    pub fn is_arriving(&self, socket_id: SocketId) -> bool {
        self.state.lock().arrivals.values().any(|arrival| arrival.connection.socket_id == socket_id)
    }

    /// Ends the watching of one connection.
    pub fn unwatch(&self, socket_id: SocketId, watchlist: &[UserId]) -> Changed {
        let mut state = self.state.lock();
        let mut touched = Vec::new();
        for watched_id in watchlist {
            if let Some(watched) = state.users.get_mut(watched_id) {
                watched.watchers.remove(&socket_id);
                if watched.is_unused() && watched.replica.as_mut().is_some_and(|replica| replica.touch()) {
                    touched.push(watched_id.clone());
                }
            }
            state.forget_if_unused(watched_id);
        }
        Changed { online: false, touched }
    }

    /// Removes a connection of a user. If it was the last, the user is offline, at once or after the delay.
    pub fn sign_out(&self, user_id: &UserId, socket_id: SocketId, now: Instant) -> Changed {
        let mut state = self.state.lock();
        if self.shared {
            return Changed { online: false, touched: state.depart(user_id, socket_id) };
        }
        let Some(user) = state.users.get_mut(user_id) else { return Changed::default() };
        user.connections.remove(&socket_id);
        if !user.connections.is_empty() {
            return Changed::default();
        }
        user.left = Some(now);
        let at_once = self.offline_delay.is_zero();
        match at_once {
            true => state.go_offline(user_id),
            false => state.leaving.push_back((now, user_id.clone())),
        }
        Changed { online: at_once, touched: Vec::new() }
    }

    /// Lets users go whose delay is over, and returns them.
    pub fn tick(&self, now: Instant) -> Vec<UserId> {
        let mut state = self.state.lock();
        let mut offline = Vec::new();
        while state.leaving.front().is_some_and(|(left, _)| *left + self.offline_delay <= now) {
            let Some((left, user_id)) = state.leaving.pop_front() else { break };
            // Who came back meanwhile stays, and who left again has a later entry.
            if state.users.get(&user_id).is_some_and(|user| user.left == Some(left)) {
                state.go_offline(&user_id);
                offline.push(user_id);
            }
        }
        offline
    }

    /// Whether a user is online, or gone for less than the delay.
    pub fn is_online(&self, user_id: &UserId) -> bool {
        self.state.lock().users.get(user_id).is_some_and(|user| user.online)
    }

    /// Delivers a frame to all connections of a user but one.
    pub fn deliver(&self, user_id: &UserId, frame: &Frame, except: Option<SocketId>) {
        // A statement of its own: all users share the lock, and writing takes a while.
        let outboxes: Vec<_> = self
            .state
            .lock()
            .users
            .get(user_id)
            .map(|user| user.outboxes(except).cloned().collect())
            .unwrap_or_default();
        self.count(outboxes.len());
        outboxes.iter().for_each(|outbox| outbox.push(frame.clone()));
    }

    /// Closes all connections of a user; how many there were.
    pub fn terminate(&self, user_id: &UserId, code: u16) -> usize {
        let state = self.state.lock();
        let Some(user) = state.users.get(user_id) else { return 0 };
        user.close(&CloseReason::Terminated(code));
        user.connections.len()
    }

    /// In a cluster: the users that this node has a share in.
    pub fn shared(&self) -> Vec<UserId> {
        self.state.lock().users.keys().cloned().collect()
    }

    /// In a cluster: what to tell it about a user, unless it is being told something already.
    pub fn contribute(&self, user_id: &UserId, life: Life) -> Option<Contribution> {
        let mut state = self.state.lock();
        let user = state.users.get_mut(user_id)?;
        let connections = user.connections.len() + user.arriving;
        let (mut contribution, _) = user.replica.as_mut()?.begin(life, connections)?;
        if contribution.again && life.fresh && user.online {
            contribution.believed.push(Member { user_id: user_id.clone(), user_info: "".into() });
        }
        Some(contribution)
    }

    /// In a cluster: what it says to a contribution.
    pub fn settle(&self, user_id: &UserId, life: Life, contribution: &Contribution, mut answer: Answer) -> Outcome {
        let mut state = self.state.lock();
        let mut outcome = Outcome::default();
        let Some(user) = state.users.get_mut(user_id) else { return outcome };
        let Some(replica) = user.replica.as_mut() else { return outcome };
        if !replica.finish(life, contribution, &answer) {
            return outcome;
        }
        if let Some(everything) = answer.everything.take() {
            outcome.gap = everything.gap && !user.connections.is_empty();
            let held = replica.release(life);
            // Whether the user is online is known; what was said is not.
            let said = everything.missed.into_iter().filter(|news| !matches!(news, News::Online | News::Offline));
            self.count(said.map(|news| user.apply(user_id, news)).sum());
            user.apply(user_id, if everything.online { News::Online } else { News::Offline });
            self.count(held.into_iter().map(|news| user.apply(user_id, news)).sum());
        }
        // Whatever was asked, the user is known now.
        for number in std::mem::take(&mut user.expected_by) {
            if let Some(arrival) = state.arrivals.get_mut(&number) {
                arrival.unknown -= 1;
                if arrival.unknown == 0 {
                    state.arrive(number);
                }
            }
        }
        state.look_on(user_id, outcome)
    }

    /// In a cluster: news of a user, in the order in which they come.
    pub fn hear(&self, user_id: &UserId, life: Life, position: Position, news: News) -> Outcome {
        let mut state = self.state.lock();
        let outcome = Outcome::default();
        let Some(user) = state.users.get_mut(user_id) else { return outcome };
        let news = user.replica.as_mut().and_then(|replica| replica.follow(life, position, news));
        self.count(news.map_or(0, |news| user.apply(user_id, news)));
        state.look_on(user_id, outcome)
    }

    /// In a cluster: asks all connections of a user to connect anew.
    pub fn send_away(&self, user_id: &UserId) {
        if let Some(user) = self.state.lock().users.get(user_id) {
            user.close(&CloseReason::Resubscribe);
        }
    }

    fn count(&self, delivered: usize) {
        self.delivered.inc_by(delivered as u64);
    }

    /// Users with a connection.
    pub fn signed_in(&self) -> usize {
        self.state.lock().users.values().filter(|user| !user.connections.is_empty()).count()
    }
}

/// What a sign-in or its end has changed.
#[derive(Debug, Default)]
pub struct Changed {
    /// The user came online or went offline.
    pub online: bool,
    /// Users of whom the cluster must hear.
    pub touched: Vec<UserId>,
}

impl State {
    /// True if the user comes online, which without a cluster is decided here.
    fn enter(&mut self, user_id: &UserId, connection: &Connection, watchlist: &[UserId], greeting: Greeting) -> bool {
        connection.outbox.hold(greeting.success);
        let user = self.users.entry(user_id.clone()).or_default();
        user.connections.insert(connection.socket_id, Arc::clone(&connection.outbox));
        user.left = None;
        let came_online = user.replica.is_none() && user.is_now(user_id, true);
        let (mut online, mut offline) = (Vec::new(), Vec::new());
        for watched_id in watchlist {
            let watched = self.users.entry(watched_id.clone()).or_default();
            watched.watchers.insert(connection.socket_id, Arc::clone(&connection.outbox));
            if watched.online { online.push(watched_id) } else { offline.push(watched_id) }
        }
        if !watchlist.is_empty() {
            connection.outbox.hold(ServerEvent::WatchlistEvents { online: &online, offline: &offline }.encode());
        }
        if let Some(complaint) = greeting.complaint {
            connection.outbox.hold(complaint);
        }
        came_online
    }

    /// All is known for an arrival.
    fn arrive(&mut self, number: u64) {
        let Some(arrival) = self.arrivals.remove(&number) else { return };
        for awaited in concerned(&arrival.user_id, &arrival.watchlist) {
            if let Some(user) = self.users.get_mut(awaited) {
                user.arriving -= usize::from(*awaited == arrival.user_id);
                user.awaited -= 1;
            }
        }
        self.enter(&arrival.user_id, &arrival.connection, &arrival.watchlist, arrival.greeting);
        arrival.connection.outbox.flush();
    }

    /// Removes a connection that is signed in, or was about to be. Returns of whom the cluster must hear.
    fn depart(&mut self, user_id: &UserId, socket_id: SocketId) -> Vec<UserId> {
        let mut left = vec![user_id.clone()];
        let arriving = self.arrivals.iter().filter(|(_, arrival)| arrival.connection.socket_id == socket_id);
        for number in arriving.map(|(number, _)| *number).collect::<Vec<_>>() {
            let Some(arrival) = self.arrivals.remove(&number) else { continue };
            for expected in concerned(user_id, &arrival.watchlist) {
                if let Some(user) = self.users.get_mut(expected) {
                    user.arriving -= usize::from(expected == user_id);
                    user.awaited -= 1;
                    user.expected_by.retain(|waiting| *waiting != number);
                }
            }
            left.extend(arrival.watchlist);
        }
        let mut touched = Vec::new();
        for user_id in left {
            if let Some(user) = self.users.get_mut(&user_id) {
                user.connections.remove(&socket_id);
                if user.replica.as_mut().is_some_and(|replica| replica.touch()) {
                    touched.push(user_id);
                }
            }
        }
        touched
    }

    fn look_on(&mut self, user_id: &UserId, mut outcome: Outcome) -> Outcome {
        let Some(user) = self.users.get_mut(user_id) else { return outcome };
        let unused = user.is_unused();
        let Some(replica) = &mut user.replica else { return outcome };
        outcome.again = replica.wants_turn();
        outcome.over = unused && replica.is_over();
        if outcome.over {
            self.users.remove(user_id);
        }
        outcome
    }

    fn go_offline(&mut self, user_id: &UserId) {
        if let Some(user) = self.users.get_mut(user_id) {
            user.left = None;
            user.is_now(user_id, false);
        }
        self.forget_if_unused(user_id);
    }

    fn forget_if_unused(&mut self, user_id: &UserId) {
        let unused = |user: &User| !user.online && user.watchers.is_empty() && user.replica.is_none();
        if self.users.get(user_id).is_some_and(unused) {
            self.users.remove(user_id);
        }
    }
}

/// Whom a sign-in has to do with, each once: somebody may watch themselves.
fn concerned<'a>(user_id: &'a UserId, watchlist: &'a [UserId]) -> impl Iterator<Item = &'a UserId> {
    std::iter::once(user_id).chain(watchlist.iter().filter(move |watched| *watched != user_id))
}

impl User {
    /// In a cluster: nobody here has anything to do with the user.
    fn is_unused(&self) -> bool {
        self.connections.is_empty() && self.awaited == 0 && self.watchers.is_empty()
    }

    /// Makes news true here. Returns the number of outboxes they went to.
    fn apply(&mut self, user_id: &UserId, news: News) -> usize {
        match news {
            News::Event { frame, except, .. } => {
                return self.outboxes(except).map(|outbox| outbox.push(frame.clone())).count();
            }
            News::Terminate(code) => self.close(&CloseReason::Terminated(code)),
            News::Online => drop(self.is_now(user_id, true)),
            News::Offline => drop(self.is_now(user_id, false)),
            // Channels have these.
            News::Added(_) | News::Removed(_) | News::Count(_) => {}
        }
        0
    }

    /// Those of all connections but one.
    fn outboxes(&self, except: Option<SocketId>) -> impl Iterator<Item = &Arc<Outbox>> {
        let others = self.connections.iter().filter(move |(socket_id, _)| Some(**socket_id) != except);
        others.map(|(_, outbox)| outbox)
    }

    fn close(&self, reason: &CloseReason) {
        for outbox in self.connections.values() {
            outbox.close(reason.clone());
        }
    }

    /// Takes note of the status, and tells the watchers if it is news. True if it is.
    fn is_now(&mut self, user_id: &UserId, online: bool) -> bool {
        let news = std::mem::replace(&mut self.online, online) != online;
        if news && !self.watchers.is_empty() {
            let changed = [user_id];
            let event = match online {
                true => ServerEvent::WatchlistEvents { online: &changed, offline: &[] },
                false => ServerEvent::WatchlistEvents { online: &[], offline: &changed },
            };
            let frame = event.encode();
            for outbox in self.watchers.values() {
                outbox.push(frame.clone());
            }
        }
        news
    }
}
