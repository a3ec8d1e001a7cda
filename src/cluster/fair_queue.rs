//! A queue that is fair on two levels: sources take turns, and so do the lines of each source. Whatever waits in one line
//! delays the others of its source by one entry per round, and other sources by no more than if its source had one line.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use foldhash::quality::RandomState;

/// Capacity that is kept although nothing needs it any more.
const KEPT: usize = 64;

/// Entries of many sources and lines, in the order of each line. Callers bound it: they look at its lengths before they push.
#[derive(Debug)]
pub(super) struct FairQueue<S, L, T> {
    /// Sources with entries, the next one first. Each has one turn.
    turns: VecDeque<S>,
    sources: HashMap<S, Source<L>, RandomState>,
    lines: HashMap<(S, L), VecDeque<T>, RandomState>,
    length: usize,
}

#[derive(Debug)]
struct Source<L> {
    /// Its lines with entries, the next one first. Each has one turn.
    turns: VecDeque<L>,
    length: usize,
}

impl<S, L, T> Default for FairQueue<S, L, T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), sources: HashMap::default(), lines: HashMap::default(), length: 0 }
    }
}

impl<S: Copy + Eq + Hash, L: Copy + Eq + Hash, T> FairQueue<S, L, T> {
    /// Appends an entry to a line of its source.
    pub(super) fn push(&mut self, source: S, line: L, entry: T) {
        self.length += 1;
        let of_source = self.sources.entry(source).or_insert_with(|| {
            self.turns.push_back(source);
            // Most sources have one line, and most lines one entry.
            Source { turns: VecDeque::with_capacity(1), length: 0 }
        });
        of_source.length += 1;
        match self.lines.entry((source, line)) {
            Entry::Occupied(mut entries) => entries.get_mut().push_back(entry),
            Entry::Vacant(vacant) => {
                let mut entries = VecDeque::with_capacity(1);
                entries.push_back(entry);
                vacant.insert(entries);
                of_source.turns.push_back(line);
            }
        }
    }

    /// Takes the first entry of the line whose turn it is, of the source whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(S, L, T)> {
        let source = self.turns.pop_front()?;
        let of_source = self.sources.get_mut(&source)?;
        let line = of_source.turns.pop_front()?;
        let entries = self.lines.get_mut(&(source, line))?;
        let entry = entries.pop_front()?;
        self.length -= 1;
        of_source.length -= 1;
        if entries.is_empty() {
            self.lines.remove(&(source, line));
        } else {
            give_back(entries);
            of_source.turns.push_back(line);
        }
        if of_source.turns.is_empty() {
            self.sources.remove(&source);
        } else {
            give_back(&mut of_source.turns);
            self.turns.push_back(source);
        }
        give_back(&mut self.turns);
        if is_oversized(self.sources.capacity(), self.sources.len()) {
            self.sources.shrink_to(2 * self.sources.len());
        }
        if is_oversized(self.lines.capacity(), self.lines.len()) {
            self.lines.shrink_to(2 * self.lines.len());
        }
        Some((source, line, entry))
    }

    /// Entries of all sources.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Entries in one line.
    pub(super) fn len_of(&self, source: S, line: L) -> usize {
        self.lines.get(&(source, line)).map_or(0, VecDeque::len)
    }

    /// Entries of one source.
    pub(super) fn len_of_source(&self, source: S) -> usize {
        self.sources.get(&source).map_or(0, |source| source.length)
    }

    /// Sources with entries.
    pub(super) fn sources(&self) -> usize {
        self.turns.len()
    }

    /// Lines of one source with entries.
    pub(super) fn lines_of(&self, source: S) -> usize {
        self.sources.get(&source).map_or(0, |source| source.turns.len())
    }
}

/// Halves what is far too large, so that a burst pays once for what it has allocated.
fn give_back<T>(entries: &mut VecDeque<T>) {
    if is_oversized(entries.capacity(), entries.len()) {
        entries.shrink_to(2 * entries.len());
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

    type Lines = Vec<(u8, Vec<u32>)>;

    /// The same, written so that it is plainly right.
    #[derive(Default)]
    struct Naive {
        sources: Vec<(u8, Lines)>,
    }

    impl Naive {
        fn push(&mut self, source: u8, line: u8, entry: u32) {
            let lines = find(&mut self.sources, source);
            find(lines, line).push(entry);
        }

        fn pop(&mut self) -> Option<(u8, u8, u32)> {
            if self.sources.is_empty() {
                return None;
            }
            let (source, mut lines) = self.sources.remove(0);
            let (line, mut entries) = lines.remove(0);
            let entry = entries.remove(0);
            if !entries.is_empty() {
                lines.push((line, entries));
            }
            if !lines.is_empty() {
                self.sources.push((source, lines));
            }
            Some((source, line, entry))
        }

        fn lines(&self, source: u8) -> &[(u8, Vec<u32>)] {
            self.sources.iter().find(|(of, _)| *of == source).map_or(&[], |(_, lines)| lines)
        }
    }

    fn find<T: Default>(list: &mut Vec<(u8, T)>, key: u8) -> &mut T {
        let at = list.iter().position(|(of, _)| *of == key).unwrap_or_else(|| {
            list.push((key, T::default()));
            list.len() - 1
        });
        &mut list[at].1
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
                    // A few push most.
                    let mut any = |most: u8| random.random_range(0..most).min(random.random_range(0..most));
                    let (source, line) = (any(8), any(5));
                    queue.push(source, line, step);
                    naive.push(source, line, step);
                } else {
                    assert_eq!(queue.pop(), naive.pop());
                }
                let (source, line) = (random.random_range(0..8), random.random_range(0..5));
                let lines = naive.lines(source);
                let lengths: Vec<_> = lines.iter().map(|(_, entries)| entries.len()).collect();
                let own = lines.iter().find(|(of, _)| *of == line).map_or(0, |(_, entries)| entries.len());
                assert_eq!(queue.len_of(source, line), own);
                assert_eq!(queue.len_of_source(source), lengths.iter().sum::<usize>());
                assert_eq!((queue.sources(), queue.lines_of(source)), (naive.sources.len(), lengths.len()));
                let all = (0..8).map(|source| queue.len_of_source(source)).sum::<usize>();
                assert_eq!(queue.len(), all);
            }
            while let Some(next) = queue.pop() {
                assert_eq!(Some(next), naive.pop());
            }
            assert!(naive.sources.is_empty() && queue.lines.is_empty() && queue.sources.is_empty());
        }
    }

    #[test]
    fn many_lines_are_no_more_than_one() {
        let mut queue = FairQueue::default();
        for line in 0..10_000 {
            queue.push("many", line, ());
        }
        queue.push("one", 0, ());
        queue.pop();
        assert_eq!(queue.pop(), Some(("one", 0, ())));
    }

    #[test]
    fn a_line_with_much_delays_others_by_one_entry_a_round() {
        let mut queue = FairQueue::default();
        for entry in 0..300_000 {
            queue.push(0, 0, entry);
        }
        for number in 1..=50 {
            queue.push(0, number, 0);
            queue.push(number, 0, 0);
        }
        let taken: Vec<_> = (0..101).map(|_| queue.pop().unwrap()).collect();
        let sources = taken.iter().map(|(source, ..)| *source);
        // A round of all sources; then, as nobody else is left, one of the lines of this one.
        assert!(sources.take(51).eq(0..51));
        assert!(taken[51..].iter().map(|(_, line, _)| *line).eq(1..51));
    }

    #[test]
    fn memory_shrinks_after_a_burst() {
        let mut queue = FairQueue::default();
        for entry in 0..100_000_u32 {
            queue.push(entry % 5_000, 0, entry);
            queue.push(u32::MAX, entry % 5_000, entry);
            queue.push(u32::MAX, u32::MAX, entry);
        }
        for _ in 0..300_000 {
            queue.pop();
        }
        let few = 8 * KEPT;
        assert!(queue.turns.capacity() <= few && queue.lines.capacity() <= few && queue.sources.capacity() <= few);
        queue.push(1, 1, 1);
        assert_eq!(queue.pop(), Some((1, 1, 1)));
        // A line, and the lines of a source, that are never quite empty.
        for entry in 0..100_000 {
            queue.push(1, 1, entry);
        }
        while queue.len() > 1 {
            queue.pop();
        }
        assert!(queue.lines[&(1, 1)].capacity() <= few, "{}", queue.lines[&(1, 1)].capacity());
        queue.pop();
        for entry in 0..100_000 {
            queue.push(1, entry, entry);
        }
        while queue.len() > 1 {
            queue.pop();
        }
        assert!(queue.sources[&1].turns.capacity() <= few, "{}", queue.sources[&1].turns.capacity());
    }
}
