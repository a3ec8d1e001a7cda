//! Which endpoint gets what, in which requests (protocol §5.1 and §5.3).

use std::collections::HashSet;
use std::time::Duration;

use fanfare::config::{AppConfig, Secret, WebhookConfig, WebhookEvent};
use serde_json::{Value, json};

use crate::support::{Backend, Reply, TestServer, sign};

const ROOM: &str = "presence-room";

fn occupied(channel: &str) -> Value {
    json!({ "name": "channel_occupied", "channel": channel })
}

#[tokio::test]
async fn a_request_says_who_sends_it_and_carries_the_configured_headers() {
    let mut backend = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, |config| {
        let headers = &mut config.apps[0].webhooks[0].headers;
        headers.insert("X-Tenant".to_owned(), Secret::new("a, b"));
        headers.insert("authorization".to_owned(), Secret::new("Bearer t"));
    })
    .await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    let webhook = backend.expect(occupied("room")).await;
    assert_eq!(webhook.header("X-Tenant"), Some("a, b"));
    assert_eq!(webhook.header("Authorization"), Some("Bearer t"));
    let version = format!("Fanfare/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(webhook.header("User-Agent"), Some(version.as_str()));
    assert_eq!(webhook.header("Host"), Some(backend.addr.to_string().as_str()));
}

#[tokio::test]
async fn the_user_agent_can_be_another() {
    let mut backend = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, |config| {
        config.apps[0].webhooks[0].headers.insert("User-Agent".to_owned(), Secret::new("mine"));
    })
    .await;
    server.connect().await.subscribe("room").await;
    assert_eq!(backend.expect(occupied("room")).await.header("User-Agent"), Some("mine"));
}

#[tokio::test]
async fn the_oldest_key_signs() {
    let mut backend = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, |config| {
        let newer = AppConfig::new("0", "newer-key", "newer-secret").keys.remove(0);
        config.apps[0].keys.push(newer);
    })
    .await;
    server.dial().path("/app/newer-key").connect().await.subscribe("room").await;
    backend.expect(occupied("room")).await;
}

#[tokio::test]
async fn an_endpoint_hears_of_the_events_it_asks_for() {
    let mut backend = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, |config| {
        config.apps[0].webhooks[0].events = vec![WebhookEvent::MemberAdded, WebhookEvent::ChannelVacated];
    })
    .await;
    for _ in 0..2 {
        let client = server.join(ROOM, "7").await;
        backend.expect(json!({ "name": "member_added", "channel": ROOM, "user_id": "7" })).await;
        client.disconnect().await;
        backend.expect(json!({ "name": "channel_vacated", "channel": ROOM })).await;
    }
}

#[tokio::test]
async fn an_endpoint_hears_of_the_channels_it_asks_for() {
    let mut backend = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, |config| {
        let webhook = &mut config.apps[0].webhooks[0];
        webhook.channels = vec!["presence-*".to_owned(), "exactly".to_owned(), "*-end".to_owned()];
        // What is about no channel is not filtered by channels.
        webhook.events.push(WebhookEvent::ConnectionOpened);
    })
    .await;
    let mut client = server.connect().await;
    backend.expect(json!({ "name": "connection_opened", "socket_id": client.socket_id })).await;
    for channel in ["room", "exactly-not", "private-presence-x", "exactly", "Exactly", "the-end", "the-end-"] {
        client.subscribe_private(channel).await;
    }
    backend.expect_all([occupied("exactly"), occupied("the-end")]).await;
    client.join(ROOM, "7").await;
    backend.expect_all([occupied(ROOM), json!({ "name": "member_added", "channel": ROOM, "user_id": "7" })]).await;
    client.subscribe("once-more-the-end").await;
    backend.expect(occupied("once-more-the-end")).await;
}

#[tokio::test]
async fn endpoints_of_one_app_each_get_what_they_ask_for() {
    let (mut rooms, mut members) = (Backend::start().await, Backend::start().await);
    let server = TestServer::with_webhooks(&rooms, |config| {
        let mut webhook = WebhookConfig::new(members.url());
        webhook.events = vec![WebhookEvent::ChannelOccupied, WebhookEvent::MemberAdded];
        webhook.channels = vec!["presence-*".to_owned()];
        config.apps[0].webhooks.push(webhook);
    })
    .await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    client.join(ROOM, "7").await;
    let added = json!({ "name": "member_added", "channel": ROOM, "user_id": "7" });
    let at_members = members.expect(occupied(ROOM)).await;
    members.expect(added.clone()).await;
    rooms.expect(occupied("room")).await;
    let at_rooms = rooms.expect(occupied(ROOM)).await;
    rooms.expect(added).await;
    assert_ne!(at_rooms.id(), at_members.id(), "two deliveries");
}

#[tokio::test]
async fn apps_do_not_hear_of_each_other() {
    let (mut one, mut two) = (Backend::start().await, Backend::start().await);
    two.credentials = ("other-key".to_owned(), "other-secret".to_owned());
    let server = TestServer::with_webhooks(&one, |config| {
        let mut other = AppConfig::new("7", "other-key", "other-secret");
        other.webhooks = vec![WebhookConfig::new(two.url())];
        other.webhook_delay = Duration::ZERO;
        config.apps.push(other);
        // An app without an endpoint is no reason to fall silent.
        config.apps.push(AppConfig::new("8", "silent-key", "silent-secret"));
    })
    .await;
    let mut silent = server.dial().path("/app/silent-key").connect().await;
    silent.subscribe("room").await;
    let mut theirs = server.dial().path("/app/other-key").connect().await;
    theirs.subscribe("room").await;
    two.expect(occupied("room")).await;
    let mut ours = server.connect().await;
    ours.subscribe("room").await;
    one.expect(occupied("room")).await;
    theirs.disconnect().await;
    two.expect(json!({ "name": "channel_vacated", "channel": "room" })).await;
    ours.subscribe("marker").await;
    one.expect(occupied("marker")).await;
    two.expect_no_more();
    // Users of the same name are not the same.
    let data = r#"{"user_id":"7"}"#;
    let mut member = server.dial().path("/app/other-key").connect().await;
    let text = format!("{}:{ROOM}:{data}", member.socket_id);
    let auth = format!("other-key:{}", sign::hmac("other-secret", &text));
    let request = json!({ "auth": auth, "channel": ROOM, "channel_data": data });
    member.send(json!({ "event": "pusher:subscribe", "data": request })).await;
    two.expect_all([occupied(ROOM), json!({ "name": "member_added", "channel": ROOM, "user_id": "7" })]).await;
    ours.join(ROOM, "7").await;
    one.expect_all([occupied(ROOM), json!({ "name": "member_added", "channel": ROOM, "user_id": "7" })]).await;
}

#[tokio::test]
async fn each_event_has_a_request_of_its_own_and_they_come_in_order() {
    let mut backend = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, |_| {}).await;
    let mut client = server.connect().await;
    let channels: Vec<_> = (0..50).map(|n| format!("room-{n}")).collect();
    for channel in &channels {
        client.subscribe(channel).await;
    }
    let (mut ids, mut last) = (HashSet::new(), 0);
    for channel in &channels {
        let webhook = backend.expect(occupied(channel)).await;
        assert!(webhook.time_ms() >= last, "{} after {last}", webhook.time_ms());
        last = webhook.time_ms();
        assert!(ids.insert(webhook.id().to_owned()), "{} twice", webhook.id());
    }
}

#[tokio::test]
async fn a_full_batch_does_not_wait() {
    let mut backend = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, |config| {
        config.apps[0].webhooks[0].batch_size = 3;
        config.apps[0].webhooks[0].batch_wait = Duration::from_secs(60);
    })
    .await;
    let mut client = server.connect().await;
    for batch in [["a", "b", "c"], ["d", "e", "f"]] {
        for channel in batch {
            client.subscribe(channel).await;
        }
        backend.expect_batch(&batch.map(occupied)).await;
    }
}

#[tokio::test]
async fn a_batch_that_does_not_fill_goes_after_its_wait() {
    const WAIT: Duration = Duration::from_millis(400);
    let mut backend = Backend::start().await;
    let server = TestServer::with_webhooks(&backend, |config| {
        config.apps[0].webhooks[0].batch_size = 100;
        config.apps[0].webhooks[0].batch_wait = WAIT;
    })
    .await;
    let mut client = server.connect().await;
    let start = std::time::Instant::now();
    client.join(ROOM, "7").await;
    client.subscribe_private("private-a").await;
    let added = json!({ "name": "member_added", "channel": ROOM, "user_id": "7" });
    backend.expect_batch(&[occupied(ROOM), added, occupied("private-a")]).await;
    assert!(start.elapsed() >= WAIT, "after {:?}", start.elapsed());
    client.subscribe("b").await;
    backend.expect(occupied("b")).await;
}

#[tokio::test]
async fn a_batch_keeps_its_id_its_time_and_its_body_however_often_it_is_sent() {
    let mut backend = Backend::start().await;
    let mut failures = 2;
    backend.answer_by(move |_| {
        failures -= 1;
        Reply::Status(if failures >= 0 { 500 } else { 200 })
    });
    let server = TestServer::with_webhooks(&backend, |config| {
        config.apps[0].webhooks[0].batch_size = 2;
        config.apps[0].webhooks[0].batch_wait = Duration::from_millis(50);
    })
    .await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    client.subscribe("b").await;
    let first = backend.expect_batch(&[occupied("a"), occupied("b")]).await;
    for _ in 0..2 {
        let again = backend.next().await;
        assert_eq!((again.id(), &again.body), (first.id(), &first.body));
    }
    client.subscribe("marker").await;
    assert_ne!(backend.expect(occupied("marker")).await.id(), first.id());
}
