//! Protocol §2.11: how many subscribe.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Client, TestServer};

async fn server() -> TestServer {
    TestServer::with_app(|app| app.subscription_counts = true).await
}

async fn expect_count(client: &mut Client, channel: &str, count: u64) {
    let data = json!({ "subscription_count": count }).to_string();
    client
        .expect_json(json!({ "event": "pusher_internal:subscription_count", "channel": channel, "data": data }))
        .await;
}

#[tokio::test]
async fn every_subscriber_hears_every_count() {
    let server = server().await;
    for channel in ["room", "private-room", "private-encrypted-room"] {
        let mut one = server.connect().await;
        one.subscribe_private(channel).await;
        expect_count(&mut one, channel, 1).await;
        let mut two = server.connect().await;
        two.subscribe_private(channel).await;
        expect_count(&mut two, channel, 2).await;
        expect_count(&mut one, channel, 2).await;
        two.leave(channel).await;
        expect_count(&mut one, channel, 1).await;
        two.subscribe_private(channel).await;
        expect_count(&mut two, channel, 2).await;
        expect_count(&mut one, channel, 2).await;
        two.disconnect().await;
        expect_count(&mut one, channel, 1).await;
        one.expect_silence().await;
    }
}

#[tokio::test]
async fn connections_are_counted_not_users() {
    let server = server().await;
    let mut one = server.sign_in("7").await;
    one.subscribe("room").await;
    expect_count(&mut one, "room", 1).await;
    let mut two = server.sign_in("7").await;
    two.subscribe("room").await;
    expect_count(&mut two, "room", 2).await;
}

#[tokio::test]
async fn on_a_cache_channel_the_count_comes_after_the_cached_event() {
    let server = server().await;
    let mut one = server.connect().await;
    one.subscribe("cache-room").await;
    one.expect_on("cache-room", "pusher:cache_miss").await;
    expect_count(&mut one, "cache-room", 1).await;
    server.api().await.trigger("cache-room", "greet", "1").await;
    one.expect_event("cache-room", "greet", "1").await;
    let mut two = server.connect().await;
    two.subscribe("cache-room").await;
    two.expect_event("cache-room", "greet", "1").await;
    expect_count(&mut two, "cache-room", 2).await;
    expect_count(&mut one, "cache-room", 2).await;
    one.expect_silence().await;
}

#[tokio::test]
async fn presence_channels_and_channels_of_users_have_no_counts() {
    let server = server().await;
    let mut one = server.join("presence-room", "7").await;
    let _two = server.join("presence-room", "8").await;
    one.expect("pusher_internal:member_added").await;
    one.sign_in("7").await;
    one.subscribe("#server-to-user-7").await;
    one.expect_silence().await;
}

#[tokio::test]
async fn counts_are_off_by_default() {
    let server = TestServer::start().await;
    let mut one = server.connect().await;
    one.subscribe("room").await;
    one.expect_silence().await;
}

#[tokio::test]
async fn what_was_refused_changes_no_count() {
    let server = server().await;
    let mut one = server.connect().await;
    one.subscribe("room").await;
    expect_count(&mut one, "room", 1).await;
    one.send(one.subscription("room")).await;
    one.expect_error("Existing subscription to channel room").await;
    one.unsubscribe("other").await;
    one.expect_some_error().await;
    let mut two = server.connect().await;
    two.unsubscribe("room").await;
    two.expect_some_error().await;
    two.settle().await;
    one.expect_silence().await;
}

#[tokio::test]
async fn above_the_threshold_counts_come_once_per_interval_and_end_with_the_truth() {
    const INTERVAL: Duration = Duration::from_secs(1);
    let server = TestServer::with_app(|app| {
        app.subscription_counts = true;
        app.limits.subscription_count_threshold = 3;
        app.limits.subscription_count_interval = INTERVAL;
    })
    .await;
    let mut observer = server.connect().await;
    observer.subscribe("room").await;
    expect_count(&mut observer, "room", 1).await;
    let mut others = Vec::new();
    for count in 2..=3 {
        let mut client = server.connect().await;
        client.subscribe("room").await;
        others.push(client);
        expect_count(&mut observer, "room", count).await;
    }
    let started = Instant::now();
    for _ in 4..=40 {
        let mut client = server.connect().await;
        client.subscribe("room").await;
        others.push(client);
    }
    let mut messages = 0;
    let mut last = 3;
    while last != 40 {
        let message = observer.expect_on("room", "pusher_internal:subscription_count").await;
        let count = message.data()["subscription_count"].as_u64().unwrap();
        assert!(count > last, "{count} after {last}");
        last = count;
        messages += 1;
    }
    // One at once, one per interval that has passed.
    let allowed = 2 + started.elapsed().as_millis() / INTERVAL.as_millis();
    assert!(messages <= allowed, "{messages} counts in {:?}", started.elapsed());
    observer.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_rush_everybody_knows_the_same_count() {
    const CLIENTS: u64 = 40;
    let server = server().await;
    let mut joining = JoinSet::new();
    for _ in 0..CLIENTS {
        let dial = server.dial();
        joining.spawn(async move {
            let mut client = dial.connect().await;
            client.subscribe("room").await;
            client
        });
    }
    // All of them stay until the last has been asked.
    let mut clients = joining.join_all().await;
    for client in &mut clients {
        let mut last = 0;
        // `next` has a deadline.
        while last != CLIENTS {
            let message = client.next().await;
            match message.event() {
                "pusher_internal:subscription_count" => {
                    let count = message.data()["subscription_count"].as_u64().unwrap();
                    assert!(count > last, "{count} after {last}");
                    last = count;
                }
                other => panic!("{other}"),
            }
        }
        client.expect_silence().await;
    }
}
