//! The bounded queue between fan-out and one client, and the way around it.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::io::AsyncWrite;

use crate::protocol::{CloseReason, Frame};
use crate::socket::Socket;

/// Frames written with one system call.
const BATCH: usize = 64;

/// The frames that wait for one client, and the socket that they go to. Putting one in never waits and cannot fail.
///
/// While nothing waits, a frame is written at once, by whoever brings it: that costs one system call and wakes nobody. What
/// the socket does not take, and what has to be encrypted, is left to the one task that serves the client. All that is
/// ever written goes through here, so that frames keep their order and never interleave.
///
/// Overflow policy: when more than the app's limit of bytes waits, the outbox drops what it holds and closes itself with
/// [`CloseReason::SlowConsumer`]. A slow client pays for itself, knows that it missed something, and nobody else notices.
///
/// A silent client has an outbox of two cache lines, as thousands of these are what a fan-out fetches from memory.
#[derive(Debug)]
pub struct Outbox {
    limit: usize,
    socket: OnceLock<Socket>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Only while there is anything to remember.
    backlog: Option<Box<Backlog>>,
    /// Who serves the client.
    task: Option<Waker>,
}

#[derive(Debug, Default)]
struct Backlog {
    frames: VecDeque<Frame>,
    /// Bytes of the first frame that are written already.
    begun: usize,
    /// Bytes of `frames`.
    bytes: usize,
    closed: Option<CloseReason>,
    /// Frames that an overflow threw away.
    dropped: u64,
    /// The encryption holds bytes back.
    flush: bool,
    /// When something was written last, or began to wait.
    progress: Option<Instant>,
}

impl Outbox {
    /// An empty outbox that holds at most `limit` bytes, and has no socket yet.
    pub fn new(limit: usize) -> Self {
        Self { limit, socket: OnceLock::new(), queue: Mutex::default() }
    }

    /// Gives it the socket, once. What waits is written with the next [`Outbox::poll_write`].
    pub fn connect(&self, socket: Socket) {
        let connected = self.socket.set(socket);
        debug_assert!(connected.is_ok(), "an outbox has one socket in its life");
    }

    /// The socket, for whoever reads from it.
    pub fn socket(&self) -> Option<&Socket> {
        self.socket.get()
    }

    /// Brings a frame. One for a closed outbox is ignored: its client is going and hears the reason.
    pub fn push(&self, frame: Frame) {
        self.push_all(std::iter::once(&frame));
    }

    /// Brings a frame, and leaves it to [`Outbox::flush`] to write it: for whoever holds a lock.
    pub fn hold(&self, frame: Frame) {
        let mut queue = self.queue.lock();
        let backlog = queue.backlog();
        if backlog.closed.is_none() {
            backlog.push(frame, self.limit);
        }
    }

    /// Writes what waits, as far as the socket takes it. The rest is left to the client's task.
    pub fn flush(&self) {
        let mut queue = self.queue.lock();
        let Some(backlog) = &mut queue.backlog else { return };
        if let Some(socket) = self.socket.get() {
            // If the socket is broken, the client's task finds out.
            let _ = backlog.write(|slices| match socket.write_at_once(slices) {
                Some(Ok(written)) => Poll::Ready(Ok(written)),
                Some(Err(_)) | None => Poll::Pending,
            });
        }
        if !backlog.frames.is_empty() || backlog.closed.is_some() {
            wake(queue);
        }
    }

    /// Brings several frames, which are written together.
    pub fn push_all<'f>(&self, mut frames: impl Iterator<Item = &'f Frame> + Clone) {
        let mut queue = self.queue.lock();
        let idle = queue.backlog.as_ref().is_none_or(|backlog| backlog.is_idle());
        let mut begun = 0;
        // What could never wait is too much for an idle client, too: that must not depend on how the network is doing.
        if idle
            && let Some(socket) = self.socket.get()
            && frames.clone().all(|frame| frame.len() <= self.limit)
        {
            begun = write_at_once(&mut frames, socket);
        }
        let Some(first) = frames.next() else { return };
        let backlog = queue.backlog();
        let rest = std::iter::once(first).chain(frames);
        if let Some(reason) = &backlog.closed {
            // Until its task has left the channels, a slow client goes on missing frames.
            backlog.dropped += if *reason == CloseReason::SlowConsumer { rest.count() as u64 } else { 0 };
            return;
        }
        if idle {
            backlog.begun = begun;
        }
        for frame in rest {
            backlog.push(frame.clone(), self.limit);
        }
        if idle || backlog.closed.is_some() {
            wake(queue);
        }
    }

    /// Has the processor fetch what the next [`Outbox::push_all`] needs.
    #[inline]
    pub fn prefetch(&self) {
        black_box((self.limit, self.socket.get().is_some(), self.queue.is_locked()));
    }

    /// Ends the conversation after the frames that wait already. The first reason stays.
    pub fn close(&self, reason: CloseReason) {
        let mut queue = self.queue.lock();
        let closed = &mut queue.backlog().closed;
        if closed.is_none() {
            *closed = Some(reason);
            wake(queue);
        }
    }

    /// Whether nothing more will be accepted.
    pub fn is_closed(&self) -> bool {
        self.queue.lock().backlog.as_ref().is_some_and(|backlog| backlog.closed.is_some())
    }

    /// Whether nothing waits.
    pub fn is_idle(&self) -> bool {
        self.queue.lock().backlog.as_ref().is_none_or(|backlog| backlog.is_idle())
    }

    /// Since when something waits of which the socket takes nothing.
    pub fn stalled_since(&self) -> Option<Instant> {
        let queue = self.queue.lock();
        queue.backlog.as_ref().filter(|backlog| !backlog.frames.is_empty() || backlog.flush)?.progress
    }

    /// Gives up what a client has not read, which takes nothing: as if too much waited.
    pub fn give_up(&self) {
        let mut queue = self.queue.lock();
        let backlog = queue.backlog();
        if backlog.closed.is_none() {
            backlog.give_up();
            backlog.closed = Some(CloseReason::SlowConsumer);
            wake(queue);
        }
    }

    /// Why nothing more will be accepted, if that is so.
    pub fn closed(&self) -> Option<CloseReason> {
        self.queue.lock().backlog.as_ref()?.closed.clone()
    }

    /// Frames that the client missed because the outbox overflowed.
    pub fn dropped(&self) -> u64 {
        self.queue.lock().backlog.as_ref().map_or(0, |backlog| backlog.dropped)
    }

    /// Writes what waits, until the outbox is closed, and says why it was. Does not wait for a slow socket then.
    ///
    /// Only one task may poll; the last waker counts.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<CloseReason>> {
        let mut queue = self.queue.lock();
        if let Some(backlog) = &mut queue.backlog {
            if let Some(reason) = &backlog.closed {
                return Poll::Ready(Ok(reason.clone()));
            }
            if backlog.poll_drain(self.socket.get(), cx)?.is_ready() {
                queue.backlog = None;
            }
        }
        match &mut queue.task {
            Some(task) => task.clone_from(cx.waker()),
            task => *task = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Adds last words to an outbox that is closed.
    pub fn say_good_bye(&self, frame: Frame) {
        let mut queue = self.queue.lock();
        let backlog = queue.backlog();
        backlog.bytes += frame.len();
        backlog.frames.push_back(frame);
    }

    /// Writes everything that waits, also in a closed outbox.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.queue.lock().backlog {
            Some(backlog) => backlog.poll_drain(self.socket.get(), cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Tells the peer that nothing more will come.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.get() {
            Some(mut socket) => Pin::new(&mut socket).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Takes out the first frames that wait, of so many bytes together, but at least one; see [`Outbox::take`].
    pub fn take_some(&self, bytes: usize) -> Vec<Frame> {
        let mut queue = self.queue.lock();
        let Some(backlog) = &mut queue.backlog else { return Vec::new() };
        let mut taken = 0;
        let count = backlog.frames.iter().take_while(|frame| {
            let before = taken;
            taken += frame.len();
            before == 0 || taken <= bytes
        });
        let count = count.count();
        let frames: Vec<Frame> = backlog.frames.drain(..count).collect();
        backlog.bytes -= frames.iter().map(Frame::len).sum::<usize>();
        frames
    }

    /// Takes out what waits, for somebody who writes it in another way. Nothing may have been written of it yet.
    pub fn take(&self) -> Vec<Frame> {
        match &mut self.queue.lock().backlog {
            Some(backlog) => {
                backlog.bytes = 0;
                std::mem::take(&mut backlog.frames).into()
            }
            None => Vec::new(),
        }
    }
}

impl Queue {
    fn backlog(&mut self) -> &mut Backlog {
        self.backlog.get_or_insert_default()
    }
}

impl Backlog {
    /// Whether nothing waits, and something may be written.
    fn is_idle(&self) -> bool {
        self.frames.is_empty() && self.closed.is_none()
    }

    /// Queues a frame, or closes the outbox if that is too much.
    fn push(&mut self, frame: Frame, limit: usize) {
        if self.closed.is_some() {
            self.dropped += 1;
            return;
        }
        if self.frames.is_empty() {
            self.progress = Some(Instant::now());
        }
        self.bytes += frame.len();
        self.frames.push_back(frame);
        if self.bytes > limit {
            self.give_up();
            self.closed = Some(CloseReason::SlowConsumer);
        }
    }

    /// Writes everything, and has it sent. Without a socket that has to wait.
    fn poll_drain(&mut self, socket: Option<&Socket>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(mut socket) = socket else { return Poll::Pending };
        let mut socket = Pin::new(&mut socket);
        ready!(self.write(|slices| socket.as_mut().poll_write_vectored(cx, slices)))?;
        if self.flush {
            ready!(socket.poll_flush(cx))?;
            self.flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything, in this way.
    fn write(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>) -> Poll<io::Result<()>> {
        while !self.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); BATCH];
            let mut begun = self.begun;
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&self.frames) {
                *slice = IoSlice::new(&frame.websocket()[std::mem::take(&mut begun)..]);
                count += 1;
            }
            self.flush = true;
            let written = ready!(write(&slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.begun += written;
            self.progress = Some(Instant::now());
            while let Some(frame) = self.frames.front().filter(|frame| frame.len() <= self.begun) {
                self.begun -= frame.len();
                self.bytes -= frame.len();
                self.frames.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives up what a slow client has not read, but for a frame it has read a part of.
    fn give_up(&mut self) {
        let kept = usize::from(self.begun > 0);
        self.dropped += self.frames.len().saturating_sub(kept) as u64;
        self.frames.truncate(kept);
        self.bytes = self.frames.iter().map(Frame::len).sum();
    }
}

/// Writes frames as long as the socket takes them, and leaves the others. Returns the bytes of the first of these that
/// are written.
fn write_at_once<'f>(frames: &mut (impl Iterator<Item = &'f Frame> + Clone), socket: &Socket) -> usize {
    loop {
        let mut rest = frames.clone();
        let Some(first) = rest.next() else { return 0 };
        let written = match rest.next() {
            None => socket.write_at_once(&[IoSlice::new(first.websocket())]),
            Some(second) => {
                let mut slices = [IoSlice::new(&[]); BATCH];
                let mut count = 0;
                for (slice, frame) in slices.iter_mut().zip([first, second].into_iter().chain(rest)) {
                    *slice = IoSlice::new(frame.websocket());
                    count += 1;
                }
                socket.write_at_once(&slices[..count])
            }
        };
        // If the socket is full or broken, the client's task finds out which.
        let Some(Ok(mut written)) = written else { return 0 };
        while let Some(frame) = frames.clone().next().filter(|_| written > 0) {
            if written < frame.len() {
                return written;
            }
            written -= frame.len();
            frames.next();
        }
    }
}

fn wake(mut queue: MutexGuard<'_, Queue>) {
    let task = queue.task.take();
    drop(queue);
    if let Some(task) = task {
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn frame(bytes: usize) -> Frame {
        Frame::control(vec![b'x'; bytes])
    }

    fn lengths(outbox: &Outbox) -> Vec<usize> {
        outbox.take().iter().map(Frame::len).collect()
    }

    fn poll(outbox: &Outbox) -> Poll<io::Result<CloseReason>> {
        outbox.poll_write(&mut Context::from_waker(Waker::noop()))
    }

    /// An outbox with a socket, and the other end of it.
    async fn connected(limit: usize) -> (Outbox, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = listener.accept().await.unwrap().0;
        server.writable().await.unwrap();
        let outbox = Outbox::new(limit);
        outbox.connect(server.into());
        (outbox, client)
    }

    #[test]
    fn without_a_socket_frames_wait_in_order() {
        let outbox = Outbox::new(100);
        assert!(poll(&outbox).is_pending());
        outbox.push(frame(3));
        outbox.push_all([frame(5), frame(7)].iter());
        assert!(poll(&outbox).is_pending());
        assert_eq!(lengths(&outbox), [3, 5, 7]);
    }

    #[test]
    fn frames_are_taken_in_parts_of_at_least_one() {
        let outbox = Outbox::new(20);
        outbox.push_all([frame(3), frame(5), frame(7), frame(2)].iter());
        let part = |bytes| outbox.take_some(bytes).iter().map(Frame::len).collect::<Vec<_>>();
        assert_eq!((part(8), part(1)), (vec![3, 5], vec![7]));
        // What was taken makes room.
        outbox.push(frame(18));
        assert_eq!((part(100), part(100)), (vec![2, 18], vec![]));
        assert!(!outbox.is_closed());
    }

    #[test]
    fn the_first_reason_stays_and_earlier_frames_go_out() {
        let outbox = Outbox::new(10);
        outbox.push(frame(2));
        outbox.close(CloseReason::ShuttingDown);
        outbox.close(CloseReason::NoPong);
        outbox.push(frame(3));
        assert!(matches!(poll(&outbox), Poll::Ready(Ok(CloseReason::ShuttingDown))));
        assert_eq!((lengths(&outbox), outbox.dropped()), (vec![2], 0));
    }

    #[tokio::test]
    async fn while_nothing_waits_frames_are_written_at_once_and_together() {
        let (outbox, mut client) = connected(1000).await;
        outbox.push(frame(3));
        let many: Vec<Frame> = (1..=3 * BATCH).map(frame).collect();
        outbox.push_all(many.iter());
        assert!(lengths(&outbox).is_empty() && !outbox.is_closed());
        let mut heard = vec![0; 3 + many.iter().map(Frame::len).sum::<usize>()];
        client.read_exact(&mut heard).await.unwrap();
    }

    #[tokio::test]
    async fn what_the_socket_does_not_take_waits_and_follows_without_a_gap() {
        let (outbox, mut client) = connected(usize::MAX).await;
        let numbered = |number: usize| Frame::control(format!("{number:050000}").into_bytes());
        let mut pushed = 0;
        while lengths_of_backlog(&outbox) < 3 {
            outbox.push(numbered(pushed));
            pushed += 1;
        }
        let drained = std::future::poll_fn(|cx| outbox.poll_drain(cx));
        let mut heard = vec![0; 50_000 * pushed];
        let (drained, read) = tokio::join!(drained, client.read_exact(&mut heard));
        assert!(drained.is_ok() && read.is_ok());
        for (number, text) in heard.chunks(50_000).enumerate() {
            assert_eq!(text, numbered(number).websocket());
        }
    }

    #[tokio::test]
    async fn an_overflow_gives_up_all_but_what_is_begun() {
        const HUGE: usize = 64 * 1024 * 1024;
        let (outbox, _client) = connected(HUGE).await;
        // More than any socket buffer: a part of it is written.
        outbox.push(frame(HUGE));
        outbox.push(frame(HUGE - 1));
        assert!(matches!(poll(&outbox), Poll::Ready(Ok(CloseReason::SlowConsumer))));
        assert_eq!((lengths(&outbox), outbox.dropped()), (vec![HUGE], 1));
        outbox.push(frame(1));
        assert_eq!(outbox.dropped(), 2);
    }

    #[tokio::test]
    async fn a_frame_that_could_never_wait_is_not_written() {
        let (outbox, _client) = connected(10).await;
        outbox.push_all([frame(10), frame(11)].iter());
        assert!(matches!(poll(&outbox), Poll::Ready(Ok(CloseReason::SlowConsumer))));
        assert_eq!((lengths(&outbox), outbox.dropped()), (vec![], 2));
    }

    fn lengths_of_backlog(outbox: &Outbox) -> usize {
        outbox.queue.lock().backlog.as_ref().map_or(0, |backlog| backlog.frames.len())
    }
}
