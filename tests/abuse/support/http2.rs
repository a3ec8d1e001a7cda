//! The client's half of HTTP/2, and request bodies that never end.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A connection. Pings are answered for as long as it lives.
pub struct Http2 {
    /// Makes requests.
    pub sender: SendRequest<Unfinished>,
    /// Ends with the connection.
    pub connection: JoinHandle<()>,
}

/// A body that stops before its end.
pub struct Unfinished {
    left: usize,
    sent: Arc<AtomicU64>,
    ends: bool,
}

impl Http2 {
    /// A new connection.
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::make(addr, Builder::new(TokioExecutor::new())).await
    }

    /// One that lets nobody send it the body of an answer.
    pub async fn closed(addr: SocketAddr) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(0);
        Self::make(addr, builder).await
    }

    async fn make(addr: SocketAddr, mut builder: Builder<TokioExecutor>) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        // As many as it likes, until the server says otherwise.
        builder.initial_max_send_streams(1000);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender, connection: tokio::spawn(async move { drop(connection.await) }) }
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Unfinished {
    /// So many bytes, counted in `sent`, and then nothing for ever.
    pub fn after(bytes: usize, sent: &Arc<AtomicU64>) -> Self {
        Self { left: bytes, sent: Arc::clone(sent), ends: false }
    }

    /// No body at all.
    pub fn none() -> Self {
        Self { left: 0, sent: Arc::default(), ends: true }
    }
}

impl Body for Unfinished {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        static BLOCK: [u8; 16 * 1024] = [b' '; 16 * 1024];
        let this = self.get_mut();
        let length = this.left.min(BLOCK.len());
        if length == 0 {
            return if this.ends { Poll::Ready(None) } else { Poll::Pending };
        }
        this.left -= length;
        this.sent.fetch_add(length as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&BLOCK[..length])))))
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.left == 0
    }
}
