//! Protocol §7.2 to §7.4: how a session over HTTP begins, and what its answers say besides.

use serde_json::json;

use crate::support::{Http, KEY, Packet, Response, TestServer, Wire};

fn is_socket_id(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.').is_some_and(|(one, two)| number(one) && number(two))
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
    let greeting = &Packet::messages(lines[1])[..];
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
            let pong = Packet::messages(&client.poll().await.body);
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
