//! Protocol §2.9, §2.10, §2.13: signing in, events for a user, watchlists, and being thrown out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Client, DEADLINE, KEY, Message, SECRET, TestServer, sign};

#[tokio::test]
async fn signing_in_is_answered_with_the_user_data_byte_for_byte() {
    let server = TestServer::start().await;
    let texts = [
        r#"{"id":"7","user_info":{"name":"A"},"watchlist":[]}"#,
        "{ \"id\" : \"7\",\n\"other\": [1.50, \"ą§¶™€ \\u0041 😀\"] }",
    ];
    for user_data in texts {
        let mut client = server.connect().await;
        client.send(client.sign_in_request(user_data)).await;
        let success = client.expect("pusher:signin_success").await;
        assert_eq!(success.json.as_object().unwrap().len(), 2, "{}", success.json);
        assert_eq!(success.data(), json!({ "user_data": user_data }));
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn a_sign_in_may_be_encoded_twice() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let request = client.sign_in_request(r#"{"id":"7"}"#);
    client.send(json!({ "event": "pusher:signin", "data": request["data"].to_string() })).await;
    client.expect("pusher:signin_success").await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_the_connection_lives() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let user_data = r#"{"id":"7"}"#;
    let sid = client.socket_id.clone();
    let sign_in = |auth: String| json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } });
    client.send(sign_in(format!("{KEY}:bad"))).await;
    client
        .expect_error(&format!(
            "Invalid signature: Expected HMAC SHA256 hex digest of {sid}::user::{user_data}, but got bad"
        ))
        .await;
    let signed = |text: String| format!("{KEY}:{}", sign::hmac(SECRET, &text));
    for auth in [
        signed(format!("1.2::user::{user_data}")),
        signed(format!("{sid}:{user_data}")),
        signed(format!("{sid}::user::{{\"id\": \"7\"}}")),
        format!("{KEY}::user::{}", sign::hmac(SECRET, &format!("{sid}::user::{user_data}"))),
    ] {
        client.label(&auth);
        client.send(sign_in(auth)).await;
        let text = client.expect_some_error().await;
        assert!(text.starts_with("Invalid signature"), "{text}");
    }
    let right = sign::hmac(SECRET, &format!("{sid}::user::{user_data}"));
    client.send(sign_in(format!("nobody:{right}"))).await;
    let text = client.expect_some_error().await;
    assert!(text.starts_with("Invalid key in ") && text.ends_with("'nobody'"), "{text}");
    for auth in [right.clone(), String::new()] {
        client.send(sign_in(auth)).await;
        client.expect_some_error().await;
    }
    client.send(json!({ "event": "pusher:signin", "data": { "user_data": user_data } })).await;
    client.expect_some_error().await;
    client.expect_silence().await;
    client.sign_in_as(user_data).await;
}

#[tokio::test]
async fn user_data_must_be_an_object_with_a_text_as_id() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let long = json!({ "id": "x".repeat(129) }).to_string();
    let rows = [
        "",
        "not JSON",
        "[]",
        "\"7\"",
        "{}",
        r#"{"id":7}"#,
        r#"{"id":""}"#,
        r#"{"id":null}"#,
        r#"{"id":["7"]}"#,
        r#"{"user_id":"7"}"#,
        &long,
    ];
    for user_data in rows {
        client.label(user_data);
        client.send(client.sign_in_request(user_data)).await;
        let text = client.expect_some_error().await;
        assert!(text.starts_with("Invalid user_data: "), "{text}");
        client.expect_silence().await;
    }
    client.sign_in(&"x".repeat(128)).await;
}

#[tokio::test]
async fn a_sign_in_without_its_parts_is_an_error() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for data in
        [Value::Null, json!({}), json!([]), json!("x"), json!({ "auth": 7, "user_data": 7 }), json!({ "auth": "a:b" })]
    {
        client.label(&data.to_string());
        client.send(json!({ "event": "pusher:signin", "data": data })).await;
        client.expect_some_error().await;
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn signing_in_again_works_for_the_same_user_only() {
    let server = TestServer::start().await;
    let mut client = server.sign_in("7").await;
    client.sign_in_as(r#"{"id":"7","user_info":{"v":2}}"#).await;
    client.send(client.sign_in_request(r#"{"id":"8"}"#)).await;
    client.expect_error("Connection already signed in as a different user").await;
    client.expect_silence().await;
    // The second sign-in replaced the first one's user data.
    client.send(client.subscription("presence-room")).await;
    let success = client.expect_on("presence-room", "pusher_internal:subscription_succeeded").await;
    assert_eq!(success.data()["presence"]["hash"], json!({ "7": { "v": 2 } }));
    server.api().await.trigger("#server-to-user-8", "greet", "{}").await;
    client.expect_silence().await;
    server.api().await.trigger("#server-to-user-7", "greet", "{}").await;
    client.expect_event("#server-to-user-7", "greet", "{}").await;
}

#[tokio::test]
async fn an_event_for_a_user_reaches_all_its_connections_once() {
    let server = TestServer::start().await;
    let mut implicit = server.sign_in("7").await;
    let mut explicit = server.sign_in("7").await;
    explicit.subscribe("#server-to-user-7").await;
    let mut other = server.sign_in("8").await;
    let mut stranger = server.connect().await;
    let mut member = server.join("presence-room", "7").await;
    let mut api = server.api().await;
    api.trigger("#server-to-user-7", "my-event", r#"{"m":1}"#).await;
    for client in [&mut implicit, &mut explicit] {
        client.expect_event("#server-to-user-7", "my-event", r#"{"m":1}"#).await;
        client.expect_silence().await;
    }
    for client in [&mut other, &mut stranger, &mut member] {
        client.expect_silence().await;
    }
    api.trigger_except("#server-to-user-7", "my-event", "2", &explicit.socket_id).await;
    implicit.expect_event("#server-to-user-7", "my-event", "2").await;
    explicit.expect_silence().await;
}

#[tokio::test]
async fn the_channel_of_the_own_user_is_granted_as_often_as_it_is_asked_for() {
    let server = TestServer::start().await;
    let mut client = server.sign_in("7").await;
    for _ in 0..3 {
        client.subscribe("#server-to-user-7").await;
    }
    client.expect_silence().await;
    let mut api = server.api().await;
    api.trigger("#server-to-user-7", "greet", "{}").await;
    client.expect_event("#server-to-user-7", "greet", "{}").await;
    client.expect_silence().await;
}

#[tokio::test]
async fn the_channel_of_a_user_is_closed_to_everybody_else() {
    let server = TestServer::start().await;
    let mut stranger = server.connect().await;
    let mut other = server.sign_in("8").await;
    for client in [&mut stranger, &mut other] {
        for request in [
            client.subscription("#server-to-user-7"),
            client.membership("#server-to-user-7", r#"{"user_id":"7"}"#),
            json!({ "event": "pusher:subscribe", "data": { "auth": "", "channel": "#server-to-user-7" } }),
        ] {
            client.send(request).await;
            client.expect_rejection("#server-to-user-7", "AuthError", 401).await;
        }
    }
    server.api().await.trigger("#server-to-user-7", "greet", "{}").await;
    stranger.expect_silence().await;
    other.expect_silence().await;
}

#[tokio::test]
async fn user_ids_of_any_characters_can_be_reached() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    for id in ["a b", "ü/😀", "#", "x".repeat(128).as_str(), "1:2", "a,b"] {
        let mut client = server.sign_in(id).await;
        let channel = format!("#server-to-user-{id}");
        client.label(&channel);
        client.subscribe(&channel).await;
        api.trigger(&channel, "greet", "{}").await;
        client.expect_event(&channel, "greet", "{}").await;
    }
}

#[tokio::test]
async fn the_channels_of_users_are_invisible() {
    let server = TestServer::with_app(|app| {
        app.subscription_counts = true;
        app.client_events = true;
    })
    .await;
    let mut client = server.sign_in("7").await;
    client.subscribe("#server-to-user-7").await;
    client.expect_silence().await;
    let mut api = server.api().await;
    assert_eq!(api.get("/channels", &[]).await.json(), json!({ "channels": {} }));
    let listed = api.get("/channels", &[("filter_by_prefix", "#server-to-user-")]).await.json();
    assert_eq!(listed, json!({ "channels": {} }));
    client.send_event("#server-to-user-7", "client-a", json!({})).await;
    client.expect_some_error().await;
}

// Watchlists.

async fn watching_server(offline_delay: Duration) -> TestServer {
    TestServer::with_app(|app| app.offline_delay = offline_delay).await
}

async fn watch(server: &TestServer, id: &str, watchlist: Value) -> Client {
    let mut client = server.connect().await;
    client.sign_in_as(&json!({ "id": id, "watchlist": watchlist }).to_string()).await;
    client
}

/// The ids of a watchlist message by their new status.
fn statuses(message: &Message) -> (Vec<String>, Vec<String>) {
    assert_eq!(message.event(), "pusher_internal:watchlist_events");
    assert_eq!(message.channel(), None);
    let data = message.data();
    let (mut online, mut offline) = (Vec::new(), Vec::new());
    for event in data["events"].as_array().unwrap() {
        assert_eq!(event.as_object().unwrap().len(), 2, "{data}");
        let list = match event["name"].as_str().unwrap() {
            "online" => &mut online,
            "offline" => &mut offline,
            other => panic!("{other} in {data}"),
        };
        assert!(list.is_empty(), "two entries of one name in {data}");
        *list = event["user_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        assert!(!list.is_empty(), "an entry without ids in {data}");
        list.sort_unstable();
    }
    (online, offline)
}

async fn expect_statuses(client: &mut Client, online: &[&str], offline: &[&str]) {
    let message = client.next().await;
    if message.event() != "pusher_internal:watchlist_events" || {
        let (up, down) = statuses(&message);
        up != online || down != offline
    } {
        client.fail(&format!("expected {online:?} online and {offline:?} offline"));
    }
}

#[tokio::test]
async fn a_watcher_is_told_at_once_who_is_online_and_who_is_not() {
    let server = watching_server(Duration::ZERO).await;
    let _eight = server.sign_in("8").await;
    // Being a member somewhere is not being signed in.
    let _member = server.join("presence-room", "9").await;
    let mut watcher = watch(&server, "7", json!(["8", "9"])).await;
    expect_statuses(&mut watcher, &["8"], &["9"]).await;
    let mut second = watch(&server, "7", json!(["8"])).await;
    expect_statuses(&mut second, &["8"], &[]).await;
    let mut third = watch(&server, "7", json!(["9"])).await;
    expect_statuses(&mut third, &[], &["9"]).await;
    for client in [&mut watcher, &mut second, &mut third] {
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn a_watcher_hears_of_every_change_once() {
    let server = watching_server(Duration::ZERO).await;
    let mut watcher = watch(&server, "7", json!(["8"])).await;
    expect_statuses(&mut watcher, &[], &["8"]).await;
    for _ in 0..2 {
        let one = server.sign_in("8").await;
        expect_statuses(&mut watcher, &["8"], &[]).await;
        let two = server.sign_in("8").await;
        one.disconnect().await;
        watcher.expect_silence().await;
        two.disconnect().await;
        expect_statuses(&mut watcher, &[], &["8"]).await;
    }
    // Somebody else is nobody's business.
    let _nine = server.sign_in("9").await;
    watcher.expect_silence().await;
}

#[tokio::test]
async fn two_users_can_watch_each_other() {
    let server = watching_server(Duration::ZERO).await;
    let mut ann = watch(&server, "ann", json!(["bob"])).await;
    expect_statuses(&mut ann, &[], &["bob"]).await;
    let mut bob = watch(&server, "bob", json!(["ann"])).await;
    expect_statuses(&mut bob, &["ann"], &[]).await;
    expect_statuses(&mut ann, &["bob"], &[]).await;
    ann.disconnect().await;
    expect_statuses(&mut bob, &[], &["ann"]).await;
}

#[tokio::test]
async fn users_can_watch_themselves() {
    let server = watching_server(Duration::ZERO).await;
    let mut one = watch(&server, "7", json!(["7"])).await;
    expect_statuses(&mut one, &["7"], &[]).await;
    let two = server.sign_in("7").await;
    two.disconnect().await;
    one.expect_silence().await;
}

#[tokio::test]
async fn a_user_who_returns_within_the_grace_was_never_gone() {
    let server = watching_server(Duration::from_secs(1)).await;
    let bob = server.sign_in("bob").await;
    let carl = server.sign_in("carl").await;
    let mut watcher = watch(&server, "7", json!(["bob", "carl"])).await;
    expect_statuses(&mut watcher, &["bob", "carl"], &[]).await;
    bob.disconnect().await;
    let mut bob = server.sign_in("bob").await;
    carl.disconnect().await;
    watcher.expect_silence().await;
    // Carl left after Bob did, so Bob's grace is over when Carl's is.
    expect_statuses(&mut watcher, &[], &["carl"]).await;
    bob.settle().await;
    watcher.expect_silence().await;
    let _carl = server.sign_in("carl").await;
    expect_statuses(&mut watcher, &["carl"], &[]).await;
}

#[tokio::test]
async fn signing_in_again_replaces_the_watchlist() {
    let server = watching_server(Duration::ZERO).await;
    let mut watcher = watch(&server, "7", json!(["8"])).await;
    expect_statuses(&mut watcher, &[], &["8"]).await;
    watcher.sign_in_as(r#"{"id":"7","watchlist":["9"]}"#).await;
    expect_statuses(&mut watcher, &[], &["9"]).await;
    let _eight = server.sign_in("8").await;
    let _nine = server.sign_in("9").await;
    expect_statuses(&mut watcher, &["9"], &[]).await;
    watcher.expect_silence().await;
}

#[tokio::test]
async fn an_empty_or_missing_watchlist_means_no_messages() {
    let server = watching_server(Duration::ZERO).await;
    let mut empty = watch(&server, "7", json!([])).await;
    empty.expect_silence().await;
    let mut none = server.sign_in("7").await;
    none.expect_silence().await;
    let mut numbers = watch(&server, "7", json!([8, null, {}])).await;
    numbers.expect_silence().await;
}

#[tokio::test]
async fn entries_that_are_no_text_are_skipped_and_duplicates_merged() {
    let server = watching_server(Duration::ZERO).await;
    let mut watcher = watch(&server, "7", json!(["8", 9, null, "8", ["10"], "11"])).await;
    expect_statuses(&mut watcher, &[], &["11", "8"]).await;
    let _eight = server.sign_in("8").await;
    expect_statuses(&mut watcher, &["8"], &[]).await;
    watcher.expect_silence().await;
}

#[tokio::test]
async fn a_watchlist_is_cut_after_a_hundred_ids() {
    let server = watching_server(Duration::ZERO).await;
    let ids: Vec<_> = (1000..1101).map(|id: u32| id.to_string()).collect();
    let mut watcher = server.connect().await;
    watcher.sign_in_as(&json!({ "id": "7", "watchlist": ids }).to_string()).await;
    let mut seen = (false, false);
    for _ in 0..2 {
        let message = watcher.next().await;
        if message.event() == "pusher:error" {
            assert_eq!(message.json["data"]["code"], 4302);
            assert_eq!(message.error(), "Watchlist limit exceeded. Only the first 100 user IDs are accepted.");
            seen.0 = true;
        } else {
            assert_eq!(statuses(&message).1, ids[..100]);
            seen.1 = true;
        }
    }
    assert_eq!(seen, (true, true));
    let _last = server.sign_in("1100").await;
    watcher.expect_silence().await;
    let _within = server.sign_in("1099").await;
    expect_statuses(&mut watcher, &["1099"], &[]).await;
}

#[tokio::test]
async fn a_hundred_ids_are_not_too_many() {
    let server = watching_server(Duration::ZERO).await;
    let ids: Vec<_> = (1000..1100).map(|id: u32| id.to_string()).collect();
    let mut watcher = watch(&server, "7", json!(ids)).await;
    assert_eq!(statuses(&watcher.next().await).1.len(), 100);
    watcher.expect_silence().await;
}

#[tokio::test]
async fn watchlists_can_be_switched_off() {
    let server = TestServer::with_app(|app| app.watchlists = false).await;
    let mut watcher = watch(&server, "7", json!(["8"])).await;
    let _eight = server.sign_in("8").await;
    watcher.expect_silence().await;
}

/// Follows watchlist messages up to the answer of a ping; fails where they contradict what was known.
async fn follow(client: &mut Client, online: &mut BTreeMap<String, bool>) {
    client.send(json!({ "event": "pusher:ping" })).await;
    loop {
        let message = client.next().await;
        if message.event() == "pusher:pong" {
            return;
        }
        let (up, down) = statuses(&message);
        for (ids, status) in [(up, true), (down, false)] {
            for id in ids {
                let before = online.insert(id.clone(), status);
                assert_ne!(before, Some(status), "{id} was reported {status} twice");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn users_that_sign_in_at_once_all_see_each_other() {
    const USERS: usize = 30;
    let server = watching_server(Duration::ZERO).await;
    let ids: Vec<_> = (0..USERS).map(|n| format!("user-{n}")).collect();
    let mut signing_in = JoinSet::new();
    for id in &ids {
        let (dial, id) = (server.dial(), id.clone());
        let watchlist: Vec<_> = ids.iter().filter(|other| **other != id).cloned().collect();
        signing_in.spawn(async move {
            let mut client = dial.connect().await;
            client.sign_in_as(&json!({ "id": id, "watchlist": watchlist }).to_string()).await;
            (client, BTreeMap::new())
        });
    }
    let mut watchers = signing_in.join_all().await;
    let started = Instant::now();
    for (client, online) in &mut watchers {
        while online.len() < USERS - 1 || !online.values().all(|online| *online) {
            assert!(started.elapsed() < DEADLINE, "{online:?}");
            follow(client, online).await;
        }
    }
    let mut leaving = JoinSet::new();
    for (client, _) in watchers.drain(..USERS / 2) {
        leaving.spawn(client.disconnect());
    }
    leaving.join_all().await;
    let started = Instant::now();
    for (client, online) in &mut watchers {
        while online.values().filter(|online| **online).count() != USERS - USERS / 2 - 1 {
            assert!(started.elapsed() < DEADLINE, "{online:?}");
            follow(client, online).await;
        }
    }
}

// Terminating.

#[tokio::test]
async fn terminating_a_user_closes_its_signed_in_connections_only() {
    let server = watching_server(Duration::ZERO).await;
    let mut watcher = watch(&server, "ann", json!(["7"])).await;
    expect_statuses(&mut watcher, &[], &["7"]).await;
    let mut observer = server.join("presence-room", "observer").await;
    let mut one = server.sign_in("7").await;
    expect_statuses(&mut watcher, &["7"], &[]).await;
    one.join("presence-room", "7").await;
    observer.expect("pusher_internal:member_added").await;
    let mut old = server.dial().protocol(5).connect().await;
    old.sign_in("7").await;
    let mut member = server.join("presence-other", "7").await;
    let mut other = server.sign_in("8").await;

    let mut api = server.api().await;
    api.post("/users/7/terminate_connections", &json!({})).await.ok();
    assert_eq!(one.expect_fatal(4009, false).await, "You got disconnected by the app.");
    assert_eq!(old.expect_fatal(4009, true).await, "You got disconnected by the app.");
    one.expect_end().await;
    assert_eq!(observer.expect("pusher_internal:member_removed").await.data(), json!({ "user_id": "7" }));
    expect_statuses(&mut watcher, &[], &["7"]).await;
    member.expect_silence().await;
    other.expect_silence().await;
    // The user may come back.
    let mut back = server.sign_in("7").await;
    back.expect_silence().await;
}

#[tokio::test]
async fn the_code_of_a_termination_can_be_chosen() {
    let server = TestServer::with_app(|app| app.terminate_code = 4200).await;
    let mut client = server.sign_in("7").await;
    server.api().await.post("/users/7/terminate_connections", &json!({})).await.ok();
    client.expect_close(4200).await;
}
