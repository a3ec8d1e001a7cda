//! The private listener: health and metrics.

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
