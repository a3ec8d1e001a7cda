//! A limit for log lines of the same kind, so that nobody from outside can fill the disk.
//!
//! A kind is a place in the code that logs. Of each, `log.repeat_limit` lines are written within ten seconds; the others are
//! counted, and one line says how many there were. Levels `debug` and `trace` are not limited: they are off unless somebody
//! wants to see everything.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The time in which lines of a kind are counted together.
const WINDOW: Duration = Duration::from_secs(10);

/// The process has one log, and so it has one of these.
static KINDS: LazyLock<Kinds> = LazyLock::new(Kinds::default);

/// The layer that leaves out lines above the limit.
#[derive(Debug)]
pub struct LogLimit {
    limit: u32,
}

#[derive(Debug, Default)]
struct Kinds {
    by_callsite: Mutex<HashMap<Identifier, Kind>>,
    /// A line was suppressed since [`report`] looked last.
    suppressing: AtomicBool,
    suppressed: AtomicU64,
}

/// What was logged at one place.
#[derive(Debug)]
struct Kind {
    level: Level,
    /// The message of its lines, which is the same for all of them.
    message: String,
    window: Instant,
    written: u32,
    suppressed: u64,
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
        let mut kinds = KINDS.by_callsite.lock();
        let kind = kinds.entry(metadata.callsite()).or_insert_with(|| Kind::new(event, now));
        let written = kind.admit(self.limit, now);
        if !written {
            KINDS.suppressed.fetch_add(1, Ordering::Relaxed);
            KINDS.suppressing.store(true, Ordering::Relaxed);
        }
        written
    }
}

impl Kind {
    fn new(event: &Event<'_>, now: Instant) -> Self {
        let mut message = Message(String::new());
        event.record(&mut message);
        Self { level: *event.metadata().level(), message: message.0, window: now, written: 0, suppressed: 0 }
    }

    /// Whether one more line is written.
    fn admit(&mut self, limit: u32, now: Instant) -> bool {
        if now >= self.window + WINDOW {
            (self.window, self.written) = (now, 0);
        }
        if self.written < limit {
            self.written += 1;
            return true;
        }
        self.suppressed += 1;
        false
    }

    /// The number of suppressed lines, once their window is over, or now if it is the `last` chance.
    fn take_suppressed(&mut self, now: Instant, last: bool) -> Option<u64> {
        (self.suppressed > 0 && (last || now >= self.window + WINDOW)).then(|| std::mem::take(&mut self.suppressed))
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

/// Logs how many lines were suppressed, of each kind whose time has come; of all if this is the `last` call. To be called
/// now and then.
pub fn report(now: Instant, last: bool) {
    if !KINDS.suppressing.load(Ordering::Relaxed) {
        return;
    }
    let mut due = Vec::new();
    let mut waiting = false;
    for kind in KINDS.by_callsite.lock().values_mut() {
        match kind.take_suppressed(now, last) {
            Some(count) => due.push((kind.level, kind.message.clone(), count)),
            None => waiting |= kind.suppressed > 0,
        }
    }
    KINDS.suppressing.store(waiting, Ordering::Relaxed);
    // Not under the lock: writing a line asks the layer again.
    for (level, line, more) in due {
        match level {
            Level::ERROR => error!(more, "and {more} more like this: {line}"),
            Level::WARN => warn!(more, "and {more} more like this: {line}"),
            _ => info!(more, "and {more} more like this: {line}"),
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

    #[test]
    fn lines_above_the_limit_are_counted_until_the_window_is_over() {
        let start = Instant::now();
        let mut kind = Kind { level: Level::INFO, message: "m".into(), window: start, written: 0, suppressed: 0 };
        let written = (0..10).filter(|_| kind.admit(3, start)).count();
        assert_eq!((written, kind.take_suppressed(start + WINDOW / 2, false)), (3, None));
        assert_eq!(kind.take_suppressed(start + WINDOW, false), Some(7));
        assert_eq!(kind.take_suppressed(start + WINDOW, false), None);
        assert!(kind.admit(3, start + WINDOW));
        assert_eq!((0..5).filter(|_| kind.admit(3, start + WINDOW)).count(), 2);
        assert_eq!(kind.take_suppressed(start + WINDOW, true), Some(3));
    }
}
