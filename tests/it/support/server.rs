//! A server of the test's own, and the ways to reach it.

use std::net::SocketAddr;
use std::time::Duration;

use fanfare::config::{AppConfig, WebhookConfig};
use fanfare::{Config, Server, StartError};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{APP_ID, Api, Backend, Client, DEADLINE, Http, HttpSession, KEY, SECRET, Wire, second_node, within};

/// A running server. Dropping it asks it to stop.
pub struct TestServer {
    /// Where clients and backends connect.
    pub addr: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
    /// The servers. There are two if [`second_node`] is wanted: clients are at the first, the HTTP API is at the last.
    nodes: Vec<Running>,
}

struct Running {
    addr: SocketAddr,
    admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl TestServer {
    /// A server with one app and the default of everything.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server whose only app is changed first.
    pub async fn with_app(change: impl FnOnce(&mut AppConfig)) -> Self {
        Self::with(|config| change(&mut config.apps[0])).await
    }

    /// A server whose configuration is changed first.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::try_with(change).await.unwrap_or_else(|error| panic!("the server does not start: {error}"))
    }

    /// A server whose app has this endpoint for its webhooks. They are kept in memory, and sent one at a time, so that
    /// they arrive in the order in which they came about.
    pub async fn with_webhooks(backend: &Backend, change: impl FnOnce(&mut Config)) -> Self {
        Self::with(|config| {
            config.webhooks.data_dir = None;
            config.webhooks.concurrency = 1;
            config.apps[0].webhook_delay = Duration::from_millis(100);
            config.apps[0].offline_delay = Duration::from_millis(100);
            config.apps[0].webhooks = vec![WebhookConfig::new(backend.url())];
            change(config);
        })
        .await
    }

    /// A server whose configuration is changed first, and may be one that it cannot start with.
    pub async fn try_with(change: impl FnOnce(&mut Config)) -> Result<Self, StartError> {
        let mut config = Config::default();
        config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.admin.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.server.drain_period = Duration::from_secs(1);
        config.apps = vec![AppConfig::new(APP_ID, KEY, SECRET)];
        change(&mut config);
        let mut nodes = Vec::new();
        if let Some(cluster) = second_node::wanted() {
            for name in ["a", "b"] {
                let mut config = config.clone();
                config.cluster = cluster.clone();
                name.clone_into(&mut config.cluster.node);
                nodes.push(Running::start(config).await?);
            }
            for node in &nodes {
                node.sees_both().await;
            }
        } else {
            nodes.push(Running::start(config).await?);
        }
        Ok(Self { addr: nodes[0].addr, admin: nodes[0].admin, nodes })
    }

    /// A connection of protocol 7 after its greeting.
    pub async fn connect(&self) -> Client {
        self.dial().connect().await
    }

    /// A connection that is a member of a presence channel.
    pub async fn join(&self, channel: &str, user_id: &str) -> Client {
        let mut client = self.connect().await;
        client.join(channel, user_id).await;
        client
    }

    /// A connection that is signed in.
    pub async fn sign_in(&self, user_id: &str) -> Client {
        let mut client = self.connect().await;
        client.sign_in(user_id).await;
        client
    }

    /// A WebSocket handshake to be changed before it is made.
    pub fn dial(&self) -> Dial {
        Dial::new(self.addr)
    }

    /// A session of the HTTP transports of pusher-js that has not begun yet.
    pub fn fallback(&self) -> HttpSession {
        HttpSession::of_pusher(self.addr)
    }

    /// A session of SockJS that has not begun yet.
    pub fn sockjs(&self) -> HttpSession {
        HttpSession::of_sockjs(self.addr)
    }

    /// A client of the HTTP API with one connection.
    pub async fn api(&self) -> Api {
        Api::new(self.http().await)
    }

    /// A plain HTTP/1.1 connection to the public port.
    pub async fn http(&self) -> Http {
        Http::new(Wire::connect(self.nodes.last().expect("there is at least one").addr).await)
    }

    /// The page of metrics; with two nodes, that of one after that of the other.
    pub async fn metrics(&self) -> String {
        let mut pages = String::new();
        for node in &self.nodes {
            pages += &Http::new(Wire::connect(node.admin).await).get("/metrics").await.body;
        }
        pages
    }

    /// The sum of all samples of this metric.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = self.metrics().await;
        let sample = |line: &str| {
            let is_it = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
            is_it.then(|| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        };
        let samples: Vec<f64> = page.lines().filter_map(sample).collect();
        assert!(!samples.is_empty(), "no {name} in {page}");
        samples.iter().sum()
    }

    /// Waits until this metric has this value.
    pub async fn expect_metric(&self, name: &str, expected: u32) {
        let start = tokio::time::Instant::now();
        loop {
            let value = self.metric(name).await;
            if (value - f64::from(expected)).abs() < f64::EPSILON {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{name} is {value} and not {expected}");
        }
    }

    /// What the operator sees of webhooks.
    pub async fn webhooks(&self) -> Value {
        let response = Http::new(Wire::connect(self.admin).await).get("/webhooks").await;
        response.json()
    }

    /// Waits until there are so many dead letters, and nothing else to deliver; the newest comes first.
    pub async fn dead_letters(&self, expected: usize) -> Vec<Value> {
        let start = tokio::time::Instant::now();
        loop {
            let listing = self.webhooks().await;
            let deliveries = listing["deliveries"].as_array().unwrap();
            if deliveries.len() == expected && deliveries.iter().all(|delivery| delivery["state"]["name"] == "dead") {
                return deliveries.clone();
            }
            assert!(start.elapsed() < DEADLINE, "not {expected} dead letters: {listing}");
        }
    }

    /// Asks the server to stop; [`stopped`](Self::stopped) waits for it.
    pub fn stop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.stop.take().expect("only stopped once").send(());
        }
    }

    /// Waits until `run` has returned.
    pub async fn stopped(&mut self) {
        self.stopped_within(DEADLINE).await;
    }

    /// Waits until `run` has returned, for this long.
    pub async fn stopped_within(&mut self, time: Duration) {
        for node in &mut self.nodes {
            let running = tokio::time::timeout(time, &mut node.running).await;
            running.unwrap_or_else(|_| panic!("run() has not returned within {time:?}")).unwrap();
        }
    }

    /// True once `run` has returned.
    pub fn is_stopped(&self) -> bool {
        self.nodes.iter().all(|node| node.running.is_finished())
    }
}

impl Running {
    async fn start(config: Config) -> Result<Self, StartError> {
        let server = Server::bind(config).await?;
        let (addr, admin) = (server.local_addr(), server.admin_addr());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async move {
            let _ = stopped.await;
        }));
        Ok(Self { addr, admin, stop: Some(stop), running })
    }

    /// Waits until this node is ready and knows the other one.
    async fn sees_both(&self) {
        let start = tokio::time::Instant::now();
        loop {
            let mut http = Http::new(Wire::connect(self.admin).await);
            let (ready, nodes) = (http.get("/ready").await, http.get("/nodes").await);
            let names = ["\"name\":\"a\"", "\"name\":\"b\""];
            if ready.status == 200 && nodes.status == 200 && names.iter().all(|name| nodes.body.contains(name)) {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{}{} {}", ready.body, nodes.status, nodes.body);
        }
    }
}

/// A WebSocket handshake.
#[derive(Clone)]
pub struct Dial {
    addr: SocketAddr,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
}

impl Dial {
    /// That of a client of protocol 7 of the tests' usual app.
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            path: format!("/app/{KEY}"),
            query: "protocol=7&client=js&version=8.6.0&flash=false".to_owned(),
            headers: Vec::new(),
        }
    }

    /// Another path than that of the app.
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Another query.
    pub fn query(mut self, query: &str) -> Self {
        query.clone_into(&mut self.query);
        self
    }

    /// As a client of this protocol version.
    pub fn protocol(self, version: u32) -> Self {
        self.query(&format!("protocol={version}&client=js&version=8.6.0"))
    }

    /// One more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The request as text.
    pub fn request(&self) -> String {
        let mut request = format!(
            "GET {}{}{} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            self.path,
            if self.query.is_empty() { "" } else { "?" },
            self.query,
            self.addr
        );
        for (name, value) in &self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request + "\r\n"
    }

    /// Connects and upgrades, and leaves all messages to the test.
    pub async fn open(&self) -> Client {
        self.open_over(Wire::connect(self.addr).await).await
    }

    /// Upgrades over an existing connection.
    pub async fn open_over(&self, mut wire: Wire) -> Client {
        wire.write(self.request().as_bytes()).await;
        let head = within("answer to the handshake", wire.head()).await.expect("the server hung up on the handshake");
        // The value that RFC 6455 §1.3 works out for the key above.
        let lower = head.to_lowercase();
        assert!(head.starts_with("HTTP/1.1 101 "), "not upgraded: {head}");
        assert!(lower.contains("\r\nupgrade: websocket"), "{head}");
        assert!(lower.contains("\r\nconnection: upgrade"), "{head}");
        assert!(head.contains(": s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "wrong Sec-WebSocket-Accept: {head}");
        Client::new(wire, head)
    }

    /// Connects, upgrades and takes the greeting.
    pub async fn connect(&self) -> Client {
        let mut client = self.open().await;
        client.greeting().await;
        client
    }

    /// Connects, upgrades, and expects to be refused: by the close frame alone, or, for the old protocols, by an error
    /// event and the close frame.
    pub async fn refused(&self, code: u16) -> String {
        let mut client = self.open().await;
        let version = self.query.split('&').find_map(|pair| pair.strip_prefix("protocol="));
        let announced = version.and_then(|version| version.parse::<u32>().ok()).is_some_and(|version| version <= 5);
        client.label(&format!("{}?{}", self.path, self.query));
        let reason = client.expect_fatal(code, announced).await;
        client.expect_end().await;
        reason
    }
}
