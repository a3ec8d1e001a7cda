//! The backend's side: signed requests over connections that are kept, one request at a time on each.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::SystemTime;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::auth;

use super::connection::{connect, write_some};
use super::{BenchError, Target};

/// Nanoseconds since the engine was made.
pub(super) type Nanos = u64;

/// One connection of a backend.
#[derive(Debug)]
pub(super) struct Publisher {
    address: SocketAddr,
    token: Token,
    stream: TcpStream,
    /// The request whose answer is awaited, and how much of it is written.
    request: Vec<u8>,
    written: usize,
    /// What came of the answer.
    received: Vec<u8>,
    /// When the request was begun.
    sent_at: Option<Nanos>,
    /// Whether TCP is there.
    connected: bool,
    /// Whether the server will close, or has closed, this connection.
    closed: bool,
    /// Whether an answer came over this connection before.
    used: bool,
}

/// An answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body.
    pub(super) text: String,
    /// When the request was written.
    pub(super) sent_at: Nanos,
}

impl Publisher {
    /// Begins to connect.
    pub(super) fn connect(address: SocketAddr, registry: &Registry, token: Token) -> Result<Self, BenchError> {
        let stream = open(address, registry, token)?;
        Ok(Self {
            address,
            token,
            stream,
            request: Vec::new(),
            written: 0,
            received: Vec::new(),
            sent_at: None,
            connected: false,
            closed: false,
            used: false,
        })
    }

    /// Whether no answer is awaited.
    pub(super) fn is_idle(&self) -> bool {
        self.sent_at.is_none()
    }

    /// Sends one request. If the server closed the connection after the last answer, over a new one.
    pub(super) fn send(&mut self, request: Vec<u8>, now: Nanos, registry: &Registry) -> Result<(), BenchError> {
        self.sent_at = Some(now);
        self.request = request;
        self.written = 0;
        if self.closed {
            return self.reconnect(registry);
        }
        if self.connected { self.flush(registry) } else { Ok(()) }
    }

    /// Writes and reads what can be; returns the answer once it is complete.
    pub(super) fn advance(&mut self, event: &Event, registry: &Registry) -> Result<Option<Answer>, BenchError> {
        if event.is_writable() {
            if !self.connected {
                let failed = |cause| BenchError::Connect { address: self.address.to_string(), cause };
                self.stream.take_error().and_then(|error| error.map_or(Ok(()), Err)).map_err(failed)?;
                self.connected = self.stream.peer_addr().is_ok();
            }
            if self.connected {
                self.flush(registry)?;
            }
        }
        if event.is_readable() || event.is_read_closed() { self.read(registry) } else { Ok(None) }
    }

    /// A new connection, over which the request that is awaited goes once more.
    fn reconnect(&mut self, registry: &Registry) -> Result<(), BenchError> {
        self.stream = open(self.address, registry, self.token)?;
        self.written = 0;
        self.received.clear();
        (self.connected, self.closed, self.used) = (false, false, false);
        Ok(())
    }

    fn flush(&mut self, registry: &Registry) -> Result<(), BenchError> {
        match write_some(&mut self.stream, &self.request[self.written..]) {
            Ok(written) => {
                self.written += written;
                Ok(())
            }
            Err(error) => self.broke(&error.to_string(), registry),
        }
    }

    /// The connection is of no use any more. A server may close one that was kept at any time, also while a request is
    /// on its way; only on a new one is that an error.
    fn broke(&mut self, how: &str, registry: &Registry) -> Result<(), BenchError> {
        self.closed = true;
        match self.sent_at {
            None => Ok(()),
            Some(_) if self.used && self.received.is_empty() => self.reconnect(registry),
            Some(_) => Err(BenchError::Backend(how.to_owned())),
        }
    }

    fn read(&mut self, registry: &Registry) -> Result<Option<Answer>, BenchError> {
        let mut chunk = [0; 4096];
        let mut broken = None;
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    broken = Some("the server closed it before the answer".to_owned());
                    break;
                }
                Ok(count) => self.received.extend(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    broken = Some(error.to_string());
                    break;
                }
            }
        }
        if let Some(sent_at) = self.sent_at
            && let Some(response) = parse(&self.received, broken.is_some())
        {
            self.closed |= response.closes || broken.is_some();
            self.used = true;
            self.received.clear();
            self.sent_at = None;
            return Ok(Some(Answer { status: response.status, text: response.text, sent_at }));
        }
        broken.map_or(Ok(()), |how| self.broke(&how, registry)).map(|()| None)
    }
}

fn open(address: SocketAddr, registry: &Registry, token: Token) -> Result<TcpStream, BenchError> {
    let failed = |cause| BenchError::Connect { address: address.to_string(), cause };
    let mut stream = connect(address, 0, None).map_err(failed)?;
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).map_err(BenchError::Poll)?;
    Ok(stream)
}

struct Response {
    status: u16,
    text: String,
    closes: bool,
}

/// The response, if it is complete.
fn parse(bytes: &[u8], ended: bool) -> Option<Response> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status = head.split(' ').nth(1)?.trim().parse().ok()?;
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':').map(str::trim)
    };
    let body = &bytes[end + 4..];
    // By its status, an answer may have no body and no word about it.
    let complete = if status == 204 {
        true
    } else if let Some(length) = header("content-length") {
        body.len() >= length.parse().ok()?
    } else if header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        body.ends_with(b"0\r\n\r\n")
    } else {
        ended
    };
    let closes = header("connection").is_some_and(|value| value == "close");
    complete.then(|| Response { status, text: String::from_utf8_lossy(body).trim().to_owned(), closes })
}

/// A signed request that triggers events: `path` is `events` or `batch_events`.
pub(super) fn request(target: &Target, path: &str, body: &str) -> Vec<u8> {
    let path = format!("/apps/{}/{path}", target.app_id);
    let secret = target.secret.expose();
    let query = auth::sign_request(&target.key, secret, "POST", &path, &[], body.as_bytes(), SystemTime::now());
    let Target { prefix, authority, .. } = target;
    format!(
        "POST {prefix}{path}?{query} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_where_its_head_says() {
        let parsed = |text: &str, ended| parse(text.as_bytes(), ended).map(|answer| (answer.status, answer.closes));
        assert_eq!(parsed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{", false), None);
        assert_eq!(parsed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", false), Some((200, false)));
        assert_eq!(
            parsed("HTTP/1.1 413 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", false),
            Some((413, true))
        );
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n";
        assert_eq!(parsed(chunked, false), None);
        assert_eq!(parsed(&format!("{chunked}0\r\n\r\n"), false), Some((200, false)));
        assert_eq!(parsed("HTTP/1.1 204 No Content\r\n\r\n", false), Some((204, false)));
        assert_eq!(parsed("HTTP/1.1 200 OK\r\n\r\n{}", false), None);
        assert_eq!(parsed("HTTP/1.1 200 OK\r\n\r\n{}", true), Some((200, false)));
    }
}
