//! What waits for one endpoint, and what is to be sent next. Pure: it is told the time, and does no I/O.
//!
//! Events of a subject (a channel, a user, a connection) are sent in the order they came; they wait while an earlier
//! delivery with that subject is under way or has failed and will be tried again. So a subject's events arrive in order, and
//! whatever goes wrong with one of them holds back no other subject's. Sources take turns, see [`super::line`], and so do
//! trusted and open events, if both wait. No request holds events of both classes: what is dropped goes by class, and a
//! request that was made keeps its events.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::source::Source;

use super::attempt::Attempt;
use super::class::{Class, Lost};
use super::ledger::{Entry, Ledger};
use super::line::{FEW, Line, Waiting};
use super::topics::{Effect, Topics};

/// Bytes that an event takes besides its text, roughly.
const OVERHEAD: usize = 200;

/// Attempts that are remembered of one delivery: the first ones tell the cause, the last ones the state.
const REMEMBERED: usize = 20;

/// The part of the room for events that may be taken by what is remembered of attempts, besides.
const MEMORIES: usize = 8;

/// Failures in a row after which a success means that the endpoint is back, and not only that one event was better than
/// another.
const OUTAGE: u32 = 3;

/// An event on its way to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Its number: larger than those of all events before it.
    pub(super) id: u64,
    /// What it is about; see [`super::event::Happening::subject`].
    pub(super) subject: Arc<str>,
    /// When it came about, in milliseconds since 1970.
    pub(super) time_ms: u64,
    /// The JSON object.
    pub(super) text: Arc<str>,
    /// Whose doing it is.
    pub(super) source: Source,
}

/// What became of events when another one was added.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    /// Those that had to go because there is no room; together what was one delivery.
    pub(super) dropped: Vec<Vec<Event>>,
    /// Those that need not be told any more, by their numbers. The new one may be among them.
    pub(super) collapsed: Vec<u64>,
}

/// One request, sent until it succeeds or its time is over. It has the number of its first event.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) events: Vec<Event>,
    /// The `time_ms` of the request, the same in every attempt.
    pub(super) time_ms: u64,
    pub(super) attempts: Vec<Attempt>,
    pub(super) attempt_count: u32,
    /// Those that decide how long the next one waits.
    failures: u32,
    /// The outage of the endpoint that these belong to.
    outage: u64,
    /// The period of retries after it was made; or after this process found it, as one that was away could not try.
    give_up: Instant,
}

impl Delivery {
    /// A delivery that nobody has tried.
    pub(super) fn untried(time_ms: u64, events: Vec<Event>) -> Self {
        Self {
            events,
            time_ms,
            attempts: Vec::new(),
            attempt_count: 0,
            failures: 0,
            outage: 0,
            give_up: Instant::now(),
        }
    }
}

/// What to do now.
#[derive(Debug)]
pub(super) enum Next {
    /// Send this delivery; `Queue::finish` is told the outcome. A batch that `is_new` must be kept before, even if only
    /// one event is in it: the next process would add others to it.
    Send { id: u64, is_new_batch: bool },
    /// Nothing until then.
    Wait(Instant),
    /// Nothing until something happens.
    Idle,
}

/// What became of an attempt.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The endpoint has it.
    Delivered,
    /// It will be tried again, after this time.
    Again(Duration),
    /// Its time is over.
    Dead(Delivery),
}

/// How a queue behaves.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) batch_size: usize,
    pub(super) batch_wait: Duration,
    pub(super) retry_period: Duration,
    pub(super) max_bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    rules: Rules,
    /// Events that are in no delivery yet.
    line: Line,
    /// What each of them is about.
    topics: Topics,
    /// All that may be dropped: events in no delivery yet, and deliveries that wait for their next attempt.
    ledger: Ledger,
    deliveries: BTreeMap<u64, Delivery>,
    /// Events in them.
    delivering: usize,
    /// Deliveries that wait for their next attempt, by its time.
    due: BTreeSet<(Instant, u64)>,
    /// The same, by their number.
    resting: BTreeMap<u64, (Instant, Entry)>,
    /// Of events.
    bytes: usize,
    /// Of what is remembered of attempts.
    remembered: usize,
    failures_in_a_row: u32,
    /// How often the endpoint has come back.
    outages: u64,
    /// Whether the last one sent was a first attempt; they take turns with further ones.
    began_last: bool,
    /// The class of the last first attempt.
    last_class: Class,
}

impl Queue {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            line: Line::default(),
            topics: Topics::default(),
            ledger: Ledger::default(),
            deliveries: BTreeMap::new(),
            delivering: 0,
            due: BTreeSet::new(),
            resting: BTreeMap::new(),
            bytes: 0,
            remembered: 0,
            failures_in_a_row: 0,
            outages: 0,
            began_last: false,
            last_class: Class::Trusted,
        }
    }

    /// Adds an event, unless it is pointless together with one that waits, see [`super::topics`]. Which events have to go for
    /// it, [`super::ledger`] says.
    pub(super) fn push(&mut self, event: Event, now: Instant) -> Pushed {
        let mut pushed = Pushed::default();
        let mut place = None;
        let effect = self.topics.effect(&(), &event, |id| self.line.get(id));
        let waiting = self.ledger.bytes_of(Class::of(&event.subject));
        match effect.at(waiting, self.rules.max_bytes) {
            Effect::None => {}
            Effect::Replaces(earlier) => {
                // It takes over the turn: what is replaced again and again would never be sent.
                place = self.take_out(earlier).map(|gone| gone.place);
                pushed.collapsed.push(earlier);
            }
            Effect::Cancels(earlier) => {
                self.take_out(earlier);
                pushed.collapsed.extend([earlier, event.id]);
                return pushed;
            }
            Effect::Repeats => {
                pushed.collapsed.push(event.id);
                return pushed;
            }
        }
        self.bytes += size(&event);
        self.topics.add(&(), &event, event.id);
        self.ledger.add(&entry(&event));
        self.line.push(event, place, now);
        pushed.dropped = std::iter::from_fn(|| self.drop_one()).collect();
        pushed
    }

    /// Adds a delivery that was made before: by a process before this one, or one that was given up.
    pub(super) fn restore(&mut self, events: Vec<Event>, time_ms: u64, now: Instant) {
        if let Some(id) = events.first().map(|event| event.id) {
            self.open(events, time_ms, now);
            self.rest(id, now);
        }
    }

    /// What to send now. Whatever is returned counts as being sent.
    pub(super) fn next(&mut self, now: Instant, time_ms: u64) -> Next {
        let further_attempt = self.due.first().copied();
        let again = further_attempt.filter(|(at, _)| *at <= now);
        let [open, trusted] = [Class::Open, Class::Trusted].map(|class| self.batch_due(class));
        let many = self.line.next(Class::Open).is_some_and(|(_, ready)| ready > FEW);
        let is_due = |batch: Option<(Instant, u64)>| batch.filter(|(at, _)| *at <= now).map(|(_, id)| id);
        let begin = match (is_due(open), is_due(trusted)) {
            // The older one; but where many open ones wait, no two of them in a row.
            (Some(open), Some(trusted)) if open < trusted && !(many && self.last_class == Class::Open) => {
                Some(Class::Open)
            }
            (_, Some(_)) => Some(Class::Trusted),
            (open, None) => open.map(|_| Class::Open),
        };
        if let Some(class) = begin
            && !(again.is_some() && self.began_last)
            && let Some((events, since)) = self.take_batch(class)
        {
            (self.began_last, self.last_class) = (true, class);
            let (id, is_new_batch) = (events[0].id, self.rules.batch_size > 1);
            // An event of its own was made when it came about; a batch is made now.
            let (time_ms, since) = if events.len() > 1 { (time_ms, now) } else { (events[0].time_ms, since) };
            self.open(events, time_ms, since);
            return Next::Send { id, is_new_batch };
        }
        if let Some(entry) = again {
            self.began_last = false;
            self.wake(entry.1);
            return Next::Send { id: entry.1, is_new_batch: false };
        }
        match [open, trusted, further_attempt].into_iter().flatten().map(|(at, _)| at).min() {
            Some(at) => Next::Wait(at),
            None => Next::Idle,
        }
    }

    /// A delivery that was handed out by [`Queue::next`] or restored, and is not finished.
    pub(super) fn delivery(&self, id: u64) -> Option<&Delivery> {
        self.deliveries.get(&id)
    }

    /// Takes the outcome of an attempt. `jitter` is a random number from 0 to 1.
    pub(super) fn finish(&mut self, id: u64, attempt: Attempt, now: Instant, jitter: f64) -> Option<Verdict> {
        let success = attempt.is_success();
        let delivery = self.deliveries.get_mut(&id)?;
        delivery.attempt_count += 1;
        if delivery.outage != self.outages {
            (delivery.outage, delivery.failures) = (self.outages, 0);
        }
        delivery.failures += 1;
        let is_over = now >= delivery.give_up;
        let pause = backoff(delivery.failures, jitter).min(delivery.give_up.saturating_duration_since(now));
        if success {
            if std::mem::take(&mut self.failures_in_a_row) >= OUTAGE {
                self.hurry(now);
            }
            return self.close(id).map(|_| Verdict::Delivered);
        }
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if is_over {
            let mut delivery = self.close(id)?;
            delivery.remember(attempt, usize::MAX);
            return Some(Verdict::Dead(delivery));
        }
        self.remember(id, attempt);
        self.rest(id, now + pause);
        Some(Verdict::Again(pause))
    }

    /// Events that were not delivered yet.
    pub(super) fn len(&self) -> usize {
        self.line.len() + self.delivering
    }

    /// Those events, by class.
    pub(super) fn left(&self) -> Lost {
        let mut left = Lost::default();
        let delivering = self.deliveries.values().flat_map(|delivery| &delivery.events);
        self.line.events().chain(delivering).for_each(|event| left.add(&event.subject));
        left
    }

    /// Bytes they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Failures since the last success.
    pub(super) fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row
    }

    /// Deliveries that were begun and are not finished, in order, with the time of their next attempt; those without
    /// one are being sent.
    pub(super) fn deliveries(&self) -> impl Iterator<Item = (&Delivery, Option<Instant>)> {
        self.deliveries.iter().map(|(id, delivery)| (delivery, self.next_attempt(*id)))
    }

    /// When this delivery will be tried again; `None` while it is being sent.
    pub(super) fn next_attempt(&self, id: u64) -> Option<Instant> {
        self.resting.get(&id).map(|(due, _)| *due)
    }

    /// From now on no event waits for others.
    pub(super) fn flush(&mut self) {
        self.rules.batch_wait = Duration::ZERO;
    }

    /// Everybody's next attempt is now, and a further one soon: the endpoint is back. Only those are looked at that were to wait
    /// longer, as an endpoint may go and come back with every few attempts.
    fn hurry(&mut self, now: Instant) {
        self.outages += 1;
        for (_, id) in self.due.split_off(&(now, u64::MAX)) {
            if let Some((due, _)) = self.resting.get_mut(&id) {
                *due = now;
                self.due.insert((now, id));
            }
        }
    }

    fn remember(&mut self, id: u64, attempt: Attempt) {
        let Some(delivery) = self.deliveries.get_mut(&id) else { return };
        let others = self.remembered - delivery.remembered();
        delivery.remember(attempt, (self.rules.max_bytes / MEMORIES).saturating_sub(others));
        self.remembered = others + delivery.remembered();
    }

    /// A delivery waits for its next attempt.
    fn rest(&mut self, id: u64, due: Instant) {
        let Some(delivery) = self.deliveries.get(&id) else { return };
        let entry = delivery.entry(id);
        self.ledger.add(&entry);
        self.resting.insert(id, (due, entry));
        self.due.insert((due, id));
    }

    /// It waits no longer.
    fn wake(&mut self, id: u64) {
        if let Some((due, entry)) = self.resting.remove(&id) {
            self.due.remove(&(due, id));
            self.ledger.remove(&entry);
        }
    }

    /// When the next first attempt with events of this class may be made, and the number of its first event.
    fn batch_due(&self, class: Class) -> Option<(Instant, u64)> {
        let (first, ready) = self.line.next(class)?;
        let since = first.place.since;
        let full = ready >= self.rules.batch_size;
        Some((if full { since } else { since + self.rules.batch_wait }, first.event.id))
    }

    /// The next events of a class that nothing holds back, and since when the last of them has waited.
    fn take_batch(&mut self, class: Class) -> Option<(Vec<Event>, Instant)> {
        let mut events: Vec<Event> = Vec::new();
        let mut last = None;
        while events.len() < self.rules.batch_size {
            let Some(Waiting { event, place }) = self.line.take(class) else { break };
            self.leave(&event);
            last = Some(place.since);
            events.push(event);
        }
        // A delivery has the number of its first event, which is the smallest.
        events.sort_by_key(|event| event.id);
        last.map(|last| (events, last))
    }

    fn open(&mut self, events: Vec<Event>, time_ms: u64, since: Instant) {
        for event in &events {
            self.bytes += size(event);
            self.line.hold(&event.subject);
        }
        self.delivering += events.len();
        let give_up = since + self.rules.retry_period;
        let delivery =
            Delivery { time_ms, attempts: Vec::new(), attempt_count: 0, failures: 0, outage: 0, give_up, events };
        self.deliveries.insert(delivery.events[0].id, delivery);
    }

    fn close(&mut self, id: u64) -> Option<Delivery> {
        let delivery = self.deliveries.remove(&id)?;
        self.remembered -= delivery.remembered();
        self.delivering -= delivery.events.len();
        for event in &delivery.events {
            self.bytes -= size(event);
            self.line.release(&event.subject);
        }
        Some(delivery)
    }

    /// Drops what goes first, be it waiting for its first attempt or for another one, if all together is too much. What is
    /// being sent stays: the endpoint may have it already.
    fn drop_one(&mut self) -> Option<Vec<Event>> {
        if self.bytes <= self.rules.max_bytes {
            return None;
        }
        let id = self.ledger.first_to_go()?;
        if self.resting.contains_key(&id) {
            self.wake(id);
            return self.close(id).map(|delivery| delivery.events);
        }
        self.take_out(id).map(|gone| vec![gone.event])
    }

    /// Removes an event that is in no delivery.
    fn take_out(&mut self, id: u64) -> Option<Waiting> {
        let gone = self.line.remove(id)?;
        self.leave(&gone.event);
        Some(gone)
    }

    /// An event is no longer in the line.
    fn leave(&mut self, event: &Event) {
        self.bytes -= size(event);
        self.topics.remove(&(), event, event.id);
        self.ledger.remove(&entry(event));
    }
}

impl Delivery {
    /// Adds an attempt to those that are remembered, together at most so many bytes. If there is no room for it, one in the
    /// middle is forgotten, and if that is not enough, this one is not remembered.
    fn remember(&mut self, attempt: Attempt, room: usize) {
        let size = attempt_size(&attempt);
        let is_full = self.attempts.len() == REMEMBERED || self.remembered() + size > room;
        if is_full && !self.attempts.is_empty() {
            let middle = (REMEMBERED / 2).min(self.attempts.len() - 1);
            self.attempts.remove(middle);
        }
        if self.remembered() + size <= room {
            self.attempts.push(attempt);
        }
    }

    fn remembered(&self) -> usize {
        self.attempts.iter().map(attempt_size).sum()
    }

    /// How it counts in the ledger: it is trusted if any of its events is, and whose doing most of it is.
    fn entry(&self, id: u64) -> Entry {
        let class = self.events.iter().map(|event| Class::of(&event.subject)).max().unwrap_or(Class::Open);
        let mut sources: HashMap<Source, usize> = HashMap::new();
        self.events.iter().for_each(|event| *sources.entry(event.source).or_default() += size(event));
        let most = sources.into_iter().max_by_key(|(source, bytes)| (*bytes, *source));
        let source = most.map_or(Source::subject(""), |(source, _)| source);
        let bytes = self.events.iter().map(size).sum();
        Entry { id, class, source, bytes }
    }
}

fn entry(event: &Event) -> Entry {
    Entry { id: event.id, class: Class::of(&event.subject), source: event.source, bytes: size(event) }
}

fn size(event: &Event) -> usize {
    event.text.len() + event.subject.len() + OVERHEAD
}

pub(super) fn attempt_size(attempt: &Attempt) -> usize {
    size_of::<Attempt>() + attempt.answer.len() + attempt.error.as_ref().map_or(0, String::len)
}

/// 1, 2, 4, 8, … seconds up to a minute, a quarter more or less so that what failed together is not tried together.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let seconds = f64::from(1 << (failures - 1).min(6)).min(60.0);
    Duration::from_secs_f64(seconds * (0.75 + jitter / 2.0))
}

#[cfg(test)]
mod tests;
