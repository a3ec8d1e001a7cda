//! The same with several nodes: what one client asks of Redis must not be in the way of others.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::it::{Redis, wire_masked};
use crate::support::{Attacker, MIB, Server, lasting, siege};

/// A cluster of two nodes.
async fn pair(settings: &[&str]) -> (Redis, Server, Server) {
    let redis = Redis::start();
    let url = format!("cluster.urls={}", redis.url());
    let common = [&["cluster.driver=redis", &url], settings].concat();
    let first = Server::with(&[&common[..], &["cluster.node=a"]].concat()).await;
    let second = first.beside(&[&common[..], &["cluster.node=b"]].concat()).await;
    (redis, first, second)
}

#[tokio::test]
async fn subscriptions_of_one_client_do_not_stand_before_those_of_others() {
    const CHANNELS: usize = 60_000;
    const INNOCENT: usize = 50;
    let settings = ["app_defaults.limits.messages_per_second=0", "app_defaults.limits.channels_per_connection=1000000"];
    let (_redis, server, _other) = pair(&settings).await;
    let mut attacker = Attacker::connect(&server.dial(), server.addr).await.unwrap();
    let mut innocent = Vec::new();
    for _ in 0..INNOCENT {
        innocent.push(Attacker::connect(&server.dial(), server.addr).await.unwrap());
    }
    let siege = siege(&server, async {
        let attack = async {
            for first in (0..CHANNELS).step_by(200) {
                let message = |n| json!({ "event": "pusher:subscribe", "data": { "channel": format!("flood-{n}") } });
                let many: Vec<u8> = (first..first + 200).flat_map(|n| wire_masked(&message(n).to_string())).collect();
                if attacker.send(&many).await.is_err() {
                    // Sent away is as good as refused.
                    break;
                }
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        };
        // Meanwhile, 50 others subscribe together.
        let others = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let mut others = JoinSet::new();
            for (number, mut client) in innocent.into_iter().enumerate() {
                others.spawn(async move {
                    let (start, channel) = (Instant::now(), format!("innocent-{number}"));
                    client
                        .message(&json!({ "event": "pusher:subscribe", "data": { "channel": channel } }))
                        .await
                        .unwrap();
                    client.answered(1, Duration::from_secs(10)).await;
                    (start.elapsed(), client.heard.succeeded.load(Ordering::Relaxed))
                });
            }
            let others = others.join_all().await;
            let succeeded = others.iter().map(|(_, succeeded)| succeeded).sum::<u64>();
            (others.into_iter().map(|(time, _)| time).max().unwrap(), succeeded)
        };
        let (others, ()) = tokio::join!(others, lasting(Duration::from_secs(10), attack));
        others
    })
    .await;
    let heard = &attacker.heard;
    let (worst, succeeded) = siege.outcome;
    eprintln!(
        "   of {INNOCENT} others, {succeeded} subscribed, the slowest in {worst:?}; \
         of {CHANNELS}, {} succeeded and {} were refused",
        heard.succeeded.load(Ordering::Relaxed),
        heard.errors.load(Ordering::Relaxed)
    );
    assert_eq!(succeeded, INNOCENT as u64, "others were refused");
    assert!(worst < Duration::from_secs(1), "others waited {worst:?}");
    siege.cost_at_most(128 * MIB);
}

#[tokio::test]
async fn cached_events_at_redis_stay_within_their_memory() {
    let (redis, server, _other) = pair(&["app_defaults.limits.cache_size=1MiB", "cluster.replay=0s"]).await;
    let used = || {
        let info = redis.cli(&["INFO", "memory"]);
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let before = used();
    let siege = siege(&server, crate::caches::fill(&server, 1000)).await;
    let grown = used().saturating_sub(before);
    eprintln!("   Redis grew by {grown} bytes");
    assert!(grown <= 4 * MIB, "Redis grew by {grown} bytes");
    siege.cost_at_most(16 * MIB);
}
