//! What the HTTP API answers, and whom it lets in: the same at every node.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Node, PATIENCE, eventually};

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
