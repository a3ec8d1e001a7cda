//! Protocol §6: every limit at its default and at another value, on both sides of the edge. What §6 leaves to other
//! files: timeouts (`liveness`, `connection`), the cache's lifetime (`cache`), the throttle of counts
//! (`subscription_counts`), the outbox (`slow_consumer`).

use fanfare::config::Limits;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Call, Response, TestServer};

const TOO_LARGE: &str = "The data content of this event exceeds the allowed maximum";

async fn with(change: impl FnOnce(&mut Limits)) -> TestServer {
    TestServer::with_app(|app| {
        app.client_events = true;
        change(&mut app.limits);
    })
    .await
}

async fn publish(server: &TestServer, body: Value) -> Response {
    server.api().await.post("/events", &body).await
}

fn event(channel: &str, name: &str, data: &str) -> Value {
    json!({ "name": name, "channel": channel, "data": data })
}

#[tokio::test]
async fn channel_names_may_have_164_characters_or_as_configured() {
    for (limit, server) in [
        (164, TestServer::start().await),
        (200, with(|limits| limits.channel_name_length = 200).await),
        (20, with(|limits| limits.channel_name_length = 20).await),
    ] {
        let mut client = server.connect().await;
        let (fits, long) = (format!("private-{}", "x".repeat(limit - 8)), format!("private-{}", "x".repeat(limit - 7)));
        client.subscribe_private(&fits).await;
        client.send(client.subscription(&long)).await;
        client.expect_rejection(&long, "ValidationError", 400).await;
        publish(&server, event(&fits, "greet", "{}")).await.ok();
        client.expect_event(&fits, "greet", "{}").await;
        let response = publish(&server, event(&long, "greet", "{}")).await;
        let text = response.error(400);
        assert!(text.starts_with("Invalid channel name: private-xxx"), "{text}");
    }
}

#[tokio::test]
async fn event_names_may_have_200_characters_or_as_configured() {
    for (limit, server) in [(200, with(|_| {}).await), (20, with(|limits| limits.event_name_length = 20).await)] {
        let (mut sender, mut receiver) = (server.connect().await, server.connect().await);
        sender.subscribe_private("private-room").await;
        receiver.subscribe_private("private-room").await;
        let (fits, long) = (format!("client-{}", "x".repeat(limit - 7)), format!("client-{}", "x".repeat(limit - 6)));
        sender.send_event("private-room", &fits, json!({})).await;
        receiver.expect_event("private-room", &fits, "{}").await;
        sender.send_event("private-room", &long, json!({})).await;
        sender.expect_some_error().await;
        receiver.expect_silence().await;
        publish(&server, event("private-room", &fits, "{}")).await.ok();
        receiver.expect_event("private-room", &fits, "{}").await;
        publish(&server, event("private-room", &long, "{}")).await.error(400);
        // Characters, not bytes.
        publish(&server, event("private-room", &"é".repeat(limit), "{}")).await.ok();
        receiver.expect_event("private-room", &"é".repeat(limit), "{}").await;
        receiver.expect_silence().await;
    }
}

#[tokio::test]
async fn event_data_may_have_10240_bytes_or_as_configured() {
    for (limit, server) in [(10_240, with(|_| {}).await), (100, with(|limits| limits.event_data = 100).await)] {
        let mut receiver = server.connect().await;
        receiver.subscribe_private("private-room").await;
        // Measured after JSON decoding: escapes are free.
        for data in ["x".repeat(limit), "\u{1}".repeat(limit), "é".repeat(limit / 2)] {
            publish(&server, event("private-room", "greet", &data)).await.ok();
            receiver.expect_event("private-room", "greet", &data).await;
        }
        for data in ["x".repeat(limit + 1), "é".repeat(limit / 2 + 1)] {
            let response = publish(&server, event("private-room", "greet", &data)).await;
            let text = response.error(413);
            assert!(text.starts_with(TOO_LARGE) && text.contains(&format!("({limit} bytes)")), "{text}");
        }
        let mut sender = server.connect().await;
        sender.subscribe_private("private-room").await;
        sender.send_event("private-room", "client-a", json!("x".repeat(limit))).await;
        receiver.expect_event("private-room", "client-a", &"x".repeat(limit)).await;
        // A value is measured as it is forwarded: with its quotes and brackets.
        sender.send_event("private-room", "client-a", json!(["x".repeat(limit - 4)])).await;
        receiver.expect_event("private-room", "client-a", &json!(["x".repeat(limit - 4)]).to_string()).await;
        for data in [json!("x".repeat(limit + 1)), json!(["x".repeat(limit - 3)])] {
            sender.send_event("private-room", "client-a", data).await;
            let text = sender.expect_some_error().await;
            assert!(text.starts_with(TOO_LARGE) && text.contains(&format!("({limit} bytes)")), "{text}");
        }
        receiver.expect_silence().await;
    }
}

#[tokio::test]
async fn the_texts_about_large_data_are_those_that_clients_know() {
    let server = with(|_| {}).await;
    let text = "The data content of this event exceeds the allowed maximum (10240 bytes). \
                See https://pusher.com/docs/channels/server_api/http-api#publishing-events for more info";
    let response = publish(&server, event("room", "greet", &"x".repeat(10_241))).await;
    // What follows is our own: the name of the setting.
    assert!(response.error(413).starts_with(text), "{}", response.body);
    let mut client = server.connect().await;
    client.subscribe_private("private-room").await;
    client.send_event("private-room", "client-a", json!("x".repeat(10_241))).await;
    let shown = client.expect_some_error().await;
    assert!(shown.starts_with(text), "{shown}");
}

#[tokio::test]
async fn an_event_may_go_to_100_channels_or_as_configured() {
    for (limit, server) in [(100, with(|_| {}).await), (3, with(|limits| limits.channels_per_event = 3).await)] {
        let mut client = server.connect().await;
        client.subscribe(&format!("room-{}", limit - 1)).await;
        let names: Vec<_> = (0..=limit).map(|n| format!("room-{n}")).collect();
        let body = |names: &[String]| json!({ "name": "greet", "channels": names, "data": "{}" });
        let response = publish(&server, body(&names)).await;
        let text = response.error(400);
        assert!(text.starts_with(&format!("Cannot publish to more than {limit} channels")), "{text}");
        client.expect_silence().await;
        publish(&server, body(&names[..limit])).await.ok();
        client.expect_event(&format!("room-{}", limit - 1), "greet", "{}").await;
    }
}

#[tokio::test]
async fn a_batch_may_have_10_events_or_as_configured() {
    for (limit, server) in [(10, with(|_| {}).await), (2, with(|limits| limits.events_per_batch = 2).await)] {
        let mut client = server.connect().await;
        client.subscribe("room").await;
        let events: Vec<_> = (0..=limit).map(|n: usize| event("room", "tick", &n.to_string())).collect();
        let mut api = server.api().await;
        api.post("/batch_events", &json!({ "batch": events })).await.error(400);
        client.expect_silence().await;
        api.post("/batch_events", &json!({ "batch": events[..limit] })).await.ok();
        for n in 0..limit {
            client.expect_event("room", "tick", &n.to_string()).await;
        }
    }
}

#[tokio::test]
async fn a_request_body_may_have_a_mebibyte_or_as_configured() {
    for (limit, server) in [(1024 * 1024, with(|_| {}).await), (1000, with(|limits| limits.http_body = 1000).await)] {
        let mut body = event("room", "greet", "{}");
        let rest = limit - body.to_string().len() - r#","padding":"""#.len();
        body["padding"] = json!("x".repeat(rest));
        assert_eq!(body.to_string().len(), limit);
        publish(&server, body.clone()).await.ok();
        body["padding"] = json!("x".repeat(rest + 1));
        publish(&server, body).await.error(413);
    }
}

#[tokio::test]
async fn user_ids_may_have_128_characters_or_as_configured() {
    for (limit, server) in [(128, with(|_| {}).await), (5, with(|limits| limits.user_id_length = 5).await)] {
        let (fits, long) = ("é".repeat(limit), "é".repeat(limit + 1));
        let mut client = server.connect().await;
        client.send(client.membership("presence-room", &json!({ "user_id": long }).to_string())).await;
        client.expect_rejection("presence-room", "ValidationError", 400).await;
        client.join("presence-room", &fits).await;
        client.send(client.sign_in_request(&json!({ "id": long }).to_string())).await;
        client.expect_some_error().await;
        client.sign_in(&fits).await;
    }
}

#[tokio::test]
async fn user_info_may_have_a_kilobyte_or_as_configured() {
    for (limit, server) in [(1024, with(|_| {}).await), (20, with(|limits| limits.user_info = 20).await)] {
        let mut client = server.connect().await;
        let data = |length: usize| json!({ "user_id": "7", "user_info": "x".repeat(length - 2) }).to_string();
        client.send(client.membership("presence-room", &data(limit + 1))).await;
        client.expect_rejection("presence-room", "ValidationError", 400).await;
        client.join_as("presence-room", &data(limit)).await;
    }
}

#[tokio::test]
async fn user_data_may_have_32_kibibytes_or_as_configured() {
    for (limit, server) in [(32 * 1024, with(|_| {}).await), (100, with(|limits| limits.user_data = 100).await)] {
        let mut client = server.connect().await;
        let data = |length: usize| {
            let empty = json!({ "id": "7", "other": "" }).to_string().len();
            json!({ "id": "7", "other": "x".repeat(length - empty) }).to_string()
        };
        client.send(client.sign_in_request(&data(limit + 1))).await;
        client.expect_some_error().await;
        assert_eq!(data(limit).len(), limit);
        client.sign_in_as(&data(limit)).await;
    }
}

#[tokio::test]
async fn the_length_of_a_watchlist_is_configurable() {
    let server = with(|limits| limits.watchlist_length = 2).await;
    let mut client = server.connect().await;
    client.sign_in_as(r#"{"id":"7","watchlist":["a","b","c"]}"#).await;
    let mut seen = [client.next().await, client.next().await];
    seen.sort_by_key(|message| message.event() != "pusher:error");
    assert_eq!(seen[0].json["data"]["code"], 4302);
    assert_eq!(seen[0].error(), "Watchlist limit exceeded. Only the first 2 user IDs are accepted.");
    let data = json!({ "events": [{ "name": "offline", "user_ids": ["a", "b"] }] });
    assert_eq!(seen[1].data(), data);
}

#[tokio::test]
async fn the_rate_of_client_events_is_configurable() {
    let server = with(|limits| limits.client_events_per_second = 3).await;
    let (mut sender, mut receiver) = (server.connect().await, server.connect().await);
    sender.subscribe_private("private-room").await;
    receiver.subscribe_private("private-room").await;
    let burst: Vec<_> =
        (0..5).map(|n: u32| json!({ "event": "client-a", "channel": "private-room", "data": n.to_string() })).collect();
    sender.send_all(&burst).await;
    for n in 0..3 {
        receiver.expect_event("private-room", "client-a", &n.to_string()).await;
    }
    for _ in 3..5 {
        assert_eq!(sender.expect("pusher:error").await.json["data"]["code"], 4301);
    }
    receiver.expect_silence().await;
}

/// A message of exactly this many bytes that is answered with a pong.
fn ping_of(length: usize) -> String {
    let empty = r#"{"event":"pusher:ping","padding":""}"#.len();
    format!(r#"{{"event":"pusher:ping","padding":"{}"}}"#, "x".repeat(length - empty))
}

#[tokio::test]
async fn a_message_may_have_64_kibibytes_or_as_configured_and_a_longer_one_is_an_error() {
    for (limit, server) in [(64 * 1024, with(|_| {}).await), (1000, with(|limits| limits.message = 1000).await)] {
        let mut client = server.connect().await;
        client.send_text(&ping_of(limit)).await;
        client.expect("pusher:pong").await;
        client.send_text(&ping_of(limit + 1)).await;
        client.expect_some_error().await;
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn a_connection_may_have_1000_channels_or_as_configured() {
    for (limit, server) in [(1000, with(|_| {}).await), (2, with(|limits| limits.channels_per_connection = 2).await)] {
        let mut client = server.connect().await;
        client.subscribe_private("private-0").await;
        for number in 1..limit {
            client.subscribe(&format!("room-{number}")).await;
        }
        client.send(client.subscription("one-more")).await;
        let text = client.expect_rejection("one-more", "LimitReached", 403).await;
        assert!(text.contains(&limit.to_string()), "{text}");
        server.expect_metric("fanfare_subscriptions_refused_total", 1).await;
        client.leave("private-0").await;
        client.subscribe("one-more").await;
    }
}

#[tokio::test]
async fn api_requests_above_the_rate_are_answered_with_429() {
    let server = with(|limits| limits.api_requests_per_second = 5).await;
    let mut api = server.api().await;
    let mut limited: Option<Response> = None;
    for _ in 0..100 {
        let response = api.post("/events", &event("room", "greet", "{}")).await;
        if response.status == 429 {
            limited = Some(response);
            break;
        }
        response.ok();
    }
    let limited = limited.expect("a hundred requests at once are more than five a second");
    limited.error(429);
    let after: u64 = limited.header("retry-after").expect("Retry-After").parse().expect("whole seconds");
    assert!((1..=2).contains(&after), "{after}");
    // The limit is the app's, on whichever connection.
    assert_eq!(server.api().await.get("/channels", &[]).await.status, 429);
    // Nothing else suffers.
    server.connect().await.subscribe("room").await;
}

#[tokio::test]
async fn messages_above_the_daily_quota_are_answered_with_403() {
    let server = with(|limits| limits.messages_per_day = 5).await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    let mut api = server.api().await;
    // An event counts once per channel.
    api.post("/events", &json!({ "name": "greet", "channels": ["room", "b", "c"], "data": "{}" })).await.ok();
    api.trigger("room", "greet", "{}").await;
    api.trigger("room", "greet", "{}").await;
    for _ in 0..3 {
        client.expect_event("room", "greet", "{}").await;
    }
    api.post("/events", &event("room", "greet", "{}")).await.error(403);
    api.post("/batch_events", &json!({ "batch": [event("room", "greet", "{}")] })).await.error(403);
    client.expect_silence().await;
    // Questions are still answered.
    api.get("/channels", &[]).await.json();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn quotas_are_off_by_default() {
    let server = TestServer::start().await;
    let call = Call::post("/apps/42/events", &event("room", "greet", "{}")).bytes();
    // Several at once: each request brings its own idea of the present moment.
    let mut backends = JoinSet::new();
    for _ in 0..8 {
        let (mut http, call) = (server.http().await, call.clone());
        backends.spawn(async move {
            for _ in 0..500 {
                http.send(&call).await.ok();
            }
        });
    }
    backends.join_all().await;
}
