//! Signed-in users, wherever they are.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Client, Cluster, Node};

const WATCHLIST: &str = "pusher_internal:watchlist_events";

async fn watch(node: &Node, id: &str, watchlist: Value) -> Client {
    let mut client = node.connect().await;
    client.sign_in_as(&json!({ "id": id, "watchlist": watchlist }).to_string()).await;
    client
}

async fn expect_status(client: &mut Client, name: &str, users: &[&str]) {
    let data = client.expect(WATCHLIST).await.data();
    assert_eq!(data, json!({ "events": [{ "name": name, "user_ids": users }] }));
}

#[tokio::test]
async fn an_event_for_a_user_reaches_its_connections_at_all_nodes() {
    let cluster = Cluster::start(2).await;
    let (a, b) = cluster.pair();
    let (mut here, mut there, mut other) = (a.sign_in("7").await, b.sign_in("7").await, b.sign_in("8").await);
    for node in [a, b] {
        node.api().await.trigger("#server-to-user-7", "greet", &node.name).await;
        for client in [&mut here, &mut there] {
            client.expect_event("#server-to-user-7", "greet", &node.name).await;
        }
    }
    a.api().await.trigger("#server-to-user-8", "greet", "{}").await;
    other.expect_event("#server-to-user-8", "greet", "{}").await;
    here.expect_silence().await;
    there.expect_silence().await;
}

#[tokio::test]
async fn watchers_hear_of_users_at_other_nodes() {
    let cluster = Cluster::start(2).await;
    let (a, b) = cluster.pair();
    let mut ann = watch(a, "ann", json!(["7"])).await;
    expect_status(&mut ann, "offline", &["7"]).await;
    let one = b.sign_in("7").await;
    expect_status(&mut ann, "online", &["7"]).await;
    // A newcomer hears at once how it is.
    let mut bob = watch(b, "bob", json!(["7", "ann"])).await;
    let data = bob.expect(WATCHLIST).await.data();
    let mut online: Vec<_> = data["events"][0]["user_ids"].as_array().unwrap().iter().collect();
    online.sort_by_key(ToString::to_string);
    assert_eq!((online, data["events"].as_array().unwrap().len()), (vec![&json!("7"), &json!("ann")], 1), "{data}");
    // One of two connections is no news.
    let two = a.sign_in("7").await;
    one.disconnect().await;
    ann.expect_silence().await;
    two.disconnect().await;
    for client in [&mut ann, &mut bob] {
        expect_status(client, "offline", &["7"]).await;
    }
}

#[tokio::test]
async fn a_user_who_moves_to_another_node_was_never_offline() {
    let cluster = Cluster::with(2, |settings| {
        settings.app = settings.app.replace("offline_delay = \"100ms\"", "offline_delay = \"2s\"");
    })
    .await;
    let (a, b) = cluster.pair();
    let mut ann = watch(a, "ann", json!(["7", "8"])).await;
    expect_status(&mut ann, "offline", &["7", "8"]).await;
    let seven = a.sign_in("7").await;
    expect_status(&mut ann, "online", &["7"]).await;
    let eight = b.sign_in("8").await;
    expect_status(&mut ann, "online", &["8"]).await;
    seven.disconnect().await;
    let _seven = b.sign_in("7").await;
    // Who leaves later and does not come back is reported first, and alone.
    eight.disconnect().await;
    expect_status(&mut ann, "offline", &["8"]).await;
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_user_is_terminated_at_all_nodes() {
    let cluster = Cluster::start(2).await;
    let (a, b) = cluster.pair();
    let (mut here, mut there, mut other) = (a.sign_in("7").await, b.sign_in("7").await, b.sign_in("8").await);
    a.api().await.post("/users/7/terminate_connections", &json!({})).await.ok();
    for client in [&mut here, &mut there] {
        assert_eq!(client.expect_close(4009).await, "You got disconnected by the app.");
    }
    other.expect_silence().await;
    // The user may come back.
    let mut again = b.sign_in("7").await;
    again.expect_silence().await;
}

#[tokio::test]
async fn while_redis_is_silent_one_sign_in_of_a_connection_waits_and_no_more() {
    let cluster = Cluster::with(1, |settings| {
        // Redis may be silent for half a lease before it counts as lost.
        (settings.lease, settings.timeout) = (Duration::from_secs(60), Duration::from_secs(30));
    })
    .await;
    let mut client = cluster.nodes[0].sign_in("ann").await;
    let again = client.sign_in_request(&json!({ "id": "ann", "watchlist": ["bob"] }).to_string());
    cluster.redis.freeze();
    client.send(again.clone()).await;
    for _ in 0..3 {
        client.send(again.clone()).await;
        let error = client.expect("pusher:error").await.json.to_string();
        assert!(error.contains("An earlier sign-in of this connection waits"), "{error}");
    }
    cluster.redis.thaw();
    client.expect("pusher:signin_success").await;
}
