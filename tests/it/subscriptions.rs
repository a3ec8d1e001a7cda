//! Protocol §2.3, §2.4, §2.6, §2.12: subscribing, unsubscribing, and being refused.

use fanfare::config::{AppConfig, KeyPair, Secret};
use serde_json::json;

use crate::support::{KEY, SECRET, TestServer, sign};

#[tokio::test]
async fn a_public_channel_takes_whatever_stands_in_auth() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let requests = [
        json!({ "auth": "", "channel": "a" }),
        json!({ "channel": "b" }),
        json!({ "auth": "rubbish", "channel": "c" }),
        json!({ "auth": null, "channel": "d" }),
        json!({ "auth": format!("{KEY}:00"), "channel": "e", "unknown": [1, 2] }),
    ];
    for data in requests {
        client.label(&data.to_string());
        client.send(json!({ "event": "pusher:subscribe", "data": data })).await;
        client.expect_success(data["channel"].as_str().unwrap()).await;
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn data_may_be_a_string_that_contains_the_object() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let data = json!({ "auth": client.auth("private-room"), "channel": "private-room" });
    client.send(json!({ "event": "pusher:subscribe", "data": data.to_string() })).await;
    client.expect_success("private-room").await;
    let data = json!({ "channel": "private-room" });
    client.send(json!({ "event": "pusher:unsubscribe", "data": data.to_string() })).await;
    client.expect_silence().await;
    client.subscribe_private("private-room").await;
}

#[tokio::test]
async fn unknown_keys_and_key_order_do_not_matter() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client
        .send_text(r#" { "extra": {"a": 1}, "data": {"x": null, "channel": "room"}, "event": "pusher:subscribe" } "#)
        .await;
    client.expect_success("room").await;
    client.send_text(r#"{"event":"pusher:subscribe","data":{"channel":"\u0061bc"}}"#).await;
    client.expect_success("abc").await;
}

#[tokio::test]
async fn a_right_signature_opens_a_private_channel() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for channel in ["private-room", "private-encrypted-room"] {
        client.subscribe_private(channel).await;
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn a_shared_secret_that_leaked_into_the_request_is_ignored() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let mut request = client.subscription("private-encrypted-room");
    request["data"]["shared_secret"] = json!("nlr49ISQHz91yS3cy/yWmW8wFMNeTnNL5tNHnbPJcLQ=");
    client.send(request).await;
    client.expect_success("private-encrypted-room").await;
}

#[tokio::test]
async fn a_wrong_signature_is_refused_in_three_messages() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let request = json!({ "auth": format!("{KEY}:bad"), "channel": "private-room" });
    client.send(json!({ "event": "pusher:subscribe", "data": request })).await;
    let text =
        format!("Invalid signature: Expected HMAC SHA256 hex digest of {}:private-room, but got bad", client.socket_id);
    client.expect_json(json!({ "event": "pusher:error", "data": { "code": null, "message": text } })).await;
    let second = client.expect_on("private-room", "pusher:subscription_error").await;
    assert_eq!(second.data(), json!({ "type": "AuthError", "error": text, "status": 401 }));
    client
        .expect_json(json!({ "event": "pusher_internal:subscription_error", "channel": "private-room", "data": "{}" }))
        .await;
    client.expect_silence().await;
    client.subscribe_private("private-room").await;
}

#[tokio::test]
async fn the_extra_messages_about_a_refusal_can_be_switched_off() {
    let server = TestServer::with_app(|app| app.subscription_error_events = false).await;
    let mut client = server.connect().await;
    client.send(json!({ "event": "pusher:subscribe", "data": { "auth": "x:y", "channel": "private-room" } })).await;
    client.expect_some_error().await;
    client.expect_silence().await;
}

#[tokio::test]
async fn only_the_signature_for_exactly_this_subscription_counts() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let sid = client.socket_id.clone();
    let right = sign::hmac(SECRET, &format!("{sid}:private-room"));
    let rows = [
        ("for another socket", sign::hmac(SECRET, "1.2:private-room")),
        ("for another channel", sign::hmac(SECRET, &format!("{sid}:private-rooms"))),
        ("with another secret", sign::hmac("another", &format!("{sid}:private-room"))),
        ("of a user", sign::hmac(SECRET, &format!("{sid}::user::private-room"))),
        ("with channel data that was not sent", sign::hmac(SECRET, &format!("{sid}:private-room:{{}}"))),
        ("cut short", right[..63].to_owned()),
        ("with something behind it", format!("{right}0")),
        ("none", String::new()),
        ("not hex", "z".repeat(64)),
    ];
    for (row, signature) in rows {
        client.label(row);
        let request = json!({ "auth": format!("{KEY}:{signature}"), "channel": "private-room" });
        client.send(json!({ "event": "pusher:subscribe", "data": request })).await;
        let text = client.expect_rejection("private-room", "AuthError", 401).await;
        assert!(text.starts_with("Invalid signature"), "{row}: {text}");
    }
    client.subscribe_private("private-room").await;
}

#[tokio::test]
async fn a_refusal_never_tells_the_right_signature_or_the_secret() {
    let server = TestServer::with_app(|app| app.debug = true).await;
    let mut client = server.connect().await;
    let right = sign::hmac(SECRET, &format!("{}:private-room", client.socket_id));
    client
        .send(json!({ "event": "pusher:subscribe", "data": { "auth": format!("{KEY}:0"), "channel": "private-room" } }))
        .await;
    let text = client.expect_rejection("private-room", "AuthError", 401).await;
    assert!(!text.contains(&right) && !text.contains(SECRET), "{text}");
}

#[tokio::test]
async fn the_key_in_the_token_must_be_one_of_the_apps() {
    let server = TestServer::with(|config| {
        config.apps.push(AppConfig::new("43", "other-key", "other-secret"));
    })
    .await;
    let mut client = server.connect().await;
    let sid = client.socket_id.clone();
    let foreign = sign::hmac("other-secret", &format!("{sid}:private-room"));
    let own = sign::hmac(SECRET, &format!("{sid}:private-room"));
    for (key, signature) in [("other-key", &foreign), ("other-key", &own), ("nobody", &own), ("", &own)] {
        client.label(key);
        let request = json!({ "auth": format!("{key}:{signature}"), "channel": "private-room" });
        client.send(json!({ "event": "pusher:subscribe", "data": request })).await;
        let text = client.expect_rejection("private-room", "AuthError", 401).await;
        assert_eq!(text, format!("Invalid key in subscription auth data: '{key}'"));
    }
    // The right key with the secret of another.
    let request = json!({ "auth": format!("{KEY}:{foreign}"), "channel": "private-room" });
    client.send(json!({ "event": "pusher:subscribe", "data": request })).await;
    client.expect_rejection("private-room", "AuthError", 401).await;
}

#[tokio::test]
async fn each_key_of_an_app_is_verified_with_its_own_secret() {
    let server = TestServer::with_app(|app| {
        app.keys.push(KeyPair { key: "second-key".to_owned(), secret: Secret::new("second-secret") });
    })
    .await;
    for path in [KEY, "second-key"] {
        let mut client = server.dial().path(&format!("/app/{path}")).connect().await;
        client.label(path);
        client.subscribe_private("private-first").await;
        let text = format!("{}:private-second", client.socket_id);
        let request = |secret| {
            let auth = format!("second-key:{}", sign::hmac(secret, &text));
            json!({ "event": "pusher:subscribe", "data": { "auth": auth, "channel": "private-second" } })
        };
        client.send(request(SECRET)).await;
        client.expect_rejection("private-second", "AuthError", 401).await;
        client.send(request("second-secret")).await;
        client.expect_success("private-second").await;
    }
}

#[tokio::test]
async fn channel_data_of_a_private_channel_is_part_of_what_is_signed() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let mut request = client.membership("private-room", r#"{"any": "thing"}"#);
    let auth = request["data"]["auth"].clone();
    request["data"]["auth"] = json!(client.auth("private-room"));
    client.send(request.clone()).await;
    client.expect_rejection("private-room", "AuthError", 401).await;
    request["data"]["auth"] = auth;
    client.send(request).await;
    client.expect_success("private-room").await;
}

#[tokio::test]
async fn subscribing_twice_is_an_error_and_changes_nothing() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    client.send(client.subscription("room")).await;
    client.expect_error("Existing subscription to channel room").await;
    client.expect_silence().await;
    assert_eq!(api.channel("room", "subscription_count").await, json!({ "occupied": true, "subscription_count": 1 }));
    api.trigger("room", "greet", "once").await;
    client.expect_event("room", "greet", "once").await;
    client.expect_silence().await;

    client.join("presence-room", "7").await;
    client.send(client.membership("presence-room", r#"{"user_id":"8"}"#)).await;
    client.expect_error("Existing subscription to channel presence-room").await;
    client.expect_silence().await;
    let users = api.get("/channels/presence-room/users", &[]).await.json();
    assert_eq!(users, json!({ "users": [{ "id": "7" }] }));
}

#[tokio::test]
async fn unsubscribing_is_silent_and_final() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    client.subscribe("other").await;
    client.leave("room").await;
    api.trigger("room", "greet", "{}").await;
    api.trigger("other", "marker", "{}").await;
    client.expect_event("other", "marker", "{}").await;
    api.expect_channel("room", "", json!({ "occupied": false })).await;

    client.subscribe("room").await;
    api.trigger("room", "greet", "again").await;
    client.expect_event("room", "greet", "again").await;
}

#[tokio::test]
async fn unsubscribing_from_what_one_does_not_hold_is_an_error() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.unsubscribe("room").await;
    client.expect_error("No current subscription to channel room, or subscription in progress").await;
    client.subscribe("room").await;
    client.leave("room").await;
    client.unsubscribe("room").await;
    client.expect_error("No current subscription to channel room, or subscription in progress").await;
    client.expect_silence().await;
}

#[tokio::test]
async fn messages_of_one_connection_are_handled_in_their_order() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let unsubscribe = json!({ "event": "pusher:unsubscribe", "data": { "channel": "private-room" } });
    let subscribe = client.subscription("private-room");
    let ping = json!({ "event": "pusher:ping" });
    client.send_all(&[unsubscribe.clone(), subscribe.clone(), ping, subscribe.clone(), unsubscribe, subscribe]).await;
    client.expect_error("No current subscription to channel private-room, or subscription in progress").await;
    client.expect_success("private-room").await;
    client.expect("pusher:pong").await;
    client.expect_error("Existing subscription to channel private-room").await;
    client.expect_success("private-room").await;
    client.expect_silence().await;
}

#[tokio::test]
async fn a_hundred_subscriptions_in_one_burst_are_granted() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let names: Vec<_> = (0..200).map(|n| format!("private-room-{n}")).collect();
    let requests: Vec<_> = names.iter().map(|name| client.subscription(name)).collect();
    client.send_all(&requests).await;
    for name in &names {
        client.expect_success(name).await;
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn a_request_without_a_usable_channel_is_an_error_and_the_connection_lives() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for event in ["pusher:subscribe", "pusher:unsubscribe"] {
        let messages = [
            json!({ "event": event }),
            json!({ "event": event, "data": null }),
            json!({ "event": event, "data": {} }),
            json!({ "event": event, "data": [] }),
            json!({ "event": event, "data": 7 }),
            json!({ "event": event, "data": "room" }),
            json!({ "event": event, "data": "" }),
            json!({ "event": event, "data": { "channel": null } }),
            json!({ "event": event, "data": { "channel": {} } }),
            json!({ "event": event, "data": { "channel": ["room"] } }),
            json!({ "event": event, "channel": "room" }),
        ];
        for message in messages {
            client.label(&message.to_string());
            client.send(message).await;
            client.expect_some_error().await;
            client.expect_only_rejections().await;
        }
    }
    client.subscribe("room").await;
}

#[tokio::test]
async fn an_event_of_the_protocol_that_does_not_exist_is_named_in_the_error() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for event in ["pusher:foo", "pusher:connection_established", "pusher:error", "pusher_internal:member_added"] {
        client.send(json!({ "event": event, "channel": "room", "data": {} })).await;
        let text = client.expect_some_error().await;
        if event.starts_with("pusher:") {
            assert_eq!(text, format!("Unsupported event received on socket: {event}"));
        }
        client.expect_silence().await;
    }
    client.send(json!({ "data": {} })).await;
    let text = client.expect_some_error().await;
    assert!(text.starts_with("Unsupported event received on socket"), "{text}");
}

#[tokio::test]
async fn a_closing_connection_leaves_all_its_channels() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    client.subscribe_private("private-room").await;
    client.join("presence-room", "7").await;
    client.disconnect().await;
    api.expect_channels(json!({})).await;
}

#[tokio::test]
async fn apps_do_not_hear_each_other() {
    let server = TestServer::with(|config| {
        config.apps.push(AppConfig::new("43", "other-key", "other-secret"));
    })
    .await;
    let mut own = server.connect().await;
    let mut other = server.dial().path("/app/other-key").connect().await;
    own.subscribe("room").await;
    other.subscribe("room").await;
    let mut api = server.api().await;
    api.trigger("room", "greet", "{}").await;
    own.expect_event("room", "greet", "{}").await;
    other.expect_silence().await;
    assert_eq!(api.channel("room", "subscription_count").await, json!({ "occupied": true, "subscription_count": 1 }));
}
