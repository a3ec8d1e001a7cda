//! Events that wait for their first attempt: in order for each subject, and taking turns between sources.
//!
//! Each event gets a turn, one more than the one before it of the same source, or the current one if its source had
//! nothing waiting; events go by turn and then by age. So a client with one event does not wait behind the 100,000 of
//! another client. Where few wait, they go by age alone. Trusted and open events wait in two lines, which [`super::queue`] serves in turn.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::source::Source;

use super::class::Class;
use super::queue::Event;

/// Events that are few: taking turns would only change their order.
pub(super) const FEW: usize = 16;

/// See the module. Everything costs O(log n).
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: BTreeMap<u64, Waiting>,
    subjects: HashMap<Arc<str>, Subject>,
    /// What waits, by the number of its subject.
    by_subject: BTreeSet<(u64, u64)>,
    next_subject: u64,
    open: Ready,
    trusted: Ready,
}

/// An event that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) event: Event,
    pub(super) place: Place,
}

/// Where in the line an event is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    turn: u64,
    /// Since when it waits.
    pub(super) since: Instant,
}

/// Events that stay in order.
#[derive(Debug)]
struct Subject {
    number: u64,
    waiting: usize,
    /// Deliveries that hold it back.
    held: usize,
}

/// What of a class may be sent.
#[derive(Debug, Default)]
struct Ready {
    /// The first event of each subject that nothing holds back, by turn.
    first: BTreeSet<(u64, u64)>,
    /// Events of those subjects.
    events: usize,
    /// The turn of the last one that was sent.
    turn: u64,
    /// Sources with events that wait, whether anything holds them back or not: the last turn, and how many.
    sources: HashMap<Source, (u64, usize)>,
}

impl Ready {
    /// The turn and the number of the event that is next: by turn; but where few wait nobody is in anybody's way, and they
    /// go in the order in which they came about.
    fn next(&self) -> Option<(u64, u64)> {
        match self.events <= FEW {
            true => self.first.iter().min_by_key(|(_, id)| *id).copied(),
            false => self.first.first().copied(),
        }
    }
}

impl Line {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// All that wait.
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.waiting.values().map(|waiting| &waiting.event)
    }

    /// One that waits.
    pub(super) fn get(&self, id: u64) -> Option<&Event> {
        self.waiting.get(&id).map(|waiting| &waiting.event)
    }

    /// Adds an event, at this place or else at the end.
    pub(super) fn push(&mut self, event: Event, place: Option<Place>, now: Instant) {
        let (id, source) = (event.id, event.source);
        let next = self.next_subject;
        let subject =
            self.subjects.entry(Arc::clone(&event.subject)).or_insert(Subject { number: next, waiting: 0, held: 0 });
        self.next_subject += u64::from(subject.number == next);
        subject.waiting += 1;
        let (held, first) = (subject.held, subject.waiting == 1);
        self.by_subject.insert((subject.number, id));
        let ready = self.ready(Class::of(&event.subject));
        let next_turn = ready.turn + 1;
        let (last, waiting) = ready.sources.entry(source).or_insert((0, 0));
        let place = place.unwrap_or_else(|| Place { turn: next_turn.max(*last + 1), since: now });
        (*last, *waiting) = (place.turn.max(*last), *waiting + 1);
        if held == 0 {
            ready.events += 1;
            if first {
                ready.first.insert((place.turn, id));
            }
        }
        self.waiting.insert(id, Waiting { event, place });
    }

    /// Takes an event out, wherever it is.
    pub(super) fn remove(&mut self, id: u64) -> Option<Waiting> {
        let gone = self.waiting.remove(&id)?;
        let (event, turn) = (&gone.event, gone.place.turn);
        let subject = self.subjects.get_mut(&event.subject).expect("an event that waits has a subject");
        let (number, held) = (subject.number, subject.held);
        subject.waiting -= 1;
        if subject.waiting == 0 && held == 0 {
            self.subjects.remove(&event.subject);
        }
        self.by_subject.remove(&(number, id));
        let next = self.first_of(number);
        let ready = self.ready(Class::of(&event.subject));
        if held == 0 {
            ready.events -= 1;
            // Only the first one of its subject is there.
            if ready.first.remove(&(turn, id)) {
                ready.first.extend(next);
            }
        }
        let (last, waiting) = ready.sources[&event.source];
        match waiting {
            1 => drop(ready.sources.remove(&event.source)),
            _ => drop(ready.sources.insert(event.source, (last, waiting - 1))),
        }
        Some(gone)
    }

    /// The next event of a class that nothing holds back, and how many there are.
    pub(super) fn next(&self, class: Class) -> Option<(&Waiting, usize)> {
        let ready = match class {
            Class::Open => &self.open,
            Class::Trusted => &self.trusted,
        };
        let (_, id) = ready.next()?;
        Some((self.waiting.get(&id)?, ready.events))
    }

    /// Takes the next event of a class that nothing holds back.
    pub(super) fn take(&mut self, class: Class) -> Option<Waiting> {
        let ready = self.ready(class);
        let (turn, id) = ready.next()?;
        ready.turn = ready.turn.max(turn);
        self.remove(id)
    }

    /// A delivery has begun that is about this subject.
    pub(super) fn hold(&mut self, subject: &Arc<str>) {
        let next = self.next_subject;
        let held = self.subjects.entry(Arc::clone(subject)).or_insert(Subject { number: next, waiting: 0, held: 0 });
        self.next_subject += u64::from(held.number == next);
        held.held += 1;
        if held.held == 1 && held.waiting > 0 {
            let (number, waiting) = (held.number, held.waiting);
            let first = self.first_of(number);
            let ready = self.ready(Class::of(subject));
            ready.events -= waiting;
            if let Some(first) = first {
                ready.first.remove(&first);
            }
        }
    }

    /// A delivery is over that was about this subject.
    pub(super) fn release(&mut self, subject: &Arc<str>) {
        let Some(held) = self.subjects.get_mut(subject) else { return };
        held.held -= 1;
        if held.held > 0 {
            return;
        }
        let (number, waiting) = (held.number, held.waiting);
        if waiting == 0 {
            self.subjects.remove(subject);
            return;
        }
        let first = self.first_of(number);
        let ready = self.ready(Class::of(subject));
        ready.events += waiting;
        ready.first.extend(first);
    }

    /// The turn and the number of a subject's first event.
    fn first_of(&self, subject: u64) -> Option<(u64, u64)> {
        let (_, id) = self.by_subject.range((subject, 0)..=(subject, u64::MAX)).next()?;
        self.waiting.get(id).map(|waiting| (waiting.place.turn, *id))
    }

    fn ready(&mut self, class: Class) -> &mut Ready {
        match class {
            Class::Open => &mut self.open,
            Class::Trusted => &mut self.trusted,
        }
    }

    /// Nothing is left of anything.
    #[cfg(test)]
    pub(super) fn is_clean(&self) -> bool {
        let clean = |ready: &Ready| ready.first.is_empty() && ready.events == 0 && ready.sources.is_empty();
        self.waiting.is_empty()
            && self.subjects.is_empty()
            && self.by_subject.is_empty()
            && clean(&self.open)
            && clean(&self.trusted)
    }
}
