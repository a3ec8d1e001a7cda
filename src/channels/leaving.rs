//! Presence subscriptions that have ended but are not told to be over yet. A connection that leaves and joins more often
//! than it may is seen as a member all along; it gets no events while it is away. Its own end is told at once, as ever.

use std::collections::HashMap;
use std::time::Instant;

use foldhash::quality::RandomState;

use crate::protocol::{ChannelName, SocketId, SubscriptionError, UserId};
use crate::source::Source;

use super::agenda::Chore;
use super::channel::State;
use super::{Rules, Subscriber, Unsubscribed};

/// The connections of a channel whose leave is still to be told.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    connections: HashMap<SocketId, Leave, RandomState>,
    /// When the chore looks at them.
    planned: Option<Instant>,
}

/// A connection whose leave was told.
#[derive(Debug)]
pub struct Left {
    /// The connection.
    pub socket_id: SocketId,
    /// Its source.
    pub source: Source,
    /// What that changed.
    pub changed: Unsubscribed,
}

#[derive(Debug)]
struct Leave {
    user_id: UserId,
    source: Source,
    until: Instant,
}

impl State {
    /// Ends a subscription for its connection, but for nobody else before this time. Returns the chore that tells it then.
    pub(super) fn leave_later(
        &mut self,
        socket_id: SocketId,
        source: Source,
        until: Instant,
    ) -> Option<(Instant, Chore)> {
        let user_id = match self.subscribers.swap_remove(&socket_id) {
            Some(subscription) => subscription.user_id,
            // In a cluster: it may have been told already that somebody comes.
            None => self.stop_waiting(socket_id)?.user_id,
        };
        let leaving = self.leaving.get_or_insert_default();
        leaving.connections.insert(socket_id, Leave { user_id: user_id?, source, until });
        leaving.plan(until)
    }

    /// Takes back the leave of a connection that is there again. True if there was one.
    ///
    /// # Errors
    /// [`SubscriptionError::TooManyJoins`]: it comes as another user.
    pub(super) fn take_back_leave(
        &mut self,
        subscriber: &Subscriber,
        rules: &Rules,
    ) -> Result<bool, SubscriptionError> {
        let leave = self.leaving.as_ref().and_then(|leaving| leaving.connections.get(&subscriber.socket_id));
        let Some(leave) = leave else { return Ok(false) };
        // What the user said about itself at first stays, as it does for users who come with a second connection.
        if subscriber.member.as_ref().is_none_or(|member| member.user_id != leave.user_id) {
            return Err(SubscriptionError::TooManyJoins(rules.presence_joins));
        }
        self.end_leave(subscriber.socket_id);
        Ok(true)
    }

    /// Forgets the leave of a connection. Returns the user that it still counts for.
    pub(super) fn end_leave(&mut self, socket_id: SocketId) -> Option<UserId> {
        // Its chore is left for those who leave next; else each of them would plan one.
        self.leaving.as_mut()?.connections.remove(&socket_id).map(|leave| leave.user_id)
    }

    /// Ends the subscriptions whose leave is due. Returns what that changed, and when to look again.
    pub(super) fn tell_leaves(
        &mut self,
        name: &ChannelName,
        rules: &Rules,
        now: Instant,
    ) -> (Vec<Left>, Option<(Instant, Chore)>) {
        // Or it is a chore of a time before.
        let Some(leaving) = self.leaving.as_mut().filter(|leaving| leaving.planned.is_some_and(|at| at <= now)) else {
            return (Vec::new(), None);
        };
        leaving.planned = None;
        let due = leaving.connections.iter().filter(|(_, leave)| leave.until <= now);
        let due: Vec<_> = due.map(|(socket_id, leave)| (*socket_id, leave.source)).collect();
        let left = due.into_iter().filter_map(|(socket_id, source)| {
            let changed = match rules.shared {
                true => self.unsubscribe_shared(socket_id),
                false => self.unsubscribe(name, socket_id),
            };
            Some(Left { socket_id, source, changed: changed? })
        });
        let left = left.collect();
        let next = |leaving: &mut Box<Leaving>| {
            let next = leaving.connections.values().map(|leave| leave.until).min()?;
            leaving.plan(next)
        };
        let again = self.leaving.as_mut().and_then(next);
        if again.is_none() {
            self.leaving = None;
        }
        (left, again)
    }

    /// Whether a connection has left, which is not told yet.
    pub(super) fn is_leaving(&self, socket_id: SocketId) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.connections.contains_key(&socket_id))
    }

    /// Connections that have left, which is not told yet.
    pub(super) fn leaving(&self) -> usize {
        self.leaving.as_ref().map_or(0, |leaving| leaving.connections.len())
    }
}

impl Leaving {
    fn plan(&mut self, until: Instant) -> Option<(Instant, Chore)> {
        if self.planned.is_some_and(|planned| planned <= until) {
            return None;
        }
        self.planned = Some(until);
        Some((until, Chore::Leave))
    }
}
