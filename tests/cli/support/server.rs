//! A running server.

use std::net::SocketAddr;

use serde_json::Value;

use super::{Client, Fanfare, Output, Process, fanfare, get};

/// See [`Server::draining`].
pub fn draining(listen: &str, period: &str) -> Fanfare {
    fanfare(&[
        "serve",
        &format!("--listen={listen}"),
        "--admin-listen=127.0.0.1:0",
        "--log-format=json",
        "--set=apps.0.id=1001",
        "--set=apps.0.key=app-key",
        "--set=apps.0.secret=app-secret",
        &format!("--set=server.drain_period={period}"),
    ])
}

/// A server process that listens.
pub struct Server {
    pub process: Process,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    /// The log line that said so.
    pub listening: Value,
}

impl Server {
    /// Starts a server that logs JSON, and waits for its addresses.
    #[track_caller]
    pub fn start(command: Fanfare) -> Self {
        let mut process = command.start();
        let line = process.expect_err(r#""message":"listening""#);
        let listening: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let address = |field: &str| listening[field].as_str().and_then(|text| text.parse().ok());
        let (Some(public), Some(admin)) = (address("public"), address("admin")) else {
            panic!("no addresses in {line}");
        };
        Self { process, public, admin, listening }
    }

    /// `fanfare dev` on free ports.
    #[track_caller]
    pub fn dev() -> Self {
        let args = ["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"];
        Self::start(fanfare(&args))
    }

    /// `fanfare serve` on free ports, with the app of `fanfare dev`; sends clients away over this time.
    #[track_caller]
    pub fn draining(period: &str) -> Self {
        Self::start(draining("127.0.0.1:0", period))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.public)
    }

    /// One of the tools, told where this server is.
    pub fn tool(&self, args: &[&str]) -> Fanfare {
        fanfare(args).env("FANFARE_URL", &self.url())
    }

    /// A client that has been greeted.
    #[track_caller]
    pub fn connect(&self, key: &str) -> Client {
        let mut client = Client::open(self.public, &format!("/app/{key}?protocol=7"));
        client.greeted();
        client
    }

    /// Whether the server is ready for clients, as it says itself.
    #[track_caller]
    pub fn readiness(&self) -> (u16, String) {
        get(self.admin, "/ready")
    }

    /// Stops the server in order.
    #[track_caller]
    pub fn stop(self) -> Output {
        self.process.signal("TERM");
        let output = self.process.wait();
        output.exited(0);
        output
    }
}
