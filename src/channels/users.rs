//! Who is signed in on this node, and who watches whom (§2.9, §2.10).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::outbox::Outbox;
use crate::protocol::{CloseReason, Frame, ServerEvent, SocketId, UserId};

/// The signed-in users of one app. One lock for all of them: a sign-in touches the user and everybody on the watchlist,
/// and whoever watches must see exactly the changes after the status it was given.
#[derive(Debug)]
pub struct Users {
    state: Mutex<State>,
    offline_delay: Duration,
}

/// A connection that signs in.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its name.
    pub socket_id: SocketId,
    /// Its queue.
    pub outbox: Arc<Outbox>,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<UserId, User>,
    /// Users whose last connection closed, and when that becomes known; in this order, as the delay is the same for all.
    leaving: VecDeque<(Instant, UserId)>,
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
}

impl Users {
    /// Nobody yet. A user who is gone for less than `offline_delay` was never away.
    pub fn new(offline_delay: Duration) -> Self {
        Self { state: Mutex::default(), offline_delay }
    }

    /// Adds a connection of a user and lets it watch others, after `greeting`. It hears the status of all of them
    /// first, then every change. True if the user comes online.
    pub fn sign_in(&self, user_id: &UserId, connection: &Connection, watchlist: &[UserId], greeting: Frame) -> bool {
        let mut state = self.state.lock();
        connection.outbox.push(greeting);
        let user = state.users.entry(user_id.clone()).or_default();
        user.connections.insert(connection.socket_id, Arc::clone(&connection.outbox));
        user.left = None;
        let came_online = !std::mem::replace(&mut user.online, true);
        if came_online {
            user.tell_watchers(user_id);
        }
        let (mut online, mut offline) = (Vec::new(), Vec::new());
        for watched_id in watchlist {
            let watched = state.users.entry(watched_id.clone()).or_default();
            watched.watchers.insert(connection.socket_id, Arc::clone(&connection.outbox));
            if watched.online { online.push(watched_id) } else { offline.push(watched_id) }
        }
        if !watchlist.is_empty() {
            connection.outbox.push(ServerEvent::WatchlistEvents { online: &online, offline: &offline }.encode());
        }
        came_online
    }

    /// Ends the watching of one connection.
    pub fn unwatch(&self, socket_id: SocketId, watchlist: &[UserId]) {
        let mut state = self.state.lock();
        for watched_id in watchlist {
            if let Some(watched) = state.users.get_mut(watched_id) {
                watched.watchers.remove(&socket_id);
            }
            state.forget_if_unused(watched_id);
        }
    }

    /// Removes a connection of a user. If it was the last, the user is offline, at once or after the delay; true if at
    /// once.
    pub fn sign_out(&self, user_id: &UserId, socket_id: SocketId, now: Instant) -> bool {
        let mut state = self.state.lock();
        let Some(user) = state.users.get_mut(user_id) else { return false };
        user.connections.remove(&socket_id);
        if !user.connections.is_empty() {
            return false;
        }
        user.left = Some(now);
        let at_once = self.offline_delay.is_zero();
        match at_once {
            true => state.go_offline(user_id),
            false => state.leaving.push_back((now, user_id.clone())),
        }
        at_once
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

    /// Delivers a frame to all connections of a user but one; how many there were.
    pub fn deliver(&self, user_id: &UserId, frame: &Frame, except: Option<SocketId>) -> usize {
        let state = self.state.lock();
        let Some(user) = state.users.get(user_id) else { return 0 };
        let mut delivered = 0;
        for (_, outbox) in user.connections.iter().filter(|(socket_id, _)| Some(**socket_id) != except) {
            outbox.push(frame.clone());
            delivered += 1;
        }
        delivered
    }

    /// Closes all connections of a user; how many there were.
    pub fn terminate(&self, user_id: &UserId, code: u16) -> usize {
        let state = self.state.lock();
        let Some(user) = state.users.get(user_id) else { return 0 };
        for outbox in user.connections.values() {
            outbox.close(CloseReason::Terminated(code));
        }
        user.connections.len()
    }

    /// Users with a connection.
    pub fn signed_in(&self) -> usize {
        self.state.lock().users.values().filter(|user| !user.connections.is_empty()).count()
    }
}

impl State {
    fn go_offline(&mut self, user_id: &UserId) {
        if let Some(user) = self.users.get_mut(user_id) {
            user.online = false;
            user.left = None;
            user.tell_watchers(user_id);
        }
        self.forget_if_unused(user_id);
    }

    fn forget_if_unused(&mut self, user_id: &UserId) {
        if self.users.get(user_id).is_some_and(|user| !user.online && user.watchers.is_empty()) {
            self.users.remove(user_id);
        }
    }
}

impl User {
    fn tell_watchers(&self, user_id: &UserId) {
        if self.watchers.is_empty() {
            return;
        }
        let changed = [user_id];
        let event = match self.online {
            true => ServerEvent::WatchlistEvents { online: &changed, offline: &[] },
            false => ServerEvent::WatchlistEvents { online: &[], offline: &changed },
        };
        let frame = event.encode();
        for outbox in self.watchers.values() {
            outbox.push(frame.clone());
        }
    }
}
