//! Events on one channel with many subscribers, as fast as the publishers can.

use super::{Bench, BenchError, Report, Scenario};
use crate::bench::broadcast::{Broadcast, Senders};

/// The flags of `fanfare bench burst`.
#[derive(Debug, clap::Args, serde::Serialize)]
pub(crate) struct Burst {
    /// Clients, all subscribed to one channel.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = super::positive)]
    clients: usize,
    /// Events in all.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = super::positive)]
    events: usize,
    /// Bytes of data of each event.
    #[arg(long, value_name = "N", default_value_t = 100)]
    bytes: usize,
    /// Backend connections that trigger events, each with one request under way at most.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = super::positive)]
    publishers: usize,
}

impl Scenario for Burst {
    fn sockets(&self) -> usize {
        self.clients + self.publishers
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Report, BenchError> {
        let mut report = bench.report("burst", self, "delivery");
        let plan = Broadcast {
            clients: self.clients,
            channels: 1,
            events: self.events as u64,
            rate: None,
            bytes: self.bytes,
            senders: Senders::Publishers(self.publishers),
            stalled: 0,
        };
        bench.broadcast(&plan)?.report(&mut report);
        Ok(report)
    }
}
