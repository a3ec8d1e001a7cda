//! The connection to one partition, in its many lives.
//!
//! A life begins with a new connection: the node registers under a name that it never had before, tells everything that it
//! has in this partition, hears of everything that has changed, and takes back what it had told under earlier names. From
//! then on four things go on beside each other until one of them fails, which ends the life: signs of life, contributions,
//! publications, and, on one node of the cluster, the duty to tell backends. Messages are delivered from within the
//! connection, in the order in which they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, Value, cmd};
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::channels::{Life, Outcome};
use crate::protocol::SocketId;

use super::answer::nonsense;
use super::client_events::ClientEvents;
use super::hub::Hub;
use super::message;
use super::pending::{Cause, Pending};
use super::scripts::Scripts;
use super::servers::{Reason, query};
use super::topic::{self, Topic};

/// Publications of backends that wait for their turn. Overflow policy: further requests wait.
const JOBS: usize = 1024;

/// The pause before the first new attempt to connect, and the longest one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How often the same obstacle is logged.
const COMPLAINTS: Duration = Duration::from_secs(30);

/// The oldest Redis that has what is needed: sharded pub/sub.
const OLDEST: (u64, u64) = (7, 0);

/// See the module.
pub(super) struct Link {
    pub(super) hub: Arc<Hub>,
    pub(super) partition: usize,
    pub(super) prefix: String,
    /// See [`Life`]; its lowest bit is `fresh`.
    life: AtomicU64,
    pub(super) pending: Mutex<Pending>,
    pub(super) queued: Notify,
    jobs: mpsc::Sender<Job>,
    client_events: Mutex<ClientEvents<Job>>,
    pub(super) client_event_queued: Notify,
    pub(super) line: watch::Sender<Option<Line>>,
    reason: Mutex<Reason>,
    pub(super) on_duty: AtomicBool,
    /// Held while something was told to backends and is not crossed off at Redis.
    pub(super) telling: AsyncMutex<()>,
}

/// What survives from one life to the next.
pub(super) struct Memory {
    jobs: mpsc::Receiver<Job>,
    lives: u64,
    generation: String,
    /// Names of earlier lives that may still be registered.
    past: Vec<String>,
}

/// A connection that works.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) connection: MultiplexedConnection,
    pub(super) scripts: Scripts,
    pub(super) server: String,
    pub(super) run: String,
    /// This node in this life.
    pub(super) me: String,
    /// What all keys begin with in this generation.
    pub(super) keys: String,
    pub(super) life: Life,
    /// It removes what may be left of earlier generations.
    pub(super) sweeps: bool,
}

/// Events that belong together, and who waits for them.
pub(super) struct Job {
    /// Whether all of it was taken. Nobody waits for client events.
    pub(super) answer: Option<oneshot::Sender<Vec<(u64, u64)>>>,
    pub(super) events: Vec<Publication>,
    /// When it is too late.
    pub(super) until: Instant,
}

/// An event on its way to a topic.
pub(super) struct Publication {
    pub(super) key: String,
    pub(super) body: Vec<u8>,
    /// How long newcomers are shown it, and its data.
    pub(super) cached: Option<(Duration, String)>,
}

/// Why a life ends.
pub(super) enum End {
    /// The node stops, and has taken its leave.
    Left,
    Broken(Reason),
}

impl From<Reason> for End {
    fn from(reason: Reason) -> Self {
        Self::Broken(reason)
    }
}

impl Link {
    /// A link that is not connected yet.
    pub(super) fn new(hub: Arc<Hub>, partition: usize) -> (Arc<Self>, Memory) {
        let (jobs, receiver) = mpsc::channel(JOBS);
        let prefix = topic::prefix(&hub.cluster, partition);
        let link = Self {
            hub,
            partition,
            prefix,
            life: AtomicU64::new(0),
            pending: Mutex::default(),
            queued: Notify::new(),
            jobs,
            client_events: Mutex::default(),
            client_event_queued: Notify::new(),
            line: watch::Sender::new(None),
            reason: Mutex::new("not connected yet".to_owned()),
            on_duty: AtomicBool::new(false),
            telling: AsyncMutex::new(()),
        };
        (Arc::new(link), Memory { jobs: receiver, lives: 0, generation: String::new(), past: Vec::new() })
    }

    /// The present life.
    pub(super) fn life(&self) -> Life {
        let life = self.life.load(Ordering::Acquire);
        Life { number: life >> 1, fresh: life & 1 == 1 }
    }

    /// Why it is not connected.
    pub(super) fn obstacle(&self) -> Option<Reason> {
        self.line.borrow().is_none().then(|| self.reason.lock().clone())
    }

    /// The cluster must hear of this topic.
    pub(super) fn enqueue(&self, cause: Cause, topic: Topic) {
        self.pending.lock().push(cause, topic);
        self.queued.notify_one();
    }

    /// Where publications of backends go.
    pub(super) fn jobs(&self) -> &mpsc::Sender<Job> {
        &self.jobs
    }

    /// Queues a client event; see [`ClientEvents::push`].
    pub(super) fn publish_for(&self, app: usize, sender: SocketId, job: Job) -> bool {
        let is_taken = self.client_events.lock().push(app, sender, job);
        if is_taken {
            self.client_event_queued.notify_one();
        }
        is_taken
    }

    /// The next client event.
    pub(super) fn next_client_event(&self) -> Option<Job> {
        self.client_events.lock().pop()
    }

    /// The connection, once there is one.
    pub(super) async fn line(&self) -> Option<Line> {
        let mut lines = self.line.subscribe();
        lines.wait_for(Option::is_some).await.ok().and_then(|line| line.clone())
    }

    /// Lives until `leaving`, and takes its leave then if it is connected.
    pub(super) async fn run(self: Arc<Self>, mut memory: Memory, leaving: CancellationToken) {
        let (first, longest) = BACKOFF;
        let (mut backoff, mut complained) = (first, None::<Instant>);
        loop {
            let began = Instant::now();
            let reason = match self.live(&mut memory, &leaving).await {
                End::Left => None,
                End::Broken(reason) => Some(reason),
            };
            // Before anybody can find the line gone, and ask why.
            let previous = reason.clone().map(|reason| std::mem::replace(&mut *self.reason.lock(), reason));
            let was_connected = self.line.send_replace(None).is_some();
            self.pending.lock().reset(false);
            self.life.store(0, Ordering::Release);
            self.on_duty.store(false, Ordering::Relaxed);
            let Some(reason) = reason else { return };
            if was_connected {
                self.hub.connected.fetch_sub(1, Ordering::Relaxed);
                self.hub.metrics.link_lost();
                backoff = first;
            }
            let repeated = previous.as_ref() == Some(&reason);
            // Two seconds later it is no news, but nobody shall think that it is over.
            let said_lately = complained.is_some_and(|complained| complained.elapsed() < COMPLAINTS);
            if repeated && !was_connected && said_lately {
                debug!(partition = self.partition, reason, "still cut off from the cluster");
            } else {
                error!(partition = self.partition, reason, "cut off from the cluster; trying to reconnect");
                complained = Some(Instant::now());
            }
            let pause = backoff.mul_f64(rand::random_range(0.5..1.0));
            backoff = (backoff * 2).min(longest);
            tokio::select! {
                () = sleep(pause.saturating_sub(began.elapsed().min(pause / 2))) => {}
                () = leaving.cancelled() => return,
            }
        }
    }

    async fn live(self: &Arc<Self>, memory: &mut Memory, leaving: &CancellationToken) -> End {
        let broken = Arc::new(Notify::new());
        let connecting = self.connect(memory, Arc::clone(&broken));
        let connected = tokio::select! {
            connected = connecting => connected,
            () = leaving.cancelled() => return End::Left,
        };
        let line = match connected {
            Ok(line) => line,
            Err(reason) => return reason.into(),
        };
        let Memory { jobs, past, .. } = memory;
        tokio::select! {
            Err(reason) = self.beat(line.clone()) => reason.into(),
            end = self.contribute(line.clone(), past, leaving) => end,
            Err(reason) = self.publish(line.clone(), jobs) => reason.into(),
            Err(reason) = self.tell(line.clone(), leaving) => reason.into(),
            Err(reason) = self.sweep(line.clone()) => reason.into(),
            () = broken.notified() => End::Broken(format!("{}: the connection broke", line.server)),
        }
    }

    /// Connects and registers.
    async fn connect(self: &Arc<Self>, memory: &mut Memory, broken: Arc<Notify>) -> Result<Line, Reason> {
        memory.lives += 1;
        let number = memory.lives;
        let receiver = Arc::clone(self);
        let receive = move |push: PushInfo| -> Result<(), redis::aio::SendError> {
            match push.kind {
                PushKind::SMessage => receiver.receive(number, push.data),
                PushKind::Disconnection => broken.notify_one(),
                _ => {}
            }
            Ok(())
        };
        let patience = self.hub.patience();
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(patience));
        let config = config.set_response_timeout(Some(patience)).set_push_sender(receive);
        let slot = topic::slot(&self.hub.cluster, self.partition);
        let (mut connection, server) = self.hub.servers.connect(slot, config).await?;
        let run = self.inspect(&mut connection, &server).await?;
        let scripts = Scripts::load(&mut connection).await.map_err(|error| format!("{server}: {error}"))?;
        let me = format!("{}#{number}", self.hub.id);
        let life = Life { number, fresh: false };
        let mut line = Line { connection, scripts, server, run, me, keys: String::new(), life, sweeps: false };
        let generation = self.register(&mut line).await?;
        line.life.fresh = memory.generation != generation;
        line.keys = format!("{}{generation}:", self.prefix);
        if line.life.fresh {
            memory.generation = generation;
            memory.past.clear();
        }
        memory.past.push(line.me.clone());
        self.life.store(number << 1 | u64::from(line.life.fresh), Ordering::Release);
        Ok(line)
    }

    /// Whether this is a Redis to rely on. Returns what tells its lives apart.
    async fn inspect(&self, connection: &mut MultiplexedConnection, server: &str) -> Result<String, Reason> {
        let said = query(connection, cmd("INFO").arg("server").arg("memory")).await;
        let said = said.map_err(|error| format!("{server}: {error}"))?;
        let said: String = redis::from_redis_value(said).map_err(|_| nonsense())?;
        let field =
            |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        // Valkey says under this name which Redis it replaces.
        let version = field("redis_version").unwrap_or("0.0");
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if number < OLDEST {
            return Err(format!("{server}: is Redis {version}; expected {}.{} or newer", OLDEST.0, OLDEST.1));
        }
        if let Some(policy) = field("maxmemory_policy").filter(|policy| *policy != "noeviction")
            && field("maxmemory").is_some_and(|limit| limit != "0")
        {
            warn!(server, policy, "Redis may evict what the cluster needs; set its maxmemory-policy to noeviction");
        }
        field("run_id").map(str::to_owned).ok_or_else(nonsense)
    }

    /// A message: delivered here and now, in the order in which they come.
    fn receive(&self, life: u64, mut data: Vec<Value>) {
        let (Some(Value::BulkString(message)), Some(Value::BulkString(channel))) = (data.pop(), data.pop()) else {
            return;
        };
        let key = std::str::from_utf8(&channel)
            .ok()
            .and_then(|channel| channel.strip_prefix(&*self.prefix)?.strip_prefix("p:"));
        let Some((key, (position, news))) = key.zip(message::parse(message)) else {
            warn!(
                bytes = channel.len(),
                "a message from the cluster makes no sense; are all nodes of the same version?"
            );
            return;
        };
        let life = Life { number: life, fresh: false };
        if let Some((topic, outcome)) = self.hub.hear(key, life, position, news) {
            self.look_after(Cause::Node, &topic, &outcome);
        }
    }

    pub(super) fn look_after(&self, cause: Cause, topic: &Topic, outcome: &Outcome) {
        self.hub.count(topic, outcome);
        if outcome.again {
            self.enqueue(cause, topic.clone());
        }
    }
}
