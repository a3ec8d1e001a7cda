//! From a channel to its subscribers: one order, many frames per write, and no publisher who works for all the others.
//!
//! Who publishes puts the frame into the channel's queue. If nobody is at work there, the publisher takes a turn: it writes
//! the frame to the first subscribers, and leaves a task behind if there are more. If somebody is, that is all: the
//! next round takes along whatever has collected meanwhile, in one write per subscriber. So an event costs one write per
//! subscriber while the channel is quiet, and less the busier it gets, without a timer that anybody would wait for.

use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::IndexMap;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use crate::outbox::Outbox;
use crate::protocol::{Frame, SocketId, UserId};

/// Subscribers served while the channel is locked: who wants to subscribe waits for so many writes at most.
pub(super) const CHUNK: usize = 16;

/// Subscribers served in one turn, after which other tasks have theirs: about five milliseconds. To stop is not free, as
/// another thread of the runtime wakes up and takes over, with cold caches.
pub(super) const TURN: usize = 1024;

/// Frames and bytes that wait in a channel before those who publish have to help with its deliveries.
const CROWD: (usize, usize) = (256, 256 * 1024);

/// Who gets the channel's events. The ids are ours: nobody can choose them so that they collide.
pub(super) type Subscribers = IndexMap<SocketId, Subscription, RandomState>;

/// Somebody who gets the channel's events.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) outbox: Arc<Outbox>,
    pub(super) user_id: Option<UserId>,
    /// The first frame that it has not had.
    pub(super) next: u64,
}

/// The frames of a channel that no round has taken up yet.
///
/// Overflow policy: nothing is dropped. In a crowd each publisher works for a turn before it goes, which makes it slower
/// than the deliveries.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    frames: Vec<Queued>,
    bytes: usize,
    /// The number of the next frame.
    next: u64,
    /// Somebody is at work, and will look here again.
    busy: bool,
}

/// A frame for all subscribers but one.
#[derive(Debug)]
struct Queued {
    frame: Frame,
    except: Option<SocketId>,
}

/// What a publisher has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Nothing: somebody is at work.
    Nothing,
    /// One turn, as there is a crowd.
    Help,
    /// To see to it that the queue is emptied.
    Run,
}

/// Frames on their way to all subscribers.
#[derive(Debug, Default)]
pub(super) struct Round {
    frames: Vec<Queued>,
    /// The number of the first one.
    first: u64,
    /// Subscribers before this position are still to be served. It falls, so that one who takes the place of one who
    /// left, and comes from the end, is not overlooked.
    remaining: usize,
}

impl Queue {
    /// Queues a frame, and says what follows from it.
    pub(super) fn publish(&self, frame: Frame, except: Option<SocketId>) -> Duty {
        let mut waiting = self.0.lock();
        waiting.push(frame, except);
        let crowded = waiting.frames.len() > CROWD.0 || waiting.bytes > CROWD.1;
        match std::mem::replace(&mut waiting.busy, true) {
            false => Duty::Run,
            true if crowded => Duty::Help,
            true => Duty::Nothing,
        }
    }

    /// Queues a frame for whoever claims it.
    pub(super) fn push(&self, frame: Frame, except: Option<SocketId>) {
        self.0.lock().push(frame, except);
    }

    /// Takes on the duty to empty the queue, unless it is empty or somebody has.
    pub(super) fn claim(&self) -> bool {
        let mut waiting = self.0.lock();
        !waiting.frames.is_empty() && !std::mem::replace(&mut waiting.busy, true)
    }

    /// The number of the next frame: the first one for somebody who subscribes now.
    pub(super) fn next(&self) -> u64 {
        self.0.lock().next
    }
}

impl Waiting {
    fn push(&mut self, frame: Frame, except: Option<SocketId>) {
        self.next += 1;
        self.bytes += frame.len();
        self.frames.push(Queued { frame, except });
    }
}

impl Round {
    /// Serves the next few subscribers, in a new round if the last one is over. False if there was nothing to do.
    pub(super) fn go_on(&mut self, queue: &Queue, subscribers: &mut Subscribers, delivered: &Counter) -> bool {
        self.remaining = self.remaining.min(subscribers.len());
        if self.remaining == 0 && !self.begin(queue, subscribers.len()) {
            return false;
        }
        let end = self.first + self.frames.len() as u64;
        let until = self.remaining.saturating_sub(CHUNK);
        // Memory that the system calls have driven out of the caches comes for all of them at once then.
        let chunk = subscribers.get_range(until..self.remaining).expect("it is below the length");
        chunk.values().for_each(|subscription| subscription.outbox.prefetch());
        let mut count = 0;
        while self.remaining > until {
            self.remaining -= 1;
            let (socket_id, subscription) = subscribers.get_index_mut(self.remaining).expect("it is below the length");
            let begin = subscription.next.max(self.first);
            subscription.next = end.max(subscription.next);
            // Whoever came later, or was served already and has moved here, has had these frames or does not need them.
            let frames = self.frames.get((begin - self.first) as usize..).unwrap_or_default();
            let frames = frames.iter().filter(|queued| queued.except != Some(*socket_id)).map(|queued| &queued.frame);
            count += frames.clone().count() as u64;
            subscription.outbox.push_all(frames);
        }
        delivered.inc_by(count);
        true
    }

    /// Takes up what waits, if anything does; else nobody is at work from here on.
    fn begin(&mut self, queue: &Queue, subscribers: usize) -> bool {
        let mut waiting = queue.0.lock();
        // The memory goes as well: most channels are silent most of the time.
        self.frames = std::mem::take(&mut waiting.frames);
        self.first = waiting.next - self.frames.len() as u64;
        self.remaining = subscribers;
        waiting.bytes = 0;
        waiting.busy = !self.frames.is_empty();
        waiting.busy
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Somebody who is subscribed, and the numbers of the frames that it should get.
    struct Listener {
        socket_id: SocketId,
        outbox: Arc<Outbox>,
        expected: Vec<u32>,
    }

    impl Listener {
        fn heard(&self) -> Vec<u32> {
            let number = |frame: &Frame| u32::from_be_bytes(frame.websocket().try_into().unwrap());
            self.outbox.take().iter().map(number).collect()
        }
    }

    #[test]
    fn everybody_gets_what_is_published_while_they_are_subscribed_in_order_and_once() {
        let mut random = StdRng::seed_from_u64(5);
        let (queue, mut round, mut subscribers) = (Queue::default(), Round::default(), Subscribers::default());
        let (mut listeners, mut published, delivered) = (Vec::<Listener>::new(), 0, Counter::default());
        for _ in 0..50_000 {
            match random.random_range(0..10) {
                0..4 => {
                    let except = random.random_range(0..4 * listeners.len().max(1));
                    let except = listeners.get(except).map(|listener| listener.socket_id);
                    queue.push(Frame::control(u32::to_be_bytes(published).to_vec()), except);
                    for listener in listeners.iter_mut().filter(|listener| Some(listener.socket_id) != except) {
                        listener.expected.push(published);
                    }
                    published += 1;
                }
                4..6 if listeners.len() < 5 * CHUNK => {
                    let (socket_id, outbox) = (SocketId::random(), Arc::new(Outbox::new(usize::MAX)));
                    let subscription = Subscription { outbox: Arc::clone(&outbox), user_id: None, next: queue.next() };
                    subscribers.insert(socket_id, subscription);
                    listeners.push(Listener { socket_id, outbox, expected: Vec::new() });
                }
                6 if !listeners.is_empty() => {
                    let gone = listeners.swap_remove(random.random_range(0..listeners.len()));
                    subscribers.swap_remove(&gone.socket_id);
                    assert!(gone.expected.starts_with(&gone.heard()), "it heard something else before it left");
                }
                _ => drop(round.go_on(&queue, &mut subscribers, &delivered)),
            }
        }
        while round.go_on(&queue, &mut subscribers, &delivered) {}
        assert!(listeners.len() > CHUNK && published > 1000 && !queue.claim());
        for listener in &listeners {
            assert_eq!(listener.heard(), listener.expected);
        }
    }

    #[test]
    fn one_publisher_works_and_the_others_help_only_in_a_crowd() {
        let queue = Queue::default();
        let publish = || queue.publish(Frame::control(vec![0; 10]), None);
        assert_eq!(publish(), Duty::Run);
        for _ in 1..CROWD.0 {
            assert_eq!(publish(), Duty::Nothing);
        }
        assert_eq!(publish(), Duty::Help);
        let (mut round, delivered) = (Round::default(), Counter::default());
        while round.go_on(&queue, &mut Subscribers::default(), &delivered) {}
        assert_eq!(publish(), Duty::Run);
    }
}
