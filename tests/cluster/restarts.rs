//! Nodes that are restarted in good order, one after the other, while everything goes on.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Backend, Cluster, Node, PATIENCE, Recorder, Sent, Traffic, eventually};

const ROOM: &str = "presence-room";

async fn member(node: &Node, user: &str) -> Recorder {
    let mut client = node.join(ROOM, user).await;
    client.subscribe("room").await;
    Recorder::start(client)
}

#[tokio::test]
async fn a_rolling_restart_loses_no_event_refuses_none_and_tells_of_nobody_who_comes_back() {
    let mut backend = Backend::start().await;
    let mut cluster = Cluster::with(3, |settings| {
        settings.app = "webhook_delay = \"3s\"\n".to_owned();
        settings.webhooks = Some(backend.url());
    })
    .await;
    let mut clients = Vec::new();
    for node in &cluster.nodes {
        clients.push(member(node, &format!("user-of-{}", node.name)).await);
    }
    for index in 0..3 {
        let others = [(index + 1) % 3, (index + 2) % 3];
        let start = |other: &usize| {
            let node = &cluster.nodes[*other];
            Traffic::start(&format!("{index}-{}", node.name), node.addr, "room", Duration::from_millis(10))
        };
        let traffic: Vec<_> = others.iter().map(start).collect();
        for traffic in &traffic {
            traffic.flows(20).await;
        }
        cluster.nodes[index].stop().await;
        clients[index].expect_close(4200, PATIENCE).await;
        // As every client library does: at once, and to wherever the load balancer leads.
        let user = format!("user-of-{}", cluster.nodes[index].name);
        clients[index] = member(&cluster.nodes[others[0]], &user).await;
        cluster.nodes[index].come_back().await;
        cluster.settled().await;
        for traffic in &traffic {
            traffic.flows(20).await;
        }
        for traffic in traffic {
            let sent: Sent = traffic.stop().await;
            assert!(sent.refused.is_empty() && sent.unanswered.is_empty(), "{sent:?}");
            for other in others {
                sent.reaches(&clients[other], "room").await;
            }
        }
        // The next to be restarted has everybody: so it is moved on.
        let user = format!("user-of-{}", cluster.nodes[index].name);
        clients[index] = member(&cluster.nodes[index], &user).await;
    }

    // Whoever really leaves is told of, after everybody who had left before.
    drop(member(&cluster.nodes[0], "fence").await);
    let mut removed = HashSet::new();
    while !removed.contains("fence") {
        for event in backend.next_within(PATIENCE).await.events() {
            if event["name"] == "member_removed" {
                removed.insert(event["user_id"].as_str().unwrap().to_owned());
            }
            assert_ne!(event["name"], "channel_vacated", "{event}");
        }
    }
    assert_eq!(removed, HashSet::from(["fence".to_owned()]));
    for node in &cluster.nodes {
        eventually("everybody is there", PATIENCE, async || {
            let answer = node.api().await.get(&format!("/channels/{ROOM}/users"), &[]).await.json();
            let mut ids: Vec<_> = answer["users"].as_array().unwrap().iter().map(|user| user["id"].clone()).collect();
            ids.sort_by_key(Value::to_string);
            if ids == ["user-of-a", "user-of-b", "user-of-c"] { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }
}
