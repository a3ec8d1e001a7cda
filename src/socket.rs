//! A client's TCP connection, with or without TLS: the one type that the public listener accepts.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::addresses::Network;
use crate::untrusted::Untrusted;

/// A connection that was accepted, and whose TLS handshake is done if it has one.
#[derive(Debug)]
pub enum Socket {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Mutex<Box<TlsStream<TcpStream>>>),
}

/// Where a client is, for the log.
#[derive(Debug, Clone)]
pub enum PeerAddress {
    /// Address and port of its connection.
    Direct(SocketAddr),
    /// What a trusted proxy says.
    Forwarded(Box<str>),
}

impl PeerAddress {
    /// The network that the client belongs to.
    pub fn network(&self) -> Network {
        match self {
            Self::Direct(address) => Network::of(address.ip()),
            Self::Forwarded(text) => {
                let ip = text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
                ip.map_or_else(|_| Network::unknown(), Network::of)
            }
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) => address.fmt(f),
            Self::Forwarded(text) => Untrusted(text).fmt(f),
        }
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl From<TlsStream<TcpStream>> for Socket {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Mutex::new(Box::new(stream)))
    }
}

impl Socket {
    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Writes as much as the system takes at once, without waiting and without asking the runtime whether it might.
    /// `None` for a connection on which only its own task can write.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if that is nothing now; else the connection is broken.
    #[inline]
    pub fn write_at_once(&self, slices: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        let Self::Plain(stream) = self else { return None };
        let socket = SockRef::from(stream);
        Some(match slices {
            [slice] => socket.send(slice),
            slices => socket.send_vectored(slices),
        })
    }
}

/// Whoever serves a connection reads, and whoever has something for it writes: a shared socket can do both.
impl AsyncRead for &Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = match *self {
            Socket::Plain(stream) => stream,
            Socket::Tls(stream) => return Pin::new(&mut **stream.lock()).poll_read(cx, buf),
        };
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let before = buf.filled().len();
            let read = stream.try_io(Interest::READABLE, || {
                stream.try_read_buf(buf)?;
                // A read that leaves room has emptied the socket. To say so here saves the one that would find that out.
                let emptied = buf.filled().len() > before && buf.remaining() > 0;
                if emptied { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match read {
                Err(error) if error.kind() == ErrorKind::WouldBlock && buf.filled().len() == before => {}
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for &Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = match *self {
            Socket::Plain(stream) => stream,
            Socket::Tls(stream) => return Pin::new(&mut **stream.lock()).poll_write_vectored(cx, bufs),
        };
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let written = match bufs {
                [bytes] => stream.try_write(bytes),
                bufs => stream.try_write_vectored(bufs),
            };
            match written {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Socket::Plain(_) => true,
            Socket::Tls(stream) => stream.lock().is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {
            // The system holds nothing back.
            Socket::Plain(_) => Poll::Ready(Ok(())),
            Socket::Tls(stream) => Pin::new(&mut **stream.lock()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {
            Socket::Plain(stream) => Poll::Ready(SockRef::from(stream).shutdown(Shutdown::Write)),
            Socket::Tls(stream) => Pin::new(&mut **stream.lock()).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        (&self).is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_shutdown(cx)
    }
}
