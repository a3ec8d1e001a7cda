//! A session without a WebSocket (protocol §7): its client receives with one request at a time and sends with others. Each
//! request has a connection of its own, so that its end is that of the request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::wire::Wire;
use super::{Http, HttpClient, KEY, Packet, Receiving, Response};

/// The first line of a streaming response.
const PRELUDE: usize = 2048;

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

    /// Whether it is one of SockJS.
    pub fn is_sockjs(&self) -> bool {
        self.wish.is_some()
    }

    /// With another first message of SockJS.
    pub fn wish(mut self, path: &str) -> Self {
        self.wish = Some(path.to_owned());
        self
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
