//! The private listener: health, metrics, and what may be changed there.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::{Http, TestServer, Wire};

async fn admin(server: &TestServer) -> Http {
    Http::new(Wire::connect(server.admin).await)
}

/// The sum of all samples of this metric.
async fn metric(http: &mut Http, name: &str) -> f64 {
    let response = http.get("/metrics").await;
    assert_eq!(response.status, 200, "{}", response.head);
    let samples: Vec<f64> = response
        .body
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(!samples.is_empty(), "no {name} in {}", response.body);
    samples.iter().sum()
}

#[tokio::test]
async fn a_running_server_is_live_and_ready() {
    let server = TestServer::start().await;
    let mut http = admin(&server).await;
    for path in ["/live", "/ready"] {
        assert_eq!(http.get(path).await.status, 200, "{path}");
    }
    assert_eq!(http.get("/nowhere").await.status, 404);
}

#[tokio::test]
async fn metrics_are_openmetrics_text_and_follow_the_connections() {
    let server = TestServer::start().await;
    let mut http = admin(&server).await;
    let client = server.connect().await;
    assert!((metric(&mut http, "fanfare_connections").await - 1.0).abs() < f64::EPSILON);
    let response = http.get("/metrics").await;
    // Of the public listener.
    assert!((metric(&mut http, "fanfare_sockets").await - 1.0).abs() < f64::EPSILON, "{}", response.body);
    assert!(metric(&mut http, "fanfare_sockets_limit").await >= metric(&mut http, "fanfare_connections_limit").await);
    let kind = response.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/openmetrics-text") || kind.starts_with("text/plain"), "{kind}");
    assert!(response.body.ends_with("# EOF\n"), "{}", response.body);
    client.disconnect().await;
    assert!(metric(&mut http, "fanfare_connections").await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn refused_clients_are_not_counted_as_connections() {
    let server = TestServer::start().await;
    for _ in 0..3 {
        server.dial().path("/app/nobody").refused(4001).await;
    }
    server.dial().path("/elsewhere").refused(4005).await;
    let _client = server.connect().await;
    assert!((metric(&mut admin(&server).await, "fanfare_connections").await - 1.0).abs() < f64::EPSILON);
    let page = admin(&server).await.get("/metrics").await.body;
    for line in ["{code=\"4001\",reason=\"unknown_app\"} 3", "{code=\"4005\",reason=\"path_not_found\"} 1"] {
        let line = format!("fanfare_connections_refused_total{line}");
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn clients_and_backends_are_not_served_on_the_private_listener() {
    let server = TestServer::start().await;
    let mut http = admin(&server).await;
    for target in ["/apps/42/channels", "/app/app-key-1?protocol=7"] {
        assert_eq!(http.get(target).await.status, 404, "{target}");
    }
}

#[tokio::test]
async fn a_page_in_the_operators_browser_changes_nothing() {
    let server = TestServer::start().await;
    let mut http = admin(&server).await;
    let mut post = async |headers: &str, body: &str| {
        let length = body.len();
        let head =
            format!("POST /webhooks/replay HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n");
        let response = http.send(format!("{head}{body}").as_bytes()).await;
        (response.status, response.body)
    };
    let json = "Content-Type: application/json\r\n";
    assert_eq!(post(json, "{}").await, (200, "{\"replayed\":0}\n".to_owned()));
    let with_origin = format!("Origin: http://localhost:3000\r\n{json}");
    assert_eq!(post(&with_origin, "{}").await, (403, "Not for browsers\n".to_owned()));
    for plain in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        assert_eq!(post(plain, "{}").await.0, 415, "{plain}");
    }
    for broken in ["", "[]", "{\"apps\":\"1\"}", "{\"app\":1}"] {
        assert_eq!(post(json, broken).await.0, 400, "{broken}");
    }
    assert_eq!(post(json, &" ".repeat(65 * 1024)).await.0, 400);
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_one() {
    let server = TestServer::start().await;
    let mut http = admin(&server).await;
    for (method, path, allowed) in [
        ("POST", "/metrics", "GET"),
        ("POST", "/webhooks", "GET"),
        ("DELETE", "/webhooks/1-2", "GET"),
        ("GET", "/webhooks/1-2/replay", "POST"),
        ("PUT", "/webhooks/test", "POST"),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let response = http.send(request.as_bytes()).await;
        assert_eq!((response.status, response.header("allow")), (405, Some(allowed)), "{method} {path}");
    }
}

// --- for whom a request is ---

/// A server that may also be addressed as fanfare.internal.
async fn named() -> TestServer {
    TestServer::with(|config| config.admin.hosts = vec!["fanfare.internal".to_owned()]).await
}

#[tokio::test]
async fn a_page_whose_name_leads_here_reads_nothing() {
    let server = named().await;
    let port = server.admin.port();
    let get = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for host in ["localhost", "LocalHost:1", "a.localhost", "127.0.0.1", "[::1]:9601", "10.0.0.5", "fanfare.internal"] {
        let response = admin(&server).await.send(get("/metrics", host).as_bytes()).await;
        assert_eq!(response.status, 200, "{host}: {}", response.head);
    }
    let rebound = format!("evil.test:{port}");
    for host in [&rebound, "evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "x.fanfare.internal", ""] {
        for target in ["/metrics", "/webhooks", "/nodes", "/live", "/nowhere"] {
            let response = admin(&server).await.send(get(target, host).as_bytes()).await;
            assert_eq!(response.status, 421, "{host} {target}: {}", response.head);
            assert!(response.body.contains("admin.hosts"), "{}", response.body);
        }
    }
    let replay = "POST /webhooks/replay HTTP/1.1\r\nHost: evil.test\r\nContent-Type: application/json\r\n\
                  Content-Length: 2\r\n\r\n{}";
    assert_eq!(admin(&server).await.send(replay.as_bytes()).await.status, 421);
}

#[tokio::test]
async fn a_request_says_once_for_whom_it_is() {
    let server = named().await;
    for (request, status) in [
        ("GET /live HTTP/1.1\r\n\r\n", 400),
        ("GET /live HTTP/1.0\r\n\r\n", 400),
        ("GET /live HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        ("GET /live HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n\r\n", 400),
        ("GET /live HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
        // As to a proxy.
        ("GET http://localhost/live HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET http://evil.test/live HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
        ("GET http://localhost/live HTTP/1.1\r\nHost: evil.test\r\n\r\n", 421),
    ] {
        let response = admin(&server).await.send(request.as_bytes()).await;
        assert_eq!(response.status, status, "{request}: {}", response.head);
    }
}

#[tokio::test]
async fn over_http2_the_authority_is_the_host() {
    let server = named().await;
    let stream = TcpStream::connect(server.admin).await.unwrap();
    let (client, connection) =
        handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let status = async |request: hyper::http::request::Builder| {
        let answer = client.clone().send_request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        answer.status().as_u16()
    };
    let get = |authority: &str| hyper::Request::get(format!("http://{authority}/live"));
    assert_eq!(status(get("fanfare.internal:9601")).await, 200);
    assert_eq!(status(get("[::1]")).await, 200);
    assert_eq!(status(get("evil.test")).await, 421);
    assert_eq!(status(get("localhost").header("host", "evil.test")).await, 421);
}

#[tokio::test]
async fn no_browser_guesses_what_an_answer_is() {
    let server = TestServer::start().await;
    let mut http = admin(&server).await;
    for target in ["/", "/live", "/ready", "/metrics", "/nodes", "/webhooks", "/webhooks/1-2", "/nowhere"] {
        let response = http.get(target).await;
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{target}: {}", response.head);
    }
    let refused = http.send(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n").await;
    assert_eq!(refused.header("x-content-type-options"), Some("nosniff"));
}
