//! What it took to cause an event: that decides which events are dropped first when too many wait.

/// What it took to cause an event. Open events are dropped before trusted ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Class {
    /// The app key, which is in every page: public channels and connections.
    Open,
    /// A signature of the app's backend: members, users, and everything about private and presence channels.
    Trusted,
}

/// Events that were dropped, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) trusted: u64,
    pub(super) open: u64,
}

impl Class {
    /// The class of all events with this subject; see [`super::event::Happening::subject`].
    pub(super) fn of(subject: &str) -> Self {
        let trusted = ["private-", "presence-", "#user "];
        if trusted.iter().any(|prefix| subject.starts_with(prefix)) { Self::Trusted } else { Self::Open }
    }
}

impl Lost {
    /// Counts one more event with this subject.
    pub(super) fn add(&mut self, subject: &str) {
        match Class::of(subject) {
            Class::Open => self.open += 1,
            Class::Trusted => self.trusted += 1,
        }
    }

    /// Counts others as well.
    pub(super) fn merge(&mut self, other: Self) {
        self.trusted += other.trusted;
        self.open += other.open;
    }

    /// All of them.
    pub(super) fn count(self) -> u64 {
        self.trusted + self.open
    }
}

#[cfg(test)]
mod tests {
    use crate::config::WebhookEvent;
    use crate::protocol::{ChannelName, SocketId, UserId};
    use crate::webhooks::event::Happening;

    use super::*;

    #[test]
    fn events_that_need_no_signature_are_open() {
        let class = |happening: Happening<'_>| Class::of(&happening.subject());
        let socket_id = SocketId::random();
        assert_eq!(class(Happening::Opened(socket_id)), Class::Open);
        assert_eq!(class(Happening::User(WebhookEvent::UserOnline, &UserId::new("7"))), Class::Trusted);
        for name in
            ["room", "cache-room", "privates", "presence", "private-a", "presence-cache-a", "private-encrypted-a"]
        {
            let channel = ChannelName::parse(name, 200).unwrap();
            let trusted = class(Happening::Channel(WebhookEvent::ChannelOccupied, &channel)) == Class::Trusted;
            assert_eq!(trusted, channel.needs_auth(), "{name}");
        }
    }
}
