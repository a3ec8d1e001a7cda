//! What the HTTP API answers, and whom it lets in: the same at every node.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Node, PATIENCE, eventually, eventually_true};

/// How soon a change shows at all nodes (protocol §2.5), with some time for a machine that does a lot at once.
const SOON: Duration = Duration::from_secs(2);

/// The answers to everything that can be asked about channels.
async fn answers(node: &Node) -> Value {
    let mut api = node.api().await;
    let counted = [("info", "user_count,subscription_count"), ("filter_by_prefix", "presence-")];
    let mut users = api.get("/channels/presence-room/users", &[]).await.json();
    users["users"].as_array_mut().unwrap().sort_by_key(|user| user["id"].to_string());
    json!({
        "all": api.get("/channels", &[]).await.json(),
        "counted": api.get("/channels", &counted).await.json(),
        "presence": api.channel("presence-room", "user_count,subscription_count").await,
        "public": api.channel("room", "subscription_count").await,
        "users": users,
    })
}

async fn expect_answers(cluster: &Cluster, expected: &Value) {
    for node in &cluster.nodes {
        let name = &node.name;
        eventually(&format!("{name} answers {expected}"), SOON, async || {
            let actual = answers(node).await;
            if actual == *expected { Ok(()) } else { Err(actual.to_string()) }
        })
        .await;
    }
}

#[tokio::test]
async fn every_node_answers_for_all() {
    let cluster = Cluster::start(3).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let empty = json!({
        "all": { "channels": {} },
        "counted": { "channels": {} },
        "presence": { "occupied": false, "user_count": 0, "subscription_count": 0 },
        "public": { "occupied": false, "subscription_count": 0 },
        "users": { "users": [] },
    });
    expect_answers(&cluster, &empty).await;
    let ann = a.join("presence-room", "ann").await;
    let bob = b.join("presence-room", "bob").await;
    let again = c.join("presence-room", "bob").await;
    let (mut one, mut two) = (b.connect().await, c.connect().await);
    one.subscribe("room").await;
    two.subscribe("room").await;
    let full = json!({
        "all": { "channels": { "presence-room": {}, "room": {} } },
        "counted": { "channels": { "presence-room": { "user_count": 2, "subscription_count": 3 } } },
        "presence": { "occupied": true, "user_count": 2, "subscription_count": 3 },
        "public": { "occupied": true, "subscription_count": 2 },
        "users": { "users": [{ "id": "ann" }, { "id": "bob" }] },
    });
    expect_answers(&cluster, &full).await;
    bob.disconnect().await;
    one.disconnect().await;
    let fewer = json!({
        "all": { "channels": { "presence-room": {}, "room": {} } },
        "counted": { "channels": { "presence-room": { "user_count": 2, "subscription_count": 2 } } },
        "presence": { "occupied": true, "user_count": 2, "subscription_count": 2 },
        "public": { "occupied": true, "subscription_count": 1 },
        "users": { "users": [{ "id": "ann" }, { "id": "bob" }] },
    });
    expect_answers(&cluster, &fewer).await;
    for client in [ann, again, two] {
        client.disconnect().await;
    }
    expect_answers(&cluster, &empty).await;
}

#[tokio::test]
async fn every_node_knows_what_is_cached() {
    let cluster = Cluster::start(2).await;
    let (a, b) = cluster.pair();
    a.api().await.trigger("cache-room", "greet", "x").await;
    let at_a = a.api().await.channel("cache-room", "cache").await;
    let at_b = b.api().await.channel("cache-room", "cache").await;
    assert_eq!(at_a["cache"]["data"], at_b["cache"]["data"], "{at_a} {at_b}");
    assert!(at_b["cache"]["ttl"].is_number() || at_b["cache"]["ttl"].is_string(), "{at_b}");
}

#[tokio::test]
async fn an_answer_to_a_trigger_counts_the_subscribers_at_all_nodes() {
    let cluster = Cluster::start(2).await;
    let (a, b) = cluster.pair();
    let _ann = a.join("presence-room", "ann").await;
    let _bob = b.join("presence-room", "bob").await;
    let expected = json!({ "channels": { "presence-room": { "user_count": 2, "subscription_count": 2 } } });
    for node in [a, b] {
        let body = json!({
            "name": "greet", "channels": ["presence-room"], "data": "x", "info": "user_count,subscription_count"
        });
        eventually(&format!("{} answers {expected}", node.name), SOON, async || {
            let answer = node.api().await.post("/events", &body).await.json();
            if answer == expected { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }
}

#[tokio::test]
async fn the_connections_of_an_app_are_limited_at_all_nodes_together() {
    let cluster = Cluster::with(2, |settings| settings.limits = "connections = 3".to_owned()).await;
    let (a, b) = cluster.pair();
    let (one, two, _three) = (a.connect().await, a.connect().await, b.connect().await);
    for node in [a, b] {
        node.dial().refused(4004).await;
    }
    one.disconnect().await;
    two.disconnect().await;
    // There is room for two at the other node, as soon as it has heard of it, and for no third.
    let mut admitted = Vec::new();
    while admitted.len() < 2 {
        let client = eventually("another connection is admitted", PATIENCE, async || {
            let mut client = b.dial().open().await;
            match client.item().await {
                crate::it::Item::Text(_) => Ok(client),
                other => Err(format!("{other:?}")),
            }
        });
        admitted.push(client.await);
    }
    for node in [a, b] {
        node.dial().refused(4004).await;
    }
}

#[tokio::test]
async fn socket_ids_are_different_at_all_nodes() {
    let cluster = Cluster::start(2).await;
    let mut ids = BTreeSet::new();
    for _ in 0..50 {
        for node in &cluster.nodes {
            assert!(ids.insert(node.connect().await.socket_id));
        }
    }
}

#[tokio::test]
async fn a_long_list_comes_in_chunks_and_has_every_channel_once() {
    let cluster = Cluster::with(2, |settings| settings.limits = "channels_per_connection = 0".to_owned()).await;
    let (a, b) = cluster.pair();
    let mut occupants = Vec::new();
    let mut expected = BTreeSet::new();
    for (node, name) in [(a, "a"), (b, "b")] {
        let mut client = node.connect().await;
        let names: Vec<String> = (0..3000).map(|number| format!("room-at-{name}-{number}")).collect();
        client.send_all(&names.iter().map(|name| client.subscription(name)).collect::<Vec<_>>()).await;
        for _ in &names {
            client.expect("pusher_internal:subscription_succeeded").await;
        }
        expected.extend(names);
        occupants.push(client);
    }
    for node in [a, b] {
        let answer = node.api().await.get("/channels", &[("info", "subscription_count")]).await;
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"), "{}", answer.head);
        let listed: BTreeSet<String> = answer.json()["channels"].as_object().unwrap().keys().cloned().collect();
        assert!(listed == expected, "{} of {} channels", listed.len(), expected.len());
        assert_eq!(answer.body.matches("\"subscription_count\":1").count(), expected.len(), "some are there twice");
    }
}

#[tokio::test]
async fn cached_events_of_an_app_are_bounded_at_redis() {
    let cluster = Cluster::with(2, |settings| {
        settings.limits = "cache_size = \"64 KiB\"\ncache_ttl = \"2s\"".to_owned();
    })
    .await;
    let (a, b) = cluster.pair();
    let data = "x".repeat(5000);
    let is_kept = async |channel: &str| !b.api().await.channel(channel, "cache").await["cache"].is_null();
    let evicted = async || {
        let mut sum = 0.0;
        for node in [a, b] {
            sum += node.metric("fanfare_cached_events_evicted_total").await;
        }
        sum
    };
    for round in 0..2 {
        // What has expired takes no room.
        for number in 0..5 {
            a.api().await.trigger(&format!("cache-{round}-{number}"), "greet", &data).await;
        }
        let last = format!("cache-{round}-4");
        eventually_true("the events expire", PATIENCE, async || !is_kept(&last).await).await;
    }
    assert!(evicted().await < 0.5);
    for number in [0, 1, 2, 3, 4, 0, 5, 6, 7] {
        b.api().await.trigger(&format!("cache-{number}"), "greet", &data).await;
    }
    let mut kept = Vec::new();
    for number in 0..8 {
        kept.push(is_kept(&format!("cache-{number}")).await);
    }
    assert_eq!(kept, [true, false, false, true, true, true, true, true]);
    assert!((evicted().await - 2.0).abs() < 0.5);
}
