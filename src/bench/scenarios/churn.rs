//! Clients that come and go: what a visit costs, and whether anything of it stays behind.

use serde_json::json;

use super::{Bench, BenchError, Report, Scenario};
use crate::bench::engine::{Deaf, Happening};
use crate::bench::findings::Findings;

/// Parts of a run after which the memory is looked at.
const PARTS: usize = 10;

/// The flags of `fanfare bench churn`.
#[derive(Debug, clap::Args, serde::Serialize)]
pub(crate) struct Churn {
    /// Visits in all: connect, subscribe, disconnect.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = super::positive)]
    cycles: usize,
    /// Visits under way at once, each on a channel of its own.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = super::positive)]
    concurrency: usize,
}

impl Scenario for Churn {
    fn sockets(&self) -> usize {
        self.concurrency
    }

    fn run(&self, bench: &mut Bench<'_>) -> Result<Report, BenchError> {
        let mut report = bench.report("churn", self, "visit");
        let mut found = Findings::default();
        let (mut begun, mut ended, mut patience) = (0, 0, bench.patience());
        // Cycles and the memory after them.
        let mut memory: Vec<(f64, f64)> = Vec::new();
        bench.settle(&mut Deaf)?;
        bench.meter.begin(bench.engine.now())?;
        while begun < self.concurrency.min(self.cycles) {
            bench.engine.open(begun, false)?;
            begun += 1;
        }
        while ended < self.cycles {
            bench.engine.turn(patience.deadline().min(bench.meter.due()), &mut Deaf)?;
            while let Some(happening) = bench.engine.next_happening() {
                found.note(&happening);
                match happening {
                    Happening::Greeted(client) => {
                        let message = bench.subscription(client, &bench.channel(client), None);
                        bench.engine.subscribe(client, &message);
                    }
                    Happening::Subscribed(client) => bench.engine.leave(client),
                    Happening::Refused { text, client } => return Err(BenchError::ClientRefused { client, text }),
                    Happening::Closed { client, .. } => {
                        ended += 1;
                        if begun < self.cycles {
                            bench.engine.open(client, false)?;
                            begun += 1;
                        }
                    }
                    _ => {}
                }
            }
            // Short parts may end together.
            while ended * PARTS >= self.cycles * (memory.len() + 1)
                && let Some(usage) = bench.meter.usage()?
            {
                memory.push((ended as f64, usage.rss_bytes as f64));
            }
            bench.meter.sample_if_due(bench.engine.now(), ended as u64)?;
            bench.progress.show(|| format!("{ended} of {} visits", self.cycles));
            if patience.is_over(bench.engine.now(), ended as u64) {
                return Err(patience.error(format!("the end of {} visits; {ended} ended", self.cycles)));
            }
        }
        bench.meter.sample(bench.engine.now(), ended as u64, None)?;
        let phase = bench.meter.end(bench.engine.now())?;

        let cycles = self.cycles as u64;
        report.maybe("cpu_us_per_cycle", "processor time per visit", "µs", phase.cpu_us_per(cycles));
        report.add("cycles", "visits", "", cycles as f64);
        report.add("cycles_per_second", "visits per second", "/s", cycles as f64 / phase.seconds());
        report.add("seconds", "time for all", "s", phase.seconds());
        report.maybe("rss_bytes", "memory at the end", "bytes", phase.rss_bytes.map(|(_, after)| after as f64));
        // Without the first part, in which every allocator still grows.
        report.maybe("rss_slope_bytes_per_cycle", "memory that stays, per visit", "bytes", slope(memory.get(1..)));
        if !memory.is_empty() {
            let parts: Vec<u64> = memory.iter().map(|(_, rss)| *rss as u64).collect();
            report.lists.push(("rss_bytes_after_each_tenth", "memory after each tenth of the run", json!(parts)));
        }
        report.findings = found;
        Ok(report)
    }
}

/// The slope of the line that fits best, with at least three points.
fn slope(points: Option<&[(f64, f64)]>) -> Option<f64> {
    let points = points.filter(|points| points.len() >= 3)?;
    let mean = |values: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(values).sum::<f64>() / points.len() as f64;
    let (x_mean, y_mean) = (mean(&|point| point.0), mean(&|point| point.1));
    let covariance: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    (variance > 0.0).then(|| covariance / variance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_of_the_line_through_the_points() {
        assert_eq!(slope(Some(&[(1.0, 5.0), (2.0, 7.0), (3.0, 9.0)])), Some(2.0));
        assert_eq!(slope(Some(&[(1.0, 5.0), (2.0, 7.0)])), None);
        assert_eq!(slope(None), None);
    }
}
