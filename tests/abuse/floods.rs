//! A hundred connections that send what costs them nothing.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::it::{Opcode, masked, wire_masked};
use crate::support::{Attacker, MIB, Server, lasting, siege};

const CONNECTIONS: usize = 100;

/// Each connection sends this again and again, as fast as the server reads it.
async fn flood(message: &[u8]) {
    let server = Server::with(&[]).await;
    let mut attackers = Vec::new();
    for _ in 0..CONNECTIONS {
        attackers.push(Attacker::connect(&server.dial(), server.addr).await.unwrap());
    }
    // Many in one write, so that it is the server that is busy and not this process.
    let many = message.repeat((16 * 1024 / message.len()).max(1));
    let siege = siege(&server, async {
        let mut attack = JoinSet::new();
        for mut attacker in attackers {
            let many = many.clone();
            attack.spawn(async move {
                while attacker.send(&many).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            });
        }
        lasting(Duration::from_secs(2), async { while attack.join_next().await.is_some() {} }).await;
    })
    .await;
    assert!(siege.lines <= 60, "{siege}");
    siege.cost_at_most(64 * MIB);
}

#[tokio::test]
async fn refused_subscriptions_delay_nobody_else() {
    let data = json!({ "channel": "private-room", "auth": "app-key-1:0000" });
    flood(&wire_masked(&json!({ "event": "pusher:subscribe", "data": data }).to_string())).await;
}

#[tokio::test]
async fn subscriptions_that_come_and_go_delay_nobody_else() {
    let of = |verb: &str| wire_masked(&json!({ "event": verb, "data": { "channel": "room" } }).to_string());
    flood(&[of("pusher:subscribe"), of("pusher:unsubscribe")].concat()).await;
}

#[tokio::test]
async fn empty_frames_delay_nobody_else() {
    flood(&masked(true, Opcode::Text as u8, b"")).await;
}

#[tokio::test]
async fn empty_fragments_delay_nobody_else() {
    // A message of pieces without a byte, which is therefore never too long.
    flood(&[masked(false, Opcode::Text as u8, b""), masked(false, 0, b"").repeat(2000), masked(true, 0, b"")].concat())
        .await;
}

#[tokio::test]
async fn pings_delay_nobody_else() {
    let event = wire_masked(r#"{"event":"pusher:ping","data":{}}"#);
    flood(&[masked(true, Opcode::Ping as u8, b"12345678"), event].concat()).await;
}

#[tokio::test]
async fn binary_frames_delay_nobody_else() {
    flood(&masked(true, Opcode::Binary as u8, b"12345678")).await;
}

#[tokio::test]
async fn bad_json_delays_nobody_else() {
    flood(&wire_masked(&format!("{{\"event\":\"pusher:subscribe\",\"data\":[{}", "1,".repeat(200)))).await;
}
