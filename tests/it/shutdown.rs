//! Protocol §1.5, "Duties around a close": how the server leaves.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Call, DEADLINE, Http, TestServer, Wire, within};

#[tokio::test]
async fn every_client_is_sent_away_with_4200_and_run_returns() {
    let mut server = TestServer::start().await;
    let mut clients = Vec::new();
    for n in 0..50 {
        let mut client = server.dial().protocol(4 + n % 4).connect().await;
        client.join("presence-room", "7").await;
        clients.push((client, n % 4 <= 1));
    }
    server.stop();
    let mut leaving = tokio::task::JoinSet::new();
    for (mut client, announced) in clients {
        leaving.spawn(async move {
            assert_eq!(client.expect_fatal(4200, announced).await, "Server is shutting down");
            client.expect_end().await;
        });
    }
    leaving.join_all().await;
    server.stopped().await;
    assert!(TcpStream::connect(server.addr).await.is_err(), "the port is still open");
    assert!(TcpStream::connect(server.admin).await.is_err(), "the private port is still open");
}

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    let mut server = TestServer::with(|config| config.server.drain_period = Duration::from_secs(60)).await;
    let mut api = server.api().await;
    api.trigger("room", "greet", "{}").await;
    let asked = Instant::now();
    server.stop();
    server.stopped().await;
    assert!(asked.elapsed() < Duration::from_secs(3), "took {:?}", asked.elapsed());
    assert!(api.http.try_response().await.is_none(), "an idle kept connection is closed");
}

#[tokio::test]
async fn a_request_under_way_is_finished() {
    let mut server = TestServer::with(|config| config.server.drain_period = Duration::from_secs(3)).await;
    let mut http = server.http().await;
    let mut client = server.connect().await;
    let call = Call::post("/apps/42/events", &json!({ "name": "greet", "channel": "room", "data": "{}" }));
    http.wire.write(call.head(call.body.len()).as_bytes()).await;
    http.wire.write(&call.body[..10]).await;
    // On another connection, but later: the first one's head has been read by the time this is answered.
    server.api().await.trigger("room", "greet", "{}").await;
    server.stop();
    client.expect_close(4200).await;
    assert!(!server.is_stopped(), "a request is still under way");
    http.send(&call.body[10..]).await.ok();
    server.stopped().await;
}

#[tokio::test]
async fn new_connections_are_refused_while_the_last_requests_finish() {
    let mut server = TestServer::with(|config| config.server.drain_period = Duration::from_secs(3)).await;
    let mut http = server.http().await;
    let mut client = server.connect().await;
    let call = Call::post("/apps/42/events", &json!({ "name": "greet", "channel": "room", "data": "{}" }));
    http.wire.write(call.head(call.body.len()).as_bytes()).await;
    server.api().await.trigger("room", "greet", "{}").await;
    server.stop();
    client.expect_close(4200).await;
    // Nothing answers there any more, whether the system still takes the connection or not.
    if let Ok(stream) = TcpStream::connect(server.addr).await {
        let mut late = Wire::over(stream);
        let _ = late.try_write(server.dial().request().as_bytes()).await;
        let head = tokio::time::timeout(DEADLINE, late.head()).await.expect("neither an answer nor an end");
        assert!(head.as_ref().is_none_or(|head| !head.starts_with("HTTP/1.1 101")), "{head:?}");
    }
    // A load balancer is told, as long as there is anybody to tell it.
    if let Ok(stream) = TcpStream::connect(server.admin).await
        && let Some(response) = within("answer", Http::new(Wire::over(stream)).try_ready()).await
    {
        assert_eq!(response.status, 503, "{}", response.head);
    }
    http.send(&call.body).await.ok();
    server.stopped().await;
}

#[tokio::test]
async fn clients_that_do_not_answer_do_not_hold_the_server_up() {
    let mut server = TestServer::start().await;
    let mut client = server.connect().await;
    let mut half = server.http().await;
    half.wire.write(b"POST /apps/42/events HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n{").await;
    let asked = Instant::now();
    server.stop();
    client.expect_unanswered_close(4200).await;
    server.stopped_within(2 * DEADLINE).await;
    // The drain period, and at most the five seconds of a closing handshake.
    assert!(asked.elapsed() < Duration::from_secs(7), "took {:?} with a drain period of 1 s", asked.elapsed());
}

#[tokio::test]
async fn clients_are_closed_over_the_drain_period_and_not_all_in_one_instant() {
    let mut server = TestServer::with(|config| config.server.drain_period = Duration::from_secs(2)).await;
    let mut leaving = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let mut client = server.connect().await;
        leaving.spawn(async move {
            client.expect_close(4200).await;
            Instant::now()
        });
    }
    server.stop();
    let times = leaving.join_all().await;
    server.stopped().await;
    let spread = *times.iter().max().unwrap() - *times.iter().min().unwrap();
    assert!(spread > Duration::from_millis(200), "all within {spread:?}");
    assert!(spread < Duration::from_secs(3), "{spread:?} for a drain period of 2 s");
}
