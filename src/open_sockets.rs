//! Every socket that the public listener has accepted. When there are as many as the process may have, the HTTP connection
//! that has waited longest for its client makes room: the descriptors that are left belong to the operator, to Redis and to
//! webhooks.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Instant;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use futures_util::task::AtomicWaker;
use tokio::select;
use tokio::sync::Notify;

use crate::addresses::AddressSeat;

/// The part of the waiting connections that makes room at once: to look for the longest wait takes a look at all of them.
const SHARE: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct OpenSockets {
    capacity: usize,
    open: AtomicUsize,
    /// Connections that were told to go and are not gone yet.
    leaving: AtomicUsize,
    /// Tells that a place is free.
    freed: Notify,
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
    /// It was told to go, or has ended.
    is_over: AtomicBool,
    /// The task that serves the connection.
    task: AtomicWaker,
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

impl OpenSockets {
    /// None yet, and room for `capacity`.
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            open: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            freed: Notify::new(),
            http: DashMap::default(),
            next: AtomicU64::new(0),
            start: Instant::now(),
        })
    }

    /// Takes a place for a socket that was accepted, if there is one.
    ///
    /// # Errors
    /// There is none, and the place among those of its address comes back.
    pub fn enter(self: &Arc<Self>, address: Option<AddressSeat>) -> Result<Place, Option<AddressSeat>> {
        let free = |open| (open < self.capacity).then_some(open + 1);
        match self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free) {
            Ok(_) => Ok(Place { sockets: Arc::clone(self), _address: address }),
            Err(_) => Err(address),
        }
    }

    /// Whether some are on their way out.
    pub fn is_making_room(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) > 0
    }

    /// Completes when a place becomes free, or has since the last call.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Sockets that there may be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sockets that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Adds an HTTP connection, which waits for its client.
    pub fn http(self: &Arc<Self>, now: Instant) -> HttpConnection {
        let (since, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let wait = Wait { start: self.start, since, is_over, task: AtomicWaker::new() };
        wait.begin(now);
        let (id, wait) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::new(wait));
        self.http.insert(id, Arc::clone(&wait));
        HttpConnection { sockets: Arc::clone(self), id, wait }
    }

    /// Has those go that have waited longest. Returns how many.
    pub fn make_room(&self) -> usize {
        let waits = self.http.iter().map(|wait| (wait.since.load(Ordering::Relaxed), Arc::clone(&wait)));
        let mut waits: Vec<_> = waits.filter(|(since, _)| *since > 0).collect();
        let count = (1 + waits.len() / SHARE).min(waits.len());
        if count == 0 {
            return 0;
        }
        waits.select_nth_unstable_by_key(count - 1, |(since, _)| *since);
        let chosen = waits.iter().take(count);
        // One that has just got its request is left alone.
        let still_waits = |(since, wait): &&(u64, Arc<Wait>)| {
            wait.since.compare_exchange(*since, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let evicted = chosen.filter(still_waits).filter(|(_, wait)| {
            self.leaving.fetch_add(1, Ordering::Relaxed);
            if wait.is_over.swap(true, Ordering::AcqRel) {
                // It was evicted before, or has ended by itself.
                self.leaving.fetch_sub(1, Ordering::Relaxed);
                return false;
            }
            wait.task.wake();
            true
        });
        evicted.count()
    }
}

impl Place {
    /// Does something for a client that may not stay: until that is over, or the place is needed for somebody else.
    pub async fn until_needed(&self, farewell: impl Future<Output = ()>) {
        self.sockets.http(Instant::now()).until_needed(farewell).await;
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

    /// Whether the connection has to make room.
    pub fn is_evicted(&self) -> bool {
        self.wait.is_over.load(Ordering::Acquire)
    }

    /// Does something for a client that may not stay: until that is over, or the connection has to make room.
    pub async fn until_needed(&self, farewell: impl Future<Output = ()>) {
        self.waits(Instant::now());
        select! {
            () = farewell => {}
            () = self.evicted() => {}
        }
    }

    /// Completes when the connection has to make room, for the one task that serves it.
    ///
    /// # Cancel safety
    /// Safe: from then on it completes at once.
    pub async fn evicted(&self) {
        poll_fn(|cx| {
            self.wait.task.register(cx.waker());
            if self.is_evicted() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.sockets.http.remove(&self.id);
        if self.wait.is_over.swap(true, Ordering::AcqRel) {
            self.sockets.leaving.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sockets.open.fetch_sub(1, Ordering::Relaxed);
        self.sockets.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_connection_that_has_waited_longest_makes_room() {
        let (sockets, now) = (OpenSockets::new(10), Instant::now());
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        // Nobody can go.
        assert_eq!((sockets.make_room(), sockets.is_making_room()), (0, false));
        let (longer, longest, works) = (sockets.http(at(2)), sockets.http(at(1)), sockets.http(at(0)));
        works.works();
        assert_eq!((sockets.make_room(), sockets.is_making_room()), (1, true));
        assert!(longest.evicted().now_or_never().is_some());
        assert!(longer.evicted().now_or_never().is_none() && works.evicted().now_or_never().is_none());
        // It is not chosen again, although it is not gone yet.
        assert_eq!(sockets.make_room(), 1);
        assert!(longer.evicted().now_or_never().is_some());
        assert_eq!(sockets.make_room(), 0);
        drop((longer, longest, works));
        assert!(sockets.http.is_empty() && !sockets.is_making_room());
    }

    #[test]
    fn connections_that_end_while_some_are_chosen_are_not_waited_for() {
        for _ in 0..2_000 {
            let (sockets, now) = (OpenSockets::new(10), Instant::now());
            let connections: Vec<_> = (0..8).map(|_| sockets.http(now)).collect();
            std::thread::scope(|scope| {
                scope.spawn(|| drop(connections));
                sockets.make_room();
            });
            assert!(sockets.http.is_empty() && !sockets.is_making_room());
        }
    }

    #[test]
    fn there_are_as_many_places_as_the_capacity_and_a_free_one_is_told() {
        let sockets = OpenSockets::new(2);
        let (first, _second) = (sockets.enter(None).unwrap(), sockets.enter(None).unwrap());
        assert!(sockets.enter(None).is_err());
        assert_eq!((sockets.open(), sockets.freed().now_or_never()), (2, None));
        drop(first);
        assert!(sockets.freed().now_or_never().is_some() && sockets.enter(None).is_ok());
    }
}
