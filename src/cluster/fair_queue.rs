//! A queue that is fair to its sources: one line for each of them, served in turn. Whatever waits for one source delays the
//! others by one entry per round, not by its length.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use foldhash::quality::RandomState;

/// Capacity that is kept although nothing needs it any more.
const KEPT: usize = 64;

/// Entries of many sources, in the order of each source and in turns between them. Callers bound it: they look at
/// [`FairQueue::len_of`] or [`FairQueue::len`] before they push.
#[derive(Debug)]
pub(super) struct FairQueue<S, T> {
    /// Sources with entries, the next one first. Each has one turn.
    turns: VecDeque<S>,
    lines: HashMap<S, VecDeque<T>, RandomState>,
    length: usize,
}

impl<S, T> Default for FairQueue<S, T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), lines: HashMap::default(), length: 0 }
    }
}

impl<S: Copy + Eq + Hash, T> FairQueue<S, T> {
    /// Appends an entry to the line of its source.
    pub(super) fn push(&mut self, source: S, entry: T) {
        self.length += 1;
        match self.lines.entry(source) {
            Entry::Occupied(mut line) => line.get_mut().push_back(entry),
            Entry::Vacant(vacant) => {
                // Most sources have one entry.
                let mut line = VecDeque::with_capacity(1);
                line.push_back(entry);
                vacant.insert(line);
                self.turns.push_back(source);
            }
        }
    }

    /// Takes the first entry of the source whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(S, T)> {
        let source = self.turns.pop_front()?;
        let line = self.lines.get_mut(&source)?;
        let entry = line.pop_front()?;
        self.length -= 1;
        if line.is_empty() {
            self.lines.remove(&source);
        } else {
            if is_oversized(line.capacity(), line.len()) {
                line.shrink_to(2 * line.len());
            }
            self.turns.push_back(source);
        }
        // Halved each time, so that a burst pays once for what it has allocated.
        if is_oversized(self.turns.capacity(), self.turns.len()) {
            self.turns.shrink_to(2 * self.turns.len());
        }
        if is_oversized(self.lines.capacity(), self.lines.len()) {
            self.lines.shrink_to(2 * self.lines.len());
        }
        Some((source, entry))
    }

    /// Entries of all sources.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Entries of one source.
    pub(super) fn len_of(&self, source: S) -> usize {
        self.lines.get(&source).map_or(0, VecDeque::len)
    }

    /// Sources with entries.
    pub(super) fn sources(&self) -> usize {
        self.turns.len()
    }
}

/// Whether a collection has room for several times what it holds.
pub(super) fn is_oversized(capacity: usize, length: usize) -> bool {
    capacity > KEPT && capacity / 8 > length
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// The same, written so that it is plainly right.
    #[derive(Default)]
    struct Naive {
        lines: Vec<(u8, Vec<u32>)>,
    }

    impl Naive {
        fn push(&mut self, source: u8, entry: u32) {
            match self.lines.iter_mut().find(|(of, _)| *of == source) {
                Some((_, line)) => line.push(entry),
                None => self.lines.push((source, vec![entry])),
            }
        }

        fn pop(&mut self) -> Option<(u8, u32)> {
            if self.lines.is_empty() {
                return None;
            }
            let (source, mut line) = self.lines.remove(0);
            let entry = line.remove(0);
            if !line.is_empty() {
                self.lines.push((source, line));
            }
            Some((source, entry))
        }
    }

    #[test]
    fn it_does_what_a_naive_one_does() {
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..50 {
            let (mut queue, mut naive) = (FairQueue::default(), Naive::default());
            // Bursts that fill it and pauses that empty it.
            for step in 0..2000_u32 {
                let fills = step / 200 % 2 == 0;
                if random.random_bool(if fills { 0.8 } else { 0.2 }) {
                    // A few sources push most.
                    let source = random.random_range(0..20_u8).min(random.random_range(0..20));
                    queue.push(source, step);
                    naive.push(source, step);
                } else {
                    assert_eq!(queue.pop(), naive.pop());
                }
                let length =
                    |source: u8| naive.lines.iter().find(|(of, _)| *of == source).map_or(0, |(_, line)| line.len());
                assert_eq!(queue.len(), (0..20).map(length).sum::<usize>());
                assert_eq!(queue.sources(), naive.lines.len());
                let source = random.random_range(0..20);
                assert_eq!(queue.len_of(source), length(source));
            }
            while let Some(expected) = naive.pop() {
                assert_eq!(queue.pop(), Some(expected));
            }
            assert_eq!((queue.pop(), queue.len(), queue.sources()), (None, 0, 0));
        }
    }

    #[test]
    fn a_source_with_much_delays_others_by_one_entry_a_round() {
        let mut queue = FairQueue::default();
        for entry in 0..300_000 {
            queue.push(0, entry);
        }
        for source in 1..=50 {
            queue.push(source, 0);
        }
        let sources: Vec<_> = (0..51).map(|_| queue.pop().unwrap().0).collect();
        assert_eq!(sources, (0..51).collect::<Vec<_>>());
    }

    #[test]
    fn memory_shrinks_after_a_burst() {
        let mut queue = FairQueue::default();
        for entry in 0..100_000_u32 {
            queue.push(entry % 10_000, entry);
            queue.push(u32::MAX, entry);
        }
        for _ in 0..200_000 {
            queue.pop();
        }
        assert!(queue.turns.capacity() <= 8 * KEPT && queue.lines.capacity() <= 8 * KEPT, "{queue:?}");
        queue.push(1, 1);
        assert_eq!(queue.pop(), Some((1, 1)));
        // One line that is never quite empty.
        for entry in 0..100_000 {
            queue.push(1, entry);
        }
        while queue.len() > 1 {
            queue.pop();
        }
        assert!(queue.lines[&1].capacity() <= 8 * KEPT, "{}", queue.lines[&1].capacity());
    }
}
