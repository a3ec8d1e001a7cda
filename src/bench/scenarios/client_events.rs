//! Clients that talk to each other in small groups.

use super::{Bench, BenchError, Report, Scenario};
use crate::bench::broadcast::{Broadcast, Senders};

/// Client events per second that every server allows each client.
const LIMIT: f64 = 10.0;

/// The flags of `fanfare bench client-events`.
#[derive(Debug, clap::Args, serde::Serialize)]
pub(crate) struct ClientEvents {
    /// Clients in all.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = super::positive)]
    clients: usize,
    /// Clients in each private channel.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = super::positive)]
    group: usize,
    /// Client events per second over all clients, evenly spaced; at most 10 per client, which is what servers allow.
    #[arg(long, value_name = "N", default_value_t = 2000.0, value_parser = super::rate)]
    rate: f64,
    /// How long events are sent, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = super::rate)]
    duration: f64,
    /// Bytes of data of each event.
    #[arg(long, value_name = "N", default_value_t = 100)]
    bytes: usize,
}

impl Scenario for ClientEvents {
    fn sockets(&self) -> usize {
        self.clients
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Report, BenchError> {
        if self.rate > LIMIT * self.clients as f64 {
            let text = format!("--rate {} is more than {LIMIT} per second and client, and would be refused", self.rate);
            return Err(BenchError::Unfit(text));
        }
        let mut report = bench.report("client-events", self, "delivery");
        let plan = Broadcast {
            clients: self.clients,
            channels: self.clients.div_ceil(self.group),
            events: Broadcast::events(self.rate, self.duration),
            rate: Some(self.rate),
            bytes: self.bytes,
            senders: Senders::Clients,
            stalled: 0,
        };
        bench.broadcast(&plan)?.report(&mut report);
        Ok(report)
    }
}
