//! Publishers trigger events, clients receive them: what several scenarios do with different numbers.

use std::ops::Range;

use hdrhistogram::Histogram;
use serde_json::json;

use super::deliveries::{Deliveries, SMALLEST};
use super::engine::{Happening, Nanos};
use super::findings::Findings;
use super::meter::Phase;
use super::{Bench, BenchError, Report, backend};

/// The name of the backend's events.
const EVENT: &str = "bench";
/// The name of the clients' events.
const CLIENT_EVENT: &str = "client-bench";

/// Who sends what to whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Broadcast {
    /// Clients, spread over the channels.
    pub(super) clients: usize,
    /// Channels. Events go to one after the other.
    pub(super) channels: usize,
    /// Events to send.
    pub(super) events: u64,
    /// Events per second, evenly; `None` for as many as the publishers can.
    pub(super) rate: Option<f64>,
    /// Bytes of data of each event.
    pub(super) bytes: usize,
    /// Who sends.
    pub(super) senders: Senders,
    /// How many of the clients read nothing.
    pub(super) stalled: usize,
}

/// Who sends the events.
#[derive(Debug, Clone, Copy)]
pub(super) enum Senders {
    /// So many backend connections, each with one request under way at most.
    Publishers(usize),
    /// The clients, one after the other, as client events on private channels.
    Clients,
}

/// What came of it.
pub(super) struct Broadcasted {
    /// From the first request to the last delivery.
    pub(super) phase: Phase,
    /// Deliveries to clients that read.
    pub(super) deliveries: u64,
    /// Events that were sent.
    pub(super) events: u64,
    /// From the first request to the last answer.
    pub(super) publishing: Nanos,
    /// In microseconds.
    pub(super) latency: Histogram<u64>,
    /// What was wrong.
    pub(super) findings: Findings,
    /// Stalled clients that the server closed, with the code if one came.
    pub(super) stalled: Vec<Option<u16>>,
    /// Deliveries that stalled clients never got.
    pub(super) stalled_missing: u64,
}

impl Broadcast {
    /// Events that a steady rate makes in some seconds.
    pub(super) fn events(rate: f64, duration: f64) -> u64 {
        (rate * duration).round().max(1.0) as u64
    }

    /// Sockets it needs.
    pub(super) fn sockets(&self) -> usize {
        self.clients + self.publishers()
    }

    fn publishers(&self) -> usize {
        if let Senders::Publishers(count) = self.senders { count } else { 0 }
    }

    /// Senders of one channel at most: each has its own numbers there.
    fn streams(&self) -> usize {
        match self.senders {
            Senders::Publishers(count) => count,
            Senders::Clients => self.clients.div_ceil(self.channels),
        }
    }

    /// The stream that a client sends, if clients send.
    fn own_stream(&self, client: usize) -> Option<usize> {
        matches!(self.senders, Senders::Clients).then_some(client / self.channels)
    }

    fn check(&self) -> Result<(), BenchError> {
        if self.bytes < SMALLEST {
            let text =
                format!("--bytes {} is too small: each event carries its number in {SMALLEST} bytes", self.bytes);
            return Err(BenchError::Unfit(text));
        }
        if self.channels > self.clients {
            return Err(BenchError::Unfit("there must be at least as many clients as channels".to_owned()));
        }
        Ok(())
    }
}

impl Bench<'_> {
    /// Connects and subscribes the clients, sends the events, and waits for all deliveries.
    pub(super) fn broadcast(&mut self, plan: &Broadcast) -> Result<Broadcasted, BenchError> {
        plan.check()?;
        let (kind, event) = match plan.senders {
            Senders::Publishers(_) => ("", EVENT),
            Senders::Clients => ("private-", CLIENT_EVENT),
        };
        let names: Vec<String> = (0..plan.channels).map(|number| format!("{kind}{}", self.channel(number))).collect();
        let mut deliveries = Deliveries::new(event, names.clone(), plan.streams(), plan.bytes);
        // Those that read come first.
        let reading = plan.clients - plan.stalled;
        self.open(0..plan.clients, |client| client >= reading, &mut deliveries)?;
        self.subscribe(0..plan.clients, |client| names[client % plan.channels].clone(), &mut deliveries)?;
        for client in 0..plan.clients {
            deliveries.add_client(client % plan.channels, plan.own_stream(client));
            if client >= reading {
                deliveries.stop_expecting(client);
                self.engine.stall(client);
            }
        }
        for number in 0..plan.publishers() {
            let target = &self.settings.targets[number % self.settings.targets.len()];
            self.engine.add_publisher(target)?;
        }
        self.settle(&mut deliveries)?;
        let mut run = Run { plan: *plan, sent: 0, answered: 0, publishing: 0, found: Findings::default() };
        let begun = self.engine.now();
        self.meter.begin(begun)?;
        let complete = run.drive(self, &mut deliveries)?;
        let phase = self.meter.end(self.engine.now())?;
        let delivered = deliveries.delivered();
        if complete {
            run.found.merge(self.hear_out(0..reading, &mut deliveries)?);
        }
        let stalled = self.wake(reading..plan.clients, &mut deliveries)?;
        let stalled_missing = (reading..plan.clients).map(|client| deliveries.missing(client)).sum();
        let (mut findings, latency) = deliveries.finish(|client| client >= reading);
        findings.merge(run.found);
        let publishing = run.publishing.saturating_sub(begun);
        let (deliveries, events) = (delivered, run.sent);
        Ok(Broadcasted { phase, deliveries, events, publishing, latency, findings, stalled, stalled_missing })
    }

    /// Lets clients that had stopped reading read on. Returns the fate of those that the server has closed.
    fn wake(&mut self, clients: Range<usize>, deliveries: &mut Deliveries) -> Result<Vec<Option<u16>>, BenchError> {
        let total = clients.len();
        for client in clients {
            self.engine.resume(client, deliveries);
            if self.engine.is_open(client) {
                self.engine.send(client, r#"{"event":"pusher:ping","data":{}}"#);
            }
        }
        let (mut fates, mut answered, mut patience) = (Vec::new(), 0, self.patience());
        loop {
            while let Some(happening) = self.engine.next_happening() {
                match happening {
                    Happening::Closed { code, .. } => fates.push(code),
                    Happening::Ponged => answered += 1,
                    _ => {}
                }
            }
            // Whoever is neither answered nor closed has been forgotten; that is for the server to explain.
            if answered + fates.len() >= total || patience.is_over(self.engine.now(), (answered + fates.len()) as u64) {
                return Ok(fates);
            }
            self.engine.turn(patience.deadline(), deliveries)?;
        }
    }
}

/// A broadcast under way.
struct Run {
    plan: Broadcast,
    sent: u64,
    answered: u64,
    publishing: Nanos,
    found: Findings,
}

impl Run {
    /// Sends all events and waits for all deliveries. Returns whether all came before patience was lost.
    fn drive(&mut self, bench: &mut Bench<'_>, deliveries: &mut Deliveries) -> Result<bool, BenchError> {
        let start = bench.engine.now();
        let mut patience = bench.patience();
        loop {
            self.send(bench, deliveries, start)?;
            let now = bench.engine.now();
            let (received, expected) = deliveries.progress();
            if bench.meter.due() <= now {
                bench.meter.sample(now, deliveries.delivered(), Some(&deliveries.take_recent()))?;
            }
            if self.answered == self.plan.events && deliveries.is_complete() {
                bench.meter.sample(now, deliveries.delivered(), Some(&deliveries.take_recent()))?;
                return Ok(true);
            }
            // Between two events of a slow rate nothing is awaited, and nothing needs patience.
            let awaited = self.answered < self.sent || !deliveries.is_complete();
            if patience.is_over(now, if awaited { received + self.answered } else { now }) {
                if self.answered < self.sent {
                    return Err(patience.error(format!(
                        "the answer to trigger {} of {}",
                        self.answered + 1,
                        self.sent
                    )));
                }
                return Ok(false);
            }
            let Self { sent, plan, .. } = *self;
            bench
                .progress
                .show(|| format!("{sent} of {} events sent, {received} of {expected} delivered", plan.events));
            let until = bench.meter.due().min(patience.deadline()).min(self.due(bench, start));
            bench.engine.turn(until, deliveries)?;
            while let Some(happening) = bench.engine.next_happening() {
                self.note(&happening, deliveries, bench.engine.now());
            }
        }
    }

    /// When the next event should be sent, at a steady rate.
    fn schedule(&self, start: Nanos) -> Option<Nanos> {
        self.plan.rate.map(|rate| start + (self.sent as f64 * 1e9 / rate) as Nanos)
    }

    /// When the next event can be sent.
    fn due(&self, bench: &Bench<'_>, start: Nanos) -> Nanos {
        let idle = match self.plan.senders {
            Senders::Publishers(count) => (0..count).any(|publisher| bench.engine.is_idle(publisher)),
            Senders::Clients => true,
        };
        match idle && self.sent < self.plan.events {
            true => self.schedule(start).unwrap_or(0),
            false => Nanos::MAX,
        }
    }

    /// Sends all events that are due, as far as publishers are free.
    fn send(&mut self, bench: &mut Bench<'_>, deliveries: &mut Deliveries, start: Nanos) -> Result<(), BenchError> {
        while self.due(bench, start) <= bench.engine.now() {
            match self.plan.senders {
                Senders::Publishers(count) => self.publish(bench, deliveries, count, start)?,
                Senders::Clients => self.send_from_client(bench, deliveries),
            }
            self.sent += 1;
        }
        Ok(())
    }

    /// Triggers one event over one of the publishers, of which one is free.
    fn publish(
        &self,
        bench: &mut Bench<'_>,
        deliveries: &mut Deliveries,
        publishers: usize,
        start: Nanos,
    ) -> Result<(), BenchError> {
        let first = self.sent as usize;
        let mut candidates = (first..first + publishers).map(|number| number % publishers);
        let Some(publisher) = candidates.find(|&publisher| bench.engine.is_idle(publisher)) else { return Ok(()) };
        let channel = first % self.plan.channels;
        let data = deliveries.data(channel, publisher);
        let body = json!({ "name": EVENT, "channels": [deliveries.channel_name(channel)], "data": data });
        let target = &bench.settings.targets[publisher % bench.settings.targets.len()];
        let request = backend::request(target, "events", &body.to_string());
        // Signed before the clock starts: a backend's own work is no latency of the server.
        let now = bench.engine.now();
        // An event that had to wait for the answer to another one is late already: the server shall not look faster the
        // slower it answers.
        let held_up = self.schedule(start).filter(|&due| due < self.publishing);
        deliveries.sent(channel, publisher, held_up.unwrap_or(now));
        bench.engine.request(publisher, request, now)
    }

    /// Sends one event from the client whose turn it is.
    fn send_from_client(&mut self, bench: &mut Bench<'_>, deliveries: &mut Deliveries) {
        let client = self.sent as usize % self.plan.clients;
        // Nobody answers a client event.
        self.answered += 1;
        self.publishing = bench.engine.now();
        let (channel, stream) = (client % self.plan.channels, client / self.plan.channels);
        if !bench.engine.is_open(client) {
            return;
        }
        let data = deliveries.data(channel, stream);
        let message = json!({ "event": CLIENT_EVENT, "channel": deliveries.channel_name(channel), "data": data });
        let message = message.to_string();
        deliveries.sent_by(client, bench.engine.now());
        bench.engine.send(client, &message);
    }

    fn note(&mut self, happening: &Happening, deliveries: &mut Deliveries, now: Nanos) {
        match happening {
            Happening::Answered { .. } => {
                self.answered += 1;
                self.publishing = now;
            }
            Happening::Closed { client, .. } => deliveries.stop_expecting(*client),
            _ => {}
        }
        self.found.note(happening);
    }
}

impl Broadcasted {
    /// Puts into a report what all broadcasts have in common.
    pub(super) fn report(self, report: &mut Report) {
        let seconds = self.phase.seconds().max(1e-9);
        report.maybe(
            "cpu_us_per_delivery",
            "processor time per delivery",
            "µs",
            self.phase.cpu_us_per(self.deliveries),
        );
        report.maybe("cpu_us_per_event", "processor time per event", "µs", self.phase.cpu_us_per(self.events));
        report.add("deliveries", "deliveries", "", self.deliveries as f64);
        report.add("deliveries_per_second", "deliveries per second", "/s", self.deliveries as f64 / seconds);
        report.add("events", "events", "", self.events as f64);
        let publishing = (self.publishing as f64 / 1e9).max(1e-9);
        report.add("events_per_second", "events per second", "/s", self.events as f64 / publishing);
        report.add("seconds", "time from the first event to the last delivery", "s", self.phase.seconds());
        report.maybe("rss_bytes", "memory at the end", "bytes", self.phase.rss_bytes.map(|(_, after)| after as f64));
        report.maybe("threads", "threads", "", self.phase.threads.map(|threads| threads as f64));
        report.latency = Some(self.latency);
        report.findings = self.findings;
    }
}
