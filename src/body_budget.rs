//! One budget of memory for all request bodies that anybody can send: those of which nobody knows yet whether they are
//! authentic. When it is full, the body that has taken longest goes: an honest one is there within milliseconds. One that
//! is there and waits with its request for something else goes like the others.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::select;
use tokio::sync::Notify;
use tracing::warn;

/// The budget. Clones share it.
#[derive(Debug, Clone)]
pub struct BodyBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    refused: Counter,
    bodies: Mutex<Bodies>,
}

#[derive(Debug, Default)]
struct Bodies {
    /// Bytes of all of them.
    bytes: usize,
    /// By age, the oldest first.
    by_number: BTreeMap<u64, Receiving>,
    next: u64,
}

#[derive(Debug)]
struct Receiving {
    bytes: usize,
    evicted: Arc<Notify>,
}

/// The part of the budget that one body takes, for as long as this lives.
pub struct Reservation {
    budget: BodyBudget,
    number: u64,
    evicted: Arc<Notify>,
}

/// The body had to make room for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evicted;

impl BodyBudget {
    /// An empty one of so many bytes. Bodies that had to make room are counted in `refused`.
    pub fn new(limit: usize, refused: Counter) -> Self {
        Self(Arc::new(Shared { limit, refused, bodies: Mutex::default() }))
    }

    /// A body is about to come.
    pub fn reserve(&self) -> Reservation {
        let evicted = Arc::new(Notify::new());
        let mut bodies = self.0.bodies.lock();
        let number = bodies.next;
        bodies.next += 1;
        bodies.by_number.insert(number, Receiving { bytes: 0, evicted: Arc::clone(&evicted) });
        Reservation { budget: self.clone(), number, evicted }
    }

    /// Bytes that are taken.
    pub fn bytes(&self) -> usize {
        self.0.bodies.lock().bytes
    }

    /// Bytes that there may be.
    pub fn limit(&self) -> usize {
        self.0.limit
    }
}

impl Reservation {
    /// Takes some more bytes. The oldest bodies make room if there is none.
    ///
    /// # Errors
    /// This one had to.
    pub fn grow(&self, bytes: usize) -> Result<(), Evicted> {
        self.change(|taken| taken + bytes)
    }

    /// Takes so many bytes instead of those that it has taken, for what was made of the body.
    ///
    /// # Errors
    /// As for [`Reservation::grow`].
    pub fn resize(&self, bytes: usize) -> Result<(), Evicted> {
        self.change(|_| bytes)
    }

    fn change(&self, bytes: impl FnOnce(usize) -> usize) -> Result<(), Evicted> {
        let shared = &self.budget.0;
        let mut bodies = shared.bodies.lock();
        let own = bodies.by_number.get_mut(&self.number).ok_or(Evicted)?;
        let (before, after) = (own.bytes, bytes(own.bytes));
        own.bytes = after;
        bodies.bytes = bodies.bytes - before + after;
        let mut evicted = 0;
        while bodies.bytes > shared.limit {
            // One without bytes makes no room.
            let Some((&oldest, _)) = bodies.by_number.iter().find(|(_, body)| body.bytes > 0) else { break };
            bodies.remove(oldest).notify_one();
            evicted += 1;
        }
        let gone = !bodies.by_number.contains_key(&self.number);
        drop(bodies);
        if evicted > 0 {
            shared.refused.inc_by(evicted);
            let limit = shared.limit;
            warn!(
                evicted,
                limit, "request bodies take all of server.body_memory: those that have taken longest are refused"
            );
        }
        if gone { Err(Evicted) } else { Ok(()) }
    }

    /// Completes when the body has to make room.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Does something with the body that may have to wait.
    ///
    /// # Errors
    /// The body had to make room first.
    pub async fn race<T>(&self, work: impl Future<Output = T>) -> Result<T, Evicted> {
        select! {
            biased;
            () = self.evicted() => Err(Evicted),
            result = work => Ok(result),
        }
    }
}

impl Bodies {
    fn remove(&mut self, number: u64) -> Arc<Notify> {
        let body = self.by_number.remove(&number).expect("it was found under the same lock");
        self.bytes -= body.bytes;
        body.evicted
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut bodies = self.budget.0.bodies.lock();
        if bodies.by_number.contains_key(&self.number) {
            bodies.remove(self.number);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("number", &self.number).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_oldest_bodies_make_room_and_everything_is_given_back() {
        let budget = BodyBudget::new(100, Counter::default());
        let (empty, first, second, third) = (budget.reserve(), budget.reserve(), budget.reserve(), budget.reserve());
        assert_eq!((first.grow(40), second.grow(40), third.grow(20)), (Ok(()), Ok(()), Ok(())));
        assert_eq!((third.grow(10), budget.bytes()), (Ok(()), 70));
        assert!(first.evicted().now_or_never().is_some() && second.evicted().now_or_never().is_none());
        assert_eq!(first.grow(1), Err(Evicted));
        // Its own age does not spare it.
        assert_eq!((second.grow(31), budget.bytes()), (Err(Evicted), 30));
        assert_eq!((empty.grow(71), budget.bytes()), (Err(Evicted), 30));
        assert_eq!(budget.0.refused.get(), 3);
        assert_eq!((third.resize(10), budget.bytes()), (Ok(()), 10));
        assert_eq!((third.resize(101), budget.bytes()), (Err(Evicted), 0));
        assert_eq!(third.race(async {}).now_or_never(), Some(Err(Evicted)));
        drop((empty, first, second, third));
        assert_eq!((budget.bytes(), budget.0.bodies.lock().by_number.len()), (0, 0));
    }
}
