//! Connections that do nothing: what each costs to make and to keep.

use super::{Bench, BenchError, Report, Scenario};
use crate::bench::engine::Deaf;

/// The flags of `fanfare bench idle`.
#[derive(Debug, clap::Args, serde::Serialize)]
pub(crate) struct Idle {
    /// Clients.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = super::positive)]
    clients: usize,
    /// Channels over which the clients are spread; each subscribes to one.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::positive)]
    channels: usize,
}

impl Scenario for Idle {
    fn sockets(&self) -> usize {
        self.clients
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Report, BenchError> {
        let mut report = bench.report("idle", self, "client");
        let clients = self.clients as u64;
        bench.settle(&mut Deaf)?;

        bench.meter.begin(bench.engine.now())?;
        bench.open(0..self.clients, |_| false, &mut Deaf)?;
        let opened = bench.meter.end(bench.engine.now())?;
        bench.settle(&mut Deaf)?;
        // With what the server did after the last greeting, which belongs to the connections, too.
        let open = bench.meter.end(bench.engine.now())?;

        bench.meter.begin(bench.engine.now())?;
        let names: Vec<String> = (0..self.channels).map(|number| bench.channel(number)).collect();
        bench.subscribe(0..self.clients, |client| names[client % names.len()].clone(), &mut Deaf)?;
        let subscribed = bench.meter.end(bench.engine.now())?;
        bench.settle(&mut Deaf)?;
        let subscription = bench.meter.end(bench.engine.now())?;
        report.findings = bench.hear_out(0..self.clients, &mut Deaf)?;

        let per_second = |seconds: f64| clients as f64 / seconds.max(1e-9);
        let both = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a + b);
        let (open_cpu, subscription_cpu) = (open.cpu_us_per(clients), subscription.cpu_us_per(clients));
        report.add("connections_per_second", "connections per second", "/s", per_second(opened.seconds()));
        report.maybe("cpu_us_per_connection", "processor time per connection", "µs", open_cpu);
        report.maybe("rss_bytes_per_connection", "memory per connection", "bytes", open.rss_bytes_per(clients));
        report.add("subscriptions_per_second", "subscriptions per second", "/s", per_second(subscribed.seconds()));
        report.maybe("cpu_us_per_subscription", "processor time per subscription", "µs", subscription_cpu);
        let both_cpu = both(open_cpu, subscription_cpu);
        report.maybe("cpu_us_per_subscribed_connection", "processor time for both", "µs", both_cpu);
        let both_memory = both(open.rss_bytes_per(clients), subscription.rss_bytes_per(clients));
        report.maybe("rss_bytes_per_subscribed_connection", "memory for both", "bytes", both_memory);
        report.maybe("rss_bytes", "memory at the end", "bytes", subscription.rss_bytes.map(|(_, after)| after as f64));
        report.maybe("threads", "threads", "", subscription.threads.map(|threads| threads as f64));
        Ok(report)
    }
}
