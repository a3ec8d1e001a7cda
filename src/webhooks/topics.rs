//! Which waiting event a later one makes pointless: what began and has ended before the backend heard of it need not be
//! told at all, and of two counts of a channel the newer one is enough. As long as there is much room, backends are told all
//! the same: some count who comes and goes. The room is that of the event's class, and an equal share
//! of it where apps share one: a flood of open events hides nothing trusted, and one app's flood nothing of another app.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

use super::queue::Event;

/// The latest waiting event of each topic. Events are known by a number that grows; `scope` tells apart those of several
/// endpoints.
#[derive(Debug, Default)]
pub(super) struct Topics {
    keys: RandomState,
    /// By hash; what is found is compared before it counts.
    latest: HashMap<u64, u64>,
    /// The latest client event of each channel: the backend has to know what was true when it was sent.
    client_events: HashMap<u64, u64>,
}

/// Events of a class collapse when they take this part of the room.
const CROWDED: usize = 16;

/// What an event does to one that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// It takes its place.
    Replaces(u64),
    /// Neither is told.
    Cancels(u64),
    /// It says the same again, as after a crash of a node in a cluster, and is not told: its end would cancel one of the
    /// two, and the backend would believe the other one for ever.
    Repeats,
}

impl Effect {
    /// What it is where so many bytes of its class wait, of at most `max_bytes`.
    pub(super) fn at(self, bytes: usize, max_bytes: usize) -> Self {
        match self {
            Self::Replaces(_) | Self::Cancels(_) if bytes <= max_bytes / CROWDED => Self::None,
            effect => effect,
        }
    }
}

/// What an event says of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Says {
    Began(Topic),
    Ended(Topic),
    Now(Topic),
    ClientEvent,
}

/// What, besides its subject, an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    Channel,
    Member,
    User,
    Connection,
    Miss,
    Count,
}

impl Topics {
    /// What this event does to one that waits; `waiting` finds that one.
    pub(super) fn effect<'a>(
        &self,
        scope: &impl Hash,
        event: &Event,
        waiting: impl FnOnce(u64) -> Option<&'a Event>,
    ) -> Effect {
        let Some((says, whom)) = parse(&event.text) else { return Effect::None };
        let (Says::Began(topic) | Says::Ended(topic) | Says::Now(topic)) = says else { return Effect::None };
        let Some(number) = self.latest.get(&self.key(scope, event, topic, whom)).copied() else { return Effect::None };
        let earlier = waiting(number).filter(|earlier| earlier.subject == event.subject);
        let Some((said, who)) = earlier.and_then(|earlier| parse(&earlier.text)) else { return Effect::None };
        if topic == Topic::Member && who != whom {
            return Effect::None;
        }
        match (said, says) {
            (Says::Now(_), Says::Now(_)) if said == says => Effect::Replaces(number),
            _ if said == says => Effect::Repeats,
            (Says::Began(began), Says::Ended(_)) if began == topic => {
                let client_event = self.client_events.get(&self.keys.hash_one((scope, &event.subject)));
                let is_needed = client_event.is_some_and(|client_event| *client_event > number);
                if is_needed { Effect::None } else { Effect::Cancels(number) }
            }
            _ => Effect::None,
        }
    }

    /// An event waits.
    pub(super) fn add(&mut self, scope: &impl Hash, event: &Event, number: u64) {
        if let Some((map, key)) = self.place(scope, event) {
            map.insert(key, number);
        }
    }

    /// It waits no longer.
    pub(super) fn remove(&mut self, scope: &impl Hash, event: &Event, number: u64) {
        if let Some((map, key)) = self.place(scope, event)
            && map.get(&key) == Some(&number)
        {
            map.remove(&key);
        }
    }

    fn place(&mut self, scope: &impl Hash, event: &Event) -> Option<(&mut HashMap<u64, u64>, u64)> {
        let (says, whom) = parse(&event.text)?;
        match says {
            Says::Began(topic) | Says::Ended(topic) | Says::Now(topic) => {
                let key = self.key(scope, event, topic, whom);
                Some((&mut self.latest, key))
            }
            Says::ClientEvent => {
                let key = self.keys.hash_one((scope, &event.subject));
                Some((&mut self.client_events, key))
            }
        }
    }

    fn key(&self, scope: &impl Hash, event: &Event, topic: Topic, whom: &str) -> u64 {
        // Everything else is the only one of its kind that its subject has.
        let whom = if topic == Topic::Member { whom } else { "" };
        self.keys.hash_one((scope, &event.subject, topic, whom))
    }

    /// Nothing waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.latest.is_empty() && self.client_events.is_empty()
    }
}

/// What an event says, and the rest of its text, which names the member. Every text was made by
/// [`super::event::Happening::encode`], here or in a process before, so that its name comes first.
fn parse(text: &str) -> Option<(Says, &str)> {
    let (name, rest) = text.strip_prefix(r#"{"name":""#)?.split_once('"')?;
    let says = match name {
        "channel_occupied" => Says::Began(Topic::Channel),
        "channel_vacated" => Says::Ended(Topic::Channel),
        "member_added" => Says::Began(Topic::Member),
        "member_removed" => Says::Ended(Topic::Member),
        "user_online" => Says::Began(Topic::User),
        "user_offline" => Says::Ended(Topic::User),
        "connection_opened" => Says::Began(Topic::Connection),
        "connection_closed" => Says::Ended(Topic::Connection),
        "cache_miss" => Says::Now(Topic::Miss),
        "subscription_count" => Says::Now(Topic::Count),
        "client_event" => Says::ClientEvent,
        _ => return None,
    };
    Some((says, rest))
}

#[cfg(test)]
mod tests {
    use crate::config::WebhookEvent;
    use crate::protocol::{ChannelName, SocketId, UserId};
    use crate::source::Source;
    use crate::webhooks::event::Happening;

    use super::*;

    #[test]
    fn what_is_encoded_is_recognised() {
        let channel = ChannelName::parse("presence-room", 200).unwrap();
        let (user, other) = (UserId::new("7"), UserId::new("8"));
        let socket_id = SocketId::random();
        let closed = Happening::Closed { socket_id, code: 4200, reason: "x", user_id: Some(&user) };
        let pairs = [
            (
                Happening::Channel(WebhookEvent::ChannelOccupied, &channel),
                Happening::Channel(WebhookEvent::ChannelVacated, &channel),
                Effect::Cancels(1),
            ),
            (
                Happening::Member(WebhookEvent::MemberAdded, &channel, &user),
                Happening::Member(WebhookEvent::MemberRemoved, &channel, &user),
                Effect::Cancels(1),
            ),
            (
                Happening::Member(WebhookEvent::MemberAdded, &channel, &user),
                Happening::Member(WebhookEvent::MemberRemoved, &channel, &other),
                Effect::None,
            ),
            (
                Happening::Channel(WebhookEvent::ChannelVacated, &channel),
                Happening::Channel(WebhookEvent::ChannelOccupied, &channel),
                Effect::None,
            ),
            (
                Happening::Member(WebhookEvent::MemberAdded, &channel, &user),
                Happening::Member(WebhookEvent::MemberAdded, &channel, &user),
                Effect::Repeats,
            ),
            (
                Happening::User(WebhookEvent::UserOnline, &user),
                Happening::User(WebhookEvent::UserOffline, &user),
                Effect::Cancels(1),
            ),
            (Happening::Opened(socket_id), closed, Effect::Cancels(1)),
            (Happening::Count(&channel, 1), Happening::Count(&channel, 12), Effect::Replaces(1)),
            (
                Happening::Channel(WebhookEvent::CacheMiss, &channel),
                Happening::Channel(WebhookEvent::CacheMiss, &channel),
                Effect::Replaces(1),
            ),
            (Happening::Count(&channel, 1), Happening::Channel(WebhookEvent::CacheMiss, &channel), Effect::None),
        ];
        let event = |id: u64, happening: &Happening<'_>| {
            let subject = happening.subject();
            let source = Source::subject(&subject);
            Event { id, subject: subject.into(), time_ms: 0, text: happening.encode().into(), source }
        };
        for (first, second, effect) in pairs {
            let (first, second) = (event(1, &first), event(2, &second));
            let mut topics = Topics::default();
            topics.add(&"here", &first, 1);
            assert_eq!(topics.effect(&"here", &second, |_| Some(&first)), effect, "{} {}", first.text, second.text);
            assert_eq!(topics.effect(&"there", &second, |_| Some(&first)), Effect::None);
            topics.remove(&"here", &first, 1);
            assert!(topics.is_empty());
        }
    }
}
