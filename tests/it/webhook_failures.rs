//! Endpoints that fail, and endpoints that mean harm (protocol §5.3).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare::config::WebhookConfig;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{Backend, DEADLINE, Reply, TestServer};

fn occupied(channel: &str) -> Value {
    json!({ "name": "channel_occupied", "channel": channel })
}

fn vacated(channel: &str) -> Value {
    json!({ "name": "channel_vacated", "channel": channel })
}

#[tokio::test]
async fn a_failure_is_tried_again_with_pauses_that_grow_until_it_succeeds() {
    let mut backend = Backend::start().await;
    let mut answers = [503, 404].into_iter();
    backend.answer_by(move |_| Reply::Status(answers.next().unwrap_or(204)));
    let server = TestServer::with_webhooks(&backend, |_| {}).await;
    server.connect().await.subscribe("room").await;
    let first = backend.expect(occupied("room")).await;
    let mut pauses = Vec::new();
    for _ in 0..2 {
        let start = Instant::now();
        let again = backend.next().await;
        assert_eq!((again.id(), &again.body), (first.id(), &first.body));
        pauses.push(start.elapsed());
    }
    assert!(pauses[0] >= Duration::from_millis(700), "{pauses:?}");
    assert!(pauses[1] >= Duration::from_millis(1400), "{pauses:?}");
    server.expect_metric("fanfare_webhooks_delivered_total", 1).await;
    server.expect_metric("fanfare_webhooks_failed_total", 2).await;
}

#[tokio::test]
async fn a_failing_channel_holds_back_its_own_events_and_no_others() {
    let mut backend = Backend::start().await;
    let mut failed = false;
    backend.answer_by(move |webhook| {
        let fails = webhook.channel() == "bad" && !std::mem::replace(&mut failed, true);
        Reply::Status(if fails { 500 } else { 200 })
    });
    let server = TestServer::with_webhooks(&backend, |config| config.apps[0].webhook_delay = Duration::ZERO).await;
    let mut client = server.connect().await;
    client.subscribe("bad").await;
    backend.expect(occupied("bad")).await;
    client.leave("bad").await;
    client.subscribe("bad").await;
    for n in 0..20 {
        let channel = format!("good-{n}");
        client.subscribe(&channel).await;
        backend.expect(occupied(&channel)).await;
    }
    backend.expect_all([occupied("bad"), vacated("bad"), occupied("bad")]).await;
}

/// The test holds all answers, and gives them in an order that no one can foresee.
#[tokio::test]
async fn requests_at_the_same_time_are_about_different_channels_and_each_channel_stays_in_order() {
    const CHANNELS: usize = 6;
    const ROUNDS: usize = 8;
    const CONCURRENCY: usize = 4;
    let mut backend = Backend::start().await;
    let held: Arc<Mutex<HashMap<String, Arc<Semaphore>>>> = Arc::default();
    let holding = Arc::clone(&held);
    backend.answer_by(move |webhook| {
        let permits = Arc::new(Semaphore::new(0));
        holding.lock().insert(webhook.id().to_owned(), Arc::clone(&permits));
        Reply::Held(permits)
    });
    let server = TestServer::with_webhooks(&backend, |config| {
        config.webhooks.concurrency = CONCURRENCY;
        config.apps[0].webhook_delay = Duration::ZERO;
    })
    .await;
    let mut client = server.connect().await;
    for _ in 0..ROUNDS {
        for n in 0..CHANNELS {
            client.subscribe(&format!("room-{n}")).await;
        }
        for n in 0..CHANNELS {
            client.leave(&format!("room-{n}")).await;
        }
    }
    // Channels with a request under way, and the id of that.
    let mut open: Vec<(String, String)> = Vec::new();
    let mut arrived: HashMap<String, usize> = HashMap::new();
    loop {
        let finished = arrived.values().filter(|count| **count == 2 * ROUNDS).count();
        let open_at_their_end = open.iter().filter(|(channel, _)| arrived[channel] == 2 * ROUNDS).count();
        let possible = CHANNELS - finished + open_at_their_end;
        while open.len() < CONCURRENCY.min(possible) {
            let webhook = backend.next().await;
            let channel = webhook.channel().to_owned();
            assert!(open.iter().all(|(other, _)| *other != channel), "two requests about {channel} at once");
            let count = arrived.entry(channel.clone()).or_default();
            let expected = if count.is_multiple_of(2) { occupied(&channel) } else { vacated(&channel) };
            assert_eq!(*webhook.event(), expected, "after {count} events");
            *count += 1;
            open.push((channel, webhook.id().to_owned()));
        }
        if open.is_empty() {
            break;
        }
        let (_, id) = open.swap_remove(rand::random_range(0..open.len()));
        held.lock()[&id].add_permits(1);
    }
    server.expect_metric("fanfare_webhook_events_pending", 0).await;
}

#[tokio::test]
async fn what_never_succeeds_becomes_a_dead_letter_and_the_next_event_of_its_channel_goes() {
    let mut backend = Backend::start().await;
    backend.answer_by(|webhook| Reply::Status(if webhook.event()["name"] == "channel_occupied" { 500 } else { 200 }));
    let server = TestServer::with_webhooks(&backend, |config| {
        config.webhooks.retry_period = Duration::from_millis(1200);
        config.apps[0].webhook_delay = Duration::ZERO;
    })
    .await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    client.leave("room").await;
    let first = backend.expect(occupied("room")).await;
    // Once after a pause, and once when its time is over.
    let mut attempts = 1;
    loop {
        let webhook = backend.next().await;
        if *webhook.event() == vacated("room") {
            break;
        }
        assert_eq!((webhook.id(), &webhook.body), (first.id(), &first.body));
        attempts += 1;
    }
    assert!((2..=3).contains(&attempts), "{attempts}");
    server.expect_metric("fanfare_webhooks_dead_total", 1).await;
    server.expect_metric("fanfare_webhook_events_pending", 0).await;
    let dead = server.dead_letters(1).await;
    assert_eq!((&dead[0]["id"], &dead[0]["attempt_count"]), (&json!(first.id()), &json!(attempts)));
    assert_eq!(dead[0]["state"], json!({ "name": "dead", "reason": "status 500" }));
}

#[tokio::test]
async fn the_time_for_retries_counts_from_when_an_event_came_about() {
    let mut backend = Backend::start().await;
    backend.answer(Reply::Status(500));
    let server = TestServer::with_webhooks(&backend, |config| {
        config.webhooks.retry_period = Duration::from_secs(1);
        config.apps[0].webhook_delay = Duration::ZERO;
    })
    .await;
    let mut client = server.connect().await;
    for _ in 0..5 {
        client.subscribe("room").await;
        client.leave("room").await;
    }
    // One after the other they would take ten seconds; all of them have had their time after one.
    server.expect_metric("fanfare_webhooks_dead_total", 10).await;
    for _ in 0..10 {
        backend.next().await;
    }
}

#[tokio::test]
async fn whatever_is_not_2xx_is_a_failure() {
    let mut other = Backend::start().await;
    let redirect = |status: u16| {
        let location = format!("Location: {}\r\nContent-Length: 0\r\n\r\n", other.url());
        Reply::Raw(format!("HTTP/1.1 {status} Elsewhere\r\n{location}").into_bytes())
    };
    let statuses = [300, 304, 400, 401, 404, 410, 422, 429, 500, 503, 599].map(Reply::Status);
    let raw = |text: &str| Reply::Raw(text.as_bytes().to_vec());
    let broken = [
        Reply::HangUp,
        raw("SSH-2.0-OpenSSH_9.6\r\n"),
        raw("\0\0\0\0\0\0\0\0\0"),
        raw("HTTP/1.1 2000 Far too many\r\n\r\n"),
        raw("HTTP/1.1 200 OK\r\nContent-Le"),
        raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        Reply::Raw(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Many: headers\r\n".repeat(10_000)).into_bytes()),
    ];
    let replies = [301, 302, 303, 307, 308].map(redirect).into_iter().chain(statuses).chain(broken);
    let mut backend = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, |config| config.webhooks.retry_period = Duration::ZERO).await;
    let mut client = server.connect().await;
    let mut dead = 0;
    for (n, reply) in replies.enumerate() {
        backend.answer(reply);
        let channel = format!("room-{n}");
        client.subscribe(&channel).await;
        backend.expect(occupied(&channel)).await;
        dead += 1;
        server.expect_metric("fanfare_webhooks_dead_total", dead).await;
    }
    for (n, status) in [200, 201, 202, 204, 299].into_iter().enumerate() {
        backend.answer(Reply::Status(status));
        let channel = format!("good-{n}");
        client.subscribe(&channel).await;
        backend.expect(occupied(&channel)).await;
    }
    server.expect_metric("fanfare_webhooks_delivered_total", 5).await;
    server.expect_metric("fanfare_webhooks_dead_total", dead).await;
    other.expect_no_more();
}

#[tokio::test]
async fn an_endpoint_that_takes_too_long_has_failed() {
    let mut backend = Backend::start().await;
    let mut answers = [Reply::Silence, Reply::DrippingHead].into_iter();
    backend.answer_by(move |_| answers.next().unwrap_or(Reply::Status(200)));
    let server =
        TestServer::with_webhooks(&backend, |config| config.webhooks.timeout = Duration::from_millis(300)).await;
    server.connect().await.subscribe("room").await;
    for _ in 0..3 {
        backend.expect(occupied("room")).await;
    }
    server.expect_metric("fanfare_webhooks_delivered_total", 1).await;
    server.expect_metric("fanfare_webhooks_failed_total", 2).await;
}

#[tokio::test]
async fn an_endpoint_that_was_away_gets_everything_in_order_of_its_channels() {
    let mut backend = Backend::start().await;
    backend.go_down().await;
    let server = TestServer::with_webhooks(&backend, |config| config.apps[0].webhook_delay = Duration::ZERO).await;
    let mut client = server.connect().await;
    let channels: Vec<_> = (0..20).map(|n| format!("room-{n}")).collect();
    for channel in &channels {
        client.subscribe(channel).await;
    }
    for channel in &channels {
        client.leave(channel).await;
    }
    server.expect_metric("fanfare_webhook_events_pending", 40).await;
    backend.come_back();
    let mut last: HashMap<String, Value> = HashMap::new();
    for _ in 0..40 {
        let webhook = backend.next_within(2 * DEADLINE).await;
        let name = webhook.event()["name"].clone();
        let before = last.insert(webhook.channel().to_owned(), name.clone());
        assert_eq!(name, if before.is_none() { "channel_occupied" } else { "channel_vacated" }, "{}", webhook.body);
    }
    assert!(last.values().all(|name| name == "channel_vacated"), "{last:?}");
    server.expect_metric("fanfare_webhook_events_pending", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_endpoints_harm_nobody_but_themselves() {
    let hostile = [
        ("silence", Reply::Silence),
        ("a dripping head", Reply::DrippingHead),
        ("a dripping body", Reply::DrippingBody),
        ("an endless body", Reply::EndlessBody),
        ("a huge body", Reply::HugeBody),
        ("no answer", Reply::HangUp),
        ("garbage", Reply::Raw(vec![0xff; 100_000])),
        ("a head without end", Reply::Raw([&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; 1_000_000]].concat())),
        ("endless interim answers", Reply::Raw(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000))),
    ];
    let (mut enemies, mut good) = (Vec::new(), Backend::start().await);
    for (_, reply) in &hostile {
        let enemy = Backend::start().await;
        enemy.answer(reply.clone());
        enemies.push(enemy);
    }
    let mut server = TestServer::with_webhooks(&good, |config| {
        config.webhooks.concurrency = 4;
        config.webhooks.timeout = Duration::from_millis(500);
        let webhooks = enemies.iter().map(|enemy| WebhookConfig::new(enemy.url()));
        config.apps[0].webhooks.extend(webhooks);
    })
    .await;
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    let mut slowest = Duration::ZERO;
    for n in 0..50 {
        let start = Instant::now();
        let channel = format!("room-{n}");
        one.subscribe(&channel).await;
        two.subscribe(&channel).await;
        server.api().await.trigger(&channel, "greet", "1").await;
        two.expect_event(&channel, "greet", "1").await;
        one.expect_event(&channel, "greet", "1").await;
        good.expect(occupied(&channel)).await;
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    for ((what, _), enemy) in hostile.iter().zip(&mut enemies) {
        let webhook = enemy.next().await;
        assert_eq!(*webhook.event(), occupied(webhook.channel()), "{what}");
    }
    // They do not keep the server from stopping, either.
    drop((one, two));
    let asked = Instant::now();
    server.stop();
    server.stopped_within(3 * DEADLINE).await;
    assert!(asked.elapsed() < Duration::from_secs(8), "took {:?}", asked.elapsed());
}
