//! Protocol §7.4 and §1.5: who is turned away, and who has to go, over HTTP. The code comes after an `o`, or nobody hears
//! it, and stays there for whoever asks a little later.

use std::time::Duration;

use fanfare::Config;
use serde_json::json;
use tokio::net::TcpSocket;

use crate::support::{DEADLINE, HttpSession, LIMIT, Packet, Receiving, TestServer, Wire, array};

const SECOND: Duration = Duration::from_secs(1);
const ORIGINS: &str = "https://app.example.com";

/// Expects that a session is refused on both transports. The old protocols are told by an event, too.
async fn refused(session: &HttpSession, code: u16, announced: bool) -> String {
    let mut reasons = Vec::new();
    let mut stream = session.stream().await;
    stream.expect_line("o").await;
    if announced {
        let error = stream.expect_message("pusher:error").await;
        assert_eq!(error.json["data"]["code"], code);
        reasons.push(error.error().to_owned());
    }
    let line = stream.line().await.expect("a reason");
    stream.expect_end().await;

    let mut again = session.clone();
    again.path += "p";
    let response = again.poll().await;
    assert_eq!(response.status, 200, "{}", response.head);
    let lines: Vec<_> = response.body.lines().collect();
    assert_eq!(lines.len(), if announced { 3 } else { 2 }, "{}", response.body);
    assert_eq!(lines[0], "o");
    if announced {
        assert!(matches!(&Packet::parse(lines[1])[..], [Packet::Message(error)] if error.error() == reasons[0]));
    }
    for line in [line.as_str(), lines[lines.len() - 1]] {
        match &Packet::parse(line)[..] {
            [Packet::Close(actual, reason)] if *actual == code => reasons.push(reason.clone()),
            _ => panic!("expected c[{code}]: {line}"),
        }
    }
    reasons.dedup();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    // Nobody is there.
    for session in [session, &again] {
        assert_eq!(session.post(b"[]").await.status, 404);
    }
    reasons.remove(0)
}

#[tokio::test]
async fn an_unknown_app_is_refused_with_4001() {
    let server = TestServer::start().await;
    for version in 1..=7 {
        let session = server.fallback().key("nobody").protocol(version);
        let code = if version <= 3 { 4007 } else { 4001 };
        let reason = refused(&session, code, version <= 5).await;
        if code == 4001 {
            assert_eq!(reason, "App key nobody not in this cluster. Did you forget to specify the cluster?");
        }
    }
}

#[tokio::test]
async fn other_protocol_versions_are_refused_with_their_code() {
    let server = TestServer::start().await;
    let rows = [
        ("protocol=3&client=js", 4007, "Unsupported protocol version", true),
        ("protocol=8", 4007, "Unsupported protocol version", false),
        ("protocol=99999999999999999999", 4007, "Unsupported protocol version", false),
        ("protocol=abc", 4006, "Invalid version string format", false),
        ("protocol=", 4006, "Invalid version string format", false),
        ("client=js&version=8.6.0&t=1&n=1", 4008, "No protocol version supplied", false),
        ("", 4008, "No protocol version supplied", false),
    ];
    for (query, code, text, announced) in rows {
        assert_eq!(refused(&server.fallback().query(query), code, announced).await, text, "{query}");
    }
    for version in 4..=7 {
        server.fallback().protocol(version).connect_streaming().await.subscribe("room").await;
    }
}

#[tokio::test]
async fn what_keeps_websockets_out_keeps_these_out() {
    type Change = fn(&mut Config);
    let rows: [(Change, u16, &str); 2] = [
        (|config| config.apps[0].enabled = false, 4003, "Application disabled"),
        (
            |config| config.apps[0].require_tls = true,
            4000,
            "Application only accepts SSL connections, reconnect using wss://",
        ),
    ];
    for (change, code, text) in rows {
        let server = TestServer::with(change).await;
        for version in 4..=7 {
            assert_eq!(refused(&server.fallback().protocol(version), code, version <= 5).await, text);
        }
    }
}

#[tokio::test]
async fn a_trusted_proxy_vouches_for_tls() {
    let server = TestServer::with(|config| {
        config.server.trust_forwarded_headers = true;
        config.apps[0].require_tls = true;
    })
    .await;
    let encrypted = server.fallback().header("X-Forwarded-Proto", "https");
    encrypted.connect_streaming().await.subscribe("room").await;
    refused(&server.fallback().header("X-Forwarded-Proto", "http"), 4000, false).await;
    refused(&server.fallback(), 4000, false).await;
}

#[tokio::test]
async fn only_allowed_origins_may_begin_receive_and_send() {
    let server = TestServer::with_app(|app| app.allowed_origins = vec![ORIGINS.to_owned()]).await;
    let stranger = |session: HttpSession| session.header("Origin", "https://evil.example.com");
    assert_eq!(refused(&stranger(server.fallback()), 4009, false).await, "Origin not allowed");
    assert_eq!(refused(&stranger(server.fallback()).protocol(5), 4009, true).await, "Origin not allowed");
    // Who is no browser has none.
    server.fallback().connect_streaming().await.subscribe("room").await;

    let mut client = server.fallback().header("Origin", ORIGINS).connect_streaming().await;
    client.subscribe("room").await;
    let mut thief = client.session.clone();
    thief.headers.clear();
    let thief = stranger(thief);
    let message = r#"["{\"event\":\"pusher:unsubscribe\",\"data\":{\"channel\":\"room\"}}"]"#;
    let answers = [
        thief.post(message.as_bytes()).await,
        thief.poll().await,
        thief.begin("POST", &format!("xhr_streaming?{}", thief.query)).await.response,
    ];
    for response in answers {
        assert_eq!(response.status, 403, "{}", response.head);
    }
    // The stream is still the first one, and nobody has left the room.
    server.api().await.trigger("room", "greet", "{}").await;
    client.expect_event("room", "greet", "{}").await;
    client.expect_silence().await;
}

#[tokio::test]
async fn the_quota_of_the_app_counts_these_clients_too() {
    let server = TestServer::with_app(|app| app.limits.connections = 2).await;
    let mut streaming = server.fallback().connect_streaming().await;
    let websocket = server.connect().await;
    let text = "Application is over connection quota";
    assert_eq!(refused(&server.fallback(), 4004, false).await, text);
    assert_eq!(refused(&server.fallback().protocol(5), 4004, true).await, text);
    server.dial().refused(4004).await;
    websocket.disconnect().await;
    let mut polling = server.fallback().connect_polling().await;
    server.dial().refused(4004).await;
    for client in [&mut streaming, &mut polling] {
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn the_servers_own_limit_counts_these_clients_too() {
    let server = TestServer::with(|config| config.server.max_connections = 2).await;
    let mut streaming = server.fallback().connect_streaming().await;
    let mut polling = server.fallback().connect_polling().await;
    assert_eq!(refused(&server.fallback(), 4100, false).await, "Over capacity");
    assert_eq!(refused(&server.fallback().protocol(4), 4100, true).await, "Over capacity");
    assert_eq!(server.dial().refused(4100).await, "Over capacity");
    for client in [&mut streaming, &mut polling] {
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn an_address_has_as_many_sessions_as_configured() {
    let server = TestServer::with(|config| {
        config.fallbacks.sessions_per_address = 2;
        config.fallbacks.grace = SECOND;
        config.server.trust_forwarded_headers = true;
    })
    .await;
    let from = |address: &str| server.fallback().header("X-Forwarded-For", address);
    let mut first = from("192.0.2.1").connect_streaming().await;
    let mut second = from("192.0.2.1").connect_streaming().await;
    assert_eq!(refused(&from("192.0.2.1"), 4100, false).await, "Over capacity");
    from("192.0.2.2").connect_streaming().await.subscribe("room").await;
    // A household has 64 bits of an IPv6 address to itself.
    let _one = from("2001:db8::1").connect_streaming().await;
    let _two = from("2001:db8::2:3").connect_streaming().await;
    refused(&from("2001:db8::4"), 4100, false).await;
    from("2001:db8:0:1::1").connect_streaming().await.subscribe("room").await;
    first.expect_silence().await;
    // Who has gone makes room.
    second.hang_up();
    let start = std::time::Instant::now();
    while let Packet::Close(code, _) = &from("192.0.2.1").poll_packets().await[1] {
        assert_eq!(*code, 4100);
        assert!(start.elapsed() < DEADLINE, "there is no room yet");
    }
}

/// Expects that both transports, and whoever asks later, hear of this end.
async fn ended(clients: [HttpSession; 3], stream: &mut Receiving, poll: String, code: u16, reason: &str) {
    let line = format!("c[{code},{}]", json!(reason));
    stream.expect_line(&line).await;
    stream.expect_end().await;
    assert_eq!(poll, format!("{line}\n"));
    let away = &clients[2];
    // As often as somebody asks.
    assert_eq!(away.poll().await.body, format!("{line}\n"));
    let mut late = away.stream().await;
    late.expect_line(&line).await;
    late.expect_end().await;
    for session in clients {
        assert_eq!(session.post(b"[]").await.status, 404);
    }
}

#[tokio::test]
async fn a_terminated_user_is_told_on_the_stream_in_the_poll_and_later() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.fallback().connect_polling().await;
        client.sign_in_as(r#"{"id":"7"}"#).await;
        clients.push(client.session);
    }
    let mut stream = clients[0].stream().await;
    let mut poll = clients[1].begin_poll().await;
    // Answered on another connection: the server has the poll by now.
    clients[1].send(&[]).await;
    let mut witness = server.sign_in("7").await;
    server.api().await.post("/users/7/terminate_connections", &json!({})).await.ok();
    let reason = "You got disconnected by the app.";
    assert_eq!(witness.expect_close(4009).await, reason);
    let poll = poll.response().await.body;
    ended(clients.try_into().unwrap(), &mut stream, poll, 4009, reason).await;
}

#[tokio::test]
async fn who_stays_unauthorised_is_sent_away_and_old_clients_hear_the_error_first() {
    let server = TestServer::with_app(|app| {
        app.authorized_connections = true;
        app.limits.authorization_timeout = SECOND;
    })
    .await;
    let text = "Connection not authorized within timeout";
    let mut authorised = server.fallback().connect_streaming().await;
    authorised.subscribe("private-room").await;
    let mut streaming = server.fallback().connect_streaming().await;
    let mut polling = server.fallback().connect_polling().await;
    let mut old = server.fallback().protocol(5).connect_streaming().await;
    assert_eq!(streaming.expect_close(4009).await, text);
    assert_eq!(polling.expect_close(4009).await, text);
    let error = old.expect("pusher:error").await;
    assert_eq!((&error.json["data"]["code"], error.error()), (&json!(4009), text));
    assert_eq!(old.expect_close(4009).await, text);
    authorised.expect_silence().await;
}

#[tokio::test]
async fn more_than_waits_for_anybody_closes_with_4100() {
    let server = TestServer::with_app(|app| app.limits.outbox = 2000).await;
    let mut streaming = server.fallback().connect_streaming().await;
    let mut old = server.fallback().protocol(5).connect_polling().await;
    let mut away = server.fallback().connect_polling().await;
    for client in [&mut streaming, &mut old, &mut away] {
        client.subscribe("room").await;
    }
    let mut api = server.api().await;
    let padding = "x".repeat(300);
    // What a client takes in time may be as much as it likes.
    for n in 0..20 {
        let data = format!("{n} {padding}");
        api.trigger("room", "tick", &data).await;
        streaming.expect_event("room", "tick", &data).await;
    }
    for client in [&mut old, &mut away] {
        // What it heard before that is the beginning, without a hole.
        let mut expected = 0;
        let reason = loop {
            match client.packet().await {
                Packet::Message(message) if message.event() == "pusher:error" => {
                    assert_eq!(message.json["data"]["code"], 4100);
                }
                Packet::Message(message) => {
                    assert_eq!(message.text(), format!("{expected} {padding}"));
                    expected += 1;
                }
                Packet::Close(4100, reason) => break reason,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reason, "Over capacity");
        assert!(expected < 20, "it was not too slow");
    }
    api.trigger("room", "greet", &"x".repeat(3000)).await;
    assert_eq!(streaming.expect_close(4100).await, "Over capacity");
}

#[tokio::test]
async fn nothing_is_heard_behind_the_message_that_was_too_much() {
    let server = TestServer::with_app(|app| {
        app.limits.outbox = 1000;
        app.client_events = true;
    })
    .await;
    let mut listener = server.fallback().connect_streaming().await;
    listener.subscribe("private-room").await;
    let mut client = server.fallback().connect_polling().await;
    client.subscribe("private-room").await;
    let mut messages = vec![json!({ "event": "pusher:ping" }); 100];
    messages.push(json!({ "event": "client-a", "channel": "private-room", "data": "x" }));
    client.session.post(array(&messages).as_bytes()).await;
    while !matches!(client.packet().await, Packet::Close(4100, _)) {}
    assert_eq!(client.session.post(b"[]").await.status, 404);
    listener.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_stream_pays_for_itself_alone() {
    let server = TestServer::with_app(|app| app.limits.outbox = 512 * 1024).await;
    let mut healthy = server.fallback().connect_streaming().await;
    healthy.join("presence-room", "healthy").await;
    let mut slow = server.fallback().connect_polling().await;
    slow.join("presence-room", "slow").await;
    healthy.expect("pusher_internal:member_added").await;
    // A small window, so that the system does not take the messages in the client's place.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut wire = Wire::over(socket.connect(server.addr).await.unwrap());
    let action = format!("xhr_streaming?{}", slow.session.query);
    wire.write(&slow.session.request("POST", &action, b"")).await;
    let mut api = server.api().await;
    let padding = "x".repeat(10_000);
    let (mut received, mut removed) = (0, false);
    // The system's own buffers take some megabytes first.
    while !removed {
        assert!(received < 2000, "it is still there after {received} events");
        api.trigger("presence-room", "tick", &format!("{received} {padding}")).await;
        loop {
            let message = healthy.next().await;
            if message.event() != "pusher_internal:member_removed" {
                assert_eq!(message.text().split_once(' ').unwrap().0, received.to_string());
                received += 1;
                break;
            }
            removed = true;
        }
    }
    healthy.expect_silence().await;
    // What it did get is the beginning, without a hole. It asks anew when that is enough, and is told.
    let mut stream = Receiving::begin(wire).await;
    stream.line().await.expect("a prelude");
    let mut packets = Vec::new();
    while stream.units <= LIMIT {
        packets.extend(Packet::parse(&stream.line().await.expect("more")));
    }
    packets.extend(slow.session.poll_packets().await);
    let Some(Packet::Close(4100, reason)) = packets.pop() else { panic!("not told") };
    assert_eq!(reason, "Over capacity");
    for (expected, packet) in packets.iter().enumerate() {
        let Packet::Message(message) = packet else { panic!("{packet:?}") };
        assert_eq!(message.text().split_once(' ').unwrap().0, expected.to_string());
    }
    assert!(packets.len() < received, "nothing was lost: was it slow at all?");
}

#[tokio::test]
async fn a_server_that_stops_sends_everybody_away_with_4200() {
    let mut server = TestServer::start().await;
    let mut streaming = Vec::new();
    for n in 0..20 {
        let session = server.fallback().protocol(4 + n % 4);
        streaming.push((session.open_stream().await, n % 4 <= 1));
    }
    let polling = server.fallback().connect_polling().await;
    let mut poll = polling.session.begin_poll().await;
    polling.session.send(&[]).await;
    // Nobody receives for this one, and nobody waits for it.
    let _away = server.fallback().connect_polling().await;
    server.stop();
    let reason = "Server is shutting down";
    for (mut stream, announced) in streaming {
        if announced {
            let error = stream.expect_message("pusher:error").await;
            assert_eq!((&error.json["data"]["code"], error.error()), (&json!(4200), reason));
        }
        stream.expect_line(&format!("c[4200,\"{reason}\"]")).await;
        stream.expect_end().await;
    }
    assert_eq!(poll.response().await.body, format!("c[4200,\"{reason}\"]\n"));
    server.stopped().await;
}
