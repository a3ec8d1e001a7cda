//! Clients that do not read what they have subscribed to, and now and then show that they live.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::it::{Opcode, masked};
use crate::support::{Attacker, KIB, MIB, NEIGHBOUR, PATIENCE, Server, eventually, poll, siege};

const READERS: usize = 20;

/// Subscribes this many clients that will read nothing.
async fn deaf(server: &Server) -> Vec<Attacker> {
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = Attacker::connect_deaf(&server.dial(), server.addr).await.unwrap();
        reader.message(&json!({ "event": "pusher:subscribe", "data": { "channel": "news" } })).await.unwrap();
        readers.push(reader);
    }
    let subscribed = async || match server.metric("fanfare_subscriptions", "").await {
        count if count >= READERS as u64 => Ok(()),
        count => Err(format!("{count} subscriptions")),
    };
    eventually("all have subscribed", PATIENCE, subscribed).await;
    readers
}

/// Lets each of them send a PONG five times a second, for ever or until its connection ends.
fn alive(readers: Vec<Attacker>) -> JoinSet<Attacker> {
    let pong = masked(true, Opcode::Pong as u8, b"");
    let mut alive = JoinSet::new();
    for mut reader in readers {
        let pong = pong.clone();
        alive.spawn(async move {
            while reader.send(&pong).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            reader
        });
    }
    alive
}

/// Publishes so many events of 10 KB.
async fn publish(server: &Server, events: usize) {
    let mut api = server.api().await;
    let data = "x".repeat(10_000);
    for _ in 0..events.div_ceil(10) {
        let batch: Vec<_> = (0..10).map(|_| json!({ "name": "tick", "channel": "news", "data": data })).collect();
        api.post("/batch_events", &json!({ "batch": batch })).await.ok();
    }
}

#[tokio::test]
async fn clients_that_read_nothing_cost_no_more_than_their_buffers() {
    let server = Server::with(&["server.send_buffer=256KiB"]).await;
    let readers = deaf(&server).await;
    let siege = siege(&server, async {
        let alive = alive(readers);
        publish(&server, 500).await;
        drop(alive);
    })
    .await;
    // The kernel doubles what it is asked for, to have room for its own notes.
    let kernel = READERS as u64 * 2 * 256 * KIB;
    assert!(siege.unsent <= kernel, "more than {} MiB in the kernel: {siege}", kernel / MIB);
    // `limits.outbox` holds frames that all of them share.
    siege.cost_at_most(16 * MIB);
    assert!(server.metric("fanfare_connections_closed_total", "slow_consumer").await >= READERS as u64);
}

#[tokio::test]
async fn clients_that_accept_nothing_for_too_long_are_closed_with_4100() {
    // More than the kernel takes, and less than makes the outbox overflow: only time can tell.
    const EVENTS: usize = 150;
    let settings = ["server.send_buffer=128KiB", "server.write_timeout=2s", "app_defaults.limits.outbox=16MiB"];
    let server = Server::with(&settings).await;
    let readers = deaf(&server).await;
    let siege = siege(&server, async {
        let mut alive = alive(readers);
        publish(&server, EVENTS).await;
        let closed = async || match server.metric("fanfare_connections_closed_total", "code=\"4100\"").await {
            count if count == READERS as u64 => Ok(()),
            count => Err(format!("{count} of {READERS}")),
        };
        let closed = poll(Duration::from_secs(8), closed).await;
        let mut gone = Vec::new();
        while let Ok(Some(reader)) = tokio::time::timeout(Duration::from_secs(8), alive.join_next()).await {
            gone.push(reader.unwrap());
        }
        (closed, gone.len())
    })
    .await;
    let (closed, gone) = &siege.outcome;
    assert_eq!(closed, &Ok(()), "closed with 4100");
    assert_eq!(*gone, READERS, "connections that ended");
    siege.cost_at_most(16 * MIB);
    assert_eq!(server.metric("fanfare_connections", "app=\"42\"").await, 0);
}

#[tokio::test]
async fn clients_that_accept_nothing_do_not_stay_though_the_kernel_holds_all_they_are_owed() {
    // Everything fits into the buffer of the kernel: nothing waits in the process.
    let server = Server::with(&["server.send_buffer=1MiB", "server.write_timeout=2s"]).await;
    let readers = deaf(&server).await;
    let siege = siege(&server, async {
        let alive = alive(readers);
        publish(&server, 20).await;
        let gone = async || match server.metric("fanfare_connections", "app=\"42\"").await {
            // A visitor may be there.
            0..=1 => Ok(()),
            count => Err(format!("{count} connections")),
        };
        let gone = poll(Duration::from_secs(10), gone).await;
        drop(alive);
        gone
    })
    .await;
    assert_eq!(siege.outcome, Ok(()));
    siege.cost_at_most(16 * MIB);
}

#[tokio::test]
async fn a_client_that_reads_slowly_and_never_stops_is_not_closed_for_the_time_it_takes() {
    let server = Server::with(&["server.send_buffer=64KiB", "server.write_timeout=1s"]).await;
    let mut client = server.connect().await;
    client.subscribe("news").await;
    publish(&server, 60).await;
    // 600 KB, at the pace of somebody on a train.
    for _ in 0..60 {
        client.expect_on("news", "tick").await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    client.expect_silence().await;
    let (_, key, _) = NEIGHBOUR;
    let neighbour = Attacker::connect(&server.dial().path(&format!("/app/{key}")), server.addr).await.unwrap();
    assert_eq!(neighbour.heard.closed.load(Ordering::Relaxed), 0);
}
