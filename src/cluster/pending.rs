//! What this node still has to tell its cluster, in turns between those who caused it.

use std::collections::HashSet;

use foldhash::quality::RandomState;

use crate::protocol::SocketId;
use crate::source::Source;

use super::fair_queue::{FairQueue, is_oversized};
use super::topic::Topic;

/// The cause of something that the cluster must hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A client.
    Client(Source, SocketId),
    /// This node itself: an answer or news of the cluster, or the clock.
    Node,
}

impl Cause {
    /// Whose doing it is.
    pub(super) fn source(self) -> Option<Source> {
        match self {
            Self::Client(source, _) => Some(source),
            Self::Node => None,
        }
    }
}

/// Topics with something to tell. A topic waits once for each cause, so that no client waits behind what another one has
/// queued, and all clients of one source have one turn between them. It is told for all of them when the first of these
/// turns comes; the others find nothing left to tell.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: FairQueue<Option<Source>, Cause, Topic>,
    waiting: HashSet<(Cause, Topic), RandomState>,
    /// While the node is not connected nothing waits: it tells everything when it is.
    open: bool,
}

impl Pending {
    /// Begins or ends to take topics, without those that wait.
    pub(super) fn reset(&mut self, open: bool) {
        *self = Self { open, ..Self::default() };
    }

    /// Queues a topic, unless it waits for this cause. Never refused: what was subscribed must be unsubscribed.
    pub(super) fn push(&mut self, cause: Cause, topic: Topic) {
        if self.open && self.waiting.insert((cause, topic.clone())) {
            self.queue.push(cause.source(), cause, topic);
        }
    }

    /// Takes the next topic.
    pub(super) fn pop(&mut self) -> Option<(Cause, Topic)> {
        let (_, cause, topic) = self.queue.pop()?;
        let next = (cause, topic);
        self.waiting.remove(&next);
        if is_oversized(self.waiting.capacity(), self.waiting.len()) {
            self.waiting.shrink_to(2 * self.waiting.len());
        }
        Some(next)
    }

    /// Topics that wait for a cause.
    pub(super) fn len_of(&self, cause: Cause) -> usize {
        self.queue.len_of(cause.source(), cause)
    }

    /// Topics that wait, once for each cause.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::ChannelName;

    use super::super::topic::Subject;
    use super::*;

    fn topic(name: &str) -> Topic {
        Topic { app: 0, subject: Subject::Channel(ChannelName::parse(name, 200).unwrap()) }
    }

    #[test]
    fn a_topic_waits_once_for_each_cause() {
        let [ann, bob] = ["ann", "bob"].map(|name| Cause::Client(Source::subject(name), SocketId::random()));
        let mut pending = Pending::default();
        pending.push(ann, topic("closed"));
        assert_eq!(pending.len(), 0);
        pending.reset(true);
        for name in ["a", "b", "a", "c"] {
            pending.push(ann, topic(name));
        }
        pending.push(bob, topic("c"));
        assert_eq!((pending.len_of(ann), pending.len_of(bob), pending.len()), (3, 1, 4));
        let order: Vec<_> = std::iter::from_fn(|| pending.pop()).collect();
        assert_eq!(order, [(ann, topic("a")), (bob, topic("c")), (ann, topic("b")), (ann, topic("c"))]);
        // It has been told, and may change again.
        pending.push(ann, topic("a"));
        assert_eq!(pending.pop(), Some((ann, topic("a"))));
        assert!(pending.waiting.is_empty());
    }

    #[test]
    fn memory_shrinks_after_a_burst() {
        let mut pending = Pending::default();
        pending.reset(true);
        for number in 0..10_000 {
            pending.push(Cause::Node, topic(&format!("channel-{number}")));
        }
        while pending.pop().is_some() {}
        assert!(pending.waiting.capacity() < 1000, "{}", pending.waiting.capacity());
    }
}
