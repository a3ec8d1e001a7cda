//! Protocol §7.4: a session over HTTP is at one node, and its requests may come to any.

use std::net::SocketAddr;

use futures_util::FutureExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::it::{Http, HttpSession, LIMIT, Packet, Receiving, Wire, array};
use crate::support::{ADDED, Cluster, PATIENCE, REMOVED, SLACK, eventually};

const ROOM: &str = "presence-room";
const LEAVING: &str = "c[4200,\"Server is shutting down\"]";

async fn pair() -> Cluster {
    Cluster::with(2, |settings| {
        settings.fallbacks = "grace = \"2s\"".to_owned();
        // The client is slower than the backend at times, and is not to be closed for that.
        settings.limits = "outbox = \"16 MiB\"".to_owned();
    })
    .await
}

fn texts(lines: &str) -> Vec<String> {
    Packet::messages(lines).iter().map(|message| message.text().to_owned()).collect()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

fn subscribe(channel: &str) -> serde_json::Value {
    json!({ "event": "pusher:subscribe", "data": { "channel": channel } })
}

fn ping() -> serde_json::Value {
    json!({ "event": "pusher:ping" })
}

/// A session at another node.
fn at(session: &HttpSession, addr: SocketAddr) -> HttpSession {
    let mut session = session.clone();
    session.addr = addr;
    session
}

/// A session that has begun at the first node, seen from there and from the second one.
async fn begun(cluster: &Cluster) -> (HttpSession, HttpSession) {
    let (a, b) = cluster.pair();
    let at_a = a.fallback();
    let first = at_a.poll().await;
    assert!(first.body.starts_with("o\na["), "{}", first.body);
    let at_b = at(&at_a, b.addr);
    (at_a, at_b)
}

async fn expect_pong(receiving: &mut Receiving) {
    receiving.expect_message("pusher:pong").await;
}

#[tokio::test]
async fn a_session_is_sent_to_and_polled_through_any_node() {
    let cluster = pair().await;
    let (at_a, at_b) = begun(&cluster).await;
    for sender in [&at_a, &at_b] {
        for receiver in [&at_a, &at_b] {
            sender.send(&[ping()]).await;
            let pong = Packet::messages(&receiver.poll().await.body);
            assert!(matches!(&pong[..], [pong] if pong.event() == "pusher:pong"), "{pong:?}");
        }
    }
    // What is asked for before there is something is held at either of them.
    for receiver in [&at_a, &at_b] {
        let mut poll = receiver.begin_poll().await;
        at_b.send(&[]).await;
        at_a.send(&[ping()]).await;
        let pong = Packet::messages(&poll.response().await.body);
        assert!(matches!(&pong[..], [pong] if pong.event() == "pusher:pong"), "{pong:?}");
    }
}

#[tokio::test]
async fn answers_are_the_same_at_the_other_node() {
    let cluster = pair().await;
    let (at_a, at_b) = begun(&cluster).await;
    let bodies: [&[u8]; 5] = [b"[]", b"", b"[", b"[1]", &[b' '; 2 * 1024 * 1024]];
    for body in bodies {
        let (one, two) = (at_a.post(body).await, at_b.post(body).await);
        assert_eq!((one.status, &one.body), (two.status, &two.body), "{} bytes", body.len());
        for name in ["access-control-allow-origin", "cache-control", "x-accel-buffering"] {
            assert_eq!(two.header(name), one.header(name), "{name}: {}", two.head);
        }
    }
    let large = array(&[json!({ "event": "pusher:ping", "data": "x".repeat(70_000) })]);
    for session in [&at_a, &at_b] {
        assert_eq!(session.post(large.as_bytes()).await.status, 413);
        assert_eq!(Packet::messages(&session.poll().await.body)[0].event(), "pusher:error");
    }
    let (one, two) = (at_a.stream().await, at_b.stream().await);
    for name in
        ["content-type", "access-control-allow-origin", "cache-control", "x-accel-buffering", "transfer-encoding"]
    {
        assert!(one.response.header(name).is_some(), "{name}: {}", one.response.head);
        assert_eq!(two.response.header(name), one.response.header(name), "{name}: {}", two.response.head);
    }
}

#[tokio::test]
async fn polls_at_both_nodes_in_turn_lose_nothing() {
    let cluster = pair().await;
    let (at_a, at_b) = begun(&cluster).await;
    at_b.send(&[subscribe("room")]).await;
    at_a.poll().await;
    const EVENTS: usize = 300;
    let mut api = cluster.nodes[1].api().await;
    let publishing = async {
        for n in 0..EVENTS {
            api.trigger("room", "tick", &n.to_string()).await;
        }
    };
    let mut received = Vec::new();
    let polling = async {
        let mut turn = [&at_a, &at_b].into_iter().cycle();
        while received.len() < EVENTS {
            let response = turn.next().unwrap().poll().await;
            assert_eq!(response.status, 200, "{}", response.head);
            received.extend(texts(&response.body));
        }
    };
    tokio::join!(publishing, polling);
    assert_eq!(received, numbers(EVENTS));
}

#[tokio::test]
async fn streams_at_both_nodes_in_turn_lose_nothing() {
    let cluster = pair().await;
    let (at_a, at_b) = begun(&cluster).await;
    let mut stream = at_b.stream().await;
    at_a.send(&[subscribe("room")]).await;
    stream.expect_message("pusher_internal:subscription_succeeded").await;
    const EVENTS: usize = 300;
    let mut api = cluster.nodes[0].api().await;
    let publishing = async {
        for n in 0..EVENTS {
            api.trigger("room", "tick", &n.to_string()).await;
        }
    };
    let mut received = Vec::new();
    let consuming = async {
        let mut turn = [&at_a, &at_b].into_iter().cycle();
        while received.len() + 10 < EVENTS {
            for _ in 0..3 {
                received.extend(texts(&stream.line().await.expect("still open")));
            }
            let mut former = std::mem::replace(&mut stream, turn.next().unwrap().stream().await);
            while let Some(line) = former.line().await {
                received.extend(texts(&line));
            }
        }
        while received.len() < EVENTS {
            received.extend(texts(&stream.line().await.expect("still open")));
        }
    };
    tokio::join!(publishing, consuming);
    assert_eq!(received, numbers(EVENTS));
}

#[tokio::test]
async fn what_is_sent_through_another_node_is_handled_in_order() {
    let cluster = pair().await;
    let (at_a, at_b) = begun(&cluster).await;
    let socket = json!({ "event": "pusher:subscribe", "data": { "channel": "room-0" } });
    at_b.send(&[socket]).await;
    at_b.poll().await;
    // Each message can only be handled after the one before it.
    for n in 1..100 {
        let leave = json!({ "event": "pusher:unsubscribe", "data": { "channel": format!("room-{}", n - 1) } });
        let session = [&at_a, &at_b][n % 2];
        session.send(&[leave, subscribe(&format!("room-{n}")), ping()]).await;
    }
    let mut events = Vec::new();
    while events.iter().filter(|event| *event == "pusher:pong").count() < 99 {
        events.extend(Packet::messages(&at_b.poll().await.body).iter().map(|message| message.event().to_owned()));
    }
    assert!(!events.contains(&"pusher:error".to_owned()), "{events:?}");
    let rooms = cluster.nodes[1].api().await.get("/channels", &[]).await.json();
    assert_eq!(rooms, json!({ "channels": { "room-99": {} } }));
}

#[tokio::test]
async fn a_session_that_begins_at_two_nodes_at_once_begins_at_one() {
    let cluster = pair().await;
    let (a, b) = cluster.pair();
    for _ in 0..50 {
        let at_a = a.fallback();
        let at_b = at(&at_a, b.addr);
        let (mut one, mut two) = (at_a.begin_poll().await, at_b.begin_poll().await);
        let (first, here, mut held) = tokio::select! {
            first = one.response() => (first, &at_a, two),
            first = two.response() => (first, &at_b, one),
        };
        assert!(first.body.starts_with("o\na["), "{}\n\n{}", first.head, first.body);
        here.send(&[ping()]).await;
        let second = held.response().await;
        let pong = Packet::parse_all(&second.body);
        assert!(matches!(&pong[..], [Packet::Message(pong)] if pong.event() == "pusher:pong"), "{}", second.body);
    }
}

#[tokio::test]
async fn a_stream_through_another_node_stops_where_the_client_stops_reading() {
    let cluster = pair().await;
    let (at_a, at_b) = begun(&cluster).await;
    let mut stream = at_b.stream().await;
    at_a.send(&[subscribe("room")]).await;
    stream.expect_message("pusher_internal:subscription_succeeded").await;
    let mut other = cluster.nodes[0].connect().await;
    other.subscribe("room").await;
    let mut api = cluster.nodes[0].api().await;
    let padding = "é".repeat(5000);
    while stream.units <= LIMIT {
        api.trigger("room", "tick", &padding).await;
        stream.expect_message("tick").await;
        other.expect("tick").await;
    }
    api.trigger("room", "later", "{}").await;
    other.expect("later").await;
    // Whatever the one node has written, the other one has passed on by the time that this is answered.
    at_b.send(&[]).await;
    assert!(stream.is_quiet().await, "something came, and be it the end");
    let mut next = at_b.stream().await;
    stream.expect_end().await;
    next.expect_message("later").await;
}

#[tokio::test]
async fn a_client_that_leaves_the_node_between_is_missed() {
    let cluster = pair().await;
    let (a, b) = cluster.pair();
    let mut ann = b.join(ROOM, "ann").await;
    let mut bob = a.fallback().connect_polling().await;
    bob.join(ROOM, "bob").await;
    ann.expect_on(ROOM, ADDED).await;
    let mut stream = at(&bob.session, b.addr).stream().await;
    bob.session.send(&[ping()]).await;
    expect_pong(&mut stream).await;
    let hung_up = Instant::now();
    drop(stream);
    let removed = ann.expect_on(ROOM, REMOVED).await;
    assert_eq!(removed.data(), json!({ "user_id": "bob" }));
    let grace = std::time::Duration::from_secs(2);
    assert!(hung_up.elapsed() >= grace && hung_up.elapsed() < grace + 2 * SLACK, "after {:?}", hung_up.elapsed());
}

#[tokio::test]
async fn a_session_that_nobody_has_is_nobodys() {
    let cluster = pair().await;
    let (at_a, at_b) = begun(&cluster).await;
    for session in [at_a, at_b] {
        let mut unknown = session.clone();
        unknown.path += "x";
        for body in ["[]", "", "["] {
            let response = unknown.post(body.as_bytes()).await;
            assert_eq!(response.status, 404, "{body:?}: {}", response.head);
        }
    }
}

/// Polls through this node until a new session begins.
async fn expect_a_new_session(session: &HttpSession) {
    let response = session.poll().await;
    assert!(response.body.starts_with("o\na["), "{}\n\n{}", response.head, response.body);
    session.send(&[ping()]).await;
    assert_eq!(Packet::messages(&session.poll().await.body)[0].event(), "pusher:pong");
}

#[tokio::test]
async fn what_a_killed_node_had_begins_anew_at_another() {
    let mut cluster = pair().await;
    // One that the other node has served before, one that it has not, and one that it serves just now.
    let (_, known) = begun(&cluster).await;
    known.send(&[]).await;
    let (_, unknown) = begun(&cluster).await;
    let (_, to_send) = begun(&cluster).await;
    let (_, streaming) = begun(&cluster).await;
    let mut stream = streaming.stream().await;
    streaming.send(&[ping()]).await;
    expect_pong(&mut stream).await;
    cluster.nodes[0].kill();
    assert_eq!(known.post(b"[]").await.status, 404);
    assert_eq!(to_send.post(b"[]").await.status, 404);
    // Its end is no good one, but it is one.
    drop(stream);
    for session in [known, unknown, to_send, streaming] {
        expect_a_new_session(&session).await;
    }
}

#[tokio::test]
async fn a_node_that_stops_says_so_through_the_others_and_its_sessions_begin_anew() {
    let mut cluster = pair().await;
    let (_, streaming) = begun(&cluster).await;
    let (_, polling) = begun(&cluster).await;
    let (_, away) = begun(&cluster).await;
    let mut stream = streaming.stream().await;
    let mut poll = polling.begin_poll().await;
    for session in [&streaming, &polling] {
        session.send(&[]).await;
    }
    streaming.send(&[ping()]).await;
    expect_pong(&mut stream).await;
    let stopping = cluster.nodes[0].stop();
    let leaving = async {
        stream.expect_line(LEAVING).await;
        stream.expect_end().await;
        assert_eq!(poll.response().await.body, format!("{LEAVING}\n"));
    };
    tokio::join!(stopping, leaving);
    for session in [&streaming, &polling, &away] {
        expect_a_new_session(session).await;
    }
    // Also at the node that comes back under the same name.
    cluster.nodes[0].come_back().await;
    cluster.settled().await;
    for session in [&streaming, &polling, &away] {
        let back = at(session, cluster.nodes[0].addr);
        back.send(&[ping()]).await;
        assert_eq!(Packet::messages(&back.poll().await.body)[0].event(), "pusher:pong");
    }
}

#[tokio::test]
async fn a_node_that_stops_sends_away_those_whom_it_serves_for_others() {
    let mut cluster = pair().await;
    let (at_a, streaming) = begun(&cluster).await;
    let (polled_at_a, polling) = begun(&cluster).await;
    let mut stream = streaming.stream().await;
    let mut poll = polling.begin_poll().await;
    streaming.send(&[ping()]).await;
    expect_pong(&mut stream).await;
    polling.send(&[]).await;
    let stopping = cluster.nodes[1].stop();
    let leaving = async {
        stream.expect_line(LEAVING).await;
        stream.expect_end().await;
        let answer = poll.response().await;
        assert_eq!(answer.status, 200, "{}", answer.head);
        // From where the session is, which nobody has ended: the client asks again, at another node.
        assert_eq!(answer.body, "h\n");
    };
    tokio::join!(stopping, leaving);
    // Whoever comes back to where the session is finds it.
    for session in [at_a, polled_at_a] {
        session.send(&[ping()]).await;
        assert_eq!(Packet::messages(&session.poll().await.body)[0].event(), "pusher:pong");
    }
}

#[tokio::test]
async fn without_redis_the_node_that_has_a_session_serves_it() {
    // Redis takes its time to come back.
    let mut cluster = Cluster::with(2, |settings| settings.fallbacks = "grace = \"1m\"".to_owned()).await;
    let (at_a, _) = begun(&cluster).await;
    let mut streaming = cluster.nodes[0].fallback().connect_streaming().await;
    cluster.redis.stop();
    at_a.send(&[ping()]).await;
    assert_eq!(Packet::messages(&at_a.poll().await.body)[0].event(), "pusher:pong");
    streaming.expect_silence().await;
    // Nobody can be asked, and nobody is kept waiting for that.
    let new = cluster.nodes[0].fallback();
    let packets = new.poll_packets().await;
    assert!(matches!(&packets[..], [Packet::Open(_), Packet::Message(_)]), "{packets:?}");
    new.send(&[ping()]).await;
    assert_eq!(Packet::messages(&new.poll().await.body)[0].event(), "pusher:pong");
    cluster.redis.come_back();
    cluster.settled().await;
    for session in [&at_a, &new] {
        session.send(&[ping()]).await;
        assert_eq!(Packet::messages(&session.poll().await.body)[0].event(), "pusher:pong");
    }
    streaming.expect_silence().await;
}

#[tokio::test]
async fn one_session_over_and_over_again_is_found_wherever_it_begins() {
    let cluster = Cluster::with(3, |settings| settings.fallbacks = "grace = \"1s\"".to_owned()).await;
    let session = cluster.nodes[0].fallback();
    let mut ids = std::collections::HashSet::new();
    for turn in 0..4 {
        let begin = &cluster.nodes[turn % 3];
        let client = at(&session, begin.addr).connect_polling().await;
        assert!(ids.insert(client.socket_id.clone()), "{} came twice", client.socket_id);
        for node in &cluster.nodes {
            let sent = at(&session, node.addr).post(array(&[ping()]).as_bytes()).await;
            assert_eq!(sent.status, 204, "begun at {}, sent through {} in turn {turn}", begin.name, node.name);
            let pong = at(&session, node.addr).poll().await;
            assert_eq!(Packet::messages(&pong.body)[0].event(), "pusher:pong", "{}", node.name);
        }
        eventually("the session is over", PATIENCE, async || {
            // Asking as one who sends is no sign of life of whoever receives.
            match at(&session, cluster.nodes[(turn + 1) % 3].addr).post(b"[]").await.status {
                404 => Ok(()),
                status => Err(status.to_string()),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn sockjs_is_served_through_any_node_too() {
    let cluster = pair().await;
    let (a, b) = cluster.pair();
    let at_a = HttpSession::of_sockjs(a.addr);
    let at_b = at(&at_a, b.addr);
    assert_eq!(at_a.poll().await.body, "o\n");
    at_b.ask_for_app().await;
    assert_eq!(Packet::messages(&at_b.poll().await.body)[0].event(), "pusher:connection_established");
    at_b.send(&[subscribe("room")]).await;
    let script = at_b.ask("GET", "jsonp?c=cb", b"").await;
    assert!(script.body.starts_with("/**/cb(\"a[") && script.body.contains("succeeded"), "{}", script.body);
    let mut events = at_b.begin("GET", "eventsource").await;
    assert_eq!(events.response.header("content-type"), Some("text/event-stream; charset=UTF-8"));
    assert_eq!(events.piece("\r\n").await.as_deref(), Some(""));
    assert_eq!(at_a.poll().await.body, "c[2010,\"Another connection still open\"]\n");
    b.api().await.trigger("room", "greet", "{}").await;
    let event = events.piece("\r\n\r\n").await.unwrap();
    assert_eq!(Packet::messages(event.strip_prefix("data: ").unwrap())[0].event(), "greet");
    // Cut off at one node, it is interrupted at the other.
    drop(events);
    eventually("the session is interrupted", SLACK, async || match at_a.poll().await.body.as_str() {
        "c[1002,\"Connection interrupted\"]\n" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
}

#[tokio::test]
async fn a_kept_connection_serves_sessions_of_every_node() {
    let cluster = pair().await;
    let (at_a, at_b) = begun(&cluster).await;
    let here = cluster.nodes[1].fallback();
    here.poll().await;
    let mut http = Http::new(Wire::connect(at_b.addr).await);
    for n in 0..10 {
        for session in [&at_b, &here] {
            let body = array(&[ping()]);
            let sent = http.send(&session.request("POST", "xhr_send", body.as_bytes())).await;
            assert_eq!(sent.status, 204, "{n}: {}", sent.head);
            let pong = http.send(&session.request("POST", &format!("xhr?{}", session.query), b"")).await;
            assert_eq!(Packet::messages(&pong.body)[0].event(), "pusher:pong", "{n}");
        }
    }
    drop(at_a);
}

// --- who gets the requests of clients ---

#[tokio::test]
async fn a_request_goes_to_registered_nodes_only_and_their_answers_have_no_headers_of_their_own() {
    let cluster = pair().await;
    let (_at_a, at_b) = begun(&cluster).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stranger = format!("http://{}", listener.local_addr().unwrap());
    let cli = |args: &[&str]| cluster.redis.cli(args);
    let key = cli(&["KEYS", "*:s:*"]);
    assert!(!key.is_empty() && !key.contains('\n'), "{key}");
    assert_eq!(cli(&["SET", &key, &stranger]), "OK");

    let refused = at_b.post(b"[]").await;
    assert_eq!(refused.status, 404, "{}", refused.head);
    assert!(listener.accept().now_or_never().is_none(), "a request has arrived");

    // Only to be a node is missing, or else nothing would be proved.
    let (generation, _) = key.split_once(":s:").unwrap();
    let about = json!({ "name": "c", "address": stranger }).to_string();
    assert_eq!(cli(&["HSET", &format!("{generation}:info"), "c#1", &about]), "1");
    let answering = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = socket.read(&mut request).await.unwrap();
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\n\
                      Set-Cookie: JSESSIONID=x; Domain=example.com\r\nLocation: http://evil.test/\r\nX-Evil: 1\r\n\
                      Clear-Site-Data: \"*\"\r\nConnection: close\r\n\r\nok";
        socket.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    };
    let (request, answer) = tokio::join!(answering, at_b.post(b"[]"));
    assert!(request.starts_with("POST "), "{request}");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    for (name, value) in [
        ("content-type", Some("text/plain")),
        ("cache-control", Some("no-store")),
        ("access-control-allow-origin", Some("*")),
        ("set-cookie", None),
        ("location", None),
        ("x-evil", None),
        ("clear-site-data", None),
    ] {
        assert_eq!(answer.header(name), value, "{name}: {}", answer.head);
    }
}
