//! A client that floods what all clients of a node share on the way to Redis, and those who must not notice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::it::wire_masked;
use crate::support::{Backend, Client, Cluster, Message, Node, PATIENCE, Recorder, Reply, eventually, eventually_true};

/// Held by tests that keep the processors busy: one that measures must not be beside another one.
static BUSY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const INNOCENT: usize = 50;
const FLOOD: usize = 300_000;
const PENDING: &str = "cluster.pending_per_connection";
const REFUSED: &str = r#"fanfare_subscriptions_refused_total{app="42",reason="cluster_pending"}"#;
const UNCONFIRMED: &str = r#"fanfare_subscriptions_refused_total{app="42",reason="cluster_slow"}"#;
const GAUGE: &str = "fanfare_cluster_pending";

/// A connection that subscribes to one channel after the other, as fast as the server reads.
struct Flood {
    running: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    /// Answers that name the setting.
    refused: Arc<AtomicUsize>,
}

impl Flood {
    async fn start(node: &Node) -> Self {
        let mut stream = TcpStream::connect(node.addr).await.unwrap();
        stream.write_all(node.dial().request().as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let (stop, sent, refused) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::default());
        let flood = (Arc::clone(&stop), Arc::clone(&sent));
        let counted: Arc<AtomicUsize> = Arc::clone(&refused);
        let write = async move {
            let (stop, sent) = flood;
            for start in (0..FLOOD).step_by(500) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let subscription = |number: usize| {
                    let data = json!({ "auth": "", "channel": format!("flood-{number}") });
                    wire_masked(&json!({ "event": "pusher:subscribe", "data": data }).to_string())
                };
                let bytes: Vec<u8> = (start..start + 500).flat_map(subscription).collect();
                writer.write_all(&bytes).await.unwrap();
                sent.fetch_add(500, Ordering::Relaxed);
            }
            writer
        };
        let read = async move {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = reader.read(&mut bytes).await {
                // Those that are split between two reads are not worth the trouble.
                let text = String::from_utf8_lossy(&bytes[..length]);
                counted.fetch_add(
                    text.matches("pusher:error").filter(|_| text.contains(PENDING)).count(),
                    Ordering::Relaxed,
                );
            }
        };
        let running = tokio::spawn(async move {
            let reading = tokio::spawn(read);
            let writer = write.await;
            reading.abort();
            drop(writer);
        });
        Self { running, stop, sent, refused }
    }

    /// Hangs up. Returns the number of subscriptions that were refused for the reason that is given.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.running.await.unwrap();
        self.refused.load(Ordering::Relaxed)
    }
}

/// Lets each of them subscribe to a channel of its own, all at once. Returns the longest time that took, and the channels.
async fn subscribe_all(clients: &mut [Client], prefix: &str) -> (Duration, Vec<String>) {
    let channels: Vec<_> = (0..clients.len()).map(|number| format!("{prefix}-{number}")).collect();
    let subscribing = clients.iter_mut().zip(&channels).map(async |(client, channel)| {
        let start = Instant::now();
        // Anything but the confirmation is a failure.
        client.subscribe(channel).await;
        start.elapsed()
    });
    let longest = join_all(subscribing).await.into_iter().max().unwrap();
    (longest, channels)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_subscriptions_delays_nobody_else_and_is_refused_in_part() {
    let _busy = BUSY.lock().await;
    let cluster = Cluster::with(2, |settings| {
        settings.limits = format!("channels_per_connection = {FLOOD}\nmessages_per_second = 0");
        // Far fewer than the flood, so that it does not depend on the speed of Redis whether any are refused.
        settings.cluster = "pending_per_connection = 500".to_owned();
    })
    .await;
    let (a, b) = cluster.pair();
    let mut innocent = join_all((0..INNOCENT).map(|_| a.connect())).await;
    let (idle, mut expected) = subscribe_all(&mut innocent, "idle").await;

    let flood = Flood::start(a).await;
    eventually("the flood is refused in part", PATIENCE, async || match flood.refused.load(Ordering::Relaxed) {
        0 => Err(format!("{} sent", flood.sent.load(Ordering::Relaxed))),
        _ => Ok(()),
    })
    .await;
    for round in 0..5 {
        let (longest, channels) = subscribe_all(&mut innocent, &format!("busy-{round}")).await;
        println!("idle {idle:?}, in the flood {longest:?}, {} sent", flood.sent.load(Ordering::Relaxed));
        assert!(longest < Duration::from_secs(1).max(idle * 10), "{longest:?}, and {idle:?} without the flood");
        expected.extend(channels);
    }
    let (sent, refused) = (flood.sent.load(Ordering::Relaxed), flood.end().await);
    assert!(refused > 0 && sent > 500, "{refused} of {sent} refused");
    assert!(a.metric(REFUSED).await > 0.0);
    let log = a.log();
    assert!(log.contains("\"WARN\"") && log.contains(PENDING), "no warning: {log}");
    for client in &mut innocent {
        client.expect_silence().await;
    }

    // The client is gone, and so is everything that it has caused, here and at Redis.
    eventually_true("nothing is pending", PATIENCE, async || a.metric(GAUGE).await.abs() < f64::EPSILON).await;
    let expected: BTreeSet<_> = expected.into_iter().collect();
    eventually("the channels of the others are all there are", PATIENCE, async || {
        let answer = b.api().await.get("/channels", &[]).await.json();
        let channels: BTreeSet<_> = answer["channels"].as_object().unwrap().keys().cloned().collect();
        if channels == expected { Ok(()) } else { Err(format!("{} and not {}", channels.len(), expected.len())) }
    })
    .await;
    // Each of them is a subscription that works.
    for (number, client) in innocent.iter_mut().enumerate() {
        b.api().await.trigger(&format!("idle-{number}"), "fence", "").await;
        client.expect_event(&format!("idle-{number}"), "fence", "").await;
    }
}

#[tokio::test]
async fn all_connections_of_an_address_take_one_turn() {
    let _busy = BUSY.lock().await;
    const CROWD: usize = 500;
    const EACH: usize = 4;
    let cluster = Cluster::with(1, |settings| {
        (settings.lease, settings.timeout) = (Duration::from_secs(60), Duration::from_secs(30));
        settings.server = "trust_forwarded_headers = true".to_owned();
        settings.limits = "messages_per_second = 0".to_owned();
    })
    .await;
    let node = &cluster.nodes[0];
    let from = async |address: &str| node.dial().header("X-Forwarded-For", address).connect().await;
    let mut crowd = join_all((0..CROWD).map(|_| from("203.0.113.9"))).await;
    let mut innocent = from("203.0.113.10").await;
    cluster.redis.freeze();
    let subscribe = |channel: String| json!({ "event": "pusher:subscribe", "data": { "channel": channel } });
    for (number, client) in crowd.iter_mut().enumerate() {
        let channels: Vec<_> = (0..EACH).map(|n| subscribe(format!("crowd-{}", number * EACH + n))).collect();
        client.send_all(&channels).await;
        client.expect_silence().await;
    }
    innocent.send(subscribe("innocent".to_owned())).await;
    innocent.expect_silence().await;
    cluster.redis.thaw();
    for client in &mut crowd {
        for _ in 0..EACH {
            assert_eq!(client.next().await.event(), crate::support::SUCCEEDED);
        }
    }
    assert_eq!(innocent.next().await.event(), crate::support::SUCCEEDED);
    // A stream is called by the time at which it began.
    let script = format!(
        "local function began(channel) return tonumber(redis.call('HGET', keys .. 't:c:42:' .. channel, 'id')) end
        local innocent, earlier = began('innocent'), 0
        for i = 0, {} do if began('crowd-' .. i) < innocent then earlier = earlier + 1 end end
        return earlier",
        CROWD * EACH - 1
    );
    // Those were on their way when Redis stopped.
    let earlier = at_redis(&cluster, &script);
    assert!(earlier < 300, "{earlier} of {} came before", CROWD * EACH);
}

#[tokio::test]
async fn a_topic_that_a_flood_has_queued_does_not_wait_for_it() {
    let cluster = Cluster::with(1, |settings| {
        settings.limits = "messages_per_second = 0".to_owned();
    })
    .await;
    let node = &cluster.nodes[0];
    let (mut flooder, mut innocent) = (node.connect().await, node.connect().await);
    for round in 0..3 {
        // The channel that both want is the last one that the flood subscribes to.
        let subscription = |number: usize| {
            let channel = format!("round-{round}-{number}");
            json!({ "event": "pusher:subscribe", "data": { "auth": "", "channel": channel } })
        };
        let subscriptions: Vec<_> = (0..300).map(subscription).collect();
        flooder.send_all(&subscriptions).await;
        innocent.subscribe(&format!("round-{round}-299")).await;
        for _ in 0..300 {
            assert_eq!(flooder.next().await.event(), crate::support::SUCCEEDED);
        }
    }
    innocent.expect_silence().await;
    eventually_true("nothing is pending", PATIENCE, async || node.metric(GAUGE).await.abs() < f64::EPSILON).await;
}

fn errors(messages: &[Message]) -> Vec<String> {
    let errors = messages.iter().filter(|message| message.event() == "pusher:error");
    errors.map(|message| message.json["data"]["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_subscription_that_redis_is_too_slow_for_is_refused_with_that_reason() {
    let cluster = Cluster::with(1, |settings| {
        // Redis may be silent for half a lease before it counts as lost.
        (settings.lease, settings.timeout) = (Duration::from_secs(60), Duration::from_secs(1));
    })
    .await;
    let node = &cluster.nodes[0];
    let client = Recorder::start(node.connect().await);
    cluster.redis.freeze();
    client.join("presence-room", "ann");
    let refused =
        |messages: &[Message]| errors(messages).iter().any(|error| error.contains("within 1s (cluster.timeout)"));
    client.expect("the true reason", PATIENCE, refused).await;
    // Clients hear of it first.
    eventually("the log says so, too", PATIENCE, async || {
        let log = node.log();
        if log.contains("Redis did not confirm them within cluster.timeout") { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(node.metric(UNCONFIRMED).await > 0.0);
    node.readiness().await.unwrap();
    cluster.redis.thaw();
    client.expect_close(4200, PATIENCE).await;
}

#[tokio::test]
async fn a_flood_of_client_events_keeps_nobody_elses_out() {
    let _busy = BUSY.lock().await;
    const ROOM: &str = "private-room";
    let cluster = Cluster::with(1, |settings| {
        (settings.lease, settings.timeout) = (Duration::from_secs(60), Duration::from_secs(30));
        settings.limits = "client_events_per_second = 10000\nmessages_per_second = 0".to_owned();
    })
    .await;
    let node = &cluster.nodes[0];
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = node.connect().await;
        client.subscribe_private(ROOM).await;
        clients.push(client);
    }
    let listener = Recorder::start(clients.pop().unwrap());
    let mut flooder = clients.pop().unwrap();
    cluster.redis.freeze();
    let event = |name: &str| json!({ "event": name, "channel": ROOM, "data": "x" });
    let flood = vec![event("client-flood"); 2000];
    flooder.send_all(&flood).await;
    let flooder = Recorder::start(flooder);
    flooder.settle().await;
    let refused = errors(&flooder.messages());
    assert!(!refused.is_empty() && refused.len() < flood.len(), "{} of {}", refused.len(), flood.len());
    assert!(refused.iter().all(|error| error.contains("the cluster is slow")), "{refused:?}");
    for client in &mut clients {
        client.send(event("client-innocent")).await;
        client.expect_silence().await;
    }
    cluster.redis.thaw();
    let count = |messages: &[Message], name: &str| messages.iter().filter(|message| message.event() == name).count();
    let all = |messages: &[Message]| {
        count(messages, "client-innocent") == clients.len()
            && count(messages, "client-flood") + refused.len() == flood.len()
    };
    listener.expect("all events that were not refused", PATIENCE, all).await;
}

/// Runs a script at Redis. In it, `flood` is [`FLOOD`], and `keys` is what all keys of the present generation begin with.
fn at_redis(cluster: &Cluster, script: &str) -> usize {
    let keys = "local keys = KEYS[1] .. redis.call('HGET', KEYS[1] .. 'meta', 'gen') .. ':'";
    let script = format!("{keys} local flood = tonumber(ARGV[1]) {script}");
    let answer = cluster.redis.cli(&["EVAL", &script, "1", "fanfare:{test:0}:", &FLOOD.to_string()]);
    answer.parse().unwrap_or_else(|_| panic!("{answer}"))
}

/// Fills the queue of open webhook events of the app that tests usually have.
const FLOOD_OF_EDGES: &str = r#"for i = 1, flood do
      redis.call('RPUSH', keys .. 'edges:open:42', '["channel_occupied","c:42:flood-' .. i .. '","",""]')
    end
    return redis.call('RPUSH', keys .. 'turns', 'open:42')"#;

#[tokio::test]
async fn webhooks_of_an_app_do_not_wait_for_those_of_another_one() {
    let _busy = BUSY.lock().await;
    let flooded = Backend::start().await;
    let mut backend = Backend::start().await;
    backend.credentials = ("app-key-2".to_owned(), "app-secret-2".to_owned());
    let cluster = Cluster::with(1, |settings| {
        settings.webhooks = Some(flooded.url());
        settings.apps = format!(
            "[[apps]]\nid = \"43\"\nkey = \"app-key-2\"\nsecret = \"app-secret-2\"\nwebhook_delay = \"100ms\"\n\
             [[apps.webhooks]]\nurl = \"{}\"\n",
            backend.url()
        );
    })
    .await;
    let mut client = cluster.nodes[0].dial().path("/app/app-key-2").connect().await;

    at_redis(&cluster, FLOOD_OF_EDGES);
    client.subscribe("room").await;
    let occupied = backend.next_within(PATIENCE).await;
    let waiting = at_redis(&cluster, "return redis.call('LLEN', keys .. 'edges:open:42')");
    assert_eq!(*occupied.event(), json!({ "name": "channel_occupied", "channel": "room" }));
    assert!(waiting > FLOOD / 10, "{waiting} of the flood were left");

    at_redis(
        &cluster,
        r#"for i = 1, flood do
          redis.call('ZADD', keys .. 'due:open:42', 0, '["v","c:42:gone-' .. i .. '"]')
        end
        return redis.call('ZADD', keys .. 'first_due', 0, 'open:42')"#,
    );
    client.disconnect().await;
    let vacated = backend.next_within(PATIENCE).await;
    let waiting = at_redis(&cluster, "return redis.call('ZCARD', keys .. 'due:open:42')");
    assert_eq!(*vacated.event(), json!({ "name": "channel_vacated", "channel": "room" }));
    assert!(waiting > FLOOD / 10, "{waiting} of the flood were left");
}

#[tokio::test]
async fn a_full_queue_of_webhooks_drops_events_of_the_address_that_has_caused_most() {
    const CHANNELS: u32 = 1000;
    let mut backend = Backend::start().await;
    backend.answer(Reply::Status(500));
    let cluster = Cluster::with(1, |settings| {
        settings.webhooks = Some(backend.url());
        settings.queues = "max_pending = \"64KiB\"".to_owned();
        settings.server = "trust_forwarded_headers = true".to_owned();
        settings.limits = format!("channels_per_connection = {CHANNELS}\nmessages_per_second = 0");
    })
    .await;
    let node = &cluster.nodes[0];
    let from = async |address: &str| node.dial().header("X-Forwarded-For", address).connect().await;
    // No channel of the flood takes as much as this one does.
    let honest = "h".repeat(150);
    let (mut innocent, mut flooder) = (from("203.0.113.10").await, from("203.0.113.9").await);
    innocent.subscribe(&honest).await;
    for n in 0..CHANNELS {
        flooder.subscribe(&format!("flood-{n}")).await;
    }
    let all = f64::from(CHANNELS + 1);
    eventually_true("all is told to the queue", PATIENCE, async || {
        node.metric(r#"fanfare_webhook_events_total{app="42"}"#).await >= all
    })
    .await;
    assert!(node.metric(r#"fanfare_webhook_events_dropped_total{app="42"}"#).await > 0.0);
    backend.answer(Reply::Status(200));
    backend.forget();
    while backend.next_within(PATIENCE).await.channel() != honest {}
}

#[tokio::test]
async fn a_node_takes_its_leave_however_much_there_is_to_tell() {
    let _busy = BUSY.lock().await;
    let backend = Backend::start().await;
    let mut cluster = Cluster::with(1, |settings| settings.webhooks = Some(backend.url())).await;
    at_redis(&cluster, FLOOD_OF_EDGES);
    cluster.nodes[0].stop().await;
    let log = cluster.nodes[0].log();
    assert!(!log.contains("could not take leave of the cluster"), "{log}");
    // The next node goes on with the rest.
    let waiting = at_redis(&cluster, "return redis.call('LLEN', keys .. 'edges:open:42')");
    assert!(waiting > FLOOD / 10, "{waiting} of the flood were left");
}

#[tokio::test]
async fn events_of_an_app_that_this_node_does_not_have_wait_for_one_that_has_it() {
    let mut backend = Backend::start().await;
    let cluster = Cluster::with(1, |settings| settings.webhooks = Some(backend.url())).await;
    at_redis(
        &cluster,
        r#"redis.call('RPUSH', keys .. 'edges:open:77', '["channel_occupied","c:77:room","",""]')
        return redis.call('RPUSH', keys .. 'turns', 'open:77')"#,
    );
    let mut client = cluster.nodes[0].connect().await;
    for channel in ["first", "second"] {
        client.subscribe(channel).await;
        let occupied = backend.next_within(PATIENCE).await;
        assert_eq!(*occupied.event(), json!({ "name": "channel_occupied", "channel": channel }));
    }
    assert_eq!(at_redis(&cluster, "return redis.call('LLEN', keys .. 'edges:open:77')"), 1);
    let log = cluster.nodes[0].log();
    assert!(log.contains("wait at Redis for a node that has this app"), "{log}");
}

#[tokio::test]
async fn what_clients_have_left_waits_for_redis_in_bounded_memory() {
    let _busy = BUSY.lock().await;
    const EACH: usize = 100;
    let cluster = Cluster::with(1, |settings| {
        (settings.lease, settings.timeout) = (Duration::from_secs(60), Duration::from_secs(30));
        settings.limits = format!("channels_per_connection = {EACH}\nmessages_per_second = 0");
        settings.cluster = format!("pending_per_connection = {EACH}");
    })
    .await;
    let node = &cluster.nodes[0];
    cluster.redis.freeze();
    let subscribe = |channel: String| json!({ "event": "pusher:subscribe", "data": { "channel": channel } });
    let passing = |name: &str| -> Vec<Value> {
        let both = |n| {
            let channel = format!("{name}-{n}");
            [subscribe(channel.clone()), json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } })]
        };
        (0..EACH).flat_map(both).collect()
    };
    // Many clients leave what they have just joined, and nobody is refused.
    let mut crowd = Vec::new();
    while node.metric(GAUGE).await < 50.0 * EACH as f64 {
        assert!(node.metric(REFUSED).await.abs() < f64::EPSILON, "{} clients", crowd.len());
        let mut client = node.connect().await;
        client.send_all(&passing(&crowd.len().to_string())).await;
        let client = Recorder::start(client);
        client.settle().await;
        crowd.push(client);
    }
    // One more has twenty.
    let mut late = node.connect().await;
    late.send_all(&passing("late")).await;
    let late = Recorder::start(late);
    late.settle().await;
    let errors = errors(&late.messages());
    let refused =
        errors.iter().filter(|error| error.contains("Too many subscriptions of this connection wait")).count();
    assert_eq!(refused, EACH - 20);
    // Who stays can have as many as ever.
    let mut honest = node.connect().await;
    let channels: Vec<Value> = (0..EACH).map(|n| subscribe(format!("honest-{n}"))).collect();
    honest.send_all(&channels).await;
    let honest = Recorder::start(honest);
    cluster.redis.thaw();
    let subscribed = |messages: &[Message]| {
        messages.iter().filter(|message| message.event().contains("subscription_succeeded")).count() == EACH
    };
    honest.expect("all of its channels", PATIENCE, subscribed).await;
}
