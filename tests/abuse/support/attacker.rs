//! A WebSocket client without manners: it sends what it is told to, and only counts what it hears.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::it::server::Dial;
use crate::it::{Item, Message, Wire, wire_masked, within};

/// One connection.
pub struct Attacker {
    /// The name of this connection.
    pub socket_id: String,
    /// What it has heard.
    pub heard: Arc<Heard>,
    write: OwnedWriteHalf,
    /// Reads along, unless this is a client that does not read.
    reading: Option<JoinHandle<()>>,
    /// What else it would read. In a mutex only so that tasks may share the attacker.
    unread: Option<Mutex<Wire>>,
}

/// Messages, counted.
#[derive(Debug, Default)]
pub struct Heard {
    pub messages: AtomicU64,
    pub succeeded: AtomicU64,
    pub errors: AtomicU64,
    /// The code of a close frame; 1 for an end without one.
    pub closed: AtomicU64,
}

impl Attacker {
    /// A connection that reads everything. The answer to a handshake that fails, and the code of a close frame that comes
    /// instead of the greeting, are errors.
    pub async fn connect(dial: &Dial, addr: std::net::SocketAddr) -> Result<Self, String> {
        let mut attacker = Self::connect_over(dial, TcpStream::connect(addr).await).await?;
        let (mut wire, heard) = (attacker.unread.take().unwrap().into_inner(), Arc::clone(&attacker.heard));
        attacker.reading = Some(tokio::spawn(async move { heard.all(&mut wire).await }));
        Ok(attacker)
    }

    /// A connection that reads nothing after its greeting, and has a small buffer, so that the kernel does not read in its
    /// place.
    pub async fn connect_deaf(dial: &Dial, addr: std::net::SocketAddr) -> Result<Self, String> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::connect_over(dial, socket.connect(addr).await).await
    }

    async fn connect_over(dial: &Dial, stream: io::Result<TcpStream>) -> Result<Self, String> {
        let stream = stream.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).unwrap();
        let (read, mut write): (OwnedReadHalf, OwnedWriteHalf) = stream.into_split();
        let mut wire = Wire::over(tokio::io::join(read, tokio::io::sink()));
        write.write_all(dial.request().as_bytes()).await.map_err(|error| error.to_string())?;
        let head = within("answer to the handshake", wire.head()).await.ok_or("hung up on the handshake")?;
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(head);
        }
        let socket_id = match within("greeting", wire.item()).await {
            Item::Text(text) => Message::parse(&text).data()["socket_id"].as_str().ok_or(text)?.to_owned(),
            Item::Close(code, reason) => return Err(format!("{} {reason}", code.unwrap_or_default())),
            other => return Err(format!("{other:?}")),
        };
        Ok(Self { socket_id, heard: Arc::default(), write, reading: None, unread: Some(Mutex::new(wire)) })
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await
    }

    /// Sends a message.
    pub async fn message(&mut self, message: &Value) -> io::Result<()> {
        self.send(&wire_masked(&message.to_string())).await
    }

    /// Whether the server has ended the connection. Only for those that read.
    pub fn is_closed(&self) -> bool {
        self.heard.closed.load(Ordering::Relaxed) != 0
    }

    /// Answers that it has got, be they good or bad.
    pub fn answers(&self) -> u64 {
        self.heard.succeeded.load(Ordering::Relaxed) + self.heard.errors.load(Ordering::Relaxed)
    }

    /// Waits until it has got so many; says whether it has.
    pub async fn answered(&self, count: u64, time: Duration) -> bool {
        let start = Instant::now();
        while self.answers() < count && !self.is_closed() && start.elapsed() < time {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.answers() >= count
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.abort();
        }
    }
}

impl Heard {
    async fn all(&self, wire: &mut Wire) {
        loop {
            match wire.item().await {
                Item::Text(text) => {
                    self.messages.fetch_add(1, Ordering::Relaxed);
                    // Cheaper than JSON, and right for everything that the server writes.
                    if text.contains("_internal:subscription_succeeded") {
                        self.succeeded.fetch_add(1, Ordering::Relaxed);
                    } else if text.contains("\"pusher:error\"") {
                        self.errors.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Item::Close(code, _) => self.closed.store(u64::from(code.unwrap_or(1)), Ordering::Relaxed),
                Item::End => {
                    let _ = self.closed.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed);
                    return;
                }
                Item::Ping(_) | Item::Pong(_) => {}
            }
        }
    }
}
