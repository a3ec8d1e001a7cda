//! Client events that wait for Redis, in turns between apps and between the connections of an app.

use crate::protocol::SocketId;

use super::fair_queue::FairQueue;

/// Client events of an app that wait, shared by its connections.
const OF_APP: usize = 1024;

/// Client events of all apps that wait if very many connections send one at the same time, shared by the apps.
const OF_ALL: usize = 8 * OF_APP;

/// See the module. Overflow policy: a connection that has its share is refused.
#[derive(Debug)]
pub(super) struct ClientEvents<T>(FairQueue<usize, SocketId, T>);

impl<T> Default for ClientEvents<T> {
    fn default() -> Self {
        Self(FairQueue::default())
    }
}

impl<T> ClientEvents<T> {
    /// Queues an event of a connection of this app. False if the connection has its share of what its app may have waiting,
    /// or the app its share of everything. A connection that has nothing in it gets in as long as its app has any room at
    /// all, and what other apps have waiting never keeps out an app that has nothing in it.
    pub(super) fn push(&mut self, app: usize, sender: SocketId, event: T) -> bool {
        let (own, of_app) = (self.0.len_of(app, sender), self.0.len_of_source(app));
        let senders = self.0.lines_of(app) + usize::from(own == 0);
        let apps = self.0.sources() + usize::from(of_app == 0);
        let has_room = own < (OF_APP / senders).max(1) && of_app < (OF_ALL / apps).max(1);
        if has_room {
            self.0.push(app, sender, event);
        }
        has_room
    }

    /// Takes the next one.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.0.pop().map(|(_, _, event)| event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events that an app gets in whose connections, new ones all the time, send as many as they can.
    fn flood(events: &mut ClientEvents<usize>, app: usize) -> usize {
        let mut taken = 0;
        for _ in 0..2 * OF_ALL {
            let sender = SocketId::random();
            while events.push(app, sender, app) {
                taken += 1;
            }
        }
        taken
    }

    #[test]
    fn connections_share_what_their_app_may_have_waiting() {
        let mut events = ClientEvents::default();
        let [ann, bob] = [1, 2].map(|_| SocketId::random());
        let mut sent = 0;
        while events.push(0, ann, 0) {
            sent += 1;
        }
        assert_eq!(sent, OF_APP);
        assert!(events.push(0, bob, 0) && !events.push(0, ann, 0));
    }

    #[test]
    fn no_app_waits_for_another_one_or_is_kept_out_by_it() {
        let mut events = ClientEvents::default();
        assert_eq!(flood(&mut events, 0), OF_ALL);
        assert_eq!(flood(&mut events, 1), OF_ALL / 2);
        assert!(events.push(2, SocketId::random(), 2));
        let first: Vec<_> = std::iter::from_fn(|| events.pop()).take(3).collect();
        assert_eq!(first, [0, 1, 2]);
    }
}
