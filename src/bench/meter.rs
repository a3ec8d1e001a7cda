//! Measures a phase: processor time, memory, and how both go over time.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::BenchError;
use super::engine::Nanos;
use super::process::{Processes, Usage};

/// Time between two samples.
const INTERVAL: Nanos = 250_000_000;

/// Looks at the measured processes, if any, from time to time.
pub(super) struct Meter {
    processes: Processes,
    begun: Mark,
    last: Mark,
    samples: Vec<Sample>,
    /// When the first phase began: the zero of all samples.
    origin: Option<Nanos>,
    /// Whether a phase has begun and not ended.
    running: bool,
    peak_rss: u64,
}

/// A moment of a run.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    at: Nanos,
    usage: Option<Usage>,
    count: u64,
}

/// What happened in a short time.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Its end, since the first phase began.
    pub(super) at: Nanos,
    /// Deliveries, or whatever the scenario counts, in it.
    pub(super) count: u64,
    /// Processor time in it.
    pub(super) cpu_ns: Option<u64>,
    /// Memory at its end.
    pub(super) rss_bytes: Option<u64>,
    /// Latencies in it: 50th and 99th percentile and the largest, in microseconds.
    pub(super) latency_us: Option<[u64; 3]>,
}

/// What a phase took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phase {
    /// From its beginning to its end.
    pub(super) took: Nanos,
    /// Processor time.
    pub(super) cpu_ns: Option<u64>,
    /// At its beginning and at its end.
    pub(super) rss_bytes: Option<(u64, u64)>,
    /// At its end.
    pub(super) threads: Option<u64>,
}

impl Phase {
    /// Its length in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.took as f64 / 1e9
    }

    /// Processor time for each of `count`, in microseconds.
    pub(super) fn cpu_us_per(&self, count: u64) -> Option<f64> {
        self.cpu_ns.map(|cpu| cpu as f64 / 1e3 / count.max(1) as f64)
    }

    /// How much the memory grew, for each of `count`, in bytes.
    pub(super) fn rss_bytes_per(&self, count: u64) -> Option<f64> {
        self.rss_bytes.map(|(before, after)| (after as f64 - before as f64) / count.max(1) as f64)
    }
}

impl Meter {
    /// A meter for these processes.
    pub(super) fn new(pids: &[u32]) -> Result<Self, BenchError> {
        let processes = Processes::new(pids)?;
        let (begun, last) = (Mark::default(), Mark::default());
        Ok(Self { processes, begun, last, samples: Vec::new(), origin: None, running: false, peak_rss: 0 })
    }

    /// What the processes use now.
    pub(super) fn usage(&mut self) -> Result<Option<Usage>, BenchError> {
        self.processes.usage()
    }

    /// A phase begins.
    pub(super) fn begin(&mut self, now: Nanos) -> Result<(), BenchError> {
        let mark = Mark { at: now, usage: self.processes.usage()?, count: 0 };
        self.peak_rss = mark.usage.map_or(0, |usage| usage.rss_bytes);
        (self.begun, self.last) = (mark, mark);
        self.origin.get_or_insert(now);
        self.running = true;
        Ok(())
    }

    /// When the next sample is due: never while nothing is measured.
    pub(super) fn due(&self) -> Nanos {
        if self.running { self.last.at + INTERVAL } else { Nanos::MAX }
    }

    /// Takes a sample if it is due.
    pub(super) fn sample_if_due(&mut self, now: Nanos, count: u64) -> Result<(), BenchError> {
        if self.due() <= now { self.sample(now, count, None) } else { Ok(()) }
    }

    /// Takes a sample. `count` is what was counted since the phase began.
    pub(super) fn sample(
        &mut self,
        now: Nanos,
        count: u64,
        latency: Option<&Histogram<u64>>,
    ) -> Result<(), BenchError> {
        let usage = self.processes.usage()?;
        let latency = latency.filter(|latency| !latency.is_empty());
        let cpu_ns = usage.zip(self.last.usage).map(|(now, last)| now.cpu_ns.saturating_sub(last.cpu_ns));
        self.peak_rss = self.peak_rss.max(usage.map_or(0, |usage| usage.rss_bytes));
        self.samples.push(Sample {
            at: now - self.origin.unwrap_or(now),
            count: count.saturating_sub(self.last.count),
            cpu_ns,
            rss_bytes: usage.map(|usage| usage.rss_bytes),
            latency_us: latency
                .map(|latency| [latency.value_at_quantile(0.5), latency.value_at_quantile(0.99), latency.max()]),
        });
        self.last = Mark { at: now, usage, count };
        Ok(())
    }

    /// The phase is over. May be called again, to include what the processes did afterwards.
    pub(super) fn end(&mut self, now: Nanos) -> Result<Phase, BenchError> {
        self.running = false;
        let usage = self.processes.usage()?;
        self.peak_rss = self.peak_rss.max(usage.map_or(0, |usage| usage.rss_bytes));
        let both = usage.zip(self.begun.usage);
        Ok(Phase {
            took: now - self.begun.at,
            cpu_ns: both.map(|(now, begun)| now.cpu_ns.saturating_sub(begun.cpu_ns)),
            rss_bytes: both.map(|(now, begun)| (begun.rss_bytes, now.rss_bytes)),
            threads: usage.map(|usage| usage.threads),
        })
    }

    /// The most memory that was seen since the phase began.
    pub(super) fn peak_rss(&self) -> Option<u64> {
        self.begun.usage.map(|_| self.peak_rss)
    }

    /// All samples since the last call.
    pub(super) fn take_samples(&mut self) -> Vec<Sample> {
        std::mem::take(&mut self.samples)
    }
}

impl Sample {
    /// The sample under the names of the JSON result.
    pub(super) fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("t_ms".to_owned(), json!(self.at / 1_000_000));
        object.insert("count".to_owned(), json!(self.count));
        if let Some(cpu) = self.cpu_ns {
            object.insert("cpu_us".to_owned(), json!(cpu / 1000));
        }
        if let Some(rss) = self.rss_bytes {
            object.insert("rss_bytes".to_owned(), json!(rss));
        }
        if let Some([p50, p99, max]) = self.latency_us {
            object.insert("p50_us".to_owned(), json!(p50));
            object.insert("p99_us".to_owned(), json!(p99));
            object.insert("max_us".to_owned(), json!(max));
        }
        Value::Object(object)
    }
}
