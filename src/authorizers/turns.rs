//! Fair turns at something that serves few at a time. Who asks for much at once must not keep others waiting.
//!
//! A source may begin something while it has less under way than there are places free: one alone gets half of them, two get
//! a third each, and so on. So there is a place for whoever comes next, however much the others want. What does not begin at
//! once waits behind what its own source asked for before, and places that become free go round among the sources.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Turns<S: Source>(Arc<Mutex<State<S>>>);

/// What tells sources apart.
pub(super) trait Source: Copy + Eq + Hash {}

impl<S: Copy + Eq + Hash> Source for S {}

/// A place, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn<S: Source> {
    turns: Turns<S>,
    source: S,
}

#[derive(Debug)]
struct State<S: Source> {
    free: usize,
    /// Those that have something under way or waiting.
    sources: HashMap<S, Demand<S>, RandomState>,
    /// Those that have something waiting, the next first.
    line: VecDeque<S>,
    /// Numbers what waits.
    count: u64,
}

/// What a source has.
#[derive(Debug)]
struct Demand<S: Source> {
    under_way: usize,
    /// The earliest first.
    waiting: BTreeMap<u64, oneshot::Sender<Turn<S>>>,
}

/// What waits. Dropped, it does not any more.
#[derive(Debug)]
struct Waiting<'a, S: Source> {
    turns: &'a Turns<S>,
    source: S,
    number: u64,
}

impl<S: Source> Turns<S> {
    /// So many places.
    pub(super) fn new(places: usize) -> Self {
        let state = State { free: places, sources: HashMap::default(), line: VecDeque::new(), count: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Waits for a place.
    ///
    /// # Cancel safety
    /// Safe: who does not wait any more gets no place, and loses none for others.
    pub(super) async fn take(&self, source: S) -> Turn<S> {
        let (sender, turn) = oneshot::channel();
        let number = {
            let mut state = self.0.lock();
            state.count += 1;
            let number = state.count;
            let demand = state.sources.entry(source).or_default();
            let is_first = demand.waiting.is_empty();
            demand.waiting.insert(number, sender);
            if is_first {
                state.line.push_back(source);
            }
            number
        };
        let _waiting = Waiting { turns: self, source, number };
        self.admit();
        turn.await.expect("what waits is dropped by itself or given a turn")
    }

    /// Gives turns to those that may have one.
    fn admit(&self) {
        let begun: Vec<_> = {
            let mut state = self.0.lock();
            std::iter::from_fn(|| state.next()).collect()
        };
        // Not under the lock: a turn for somebody who has just gone comes back at once.
        for (source, sender) in begun {
            let _ = sender.send(Turn { turns: self.clone(), source });
        }
    }
}

impl<S: Source> State<S> {
    /// Takes a place for the next in the line that may have one.
    fn next(&mut self) -> Option<(S, oneshot::Sender<Turn<S>>)> {
        let may_begin = |source: &S| self.sources.get(source).is_some_and(|demand| demand.under_way < self.free);
        // Nobody with nothing under way is passed over while a place is free, so this takes a look at few.
        let position = Some(()).filter(|()| self.free > 0).and_then(|()| self.line.iter().position(may_begin))?;
        let source = self.line.remove(position)?;
        let demand = self.sources.get_mut(&source)?;
        let (_, sender) = demand.waiting.pop_first()?;
        demand.under_way += 1;
        self.free -= 1;
        if !demand.waiting.is_empty() {
            self.line.push_back(source);
        }
        Some((source, sender))
    }

    /// Changes what a source has, and forgets it if that is nothing.
    fn change(&mut self, source: S, change: impl FnOnce(&mut Demand<S>)) {
        let Some(demand) = self.sources.get_mut(&source) else { return };
        let waited = !demand.waiting.is_empty();
        change(demand);
        let waits = !demand.waiting.is_empty();
        if !waits && demand.under_way == 0 {
            self.sources.remove(&source);
        }
        if waited && !waits {
            self.line.retain(|other| *other != source);
        }
    }
}

impl<S: Source> Default for Demand<S> {
    fn default() -> Self {
        Self { under_way: 0, waiting: BTreeMap::new() }
    }
}

impl<S: Source> Drop for Waiting<'_, S> {
    fn drop(&mut self) {
        self.turns.0.lock().change(self.source, |demand| drop(demand.waiting.remove(&self.number)));
    }
}

impl<S: Source> Drop for Turn<S> {
    fn drop(&mut self) {
        {
            let mut state = self.turns.0.lock();
            state.free += 1;
            state.change(self.source, |demand| demand.under_way -= 1);
        }
        self.turns.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    /// What sources have begun, and what they wait for.
    struct Crowd {
        turns: Turns<char>,
        begun: Vec<Turn<char>>,
        waiting: Vec<(char, BoxFuture<'static, Turn<char>>)>,
    }

    impl Crowd {
        fn new(places: usize) -> Self {
            Self { turns: Turns::new(places), begun: Vec::new(), waiting: Vec::new() }
        }

        fn ask(&mut self, sources: &str) -> &mut Self {
            for source in sources.chars() {
                let turns = self.turns.clone();
                self.waiting.push((source, async move { turns.take(source).await }.boxed()));
                self.poll();
            }
            self
        }

        fn poll(&mut self) {
            for (source, mut turn) in std::mem::take(&mut self.waiting) {
                match (&mut turn).now_or_never() {
                    Some(turn) => self.begun.push(turn),
                    None => self.waiting.push((source, turn)),
                }
            }
        }

        /// The sources of what is under way, sorted.
        fn under_way(&self) -> String {
            let mut sources: Vec<char> = self.begun.iter().map(|turn| turn.source).collect();
            sources.sort_unstable();
            sources.into_iter().collect()
        }

        fn end(&mut self, source: char) -> &mut Self {
            let position = self.begun.iter().position(|turn| turn.source == source).unwrap();
            drop(self.begun.remove(position));
            self.poll();
            self
        }

        fn is_idle(&mut self) -> bool {
            let state = self.turns.0.lock();
            state.sources.is_empty() && state.line.is_empty()
        }
    }

    #[test]
    fn a_place_is_left_for_whoever_comes_next() {
        let mut crowd = Crowd::new(8);
        assert_eq!(crowd.ask("aaaaaaaaaaaa").under_way(), "aaaa");
        assert_eq!(crowd.ask("bbbb").under_way(), "aaaabb");
        assert_eq!(crowd.ask("c").under_way(), "aaaabbc");
        assert_eq!(crowd.ask("d").under_way(), "aaaabbcd");
        // All taken: nobody has much more than the others, and what ends makes room for those that have least.
        assert_eq!(crowd.ask("e").under_way(), "aaaabbcd");
        assert_eq!(crowd.end('a').under_way(), "aaabbcde");
        assert_eq!(crowd.end('a').under_way(), "aabbcde");
        // With the others gone, their places are shared by those who want more; one alone has half of them again.
        assert_eq!(crowd.end('c').end('d').end('e').under_way(), "aaabbb");
        crowd.end('b').end('b').end('b').end('b');
        assert_eq!(crowd.under_way(), "aaaa");
    }

    #[test]
    fn turns_go_round() {
        let mut crowd = Crowd::new(1);
        crowd.ask("aaabbc");
        let mut order = String::new();
        while let Some(turn) = crowd.begun.pop() {
            order.push(turn.source);
            drop(turn);
            crowd.poll();
        }
        assert_eq!(order, "aabcab");
        assert!(crowd.is_idle());
    }

    #[test]
    fn those_who_go_leave_nothing_behind() {
        let mut crowd = Crowd::new(1);
        crowd.ask("abbb");
        drop(crowd.waiting.remove(0));
        assert_eq!(crowd.turns.0.lock().sources.get(&'b').unwrap().waiting.len(), 2);
        // One is given its turn, and goes before it takes it.
        let [turn] = std::mem::take(&mut crowd.begun).try_into().unwrap();
        drop(turn);
        drop(crowd.waiting.remove(0));
        crowd.poll();
        assert_eq!(crowd.under_way(), "b");
        crowd.end('b');
        assert!(crowd.is_idle());
        assert_eq!(crowd.turns.0.lock().free, 1);
    }
}
