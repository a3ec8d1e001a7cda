//! Protocol §1.5: a client that does not read pays for itself, and nobody else does.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::support::{DEADLINE, Item, Message, Opcode, TestServer, Wire, masked, wire_masked};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_is_closed_with_4100_and_the_others_get_everything() {
    let server = TestServer::with_app(|app| app.limits.outbox = 512 * 1024).await;
    let mut healthy = server.join("presence-room", "healthy").await;
    // A small window, so that the system does not take the messages in the client's place.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let wire = Wire::over(socket.connect(server.addr).await.unwrap());
    let mut slow = server.dial().open_over(wire).await;
    slow.greeting().await;
    slow.join("presence-room", "slow").await;
    healthy.expect("pusher_internal:member_added").await;

    let mut api = server.api().await;
    let padding = "x".repeat(10_000);
    let mut sent = 0_u32;
    let mut received = 0_u32;
    let mut removed = false;
    // The system's own buffers take some megabytes first.
    for _ in 0..200 {
        let batch: Vec<_> = (sent..sent + 10)
            .map(|n| json!({ "name": "tick", "channel": "presence-room", "data": format!("{n} {padding}") }))
            .collect();
        api.post("/batch_events", &json!({ "batch": batch })).await.ok();
        sent += 10;
        while received < sent {
            let message = healthy.next().await;
            if message.event() == "pusher_internal:member_removed" {
                assert!(!removed, "removed twice");
                removed = true;
                continue;
            }
            assert_eq!(message.text().split_once(' ').unwrap().0, received.to_string());
            received += 1;
        }
        if removed {
            break;
        }
    }
    assert!(removed || sent == 2000);

    // What it did get is the beginning, without a hole; then it is told.
    let mut expected = 0_u32;
    loop {
        match tokio::time::timeout(Duration::from_secs(10), slow.wire.item()).await.expect("an end") {
            Item::Text(text) => {
                let message = Message::parse(&text);
                assert_eq!(message.text().split_once(' ').unwrap().0, expected.to_string());
                expected += 1;
            }
            Item::Close(code, reason) => {
                assert_eq!((code, reason.as_str()), (Some(4100), "Over capacity"));
                break;
            }
            other => panic!("{other:?} after {expected} events"),
        }
    }
    assert!(expected < sent, "nothing was lost: was it slow at all?");
    if !removed {
        healthy.expect("pusher_internal:member_removed").await;
    }
    healthy.expect_silence().await;
}

#[tokio::test]
async fn a_busy_client_that_reads_is_left_alone() {
    let server = TestServer::with_app(|app| app.limits.outbox = 256 * 1024).await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    let mut api = server.api().await;
    let padding = "x".repeat(10_000);
    for n in 0..300 {
        let data = format!("{n} {padding}");
        api.trigger("room", "tick", &data).await;
        client.expect_event("room", "tick", &data).await;
    }
    client.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_without_reading_the_answers_cannot_go_on_for_ever() {
    let server = TestServer::with_app(|app| {
        app.limits.outbox = 64 * 1024;
        app.limits.messages_per_second = 0;
    })
    .await;
    let questions = [
        wire_masked(r#"{"event":"pusher:ping"}"#).repeat(500),
        wire_masked("not JSON").repeat(500),
        masked(true, Opcode::Ping as u8, &[b'x'; 125]).repeat(100),
    ];
    let mut asking = JoinSet::new();
    for question in questions {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut wire = Wire::over(socket.connect(server.addr).await.unwrap());
        wire.write(server.dial().request().as_bytes()).await;
        asking.spawn(async move {
            // The server closes, and reads on for the five seconds that the closing handshake may take.
            let asked = async { while wire.try_write(&question).await.is_ok() {} };
            tokio::time::timeout(2 * DEADLINE, asked).await.expect("the server still takes questions");
        });
    }
    asking.join_all().await;
    server.connect().await.subscribe("room").await;
}

#[tokio::test]
async fn an_old_client_that_is_too_slow_hears_the_error_first() {
    let server = TestServer::with_app(|app| app.limits.outbox = 1000).await;
    let mut old = server.dial().protocol(5).connect().await;
    let mut new = server.connect().await;
    old.subscribe("room").await;
    new.subscribe("room").await;
    // More than waits for anybody, in one piece.
    server.api().await.trigger("room", "greet", &"x".repeat(2000)).await;
    assert_eq!(old.expect_fatal(4100, true).await, "Over capacity");
    assert_eq!(new.expect_fatal(4100, false).await, "Over capacity");
}
