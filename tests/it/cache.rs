//! Protocol §2.7: channels that remember their last event.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{Api, DEADLINE, TestServer, within};

const MISS: &str = "pusher:cache_miss";

#[tokio::test]
async fn an_empty_cache_is_a_miss_right_after_the_success() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for channel in ["cache-room", "private-cache-room", "private-encrypted-cache-room"] {
        client.subscribe_private(channel).await;
        client.expect_json(json!({ "event": MISS, "channel": channel, "data": "{}" })).await;
    }
    client.join("presence-cache-room", "7").await;
    client.expect_json(json!({ "event": MISS, "channel": "presence-cache-room", "data": "{}" })).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn the_last_event_is_replayed_right_after_the_success() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    // Nobody is subscribed to any of them.
    for channel in ["cache-room", "private-cache-room", "presence-cache-room", "private-encrypted-cache-room"] {
        api.trigger(channel, "first", "1").await;
        api.trigger(channel, "second", " {\"any\": \"text ü\"} ").await;
        let mut client = server.connect().await;
        client.label(channel);
        if channel.starts_with("presence-") {
            client.join(channel, "7").await;
        } else {
            client.subscribe_private(channel).await;
        }
        client.expect_event(channel, "second", " {\"any\": \"text ü\"} ").await;
        client.expect_silence().await;
        // Live ones follow.
        api.trigger(channel, "third", "3").await;
        client.expect_event(channel, "third", "3").await;
    }
}

#[tokio::test]
async fn other_channels_remember_nothing() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    for channel in ["room", "private-room", "nocache-x", "private-cached"] {
        api.trigger(channel, "greet", "1").await;
        let mut client = server.connect().await;
        client.subscribe_private(channel).await;
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn the_cache_outlives_the_last_subscriber() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let mut client = server.connect().await;
    client.subscribe("cache-room").await;
    client.expect_on("cache-room", MISS).await;
    api.trigger("cache-room", "greet", "1").await;
    client.expect_event("cache-room", "greet", "1").await;
    client.leave("cache-room").await;
    api.expect_channel("cache-room", "", json!({ "occupied": false })).await;
    client.subscribe("cache-room").await;
    client.expect_event("cache-room", "greet", "1").await;
    client.disconnect().await;
    let mut next = server.connect().await;
    next.subscribe("cache-room").await;
    next.expect_event("cache-room", "greet", "1").await;
}

#[tokio::test]
async fn an_event_that_excludes_its_sender_is_cached_too() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let mut sender = server.connect().await;
    sender.subscribe("cache-room").await;
    sender.expect_on("cache-room", MISS).await;
    api.trigger_except("cache-room", "greet", "1", &sender.socket_id).await;
    sender.expect_silence().await;
    // Another node may learn of it some milliseconds later.
    loop {
        let mut other = server.connect().await;
        other.subscribe("cache-room").await;
        let shown = other.next().await;
        if shown.event() != MISS {
            assert_eq!((shown.event(), shown.json["data"].as_str()), ("greet", Some("1")));
            break;
        }
    }
}

#[tokio::test]
async fn client_events_and_presence_events_are_not_cached() {
    let server = TestServer::with_app(|app| {
        app.client_events = true;
        app.subscription_counts = true;
    })
    .await;
    let channel = "presence-cache-room";
    let mut ann = server.join(channel, "ann").await;
    ann.expect_on(channel, MISS).await;
    let mut bob = server.join(channel, "bob").await;
    bob.expect_on(channel, MISS).await;
    ann.expect_on(channel, "pusher_internal:member_added").await;
    ann.send_event(channel, "client-a", json!({})).await;
    bob.expect_on(channel, "client-a").await;
    bob.leave(channel).await;
    let mut carl = server.join(channel, "carl").await;
    carl.expect_on(channel, MISS).await;
    // Nor do they push out what is cached.
    server.api().await.trigger(channel, "greet", "1").await;
    ann.expect_on(channel, "pusher_internal:member_removed").await;
    ann.expect_on(channel, "pusher_internal:member_added").await;
    ann.expect_event(channel, "greet", "1").await;
    ann.send_event(channel, "client-b", json!({})).await;
    ann.settle().await;
    bob.join(channel, "bob").await;
    bob.expect_event(channel, "greet", "1").await;
}

#[tokio::test]
async fn an_event_is_forgotten_after_its_lifetime() {
    let server = TestServer::with_app(|app| app.limits.cache_ttl = Duration::from_secs(1)).await;
    let mut api = server.api().await;
    let published = Instant::now();
    api.trigger("cache-room", "greet", "1").await;
    let mut client = server.connect().await;
    client.subscribe("cache-room").await;
    client.expect_event("cache-room", "greet", "1").await;
    loop {
        let info = api.channel("cache-room", "cache").await;
        if info["cache"].is_null() {
            break;
        }
        assert_eq!(info["cache"]["data"], "1");
        assert!(published.elapsed() < DEADLINE, "never forgotten: {info}");
    }
    assert!(published.elapsed() >= Duration::from_millis(900), "forgotten after {:?}", published.elapsed());
    // Another node may learn of it some milliseconds later.
    loop {
        client.leave("cache-room").await;
        client.subscribe("cache-room").await;
        let shown = client.next().await;
        if shown.event() == MISS {
            break;
        }
        assert_eq!(shown.event(), "greet");
        assert!(published.elapsed() < DEADLINE, "never forgotten");
    }
}

#[tokio::test]
async fn the_api_shows_what_is_cached() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    assert_eq!(api.channel("cache-room", "cache").await, json!({ "occupied": false, "cache": null }));
    api.trigger("cache-room", "greet", "{\"a\":1}").await;
    let info = api.channel("cache-room", "cache").await;
    assert_eq!(info["occupied"], false);
    assert_eq!(info["cache"]["data"], "{\"a\":1}");
    let ttl = info["cache"]["ttl"].as_u64().expect("an integer");
    assert!((1790..=1800).contains(&ttl), "30 minutes by default, not {ttl}");
}

#[tokio::test]
async fn the_last_event_of_a_batch_is_cached() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let batch: Vec<Value> =
        (0..10).map(|n| json!({ "name": "tick", "channel": "cache-room", "data": n.to_string() })).collect();
    api.post("/batch_events", &json!({ "batch": batch })).await.ok();
    let mut client = server.connect().await;
    client.subscribe("cache-room").await;
    client.expect_event("cache-room", "tick", "9").await;
    client.expect_silence().await;
}

#[tokio::test]
async fn each_app_has_its_own_cache() {
    let server = TestServer::with(|config| {
        config.apps.push(fanfare::config::AppConfig::new("43", "other-key", "other-secret"));
    })
    .await;
    server.api().await.trigger("cache-room", "greet", "1").await;
    let mut other = server.dial().path("/app/other-key").connect().await;
    other.subscribe("cache-room").await;
    other.expect_on("cache-room", MISS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_event_published_around_a_subscription_arrives_exactly_once() {
    const EVENTS: u64 = 400;
    let server = TestServer::start().await;
    let (progress, published) = watch::channel(0_u64);
    let mut readers = JoinSet::new();
    for reader in 0..40 {
        let dial = server.dial();
        let mut published = published.clone();
        readers.spawn(async move {
            let mut client = dial.connect().await;
            client.label(&format!("reader {reader}"));
            // Spread over the whole time of the publishing.
            published.wait_for(|count| *count >= reader * EVENTS / 40).await.unwrap();
            client.subscribe("cache-room").await;
            let first = client.next().await;
            let mut expected = match first.event() {
                MISS => 0,
                _ => first.text().parse::<u64>().unwrap() + 1,
            };
            while expected < EVENTS {
                let message = client.expect_on("cache-room", "tick").await;
                if message.text() != expected.to_string() {
                    client.fail(&format!("expected {expected}"));
                }
                expected += 1;
            }
            client.expect_silence().await;
        });
    }
    let mut api = server.api().await;
    for n in 0..EVENTS {
        api.trigger("cache-room", "tick", &n.to_string()).await;
        progress.send_replace(n + 1);
    }
    readers.join_all().await;
}

/// An event that takes about 10 KiB with all that belongs to it.
async fn keep(api: &mut Api, channel: &str) {
    api.trigger(channel, "greet", &"x".repeat(5000)).await;
}

async fn is_kept(api: &mut Api, channel: &str) -> bool {
    !api.channel(channel, "cache").await["cache"].is_null()
}

#[tokio::test]
async fn the_oldest_events_go_when_all_together_are_too_large() {
    let server = TestServer::with_app(|app| app.limits.cache_size = 64 * 1024).await;
    let mut api = server.api().await;
    for number in 0..5 {
        keep(&mut api, &format!("cache-{number}")).await;
    }
    server.expect_metric("fanfare_cached_events_evicted_total", 0).await;
    // The first one is younger now than the others.
    keep(&mut api, "cache-0").await;
    for number in 5..8 {
        keep(&mut api, &format!("cache-{number}")).await;
    }
    let mut kept = Vec::new();
    for number in 0..8 {
        kept.push(is_kept(&mut api, &format!("cache-{number}")).await);
    }
    assert_eq!(kept, [true, false, false, true, true, true, true, true]);
    server.expect_metric("fanfare_cached_events_evicted_total", 2).await;
    assert!(server.metric("fanfare_cached_bytes").await <= 64.0 * 1024.0);
    // Newcomers find what is true.
    let mut client = server.connect().await;
    client.subscribe("cache-1").await;
    client.expect_on("cache-1", MISS).await;
    client.subscribe("cache-7").await;
    client.expect_event("cache-7", "greet", &"x".repeat(5000)).await;
}

#[tokio::test]
async fn what_has_expired_takes_no_room_from_what_has_not() {
    let server = TestServer::with_app(|app| {
        app.limits.cache_size = 64 * 1024;
        app.limits.cache_ttl = Duration::from_secs(1);
    })
    .await;
    let mut api = server.api().await;
    for round in 0..3 {
        for number in 0..5 {
            keep(&mut api, &format!("cache-{round}-{number}")).await;
        }
        let start = Instant::now();
        while is_kept(&mut api, &format!("cache-{round}-4")).await {
            assert!(start.elapsed() < DEADLINE, "it does not expire");
        }
    }
    server.expect_metric("fanfare_cached_events_evicted_total", 0).await;
    server.expect_metric("fanfare_cached_bytes", 0).await;
}

#[tokio::test]
async fn an_event_that_is_larger_than_the_cache_is_delivered_and_not_kept() {
    let server = TestServer::with_app(|app| {
        app.limits.cache_size = 64 * 1024;
        app.limits.event_data = 100_000;
    })
    .await;
    let mut api = server.api().await;
    let mut client = server.connect().await;
    client.subscribe("cache-room").await;
    client.expect_on("cache-room", MISS).await;
    let data = "x".repeat(70_000);
    api.trigger("cache-room", "greet", &data).await;
    client.expect_event("cache-room", "greet", &data).await;
    assert!(!is_kept(&mut api, "cache-room").await);
    // In a cluster, Redis and the node of the client each have a copy that has to go.
    let counted = async { while server.metric("fanfare_cached_events_evicted_total").await < 1.0 {} };
    within("count of an event that was not kept", counted).await;
}
