//! Many channels with a few subscribers each.

use super::{Bench, BenchError, Report, Scenario};
use crate::bench::broadcast::{Broadcast, Senders};

/// The flags of `fanfare bench many`.
#[derive(Debug, clap::Args, serde::Serialize)]
pub(crate) struct Many {
    /// Clients, spread evenly over the channels.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = super::positive)]
    clients: usize,
    /// Channels; events go to one after the other.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = super::positive)]
    channels: usize,
    /// Events per second over all channels, evenly spaced.
    #[arg(long, value_name = "N", default_value_t = 1000.0, value_parser = super::rate)]
    rate: f64,
    /// How long events are sent, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = super::rate)]
    duration: f64,
    /// Bytes of data of each event.
    #[arg(long, value_name = "N", default_value_t = 100)]
    bytes: usize,
    /// Backend connections that trigger events, each with one request under way at most.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = super::positive)]
    publishers: usize,
}

impl Scenario for Many {
    fn sockets(&self) -> usize {
        self.clients + self.publishers
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Report, BenchError> {
        let mut report = bench.report("many", self, "delivery");
        let plan = Broadcast {
            clients: self.clients,
            channels: self.channels,
            events: Broadcast::events(self.rate, self.duration),
            rate: Some(self.rate),
            bytes: self.bytes,
            senders: Senders::Publishers(self.publishers),
            stalled: 0,
        };
        bench.broadcast(&plan)?.report(&mut report);
        Ok(report)
    }
}
