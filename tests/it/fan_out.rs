//! One event, many connections: all of them get it, in one order.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::support::{DEADLINE, TestServer};

/// A client and the server's side of it are two open files, and other tests run at the same time.
fn raise_file_limit() {
    let limit = rlimit::increase_nofile_limit(8192).unwrap();
    assert!(limit >= 4096, "this test needs 4,096 open files, and {limit} are allowed: ulimit -n 4096");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_get_fifty_events_a_second_without_loss_and_in_order() {
    const CONNECTIONS: usize = 1000;
    const EVENTS: usize = 100;
    raise_file_limit();
    let server = TestServer::start().await;
    let mut readers = JoinSet::new();
    for n in 0..CONNECTIONS {
        let mut client = server.connect().await;
        client.label(&format!("connection {n}"));
        client.subscribe("room").await;
        readers.spawn(async move {
            for expected in 0..EVENTS {
                let data = client.expect_on("room", "tick").await.data();
                if data["n"] != expected {
                    client.fail(&format!("expected {expected}"));
                }
            }
            client.expect_silence().await;
        });
    }
    let mut api = server.api().await;
    // With several nodes, the count follows the subscriptions after a moment.
    let counted =
        async { while api.channel("room", "subscription_count").await["subscription_count"] != CONNECTIONS {} };
    timeout(DEADLINE, counted).await.expect("all are counted");
    let mut pace = interval(Duration::from_millis(20));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0..EVENTS {
        pace.tick().await;
        api.trigger("room", "tick", &json!({ "n": n, "padding": "x".repeat(200) }).to_string()).await;
    }
    readers.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_subscribers_see_the_events_of_many_publishers_in_the_same_order() {
    let server = TestServer::with_app(|app| {
        app.client_events = true;
        app.limits.client_events_per_second = 1000;
    })
    .await;
    const PUBLISHERS: usize = 8;
    const EVENTS: usize = 50;
    let mut readers = JoinSet::new();
    for _ in 0..20 {
        let mut client = server.connect().await;
        client.subscribe_private("private-room").await;
        readers.spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 2 * PUBLISHERS * EVENTS {
                seen.push(client.next().await.text().to_owned());
            }
            client.expect_silence().await;
            seen
        });
    }
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let mut api = server.api().await;
        let mut sender = server.connect().await;
        publishers.spawn(async move {
            for n in 0..EVENTS {
                api.trigger("private-room", "tick", &format!("api {publisher} {n}")).await;
            }
        });
        // Subscribed, but its own reader of nothing: it must not be slow enough to be closed.
        publishers.spawn(async move {
            sender.subscribe_private("private-room").await;
            let mut sent = 0;
            for n in 0..EVENTS {
                let data = json!(format!("client {publisher} {n}"));
                sender.send_event("private-room", "client-tick", data).await;
                sent += 1;
            }
            assert_eq!(sent, EVENTS);
            sender.send(json!({ "event": "pusher:ping" })).await;
            while sender.next().await.event() != "pusher:pong" {}
        });
    }
    publishers.join_all().await;
    let seen = readers.join_all().await;
    for other in &seen[1..] {
        assert_eq!(*other, seen[0]);
    }
    // Each publisher's own order is kept within it.
    for publisher in 0..PUBLISHERS {
        for kind in ["api", "client"] {
            let prefix = format!("{kind} {publisher} ");
            let own: Vec<_> = seen[0].iter().filter_map(|data| data.strip_prefix(&prefix)).collect();
            assert_eq!(own, (0..EVENTS).map(|n| n.to_string()).collect::<Vec<_>>(), "{prefix}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_and_goes_during_a_flood_misses_and_repeats_nothing_in_between() {
    const CLIENTS: usize = 60;
    const VISITS: usize = 5;
    const EVENTS: usize = 30;
    let server = TestServer::start().await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let mut client = server.connect().await;
        clients.spawn(async move {
            for _ in 0..VISITS {
                client.subscribe("room").await;
                let mut last = None;
                let mut heard = 0;
                loop {
                    let message = client.next().await;
                    if message.event() == "pusher:pong" {
                        break;
                    }
                    let number = message.data()["n"].as_u64().unwrap();
                    if last.is_some_and(|last| number != last + 1) {
                        client.fail(&format!("expected the event after {last:?}"));
                    }
                    last = Some(number);
                    heard += 1;
                    if heard == EVENTS {
                        client.unsubscribe("room").await;
                        client.send(json!({ "event": "pusher:ping", "data": {} })).await;
                    }
                }
            }
        });
    }
    let mut api = server.api().await;
    let mut number = 0..;
    let mut flood = async || {
        let event = |n: u64| json!({ "name": "tick", "channel": "room", "data": json!({ "n": n }).to_string() });
        let batch: Vec<_> = number.by_ref().take(10).map(event).collect();
        api.post("/batch_events", &json!({ "batch": batch })).await.ok();
    };
    while !clients.is_empty() {
        flood().await;
        while let Some(result) = clients.try_join_next() {
            result.unwrap();
        }
    }
}
