//! A client without a WebSocket (protocol §7): it receives with one request at a time and sends with others. Each request
//! has a connection of its own, so that its end is that of the request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::wire::Wire;
use super::{DEADLINE, Http, KEY, Message, Response, requests, within};

/// The first line of a streaming response.
const PRELUDE: usize = 2048;

/// What pusher-js parses of one response before it asks for the next, in UTF-16 units.
pub const LIMIT: usize = 262_144;

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

    /// What stands in some lines.
    pub fn parse_all(body: &str) -> Vec<Self> {
        body.lines().flat_map(Self::parse).collect()
    }
}

/// A session as its requests name it.
#[derive(Debug, Clone)]
pub struct HttpSession {
    /// The server.
    pub addr: SocketAddr,
    /// The path of all its requests up to the last slash.
    pub path: String,
    /// What a request to receive says about the client.
    pub query: String,
    /// Further headers of all requests.
    pub headers: String,
    /// With SockJS, the path of the WebSocket that the client would have: its first message.
    wish: Option<String>,
}

impl HttpSession {
    /// A new one of pusher-js, of protocol 7 and the tests' usual app.
    pub fn of_pusher(addr: SocketAddr) -> Self {
        let query = "protocol=7&client=js&version=8.6.0&t=1700000000000&n=1".to_owned();
        Self { addr, path: format!("/pusher/app/{KEY}/417/{}", name()), query, headers: String::new(), wish: None }
    }

    /// A new one of SockJS.
    pub fn of_sockjs(addr: SocketAddr) -> Self {
        let (path, wish) =
            (format!("/pusher/417/{}", name()), format!("/app/{KEY}?protocol=7&client=js&version=8.6.0"));
        Self { addr, path, query: String::new(), headers: String::new(), wish: Some(wish) }
    }

    /// With another first message of SockJS.
    pub fn wish(mut self, path: &str) -> Self {
        self.wish = Some(path.to_owned());
        self
    }

    /// The same session at another node.
    pub fn at(&self, addr: SocketAddr) -> Self {
        Self { addr, ..self.clone() }
    }

    /// With another query.
    pub fn query(mut self, query: &str) -> Self {
        query.clone_into(&mut self.query);
        self
    }

    /// As a client of this protocol version.
    pub fn protocol(self, version: u32) -> Self {
        self.query(&format!("protocol={version}&client=js&version=8.6.0"))
    }

    /// Of the app with this key.
    pub fn key(mut self, key: &str) -> Self {
        self.path = self.path.replace(KEY, key);
        self
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    /// The head of a request, and its body.
    pub fn request(&self, method: &str, action: &str, body: &[u8]) -> Vec<u8> {
        let body_headers = match method {
            "POST" => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        let Self { path, headers, .. } = self;
        let head = format!("{method} {path}/{action} HTTP/1.1\r\nHost: test\r\n{body_headers}{headers}\r\n");
        [head.as_bytes(), body].concat()
    }

    /// Makes a request, and reads the whole answer.
    pub async fn ask(&self, method: &str, action: &str, body: &[u8]) -> Response {
        Http::new(Wire::connect(self.addr).await).send(&self.request(method, action, body)).await
    }

    /// Makes a request, and reads the head of the answer.
    pub async fn begin(&self, method: &str, action: &str) -> Receiving {
        let mut wire = Wire::connect(self.addr).await;
        wire.write(&self.request(method, action, b"")).await;
        Receiving::begin(wire).await
    }

    /// Begins to receive, up to the prelude of the answer.
    pub async fn stream(&self) -> Receiving {
        let mut receiving = self.begin("POST", &format!("xhr_streaming?{}", self.query)).await;
        assert_eq!(receiving.response.status, 200, "{}", receiving.response.head);
        let prelude = receiving.line().await.expect("a prelude");
        assert_eq!(prelude, "h".repeat(PRELUDE));
        receiving
    }

    /// Begins to receive where nobody else does, up to the greeting.
    pub async fn open_stream(&self) -> Receiving {
        let mut receiving = self.stream().await;
        receiving.expect_line("o").await;
        receiving.expect_message("pusher:connection_established").await;
        receiving
    }

    /// Asks for what there is, or comes next.
    pub async fn poll(&self) -> Response {
        self.ask("POST", &format!("xhr?{}", self.query), b"").await
    }

    /// The same for an answer that can only be this.
    pub async fn poll_packets(&self) -> Vec<Packet> {
        let response = self.poll().await;
        assert_eq!(response.status, 200, "{}\n\n{}", response.head, response.body);
        Packet::parse_all(&response.body)
    }

    /// Begins to ask, without waiting for the answer. Once this returns, the server has the request.
    pub async fn begin_poll(&self) -> Http {
        let mut http = Http::new(Wire::connect(self.addr).await);
        http.wire.write(&self.request("POST", &format!("xhr?{}", self.query), b"")).await;
        http
    }

    /// Sends this body.
    pub async fn post(&self, body: &[u8]) -> Response {
        self.ask("POST", "xhr_send?t=1700000000000&n=2", body).await
    }

    /// Sends messages, which must be accepted.
    pub async fn send(&self, messages: &[Value]) {
        let response = self.post(array(messages).as_bytes()).await;
        assert_eq!((response.status, response.body.as_str()), (204, ""), "{}", response.head);
    }

    /// Sends the first message of SockJS.
    pub async fn ask_for_app(&self) {
        self.send(&[json!({ "path": self.wish.as_ref().expect("a session of SockJS") })]).await;
    }

    /// Begins to receive, and takes the greeting.
    pub async fn connect_streaming(self) -> HttpClient {
        HttpClient::new(self, true).greeted().await
    }

    /// Polls for the greeting.
    pub async fn connect_polling(self) -> HttpClient {
        HttpClient::new(self, false).greeted().await
    }
}

/// Messages as the body of a request.
pub fn array(messages: &[Value]) -> String {
    json!(messages.iter().map(Value::to_string).collect::<Vec<_>>()).to_string()
}

/// A name that no other session of this process has.
fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{:08x}", NEXT.fetch_add(1, Ordering::Relaxed))
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

/// A client that does not care how it receives.
pub struct HttpClient {
    /// What it sends its requests to.
    pub session: HttpSession,
    /// The name of this connection, once greeted.
    pub socket_id: String,
    /// Answer heartbeats, as pusher-js does on streams.
    pub answers_heartbeats: bool,
    streams: bool,
    receiving: Option<Receiving>,
    inbox: VecDeque<Packet>,
    arrived: Vec<String>,
}

impl HttpClient {
    fn new(session: HttpSession, streams: bool) -> Self {
        Self {
            answers_heartbeats: streams && session.wish.is_none(),
            session,
            socket_id: String::new(),
            streams,
            receiving: None,
            inbox: VecDeque::new(),
            arrived: Vec::new(),
        }
    }

    async fn greeted(mut self) -> Self {
        match self.packet().await {
            Packet::Open(_) => {}
            _ => self.fail("expected o"),
        }
        if self.session.wish.is_some() {
            self.session.ask_for_app().await;
        }
        let greeting = self.expect("pusher:connection_established").await;
        greeting.data()["socket_id"].as_str().expect("the greeting names the socket").clone_into(&mut self.socket_id);
        self
    }

    /// Fails, and prints everything that has arrived.
    pub fn fail(&self, what: &str) -> ! {
        let skipped = self.arrived.len().saturating_sub(50);
        panic!("{what}; what arrived on {}:\n  {}\n", self.socket_id, self.arrived[skipped..].join("\n  "));
    }

    /// Stops receiving: the connection of the response ends.
    pub fn hang_up(&mut self) {
        self.receiving = None;
    }

    /// Sends a message.
    pub async fn send(&self, message: Value) {
        self.session.send(&[message]).await;
    }

    /// The next packet, with whatever requests that takes.
    pub async fn packet(&mut self) -> Packet {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while self.inbox.is_empty() {
            let lines = match tokio::time::timeout_at(deadline, self.receive()).await {
                Ok(lines) => lines,
                Err(_) => self.fail(&format!("nothing more within {DEADLINE:?}")),
            };
            for line in lines {
                self.inbox.extend(Packet::parse(&line));
                self.arrived.push(line.chars().take(2000).collect());
            }
        }
        self.inbox.pop_front().expect("not empty")
    }

    /// The next lines.
    async fn receive(&mut self) -> Vec<String> {
        if !self.streams {
            let response = self.session.poll().await;
            assert_eq!(response.status, 200, "{}\n\n{}", response.head, response.body);
            assert!(response.body.ends_with('\n'), "no line: {:?}", response.body);
            return response.body.lines().map(str::to_owned).collect();
        }
        let receiving = match &mut self.receiving {
            Some(receiving) if receiving.units <= LIMIT => receiving,
            other => other.insert(self.session.stream().await),
        };
        match receiving.line().await {
            Some(line) => vec![line],
            // SockJS ends responses, and its client asks anew.
            None if self.session.wish.is_some() => {
                self.receiving = None;
                Vec::new()
            }
            None => self.fail("the response has ended"),
        }
    }

    /// The next message. Heartbeats are answered and passed over.
    pub async fn next(&mut self) -> Message {
        loop {
            match self.packet().await {
                Packet::Message(message) => return message,
                Packet::Heartbeat if self.answers_heartbeats => self.session.send(&[]).await,
                Packet::Heartbeat => {}
                other => self.fail(&format!("expected a message, not {other:?}")),
            }
        }
    }

    /// The next message, which must be this event.
    pub async fn expect(&mut self, event: &str) -> Message {
        let message = self.next().await;
        if message.event() != event {
            self.fail(&format!("expected {event}"));
        }
        message
    }

    /// The next message, which must be this event on this channel.
    pub async fn expect_on(&mut self, channel: &str, event: &str) -> Message {
        let message = self.expect(event).await;
        if message.channel() != Some(channel) {
            self.fail(&format!("expected {event} on {channel}"));
        }
        message
    }

    /// The next message, which must be exactly this.
    pub async fn expect_json(&mut self, expected: Value) {
        let message = self.next().await;
        if message.json != expected {
            self.fail(&format!("expected {expected}"));
        }
    }

    /// The next message, which must be this event of the application with this data.
    pub async fn expect_event(&mut self, channel: &str, event: &str, data: &str) {
        self.expect_json(json!({ "event": event, "channel": channel, "data": data })).await;
    }

    /// The end by this code; returns the reason.
    pub async fn expect_close(&mut self, code: u16) -> String {
        match self.packet().await {
            Packet::Close(actual, reason) if actual == code => {
                if let Some(receiving) = &mut self.receiving {
                    receiving.expect_end().await;
                }
                reason
            }
            _ => self.fail(&format!("expected c[{code}]")),
        }
    }

    /// Proves that nothing is on its way to this client: a ping is answered and nothing stands in between.
    pub async fn expect_silence(&mut self) {
        self.send(json!({ "event": "pusher:ping", "data": {} })).await;
        self.expect_json(json!({ "event": "pusher:pong", "data": "{}" })).await;
    }

    /// Subscribes to a channel of any kind but presence.
    pub async fn subscribe(&mut self, channel: &str) {
        self.send(requests::subscription(&self.socket_id, channel)).await;
        let success = json!({ "event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}" });
        self.expect_json(success).await;
    }

    /// Becomes a member of a presence channel; returns the success message.
    pub async fn join(&mut self, channel: &str, user_id: &str) -> Message {
        let data = json!({ "user_id": user_id }).to_string();
        self.send(requests::membership(&self.socket_id, channel, &data)).await;
        self.expect_on(channel, "pusher_internal:subscription_succeeded").await
    }

    /// Signs in with this user data.
    pub async fn sign_in_as(&mut self, user_data: &str) {
        self.send(requests::sign_in(&self.socket_id, user_data)).await;
        let success = self.expect("pusher:signin_success").await;
        assert_eq!(success.data(), json!({ "user_data": user_data }));
    }
}
