//! What is sent next, by a clock of the tests' own.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn queue(change: impl FnOnce(&mut Rules)) -> Queue {
    let mut rules = Rules { batch_size: 1, batch_wait: SECOND / 10, retry_period: 300 * SECOND, max_bytes: 1 << 20 };
    change(&mut rules);
    Queue::new(rules)
}

fn event(id: u64, subject: &str) -> Event {
    Event { id, subject: subject.into(), time_ms: id * 1000, text: "{}".into() }
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
        assert!(queue.push(event(id, subject), now).is_empty());
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
        assert!(queue.push(event(id, subject), now).is_empty());
    }
    // Number 1 is on its way.
    assert_eq!(queue.push(event(4, "b"), now), [[event(2, "a")]]);
    assert_eq!(queue.push(event(5, "b"), now), [[event(3, "b")]]);
    assert_eq!(sent(&mut queue, now), [[4]]);
    succeed(&mut queue, 4, now);
    assert_eq!(sent(&mut queue, now), [[5]]);
    assert_eq!(queue.len(), 2);
}

#[test]
fn at_the_bound_what_waits_for_another_attempt_is_older_than_what_comes_now() {
    let two = |rules: &mut Rules| {
        room_for(5)(rules);
        rules.batch_size = 2;
    };
    let (mut queue, now) = (queue(two), Instant::now());
    for (id, subject) in [(1, "a"), (2, "b"), (3, "c"), (4, "a")] {
        queue.push(event(id, subject), now);
    }
    assert_eq!(sent(&mut queue, now), [vec![1, 2], vec![3]]);
    fail(&mut queue, 1, now);
    // Its attempt takes some room, too.
    assert_eq!(queue.push(event(5, "d"), now), [[event(1, "a"), event(2, "b")]]);
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
fn what_is_remembered_of_attempts_counts() {
    let (mut queue, now) = (queue(|rules| rules.retry_period = 24 * 60 * 60 * SECOND), Instant::now());
    queue.push(event(1, "a"), now);
    let mut at = now;
    for attempts in 1..100 {
        assert_eq!(sent(&mut queue, at), [[1]]);
        let attempt = Attempt { answer: "x".repeat(attempts), ..Attempt::answered(500) };
        queue.finish(1, attempt, at, 0.5);
        let delivery = queue.delivery(1).unwrap();
        let remembered = delivery.attempts.iter().map(attempt_size).sum::<usize>();
        assert_eq!(queue.bytes(), size(&event(1, "a")) + remembered);
        assert!(delivery.attempts.len() <= REMEMBERED);
        at += 60 * SECOND;
    }
    assert_eq!(sent(&mut queue, at), [[1]]);
    succeed(&mut queue, 1, at);
    assert_eq!(queue.bytes(), 0);
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
