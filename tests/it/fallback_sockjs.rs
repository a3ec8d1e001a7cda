//! Protocol §7.6, and the tests of the SockJS protocol 0.3.3: how a session of SockJS begins, goes on and ends.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;

use crate::support::{
    DEADLINE, Http, HttpClient, HttpSession, Item, KEY, Message, Packet, Response, TestServer, Wire, array,
};

const SECOND: Duration = Duration::from_secs(1);
const ROOM: &str = "presence-room";
const INTERRUPTED: &str = "c[1002,\"Connection interrupted\"]";
const BUSY: &str = "c[2010,\"Another connection still open\"]";

/// A session that is open, and whose client has not said what it wants.
async fn opened(server: &TestServer) -> HttpSession {
    let session = server.sockjs();
    assert_eq!(session.poll().await.body, "o\n");
    session
}

fn message(packet: Packet) -> Message {
    match packet {
        Packet::Message(message) => message,
        other => panic!("no message: {other:?}"),
    }
}

#[tokio::test]
async fn a_session_begins_with_an_o_and_a_path() {
    let server = TestServer::start().await;
    let session = server.sockjs();
    let first = session.poll().await;
    assert_eq!((first.status, first.body.as_str()), (200, "o\n"), "{}", first.head);
    let body = format!(r#"["{{\"path\":\"/app/{KEY}?protocol=7&client=js&version=8.6.0\"}}"]"#);
    let sent = session.post(body.as_bytes()).await;
    assert_eq!((sent.status, sent.body.as_str()), (204, ""), "{}", sent.head);
    assert_eq!(sent.header("content-type").unwrap().replace(' ', ""), "text/plain;charset=UTF-8");
    let second = session.poll().await;
    assert_eq!(second.body.lines().count(), 1, "{}", second.body);
    let greeting = message(Packet::parse_all(&second.body).remove(0));
    assert_eq!(greeting.event(), "pusher:connection_established");
    assert_eq!(greeting.data()["activity_timeout"], 120);
    session.send(&[json!({ "event": "pusher:ping" })]).await;
    let pong = message(session.poll_packets().await.remove(0));
    assert_eq!(pong.event(), "pusher:pong");
}

#[tokio::test]
async fn a_stream_begins_with_a_prelude_and_an_o() {
    let server = TestServer::start().await;
    let session = server.sockjs();
    let mut stream = session.stream().await;
    stream.expect_line("o").await;
    session.ask_for_app().await;
    stream.expect_message("pusher:connection_established").await;
    session.send(&[json!({ "event": "pusher:ping" })]).await;
    stream.expect_message("pusher:pong").await;
}

#[tokio::test]
async fn nothing_is_sent_before_the_path_has_come() {
    let server = TestServer::start().await;
    let session = server.sockjs();
    let mut stream = session.stream().await;
    stream.expect_line("o").await;
    for _ in 0..5 {
        session.send(&[]).await;
    }
    assert!(stream.is_quiet().await);
    session.ask_for_app().await;
    stream.expect_message("pusher:connection_established").await;
}

#[tokio::test]
async fn messages_behind_the_path_are_heard_once_the_client_is_admitted() {
    let server = TestServer::start().await;
    let session = opened(&server).await;
    let path = json!({ "path": format!("/app/{KEY}?protocol=7") });
    let body = json!([path.to_string(), json!({ "event": "pusher:ping" }).to_string(), "not JSON"]).to_string();
    assert_eq!(session.post(body.as_bytes()).await.status, 204);
    let mut events = Vec::new();
    while events.len() < 3 {
        let packets = session.poll_packets().await;
        events.extend(packets.into_iter().map(|packet| message(packet).event().to_owned()));
    }
    assert_eq!(events, ["pusher:connection_established", "pusher:pong", "pusher:error"]);
}

#[tokio::test]
async fn messages_behind_the_path_count_like_others() {
    let server = TestServer::with_app(|app| {
        app.limits.messages_per_second = 1;
        app.limits.client_events_per_second = 1;
        app.limits.message_burst = 1;
    })
    .await;
    let session = opened(&server).await;
    let path = json!({ "path": format!("/app/{KEY}?protocol=7") });
    let messages: Vec<_> = std::iter::once(path).chain((0..200).map(|_| json!({ "event": "pusher:ping" }))).collect();
    // Two at once, and two a second.
    let response = session.post(array(&messages).as_bytes()).await;
    assert_eq!(response.status, 429, "{}", response.body);
    assert!(
        matches!(session.poll_packets().await.remove(0), Packet::Message(greeting) if greeting.event() == "pusher:connection_established")
    );
}

#[tokio::test]
async fn any_names_will_do_and_that_of_the_server_is_for_balancers_alone() {
    let server = TestServer::start().await;
    for place in ["/a/a", "/_/_", "/1/1", "/abcdefgh_i-j%20/abcdefg_i-j%20"] {
        let mut session = server.sockjs();
        session.path = format!("/pusher{place}");
        assert_eq!(session.poll().await.body, "o\n", "{place}");
    }
    let mut session = server.sockjs();
    session.path = session.path.replace("/417/", "/000/");
    session.clone().connect_polling().await;
    session.path = session.path.replace("/000/", "/999/");
    session.send(&[json!({ "event": "pusher:ping" })]).await;
    assert_eq!(message(session.poll_packets().await.remove(0)).event(), "pusher:pong");
}

#[tokio::test]
async fn each_poll_brings_one_packet() {
    let server = TestServer::start().await;
    let mut client = server.sockjs().connect_polling().await;
    client.subscribe("room").await;
    let mut other = server.connect().await;
    other.subscribe("room").await;
    let mut api = server.api().await;
    for n in 0..3 {
        api.trigger("room", "tick", &n.to_string()).await;
        other.expect_event("room", "tick", &n.to_string()).await;
    }
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let response = client.session.poll().await;
        assert_eq!(response.body.lines().count(), 1, "{}", response.body);
        heard.extend(Packet::parse_all(&response.body).into_iter().map(|packet| message(packet).text().to_owned()));
    }
    assert_eq!(heard, ["0", "1", "2"]);
}

#[tokio::test]
async fn another_path_is_refused_with_4005_and_a_known_one_as_websockets_are() {
    let server = TestServer::start().await;
    let wishes = [
        (json!({ "path": "/app" }).to_string(), 4005, "Path not found"),
        (json!({ "path": "/app/" }).to_string(), 4005, "Path not found"),
        (json!({ "path": format!("/app/{KEY}/more?protocol=7") }).to_string(), 4005, "Path not found"),
        (json!({ "path": "/apps/42/events?protocol=7" }).to_string(), 4005, "Path not found"),
        (json!({ "path": 7 }).to_string(), 4005, "Path not found"),
        (json!({ "event": "pusher:ping" }).to_string(), 4005, "Path not found"),
        ("hello".to_owned(), 4005, "Path not found"),
        (String::new(), 4005, "Path not found"),
        (
            json!({ "path": "/app/nobody?protocol=7" }).to_string(),
            4001,
            "App key nobody not in this cluster. Did you forget to specify the cluster?",
        ),
        (json!({ "path": format!("/app/{KEY}?protocol=8") }).to_string(), 4007, "Unsupported protocol version"),
        (json!({ "path": format!("/app/{KEY}?client=js") }).to_string(), 4008, "No protocol version supplied"),
        (json!({ "path": format!("/app/{KEY}") }).to_string(), 4008, "No protocol version supplied"),
    ];
    for (wish, code, reason) in wishes {
        let session = opened(&server).await;
        assert_eq!(session.post(json!([wish]).to_string().as_bytes()).await.status, 204, "{wish}");
        // As often as somebody asks.
        for _ in 0..2 {
            assert_eq!(session.poll().await.body, format!("c[{code},{}]\n", json!(reason)), "{wish}");
        }
        assert_eq!(session.post(b"[]").await.status, 404, "{wish}");
        let mut stream = session.stream().await;
        stream.expect_line(&format!("c[{code},{}]", json!(reason))).await;
        stream.expect_end().await;
    }
}

#[tokio::test]
async fn an_old_client_hears_the_error_before_the_end() {
    let server = TestServer::start().await;
    let session = server.sockjs().wish("/app/nobody?protocol=5&client=js");
    let mut stream = session.stream().await;
    stream.expect_line("o").await;
    session.ask_for_app().await;
    let error = stream.expect_message("pusher:error").await;
    assert_eq!(error.json["data"]["code"], 4001);
    stream.expect_line(&format!("c[4001,{}]", json!(error.error()))).await;
    stream.expect_end().await;
}

#[tokio::test]
async fn a_client_that_does_not_say_what_it_wants_is_sent_away_after_ten_seconds() {
    let server = TestServer::start().await;
    let session = server.sockjs();
    let mut stream = session.stream().await;
    stream.expect_line("o").await;
    let since = Instant::now();
    let line = timeout(20 * SECOND, stream.try_piece("\n")).await.expect("an end");
    assert_eq!(line.as_deref(), Some("c[4005,\"Path not found\"]"));
    assert!((9 * SECOND..13 * SECOND).contains(&since.elapsed()), "after {:?}", since.elapsed());
    stream.expect_end().await;
}

#[tokio::test]
async fn an_origin_that_is_not_allowed_is_refused_with_4009() {
    let server = TestServer::with_app(|app| app.allowed_origins = vec!["https://app.example.com".to_owned()]).await;
    let mut allowed = server.sockjs().header("Origin", "https://app.example.com").connect_streaming().await;
    allowed.subscribe("room").await;
    let stranger = server.sockjs().header("Origin", "https://evil.example.com");
    stranger.poll().await;
    stranger.ask_for_app().await;
    assert_eq!(stranger.poll().await.body, "c[4009,\"Origin not allowed\"]\n");
    let mut thief = allowed.session.clone();
    thief.headers = "Origin: https://evil.example.com\r\n".to_owned();
    assert_eq!(thief.post(b"[]").await.status, 403);
    allowed.expect_silence().await;
}

#[tokio::test]
async fn a_second_receiver_has_to_go() {
    let server = TestServer::start().await;
    let session = server.sockjs();
    let mut stream = session.stream().await;
    stream.expect_line("o").await;
    session.ask_for_app().await;
    stream.expect_message("pusher:connection_established").await;
    let poll = session.poll().await;
    assert_eq!((poll.status, poll.body), (200, format!("{BUSY}\n")));
    let mut second = session.stream().await;
    second.expect_line(BUSY).await;
    second.expect_end().await;
    // The first one does not mind.
    session.send(&[json!({ "event": "pusher:ping" })]).await;
    stream.expect_message("pusher:pong").await;
}

/// Asks twice at the same time. The answer of one, and the other one, which is held.
async fn two_polls(session: &HttpSession) -> (Response, Http) {
    let (mut one, mut two) = (session.begin_poll().await, session.begin_poll().await);
    // Which of them the server has seen first is for the system to say.
    tokio::select! {
        refused = one.response() => (refused, two),
        refused = two.response() => (refused, one),
    }
}

#[tokio::test]
async fn a_second_poll_has_to_go() {
    let server = TestServer::start().await;
    let client = server.sockjs().connect_polling().await;
    let (refused, mut held) = two_polls(&client.session).await;
    assert_eq!((refused.status, refused.body), (200, format!("{BUSY}\n")));
    client.send(json!({ "event": "pusher:ping" })).await;
    let pong = message(Packet::parse_all(&held.response().await.body).remove(0));
    assert_eq!(pong.event(), "pusher:pong");
}

#[tokio::test]
async fn who_cuts_off_a_stream_is_gone_at_once() {
    let server = TestServer::start().await;
    let mut ann = server.join(ROOM, "ann").await;
    let mut bob = server.sockjs().connect_streaming().await;
    bob.join(ROOM, "bob").await;
    ann.expect_on(ROOM, "pusher_internal:member_added").await;
    let since = Instant::now();
    bob.hang_up();
    let removed = ann.expect_on(ROOM, "pusher_internal:member_removed").await;
    assert_eq!(removed.data(), json!({ "user_id": "bob" }));
    assert!(since.elapsed() < 3 * SECOND, "after {:?}", since.elapsed());
    assert_eq!(bob.session.post(b"[]").await.status, 404);
    let mut again = bob.session.stream().await;
    again.expect_line(INTERRUPTED).await;
    again.expect_end().await;
    assert_eq!(bob.session.poll().await.body, format!("{INTERRUPTED}\n"));
}

#[tokio::test]
async fn who_cuts_off_a_poll_is_gone_at_once() {
    let server = TestServer::start().await;
    let mut ann = server.join(ROOM, "ann").await;
    let mut bob = server.sockjs().connect_polling().await;
    bob.join(ROOM, "bob").await;
    ann.expect_on(ROOM, "pusher_internal:member_added").await;
    let (refused, held) = two_polls(&bob.session).await;
    assert_eq!(refused.body, format!("{BUSY}\n"));
    let since = Instant::now();
    drop(held);
    ann.expect_on(ROOM, "pusher_internal:member_removed").await;
    assert!(since.elapsed() < 3 * SECOND, "after {:?}", since.elapsed());
    assert_eq!(bob.session.poll().await.body, format!("{INTERRUPTED}\n"));
}

#[tokio::test]
async fn who_does_not_come_back_for_five_seconds_is_gone() {
    let server = TestServer::start().await;
    let mut ann = server.join(ROOM, "ann").await;
    let mut bob = server.sockjs().connect_polling().await;
    bob.join(ROOM, "bob").await;
    let since = Instant::now();
    ann.expect_on(ROOM, "pusher_internal:member_added").await;
    let Ok(Item::Text(text)) = timeout(3 * DEADLINE, ann.wire.item()).await else { panic!("bob is still there") };
    let removed = Message::parse(&text);
    assert_eq!((removed.event(), removed.data()["user_id"].as_str()), ("pusher_internal:member_removed", Some("bob")));
    assert!((4 * SECOND..8 * SECOND).contains(&since.elapsed()), "after {:?}", since.elapsed());
    assert_eq!(bob.session.post(b"[]").await.status, 404);
}

#[tokio::test]
async fn broken_bodies_have_their_answers_and_change_nothing() {
    let server = TestServer::start().await;
    assert_eq!(server.sockjs().post(br#"["x"]"#).await.status, 404);
    let mut client = server.sockjs().connect_polling().await;
    for (body, text) in [("", "Payload expected."), ("[\"x", "Broken JSON encoding."), ("{}", "Broken JSON encoding.")]
    {
        let response = client.session.post(body.as_bytes()).await;
        assert_eq!((response.status, response.body.trim_end()), (500, text), "{body:?}");
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn what_a_body_is_called_does_not_matter() {
    let server = TestServer::start().await;
    let mut client = server.sockjs().connect_polling().await;
    let kinds = [
        "text/plain",
        "T",
        "application/json",
        "application/xml",
        "",
        "application/json; charset=utf-8",
        "text/xml; charset=utf-8",
        "text/xml",
        "application/x-www-form-urlencoded",
    ];
    for kind in kinds {
        let body = array(&[json!({ "event": "pusher:ping" })]);
        let request = client.session.request("POST", "xhr_send", body.as_bytes());
        let request = String::from_utf8(request).unwrap();
        let request = request.replace("Content-Type: application/json", &format!("Content-Type: {kind}"));
        let mut http = Http::new(Wire::connect(server.addr).await);
        let response = http.send(request.as_bytes()).await;
        assert_eq!((response.status, response.body.as_str()), (204, ""), "{kind}");
        client.expect("pusher:pong").await;
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn what_browsers_would_change_goes_out_escaped_and_comes_in_either_way() {
    let server = TestServer::with_app(|app| app.client_events = true).await;
    let unsafe_ones: Vec<char> = [
        '\0'..='\u{1f}',
        '\u{200c}'..='\u{200f}',
        '\u{2028}'..='\u{202f}',
        '\u{2060}'..='\u{206f}',
        '\u{fff0}'..='\u{ffff}',
    ]
    .into_iter()
    .flatten()
    .collect();
    let text: String = unsafe_ones.iter().collect();
    let mut client = server.sockjs().connect_polling().await;
    client.subscribe("private-room").await;
    server.api().await.trigger("private-room", "greet", &text).await;
    let body = client.session.poll().await.body;
    let raw = body.strip_suffix('\n').unwrap();
    assert!(!raw.contains(&unsafe_ones[..]), "{raw:?}");
    for character in &unsafe_ones[32..] {
        assert!(raw.contains(&format!("\\u{:04x}", u32::from(*character))), "{character:?} in {raw:?}");
    }
    assert_eq!(message(Packet::parse(raw).remove(0)).text(), text);

    let mut listener = server.connect().await;
    listener.subscribe_private("private-room").await;
    let event = json!({ "event": "client-a", "channel": "private-room", "data": format!("{text}ü😀") }).to_string();
    let plain = json!([event]).to_string();
    let escaped: String = plain
        .encode_utf16()
        .map(|unit| match char::from_u32(u32::from(unit)) {
            Some(ascii @ ' '..='~') => ascii.to_string(),
            _ => format!("\\u{unit:04x}"),
        })
        .collect();
    assert!(escaped.is_ascii());
    for body in [plain, escaped] {
        assert_eq!(client.session.post(body.as_bytes()).await.status, 204);
        listener.expect_event("private-room", "client-a", &format!("{text}ü😀")).await;
    }
}

#[tokio::test]
async fn answers_name_the_origin_and_let_credentials_in() {
    let server = TestServer::start().await;
    for origin in [None, Some("https://app.example.com"), Some("null")] {
        let session = match origin {
            Some(origin) => server.sockjs().header("Origin", origin),
            None => server.sockjs(),
        };
        let answers = [session.poll().await, session.post(b"[]").await, session.post(b"").await];
        for response in answers {
            let named = origin.filter(|origin| *origin != "null").unwrap_or("*");
            assert_eq!(response.header("access-control-allow-origin"), Some(named), "{}", response.head);
            assert_eq!(response.header("access-control-allow-credentials"), Some("true"), "{}", response.head);
            let cache = response.header("cache-control").unwrap_or_default();
            assert!(cache.contains("no-store") && cache.contains("max-age=0"), "{}", response.head);
            assert_eq!(response.header("set-cookie"), None, "{}", response.head);
            if origin.is_some_and(|origin| origin != "null") {
                assert!(response.header("vary").is_some_and(|vary| vary.contains("Origin")), "{}", response.head);
            }
        }
    }
}

#[tokio::test]
async fn the_cookie_for_balancers_is_set_on_sessions_where_it_is_wanted() {
    let server = TestServer::with(|config| config.fallbacks.cookie = true).await;
    let info = Http::new(Wire::connect(server.addr).await).get("/pusher/info").await;
    assert!(info.body.contains(r#""cookie_needed":true"#), "{}", info.body);
    assert_eq!(info.header("set-cookie"), None, "{}", info.head);

    for (header, expected) in [("", "dummy"), ("Cookie: a=b; JSESSIONID=abc.def; c=d\r\n", "abc.def")] {
        let session = || {
            let mut session = server.sockjs();
            header.clone_into(&mut session.headers);
            session
        };
        let polling = session();
        let answers = [
            polling.poll().await,
            polling.post(b"[]").await,
            polling.ask("POST", "jsonp_send", b"[]").await,
            session().begin("POST", "xhr_streaming").await.response,
            session().begin("GET", "eventsource").await.response,
            session().begin("GET", "htmlfile?c=x").await.response,
            session().begin("GET", "jsonp?c=x").await.response,
        ];
        for response in answers {
            let cookie = response.header("set-cookie").unwrap_or_else(|| panic!("{}", response.head));
            let mut parts = cookie.split(';').map(str::trim);
            assert_eq!(parts.next(), Some(format!("JSESSIONID={expected}").as_str()), "{cookie}");
            assert_eq!(parts.next().map(str::to_lowercase).as_deref(), Some("path=/"), "{cookie}");
        }
    }
    let pusher = server.fallback().poll().await;
    assert_eq!(pusher.header("set-cookie"), None, "{}", pusher.head);
}

#[tokio::test]
async fn a_client_that_keeps_asking_lives_without_a_word() {
    let server = TestServer::with_app(|app| {
        app.limits.activity_timeout = SECOND;
        app.limits.pong_timeout = SECOND;
    })
    .await;
    let mut streaming = server.sockjs().connect_streaming().await;
    let mut polling = server.sockjs().connect_polling().await;
    let live = async |client: &mut HttpClient| {
        let since = Instant::now();
        while since.elapsed() < 3 * SECOND {
            assert!(matches!(client.packet().await, Packet::Heartbeat));
        }
        client.expect_silence().await;
    };
    tokio::join!(live(&mut streaming), live(&mut polling));
}

#[tokio::test]
async fn a_server_that_stops_sends_everybody_away_with_4200() {
    let mut server = TestServer::start().await;
    let mut client = server.sockjs().connect_streaming().await;
    let undecided = server.sockjs();
    let mut stream = undecided.stream().await;
    stream.expect_line("o").await;
    let polling = server.sockjs().connect_polling().await;
    let mut poll = polling.session.begin_poll().await;
    polling.session.send(&[]).await;
    // Answered by the same server, and later.
    client.expect_silence().await;
    server.stop();
    assert_eq!(client.expect_close(4200).await, "Server is shutting down");
    stream.expect_line("c[4200,\"Server is shutting down\"]").await;
    stream.expect_end().await;
    assert_eq!(poll.response().await.body, "c[4200,\"Server is shutting down\"]\n");
    server.stopped().await;
}
