//! The fan-out of one channel whose subscribers and publishers are spread over several nodes.

use super::{Bench, BenchError, Report, Scenario};
use crate::bench::broadcast::{Broadcast, Senders};

/// The flags of `fanfare bench cluster`.
#[derive(Debug, clap::Args, serde::Serialize)]
pub(crate) struct Cluster {
    /// Another node beside the one at --url; repeatable.
    #[arg(long = "node", value_name = "URL")]
    nodes: Vec<String>,
    /// Clients, all subscribed to one channel, spread evenly over the nodes.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = super::positive)]
    clients: usize,
    /// Events per second, evenly spaced, triggered at one node after the other.
    #[arg(long, value_name = "N", default_value_t = 100.0, value_parser = super::rate)]
    rate: f64,
    /// How long events are sent, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = super::rate)]
    duration: f64,
    /// Bytes of data of each event.
    #[arg(long, value_name = "N", default_value_t = 100)]
    bytes: usize,
    /// Backend connections that trigger events at each node. Order is checked for each of them, not among them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::positive)]
    publishers: usize,
}

impl Cluster {
    fn publishers(&self) -> usize {
        self.publishers * (self.nodes.len() + 1)
    }
}

impl Scenario for Cluster {
    fn sockets(&self) -> usize {
        self.clients + self.publishers()
    }

    fn nodes(&self) -> &[String] {
        &self.nodes
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Report, BenchError> {
        let mut report = bench.report("cluster", self, "delivery");
        let plan = Broadcast {
            clients: self.clients,
            channels: 1,
            events: Broadcast::events(self.rate, self.duration),
            rate: Some(self.rate),
            bytes: self.bytes,
            senders: Senders::Publishers(self.publishers()),
            stalled: 0,
        };
        bench.broadcast(&plan)?.report(&mut report);
        Ok(report)
    }
}
