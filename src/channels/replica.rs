//! How this node follows one channel or user through the cluster: an ordered stream of changes, decided elsewhere.
//!
//! What a node contributes (connections, members) is told to the cluster as it is, not as a difference, so that telling it
//! twice does no harm. What comes of it arrives as numbered news, the same for all nodes. Until the first answer, and
//! whenever a number is missing, a replica asks for everything and holds back the news that come meanwhile.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::protocol::{Frame, Member, SocketId, UserId};

/// News that a replica holds back at most while it waits for everything; after that it asks again.
const MAX_HELD: usize = 10_000;

/// A place in a stream of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Which stream. Another one has nothing to do with it.
    pub stream: u64,
    /// The number of the news.
    pub seq: u64,
    /// When it was published: milliseconds of the cluster's clock.
    pub ms: u64,
}

/// Something that has become true of a channel or a user, or was said there.
#[derive(Debug, Clone)]
pub enum News {
    /// An event.
    Event {
        /// Ready for sockets.
        frame: Frame,
        /// Who does not get it.
        except: Option<SocketId>,
        /// Whether newcomers are shown it.
        cached: bool,
    },
    /// A member joined.
    Added(Member),
    /// A member left.
    Removed(UserId),
    /// The number of subscribers that everybody is told.
    Count(usize),
    /// The user came online.
    Online,
    /// The user went offline.
    Offline,
    /// The user's connections are closed with this code.
    Terminate(u16),
}

/// What a node tells the cluster about one topic.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// Connections that are subscribed or signed in here.
    pub connections: usize,
    /// Members that are new among this node's.
    pub joined: Vec<Member>,
    /// Members that are not among them any more.
    pub left: Vec<UserId>,
    /// Members that clients believe in although they are not this node's; told when the cluster has lost its memory.
    pub believed: Vec<Member>,
    /// The answer must contain everything. The position is that of the last news, if there were any.
    pub everything: Option<Option<Position>>,
    /// It is the first since the link came up, and not the first of all.
    pub again: bool,
    /// Somebody found a cache channel empty.
    pub cache_miss: bool,
}

/// What the cluster says to a contribution.
#[derive(Debug)]
pub struct Answer {
    /// When it took effect.
    pub position: Position,
    /// Connections in the whole cluster.
    pub connections: usize,
    /// Members for whom there is no room.
    pub refused: Vec<UserId>,
    /// If it was asked for.
    pub everything: Option<Everything>,
}

/// What is true of a topic.
#[derive(Debug)]
pub struct Everything {
    /// Events were lost.
    pub gap: bool,
    /// All members.
    pub members: Vec<Member>,
    /// The user has connections.
    pub online: bool,
    /// The cached event, and how long it lasts in milliseconds.
    pub cached: Option<(Bytes, u64)>,
    /// News since the position that was asked for.
    pub missed: Vec<News>,
}

/// What came of news or an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Something is to be told to the cluster.
    pub again: bool,
    /// Events were lost that a client here should have had.
    pub gap: bool,
    /// Nobody here is interested any more.
    pub over: bool,
}

/// Where the link to the cluster stands, which has had many lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Life {
    /// Which one; 0 while there is none.
    pub number: u64,
    /// The cluster has lost its memory before it.
    pub fresh: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Replica {
    /// The life of the link in which the rest is meant.
    life: u64,
    phase: Phase,
    position: Option<Position>,
    held: VecDeque<(Position, News)>,
    /// A contribution is under way.
    busy: bool,
    /// Something has changed since the last one.
    dirty: bool,
    /// Connections of this node that the cluster counts.
    connections: usize,
    /// Connections of all nodes, as far as the news have told, and since which of them.
    total: (u64, usize),
    cache_miss: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Everything has to be asked for.
    #[default]
    Apart,
    /// It has been.
    Asking,
    /// News are followed as they come.
    Live,
}

impl Replica {
    /// Whether it follows the news of this life.
    pub(super) fn is_live(&self, life: Life) -> bool {
        self.life == life.number && self.phase == Phase::Live
    }

    /// Whether the news have come as far as that.
    pub(super) fn has_reached(&self, position: Position) -> bool {
        // What is in another stream is behind us: a later look at everything led here.
        self.phase == Phase::Live
            && self.position.is_some_and(|here| here.stream != position.stream || here.seq >= position.seq)
    }

    /// Something has changed that the cluster must hear. True if it is to be asked for a contribution.
    pub(super) fn touch(&mut self) -> bool {
        !std::mem::replace(&mut self.dirty, true) && !self.busy
    }

    /// Whether something is left to tell, now or after the contribution that is under way.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// A cache channel had nothing to show.
    pub(super) fn miss(&mut self) {
        self.cache_miss = true;
        self.touch();
    }

    /// Whether nothing is left to tell and nobody is counted.
    pub(super) fn is_over(&self) -> bool {
        self.connections == 0 && !self.busy && !self.dirty
    }

    /// Begins a contribution, if there is something to tell and none is under way. True in the second place if it is the
    /// first of a life.
    pub(super) fn begin(&mut self, life: Life, connections: usize) -> Option<(Contribution, bool)> {
        let begins = self.life != life.number;
        if begins {
            self.life = life.number;
            self.phase = Phase::Apart;
            self.busy = false;
            self.held.clear();
        }
        // Another source may have told it by now.
        if self.busy || !(begins || self.dirty) {
            return None;
        }
        self.busy = true;
        self.dirty = false;
        let everything = (self.phase != Phase::Live).then_some(self.position);
        if everything.is_some() {
            self.phase = Phase::Asking;
        }
        let again = begins && self.position.is_some();
        let cache_miss = std::mem::take(&mut self.cache_miss);
        Some((Contribution { connections, everything, again, cache_miss, ..Contribution::default() }, begins))
    }

    /// The answer to a contribution is here. False if it belongs to another life. `everything` still has to be applied.
    pub(super) fn finish(&mut self, life: Life, contribution: &Contribution, answer: &Answer) -> bool {
        if self.life != life.number || !self.busy {
            return false;
        }
        self.busy = false;
        self.connections = contribution.connections;
        if answer.everything.is_some() {
            self.phase = Phase::Live;
            self.position = Some(answer.position);
            self.total = (0, 0);
        }
        self.counted(answer.position.seq, answer.connections);
        true
    }

    /// News that came while everything was asked for, and are newer.
    pub(super) fn release(&mut self, life: Life) -> Vec<News> {
        let held = std::mem::take(&mut self.held);
        held.into_iter().filter_map(|(position, news)| self.follow(life, position, news)).collect()
    }

    /// Takes note of news. Returns what is to be applied now.
    pub(super) fn follow(&mut self, life: Life, position: Position, news: News) -> Option<News> {
        if self.life != life.number {
            return None;
        }
        match (&self.phase, self.position) {
            (Phase::Live, Some(here)) if here.stream == position.stream && position.seq <= here.seq => None,
            (Phase::Live, Some(here)) if here.stream == position.stream && position.seq == here.seq + 1 => {
                self.position = Some(position);
                if let News::Count(total) = news {
                    self.counted(position.seq, total);
                }
                Some(news)
            }
            // Something is missing.
            _ => {
                if self.phase == Phase::Live {
                    self.phase = Phase::Apart;
                    self.dirty = true;
                }
                if self.held.len() < MAX_HELD {
                    self.held.push_back((position, news));
                }
                None
            }
        }
    }

    /// Connections of all nodes.
    pub(super) fn total(&self) -> usize {
        self.total.1
    }

    /// An answer may come after news that are younger.
    fn counted(&mut self, seq: u64, total: usize) {
        if seq >= self.total.0 {
            self.total = (seq, total);
        }
    }

    /// Whether it waits for its turn to contribute.
    pub(super) fn wants_turn(&self) -> bool {
        self.dirty && !self.busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = Life { number: 1, fresh: false };

    fn at(seq: u64) -> Position {
        Position { stream: 9, seq, ms: seq }
    }

    fn answer(seq: u64, everything: bool) -> Answer {
        let everything = everything.then(|| Everything {
            gap: false,
            members: Vec::new(),
            online: false,
            cached: None,
            missed: Vec::new(),
        });
        Answer { position: at(seq), connections: 1, refused: Vec::new(), everything }
    }

    /// The number in what is to be applied.
    fn heard(news: Option<News>) -> Option<usize> {
        news.map(|news| if let News::Count(count) = news { count } else { panic!("{news:?}") })
    }

    fn live(seq: u64) -> Replica {
        let mut replica = Replica::default();
        replica.touch();
        let (contribution, begins) = replica.begin(LIFE, 1).unwrap();
        assert!(begins && contribution.everything == Some(None) && !contribution.again);
        assert!(replica.finish(LIFE, &contribution, &answer(seq, true)));
        replica
    }

    #[test]
    fn news_are_followed_one_by_one_and_never_twice() {
        let mut replica = live(3);
        assert_eq!(heard(replica.follow(LIFE, at(3), News::Count(3))), None);
        assert_eq!(heard(replica.follow(LIFE, at(4), News::Count(4))), Some(4));
        assert_eq!(heard(replica.follow(LIFE, at(4), News::Count(4))), None);
        assert!(replica.has_reached(at(4)) && !replica.has_reached(at(5)));
        let other = Life { number: 2, fresh: false };
        assert_eq!(heard(replica.follow(other, at(5), News::Count(5))), None);
        assert!(replica.is_live(LIFE) && !replica.wants_turn());
    }

    #[test]
    fn a_missing_number_is_asked_for_and_what_comes_meanwhile_waits() {
        let mut replica = live(3);
        assert_eq!(heard(replica.follow(LIFE, at(5), News::Count(5))), None);
        assert!(!replica.is_live(LIFE) && replica.wants_turn());
        let (contribution, begins) = replica.begin(LIFE, 1).unwrap();
        assert!(!begins && contribution.everything == Some(Some(at(3))));
        assert_eq!(heard(replica.follow(LIFE, at(6), News::Count(6))), None);
        assert!(replica.begin(LIFE, 1).is_none(), "one at a time");
        assert!(replica.finish(LIFE, &contribution, &answer(5, true)));
        let released: Vec<_> = replica.release(LIFE).into_iter().map(|news| heard(Some(news))).collect();
        assert_eq!(released, [Some(6)]);
        assert_eq!(heard(replica.follow(LIFE, at(7), News::Count(7))), Some(7));
    }

    #[test]
    fn what_changes_while_something_is_told_is_told_next() {
        let mut replica = live(1);
        assert!(replica.touch());
        let (contribution, _) = replica.begin(LIFE, 2).unwrap();
        assert!(contribution.everything.is_none());
        assert!(!replica.touch() && !replica.is_over());
        assert!(replica.finish(LIFE, &contribution, &answer(1, false)));
        assert!(replica.wants_turn());
        let (contribution, _) = replica.begin(LIFE, 0).unwrap();
        assert!(replica.finish(LIFE, &contribution, &answer(1, false)));
        assert!(replica.is_over());
    }

    #[test]
    fn in_another_life_everything_is_told_and_asked_again() {
        let mut replica = live(3);
        replica.touch();
        let (lost, _) = replica.begin(LIFE, 2).unwrap();
        let next = Life { number: 2, fresh: true };
        let (contribution, begins) = replica.begin(next, 2).unwrap();
        assert!(begins && contribution.again && contribution.everything == Some(Some(at(3))));
        assert!(!replica.finish(LIFE, &lost, &answer(4, false)), "an answer from the life before");
        // A new stream, whose numbers have nothing to do with the old one's.
        let mut answer = answer(1, true);
        answer.position.stream = 10;
        assert!(replica.finish(next, &contribution, &answer));
        assert!(replica.is_live(next) && replica.has_reached(at(3)));
    }

    #[test]
    fn a_total_is_not_replaced_by_an_older_one() {
        let mut replica = live(1);
        replica.touch();
        let (contribution, _) = replica.begin(LIFE, 2).unwrap();
        replica.follow(LIFE, at(2), News::Count(2));
        replica.follow(LIFE, at(3), News::Count(5));
        let late = Answer { connections: 2, ..answer(2, false) };
        replica.finish(LIFE, &contribution, &late);
        assert_eq!(replica.total(), 5);
    }
}
