//! Sessions over HTTP (protocol §7) in whatever form HTTP has for their requests.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Http, HttpSession, Packet, Receiving, TestServer, Wire, array, requests, within};

const PONG: &str = "a[\"{\\\"event\\\":\\\"pusher:pong\\\",\\\"data\\\":\\\"{}\\\"}\"]\n";

/// The request that sends a ping.
fn ping(session: &HttpSession) -> Vec<u8> {
    session.request("POST", "xhr_send", array(&[json!({ "event": "pusher:ping" })]).as_bytes())
}

/// The request that polls.
fn poll(session: &HttpSession) -> Vec<u8> {
    session.request("POST", &format!("xhr?{}", session.query), b"")
}

/// A session that has begun, and a connection for the rest.
async fn begun(server: &TestServer) -> (HttpSession, Http) {
    let session = server.fallback();
    session.poll().await;
    (session, Http::new(Wire::connect(server.addr).await))
}

#[tokio::test]
async fn one_connection_serves_polls_and_sends_one_after_the_other() {
    let server = TestServer::start().await;
    let session = server.fallback();
    let mut http = Http::new(Wire::connect(server.addr).await);
    assert!(http.send(&poll(&session)).await.body.starts_with("o\n"));
    for _ in 0..20 {
        assert_eq!(http.send(&ping(&session)).await.status, 204);
        assert_eq!(http.send(&poll(&session)).await.body, PONG);
    }
}

#[tokio::test]
async fn requests_in_one_piece_are_answered_in_their_order() {
    let server = TestServer::start().await;
    let (session, mut http) = begun(&server).await;
    for _ in 0..5 {
        let api = b"GET /pusher/info HTTP/1.1\r\nHost: test\r\n\r\n";
        http.wire.write(&[&ping(&session), &poll(&session)[..], api, &ping(&session), &poll(&session)].concat()).await;
        assert_eq!(http.response().await.status, 204);
        assert_eq!(http.response().await.body, PONG);
        assert!(http.response().await.body.contains("entropy"));
        assert_eq!(http.response().await.status, 204);
        assert_eq!(http.response().await.body, PONG);
    }
}

#[tokio::test]
async fn requests_in_pieces_are_put_together() {
    let server = TestServer::start().await;
    let (session, mut http) = begun(&server).await;
    let request = [ping(&session), poll(&session)].concat();
    let head = request.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    for cut in [1, 20, head, head + 3, head + 4, head + 10, ping(&session).len() + 5, request.len() - 1] {
        http.wire.write(&request[..cut]).await;
        // Answered on another connection: the server has read the first piece by now.
        server.fallback().poll().await;
        http.wire.write(&request[cut..]).await;
        assert_eq!(http.response().await.status, 204, "{cut}");
        assert_eq!(http.response().await.body, PONG, "{cut}");
    }
}

#[tokio::test]
async fn whatever_stands_in_a_request_to_receive_is_passed_over() {
    let server = TestServer::start().await;
    let (session, mut http) = begun(&server).await;
    let action = format!("xhr?{}", session.query);
    let small = session.request("POST", &action, b"what is this");
    let chunked = String::from_utf8(poll(&session)).unwrap();
    let chunked = chunked.replace("Content-Length: 0", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n";
    let bare = format!("POST {}/{action} HTTP/1.1\r\nHost: test\r\n\r\n", session.path);
    for request in [small, chunked.into_bytes(), bare.into_bytes()] {
        assert_eq!(http.send(&ping(&session)).await.status, 204);
        let answer = http.send(&request).await;
        assert_eq!(answer.body, PONG, "{}", answer.head);
    }
}

#[tokio::test]
async fn a_client_that_waits_for_leave_to_send_is_given_it() {
    let server = TestServer::start().await;
    let (session, mut http) = begun(&server).await;
    let request = String::from_utf8(ping(&session)).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    http.wire.write(format!("{head}\r\nExpect: 100-continue\r\n\r\n").as_bytes()).await;
    let leave = within("leave to go on", http.wire.head()).await.unwrap();
    assert!(leave.starts_with("HTTP/1.1 100 "), "{leave}");
    assert_eq!(http.send(body.as_bytes()).await.status, 204);
    assert_eq!(http.send(&poll(&session)).await.body, PONG);
}

#[tokio::test]
async fn a_connection_ends_with_an_answer_where_the_client_wants_that() {
    let server = TestServer::start().await;
    let (session, _) = begun(&server).await;
    let session = session.header("Connection", "close");
    for (request, expected) in [(ping(&session), ""), (poll(&session), PONG)] {
        let mut http = Http::new(Wire::connect(server.addr).await);
        assert_eq!(http.send(&request).await.body, expected);
        assert_eq!(within("end of the connection", http.wire.rest()).await, b"");
    }
    let mut stream = session.stream().await;
    session.send(&[json!({ "event": "pusher:ping" })]).await;
    stream.expect_message("pusher:pong").await;
}

#[tokio::test]
async fn a_stream_that_has_ended_leaves_its_connection_as_it_has_said() {
    let server = TestServer::start().await;
    let session = server.fallback();
    let stream = session.request("POST", &format!("xhr_streaming?{}", session.query), b"");
    let mut wire = Wire::connect(server.addr).await;
    for _ in 0..3 {
        wire.write(&stream).await;
        let mut receiving = Receiving::begin(wire).await;
        receiving.line().await.expect("a prelude");
        let ends = receiving.response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let mut poll = session.begin_poll().await;
        while receiving.line().await.is_some() {}
        wire = receiving.into_wire();
        if ends {
            assert_eq!(within("end of the connection", wire.rest()).await, b"");
            wire = Wire::connect(server.addr).await;
        }
        wire.write(&ping(&session)).await;
        let mut http = Http::new(wire);
        assert_eq!(http.response().await.status, 204);
        assert_eq!(poll.response().await.body, PONG);
        wire = http.wire;
    }
}

#[tokio::test]
async fn a_session_needs_no_chunks_where_http_has_none() {
    let server = TestServer::start().await;
    let session = server.fallback();
    let http10 = |request: Vec<u8>| String::from_utf8(request).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    let action = format!("xhr_streaming?{}", session.query);
    let mut stream = Wire::connect(server.addr).await;
    stream.write(http10(session.request("POST", &action, b"")).as_bytes()).await;
    let head = stream.head().await.unwrap().to_lowercase();
    assert!(head.contains(" 200 ") && !head.contains("transfer-encoding"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    let prelude = stream.exactly(2049).await;
    assert!(prelude.ends_with(b"h\n"), "{prelude:?}");
    assert_eq!(stream.exactly(2).await, b"o\n");
    assert_eq!(stream.exactly(2).await, b"a[");
    let body = array(&[json!({ "event": "pusher:ping" })]);
    let request = http10(session.request("POST", "xhr_send", body.as_bytes()));
    let sent = Http::new(Wire::connect(server.addr).await).send(request.as_bytes()).await;
    assert_eq!(sent.status, 204, "{}", sent.head);
}

/// One HTTP/2 connection, as browsers have them.
async fn http2(server: &TestServer) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Begins a request on it.
async fn ask(
    connection: &SendRequest<Full<Bytes>>,
    session: &HttpSession,
    action: &str,
    body: &str,
) -> hyper::Response<hyper::body::Incoming> {
    let request = hyper::Request::post(format!("http://test{}/{action}", session.path));
    let request = request.header("content-type", "application/json").body(Full::from(body.to_owned())).unwrap();
    within("answer", connection.clone().send_request(request)).await.unwrap()
}

/// Reads on until this is there; returns all of it.
async fn expect(response: &mut hyper::Response<hyper::body::Incoming>, text: &str) -> String {
    let mut body = String::new();
    while !body.contains(text) {
        let frame = within(text, response.body_mut().frame()).await.unwrap_or_else(|| panic!("ends with {body}"));
        body += std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap();
    }
    body
}

#[tokio::test]
async fn http_2_has_room_for_many_sessions_in_one_connection_and_each_has_its_own_end() {
    let server = TestServer::with(|config| config.fallbacks.grace = Duration::from_secs(1)).await;
    let mut ann = server.join("presence-room", "ann").await;
    let connection = http2(&server).await;
    let mut streams = Vec::new();
    for n in 0..20 {
        let session = server.fallback();
        let mut stream = ask(&connection, &session, &format!("xhr_streaming?{}", session.query), "").await;
        assert_eq!(stream.status(), 200);
        let greeting = expect(&mut stream, "]\n").await;
        let Some(Packet::Message(greeting)) = Packet::parse_all(greeting.split_once('\n').unwrap().1).pop() else {
            panic!("{greeting}")
        };
        let socket_id = greeting.data()["socket_id"].as_str().unwrap().to_owned();
        let membership = requests::membership(&socket_id, "presence-room", &json!({ "user_id": n }).to_string());
        assert_eq!(ask(&connection, &session, "xhr_send", &array(&[membership])).await.status(), 204);
        expect(&mut stream, "subscription_succeeded").await;
        ann.expect("pusher_internal:member_added").await;
        streams.push((session, stream));
    }
    // One of them ends its request, and not the connection.
    drop(streams.pop());
    let removed = ann.expect("pusher_internal:member_removed").await;
    assert_eq!(removed.data(), json!({ "user_id": "19" }));
    let body = array(&[json!({ "event": "pusher:ping" })]);
    for (session, stream) in &mut streams {
        assert_eq!(ask(&connection, session, "xhr_send", &body).await.status(), 204);
        expect(stream, "pusher:pong").await;
    }
    ann.expect_silence().await;
    // With the connection all of them end.
    drop((streams, connection));
    for _ in 0..19 {
        ann.expect("pusher_internal:member_removed").await;
    }
}
