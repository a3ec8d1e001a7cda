//! Protocol §2.5: who is here.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Client, DEADLINE, KEY, Message, SECRET, TestServer, sign};

const ROOM: &str = "presence-room";
const REFUSED: &str = r#"fanfare_subscriptions_refused_total{app="42",reason="presence_joins"}"#;
const ADDED: &str = "pusher_internal:member_added";
const REMOVED: &str = "pusher_internal:member_removed";

#[tokio::test]
async fn a_newcomer_is_told_who_is_here_itself_included() {
    let server = TestServer::start().await;
    let mut ann = server.connect().await;
    let success = ann.join_as(ROOM, r#"{"user_id":"7","user_info":{"name":"A"}}"#).await;
    let alone = json!({ "presence": { "count": 1, "ids": ["7"], "hash": { "7": { "name": "A" } } } });
    assert_eq!(success.data(), alone);
    assert_eq!(success.json.as_object().unwrap().len(), 3, "{}", success.json);

    let mut bob = server.connect().await;
    let success = bob.join_as(ROOM, r#"{"user_id":"9"}"#).await;
    let presence = &success.data()["presence"];
    assert_eq!(presence["count"], 2);
    assert_eq!(success.members(), ["7", "9"]);
    assert_eq!(presence["hash"]["7"], json!({ "name": "A" }));
    assert!([json!(null), json!({})].contains(&presence["hash"]["9"]), "{presence}");
    bob.expect_silence().await;
}

#[tokio::test]
async fn the_others_hear_of_a_newcomer_and_of_a_leaver() {
    let server = TestServer::start().await;
    let mut ann = server.join(ROOM, "7").await;
    let mut bob = server.connect().await;
    bob.join_as(ROOM, r#"{"user_id":"9","user_info":{"name":"B","n":[1,2]}}"#).await;
    bob.expect_silence().await;
    let added = ann.expect_on(ROOM, ADDED).await;
    assert_eq!(added.data(), json!({ "user_id": "9", "user_info": { "name": "B", "n": [1, 2] } }));
    assert_eq!(added.json.as_object().unwrap().len(), 3, "{}", added.json);
    bob.leave(ROOM).await;
    ann.expect_json(json!({ "event": REMOVED, "channel": ROOM, "data": r#"{"user_id":"9"}"# })).await;
    ann.expect_silence().await;
    bob.expect_silence().await;
}

#[tokio::test]
async fn a_member_who_disconnects_is_announced_once() {
    let server = TestServer::start().await;
    let mut ann = server.join(ROOM, "ann").await;
    let bob = server.join(ROOM, "bob").await;
    let carl = server.join(ROOM, "carl").await;
    ann.expect_on(ROOM, ADDED).await;
    ann.expect_on(ROOM, ADDED).await;
    bob.disconnect().await;
    assert_eq!(ann.expect_on(ROOM, REMOVED).await.data(), json!({ "user_id": "bob" }));
    // Without a word, as when a laptop is closed.
    drop(carl);
    assert_eq!(ann.expect_on(ROOM, REMOVED).await.data(), json!({ "user_id": "carl" }));
    ann.expect_silence().await;
}

#[tokio::test]
async fn only_the_first_and_the_last_connection_of_a_user_are_seen() {
    let server = TestServer::start().await;
    let mut a1 = server.connect().await;
    assert_eq!(a1.join(ROOM, "7").await.members(), ["7"]);
    let mut b = server.connect().await;
    assert_eq!(b.join(ROOM, "9").await.members(), ["7", "9"]);
    assert_eq!(a1.expect_on(ROOM, ADDED).await.data()["user_id"], "9");
    let mut a2 = server.connect().await;
    assert_eq!(a2.join(ROOM, "7").await.members(), ["7", "9"]);
    for client in [&mut a1, &mut b, &mut a2] {
        client.expect_silence().await;
    }
    let mut api = server.api().await;
    let expected = json!({ "occupied": true, "user_count": 2, "subscription_count": 3 });
    api.expect_channel(ROOM, "user_count,subscription_count", expected).await;
    a1.disconnect().await;
    b.expect_silence().await;
    a2.disconnect().await;
    assert_eq!(b.expect_on(ROOM, REMOVED).await.data(), json!({ "user_id": "7" }));
    b.expect_silence().await;
    b.disconnect().await;
    api.expect_channel(ROOM, "user_count", json!({ "occupied": false, "user_count": 0 })).await;
}

#[tokio::test]
async fn a_user_who_returns_is_announced_again() {
    let server = TestServer::start().await;
    let mut ann = server.join(ROOM, "ann").await;
    let mut bob = server.connect().await;
    for _ in 0..3 {
        bob.join(ROOM, "bob").await;
        bob.leave(ROOM).await;
        ann.expect_on(ROOM, ADDED).await;
        ann.expect_on(ROOM, REMOVED).await;
    }
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_numeric_user_id_is_its_decimal_text_everywhere() {
    let server = TestServer::with_app(|app| app.client_events = true).await;
    let mut ann = server.join(ROOM, "ann").await;
    let mut ten = server.connect().await;
    assert_eq!(ten.join_as(ROOM, r#"{"user_id":10}"#).await.members(), ["10", "ann"]);
    assert_eq!(ann.expect_on(ROOM, ADDED).await.data()["user_id"], "10");
    // The same user, by another spelling.
    let mut again = server.join(ROOM, "10").await;
    ann.expect_silence().await;
    ten.send_event(ROOM, "client-a", json!("x")).await;
    let event = json!({ "event": "client-a", "channel": ROOM, "data": "x", "user_id": "10" });
    ann.expect_json(event.clone()).await;
    again.expect_json(event).await;
    let mut api = server.api().await;
    let users = api.get(&format!("/channels/{ROOM}/users"), &[]).await.json();
    let ids: BTreeSet<_> = users["users"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap()).collect();
    assert_eq!(ids, BTreeSet::from(["10", "ann"]), "{users}");
    ten.disconnect().await;
    again.disconnect().await;
    assert_eq!(ann.expect_on(ROOM, REMOVED).await.data(), json!({ "user_id": "10" }));
}

#[tokio::test]
async fn large_numbers_keep_all_their_digits() {
    let server = TestServer::start().await;
    for number in ["0", "9007199254740991", "1234567890123456789"] {
        let mut client = server.connect().await;
        let success = client.join_as(ROOM, &format!(r#"{{"user_id":{number}}}"#)).await;
        assert_eq!(success.members(), [number]);
        client.disconnect().await;
    }
}

#[tokio::test]
async fn the_info_of_the_first_arrival_stays_until_the_user_has_left() {
    let server = TestServer::start().await;
    let mut ann = server.join(ROOM, "ann").await;
    let mut first = server.connect().await;
    first.join_as(ROOM, r#"{"user_id":"7","user_info":{"v":1}}"#).await;
    assert_eq!(ann.expect_on(ROOM, ADDED).await.data()["user_info"], json!({ "v": 1 }));
    let mut second = server.connect().await;
    let success = second.join_as(ROOM, r#"{"user_id":"7","user_info":{"v":2}}"#).await;
    assert_eq!(success.data()["presence"]["hash"]["7"], json!({ "v": 1 }));
    first.disconnect().await;
    let mut bob = server.connect().await;
    assert_eq!(bob.join(ROOM, "bob").await.data()["presence"]["hash"]["7"], json!({ "v": 1 }));
    ann.expect_on(ROOM, ADDED).await;
    second.expect_on(ROOM, ADDED).await;
    second.leave(ROOM).await;
    ann.expect_on(ROOM, REMOVED).await;
    second.join_as(ROOM, r#"{"user_id":"7","user_info":{"v":3}}"#).await;
    assert_eq!(ann.expect_on(ROOM, ADDED).await.data()["user_info"], json!({ "v": 3 }));
}

#[tokio::test]
async fn channel_data_is_verified_as_it_was_received() {
    let server = TestServer::start().await;
    let texts = [
        "{\"user_id\":\"7\",\"user_info\":{\"name\":\"ą§¶™€łü€ß£ 😀\"}}",
        " { \"user_info\" : { \"name\" : \"\\u0041\\n\" } , \"user_id\" : \"7\" } ",
        "{\"user_id\":\"7\",\"user_info\":{\"b\":1,\"a\":1.50,\"url\":\"http:\\/\\/x\"}}",
    ];
    for text in texts {
        let mut client = server.connect().await;
        client.label(text);
        assert_eq!(client.join_as(ROOM, text).await.members(), ["7"]);
        client.disconnect().await;
    }
    // The same meaning in other bytes is not what was signed.
    let mut client = server.connect().await;
    let mut request = client.membership(ROOM, r#"{"user_id":"7"}"#);
    request["data"]["channel_data"] = json!(r#"{"user_id": "7"}"#);
    client.send(request).await;
    client.expect_rejection(ROOM, "AuthError", 401).await;
}

#[tokio::test]
async fn the_signature_is_checked_before_the_channel_data() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for channel_data in ["", "{", "[]", "{}", r#"{"user_id":"7"}"#] {
        client.label(channel_data);
        let data = json!({ "auth": format!("{KEY}:00"), "channel": ROOM, "channel_data": channel_data });
        client.send(json!({ "event": "pusher:subscribe", "data": data })).await;
        client.expect_rejection(ROOM, "AuthError", 401).await;
    }
}

#[tokio::test]
async fn a_member_needs_an_identity() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let long = json!({ "user_id": "x".repeat(129) }).to_string();
    let wide = json!({ "user_id": "7", "user_info": "x".repeat(1023) }).to_string();
    let rows = [
        "not JSON",
        "{",
        "[]",
        "7",
        "null",
        "\"7\"",
        "{}",
        r#"{"user_info":{"name":"A"}}"#,
        r#"{"user_id":""}"#,
        r#"{"user_id":null}"#,
        r#"{"user_id":true}"#,
        r#"{"user_id":{"id":"7"}}"#,
        r#"{"user_id":["7"]}"#,
        r#"{"user_id":"7"} {"user_id":"8"}"#,
        &long,
        &wide,
    ];
    for channel_data in rows {
        client.label(channel_data);
        client.send(client.membership(ROOM, channel_data)).await;
        let text = client.expect_rejection(ROOM, "ValidationError", 400).await;
        assert!(text.starts_with("Invalid channel_data: "), "{text}");
    }
    client.expect_silence().await;
    assert_eq!(server.api().await.channel(ROOM, "").await, json!({ "occupied": false }));
    assert_eq!(client.join(ROOM, &"x".repeat(128)).await.members(), ["x".repeat(128)]);
}

#[tokio::test]
async fn user_ids_are_measured_in_characters() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let id = "😀".repeat(128);
    assert_eq!(client.join(ROOM, &id).await.members(), [id]);
}

#[tokio::test]
async fn a_full_channel_refuses_new_users_but_not_further_connections_of_its_members() {
    let server = TestServer::with_app(|app| app.limits.presence_members = 2).await;
    let mut ann = server.join(ROOM, "ann").await;
    let bob = server.join(ROOM, "bob").await;
    ann.expect_on(ROOM, ADDED).await;
    let mut carl = server.connect().await;
    carl.send(carl.membership(ROOM, r#"{"user_id":"carl"}"#)).await;
    let text = carl.expect_rejection(ROOM, "LimitReached", 403).await;
    assert_eq!(text, format!("Presence channel {ROOM} is over its limit of 2 members"));
    assert_eq!(server.connect().await.join(ROOM, "bob").await.members(), ["ann", "bob"]);
    bob.disconnect().await;
    assert_eq!(ann.expect_on(ROOM, REMOVED).await.data()["user_id"], "bob");
    assert_eq!(carl.join(ROOM, "carl").await.members(), ["ann", "carl"]);
    assert_eq!(ann.expect_on(ROOM, ADDED).await.data()["user_id"], "carl");
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_hundred_users_fit_by_default_and_the_next_does_not() {
    let server = TestServer::start().await;
    let mut members = Vec::new();
    for n in 0..100 {
        let mut client = server.connect().await;
        assert_eq!(client.join(ROOM, &n.to_string()).await.members().len(), n + 1);
        members.push(client);
    }
    let mut late = server.connect().await;
    late.send(late.membership(ROOM, r#"{"user_id":"late"}"#)).await;
    let text = late.expect_rejection(ROOM, "LimitReached", 403).await;
    assert_eq!(text, format!("Presence channel {ROOM} is over its limit of 100 members"));
}

#[tokio::test]
async fn without_channel_data_only_a_signed_in_user_can_be_a_member() {
    let server = TestServer::start().await;
    let mut ann = server.join(ROOM, "ann").await;
    let mut client = server.connect().await;
    client.send(client.subscription(ROOM)).await;
    let text = client.expect_some_error().await;
    assert!(!text.is_empty());
    assert_eq!(client.expect_on(ROOM, "pusher:subscription_error").await.data()["error"], json!(text));
    client.expect_on(ROOM, "pusher_internal:subscription_error").await;

    client.sign_in_as(r#"{"id":"7","user_info":{"name":"S"}}"#).await;
    client.send(client.subscription(ROOM)).await;
    let success = client.expect_on(ROOM, "pusher_internal:subscription_succeeded").await;
    assert_eq!(success.members(), ["7", "ann"]);
    assert_eq!(success.data()["presence"]["hash"]["7"], json!({ "name": "S" }));
    assert_eq!(ann.expect_on(ROOM, ADDED).await.data(), json!({ "user_id": "7", "user_info": { "name": "S" } }));
}

#[tokio::test]
async fn channel_data_wins_over_the_sign_in() {
    let server = TestServer::start().await;
    let mut client = server.sign_in("7").await;
    assert_eq!(client.join(ROOM, "eight").await.members(), ["eight"]);
    assert_eq!(client.join("presence-b", "7").await.members(), ["7"]);
}

#[tokio::test]
async fn a_signature_over_channel_data_that_was_not_sent_is_refused() {
    let server = TestServer::start().await;
    let mut client = server.sign_in("7").await;
    let auth = format!("{KEY}:{}", sign::hmac(SECRET, &format!("{}:{ROOM}:{{}}", client.socket_id)));
    client.send(json!({ "event": "pusher:subscribe", "data": { "auth": auth, "channel": ROOM } })).await;
    client.expect_rejection(ROOM, "AuthError", 401).await;
}

#[tokio::test]
async fn any_json_may_be_user_info() {
    let server = TestServer::start().await;
    let mut ann = server.join(ROOM, "ann").await;
    for info in [json!("text"), json!(1.5), json!([1, { "a": [] }]), json!(false), json!({ "ü": "\"\\\n\u{2028}" })] {
        let mut client = server.connect().await;
        let data = json!({ "user_id": "7", "user_info": info }).to_string();
        let success = client.join_as(ROOM, &data).await;
        assert_eq!(success.data()["presence"]["hash"]["7"], info);
        assert_eq!(ann.expect_on(ROOM, ADDED).await.data()["user_info"], info);
        client.disconnect().await;
        ann.expect_on(ROOM, REMOVED).await;
    }
}

/// The members a client knows after its list and the events behind it; fails where they contradict each other.
fn replay(members: &mut BTreeSet<String>, message: &Message) {
    let data = message.data();
    let id = data["user_id"].as_str().unwrap().to_owned();
    match message.event() {
        ADDED => assert!(members.insert(id.clone()), "{id} was added twice"),
        REMOVED => assert!(members.remove(&id), "{id} was removed without being there"),
        other => panic!("unexpected {other}"),
    }
}

/// Reads everything up to the answer of a ping.
async fn catch_up(client: &mut Client, members: &mut BTreeSet<String>) {
    client.send(json!({ "event": "pusher:ping" })).await;
    loop {
        let message = client.next().await;
        if message.event() == "pusher:pong" {
            return;
        }
        replay(members, &message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_that_join_at_once_all_end_up_with_the_same_members() {
    let server = TestServer::start().await;
    let mut joining = JoinSet::new();
    for n in 0..60 {
        let dial = server.dial();
        joining.spawn(async move {
            let mut client = dial.connect().await;
            // Twenty users with three connections each.
            let list = client.join(ROOM, &format!("user-{}", n % 20)).await;
            (client, list.members().into_iter().collect::<BTreeSet<_>>())
        });
    }
    let mut all = joining.join_all().await;
    let expected: BTreeSet<_> = (0..20).map(|n| format!("user-{n}")).collect();
    for (client, members) in &mut all {
        // Who has joined may know it before the others do.
        while *members != expected {
            replay(members, &client.next().await);
        }
        catch_up(client, members).await;
        assert_eq!(*members, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_that_come_and_go_at_once_never_contradict_each_other() {
    let server = TestServer::start().await;
    let mut observer = server.connect().await;
    let mut members: BTreeSet<_> = observer.join(ROOM, "observer").await.members().into_iter().collect();
    let mut moving = JoinSet::new();
    for n in 0..24 {
        let dial = server.dial();
        moving.spawn(async move {
            let id = format!("user-{}", n % 6);
            let mut client = dial.connect().await;
            for round in 0..10 {
                client.send(client.membership(ROOM, &json!({ "user_id": id }).to_string())).await;
                let mut known: Option<BTreeSet<String>> = None;
                loop {
                    let message = client.next().await;
                    match (message.event(), &mut known) {
                        ("pusher_internal:subscription_succeeded", None) => {
                            let list: BTreeSet<_> = message.members().into_iter().collect();
                            assert!(list.contains(&id), "{id} is not in its own list");
                            known = Some(list);
                            client.send(json!({ "event": "pusher:ping" })).await;
                        }
                        ("pusher:pong", Some(_)) => break,
                        (_, Some(members)) => replay(members, &message),
                        (event, None) => panic!("{event} before the list"),
                    }
                }
                if round < 9 {
                    client.unsubscribe(ROOM).await;
                    // What was sent before the unsubscribe was handled still arrives, and still makes sense.
                    catch_up(&mut client, known.as_mut().unwrap()).await;
                }
            }
            // Half of the users stay.
            if n % 6 < 3 { Some(client) } else { None }
        });
    }
    let stayed: Vec<_> = moving.join_all().await.into_iter().flatten().collect();
    assert_eq!(stayed.len(), 12);
    let expected: BTreeSet<_> = ["observer", "user-0", "user-1", "user-2"].map(str::to_owned).into();
    // The last ones left by hanging up, which the server may still be finding out.
    let started = Instant::now();
    loop {
        catch_up(&mut observer, &mut members).await;
        if members == expected {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{members:?}");
    }
    let users = server.api().await.get(&format!("/channels/{ROOM}/users"), &[]).await.json();
    let users: BTreeSet<_> =
        users["users"].as_array().unwrap().iter().map(|user: &Value| user["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(users, expected);
}

/// Joins and leaves so often, as fast as the server takes it, and ends as a member.
async fn flap(client: &mut Client, times: usize) {
    let join = client.membership(ROOM, r#"{"user_id":"flapper"}"#);
    let leave = json!({ "event": "pusher:unsubscribe", "data": { "channel": ROOM } });
    for _ in 0..times {
        client.send_all(&[join.clone(), leave.clone()]).await;
        client.send(json!({ "event": "pusher:ping" })).await;
        while client.next().await.event() != "pusher:pong" {}
    }
    client.send(join).await;
    // In a cluster the confirmation of an earlier one may be the first to come; each is followed by what is true.
    while client.next().await.event() != "pusher_internal:subscription_succeeded" {}
}

#[tokio::test]
async fn a_member_that_comes_and_goes_all_the_time_is_announced_as_often_as_it_may() {
    const RATE: u32 = 12;
    const TIMES: usize = 200;
    let server = TestServer::with_app(|app| app.limits.presence_joins_per_minute = RATE).await;
    let mut others = Vec::new();
    for n in 0..20 {
        let mut client = server.connect().await;
        let members: BTreeSet<_> = client.join(ROOM, &format!("user-{n}")).await.members().into_iter().collect();
        others.push((client, members));
    }
    let expected: BTreeSet<_> = (0..20).map(|n| format!("user-{n}")).chain(["flapper".to_owned()]).collect();
    let (mut flapper, start) = (server.connect().await, Instant::now());
    flap(&mut flapper, TIMES).await;
    // What the bucket holds, what it gets meanwhile, and the first join.
    let most = RATE as usize + start.elapsed().as_secs() as usize / (60 / RATE as usize) + 2;
    assert!(most < TIMES / 2, "this machine is too slow for the test to mean anything");
    for (client, members) in &mut others {
        client.send(json!({ "event": "pusher:ping" })).await;
        let mut joins = 0;
        loop {
            let message = client.next().await;
            if message.event() == "pusher:pong" && *members == expected {
                break;
            }
            if message.event() == "pusher:pong" {
                // In a cluster the last news may come later than the answer to the client that caused them.
                client.send(json!({ "event": "pusher:ping" })).await;
                continue;
            }
            joins += usize::from(message.event() == ADDED && message.data()["user_id"] == "flapper");
            replay(members, &message);
        }
        assert!(joins <= most, "{joins} joins, and {most} are allowed");
    }
    let hidden = server.metric("fanfare_presence_rejoins_hidden_total").await;
    assert!(hidden >= (TIMES - most) as f64, "{hidden}");
    // What the others have heard is what newcomers and backends see.
    let mut late = server.connect().await;
    let mut now = expected.clone();
    now.insert("late".to_owned());
    assert_eq!(late.join(ROOM, "late").await.members().into_iter().collect::<BTreeSet<_>>(), now);
    let users = server.api().await.get(&format!("/channels/{ROOM}/users"), &[]).await.json();
    assert_eq!(users["users"].as_array().unwrap().len(), now.len(), "{users}");
    let refused = server.metric(REFUSED).await;
    assert!(refused.abs() < f64::EPSILON, "{refused}");
}

/// Ann, who is in the room, and Bob, who has left it as often in this minute as he may.
async fn room_that_bob_has_left() -> (TestServer, Client, Client) {
    let server = TestServer::with_app(|app| app.limits.presence_joins_per_minute = 1).await;
    let mut ann = server.join(ROOM, "ann").await;
    let mut bob = server.join(ROOM, "bob").await;
    ann.expect_on(ROOM, ADDED).await;
    bob.leave(ROOM).await;
    ann.expect_on(ROOM, REMOVED).await;
    (server, ann, bob)
}

#[tokio::test]
async fn a_leave_above_the_limit_is_held_back_but_not_from_its_own_connection() {
    let (server, mut ann, mut bob) = room_that_bob_has_left().await;
    bob.join(ROOM, "bob").await;
    ann.expect_on(ROOM, ADDED).await;

    bob.leave(ROOM).await;
    ann.expect_silence().await;
    let mut api = server.api().await;
    // It is told nothing more, and may not send.
    api.trigger(ROOM, "news", "x").await;
    ann.expect_event(ROOM, "news", "x").await;
    bob.expect_silence().await;
    bob.unsubscribe(ROOM).await;
    bob.expect_error(&format!("No current subscription to channel {ROOM}, or subscription in progress")).await;
    let both = json!({ "occupied": true, "user_count": 2, "subscription_count": 2 });
    api.expect_channel(ROOM, "user_count,subscription_count", both.clone()).await;
    // Somebody who looks now sees what the others see.
    let mut carl = server.connect().await;
    assert_eq!(carl.join(ROOM, "carl").await.members(), ["ann", "bob", "carl"]);
    ann.expect_on(ROOM, ADDED).await;
    carl.leave(ROOM).await;
    ann.expect_on(ROOM, REMOVED).await;

    // Back in time: nobody has noticed, and it hears everything again.
    assert_eq!(bob.join(ROOM, "bob").await.members(), ["ann", "bob"]);
    ann.expect_silence().await;
    api.trigger(ROOM, "news", "y").await;
    for client in [&mut ann, &mut bob] {
        client.expect_event(ROOM, "news", "y").await;
    }
    // Its end is told at once, also while its leave is held back.
    bob.leave(ROOM).await;
    ann.expect_silence().await;
    bob.disconnect().await;
    assert_eq!(ann.expect_on(ROOM, REMOVED).await.data(), json!({ "user_id": "bob" }));
    api.expect_channel(ROOM, "user_count", json!({ "occupied": true, "user_count": 1 })).await;
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_leave_that_was_held_back_is_told_in_its_time() {
    // Two seconds for each.
    let server = TestServer::with_app(|app| app.limits.presence_joins_per_minute = 30).await;
    let mut ann = server.join(ROOM, "ann").await;
    let mut members = BTreeSet::from(["ann".to_owned()]);
    let mut flapper = server.connect().await;
    flap(&mut flapper, 60).await;
    catch_up(&mut ann, &mut members).await;
    flapper.unsubscribe(ROOM).await;
    let started = Instant::now();
    while members.contains("flapper") {
        catch_up(&mut ann, &mut members).await;
        assert!(started.elapsed() < DEADLINE, "it is still there");
    }
    let mut api = server.api().await;
    api.expect_channel(ROOM, "user_count", json!({ "occupied": true, "user_count": 1 })).await;
    // It is a leave like any other: the next join is one, too.
    assert_eq!(flapper.join(ROOM, "flapper").await.members(), ["ann", "flapper"]);
    assert_eq!(ann.expect_on(ROOM, ADDED).await.data()["user_id"], "flapper");
}

#[tokio::test]
async fn an_empty_channel_is_vacated_when_a_leave_that_was_held_back_is_told() {
    let server = TestServer::with_app(|app| app.limits.presence_joins_per_minute = 60).await;
    let mut api = server.api().await;
    let mut flapper = server.connect().await;
    flap(&mut flapper, 100).await;
    flapper.unsubscribe(ROOM).await;
    api.expect_channel(ROOM, "", json!({ "occupied": false })).await;
}

#[tokio::test]
async fn another_user_cannot_come_in_place_of_one_whose_leave_is_held_back() {
    let (server, mut ann, mut bob) = room_that_bob_has_left().await;
    // Another user may come as long as no leave is held back.
    bob.join(ROOM, "robert").await;
    ann.expect_on(ROOM, ADDED).await;
    bob.leave(ROOM).await;
    bob.send(bob.membership(ROOM, r#"{"user_id":"bob"}"#)).await;
    let text = bob.expect_rejection(ROOM, "LimitReached", 429).await;
    assert!(text.contains("limits.presence_joins_per_minute = 1"), "{text}");
    ann.expect_silence().await;
    assert_eq!(bob.join(ROOM, "robert").await.members(), ["ann", "robert"]);
    ann.expect_silence().await;
    server.expect_metric(REFUSED, 1).await;
    // Another connection may, of course.
    let mut other = server.connect().await;
    assert_eq!(other.join(ROOM, "bob").await.members(), ["ann", "bob", "robert"]);
}

#[tokio::test]
async fn a_component_that_is_mounted_twice_notices_nothing() {
    for rate in [1, 30, 0] {
        let server = TestServer::with_app(|app| app.limits.presence_joins_per_minute = rate).await;
        let mut client = server.connect().await;
        let join = client.membership(ROOM, r#"{"user_id":"7"}"#);
        let leave = json!({ "event": "pusher:unsubscribe", "data": { "channel": ROOM } });
        client.send_all(&[join.clone(), leave, join]).await;
        assert_eq!(client.expect_on(ROOM, "pusher_internal:subscription_succeeded").await.members(), ["7"]);
        client.send(json!({ "event": "pusher:ping" })).await;
        loop {
            match client.next().await.event() {
                "pusher_internal:subscription_succeeded" => {}
                "pusher:pong" => break,
                other => client.fail(&format!("unexpected {other}")),
            }
        }
        assert_eq!(server.connect().await.join(ROOM, "8").await.members(), ["7", "8"]);
        assert_eq!(client.expect_on(ROOM, ADDED).await.data()["user_id"], "8");
    }
}
