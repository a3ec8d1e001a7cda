//! The reading half of a WebSocket.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::outbox::Outbox;
use crate::protocol::{CloseReason, Frame};
use crate::socket::Socket;

use super::outbound::{close, pong};
use super::reader::{Message, Reader, Stop};

/// Bytes read at once. They live on the stack while the socket has some, so that a silent client costs no buffer, and are
/// not cleared first: the reading half is polled for every frame that the other half writes.
const CHUNK: usize = 8 * 1024;

/// Messages out of a socket. Pings and close frames are answered here, through the outbox like everything else, so that
/// frames never interleave.
#[derive(Debug)]
pub(crate) struct Inbound {
    reader: Reader,
    outbox: Arc<Outbox>,
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
    /// Gives the socket to the outbox, and reads from it, but first `early`, which was read along with the handshake.
    pub(crate) fn new(socket: Socket, early: Vec<u8>, outbox: Arc<Outbox>) -> Self {
        outbox.connect(socket);
        Self { reader: Reader::new(early), outbox }
    }

    /// Tells what comes, until nothing more will.
    pub(crate) fn poll_hear(&mut self, cx: &mut Context<'_>, mut hear: impl FnMut(Message<'_>)) -> Poll<Silence> {
        let Self { reader, outbox } = self;
        let mut answer = |message: Message<'_>| {
            if let Message::Ping(payload) = message {
                outbox.push(Frame::control(pong(payload)));
            }
            hear(message);
        };
        let mut result = reader.read(&mut [], &mut answer);
        loop {
            match result {
                Ok(()) => {}
                Err(Stop::Closed(code)) => {
                    outbox.push(Frame::control(close(code, "")));
                    return Poll::Ready(Silence::Closed);
                }
                Err(Stop::Broken(reason)) => return Poll::Ready(Silence::Broken(reason)),
            }
            let mut chunk = [MaybeUninit::uninit(); CHUNK];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            match ready!(poll_read(outbox, cx, &mut chunk)) {
                0 => return Poll::Ready(Silence::Lost),
                _ => result = reader.read(chunk.filled_mut(), &mut answer),
            }
        }
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
