//! The events and facts of all apps that wait to be written, within a bound in bytes. Above it, events are dropped in
//! the order that [`super::ledger`] says, and so is what backends were told, and counted: after a restart they may hear of an end twice, or
//! not.
//!
//! Everything else stays, and counts for nobody: it is about events that were written, and so bounded like these. The bytes of a
//! dead letter have just left the queue of its endpoint, which only the writer fills again, and after it has written the letter.
//!
//! An event and what the backend is told by it are written in one transaction: after a crash between two, the backend would
//! hear of a beginning of which this server knows nothing, and never of its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::source::Source;

use super::class::{Class, Lost};
use super::ledger::{Entry, Ledgers};
use super::letter::{Address, DeadLetter};
use super::queue::{Event, attempt_size};
use super::topics::{Effect, Topics};
use super::unix_ms;

/// The part of the bound that is written in one transaction, at most: meanwhile, the rest of it is for what comes.
const PART: usize = 8;

/// Changes that are taken in one go, while everybody who has news waits.
const BREATH: usize = 256;

/// Bytes that a change takes besides its text, roughly.
const OVERHEAD: usize = 200;

/// Something to write.
pub(super) enum Change {
    /// A new event.
    Keep(Address, Event),
    /// These events now make up one delivery; the sender is told when that is certain.
    Batch(Vec<u64>, u64, oneshot::Sender<()>),
    /// These events were delivered or dropped; the first one's delivery is over.
    Forget(Vec<u64>),
    /// These events were given up.
    Bury(DeadLetter),
    /// This dead letter gets another try, if its endpoint still exists.
    Revive(u64, oneshot::Sender<bool>),
    /// A backend is told that something is true, or no longer.
    Tell(String, bool),
    /// Everything before it has been written when the sender is told.
    Sync(oneshot::Sender<()>),
}

/// Something that happened, on its way to the endpoints that want to hear of it.
#[derive(Debug, Clone)]
pub(super) struct News {
    /// What it is about; see [`super::event::Happening::subject`].
    pub(super) subject: Arc<str>,
    /// The JSON object.
    pub(super) text: Arc<str>,
    /// Whose doing it is.
    pub(super) source: Source,
    /// What the backend is told by it: a fact with the app's id in front, and whether it is true.
    pub(super) told: Option<(String, bool)>,
}

/// What waits for the writer.
pub(super) struct Inbox {
    pile: Mutex<Pile>,
    filled: Condvar,
}

struct Pile {
    max_bytes: usize,
    /// In the order in which they came.
    changes: BTreeMap<u64, Unwritten>,
    next: u64,
    /// The unit of what is being added.
    unit: u64,
    /// Bytes of changes that may be dropped, also of those that are being written.
    bytes: usize,
    /// Bytes of those that are being written.
    writing: usize,
    /// Changes that may be dropped, by app; they have an entry.
    ledgers: Ledgers,
    /// What the events among them are about, by endpoint.
    topics: Topics,
    /// What backends are told, by fact: the latest word is enough.
    told: HashMap<String, u64>,
    losses: Losses,
    /// The number of the next event.
    next_id: u64,
    /// When the last event came about, in milliseconds since 1970.
    last_ms: u64,
    closed: bool,
}

/// A change that waits.
struct Unwritten {
    change: Change,
    /// How it counts, if it may be dropped.
    entry: Option<Entry>,
    /// Changes of the same unit follow each other: an event for each endpoint, and last what the backend is told by it.
    unit: u64,
}

/// What became of events that will not be written, by endpoint.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub(super) dropped: HashMap<Address, Lost>,
    /// Those that need not be told any more.
    pub(super) collapsed: HashMap<Address, u64>,
    /// The facts that backends were told and that will not be written, by app.
    pub(super) facts: HashMap<String, u64>,
}

/// What the writer has to do.
pub(super) struct Work {
    pub(super) changes: Vec<Change>,
    pub(super) losses: Losses,
}

impl Inbox {
    /// An empty one for `max_bytes`, in which the first event gets the number `next_id`.
    pub(super) fn new(max_bytes: usize, next_id: u64) -> Self {
        let pile = Pile {
            max_bytes,
            changes: BTreeMap::new(),
            next: 0,
            unit: 0,
            bytes: 0,
            writing: 0,
            ledgers: Ledgers::default(),
            topics: Topics::default(),
            told: HashMap::new(),
            losses: Losses::default(),
            next_id,
            last_ms: 0,
            closed: false,
        };
        Self { pile: Mutex::new(pile), filled: Condvar::new() }
    }

    /// Adds an event for each address, and what the backend now believes. Events get their numbers here, and their time,
    /// so that both tell the order.
    pub(super) fn keep(&self, to: &[&Address], news: News) {
        let News { subject, text, source, told } = news;
        let mut pile = self.pile.lock();
        pile.unit = pile.next;
        // The system's clock may be set back.
        pile.last_ms = pile.last_ms.max(unix_ms());
        for address in to {
            let (id, time_ms) = (pile.next_id, pile.last_ms);
            pile.next_id += 1;
            let event = Event { id, subject: Arc::clone(&subject), time_ms, text: Arc::clone(&text), source };
            pile.keep(address, event);
        }
        if let Some((fact, is_true)) = told {
            pile.tell(fact, is_true, Class::of(&subject), source);
        }
        pile.shrink();
        drop(pile);
        self.filled.notify_one();
    }

    /// The reports that have come up, once there is one: all of them, or a part if they are many, but whole units. `None`
    /// at the end.
    pub(super) fn take(&self) -> Option<Work> {
        let mut pile = self.pile.lock();
        // What was taken before is written.
        pile.bytes -= std::mem::take(&mut pile.writing);
        while pile.changes.is_empty() && pile.losses.is_empty() {
            if pile.closed {
                return None;
            }
            self.filled.wait(&mut pile);
        }
        let most = pile.max_bytes / PART;
        let (mut changes, mut bytes, mut unit) = (Vec::new(), 0, None);
        let mut breath = BREATH;
        while let Some((place, next)) = pile.changes.first_key_value()
            && (bytes < most || unit == Some(next.unit))
        {
            let (place, counts) = (*place, next.entry.is_some());
            if unit != Some(next.unit) && changes.len() >= breath {
                breath = changes.len() + BREATH;
                // Another change may come first then.
                MutexGuard::bump(&mut pile);
                continue;
            }
            unit = Some(next.unit);
            let Some(change) = pile.remove(place) else { break };
            let size = change.size();
            bytes += size;
            if counts {
                pile.bytes += size;
                pile.writing += size;
            }
            changes.push(change);
        }
        Some(Work { changes, losses: std::mem::take(&mut pile.losses) })
    }

    /// Adds a change. A new event comes with [`Inbox::keep`].
    pub(super) fn push(&self, change: Change) {
        let mut pile = self.pile.lock();
        pile.unit = pile.next;
        match change {
            // Of a process before, or of an app that is gone.
            Change::Tell(fact, is_true) => pile.tell(fact, is_true, Class::Trusted, Source::subject("")),
            change => pile.add(change, None),
        }
        pile.shrink();
        drop(pile);
        self.filled.notify_one();
    }

    /// As if the clock had been ahead.
    #[cfg(test)]
    pub(super) fn skip_numbers(&self, count: u64) {
        self.pile.lock().next_id += count;
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.pile.lock().closed = true;
        self.filled.notify_one();
    }
}

impl Pile {
    /// Adds an event, unless it is pointless together with one that waits.
    fn keep(&mut self, to: &Address, event: Event) {
        let changes = &self.changes;
        let waiting = |place| match changes.get(&place) {
            Some(Unwritten { change: Change::Keep(_, event), .. }) => Some(event),
            _ => None,
        };
        let (class, share) = (Class::of(&event.subject), self.max_bytes / self.ledgers.apps().max(1));
        let bytes = self.ledgers.bytes_of(&to.app, class);
        let effect = self.topics.effect(to, &event, waiting).at(bytes, share);
        let (earlier, collapsed, is_kept) = match effect {
            Effect::None => (None, 0, true),
            Effect::Replaces(earlier) => (Some(earlier), 1, true),
            Effect::Cancels(earlier) => (Some(earlier), 2, false),
            Effect::Repeats => (None, 1, false),
        };
        if let Some(earlier) = earlier {
            self.remove(earlier);
        }
        if collapsed > 0 {
            *self.losses.collapsed.entry(to.clone()).or_default() += collapsed;
        }
        if is_kept {
            self.topics.add(to, &event, self.next);
            let source = event.source;
            self.add(Change::Keep(to.clone(), event), Some((class, source)));
        }
    }

    fn tell(&mut self, fact: String, is_true: bool, class: Class, source: Source) {
        // The latest word is enough, unless an event waits that is written together with the earlier one.
        if let Some(before) = self.told.get(&fact).copied()
            && !self.follows_an_event(before)
        {
            self.remove(before);
        }
        self.told.insert(fact.clone(), self.next);
        self.add(Change::Tell(fact, is_true), Some((class, source)));
    }

    /// Whether what is at this place comes after an event of its unit.
    fn follows_an_event(&self, place: u64) -> bool {
        let unit = self.changes.get(&place).map(|waiting| waiting.unit);
        let before = self.changes.range(..place).next_back();
        before.is_some_and(|(_, before)| Some(before.unit) == unit)
    }

    /// What may be dropped has a class and a source.
    fn add(&mut self, change: Change, account: Option<(Class, Source)>) {
        let (id, bytes) = (self.next, change.size());
        let entry = account.map(|(class, source)| Entry { id, class, source, bytes });
        if let Some(entry) = &entry {
            self.bytes += bytes;
            self.ledgers.add(change.app(), entry);
        }
        self.next += 1;
        self.changes.insert(id, Unwritten { change, entry, unit: self.unit });
    }

    fn remove(&mut self, place: u64) -> Option<Change> {
        let Unwritten { change, entry, .. } = self.changes.remove(&place)?;
        if let Some(entry) = &entry {
            self.bytes -= entry.bytes;
            self.ledgers.remove(change.app(), entry);
        }
        match &change {
            Change::Keep(to, event) => self.topics.remove(to, event, place),
            Change::Tell(fact, _) if self.told.get(fact) == Some(&place) => drop(self.told.remove(fact)),
            _ => {}
        }
        Some(change)
    }

    /// Drops what goes first until the bound holds. What the backend is told by an event goes after it: both count for the
    /// same source, and the event is the older one.
    fn shrink(&mut self) {
        while self.bytes > self.max_bytes
            && let Some(place) = self.ledgers.first_to_go()
        {
            match self.remove(place) {
                Some(Change::Keep(to, event)) => self.losses.dropped.entry(to).or_default().add(&event.subject),
                Some(change @ Change::Tell(..)) => {
                    *self.losses.facts.entry(change.app().to_owned()).or_default() += 1;
                }
                _ => {}
            }
        }
    }
}

impl Work {
    /// Events among the changes.
    pub(super) fn events(&self) -> usize {
        self.changes.iter().filter(|change| matches!(change, Change::Keep(..))).count()
    }
}

impl Losses {
    fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.collapsed.is_empty() && self.facts.is_empty()
    }
}

impl Change {
    /// The app whose bytes it takes, if it may be dropped.
    fn app(&self) -> &str {
        match self {
            Self::Keep(to, _) => &to.app,
            Self::Tell(fact, _) => fact.split_once(' ').map_or("", |(app, _)| app),
            _ => "",
        }
    }

    fn size(&self) -> usize {
        let text = match self {
            Self::Keep(to, event) => event.text.len() + event.subject.len() + to.url.len(),
            Self::Bury(letter) => {
                let attempts = letter.attempts.iter().map(attempt_size).sum::<usize>();
                attempts + letter.texts().map(str::len).sum::<usize>()
            }
            Self::Tell(fact, _) => fact.len(),
            Self::Batch(ids, ..) | Self::Forget(ids) => size_of_val(&**ids),
            _ => 0,
        };
        text + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::super::letter::DeadEvent;
    use super::*;

    fn address(app: &str) -> Address {
        Address { app: app.to_owned(), url: "http://a/".to_owned() }
    }

    fn news(subject: &str, name: &str, source: u64) -> News {
        let text = format!(r#"{{"name":"{name}","channel":"{subject}"}}"#);
        let told = Some((format!("42 occupied {subject}"), name == "channel_occupied"));
        News { subject: subject.into(), text: text.into(), source: Source::from_number(source), told }
    }

    /// The subjects of events that would be written.
    fn subjects(changes: &[Change]) -> Vec<&str> {
        let subject = |change: &'_ Change| matches!(change, Change::Keep(..));
        let kept = changes.iter().filter(|change| subject(change));
        kept.filter_map(|change| if let Change::Keep(_, event) = change { Some(&*event.subject) } else { None })
            .collect()
    }

    #[test]
    fn above_the_bound_the_flood_goes_first_and_what_is_being_written_counts() {
        let (inbox, to) = (Inbox::new(64 * 1024, 1), address("42"));
        inbox.keep(&[&to], news("presence-room", "channel_occupied", 1));
        inbox.keep(&[&to], news("quiet", "channel_occupied", 2));
        let flood: u64 = 1000;
        for n in 0..flood {
            inbox.keep(&[&to], news(&format!("room-{n}"), "channel_occupied", 3));
            assert!(inbox.pile.lock().bytes <= 64 * 1024);
        }
        let (mut kept, mut dropped) = (0, Lost::default());
        for _ in 0..200 {
            let work = inbox.take().unwrap();
            let found = subjects(&work.changes);
            assert!(kept > 0 || found.starts_with(&["presence-room", "quiet"]), "{found:?}");
            kept += found.len() as u64;
            work.losses.dropped.values().for_each(|lost| dropped.merge(*lost));
            let pile = inbox.pile.lock();
            // A part of it, so that there is room for others meanwhile.
            assert!(pile.writing <= 64 * 1024 / PART + 1000, "{}", pile.writing);
            if pile.changes.is_empty() {
                break;
            }
        }
        assert_eq!((kept + dropped.open, dropped.trusted), (flood + 2, 0));
        assert!(dropped.open > flood / 2, "{dropped:?}");
        inbox.close();
        assert!(inbox.take().is_none());
        let pile = inbox.pile.lock();
        assert_eq!((pile.bytes, pile.writing), (0, 0));
        assert!(pile.told.is_empty() && pile.topics.is_empty() && pile.ledgers.first_to_go().is_none());
    }

    #[test]
    fn dead_letters_of_one_endpoint_drop_no_events() {
        let (inbox, to) = (Inbox::new(64 * 1024, 1), address("42"));
        inbox.keep(&[&to], news("presence-room", "channel_occupied", 1));
        let text = RawValue::from_string(format!("\"{}\"", "x".repeat(10 * 1024))).unwrap();
        let letter = || DeadLetter {
            to: address("loud"),
            time_ms: 0,
            reason: String::new(),
            attempt_count: 0,
            attempts: Vec::new(),
            events: vec![DeadEvent { id: 0, subject: "room".into(), event: text.clone() }],
        };
        for _ in 0..100 {
            inbox.push(Change::Bury(letter()));
        }
        inbox.keep(&[&to], news("quiet", "channel_occupied", 2));
        inbox.close();
        let (mut kept, mut letters, mut transactions) = (Vec::new(), 0, 0);
        while let Some(work) = inbox.take() {
            assert!(work.losses.is_empty(), "{:?}", work.losses);
            kept.extend(subjects(&work.changes).into_iter().map(str::to_owned));
            letters += work.changes.iter().filter(|change| matches!(change, Change::Bury(_))).count();
            transactions += 1;
        }
        assert_eq!((kept, letters), (vec!["presence-room".to_owned(), "quiet".to_owned()], 100));
        assert!(transactions > 50, "they are not written in one go: {transactions}");
        let pile = inbox.pile.lock();
        assert_eq!((pile.bytes, pile.writing), (0, 0));
    }

    #[test]
    fn a_flood_in_one_app_drops_nothing_of_another() {
        let max_bytes = 64 * 1024;
        let (inbox, loud, quiet) = (Inbox::new(max_bytes, 1), address("loud"), address("quiet"));
        let told = |app: &str, subject: &str| Some((format!("{app} occupied {subject}"), true));
        let quiet_ones = ["open", "private-a", "open-too", "presence-b"];
        for n in 0..1000 {
            // Trusted events, each of another client.
            let subject = format!("private-{n}");
            let event = News { told: told("loud", &subject), ..news(&subject, "channel_occupied", n) };
            inbox.keep(&[&loud], event);
            if let Some(subject) = quiet_ones.get(n as usize / 100).filter(|_| n % 100 == 0) {
                let event = News { told: told("quiet", subject), ..news(subject, "channel_occupied", 7) };
                inbox.keep(&[&quiet], event);
            }
            assert!(inbox.pile.lock().bytes <= max_bytes);
        }
        inbox.close();
        let (mut written, mut dropped, mut facts) = (Vec::new(), HashMap::new(), HashMap::new());
        while let Some(work) = inbox.take() {
            written.extend(work.changes);
            dropped.extend(work.losses.dropped);
            facts.extend(work.losses.facts);
        }
        let told = written.iter().filter(|change| matches!(change, Change::Tell(..))).count() as u64;
        let of_quiet = written.into_iter().filter(|change| change.app() == "quiet").collect::<Vec<_>>();
        assert_eq!(subjects(&of_quiet), quiet_ones);
        assert_eq!(of_quiet.len(), 2 * quiet_ones.len(), "events and facts");
        assert_eq!(dropped.keys().collect::<Vec<_>>(), [&loud]);
        assert!(dropped[&loud].trusted > 500, "{dropped:?}");
        assert_eq!(facts, HashMap::from([("loud".to_owned(), 1000 + quiet_ones.len() as u64 - told)]));
    }

    #[test]
    fn a_flood_makes_no_pair_of_another_class_or_app_collapse() {
        let (inbox, loud, quiet) = (Inbox::new(64 * 1024, 1), address("loud"), address("quiet"));
        let keep = |to: &Address, subject: &str, name: &str| {
            inbox.keep(&[to], News { told: None, ..news(subject, name, 1) });
        };
        let pair = |to: &Address, subject: &str| {
            keep(to, subject, "channel_occupied");
            keep(to, subject, "channel_vacated");
            inbox.pile.lock().losses.collapsed.remove(to).unwrap_or(0)
        };
        for n in 0..50 {
            keep(&loud, &format!("room-{n}"), "channel_occupied");
        }
        assert_eq!(pair(&loud, "private-room"), 0);
        assert_eq!(pair(&quiet, "room"), 0);
        assert_eq!(pair(&quiet, "private-room"), 0);
        assert_eq!(pair(&loud, "room"), 2);
        // Less than a sixteenth of all, but more than that of an equal share.
        for n in 0..8 {
            keep(&quiet, &format!("room-{n}"), "channel_occupied");
        }
        assert!(inbox.pile.lock().ledgers.bytes_of("quiet", Class::Open) < 64 * 1024 / 16);
        assert_eq!(pair(&quiet, "room-of-many"), 2);
    }

    #[test]
    fn a_pair_is_not_even_written_but_for_each_endpoint_by_itself() {
        let inbox = Inbox::new(64 * 1024, 1);
        let [one, two] = ["http://a/", "http://b/"].map(|url| Address { url: url.to_owned(), ..address("42") });
        for n in 0..20 {
            inbox.keep(&[&two], news(&format!("other-{n}"), "channel_occupied", 1));
        }
        inbox.keep(&[&one, &two], news("room", "channel_occupied", 1));
        inbox.keep(&[&one], news("room", "channel_vacated", 1));
        inbox.close();
        let (mut changes, mut collapsed) = (Vec::new(), HashMap::new());
        while let Some(work) = inbox.take() {
            changes.extend(work.changes);
            collapsed.extend(work.losses.collapsed);
        }
        // The other endpoint's event and what goes with it stay.
        assert_eq!(changes.len(), 20 + 20 + 3);
        assert_eq!(subjects(&changes).last(), Some(&"room"));
        assert!(changes.iter().all(|change| !matches!(change, Change::Keep(to, _) if *to == one)));
        assert!(matches!(changes.last(), Some(Change::Tell(fact, false)) if fact.ends_with("room")));
        assert_eq!(collapsed, HashMap::from([(one, 2)]));
    }

    #[test]
    fn an_event_is_written_together_with_what_the_backend_is_told_by_it() {
        let (inbox, one, two) = (Inbox::new(64 * 1024, 1), address("1"), address("2"));
        // The later word of a room does not take the earlier one away from its event.
        for name in ["channel_vacated", "channel_occupied"] {
            for n in 0..30 {
                inbox.keep(&[&one, &two], news(&format!("room-{n}"), name, 1));
            }
        }
        inbox.close();
        let mut parts = 0;
        while let Some(work) = inbox.take() {
            parts += 1;
            let (units, rest) = work.changes.as_chunks::<3>();
            assert!(rest.is_empty(), "{} are missing", 3 - rest.len());
            for unit in units {
                let [Change::Keep(to_one, event), Change::Keep(to_two, also), Change::Tell(fact, is_true)] = unit
                else {
                    panic!("no unit");
                };
                assert_eq!((to_one, to_two, &event.text), (&one, &two, &also.text));
                assert_eq!(*fact, format!("42 occupied {}", event.subject));
                assert_eq!(*is_true, event.text.contains("channel_occupied"));
            }
        }
        assert!(parts > 4, "{parts} parts");
    }

    #[test]
    fn of_what_the_backend_is_told_by_no_event_the_latest_word_is_enough() {
        let inbox = Inbox::new(64 * 1024, 1);
        for n in 0..1000 {
            let name = if n % 2 == 0 { "channel_occupied" } else { "channel_vacated" };
            inbox.keep(&[], news("room", name, 1));
        }
        assert!(matches!(&inbox.take().unwrap().changes[..], [Change::Tell(_, false)]));
    }
}
