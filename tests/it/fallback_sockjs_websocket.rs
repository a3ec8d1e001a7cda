//! Protocol §7.6, and the tests of the SockJS protocol 0.3.3: SockJS over a WebSocket, with and without its framing.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::support::{Client, Http, Item, KEY, Message, Opcode, Packet, TestServer, Wire, masked, within};

const RAW: &str = "/pusher/websocket";
const FRAMED: &str = "/pusher/000/abc/websocket";

fn path() -> Value {
    json!({ "path": format!("/app/{KEY}?protocol=7&client=js") })
}

async fn open(server: &TestServer, path: &str) -> Client {
    server.dial().path(path).query("").open().await
}

/// The next packet, as text.
async fn packet(client: &mut Client) -> String {
    loop {
        match client.item().await {
            Item::Text(text) => return text,
            Item::Ping(payload) if client.answers_pings => client.send_control(Opcode::Pong, &payload).await,
            _ => client.fail("expected a packet"),
        }
    }
}

/// The next packet, which must be one message.
async fn message(client: &mut Client) -> Message {
    let text = packet(client).await;
    match &Packet::parse(&text)[..] {
        [Packet::Message(message)] => message.clone(),
        _ => client.fail("expected one message"),
    }
}

/// A connection with framing after the greeting.
async fn connect(server: &TestServer, place: &str) -> Client {
    let mut client = open(server, place).await;
    assert_eq!(packet(&mut client).await, "o");
    client.send(json!([path().to_string()])).await;
    let greeting = message(&mut client).await;
    assert_eq!(greeting.event(), "pusher:connection_established");
    client.socket_id = greeting.data()["socket_id"].as_str().unwrap().to_owned();
    client
}

async fn ping(client: &mut Client) {
    client.send(json!([json!({ "event": "pusher:ping" }).to_string()])).await;
    assert_eq!(message(client).await.event(), "pusher:pong");
}

#[tokio::test]
async fn packets_come_as_they_do_over_http_and_go_as_arrays_or_alone() {
    let server = TestServer::start().await;
    let mut client = connect(&server, FRAMED).await;
    let subscribe = |channel: &str| json!({ "event": "pusher:subscribe", "data": { "channel": channel } }).to_string();
    client.send(json!([subscribe("room")])).await;
    assert_eq!(message(&mut client).await.event(), "pusher_internal:subscription_succeeded");
    client.send(json!(subscribe("other"))).await;
    assert_eq!(message(&mut client).await.channel(), Some("other"));
    server.api().await.trigger("room", "greet", "\u{2028} ü").await;
    let text = packet(&mut client).await;
    assert!(text.starts_with("a[\"") && text.contains("\\u2028") && !text.contains('\u{2028}'), "{text}");
    // Nothing is answered twice, and messages of one frame are heard in their order.
    let pings = json!([json!({ "event": "pusher:ping" }).to_string(), subscribe("third")]);
    client.send(pings).await;
    let mut events = Vec::new();
    while events.len() < 2 {
        events.extend(Packet::parse(&packet(&mut client).await).into_iter().map(|packet| match packet {
            Packet::Message(message) => message.event().to_owned(),
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(events, ["pusher:pong", "pusher_internal:subscription_succeeded"]);
}

#[tokio::test]
async fn empty_frames_are_ignored() {
    let server = TestServer::start().await;
    let mut client = open(&server, FRAMED).await;
    assert_eq!(packet(&mut client).await, "o");
    client.send_text("").await;
    client.send(json!([])).await;
    client.send(json!([path().to_string()])).await;
    assert_eq!(message(&mut client).await.event(), "pusher:connection_established");
    client.send_text("").await;
    client.send(json!([])).await;
    ping(&mut client).await;
}

#[tokio::test]
async fn messages_behind_the_path_are_heard() {
    let server = TestServer::start().await;
    let mut client = open(&server, FRAMED).await;
    assert_eq!(packet(&mut client).await, "o");
    client.send(json!([path().to_string(), json!({ "event": "pusher:ping" }).to_string()])).await;
    client.send(json!([json!({ "event": "pusher:ping" }).to_string()])).await;
    let mut events = Vec::new();
    while events.len() < 3 {
        events.extend(Packet::parse(&packet(&mut client).await).into_iter().map(|packet| match packet {
            Packet::Message(message) => message.event().to_owned(),
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(events, ["pusher:connection_established", "pusher:pong", "pusher:pong"]);
}

#[tokio::test]
async fn messages_behind_the_path_count_like_others() {
    let server = TestServer::with_app(|app| {
        app.limits.messages_per_second = 90;
        app.limits.message_burst = 1;
    })
    .await;
    let mut client = open(&server, FRAMED).await;
    assert_eq!(packet(&mut client).await, "o");
    let started = tokio::time::Instant::now();
    let ping = || json!({ "event": "pusher:ping" }).to_string();
    let messages: Vec<_> = std::iter::once(path().to_string()).chain((0..200).map(|_| ping())).collect();
    client.send_all(&[json!(messages), json!([ping()]), json!([ping()])]).await;
    let mut pongs = 0;
    while pongs < 202 {
        pongs += packet(&mut client).await.matches("pusher:pong").count();
    }
    // 11 at once, and 100 a second. Slower is always possible.
    assert!(started.elapsed() > Duration::from_millis(1500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn what_is_said_before_the_path_counts_too() {
    let server = TestServer::start().await;
    for place in [FRAMED, RAW] {
        let mut client = open(&server, place).await;
        client.label(place);
        let started = tokio::time::Instant::now();
        // 2000 at once, and 100 a second.
        let mut frames = masked(true, Opcode::Ping as u8, b"").repeat(2100);
        let path = if place == FRAMED { json!([path().to_string()]) } else { path() };
        frames.extend(masked(true, Opcode::Text as u8, path.to_string().as_bytes()));
        client.wire.write(&frames).await;
        loop {
            match client.item().await {
                Item::Text(text) if text.contains("pusher:connection_established") => break,
                Item::Text(_) | Item::Pong(_) => {}
                other => client.fail(&format!("unexpected {other:?}")),
            }
        }
        assert!(started.elapsed() > Duration::from_millis(800), "{:?}", started.elapsed());
    }
}

/// A client whose system takes nothing for it that it does not read, subscribed to `room`.
async fn with_a_small_window(server: &TestServer) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let wire = Wire::over(socket.connect(server.addr).await.unwrap());
    let mut client = server.dial().path(FRAMED).query("").open_over(wire).await;
    assert_eq!(packet(&mut client).await, "o");
    let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": "room" } });
    client.send(json!([path().to_string(), subscribe.to_string()])).await;
    while !packet(&mut client).await.contains("subscription_succeeded") {}
    client
}

/// Publishes so many times ten events of 10 KB, which are twice as long in a packet.
async fn publish(server: &TestServer, batches: usize) {
    let mut api = server.api().await;
    let data = "\"".repeat(5000);
    let batch: Vec<_> = (0..10).map(|_| json!({ "name": "tick", "channel": "room", "data": data })).collect();
    for _ in 0..batches {
        api.post("/batch_events", &json!({ "batch": batch })).await.ok();
    }
}

#[tokio::test]
async fn a_client_that_is_late_gets_all_that_may_wait_for_it() {
    let server = TestServer::with_app(|app| app.limits.outbox = 16 * 1024 * 1024).await;
    let mut late = with_a_small_window(&server).await;
    publish(&server, 50).await;
    let mut events = 0;
    while events < 500 {
        events += packet(&mut late).await.matches("tick").count();
    }
    ping(&mut late).await;
}

#[tokio::test]
async fn what_a_client_misses_that_reads_nothing_is_counted() {
    let server = TestServer::with(|config| {
        config.server.write_timeout = Duration::from_secs(1);
        config.apps[0].limits.outbox = 64 * 1024 * 1024;
    })
    .await;
    let slow = with_a_small_window(&server).await;
    publish(&server, 100).await;
    let counted = async {
        while server.metric("fanfare_frames_dropped_total").await < 100.0 {
            tokio::task::yield_now().await;
        }
    };
    within("close of a client that reads nothing", counted).await;
    drop(slow);
}

#[tokio::test]
async fn broken_json_ends_the_connection() {
    let server = TestServer::start().await;
    for text in ["[\"a", "{", "x", "[1]", "{}", "null", "1"] {
        let mut client = connect(&server, FRAMED).await;
        client.label(text);
        client.send_text(text).await;
        loop {
            match client.item().await {
                Item::End | Item::Close(..) => break,
                // Whatever is said about it is no message.
                Item::Text(text) if text.starts_with("c[") => {}
                other => panic!("{other:?} after {text}"),
            }
        }
    }
}

#[tokio::test]
async fn two_connections_may_have_one_name() {
    let server = TestServer::start().await;
    let mut one = connect(&server, FRAMED).await;
    let mut two = connect(&server, FRAMED).await;
    assert_ne!(one.socket_id, two.socket_id);
    ping(&mut one).await;
    ping(&mut two).await;
    one.disconnect().await;
    ping(&mut two).await;
    let mut again = connect(&server, FRAMED).await;
    ping(&mut again).await;
    // Nor has a session over HTTP anything to do with them.
    let mut session = server.sockjs();
    session.path = FRAMED.replace("/websocket", "");
    assert_eq!(session.post(b"[]").await.status, 404);
    assert_eq!(session.poll().await.body, "o\n");
}

#[tokio::test]
async fn another_path_is_refused_in_both_forms() {
    let server = TestServer::start().await;
    let nobody = "App key nobody not in this cluster. Did you forget to specify the cluster?";
    for (wish, code, reason) in [("/elsewhere", 4005, "Path not found"), ("/app/nobody?protocol=7", 4001, nobody)] {
        let mut client = open(&server, FRAMED).await;
        client.label(wish);
        assert_eq!(packet(&mut client).await, "o");
        client.send(json!([json!({ "path": wish }).to_string()])).await;
        assert_eq!(packet(&mut client).await, format!("c[{code},{}]", json!(reason)));
        // What SockJS clients go by was the packet.
        assert!(matches!(client.item().await, Item::Close(..)));

        let mut raw = open(&server, RAW).await;
        raw.label(wish);
        raw.send(json!({ "path": wish })).await;
        assert_eq!(raw.expect_close(code).await, reason);
        raw.expect_end().await;
    }
}

#[tokio::test]
async fn without_framing_it_is_a_connection_like_others_once_the_path_has_come() {
    let server = TestServer::with_app(|app| app.client_events = true).await;
    let mut client = open(&server, RAW).await;
    client.send(path()).await;
    client.greeting().await;
    client.subscribe_private("private-room").await;
    client.join("presence-room", "7").await;
    server.api().await.trigger("private-room", "greet", "{}").await;
    client.expect_event("private-room", "greet", "{}").await;
    let mut other = server.connect().await;
    other.subscribe_private("private-room").await;
    client.send_event("private-room", "client-a", json!("Hello world!\u{ffff}")).await;
    other.expect_event("private-room", "client-a", "Hello world!\u{ffff}").await;
    client.expect_silence().await;
    client.disconnect().await;
}

#[tokio::test]
async fn members_who_close_are_gone() {
    let server = TestServer::start().await;
    let mut ann = server.join("presence-room", "ann").await;
    let mut framed = connect(&server, FRAMED).await;
    let membership = framed.membership("presence-room", r#"{"user_id":"framed"}"#);
    framed.send(json!([membership.to_string()])).await;
    message(&mut framed).await;
    ann.expect("pusher_internal:member_added").await;
    framed.disconnect().await;
    ann.expect("pusher_internal:member_removed").await;
    let mut raw = open(&server, RAW).await;
    raw.send(path()).await;
    raw.greeting().await;
    raw.join("presence-room", "raw").await;
    ann.expect("pusher_internal:member_added").await;
    drop(raw);
    ann.expect("pusher_internal:member_removed").await;
}

#[tokio::test]
async fn a_terminated_user_hears_why_in_both_forms() {
    let server = TestServer::start().await;
    let mut framed = connect(&server, FRAMED).await;
    let request = framed.sign_in_request(r#"{"id":"7"}"#).to_string();
    framed.send(json!([request])).await;
    assert_eq!(message(&mut framed).await.event(), "pusher:signin_success");
    let mut raw = open(&server, RAW).await;
    raw.send(path()).await;
    raw.greeting().await;
    raw.sign_in("7").await;
    server.api().await.post("/users/7/terminate_connections", &json!({})).await.ok();
    let reason = "You got disconnected by the app.";
    assert_eq!(packet(&mut framed).await, format!("c[4009,\"{reason}\"]"));
    assert!(matches!(framed.item().await, Item::Close(..)));
    assert_eq!(raw.expect_close(4009).await, reason);
}

#[tokio::test]
async fn an_idle_connection_has_heartbeats_where_there_is_framing() {
    let server = TestServer::with(|config| config.fallbacks.heartbeat = Duration::from_secs(1)).await;
    let mut raw = open(&server, RAW).await;
    raw.send(path()).await;
    raw.greeting().await;
    let mut client = connect(&server, FRAMED).await;
    for _ in 0..2 {
        assert_eq!(packet(&mut client).await, "h");
    }
    raw.expect_silence().await;
}

#[tokio::test]
async fn who_does_not_answer_control_pings_is_closed_with_4201() {
    let server = TestServer::with_app(|app| {
        app.limits.activity_timeout = Duration::from_secs(1);
        app.limits.pong_timeout = Duration::from_secs(1);
    })
    .await;
    let mut silent = connect(&server, FRAMED).await;
    let mut ponging = connect(&server, FRAMED).await;
    for client in [&mut silent, &mut ponging] {
        client.answers_pings = false;
        assert!(matches!(client.item().await, Item::Ping(_)));
    }
    ponging.send_control(Opcode::Pong, b"").await;
    ponging.answers_pings = true;
    assert_eq!(packet(&mut silent).await, "c[4201,\"Pong reply not received in time\"]");
    ping(&mut ponging).await;
}

#[tokio::test]
async fn only_websockets_are_served_there() {
    let server = TestServer::start().await;
    for path in [RAW, FRAMED] {
        let mut http = Http::new(Wire::connect(server.addr).await);
        let response = http.get(path).await;
        assert!([400, 426].contains(&response.status), "{path}: {}", response.head);
        let request = format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
        let response = Http::new(Wire::connect(server.addr).await).send(request.as_bytes()).await;
        assert!([400, 405, 426].contains(&response.status), "{path}: {}", response.head);
    }
    let turned_off = TestServer::with(|config| config.fallbacks.sockjs = false).await;
    for path in [RAW, FRAMED] {
        let mut wire = Wire::connect(turned_off.addr).await;
        wire.write(turned_off.dial().path(path).request().as_bytes()).await;
        let head = wire.head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
    }
}

#[tokio::test]
async fn a_server_that_stops_sends_everybody_away_with_4200() {
    let mut server = TestServer::start().await;
    let mut framed = connect(&server, FRAMED).await;
    let mut undecided = open(&server, FRAMED).await;
    assert_eq!(packet(&mut undecided).await, "o");
    let mut raw = open(&server, RAW).await;
    raw.send(path()).await;
    raw.greeting().await;
    server.stop();
    for client in [&mut framed, &mut undecided] {
        assert_eq!(packet(client).await, "c[4200,\"Server is shutting down\"]");
        assert!(matches!(client.item().await, Item::Close(..)));
    }
    assert_eq!(raw.expect_close(4200).await, "Server is shutting down");
    drop((framed, undecided));
    server.stopped().await;
}
