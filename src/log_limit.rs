//! A limit for log lines of the same kind, so that nobody from outside can fill the disk.
//!
//! A kind is a place in the code that logs, and the app that it is about. Of each, `log.repeat_limit` lines are written within
//! ten seconds, and of these a quarter about the same peer, so that one peer cannot hide what is said of others. The other
//! lines are counted, and one line says how many there were. Levels `debug` and `trace` are not limited: they are off unless
//! somebody wants to see everything.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::addresses::Network;

/// The time in which lines of a kind are counted together.
const WINDOW: Duration = Duration::from_secs(10);

/// The part of a kind's lines that may be about the same peer.
const PEER_SHARE: u32 = 4;

/// Kinds that are told apart. More than places in the code times apps of a large node; whatever apps may be named in lines one
/// day, memory stays bounded.
const MAX_KINDS: usize = 10_000;

/// The process has one log, and so it has one of these.
static KINDS: LazyLock<Kinds> = LazyLock::new(Kinds::default);

/// The layer that leaves out lines above the limit.
#[derive(Debug)]
pub struct LogLimit {
    limit: u32,
}

#[derive(Debug, Default)]
struct Kinds {
    by_name: Mutex<HashMap<Name, Kind, RandomState>>,
    /// A line was suppressed since [`report`] looked last.
    suppressing: AtomicBool,
    suppressed: AtomicU64,
    hasher: RandomState,
}

/// The name of a kind: the place in the code, and the hash of the app's id.
type Name = (Identifier, u64);

/// Lines of one place about one app.
#[derive(Debug)]
struct Kind {
    level: Level,
    /// The message of its lines, which is the same for all of them.
    message: String,
    /// Empty if its lines are about no app.
    app: String,
    window: Instant,
    written: u32,
    /// Lines written about each peer, by the hash of its network.
    peers: HashMap<u64, u32, RandomState>,
    suppressed: u64,
    /// When the first of those was.
    suppressed_since: Instant,
}

impl LogLimit {
    /// Writes at most `limit` lines of a kind within ten seconds; 0 = no limit.
    pub fn new(limit: u32) -> Self {
        Self { limit }
    }
}

impl<S: Subscriber> Layer<S> for LogLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if self.limit == 0 || *metadata.level() > Level::INFO || metadata.target() == module_path!() {
            return true;
        }
        let now = Instant::now();
        let mut subject = Subject::default();
        event.record(&mut subject);
        let peer = (!subject.peer.is_empty()).then(|| KINDS.hash(network(&subject.peer)));
        let mut name = (metadata.callsite(), KINDS.hash(&subject.app));
        let mut kinds = KINDS.by_name.lock();
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&name) {
            name.1 = KINDS.hash("");
            subject.app.clear();
        }
        let kind = kinds.entry(name).or_insert_with(|| Kind::new(*metadata.level(), event, subject.app, now));
        let written = kind.admit(self.limit, peer, now);
        if !written {
            KINDS.suppressed.fetch_add(1, Ordering::Relaxed);
            KINDS.suppressing.store(true, Ordering::Relaxed);
        }
        written
    }
}

impl Kinds {
    fn hash(&self, subject: impl Hash) -> u64 {
        self.hasher.hash_one(subject)
    }
}

/// The network of a peer, or what stands there if that is none.
fn network(peer: &str) -> Result<Network, &str> {
    // As a network is shown.
    let address = peer.strip_suffix("/64").unwrap_or(peer);
    let ip = address.parse::<SocketAddr>().map(|address| address.ip()).or_else(|_| address.parse::<IpAddr>());
    ip.map(Network::of).map_err(|_| peer)
}

impl Kind {
    fn new(level: Level, event: &Event<'_>, app: String, now: Instant) -> Self {
        let mut message = Message(String::new());
        event.record(&mut message);
        Self {
            level,
            message: message.0,
            app,
            window: now,
            written: 0,
            peers: HashMap::default(),
            suppressed: 0,
            suppressed_since: now,
        }
    }

    /// Whether one more line is written.
    fn admit(&mut self, limit: u32, peer: Option<u64>, now: Instant) -> bool {
        if now >= self.window + WINDOW {
            (self.window, self.written) = (now, 0);
            self.peers.clear();
        }
        let of_peer = peer.and_then(|peer| self.peers.get(&peer)).copied().unwrap_or_default();
        if self.written < limit && of_peer < limit.div_ceil(PEER_SHARE) {
            self.written += 1;
            if let Some(peer) = peer {
                self.peers.insert(peer, of_peer + 1);
            }
            return true;
        }
        if self.suppressed == 0 {
            self.suppressed_since = now;
        }
        self.suppressed += 1;
        false
    }

    /// The number of suppressed lines, once the first of them is as old as a window, or now if it is the `last` chance.
    fn take_suppressed(&mut self, now: Instant, last: bool) -> Option<u64> {
        let due = self.suppressed > 0 && (last || now >= self.suppressed_since + WINDOW);
        due.then(|| std::mem::take(&mut self.suppressed))
    }
}

/// The message of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// The app and the peer that an event is about.
#[derive(Default)]
struct Subject {
    app: String,
    peer: String,
}

impl Visit for Subject {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "app" => self.app = format!("{value:?}"),
            "peer" => self.peer = format!("{value:?}"),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Logs how many lines were suppressed, of each kind whose time has come; of all if this is the `last` call. To be called
/// now and then.
pub fn report(now: Instant, last: bool) {
    if !KINDS.suppressing.load(Ordering::Relaxed) {
        return;
    }
    let mut due = Vec::new();
    let mut waiting = false;
    for kind in KINDS.by_name.lock().values_mut() {
        match kind.take_suppressed(now, last) {
            Some(count) => due.push((kind.level, kind.message.clone(), kind.app.clone(), count)),
            None => waiting |= kind.suppressed > 0,
        }
    }
    KINDS.suppressing.store(waiting, Ordering::Relaxed);
    // Not under the lock: writing a line asks the layer again.
    for (level, line, app, more) in due {
        let app = Some(&*app).filter(|app| !app.is_empty());
        match level {
            Level::ERROR => error!(app, more, "and {more} more like this: {line}"),
            Level::WARN => warn!(app, more, "and {more} more like this: {line}"),
            _ => info!(app, more, "and {more} more like this: {line}"),
        }
    }
}

/// Lines that were suppressed since the process started.
pub fn suppressed() -> u64 {
    KINDS.suppressed.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(start: Instant) -> Kind {
        Kind {
            level: Level::INFO,
            message: "m".into(),
            app: String::new(),
            window: start,
            written: 0,
            peers: HashMap::default(),
            suppressed: 0,
            suppressed_since: start,
        }
    }

    #[test]
    fn lines_above_the_limit_are_counted_until_the_window_is_over() {
        let start = Instant::now();
        let mut kind = kind(start);
        let written = (0..10).filter(|_| kind.admit(3, None, start)).count();
        assert_eq!((written, kind.take_suppressed(start + WINDOW / 2, false)), (3, None));
        assert_eq!(kind.take_suppressed(start + WINDOW, false), Some(7));
        assert_eq!(kind.take_suppressed(start + WINDOW, false), None);
        assert!(kind.admit(3, None, start + WINDOW));
        assert_eq!((0..5).filter(|_| kind.admit(3, None, start + WINDOW)).count(), 2);
        assert_eq!(kind.take_suppressed(start + WINDOW, true), Some(3));
    }

    #[test]
    fn what_is_left_out_is_told_in_time_however_many_lines_there_are() {
        let start = Instant::now();
        let mut kind = kind(start);
        let step = WINDOW / 20;
        // The window begins anew again and again, a moment before anybody could look.
        let told = (0..100).filter(|&at| {
            let now = start + step * at;
            let _ = (0..10).filter(|_| kind.admit(3, None, now)).count();
            kind.take_suppressed(now, false).is_some()
        });
        assert_eq!(told.count(), 4);
    }

    #[test]
    fn one_peer_does_not_hide_what_is_said_of_others() {
        let start = Instant::now();
        let mut kind = kind(start);
        let peer = |text: &str| Some(KINDS.hash(network(text)));
        assert_eq!((0..100).filter(|port| kind.admit(20, peer(&format!("1.2.3.4:{port}")), start)).count(), 5);
        assert!(kind.admit(20, peer("5.6.7.8"), start));
        assert_eq!((0..100).filter(|host| kind.admit(20, peer(&format!("[2001:db8::{host}]:1")), start)).count(), 5);
        assert!(!kind.admit(20, peer("2001:db8::/64"), start));
        assert!(kind.admit(20, peer("unix:"), start) && kind.admit(20, None, start));
        assert!(kind.admit(1, peer("1.2.3.4"), start + WINDOW), "a limit of one is not rounded to none");
    }
}
