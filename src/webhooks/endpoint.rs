//! One endpoint of one app: what it wants to hear, what waits for it, and the task that sends it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::select;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::{AppConfig, WebhookConfig, WebhookEvent, WebhooksConfig, matches};
use crate::http_client::HttpClient;
use crate::metrics::AppMetrics;

use super::attempt::{Attempt, Target};
use super::class::Lost;
use super::inbox::Change;
use super::letter::{Address, DeadLetter, body};
use super::queue::{Event, Next, Queue, Rules, Verdict};
use super::store::Store;
use super::unix_ms;
use super::untold::Untold;

/// The pause between two log lines that it fails.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// An endpoint at work.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: Address,
    pub(super) target: Target,
    pub(super) queue: Mutex<Queue>,
    pub(super) history: Mutex<History>,
    events: Vec<WebhookEvent>,
    channels: Vec<String>,
    concurrency: usize,
    changed: Notify,
    metrics: AppMetrics,
    /// What the log has to say.
    pub(super) untold: Mutex<Untold>,
}

/// How it went so far.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    pub(super) delivered: u64,
    pub(super) last_success_ms: Option<u64>,
    pub(super) last_failure: Option<Attempt>,
    /// The log says that it fails.
    complained: bool,
    /// When the log said so last.
    complained_at: Option<Instant>,
}

/// The line of the log about an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Fails,
    AnswersAgain,
}

impl Endpoint {
    pub(super) fn new(app: &AppConfig, webhook: &WebhookConfig, config: &WebhooksConfig, metrics: AppMetrics) -> Self {
        let rules = Rules {
            batch_size: webhook.batch_size,
            batch_wait: webhook.batch_wait,
            retry_period: config.retry_period,
            max_bytes: config.max_pending,
        };
        let header = |(name, value): (&String, &crate::config::Secret)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let mut value = HeaderValue::from_str(value.expose()).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        };
        let target = Target {
            uri: webhook.url.parse().expect("the configuration holds valid URLs only"),
            headers: webhook.headers.iter().filter_map(header).collect(),
            key: app.keys[0].key.clone(),
            secret: app.keys[0].secret.clone(),
            timeout: config.timeout,
        };
        Self {
            address: Address { app: app.id.clone(), url: webhook.url.clone() },
            target,
            queue: Mutex::new(Queue::new(rules)),
            history: Mutex::default(),
            events: webhook.events.clone(),
            channels: webhook.channels.clone(),
            concurrency: config.concurrency,
            changed: Notify::new(),
            metrics,
            untold: Mutex::default(),
        }
    }

    /// Whether it wants to hear of this kind of event, on this channel if it is about one.
    pub(super) fn wants(&self, kind: WebhookEvent, channel: Option<&str>) -> bool {
        let wanted =
            |channel| self.channels.is_empty() || self.channels.iter().any(|pattern| matches(pattern, channel));
        self.events.contains(&kind) && channel.is_none_or(wanted)
    }

    /// Adds an event that is kept. Returns the numbers of those that are over for it, together what was one delivery: they
    /// had to go, or need not be told any more.
    pub(super) fn push(&self, event: Event) -> Vec<Vec<u64>> {
        let pushed = self.queue.lock().push(event, Instant::now());
        self.changed.notify_one();
        let mut lost = Lost::default();
        pushed.dropped.iter().flatten().for_each(|event| lost.add(&event.subject));
        self.lost(lost, "webhooks.max_pending");
        self.collapsed(pushed.collapsed.len() as u64);
        let ids = |events: Vec<Event>| events.iter().map(|event| event.id).collect();
        let mut over: Vec<Vec<u64>> = pushed.dropped.into_iter().map(ids).collect();
        over.extend((!pushed.collapsed.is_empty()).then_some(pushed.collapsed));
        over
    }

    /// Adds a delivery that was made before.
    pub(super) fn restore(&self, time_ms: u64, events: Vec<Event>) {
        self.queue.lock().restore(events, time_ms, Instant::now());
        self.changed.notify_one();
    }

    /// Counts events that are lost. The log says so within a second.
    pub(super) fn lost(&self, lost: Lost, why: &'static str) {
        if lost.count() > 0 {
            self.metrics.webhooks_dropped.inc_by(lost.count());
            self.untold.lock().lost(lost, why);
        }
    }

    /// Counts events that need not be told.
    pub(super) fn collapsed(&self, events: u64) {
        if events > 0 {
            self.metrics.webhooks_collapsed.inc_by(events);
        }
    }

    /// Sends what there is to send. When `closing` is cancelled it sends what has not been tried yet, waits for
    /// nothing else and returns. Dropped, it leaves requests unfinished, to be sent again by the next process.
    pub(super) async fn run(self: Arc<Self>, store: Arc<Store>, client: HttpClient, closing: CancellationToken) {
        let mut requests = JoinSet::new();
        let mut closed = false;
        loop {
            let mut next = Next::Idle;
            while requests.len() < self.concurrency {
                next = self.queue.lock().next(Instant::now(), unix_ms());
                let Next::Send { id, is_new_batch } = next else { break };
                requests.spawn(Arc::clone(&self).attempt(id, is_new_batch, Arc::clone(&store), client.clone()));
            }
            if closed && requests.is_empty() && !matches!(next, Next::Send { .. }) {
                return;
            }
            let wake = if let Next::Wait(at) = next { Some(at) } else { None };
            select! {
                Some(_) = requests.join_next() => {}
                () = self.changed.notified() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() && !closed => {}
                () = closing.cancelled(), if !closed => {
                    closed = true;
                    self.queue.lock().flush();
                }
            }
        }
    }

    /// One request, up to what its outcome means.
    async fn attempt(self: Arc<Self>, id: u64, is_new_batch: bool, store: Arc<Store>, client: HttpClient) {
        let (ids, time_ms, body) = {
            let queue = self.queue.lock();
            let Some(delivery) = queue.delivery(id) else { return };
            let ids: Vec<u64> = delivery.events.iter().map(|event| event.id).collect();
            (ids, delivery.time_ms, body(delivery.time_ms, delivery.events.iter().map(|event| &*event.text)))
        };
        if is_new_batch {
            // After a crash, the same id must mean the same events.
            let (done, kept) = oneshot::channel();
            store.change(Change::Batch(ids.clone(), time_ms, done));
            let _ = kept.await;
        }
        let delivery_id = store.delivery_id(id);
        let attempt = self.target.send(&client, &delivery_id, body).await;
        debug!(app = self.address.app, endpoint = self.address.shown(), delivery_id, ?attempt, "webhook sent");
        self.record(&attempt);
        let verdict = self.queue.lock().finish(id, attempt.clone(), Instant::now(), rand::random());
        match verdict {
            Some(Verdict::Delivered) => store.change(Change::Forget(ids)),
            Some(Verdict::Dead(delivery)) => {
                self.metrics.webhooks_dead.inc();
                let letter = DeadLetter::new(&self.address, &delivery, attempt.outcome());
                store.change(Change::Bury(letter));
                self.untold.lock().given_up(delivery_id, attempt.outcome());
            }
            Some(Verdict::Again(pause)) => debug!(delivery_id, ?pause, "webhook will be sent again"),
            None => {}
        }
    }

    fn record(&self, attempt: &Attempt) {
        match attempt.is_success() {
            true => self.metrics.webhooks_delivered.inc(),
            false => self.metrics.webhooks_failed.inc(),
        };
        let turn = self.history.lock().record(attempt, Instant::now());
        let (app, endpoint) = (&self.address.app, self.address.shown());
        match turn {
            Some(Turn::Fails) => {
                warn!(app, endpoint, reason = attempt.outcome(), "webhook endpoint fails; it will be tried again");
            }
            Some(Turn::AnswersAgain) => info!(app, endpoint, "webhook endpoint answers again"),
            None => {}
        }
    }
}

impl History {
    /// Takes note of an attempt. The log is told once of an outage, and of its end.
    fn record(&mut self, attempt: &Attempt, now: Instant) -> Option<Turn> {
        if attempt.is_success() {
            self.delivered += 1;
            self.last_success_ms = Some(attempt.time_ms);
            return std::mem::take(&mut self.complained).then_some(Turn::AnswersAgain);
        }
        self.last_failure = Some(attempt.clone());
        // One that fails every other request is not worth two lines for each of them. One that goes on failing after the
        // pause is worth a line, even if it was the first failure that fell into the pause.
        let may_complain = self.complained_at.is_none_or(|at| now >= at + LOG_PAUSE);
        if self.complained || !may_complain {
            return None;
        }
        (self.complained, self.complained_at) = (true, Some(now));
        Some(Turn::Fails)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_once_and_one_that_begins_within_the_pause_is_logged_after_it() {
        let (mut history, start) = (History::default(), Instant::now());
        let mut turns = |status: u16, seconds: &[u64]| -> Vec<Option<Turn>> {
            let at = |second: &u64| start + Duration::from_secs(*second);
            seconds.iter().map(|second| history.record(&Attempt::answered(status), at(second))).collect()
        };
        assert_eq!(turns(500, &[0, 1, 60]), [Some(Turn::Fails), None, None]);
        assert_eq!(turns(204, &[61, 62]), [Some(Turn::AnswersAgain), None]);
        assert_eq!(turns(500, &[63]), [Some(Turn::Fails)]);
        assert_eq!(turns(204, &[64]), [Some(Turn::AnswersAgain)]);
        // Down again within the pause, and to stay.
        assert_eq!(turns(500, &[65, 72, 73, 74, 100]), [None, None, Some(Turn::Fails), None, None]);
        assert_eq!(turns(204, &[101]), [Some(Turn::AnswersAgain)]);
    }

    #[test]
    fn an_endpoint_that_fails_every_other_request_is_worth_two_lines_in_a_pause() {
        let (mut history, start) = (History::default(), Instant::now());
        let turns = (0..1000).filter_map(|n| {
            let status = if n % 2 == 0 { 500 } else { 204 };
            history.record(&Attempt::answered(status), start + Duration::from_millis(n * 20))
        });
        assert_eq!(turns.count(), 2 * 2);
    }
}
