//! `fanfare bench`: a load generator for any server that speaks the Pusher Channels protocol.
//!
//! It has to be so cheap that it does not disturb what it measures, often on the same machine: one thread, one event loop
//! ([`engine`]), no parsing of deliveries that look as expected ([`deliveries`]). What the server used is read from `/proc`
//! ([`process`], [`meter`]). A scenario is a file in [`scenarios`]: it opens clients ([`setup`]), does something, and
//! makes a [`Report`]. Every delivery is checked; [`Findings`] says what was wrong.

mod backend;
mod broadcast;
mod connection;
mod deliveries;
mod engine;
mod error;
mod findings;
mod frame;
mod meter;
mod plot;
mod process;
mod progress;
mod report;
mod scenarios;
mod setup;

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::config::Secret;

pub(crate) use engine::Transport;
pub(crate) use error::BenchError;
pub(crate) use plot::svg;
pub(crate) use report::Report;
pub(crate) use scenarios::Scenario;
pub(crate) use scenarios::burst::Burst;
pub(crate) use scenarios::churn::Churn;
pub(crate) use scenarios::client_events::ClientEvents;
pub(crate) use scenarios::cluster::Cluster;
pub(crate) use scenarios::fanout::Fanout;
pub(crate) use scenarios::idle::Idle;
pub(crate) use scenarios::many::Many;
pub(crate) use scenarios::presence::Presence;
pub(crate) use scenarios::publish::Publish;
pub(crate) use scenarios::slow::Slow;
pub(crate) use scenarios::storm::Storm;

use engine::{Engine, Nanos};
use meter::Meter;
use progress::Progress;

/// Open files besides sockets: standard streams, epoll, `/proc`.
const OTHER_FILES: u64 = 32;

/// A server and an app.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The URL as it was given, for messages and results.
    pub(crate) url: String,
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Its name in `Host` headers.
    pub(crate) authority: String,
    /// What stands before every path, perhaps nothing.
    pub(crate) prefix: String,
    /// The app's id.
    pub(crate) app_id: String,
    /// The app's key.
    pub(crate) key: String,
    /// The app's secret.
    pub(crate) secret: Secret,
}

impl Target {
    /// Finds the address of `host:port`, or of a host with HTTP's usual port.
    ///
    /// # Errors
    /// [`BenchError::Resolve`] if there is none.
    pub(crate) fn resolve(url: &str, authority: &str) -> Result<SocketAddr, BenchError> {
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host = authority.trim_matches(['[', ']']);
        let found = if has_port { authority.to_socket_addrs() } else { (host, 80).to_socket_addrs() };
        let failed = |cause| BenchError::Resolve { url: url.to_owned(), cause };
        let none = || failed(std::io::Error::other("it has no address"));
        found.map_err(failed)?.next().ok_or_else(none)
    }

    /// The request that opens a WebSocket. The key is always the same: nobody caches what we ask for.
    fn upgrade(&self, transport: Transport) -> Vec<u8> {
        let Self { prefix, key, authority, .. } = self;
        let version = env!("CARGO_PKG_VERSION");
        let path = match transport {
            Transport::Sockjs => "pusher/0/bench/websocket".to_owned(),
            _ => format!("app/{key}?protocol=7&client=fanfare-bench&version={version}"),
        };
        format!(
            "GET {prefix}/{path} HTTP/1.1\r\nHost: {authority}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: ZmFuZmFyZSBiZW5jaCBrZQ==\r\n\r\n"
        )
        .into_bytes()
    }
}

/// What all scenarios are told.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The servers: one, or the nodes of a cluster. Clients and events are spread over them.
    pub(crate) targets: Vec<Target>,
    /// The processes to measure.
    pub(crate) pids: Vec<u32>,
    /// How long nothing may happen before a run is given up.
    pub(crate) timeout: Duration,
}

/// Runs one scenario.
///
/// # Errors
/// [`BenchError`] if there is no result. A server that loses deliveries is no error but a [`Findings`].
pub(crate) fn run(scenario: &impl Scenario, settings: &Settings) -> Result<Report, BenchError> {
    raise_open_files(scenario.sockets() as u64 + OTHER_FILES)?;
    let mut bench = Bench {
        settings,
        engine: Engine::new(&settings.targets, scenario.transport())?,
        meter: Meter::new(&settings.pids)?,
        progress: Progress::new(),
        run: format!("bench-{:08x}", rand::random::<u32>()),
    };
    let mut report = scenario.run(&mut bench)?;
    bench.engine.close_all();
    report.samples = bench.meter.take_samples();
    Ok(report)
}

/// A run: what a scenario works with.
pub(crate) struct Bench<'a> {
    settings: &'a Settings,
    engine: Engine,
    meter: Meter,
    progress: Progress,
    /// The beginning of all names, so that two runs do not hear each other.
    run: String,
}

impl Bench<'_> {
    /// A public channel of this run.
    fn channel(&self, number: usize) -> String {
        format!("{}-{number}", self.run)
    }

    /// The result of a scenario with these flags, still empty. `counted` is what its samples count, in the singular.
    fn report(&self, scenario: &'static str, parameters: &impl serde::Serialize, counted: &'static str) -> Report {
        let urls = self.settings.targets.iter().map(|target| target.url.as_str()).collect::<Vec<_>>().join(" ");
        Report::new(scenario, urls, serde_json::to_value(parameters).unwrap_or_default(), counted)
    }

    /// Begins to wait for something.
    fn patience(&self) -> Patience {
        Patience { timeout: self.settings.timeout, since: self.engine.now(), seen: 0 }
    }
}

/// Waits as long as something happens.
struct Patience {
    timeout: Duration,
    since: Nanos,
    seen: u64,
}

impl Patience {
    /// Whether nothing has happened for too long. `progress` is any number that changes as things happen.
    fn is_over(&mut self, now: Nanos, progress: u64) -> bool {
        if progress != self.seen {
            (self.seen, self.since) = (progress, now);
        }
        now >= self.deadline()
    }

    /// When it ends if nothing happens.
    fn deadline(&self) -> Nanos {
        self.since + self.timeout.as_nanos() as Nanos
    }

    /// The error that says so.
    fn error(&self, what: String) -> BenchError {
        BenchError::Timeout { timeout: self.timeout, what }
    }
}

/// Every socket is an open file, and the usual soft limit of 1,024 is not enough.
fn raise_open_files(needed: u64) -> Result<(), BenchError> {
    // Where the limit cannot be asked for, the sockets will say what is wrong.
    let allowed = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX);
    if allowed < needed { Err(BenchError::OpenFiles { needed, allowed }) } else { Ok(()) }
}
