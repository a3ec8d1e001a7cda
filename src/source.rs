//! Whose doing something is. Whatever causes work for others waits in turns between sources, or has its share of a bound.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::addresses::Network;
use crate::protocol::SocketId;

/// Everything that one address causes has the same source, as anybody can open one connection after the other; where the
/// address may be a proxy's with everybody behind it, one connection is a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(u64);

impl Source {
    /// That of a client.
    pub fn of(network: Network, socket_id: SocketId) -> Self {
        if network == Network::unknown() || network.is_private() {
            Self::hash(&socket_id)
        } else {
            Self::hash(&network)
        }
    }

    /// What everything about this subject has in common, where nobody knows who caused it.
    pub fn subject(subject: &str) -> Self {
        Self::hash(&subject)
    }

    /// The form in which it outlives the process.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Reads what [`Source::number`] wrote.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    fn hash(value: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self(hasher.finish())
    }
}
