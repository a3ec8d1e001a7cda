//! What the next process makes of what this one leaves behind.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use fanfare::Config;
use fanfare::config::WebhookEvent;
use serde_json::{Value, json};

use crate::support::{Backend, Client, DEADLINE, Http, Reply, TempDir, TestServer, Webhook, Wire};

const ROOM: &str = "presence-room";

fn occupied(channel: &str) -> Value {
    json!({ "name": "channel_occupied", "channel": channel })
}

fn vacated(channel: &str) -> Value {
    json!({ "name": "channel_vacated", "channel": channel })
}

fn member(name: &str, user_id: &str) -> Value {
    json!({ "name": name, "channel": ROOM, "user_id": user_id })
}

async fn start(directory: &Path, backend: &Backend, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with_webhooks(backend, |config| {
        config.webhooks.data_dir = Some(directory.join("made/on/demand"));
        config.webhooks.restart_grace = Duration::from_millis(200);
        change(config);
    })
    .await
}

/// Stops a server whose clients stay to the end.
async fn stop<const N: usize>(mut server: TestServer, clients: [Client; N]) {
    server.stop();
    for mut client in clients {
        client.expect_farewell().await;
    }
    server.stopped_within(3 * DEADLINE).await;
}

/// The first request with each id, until there are so many.
async fn deliveries(backend: &mut Backend, count: usize) -> HashMap<String, Webhook> {
    let mut first: HashMap<String, Webhook> = HashMap::new();
    while first.len() < count {
        let webhook = backend.next().await;
        match first.get(webhook.id()) {
            Some(before) => assert_eq!(before.body, webhook.body, "another body with the same id"),
            None => drop(first.insert(webhook.id().to_owned(), webhook)),
        }
    }
    first
}

#[tokio::test]
async fn what_was_not_delivered_is_delivered_by_the_next_process_with_the_same_ids_and_bodies() {
    for batch_size in [1, 3] {
        let (directory, mut backend) = (TempDir::new(), Backend::start().await);
        let change = |config: &mut Config| {
            config.apps[0].webhooks[0].batch_size = batch_size;
            config.apps[0].webhooks[0].batch_wait = Duration::from_millis(50);
        };
        backend.answer(Reply::Status(503));
        let server = start(directory.path(), &backend, change).await;
        let mut client = server.connect().await;
        let channels: Vec<_> = (0..7).map(|n| format!("room-{n}")).collect();
        for channel in &channels {
            client.subscribe(channel).await;
        }
        let before = deliveries(&mut backend, 7_usize.div_ceil(batch_size)).await;
        stop(server, [client]).await;
        backend.forget();

        let server = start(directory.path(), &backend, change).await;
        let mut after = deliveries(&mut backend, before.len()).await;
        backend.answer(Reply::Status(200));
        server.expect_metric("fanfare_webhooks_delivered_total", u32::try_from(before.len()).unwrap()).await;
        for (id, webhook) in &before {
            let again = after.remove(id).unwrap_or_else(|| panic!("{} is another delivery now", webhook.body));
            assert_eq!(again.body, webhook.body);
        }
        server.expect_metric("fanfare_webhook_events_pending", 0).await;
        stop(server, []).await;
    }
}

#[tokio::test]
async fn an_event_that_was_sent_alone_stays_alone() {
    let (directory, mut backend) = (TempDir::new(), Backend::start().await);
    let change = |config: &mut Config| {
        config.apps[0].webhooks[0].batch_size = 10;
        config.apps[0].webhooks[0].batch_wait = Duration::from_millis(50);
    };
    backend.answer(Reply::Status(503));
    let server = start(directory.path(), &backend, change).await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    let alone = backend.expect(occupied("a")).await;
    client.subscribe("b").await;
    let other = loop {
        let webhook = backend.next().await;
        if *webhook.event() == occupied("b") {
            break webhook;
        }
    };
    stop(server, [client]).await;
    backend.forget();
    // A backend that has seen the id may throw away whatever else comes with it.
    let server = start(directory.path(), &backend, change).await;
    let mut left = vec![alone, other];
    while !left.is_empty() {
        let webhook = backend.next().await;
        let known = left.iter().position(|known| known.id() == webhook.id());
        if let Some(known) = known {
            assert_eq!(left.remove(known).body, webhook.body);
        }
    }
    stop(server, []).await;
}

#[tokio::test]
async fn what_was_delivered_is_not_delivered_again() {
    let (directory, mut backend) = (TempDir::new(), Backend::start().await);
    let server = start(directory.path(), &backend, |_| {}).await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    let before = backend.expect(occupied("room")).await;
    server.expect_metric("fanfare_webhook_events_pending", 0).await;
    stop(server, [client]).await;
    let server = start(directory.path(), &backend, |_| {}).await;
    // Nobody came back.
    let after = backend.expect(vacated("room")).await;
    assert_ne!(after.id(), before.id());
    stop(server, []).await;
}

#[tokio::test]
async fn who_does_not_come_back_after_a_restart_is_gone_and_who_does_was_never_away() {
    let (directory, mut backend) = (TempDir::new(), Backend::start().await);
    let change = |config: &mut Config| {
        config.webhooks.restart_grace = Duration::from_secs(2);
        let events = &mut config.apps[0].webhooks[0].events;
        events.extend([WebhookEvent::UserOnline, WebhookEvent::UserOffline]);
    };
    let user = |name: &str, user_id: &str| json!({ "name": name, "user_id": user_id });
    let server = start(directory.path(), &backend, change).await;
    let mut clients = Vec::new();
    for user_id in ["stays", "goes"] {
        let mut client = server.sign_in(user_id).await;
        client.subscribe(user_id).await;
        client.join(ROOM, user_id).await;
        clients.push(client);
        backend.expect_all([user("user_online", user_id), occupied(user_id)]).await;
        if user_id == "stays" {
            backend.expect(occupied(ROOM)).await;
        }
        backend.expect(member("member_added", user_id)).await;
    }
    let Ok(clients) = <[Client; 2]>::try_from(clients) else { panic!() };
    stop(server, clients).await;

    let server = start(directory.path(), &backend, change).await;
    let mut back = server.sign_in("stays").await;
    back.subscribe("stays").await;
    back.join(ROOM, "stays").await;
    backend.expect(member("member_removed", "goes")).await;
    let mut others = [backend.next().await.event().clone(), backend.next().await.event().clone()];
    others.sort_by_key(ToString::to_string);
    assert_eq!(others, [vacated("goes"), user("user_offline", "goes")]);
    // Who stayed is known, and leaves like anybody else.
    back.leave("stays").await;
    backend.expect(vacated("stays")).await;
    back.disconnect().await;
    let mut ends = Vec::new();
    for _ in 0..3 {
        ends.push(backend.next().await.event().clone());
    }
    for end in [member("member_removed", "stays"), vacated(ROOM), user("user_offline", "stays")] {
        assert!(ends.contains(&end), "{end} is not among {ends:?}");
    }
    stop(server, []).await;
}

#[tokio::test]
async fn what_is_for_an_endpoint_that_is_gone_becomes_a_dead_letter_for_the_day_it_is_back() {
    for batch_size in [1, 2] {
        let (directory, mut gone, mut other) = (TempDir::new(), Backend::start().await, Backend::start().await);
        let change = |config: &mut Config| {
            config.apps[0].webhooks[0].batch_size = batch_size;
            config.webhooks.restart_grace = Duration::from_secs(60);
        };
        gone.answer(Reply::Status(503));
        let server = start(directory.path(), &gone, change).await;
        let mut client = server.connect().await;
        for channel in ["a", "b", "c"] {
            client.subscribe(channel).await;
        }
        let mut before = deliveries(&mut gone, 3_usize.div_ceil(batch_size)).await;
        stop(server, [client]).await;
        gone.forget();
        gone.answer(Reply::Status(200));

        let server = start(directory.path(), &other, change).await;
        let mut marker = server.connect().await;
        marker.subscribe("marker").await;
        other.expect(occupied("marker")).await;
        let dead = server.dead_letters(before.len()).await;
        server.expect_metric("fanfare_webhooks_dead_total", u32::try_from(before.len()).unwrap()).await;
        let ids: HashSet<_> = dead.iter().map(|letter| letter["id"].as_str().unwrap()).collect();
        assert_eq!(ids, before.keys().map(String::as_str).collect());
        stop(server, [marker]).await;

        // It does not come by itself, but it is all there.
        let server = start(directory.path(), &gone, change).await;
        let mut marker = server.connect().await;
        marker.subscribe("marker-2").await;
        gone.expect(occupied("marker-2")).await;
        let replay = "POST /webhooks/replay HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                      Content-Length: 2\r\n\r\n{}";
        let mut admin = Http::new(Wire::connect(server.admin).await);
        assert_eq!(admin.send(replay.as_bytes()).await.json(), json!({ "replayed": before.len() }));
        while !before.is_empty() {
            let webhook = gone.next().await;
            let known = before.remove(webhook.id()).unwrap_or_else(|| panic!("unknown: {}", webhook.body));
            assert_eq!(webhook.events(), known.events());
        }
        server.expect_metric("fanfare_webhook_events_pending", 0).await;
        stop(server, [marker]).await;
        let server = start(directory.path(), &gone, change).await;
        let mut marker = server.connect().await;
        marker.subscribe("marker-3").await;
        gone.expect(occupied("marker-3")).await;
        stop(server, [marker]).await;
    }
}

#[tokio::test]
async fn a_process_that_keeps_nothing_tells_at_the_end_that_everything_has_ended() {
    let mut backend = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, |config| {
        config.apps[0].webhook_delay = Duration::from_secs(60);
        let events = &mut config.apps[0].webhooks[0].events;
        events.extend([WebhookEvent::UserOnline, WebhookEvent::UserOffline]);
    })
    .await;
    let mut client = server.sign_in("7").await;
    client.join(ROOM, "7").await;
    client.subscribe("room").await;
    let user = |name: &str| json!({ "name": name, "user_id": "7" });
    backend.expect_all([user("user_online"), occupied(ROOM), member("member_added", "7"), occupied("room")]).await;
    stop(server, [client]).await;
    let mut ends = Vec::new();
    for _ in 0..4 {
        ends.push(backend.next().await.event().clone());
    }
    assert_eq!(ends[0], member("member_removed", "7"), "members leave before their channel is vacated");
    for end in [vacated(ROOM), vacated("room"), user("user_offline")] {
        assert!(ends.contains(&end), "{end} is not among {ends:?}");
    }
    backend.expect_no_more();
}

#[tokio::test]
async fn a_process_that_keeps_everything_leaves_the_end_to_the_next() {
    let (directory, mut backend) = (TempDir::new(), Backend::start().await);
    let server = start(directory.path(), &backend, |_| {}).await;
    let member_7 = server.join(ROOM, "7").await;
    backend.expect_all([occupied(ROOM), member("member_added", "7")]).await;
    stop(server, [member_7]).await;
    backend.expect_no_more();
    let server = start(directory.path(), &backend, |_| {}).await;
    backend.expect_all([member("member_removed", "7"), vacated(ROOM)]).await;
    stop(server, []).await;
}

#[tokio::test]
async fn what_nobody_listens_to_any_more_is_not_told_later() {
    let (directory, mut backend) = (TempDir::new(), Backend::start().await);
    let server = start(directory.path(), &backend, |_| {}).await;
    let member_7 = server.join(ROOM, "7").await;
    backend.expect_all([occupied(ROOM), member("member_added", "7")]).await;
    stop(server, [member_7]).await;
    // Whoever wants none of it is not told, now or when it wants it again.
    let only_misses = |config: &mut Config| config.apps[0].webhooks[0].events = vec![WebhookEvent::CacheMiss];
    let server = start(directory.path(), &backend, only_misses).await;
    let mut client = server.connect().await;
    client.subscribe("cache-a").await;
    backend.expect(json!({ "name": "cache_miss", "channel": "cache-a" })).await;
    stop(server, [client]).await;
    let server = start(directory.path(), &backend, |_| {}).await;
    let client = server.join(ROOM, "7").await;
    backend.expect_all([occupied(ROOM), member("member_added", "7")]).await;
    stop(server, [client]).await;
}
