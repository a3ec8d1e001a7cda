//! The reading half of a WebSocket.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, ReadBuf};

use crate::outbox::Outbox;
use crate::protocol::{CloseReason, Frame};
use crate::socket::Socket;

use super::outbound::{close, pong};
use super::reader::{Message, Progress, Reader, Stop};

/// Bytes read at once. They live on the stack while the socket has some, so that a silent client costs no buffer, and are
/// not cleared first: the reading half is polled for every frame that the other half writes.
const CHUNK: usize = 8 * 1024;

/// Messages that are handled, and how long that may take, before everybody else has a turn.
const TURN: (u32, Duration) = (64, Duration::from_millis(1));

/// Messages out of a socket. Pings and close frames are answered here, through the outbox like everything else, so that
/// frames never interleave.
#[derive(Debug)]
pub(crate) struct Inbound {
    reader: Reader,
    outbox: Arc<Outbox>,
    /// Nothing is read until then: the client has sent more than it may.
    paused_until: Option<Instant>,
    /// Since when a message has begun and is not complete, and its number.
    unfinished: Option<(Instant, u32)>,
}

/// Why nothing more will be heard.
#[derive(Debug)]
pub(crate) enum Silence {
    /// The client sent a close frame, and its echo is in the outbox.
    Closed,
    /// The client broke the protocol.
    Broken(CloseReason),
    /// The connection is gone.
    Lost,
}

impl Inbound {
    /// Gives the socket to the outbox, and reads from it, but first `early`, which was read along with the handshake. Of a
    /// message longer than `limit` bytes, nothing is kept.
    pub(crate) fn new(socket: Socket, early: Vec<u8>, outbox: Arc<Outbox>, limit: usize) -> Self {
        outbox.connect(socket);
        Self { reader: Reader::new(early, limit), outbox, paused_until: None, unfinished: None }
    }

    /// From here on messages may have so many bytes.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.reader.set_limit(limit);
    }

    /// When [`Inbound::poll_hear`] has to be called again although nothing has come: the client's pause is over then.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Since when a message has begun and is not complete.
    pub(crate) fn unfinished_since(&self) -> Option<Instant> {
        self.unfinished.map(|(since, _)| since)
    }

    /// Tells what comes, and when, until nothing more will. `hear` answers with the time until which the client is not
    /// listened to, if it has said too much; what it sends then waits in the kernel, and at last with the client.
    ///
    /// After a turn it lets others work: a thousand small messages in one packet must not keep anybody waiting.
    pub(crate) fn poll_hear(
        &mut self,
        cx: &mut Context<'_>,
        mut hear: impl FnMut(Message<'_>, Instant) -> Option<Instant>,
    ) -> Poll<Silence> {
        if self.paused_until.is_some_and(|until| until > Instant::now()) {
            return Poll::Pending;
        }
        self.paused_until = None;
        let Self { reader, outbox, paused_until, unfinished } = self;
        let (mut count, mut turn_ends, mut turn_over) = (0, None, false);
        let mut answer = |message: Message<'_>| {
            if let Message::Ping(payload) = message {
                outbox.push(Frame::control(pong(payload)));
            }
            let now = Instant::now();
            count += 1;
            turn_over = count >= TURN.0 || now >= *turn_ends.get_or_insert(now + TURN.1);
            *paused_until = hear(message, now);
            !turn_over && paused_until.is_none()
        };
        let mut result = reader.read(&mut [], &mut answer);
        let silence = loop {
            match result {
                Ok(Progress::Done) => {}
                Ok(Progress::Paused) => break None,
                Err(Stop::Closed(code)) => {
                    outbox.push(Frame::control(close(code, "")));
                    break Some(Silence::Closed);
                }
                Err(Stop::Broken(reason)) => break Some(Silence::Broken(reason)),
            }
            let mut chunk = [MaybeUninit::uninit(); CHUNK];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            match poll_read(outbox, cx, &mut chunk) {
                Poll::Pending => break None,
                Poll::Ready(0) => break Some(Silence::Lost),
                Poll::Ready(_) => result = reader.read(chunk.filled_mut(), &mut answer),
            }
        };
        if let Some(silence) = silence {
            return Poll::Ready(silence);
        }
        *unfinished = reader.unfinished().and_then(|number| match *unfinished {
            Some((since, known)) if known == number => Some((since, number)),
            // The bytes that wait may be whole messages.
            _ if paused_until.is_some() => None,
            _ => Some((Instant::now(), number)),
        });
        if turn_over && paused_until.is_none() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads on without understanding, until the client is gone.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        while ready!(poll_read(&self.outbox, cx, &mut ReadBuf::uninit(&mut chunk))) > 0 {}
        Poll::Ready(())
    }
}

/// Reads what is there. 0 if the client is gone.
fn poll_read(outbox: &Outbox, cx: &mut Context<'_>, chunk: &mut ReadBuf<'_>) -> Poll<usize> {
    let mut socket = outbox.socket().expect("it was connected before anything was read");
    let read = ready!(Pin::new(&mut socket).poll_read(cx, chunk));
    Poll::Ready(read.map_or(0, |()| chunk.filled().len()))
}
