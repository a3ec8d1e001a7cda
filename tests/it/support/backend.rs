//! An app's backend that receives webhooks, records them in the order they arrive, and answers as badly as it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use super::{DEADLINE, KEY, SECRET, Wire, sign};

/// A backend on a port of its own.
pub struct Backend {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The credentials of its app: every request must be signed with them.
    pub credentials: (String, String),
    shared: Arc<Shared>,
    requests: mpsc::UnboundedReceiver<Webhook>,
    listening: Listening,
    arrived: Vec<String>,
}

/// How a request is answered.
#[derive(Clone)]
pub enum Reply {
    /// With this status and no body.
    Status(u16),
    /// With exactly these bytes, and the end of the connection.
    Raw(Vec<u8>),
    /// 200, after this time.
    After(Duration),
    /// 200, once the test has added a permit.
    Held(Arc<Semaphore>),
    /// Never, on a connection that stays open.
    Silence,
    /// With the end of the connection.
    HangUp,
    /// The status line and one header that never ends, byte by byte.
    DrippingHead,
    /// 200 at once, and a body that comes byte by byte.
    DrippingBody,
    /// 200, and chunks without end.
    EndlessBody,
    /// 200, and a gigabyte.
    HugeBody,
}

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The request line and the headers.
    pub head: String,
    /// The body as it was sent.
    pub body: String,
    /// The body.
    pub json: Value,
}

type Decide = Box<dyn FnMut(&Webhook) -> Reply + Send>;

struct Shared {
    reply: Mutex<Decide>,
    requests: mpsc::UnboundedSender<Webhook>,
}

enum Listening {
    Yes(JoinHandle<()>),
    /// Keeps the port from being taken by somebody else, who would answer in our place.
    No(TcpSocket),
    Changing,
}

impl Webhook {
    /// A header's value. None may be there twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().skip(1).filter_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice: {}", self.head);
        value
    }

    /// The id of the delivery.
    pub fn id(&self) -> &str {
        self.header("X-Fanfare-Delivery").unwrap_or_else(|| panic!("no delivery id: {}", self.head))
    }

    /// When it was made, in milliseconds since 1970.
    pub fn time_ms(&self) -> u64 {
        self.json["time_ms"].as_u64().unwrap()
    }

    /// What it tells.
    pub fn events(&self) -> &[Value] {
        self.json["events"].as_array().unwrap()
    }

    /// The only event in it.
    pub fn event(&self) -> &Value {
        assert_eq!(self.events().len(), 1, "{}", self.body);
        &self.events()[0]
    }

    /// The channel of the first event in it.
    pub fn channel(&self) -> &str {
        self.events()[0]["channel"].as_str().unwrap_or_default()
    }

    /// Checks what holds for every webhook (protocol §5.1).
    fn check(&self, (key, secret): &(String, String)) {
        let head = &self.head;
        assert!(head.starts_with("POST /hooks HTTP/1.1\r\n"), "{head}");
        assert_eq!(self.header("Content-Type"), Some("application/json"), "{head}");
        assert_eq!(self.header("Content-Length"), Some(self.body.len().to_string().as_str()), "{head}");
        assert_eq!(self.header("X-Pusher-Key"), Some(key.as_str()), "{head}");
        assert_eq!(self.header("X-Pusher-Signature"), Some(sign::hmac(secret, &self.body).as_str()), "{head}");
        assert!(self.header("User-Agent").is_some(), "{head}");
        let (store, event) = self.id().split_once('-').unwrap_or_else(|| panic!("{head}"));
        assert!(u32::from_str_radix(store, 16).is_ok() && u64::from_str_radix(event, 16).is_ok(), "{head}");

        let keys: Vec<_> = self.json.as_object().unwrap().keys().collect();
        assert!(keys.len() == 2 && self.json["time_ms"].is_u64(), "{}", self.body);
        assert!(!self.events().is_empty(), "{}", self.body);
        for event in self.events() {
            for (name, value) in event.as_object().unwrap_or_else(|| panic!("no object: {}", self.body)) {
                assert!(value.is_string() || name == "subscription_count" && value.is_u64(), "{}", self.body);
            }
        }
    }
}

impl Backend {
    /// A backend of the tests' usual app that takes everything.
    pub async fn start() -> Self {
        let (sender, requests) = mpsc::unbounded_channel();
        let reply: Decide = Box::new(|_| Reply::Status(200));
        let shared = Arc::new(Shared { reply: Mutex::new(reply), requests: sender });
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let listening = Listening::Yes(tokio::spawn(accept(listener, Arc::clone(&shared))));
        let credentials = (KEY.to_owned(), SECRET.to_owned());
        Self { addr, credentials, shared, requests, listening, arrived: Vec::new() }
    }

    /// The URL to configure.
    pub fn url(&self) -> String {
        format!("http://{}/hooks", self.addr)
    }

    /// From now on, requests are answered like this.
    pub fn answer(&self, reply: Reply) {
        self.answer_by(move |_| reply.clone());
    }

    /// From now on, requests are answered as this decides.
    pub fn answer_by(&self, reply: impl FnMut(&Webhook) -> Reply + Send + 'static) {
        *self.shared.reply.lock() = Box::new(reply);
    }

    /// Closes the port and all connections.
    pub async fn go_down(&mut self) {
        if let Listening::Yes(task) = std::mem::replace(&mut self.listening, Listening::Changing) {
            task.abort();
            let _ = task.await;
        }
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.addr).unwrap();
        self.listening = Listening::No(socket);
    }

    /// Opens the port again.
    pub fn come_back(&mut self) {
        let Listening::No(socket) = std::mem::replace(&mut self.listening, Listening::Changing) else {
            panic!("the backend is not down")
        };
        let listener = socket.listen(1024).unwrap();
        self.listening = Listening::Yes(tokio::spawn(accept(listener, Arc::clone(&self.shared))));
    }

    /// Fails, and prints every request that has arrived.
    pub fn fail(&self, what: &str) -> ! {
        panic!("{what}; what arrived at {}:\n  {}\n", self.addr, self.arrived.join("\n  "));
    }

    /// The next request, or a failure after the deadline.
    pub async fn next(&mut self) -> Webhook {
        self.next_within(DEADLINE).await
    }

    /// The next request, or a failure after this long.
    pub async fn next_within(&mut self, deadline: Duration) -> Webhook {
        let Ok(webhook) = tokio::time::timeout(deadline, self.requests.recv()).await else {
            self.fail(&format!("nothing more within {deadline:?}"));
        };
        let webhook = webhook.expect("the sender lives as long as the backend");
        self.arrived.push(webhook.body.chars().take(1000).collect());
        webhook.check(&self.credentials);
        webhook
    }

    /// The next request, which must hold exactly this event.
    pub async fn expect(&mut self, event: Value) -> Webhook {
        self.expect_batch(&[event]).await
    }

    /// The next request, which must hold exactly these events.
    pub async fn expect_batch(&mut self, events: &[Value]) -> Webhook {
        let webhook = self.next().await;
        if webhook.events() != events {
            self.fail(&format!("expected {}", Value::from(events)));
        }
        webhook
    }

    /// The next requests, which must hold these events, each in a request of its own and in this order.
    pub async fn expect_all(&mut self, events: impl IntoIterator<Item = Value>) {
        for event in events {
            self.expect(event).await;
        }
    }

    /// Leaves everything that has arrived so far out of account.
    pub fn forget(&mut self) {
        while self.requests.try_recv().is_ok() {}
    }

    /// That nothing has arrived so far. It proves something only after an event that must have come later.
    pub fn expect_no_more(&mut self) {
        if let Ok(webhook) = self.requests.try_recv() {
            self.fail(&format!("unexpected: {}", webhook.body));
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Listening::Yes(task) = &self.listening {
            task.abort();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Aborted together with this task.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    let (read, mut write) = stream.into_split();
    let mut wire = Wire::over(tokio::io::join(read, tokio::io::sink()));
    while let Some(head) = wire.head().await {
        let mut webhook = Webhook { head, body: String::new(), json: Value::Null };
        let length = webhook.header("Content-Length").map_or(0, |length| length.parse().unwrap());
        webhook.body = String::from_utf8(wire.exactly(length).await).unwrap();
        webhook.json = serde_json::from_str(&webhook.body).unwrap();
        let reply = (*shared.reply.lock())(&webhook);
        let _ = shared.requests.send(webhook);
        // A server that has gone away need not get the answer.
        if respond(&mut write, reply).await.is_err() {
            return;
        }
    }
}

/// An error ends the connection.
async fn respond(write: &mut (impl AsyncWriteExt + Unpin), reply: Reply) -> std::io::Result<()> {
    static BLOCK: [u8; 65536] = [b'x'; 65536];
    const PACE: Duration = Duration::from_millis(20);
    let end = || Err(std::io::ErrorKind::ConnectionAborted.into());
    match reply {
        Reply::Status(status) => {
            write.write_all(format!("HTTP/1.1 {status} Test\r\nContent-Length: 0\r\n\r\n").as_bytes()).await
        }
        Reply::Raw(bytes) => {
            write.write_all(&bytes).await?;
            end()
        }
        Reply::After(time) => {
            tokio::time::sleep(time).await;
            write.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await
        }
        Reply::Held(permits) => {
            permits.acquire().await.unwrap().forget();
            write.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await
        }
        Reply::Silence => std::future::pending().await,
        Reply::HangUp => end(),
        Reply::DrippingHead => {
            write.write_all(b"HTTP/1.1 200 OK\r\nX-Endless: ").await?;
            loop {
                write.write_all(b"x").await?;
                tokio::time::sleep(PACE).await;
            }
        }
        Reply::DrippingBody => {
            write.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await?;
            loop {
                write.write_all(b"x").await?;
                tokio::time::sleep(PACE).await;
            }
        }
        Reply::EndlessBody => {
            write.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            loop {
                write.write_all(format!("{:x}\r\n", BLOCK.len()).as_bytes()).await?;
                write.write_all(&BLOCK).await?;
                write.write_all(b"\r\n").await?;
            }
        }
        Reply::HugeBody => {
            write.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n").await?;
            for _ in 0..1_073_741_824 / BLOCK.len() {
                write.write_all(&BLOCK).await?;
            }
            Ok(())
        }
    }
}
