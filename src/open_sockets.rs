//! Every socket that the public listener has accepted. When there are as many as the process may have, the HTTP connection
//! that has waited longest for its client makes room: the descriptors that are left belong to the operator, to Redis and to
//! webhooks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use tokio::sync::Notify;

use crate::addresses::AddressSeat;

/// Places for sockets for which room is being made at the moment, and the part of the capacity that they are at most.
const CHANGING: (usize, usize) = (16, 8);

/// The part of the waiting connections that makes room at once: to look for the longest wait takes a look at all of them.
const SHARE: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct OpenSockets {
    capacity: usize,
    /// From how many on room has to be made.
    crowded: usize,
    open: AtomicUsize,
    /// HTTP connections, as opposed to what has become a WebSocket.
    http: DashMap<u64, Arc<Wait>, RandomState>,
    next: AtomicU64,
    start: Instant,
}

/// Since when an HTTP connection waits for its client.
#[derive(Debug)]
pub struct Wait {
    start: Instant,
    /// Milliseconds since the start, plus one; 0 while it is the server that is at work.
    since: AtomicU64,
    evicted: Notify,
}

/// The place of a socket, for as long as it is open.
#[derive(Debug)]
pub struct Place {
    sockets: Arc<OpenSockets>,
    /// Its place among those of its address, if that is counted.
    _address: Option<AddressSeat>,
}

/// An HTTP connection. Dropped when it ends, or becomes something else.
#[derive(Debug)]
pub struct HttpConnection {
    sockets: Arc<OpenSockets>,
    id: u64,
    wait: Arc<Wait>,
}

/// What became of a new socket.
#[derive(Debug)]
pub enum Admitted {
    /// There is a place for it.
    Placed(Place),
    /// There is none, and nobody can make room.
    Full,
}

impl OpenSockets {
    /// None yet, and room for `capacity`.
    pub fn new(capacity: usize) -> Arc<Self> {
        let (open, next) = (AtomicUsize::new(0), AtomicU64::new(0));
        let crowded = capacity - CHANGING.0.min(capacity / CHANGING.1);
        Arc::new(Self { capacity, crowded, open, http: DashMap::default(), next, start: Instant::now() })
    }

    /// Takes a place for a socket that was accepted. Returns how many connections have to go for it, too.
    pub fn admit(self: &Arc<Self>, address: Option<AddressSeat>) -> (Admitted, usize) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let place = Place { sockets: Arc::clone(self), _address: address };
        if open <= self.crowded {
            return (Admitted::Placed(place), 0);
        }
        let evicted = self.evict();
        match evicted > 0 && open <= self.capacity {
            true => (Admitted::Placed(place), evicted),
            false => (Admitted::Full, evicted),
        }
    }

    /// Sockets that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Adds an HTTP connection, which waits for its client.
    pub fn http(self: &Arc<Self>, now: Instant) -> HttpConnection {
        let wait = Wait { start: self.start, since: AtomicU64::new(0), evicted: Notify::new() };
        wait.begin(now);
        let (id, wait) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::new(wait));
        self.http.insert(id, Arc::clone(&wait));
        HttpConnection { sockets: Arc::clone(self), id, wait }
    }

    /// Has those go that have waited longest. Returns how many.
    fn evict(&self) -> usize {
        let waits = self.http.iter().map(|wait| (wait.since.load(Ordering::Relaxed), Arc::clone(&wait)));
        let mut waits: Vec<_> = waits.filter(|(since, _)| *since > 0).collect();
        let count = (1 + waits.len() / SHARE).min(waits.len());
        if count == 0 {
            return 0;
        }
        waits.select_nth_unstable_by_key(count - 1, |(since, _)| *since);
        let chosen = waits.iter().take(count);
        // One that has just got its request is left alone, and one is not chosen twice.
        let still_waits = |(since, wait): &&(u64, Arc<Wait>)| {
            wait.since.compare_exchange(*since, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        chosen.filter(still_waits).map(|(_, wait)| wait.evicted.notify_one()).count()
    }
}

impl Wait {
    /// It is the client's turn.
    pub fn begin(&self, now: Instant) {
        let milliseconds = now.saturating_duration_since(self.start).as_millis() as u64 + 1;
        self.since.store(milliseconds, Ordering::Relaxed);
    }
}

impl HttpConnection {
    /// It is the client's turn.
    pub fn waits(&self, now: Instant) {
        self.wait.begin(now);
    }

    /// The same for whoever does not have the connection itself.
    pub fn wait(&self) -> Arc<Wait> {
        Arc::clone(&self.wait)
    }

    /// It is the server's turn.
    pub fn works(&self) {
        self.wait.since.store(0, Ordering::Relaxed);
    }

    /// Completes when the connection has to make room.
    ///
    /// # Cancel safety
    /// Safe: if it was cancelled too late, the next call completes at once.
    pub async fn evicted(&self) {
        self.wait.evicted.notified().await;
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.sockets.http.remove(&self.id);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sockets.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_connection_that_has_waited_longest_makes_room() {
        let (sockets, now) = (OpenSockets::new(8), Instant::now());
        let mut places = Vec::new();
        let mut admit = || match sockets.admit(None) {
            (Admitted::Placed(place), evicted) => {
                places.push(place);
                Some(evicted)
            }
            (Admitted::Full, _) => None,
        };
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        assert_eq!([(); 7].map(|()| admit()), [Some(0); 7]);
        // Nobody can go.
        assert_eq!(admit(), None);
        let (longer, longest, works) = (sockets.http(at(2)), sockets.http(at(1)), sockets.http(at(0)));
        works.works();
        assert_eq!(admit(), Some(1));
        // One more has no place until one is gone.
        assert!(longest.evicted().now_or_never().is_some());
        assert!(longer.evicted().now_or_never().is_none() && works.evicted().now_or_never().is_none());
        // All are taken until it is gone. It is not chosen again.
        assert_eq!(admit(), None);
        assert!(longer.evicted().now_or_never().is_some());
        assert_eq!(admit(), None);
        drop((longer, longest, works));
        assert!(sockets.http.is_empty());
        places.clear();
        assert_eq!(sockets.open(), 0);
    }

    #[test]
    fn what_has_no_place_is_not_counted() {
        let sockets = OpenSockets::new(1);
        let (place, _) = sockets.admit(None);
        assert!(matches!(sockets.admit(None), (Admitted::Full, 0)));
        assert_eq!(sockets.open(), 1);
        drop(place);
        assert!(matches!(sockets.admit(None), (Admitted::Placed(_), 0)));
    }
}
