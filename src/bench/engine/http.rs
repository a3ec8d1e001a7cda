//! Clients with an HTTP transport: responses instead of frames, and requests for what they send.

use std::collections::VecDeque;

use mio::Token;
use mio::event::Event;

use super::{Engine, Happening, Listener, Nanos, SENDERS, frame};
use crate::bench::Target;
use crate::bench::backend::Publisher;
use crate::bench::connection::Stage;
use crate::bench::error::BenchError;

/// Connections over which clients send: they rarely do, so they share them.
const SHARED: usize = 16;
/// The function that scripts call.
const CALLBACK: &str = "f";

/// How clients are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Transport {
    /// A WebSocket.
    #[default]
    Websocket,
    /// The HTTP streaming of pusher-js.
    XhrStreaming,
    /// The HTTP polling of pusher-js.
    XhrPolling,
    /// SockJS: a WebSocket.
    Sockjs,
    /// SockJS: server-sent events.
    Eventsource,
    /// SockJS: a page that goes on and on.
    Htmlfile,
    /// SockJS: a script for each packet.
    Jsonp,
}

/// A client's session, and the response that it reads.
#[derive(Debug)]
pub(in crate::bench) struct Http {
    /// The path that all its requests begin with.
    path: String,
    body: Body,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
}

/// How far a response has been read.
#[derive(Debug, Clone, Copy)]
enum Body {
    Head,
    /// Bytes to come.
    Whole(usize),
    ChunkSize,
    /// Bytes to come, with the end of the line behind them.
    Chunk(usize),
    /// The end of the line behind the last chunk.
    End,
}

/// A connection over which clients send, one request at a time.
pub(super) struct Sender {
    publisher: Publisher,
    waiting: VecDeque<Vec<u8>>,
}

impl Transport {
    /// Whether its clients read frames.
    pub(super) fn has_frames(self) -> bool {
        matches!(self, Self::Websocket | Self::Sockjs)
    }

    fn is_sockjs(self) -> bool {
        !matches!(self, Self::Websocket | Self::XhrStreaming | Self::XhrPolling)
    }

    /// What a client with this number has for the server.
    pub(super) fn session(self, target: &Target, run: u32, client: usize) -> Option<Box<Http>> {
        let Target { prefix, key, .. } = target;
        let (server, session) = (client % 1000, format!("{run:08x}-{client}"));
        let path = match self {
            transport if transport.has_frames() => return None,
            transport if transport.is_sockjs() => format!("{prefix}/pusher/{server}/{session}"),
            _ => format!("{prefix}/pusher/app/{key}/{server}/{session}"),
        };
        Some(Box::new(Http { path, body: Body::Head, line: Vec::new() }))
    }

    /// The request that receives.
    pub(super) fn receive(self, target: &Target, http: &Http) -> Vec<u8> {
        let (method, action) = match self {
            Self::XhrStreaming => ("POST", "xhr_streaming"),
            Self::XhrPolling => ("POST", "xhr"),
            Self::Eventsource => ("GET", "eventsource"),
            Self::Htmlfile => ("GET", "htmlfile"),
            Self::Jsonp | Self::Websocket | Self::Sockjs => ("GET", "jsonp"),
        };
        let query = if self.is_sockjs() { format!("c={CALLBACK}") } else { query() };
        let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        let (path, authority) = (&http.path, &target.authority);
        format!("{method} {path}/{action}?{query} HTTP/1.1\r\nHost: {authority}\r\n{length}\r\n").into_bytes()
    }

    /// The packet in a line of a response, if there is one.
    fn packet(self, line: &[u8]) -> Option<Vec<u8>> {
        let line = line.trim_ascii_end();
        let called = |function: &str| {
            let argument = line.strip_prefix(function.as_bytes())?.strip_suffix(b");")?;
            serde_json::from_slice::<String>(argument).ok().map(String::into_bytes)
        };
        match self {
            Self::Websocket | Self::Sockjs | Self::XhrStreaming | Self::XhrPolling => Some(line.to_vec()),
            Self::Eventsource => {
                let data = std::str::from_utf8(line.strip_prefix(b"data: ")?).ok()?;
                Some(data.replace("%25", "%").into_bytes())
            }
            Self::Htmlfile => called("p("),
            Self::Jsonp => called(&format!("/**/{CALLBACK}(")),
        }
    }
}

fn query() -> String {
    format!("protocol=7&client=fanfare-bench&version={}", env!("CARGO_PKG_VERSION"))
}

impl Engine {
    /// Handles what there is of responses at the beginning of `bytes`; returns how many bytes that was.
    pub(super) fn consume_http(&mut self, client: usize, bytes: &[u8], listener: &mut impl Listener) -> usize {
        let mut used = 0;
        while let Some(connection) = &mut self.clients[client]
            && let Some(http) = &mut connection.http
        {
            let rest = &bytes[used..];
            let line_end = |end: &[u8]| rest.windows(end.len()).position(|window| window == end);
            match http.body {
                Body::Head => {
                    let Some(end) = line_end(b"\r\n\r\n") else { break };
                    let head = String::from_utf8_lossy(&rest[..end]).to_lowercase();
                    let status = head.lines().next().unwrap_or_default();
                    if status.split(' ').nth(1) != Some("200") {
                        self.fail(BenchError::NoWebSocket(status.to_owned()));
                        return bytes.len();
                    }
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let length = length.and_then(|length| length.trim().parse().ok());
                    http.body = length.map_or(Body::ChunkSize, Body::Whole);
                    used += end + 4;
                }
                Body::Whole(0) => {
                    http.body = Body::Head;
                    self.receive(client);
                }
                Body::Whole(left) => {
                    let count = left.min(rest.len());
                    if count == 0 {
                        break;
                    }
                    http.body = Body::Whole(left - count);
                    used += count;
                    self.read_lines(client, &rest[..count], listener);
                }
                Body::ChunkSize => {
                    let Some(end) = line_end(b"\r\n") else { break };
                    let size =
                        std::str::from_utf8(&rest[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
                    let Some(size) = size else {
                        self.gone(client, None, "a chunk without a size".to_owned());
                        return bytes.len();
                    };
                    http.body = if size == 0 { Body::End } else { Body::Chunk(size + 2) };
                    used += end + 2;
                }
                Body::Chunk(left) => {
                    let count = left.min(rest.len());
                    if count == 0 {
                        break;
                    }
                    http.body = if left == count { Body::ChunkSize } else { Body::Chunk(left - count) };
                    used += count;
                    // The end of the line is no part of it.
                    let data = count.min(left.saturating_sub(2));
                    self.read_lines(client, &rest[..data], listener);
                }
                Body::End => {
                    if rest.len() < 2 {
                        break;
                    }
                    http.body = Body::Head;
                    used += 2;
                    self.receive(client);
                }
            }
        }
        used
    }

    /// Handles the packets in complete lines.
    fn read_lines(&mut self, client: usize, bytes: &[u8], listener: &mut impl Listener) {
        let now = self.now();
        let Some(http) = self.clients[client].as_mut().and_then(|connection| connection.http.as_mut()) else { return };
        let mut text = std::mem::take(&mut http.line);
        text.extend_from_slice(bytes);
        let mut lines = text.split_inclusive(|byte| *byte == b'\n');
        let mut rest = Vec::new();
        for line in lines.by_ref() {
            if line.last() != Some(&b'\n') {
                rest = line.to_vec();
                break;
            }
            if let Some(packet) = self.transport.packet(line) {
                self.hear_packet(client, &packet, now, listener);
            }
        }
        if let Some(http) = self.clients[client].as_mut().and_then(|connection| connection.http.as_mut()) {
            http.line = rest;
        }
    }

    /// Handles a packet.
    pub(super) fn hear_packet(&mut self, client: usize, packet: &[u8], now: Nanos, listener: &mut impl Listener) {
        match packet.split_first() {
            Some((b'o', _)) => self.opened(client),
            Some((b'a', messages)) => {
                let messages: Vec<String> = serde_json::from_slice(messages).unwrap_or_default();
                for message in messages {
                    self.hear(client, message.as_bytes(), now, listener);
                }
            }
            Some((b'c', reason)) => {
                let code = serde_json::from_slice::<(u16, String)>(reason).ok().map(|(code, _)| code);
                self.gone(client, code, format!("with c{}", String::from_utf8_lossy(reason)));
            }
            // Where the server wants to know whether we are there, it hears so.
            Some((b'h', [])) => self.post(client, "[]"),
            _ => {}
        }
    }

    fn opened(&mut self, client: usize) {
        if let Some(connection) = &mut self.clients[client] {
            connection.stage = Stage::Greeting;
        }
        if self.transport.is_sockjs() {
            let key = &self.targets[client % self.targets.len()].key;
            let wish = serde_json::json!({ "path": format!("/app/{key}?{}", query()) });
            self.send_packet(client, &wish.to_string());
        }
    }

    /// Asks for the next response.
    fn receive(&mut self, client: usize) {
        let target = &self.targets[client % self.targets.len()];
        if let Some(connection) = &mut self.clients[client]
            && let Some(http) = &connection.http
        {
            let request = self.transport.receive(target, http);
            let sent = connection.send_bytes(&request);
            self.check(client, sent);
        }
    }

    /// Sends a message as one of several, as SockJS does.
    pub(super) fn send_packet(&mut self, client: usize, text: &str) {
        self.post(client, &serde_json::json!([text]).to_string());
    }

    fn post(&mut self, client: usize, body: &str) {
        if self.transport.has_frames() {
            return self.send_frame(client, frame::TEXT, body.as_bytes());
        }
        let target = client % self.targets.len();
        let authority = self.targets[target].authority.clone();
        let Some(http) = self.clients[client].as_ref().and_then(|connection| connection.http.as_ref()) else { return };
        let request = format!(
            "POST {}/xhr_send HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n\
             {body}",
            http.path,
            body.len()
        );
        while self.senders.len() < SHARED * self.targets.len() {
            let number = self.senders.len();
            let address = self.targets[number % self.targets.len()].address;
            match Publisher::connect(address, self.poll.registry(), Token(SENDERS + number)) {
                Ok(publisher) => self.senders.push(Sender { publisher, waiting: VecDeque::new() }),
                Err(error) => return self.fail(error),
            }
        }
        let number = client / self.targets.len() % SHARED * self.targets.len() + target;
        self.senders[number].waiting.push_back(request.into_bytes());
        self.send_waiting(number);
    }

    fn send_waiting(&mut self, number: usize) {
        let now = self.now();
        let sender = &mut self.senders[number];
        if sender.publisher.is_idle()
            && let Some(request) = sender.waiting.pop_front()
            && let Err(error) = sender.publisher.send(request, now, self.poll.registry())
        {
            self.fail(error);
        }
    }

    /// Goes on with what clients send.
    pub(super) fn advance_sender(&mut self, number: usize, event: &Event) -> Result<(), BenchError> {
        let Some(sender) = self.senders.get_mut(number) else { return Ok(()) };
        if let Some(answer) = sender.publisher.advance(event, self.poll.registry())? {
            if !matches!(answer.status, 200 | 204) {
                let text = format!("a message was answered with status {}: {}", answer.status, answer.text);
                self.happenings.push_back(Happening::Refused { client: number, text });
            }
            self.send_waiting(number);
        }
        Ok(())
    }
}
