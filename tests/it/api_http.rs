//! Protocol §4.1: HTTP itself: routes, kept connections, pipelines, HTTP/2, and bodies that come slowly or never end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Call, DEADLINE, KEY, TestServer, within};

fn event(name: &str) -> Call {
    Call::post("/apps/42/events", &json!({ "name": name, "channel": "room", "data": "{}" }))
}

#[tokio::test]
async fn a_connection_is_kept_through_successes_and_errors() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    for _ in 0..20 {
        api.trigger("room", "greet", "{}").await;
        api.post("/events", &json!({})).await.error(400);
        api.call(&Call { secret: "wrong".to_owned(), ..event("greet") }).await.error(401);
        api.call(&Call::get("/nowhere")).await.error(404);
        api.call(&Call::get("/apps/42/events")).await.error(405);
        let large = json!({ "name": "greet", "channel": "room", "data": "x".repeat(10_241) });
        api.post("/events", &large).await.error(413);
        api.get("/channels", &[]).await.json();
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_and_carried_out_in_order() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    let mut http = server.http().await;
    let mut bytes = Vec::new();
    for n in 0..50 {
        bytes.extend(event(&format!("event-{n}")).bytes());
        bytes.extend(Call::get(&format!("/apps/42/channels/room-{n}")).with("info", "subscription_count").bytes());
        bytes.extend(Call::get("/nowhere").bytes());
    }
    http.wire.write(&bytes).await;
    for n in 0..50 {
        http.response().await.ok();
        assert_eq!(http.response().await.json(), json!({ "occupied": false, "subscription_count": 0 }), "{n}");
        http.response().await.error(404);
    }
    for n in 0..50 {
        client.expect_event("room", &format!("event-{n}"), "{}").await;
    }
}

#[tokio::test]
async fn a_connection_can_be_given_up_by_the_client() {
    let server = TestServer::start().await;
    let mut http = server.http().await;
    let call = Call { headers: "Connection: close\r\n".to_owned(), ..event("greet") };
    http.send(&call.bytes()).await.ok();
    assert!(within("end", http.try_response()).await.is_none(), "closed after the answer");
    let mut http = server.http().await;
    let old = String::from_utf8(event("greet").bytes()).unwrap().replacen("HTTP/1.1", "HTTP/1.0", 1);
    http.send(old.as_bytes()).await.ok();
    assert!(within("end", http.try_response()).await.is_none(), "closed after the answer");
}

#[tokio::test]
async fn unknown_paths_are_404_and_other_methods_405() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let body = json!({});
    for path in [
        "/apps",
        "/apps/42",
        "/apps/42/",
        "/apps/42/event",
        "/apps/42/events/extra",
        "/apps/42/channels/room/members",
        "/apps/42/users/7",
        "/APPS/42/events",
        "/metrics",
        "/live",
        "/ready",
    ] {
        for call in [Call::get(path), Call::post(path, &body)] {
            let response = api.call(&call).await;
            assert_eq!(response.status, 404, "{} {path}", call.method);
            response.error(404);
        }
    }
    for (method, path) in [
        ("GET", "/apps/42/events"),
        ("PUT", "/apps/42/events"),
        ("DELETE", "/apps/42/batch_events"),
        ("GET", "/apps/42/batch_events"),
        ("POST", "/apps/42/channels"),
        ("POST", "/apps/42/channels/room"),
        ("POST", "/apps/42/channels/presence-room/users"),
        ("GET", "/apps/42/channels/room/events"),
        ("GET", "/apps/42/users/7/terminate_connections"),
        ("GET", "/users/7/terminate_connections"),
    ] {
        let response = api.call(&Call::new(method, path, b"")).await;
        assert_eq!(response.status, 405, "{method} {path}");
        response.error(405);
    }
}

#[tokio::test]
async fn the_api_sends_no_cors_headers() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let call = Call { headers: "Origin: https://example.com\r\n".to_owned(), ..event("greet") };
    let response = api.call(&call).await;
    response.ok();
    assert_eq!(response.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn content_types_and_informational_headers_do_not_matter() {
    let server = TestServer::start().await;
    let mut http = server.http().await;
    let bytes = String::from_utf8(event("greet").bytes()).unwrap();
    for header in [
        "Content-Type: text/plain\r\n",
        "",
        "Content-Type: application/json; charset=utf-8\r\nX-Pusher-Library: x 1\r\n",
    ] {
        let request = bytes.replace("Content-Type: application/json\r\n", header);
        http.send(request.as_bytes()).await.ok();
    }
    let get = Call::get("/apps/42/channels");
    assert!(get.head(0).contains("Content-Type"), "as PHP does on GET");
    http.send(&get.bytes()).await.json();
}

#[tokio::test]
async fn a_body_may_come_in_chunks_or_byte_by_byte() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    let mut http = server.http().await;
    let call = event("chunked");
    let head = call
        .head(call.body.len())
        .replace(&format!("Content-Length: {}", call.body.len()), "Transfer-Encoding: chunked");
    http.wire.write(head.as_bytes()).await;
    for part in call.body.chunks(7) {
        http.wire.write(format!("{:x}\r\n", part.len()).as_bytes()).await;
        http.wire.write(part).await;
        http.wire.write(b"\r\n").await;
    }
    http.send(b"0\r\n\r\n").await.ok();
    client.expect_event("room", "chunked", "{}").await;
    for byte in event("slow").bytes() {
        http.wire.write(&[byte]).await;
    }
    http.response().await.ok();
    client.expect_event("room", "slow", "{}").await;
}

#[tokio::test]
async fn a_client_that_asks_before_sending_its_body_is_told_to_go_on() {
    let server = TestServer::start().await;
    let mut http = server.http().await;
    let call = Call { headers: "Expect: 100-continue\r\n".to_owned(), ..event("greet") };
    http.wire.write(call.head(call.body.len()).as_bytes()).await;
    let head = within("interim answer", http.wire.head()).await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 100"), "{head}");
    http.send(&call.body).await.ok();
}

#[tokio::test]
async fn an_oversize_body_is_answered_before_it_has_been_sent() {
    let server = TestServer::with_app(|app| app.limits.http_body = 1000).await;
    // Announced: nobody has to send it.
    let mut http = server.http().await;
    let call = event("greet");
    http.wire.write(call.head(100_000_000).as_bytes()).await;
    let _ = http.wire.try_write(&[b'x'; 100]).await;
    http.response().await.error(413);
    // Not announced: cut off once it is too much.
    let mut http = server.http().await;
    let head = call
        .head(call.body.len())
        .replace(&format!("Content-Length: {}", call.body.len()), "Transfer-Encoding: chunked");
    http.wire.write(head.as_bytes()).await;
    let chunk = format!("64\r\n{}\r\n", "x".repeat(100));
    for _ in 0..11 {
        let _ = http.wire.try_write(chunk.as_bytes()).await;
    }
    http.response().await.error(413);
    server.api().await.trigger("room", "greet", "{}").await;
}

#[tokio::test]
async fn who_sends_an_oversize_body_to_its_end_reads_the_answer_and_goes_on() {
    let server = TestServer::with_app(|app| app.limits.http_body = 1000).await;
    let mut http = server.http().await;
    for _ in 0..3 {
        let call = Call::new("POST", "/apps/42/events", &vec![b'x'; 8 * 1024 * 1024]);
        http.send(&call.bytes()).await.error(413);
        http.send(&event("greet").bytes()).await.ok();
    }
}

#[tokio::test]
async fn endless_bodies_do_not_keep_others_waiting() {
    let server = TestServer::start().await;
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut http = server.http().await;
        let call = event("greet");
        http.wire.write(call.head(call.body.len()).as_bytes()).await;
        http.wire.write(&call.body[..5]).await;
        held.push((http, call));
    }
    server.api().await.trigger("room", "greet", "{}").await;
    server.connect().await.subscribe("room").await;
    for (mut http, call) in held {
        http.send(&call.body[5..]).await.ok();
    }
}

#[tokio::test]
async fn heads_bodies_and_idle_connections_have_their_time() {
    let server = TestServer::with(|config| config.server.request_timeout = Duration::from_secs(1)).await;
    let started = Instant::now();
    let (mut head, mut body, mut idle, mut silent) =
        (server.http().await, server.http().await, server.http().await, server.http().await);
    let call = event("greet");
    head.wire.write(b"POST /apps/42/events HTTP/1.1\r\nHost: te").await;
    body.wire.write(call.head(call.body.len()).as_bytes()).await;
    body.wire.write(&call.body[..5]).await;
    idle.send(&event("greet").bytes()).await.ok();
    for (what, http) in [("head", &mut head), ("body", &mut body), ("idle", &mut idle), ("silent", &mut silent)] {
        // With or without a word about it, but soon.
        let answer = tokio::time::timeout(DEADLINE, http.try_response()).await;
        let answer = answer.unwrap_or_else(|_| panic!("{what}: still open after {:?}", started.elapsed()));
        if let Some(response) = answer {
            assert_eq!(response.status, 408, "{what}: {}", response.head);
            let end = tokio::time::timeout(DEADLINE, http.try_response()).await;
            assert!(end.unwrap_or_else(|_| panic!("{what}: answered, but still open")).is_none(), "{what}");
        }
    }
    assert!(started.elapsed() >= Duration::from_millis(900), "cut off after {:?}", started.elapsed());
    // A WebSocket connection is not a request.
    server.connect().await.subscribe("room").await;
}

#[tokio::test]
async fn each_request_gives_a_connection_its_time_anew() {
    let server = TestServer::with(|config| config.server.request_timeout = Duration::from_secs(1)).await;
    let mut http = server.http().await;
    for _ in 0..3 {
        http.send(&event("greet").bytes()).await.ok();
        // Only time itself can show it.
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    http.send(&event("greet").bytes()).await.ok();
    let last = Instant::now();
    assert!(within("end of an idle connection", http.try_response()).await.is_none());
    assert!(last.elapsed() >= Duration::from_millis(900), "closed after {:?}", last.elapsed());
}

#[tokio::test]
async fn a_websocket_outlives_the_time_of_a_request() {
    let server = TestServer::with(|config| config.server.request_timeout = Duration::from_secs(1)).await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    let mut idle = server.http().await;
    assert!(within("end of an idle connection", idle.try_response()).await.is_none());
    client.expect_silence().await;
}

#[tokio::test]
async fn cleartext_http_2_is_spoken_on_the_same_port() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = |call: &Call| {
        hyper::Request::builder()
            .method(call.method.as_str())
            .uri(format!("http://test{}", call.target()))
            .body(Full::new(Bytes::from(call.body.clone())))
            .unwrap()
    };
    for n in 0..10 {
        let answer =
            within("answer", sender.clone().send_request(request(&event(&format!("event-{n}"))))).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "{}");
        client.expect_event("room", &format!("event-{n}"), "{}").await;
    }
    // Many at once on one connection.
    let mut together = tokio::task::JoinSet::new();
    for n in 0..50 {
        let call = Call::get(&format!("/apps/42/channels/room-{n}"));
        let (mut sender, request) = (sender.clone(), request(&call));
        together.spawn(async move { within("answer", sender.send_request(request)).await.unwrap().status() });
    }
    assert!(together.join_all().await.iter().all(|status| *status == 200));
    let wrong = Call { secret: "wrong".to_owned(), ..event("greet") };
    let answer = within("answer", sender.clone().send_request(request(&wrong))).await.unwrap();
    assert_eq!(answer.status(), 401);
    drop(sender);
    let _ = within("end of the connection", connection).await;
}

#[tokio::test]
async fn one_connection_can_call_the_api_and_then_upgrade() {
    let server = TestServer::start().await;
    let mut http = server.http().await;
    http.send(&event("greet").bytes()).await.ok();
    let mut client = server.dial().path(&format!("/app/{KEY}")).open_over(http.wire).await;
    client.greeting().await;
    client.subscribe("room").await;
}

#[tokio::test]
async fn the_api_limits_of_one_app_apply_to_its_own_bodies() {
    let server = TestServer::with(|config| {
        config.apps[0].limits.http_body = 100;
        config.apps.push(fanfare::config::AppConfig::new("43", "other-key", "other-secret"));
    })
    .await;
    let body = json!({ "name": "greet", "channel": "room", "data": "x".repeat(200) });
    let mut api = server.api().await;
    let call = Call::post("/apps/43/events", &body).credentials("other-key", "other-secret");
    api.call(&call).await.ok();
    api.post("/events", &body).await.error(413);
}
