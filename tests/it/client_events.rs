//! Protocol §2.8: events that clients send to each other.

use serde_json::{Value, json};

use crate::support::{Client, TestServer};

async fn server() -> TestServer {
    TestServer::with_app(|app| app.client_events = true).await
}

async fn pair(server: &TestServer, channel: &str) -> (Client, Client) {
    let (mut sender, mut receiver) = (server.connect().await, server.connect().await);
    sender.subscribe_private(channel).await;
    receiver.subscribe_private(channel).await;
    (sender, receiver)
}

#[tokio::test]
async fn everybody_but_the_sender_gets_a_client_event() {
    let server = server().await;
    let (mut sender, mut receiver) = pair(&server, "private-room").await;
    let mut third = server.connect().await;
    third.subscribe_private("private-room").await;
    let mut elsewhere = server.connect().await;
    elsewhere.subscribe_private("private-other").await;
    sender.send_event("private-room", "client-typing", json!({ "on": true })).await;
    for client in [&mut receiver, &mut third] {
        client.expect_event("private-room", "client-typing", r#"{"on":true}"#).await;
        client.expect_silence().await;
    }
    sender.expect_silence().await;
    elsewhere.expect_silence().await;
}

#[tokio::test]
async fn a_string_is_forwarded_unchanged_and_anything_else_as_json_text() {
    let server = TestServer::with_app(|app| {
        app.client_events = true;
        app.limits.client_events_per_second = 1000;
    })
    .await;
    let (mut sender, mut receiver) = pair(&server, "private-room").await;
    for text in ["", "plain", r#"{"on":true}"#, " { } ", "\"quoted\"", "ü\u{2028}\n\t\0😀", "</script>\\"] {
        sender.send_event("private-room", "client-a", json!(text)).await;
        receiver.expect_event("private-room", "client-a", text).await;
    }
    let values = [json!({ "a": [1, { "b": null }] }), json!([]), json!(true), json!(12.5), json!({ "ü": "\n" })];
    for value in values {
        sender.send_event("private-room", "client-a", value.clone()).await;
        let message = receiver.expect_on("private-room", "client-a").await;
        assert_eq!(message.data(), value);
    }
}

#[tokio::test]
async fn every_private_or_presence_kind_carries_client_events() {
    let server = server().await;
    for channel in [
        "private-a",
        "private-encrypted-a",
        "private-cache-a",
        "private-encrypted-cache-a",
        "presence-a",
        "presence-cache-a",
    ] {
        let (mut sender, mut receiver) = (server.connect().await, server.connect().await);
        for (client, id) in [(&mut sender, "7"), (&mut receiver, "8")] {
            if channel.starts_with("presence-") {
                client.join(channel, id).await;
            } else {
                client.subscribe_private(channel).await;
            }
            if channel.contains("-cache-") {
                client.expect_on(channel, "pusher:cache_miss").await;
            }
        }
        if channel.starts_with("presence-") {
            sender.expect_on(channel, "pusher_internal:member_added").await;
        }
        sender.send_event(channel, "client-a", json!({})).await;
        let message = receiver.expect_on(channel, "client-a").await;
        let user_id = channel.starts_with("presence-").then_some("7");
        assert_eq!(message.json.get("user_id").and_then(Value::as_str), user_id, "{channel}");
        sender.expect_silence().await;
    }
}

#[tokio::test]
async fn on_a_presence_channel_the_server_says_who_sent_it() {
    let server = server().await;
    let mut ann = server.join("presence-room", "ann").await;
    let mut bob = server.join("presence-room", "bob").await;
    ann.expect("pusher_internal:member_added").await;
    ann.send(json!({
        "event": "client-typing", "channel": "presence-room", "data": {}, "user_id": "bob", "extra": 1
    }))
    .await;
    bob.expect_json(json!({ "event": "client-typing", "channel": "presence-room", "data": "{}", "user_id": "ann" }))
        .await;
    // The sender's other connections are receivers like any other.
    let mut second = server.join("presence-room", "ann").await;
    ann.send_event("presence-room", "client-typing", json!("x")).await;
    for client in [&mut bob, &mut second] {
        client
            .expect_json(json!({ "event": "client-typing", "channel": "presence-room", "data": "x", "user_id": "ann" }))
            .await;
    }
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_user_id_on_a_private_channel_is_dropped() {
    let server = server().await;
    let (mut sender, mut receiver) = pair(&server, "private-room").await;
    sender.sign_in("7").await;
    sender.send(json!({ "event": "client-a", "channel": "private-room", "data": "x", "user_id": "7" })).await;
    receiver.expect_event("private-room", "client-a", "x").await;
}

#[tokio::test]
async fn client_events_are_off_by_default() {
    let server = TestServer::start().await;
    let (mut sender, mut receiver) = pair(&server, "private-room").await;
    sender.send_event("private-room", "client-a", json!({})).await;
    sender
        .expect_error("To send client events, you must enable this feature in the Settings page of your dashboard.")
        .await;
    sender.expect_silence().await;
    receiver.expect_silence().await;
}

#[tokio::test]
async fn each_condition_has_its_error_and_the_event_is_dropped() {
    let server = server().await;
    let prefix = "Client event rejected - client events must be prefixed by 'client-'";
    let parts = "Invalid client event (must contain channel and data)";
    let kind = "Client event rejected - only supported on private and presence channels";
    let rows = [
        (json!({ "event": "typing", "channel": "private-room", "data": {} }), prefix),
        (json!({ "event": "clienttyping", "channel": "private-room", "data": {} }), prefix),
        (json!({ "event": "Client-typing", "channel": "private-room", "data": {} }), prefix),
        (json!({ "event": "", "channel": "private-room", "data": {} }), prefix),
        (json!({ "event": "client-a", "data": {} }), parts),
        (json!({ "event": "client-a", "channel": "private-room" }), parts),
        (json!({ "event": "client-a" }), parts),
        (json!({ "event": "client-a", "channel": "room", "data": {} }), kind),
        (json!({ "event": "client-a", "channel": "cache-room", "data": {} }), kind),
        (json!({ "event": "client-a", "channel": "privateer", "data": {} }), kind),
        (json!({ "event": "client-a", "channel": "#server-to-user-7", "data": {} }), kind),
        (
            json!({ "event": "client-a", "channel": "private-other", "data": {} }),
            "Cannot broadcast client event (connection not subscribed to channel private-other)",
        ),
        (
            json!({ "event": "client-a", "channel": "presence-other", "data": {} }),
            "Cannot broadcast client event (connection not subscribed to channel presence-other)",
        ),
    ];
    for (message, text) in rows {
        let (mut sender, mut receiver) = pair(&server, "private-room").await;
        for client in [&mut sender, &mut receiver] {
            client.label(&message.to_string());
            client.subscribe("room").await;
        }
        sender.sign_in("7").await;
        sender.send(message).await;
        sender.expect_error(text).await;
        sender.expect_silence().await;
        receiver.expect_silence().await;
    }
}

#[tokio::test]
async fn a_channel_that_was_left_takes_no_more_client_events() {
    let server = server().await;
    let (mut sender, mut receiver) = pair(&server, "private-room").await;
    sender.leave("private-room").await;
    sender.send_event("private-room", "client-a", json!({})).await;
    sender.expect_error("Cannot broadcast client event (connection not subscribed to channel private-room)").await;
    receiver.expect_silence().await;
}

#[tokio::test]
async fn ten_events_a_second_pass_and_the_eleventh_is_refused_with_4301() {
    let server = server().await;
    let (mut sender, mut receiver) = pair(&server, "private-a").await;
    sender.subscribe_private("private-b").await;
    receiver.subscribe_private("private-b").await;
    // The budget is one for all channels.
    let event = |n: usize| json!({ "event": "client-a", "channel": (["private-a", "private-b"][n % 2]), "data": n.to_string() });
    let burst: Vec<_> = (0..15).map(event).collect();
    sender.send_all(&burst).await;
    for n in 0..10 {
        receiver.expect_event(["private-a", "private-b"][n % 2], "client-a", &n.to_string()).await;
    }
    for _ in 10..15 {
        let error = sender.expect("pusher:error").await;
        assert_eq!(error.json["data"]["code"], 4301);
        assert_eq!(error.error(), "The rate limit for sending client events exceeded the quota.");
    }
    receiver.expect_silence().await;
    sender.expect_silence().await;

    // The budget comes back; trying in the meantime does not push that away.
    let mut tries: usize = 0;
    loop {
        sender.send_event("private-a", "client-a", json!("later")).await;
        sender.send(json!({ "event": "pusher:ping" })).await;
        let answer = sender.next().await;
        if answer.event() == "pusher:pong" {
            break;
        }
        assert_eq!(answer.json["data"]["code"], 4301);
        sender.expect("pusher:pong").await;
        tries += 1;
        assert!(tries < 1_000_000, "never again");
    }
    receiver.expect_event("private-a", "client-a", "later").await;
}

#[tokio::test]
async fn rejected_events_do_not_use_up_the_budget() {
    let server = server().await;
    let (mut sender, mut receiver) = pair(&server, "private-room").await;
    for _ in 0..30 {
        sender.send_event("room", "client-a", json!({})).await;
        sender.expect_error("Client event rejected - only supported on private and presence channels").await;
    }
    for n in 0..10 {
        sender.send_event("private-room", "client-a", json!(n.to_string())).await;
        receiver.expect_event("private-room", "client-a", &n.to_string()).await;
    }
}

#[tokio::test]
async fn the_budget_belongs_to_one_connection() {
    let server = server().await;
    let (mut one, mut two) = pair(&server, "private-room").await;
    let burst: Vec<_> =
        (0..10).map(|_| json!({ "event": "client-a", "channel": "private-room", "data": "1" })).collect();
    one.send_all(&burst).await;
    one.settle().await;
    two.send_all(&burst).await;
    for client in [&mut one, &mut two] {
        for _ in 0..10 {
            client.expect_event("private-room", "client-a", "1").await;
        }
        client.expect_silence().await;
    }
}
