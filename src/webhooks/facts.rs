//! What an app's backend was last told is true: which channels are occupied, who is a member, who is online. What ends
//! and begins again within the delay is never told at all (§5.2).
//!
//! Callers say that something may have changed, and how to look. What they have seen themselves does not count: two
//! clients that come and go at the same moment report in any order, and the backend must end up with what is true.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use crate::config::WebhookEvent;
use crate::protocol::{ChannelName, UserId};
use crate::source::Source;

use super::class::Class;
use super::event::Happening;

/// Ends of a class that may wait for their delay to be over: further ones are told at once. Clients begin and end things faster
/// than they become due, and nothing else counts what they have left.
const MOST: usize = 100_000;

/// Something that begins and ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Fact {
    /// A user is a member of a presence channel.
    Member(ChannelName, UserId),
    /// A channel is occupied.
    Occupied(ChannelName),
    /// A user is online.
    Online(UserId),
}

/// What an app's backend believes.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// All that was told to have begun, and since it has ended, when that will be told.
    told: HashMap<Fact, Option<Leaving>>,
    leaving: BTreeMap<Leaving, Departure>,
    /// How many of these are open, and trusted, without those of the process before.
    waiting: [usize; 2],
    departures: u64,
}

/// When an end becomes known; of those at the same moment, the earlier one first.
type Leaving = (Instant, u64);

/// An end that waits for its time.
#[derive(Debug)]
struct Departure {
    fact: Fact,
    source: Option<Source>,
    /// The process before had told of the beginning. There are no more of these than it had.
    is_inherited: bool,
}

/// What to tell the backend.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has begun.
    Began,
    /// It has ended.
    Ended,
}

impl Facts {
    /// Takes note of what is true, and whose doing that is. An end is told after `delay`, unless that is zero or too much
    /// waits already.
    pub(super) fn look(
        &mut self,
        fact: &Fact,
        source: Option<Source>,
        is_true: bool,
        delay: Duration,
        now: Instant,
    ) -> Option<Turn> {
        let is_full = *self.waiting(fact) >= MOST;
        match (self.told.get_mut(fact), is_true) {
            (None, true) => {
                self.told.insert(fact.clone(), None);
                Some(Turn::Began)
            }
            (None, false) => None,
            (Some(leaving), true) => {
                if let Some(departure) = leaving.take().and_then(|leaving| self.leaving.remove(&leaving)) {
                    self.returned(&departure);
                }
                None
            }
            (Some(Some(_)), false) => None,
            (Some(None), false) if delay.is_zero() || is_full => {
                self.told.remove(fact);
                Some(Turn::Ended)
            }
            (Some(None), false) => {
                *self.waiting(fact) += 1;
                self.leave(Departure { fact: fact.clone(), source, is_inherited: false }, now + delay);
                None
            }
        }
    }

    /// Takes over what the process before had told. It ends at `until`, unless it is seen to be true before.
    pub(super) fn inherit(&mut self, fact: Fact, until: Instant) {
        self.leave(Departure { fact, source: None, is_inherited: true }, until);
    }

    /// The next end that is to be told by `now`, in the order in which they came about, and whose doing it is.
    pub(super) fn next_ended(&mut self, now: Instant) -> Option<(Fact, Option<Source>)> {
        let entry = self.leaving.first_entry().filter(|entry| entry.key().0 <= now)?;
        let departure = entry.remove();
        self.returned(&departure);
        self.told.remove(&departure.fact);
        Some((departure.fact, departure.source))
    }

    /// Everything that was told, as having ended: members before their channels.
    pub(super) fn end_all(&mut self) -> Vec<Fact> {
        self.leaving.clear();
        self.waiting = [0; 2];
        let mut facts: Vec<_> = self.told.drain().map(|(fact, _)| fact).collect();
        facts.sort_by_key(|fact| !matches!(fact, Fact::Member(..)));
        facts
    }

    fn leave(&mut self, departure: Departure, until: Instant) {
        self.departures += 1;
        let leaving = (until, self.departures);
        self.told.insert(departure.fact.clone(), Some(leaving));
        self.leaving.insert(leaving, departure);
    }

    /// It waits no longer.
    fn returned(&mut self, departure: &Departure) {
        if !departure.is_inherited {
            *self.waiting(&departure.fact) -= 1;
        }
    }

    fn waiting(&mut self, fact: &Fact) -> &mut usize {
        &mut self.waiting[fact.class() as usize]
    }
}

impl Fact {
    /// The class of its events.
    fn class(&self) -> Class {
        match self {
            Self::Occupied(channel) if !channel.needs_auth() => Class::Open,
            Self::Occupied(_) | Self::Member(..) | Self::Online(_) => Class::Trusted,
        }
    }

    /// The event that says so.
    pub(super) fn happening(&self, turn: &Turn) -> Happening<'_> {
        let either = |began, ended| if *turn == Turn::Began { began } else { ended };
        match self {
            Self::Member(channel, user_id) => {
                Happening::Member(either(WebhookEvent::MemberAdded, WebhookEvent::MemberRemoved), channel, user_id)
            }
            Self::Occupied(channel) => {
                Happening::Channel(either(WebhookEvent::ChannelOccupied, WebhookEvent::ChannelVacated), channel)
            }
            Self::Online(user_id) => {
                Happening::User(either(WebhookEvent::UserOnline, WebhookEvent::UserOffline), user_id)
            }
        }
    }

    /// Reads what [`fmt::Display`] wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(' ')?;
        let channel = |name: &str| ChannelName::parse(name, usize::MAX).ok();
        match kind {
            "member" => {
                let (name, user_id) = rest.split_once(' ')?;
                Some(Self::Member(channel(name)?, UserId::new(user_id)))
            }
            "occupied" => Some(Self::Occupied(channel(rest)?)),
            "online" => Some(Self::Online(UserId::new(rest))),
            _ => None,
        }
    }
}

/// The form in which facts outlive the process. A channel's name has no space in it.
impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(channel, user_id) => write!(f, "member {channel} {user_id}"),
            Self::Occupied(channel) => write!(f, "occupied {channel}"),
            Self::Online(user_id) => write!(f, "online {user_id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(3);

    fn fact() -> Fact {
        Fact::Occupied(ChannelName::parse("room", 200).unwrap())
    }

    #[test]
    fn what_ends_and_begins_again_within_the_delay_is_never_told() {
        let (mut facts, start) = (Facts::default(), Instant::now());
        assert_eq!(facts.look(&fact(), None, true, DELAY, start), Some(Turn::Began));
        assert_eq!(facts.look(&fact(), None, true, DELAY, start), None);
        assert_eq!(facts.look(&fact(), None, false, DELAY, start), None);
        assert_eq!(facts.look(&fact(), None, true, DELAY, start + DELAY / 2), None);
        assert_eq!(facts.next_ended(start + DELAY * 2), None);
    }

    #[test]
    fn an_end_is_told_once_after_the_delay_and_the_next_beginning_again() {
        let (mut facts, start) = (Facts::default(), Instant::now());
        facts.look(&fact(), None, true, DELAY, start);
        facts.look(&fact(), None, false, DELAY, start);
        facts.look(&fact(), None, false, DELAY, start + DELAY / 2);
        assert_eq!(facts.next_ended(start + DELAY - Duration::from_millis(1)), None);
        assert_eq!(facts.next_ended(start + DELAY), Some((fact(), None)));
        assert_eq!(facts.next_ended(start + DELAY), None);
        assert_eq!(facts.look(&fact(), None, false, DELAY, start + DELAY), None);
        assert_eq!(facts.look(&fact(), None, true, DELAY, start + DELAY), Some(Turn::Began));
    }

    #[test]
    fn what_finds_no_room_to_wait_in_is_told_at_once() {
        let now = Instant::now();
        let mut facts = Facts::default();
        let fact = |prefix: &str, n: usize| Fact::Occupied(ChannelName::parse(&format!("{prefix}{n}"), 200).unwrap());
        let mut end = |fact: &Fact| {
            assert_eq!(facts.look(fact, None, true, DELAY, now), Some(Turn::Began));
            facts.look(fact, None, false, DELAY, now)
        };
        assert!((0..MOST).all(|n| end(&fact("room-", n)).is_none()));
        assert_eq!(end(&fact("room-", MOST)), Some(Turn::Ended));
        // Of another class, nothing waits.
        assert_eq!(end(&fact("private-", 0)), None);
        // An end of the process before takes nobody's room.
        facts.inherit(fact("old-", 0), now + DELAY);
        // A return makes room, and so does an end that was told.
        assert_eq!(facts.look(&fact("room-", 0), None, true, DELAY, now), None);
        assert_eq!(facts.look(&fact("room-", 0), None, false, DELAY, now), None);
        assert_eq!(std::iter::from_fn(|| facts.next_ended(now + DELAY)).count(), MOST + 2);
        assert_eq!(facts.waiting, [0; 2]);
    }

    #[test]
    fn without_a_delay_an_end_is_told_at_once() {
        let (mut facts, start) = (Facts::default(), Instant::now());
        facts.look(&fact(), None, true, Duration::ZERO, start);
        assert_eq!(facts.look(&fact(), None, false, Duration::ZERO, start), Some(Turn::Ended));
        assert_eq!(facts.look(&fact(), None, false, Duration::ZERO, start), None);
    }

    #[test]
    fn what_the_process_before_had_told_ends_unless_it_is_seen_again() {
        let (mut facts, start) = (Facts::default(), Instant::now());
        let gone = Fact::Online(UserId::new("7"));
        facts.inherit(fact(), start + DELAY);
        facts.inherit(gone.clone(), start + DELAY);
        assert_eq!(facts.look(&fact(), None, true, DELAY, start), None);
        assert_eq!(facts.next_ended(start + DELAY), Some((gone, None)));
        assert_eq!(facts.next_ended(start + DELAY), None);
        assert_eq!(facts.end_all(), [fact()]);
    }

    #[test]
    fn facts_outlive_the_process() {
        let channel = ChannelName::parse("presence-room", 200).unwrap();
        for fact in [fact(), Fact::Member(channel, UserId::new("a b\n")), Fact::Online(UserId::new(" x"))] {
            assert_eq!(Fact::parse(&fact.to_string()), Some(fact));
        }
        assert_eq!(Fact::parse("occupied a b"), None);
    }
}
