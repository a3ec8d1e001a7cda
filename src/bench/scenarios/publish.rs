//! The HTTP API alone: events that nobody hears.

use serde_json::{Value, json};

use super::{Bench, BenchError, Report, Scenario};
use crate::bench::backend;
use crate::bench::deliveries::histogram;
use crate::bench::engine::{Deaf, Happening, Nanos};

/// Requests that are signed beforehand and sent in turn: signing would be a good part of our own work.
const PREPARED: usize = 64;
/// When they are signed anew; servers take a signature for 600 s.
const PREPARED_FOR: Nanos = 240_000_000_000;

/// The flags of `fanfare bench publish`.
#[derive(Debug, clap::Args, serde::Serialize)]
pub(crate) struct Publish {
    /// Requests in all.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = super::positive)]
    requests: usize,
    /// Events in each request: 0 or 1 for single events, else batches, of which servers allow up to 10.
    #[arg(long, value_name = "N", default_value_t = 0)]
    batch: usize,
    /// Bytes of data of each event.
    #[arg(long, value_name = "N", default_value_t = 100)]
    bytes: usize,
    /// Backend connections, each with one request under way at most.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = super::positive)]
    publishers: usize,
}

impl Publish {
    fn prepare(&self, bench: &Bench<'_>) -> Vec<Vec<u8>> {
        let (target, data) = (&bench.settings.targets[0], "x".repeat(self.bytes));
        let event = |number: usize| json!({ "name": "bench", "channel": bench.channel(number), "data": data });
        let request = |number: usize| match self.batch {
            0 | 1 => {
                let body = json!({ "name": "bench", "channels": [bench.channel(number)], "data": data });
                backend::request(target, "events", &body.to_string())
            }
            size => {
                let events: Vec<Value> = (0..size).map(|index| event(number * size + index)).collect();
                backend::request(target, "batch_events", &json!({ "batch": events }).to_string())
            }
        };
        (0..PREPARED).map(request).collect()
    }
}

impl Scenario for Publish {
    fn sockets(&self) -> usize {
        self.publishers
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Report, BenchError> {
        let mut report = bench.report("publish", self, "request");
        for _ in 0..self.publishers {
            bench.engine.add_publisher(&bench.settings.targets[0])?;
        }
        let mut requests = self.prepare(bench);
        let mut prepared = bench.engine.now();
        bench.settle(&mut Deaf)?;
        let (mut latency, mut recent) = (histogram(), histogram());
        let (mut sent, mut answered, mut patience) = (0, 0, bench.patience());
        let mut idle: Vec<usize> = (0..self.publishers).collect();
        bench.meter.begin(bench.engine.now())?;
        while answered < self.requests {
            while sent < self.requests
                && let Some(publisher) = idle.pop()
            {
                bench.engine.request(publisher, requests[sent % PREPARED].clone(), bench.engine.now())?;
                sent += 1;
            }
            bench.engine.turn(patience.deadline().min(bench.meter.due()), &mut Deaf)?;
            while let Some(happening) = bench.engine.next_happening() {
                if let Happening::Answered { publisher, took } = happening {
                    answered += 1;
                    idle.push(publisher);
                    latency.saturating_record(took / 1000);
                    recent.saturating_record(took / 1000);
                }
            }
            let now = bench.engine.now();
            if bench.meter.due() <= now {
                bench.meter.sample(now, answered as u64, Some(&recent))?;
                recent.reset();
            }
            if now - prepared > PREPARED_FOR {
                (requests, prepared) = (self.prepare(bench), now);
            }
            bench.progress.show(|| format!("{answered} of {} requests answered", self.requests));
            if patience.is_over(now, answered as u64) {
                return Err(patience.error(format!("answers to {} requests; {answered} came", self.requests)));
            }
        }
        bench.meter.sample(bench.engine.now(), answered as u64, Some(&recent))?;
        let phase = bench.meter.end(bench.engine.now())?;

        let (requests, events) = (self.requests as u64, (self.requests * self.batch.max(1)) as u64);
        report.maybe("cpu_us_per_request", "processor time per request", "µs", phase.cpu_us_per(requests));
        report.maybe("cpu_us_per_event", "processor time per event", "µs", phase.cpu_us_per(events));
        report.add("requests", "requests", "", requests as f64);
        report.add("requests_per_second", "requests per second", "/s", requests as f64 / phase.seconds());
        report.add("events_per_second", "events per second", "/s", events as f64 / phase.seconds());
        report.add("seconds", "time for all", "s", phase.seconds());
        report.maybe("rss_bytes", "memory at the end", "bytes", phase.rss_bytes.map(|(_, after)| after as f64));
        report.maybe("threads", "threads", "", phase.threads.map(|threads| threads as f64));
        report.latency = Some(latency);
        Ok(report)
    }
}
