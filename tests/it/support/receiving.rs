//! What a client without a WebSocket receives (protocol §7.3).

use serde_json::Value;

use super::wire::Wire;
use super::{Message, Response, within};

/// What stands in one line from the server; each message of an array by itself.
#[derive(Debug, Clone)]
pub enum Packet {
    /// The session is open. What stands behind the `o`.
    Open(String),
    Message(Message),
    Heartbeat,
    /// Code and reason.
    Close(u16, String),
}

impl Packet {
    /// What stands in a line.
    pub fn parse(line: &str) -> Vec<Self> {
        let json = |text: &str| -> Value { serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {line:?}")) };
        if let Some(rest) = line.strip_prefix('o') {
            return vec![Self::Open(rest.to_owned())];
        }
        if let Some(rest) = line.strip_prefix('a') {
            let list = json(rest);
            let list = list.as_array().unwrap_or_else(|| panic!("no array: {line:?}"));
            assert!(!list.is_empty(), "no message in an array");
            let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("not a string: {line:?}")).to_owned();
            return list.iter().map(|value| Self::Message(Message::parse(&text(value)))).collect();
        }
        if let Some(rest) = line.strip_prefix('c') {
            let (code, reason): (u16, String) =
                serde_json::from_str(rest).unwrap_or_else(|error| panic!("{error} in {line:?}"));
            return vec![Self::Close(code, reason)];
        }
        assert_eq!(line, "h", "not a line of the protocol");
        vec![Self::Heartbeat]
    }

    /// The messages in some lines, which have nothing else.
    pub fn messages(lines: &str) -> Vec<Message> {
        let message = |packet| match packet {
            Self::Message(message) => message,
            other => panic!("no message: {other:?}"),
        };
        Self::parse_all(lines).into_iter().map(message).collect()
    }

    /// What stands in some lines.
    pub fn parse_all(body: &str) -> Vec<Self> {
        body.lines().flat_map(Self::parse).collect()
    }
}

/// An answer on its way.
pub struct Receiving {
    /// Its head.
    pub response: Response,
    /// How long what was taken of it is, as JavaScript counts.
    pub units: usize,
    wire: Wire,
    /// What has come of the body and was not taken yet.
    body: Vec<u8>,
    left: Left,
}

/// What is to come of a body.
enum Left {
    Chunks,
    Bytes(usize),
    /// Whatever comes until the connection ends.
    Rest,
    Nothing,
}

impl Receiving {
    /// Reads the head of the answer to a request that was sent.
    pub async fn begin(mut wire: Wire) -> Self {
        let head = within("answer", wire.head()).await.expect("the server hung up instead of answering");
        let response = Response::begun(head);
        let left = match response.header("content-length") {
            Some(length) => Left::Bytes(length.parse().unwrap()),
            None if response.header("transfer-encoding").is_some() => Left::Chunks,
            None => Left::Rest,
        };
        Self { response, units: 0, wire, body: Vec::new(), left }
    }

    /// The next line, or `None` at the end of the response.
    pub async fn line(&mut self) -> Option<String> {
        self.piece("\n").await
    }

    /// What comes up to the next `end`, without that, or `None` at the end of the response.
    pub async fn piece(&mut self, end: &str) -> Option<String> {
        within("piece of the response", self.try_piece(end)).await
    }

    /// The same without a deadline. Nothing is lost if this is cancelled before anything has come.
    pub async fn try_piece(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.body.windows(end.len()).position(|bytes| bytes == end.as_bytes()) {
                let piece: Vec<u8> = self.body.drain(..at + end.len()).collect();
                let piece = String::from_utf8(piece).unwrap();
                self.units += piece.encode_utf16().count();
                return Some(piece[..at].to_owned());
            }
            if !self.more().await {
                assert!(self.body.is_empty(), "the response ends with {:?}", String::from_utf8_lossy(&self.body));
                return None;
            }
        }
    }

    /// The next line, which must be this one.
    pub async fn expect_line(&mut self, expected: &str) {
        assert_eq!(self.line().await.as_deref(), Some(expected));
    }

    /// The next line, which must have one message, of this event.
    pub async fn expect_message(&mut self, event: &str) -> Message {
        let line = self.line().await.unwrap_or_else(|| panic!("the response has ended; expected {event}"));
        match &Packet::parse(&line)[..] {
            [Packet::Message(message)] if message.event() == event => message.clone(),
            _ => panic!("expected {event}: {line}"),
        }
    }

    /// The end of the response, and nothing before it.
    pub async fn expect_end(&mut self) {
        let line = self.line().await;
        assert_eq!(line, None, "expected the end of the response");
    }

    /// Whether nothing has come that was not taken, not even the end.
    pub async fn is_quiet(&mut self) -> bool {
        let nothing = tokio::time::timeout(std::time::Duration::ZERO, self.try_piece("\n")).await.is_err();
        nothing && self.body.is_empty()
    }

    /// The connection, once the response has ended.
    pub fn into_wire(self) -> Wire {
        assert!(matches!(self.left, Left::Nothing), "the response goes on");
        self.wire
    }

    async fn more(&mut self) -> bool {
        match self.left {
            Left::Chunks => {
                let chunk = self.wire.chunk().await;
                if chunk.is_empty() {
                    self.left = Left::Nothing;
                }
                self.body.extend(&chunk);
                !chunk.is_empty()
            }
            Left::Bytes(length) => {
                self.body.extend(self.wire.exactly(length).await);
                self.left = Left::Nothing;
                true
            }
            Left::Rest => {
                self.body.extend(self.wire.rest().await);
                self.left = Left::Nothing;
                true
            }
            Left::Nothing => false,
        }
    }
}
