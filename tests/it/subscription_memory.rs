//! The node's bound for the memory of subscriptions, and that everything is given back.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use fanfare::config::AppConfig;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::{Client, TestServer};

const USED: &str = "fanfare_subscription_memory_bytes";

/// Subscribes to ever new channels until there is no room. Returns how many fitted.
async fn fill(client: &mut Client, name: &str) -> usize {
    for number in 0.. {
        let channel = format!("{name}-{number}");
        client.send(client.subscription(&channel)).await;
        if client.next().await.event() != "pusher_internal:subscription_succeeded" {
            return number;
        }
    }
    unreachable!("there are more numbers than bytes");
}

#[tokio::test]
async fn subscriptions_above_the_memory_are_refused_until_others_end() {
    let server = TestServer::with(|config| config.server.subscription_memory = 64 * 1024).await;
    let mut greedy = server.connect().await;
    let fitted = fill(&mut greedy, "greedy").await;
    assert!((25..200).contains(&fitted), "{fitted} subscriptions in three quarters of 64 KiB");
    greedy.expect_only_rejections().await;
    // What is left is for connections with few subscriptions, until nothing is.
    let mut modest = Vec::new();
    let mut refused = loop {
        let mut client = server.connect().await;
        match fill(&mut client, &format!("modest-{}", modest.len())).await {
            0 => break client,
            count => assert!(count <= 20, "{count}"),
        }
        client.expect_only_rejections().await;
        modest.push(client);
    };
    assert!(!modest.is_empty());
    refused.expect_only_rejections().await;
    refused.send(refused.subscription("late")).await;
    let text = refused.expect_rejection("late", "LimitReached", 403).await;
    assert!(text.contains("server.subscription_memory"), "{text}");
    server.expect_metric("fanfare_subscriptions_refused_total", 3 + u32::try_from(modest.len()).unwrap()).await;
    assert!(server.metric(USED).await <= 64.0 * 1024.0 + 1024.0);
    for number in 0..3 {
        greedy.leave(&format!("greedy-{number}")).await;
    }
    refused.subscribe("late").await;
    for client in modest.into_iter().chain([greedy]) {
        client.disconnect().await;
    }
    refused.leave("late").await;
    server.expect_metric(USED, 0).await;
    let again = fill(&mut refused, "others").await;
    assert!(again.abs_diff(fitted) <= 1, "{again} fit now, {fitted} did before");
}

#[tokio::test]
async fn one_app_cannot_take_the_memory_of_another() {
    let server = TestServer::with(|config| {
        config.server.subscription_memory = 256 * 1024;
        config.apps.push(AppConfig::new("43", "another-key", "another-secret-of-the-tests"));
    })
    .await;
    let mut greedy = server.connect().await;
    let fitted = fill(&mut greedy, "greedy").await;
    assert!(fitted > 100, "{fitted}");
    let mut honest = server.dial().path("/app/another-key").connect().await;
    for number in 0..10 {
        honest.subscribe(&format!("room-{number}")).await;
    }
}

#[tokio::test]
async fn counts_and_memory_follow_every_subscription_and_end_at_nothing() {
    let server = TestServer::start().await;
    let mut random = StdRng::seed_from_u64(15);
    let mut clients: BTreeMap<usize, (Client, BTreeSet<String>)> = BTreeMap::new();
    for step in 0..400 {
        let who = random.random_range(0..6_usize);
        if let Entry::Vacant(entry) = clients.entry(who) {
            entry.insert((server.connect().await, BTreeSet::new()));
        }
        let (client, subscribed) = clients.get_mut(&who).unwrap();
        let number = random.random_range(0..8);
        let channel = ["room", "private-room", "presence-room"][number % 3].to_owned() + &format!("-{number}");
        match random.random_range(0..20) {
            0 => {
                // Without a word: the socket is closed.
                clients.remove(&who);
            }
            1 => clients.remove(&who).unwrap().0.disconnect().await,
            2 => {
                client.send(client.membership("presence-room-2", "{}")).await;
                client
                    .send(serde_json::json!({ "event": "pusher:unsubscribe", "data": { "channel": "nowhere" } }))
                    .await;
            }
            _ if subscribed.remove(&channel) => client.unsubscribe(&channel).await,
            _ => {
                let request = match channel.starts_with("presence-") {
                    true => {
                        client.membership(&channel, &serde_json::json!({ "user_id": step.to_string() }).to_string())
                    }
                    false => client.subscription(&channel),
                };
                client.send(request).await;
                subscribed.insert(channel);
            }
        }
        if step % 50 == 49 {
            let all = clients.values().flat_map(|(_, subscribed)| subscribed);
            let (subscriptions, channels) = (all.clone().count(), all.collect::<BTreeSet<_>>().len());
            server.expect_metric("fanfare_subscriptions", subscriptions as u32).await;
            server.expect_metric("fanfare_channels", channels as u32).await;
        }
    }
    assert!(server.metric(USED).await > 1000.0);
    clients.clear();
    for metric in ["fanfare_subscriptions", "fanfare_channels", USED] {
        server.expect_metric(metric, 0).await;
    }
}
