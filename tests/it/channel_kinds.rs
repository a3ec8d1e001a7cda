//! Protocol §2.2: what a channel's name says about it.

use serde_json::json;

use crate::support::TestServer;

/// A name, and what it stands for.
struct Row {
    name: &'static str,
    signed: bool,
    presence: bool,
    cache: bool,
}

const fn row(name: &'static str, signed: bool, presence: bool, cache: bool) -> Row {
    Row { name, signed, presence, cache }
}

const ROWS: &[Row] = &[
    // The eight kinds.
    row("room", false, false, false),
    row("cache-room", false, false, true),
    row("private-room", true, false, false),
    row("private-cache-room", true, false, true),
    row("private-encrypted-room", true, false, false),
    row("private-encrypted-cache-room", true, false, true),
    row("presence-room", true, true, false),
    row("presence-cache-room", true, true, true),
    // What only looks like one: without the dash, inside the name, in upper case.
    row("private", false, false, false),
    row("privateer", false, false, false),
    row("presence", false, false, false),
    row("presences", false, false, false),
    row("cache", false, false, false),
    row("cached", false, false, false),
    row("nocache-x", false, false, false),
    row("my-private-room", false, false, false),
    row("Private-room", false, false, false),
    row("PRESENCE-room", false, false, false),
    row("Cache-room", false, false, false),
    // The longer prefix is incomplete, the shorter one holds.
    row("private-encrypted", true, false, false),
    row("private-cached", true, false, false),
    row("private-cache", true, false, false),
    row("private-encrypted-cache", true, false, false),
    row("presence-cache", true, true, false),
    row("presence-encrypted-cache-room", true, true, false),
    row("private-presence-room", true, false, false),
    row("private-cache-encrypted-room", true, false, true),
    row("cache-private-room", false, false, true),
    row("cache-presence-room", false, false, true),
    row("presence-private-cache-room", true, true, false),
];

#[tokio::test]
async fn only_signed_kinds_ask_for_a_signature() {
    let server = TestServer::start().await;
    assert!(ROWS.iter().any(|row| row.signed) && ROWS.iter().any(|row| !row.signed));
    for row in ROWS {
        for auth in [None, Some(""), Some("app-key-1:0000"), Some("nonsense")] {
            let mut client = server.connect().await;
            client.label(&format!("{} {auth:?}", row.name));
            let mut data = json!({ "channel": row.name });
            if row.presence {
                data["channel_data"] = json!(r#"{"user_id":"7"}"#);
            }
            if let Some(auth) = auth {
                data["auth"] = json!(auth);
            }
            client.send(json!({ "event": "pusher:subscribe", "data": data })).await;
            if row.signed {
                client.expect_rejection(row.name, "AuthError", 401).await;
            } else {
                client.expect_success(row.name).await;
                if row.cache {
                    client.expect_on(row.name, "pusher:cache_miss").await;
                }
            }
            client.expect_silence().await;
        }
    }
}

#[tokio::test]
async fn a_refused_channel_is_not_occupied() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let mut client = server.connect().await;
    for row in ROWS.iter().filter(|row| row.signed) {
        client.send(json!({ "event": "pusher:subscribe", "data": { "channel": row.name } })).await;
        client.expect_rejection(row.name, "AuthError", 401).await;
        assert_eq!(api.channel(row.name, "").await, json!({ "occupied": false }), "{}", row.name);
    }
    assert_eq!(api.get("/channels", &[]).await.json(), json!({ "channels": {} }));
}

#[tokio::test]
async fn each_kind_greets_a_subscriber_in_its_own_way() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    for row in ROWS {
        let mut client = server.connect().await;
        client.label(row.name);
        if row.presence {
            assert_eq!(client.join(row.name, "7").await.members(), ["7"]);
        } else {
            client.send(client.subscription(row.name)).await;
            client.expect_success(row.name).await;
        }
        if row.cache {
            client.expect_json(json!({ "event": "pusher:cache_miss", "channel": row.name, "data": "{}" })).await;
        }
        client.expect_silence().await;

        // The API agrees on what the channel is.
        let users = api.get(&format!("/channels/{}/users", row.name), &[]).await;
        assert_eq!(users.status, if row.presence { 200 } else { 400 }, "users of {}", row.name);
        let cache = api.get(&format!("/channels/{}", row.name), &[("info", "cache")]).await;
        assert_eq!(cache.status, if row.cache { 200 } else { 400 }, "cache of {}", row.name);
        let count = api.get(&format!("/channels/{}", row.name), &[("info", "user_count")]).await;
        assert_eq!(count.status, if row.presence { 200 } else { 400 }, "user_count of {}", row.name);
    }
}

#[tokio::test]
async fn the_whole_alphabet_may_be_used_up_to_164_characters() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=@,.;";
    let longest = "x".repeat(164);
    for name in [alphabet, "-", "7", "=@,.;", &longest] {
        client.label(name);
        client.subscribe(name).await;
    }
    let longest = format!("private-encrypted-cache-{}", "x".repeat(140));
    client.subscribe_private(&longest).await;
    client.expect_on(&longest, "pusher:cache_miss").await;
}

#[tokio::test]
async fn other_names_are_refused_and_the_connection_lives() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let long = "x".repeat(165);
    let long_private = format!("private-{}", "x".repeat(157));
    let names =
        ["two words", "réunion", "a/b", "a:b", "a+b", "a%20b", "a#b", "a\nb", "a\u{0}b", "'", &long, &long_private];
    for name in names {
        client.label(name);
        client.send(client.subscription(name)).await;
        let text = client.expect_rejection(name, "ValidationError", 400).await;
        assert!(text.starts_with("Invalid channel name: "), "{text}");
        client.expect_silence().await;
    }
    client.send(client.subscription("a/b")).await;
    assert_eq!(client.expect_rejection("a/b", "ValidationError", 400).await, "Invalid channel name: a/b");
}

#[tokio::test]
async fn names_with_a_hash_belong_to_the_server() {
    let server = TestServer::start().await;
    let mut client = server.sign_in("7").await;
    for name in ["#room", "#", "#server-to-user-", "#server-to-user-8", "#Server-to-user-7", "#private-room"] {
        client.label(name);
        client.send(client.subscription(name)).await;
        client.expect_rejection(name, "AuthError", 401).await;
        client.expect_silence().await;
    }
}
