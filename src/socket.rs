//! A client's TCP connection, with or without TLS: the one type that the public listener accepts.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::server::TlsStream;

/// A connection that was accepted, and whose TLS handshake is done if it has one.
#[derive(Debug)]
pub enum Socket {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Where a client is, for the log.
#[derive(Debug, Clone)]
pub enum PeerAddress {
    /// Address and port of its connection.
    Direct(SocketAddr),
    /// What a trusted proxy says.
    Forwarded(Box<str>),
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) => address.fmt(f),
            // A stranger may have written it.
            Self::Forwarded(text) => text.escape_debug().fmt(f),
        }
    }
}

/// The half that reads.
#[derive(Debug)]
pub enum Reader {
    /// Plain TCP.
    Plain(OwnedReadHalf),
    /// TLS over TCP.
    Tls(ReadHalf<Box<TlsStream<TcpStream>>>),
}

/// The half that writes.
#[derive(Debug)]
pub enum Writer {
    /// Plain TCP.
    Plain(OwnedWriteHalf),
    /// TLS over TCP.
    Tls(WriteHalf<Box<TlsStream<TcpStream>>>),
}

impl Socket {
    /// Both halves, for a task that reads and writes at once.
    pub fn into_split(self) -> (Reader, Writer) {
        match self {
            Self::Plain(stream) => {
                let (reader, writer) = stream.into_split();
                (Reader::Plain(reader), Writer::Plain(writer))
            }
            Self::Tls(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                (Reader::Tls(reader), Writer::Tls(writer))
            }
        }
    }
}

impl Writer {
    /// Writes as much as the system takes at once, without waiting and without asking the runtime whether it might.
    /// `None` for a connection on which only its own task can write.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if that is nothing now; else the connection is broken.
    #[inline]
    pub fn write_at_once(&self, slices: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        let Self::Plain(half) = self else { return None };
        let socket = SockRef::from(half.as_ref());
        Some(match slices {
            [slice] => socket.send(slice),
            slices => socket.send_vectored(slices),
        })
    }
}

/// Calls the same method on whichever connection it is.
macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Plain($stream) => $call,
            Self::Tls($stream) => $call,
        }
    };
}

macro_rules! reads {
    ($($half:ty),*) => {$(
        impl AsyncRead for $half {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                either!(self, stream => Pin::new(stream).poll_read(cx, buf))
            }
        }
    )*};
}

macro_rules! writes {
    ($($half:ty),*) => {$(
        impl AsyncWrite for $half {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                either!(self, stream => Pin::new(stream).poll_write(cx, buf))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                either!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    Self::Plain(stream) => stream.is_write_vectored(),
                    Self::Tls(stream) => stream.is_write_vectored(),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                either!(self, stream => Pin::new(stream).poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                either!(self, stream => Pin::new(stream).poll_shutdown(cx))
            }
        }
    )*};
}

reads!(Socket, Reader);
writes!(Socket, Writer);
