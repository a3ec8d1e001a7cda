//! Protocol §1.4: who is alive, and how the server finds out.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{DEADLINE, Item, Opcode, TestServer};

const SECOND: Duration = Duration::from_secs(1);

async fn impatient() -> TestServer {
    TestServer::with_app(|app| {
        app.limits.activity_timeout = SECOND;
        app.limits.pong_timeout = SECOND;
    })
    .await
}

#[tokio::test]
async fn a_silent_client_is_pinged_by_a_control_frame_and_then_closed_with_4201() {
    let server = impatient().await;
    let mut client = server.dial().open().await;
    assert_eq!(client.greeting().await.data()["activity_timeout"], 1);
    client.answers_pings = false;
    match client.item().await {
        Item::Ping(_) => {}
        _ => client.fail("expected a control ping"),
    }
    // The peer is probably gone, so nobody waits for its answer.
    assert_eq!(client.expect_unanswered_close(4201).await, "Pong reply not received in time");
    let closed = Instant::now();
    client.expect_end().await;
    assert!(closed.elapsed() < 2 * SECOND, "waited {:?} for a closing handshake", closed.elapsed());
}

#[tokio::test]
async fn an_old_client_that_does_not_answer_hears_the_error_first() {
    let server = impatient().await;
    let mut client = server.dial().protocol(5).connect().await;
    client.answers_pings = false;
    assert!(matches!(client.item().await, Item::Ping(_)));
    assert_eq!(client.expect_fatal(4201, true).await, "Pong reply not received in time");
}

#[tokio::test]
async fn a_client_that_vanished_leaves_its_channels() {
    let server = impatient().await;
    let mut ann = server.join("presence-room", "ann").await;
    let mut bob = server.join("presence-room", "bob").await;
    bob.answers_pings = false;
    ann.expect_on("presence-room", "pusher_internal:member_added").await;
    let removed = ann.expect_on("presence-room", "pusher_internal:member_removed").await;
    assert_eq!(removed.data(), json!({ "user_id": "bob" }));
    assert!(matches!(bob.item().await, Item::Ping(_)));
    bob.expect_close(4201).await;
}

#[tokio::test]
async fn a_pong_or_any_message_after_the_ping_keeps_the_connection() {
    let server = impatient().await;
    let mut ponging = server.connect().await;
    let mut talking = server.connect().await;
    let mut pinging = server.connect().await;
    let mut silent = server.connect().await;
    for client in [&mut ponging, &mut talking, &mut pinging, &mut silent] {
        client.answers_pings = false;
        assert!(matches!(client.item().await, Item::Ping(_)));
    }
    ponging.send_control(Opcode::Pong, b"").await;
    talking.send(json!({ "event": "pusher:pong", "data": {} })).await;
    pinging.send_control(Opcode::Ping, b"x").await;
    assert!(matches!(pinging.item().await, Item::Pong(payload) if payload == b"x"));
    // The one that said nothing marks the moment at which the others would have been closed.
    silent.expect_close(4201).await;
    for client in [&mut ponging, &mut talking, &mut pinging] {
        assert!(matches!(client.item().await, Item::Ping(_)), "still alive, so pinged again");
    }
}

#[tokio::test]
async fn what_the_server_sends_is_no_sign_of_life() {
    let server = impatient().await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    client.answers_pings = false;
    let mut api = server.api().await;
    let started = Instant::now();
    let end = loop {
        assert!(started.elapsed() < DEADLINE, "never closed");
        api.trigger("room", "tick", "{}").await;
        match client.item().await {
            Item::Text(_) | Item::Ping(_) => {}
            other => break other,
        }
    };
    assert!(matches!(end, Item::Close(Some(4201), _)), "{end:?}");
}

#[tokio::test]
async fn a_pusher_ping_is_answered_whatever_its_data() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let mut pings = vec![json!({ "event": "pusher:ping" })];
    for data in [json!({}), json!("{}"), json!(""), Value::Null, json!([]), json!(1), json!("not JSON")] {
        pings.push(json!({ "event": "pusher:ping", "data": data }));
    }
    for ping in &pings {
        client.label(&ping.to_string());
        client.send(ping.clone()).await;
        client.expect_json(json!({ "event": "pusher:pong", "data": "{}" })).await;
    }
    // Each of them once, also when they come all at once.
    client.send_all(&pings).await;
    for _ in &pings {
        client.expect_json(json!({ "event": "pusher:pong", "data": "{}" })).await;
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn a_pusher_pong_is_taken_in_silence() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.send(json!({ "event": "pusher:pong", "data": {} })).await;
    client.send(json!({ "event": "pusher:pong" })).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn a_control_ping_is_answered_with_its_payload() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for payload in [b"".to_vec(), b"hello".to_vec(), vec![0xff; 125]] {
        client.send_control(Opcode::Ping, &payload).await;
        match client.item().await {
            Item::Pong(echoed) => assert_eq!(echoed, payload),
            other => panic!("{other:?}"),
        }
    }
    client.send_control(Opcode::Pong, b"nobody asked").await;
    client.expect_silence().await;
}

#[tokio::test]
async fn control_frames_do_not_count_as_messages() {
    let server = TestServer::with_app(|app| {
        app.client_events = true;
        app.limits.client_events_per_second = 2;
    })
    .await;
    let mut sender = server.connect().await;
    let mut receiver = server.connect().await;
    sender.subscribe_private("private-room").await;
    receiver.subscribe_private("private-room").await;
    for _ in 0..100 {
        sender.send_control(Opcode::Ping, b"").await;
        assert!(matches!(sender.item().await, Item::Pong(_)));
        sender.send(json!({ "event": "pusher:ping" })).await;
        sender.expect("pusher:pong").await;
    }
    sender.send_event("private-room", "client-a", json!("1")).await;
    sender.send_event("private-room", "client-a", json!("2")).await;
    receiver.expect_event("private-room", "client-a", "1").await;
    receiver.expect_event("private-room", "client-a", "2").await;
    sender.expect_silence().await;
}
