//! The reading half of a WebSocket.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use crate::outbox::Outbox;
use crate::protocol::{CloseReason, Frame, MAX_MESSAGE};
use crate::socket::Socket;

/// Bytes read at once. They live on the stack while the socket has some, so that a silent client costs no buffer, and are
/// not cleared first: the reading half is polled for every frame that the other half writes.
const CHUNK: usize = 8 * 1024;

/// What tungstenite keeps for an unfinished frame, at least: room for a header, as many clients only ever listen.
const READ_BUFFER: usize = 64;

/// Messages out of a socket. The frames are understood by tungstenite, which believes that it talks to a socket: it
/// reads what we have read, and what it answers by itself (pongs, the echo of a close) goes through the outbox like
/// everything else, so that frames never interleave.
#[derive(Debug)]
pub(super) struct Inbound {
    websocket: WebSocket<Pipe>,
}

#[derive(Debug)]
struct Pipe {
    /// Read from the socket, but not yet by tungstenite.
    input: Bytes,
    ended: bool,
    outbox: Arc<Outbox>,
}

impl Inbound {
    /// Gives the socket to the outbox, and reads from it, but first `early`, which was read along with the handshake.
    pub(super) fn new(socket: Socket, early: Bytes, outbox: Arc<Outbox>) -> Self {
        outbox.connect(socket);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_frame_size(Some(MAX_MESSAGE))
            .max_message_size(Some(MAX_MESSAGE));
        let pipe = Pipe { input: early, ended: false, outbox };
        Self { websocket: WebSocket::from_raw_socket(pipe, Role::Server, Some(config)) }
    }

    /// The next message or control frame.
    ///
    /// # Errors
    /// The peer broke the protocol, or is gone.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn next(&mut self) -> Result<Message, Error> {
        poll_fn(|cx| {
            loop {
                match self.websocket.read() {
                    Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                        let mut chunk = [MaybeUninit::uninit(); CHUNK];
                        let mut chunk = ReadBuf::uninit(&mut chunk);
                        let pipe = self.websocket.get_mut();
                        ready!(pipe.poll_read(cx, &mut chunk))?;
                        pipe.ended = chunk.filled().is_empty();
                        pipe.input = Bytes::copy_from_slice(chunk.filled());
                    }
                    result => return Poll::Ready(result),
                }
            }
        })
        .await
    }

    /// Lets tungstenite put into the outbox what it has to say: after a close frame, its echo.
    pub(super) fn flush(&mut self) {
        // An outbox takes everything, so that nothing can go wrong but what the last read has told already.
        let _ = self.websocket.flush();
    }

    /// Reads on without understanding, until the peer is gone.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn discard(&mut self) {
        poll_fn(|cx| {
            let mut chunk = [MaybeUninit::uninit(); CHUNK];
            loop {
                let mut chunk = ReadBuf::uninit(&mut chunk);
                match ready!(self.websocket.get_ref().poll_read(cx, &mut chunk)) {
                    Ok(()) if !chunk.filled().is_empty() => {}
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }
}

/// What to tell a peer that broke the protocol; `None` if there is nobody left to tell.
pub(super) fn close_reason(error: &Error) -> Option<CloseReason> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(CloseReason::MessageTooLarge),
        Error::Utf8(_) => Some(CloseReason::InvalidUtf8),
        Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(error) => Some(CloseReason::WebSocketProtocol(error.to_string())),
        _ => None,
    }
}

impl Pipe {
    fn poll_read(&self, cx: &mut Context<'_>, chunk: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.outbox.socket().expect("it was connected before anything was read");
        Pin::new(&mut socket).poll_read(cx, chunk)
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return if self.ended { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let length = buffer.len().min(self.input.len());
        self.input.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

impl Write for Pipe {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.outbox.push(Frame::control(frames.to_vec()));
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
