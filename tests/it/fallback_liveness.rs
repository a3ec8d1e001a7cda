//! Protocol §7.4, "Heartbeats and liveness": who is alive, over HTTP.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{DEADLINE, Packet, TestServer};

const SECOND: Duration = Duration::from_secs(1);

async fn impatient() -> TestServer {
    TestServer::with_app(|app| {
        app.limits.activity_timeout = SECOND;
        app.limits.pong_timeout = SECOND;
    })
    .await
}

async fn beating() -> TestServer {
    TestServer::with(|config| config.fallbacks.heartbeat = SECOND).await
}

#[tokio::test]
async fn an_idle_stream_gets_a_heartbeat_and_goes_on() {
    let server = beating().await;
    let session = server.fallback();
    let mut stream = session.open_stream().await;
    for _ in 0..2 {
        let since = Instant::now();
        stream.expect_line("h").await;
        assert!((SECOND / 2..3 * SECOND).contains(&since.elapsed()), "after {:?}", since.elapsed());
    }
    session.send(&[json!({ "event": "pusher:ping" })]).await;
    stream.expect_message("pusher:pong").await;
    stream.expect_line("h").await;
}

#[tokio::test]
async fn a_poll_that_nothing_comes_for_ends_with_a_heartbeat() {
    let server = beating().await;
    let client = server.fallback().connect_polling().await;
    for _ in 0..2 {
        let since = Instant::now();
        let response = client.session.poll().await;
        assert_eq!((response.status, response.body.as_str()), (200, "h\n"), "{}", response.head);
        assert!((SECOND / 2..3 * SECOND).contains(&since.elapsed()), "after {:?}", since.elapsed());
    }
}

#[tokio::test]
async fn a_busy_stream_gets_a_heartbeat_once_its_client_has_been_silent() {
    let server = impatient().await;
    let session = server.fallback();
    let mut stream = session.open_stream().await;
    session.send(&[json!({ "event": "pusher:subscribe", "data": { "channel": "room" } })]).await;
    stream.expect_message("pusher_internal:subscription_succeeded").await;
    let mut api = server.api().await;
    let start = Instant::now();
    let (mut beats, mut events) = (0, 0);
    // No more than fits into one response.
    let mut pace = tokio::time::interval(SECOND / 20);
    let reason = loop {
        assert!(start.elapsed() < DEADLINE, "never closed");
        pace.tick().await;
        api.trigger("room", "tick", "{}").await;
        match &Packet::parse(&stream.line().await.expect("an end with a reason"))[..] {
            [Packet::Heartbeat] => beats += 1,
            [Packet::Close(4201, reason)] => break reason.clone(),
            [Packet::Message(_), ..] => events += 1,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason, "Pong reply not received in time");
    stream.expect_end().await;
    assert_eq!(beats, 1);
    assert!(events > 5, "it was not busy");
    assert!((2 * SECOND..4 * SECOND).contains(&start.elapsed()), "closed after {:?}", start.elapsed());
}

#[tokio::test]
async fn a_stream_whose_client_answers_heartbeats_lives() {
    let server = impatient().await;
    let mut alive = server.fallback().connect_streaming().await;
    let mut talking = server.fallback().connect_streaming().await;
    let mut silent = server.fallback().connect_streaming().await;
    for client in [&mut alive, &mut talking, &mut silent] {
        assert!(matches!(client.packet().await, Packet::Heartbeat));
    }
    alive.session.send(&[]).await;
    talking.send(json!({ "event": "pusher:pong", "data": {} })).await;
    // The one that said nothing marks the moment at which the others would have been closed.
    assert_eq!(silent.expect_close(4201).await, "Pong reply not received in time");
    for client in [&mut alive, &mut talking] {
        client.subscribe("room").await;
    }
}

#[tokio::test]
async fn an_old_client_that_does_not_answer_hears_the_error_first() {
    let server = impatient().await;
    let session = server.fallback().protocol(5);
    let mut stream = session.open_stream().await;
    stream.expect_line("h").await;
    let error = stream.expect_message("pusher:error").await;
    assert_eq!(error.json["data"]["code"], 4201);
    stream.expect_line(r#"c[4201,"Pong reply not received in time"]"#).await;
    stream.expect_end().await;
}

#[tokio::test]
async fn every_new_request_to_receive_is_a_sign_of_life() {
    let server = TestServer::with(|config| {
        config.fallbacks.heartbeat = SECOND;
        config.apps[0].limits.activity_timeout = SECOND;
        config.apps[0].limits.pong_timeout = SECOND;
    })
    .await;
    let mut polling = server.fallback().connect_polling().await;
    let start = Instant::now();
    while start.elapsed() < 3 * SECOND {
        assert!(matches!(polling.packet().await, Packet::Heartbeat));
    }
    polling.expect_silence().await;
}

#[tokio::test]
async fn a_client_that_vanished_with_its_connection_open_leaves_its_channels() {
    let server = impatient().await;
    let mut ann = server.join("presence-room", "ann").await;
    let mut bob = server.fallback().connect_streaming().await;
    bob.join("presence-room", "bob").await;
    ann.expect_on("presence-room", "pusher_internal:member_added").await;
    let removed = ann.expect_on("presence-room", "pusher_internal:member_removed").await;
    assert_eq!(removed.data(), json!({ "user_id": "bob" }));
    bob.answers_heartbeats = false;
    assert!(matches!(bob.packet().await, Packet::Heartbeat));
    bob.expect_close(4201).await;
}
