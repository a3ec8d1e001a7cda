//! Who is here, wherever they are.

use serde_json::json;

use crate::support::{ADDED, Cluster, REMOVED};

const ROOM: &str = "presence-room";

#[tokio::test]
async fn a_newcomer_is_told_who_is_here_at_all_nodes() {
    let cluster = Cluster::start(3).await;
    let mut clients = Vec::new();
    let mut expected = Vec::new();
    for (number, node) in cluster.nodes.iter().chain(&cluster.nodes).enumerate() {
        let user = format!("user-{number}");
        expected.push(user.clone());
        let mut client = node.connect().await;
        let data = json!({ "user_id": user, "user_info": { "n": number } }).to_string();
        let success = client.join_as(ROOM, &data).await;
        assert_eq!(success.members(), expected);
        for (number, user) in expected.iter().enumerate() {
            assert_eq!(success.data()["presence"]["hash"][user], json!({ "n": number }));
        }
        for earlier in &mut clients {
            let earlier: &mut crate::support::Client = earlier;
            let added = earlier.expect_on(ROOM, ADDED).await;
            assert_eq!(added.data(), json!({ "user_id": user, "user_info": { "n": number } }));
        }
        clients.push(client);
    }
}

#[tokio::test]
async fn joining_and_leaving_is_announced_at_the_other_node() {
    let cluster = Cluster::start(2).await;
    let (a, b) = cluster.pair();
    let mut ann = a.join(ROOM, "ann").await;
    let mut bob = b.join(ROOM, "bob").await;
    assert_eq!(ann.expect_on(ROOM, ADDED).await.data()["user_id"], "bob");
    // In good order, without a word, and by closing.
    for round in 0..3 {
        let mut carl = b.join(ROOM, "carl").await;
        for client in [&mut ann, &mut bob] {
            assert_eq!(client.expect_on(ROOM, ADDED).await.data()["user_id"], "carl");
        }
        match round {
            0 => carl.unsubscribe(ROOM).await,
            1 => drop(carl),
            _ => carl.disconnect().await,
        }
        for client in [&mut ann, &mut bob] {
            assert_eq!(client.expect_on(ROOM, REMOVED).await.data(), json!({ "user_id": "carl" }));
        }
    }
    ann.leave(ROOM).await;
    assert_eq!(bob.expect_on(ROOM, REMOVED).await.data(), json!({ "user_id": "ann" }));
}

#[tokio::test]
async fn a_user_at_two_nodes_is_one_member() {
    let cluster = Cluster::start(2).await;
    let (a, b) = cluster.pair();
    let (mut ann, mut bob) = (a.join(ROOM, "ann").await, b.connect().await);
    bob.join(ROOM, "bob").await;
    ann.expect_on(ROOM, ADDED).await;
    for (first, second) in [(a, b), (b, a)] {
        let mut one = first.connect().await;
        assert_eq!(one.join_as(ROOM, r#"{"user_id":"7","user_info":1}"#).await.members(), ["7", "ann", "bob"]);
        for client in [&mut ann, &mut bob] {
            assert_eq!(client.expect_on(ROOM, ADDED).await.data(), json!({ "user_id": "7", "user_info": 1 }));
        }
        let mut two = second.connect().await;
        let success = two.join_as(ROOM, r#"{"user_id":"7","user_info":2}"#).await;
        assert_eq!(success.members(), ["7", "ann", "bob"]);
        // The first arrival's information stays, so that all agree.
        assert_eq!(success.data()["presence"]["hash"]["7"], 1);
        one.disconnect().await;
        // Neither the second arrival nor the first departure was news: this event comes next.
        a.api().await.trigger(ROOM, "fence", "").await;
        for client in [&mut ann, &mut bob, &mut two] {
            client.expect_event(ROOM, "fence", "").await;
        }
        two.disconnect().await;
        for client in [&mut ann, &mut bob] {
            assert_eq!(client.expect_on(ROOM, REMOVED).await.data(), json!({ "user_id": "7" }));
        }
    }
}

#[tokio::test]
async fn a_channel_is_full_when_its_members_at_all_nodes_fill_it() {
    let cluster = Cluster::with(2, |settings| settings.limits = "presence_members = 2".to_owned()).await;
    let (a, b) = cluster.pair();
    let _ann = a.join(ROOM, "ann").await;
    let bob = b.join(ROOM, "bob").await;
    for node in [a, b] {
        let mut carl = node.connect().await;
        carl.send(carl.membership(ROOM, r#"{"user_id":"carl"}"#)).await;
        carl.expect_rejection(ROOM, "LimitReached", 403).await;
        // Who is a member already may come once more.
        assert_eq!(carl.join(ROOM, "ann").await.members(), ["ann", "bob"]);
    }
    bob.disconnect().await;
    crate::support::eventually("there is room for another one", crate::support::PATIENCE, async || {
        let mut carl = a.connect().await;
        carl.send(carl.membership(ROOM, r#"{"user_id":"carl"}"#)).await;
        let answer = carl.next().await;
        if answer.event() == crate::support::SUCCEEDED { Ok(()) } else { Err(answer.json.to_string()) }
    })
    .await;
}
