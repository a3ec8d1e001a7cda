//! Redis as a cluster of shards, and with sentinels.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    ADDED, Message, Node, PATIENCE, REMOVED, Recorder, RedisCluster, SLACK, Sentinels, Settings, eventually, settled,
};

const WATCHLIST: &str = "pusher_internal:watchlist_events";

async fn start(count: usize, urls: &[String], settings: &Settings) -> Vec<Node> {
    let mut nodes = Vec::new();
    for name in ('a'..).take(count) {
        nodes.push(Node::start(&name.to_string(), urls, settings).await);
    }
    settled(&nodes).await;
    nodes
}

fn of(event: &'static str, user: &str) -> impl Fn(&Message) -> bool {
    let user = Value::from(user);
    move |message| message.event() == event && message.data()["user_id"] == user
}

#[tokio::test]
async fn the_shards_of_a_redis_cluster_serve_all_channels() {
    let redis = RedisCluster::start().await;
    let settings = Settings { cluster: "topology = \"cluster\"".to_owned(), ..Settings::default() };
    let mut nodes = start(3, &redis.urls(), &settings).await;
    let channels: Vec<_> = (0..50).map(|number| format!("room-{number}")).collect();
    let rooms: Vec<_> = (0..10).map(|number| format!("presence-{number}")).collect();
    let (mut ann, mut bob) = (nodes[0].connect().await, nodes[1].connect().await);
    for channel in &channels {
        ann.subscribe(channel).await;
        bob.subscribe(channel).await;
    }
    let (mut from_b, mut from_c) = (nodes[1].api().await, nodes[2].api().await);
    for channel in &channels {
        for api in [&mut from_b, &mut from_c] {
            api.trigger(channel, "greet", channel).await;
            ann.expect_event(channel, "greet", channel).await;
            bob.expect_event(channel, "greet", channel).await;
        }
    }
    // The channels of one trigger are on several shards.
    let body = json!({ "name": "greet", "channels": channels, "data": "x" });
    from_c.post("/events", &body).await.ok();
    let mut heard: Vec<_> = Vec::new();
    for _ in &channels {
        heard.push(ann.expect("greet").await.channel().unwrap().to_owned());
    }
    heard.sort();
    let mut expected = channels.clone();
    expected.sort();
    assert_eq!(heard, expected);

    // The users of one watchlist are on several shards, too.
    let users: Vec<_> = (0..10).map(|number| format!("user-{number}")).collect();
    let mut watcher = nodes[0].connect().await;
    let data = json!({ "id": "watcher", "watchlist": users });
    watcher.sign_in_as(&data.to_string()).await;
    watcher.expect(WATCHLIST).await;
    for user in &users {
        let online = nodes[1].sign_in(user).await;
        let told = watcher.expect(WATCHLIST).await.data();
        assert_eq!(told, json!({ "events": [{ "name": "online", "user_ids": [user] }] }));
        let mut again = nodes[2].connect().await;
        again.sign_in_as(&json!({ "id": "watcher", "watchlist": [user] }).to_string()).await;
        again.expect(WATCHLIST).await;
        again.disconnect().await;
        online.disconnect().await;
        let told = watcher.expect(WATCHLIST).await.data();
        assert_eq!(told, json!({ "events": [{ "name": "offline", "user_ids": [user] }] }));
    }

    let mut carl = nodes[2].connect().await;
    for room in &rooms {
        assert_eq!(ann.join(room, "ann").await.members(), ["ann"]);
        assert_eq!(carl.join(room, "carl").await.members(), ["ann", "carl"]);
        ann.expect_on(room, ADDED).await;
    }
    for node in &nodes {
        let params = [("filter_by_prefix", "presence-"), ("info", "user_count")];
        eventually("all rooms have two members", PATIENCE, async || {
            let answer = node.api().await.get("/channels", &params).await.json();
            let full = answer["channels"].as_object().unwrap().values().filter(|room| room["user_count"] == 2).count();
            if full == rooms.len() { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }
    let ann = Recorder::start(ann);
    nodes[2].kill();
    let killed = Instant::now();
    let time = settings.lease + SLACK;
    let removed = |messages: &[Message]| messages.iter().filter(|message| of(REMOVED, "carl")(message)).count();
    ann.expect("carl is removed from all rooms", time, |messages| removed(messages) >= rooms.len()).await;
    assert!(killed.elapsed() < time);
    ann.settle().await;
    assert_eq!(removed(&ann.messages()), rooms.len());
    settled(&nodes).await;
}

#[tokio::test]
async fn when_sentinels_replace_the_master_the_nodes_follow_and_nobody_has_gone() {
    let mut sentinels = Sentinels::start().await;
    let cluster = format!("topology = \"sentinel\"\nsentinel_master = \"{}\"", Sentinels::MASTER);
    let settings = Settings { cluster, ..Settings::default() };
    let nodes = start(2, &sentinels.urls(), &settings).await;
    let ann = Recorder::start(nodes[0].join("presence-room", "ann").await);
    let bob = Recorder::start(nodes[1].join("presence-room", "bob").await);
    ann.expect("bob", PATIENCE, |messages| messages.iter().any(of(ADDED, "bob"))).await;
    sentinels.fail_over().await;
    settled(&nodes).await;
    let mut carl = nodes[1].connect().await;
    assert_eq!(carl.join("presence-room", "carl").await.members(), ["ann", "bob", "carl"]);
    for client in [&ann, &bob] {
        client.expect("carl", PATIENCE, |messages| messages.iter().any(of(ADDED, "carl"))).await;
        client.is_connected();
        let gone = client.messages().into_iter().find(|message| message.event() == REMOVED);
        assert!(gone.is_none(), "{gone:?}");
    }
    let added = |client: &Recorder| client.messages().iter().filter(|message| message.event() == ADDED).count();
    assert_eq!((added(&ann), added(&bob)), (2, 1));
    for (node, other) in [(&nodes[0], &bob), (&nodes[1], &ann)] {
        node.api().await.trigger("presence-room", "greet", &node.name).await;
        let came = |message: &Message| message.event() == "greet" && message.text() == node.name;
        other.expect("an event", PATIENCE, |messages| messages.iter().any(came)).await;
    }
}
