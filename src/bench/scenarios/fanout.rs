//! Events on one channel with many subscribers, at a steady rate.

use super::{Bench, BenchError, Report, Scenario, Transport};
use crate::bench::broadcast::{Broadcast, Senders};

/// The flags of `fanfare bench fanout`.
#[derive(Debug, clap::Args, serde::Serialize)]
pub(crate) struct Fanout {
    /// Clients, all subscribed to one channel.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = super::positive)]
    clients: usize,
    /// Events per second, evenly spaced.
    #[arg(long, value_name = "N", default_value_t = 100.0, value_parser = super::rate)]
    rate: f64,
    /// How long events are sent, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = super::rate)]
    duration: f64,
    /// Bytes of data of each event.
    #[arg(long, value_name = "N", default_value_t = 100)]
    bytes: usize,
    /// Backend connections that trigger events, each with one request under way at most.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::positive)]
    publishers: usize,
    /// How the clients are connected: websocket, xhr_streaming, xhr_polling, or over SockJS by sockjs (its WebSocket),
    /// eventsource, htmlfile or jsonp.
    #[arg(long, value_name = "NAME", value_enum, default_value_t, hide_possible_values = true)]
    transport: Transport,
}

impl Fanout {
    fn plan(&self) -> Broadcast {
        Broadcast {
            clients: self.clients,
            channels: 1,
            events: Broadcast::events(self.rate, self.duration),
            rate: Some(self.rate),
            bytes: self.bytes,
            senders: Senders::Publishers(self.publishers),
            stalled: 0,
        }
    }
}

impl Scenario for Fanout {
    fn sockets(&self) -> usize {
        self.plan().sockets()
    }

    fn transport(&self) -> Transport {
        self.transport
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Report, BenchError> {
        let mut report = bench.report("fanout", self, "delivery");
        bench.broadcast(&self.plan())?.report(&mut report);
        Ok(report)
    }
}
