//! What is sent next, by a clock of the tests' own.

use std::collections::HashSet;

use serde_json::json;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn queue(change: impl FnOnce(&mut Rules)) -> Queue {
    let mut rules = Rules { batch_size: 1, batch_wait: SECOND / 10, retry_period: 300 * SECOND, max_bytes: 1 << 20 };
    change(&mut rules);
    Queue::new(rules)
}

fn event(id: u64, subject: &str) -> Event {
    Event { id, subject: subject.into(), time_ms: id * 1000, text: "{}".into(), source: Source::from_number(1) }
}

fn sent(queue: &mut Queue, now: Instant) -> Vec<Vec<u64>> {
    let mut all = Vec::new();
    while let Next::Send { id, .. } = queue.next(now, 7) {
        all.push(queue.delivery(id).unwrap().events.iter().map(|event| event.id).collect());
    }
    all
}

fn succeed(queue: &mut Queue, id: u64, now: Instant) {
    assert!(matches!(queue.finish(id, Attempt::answered(204), now, 0.5), Some(Verdict::Delivered)));
}

fn fail(queue: &mut Queue, id: u64, now: Instant) -> Option<Verdict> {
    queue.finish(id, Attempt::answered(500), now, 0.5)
}

#[test]
fn events_of_one_subject_wait_for_each_other_and_for_no_others() {
    let (mut queue, now) = (queue(|rules| rules.batch_wait = Duration::ZERO), Instant::now());
    for (id, subject) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        assert!(queue.push(event(id, subject), now).dropped.is_empty());
    }
    assert_eq!(sent(&mut queue, now), [[1], [3]]);
    succeed(&mut queue, 1, now);
    assert_eq!(sent(&mut queue, now), [[2]]);
    assert!(matches!(fail(&mut queue, 2, now), Some(Verdict::Again(pause)) if pause == SECOND));
    queue.push(event(5, "c"), now);
    assert_eq!(sent(&mut queue, now), [[5]]);
    assert_eq!(sent(&mut queue, now + SECOND), [[2]]);
    succeed(&mut queue, 2, now + SECOND);
    assert_eq!(sent(&mut queue, now + SECOND), [[4]]);
    for id in [3, 4, 5] {
        succeed(&mut queue, id, now);
    }
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
    assert!(matches!(queue.next(now, 0), Next::Idle));
}

#[test]
fn a_batch_goes_when_it_is_full_or_has_waited_and_keeps_its_time() {
    let (mut queue, now) = (queue(|rules| rules.batch_size = 3), Instant::now());
    queue.push(event(1, "a"), now);
    queue.push(event(2, "a"), now);
    assert!(matches!(queue.next(now, 7), Next::Wait(at) if at == now + SECOND / 10));
    queue.push(event(3, "b"), now);
    queue.push(event(4, "c"), now);
    queue.push(event(5, "b"), now);
    assert!(matches!(queue.next(now, 7), Next::Send { id: 1, is_new_batch: true }));
    assert_eq!(queue.delivery(1).unwrap().time_ms, 7);
    // Number 5 has to wait for number 3, and number 4 alone is no full batch.
    assert!(matches!(queue.next(now, 8), Next::Wait(at) if at == now + SECOND / 10));
    assert!(matches!(queue.next(now + SECOND, 9), Next::Send { id: 4, is_new_batch: true }));
    assert_eq!(queue.delivery(4).unwrap().time_ms, 4000);
    fail(&mut queue, 1, now);
    assert_eq!(sent(&mut queue, now + SECOND), [[1, 2, 3]]);
    assert_eq!(queue.delivery(1).unwrap().time_ms, 7);
    succeed(&mut queue, 1, now);
    assert_eq!(sent(&mut queue, now + SECOND), [[5]]);
}

#[test]
fn a_failure_is_tried_again_until_its_time_is_over() {
    let (mut queue, now) = (queue(|rules| rules.retry_period = 10 * SECOND), Instant::now());
    queue.push(event(1, "a"), now);
    let mut at = now;
    let mut pauses = Vec::new();
    let dead = loop {
        assert_eq!(sent(&mut queue, at), [[1]]);
        match fail(&mut queue, 1, at).unwrap() {
            Verdict::Again(pause) => {
                assert!(sent(&mut queue, at).is_empty());
                pauses.push(pause.as_secs());
                at += pause;
            }
            Verdict::Dead(delivery) => break delivery,
            Verdict::Delivered => panic!(),
        }
    };
    // The last attempt is made when the time is over.
    assert_eq!(pauses, [1, 2, 4, 3]);
    assert_eq!((dead.attempt_count, dead.attempts.len()), (5, 5));
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
}

#[test]
fn an_event_that_had_to_wait_for_its_turn_has_less_time() {
    let (mut queue, now) = (queue(|rules| rules.retry_period = 10 * SECOND), Instant::now());
    queue.push(event(1, "a"), now);
    queue.push(event(2, "a"), now + 5 * SECOND);
    queue.push(event(3, "a"), now + 5 * SECOND);
    assert_eq!(sent(&mut queue, now + SECOND), [[1]]);
    assert!(matches!(fail(&mut queue, 1, now + 10 * SECOND), Some(Verdict::Dead(_))));
    assert_eq!(sent(&mut queue, now + 11 * SECOND), [[2]]);
    assert!(matches!(fail(&mut queue, 2, now + 11 * SECOND), Some(Verdict::Again(_))));
    assert_eq!(sent(&mut queue, now + 15 * SECOND), [[2]]);
    assert!(matches!(fail(&mut queue, 2, now + 15 * SECOND), Some(Verdict::Dead(_))));
    // Its time is over, and yet it gets its chance.
    assert_eq!(sent(&mut queue, now + 16 * SECOND), [[3]]);
    assert!(matches!(fail(&mut queue, 3, now + 16 * SECOND), Some(Verdict::Dead(_))));
}

#[test]
fn pauses_double_up_to_a_minute_and_are_never_quite_the_same() {
    let pauses: Vec<_> = (1..=9).map(|failures| backoff(failures, 0.5).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!((backoff(3, 0.0), backoff(3, 1.0)), (3 * SECOND, 5 * SECOND));
}

#[test]
fn an_endpoint_that_is_back_gets_everything_at_once() {
    let (mut queue, now) = (queue(|_| {}), Instant::now());
    for (id, subject) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        queue.push(event(id, subject), now);
    }
    let later = now + SECOND;
    assert_eq!(sent(&mut queue, later), [[1], [2], [3], [4]]);
    for id in [1, 2, 3] {
        fail(&mut queue, id, later);
    }
    assert!(sent(&mut queue, later).is_empty());
    succeed(&mut queue, 4, later);
    assert_eq!(sent(&mut queue, later), [[1], [2], [3]]);
    // Three failures before are no reason to wait long for what it was not ready for yet.
    assert!(matches!(fail(&mut queue, 1, later), Some(Verdict::Again(pause)) if pause == SECOND));
}

#[test]
fn one_bad_event_among_good_ones_is_not_hurried() {
    let (mut queue, now) = (queue(|_| {}), Instant::now());
    queue.push(event(1, "bad"), now);
    queue.push(event(2, "good"), now);
    let later = now + SECOND;
    assert_eq!(sent(&mut queue, later), [[1], [2]]);
    fail(&mut queue, 1, later);
    succeed(&mut queue, 2, later);
    assert!(sent(&mut queue, later).is_empty());
}

fn room_for(events: usize) -> impl FnOnce(&mut Rules) {
    move |rules| {
        rules.batch_wait = Duration::ZERO;
        rules.max_bytes = events * size(&event(1, "a"));
    }
}

#[test]
fn at_the_bound_the_oldest_that_waits_is_dropped() {
    let (mut queue, now) = (queue(room_for(3)), Instant::now());
    queue.push(event(1, "a"), now);
    assert_eq!(sent(&mut queue, now), [[1]]);
    for (id, subject) in [(2, "a"), (3, "b")] {
        assert!(queue.push(event(id, subject), now).dropped.is_empty());
    }
    // Number 1 is on its way.
    assert_eq!(queue.push(event(4, "b"), now).dropped, [[event(2, "a")]]);
    assert_eq!(queue.push(event(5, "b"), now).dropped, [[event(3, "b")]]);
    assert_eq!(sent(&mut queue, now), [[4]]);
    succeed(&mut queue, 4, now);
    assert_eq!(sent(&mut queue, now), [[5]]);
    assert_eq!(queue.len(), 2);
}

#[test]
fn at_the_bound_what_waits_for_another_attempt_is_older_than_what_comes_now() {
    let two = |rules: &mut Rules| {
        room_for(4)(rules);
        rules.batch_size = 2;
    };
    let (mut queue, now) = (queue(two), Instant::now());
    for (id, subject) in [(1, "a"), (2, "b"), (3, "c"), (4, "a")] {
        queue.push(event(id, subject), now);
    }
    assert_eq!(sent(&mut queue, now), [vec![1, 2], vec![3]]);
    fail(&mut queue, 1, now);
    assert_eq!(queue.push(event(5, "d"), now).dropped, [[event(1, "a"), event(2, "b")]]);
    fail(&mut queue, 3, now);
    // Nothing holds number 4 back any more, and nobody tries the dropped ones again.
    assert_eq!(sent(&mut queue, now + SECOND), [vec![3], vec![4, 5]]);
    for id in [3, 4] {
        succeed(&mut queue, id, now + SECOND);
    }
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
    assert!(matches!(queue.next(now + 9 * SECOND, 0), Next::Idle));
}

#[test]
fn what_is_remembered_of_attempts_takes_no_room_of_events() {
    let (mut queue, now) = (queue(|rules| rules.retry_period = 24 * 60 * 60 * SECOND), Instant::now());
    queue.push(event(1, "a"), now);
    let mut at = now;
    for attempts in 1..100 {
        assert_eq!(sent(&mut queue, at), [[1]]);
        let attempt = Attempt { answer: "x".repeat(attempts), ..Attempt::answered(500) };
        queue.finish(1, attempt, at, 0.5);
        let delivery = queue.delivery(1).unwrap();
        let remembered = delivery.attempts.iter().map(attempt_size).sum::<usize>();
        assert_eq!((queue.bytes(), queue.remembered), (size(&event(1, "a")), remembered));
        assert!(delivery.attempts.len() <= REMEMBERED);
        at += 60 * SECOND;
    }
    assert_eq!(sent(&mut queue, at), [[1]]);
    succeed(&mut queue, 1, at);
    assert_eq!((queue.bytes(), queue.remembered), (0, 0));
}

#[test]
fn deliveries_of_the_process_before_come_first_and_hold_their_subjects() {
    let (mut queue, now) = (queue(|rules| rules.batch_wait = Duration::ZERO), Instant::now());
    queue.push(event(3, "a"), now);
    queue.restore(vec![event(1, "a"), event(2, "b")], 5, now);
    assert_eq!(sent(&mut queue, now), [[1, 2]]);
    succeed(&mut queue, 1, now);
    assert_eq!(sent(&mut queue, now), [[3]]);
}

#[test]
fn first_attempts_and_further_ones_take_turns() {
    let (mut queue, now) = (queue(|rules| rules.batch_wait = Duration::ZERO), Instant::now());
    for id in 1..=3 {
        queue.restore(vec![event(id, &format!("old {id}"))], 0, now);
        queue.push(event(id + 10, &format!("new {id}")), now);
    }
    let order: Vec<u64> = sent(&mut queue, now).concat();
    assert_eq!(order, [11, 1, 12, 2, 13, 3]);
}

/// An event with a text.
fn told(id: u64, subject: &str, source: u64, text: &str) -> Event {
    Event { text: text.into(), source: Source::from_number(source), ..event(id, subject) }
}

fn named(id: u64, subject: &str, name: &str) -> Event {
    told(id, subject, 1, &format!(r#"{{"name":"{name}","channel":"{subject}"}}"#))
}

#[test]
fn a_source_that_floods_loses_its_own_events_and_open_ones_go_first() {
    let (mut queue, now) = (queue(room_for(6)), Instant::now());
    queue.push(told(1, "presence-a", 1, "{}"), now);
    queue.push(told(2, "b", 2, "{}"), now);
    let mut dropped = Vec::new();
    for id in 3..100 {
        let pushed = queue.push(told(id, &(id % 10).to_string(), 3, "{}"), now);
        dropped.extend(pushed.dropped.into_iter().flatten().map(|event| event.id));
    }
    assert_eq!(dropped, (3..dropped.len() as u64 + 3).collect::<Vec<_>>());
    // Trusted ones push out everything open, the flood first, and only then one another.
    let order: Vec<u64> = (100..108)
        .flat_map(|id| queue.push(told(id, "private-c", 4, "{}"), now).dropped.into_iter().flatten())
        .map(|event| event.id)
        .collect();
    let open = order.iter().position(|id| *id == 1 || *id >= 100).unwrap();
    assert!(order[..open].contains(&2) && !order[open..].contains(&1), "{order:?}");
    assert!(queue.line.events().all(|event| Class::of(&event.subject) == Class::Trusted));
    assert!(queue.bytes() <= queue.rules.max_bytes);
}

#[test]
fn sources_take_turns_and_trusted_events_do_not_wait_behind_open_ones() {
    let (mut queue, now) = (queue(|rules| rules.batch_wait = Duration::ZERO), Instant::now());
    for id in 1..=20 {
        queue.push(told(id, &id.to_string(), 1, "{}"), now);
    }
    queue.push(told(21, "21", 2, "{}"), now);
    queue.push(told(22, "22", 2, "{}"), now);
    queue.push(told(23, "private-23", 1, "{}"), now);
    let order: Vec<u64> = [1, 23, 21, 2, 22].into_iter().chain(3..=20).collect();
    assert_eq!(sent(&mut queue, now).concat(), order);
}

#[test]
fn one_event_does_not_wait_behind_the_many_of_few_channels() {
    for kind in ["", "private-"] {
        let (mut queue, now) = (queue(|rules| rules.batch_wait = Duration::ZERO), Instant::now());
        for id in 1..=1000 {
            queue.push(told(id, &format!("{kind}{}", id % 10), 1, "{}"), now);
        }
        queue.push(told(1001, &format!("{kind}other"), 2, "{}"), now);
        // One request at a time: ten channels would fill ten requests before the other's turn could be seen.
        let mut order = Vec::new();
        while let Next::Send { id, .. } = queue.next(now, 0) {
            order.push(id);
            succeed(&mut queue, id, now);
        }
        assert_eq!(order[..3], [1, 1001, 2]);
        assert_eq!(order.len(), 1001);
    }
}

#[test]
fn a_batch_is_open_or_trusted() {
    let (mut queue, now) = (queue(|rules| rules.batch_size = 10), Instant::now());
    for (id, subject) in [(1, "a"), (2, "private-b"), (3, "c"), (4, "presence-d")] {
        queue.push(event(id, subject), now);
    }
    assert_eq!(sent(&mut queue, now + SECOND), [[1, 3], [2, 4]]);
}

/// With two events.
fn crowded_soon(rules: &mut Rules) {
    rules.batch_wait = Duration::ZERO;
    rules.max_bytes = 6000;
}

#[test]
fn while_there_is_much_room_everything_is_sent() {
    let (mut queue, now) = (queue(|rules| rules.batch_wait = Duration::ZERO), Instant::now());
    for (id, name) in
        ["channel_occupied", "channel_vacated", "subscription_count", "subscription_count"].iter().enumerate()
    {
        assert!(queue.push(named(id as u64 + 1, "a", name), now).collapsed.is_empty());
    }
    assert_eq!(queue.len(), 4);
}

#[test]
fn what_ends_before_it_was_sent_is_not_sent() {
    let (mut queue, now) = (queue(crowded_soon), Instant::now());
    queue.push(named(1, "a", "channel_occupied"), now);
    queue.push(named(2, "b", "channel_occupied"), now);
    assert_eq!(queue.push(named(3, "a", "channel_vacated"), now).collapsed, [1, 3]);
    assert_eq!(sent(&mut queue, now), [[2]]);
    // It was tried, and the backend may know.
    assert!(queue.push(named(4, "b", "channel_vacated"), now).collapsed.is_empty());
    queue.push(named(5, "b", "channel_occupied"), now);
    queue.push(named(6, "b", "client_event"), now);
    assert!(queue.push(named(7, "b", "channel_vacated"), now).collapsed.is_empty());
    for id in [2, 4, 5, 6, 7] {
        succeed(&mut queue, id, now);
        sent(&mut queue, now);
    }
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
}

#[test]
fn a_flood_of_one_class_makes_no_pair_of_the_other_collapse() {
    for (flood, quiet) in [("room", "private-a"), ("private-a", "room")] {
        let (mut queue, now) = (queue(crowded_soon), Instant::now());
        for id in 1..=10 {
            queue.push(named(id, &format!("{flood}-{id}"), "channel_occupied"), now);
        }
        queue.push(named(11, quiet, "channel_occupied"), now);
        assert!(queue.push(named(12, quiet, "channel_vacated"), now).collapsed.is_empty(), "{flood}");
        assert_eq!(queue.push(named(13, &format!("{flood}-1"), "channel_vacated"), now).collapsed, [1, 13]);
    }
}

#[test]
fn a_newer_count_takes_the_turn_of_an_older_one() {
    let (mut queue, now) = (queue(crowded_soon), Instant::now());
    queue.push(named(1, "a", "subscription_count"), now);
    queue.push(named(2, "b", "subscription_count"), now);
    assert_eq!(queue.push(named(3, "a", "subscription_count"), now).collapsed, [1]);
    assert_eq!(queue.push(named(4, "b", "channel_occupied"), now).collapsed, [0; 0]);
    assert_eq!(queue.push(named(5, "b", "channel_occupied"), now).collapsed, [5]);
    // Turns count where many wait.
    for id in 10..30 {
        queue.push(named(id, &id.to_string(), "subscription_count"), now);
    }
    assert_eq!(sent(&mut queue, now)[..2], [[3], [2]]);
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What a backend would know.
#[derive(Default)]
struct Backend {
    true_now: HashMap<String, bool>,
    counts: HashMap<String, String>,
    last_id: HashMap<Arc<str>, u64>,
}

impl Backend {
    fn hear(&mut self, event: &Event) {
        let last = self.last_id.insert(Arc::clone(&event.subject), event.id);
        assert!(last.is_none_or(|last| last < event.id), "{last:?} before {event:?}");
        self.believe(event);
    }

    fn believe(&mut self, event: &Event) {
        let fields: HashMap<String, String> = serde_json::from_str(&event.text).unwrap();
        let whom = format!("{} {}", event.subject, fields.get("user_id").map_or("", String::as_str));
        match fields["name"].as_str() {
            "channel_occupied" | "member_added" => drop(self.true_now.insert(whom, true)),
            "channel_vacated" | "member_removed" => drop(self.true_now.insert(whom, false)),
            "subscription_count" => drop(self.counts.insert(whom, fields["count"].clone())),
            _ => {}
        }
    }
}

/// Something that can happen now, and that it has.
fn happen(dice: &mut Dice, truth: &mut Backend, id: u64) -> Event {
    let kind = ["", "cache-", "presence-"][dice.roll(3) as usize];
    let subject = format!("{kind}{}", dice.roll(4));
    let name = if kind == "presence-" {
        ["member_added", "member_removed", "client_event"]
    } else {
        ["channel_occupied", "channel_vacated", "subscription_count"]
    }[dice.roll(3) as usize];
    let user_id = if name.starts_with("member") { dice.roll(3).to_string() } else { String::new() };
    let whom = format!("{subject} {user_id}");
    let is_true = truth.true_now.get(&whom).copied().unwrap_or(false);
    let name = match name {
        "channel_occupied" if is_true => "channel_vacated",
        "channel_vacated" if !is_true => "channel_occupied",
        "member_added" if is_true => "member_removed",
        "member_removed" if !is_true => "member_added",
        name => name,
    };
    let text = json!({ "channel": subject, "user_id": user_id, "count": id.to_string(), "pad": "x".repeat(dice.roll(90) as usize) });
    let text = format!(r#"{{"name":"{name}",{}"#, &text.to_string()[1..]);
    // The text of a member's events is the same but for the name, as it really is.
    let text = match name.starts_with("member") {
        true => format!(r#"{{"name":"{name}","channel":"{subject}","user_id":"{user_id}"}}"#),
        false => text,
    };
    let event = told(id, &subject, dice.roll(4), &text);
    truth.believe(&event);
    event
}

/// A queue under load, with an endpoint that fails now and then. Every event ends in exactly one way.
fn live(seed: u64, batch_size: usize, max_bytes: usize) -> (Backend, Backend, usize) {
    let mut queue = queue(|rules| {
        rules.batch_size = batch_size;
        rules.max_bytes = max_bytes;
        rules.retry_period = 10_000 * SECOND;
    });
    let (mut dice, mut now) = (Dice(seed), Instant::now());
    let (mut truth, mut backend) = (Backend::default(), Backend::default());
    let mut open: HashSet<u64> = HashSet::new();
    let mut sending: Vec<u64> = Vec::new();
    let mut lost = 0;
    let over = |open: &mut HashSet<u64>, id: u64| assert!(open.remove(&id), "{id} twice");
    for id in 1..1000 {
        let event = happen(&mut dice, &mut truth, id);
        open.insert(id);
        let pushed = queue.push(event, now);
        pushed.collapsed.iter().for_each(|id| over(&mut open, *id));
        let dropped: Vec<Event> = pushed.dropped.concat();
        lost += dropped.len();
        if dropped.iter().any(|event| Class::of(&event.subject) == Class::Trusted) {
            assert!(droppable(&queue).all(|(_, class)| class == Class::Trusted), "{dropped:?}");
        }
        dropped.iter().for_each(|event| over(&mut open, event.id));
        assert!(queue.bytes() <= max_bytes || queue.ledger.first_to_go().is_none());
        while sending.len() < 4 && dice.roll(3) == 0 {
            now += SECOND / 5;
            let Next::Send { id, .. } = queue.next(now, 0) else { break };
            sending.push(id);
        }
        if !sending.is_empty() && dice.roll(3) == 0 {
            let id = sending.swap_remove(dice.roll(sending.len() as u64) as usize);
            let events = queue.delivery(id).unwrap().events.clone();
            if dice.roll(4) == 0 {
                fail(&mut queue, id, now);
            } else {
                succeed(&mut queue, id, now);
                events.iter().for_each(|event| backend.hear(event));
                events.iter().for_each(|event| over(&mut open, event.id));
            }
        }
        assert_eq!(queue.len(), open.len());
    }
    loop {
        for id in std::mem::take(&mut sending) {
            let events = queue.delivery(id).unwrap().events.clone();
            succeed(&mut queue, id, now);
            events.iter().for_each(|event| backend.hear(event));
            events.iter().for_each(|event| over(&mut open, event.id));
        }
        now += 100 * SECOND;
        let Next::Send { id, .. } = queue.next(now, 0) else { break };
        sending.push(id);
    }
    assert!(open.is_empty(), "{open:?}");
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
    assert!(queue.line.is_clean() && queue.topics.is_empty() && queue.ledger.first_to_go().is_none());
    (truth, backend, lost)
}

/// What may be dropped.
fn droppable(queue: &Queue) -> impl Iterator<Item = (u64, Class)> {
    let waiting = queue.line.events().map(|event| (event.id, Class::of(&event.subject)));
    waiting.chain(queue.resting.iter().map(|(id, (_, entry))| (*id, entry.class)))
}

#[test]
fn whatever_happens_order_and_accounts_are_right_and_the_backend_ends_up_with_what_is_true() {
    for seed in 1..20 {
        for batch_size in [1, 5] {
            let (truth, backend, lost) = live(seed, batch_size, 1 << 18);
            assert_eq!(lost, 0);
            for (whom, is_true) in &truth.true_now {
                assert_eq!(backend.true_now.get(whom).unwrap_or(&false), is_true, "{whom}, seed {seed}");
            }
            assert_eq!(backend.counts, truth.counts, "seed {seed}");
            let (.., lost) = live(seed, batch_size, 8 * size(&event(1, "a")));
            assert!(lost > 0, "nothing was dropped");
        }
    }
}

#[test]
fn what_is_remembered_of_attempts_has_a_bound_of_its_own_and_no_event_goes_for_it() {
    let day = 24 * 60 * 60 * SECOND;
    let (room, most) = (8 * size(&event(1, "a")), size(&event(1, "a")));
    let (mut queue, now) = (queue(|rules| (rules.max_bytes, rules.retry_period) = (room, day)), Instant::now());
    for (id, subject) in [(1, "a"), (2, "b"), (3, "c")] {
        queue.push(event(id, subject), now);
    }
    let mut at = now;
    for round in 0..20 {
        assert_eq!(sent(&mut queue, at).len(), 3);
        for id in 1..=3 {
            queue.finish(id, Attempt { answer: "x".repeat(round), ..Attempt::answered(500) }, at, 0.5);
            assert!(queue.remembered <= most, "{} of {most}", queue.remembered);
        }
        at += 120 * SECOND;
    }
    let remembered: usize = [1, 2, 3].map(|id| queue.delivery(id).unwrap().remembered()).iter().sum();
    assert!(remembered == queue.remembered && remembered > 0);
    // There is as much room for events as ever.
    for (id, subject) in [(4, "d"), (5, "e"), (6, "f"), (7, "g"), (8, "h")] {
        assert!(queue.push(event(id, subject), at).dropped.is_empty());
    }
    assert_eq!(queue.push(event(9, "i"), at).dropped.len(), 1);
    // Nor does what is remembered decide who loses: of the same source, the oldest.
    assert!(queue.delivery(1).is_none());
    // What is given up remembers why.
    sent(&mut queue, at);
    for id in [2, 3] {
        let late = at + day;
        let Some(Verdict::Dead(dead)) = queue.finish(id, Attempt::answered(503), late, 0.5) else { panic!("{id}") };
        assert_eq!(dead.attempts.last().map(|attempt| attempt.status), Some(Some(503)));
    }
}

#[test]
fn when_the_endpoint_is_back_everybody_has_a_quick_next_attempt_each_time() {
    let (mut queue, now) = (queue(|rules| rules.batch_wait = Duration::ZERO), Instant::now());
    for (id, subject) in [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")] {
        queue.push(event(id, subject), now);
    }
    let mut at = now;
    for round in [4, 5] {
        // The others fail until they would wait for long.
        for _ in 0..5 {
            sent(&mut queue, at);
            let under_way: Vec<u64> = (1..=3).filter(|id| queue.next_attempt(*id).is_none()).collect();
            under_way.into_iter().for_each(|id| drop(fail(&mut queue, id, at)));
            at += 10 * SECOND;
        }
        succeed(&mut queue, round, at);
        assert_eq!(sent(&mut queue, at), [[1], [2], [3]]);
        for id in 1..=3 {
            assert!(matches!(fail(&mut queue, id, at), Some(Verdict::Again(pause)) if pause == SECOND), "number {id}");
        }
    }
}
