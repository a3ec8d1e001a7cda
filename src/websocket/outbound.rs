//! The writing half of a WebSocket.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::outbox::{Outbox, Ready};
use crate::protocol::{CloseReason, Frame, LAST_VERSION_WITH_ERROR_EVENTS, ServerEvent};
use crate::socket::Writer;

/// A WebSocket PING without payload.
pub(super) const PING: [u8; 2] = [0x89, 0];

/// Bytes of a close reason, so that the frame stays a control frame.
const MAX_REASON: usize = 123;

/// Frames written with one system call.
const BATCH: usize = 64;

/// Writes what the outbox holds, many frames at once.
#[derive(Debug)]
pub(super) struct Outbound {
    writer: Writer,
    outbox: Arc<Outbox>,
    /// Taken from the outbox, not yet written.
    pending: VecDeque<Frame>,
    /// Bytes of the first pending frame that are gone.
    offset: usize,
    flushed: bool,
}

impl Outbound {
    pub(super) fn new(writer: Writer, outbox: Arc<Outbox>) -> Self {
        Self { writer, outbox, pending: VecDeque::new(), offset: 0, flushed: true }
    }

    /// Writes until the outbox is closed, and says why it was. Does not wait for a slow socket then.
    ///
    /// # Errors
    /// The socket is gone.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn run(&mut self) -> io::Result<CloseReason> {
        poll_fn(|cx| {
            loop {
                let waiting = match self.outbox.poll_ready(cx) {
                    Poll::Ready(Ready::Frames(frames)) => {
                        self.pending.extend(frames);
                        false
                    }
                    Poll::Ready(Ready::Closed(frames, reason)) => {
                        self.pending.extend(frames);
                        return Poll::Ready(Ok(reason));
                    }
                    Poll::Pending => true,
                };
                if waiting && self.is_done() {
                    // Most clients are silent most of the time.
                    self.pending = VecDeque::new();
                    return Poll::Pending;
                }
                ready!(self.poll_write(cx))?;
            }
        })
        .await
    }

    /// Gives up what a slow client has not read, but for a frame it has read a part of.
    pub(super) fn give_up_backlog(&mut self) {
        let begun = usize::from(self.offset > 0);
        self.outbox.count_dropped(self.pending.len().saturating_sub(begun));
        self.pending.truncate(begun);
    }

    /// Writes what is pending, then the error as its protocol version expects it.
    ///
    /// # Errors
    /// The socket is gone.
    pub(super) async fn farewell(&mut self, reason: &CloseReason, version: Option<u32>) -> io::Result<()> {
        let text = reason.to_string();
        if version.is_some_and(|version| version <= LAST_VERSION_WITH_ERROR_EVENTS) {
            let event = ServerEvent::FatalError { code: reason.code(), message: &text };
            self.pending.push_back(event.encode());
        }
        let text = &text[..text.floor_char_boundary(MAX_REASON)];
        let mut close = vec![0x88, 2 + text.len() as u8];
        close.put_u16(reason.code());
        close.put_slice(text.as_bytes());
        self.pending.push_back(Frame::control(close));
        self.flush().await
    }

    /// Writes what is left in the outbox, after the client said good-bye.
    ///
    /// # Errors
    /// The socket is gone.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            if let Poll::Ready(Ready::Frames(frames) | Ready::Closed(frames, _)) = self.outbox.poll_ready(cx) {
                self.pending.extend(frames);
            }
            while !self.is_done() {
                ready!(self.poll_write(cx))?;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Says that nothing more will come.
    pub(super) async fn shutdown(&mut self) {
        // An error means that the peer is gone, which is what we are about to find out anyway.
        let _ = self.writer.shutdown().await;
    }

    fn is_done(&self) -> bool {
        self.pending.is_empty() && self.flushed
    }

    /// Makes progress: one write, or one flush when nothing is left to write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pending.is_empty() {
            if !self.flushed {
                ready!(Pin::new(&mut self.writer).poll_flush(cx))?;
                self.flushed = true;
            }
            return Poll::Ready(Ok(()));
        }
        let mut slices = [IoSlice::new(&[]); BATCH];
        let mut count = 0;
        let mut offset = self.offset;
        for (slice, frame) in slices.iter_mut().zip(&self.pending) {
            *slice = IoSlice::new(&frame.websocket()[std::mem::take(&mut offset)..]);
            count += 1;
        }
        self.flushed = false;
        let written = ready!(Pin::new(&mut self.writer).poll_write_vectored(cx, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(ErrorKind::WriteZero.into()));
        }
        self.outbox.written(written);
        self.advance(written);
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize) {
        self.offset += written;
        while let Some(frame) = self.pending.front().filter(|frame| frame.len() <= self.offset) {
            self.offset -= frame.len();
            self.pending.pop_front();
        }
    }
}
