//! The bounded queue between fan-out and one client.

use std::mem;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::protocol::{CloseReason, Frame};

/// The frames that wait for one client. Putting one in never waits and cannot fail; taking them out is the business of
/// the one task that writes to the client's transport.
///
/// Overflow policy: when more than the app's limit of bytes waits, the outbox drops what it holds and closes itself with
/// [`CloseReason::SlowConsumer`]. A slow client pays for itself, knows that it missed something, and nobody else notices.
#[derive(Debug)]
pub struct Outbox {
    limit: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: Vec<Frame>,
    /// Bytes of `frames`, and of those taken but not yet written.
    bytes: usize,
    closed: Option<CloseReason>,
    /// Frames that an overflow threw away.
    dropped: u64,
    writer: Option<Waker>,
}

/// What the writing task finds.
#[derive(Debug)]
pub enum Ready {
    /// Frames to write, in this order.
    Frames(Vec<Frame>),
    /// The end: frames to write still, and then the reason.
    Closed(Vec<Frame>, CloseReason),
}

impl Outbox {
    /// An empty outbox that holds at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, queue: Mutex::default() }
    }

    /// Queues a frame. One for a closed outbox is ignored: its client is going and hears the reason.
    pub fn push(&self, frame: Frame) {
        let mut queue = self.queue.lock();
        if let Some(reason) = &queue.closed {
            // Until its task has left the channels, a slow client goes on missing frames.
            queue.dropped += u64::from(*reason == CloseReason::SlowConsumer);
            return;
        }
        queue.bytes += frame.len();
        if queue.bytes > self.limit {
            queue.dropped = std::mem::take(&mut queue.frames).len() as u64 + 1;
            queue.closed = Some(CloseReason::SlowConsumer);
        } else {
            queue.frames.push(frame);
        }
        wake(queue);
    }

    /// Ends the conversation after the frames that wait already. The first reason stays.
    pub fn close(&self, reason: CloseReason) {
        let mut queue = self.queue.lock();
        if queue.closed.is_none() {
            queue.closed = Some(reason);
            wake(queue);
        }
    }

    /// Whether nothing more will be accepted.
    pub fn is_closed(&self) -> bool {
        self.queue.lock().closed.is_some()
    }

    /// Takes all frames once there are any, or once the outbox is closed. Frames taken count towards the limit until
    /// [`Outbox::written`] says how many bytes of them are gone.
    ///
    /// Only one task may poll; the last waker counts.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Ready> {
        let mut queue = self.queue.lock();
        match (&queue.closed, queue.frames.is_empty()) {
            (Some(reason), _) => {
                let reason = reason.clone();
                Poll::Ready(Ready::Closed(mem::take(&mut queue.frames), reason))
            }
            (None, false) => Poll::Ready(Ready::Frames(mem::take(&mut queue.frames))),
            (None, true) => {
                queue.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Frames that the client missed because the outbox overflowed.
    pub fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }

    /// Adds frames that were taken out and given up.
    pub fn count_dropped(&self, frames: usize) {
        self.queue.lock().dropped += frames as u64;
    }

    /// Accounts for bytes that reached the transport.
    pub fn written(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.bytes = queue.bytes.saturating_sub(bytes);
    }
}

fn wake(mut queue: parking_lot::MutexGuard<'_, Queue>) {
    let writer = queue.writer.take();
    drop(queue);
    if let Some(writer) = writer {
        writer.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Frame {
        Frame::control(vec![0; bytes])
    }

    fn ready(outbox: &Outbox) -> Poll<Ready> {
        outbox.poll_ready(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn frames_come_out_together_and_in_order() {
        let outbox = Outbox::new(100);
        assert!(ready(&outbox).is_pending());
        outbox.push(frame(3));
        outbox.push(frame(5));
        let Poll::Ready(Ready::Frames(frames)) = ready(&outbox) else { panic!("no frames") };
        assert_eq!(frames.iter().map(Frame::len).collect::<Vec<_>>(), [3, 5]);
        assert!(ready(&outbox).is_pending());
    }

    #[test]
    fn frames_that_were_taken_but_not_written_count() {
        let outbox = Outbox::new(10);
        outbox.push(frame(8));
        drop(ready(&outbox));
        outbox.written(4);
        outbox.push(frame(6));
        assert!(!outbox.is_closed());
        outbox.push(frame(1));
        let Poll::Ready(Ready::Closed(frames, CloseReason::SlowConsumer)) = ready(&outbox) else {
            panic!("not closed")
        };
        assert!(frames.is_empty());
    }

    #[test]
    fn the_first_reason_stays_and_earlier_frames_go_out() {
        let outbox = Outbox::new(10);
        outbox.push(frame(2));
        outbox.close(CloseReason::ShuttingDown);
        outbox.close(CloseReason::NoPong);
        outbox.push(frame(2));
        let Poll::Ready(Ready::Closed(frames, CloseReason::ShuttingDown)) = ready(&outbox) else {
            panic!("not closed")
        };
        assert_eq!(frames.len(), 1);
    }
}
