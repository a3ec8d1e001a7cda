//! How often a connection leaves a presence channel and joins it again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;

use crate::protocol::ChannelName;
use crate::rate_limit::{Bucket, RateLimit};

/// Channels that are remembered at least, if the connection may have fewer subscriptions.
const REMEMBERED: usize = 1000;

/// The least time between two looks at which channels can be forgotten.
const PAUSE: Duration = Duration::from_secs(1);

/// The presence channels that a connection has left not long ago.
///
/// Everybody in a channel hears of every leave and join, so it is the leaves that have a rate: one above it is held back
/// until it would be within. A join needs no rate of its own, because it was paid for with the leave before. So a
/// connection that comes and goes is never refused, however fast it is, and others hear of it no more often than they
/// should.
#[derive(Debug)]
pub struct PresenceJoins {
    rate: RateLimit,
    channels: HashMap<ChannelName, Left, RandomState>,
    looked: Option<Instant>,
}

#[derive(Debug, Default)]
struct Left {
    leaves: Bucket,
    /// When the last leave is told, if it was held back and the connection is not back.
    told: Option<Instant>,
}

impl PresenceJoins {
    /// Nothing has been left. `rate` is that of the leaves of one channel.
    pub fn new(rate: RateLimit) -> Self {
        Self { rate, channels: HashMap::default(), looked: None }
    }

    /// A channel is left. Returns when that may be told; `None`: now.
    pub fn leave(&mut self, channel: &ChannelName, now: Instant) -> Option<Instant> {
        let left = self.channels.entry(channel.clone()).or_default();
        left.told = left.leaves.take(&self.rate, now).err().map(|wait| now + wait);
        left.told
    }

    /// Whether a channel may be joined: not if so many were left lately that no more can be remembered. `subscriptions` are
    /// those that the connection may have (0: any number); `is_leaving` says whether a leave is still to be told.
    pub fn may_join(
        &mut self,
        channel: &ChannelName,
        subscriptions: usize,
        now: Instant,
        is_leaving: impl Fn(&ChannelName) -> bool,
    ) -> bool {
        let most = if subscriptions == 0 { usize::MAX } else { subscriptions.max(REMEMBERED) };
        // Also long before that: most channels are not joined again.
        let is_many = self.channels.len() >= most.min(REMEMBERED / 10);
        if is_many && self.looked.is_none_or(|looked| now - looked >= PAUSE) {
            self.looked = Some(now);
            self.channels
                .retain(|channel, left| !left.leaves.is_full(now) || left.told.is_some() && is_leaving(channel));
            self.channels.shrink_to_fit();
        }
        self.channels.len() < most || self.channels.contains_key(channel)
    }

    /// A channel has been joined.
    pub fn joined(&mut self, channel: &ChannelName, now: Instant) {
        let Some(left) = self.channels.get_mut(channel) else { return };
        if left.told.take().is_some_and(|told| told <= now) {
            // The leave that was held back took place, or nearly.
            let _ = left.leaves.take(&self.rate, now);
        }
    }

    /// Channels whose leave may still have to be told.
    pub fn leaving(&self) -> impl Iterator<Item = &ChannelName> {
        self.channels.iter().filter(|(_, left)| left.told.is_some()).map(|(channel, _)| channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name, 200).unwrap()
    }

    #[test]
    fn leaves_above_the_rate_are_held_back_until_they_are_within() {
        let (mut joins, start, room) =
            (PresenceJoins::new(RateLimit::per_minute(30)), Instant::now(), channel("presence-room"));
        for _ in 0..30 {
            assert_eq!(joins.leave(&room, start), None);
            joins.joined(&room, start);
        }
        let told = start + Duration::from_secs(2);
        for wait in [0, 500, 1999] {
            let now = start + Duration::from_millis(wait);
            assert_eq!(joins.leave(&room, now), Some(told));
            assert_eq!(joins.leaving().count(), 1);
            joins.joined(&room, now);
            assert_eq!(joins.leaving().count(), 0);
        }
        // Once it was told, it counts.
        assert_eq!(joins.leave(&room, told - Duration::from_millis(1)), Some(told));
        joins.joined(&room, told);
        assert_eq!(joins.leave(&room, told), Some(told + Duration::from_secs(2)));
        assert_eq!(joins.leave(&channel("presence-other"), told), None);
    }

    #[test]
    fn only_what_was_left_lately_is_remembered() {
        let (mut joins, start) = (PresenceJoins::new(RateLimit::per_minute(30)), Instant::now());
        for number in 0..REMEMBERED {
            joins.leave(&channel(&format!("presence-{number}")), start);
        }
        let new = channel("presence-new");
        assert!(!joins.may_join(&new, 10, start, |_| false));
        assert!(joins.may_join(&channel("presence-7"), 10, start, |_| false));
        assert!(joins.may_join(&new, 2 * REMEMBERED, start, |_| false) && joins.may_join(&new, 0, start, |_| false));
        assert!(joins.may_join(&new, 10, start + Duration::from_secs(2), |_| false));
        assert!(joins.channels.is_empty());
    }

    #[test]
    fn a_leave_that_is_still_to_be_told_is_not_forgotten() {
        let (mut joins, start, room) =
            (PresenceJoins::new(RateLimit::per_minute(1)), Instant::now(), channel("presence-room"));
        joins.leave(&room, start);
        joins.leave(&room, start);
        for number in 0..REMEMBERED {
            joins.leave(&channel(&format!("presence-{number}")), start);
        }
        let later = start + Duration::from_secs(600);
        joins.may_join(&room, 10, later, |left| *left == room);
        assert_eq!(joins.leaving().collect::<Vec<_>>(), [&room]);
        joins.may_join(&room, 10, later + PAUSE, |_| true);
        assert_eq!(joins.channels.len(), 1);
    }
}
