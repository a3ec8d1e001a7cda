//! Events and what is told about channels, from one node to the clients of another.

use std::time::Duration;

use serde_json::json;

use crate::support::{Cluster, Cut, Node, Settings, Traffic};

const MISS: &str = "pusher:cache_miss";

#[tokio::test]
async fn an_event_reaches_the_subscribers_at_all_nodes() {
    let cluster = Cluster::start(3).await;
    let mut clients = Vec::new();
    for node in &cluster.nodes {
        let mut client = node.connect().await;
        client.subscribe("room").await;
        client.subscribe_private("private-room").await;
        clients.push(client);
    }
    for node in &cluster.nodes {
        let mut api = node.api().await;
        for channel in ["room", "private-room"] {
            api.trigger(channel, "greet", &format!("from {}", node.name)).await;
            for client in &mut clients {
                client.expect_event(channel, "greet", &format!("from {}", node.name)).await;
            }
        }
    }
}

#[tokio::test]
async fn one_trigger_for_many_channels_reaches_each_where_its_subscribers_are() {
    let cluster = Cluster::start(2).await;
    let (a, b) = cluster.pair();
    let (mut ann, mut bob) = (a.connect().await, b.connect().await);
    ann.subscribe("one").await;
    bob.subscribe("two").await;
    let body = json!({ "name": "greet", "channels": ["one", "two", "nobody"], "data": "x" });
    b.api().await.post("/events", &body).await.ok();
    ann.expect_event("one", "greet", "x").await;
    bob.expect_event("two", "greet", "x").await;
    let event = |channel: &str| json!({ "name": "batched", "channel": channel, "data": channel });
    a.api().await.post("/batch_events", &json!({ "batch": [event("two"), event("one")] })).await.ok();
    ann.expect_event("one", "batched", "one").await;
    bob.expect_event("two", "batched", "two").await;
}

#[tokio::test]
async fn the_excluded_connection_may_be_at_another_node() {
    let cluster = Cluster::start(2).await;
    let (a, b) = cluster.pair();
    let (mut ann, mut bob) = (a.connect().await, b.connect().await);
    ann.subscribe("room").await;
    bob.subscribe("room").await;
    let mut api = b.api().await;
    api.trigger_except("room", "greet", "not for ann", &ann.socket_id).await;
    api.trigger("room", "greet", "for all").await;
    bob.expect_event("room", "greet", "not for ann").await;
    bob.expect_event("room", "greet", "for all").await;
    ann.expect_event("room", "greet", "for all").await;
}

#[tokio::test]
async fn all_clients_hear_the_events_of_all_nodes_in_one_order() {
    let cluster = Cluster::start(3).await;
    let mut clients = Vec::new();
    for node in cluster.nodes.iter().chain(&cluster.nodes) {
        clients.push(node.record("room").await);
    }
    let pace = Duration::from_millis(2);
    let start = |node: &Node| Traffic::start(&node.name, node.addr, "room", pace);
    let traffic: Vec<_> = cluster.nodes.iter().map(start).collect();
    for traffic in &traffic {
        traffic.flows(100).await;
    }
    for traffic in traffic {
        let sent = traffic.stop().await;
        assert!(sent.refused.is_empty() && sent.unanswered.is_empty(), "{sent:?}");
        for client in &clients {
            sent.reaches(client, "room").await;
        }
    }
    let order = clients[0].data("room");
    let changes = order.windows(2).filter(|pair| pair[0].split('-').next() != pair[1].split('-').next()).count();
    assert!(changes > 10, "the nodes did not trigger at the same time, so that their order proves nothing: {order:?}");
    for client in &clients {
        assert_eq!(client.data("room"), order);
    }
}

#[tokio::test]
async fn a_client_event_reaches_the_others_at_all_nodes() {
    let cluster = Cluster::start(2).await;
    let (a, b) = cluster.pair();
    let (mut ann, mut near, mut far) = (a.connect().await, a.connect().await, b.connect().await);
    for client in [&mut ann, &mut near, &mut far] {
        client.subscribe_private("private-room").await;
    }
    ann.send_event("private-room", "client-typing", json!({ "on": true })).await;
    for client in [&mut near, &mut far] {
        client.expect_event("private-room", "client-typing", r#"{"on":true}"#).await;
    }
    // The sender hears the next event first.
    far.send_event("private-room", "client-reply", json!("x")).await;
    ann.expect_event("private-room", "client-reply", "x").await;
    near.expect_event("private-room", "client-reply", "x").await;

    let (mut carl, mut dora) = (a.join("presence-room", "carl").await, b.join("presence-room", "dora").await);
    carl.expect("pusher_internal:member_added").await;
    dora.send_event("presence-room", "client-typing", json!("y")).await;
    let event = json!({ "event": "client-typing", "channel": "presence-room", "data": "y", "user_id": "dora" });
    carl.expect_json(event).await;
}

#[tokio::test]
async fn cache_channels_remember_an_event_for_all_nodes() {
    let cluster = Cluster::start(2).await;
    let (a, b) = cluster.pair();
    for (channel, from, to) in [("cache-one", a, b), ("private-cache-two", b, a), ("private-encrypted-cache-3", a, b)] {
        let mut early = to.connect().await;
        early.subscribe_private(channel).await;
        early.expect_json(json!({ "event": MISS, "channel": channel, "data": "{}" })).await;
        let mut api = from.api().await;
        api.trigger(channel, "greet", "1").await;
        api.trigger(channel, "greet", "2").await;
        early.expect_event(channel, "greet", "1").await;
        early.expect_event(channel, "greet", "2").await;
        for node in [a, b] {
            let mut late = node.connect().await;
            late.subscribe_private(channel).await;
            late.expect_event(channel, "greet", "2").await;
        }
    }
}

#[tokio::test]
async fn subscribers_are_counted_at_all_nodes_together() {
    let cluster = Cluster::with(2, |settings| settings.app += "subscription_counts = true\n").await;
    let (a, b) = cluster.pair();
    let count = |count: u32| {
        let data = json!({ "subscription_count": count }).to_string();
        json!({ "event": "pusher_internal:subscription_count", "channel": "room", "data": data })
    };
    let mut ann = a.connect().await;
    ann.subscribe("room").await;
    ann.expect_json(count(1)).await;
    let mut bob = b.connect().await;
    bob.subscribe("room").await;
    ann.expect_json(count(2)).await;
    bob.expect_json(count(2)).await;
    let mut carl = b.connect().await;
    carl.subscribe("room").await;
    for client in [&mut ann, &mut bob, &mut carl] {
        client.expect_json(count(3)).await;
    }
    carl.disconnect().await;
    ann.expect_json(count(2)).await;
    bob.unsubscribe("room").await;
    ann.expect_json(count(1)).await;
}

#[tokio::test]
async fn clusters_with_different_ids_never_meet_on_one_redis() {
    let cluster = Cluster::start(2).await;
    let settings = Settings { id: "other".to_owned(), ..cluster.settings.clone() };
    let stranger = Node::start_behind(Cut::before(cluster.redis.addr()), "s", &settings).await;
    stranger.ready().await;
    stranger.sees(&["s"]).await;
    cluster.settled().await;

    let (a, b) = cluster.pair();
    let mut ann = a.join("presence-room", "ann").await;
    let mut sue = stranger.connect().await;
    assert_eq!(sue.join("presence-room", "sue").await.members(), ["sue"]);
    let mut bob = b.connect().await;
    assert_eq!(bob.join("presence-room", "bob").await.members(), ["ann", "bob"]);
    assert_eq!(ann.expect("pusher_internal:member_added").await.data()["user_id"], "bob");
    b.api().await.trigger("presence-room", "greet", "ours").await;
    stranger.api().await.trigger("presence-room", "greet", "theirs").await;
    for client in [&mut ann, &mut bob] {
        client.expect_event("presence-room", "greet", "ours").await;
    }
    sue.expect_event("presence-room", "greet", "theirs").await;
    b.api().await.trigger("cache-room", "greet", "ours").await;
    sue.subscribe("cache-room").await;
    sue.expect_on("cache-room", MISS).await;
    // What had gone astray would be here by now.
    b.api().await.trigger("presence-room", "greet", "more").await;
    for client in [&mut ann, &mut bob] {
        client.expect_event("presence-room", "greet", "more").await;
    }
    sue.expect_silence().await;
}
