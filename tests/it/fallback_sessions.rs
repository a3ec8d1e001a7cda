//! Protocol §7.2 to §7.4: how a session over HTTP begins, how its client receives, and when it is over.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::select;

use crate::support::{Http, KEY, LIMIT, Message, Packet, Response, TestServer, Wire};

const SECOND: Duration = Duration::from_secs(1);
const ROOM: &str = "presence-room";
const ADDED: &str = "pusher_internal:member_added";
const REMOVED: &str = "pusher_internal:member_removed";

async fn with_grace(grace: Duration) -> TestServer {
    TestServer::with(|config| config.fallbacks.grace = grace).await
}

fn is_socket_id(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.').is_some_and(|(one, two)| number(one) && number(two))
}

/// The messages of packets, and nothing else.
fn messages(packets: Vec<Packet>) -> Vec<Message> {
    let message = |packet| match packet {
        Packet::Message(message) => message,
        other => panic!("no message: {other:?}"),
    };
    packets.into_iter().map(message).collect()
}

/// What the events in some lines say.
fn texts(lines: &str) -> Vec<String> {
    messages(Packet::parse_all(lines)).iter().map(|message| message.text().to_owned()).collect()
}

#[tokio::test]
async fn a_stream_begins_with_a_prelude_an_o_and_the_greeting() {
    let server = TestServer::start().await;
    let session = server.fallback();
    let mut receiving = session.begin("POST", &format!("xhr_streaming?{}", session.query)).await;
    assert_eq!(receiving.response.status, 200);
    let prelude = receiving.line().await.unwrap();
    assert!(prelude.len() == 2048 && prelude.bytes().all(|byte| byte == b'h'), "{} {prelude}", prelude.len());
    receiving.expect_line("o").await;
    let greeting = receiving.expect_message("pusher:connection_established").await;
    assert_eq!(greeting.json.as_object().unwrap().len(), 2, "only event and data: {}", greeting.json);
    let data = greeting.data();
    assert!(is_socket_id(data["socket_id"].as_str().unwrap()), "{data}");
    assert_eq!(data["activity_timeout"], 120);
    session.send(&[json!({ "event": "pusher:ping", "data": {} })]).await;
    receiving.expect_message("pusher:pong").await;
}

#[tokio::test]
async fn the_first_poll_is_answered_at_once_with_an_o_and_the_greeting() {
    let server = TestServer::start().await;
    let response = server.fallback().poll().await;
    assert_eq!(response.status, 200);
    let whole = response.header("content-length").is_some() || response.header("transfer-encoding") == Some("chunked");
    assert!(whole, "{}", response.head);
    let lines: Vec<_> = response.body.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "o"), "{}", response.body);
    assert!(response.body.ends_with("]\n"), "{}", response.body);
    let greeting = &messages(Packet::parse(lines[1]))[..];
    assert!(matches!(greeting, [one] if one.event() == "pusher:connection_established"), "{greeting:?}");
    assert!(is_socket_id(greeting[0].data()["socket_id"].as_str().unwrap()), "{greeting:?}");
}

#[tokio::test]
async fn every_form_of_the_requests_that_clients_make_is_understood() {
    let server = TestServer::start().await;
    let long = (&*"9".repeat(32), &*"v".repeat(64));
    for (number, session) in [("0", "a"), ("999", "0123456789abcdefghijklmnopqrstuv"), ("a_B-9", "_-_"), long] {
        let mut client = server.fallback();
        client.path = format!("/pusher/app/{KEY}/{number}/{session}");
        // Old browsers send no JSON, and nothing that says what it is.
        let request =
            format!("POST {}/xhr?protocol=7 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n", client.path);
        let mut http = Http::new(Wire::connect(server.addr).await);
        let response = http.send(request.as_bytes()).await;
        assert!(response.body.starts_with("o\na["), "{number} {session}: {}", response.body);
        let body = r#"["{\"event\":\"pusher:ping\"}"]"#;
        for content_type in ["", "Content-Type: text/plain\r\n", "Content-Type: application/json;charset=utf-8\r\n"] {
            let head = format!("POST {}/xhr_send HTTP/1.1\r\nHost: test\r\n{content_type}", client.path);
            let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            assert_eq!(http.send(request.as_bytes()).await.status, 204, "{content_type:?}");
            let pong = messages(client.poll_packets().await);
            assert!(matches!(&pong[..], [pong] if pong.event() == "pusher:pong"), "{pong:?}");
        }
    }
}

#[tokio::test]
async fn a_session_is_named_by_key_server_and_session_together() {
    let server = TestServer::with(|config| {
        config.apps.push(fanfare::config::AppConfig::new("43", "other-key", "other-secret"));
    })
    .await;
    let mut ids = std::collections::HashSet::new();
    for path in ["app-key-1/1/same", "app-key-1/2/same", "other-key/1/same", "app-key-1/1/other"] {
        let mut session = server.fallback();
        session.path = format!("/pusher/app/{path}");
        let client = session.connect_polling().await;
        assert!(ids.insert(client.socket_id.clone()), "{path}");
    }
}

#[tokio::test]
async fn answers_say_what_they_are_and_that_nobody_may_keep_or_hide_them() {
    let server = TestServer::start().await;
    let check = |row: &str, response: &Response| {
        let cached = "no-store, no-cache, no-transform, must-revalidate, max-age=0";
        assert_eq!(response.header("cache-control"), Some(cached), "{row}: {}", response.head);
        assert_eq!(response.header("x-accel-buffering"), Some("no"), "{row}: {}", response.head);
        assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{row}: {}", response.head);
        assert_eq!(response.header("set-cookie"), None, "{row}: {}", response.head);
        assert_eq!(response.header("content-encoding"), None, "{row}: {}", response.head);
    };
    for origin in [None, Some("https://app.example.com"), Some("null")] {
        let session = || {
            let session = server.fallback().header("Accept-Encoding", "gzip, br");
            origin.map_or(session.clone(), |origin| session.header("Origin", origin))
        };
        let stream = session().stream().await;
        check("stream", &stream.response);
        assert_eq!(stream.response.header("transfer-encoding"), Some("chunked"), "{}", stream.response.head);
        let refused = session().key("nobody").poll().await;
        check("refusal", &refused);
        let session = session();
        let poll = session.poll().await;
        check("poll", &poll);
        for response in [&stream.response, &refused, &poll] {
            let kind = response.header("content-type").unwrap().replace("; ", ";");
            assert_eq!(kind, "application/javascript;charset=UTF-8");
        }
        check("send", &session.post(b"[]").await);
    }
}

#[tokio::test]
async fn scripts_of_any_page_may_read_errors_too() {
    let server = TestServer::start().await;
    let session = server.fallback();
    session.poll().await;
    let mut unknown = session.clone();
    unknown.path += "x";
    let mut malformed = session.clone();
    malformed.path += ".x";
    let rows = [
        ("an unknown session", 404, unknown.post(b"[]").await),
        ("an unknown app", 404, unknown.clone().key("nobody").post(b"[]").await),
        ("a malformed id", 404, malformed.post(b"[]").await),
        ("an unknown action", 404, session.ask("POST", "xhr_ask", b"[]").await),
        ("an empty body", 500, session.post(b"").await),
        ("a broken body", 500, session.post(b"[").await),
        ("a wrong method", 405, session.ask("PUT", "xhr_send", b"").await),
    ];
    let mut hidden = Vec::new();
    for (row, status, response) in rows {
        assert_eq!(response.status, status, "{row}: {}", response.head);
        if response.header("access-control-allow-origin") != Some("*") {
            hidden.push(row);
        }
    }
    assert_eq!(hidden, [""; 0], "without Access-Control-Allow-Origin");
}

#[tokio::test]
async fn a_preflight_allows_what_is_asked_for_and_begins_nothing() {
    let server = TestServer::start().await;
    let session = server.fallback().header("Origin", "https://app.example.com");
    for action in ["xhr_streaming", "xhr", "xhr_send"] {
        let asking = session.clone().header("Access-Control-Request-Method", "POST");
        let rows = [
            (asking.clone().header("Access-Control-Request-Headers", "content-type"), "content-type"),
            (
                asking.clone().header("Access-Control-Request-Headers", "content-type,x-one, X-Two"),
                "content-type,x-one, X-Two",
            ),
            (asking.clone(), "content-type"),
        ];
        for (asking, expected) in rows {
            let response = asking.ask("OPTIONS", action, b"").await;
            assert_eq!((response.status, response.body.as_str()), (204, ""), "{}", response.head);
            assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{}", response.head);
            assert_eq!(response.header("access-control-allow-methods"), Some("GET, POST, OPTIONS"));
            assert_eq!(response.header("access-control-allow-headers"), Some(expected));
            assert_eq!(response.header("access-control-max-age"), Some("86400"));
        }
    }
    assert_eq!(session.post(b"[]").await.status, 404);
    assert!(matches!(session.poll_packets().await[0], Packet::Open(_)));
}

#[tokio::test]
async fn other_methods_are_refused_and_other_paths_are_not_found() {
    let server = TestServer::start().await;
    let session = server.fallback();
    session.poll().await;
    for action in ["xhr_streaming", "xhr", "xhr_send"] {
        for method in ["GET", "PUT", "DELETE", "HEAD"] {
            let mut http = Http::new(Wire::connect(server.addr).await);
            let request = session.request(method, action, b"");
            http.wire.write(&request).await;
            let head = http.wire.head().await.unwrap();
            assert!(head.starts_with("HTTP/1.1 405 "), "{method} {action}: {head}");
            let allow = Response::begun(head.clone()).header("allow").map(str::to_owned);
            assert!(allow.is_some_and(|allow| allow.contains("POST") && allow.contains("OPTIONS")), "{head}");
        }
    }
    let (long_server, long_session) = ("1".repeat(33), "a".repeat(65));
    let paths = [
        format!("/pusher/app/{KEY}/1/a.b/xhr"),
        format!("/pusher/app/{KEY}/1.1/ab/xhr"),
        format!("/pusher/app/{KEY}//ab/xhr"),
        format!("/pusher/app/{KEY}/1//xhr"),
        format!("/pusher/app/{KEY}/1/a%20b/xhr"),
        format!("/pusher/app/{KEY}/{long_server}/ab/xhr"),
        format!("/pusher/app/{KEY}/1/{long_session}/xhr"),
        format!("/pusher/app/{KEY}/1/ab/jsonp"),
        format!("/pusher/app/{KEY}/1/ab/eventsource"),
        format!("/pusher/app/{KEY}/1/ab/xhr/"),
        format!("/pusher/app/{KEY}/1/ab/xhr/more"),
        format!("/pusher/app/{KEY}/1/ab"),
        format!("/pusher/app/{KEY}"),
        "/pusher/app//1/ab/xhr".to_owned(),
        format!("/app/{KEY}/1/ab/xhr"),
        format!("/pushers/app/{KEY}/1/ab/xhr"),
    ];
    for path in paths {
        let request = format!("POST {path}?protocol=7 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
        let response = Http::new(Wire::connect(server.addr).await).send(request.as_bytes()).await;
        assert_eq!(response.status, 404, "{path}: {}", response.body);
    }
}

#[tokio::test]
async fn an_open_session_is_never_opened_again() {
    let server = TestServer::start().await;
    let session = server.fallback();
    let mut first = session.open_stream().await;
    // As a stream, as a poll, and as a stream again.
    let mut second = session.stream().await;
    first.expect_end().await;
    session.send(&[json!({ "event": "pusher:ping" })]).await;
    second.expect_message("pusher:pong").await;
    drop(second);
    session.send(&[json!({ "event": "pusher:ping" })]).await;
    let pong = messages(session.poll_packets().await);
    assert!(matches!(&pong[..], [pong] if pong.event() == "pusher:pong"), "{pong:?}");
    let mut third = session.stream().await;
    session.send(&[json!({ "event": "pusher:ping" })]).await;
    third.expect_message("pusher:pong").await;
}

#[tokio::test]
async fn what_has_come_since_the_last_poll_comes_in_one_array() {
    let server = TestServer::start().await;
    let mut client = server.fallback().connect_polling().await;
    client.subscribe("room").await;
    let mut api = server.api().await;
    // Who hears of the last event is on the same node.
    let mut other = server.connect().await;
    other.subscribe("room").await;
    for n in 0..5 {
        api.trigger("room", "tick", &n.to_string()).await;
        other.expect_event("room", "tick", &n.to_string()).await;
    }
    let response = client.session.poll().await;
    assert_eq!(response.body.lines().count(), 1, "{}", response.body);
    assert_eq!(texts(&response.body), ["0", "1", "2", "3", "4"]);
    client.expect_silence().await;
}

#[tokio::test]
async fn a_poll_is_held_until_something_comes() {
    let server = TestServer::start().await;
    let mut client = server.fallback().connect_polling().await;
    client.subscribe("room").await;
    let mut api = server.api().await;
    for n in 0..5 {
        let mut poll = client.session.begin_poll().await;
        // Answered by the same server, and later.
        client.session.send(&[]).await;
        api.trigger("room", "tick", &n.to_string()).await;
        let packets = messages(Packet::parse_all(&poll.response().await.body));
        assert!(matches!(&packets[..], [one] if one.text() == n.to_string()), "{packets:?}");
    }
}

#[tokio::test]
async fn one_connection_serves_polls_and_sends_one_after_the_other() {
    let server = TestServer::start().await;
    let session = server.fallback();
    let mut http = Http::new(Wire::connect(server.addr).await);
    let poll = session.request("POST", &format!("xhr?{}", session.query), b"");
    assert!(http.send(&poll).await.body.starts_with("o\n"));
    for _ in 0..20 {
        let ping = session.request("POST", "xhr_send", br#"["{\"event\":\"pusher:ping\"}"]"#);
        assert_eq!(http.send(&ping).await.status, 204);
        let answer = http.send(&poll).await;
        assert_eq!(answer.body, "a[\"{\\\"event\\\":\\\"pusher:pong\\\",\\\"data\\\":\\\"{}\\\"}\"]\n");
    }
}

#[tokio::test]
async fn a_second_stream_ends_the_first_and_nothing_is_lost() {
    let server = TestServer::with_app(|app| app.limits.outbox = 16 * 1024 * 1024).await;
    let session = server.fallback();
    let mut receiving = session.open_stream().await;
    session.send(&[json!({ "event": "pusher:subscribe", "data": { "channel": "room" } })]).await;
    receiving.expect_message("pusher_internal:subscription_succeeded").await;
    let mut api = server.api().await;
    const EVENTS: usize = 300;
    let publishing = async {
        for n in 0..EVENTS {
            api.trigger("room", "tick", &n.to_string()).await;
        }
    };
    let mut received = Vec::new();
    let consuming = async {
        while received.len() + 10 < EVENTS {
            for _ in 0..3 {
                received.extend(texts(&receiving.line().await.expect("still open")));
            }
            let mut former = std::mem::replace(&mut receiving, session.stream().await);
            while let Some(line) = former.line().await {
                received.extend(texts(&line));
            }
        }
        while received.len() < EVENTS {
            received.extend(texts(&receiving.line().await.expect("still open")));
        }
    };
    tokio::join!(publishing, consuming);
    assert_eq!(received, (0..EVENTS).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_poll_ends_the_first_quietly() {
    let server = TestServer::start().await;
    let client = server.fallback().connect_polling().await;
    for _ in 0..10 {
        let (mut one, mut two) = (client.session.begin_poll().await, client.session.begin_poll().await);
        // Which of them the server has seen first is for the system to say.
        let (ended, mut held) = select! {
            ended = one.response() => (ended, two),
            ended = two.response() => (ended, one),
        };
        assert_eq!((ended.status, ended.body.as_str()), (200, ""), "{}", ended.head);
        client.send(json!({ "event": "pusher:ping" })).await;
        let pong = messages(Packet::parse_all(&held.response().await.body));
        assert!(matches!(&pong[..], [pong] if pong.event() == "pusher:pong"), "{pong:?}");
    }
}

#[tokio::test]
async fn a_poll_in_the_place_of_a_stream_and_the_other_way_round_lose_nothing() {
    let server = TestServer::start().await;
    let session = server.fallback();
    let mut stream = session.open_stream().await;
    for _ in 0..5 {
        let mut poll = session.begin_poll().await;
        stream.expect_end().await;
        session.send(&[json!({ "event": "pusher:ping" })]).await;
        assert_eq!(messages(Packet::parse_all(&poll.response().await.body)).len(), 1);
        stream = session.stream().await;
        session.send(&[json!({ "event": "pusher:ping" })]).await;
        stream.expect_message("pusher:pong").await;
    }
}

#[tokio::test]
async fn a_stream_that_the_client_has_read_enough_of_is_left_alone_and_goes_on_in_the_next() {
    let server = TestServer::start().await;
    let session = server.fallback();
    let mut stream = session.open_stream().await;
    let mut other = server.connect().await;
    other.subscribe("room").await;
    session.send(&[json!({ "event": "pusher:subscribe", "data": { "channel": "room" } })]).await;
    stream.expect_message("pusher_internal:subscription_succeeded").await;
    let mut api = server.api().await;
    // Twice as many bytes as units, and some characters that are two units.
    let padding = "é".repeat(4500) + "€😀\u{2028}\u{fff0}\u{10ffff}";
    let mut events = 0;
    let mut bytes = 0;
    while stream.units <= LIMIT {
        let data = format!("{events} {padding}");
        api.trigger("room", "tick", &data).await;
        let event = stream.expect_message("tick").await;
        assert_eq!(event.text(), data);
        other.expect_event("room", "tick", &data).await;
        events += 1;
        bytes += data.len();
    }
    assert!(bytes > LIMIT + LIMIT / 2, "bytes and units are too much alike: {bytes}");
    for n in 0..5 {
        api.trigger("room", "later", &n.to_string()).await;
        other.expect_event("room", "later", &n.to_string()).await;
    }
    assert!(stream.is_quiet().await, "something came, and be it the end");
    let mut next = session.stream().await;
    stream.expect_end().await;
    assert_eq!(texts(&next.line().await.unwrap()), ["0", "1", "2", "3", "4"]);
    // The next response is counted from its own beginning.
    api.trigger("room", "tick", &padding).await;
    assert_eq!(next.expect_message("tick").await.text(), padding);
}

#[tokio::test]
async fn a_client_that_asks_anew_as_pusher_js_does_gets_everything_once() {
    let server = TestServer::with_app(|app| app.limits.outbox = 64 * 1024 * 1024).await;
    let session = server.fallback();
    let mut stream = session.open_stream().await;
    session.send(&[json!({ "event": "pusher:subscribe", "data": { "channel": "room" } })]).await;
    stream.expect_message("pusher_internal:subscription_succeeded").await;
    const EVENTS: usize = 400;
    let mut api = server.api().await;
    let publishing = async {
        let padding = "é".repeat(4800);
        for n in 0..EVENTS {
            api.trigger("room", "tick", &format!("{n} {padding}")).await;
        }
    };
    let consuming = async {
        let (mut received, mut streams) = (Vec::new(), 1);
        while received.len() < EVENTS {
            let line = stream.line().await.expect("the server never ends a stream");
            let number = |message: &Message| message.text().split(' ').next().unwrap().to_owned();
            received.extend(messages(Packet::parse(&line)).iter().map(number));
            if stream.units > LIMIT {
                // The connection may go before or after the next request comes.
                if streams % 2 == 0 {
                    drop(std::mem::replace(&mut stream, session.stream().await));
                } else {
                    drop(stream);
                    stream = session.stream().await;
                }
                streams += 1;
            }
        }
        assert_eq!(received, (0..EVENTS).map(|n| n.to_string()).collect::<Vec<_>>());
        assert!(streams > 3, "only {streams} streams");
    };
    tokio::join!(publishing, consuming);
}

#[tokio::test]
async fn a_client_that_stays_away_is_gone_after_the_grace_time_and_not_before() {
    let server = with_grace(2 * SECOND).await;
    let mut ann = server.join(ROOM, "ann").await;
    let mut away = server.fallback().connect_streaming().await;
    away.join(ROOM, "away").await;
    let mut back = server.fallback().connect_streaming().await;
    back.join(ROOM, "back").await;
    let mut here = server.fallback().connect_streaming().await;
    here.join(ROOM, "here").await;
    let mut polling = server.fallback().connect_polling().await;
    polling.join(ROOM, "polling").await;
    for _ in 0..4 {
        ann.expect_on(ROOM, ADDED).await;
    }
    for client in [&mut away, &mut back, &mut here] {
        while client.expect_on(ROOM, ADDED).await.data()["user_id"] != "polling" {}
    }

    // Whoever polls is away from the last answer on.
    let hung_up = Instant::now();
    polling.expect_silence().await;
    back.hang_up();
    away.hang_up();
    back.expect_silence().await;
    for _ in 0..2 {
        let removed = ann.expect_on(ROOM, REMOVED).await;
        assert!(hung_up.elapsed() >= 2 * SECOND, "after {:?}: {}", hung_up.elapsed(), removed.json);
        assert!(["away", "polling"].map(Into::into).contains(&removed.data()["user_id"]), "{}", removed.json);
    }
    ann.expect_silence().await;
    for client in [&mut back, &mut here] {
        client.expect_on(ROOM, REMOVED).await;
        client.expect_on(ROOM, REMOVED).await;
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn a_client_that_was_given_up_finds_a_new_session() {
    let server = with_grace(SECOND).await;
    let mut ann = server.join(ROOM, "ann").await;
    for streams in [true, false] {
        let session = server.fallback();
        let mut client = match streams {
            true => session.connect_streaming().await,
            false => session.connect_polling().await,
        };
        client.join(ROOM, "bob").await;
        ann.expect_on(ROOM, ADDED).await;
        client.hang_up();
        ann.expect_on(ROOM, REMOVED).await;
        let response = client.session.post(b"[]").await;
        assert_eq!(response.status, 404, "{}", response.head);
        let mut again = match streams {
            true => client.session.clone().connect_streaming().await,
            false => client.session.clone().connect_polling().await,
        };
        assert_ne!(again.socket_id, client.socket_id);
        again.subscribe("private-room").await;
    }
}

#[tokio::test]
async fn a_client_that_never_comes_back_after_its_first_answer_makes_room() {
    let server = TestServer::with(|config| {
        config.fallbacks.grace = SECOND;
        config.apps[0].limits.connections = 1;
    })
    .await;
    server.fallback().connect_polling().await;
    let start = Instant::now();
    loop {
        let packets = server.fallback().poll_packets().await;
        if !packets.iter().any(|packet| matches!(packet, Packet::Close(..))) {
            assert!(start.elapsed() > SECOND / 2, "gone after {:?}", start.elapsed());
            return;
        }
        assert!(matches!(packets[1], Packet::Close(4004, _)), "{packets:?}");
        assert!(start.elapsed() < crate::support::DEADLINE, "there is no room yet");
    }
}
