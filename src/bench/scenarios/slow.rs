//! A few clients that stop reading, among others that must not notice.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Bench, BenchError, Report, Scenario};
use crate::bench::broadcast::{Broadcast, Senders};

/// The flags of `fanfare bench slow`.
#[derive(Debug, clap::Args, serde::Serialize)]
pub(crate) struct Slow {
    /// Clients in all, subscribed to one channel.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = super::positive)]
    clients: usize,
    /// How many of them stop reading.
    #[arg(long, value_name = "N", default_value_t = 20)]
    stalled: usize,
    /// Events per second, evenly spaced.
    #[arg(long, value_name = "N", default_value_t = 500.0, value_parser = super::rate)]
    rate: f64,
    /// How long events are sent, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = super::rate)]
    duration: f64,
    /// Bytes of data of each event.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    bytes: usize,
    /// Backend connections that trigger events, each with one request under way at most.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = super::positive)]
    publishers: usize,
}

impl Scenario for Slow {
    fn sockets(&self) -> usize {
        self.clients + self.publishers
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Report, BenchError> {
        if self.stalled >= self.clients {
            return Err(BenchError::Unfit("--stalled must be less than --clients".to_owned()));
        }
        let mut report = bench.report("slow", self, "delivery");
        let plan = Broadcast {
            clients: self.clients,
            channels: 1,
            events: Broadcast::events(self.rate, self.duration),
            rate: Some(self.rate),
            bytes: self.bytes,
            senders: Senders::Publishers(self.publishers),
            stalled: self.stalled,
        };
        let outcome = bench.broadcast(&plan)?;
        let before = outcome.phase.rss_bytes.map(|(before, _)| before as f64);
        let peak = bench.meter.peak_rss().map(|peak| peak as f64);
        report.maybe("rss_peak_bytes", "memory at its peak", "bytes", peak);
        report.maybe(
            "rss_growth_bytes",
            "memory at its peak, more than before",
            "bytes",
            peak.zip(before).map(|(a, b)| a - b),
        );
        report.add("stalled_closed", "stalled clients that were closed", "", outcome.stalled.len() as f64);
        report.add("stalled_missed", "deliveries that stalled clients never got", "", outcome.stalled_missing as f64);
        let mut codes = BTreeMap::<String, usize>::new();
        for code in &outcome.stalled {
            let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
            *codes.entry(code).or_default() += 1;
        }
        report.lists.push(("stalled_close_codes", "their close codes, with how many got each", json!(codes)));
        outcome.report(&mut report);
        Ok(report)
    }
}
