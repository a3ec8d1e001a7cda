//! What goes on in one life of a link: signs of life, contributions, publications, telling backends and tidying up, each a
//! loop that ends only with the life.

use std::convert::Infallible;
use std::iter;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::{Cmd, Value, cmd, pipe};
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::channels::Contribution;
use crate::metrics::ClusterMetrics;
use crate::source::Source;

use super::answer::{self, Reader, nonsense};
use super::link::{End, Job, Line, Link};
use super::pending::Cause;
use super::scripts::Script;
use super::servers::{Reason, query};
use super::topic::Topic;

/// Topics that are told in one go.
const BATCH: usize = 128;

/// Topics that are looked at for one batch: nothing is left to tell about most of those that several sources have queued.
const LOOKS: usize = 32 * BATCH;

/// Events that are published in one go, at most.
const EVENTS: usize = 256;

/// Bytes of them, about.
const EVENT_BYTES: usize = 512 * 1024;

/// How often it is looked whether there is something to tell backends.
const DUTY: Duration = Duration::from_millis(100);

/// Who holds the place of those who are not back yet in a new generation.
const PLACEHOLDER: &str = "~";

/// Keys that are looked at in one go when those of an old generation are removed.
const SWEEP: usize = 500;

/// Events on their way to Redis. If it is dropped before that is certain, because the call fails or the life ends, they
/// count as expired: client events have nobody else who would notice.
struct InFlight<'a> {
    jobs: Vec<Job>,
    metrics: &'a ClusterMetrics,
}

impl InFlight<'_> {
    /// Redis has taken them.
    fn taken(mut self) -> Vec<Job> {
        std::mem::take(&mut self.jobs)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.events_expired(self.jobs.iter().map(|job| job.events.len() as u64).sum());
    }
}

impl Link {
    /// Begins the lease. Returns the generation.
    pub(super) async fn register(&self, line: &mut Line) -> Result<String, Reason> {
        let mut answer = self.call(line, self.sign_of_life(line, true)).await?;
        let generation = answer.text().ok_or_else(nonsense)?;
        line.sweeps = answer.number() == Some(1);
        Ok(generation)
    }

    /// Removes what is left of earlier generations, little by little.
    pub(super) async fn sweep(&self, line: Line) -> Result<Infallible, Reason> {
        let (mut connection, mut cursor) = (line.connection.clone(), "0".to_owned());
        let (cached, meta) = (format!("{}c:", self.prefix), format!("{}meta", self.prefix));
        let is_old = |key: &String| !key.starts_with(&line.keys) && !key.starts_with(&cached) && *key != meta;
        if !line.sweeps {
            return std::future::pending().await;
        }
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(format!("{}*", self.prefix)).arg("COUNT").arg(SWEEP);
            let found = query(&mut connection, &scan).await?;
            let (next, keys): (String, Vec<String>) = redis::from_redis_value(found).map_err(|_| nonsense())?;
            let old: Vec<String> = keys.into_iter().filter(is_old).collect();
            if !old.is_empty() {
                query(&mut connection, cmd("UNLINK").arg(&old)).await?;
            }
            if next == "0" {
                query(&mut connection, cmd("HSET").arg(&meta).arg("swept").arg(1)).await?;
                return std::future::pending().await;
            }
            cursor = next;
        }
    }

    /// Signs of life.
    pub(super) async fn beat(&self, line: Line) -> Result<Infallible, Reason> {
        let pause = (self.hub.lease / 5).max(Duration::from_millis(100));
        loop {
            let asked = Instant::now();
            let mut answer = self.call(&line, self.sign_of_life(&line, false)).await?;
            self.hub.lag.store(asked.elapsed().as_micros() as u64, Ordering::Relaxed);
            let (_, _) = (answer.text(), answer.number());
            let on_duty = answer.number().ok_or_else(nonsense)? == 1;
            if on_duty != self.on_duty.swap(on_duty, Ordering::Relaxed) {
                debug!(partition = self.partition, on_duty, "the duty to tell backends has changed hands");
            }
            let removed = answer.list().ok_or_else(nonsense)?.texts();
            // Also those who were refused although the connection never broke: Redis was only slow.
            self.hub.rescue();
            for node in removed.iter().filter(|node| *node != PLACEHOLDER) {
                warn!(node, "a node of the cluster was silent for too long; what it contributed is removed");
                self.hub.metrics.node_removed();
            }
            if answer.number() != Some(1) {
                sleep(pause).await;
            }
        }
    }

    /// What this node adds to the topics of the partition: all of it first, then what changes.
    pub(super) async fn contribute(&self, line: Line, past: &mut Vec<String>, leaving: &CancellationToken) -> End {
        let result = async {
            let began = Instant::now();
            // What changes from here on is queued, and what has changed before is among these.
            self.pending.lock().reset(true);
            let topics = self.hub.topics(self.partition);
            let mut over = Vec::new();
            for batch in topics.chunks(BATCH) {
                let batch = batch.iter().map(|topic| (Cause::Node, topic.clone()));
                self.contribute_batch(&line, batch, &mut over).await?;
            }
            while past.len() > 1 {
                self.drop(&line, &past[0]).await?;
                past.remove(0);
            }
            self.line.send_replace(Some(line.clone()));
            self.hub.connected.fetch_add(1, Ordering::Relaxed);
            self.hub.rescue();
            let (server, topics) = (&line.server, topics.len());
            info!(server, partition = self.partition, topics, took = ?began.elapsed(), "connected to the cluster");
            loop {
                if self.pending.lock().len() > 0 || !over.is_empty() {
                    let batch = iter::from_fn(|| self.pending.lock().pop()).take(LOOKS);
                    self.contribute_batch(&line, batch, &mut over).await?;
                } else if leaving.is_cancelled() {
                    // Or the next one on duty would tell it again.
                    let _told = self.telling.lock().await;
                    return self.drop(&line, &line.me).await;
                } else {
                    tokio::select! {
                        () = self.queued.notified() => {}
                        () = leaving.cancelled() => {}
                    }
                }
            }
        };
        match result.await {
            Ok(()) => End::Left,
            Err(reason) => End::Broken(reason),
        }
    }

    /// One round trip about the first topics that have something to tell. `over` are the channels that nobody here listens
    /// to any more.
    async fn contribute_batch(
        &self,
        line: &Line,
        mut topics: impl Iterator<Item = (Cause, Topic)>,
        over: &mut Vec<String>,
    ) -> Result<(), Reason> {
        let mut pipeline = pipe();
        for key in over.drain(..) {
            pipeline.cmd("SUNSUBSCRIBE").arg(format!("{}p:{key}", self.prefix));
        }
        let mut told: Vec<(Cause, Topic, String, Contribution)> = Vec::with_capacity(BATCH);
        while told.len() < BATCH
            && let Some((cause, topic)) = topics.next()
        {
            let Some(contribution) = self.hub.contribute(&topic, line.life) else { continue };
            let key = self.hub.key(&topic);
            if contribution.everything.is_some() {
                pipeline.cmd("SSUBSCRIBE").arg(format!("{}p:{key}", self.prefix));
            }
            pipeline.add_command(self.contribution(line, cause.source(), &key, &contribution));
            told.push((cause, topic, key, contribution));
        }
        if pipeline.is_empty() {
            // Signs of life and publications are in the same task.
            yield_now().await;
            return Ok(());
        }
        let mut connection = line.connection.clone();
        let answers: Vec<Value> =
            pipeline.query_async(&mut connection).await.map_err(|error| format!("{}: {error}", line.server))?;
        let answers = answers.into_iter().filter(|answer| !matches!(answer, Value::Push { .. }));
        let mut incomplete = Vec::new();
        for ((cause, topic, key, contribution), answer) in told.into_iter().zip(answers) {
            let answer = answer::contribution(answer)?;
            let outcome = self.hub.settle(&topic, line.life, &contribution, answer);
            self.look_after(cause, &topic, &outcome);
            if outcome.over {
                over.push(key);
            } else if outcome.gap {
                incomplete.push(key);
            }
        }
        if let [first, ..] = incomplete.as_slice() {
            // A line for each of ten thousand channels would be no help.
            let topics = incomplete.len();
            warn!(topics, first, "events may be missing: the replay log has them no more, or Redis has lost it");
        }
        Ok(())
    }

    fn contribution(&self, line: &Line, source: Option<Source>, key: &str, contribution: &Contribution) -> Cmd {
        let Contribution { connections, joined, left, believed, everything, again, cache_miss } = contribution;
        let mut call = self.script(line, Script::Sync);
        let known = *again && line.life.fresh;
        call.arg(key).arg(*connections).arg(u8::from(everything.is_some())).arg(u8::from(known));
        call.arg(u8::from(*cache_miss)).arg(self.hub.settling().as_millis() as u64);
        match everything.flatten() {
            Some(since) => call.arg(since.stream).arg(since.seq).arg(since.ms),
            None => call.arg("").arg("").arg(""),
        };
        match source {
            Some(source) => call.arg(source.number()),
            None => call.arg(""),
        };
        call.arg(joined.len());
        for member in joined {
            call.arg(member.user_id.as_str()).arg(&*member.user_info);
        }
        call.arg(left.len());
        for user_id in left {
            call.arg(user_id.as_str());
        }
        call.arg(believed.len());
        for member in believed {
            call.arg(member.user_id.as_str()).arg(&*member.user_info);
        }
        call
    }

    /// Takes back what was contributed under a name.
    async fn drop(&self, line: &Line, name: &str) -> Result<(), Reason> {
        loop {
            let mut call = self.script(line, Script::Drop);
            call.arg(name).arg(BATCH);
            if self.call(line, call).await?.number() == Some(1) {
                return Ok(());
            }
        }
    }

    /// Publishes what has come up since the last time, as one.
    pub(super) async fn publish(&self, line: Line, jobs: &mut mpsc::Receiver<Job>) -> Result<Infallible, Reason> {
        // Not before this node has told what it has.
        let mut ready = self.line.subscribe();
        let _ = ready.wait_for(Option::is_some).await;
        // Some may be left of the life before.
        self.client_event_queued.notify_one();
        loop {
            let first = tokio::select! {
                job = jobs.recv() => match job {
                    Some(job) => Some(job),
                    None => return Ok(std::future::pending().await),
                },
                () = self.client_event_queued.notified() => self.next_client_event(),
            };
            let mut batch = InFlight { jobs: Vec::new(), metrics: &self.hub.metrics };
            let (mut events, mut bytes) = (0, 0);
            let mut clients_turn = true;
            let mut next = first;
            let now = Instant::now();
            while let Some(job) = next {
                if self.is_too_late(&job, now) {
                    self.hub.metrics.events_expired(job.events.len() as u64);
                } else {
                    events += job.events.len();
                    bytes += job.events.iter().map(|event| event.body.len()).sum::<usize>();
                    batch.jobs.push(job);
                }
                if events >= EVENTS || bytes >= EVENT_BYTES {
                    // There may be more.
                    self.client_event_queued.notify_one();
                    break;
                }
                // Backends and clients in turn, so that neither keeps the other out.
                next = match clients_turn {
                    true => self.next_client_event().or_else(|| jobs.try_recv().ok()),
                    false => jobs.try_recv().ok().or_else(|| self.next_client_event()),
                };
                clients_turn = !clients_turn;
            }
            if batch.jobs.is_empty() {
                continue;
            }
            let mut call = self.script(&line, Script::Publish);
            call.arg(self.hub.settling().as_millis() as u64);
            for event in batch.jobs.iter().flat_map(|job| &job.events) {
                call.arg(&event.key).arg(&event.body);
                match &event.cached {
                    Some((ttl, data)) => call.arg(ttl.as_millis() as u64).arg(data),
                    None => call.arg("").arg(""),
                };
            }
            let mut answer = self.call(&line, call).await?;
            for job in batch.taken() {
                let reach = job.events.iter().map(|_| Some((answer.number()?, answer.number()?)));
                let reach = reach.collect::<Option<_>>().ok_or_else(nonsense)?;
                if let Some(waiting) = job.answer {
                    // Whoever does not wait any more has been told that it failed; better than the other way round.
                    let _ = waiting.send(reach);
                }
            }
            while let Some((app, evicted)) = answer.text().zip(answer.number()) {
                self.hub.evicted(&app, evicted);
            }
        }
    }

    /// A job whose request was answered already, or a client event that nobody expects any more.
    fn is_too_late(&self, job: &Job, now: Instant) -> bool {
        job.until <= now || job.answer.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    /// Tells backends what the scripts have decided, if it is this node's turn. What is told is on disk before it is
    /// crossed off, so it may be told twice after a crash, but never not at all.
    /// Nothing more is told once this node is `leaving`: another one will be on duty, and it does not wait for an end of what
    /// there is to tell.
    pub(super) async fn tell(&self, line: Line, leaving: &CancellationToken) -> Result<Infallible, Reason> {
        let mut ticks = interval(DUTY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Edges that queues had lost by the last answer, and are counted.
        let mut counted: Vec<(String, u64)> = Vec::new();
        // Queues of the last answer, in its order, and how many of their edges were told.
        let mut told: Vec<(String, i64)> = Vec::new();
        loop {
            ticks.tick().await;
            let _telling = self.telling.lock().await;
            if leaving.is_cancelled() {
                return Ok(std::future::pending().await);
            }
            while self.on_duty.load(Ordering::Relaxed) {
                let mut call = self.script(&line, Script::Duty);
                call.arg(counted.len());
                for (queue, edges) in counted.drain(..) {
                    call.arg(queue).arg(edges);
                }
                for (queue, edges) in told.drain(..) {
                    call.arg(queue).arg(edges);
                }
                let mut answer = self.call(&line, call).await?;
                let mut lost = answer.list().ok_or_else(nonsense)?;
                while let Some((queue, edges)) = lost.text().zip(lost.number()) {
                    self.hub.edges_lost(&queue, edges);
                    counted.push((queue, edges));
                }
                let mut queues = answer.list().ok_or_else(nonsense)?;
                let mut edges = Vec::new();
                while let Some((queue, of_queue)) = queues.text().zip(queues.list()) {
                    if !self.hub.knows_app_of(&queue) {
                        // They stay at Redis for a node that has the app in its configuration.
                        told.push((queue, -1));
                        continue;
                    }
                    let of_queue = of_queue.texts();
                    told.push((queue, of_queue.len() as i64));
                    edges.extend(of_queue);
                }
                // What was told before is crossed off by now.
                if edges.is_empty() || leaving.is_cancelled() {
                    break;
                }
                self.hub.tell(&edges).await;
            }
        }
    }

    fn sign_of_life(&self, line: &Line, begin: bool) -> Cmd {
        let mut call = self.script(line, Script::Beat);
        let hub = &self.hub;
        let ms = |duration: Duration| duration.as_millis() as u64;
        call.arg(ms(hub.lease)).arg(ms(hub.settling())).arg(ms(hub.restart_grace)).arg(hub.about(&line.server));
        call.arg(u8::from(begin)).arg(if begin { hub.rules() } else { "{}".to_owned() });
        // Connections are no part of any topic.
        if self.partition == 0 {
            for (app, connections) in hub.connections() {
                call.arg(app).arg(connections);
            }
        }
        call
    }

    pub(super) fn script(&self, line: &Line, script: Script) -> Cmd {
        let mut call = line.scripts.call(script, &self.prefix);
        let replay = self.hub.replay.as_millis() as u64;
        call.arg(&line.run).arg(&line.me).arg(replay).arg(self.hub.replay_events);
        call
    }

    async fn call(&self, line: &Line, call: Cmd) -> Result<Reader, Reason> {
        let mut connection = line.connection.clone();
        let answer = query(&mut connection, &call).await.map_err(|error| format!("{}: {error}", line.server))?;
        Reader::open(answer)
    }

    /// Asks for one more connection of an app with a quota.
    ///
    /// # Errors
    /// The cluster cannot be asked.
    pub(super) async fn seat(&self, app: &str, connections: u64, quota: u64) -> Result<bool, Reason> {
        let line = self.line().await.ok_or_else(nonsense)?;
        let mut call = self.script(&line, Script::Seat);
        call.arg(app).arg(connections).arg(quota);
        Ok(self.call(&line, call).await?.number() == Some(1))
    }

    /// Asks several questions at once.
    ///
    /// # Errors
    /// There is no connection in time, or it breaks.
    pub(super) async fn ask(&self, questions: impl FnOnce(&Line) -> redis::Pipeline) -> Result<Vec<Value>, Reason> {
        let asking = async {
            let line = self.line().await.ok_or_else(nonsense)?;
            let pipeline = questions(&line);
            if pipeline.is_empty() {
                return Ok(Vec::new());
            }
            let mut connection = line.connection.clone();
            pipeline.query_async(&mut connection).await.map_err(|error| format!("{}: {error}", line.server))
        };
        match timeout(self.hub.timeout, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(self.obstacle().unwrap_or_else(|| "Redis does not answer in time".to_owned())),
        }
    }

    /// What all keys of the partition begin with that outlive a generation.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}
