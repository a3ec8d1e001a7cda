//! Protocol §2 over HTTP: whoever streams or polls is a client like all others. And §7.2: where they find the server.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Backend, Client, Http, HttpClient, HttpSession, KEY, Packet, TestServer, Wire, requests};

const SECOND: Duration = Duration::from_secs(1);
const ROOM: &str = "presence-room";

async fn server() -> TestServer {
    TestServer::with_app(|app| app.client_events = true).await
}

/// One that streams, and one that polls.
async fn both(server: &TestServer) -> [HttpClient; 2] {
    [server.fallback().connect_streaming().await, server.fallback().connect_polling().await]
}

#[tokio::test]
async fn client_events_go_from_any_transport_to_every_other() {
    let server = server().await;
    let [mut streaming, mut polling] = both(&server).await;
    let mut websocket = server.connect().await;
    streaming.subscribe("private-room").await;
    polling.subscribe("private-room").await;
    websocket.subscribe_private("private-room").await;
    let event = |data: &str| json!({ "event": "client-a", "channel": "private-room", "data": data });
    websocket.send(event("w")).await;
    streaming.expect_event("private-room", "client-a", "w").await;
    polling.expect_event("private-room", "client-a", "w").await;
    streaming.send(event("s")).await;
    websocket.expect_event("private-room", "client-a", "s").await;
    polling.expect_event("private-room", "client-a", "s").await;
    polling.send(event("p")).await;
    websocket.expect_event("private-room", "client-a", "p").await;
    streaming.expect_event("private-room", "client-a", "p").await;
    // Nobody hears of their own.
    websocket.expect_silence().await;
    streaming.expect_silence().await;
    polling.expect_silence().await;
}

#[tokio::test]
async fn members_are_seen_whatever_their_transport() {
    let server = server().await;
    let [mut streaming, mut polling] = both(&server).await;
    let mut websocket = server.join(ROOM, "w").await;
    assert_eq!(streaming.join(ROOM, "s").await.members(), ["s", "w"]);
    assert_eq!(polling.join(ROOM, "p").await.members(), ["p", "s", "w"]);
    for user in ["s", "p"] {
        let added = websocket.expect_on(ROOM, "pusher_internal:member_added").await;
        assert_eq!(added.data()["user_id"], user);
    }
    streaming.expect_on(ROOM, "pusher_internal:member_added").await;
    streaming.send(json!({ "event": "pusher:unsubscribe", "data": { "channel": ROOM } })).await;
    for removed in [
        websocket.expect_on(ROOM, "pusher_internal:member_removed").await,
        polling.expect_on(ROOM, "pusher_internal:member_removed").await,
    ] {
        assert_eq!(removed.data(), json!({ "user_id": "s" }));
    }
    let info = server.api().await.channel(ROOM, "user_count,subscription_count").await;
    assert_eq!(info, json!({ "occupied": true, "user_count": 2, "subscription_count": 2 }));
}

#[tokio::test]
async fn an_event_passes_by_the_client_that_asked_for_it() {
    let server = server().await;
    let mut api = server.api().await;
    for mut client in both(&server).await {
        client.subscribe("room").await;
        api.trigger_except("room", "mine", "{}", &client.socket_id).await;
        api.trigger("room", "yours", "{}").await;
        client.expect_event("room", "yours", "{}").await;
    }
}

#[tokio::test]
async fn a_user_signs_in_and_gets_what_is_for_the_user() {
    let server = server().await;
    let mut api = server.api().await;
    for (mut client, user) in both(&server).await.into_iter().zip(["7", "8"]) {
        let data = json!({ "id": user, "user_info": { "name": "Ä" } }).to_string();
        client.sign_in_as(&data).await;
        let channel = format!("#server-to-user-{user}");
        api.trigger(&channel, "greet", "hello").await;
        client.expect_event(&channel, "greet", "hello").await;
        // Who is signed in is a member under that name.
        client.send(requests::subscription(&client.socket_id, ROOM)).await;
        let success = client.expect_on(ROOM, "pusher_internal:subscription_succeeded").await;
        assert_eq!(success.data()["presence"]["hash"][user], json!({ "name": "Ä" }));
    }
}

#[tokio::test]
async fn a_watchlist_is_told_of_those_who_come() {
    let server = server().await;
    let statuses = |name: &str, ids: Value| json!({ "events": [{ "name": name, "user_ids": ids }] });
    for (mut client, user) in both(&server).await.into_iter().zip(["s", "p"]) {
        let friend = format!("friend-of-{user}");
        client.sign_in_as(&json!({ "id": user, "watchlist": [friend] }).to_string()).await;
        let told = client.expect("pusher_internal:watchlist_events").await.data();
        assert_eq!(told, statuses("offline", json!([friend])));
        let mut polling = server.fallback().connect_polling().await;
        polling.sign_in_as(&json!({ "id": friend }).to_string()).await;
        let told = client.expect("pusher_internal:watchlist_events").await.data();
        assert_eq!(told, statuses("online", json!([friend])));
    }
}

#[tokio::test]
async fn a_cache_channel_says_what_it_has_or_that_it_has_nothing() {
    let server = server().await;
    server.api().await.trigger("cache-full", "greet", " any \u{2028} text ").await;
    for mut client in both(&server).await {
        client.subscribe("cache-empty").await;
        client.expect_json(json!({ "event": "pusher:cache_miss", "channel": "cache-empty", "data": "{}" })).await;
        client.subscribe("cache-full").await;
        client.expect_event("cache-full", "greet", " any \u{2028} text ").await;
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn a_refused_subscription_has_its_three_messages() {
    let server = server().await;
    for mut client in both(&server).await {
        let data = json!({ "auth": format!("{KEY}:bad"), "channel": "private-room" });
        client.send(json!({ "event": "pusher:subscribe", "data": data })).await;
        let error = client.expect("pusher:error").await;
        assert!(error.error().starts_with("Invalid signature: "), "{}", error.json);
        client.expect_on("private-room", "pusher:subscription_error").await;
        client.expect_on("private-room", "pusher_internal:subscription_error").await;
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn any_text_arrives_as_it_was_sent_and_no_line_is_broken_by_it() {
    let server = server().await;
    let mut api = server.api().await;
    let text: String =
        ('\0'..='\u{2ff}').chain('\u{2000}'..='\u{20ff}').chain(['\u{fff0}', '\u{ffff}', '😀']).collect();
    let [mut streaming, mut polling] = both(&server).await;
    for client in [&mut streaming, &mut polling] {
        client.subscribe("room").await;
        api.trigger("room", "greet", &text).await;
        client.expect_event("room", "greet", &text).await;
    }
    api.trigger("room", "greet", &text).await;
    // What browsers of any age take for the end of a line is not there.
    let raw = polling.session.poll().await.body;
    assert_eq!(raw.matches(['\n', '\r', '\u{2028}', '\u{2029}']).count(), 1, "{raw:?}");
    assert!(raw.ends_with('\n') && !raw.chars().any(|c| c < ' ' && c != '\n'), "{raw:?}");
}

#[tokio::test]
async fn backends_are_told_of_those_who_come_and_of_those_who_stay_away() {
    let mut backend = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, |config| config.fallbacks.grace = SECOND).await;
    let mut client = server.fallback().connect_streaming().await;
    client.join(ROOM, "7").await;
    backend.expect(json!({ "name": "channel_occupied", "channel": ROOM })).await;
    backend.expect(json!({ "name": "member_added", "channel": ROOM, "user_id": "7" })).await;
    client.hang_up();
    backend.expect(json!({ "name": "member_removed", "channel": ROOM, "user_id": "7" })).await;
    backend.expect(json!({ "name": "channel_vacated", "channel": ROOM })).await;
}

#[tokio::test]
async fn the_operator_sees_how_many_there_are() {
    let server = TestServer::with(|config| config.fallbacks.grace = SECOND).await;
    server.expect_metric("fanfare_fallback_sessions", 0).await;
    let [mut streaming, _polling] = both(&server).await;
    server.expect_metric("fanfare_fallback_sessions", 2).await;
    for transport in ["xhr_streaming", "xhr"] {
        let line = format!("fanfare_fallback_sessions{{transport=\"{transport}\"}} 1");
        assert!(server.metrics().await.contains(&line), "{line}");
    }
    streaming.hang_up();
    server.expect_metric("fanfare_fallback_sessions", 0).await;
}

#[tokio::test]
async fn a_host_name_is_told_with_the_o() {
    let server = TestServer::with(|config| config.fallbacks.hostname = "node7.example".to_owned()).await;
    let mut stream = server.fallback().stream().await;
    stream.expect_line(r#"o{"hostname":"node7.example"}"#).await;
    stream.expect_message("pusher:connection_established").await;
    let packets = server.fallback().poll_packets().await;
    assert!(matches!(&packets[0], Packet::Open(rest) if rest == r#"{"hostname":"node7.example"}"#), "{packets:?}");
}

/// The statuses of a first poll of pusher-js and of one of SockJS.
async fn statuses(server: &TestServer) -> (u16, u16) {
    (server.fallback().poll().await.status, server.sockjs().poll().await.status)
}

#[tokio::test]
async fn each_kind_of_transport_can_be_turned_off() {
    for (enabled, sockjs) in [(true, true), (true, false), (false, true), (false, false)] {
        let server = TestServer::with(|config| {
            config.fallbacks.enabled = enabled;
            config.fallbacks.sockjs = sockjs;
        })
        .await;
        let status = |on| if on { 200 } else { 404 };
        assert_eq!(statuses(&server).await, (status(enabled), status(sockjs)), "{enabled} {sockjs}");
        let mut http = Http::new(Wire::connect(server.addr).await);
        for path in ["/pusher", "/pusher/info", "/pusher/iframe.html?js_path=https%3A%2F%2Fjs.pusher.com%2Fx.js"] {
            assert_eq!(http.get(path).await.status, status(sockjs), "{path} {enabled} {sockjs}");
        }
        for action in ["xhr_streaming", "xhr_send"] {
            let session = server.fallback();
            let expected = if enabled && action == "xhr_streaming" { 200 } else { 404 };
            let receiving = session.begin("POST", &format!("{action}?{}", session.query)).await;
            assert_eq!(receiving.response.status, expected, "{action} {enabled} {sockjs}");
        }
        server.connect().await.subscribe("room").await;
    }
}

#[tokio::test]
async fn they_are_where_the_configuration_puts_them() {
    let at = |session: HttpSession, place: &str| {
        let mut session = session;
        session.path = session.path.replace("/pusher", place);
        session
    };
    for (path, prefix, place) in [("/fall/backs", "", "/fall/backs"), ("/pusher", "/realtime", "/realtime/pusher")] {
        let server = TestServer::with(|config| {
            config.fallbacks.path = path.to_owned();
            config.server.path_prefix = prefix.to_owned();
        })
        .await;
        at(server.fallback(), place).connect_streaming().await.subscribe("room").await;
        at(server.fallback(), place).connect_polling().await.subscribe("room").await;
        assert_eq!(at(server.sockjs(), place).poll().await.body, "o\n");
        assert_eq!(statuses(&server).await, (404, 404));
    }
}

#[tokio::test]
async fn a_websocket_is_not_kept_out_by_its_neighbours() {
    let server = server().await;
    let mut client: Client = server.connect().await;
    client.subscribe("room").await;
    let [mut streaming, mut polling] = both(&server).await;
    streaming.subscribe("room").await;
    polling.subscribe("room").await;
    server.api().await.trigger("room", "greet", "{}").await;
    client.expect_event("room", "greet", "{}").await;
    streaming.expect_event("room", "greet", "{}").await;
    polling.expect_event("room", "greet", "{}").await;
}
