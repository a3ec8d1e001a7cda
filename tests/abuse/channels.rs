//! Subscriptions without end, over one connection and over many.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::it::wire_masked;
use crate::support::{Attacker, MIB, PATIENCE, Server, siege};

/// Requests for so many public channels with long names, in one piece.
fn subscriptions(channels: impl Iterator<Item = usize>) -> Vec<u8> {
    let padding = "x".repeat(120);
    let message = |n| json!({ "event": "pusher:subscribe", "data": { "channel": format!("{padding}-{n}") } });
    channels.flat_map(|n| wire_masked(&message(n).to_string())).collect()
}

#[tokio::test]
async fn one_connection_has_no_more_channels_than_its_limit() {
    const ATTEMPTS: u64 = 10_000;
    // Without a limit for the rate: that of the number has to hold alone.
    let server = Server::with(&["app_defaults.limits.messages_per_second=0"]).await;
    let mut attacker = Attacker::connect(&server.dial(), server.addr).await.unwrap();
    let siege = siege(&server, async {
        for first in (0..ATTEMPTS as usize).step_by(100) {
            // As fast as it can read what it gets for them, so that this is not about slow readers.
            while attacker.answers() + 500 < first as u64 && !attacker.is_closed() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            attacker.send(&subscriptions(first..first + 100)).await.unwrap();
        }
        assert!(attacker.answered(ATTEMPTS, PATIENCE).await, "{:?}", attacker.heard);
        attacker.heard.succeeded.load(Ordering::Relaxed)
    })
    .await;
    assert_eq!(siege.outcome, 1000, "channels");
    assert!(server.metric("fanfare_subscriptions", "").await <= 1001);
    siege.cost_at_most(16 * MIB);
}

#[tokio::test]
async fn subscriptions_of_all_connections_together_stay_within_their_memory() {
    const CONNECTIONS: usize = 40;
    let server = Server::with(&["server.subscription_memory=16MiB", "app_defaults.limits.messages_per_second=0"]).await;
    let mut attackers = Vec::new();
    for _ in 0..CONNECTIONS {
        attackers.push(Attacker::connect(&server.dial(), server.addr).await.unwrap());
    }
    let siege = siege(&server, async {
        let mut attack = JoinSet::new();
        // No two of them have a channel in common.
        for (number, mut attacker) in attackers.into_iter().enumerate() {
            attack.spawn(async move {
                for first in (0..1000).step_by(50).map(|first| number * 1000 + first) {
                    attacker.send(&subscriptions(first..first + 50)).await.unwrap();
                }
                assert!(attacker.answered(1000, PATIENCE).await, "{:?}", attacker.heard);
                attacker
            });
        }
        let attackers = attack.join_all().await;
        // They stay for a while, and everybody else comes and goes.
        tokio::time::sleep(Duration::from_secs(1)).await;
        attackers
    })
    .await;
    let sum = |count: fn(&Attacker) -> u64| siege.outcome.iter().map(count).sum::<u64>();
    let succeeded = sum(|attacker| attacker.heard.succeeded.load(Ordering::Relaxed));
    let refused = sum(|attacker| attacker.heard.errors.load(Ordering::Relaxed));
    // About 1 KiB each, and the names: the estimate may be too high or too low, but not by a multiple.
    assert!((4_000..=24_000).contains(&succeeded), "{succeeded} subscriptions in 16 MiB, {refused} refused");
    assert!(refused > 0, "nothing was refused");
    siege.cost_at_most(2 * 16 * MIB);
}
