//! The losses that the log has yet to tell of an endpoint: how many events were lost, how many webhooks given up, and how
//! much of what the backend was told is not on disk.
//!
//! Each line has the number since the one before it, and the last ones are told when the process ends: the sum is the truth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::class::Lost;
use super::endpoint::Endpoint;

/// The pause between two lines about an endpoint.
const PAUSE: Duration = Duration::from_secs(10);

/// Endpoints that have their say in one pause. The others have it later: a line that `log.repeat_limit` leaves out would take
/// its number along.
const LINES: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// By reason.
    lost: BTreeMap<&'static str, Lost>,
    given_up: Option<GivenUp>,
    /// The facts that the app's backend was told, and that will not be written.
    facts: u64,
    told: Option<Instant>,
}

/// Webhooks that became dead letters.
#[derive(Debug)]
struct GivenUp {
    count: u64,
    /// The last one, and why.
    delivery_id: String,
    reason: String,
}

/// How often the log hears of all endpoints together.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    window: Option<Instant>,
    lines: usize,
    /// The endpoint that is next.
    next: usize,
}

impl Untold {
    /// Events were lost.
    pub(super) fn lost(&mut self, lost: Lost, why: &'static str) {
        self.lost.entry(why).or_default().merge(lost);
    }

    /// A webhook was given up.
    pub(super) fn given_up(&mut self, delivery_id: String, reason: String) {
        let count = self.given_up.as_ref().map_or(0, |before| before.count) + 1;
        self.given_up = Some(GivenUp { count, delivery_id, reason });
    }

    /// Some facts that the app's backend was told will not be written.
    pub(super) fn facts_dropped(&mut self, facts: u64) {
        self.facts += facts;
    }

    fn is_due(&self, now: Instant, last: bool) -> bool {
        let is_empty = self.lost.is_empty() && self.given_up.is_none() && self.facts == 0;
        !is_empty && (last || self.told.is_none_or(|told| now >= told + PAUSE))
    }

    fn take(&mut self, now: Instant) -> Self {
        std::mem::replace(self, Self { told: Some(now), ..Self::default() })
    }
}

impl Reporter {
    /// Logs what is due; all there is if this is the `last` call.
    pub(super) fn report(&mut self, endpoints: &[Arc<Endpoint>], now: Instant, last: bool) {
        if self.window.is_none_or(|window| now >= window + PAUSE) {
            (self.window, self.lines) = (Some(now), 0);
        }
        let mut rest = (Lost::default(), 0, 0, 0);
        for offset in 0..endpoints.len() {
            let endpoint = &endpoints[(self.next + offset) % endpoints.len()];
            let may_speak = self.lines < LINES;
            if !may_speak && !last {
                self.next = (self.next + offset) % endpoints.len();
                return;
            }
            let Untold { lost, given_up, facts, .. } = {
                let mut untold = endpoint.untold.lock();
                if !untold.is_due(now, last) {
                    continue;
                }
                untold.take(now)
            };
            if !may_speak {
                lost.values().for_each(|lost| rest.0.merge(*lost));
                rest.1 += given_up.map_or(0, |given_up| given_up.count);
                rest.2 += facts;
                rest.3 += 1;
                continue;
            }
            self.lines += 1;
            let (app, endpoint) = (&endpoint.address.app, endpoint.address.shown());
            for (why, lost) in lost {
                let (count, Lost { trusted, open }) = (lost.count(), lost);
                warn!(app, endpoint, count, trusted, open, why, "webhook events dropped");
            }
            if facts > 0 {
                let (count, why) = (facts, "webhooks.max_unwritten");
                warn!(app, count, why, "webhook state dropped");
            }
            if let Some(GivenUp { count, delivery_id, reason }) = given_up {
                warn!(app, endpoint, count, delivery_id, reason, "webhooks given up; `fanfare webhooks` shows them");
            }
        }
        if let (Lost { trusted, open }, given_up, state, endpoints @ 1..) = rest {
            warn!(
                endpoints,
                trusted, open, given_up, state, "webhook events dropped and webhooks given up, of other endpoints"
            );
        }
    }
}
