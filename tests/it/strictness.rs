//! What RFC 9112 and RFC 6455 tell a server to refuse: requests that somebody in front of it could have read in another way.
//! And what a browser must not make of our responses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use fanfare::config::WebhookConfig;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Ask, Call, DEADLINE, KEY, Response, TestServer, within};

/// An event to publish, with these headers in place of its own.
fn event(version: &str, headers: &str, body: &str) -> String {
    let call = Call::post("/apps/42/events", &json!({ "name": "greet", "channel": "room", "data": "{}" }));
    format!("POST {} HTTP/{version}\r\n{headers}\r\n{body}", call.target())
}

fn event_body() -> String {
    json!({ "name": "greet", "channel": "room", "data": "{}" }).to_string()
}

/// The answer to a request that is refused as bad, after which the connection must end.
async fn refused(server: &TestServer, request: &str) -> Response {
    let mut http = server.http().await;
    http.wire.write(request.as_bytes()).await;
    let response = http.response().await;
    assert_eq!(response.status, 400, "{request}\n{}\n{}", response.head, response.body);
    let end = tokio::time::timeout(DEADLINE, http.wire.rest()).await;
    let rest = end.unwrap_or_else(|_| panic!("still open after {request}"));
    assert!(rest.is_empty(), "more than one answer to {request}: {}", String::from_utf8_lossy(&rest));
    response
}

#[tokio::test]
async fn a_request_names_one_host() {
    let server = TestServer::start().await;
    let targets = [
        "/",
        "/apps/42/channels",
        "/pusher/info",
        &format!("/app/{KEY}?protocol=7"),
        "/pusher/app/k/1/s/xhr",
        "/x",
        "http://a/",
    ];
    for target in targets {
        for hosts in [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nX: y\r\nhost: b\r\n",
            "Host: a b\r\n",
            "Host: a/b\r\n",
            "Host: a:x\r\n",
        ] {
            let response = refused(&server, &format!("GET {target} HTTP/1.1\r\n{hosts}\r\n")).await;
            assert!(response.body.contains("Host"), "{target} {hosts:?}: {}", response.body);
        }
    }
    let handshake = server.dial().request();
    let host = format!("Host: {}\r\n", server.addr);
    for hosts in ["", "Host: a\r\nHost: a\r\n", "Host: a@b\r\n"] {
        refused(&server, &handshake.replacen(&host, hosts, 1)).await;
    }
    let mut http = server.http().await;
    for host in ["test", "TEST.example:80", "[::1]:6001", "under_score", "127.0.0.1:", ""] {
        let response = http.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await;
        assert_eq!(response.status, 200, "{host}: {}", response.body);
    }
    let response = http.send(b"GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(response.status, 200, "HTTP/1.0 knows no Host: {}", response.body);
}

#[tokio::test]
async fn http_2_names_one_host_too() {
    let server = TestServer::start().await;
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let handshake =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let rows: [(&str, &[&str], u16); 6] = [
        ("http://test/", &[], 200),
        ("http://test/", &["test"], 200),
        ("/", &["test"], 200),
        ("/", &[], 400),
        ("http://test/", &["other"], 400),
        ("/", &["test", "test"], 400),
    ];
    for (uri, hosts, status) in rows {
        let mut request = hyper::Request::get(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        let request = request.body(Full::default()).unwrap();
        let response = within("answer", sender.clone().send_request(request)).await.unwrap();
        assert_eq!(response.status(), status, "{uri} {hosts:?}");
    }
    drop(sender);
    let _ = within("end of the connection", connection).await;
}

#[tokio::test]
async fn a_body_has_one_length_that_everybody_reads_alike() {
    let server = TestServer::start().await;
    let body = event_body();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = format!("Content-Length: {}\r\n", body.len());
    let rows = [
        ("1.1", "Transfer-Encoding: gzip, chunked\r\n".to_owned()),
        ("1.1", "Transfer-Encoding: chunked, chunked\r\n".to_owned()),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_owned()),
        ("1.1", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n".to_owned()),
        ("1.1", "Transfer-Encoding: identity\r\n".to_owned()),
        ("1.1", "Transfer-Encoding: chunked, identity\r\n".to_owned()),
        ("1.1", "Transfer-Encoding: xchunked\r\n".to_owned()),
        ("1.1", "Transfer-Encoding: \"chunked\"\r\n".to_owned()),
        ("1.1", "Transfer-Encoding:\r\n".to_owned()),
        ("1.1", "Transfer-Encoding: chunked;q=1\r\n".to_owned()),
        ("1.0", "Transfer-Encoding: chunked\r\n".to_owned()),
        ("1.1", format!("Transfer-Encoding: chunked\r\n{length}")),
        ("1.1", format!("{length}Transfer-Encoding: chunked\r\n")),
        ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n".to_owned()),
        ("1.1", "Content-Length: 2\r\nContent-Length: 3\r\n".to_owned()),
        ("1.1", "Content-Length: +2\r\n".to_owned()),
        ("1.1", "Content-Length: 2, 2\r\n".to_owned()),
    ];
    for (version, headers) in rows {
        refused(&server, &event(version, &format!("Host: a\r\n{headers}"), &chunked)).await;
    }
    // Chunks alone are fine, however they are spelt.
    for name in ["chunked", "Chunked", "CHUNKED"] {
        let mut http = server.http().await;
        let request = event("1.1", &format!("Host: a\r\nTransfer-Encoding: {name}\r\n"), &chunked);
        http.send(request.as_bytes()).await.ok();
    }
}

#[tokio::test]
async fn two_lengths_that_are_seen_too_late_end_the_connection() {
    let server = TestServer::start().await;
    let lengths = "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n";
    let request = event("1.1", lengths, "0\r\n\r\n");
    let smuggled = format!("{request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    // After a request that is no plain one; and with a head that comes in two pieces.
    for first in ["OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", ""] {
        let mut http = server.http().await;
        if first.is_empty() {
            http.wire.write(&smuggled.as_bytes()[..20]).await;
            server.api().await.trigger("room", "greet", "{}").await;
            http.wire.write(&smuggled.as_bytes()[20..]).await;
        } else {
            http.send(first.as_bytes()).await;
            http.wire.write(smuggled.as_bytes()).await;
        }
        let response = http.response().await;
        assert!([400, 401].contains(&response.status), "{}", response.head);
        assert!(within("end", http.try_response()).await.is_none(), "what came behind was answered");
    }
}

#[tokio::test]
async fn the_key_of_a_handshake_is_sixteen_bytes() {
    let server = TestServer::start().await;
    let handshake = server.dial().request();
    let line = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert!(handshake.contains(line));
    let keys = [
        "",
        "x",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        // Bits behind the last byte.
        "dGhlIHNhbXBsZSBub25jZR==",
        "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        // 15, 17 and 18 bytes, and another alphabet.
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZXM=",
        "dGhlIHNhbXBsZSBub25jZXNz",
        "-_hlIHNhbXBsZSBub25jZQ==",
        "dGhlIHNh bXBsZSBub25jZQ==",
    ];
    // On the short way, and on that of handshakes with something unusual.
    for unusual in ["", "Sec-WebSocket-Protocol: pusher-channels-protocol-7\r\n"] {
        for path in [format!("/app/{KEY}"), "/elsewhere".to_owned(), "/pusher/websocket".to_owned()] {
            let handshake = handshake.replacen(&format!("/app/{KEY}"), &path, 1);
            for key in keys {
                let changed = format!("Sec-WebSocket-Key: {key}\r\n{unusual}");
                refused(&server, &handshake.replacen(line, &changed, 1)).await;
            }
        }
    }
    server.dial().header("Content-Length", "0").connect().await;
}

#[tokio::test]
async fn a_handshake_has_no_body() {
    let server = TestServer::start().await;
    let handshake = server.dial().request();
    for unusual in ["", "Sec-WebSocket-Protocol: pusher-channels-protocol-7\r\n"] {
        for (headers, body) in [
            ("Content-Length: 2\r\n", "{}"),
            ("Content-Length: 5\r\n", ""),
            ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ] {
            refused(&server, &handshake.replacen("\r\n\r\n", &format!("\r\n{unusual}{headers}\r\n{body}"), 1)).await;
        }
    }
}

#[tokio::test]
async fn no_response_is_taken_for_something_else() {
    let server = TestServer::with_app(|app| app.auth.dev = true).await;
    let call = |method: &str, path: &str| String::from_utf8(Call::new(method, path, b"").bytes()).unwrap();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let options = |path: &str| format!("OPTIONS {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let plain = call("GET", "/apps/42/channels");
    let requests = [
        plain.clone(),
        // The same, not on the short way.
        plain.replacen("\r\n\r\n", "\r\nExpect: nothing\r\n\r\n", 1),
        call("POST", "/apps/42/events"),
        call("GET", "/apps/42/nowhere"),
        call("PUT", "/apps/42/events"),
        get("/"),
        get("/nowhere"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        get(&format!("/app/{KEY}")),
        get("/pusher"),
        get("/pusher/info"),
        get("/pusher/iframe.html"),
        get("/pusher/nowhere"),
        get("/pusher/1/nosuchsession/jsonp?c=alert(1)"),
        get("/pusher/1/aaaaaaaa/jsonp?c=a.b"),
        post("/pusher/1/aaaaaaaa/xhr_send"),
        post("/pusher/1/bbbbbbbb/xhr"),
        post(&format!("/pusher/app/{KEY}/1/cccccccc/xhr?protocol=7")),
        post(&format!("/pusher/app/{KEY}/1/dddddddd/xhr_send")),
        options(&format!("/pusher/app/{KEY}/1/cccccccc/xhr")),
        options("/pusher/info"),
        get("/timeline/v2/jsonp/1"),
        get("/timeline/v2/xhr/1"),
        get("/timeline/v2/jsonp/x"),
        get("/pusher/auth"),
        options("/pusher/auth"),
        String::from_utf8(Ask::channel("1.2", "private-a").bytes()).unwrap(),
        String::from_utf8(Ask::channel("1.2", "private-a").jsonp("Pusher.auth_callbacks['1']").bytes()).unwrap(),
    ];
    for request in &requests {
        let response = server.http().await.send(request.as_bytes()).await;
        let told = response.head.to_lowercase().matches("\r\nx-content-type-options: nosniff").count();
        assert_eq!(told, 1, "{request}\n{}", response.head);
    }
    for stream in [
        get("/pusher/1/eeeeeeee/htmlfile?c=a.b"),
        get("/pusher/1/ffffffff/eventsource"),
        post("/pusher/1/gggggggg/xhr_streaming"),
        post(&format!("/pusher/app/{KEY}/1/hhhhhhhh/xhr_streaming?protocol=7")),
    ] {
        let mut http = server.http().await;
        http.wire.write(stream.as_bytes()).await;
        let head = within("head", http.wire.head()).await.expect("an answer").to_lowercase();
        assert_eq!(head.matches("\r\nx-content-type-options: nosniff").count(), 1, "{stream}\n{head}");
    }
}

#[tokio::test]
async fn callbacks_are_plain_names_of_bounded_length() {
    let server = TestServer::start().await;
    let long = "a".repeat(65);
    for callback in
        ["a-b", "a..b", ".a", "1a", "a%0a", "a%5B0%5D", "%3Cscript%3E", "a%28", "a%20b", "%C3%A4", "a;b", &long]
    {
        for transport in ["jsonp", "htmlfile"] {
            let path = format!("/pusher/1/aaaaaaaa/{transport}?c={callback}");
            let response = server.http().await.get(&path).await;
            assert_eq!(response.status, 500, "{path}: {}", response.body);
            assert_eq!(response.body.trim_end(), "invalid \"callback\" parameter", "{path}");
        }
    }
}

/// A server that says that an answer is about to come, and goes on saying so to the first `endless` who ask. Returns how
/// many bytes it could say, and how many of those connections have ended.
async fn announcer(endless: usize) -> (String, Arc<AtomicU64>, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks", listener.local_addr().unwrap());
    let (bytes, ended, answered) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&bytes), Arc::clone(&ended), Arc::clone(&answered));
    tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            connections += 1;
            let (bytes, ended, answered) = counts.clone();
            let is_endless = connections <= endless;
            tokio::spawn(async move {
                let mut request = [0; 16 * 1024];
                let _ = stream.read(&mut request).await;
                let hints = format!("HTTP/1.1 103 Early Hints\r\nlink: <{}>\r\n\r\n", "x".repeat(1000));
                if !is_endless {
                    answered.fetch_add(1, Ordering::SeqCst);
                    let hints = "HTTP/1.1 100 Continue\r\n\r\n".to_owned() + &hints.repeat(3);
                    let _ = stream.write_all((hints + "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
                    let _ = stream.read(&mut request).await;
                    return;
                }
                while stream.write_all(hints.as_bytes()).await.is_ok() {
                    bytes.fetch_add(hints.len() as u64, Ordering::SeqCst);
                }
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    (url, bytes, ended, answered)
}

#[tokio::test]
async fn an_endpoint_that_only_ever_announces_an_answer_is_given_up() {
    let (url, bytes, ended, answered) = announcer(1).await;
    let server = TestServer::with(|config| {
        config.webhooks.data_dir = None;
        config.apps[0].webhooks = vec![WebhookConfig::new(url)];
    })
    .await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    let start = tokio::time::Instant::now();
    while answered.load(Ordering::SeqCst) == 0 || ended.load(Ordering::SeqCst) == 0 {
        assert!(start.elapsed() < 2 * DEADLINE, "{ended:?} ended, {answered:?} answered");
        tokio::task::yield_now().await;
    }
    server.expect_metric("fanfare_webhooks_delivered_total", 1).await;
    // What the kernel keeps of it on both sides, and no more.
    let bytes = bytes.load(Ordering::SeqCst);
    assert!(bytes < 32 * 1024 * 1024, "{bytes} bytes were read");
}
