//! The private listener: health, metrics, and what may be changed there.

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
    for line in
        ["fanfare_connections_refused_total{code=\"4001\"} 3", "fanfare_connections_refused_total{code=\"4005\"} 1"]
    {
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
        let head = format!("POST /webhooks/replay HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{headers}\r\n");
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
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let response = http.send(request.as_bytes()).await;
        assert_eq!((response.status, response.header("allow")), (405, Some(allowed)), "{method} {path}");
    }
}
