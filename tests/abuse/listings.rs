//! Questions whose answers are large.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::it::{APP_ID, Call, Http, Wire, wire_masked};
use crate::support::{Attacker, PATIENCE, Server, eventually, lasting, siege};

const CHANNELS: u64 = 50_000;

#[tokio::test]
async fn the_listing_of_one_tenants_channels_delays_nobody_else() {
    let settings = [
        "apps.0.limits.messages_per_second=0",
        "apps.0.limits.channels_per_connection=100000",
        "server.subscription_memory=4GiB",
    ];
    let server = Server::with(&settings).await;
    let before = server.memory();
    let mut tenants = JoinSet::new();
    for number in 0..10 {
        let mut tenant = Attacker::connect(&server.dial(), server.addr).await.unwrap();
        tenants.spawn(async move {
            for first in (0..CHANNELS / 10).step_by(500) {
                let message =
                    |n| json!({ "event": "pusher:subscribe", "data": { "channel": format!("room-{number}-{n}") } });
                let many: Vec<u8> = (first..first + 500).flat_map(|n| wire_masked(&message(n).to_string())).collect();
                tenant.send(&many).await.unwrap();
            }
            tenant
        });
    }
    let tenants = tenants.join_all().await;
    let subscribed = async || match tenants.iter().map(Attacker::answers).sum::<u64>() {
        CHANNELS => Ok(()),
        count => Err(format!("{count} subscriptions")),
    };
    eventually("all channels are there", PATIENCE, subscribed).await;
    let channels = server.memory() - before;
    let (answers, bytes) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let siege = siege(&server, async {
        let mut attack = JoinSet::new();
        for _ in 0..4 {
            let (answers, bytes, addr) = (answers.clone(), bytes.clone(), server.addr);
            attack.spawn(async move {
                loop {
                    let call = Call::get(&format!("/apps/{APP_ID}/channels")).with("info", "subscription_count");
                    let answer = tokio::time::timeout(PATIENCE, async {
                        let mut http = Http::new(Wire::connect(addr).await);
                        http.wire.write(&call.bytes()).await;
                        http.try_response().await
                    })
                    .await;
                    let answer = answer.expect("an answer").expect("the whole of it");
                    // Too many at once may be refused; a listing that comes is complete.
                    if answer.status == 200 {
                        let listed = answer.body.matches("\"room-").count() as u64;
                        assert_eq!(listed, CHANNELS);
                        answers.fetch_add(1, Ordering::Relaxed);
                        bytes.store(answer.body.len() as u64, Ordering::Relaxed);
                    } else {
                        assert!([429, 503].contains(&answer.status), "{}", answer.head);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            });
        }
        // None of them ends by itself.
        lasting(Duration::from_secs(3), async { attack.join_next().await.unwrap().unwrap() }).await;
    })
    .await;
    let (answers, bytes) = (answers.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
    eprintln!("   {answers} answers of {bytes} bytes; the channels themselves take {channels}");
    assert!(answers > 0, "nobody got an answer");
    // Four answers, and no second copy of what is in them.
    siege.cost_at_most(4 * 2 * bytes);
}
