//! A store whose disk may crash and fail.

use std::os::unix::fs::PermissionsExt;

use crate::source::Source;
use crate::webhooks::attempt::Attempt;
use crate::webhooks::class::Lost;
use crate::webhooks::disk::ram::Ram;
use crate::webhooks::queue::{Delivery, Event};
use crate::webhooks::tables::{EVENTS, Tables, encode};

use super::*;

const MAX_UNWRITTEN: usize = 1 << 20;

/// What the writer has told.
#[derive(Default)]
struct Told {
    kept: Mutex<Vec<u64>>,
    revived: Mutex<Vec<(u64, Vec<u64>)>>,
    dropped: Mutex<u64>,
    collapsed: Mutex<u64>,
    failures: Mutex<usize>,
    /// What it knows about an event makes it panic.
    panics: Mutex<bool>,
}

impl Readers for Told {
    fn kept(&self, _: &Address, event: Event) -> Vec<Vec<u64>> {
        assert!(!std::mem::take(&mut *self.panics.lock()), "the test wants that");
        self.kept.lock().push(event.id);
        Vec::new()
    }

    fn revived(&self, _: &Address, time_ms: u64, events: Vec<Event>) {
        self.revived.lock().push((time_ms, events.iter().map(|event| event.id).collect()));
    }

    fn dropped(&self, _: &Address, lost: Lost, _: &'static str) {
        *self.dropped.lock() += lost.count();
    }

    fn collapsed(&self, _: &Address, events: u64) {
        *self.collapsed.lock() += events;
    }

    fn facts_dropped(&self, _: &str, _: u64) {}

    fn store_failed(&self) {
        *self.failures.lock() += 1;
    }
}

fn start(ram: &Ram, max_dead: usize) -> (Store, Found, Arc<Told>) {
    let (store, found) = Store::on(ram.disk(), MAX_UNWRITTEN).unwrap();
    let told = Arc::new(Told::default());
    store.start(Arc::clone(&told) as Arc<dyn Readers>, max_dead).unwrap();
    (store, found, told)
}

fn to() -> Address {
    Address { app: "42".to_owned(), url: "http://a/".to_owned() }
}

fn keep(store: &Store, subject: &str) {
    store.keep(&[&to()], news(subject, r#"{"name":"x"}"#));
}

/// What the backend believes, and nobody wants to hear.
fn occupied() -> News {
    News { told: Some(("42 occupied a".to_owned(), true)), ..news("a", "{}") }
}

fn news(subject: &str, text: &str) -> News {
    News { subject: subject.into(), text: text.into(), source: Source::subject(subject), told: None }
}

fn sync(store: &Store) {
    let (done, written) = oneshot::channel();
    store.change(Change::Sync(done));
    written.blocking_recv().unwrap();
}

fn letter(ids: &[u64], answer: &str) -> DeadLetter {
    let source = Source::subject("a");
    let event = |id: &u64| Event { id: *id, subject: "a".into(), time_ms: *id, text: "{}".into(), source };
    let mut delivery = Delivery::untried(7, ids.iter().map(event).collect());
    delivery.attempts.push(Attempt { answer: answer.to_owned(), ..Attempt::answered(500) });
    DeadLetter::new(&to(), &delivery, "status 500".to_owned())
}

fn dead(store: &Store) -> Vec<u64> {
    store.dead(usize::MAX, |_| true).unwrap().into_iter().map(|(id, _)| id).collect()
}

fn ids(found: &Found) -> Vec<u64> {
    found.events.iter().map(|(_, event)| event.id).collect()
}

#[test]
fn what_was_written_survives_a_crash_and_only_that_is_announced() {
    let ram = Ram::default();
    let (store, found, told) = start(&ram, 0);
    assert!(found.events.is_empty());
    for subject in ["a", "b", "a"] {
        keep(&store, subject);
    }
    store.keep(&[], occupied());
    sync(&store);
    let kept = told.kept.lock().clone();
    let (done, written) = oneshot::channel();
    store.change(Change::Batch(kept[..2].to_vec(), 9, done));
    written.blocking_recv().unwrap();

    let (store, found, _) = start(&ram.after_a_crash(), 0);
    assert_eq!(ids(&found), kept);
    let (address, event) = &found.events[1];
    assert_eq!((address, &*event.subject, &*event.text), (&to(), "b", r#"{"name":"x"}"#));
    assert_eq!(found.told, ["42 occupied a"]);
    assert_eq!((found.batches[0].time_ms, &found.batches[0].ids[..]), (9, &kept[..2]));
    store.change(Change::Forget(kept[..2].to_vec()));
    store.change(Change::Tell("42 occupied a".to_owned(), false));
    drop(store);
}

#[test]
fn nothing_is_left_of_what_was_delivered_or_has_ended() {
    let ram = Ram::default();
    let (store, _, told) = start(&ram, 1000);
    keep(&store, "a");
    store.keep(&[], occupied());
    sync(&store);
    let kept = told.kept.lock().clone();
    let (done, _) = oneshot::channel();
    store.change(Change::Batch(kept.clone(), 9, done));
    store.change(Change::Forget(kept));
    store.change(Change::Tell("42 occupied a".to_owned(), false));
    sync(&store);
    let (_, found, _) = start(&ram.after_a_crash(), 1000);
    assert!(found.events.is_empty() && found.batches.is_empty() && found.told.is_empty(), "{found:?}");
}

#[test]
fn a_number_is_never_used_again_even_if_the_clock_goes_back() {
    let ram = Ram::default();
    let (store, _, told) = start(&ram, 0);
    // An hour ahead of the clock, as if that had been set back since.
    store.inbox.skip_numbers(60 * 60 * 1_000_000);
    keep(&store, "a");
    sync(&store);
    let last = told.kept.lock()[0];
    store.change(Change::Forget(vec![last]));
    sync(&store);
    let (store, found, told) = start(&ram.after_a_crash(), 0);
    assert!(found.events.is_empty());
    keep(&store, "a");
    sync(&store);
    assert!(told.kept.lock()[0] > last, "{} again after {last}", told.kept.lock()[0]);
    assert_eq!(store.parse_id(&store.delivery_id(last)), Some(last));
}

#[test]
fn what_another_version_wrote_is_left_alone() {
    let ram = Ram::default();
    drop(start(&ram, 0));
    ram.disk()
        .write(|transaction| {
            let mut tables = Tables::open(transaction)?;
            let far = u64::MAX / 2;
            tables.events.insert(far, &b"\xff\x00"[..])?;
            tables.events.insert(1, &br#"{"to":{"app":"42"}}"#[..])?;
            tables.batches.insert(1, &b"[]"[..])?;
            tables.dead.insert(1, &b"{}"[..])?;
            Ok(())
        })
        .unwrap();
    let (store, found, told) = start(&ram, 0);
    assert!(found.events.is_empty() && found.batches.is_empty());
    assert!(dead(&store).is_empty());
    assert!(store.dead_letter(1).unwrap().is_none());
    keep(&store, "a");
    sync(&store);
    assert!(told.kept.lock()[0] > u64::MAX / 2, "a number that is taken");
    let disk = ram.after_a_crash().disk();
    let left = disk.read(|transaction| Ok(transaction.open_table(EVENTS)?.get(u64::MAX / 2)?.is_some())).unwrap();
    assert!(left);
}

#[test]
fn the_oldest_dead_letters_go_and_those_of_the_process_before_count() {
    let ram = Ram::default();
    let size = encode(&letter(&[11, 12], "x")).len();
    let (store, _, told) = start(&ram, 2 * size);
    for first in [11, 21, 31] {
        store.change(Change::Bury(letter(&[first, first + 1], "x")));
    }
    sync(&store);
    assert_eq!((dead(&store), *told.dropped.lock()), (vec![31, 21], 2));

    let (store, _, told) = start(&ram.after_a_crash(), 2 * size);
    store.change(Change::Bury(letter(&[41, 42], "x")));
    sync(&store);
    assert_eq!((dead(&store), *told.dropped.lock()), (vec![41, 31], 2));
    // One that gets another try makes room.
    let (done, revived) = oneshot::channel();
    store.change(Change::Revive(31, done));
    assert!(revived.blocking_recv().unwrap());
    store.change(Change::Bury(letter(&[51, 52], "x")));
    sync(&store);
    assert_eq!((dead(&store), *told.dropped.lock()), (vec![51, 41], 2));
    assert_eq!(told.revived.lock()[0].1, [31, 32]);
    // For one that is larger than all the room there is, no other has to go.
    store.change(Change::Bury(letter(&[61], &"x".repeat(3 * size))));
    sync(&store);
    assert_eq!((dead(&store), *told.dropped.lock()), (vec![51, 41], 3));
}

#[test]
fn a_revived_letter_is_a_delivery_again_and_only_once() {
    let ram = Ram::default();
    let (store, _, told) = start(&ram, 10_000);
    store.change(Change::Bury(letter(&[1, 2], "x")));
    for expected in [true, false] {
        let (done, revived) = oneshot::channel();
        store.change(Change::Revive(1, done));
        assert_eq!(revived.blocking_recv(), Ok(expected));
    }
    sync(&store);
    let (time_ms, events) = told.revived.lock()[0].clone();
    assert_eq!(events, [1, 2]);
    let (_, found, _) = start(&ram.after_a_crash(), 10_000);
    assert_eq!((ids(&found), found.events[0].1.time_ms), (vec![1, 2], time_ms));
    assert_eq!((found.batches[0].time_ms, &found.batches[0].ids), (time_ms, &vec![1, 2]));
}

#[test]
fn a_disk_that_fails_once_costs_nothing() {
    let size = encode(&letter(&[1], "x")).len();
    let mut failed = 0;
    for successes in 0..20 {
        let ram = Ram::default();
        let (store, _, told) = start(&ram, 2 * size);
        store.change(Change::Bury(letter(&[1], "x")));
        store.change(Change::Bury(letter(&[2], "x")));
        keep(&store, "a");
        sync(&store);
        ram.fail(successes, 1);
        store.change(Change::Bury(letter(&[3], "x")));
        keep(&store, "b");
        sync(&store);
        failed += *told.failures.lock();
        for _ in 0..2 {
            keep(&store, "c");
            sync(&store);
        }
        assert!(*told.failures.lock() <= 1);
        assert_eq!(dead(&store), [3, 2], "{successes}");
        let kept = told.kept.lock().clone();
        assert_eq!(kept.len(), 4);
        let (store, found, _) = start(&ram.after_a_crash(), 2 * size);
        assert_eq!(ids(&found), kept, "{successes}");
        // The bound still is what it was.
        store.change(Change::Bury(letter(&[4], "x")));
        sync(&store);
        assert_eq!(dead(&store), [4, 3], "{successes}");
    }
    assert!(failed > 0, "no transaction has failed");
}

#[test]
fn without_a_disk_webhooks_are_delivered_from_memory() {
    let ram = Ram::default();
    let (store, _, told) = start(&ram, 1000);
    ram.fail(0, u32::MAX);
    keep(&store, "a");
    sync(&store);
    keep(&store, "b");
    sync(&store);
    assert_eq!((told.kept.lock().len(), *told.failures.lock()), (2, 2));
    assert!(store.dead(1, |_| true).is_err());
}

#[test]
fn only_its_owner_may_read_what_is_kept() {
    let directory = std::env::temp_dir().join(format!("fanfare-store-{}", std::process::id())).join("data");
    let (store, _) = Store::open(Some(&directory), MAX_UNWRITTEN).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&directory.join(FILE))), (0o700, 0o600));
    drop(store);
    std::fs::remove_dir_all(directory.parent().unwrap()).unwrap();
}

#[test]
fn a_panic_of_the_writer_costs_what_it_was_writing_and_nobody_waits_for_ever() {
    let ram = Ram::default();
    let (store, _, told) = start(&ram, 0);
    *told.panics.lock() = true;
    keep(&store, "a");
    let (done, written) = oneshot::channel();
    store.change(Change::Sync(done));
    // Perhaps of the same transaction, perhaps of the next one.
    let _ = written.blocking_recv();
    keep(&store, "b");
    sync(&store);
    assert_eq!((told.kept.lock().len(), *told.failures.lock()), (1, 1));
    // It was written.
    store.close();
    assert_eq!(Store::on(ram.disk(), MAX_UNWRITTEN).unwrap().1.events.len(), 2);
}

#[test]
fn open_dead_letters_go_before_trusted_ones() {
    let ram = Ram::default();
    let about = |id: u64, subject: &str| {
        let mut letter = letter(&[id], "");
        letter.events[0].subject = subject.into();
        letter
    };
    let size = encode(&about(1, "private-a")).len();
    let (store, _, told) = start(&ram, 3 * size);
    for (id, subject) in [(1, "private-a"), (2, "room-bcde"), (3, "room-fghi"), (4, "private-b")] {
        store.change(Change::Bury(about(id, subject)));
    }
    sync(&store);
    assert_eq!(dead(&store), [4, 3, 1]);
    // Also after a start, and a newer one if it is the only open one.
    store.close();
    let (store, _, _) = start(&ram, 3 * size);
    for (id, subject) in [(5, "private-c"), (6, "room-jklm")] {
        store.change(Change::Bury(about(id, subject)));
    }
    sync(&store);
    assert_eq!(dead(&store), [5, 4, 1]);
    assert_eq!(*told.dropped.lock(), 1);
    // Of trusted ones alone, the oldest.
    store.change(Change::Bury(about(7, "private-d")));
    sync(&store);
    assert_eq!(dead(&store), [7, 5, 4]);
}
