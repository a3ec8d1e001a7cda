//! Turns at a backend that is asked few questions at a time. A source that asks many at once must not keep others waiting.
//!
//! A source may begin a question while it has fewer under way than there are free places: one source alone gets half of them,
//! two get a third each, and so on. So a newcomer finds a place, however much a few others want. A question that cannot begin
//! waits behind the earlier ones of its own source, and places that become free go round among the sources.
//!
//! Each waiting question is a request that somebody keeps open, so there are no more of them than connections and streams.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::addresses::Network;

/// The places at one backend. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Mutex<State>>);

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    source: Network,
}

#[derive(Debug)]
struct State {
    places: usize,
    free: usize,
    waiting: usize,
    /// The sources that have something under way or waiting.
    sources: HashMap<Network, Demand, RandomState>,
    /// The sources that have something waiting, each once, the next one first.
    line: VecDeque<Network>,
    /// The number of the latest question.
    latest: u64,
}

/// The questions of a source.
#[derive(Debug, Default)]
struct Demand {
    under_way: usize,
    /// The earliest first.
    waiting: BTreeMap<u64, oneshot::Sender<Turn>>,
}

/// A question in the queue of its source, which it leaves when this is dropped.
struct Queued<'a> {
    turns: &'a Turns,
    source: Network,
    number: u64,
}

impl Turns {
    /// So many places.
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            places,
            free: places,
            waiting: 0,
            sources: HashMap::default(),
            line: VecDeque::new(),
            latest: 0,
        })))
    }

    /// Waits for a place.
    ///
    /// # Cancel safety
    /// Safe: a question that is given up leaves the queue, and a place that it was just given goes to the next one.
    pub(super) async fn take(&self, source: Network) -> Turn {
        let (sender, turn) = oneshot::channel();
        let number = self.0.lock().enqueue(source, sender);
        let _queued = Queued { turns: self, source, number };
        self.admit();
        turn.await.expect("a sender stays in the queue until it sends, or until `_queued` is dropped")
    }

    /// The questions under way, and those that wait.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.places - state.free, state.waiting)
    }

    /// Begins every question that may begin.
    fn admit(&self) {
        loop {
            // The lock is released before a turn is sent: one that nobody takes is dropped, which locks it again.
            let Some((source, sender)) = self.0.lock().next() else { return };
            let _ = sender.send(Turn { turns: self.clone(), source });
        }
    }
}

impl State {
    fn enqueue(&mut self, source: Network, sender: oneshot::Sender<Turn>) -> u64 {
        self.latest += 1;
        self.waiting += 1;
        let queue = &mut self.sources.entry(source).or_default().waiting;
        if queue.is_empty() {
            self.line.push_back(source);
        }
        queue.insert(self.latest, sender);
        self.latest
    }

    /// Takes a place for the first source in the line that may have one, which goes to the end of the line.
    fn next(&mut self) -> Option<(Network, oneshot::Sender<Turn>)> {
        let free = self.free;
        let may_begin = |source: &Network| self.sources.get(source).is_some_and(|demand| demand.under_way < free);
        // A source that is passed over has at least as many questions under way as places are free: while there is a
        // place, there are fewer such sources than places. Without one, nobody need be looked at.
        let position = if free == 0 { None } else { self.line.iter().position(may_begin) }?;
        let source = self.line.remove(position)?;
        let demand = self.sources.get_mut(&source)?;
        let (_, sender) = demand.waiting.pop_first()?;
        demand.under_way += 1;
        if !demand.waiting.is_empty() {
            self.line.push_back(source);
        }
        self.free -= 1;
        self.waiting -= 1;
        Some((source, sender))
    }

    /// A question that may have had its turn waits no longer.
    fn dequeue(&mut self, source: Network, number: u64) {
        let Some(demand) = self.sources.get_mut(&source) else { return };
        if demand.waiting.remove(&number).is_none() {
            return;
        }
        self.waiting -= 1;
        if demand.waiting.is_empty() {
            self.line.retain(|other| *other != source);
            self.forget(source);
        }
    }

    /// A question is not under way any more.
    fn end(&mut self, source: Network) {
        self.free += 1;
        if let Some(demand) = self.sources.get_mut(&source) {
            demand.under_way -= 1;
            self.forget(source);
        }
    }

    /// Forgets a source that has nothing any more.
    fn forget(&mut self, source: Network) {
        if self.sources.get(&source).is_some_and(|demand| demand.under_way == 0 && demand.waiting.is_empty()) {
            self.sources.remove(&source);
        }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.turns.0.lock().dequeue(self.source, self.number);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.0.lock().end(self.source);
        self.turns.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::Ipv4Addr;

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    /// Sources are letters here.
    fn network(source: char) -> Network {
        Network::of(Ipv4Addr::from_bits(source.into()).into())
    }

    /// Questions under way and waiting, each with its source, the earliest first.
    struct Crowd {
        turns: Turns,
        begun: Vec<(char, Turn)>,
        waiting: Vec<(char, BoxFuture<'static, Turn>)>,
    }

    impl Crowd {
        fn new(places: usize) -> Self {
            Self { turns: Turns::new(places), begun: Vec::new(), waiting: Vec::new() }
        }

        /// Each letter asks once.
        fn ask(&mut self, sources: &str) -> &mut Self {
            for source in sources.chars() {
                let turns = self.turns.clone();
                self.waiting.push((source, async move { turns.take(network(source)).await }.boxed()));
                self.poll();
            }
            self
        }

        /// Takes the turns that were given.
        fn poll(&mut self) {
            for (source, mut turn) in std::mem::take(&mut self.waiting) {
                match (&mut turn).now_or_never() {
                    Some(turn) => self.begun.push((source, turn)),
                    None => self.waiting.push((source, turn)),
                }
            }
        }

        /// The earliest question of each letter ends.
        fn end(&mut self, sources: &str) -> &mut Self {
            for source in sources.chars() {
                let position = self.begun.iter().position(|(of, _)| *of == source).unwrap();
                drop(self.begun.remove(position));
                self.poll();
            }
            self
        }

        /// The earliest waiting question of a letter is given up.
        fn give_up(&mut self, source: char) {
            let position = self.waiting.iter().position(|(of, _)| *of == source).unwrap();
            drop(self.waiting.remove(position));
        }

        /// The sources of what is under way, sorted.
        fn under_way(&self) -> String {
            let mut sources: Vec<char> = self.begun.iter().map(|(source, _)| *source).collect();
            sources.sort_unstable();
            assert_eq!(self.turns.counts(), (sources.len(), self.waiting.len()));
            sources.into_iter().collect()
        }

        #[track_caller]
        fn assert_idle(&self, places: usize) {
            let state = self.turns.0.lock();
            assert_eq!((state.free, state.waiting), (places, 0));
            assert!(state.sources.is_empty() && state.line.is_empty(), "{state:?}");
        }
    }

    #[test]
    fn a_source_alone_has_half_and_newcomers_find_a_place() {
        let mut crowd = Crowd::new(8);
        assert_eq!(crowd.ask("aaaaaaaaaaaa").under_way(), "aaaa");
        assert_eq!(crowd.ask("bbbb").under_way(), "aaaabb");
        assert_eq!(crowd.ask("c").under_way(), "aaaabbc");
        assert_eq!(crowd.ask("d").under_way(), "aaaabbcd");
        // No place is left: what ends makes room for a source that has less than the others.
        assert_eq!(crowd.ask("e").under_way(), "aaaabbcd");
        assert_eq!(crowd.end("a").under_way(), "aaabbcde");
        assert_eq!(crowd.end("a").under_way(), "aabbcde");
        // The shares grow when others have gone.
        assert_eq!(crowd.end("cde").under_way(), "aaabbb");
        assert_eq!(crowd.end("bbbb").under_way(), "aaaa");
    }

    #[test]
    fn two_greedy_sources_have_a_third_each() {
        let mut crowd = Crowd::new(64);
        crowd.ask(&"ab".repeat(100));
        assert_eq!(crowd.under_way(), "a".repeat(22) + &"b".repeat(21));
    }

    #[test]
    fn turns_go_round_and_questions_of_a_source_keep_their_order() {
        let mut crowd = Crowd::new(1);
        crowd.ask("aaabbc");
        let mut order = String::new();
        while let Some((source, turn)) = crowd.begun.pop() {
            order.push(source);
            drop(turn);
            crowd.poll();
        }
        assert_eq!(order, "aabcab");
        crowd.assert_idle(1);

        let turns = Turns::new(1);
        let held = turns.take(network('a')).now_or_never().unwrap();
        let [mut first, mut second] = [turns.take(network('b')).boxed(), turns.take(network('b')).boxed()];
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(held);
        assert!((&mut second).now_or_never().is_none());
        assert!(first.now_or_never().is_some());
    }

    #[test]
    fn a_question_that_is_given_up_leaves_the_queue() {
        let mut crowd = Crowd::new(1);
        crowd.ask("abbc");
        crowd.give_up('b');
        assert_eq!(crowd.turns.counts(), (1, 2));
        crowd.give_up('b');
        assert!(!crowd.turns.0.lock().sources.contains_key(&network('b')));
        assert_eq!(crowd.end("a").under_way(), "c");
        crowd.end("c");
        crowd.assert_idle(1);
    }

    #[test]
    fn a_place_given_to_a_question_that_is_given_up_goes_to_the_next() {
        let mut crowd = Crowd::new(1);
        crowd.ask("abc");
        // `b` has its turn, and goes before it looks.
        drop(crowd.begun.pop());
        assert_eq!(crowd.turns.counts(), (1, 1));
        crowd.give_up('b');
        crowd.poll();
        assert_eq!(crowd.under_way(), "c");
        crowd.end("c");
        crowd.assert_idle(1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_place_is_lost_among_threads() {
        let turns = Turns::new(3);
        let tasks: Vec<_> = (0..3000u32)
            .map(|n| {
                let turns = turns.clone();
                tokio::spawn(async move {
                    let source = network(char::from(b'a' + (n % 7) as u8));
                    let patience = std::time::Duration::from_micros(u64::from(n % 5) * 300);
                    if let Ok(turn) = tokio::time::timeout(patience, turns.take(source)).await {
                        tokio::task::yield_now().await;
                        drop(turn);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        Crowd { turns, begun: Vec::new(), waiting: Vec::new() }.assert_idle(3);
    }
}
