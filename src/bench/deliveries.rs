//! Who should have received what: checks every delivery and takes its time.
//!
//! The data of an event is `SSSSSSNNNNNNNN:xxxx…`: the number of the stream and the number of the event in it, then
//! filling. A *stream* is what one publisher sends to one channel. Over one connection it has an order, so each client
//! only keeps the next number of each stream; a gap is remembered until it is filled or the run ends.

use std::collections::HashMap;
use std::ops::Range;

use hdrhistogram::Histogram;
use serde::Deserialize;

use super::engine::{Listener, Nanos};
use super::findings::{Findings, Kind};

/// Digits of a stream's number.
const STREAM_DIGITS: usize = 6;
/// Digits of an event's number.
const EVENT_DIGITS: usize = 8;
const DIGITS: usize = STREAM_DIGITS + EVENT_DIGITS;
/// The smallest data that can be told from others: the digits and a colon.
pub(super) const SMALLEST: usize = DIGITS + 1;

/// All channels, all clients, and what they received so far.
pub(super) struct Deliveries {
    event: &'static str,
    streams: usize,
    filling: String,
    channels: Vec<Channel>,
    clients: Vec<Client>,
    /// The next event of each client and stream: `streams` in a row for each client.
    next: Vec<u32>,
    /// What is missing before the next one, for the few slots where something is.
    gaps: HashMap<usize, Vec<Range<u32>>>,
    /// Deliveries that open, reading clients should get, as far as sent.
    expected: u64,
    /// Deliveries they got, each counted once.
    received: u64,
    /// The same, with those of clients that were open when they got them and are not any more.
    delivered: u64,
    findings: Findings,
    /// Latencies in microseconds, of the whole run and since they were last taken.
    latency: Histogram<u64>,
    recent: Histogram<u64>,
}

struct Channel {
    name: String,
    /// When each event of each stream was sent.
    sent: Vec<Vec<Nanos>>,
    /// Open clients that read.
    readers: u64,
    /// The bytes around the digits, once a delivery was seen.
    template: Option<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Copy)]
struct Client {
    channel: usize,
    /// The stream it sends itself and must not hear.
    own: Option<usize>,
    /// Whether it reads, so that what it does not get is lost.
    reads: bool,
}

/// A delivery as a server may spell it.
#[derive(Deserialize)]
struct Envelope {
    event: String,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    data: serde_json::Value,
}

impl Deliveries {
    /// Nobody has sent anything yet. `bytes` is the length of the data of each event, at least [`SMALLEST`].
    pub(super) fn new(event: &'static str, channels: Vec<String>, streams: usize, bytes: usize) -> Self {
        let channel = |name| Channel { name, sent: vec![Vec::new(); streams], readers: 0, template: None };
        Self {
            event,
            streams,
            filling: "x".repeat(bytes.saturating_sub(SMALLEST)),
            channels: channels.into_iter().map(channel).collect(),
            clients: Vec::new(),
            next: Vec::new(),
            gaps: HashMap::new(),
            expected: 0,
            received: 0,
            delivered: 0,
            findings: Findings::default(),
            latency: histogram(),
            recent: histogram(),
        }
    }

    /// The next client is subscribed to this channel, and sends the stream `own` if it sends at all.
    pub(super) fn add_client(&mut self, channel: usize, own: Option<usize>) {
        self.clients.push(Client { channel, own, reads: true });
        self.next.resize(self.next.len() + self.streams, 0);
        self.channels[channel].readers += 1;
    }

    /// A channel's name.
    pub(super) fn channel_name(&self, channel: usize) -> &str {
        &self.channels[channel].name
    }

    /// What a client does not get any more is not waited for.
    pub(super) fn stop_expecting(&mut self, client: usize) {
        let Client { channel, reads, .. } = self.clients[client];
        if reads {
            let got = self.got(client);
            self.clients[client].reads = false;
            self.channels[channel].readers -= 1;
            self.expected -= self.due(client);
            self.received -= got;
        }
    }

    /// The data of the next event of a stream.
    pub(super) fn data(&self, channel: usize, stream: usize) -> String {
        let event = self.channels[channel].sent[stream].len();
        format!("{stream:0STREAM_DIGITS$}{event:0EVENT_DIGITS$}:{}", self.filling)
    }

    /// Notes that this event is sent now.
    pub(super) fn sent(&mut self, channel: usize, stream: usize, now: Nanos) {
        let Channel { sent, readers, .. } = &mut self.channels[channel];
        sent[stream].push(now);
        self.expected += *readers;
    }

    /// The same for an event that a client sends, which it does not hear itself.
    pub(super) fn sent_by(&mut self, client: usize, now: Nanos) {
        let Client { channel, own, reads } = self.clients[client];
        self.sent(channel, own.unwrap_or_default(), now);
        self.expected -= u64::from(reads);
    }

    /// Whether everything that was sent has come to everybody who is still there.
    pub(super) fn is_complete(&self) -> bool {
        self.received >= self.expected
    }

    /// Deliveries so far, to whomever.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Deliveries so far, of those expected.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.received, self.expected)
    }

    /// The latencies since the last call.
    pub(super) fn take_recent(&mut self) -> Histogram<u64> {
        std::mem::replace(&mut self.recent, histogram())
    }

    /// What of all that was sent never came to this client.
    pub(super) fn missing(&self, client: usize) -> u64 {
        self.due(client).saturating_sub(self.got(client))
    }

    /// The end: whatever is missing is lost. Clients in `excused` are left out.
    pub(super) fn finish(mut self, excused: impl Fn(usize) -> bool) -> (Findings, Histogram<u64>) {
        for client in (0..self.clients.len()).filter(|&client| !excused(client)) {
            let missing = self.missing(client);
            let name = &self.channels[self.clients[client].channel].name;
            let first = || format!("client {client} missed {} on {name}", self.first_missing(client));
            let first = (missing > 0).then(first).unwrap_or_default();
            self.findings.add(Kind::Lost, missing, || first);
        }
        (self.findings, self.latency)
    }

    /// Events that were sent for this client.
    fn due(&self, client: usize) -> u64 {
        let Client { channel, own, .. } = self.clients[client];
        let sent = self.channels[channel].sent.iter().enumerate();
        sent.filter(|(stream, _)| own != Some(*stream)).map(|(_, sent)| sent.len() as u64).sum()
    }

    /// Different events that came to it.
    fn got(&self, client: usize) -> u64 {
        let slots = client * self.streams..(client + 1) * self.streams;
        let missing = |slot| self.gaps.get(&slot).into_iter().flatten().map(|gap| gap.len() as u64).sum::<u64>();
        slots.map(|slot| u64::from(self.next[slot]) - missing(slot)).sum()
    }

    fn first_missing(&self, client: usize) -> String {
        let Client { channel, own, .. } = self.clients[client];
        for stream in (0..self.streams).filter(|&stream| own != Some(stream)) {
            let slot = client * self.streams + stream;
            let gap = self.gaps.get(&slot).and_then(|gaps| gaps.first()).map(|gap| gap.start);
            let behind = (self.next[slot] as usize) < self.channels[channel].sent[stream].len();
            if let Some(event) = gap.or_else(|| behind.then_some(self.next[slot])) {
                return format!("event {event} of publisher {stream}");
            }
        }
        "nothing".to_owned()
    }

    /// Counts one delivery.
    fn take(&mut self, client: usize, stream: usize, event: u32, now: Nanos) {
        let Client { channel, own, reads } = self.clients[client];
        let sent_at = self.channels[channel].sent.get(stream).and_then(|sent| sent.get(event as usize));
        let name = || format!("event {event} of publisher {stream} on {}", self.channels[channel].name);
        let (Some(&sent_at), true) = (sent_at, own != Some(stream)) else {
            let name = name();
            let why = if own == Some(stream) { "its own" } else { "which was never sent," };
            self.findings.add(Kind::Malformed, 1, || format!("client {client} got {why} {name}"));
            return;
        };
        let slot = client * self.streams + stream;
        let next = self.next[slot];
        if event < next {
            let gaps = self.gaps.get_mut(&slot);
            let name = name();
            if gaps.is_some_and(|gaps| fill(gaps, event)) {
                self.findings
                    .add(Kind::OutOfOrder, 1, || format!("client {client} got {name} after event {}", next - 1));
            } else {
                self.findings.add(Kind::Repeated, 1, || format!("client {client} got {name} again"));
                return;
            }
        } else {
            if event > next {
                self.gaps.entry(slot).or_default().push(next..event);
            }
            self.next[slot] = event + 1;
        }
        if reads {
            self.received += 1;
            self.delivered += 1;
            let micros = now.saturating_sub(sent_at) / 1000;
            self.latency.saturating_record(micros);
            self.recent.saturating_record(micros);
        }
    }

    /// Reads a delivery word by word; learns how this server spells it.
    fn parse(&mut self, client: usize, text: &[u8]) -> Option<Result<(usize, u32), String>> {
        let envelope: Envelope = serde_json::from_slice(text).ok()?;
        if envelope.event != self.event {
            return None;
        }
        let channel = &mut self.channels[self.clients[client].channel];
        if envelope.channel != channel.name {
            return Some(Err(format!("an event of {}", envelope.channel)));
        }
        let data = envelope.data.as_str().unwrap_or_default();
        let Some(numbers) = data.as_bytes().get(..DIGITS).and_then(numbers) else {
            return Some(Err(format!("data without numbers: {}", envelope.data)));
        };
        if data.get(DIGITS..DIGITS + 1) != Some(":") || data.get(SMALLEST..) != Some(&*self.filling) {
            return Some(Err(format!("other data than was sent: {}", envelope.data)));
        }
        if channel.template.is_none() {
            let digits = &data.as_bytes()[..DIGITS];
            let at = text.windows(DIGITS).position(|window| window == digits);
            channel.template = at.map(|at| (text[..at].to_vec(), text[at + DIGITS..].to_vec()));
        }
        Some(Ok(numbers))
    }
}

impl Listener for Deliveries {
    fn hear(&mut self, client: usize, text: &[u8], now: Nanos) -> bool {
        let Some(known) = self.clients.get(client) else { return false };
        if let Some((before, after)) = &self.channels[known.channel].template {
            let middle = text.strip_prefix(&before[..]).and_then(|rest| rest.strip_suffix(&after[..]));
            if let Some((stream, event)) = middle.and_then(numbers) {
                self.take(client, stream, event, now);
                return true;
            }
        }
        match self.parse(client, text) {
            Some(Ok((stream, event))) => self.take(client, stream, event, now),
            Some(Err(what)) => {
                let what = what.chars().take(200).collect::<String>();
                self.findings.add(Kind::Malformed, 1, || format!("client {client} got {what}"));
            }
            None => return false,
        }
        true
    }
}

/// The numbers of a stream and of an event, if these are their digits.
fn numbers(digits: &[u8]) -> Option<(usize, u32)> {
    if digits.len() != DIGITS {
        return None;
    }
    let number = |digits: &[u8]| {
        digits
            .iter()
            .try_fold(0u32, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))
    };
    Some((number(&digits[..STREAM_DIGITS])? as usize, number(&digits[STREAM_DIGITS..])?))
}

/// Takes one event out of the gaps; whether it was in one.
fn fill(gaps: &mut Vec<Range<u32>>, event: u32) -> bool {
    let Some(index) = gaps.iter().position(|gap| gap.contains(&event)) else { return false };
    let gap = gaps.remove(index);
    let rest = [gap.start..event, event + 1..gap.end];
    gaps.splice(index..index, rest.into_iter().filter(|gap| !gap.is_empty()));
    true
}

/// Microseconds up to ten minutes, with three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("these bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One channel, two clients, one stream of three events.
    fn sent() -> (Deliveries, Vec<String>) {
        let mut deliveries = Deliveries::new("e", vec!["room".to_owned()], 1, 20);
        deliveries.add_client(0, None);
        deliveries.add_client(0, None);
        let mut send = || {
            let data = deliveries.data(0, 0);
            deliveries.sent(0, 0, 0);
            data
        };
        let data = [send(), send(), send()].into();
        (deliveries, data)
    }

    fn hear(deliveries: &mut Deliveries, client: usize, data: &str) -> bool {
        let text = format!(r#"{{"event":"e","channel":"room","data":"{data}"}}"#);
        deliveries.hear(client, text.as_bytes(), 2000)
    }

    #[test]
    fn everything_once_and_in_order_is_fine() {
        let (mut deliveries, data) = sent();
        for client in [0, 1] {
            assert!(data.iter().all(|data| hear(&mut deliveries, client, data)));
        }
        assert!(deliveries.is_complete());
        let (findings, latency) = deliveries.finish(|_| false);
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!((latency.len(), latency.max()), (6, 2));
    }

    #[test]
    fn each_kind_of_mistake_is_counted_as_what_it_is() {
        let (mut deliveries, data) = sent();
        for event in [0, 2, 2, 1, 1] {
            hear(&mut deliveries, 0, &data[event]);
        }
        hear(&mut deliveries, 1, &data[1]);
        hear(&mut deliveries, 1, &data[1].replace("xx", "xy"));
        hear(&mut deliveries, 1, "00000000000007:xxxxx");
        assert!(!deliveries.is_complete());
        let (findings, _) = deliveries.finish(|_| false);
        let Findings { lost, repeated, out_of_order, malformed, unexpected, .. } = findings;
        assert_eq!([lost, repeated, out_of_order, malformed, unexpected], [2, 2, 1, 2, 0], "{}", findings.summary());
        assert!(
            findings.summary().contains("client 1 missed event 0 of publisher 0 on room"),
            "{}",
            findings.summary()
        );
    }

    #[test]
    fn another_spelling_is_understood_and_another_event_is_left_alone() {
        let (mut deliveries, data) = sent();
        hear(&mut deliveries, 0, &data[0]);
        let other = format!(r#"{{"data":"{}", "channel":"room","event":"e"}}"#, data[1]);
        assert!(deliveries.hear(0, other.as_bytes(), 0));
        assert!(!deliveries.hear(0, br#"{"event":"f","channel":"room","data":"{}"}"#, 0));
        assert_eq!(deliveries.progress(), (2, 6));
    }

    #[test]
    fn a_sender_hears_the_others_only() {
        let mut deliveries = Deliveries::new("e", vec!["room".to_owned()], 2, 15);
        deliveries.add_client(0, Some(0));
        deliveries.add_client(0, Some(1));
        let data = deliveries.data(0, 0);
        deliveries.sent_by(0, 0);
        hear(&mut deliveries, 1, &data);
        assert!(deliveries.is_complete());
        hear(&mut deliveries, 0, &data);
        assert_eq!(deliveries.finish(|_| false).0.malformed, 1);
    }

    #[test]
    fn who_left_is_not_waited_for() {
        let (mut deliveries, data) = sent();
        assert!(data.iter().all(|data| hear(&mut deliveries, 0, data)));
        deliveries.stop_expecting(1);
        assert!(deliveries.is_complete());
        assert_eq!((deliveries.delivered(), deliveries.progress()), (3, (3, 3)));
        deliveries.stop_expecting(0);
        assert_eq!((deliveries.delivered(), deliveries.progress()), (3, (0, 0)));
        assert_eq!(deliveries.finish(|client| client == 1).0.lost, 0);
    }
}
