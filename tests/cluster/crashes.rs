//! Nodes that end without a word, and nodes that do not answer for a while.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{ADDED, Backend, Cluster, Node, PATIENCE, REMOVED, Recorder, SLACK, eventually};

const ROOM: &str = "presence-room";

/// Waits until the clients of the other nodes have heard that this user is gone, in the time that is promised.
async fn expect_removed(cluster: &Cluster, client: &Recorder, since: Instant, user: &str) {
    let time = (since + cluster.settings.lease + SLACK).saturating_duration_since(Instant::now());
    let data = json!({ "user_id": user });
    let is_it = |message: &crate::support::Message| message.event() == REMOVED && message.data() == data;
    client.expect(&format!("{user} is removed"), time, |messages| messages.iter().any(is_it)).await;
}

/// The presence events that a client has heard, as (event, user id).
fn presence(client: &Recorder) -> Vec<(String, String)> {
    let messages = client.messages();
    let own = messages.iter().filter(|message| [ADDED, REMOVED].contains(&message.event()));
    own.map(|message| (message.event().to_owned(), message.data()["user_id"].as_str().unwrap().to_owned())).collect()
}

fn owned(events: &[(&str, &str)]) -> Vec<(String, String)> {
    events.iter().map(|(event, user)| ((*event).to_owned(), (*user).to_owned())).collect()
}

async fn record(node: &Node, user: &str) -> Recorder {
    Recorder::start(node.join(ROOM, user).await)
}

#[tokio::test]
async fn what_a_killed_node_held_is_removed_within_the_lease_and_told_once() {
    let mut backend = Backend::start().await;
    let mut cluster = Cluster::with(3, |settings| settings.webhooks = Some(backend.url())).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let (ann, bob) = (record(a, "ann").await, record(b, "bob").await);
    let _carl = record(c, "carl").await;
    // Another connection of a user who stays.
    let _bob = record(c, "bob").await;
    let mut lonely = c.connect().await;
    lonely.subscribe("lonely").await;
    for client in [&ann, &bob] {
        client.expect("carl", PATIENCE, |messages| messages.iter().any(|m| m.json.to_string().contains("carl"))).await;
    }
    cluster.nodes[2].kill();
    let killed = Instant::now();
    for client in [&ann, &bob] {
        expect_removed(&cluster, client, killed, "carl").await;
    }
    let time = (killed + cluster.settings.lease + SLACK).saturating_duration_since(Instant::now());
    for node in &cluster.nodes[..2] {
        eventually("the channel is vacated", time.max(SLACK), async || {
            let answer = node.api().await.get("/channels", &[("info", "subscription_count")]).await.json();
            let expected = json!({ "channels": { ROOM: { "subscription_count": 2 } } });
            if answer == expected { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }
    cluster.settled().await;

    // Whatever was told twice has been told by the time that these come.
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for event in [
        json!({ "name": "channel_occupied", "channel": ROOM }),
        json!({ "name": "channel_occupied", "channel": "lonely" }),
        json!({ "name": "member_added", "channel": ROOM, "user_id": "ann" }),
        json!({ "name": "member_added", "channel": ROOM, "user_id": "bob" }),
        json!({ "name": "member_added", "channel": ROOM, "user_id": "carl" }),
        json!({ "name": "channel_vacated", "channel": "lonely" }),
        json!({ "name": "member_removed", "channel": ROOM, "user_id": "carl" }),
        json!({ "name": "channel_occupied", "channel": "fence-a" }),
        json!({ "name": "channel_occupied", "channel": "fence-b" }),
        json!({ "name": "channel_vacated", "channel": "fence-a" }),
        json!({ "name": "channel_vacated", "channel": "fence-b" }),
    ] {
        expected.insert(event.to_string(), 1);
    }
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    let mut take = |event: &Value| *told.entry(event.to_string()).or_default() += 1;
    // The two first, so that the fences are told after them.
    let mut last = 2;
    while last > 0 {
        for event in backend.next_within(PATIENCE).await.events() {
            let is_last = event["name"] == "channel_vacated" || event["name"] == "member_removed";
            last -= usize::from(is_last && last > 0);
            take(event);
        }
    }
    for (node, fence) in cluster.nodes.iter().zip(["fence-a", "fence-b"]) {
        let mut client = node.connect().await;
        client.subscribe(fence).await;
        for event in backend.next_within(PATIENCE).await.events() {
            take(event);
        }
        client.disconnect().await;
        for event in backend.next_within(PATIENCE).await.events() {
            take(event);
        }
    }
    assert_eq!(told, expected);
    assert_eq!(presence(&ann), owned(&[(ADDED, "bob"), (ADDED, "carl"), (REMOVED, "carl")]));
    assert_eq!(presence(&bob), owned(&[(ADDED, "carl"), (REMOVED, "carl")]));
}

#[tokio::test]
async fn a_killed_node_that_comes_back_starts_anew() {
    let mut cluster = Cluster::start(2).await;
    let ann = record(&cluster.nodes[0], "ann").await;
    let bob = record(&cluster.nodes[1], "bob").await;
    ann.expect("bob", PATIENCE, |messages| !messages.is_empty()).await;
    let killed = Instant::now();
    cluster.nodes[1].kill();
    cluster.nodes[1].come_back().await;
    drop(bob);
    expect_removed(&cluster, &ann, killed, "bob").await;
    let _bob = record(&cluster.nodes[1], "bob").await;
    ann.expect("bob again", PATIENCE, |messages| messages.len() >= 3).await;
    ann.settle().await;
    assert_eq!(presence(&ann), owned(&[(ADDED, "bob"), (REMOVED, "bob"), (ADDED, "bob")]));
    cluster.settled().await;
}

#[tokio::test]
async fn a_user_who_moves_from_a_killed_node_in_time_never_left() {
    let mut cluster = Cluster::start(2).await;
    let ann = record(&cluster.nodes[0], "ann").await;
    let _bob = record(&cluster.nodes[1], "bob").await;
    let _carl = record(&cluster.nodes[1], "carl").await;
    let killed = Instant::now();
    cluster.nodes[1].kill();
    let _bob = record(&cluster.nodes[0], "bob").await;
    expect_removed(&cluster, &ann, killed, "carl").await;
    ann.settle().await;
    assert_eq!(presence(&ann), owned(&[(ADDED, "bob"), (ADDED, "carl"), (REMOVED, "carl")]));
}

#[tokio::test]
async fn a_paused_node_is_gone_and_its_clients_are_brought_up_to_date_when_it_goes_on() {
    let cluster = Cluster::start(2).await;
    let (a, b) = cluster.pair();
    let ann = record(a, "ann").await;
    let (bob, dora) = (record(b, "bob").await, record(a, "dora").await);
    bob.expect("dora", PATIENCE, |messages| !messages.is_empty()).await;
    let paused = Instant::now();
    b.pause();
    expect_removed(&cluster, &ann, paused, "bob").await;
    let _carl = record(a, "carl").await;
    drop(dora);
    ann.expect("dora has left", PATIENCE, |messages| presence_count(messages, REMOVED) == 2).await;
    b.resume();
    ann.expect("bob is back", PATIENCE, |messages| presence_count(messages, ADDED) == 4).await;
    bob.expect("the differences", PATIENCE, |messages| presence_count(messages, ADDED) == 2).await;
    bob.expect("the differences", PATIENCE, |messages| presence_count(messages, REMOVED) == 1).await;
    // Nothing else has happened: the event comes next.
    a.api().await.trigger(ROOM, "fence", "").await;
    for client in [&ann, &bob] {
        client.expect("the fence", PATIENCE, |messages| presence_count(messages, "fence") == 1).await;
        client.is_connected();
    }
    let changes =
        [(ADDED, "bob"), (ADDED, "dora"), (REMOVED, "bob"), (ADDED, "carl"), (REMOVED, "dora"), (ADDED, "bob")];
    assert_eq!(presence(&ann), owned(&changes));
    let mut heard = presence(&bob);
    heard[1..].sort();
    assert_eq!(heard, owned(&[(ADDED, "dora"), (ADDED, "carl"), (REMOVED, "dora")]));
}

fn presence_count(messages: &[crate::support::Message], event: &str) -> usize {
    messages.iter().filter(|message| message.event() == event).count()
}
