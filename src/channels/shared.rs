//! A channel that is shared with other nodes: what happens to it is decided by the cluster, and arrives as news.
//!
//! Who subscribes waits until the news have come as far as the subscription itself. Then the list of members here is
//! that of this very moment in the stream, and the news after it are those that the newcomer needs.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::outbox::Outbox;
use crate::protocol::{ChannelName, CloseReason, Frame, Member, ServerEvent, SocketId, SubscriptionError, UserId};

use super::agenda::Chore;
use super::channel::{Asked, Cached, State, Waiting};
use super::presence::Presence;
use super::replica::{Answer, Contribution, Everything, Life, News, Outcome, Position};
use super::{Rules, Subscribed, Subscriber, Unsubscribed};

impl State {
    /// Subscribes a connection, at once if nothing has to be asked for.
    pub(super) fn subscribe_shared(
        &mut self,
        name: &ChannelName,
        subscriber: Subscriber,
        rules: &Rules,
        life: Life,
        now: Instant,
    ) -> Result<(Subscribed, Option<(Instant, Chore)>), SubscriptionError> {
        let rejoined = self.take_back_leave(&subscriber, rules)?;
        let Subscriber { socket_id, outbox, member } = subscriber;
        let user_id = member.as_ref().map(|member| member.user_id.clone());
        if let Some(member) = member.as_ref().filter(|_| !rejoined) {
            let presence = self.presence.get_or_insert_default();
            if presence.join(member) {
                presence.changed(&member.user_id);
            }
        }
        let mut is_told = rejoined && !name.is_cache();
        if let (true, Some(user_id), Some(presence)) = (rejoined, &user_id, &mut self.presence)
            && presence.counted(user_id).is_none()
        {
            // It left before the cluster had answered, perhaps that there is no room.
            presence.changed(user_id);
            is_told = false;
        }
        let replica = self.replica.get_or_insert_default();
        if !is_told || !replica.is_live(life) {
            replica.touch();
        }
        let waiting = Waiting { socket_id, outbox, user_id, until: now + rules.patience, asked: Asked::No };
        // Without the cluster nobody can publish, so that nothing is missed by not listening to it yet.
        let careless = life.number == 0 && !name.is_presence() && !name.is_cache();
        let mut chore = None;
        if careless || self.may_enter(name, &waiting, life) {
            self.enter(name, waiting, now);
        } else {
            if self.giving_up.is_none() {
                self.giving_up = Some(waiting.until);
                chore = Some((waiting.until, Chore::GiveUp));
            }
            self.waiting.push(waiting);
        }
        // Also if it waits already for somebody else, who may have a long queue.
        let touched = self.replica.as_ref().is_some_and(|replica| replica.is_dirty());
        let (occupied, member_added, cache_miss, counted) = (false, false, false, false);
        Ok((Subscribed { occupied, member_added, cache_miss, counted, touched, rejoined }, chore))
    }

    /// Ends a subscription; the cluster decides what comes of it.
    pub(super) fn unsubscribe_shared(&mut self, socket_id: SocketId) -> Option<Unsubscribed> {
        let user_id = match self.subscribers.swap_remove(&socket_id) {
            Some(subscription) => subscription.user_id,
            None => match self.stop_waiting(socket_id) {
                Some(waiting) => waiting.user_id,
                None => Some(self.end_leave(socket_id)?),
            },
        };
        let touched = self.left(user_id.as_ref());
        Some(Unsubscribed { vacated: false, member_removed: None, counted: false, touched })
    }

    /// Forgets that a connection is to be subscribed.
    pub(super) fn stop_waiting(&mut self, socket_id: SocketId) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| waiting.socket_id == socket_id)?;
        Some(self.waiting.remove(at))
    }

    /// Whether a connection will be subscribed.
    pub(super) fn is_waiting(&self, socket_id: SocketId) -> bool {
        self.waiting.iter().any(|waiting| waiting.socket_id == socket_id)
    }

    /// What to tell the cluster now, unless it is being told something already.
    pub(super) fn contribute(&mut self, life: Life) -> Option<Contribution> {
        let connections = self.subscribers.len() + self.waiting.len() + self.leaving();
        let (mut contribution, begins) = self.replica.as_mut()?.begin(life, connections)?;
        for waiting in &mut self.waiting {
            waiting.asked = Asked::Now;
        }
        if let Some(presence) = &mut self.presence {
            presence.contribute(&mut contribution, begins, life.fresh);
        }
        Some(contribution)
    }

    /// The cluster has answered.
    pub(super) fn settle(
        &mut self,
        name: &ChannelName,
        rules: &Rules,
        life: Life,
        (contribution, mut answer): (&Contribution, Answer),
        now: Instant,
    ) -> Outcome {
        let Some(replica) = &mut self.replica else { return Outcome::default() };
        if !replica.finish(life, contribution, &answer) {
            return Outcome::default();
        }
        if let Some(presence) = &mut self.presence {
            presence.contributed(contribution, &answer.refused, answer.position);
        }
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.asked == Asked::Now) {
            waiting.asked = Asked::At(answer.position);
        }
        let mut outcome = Outcome::default();
        if let Some(everything) = answer.everything.take() {
            outcome.gap = everything.gap && !self.subscribers.is_empty();
            self.replace(name, rules, everything, now);
            for news in self.replica.as_mut().map(|replica| replica.release(life)).unwrap_or_default() {
                self.apply(name, rules, news, now);
            }
        }
        for user_id in &answer.refused {
            let error = SubscriptionError::ChannelFull { channel: name.clone(), limit: rules.presence_members };
            self.refuse(name, rules, &error, |waiting| waiting.user_id.as_ref() == Some(user_id));
        }
        self.let_in(name, rules, life, now);
        self.look_on(outcome)
    }

    /// News have arrived.
    pub(super) fn hear(
        &mut self,
        name: &ChannelName,
        rules: &Rules,
        life: Life,
        (position, news): (Position, News),
        now: Instant,
    ) -> Outcome {
        let outcome = Outcome::default();
        let Some(replica) = &mut self.replica else { return outcome };
        if let Some(news) = replica.follow(life, position, news) {
            self.apply(name, rules, news, now);
            self.let_in(name, rules, life, now);
        }
        self.look_on(outcome)
    }

    /// Refuses those who have waited too long, with this error. Returns them, whether the cluster must hear of it, and
    /// when to look again.
    pub(super) fn give_up(
        &mut self,
        name: &ChannelName,
        rules: &Rules,
        error: &SubscriptionError,
        now: Instant,
    ) -> (Vec<Arc<Outbox>>, bool, Option<(Instant, Chore)>) {
        // Or it is a chore of a time before.
        if self.giving_up.is_none_or(|at| at > now) {
            return (Vec::new(), false, None);
        }
        let (gone, touched) = self.refuse(name, rules, error, |waiting| waiting.until <= now);
        self.giving_up = self.waiting.first().map(|waiting| waiting.until);
        (gone, touched, self.giving_up.map(|at| (at, Chore::GiveUp)))
    }

    /// Asks all subscribers to connect anew.
    pub(super) fn send_away(&self, reason: &CloseReason) {
        for subscription in self.subscribers.values() {
            subscription.outbox.close(reason.clone());
        }
    }

    fn may_enter(&self, name: &ChannelName, waiting: &Waiting, life: Life) -> bool {
        let Some(replica) = self.replica.as_ref().filter(|replica| replica.is_live(life)) else { return false };
        // What a backend was told to be taken must be shown, also if the news of it are still on their way.
        let knows_cached = match waiting.asked {
            Asked::At(position) => replica.has_reached(position),
            Asked::No | Asked::Now => !name.is_cache(),
        };
        let Some(user_id) = &waiting.user_id else { return knows_cached };
        let counted = self.presence.as_ref().and_then(|presence| presence.counted(user_id));
        knows_cached && counted.is_some_and(|since| replica.has_reached(since))
    }

    fn enter(&mut self, name: &ChannelName, waiting: Waiting, now: Instant) {
        let Waiting { socket_id, outbox, user_id, .. } = waiting;
        if self.greet(name, &outbox, now)
            && let Some(replica) = &mut self.replica
        {
            replica.miss();
        }
        self.add(socket_id, outbox, user_id);
    }

    /// Lets everybody in who may come now. They have missed the news about the number of subscribers that they changed.
    fn let_in(&mut self, name: &ChannelName, rules: &Rules, life: Life, now: Instant) {
        for waiting in mem::take(&mut self.waiting) {
            if !self.may_enter(name, &waiting, life) {
                self.waiting.push(waiting);
                continue;
            }
            let outbox = Arc::clone(&waiting.outbox);
            self.enter(name, waiting, now);
            let count = self.replica.as_ref().map_or(0, |replica| replica.total());
            if rules.counts && !name.is_presence() {
                outbox.hold(ServerEvent::SubscriptionCount { channel: name.as_str(), count }.encode());
            }
            outbox.flush();
        }
    }

    /// Returns those who are refused, and whether the cluster must hear of it.
    fn refuse(
        &mut self,
        name: &ChannelName,
        rules: &Rules,
        error: &SubscriptionError,
        is_refused: impl Fn(&Waiting) -> bool,
    ) -> (Vec<Arc<Outbox>>, bool) {
        let (refused, waiting) = mem::take(&mut self.waiting).into_iter().partition(is_refused);
        self.waiting = waiting;
        let refused: Vec<Waiting> = refused;
        let mut touched = false;
        for waiting in &refused {
            for frame in error.frames(name.as_str(), rules.error_events) {
                waiting.outbox.push(frame);
            }
            touched |= self.left(waiting.user_id.as_ref());
        }
        (refused.into_iter().map(|waiting| waiting.outbox).collect(), touched)
    }

    /// True if the cluster must hear of it.
    fn left(&mut self, user_id: Option<&UserId>) -> bool {
        if let (Some(user_id), Some(presence)) = (user_id, &mut self.presence)
            && presence.leave(user_id)
        {
            presence.changed(user_id);
        }
        self.replica.as_mut().is_some_and(|replica| replica.touch())
    }

    /// Brings clients from what they believe to what is true: first the events that they missed, then exactly the
    /// differences.
    fn replace(&mut self, name: &ChannelName, rules: &Rules, everything: Everything, now: Instant) {
        for event in everything.missed.into_iter().filter(|news| matches!(news, News::Event { .. })) {
            self.apply(name, rules, event, now);
        }
        self.cached = everything.cached.map(|(text, ms)| {
            let expires = now + Duration::from_millis(ms);
            Cached::new(name, Frame::from_text(&text), None, expires, rules)
        });
        let presence = self.presence.as_ref();
        let (added, removed) = presence.map(|presence| presence.difference(&everything.members)).unwrap_or_default();
        for user_id in removed {
            self.apply(name, rules, News::Removed(user_id), now);
        }
        for member in added {
            self.apply(name, rules, News::Added(member), now);
        }
    }

    /// Makes news true here, and tells everybody.
    fn apply(&mut self, name: &ChannelName, rules: &Rules, news: News, now: Instant) {
        let channel = name.as_str();
        let frame = match news {
            News::Event { frame, except, cached } => {
                if cached {
                    let expires = now + rules.cache_ttl;
                    self.cached = Some(Cached::new(name, frame.clone(), None, expires, rules));
                }
                return self.deliver(frame, except);
            }
            News::Added(member) => {
                let shown: Member = member.clone();
                if !self.presence.as_mut().is_some_and(|presence| presence.add(shown)) {
                    return;
                }
                ServerEvent::MemberAdded { channel, member: &member }.encode()
            }
            News::Removed(user_id) => {
                // Somebody who is here has not left: the others took this node for dead, and will be told otherwise.
                let gone = |presence: &mut Box<Presence>| !presence.is_here(&user_id) && presence.remove(&user_id);
                if !self.presence.as_mut().is_some_and(gone) {
                    return;
                }
                ServerEvent::MemberRemoved { channel, user_id: &user_id }.encode()
            }
            News::Count(count) => ServerEvent::SubscriptionCount { channel, count }.encode(),
            // Users have these.
            News::Online | News::Offline | News::Terminate(_) => return,
        };
        self.deliver(frame, None);
    }

    fn look_on(&self, mut outcome: Outcome) -> Outcome {
        let Some(replica) = &self.replica else { return outcome };
        outcome.again = replica.wants_turn();
        let is_empty = self.subscribers.is_empty() && self.waiting.is_empty() && self.leaving() == 0;
        outcome.over = is_empty && replica.is_over();
        outcome
    }
}

#[cfg(test)]
mod tests;
