//! Protocol §5.2: what backends are told, and what not.

use std::time::Duration;

use fanfare::Config;
use fanfare::config::WebhookEvent;
use serde_json::{Value, json};

use crate::support::{Backend, Client, TestServer};

const ROOM: &str = "presence-room";

fn occupied(channel: &str) -> Value {
    json!({ "name": "channel_occupied", "channel": channel })
}

fn vacated(channel: &str) -> Value {
    json!({ "name": "channel_vacated", "channel": channel })
}

fn added(channel: &str, user_id: &str) -> Value {
    json!({ "name": "member_added", "channel": channel, "user_id": user_id })
}

fn removed(channel: &str, user_id: &str) -> Value {
    json!({ "name": "member_removed", "channel": channel, "user_id": user_id })
}

fn missed(channel: &str) -> Value {
    json!({ "name": "cache_miss", "channel": channel })
}

fn counted(channel: &str, count: u64) -> Value {
    json!({ "name": "subscription_count", "channel": channel, "subscription_count": count })
}

async fn start() -> (Backend, TestServer) {
    start_with(|_| {}).await
}

async fn start_with(change: impl FnOnce(&mut Config)) -> (Backend, TestServer) {
    let backend = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, change).await;
    (backend, server)
}

/// Proves that nothing is on its way or waits for its delay: somebody comes and goes now, and is heard of next.
async fn expect_silence(backend: &mut Backend, server: &TestServer, channel: &str) {
    let mut marker = server.connect().await;
    marker.subscribe(channel).await;
    backend.expect(occupied(channel)).await;
    marker.leave(channel).await;
    backend.expect(vacated(channel)).await;
}

/// How a subscription can end.
#[derive(Debug, Clone, Copy)]
enum Departure {
    Unsubscribe,
    Disconnect,
    Vanish,
}

const DEPARTURES: [Departure; 3] = [Departure::Unsubscribe, Departure::Disconnect, Departure::Vanish];

async fn depart(mut client: Client, channel: &str, departure: Departure) -> Option<Client> {
    match departure {
        Departure::Unsubscribe => client.leave(channel).await,
        Departure::Disconnect => {
            client.disconnect().await;
            return None;
        }
        Departure::Vanish => return None,
    }
    Some(client)
}

#[tokio::test]
async fn every_kind_of_event_has_pushers_form() {
    let (mut backend, server) = start_with(|config| {
        config.apps[0].client_events = true;
        config.apps[0].subscription_counts = true;
    })
    .await;
    let mut one = server.connect().await;
    one.subscribe_private("private-cache-room").await;
    let webhook = backend.expect(occupied("private-cache-room")).await;
    let time_ms = webhook.time_ms();
    let expected =
        format!(r#"{{"time_ms":{time_ms},"events":[{{"name":"channel_occupied","channel":"private-cache-room"}}]}}"#);
    assert_eq!(webhook.body, expected, "to the byte");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!((u128::from(time_ms)..u128::from(time_ms) + 5000).contains(&now), "{time_ms} is not about {now}");
    backend.expect(missed("private-cache-room")).await;
    backend.expect(counted("private-cache-room", 1)).await;

    one.send_event("private-cache-room", "client-move", json!({ "x": [1, "ü\"\n"] })).await;
    let from = one.socket_id.clone();
    backend
        .expect(json!({
            "name": "client_event", "channel": "private-cache-room", "event": "client-move",
            "data": r#"{"x":[1,"ü\"\n"]}"#, "socket_id": from,
        }))
        .await;

    let mut two = server.connect().await;
    two.join(ROOM, "7").await;
    backend.expect_all([occupied(ROOM), added(ROOM, "7")]).await;
    two.send_event(ROOM, "client-say", json!("text")).await;
    backend
        .expect(json!({
            "name": "client_event", "channel": ROOM, "event": "client-say",
            "data": "text", "socket_id": two.socket_id, "user_id": "7",
        }))
        .await;
    two.leave(ROOM).await;
    backend.expect_all([removed(ROOM, "7"), vacated(ROOM)]).await;
    one.disconnect().await;
    backend.expect_all([counted("private-cache-room", 0), vacated("private-cache-room")]).await;
}

#[tokio::test]
async fn events_of_fanfares_own_come_only_to_who_asks_for_them() {
    let (mut backend, server) = start().await;
    let mut client = server.connect().await;
    client.sign_in("7").await;
    client.disconnect().await;
    expect_silence(&mut backend, &server, "marker").await;
    // Long enough for somebody to go offline.
    expect_silence(&mut backend, &server, "marker").await;
}

#[tokio::test]
async fn who_asks_hears_of_connections_and_users() {
    let (mut backend, mut server) = start_with(|config| {
        let app = &mut config.apps[0];
        app.limits.outbox = 1000;
        app.webhooks[0].events = vec![
            WebhookEvent::ConnectionOpened,
            WebhookEvent::ConnectionClosed,
            WebhookEvent::UserOnline,
            WebhookEvent::UserOffline,
        ];
    })
    .await;
    let opened = |client: &Client| json!({ "name": "connection_opened", "socket_id": client.socket_id });
    let closed = |client: &Client, code: &str, reason: &str| json!({ "name": "connection_closed", "socket_id": client.socket_id, "code": code, "reason": reason });
    let of_user = |mut event: Value, user_id: &str| {
        event["user_id"] = user_id.into();
        event
    };
    let online = json!({ "name": "user_online", "user_id": "7" });
    let offline = json!({ "name": "user_offline", "user_id": "7" });

    let polite = server.connect().await;
    let (first, last) = (opened(&polite), closed(&polite, "0", "Closed by the client"));
    polite.disconnect().await;
    let lost = server.connect().await;
    let (lost_first, lost_last) = (opened(&lost), closed(&lost, "0", "Closed by the client"));
    backend.expect_all([first, last, lost_first]).await;
    drop(lost);
    backend.expect(lost_last).await;

    let mut user = server.connect().await;
    user.sign_in("7").await;
    let mut again = server.sign_in("7").await;
    backend.expect_all([opened(&user), online.clone(), opened(&again)]).await;
    server.api().await.post("/users/7/terminate_connections", &json!({})).await.ok();
    let reason = "You got disconnected by the app.";
    user.expect_close(4009).await;
    again.expect_close(4009).await;
    let mut ends = [backend.next().await.event().clone(), backend.next().await.event().clone()];
    let mut expected = [&user, &again].map(|client| of_user(closed(client, "4009", reason), "7"));
    ends.sort_by_key(ToString::to_string);
    expected.sort_by_key(ToString::to_string);
    assert_eq!(ends, expected);
    backend.expect(offline).await;

    let mut slow = server.connect().await;
    slow.subscribe("room").await;
    backend.expect(opened(&slow)).await;
    server.api().await.trigger("room", "greet", &"x".repeat(2000)).await;
    backend.expect(closed(&slow, "4100", "Over capacity")).await;
    slow.expect_close(4100).await;

    // A refused client was never there.
    server.dial().protocol(3).refused(4007).await;
    let mut back = server.sign_in("7").await;
    backend.expect_all([opened(&back), online]).await;
    server.stop();
    back.expect_close(4200).await;
    backend.expect(of_user(closed(&back, "4200", "Server is shutting down"), "7")).await;
    server.stopped().await;
}

#[tokio::test]
async fn the_transcript_of_the_protocol_holds() {
    let (mut backend, server) = start().await;
    let a1 = server.join(ROOM, "7").await;
    backend.expect_all([occupied(ROOM), added(ROOM, "7")]).await;
    let mut b = server.join(ROOM, "9").await;
    backend.expect(added(ROOM, "9")).await;
    let a2 = server.join(ROOM, "7").await;
    a1.disconnect().await;
    expect_silence(&mut backend, &server, "marker").await;
    a2.disconnect().await;
    assert_eq!(b.expect("pusher_internal:member_removed").await.data(), json!({ "user_id": "7" }));
    backend.expect(removed(ROOM, "7")).await;
    b.disconnect().await;
    backend.expect_all([removed(ROOM, "9"), vacated(ROOM)]).await;
    expect_silence(&mut backend, &server, "marker").await;
}

#[tokio::test]
async fn who_comes_back_within_the_delay_was_never_away() {
    let (mut backend, server) = start_with(|config| config.apps[0].webhook_delay = Duration::from_millis(1000)).await;
    let mut held = Vec::new();
    for departure in DEPARTURES {
        // Leaving for the delay from here on must not add up.
        for channel in ["room", ROOM] {
            let channel = format!("{channel}-{departure:?}");
            let mut client = server.connect().await;
            if channel.starts_with(ROOM) {
                client.join(&channel, "7").await;
                backend.expect_all([occupied(&channel), added(&channel, "7")]).await;
            } else {
                client.subscribe(&channel).await;
                backend.expect(occupied(&channel)).await;
            }
            held.push(depart(client, &channel, departure).await);
            let mut back = server.connect().await;
            if channel.starts_with(ROOM) {
                back.join(&channel, "7").await;
            } else {
                back.subscribe(&channel).await;
            }
            held.push(Some(back));
        }
    }
    expect_silence(&mut backend, &server, "marker").await;
}

#[tokio::test]
async fn who_comes_back_after_the_delay_has_been_away() {
    let (mut backend, server) = start().await;
    for departure in DEPARTURES {
        let channel = format!("{ROOM}-{departure:?}");
        for _ in 0..2 {
            let client = server.join(&channel, "7").await;
            backend.expect_all([occupied(&channel), added(&channel, "7")]).await;
            let _still_connected = depart(client, &channel, departure).await;
            backend.expect_all([removed(&channel, "7"), vacated(&channel)]).await;
        }
    }
}

#[tokio::test]
async fn a_member_can_leave_a_channel_that_others_keep() {
    let (mut backend, server) = start().await;
    let _ann = server.join(ROOM, "ann").await;
    let bob = server.join(ROOM, "bob").await;
    backend.expect_all([occupied(ROOM), added(ROOM, "ann"), added(ROOM, "bob")]).await;
    bob.disconnect().await;
    backend.expect(removed(ROOM, "bob")).await;
    let _carl = server.join(ROOM, "carl").await;
    backend.expect(added(ROOM, "carl")).await;
    expect_silence(&mut backend, &server, "marker").await;
}

#[tokio::test]
async fn the_delay_is_a_delay() {
    const DELAY: Duration = Duration::from_millis(700);
    let (mut backend, server) = start_with(|config| config.apps[0].webhook_delay = DELAY).await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    backend.expect(occupied("room")).await;
    let left = std::time::Instant::now();
    client.leave("room").await;
    backend.expect(vacated("room")).await;
    assert!(left.elapsed() >= DELAY, "after {:?}", left.elapsed());
}

#[tokio::test]
async fn without_a_delay_everything_is_told_at_once() {
    let (mut backend, server) = start_with(|config| config.apps[0].webhook_delay = Duration::ZERO).await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.join(ROOM, "7").await;
        client.leave(ROOM).await;
    }
    for _ in 0..3 {
        backend.expect_all([occupied(ROOM), added(ROOM, "7"), removed(ROOM, "7"), vacated(ROOM)]).await;
    }
    expect_silence(&mut backend, &server, "marker").await;
}

#[tokio::test]
async fn a_kicked_slow_client_has_left() {
    let (mut backend, server) = start_with(|config| config.apps[0].limits.outbox = 1000).await;
    let mut slow = server.join(ROOM, "7").await;
    backend.expect_all([occupied(ROOM), added(ROOM, "7")]).await;
    server.api().await.trigger(ROOM, "greet", &"x".repeat(2000)).await;
    backend.expect_all([removed(ROOM, "7"), vacated(ROOM)]).await;
    slow.expect_close(4100).await;
}

#[tokio::test]
async fn every_kind_of_channel_is_occupied_and_vacated() {
    let (mut backend, server) = start().await;
    let prefixes = [
        "",
        "cache-",
        "private-",
        "private-cache-",
        "private-encrypted-",
        "private-encrypted-cache-",
        "presence-",
        "presence-cache-",
    ];
    for prefix in prefixes {
        let (channel, presence, cache) =
            (format!("{prefix}room"), prefix.starts_with("presence-"), prefix.contains("cache-"));
        let mut client = server.connect().await;
        match presence {
            true => drop(client.join(&channel, "7").await),
            false => client.subscribe_private(&channel).await,
        }
        backend.expect(occupied(&channel)).await;
        if presence {
            backend.expect(added(&channel, "7")).await;
        }
        if cache {
            backend.expect(missed(&channel)).await;
        }
        client.disconnect().await;
        if presence {
            backend.expect(removed(&channel, "7")).await;
        }
        backend.expect(vacated(&channel)).await;
    }
}

#[tokio::test]
async fn the_channels_of_users_are_nobodys_business() {
    let (mut backend, server) = start().await;
    let mut client = server.sign_in("7").await;
    client.subscribe("#server-to-user-7").await;
    server.api().await.trigger("#server-to-user-7", "greet", "1").await;
    client.expect("greet").await;
    client.disconnect().await;
    expect_silence(&mut backend, &server, "marker").await;
}

#[tokio::test]
async fn a_refused_subscription_causes_nothing() {
    let (mut backend, server) = start_with(|config| config.apps[0].limits.presence_members = 1).await;
    let mut client = server.connect().await;
    let auth = format!("{}:{}", crate::support::KEY, "0".repeat(64));
    for channel in ["private-room", ROOM, "private-cache-room"] {
        let data = json!({ "auth": auth, "channel": channel, "channel_data": r#"{"user_id":"7"}"# });
        client.send(json!({ "event": "pusher:subscribe", "data": data })).await;
        client.expect_rejection(channel, "AuthError", 401).await;
    }
    let _ann = server.join(ROOM, "ann").await;
    backend.expect_all([occupied(ROOM), added(ROOM, "ann")]).await;
    client.send(client.membership(ROOM, r#"{"user_id":"bob"}"#)).await;
    client.expect_some_error().await;
    client.expect_only_rejections().await;
    expect_silence(&mut backend, &server, "marker").await;
}

#[tokio::test]
async fn a_cache_miss_is_told_once_for_many_who_ask() {
    let (mut backend, server) = start().await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut client = server.connect().await;
        client.subscribe("cache-room").await;
        held.push(client);
    }
    backend.expect_all([occupied("cache-room"), missed("cache-room")]).await;
    let mut other = server.connect().await;
    other.subscribe("cache-other").await;
    other.expect_on("cache-other", "pusher:cache_miss").await;
    backend.expect_all([occupied("cache-other"), missed("cache-other")]).await;
    server.api().await.trigger("cache-full", "greet", "1").await;
    other.subscribe("cache-full").await;
    backend.expect(occupied("cache-full")).await;
    // Leaving the channel does not make it news again.
    drop(held);
    backend.expect(vacated("cache-room")).await;
    other.expect("greet").await;
    other.subscribe("cache-room").await;
    backend.expect(occupied("cache-room")).await;
    expect_silence(&mut backend, &server, "marker").await;
}

#[tokio::test]
async fn counts_are_told_only_where_the_app_has_them() {
    let (mut backend, server) = start().await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    backend.expect(occupied("room")).await;
    expect_silence(&mut backend, &server, "marker").await;
}

#[tokio::test]
async fn counts_are_told_as_often_as_clients_hear_them() {
    let (mut backend, server) = start_with(|config| {
        let app = &mut config.apps[0];
        app.subscription_counts = true;
        app.limits.subscription_count_threshold = 3;
        app.limits.subscription_count_interval = Duration::from_secs(1);
    })
    .await;
    let mut clients = Vec::new();
    let mut counts = Vec::new();
    for _ in 0..30 {
        let mut client = server.connect().await;
        client.subscribe("room").await;
        clients.push(client);
    }
    backend.expect(occupied("room")).await;
    while counts.last() != Some(&30) {
        let webhook = backend.next().await;
        let count = webhook.event()["subscription_count"].as_u64().unwrap();
        assert_eq!(*webhook.event(), counted("room", count));
        counts.push(count);
    }
    assert_eq!(counts[..3], [1, 2, 3], "{counts:?}");
    assert!(counts.is_sorted() && counts.len() < 15, "{counts:?}");
    clients.truncate(2);
    while counts.last() != Some(&2) {
        counts.push(backend.next().await.event()["subscription_count"].as_u64().unwrap());
    }
    // A presence channel has none.
    let _member = server.join(ROOM, "7").await;
    backend.expect_all([occupied(ROOM), added(ROOM, "7")]).await;
}

#[tokio::test]
async fn only_client_events_that_were_passed_on_are_told() {
    let (mut backend, server) = start_with(|config| {
        config.apps[0].client_events = true;
        config.apps[0].limits.client_events_per_second = 2;
    })
    .await;
    let mut client = server.connect().await;
    // Between channels there is no order to rely on.
    client.subscribe("room").await;
    backend.expect(occupied("room")).await;
    client.subscribe_private("private-room").await;
    backend.expect(occupied("private-room")).await;
    for (channel, event, data) in [
        ("room", "client-a", json!("not a private channel")),
        ("private-other", "client-a", json!("not subscribed")),
        ("private-room", "a", json!("no client event")),
        ("private-room", "client-a", json!("x".repeat(20_000))),
    ] {
        client.send_event(channel, event, data).await;
        client.expect("pusher:error").await;
    }
    for n in 0..5 {
        client.send_event("private-room", "client-a", json!(n.to_string())).await;
    }
    let mut told = 0;
    client.send(json!({ "event": "pusher:ping" })).await;
    // What is not refused is told.
    while client.next().await.event() != "pusher:pong" {
        told += 1;
    }
    for n in 0..5 - told {
        let webhook = backend.next().await;
        assert_eq!(webhook.event()["data"], n.to_string(), "{}", webhook.body);
    }
    expect_silence(&mut backend, &server, "marker").await;
}

#[tokio::test]
async fn no_client_events_are_told_where_the_app_has_none() {
    let (mut backend, server) = start().await;
    let mut client = server.connect().await;
    client.subscribe_private("private-room").await;
    backend.expect(occupied("private-room")).await;
    client.send_event("private-room", "client-a", json!("x")).await;
    client.expect("pusher:error").await;
    expect_silence(&mut backend, &server, "marker").await;
}

#[tokio::test]
async fn whatever_clients_write_arrives_as_they_wrote_it() {
    let (mut backend, server) = start_with(|config| {
        config.apps[0].client_events = true;
        config.apps[0].limits.client_events_per_second = 1000;
    })
    .await;
    let mut client = server.connect().await;
    client.subscribe_private("private-room").await;
    backend.expect(occupied("private-room")).await;
    let mut long = "\\u00e9".repeat(1000);
    long.push('é');
    for literal in [r"\u0000\u001f\u007f", r"\/\b\f\n\r\t\\\u005c\u2028", "\u{7f}\u{2028}\u{fffd}🦀", &long, ""] {
        let text = format!(r#"{{"event":"client-a","channel":"private-room","data":"{literal}"}}"#);
        client.send_text(&text).await;
        let body = backend.next().await.body;
        assert!(body.contains(&format!(r#""data":"{literal}""#)), "{literal} is not in {body}");
    }
    // Depth that only a parser would mind.
    let deep = format!("{}1{}", "[".repeat(120), "]".repeat(120));
    client.send_text(&format!(r#"{{"event":"client-a","channel":"private-room","data":{deep}}}"#)).await;
    assert_eq!(backend.next().await.event()["data"], deep.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_rush_of_comings_and_goings_the_backend_knows_the_truth() {
    let (mut backend, server) = start_with(|config| config.apps[0].webhook_delay = Duration::ZERO).await;
    let mut rushing = tokio::task::JoinSet::new();
    for n in 0..8 {
        let dial = server.dial();
        rushing.spawn(async move {
            let mut client = dial.connect().await;
            for round in 0..25 {
                client.send(client.membership(ROOM, &json!({ "user_id": (n % 3).to_string() }).to_string())).await;
                // The last one to leave differs from round to round.
                if round % 3 == n % 3 {
                    tokio::task::yield_now().await;
                }
                client.unsubscribe(ROOM).await;
            }
            client.send(json!({ "event": "pusher:ping" })).await;
            while client.next().await.event() != "pusher:pong" {}
        });
    }
    rushing.join_all().await;
    let mut marker = server.connect().await;
    marker.subscribe("marker").await;
    // Whoever begins had ended, and whoever ends had begun. With several nodes the last ends may come after the marker.
    let mut true_now = std::collections::HashSet::new();
    let mut marked = false;
    while !marked || !true_now.is_empty() {
        let event = backend.next().await.event().clone();
        let key = (event["channel"].to_string(), event.get("user_id").map(ToString::to_string));
        match event["name"].as_str().unwrap() {
            "channel_occupied" if event["channel"] == "marker" => marked = true,
            "channel_occupied" | "member_added" => assert!(true_now.insert(key), "{event} again"),
            "channel_vacated" | "member_removed" => assert!(true_now.remove(&key), "{event} without a beginning"),
            other => panic!("{other}"),
        }
    }
}
