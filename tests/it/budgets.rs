//! What one client, one address or one body may use, so that others have what they need.

use std::time::Duration;

use fanfare::config::ForwardConfig;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{
    Answer, Ask, Call, Client, DEADLINE, Http, Item, KEY, Opcode, TestServer, Web, Wire, head, masked, within,
};

/// The head of a POST request with a body of this length.
fn post(target: &str, length: usize) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n");
    format!("{head}Content-Length: {length}\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_client_that_sends_too_fast_is_read_slowly_and_loses_nothing() {
    let server = TestServer::with_app(|app| {
        app.limits.messages_per_second = 500;
        app.limits.message_burst = 1;
    })
    .await;
    let mut client = server.connect().await;
    let started = tokio::time::Instant::now();
    let messages: Vec<_> = (0..200)
        .map(|n| json!({ "event": "pusher:subscribe", "data": { "channel": format!("private-{n}"), "auth": "none" } }))
        .collect();
    client.send_all(&messages).await;
    for n in 0..messages.len() {
        client.expect_rejection(&format!("private-{n}"), "AuthError", 401).await;
    }
    // 510 a second with the client events, and 11 at once. Slower is always possible.
    assert!(started.elapsed() > Duration::from_millis(300), "{:?}", started.elapsed());
    client.expect_silence().await;
    assert!(server.metric("fanfare_client_pauses_total").await > 0.0);
}

#[tokio::test]
async fn control_frames_and_broken_messages_count_as_messages() {
    let server = TestServer::with_app(|app| {
        app.limits.messages_per_second = 500;
        app.limits.message_burst = 1;
    })
    .await;
    for opcode in [Opcode::Ping, Opcode::Pong, Opcode::Binary, Opcode::Text] {
        let mut client = server.connect().await;
        let started = tokio::time::Instant::now();
        let frames: Vec<u8> = (0..200).flat_map(|_| masked(true, opcode as u8, b"")).collect();
        client.wire.write(&frames).await;
        client.send(json!({ "event": "pusher:ping", "data": {} })).await;
        loop {
            match client.item().await {
                Item::Text(text) if text.contains("pusher:pong") => break,
                Item::Text(_) | Item::Pong(_) => {}
                other => client.fail(&format!("{opcode:?}: unexpected {other:?}")),
            }
        }
        assert!(started.elapsed() > Duration::from_millis(300), "{opcode:?}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_burst_of_subscriptions_after_a_reconnect_passes() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let messages: Vec<_> = (0..1000).map(|n| client.subscription(&format!("private-{n}"))).collect();
    client.send_all(&messages).await;
    for n in 0..messages.len() {
        client.expect_success(&format!("private-{n}")).await;
    }
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_when_it_ends_and_others_are_understood() {
    let server = TestServer::with_app(|app| app.limits.message = 2000).await;
    let mut client = server.connect().await;
    let large = vec![b'a'; 100_000];
    client.wire.write(&masked(true, Opcode::Text as u8, &large)).await;
    client.expect_error("Message exceeds the allowed maximum (2000 bytes)").await;
    client.wire.write(&masked(false, Opcode::Text as u8, &large)).await;
    client.wire.write(&masked(true, Opcode::Ping as u8, b"x")).await;
    assert!(matches!(client.item().await, Item::Pong(_)));
    client.wire.write(&masked(true, Opcode::Continuation as u8, b"")).await;
    client.expect_error("Message exceeds the allowed maximum (2000 bytes)").await;
    client.expect_silence().await;
}

#[tokio::test]
async fn a_message_without_an_end_is_not_waited_for() {
    let server = TestServer::with(|config| {
        config.server.request_timeout = Duration::from_secs(1);
        // Clients are not listened to for most of the time, which makes it no longer.
        config.apps[0].limits.messages_per_second = 20;
        config.apps[0].limits.message_burst = 1;
    })
    .await;
    // One byte is missing.
    let mut client = server.connect().await;
    let frame = masked(true, Opcode::Text as u8, &[b'a'; 1000]);
    client.wire.write(&frame[..frame.len() - 1]).await;
    assert_eq!(client.expect_close(4100).await, "Message not completed in time");
    // Pings in between do not help.
    let mut client = server.connect().await;
    client.wire.write(&masked(false, Opcode::Text as u8, b"a")).await;
    loop {
        client.wire.write(&masked(true, Opcode::Ping as u8, b"")).await;
        match client.item().await {
            Item::Pong(_) => {}
            Item::Close(code, _) => break assert_eq!(code, Some(4100)),
            other => client.fail(&format!("unexpected {other:?}")),
        }
    }
    // Whole messages do.
    let mut client = server.connect().await;
    let (one, two) = (masked(true, Opcode::Text as u8, b"{}"), masked(true, Opcode::Text as u8, b"{}"));
    let started = tokio::time::Instant::now();
    while started.elapsed() < Duration::from_millis(1500) {
        client.wire.write(&[&one[..], &two[..5]].concat()).await;
        client.expect_some_error().await;
        client.wire.write(&two[5..]).await;
        client.expect_some_error().await;
    }
}

/// A client whose system takes nothing for it that it does not read.
async fn with_a_small_window(server: &TestServer) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = server.dial().open_over(Wire::over(socket.connect(server.addr).await.unwrap())).await;
    client.greeting().await;
    client
}

#[tokio::test]
async fn a_client_that_says_it_lives_but_reads_nothing_is_closed() {
    let server = TestServer::with(|config| {
        config.server.write_timeout = Duration::from_secs(1);
        config.apps[0].limits.outbox = 64 * 1024 * 1024;
    })
    .await;
    let mut slow = with_a_small_window(&server).await;
    slow.subscribe("room").await;
    let mut api = server.api().await;
    // More than all buffers between the two hold.
    for _ in 0..200 {
        let data = "x".repeat(10_000);
        let batch: Vec<_> = (0..10).map(|_| json!({ "name": "tick", "channel": "room", "data": data })).collect();
        api.post("/batch_events", &json!({ "batch": batch })).await.ok();
    }
    let closed = async {
        loop {
            let _ = slow.wire.try_write(&masked(true, Opcode::Pong as u8, b"")).await;
            if server.metrics().await.contains("code=\"4100\"") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("close of a client that reads nothing", closed).await;
    // What it reads now is the beginning, and then the reason.
    loop {
        match within("end", slow.wire.item()).await {
            Item::Text(_) | Item::Pong(_) => {}
            Item::Close(code, _) => break assert_eq!(code, Some(4100)),
            Item::End => break,
            other => slow.fail(&format!("unexpected {other:?}")),
        }
    }
    assert!(server.metric("fanfare_frames_dropped_total").await > 0.0);
}

#[tokio::test]
async fn a_request_that_cannot_be_authentic_is_refused_before_its_body() {
    let server = TestServer::start().await;
    let body = json!({ "name": "a", "channel": "room", "data": "x".repeat(9000) }).to_string();
    let good = Call::new("POST", "/apps/42/events", body.as_bytes());
    let bad = [
        (Call { params: Vec::new(), ..good.clone() }, "Missing parameter: auth_key"),
        (good.clone().set("auth_key", "nobody"), "Unknown auth_key"),
        (good.clone().set("auth_timestamp", "1"), "Timestamp expired"),
        (good.clone().without("body_md5"), "Missing parameter: body_md5"),
        (Call { signature: Some("0".repeat(64)), ..good.clone() }, "Invalid signature"),
        (Call { secret: "wrong".to_owned(), ..good.clone() }, "Invalid signature"),
    ];
    for (call, expected) in &bad {
        // On the fast path, and on that through hyper.
        let length = format!("Content-Length: {}", body.len());
        let chunked = call.head(body.len()).replace(&length, "Transfer-Encoding: chunked");
        // Only a body that is announced is known to need a digest.
        let chunked = Some(chunked).filter(|_| !expected.contains("body_md5"));
        for head in chunked.into_iter().chain([call.head(body.len())]) {
            let mut http = server.http().await;
            let response = http.send(head.as_bytes()).await;
            assert!(response.error(401).contains(expected), "{expected}: {}", response.body);
        }
        // A library that sends everything before it reads sees the answer, too.
        let mut http = server.http().await;
        let bytes = call.bytes();
        let (first, rest) = bytes.split_at(bytes.len() - 4000);
        http.wire.write(first).await;
        let response = http.send(rest).await;
        assert!(response.error(401).contains(expected), "{expected}: {}", response.body);
    }
    let mut http = server.http().await;
    http.wire.write(good.head(body.len()).as_bytes()).await;
    http.send(body.as_bytes()).await.ok();
    // The digest is signed, the body is not: it is compared when it is there.
    let mut http = server.http().await;
    http.wire.write(good.head(body.len()).as_bytes()).await;
    assert_eq!(http.send(body.replace("room", "roam").as_bytes()).await.error(401), "Invalid body_md5");
}

#[tokio::test]
async fn bodies_that_take_long_make_room_for_others() {
    let server = TestServer::with(|config| {
        config.server.body_memory = 1024 * 1024;
        config.apps[0].auth.dev = true;
    })
    .await;
    let mut unfinished = crowd(&server).await;
    // 17 of them fit.
    for (index, http) in unfinished.iter_mut().enumerate().take(12) {
        assert_eq!(http.response().await.status, 503, "{index}");
    }
    assert!(server.metric("fanfare_bodies_evicted_total").await >= 12.0);
    // Everybody else is served.
    let body = json!({ "socket_id": "1.2", "channel_name": "private-a", "x": "y".repeat(50_000) }).to_string();
    let mut http = server.http().await;
    http.wire.write(&post("/pusher/auth", body.len())).await;
    let response = http.send(body.as_bytes()).await;
    assert_eq!(response.status, 200, "{}", response.body);
    server.api().await.trigger("room", "greet", &"x".repeat(9000)).await;
    drop(unfinished);
}

/// Begins as many bodies as fit into a budget of 1 MiB, and more. They last as long as this.
async fn crowd(server: &TestServer) -> Vec<Http> {
    let mut unfinished = Vec::new();
    for _ in 0..30 {
        let mut http = server.http().await;
        http.wire.write(&post("/pusher/auth", 60_001)).await;
        http.wire.write(&vec![b'x'; 60_000]).await;
        unfinished.push(http);
    }
    unfinished
}

#[tokio::test]
async fn messages_that_wait_for_their_turn_make_room_for_the_bodies_of_others() {
    let server = TestServer::with(|config| {
        config.server.body_memory = 1024 * 1024;
        config.apps[0].auth.dev = true;
        config.apps[0].limits.messages_per_second = 1;
        config.apps[0].limits.client_events_per_second = 1;
        config.apps[0].limits.message_burst = 1;
    })
    .await;
    // On the fast path, and on that through hyper.
    for length in [4000, 16_000] {
        let mut client = server.fallback().connect_streaming().await;
        let message = json!({ "event": "pusher:ping", "data": "x".repeat(length) }).to_string();
        let body = serde_json::to_vec(&vec![message; 50]).unwrap();
        let mut http = server.http().await;
        http.wire.write(&client.session.request("POST", "xhr_send", &body)).await;
        // The first ones are handled. The others would take 24 seconds.
        client.expect("pusher:pong").await;
        let unfinished = crowd(&server).await;
        let response = http.response().await;
        assert_eq!(response.status, 503, "{length}: {}", response.body);
        drop(unfinished);
    }
}

#[tokio::test]
async fn a_question_that_waits_for_the_backend_makes_room_for_the_bodies_of_others() {
    let web = Web::start(|_| Answer(403, String::new())).await;
    web.hold(true);
    let mut forward = ForwardConfig::new(web.url.clone());
    forward.user_url = web.url.clone();
    let server = TestServer::with(|config| {
        config.server.body_memory = 1024 * 1024;
        config.apps[0].auth.forward = Some(forward);
    })
    .await;
    let mut http = server.http().await;
    http.wire.write(&Ask::channel("1.2", "private-a").field("x", &"y".repeat(50_000)).bytes()).await;
    web.expect_seen(1).await;
    let unfinished = crowd(&server).await;
    let response = http.response().await;
    assert_eq!(response.status, 503, "{}", response.body);
    assert!(response.body.contains("server.body_memory"), "{}", response.body);
    drop(unfinished);
}

#[tokio::test]
async fn an_address_has_so_many_clients_whatever_they_come_with() {
    let server = TestServer::with(|config| {
        config.server.trust_forwarded_headers = true;
        config.server.connections_per_address = 2;
    })
    .await;
    let from = |address: &str| server.dial().header("X-Forwarded-For", address);
    let first = from("203.0.113.1").connect().await;
    let _second = from("203.0.113.1, 10.0.0.1").connect().await;
    assert_eq!(from("203.0.113.1").refused(4100).await, "Over capacity");
    let _neighbour = from("203.0.113.2").connect().await;
    // A place that is given back can be taken.
    first.disconnect().await;
    let again =
        async { while from("203.0.113.1").open().await.next().await.event() != "pusher:connection_established" {} };
    within("place of a client that has left", again).await;
    // A household has one IPv6 network.
    let _v6 = (from("2001:db8::1").connect().await, from("2001:db8::2:3").connect().await);
    from("2001:db8::4").refused(4100).await;
    let _other = from("2001:db8:0:1::1").connect().await;
    // HTTP transports have the same places, of the same node.
    let mut http = Http::new(Wire::connect(server.addr).await);
    let begin = |session: &str| {
        let target = format!("/pusher/app/{KEY}/0/{session}/xhr?protocol=7");
        format!("POST {target} HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 2001:db8::5\r\nContent-Length: 0\r\n\r\n")
    };
    let response = http.send(begin("abc").as_bytes()).await;
    assert!(response.body.contains("4100"), "{}", response.body);
    let page = server.metrics().await;
    let line = "fanfare_connections_refused_total{code=\"4100\",reason=\"address_over_capacity\"} ";
    assert!(page.contains(line), "{page}");
    assert!(!page.contains("reason=\"over_capacity\""), "{page}");
}

#[tokio::test]
async fn an_address_opens_so_many_connections_a_second() {
    let server = TestServer::with(|config| {
        config.server.trust_forwarded_headers = true;
        config.server.new_connections_per_address = 1;
    })
    .await;
    let from = |address: &str| server.dial().header("X-Forwarded-For", address);
    let mut refused = 0;
    for _ in 0..30 {
        let mut client = from("203.0.113.1").open().await;
        match client.item().await {
            Item::Close(Some(4100), _) => refused += 1,
            Item::Text(_) => {}
            other => client.fail(&format!("unexpected {other:?}")),
        }
    }
    // Ten at once, and one more a second.
    assert!((1..=20).contains(&refused), "{refused} of 30 were refused");
    from("203.0.113.2").connect().await;
}

#[tokio::test]
async fn a_private_address_may_be_a_proxy_and_is_spared() {
    let server = TestServer::with(|config| {
        config.server.connections_per_address = 2;
        config.server.new_connections_per_address = 1;
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(server.connect().await);
    }
    // Nobody believes what it says of others.
    clients.push(server.dial().header("X-Forwarded-For", "203.0.113.1").connect().await);
}

#[tokio::test]
async fn an_idle_http2_connection_ends_although_it_answers_pings() {
    let server = TestServer::with(|config| config.server.request_timeout = Duration::from_secs(1)).await;
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    // hyper answers pings by itself.
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(format!("http://{}/", server.addr)).body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
    let started = tokio::time::Instant::now();
    within("end of an idle connection", connection).await.unwrap().ok();
    assert!(started.elapsed() > Duration::from_millis(800), "{:?}", started.elapsed());
    assert!(started.elapsed() < DEADLINE / 2, "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_http2_client_has_so_many_requests_at_once() {
    let server = TestServer::with(|config| config.server.http2_streams = 3).await;
    let mut wire = Wire::connect(server.addr).await;
    wire.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let header = wire.exactly(9).await;
    assert_eq!(header[3], 4, "the first frame of a server has its settings");
    let length = usize::from(header[1]) << 8 | usize::from(header[2]);
    let settings = wire.exactly(length).await;
    let streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).expect("SETTINGS_MAX_CONCURRENT_STREAMS");
    assert_eq!(streams[2..], [0, 0, 0, 3]);
}

#[tokio::test]
async fn messages_over_http_have_the_same_rate_and_those_that_would_wait_too_long_are_refused() {
    let server = TestServer::with(|config| {
        config.server.request_timeout = Duration::from_secs(2);
        config.apps[0].limits.messages_per_second = 90;
        config.apps[0].limits.message_burst = 40;
    })
    .await;
    let client = server.fallback().connect_polling().await;
    let ping = json!({ "event": "pusher:ping", "data": {} }).to_string();
    let body = |count: usize| serde_json::to_vec(&vec![&ping; count]).unwrap();
    let started = tokio::time::Instant::now();
    let response = client.session.post(&body(150)).await;
    assert_eq!(response.status, 204, "{}", response.body);
    // 50 at once, and 100 a second.
    assert!(started.elapsed() > Duration::from_millis(900), "{:?}", started.elapsed());
    let response = client.session.post(&body(1000)).await;
    assert_eq!((response.status, response.header("retry-after")), (429, Some("1")), "{}", response.body);
    assert!(response.body.contains("limits.messages_per_second"), "{}", response.body);
    // It is not tried how far one gets: that would be 200 further on.
    let refused: usize = response.body.split(' ').next().unwrap().parse().unwrap();
    assert!(refused > 850, "{}", response.body);
}

#[tokio::test]
async fn a_frame_that_is_announced_takes_no_memory_until_it_comes() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.wire.write(&head(true, Opcode::Text as u8, 1024 * 1024 + 1, true)).await;
    client.expect_close(1009).await;
}

#[tokio::test]
async fn kept_connections_of_backends_are_not_evicted_while_there_is_room() {
    let server = TestServer::start().await;
    let mut kept: Vec<Http> = Vec::new();
    for _ in 0..50 {
        kept.push(server.http().await);
    }
    for _ in 0..2 {
        for http in &mut kept {
            assert_eq!(http.get("/").await.status, 200);
        }
    }
    assert_eq!(server.metric("fanfare_connections_evicted_total").await, 0.0);
}
