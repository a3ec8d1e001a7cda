//! An account of the cached events of all channels of an app, by age: what has expired goes, and the oldest go when
//! all together take more than `limits.cache_size`.
//!
//! The events themselves are with their channels. Each holds a [`Place`] here, which it gives back when it is dropped,
//! whatever the reason, so that the account is exact.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::protocol::ChannelName;

/// Memory that a cached event takes besides its text: its channel if nobody is subscribed, and its place here.
pub(super) const OVERHEAD: usize = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct Cache {
    limit: usize,
    bytes: AtomicUsize,
    ages: Mutex<Ages>,
}

#[derive(Debug, Default)]
struct Ages {
    /// All events have the same time to live, so that the first to expire is the oldest.
    events: BTreeMap<Age, (ChannelName, usize)>,
    next: u64,
}

/// When an event expires, and a number that no other has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    expires: Instant,
    number: u64,
}

/// The place of one event in the account.
#[derive(Debug)]
pub(super) struct Place {
    cache: Arc<Cache>,
    age: Age,
}

impl Cache {
    /// An empty one that may hold so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, bytes: AtomicUsize::new(0), ages: Mutex::default() }
    }

    /// Enters an event of so many bytes.
    pub(super) fn enter(self: &Arc<Self>, name: &ChannelName, bytes: usize, expires: Instant) -> Place {
        let bytes = bytes + 2 * name.as_str().len() + OVERHEAD;
        let mut ages = self.ages.lock();
        let age = Age { expires, number: ages.next };
        ages.next += 1;
        ages.events.insert(age, (name.clone(), bytes));
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Place { cache: Arc::clone(self), age }
    }

    /// Bytes of all events.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that they may have.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether there are too many bytes.
    pub(super) fn is_over(&self) -> bool {
        self.bytes() > self.limit
    }

    /// Takes the oldest event off the account if there are too many bytes. The caller has to drop it.
    pub(super) fn pop_excess(&self) -> Option<(Age, ChannelName)> {
        if !self.is_over() {
            return None;
        }
        let mut ages = self.ages.lock();
        // Looked at again: somebody else may have been faster.
        if self.is_over() { self.pop(&mut ages) } else { None }
    }

    /// Takes an expired event off the account. The caller has to drop it.
    pub(super) fn pop_expired(&self, now: Instant) -> Option<(Age, ChannelName)> {
        let mut ages = self.ages.lock();
        let (age, _) = ages.events.first_key_value()?;
        if age.expires > now { None } else { self.pop(&mut ages) }
    }

    fn pop(&self, ages: &mut Ages) -> Option<(Age, ChannelName)> {
        let (age, (name, bytes)) = ages.events.pop_first()?;
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Some((age, name))
    }
}

impl Place {
    /// Which event it is.
    pub(super) fn age(&self) -> Age {
        self.age
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let removed = self.cache.ages.lock().events.remove(&self.age);
        if let Some((_, bytes)) = removed {
            self.cache.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}
