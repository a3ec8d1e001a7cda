//! Protocol §7.4, "Send": what clients say over HTTP.

use serde_json::json;

use crate::support::{Http, Packet, Response, TestServer, Wire, array};

async fn server() -> TestServer {
    TestServer::with_app(|app| app.client_events = true).await
}

fn expect(response: &Response, status: u16, text: &str) {
    assert_eq!((response.status, response.body.trim_end()), (status, text), "{}", response.head);
}

#[tokio::test]
async fn what_is_accepted_has_an_empty_answer() {
    let server = server().await;
    let client = server.fallback().connect_polling().await;
    for body in ["[]", r#"["{\"event\":\"pusher:pong\"}"]"#, " [ ] ", r#"["not JSON"]"#] {
        expect(&client.session.post(body.as_bytes()).await, 204, "");
    }
}

#[tokio::test]
async fn nobody_is_spoken_for_without_a_session() {
    let server = server().await;
    let mut session = server.fallback();
    for body in ["[]", "", "[", r#"["{\"event\":\"pusher:ping\"}"]"#] {
        assert_eq!(session.post(body.as_bytes()).await.status, 404, "{body}");
    }
    session.poll().await;
    expect(&session.post(b"[]").await, 204, "");
    session.path += "x";
    assert_eq!(session.post(b"[]").await.status, 404);
}

#[tokio::test]
async fn an_empty_body_and_a_broken_one_have_the_answers_of_sockjs_and_change_nothing() {
    let server = server().await;
    let mut client = server.fallback().connect_streaming().await;
    expect(&client.session.post(b"").await, 500, "Payload expected.");
    let broken: [&[u8]; 14] = [
        b"[",
        b"[\"x",
        b"x",
        b"{}",
        b"null",
        b"1",
        b"\"x\"",
        b"[1]",
        b"[null]",
        b"[{}]",
        b"[[\"x\"]]",
        b"[\"x\"] y",
        b"[\"\xff\"]",
        br#"["{\"event\":\"pusher:ping\"}",1]"#,
    ];
    for body in broken {
        expect(&client.session.post(body).await, 500, "Broken JSON encoding.");
    }
    let deep = "[".repeat(100_000);
    expect(&client.session.post(deep.as_bytes()).await, 500, "Broken JSON encoding.");
    // Nothing of a broken body was heard.
    client.expect_silence().await;
}

#[tokio::test]
async fn messages_of_one_body_are_handled_in_their_order() {
    let server = server().await;
    let mut receiver = server.connect().await;
    receiver.subscribe_private("private-room").await;
    let mut client = server.fallback().connect_streaming().await;
    client.subscribe("private-room").await;
    let event = |n: usize| json!({ "event": "client-a", "channel": "private-room", "data": n.to_string() });
    let messages: Vec<_> = (0..8).map(event).collect();
    client.session.send(&messages).await;
    for n in 0..8 {
        receiver.expect_event("private-room", "client-a", &n.to_string()).await;
    }
    // A broken message does not keep the next one from being heard, and is answered at its place.
    let ping = json!({ "event": "pusher:ping" }).to_string();
    let unsubscribe = json!({ "event": "pusher:unsubscribe", "data": { "channel": "private-room" } }).to_string();
    let body = json!([ping, "not JSON", unsubscribe, unsubscribe, ping]).to_string();
    expect(&client.session.post(body.as_bytes()).await, 204, "");
    client.expect("pusher:pong").await;
    assert_eq!(client.expect("pusher:error").await.error(), "Received invalid JSON");
    let text = "No current subscription to channel private-room, or subscription in progress";
    assert_eq!(client.expect("pusher:error").await.error(), text);
    client.expect("pusher:pong").await;
}

#[tokio::test]
async fn a_body_with_many_messages_is_heard_to_its_end() {
    let server = TestServer::with_app(|app| app.limits.messages_per_second = 0).await;
    let mut client = server.fallback().connect_streaming().await;
    let pings: Vec<_> = (0..5000).map(|_| json!({ "event": "pusher:ping" })).collect();
    client.session.send(&pings).await;
    for _ in &pings {
        client.expect("pusher:pong").await;
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn a_body_has_no_more_than_ten_thousand_messages() {
    let server = TestServer::with_app(|app| app.limits.messages_per_second = 0).await;
    let mut client = server.fallback().connect_streaming().await;
    let body = |messages: usize| serde_json::to_vec(&vec![""; messages]).unwrap();
    expect(&client.session.post(&body(10_001)).await, 413, "More than 10000 messages in one body");
    // Nothing of it was heard, and the session lives.
    client.expect_silence().await;
    expect(&client.session.post(&body(10_000)).await, 204, "");
    for _ in 0..10_000 {
        assert_eq!(client.expect("pusher:error").await.error(), "Received invalid JSON");
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn a_heartbeat_is_not_answered() {
    let server = server().await;
    let mut client = server.fallback().connect_streaming().await;
    for _ in 0..100 {
        client.session.send(&[]).await;
    }
    assert!(matches!(client_pong(&mut client).await, Packet::Message(pong) if pong.event() == "pusher:pong"));
}

async fn client_pong(client: &mut crate::support::HttpClient) -> Packet {
    client.send(json!({ "event": "pusher:ping" })).await;
    client.packet().await
}

#[tokio::test]
async fn a_message_may_be_as_large_as_one_of_a_websocket_and_the_client_is_told() {
    let server = TestServer::with_app(|app| app.limits.message = 1000).await;
    let mut client = server.fallback().connect_streaming().await;
    let empty = json!({ "event": "pusher:ping", "data": "" }).to_string().len();
    let message = |length: usize| json!({ "event": "pusher:ping", "data": "x".repeat(length - empty) });
    assert_eq!(message(1000).to_string().len(), 1000);
    client.session.send(&[message(1000)]).await;
    client.expect("pusher:pong").await;
    // Many of them together are no more than each of them.
    client.session.send(&[message(1000), message(1000), message(1000)]).await;
    for _ in 0..3 {
        client.expect("pusher:pong").await;
    }
    let response = client.session.post(array(&[message(1001)]).as_bytes()).await;
    assert_eq!(response.status, 413, "{}", response.head);
    let heard = client.expect("pusher:error").await;
    assert!(heard.json["data"]["code"].is_null(), "{}", heard.json);
    // The session lives, and so does a WebSocket that sends the same.
    client.expect_silence().await;
    let mut websocket = server.connect().await;
    websocket.send(message(1001)).await;
    assert_eq!(websocket.expect_some_error().await, heard.error());
}

#[tokio::test]
async fn a_body_may_be_as_large_as_one_of_the_api() {
    let server = TestServer::with_app(|app| app.limits.http_body = 5000).await;
    let mut client = server.fallback().connect_streaming().await;
    let body = |length: usize| {
        let empty = json!([json!({ "event": "pusher:ping", "data": "" }).to_string()]).to_string().len();
        json!([json!({ "event": "pusher:ping", "data": "x".repeat(length - empty) }).to_string()]).to_string()
    };
    assert_eq!(body(5000).len(), 5000);
    expect(&client.session.post(body(5000).as_bytes()).await, 204, "");
    client.expect("pusher:pong").await;
    let response = client.session.post(body(5001).as_bytes()).await;
    assert_eq!(response.status, 413, "{}", response.head);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{}", response.head);
    // A length is believed before all of it has come.
    let claim = String::from_utf8(client.session.request("POST", "xhr_send", b"")).unwrap();
    let claim = claim.replace("Content-Length: 0", "Content-Length: 50000000");
    let response = Http::new(Wire::connect(server.addr).await).send(claim.as_bytes()).await;
    assert_eq!(response.status, 413, "{}", response.head);
    client.expect_silence().await;
}

#[tokio::test]
async fn a_body_in_chunks_is_heard() {
    let server = server().await;
    let mut client = server.fallback().connect_streaming().await;
    let head = String::from_utf8(client.session.request("POST", "xhr_send", b"")).unwrap();
    let head = head.replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let body = br#"["{\"event\":\"pusher:ping\"}"]"#;
    let (one, two) = body.split_at(10);
    let mut request = head.into_bytes();
    for part in [one, two, b""] {
        request.extend(format!("{:x}\r\n", part.len()).into_bytes());
        request.extend(part);
        request.extend(b"\r\n");
    }
    expect(&Http::new(Wire::connect(server.addr).await).send(&request).await, 204, "");
    client.expect("pusher:pong").await;
    client.expect_silence().await;
}

#[tokio::test]
async fn ten_client_events_a_second_pass_and_the_eleventh_is_refused_with_4301() {
    let server = server().await;
    let mut receiver = server.connect().await;
    receiver.subscribe_private("private-room").await;
    let mut client = server.fallback().connect_polling().await;
    client.subscribe("private-room").await;
    let event = |n: usize| json!({ "event": "client-a", "channel": "private-room", "data": n.to_string() });
    let messages: Vec<_> = (0..15).map(event).collect();
    client.session.send(&messages).await;
    for n in 0..10 {
        receiver.expect_event("private-room", "client-a", &n.to_string()).await;
    }
    for _ in 10..15 {
        let error = client.expect("pusher:error").await;
        assert_eq!(error.json["data"]["code"], 4301);
        assert_eq!(error.error(), "The rate limit for sending client events exceeded the quota.");
    }
    receiver.expect_silence().await;
    client.expect_silence().await;
}
