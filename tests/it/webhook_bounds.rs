//! What webhooks may take, what an operator sees of them, and what keeps them from starting.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use fanfare::config::WebhookConfig;
use serde_json::{Value, json};

use crate::support::{Backend, DEADLINE, Reply, TempDir, TestServer};

fn occupied(channel: &str) -> Value {
    json!({ "name": "channel_occupied", "channel": channel })
}

#[tokio::test]
async fn at_the_bound_the_oldest_events_go_and_are_counted() {
    const EVENTS: usize = 600;
    let mut backend = Backend::start().await;
    backend.answer(Reply::Status(500));
    let server = TestServer::with_webhooks(&backend, |config| {
        config.webhooks.concurrency = 8;
        config.webhooks.max_pending = 64 * 1024;
    })
    .await;
    let mut client = server.connect().await;
    // All of them have been tried when the bound is reached: those that wait for another try are old, too.
    for n in 0..EVENTS {
        client.subscribe(&format!("room-{n}")).await;
        if n < EVENTS / 2 {
            while backend.next().await.channel() != format!("room-{n}") {}
        }
    }
    server.expect_metric("fanfare_webhook_events_total", u32::try_from(EVENTS).unwrap()).await;
    backend.answer(Reply::Status(200));
    client.subscribe("marker").await;
    let mut arrived = HashSet::new();
    let mut pending = server.metric("fanfare_webhook_events_pending").await;
    while pending > 0.0 {
        arrived.insert(backend.next().await.channel().to_owned());
        pending = server.metric("fanfare_webhook_events_pending").await;
    }
    let delivered = server.metric("fanfare_webhooks_delivered_total").await;
    let dropped = server.metric("fanfare_webhook_events_dropped_total").await;
    assert!((delivered + dropped - (EVENTS + 1) as f64).abs() < f64::EPSILON, "{delivered} and {dropped}");
    assert!((150.0..300.0).contains(&delivered), "{delivered} events of about 260 bytes in 64 KiB");
    server.connect().await.subscribe("last").await;
    loop {
        let webhook = backend.next().await;
        if *webhook.event() == occupied("last") {
            break;
        }
        arrived.insert(webhook.channel().to_owned());
    }
    for n in EVENTS - 150..EVENTS {
        assert!(arrived.contains(&format!("room-{n}")), "room-{n} is lost, and not the oldest");
    }
}

/// A backend that takes 50 ms for a request.
fn slow(backend: &Backend) {
    backend.answer(Reply::After(Duration::from_millis(50)));
}

/// What became of all events: the sum is what came about.
async fn accounts(server: &TestServer) -> [f64; 5] {
    let names = ["events_total", "events_dropped_total", "events_collapsed_total", "events_pending"];
    let mut counts = [0.0; 5];
    for (count, name) in counts.iter_mut().zip(names) {
        *count = server.metric(&format!("fanfare_webhook_{name}")).await;
    }
    counts[4] = server.metric("fanfare_webhooks_delivered_total").await;
    counts
}

#[tokio::test]
async fn one_client_that_floods_public_channels_loses_its_own_events_and_no_member_is_missed() {
    const MEMBERS: usize = 60;
    let mut backend = Backend::start().await;
    slow(&backend);
    let server = TestServer::with_webhooks(&backend, |config| {
        config.webhooks.max_pending = 64 * 1024;
        config.apps[0].limits.channels_per_connection = 0;
        config.apps[0].limits.messages_per_second = 0;
    })
    .await;
    let mut flood = server.connect().await;
    let flooding = tokio::spawn(async move {
        for n in 0..3000 {
            let channel = format!("cache-{n}");
            flood.subscribe(&channel).await;
            flood.expect_on(&channel, "pusher:cache_miss").await;
            if n % 2 == 0 {
                flood.leave(&channel).await;
            }
        }
        flood
    });
    let mut members = Vec::new();
    for n in 0..MEMBERS {
        members.push(server.join("presence-room", &n.to_string()).await);
    }
    let mut heard = Vec::new();
    while heard.len() < MEMBERS {
        let webhook = backend.next().await;
        if webhook.event()["name"] == "member_added" {
            heard.push(webhook.event()["user_id"].as_str().unwrap().parse::<usize>().unwrap());
        }
    }
    // None is missed, all in order, and long before the flood is told.
    assert_eq!(heard, (0..MEMBERS).collect::<Vec<_>>());
    for member in members.drain(..MEMBERS / 2) {
        member.disconnect().await;
    }
    let mut gone = HashSet::new();
    while gone.len() < MEMBERS / 2 {
        let webhook = backend.next_within(2 * DEADLINE).await;
        if webhook.event()["name"] == "member_removed" {
            gone.insert(webhook.event()["user_id"].as_str().unwrap().parse::<usize>().unwrap());
        }
    }
    assert_eq!(gone, (0..MEMBERS / 2).collect());
    let flood = flooding.await.unwrap();
    backend.answer(Reply::Status(200));
    loop {
        let [events, dropped, collapsed, pending, delivered] = accounts(&server).await;
        if pending == 0.0 && (delivered + dropped + collapsed - events).abs() < f64::EPSILON {
            assert!(dropped > 1000.0, "{dropped} dropped");
            break;
        }
        backend.next().await;
    }
    drop((flood, members));
}

#[tokio::test]
async fn one_address_that_floods_with_one_connection_after_the_other_loses_its_own_events() {
    const HONEST: usize = 20;
    let mut backend = Backend::start().await;
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    backend.answer(Reply::Held(permits.clone()));
    let server = TestServer::with_webhooks(&backend, |config| {
        config.server.trust_forwarded_headers = true;
        config.server.new_connections_per_address = 0;
        config.webhooks.max_pending = 32 * 1024;
    })
    .await;
    // A client that has caused a few events, and very many that have caused one each.
    let mut honest = server.dial().header("X-Forwarded-For", "203.0.113.1").connect().await;
    for n in 0..HONEST {
        honest.subscribe(&format!("honest-{n}")).await;
    }
    let mut flood = Vec::new();
    for n in 0..400 {
        let mut client = server.dial().header("X-Forwarded-For", &format!("2001:db8::{n:x}")).connect().await;
        client.subscribe(&format!("flood-{n}")).await;
        flood.push(client);
    }
    server.expect_metric("fanfare_webhook_events_total", 400 + HONEST as u32).await;
    assert!(server.metric("fanfare_webhook_events_dropped_total").await > 200.0);
    permits.add_permits(1000);
    let mut heard = HashSet::new();
    while heard.len() < HONEST {
        let channel = backend.next().await.channel().to_owned();
        if channel.starts_with("honest-") {
            heard.insert(channel);
        }
    }
}

#[tokio::test]
async fn what_ends_before_it_is_told_is_not_told_and_counted() {
    let mut backend = Backend::start().await;
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    backend.answer(Reply::Held(permits.clone()));
    let server = TestServer::with_webhooks(&backend, |config| {
        config.webhooks.concurrency = 1;
        config.webhooks.max_pending = 64 * 1024;
        config.webhooks.timeout = Duration::from_secs(30);
        config.apps[0].webhook_delay = Duration::ZERO;
    })
    .await;
    let mut client = server.connect().await;
    client.subscribe("first").await;
    backend.expect(occupied("first")).await;
    // As long as little waits, everything is told.
    client.subscribe("early").await;
    client.leave("early").await;
    for n in 0..20 {
        client.subscribe(&format!("other-{n}")).await;
    }
    server.expect_metric("fanfare_webhook_events_pending", 23).await;
    for _ in 0..20 {
        client.subscribe("room").await;
        client.leave("room").await;
    }
    client.subscribe("last").await;
    server.expect_metric("fanfare_webhook_events_collapsed_total", 40).await;
    server.expect_metric("fanfare_webhook_events_pending", 24).await;
    permits.add_permits(100);
    backend.expect_all([occupied("early"), json!({ "name": "channel_vacated", "channel": "early" })]).await;
    for n in 0..20 {
        backend.expect(occupied(&format!("other-{n}"))).await;
    }
    backend.expect(occupied("last")).await;
    server.expect_metric("fanfare_webhook_events_pending", 0).await;
    server.expect_metric("fanfare_webhooks_delivered_total", 24).await;
    server.expect_metric("fanfare_webhook_events_dropped_total", 0).await;
}

#[tokio::test]
async fn after_a_restart_the_bound_is_as_fair() {
    const ROOMS: usize = 300;
    let (directory, mut backend) = (TempDir::new(), Backend::start().await);
    backend.answer(Reply::Status(503));
    let start = |max_pending: usize| {
        let path = directory.path().to_owned();
        TestServer::with_webhooks(&backend, move |config| {
            config.webhooks.data_dir = Some(path);
            config.webhooks.max_pending = max_pending;
            config.webhooks.restart_grace = Duration::from_secs(60);
            config.apps[0].limits.channels_per_connection = 0;
        })
    };
    let mut server = start(1 << 20).await;
    let honest = server.join("presence-room", "7").await;
    let mut quiet = server.connect().await;
    quiet.subscribe("quiet").await;
    let mut flood = server.connect().await;
    for n in 0..ROOMS {
        flood.subscribe(&format!("room-{n}")).await;
    }
    server.expect_metric("fanfare_webhook_events_pending", u32::try_from(ROOMS + 3).unwrap()).await;
    server.stop();
    server.stopped_within(3 * DEADLINE).await;
    drop((honest, quiet, flood));
    let server = start(32 * 1024).await;
    backend.forget();
    backend.answer(Reply::Status(200));
    let (mut told, mut pending) = (HashSet::new(), 1.0);
    while pending > 0.0 {
        told.insert(backend.next().await.event().to_string());
        pending = server.metric("fanfare_webhook_events_pending").await;
    }
    backend.forget();
    let member = json!({ "name": "member_added", "channel": "presence-room", "user_id": "7" });
    for event in [occupied("presence-room"), member, occupied("quiet")] {
        assert!(told.contains(&event.to_string()), "{event} is lost: {told:?}");
    }
}

#[tokio::test]
async fn of_dead_letters_the_newest_are_kept() {
    let mut backend = Backend::start().await;
    backend.answer(Reply::Status(500));
    let server = TestServer::with_webhooks(&backend, |config| {
        config.webhooks.retry_period = Duration::ZERO;
        config.webhooks.max_dead = 3000;
    })
    .await;
    let mut client = server.connect().await;
    let mut ids = Vec::new();
    for n in 0..40 {
        let channel = format!("room-{n}");
        client.subscribe(&channel).await;
        ids.push(backend.expect(occupied(&channel)).await.id().to_owned());
    }
    server.expect_metric("fanfare_webhooks_dead_total", 40).await;
    let kept = loop {
        let listing = server.webhooks().await["deliveries"].clone();
        let kept: Vec<_> = listing.as_array().unwrap().iter().map(|letter| letter["id"].clone()).collect();
        if kept.first().is_some_and(|id| *id == *ids.last().unwrap()) {
            break kept;
        }
    };
    assert!((3..20).contains(&kept.len()), "{} letters in 3000 bytes", kept.len());
    let newest: Vec<_> = ids.iter().rev().take(kept.len()).map(|id| Value::from(id.as_str())).collect();
    assert_eq!(kept, newest);
    server.expect_metric("fanfare_webhook_events_dropped_total", u32::try_from(40 - kept.len()).unwrap()).await;
}

#[tokio::test]
async fn dead_letters_need_not_be_kept() {
    let mut backend = Backend::start().await;
    backend.answer(Reply::Status(500));
    let server = TestServer::with_webhooks(&backend, |config| {
        config.webhooks.retry_period = Duration::ZERO;
        config.webhooks.max_dead = 0;
    })
    .await;
    server.connect().await.subscribe("room").await;
    backend.expect(occupied("room")).await;
    server.expect_metric("fanfare_webhook_events_dropped_total", 1).await;
    assert_eq!(server.webhooks().await["deliveries"], json!([]));
}

#[tokio::test]
async fn every_metric_goes_up_and_what_waits_goes_back_to_zero() {
    let backend = Backend::start().await;
    let other = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, |config| {
        config.webhooks.retry_period = Duration::from_secs(1);
        config.apps[0].webhooks.push(WebhookConfig::new(other.url()));
    })
    .await;
    let names = ["events", "s_delivered", "s_failed", "s_dead", "_events_dropped", "_store_errors"];
    let names = names.map(|name| match name.strip_prefix("events") {
        Some(_) => "fanfare_webhook_events_total".to_owned(),
        None => format!("fanfare_webhook{name}_total"),
    });
    for name in &names {
        server.expect_metric(name, 0).await;
    }
    let mut client = server.connect().await;
    client.subscribe("good").await;
    server.expect_metric("fanfare_webhook_events_total", 2).await;
    server.expect_metric("fanfare_webhooks_delivered_total", 2).await;
    server.expect_metric("fanfare_webhook_events_pending", 0).await;
    other.answer(Reply::Status(500));
    client.subscribe("bad").await;
    server.expect_metric("fanfare_webhooks_delivered_total", 3).await;
    server.expect_metric("fanfare_webhook_events_pending", 1).await;
    server.expect_metric("fanfare_webhooks_dead_total", 1).await;
    server.expect_metric("fanfare_webhook_events_pending", 0).await;
    server.expect_metric("fanfare_webhook_events_total", 4).await;
    assert!(server.metric("fanfare_webhooks_failed_total").await >= 2.0);
    server.expect_metric("fanfare_webhook_events_dropped_total", 0).await;
    server.expect_metric("fanfare_webhook_store_errors_total", 0).await;
}

async fn start_error(directory: &Path, backend: &Backend) -> String {
    let started = TestServer::try_with(|config| {
        config.webhooks.data_dir = Some(directory.to_owned());
        config.apps[0].webhooks = vec![WebhookConfig::new(backend.url())];
    });
    started.await.err().expect("it starts").to_string()
}

#[tokio::test]
async fn a_directory_belongs_to_one_server_at_a_time() {
    let (directory, backend) = (TempDir::new(), Backend::start().await);
    let start =
        || TestServer::with_webhooks(&backend, |config| config.webhooks.data_dir = Some(directory.path().to_owned()));
    let mut server = start().await;
    let error = start_error(directory.path(), &backend).await;
    assert_eq!(error, format!("webhooks.data_dir: {}: is in use by another process", directory.path().display()));
    server.stop();
    server.stopped_within(2 * DEADLINE).await;
    drop(start().await);
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named_with_the_reason() {
    let (directory, backend) = (TempDir::new(), Backend::start().await);
    let file = directory.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = start_error(&path, &backend).await;
        let expected = format!("webhooks.data_dir: {}: cannot be made: ", path.display());
        assert!(error.starts_with(&expected), "{error}");
    }
    let foreign = directory.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("webhooks.redb"), "not a database, but somebody's only copy").unwrap();
    let error = start_error(&foreign, &backend).await;
    let expected = format!("webhooks.data_dir: {}: webhooks.redb cannot be opened: ", foreign.display());
    assert!(error.starts_with(&expected), "{error}");
    let kept = std::fs::read_to_string(foreign.join("webhooks.redb")).unwrap();
    assert_eq!(kept, "not a database, but somebody's only copy");
}

#[tokio::test]
async fn without_endpoints_nothing_is_made_on_disk() {
    let directory = TempDir::new();
    let data_dir = directory.path().join("data");
    let mut server = TestServer::with(|config| config.webhooks.data_dir = Some(data_dir.clone())).await;
    let client = server.join("presence-room", "7").await;
    client.disconnect().await;
    assert_eq!(server.webhooks().await, json!({ "endpoints": [], "deliveries": [] }));
    server.stop();
    server.stopped().await;
    assert!(!data_dir.exists());
}
