//! All sessions of this node.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::addresses::Network;
use crate::apps::Seat;
use crate::socket::PeerAddress;
use crate::untrusted::Untrusted;

use super::http_session::HttpSession;

/// The name of a session, which its client has chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Id(Box<str>);

/// Sessions by name, and how many each address has.
#[derive(Debug, Default)]
pub(super) struct Registry {
    sessions: DashMap<Id, Arc<HttpSession>>,
    addresses: DashMap<Network, Arc<AtomicU64>>,
    /// Sessions that this node is about to have.
    beginning: DashMap<Id, ()>,
    /// Tells that one of these is there, or will not be.
    begun: Notify,
}

/// A session is about to begin here, as long as this lives.
#[derive(Debug)]
pub(super) struct Beginning<'a>(&'a Registry, &'a Id);

impl Id {
    /// Of a session of pusher-js: with the key of its app (§7.2).
    pub(super) fn of_pusher(key: &str, server: &str, session: &str) -> Option<Self> {
        let word = |text: &str, longest: usize| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            (1..=longest).contains(&text.len()) && text.bytes().all(letter)
        };
        (word(server, 32) && word(session, 64)).then(|| Self(format!("{key}/{server}/{session}").into()))
    }

    /// Of a session of SockJS, where the other part of the path is for balancers alone.
    pub(super) fn of_sockjs(server: &str, session: &str) -> Option<Self> {
        let word = |text: &str| (1..=64).contains(&text.len()) && !text.contains('.');
        (word(server) && word(session)).then(|| Self(format!("/{session}").into()))
    }

    /// Whether it is one of pusher-js.
    pub(super) fn is_pusher(&self) -> bool {
        !self.0.starts_with('/')
    }

    /// The key of its app, where the path has one.
    pub(super) fn key(&self) -> Option<&str> {
        self.0.split('/').next().filter(|key| !key.is_empty())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Untrusted(&self.0).fmt(f)
    }
}

impl Registry {
    pub(super) fn get(&self, id: &Id) -> Option<Arc<HttpSession>> {
        self.sessions.get(id).map(|session| Arc::clone(&session))
    }

    /// Has requests of other nodes for a session wait until it is there.
    pub(super) fn begin<'a>(&'a self, id: &'a Id) -> Beginning<'a> {
        self.beginning.insert(id.clone(), ());
        Beginning(self, id)
    }

    /// Waits while a session is about to begin, but no longer than `patience`.
    pub(super) async fn begun(&self, id: &Id, patience: Duration) {
        let waiting = async {
            loop {
                let mut begun = pin!(self.begun.notified());
                // From here on nothing is missed.
                begun.as_mut().enable();
                if !self.beginning.contains_key(id) {
                    return;
                }
                begun.await;
            }
        };
        // Whoever waits looks for itself.
        let _ = timeout(patience, waiting).await;
    }

    /// Adds a session, unless there is one by that name.
    ///
    /// # Errors
    /// The one that there is.
    pub(super) fn insert(&self, session: HttpSession) -> Result<Arc<HttpSession>, Arc<HttpSession>> {
        match self.sessions.entry(session.id.clone()) {
            Entry::Occupied(entry) => Err(Arc::clone(entry.get())),
            Entry::Vacant(entry) => Ok(Arc::clone(&entry.insert(Arc::new(session)))),
        }
    }

    pub(super) fn remove(&self, id: &Id) {
        self.sessions.remove(id);
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn all(&self) -> Vec<Arc<HttpSession>> {
        self.sessions.iter().map(|session| Arc::clone(&session)).collect()
    }

    /// A place among the sessions of an address; 0 = no limit.
    pub(super) fn take_seat(&self, address: &PeerAddress, limit: u64) -> Option<Seat> {
        let taken = self.addresses.entry(address.network()).or_default();
        Seat::take(&taken, limit)
    }

    /// Forgets addresses without sessions.
    pub(super) fn tidy(&self) {
        self.addresses.retain(|_, taken| taken.load(Ordering::Relaxed) > 0);
    }
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        let Self(registry, id) = self;
        registry.beginning.remove(id);
        registry.begun.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_of_plain_words() {
        assert_eq!(Id::of_pusher("k", "0", "a_B-9").unwrap().as_str(), "k/0/a_B-9");
        assert!(Id::of_pusher("k", "0", "a_B-9").unwrap().is_pusher());
        assert!(Id::of_pusher("k", "", "a").is_none() && Id::of_pusher("k", "1", "a.b").is_none());
        assert!(
            Id::of_pusher("k", &"1".repeat(33), "a").is_none() && Id::of_pusher("k", "1", &"a".repeat(65)).is_none()
        );
        assert_eq!(Id::of_sockjs("1", "ab"), Id::of_sockjs("2", "ab"));
        assert!(!Id::of_sockjs("1", "ab").unwrap().is_pusher());
        assert!(Id::of_sockjs("a.b", "c").is_none() && Id::of_sockjs("a", "c.d").is_none());
    }

    #[test]
    fn an_address_has_so_many_sessions() {
        let (registry, address) = (Registry::default(), PeerAddress::Direct("1.2.3.4:5".parse().unwrap()));
        let first = registry.take_seat(&address, 1).unwrap();
        assert!(registry.take_seat(&address, 1).is_none());
        registry.tidy();
        assert!(registry.take_seat(&address, 1).is_none());
        drop(first);
        registry.tidy();
        assert!(registry.addresses.is_empty());
        assert!(registry.take_seat(&address, 1).is_some());
    }
}
