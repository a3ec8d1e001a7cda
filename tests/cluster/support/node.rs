//! A Fanfare process of a cluster.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Cut, PATIENCE, Recorder, eventually};
use crate::it::process::Process;
use crate::it::server::Dial;
use crate::it::serving::Serving;
use crate::it::{APP_ID, Api, Client, Http, HttpSession, KEY, Response, SECRET, TempDir, Wire};

/// What the nodes of a cluster have in common, as it stands in their configuration files.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `cluster.id`.
    pub id: String,
    /// `cluster.lease`.
    pub lease: Duration,
    /// `cluster.timeout`.
    pub timeout: Duration,
    /// Further lines of `[server]`.
    pub server: String,
    /// Further lines of `[webhooks]`.
    pub queues: String,
    /// Further lines of `[cluster]`.
    pub cluster: String,
    /// Further lines of `[[apps]]`.
    pub app: String,
    /// Lines of `[apps.limits]`.
    pub limits: String,
    /// Lines of `[fallbacks]`.
    pub fallbacks: String,
    /// The endpoint for webhooks.
    pub webhooks: Option<String>,
    /// Further apps.
    pub apps: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            id: "test".to_owned(),
            lease: Duration::from_secs(2),
            timeout: Duration::from_secs(3),
            server: String::new(),
            queues: String::new(),
            cluster: String::new(),
            app: "client_events = true\noffline_delay = \"100ms\"\nwebhook_delay = \"100ms\"\n".to_owned(),
            limits: String::new(),
            fallbacks: String::new(),
            webhooks: None,
            apps: String::new(),
        }
    }
}

impl Settings {
    fn toml(&self, name: &str, urls: &[String], directory: &str) -> String {
        let Self { id, lease, timeout, server, queues, cluster, app, limits, fallbacks, webhooks, apps } = self;
        let webhooks = webhooks.as_ref().map(|url| format!("[[apps.webhooks]]\nurl = \"{url}\"\n")).unwrap_or_default();
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_period = \"500ms\"\n{server}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\
             [log]\nformat = \"json\"\n\
             [fallbacks]\n{fallbacks}\n\
             [webhooks]\ndata_dir = \"{directory}/webhooks\"\n{queues}\n\
             [cluster]\ndriver = \"redis\"\nid = \"{id}\"\nnode = \"{name}\"\nurls = {urls:?}\n\
             lease = \"{}ms\"\ntimeout = \"{}ms\"\n{cluster}\n\
             [[apps]]\nid = \"{APP_ID}\"\nkey = \"{KEY}\"\nsecret = \"{SECRET}\"\n{app}\n\
             [apps.limits]\n{limits}\n{webhooks}\n{apps}",
            lease.as_millis(),
            timeout.as_millis(),
        )
    }
}

/// A node. Its process can end and start again; then it has other ports.
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// Where clients and backends connect.
    pub addr: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
    /// The network between it and Redis, if that goes through a proxy.
    pub cut: Option<Cut>,
    directory: TempDir,
    process: Option<Process>,
}

impl Node {
    /// A node that listens; it may not be ready.
    pub async fn start(name: &str, urls: &[String], settings: &Settings) -> Self {
        let directory = TempDir::new();
        let config = settings.toml(name, urls, directory.path().to_str().unwrap());
        std::fs::write(directory.path().join("fanfare.toml"), config).unwrap();
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let (name, cut) = (name.to_owned(), None);
        let mut node = Self { name, addr: nowhere, admin: nowhere, cut, directory, process: None };
        node.come_back().await;
        node
    }

    /// A node that reaches its Redis through a proxy of its own.
    pub async fn start_behind(cut: Cut, name: &str, settings: &Settings) -> Self {
        let mut node = Self::start(name, &[cut.url()], settings).await;
        node.cut = Some(cut);
        node
    }

    /// The proxy between it and its Redis.
    pub fn cut(&mut self) -> &mut Cut {
        self.cut.as_mut().expect("started with a proxy")
    }

    /// Starts the process again, and waits until it listens.
    pub async fn come_back(&mut self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
        command.arg("serve").arg("--config").arg(self.directory.path().join("fanfare.toml"));
        let log = self.directory.path().join("log");
        let Serving { process, public, admin } = Serving::start(&mut command, &log, PATIENCE).await;
        (self.addr, self.admin, self.process) = (public, admin, Some(process));
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.process.take().expect("the node runs").kill();
    }

    /// Asks it to stop, and waits until it has ended well.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        let mut process = self.process.take().expect("the node runs");
        let ended = async || process.ended().ok_or_else(|| "running".to_owned());
        let status = eventually("the process ends", PATIENCE, ended).await;
        assert!(status.success(), "{} has ended with {status}", self.name);
    }

    /// Lets it do nothing, as on a machine that is suspended.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        self.process.as_ref().expect("the node runs").signal(name);
    }

    /// Whether there is a process.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// A WebSocket handshake to be changed before it is made.
    pub fn dial(&self) -> Dial {
        Dial::new(self.addr)
    }

    /// A connection of protocol 7 after its greeting.
    pub async fn connect(&self) -> Client {
        let mut client = self.dial().connect().await;
        client.label(&self.name);
        client
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

    /// A connection that subscribes to a public channel and takes down what it hears.
    pub async fn record(&self, channel: &str) -> Recorder {
        let mut client = self.connect().await;
        client.subscribe(channel).await;
        Recorder::start(client)
    }

    /// A session of the HTTP transports of pusher-js that has not begun yet.
    pub fn fallback(&self) -> HttpSession {
        HttpSession::of_pusher(self.addr)
    }

    /// A client of the HTTP API with one connection.
    pub async fn api(&self) -> Api {
        Api::new(Http::new(Wire::connect(self.addr).await))
    }

    /// A page of the admin listener.
    pub async fn page(&self, path: &str) -> Response {
        Http::new(Wire::connect(self.admin).await).get(path).await
    }

    /// Whether the node says that it is ready; otherwise its reason.
    pub async fn readiness(&self) -> Result<(), String> {
        let response = self.page("/ready").await;
        match response.status {
            200 => Ok(()),
            status => Err(format!("{status} {}", response.body.trim_end())),
        }
    }

    /// Waits until the node is ready.
    pub async fn ready(&self) {
        eventually(&format!("{} is ready", self.name), PATIENCE, async || self.readiness().await).await;
    }

    /// Waits until the node is not; answers with its reason.
    pub async fn unready(&self) -> String {
        eventually(&format!("{} is not ready", self.name), PATIENCE, async || match self.readiness().await {
            Ok(()) => Err("ready".to_owned()),
            Err(reason) => Ok(reason),
        })
        .await
    }

    /// The names of the nodes that it sees, in order, or why there is no answer that counts.
    pub async fn nodes(&self) -> Result<Vec<String>, String> {
        let answer = self.page("/nodes").await;
        if answer.status != 200 {
            return Err(format!("{} {}", answer.status, answer.body));
        }
        let answer = answer.json();
        if answer["state"] != "connected" {
            return Err(answer.to_string());
        }
        let nodes = answer["nodes"].as_array().unwrap_or_else(|| panic!("no list of nodes: {answer}"));
        let this: Vec<_> = nodes.iter().filter(|node| node["this"] == true).map(|node| &node["name"]).collect();
        assert_eq!(this, [&serde_json::Value::from(self.name.as_str())], "{answer}");
        let mut names: Vec<_> = nodes.iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// Waits until the node sees exactly these nodes.
    pub async fn sees(&self, names: &[&str]) {
        eventually(&format!("{} sees {names:?}", self.name), PATIENCE, async || match self.nodes().await {
            Ok(seen) if seen == names => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// The sum of all samples of this metric.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics").await.body;
        let sample = |line: &str| {
            let is_it = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
            is_it.then(|| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        };
        let samples: Vec<f64> = page.lines().filter_map(sample).collect();
        assert!(!samples.is_empty(), "no {name} in {page}");
        samples.iter().sum()
    }

    /// What it has logged, all its processes together.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let skipped = lines.len().saturating_sub(100);
            eprintln!("--- log of {} ({skipped} lines not shown)\n{}", self.name, lines[skipped..].join("\n"));
        }
    }
}

/// An answer from somebody who may be gone, or too busy to give one.
pub async fn try_send(addr: SocketAddr, request: &[u8], time: Duration) -> Option<Response> {
    let exchange = async {
        let stream = TcpStream::connect(addr).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let mut http = Http::new(Wire::over(stream));
        http.wire.try_write(request).await.ok()?;
        http.try_response().await
    };
    tokio::time::timeout(time, exchange).await.ok()?
}
