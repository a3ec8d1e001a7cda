//! Somebody who receives: one response, and the connection under it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio_util::sync::CancellationToken;

use crate::shutdown::Shutdown;

use super::http_session::{Busy, HttpSession, Packets};
use super::transport::Transport;

/// Ends the connection of a request.
pub type HangUp = CancellationToken;

/// One response of a session. As a body it goes on until it is full or somebody takes its place. Dropped, it is gone:
/// that is how hyper tells that the client is.
#[derive(Debug)]
pub(super) struct Receiver {
    session: Arc<HttpSession>,
    number: u64,
    transport: Transport,
    shutdown: Shutdown,
    /// What stands before the first packet, as long as it does not.
    prelude: Vec<u8>,
    /// How long the response is, as the client counts.
    length: usize,
    full: bool,
    over: bool,
}

impl Receiver {
    /// Receives for a session.
    ///
    /// # Errors
    /// Somebody else does, and may not be replaced.
    pub(super) fn attach(
        session: Arc<HttpSession>,
        transport: Transport,
        hang_up: HangUp,
        shutdown: Shutdown,
    ) -> Result<Self, Busy> {
        let number = session.attach(transport.name(), hang_up)?;
        let prelude = transport.prelude();
        Ok(Self { session, number, transport, shutdown, prelude, length: 0, full: false, over: false })
    }

    /// The next part of the response, or its end.
    pub(super) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let streaming = self.transport.is_streaming();
        if self.over {
            return Poll::Ready(None);
        }
        let stopping = self.shutdown.is_requested();
        let poll = match self.full {
            // The client is about to ask anew. What comes now is for that response.
            true => self.session.poll_replaced(self.number, cx),
            false => self.session.poll_packets(self.number, cx, streaming, stopping),
        };
        let packets = match poll {
            // Whoever waits for the first packet can have this.
            Poll::Pending if !self.prelude.is_empty() => Packets::default(),
            poll => ready!(poll),
        };
        self.over = packets.over;
        let mut part = std::mem::take(&mut self.prelude);
        for packet in &packets.list {
            self.transport.write(&mut part, packet);
        }
        if part.is_empty() {
            return Poll::Ready(None);
        }
        let is_pusher = self.session.id.is_pusher();
        if streaming && self.transport.is_full(is_pusher, &mut self.length, &part) {
            self.full = true;
            self.over |= !is_pusher;
        }
        Poll::Ready(Some(part.into()))
    }
}

impl Body for Receiver {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.poll_part(cx).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.session.detach(self.number, !self.over);
    }
}
