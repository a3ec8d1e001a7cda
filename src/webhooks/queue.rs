//! What waits for one endpoint, and what is to be sent next. Pure: it is told the time, and does no I/O.
//!
//! Events are taken in the order they came, except that those of a subject (a channel, a user, a connection) wait while
//! an earlier delivery with that subject is under way or has failed and will be tried again. So a subject's events arrive
//! in order, and whatever goes wrong with one of them holds back no other subject's.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt::Attempt;

/// Bytes that an event takes besides its text, roughly.
const OVERHEAD: usize = 200;

/// Attempts that are remembered of one delivery: the first ones tell the cause, the last ones the state.
const REMEMBERED: usize = 20;

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
}

/// One request, sent until it succeeds or its time is over. It has the number of its first event.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) events: Vec<Event>,
    /// The `time_ms` of the request, the same in every attempt.
    pub(super) time_ms: u64,
    pub(super) attempts: Vec<Attempt>,
    pub(super) attempt_count: u32,
    /// The period of retries after it was made; or after this process found it, as one that was away could not try.
    /// Those that decide how long the next one waits.
    failures: u32,
    give_up: Instant,
}

impl Delivery {
    /// A delivery that nobody has tried.
    pub(super) fn untried(time_ms: u64, events: Vec<Event>) -> Self {
        Self { events, time_ms, attempts: Vec::new(), attempt_count: 0, failures: 0, give_up: Instant::now() }
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
    /// Events that are in no delivery yet, by subject.
    waiting: HashMap<Arc<str>, VecDeque<Waiting>>,
    /// All of them, in order.
    order: BTreeMap<u64, Arc<str>>,
    /// The first event of each subject that nothing holds back.
    ready: BTreeMap<u64, Arc<str>>,
    /// Events of those subjects.
    ready_events: usize,
    deliveries: BTreeMap<u64, Delivery>,
    /// Deliveries that wait for their next attempt, by its time.
    due: BTreeSet<(Instant, u64)>,
    /// The same, by their number.
    resting: BTreeMap<u64, Instant>,
    /// How many deliveries each subject is in.
    held: HashMap<Arc<str>, usize>,
    bytes: usize,
    failures_in_a_row: u32,
    /// Whether the last one sent was a first attempt; they take turns with further ones.
    began_last: bool,
}

#[derive(Debug)]
struct Waiting {
    event: Event,
    since: Instant,
}

impl Queue {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            waiting: HashMap::new(),
            order: BTreeMap::new(),
            ready: BTreeMap::new(),
            ready_events: 0,
            deliveries: BTreeMap::new(),
            due: BTreeSet::new(),
            resting: BTreeMap::new(),
            held: HashMap::new(),
            bytes: 0,
            failures_in_a_row: 0,
            began_last: false,
        }
    }

    /// Adds an event. Returns those that had to go for it, the oldest ones; together what was one delivery.
    pub(super) fn push(&mut self, event: Event, now: Instant) -> Vec<Vec<Event>> {
        self.bytes += size(&event);
        self.order.insert(event.id, Arc::clone(&event.subject));
        let subject = Arc::clone(&event.subject);
        let of_subject = self.waiting.entry(Arc::clone(&subject)).or_default();
        of_subject.push_back(Waiting { event, since: now });
        if !self.held.contains_key(&subject) {
            let first = of_subject[0].event.id;
            self.ready_events += 1;
            self.ready.insert(first, subject);
        }
        std::iter::from_fn(|| self.drop_oldest()).collect()
    }

    /// Adds a delivery that was made before: by a process before this one, or one that was given up.
    pub(super) fn restore(&mut self, events: Vec<Event>, time_ms: u64, now: Instant) {
        self.bytes += events.iter().map(size).sum::<usize>();
        if let Some(id) = events.first().map(|event| event.id) {
            self.rest(id, now);
            self.open(events, time_ms, now);
        }
    }

    /// What to send now. Whatever is returned counts as being sent.
    pub(super) fn next(&mut self, now: Instant, time_ms: u64) -> Next {
        let (first_attempt, further_attempt) = (self.batch_due(), self.due.first().copied());
        let begin = first_attempt.is_some_and(|at| at <= now);
        let again = further_attempt.filter(|(at, _)| *at <= now);
        if begin && !(again.is_some() && self.began_last) {
            self.began_last = true;
            let (events, since) = self.take_batch();
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
        match first_attempt.into_iter().chain(further_attempt.map(|(at, _)| at)).min() {
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
        delivery.failures += 1;
        if delivery.attempts.len() == REMEMBERED {
            self.bytes -= attempt_size(&delivery.attempts.remove(REMEMBERED / 2));
        }
        self.bytes += attempt_size(&attempt);
        delivery.attempts.push(attempt);
        if success {
            if std::mem::take(&mut self.failures_in_a_row) >= OUTAGE {
                self.hurry(now);
            }
            return self.close(id).map(|_| Verdict::Delivered);
        }
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if now >= delivery.give_up {
            return self.close(id).map(Verdict::Dead);
        }
        let pause = backoff(delivery.failures, jitter).min(delivery.give_up - now);
        self.rest(id, now + pause);
        Some(Verdict::Again(pause))
    }

    /// Events that were not delivered yet.
    pub(super) fn len(&self) -> usize {
        self.order.len() + self.deliveries.values().map(|delivery| delivery.events.len()).sum::<usize>()
    }

    /// Bytes they take, and what is remembered of their attempts.
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
        self.deliveries.iter().map(|(id, delivery)| (delivery, self.resting.get(id).copied()))
    }

    /// From now on no event waits for others.
    pub(super) fn flush(&mut self) {
        self.rules.batch_wait = Duration::ZERO;
    }

    /// Everybody's next attempt is now, and a further one soon: the endpoint is back.
    fn hurry(&mut self, now: Instant) {
        self.deliveries.values_mut().for_each(|delivery| delivery.failures = 0);
        self.resting.values_mut().for_each(|due| *due = (*due).min(now));
        self.due = self.resting.iter().map(|(id, due)| (*due, *id)).collect();
    }

    /// A delivery waits for its next attempt.
    fn rest(&mut self, id: u64, due: Instant) {
        self.resting.insert(id, due);
        self.due.insert((due, id));
    }

    /// It waits no longer.
    fn wake(&mut self, id: u64) {
        if let Some(due) = self.resting.remove(&id) {
            self.due.remove(&(due, id));
        }
    }

    /// When the next first attempt may be made.
    fn batch_due(&self) -> Option<Instant> {
        let (_, subject) = self.ready.first_key_value()?;
        let oldest = &self.waiting[subject][0];
        let full = self.ready_events >= self.rules.batch_size;
        Some(if full { oldest.since } else { oldest.since + self.rules.batch_wait })
    }

    /// The oldest events that nothing holds back, and since when the last of them has waited.
    fn take_batch(&mut self) -> (Vec<Event>, Instant) {
        let mut events: Vec<Event> = Vec::new();
        let mut last = None;
        while events.len() < self.rules.batch_size {
            let Some((_, subject)) = self.ready.pop_first() else { break };
            let of_subject = self.waiting.get_mut(&subject).expect("a ready subject has events");
            let Waiting { event: first, since } = of_subject.pop_front().expect("a ready subject has events");
            last = Some(since);
            self.ready_events -= 1;
            self.order.remove(&first.id);
            match of_subject.front() {
                Some(next) => drop(self.ready.insert(next.event.id, subject)),
                None => drop(self.waiting.remove(&subject)),
            }
            events.push(first);
        }
        (events, last.expect("an event is due"))
    }

    fn open(&mut self, events: Vec<Event>, time_ms: u64, since: Instant) {
        for event in &events {
            let holders = self.held.entry(Arc::clone(&event.subject)).or_default();
            *holders += 1;
            if let (1, Some(of_subject)) = (*holders, self.waiting.get(&event.subject)) {
                self.ready.remove(&of_subject[0].event.id);
                self.ready_events -= of_subject.len();
            }
        }
        let give_up = since + self.rules.retry_period;
        let delivery = Delivery { time_ms, attempts: Vec::new(), attempt_count: 0, failures: 0, give_up, events };
        self.deliveries.insert(delivery.events[0].id, delivery);
    }

    fn close(&mut self, id: u64) -> Option<Delivery> {
        let delivery = self.deliveries.remove(&id)?;
        self.bytes -= delivery.attempts.iter().map(attempt_size).sum::<usize>();
        for event in &delivery.events {
            self.bytes -= size(event);
            let holders = self.held.get_mut(&event.subject).expect("the delivery holds its subjects");
            *holders -= 1;
            if *holders > 0 {
                continue;
            }
            self.held.remove(&event.subject);
            if let Some(of_subject) = self.waiting.get(&event.subject) {
                self.ready.insert(of_subject[0].event.id, Arc::clone(&event.subject));
                self.ready_events += of_subject.len();
            }
        }
        Some(delivery)
    }

    /// Drops the oldest that waits, be it for its first attempt or for another one, if all together is too much. What is
    /// being sent stays: the endpoint may have it already.
    fn drop_oldest(&mut self) -> Option<Vec<Event>> {
        if self.bytes <= self.rules.max_bytes {
            return None;
        }
        let untried = self.order.first_key_value().map(|(id, _)| *id);
        match self.resting.first_key_value().map(|(id, _)| *id) {
            Some(tried) if untried.is_none_or(|untried| tried < untried) => {
                self.wake(tried);
                self.close(tried).map(|delivery| delivery.events)
            }
            _ => self.drop_untried().map(|event| vec![event]),
        }
    }

    fn drop_untried(&mut self) -> Option<Event> {
        let (_, subject) = self.order.pop_first()?;
        let of_subject = self.waiting.get_mut(&subject).expect("a subject with an event in order has it");
        let event = of_subject.pop_front().expect("a subject with an event in order has it").event;
        let next = of_subject.front().map(|next| next.event.id);
        if next.is_none() {
            self.waiting.remove(&subject);
        }
        if self.ready.remove(&event.id).is_some() {
            self.ready_events -= 1;
            if let Some(next) = next {
                self.ready.insert(next, subject);
            }
        }
        self.bytes -= size(&event);
        Some(event)
    }
}

fn size(event: &Event) -> usize {
    event.text.len() + event.subject.len() + OVERHEAD
}

fn attempt_size(attempt: &Attempt) -> usize {
    size_of::<Attempt>() + attempt.answer.len() + attempt.error.as_ref().map_or(0, String::len)
}

/// 1, 2, 4, 8, … seconds up to a minute, a quarter more or less so that what failed together is not tried together.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let seconds = f64::from(1 << (failures - 1).min(6)).min(60.0);
    Duration::from_secs_f64(seconds * (0.75 + jitter / 2.0))
}

#[cfg(test)]
mod tests;
