//! All clients lose their connection at once and come back at once, as after a restart or a network failure.

use super::{Bench, BenchError, Report, Scenario};
use crate::bench::deliveries::histogram;
use crate::bench::engine::{Deaf, Happening};
use crate::bench::setup::{OPENING, fatal};

/// The flags of `fanfare bench storm`.
#[derive(Debug, clap::Args, serde::Serialize)]
pub(crate) struct Storm {
    /// Clients that are connected, drop their connection, and come back.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = super::positive)]
    clients: usize,
    /// Channels over which the clients are spread; each subscribes to one.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::positive)]
    channels: usize,
}

impl Scenario for Storm {
    fn sockets(&self) -> usize {
        self.clients
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Report, BenchError> {
        let mut report = bench.report("storm", self, "client");
        let names: Vec<String> = (0..self.channels).map(|number| bench.channel(number)).collect();
        bench.open(0..self.clients, |_| false, &mut Deaf)?;
        bench.subscribe(0..self.clients, |client| names[client % names.len()].clone(), &mut Deaf)?;
        bench.settle(&mut Deaf)?;

        let mut latency = histogram();
        let (mut waiting, mut under_way, mut back) = (0..self.clients, 0, 0);
        let start = bench.engine.now();
        bench.meter.begin(start)?;
        (0..self.clients).for_each(|client| bench.engine.drop_connection(client));
        let mut patience = bench.patience();
        while back < self.clients {
            while under_way < OPENING
                && let Some(client) = waiting.next()
            {
                bench.engine.open(client, false)?;
                under_way += 1;
            }
            bench.engine.turn(patience.deadline().min(bench.meter.due()), &mut Deaf)?;
            while let Some(happening) = bench.engine.next_happening() {
                match happening {
                    Happening::Greeted(client) => {
                        under_way -= 1;
                        let message = bench.subscription(client, &names[client % names.len()], None);
                        bench.engine.subscribe(client, &message);
                    }
                    Happening::Subscribed(_) => {
                        back += 1;
                        latency.saturating_record((bench.engine.now() - start) / 1000);
                    }
                    other => fatal(other, "when it came back")?,
                }
            }
            bench.meter.sample_if_due(bench.engine.now(), back as u64)?;
            bench.progress.show(|| format!("{back} of {} clients are back", self.clients));
            if patience.is_over(bench.engine.now(), back as u64) {
                return Err(patience.error(format!("the return of {} clients; {back} are back", self.clients)));
            }
        }
        bench.meter.sample(bench.engine.now(), back as u64, None)?;
        let phase = bench.meter.end(bench.engine.now())?;
        report.findings = bench.hear_out(0..self.clients, &mut Deaf)?;

        let clients = self.clients as u64;
        report.add("seconds", "time until all were subscribed again", "s", phase.seconds());
        report.add("clients_per_second", "clients that came back, per second", "/s", clients as f64 / phase.seconds());
        report.maybe("cpu_us_per_client", "processor time per client", "µs", phase.cpu_us_per(clients));
        report.maybe("cpu_seconds", "processor time in all", "s", phase.cpu_ns.map(|cpu| cpu as f64 / 1e9));
        report.maybe("rss_bytes", "memory at the end", "bytes", phase.rss_bytes.map(|(_, after)| after as f64));
        report.latency = Some(latency);
        Ok(report)
    }
}
