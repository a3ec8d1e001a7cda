//! The authorizer that asks the app's backend.

use std::time::{Duration, Instant};

use fanfare::config::ForwardConfig;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Answer, Ask, Response, TestServer, Web, within};

/// A server whose backend is this one.
async fn server_with(web: &Web, change: impl FnOnce(&mut ForwardConfig)) -> TestServer {
    let mut forward = ForwardConfig::new(format!("{}/channels", web.url));
    forward.user_url = format!("{}/users", web.url);
    change(&mut forward);
    TestServer::with_app(|app| app.auth.forward = Some(forward)).await
}

/// A backend that always says this.
async fn backend(status: u16, body: Value) -> Web {
    let body = body.to_string();
    Web::start(move |_| Answer(status, body.clone())).await
}

/// What a backend answers that signs nothing.
fn allow(mut data: Value) -> Value {
    data["fanfare"] = "allow".into();
    data
}

fn ask() -> Ask {
    Ask::channel("1.2", "private-a")
}

#[tokio::test]
async fn the_backend_hears_what_the_client_sent_and_decides() {
    let web = Web::start(|seen| match seen.field("channel_name") {
        Some("private-a") => Answer(200, allow(json!({})).to_string()),
        Some("presence-a") => Answer(200, allow(json!({ "user_id": 7, "user_info": { "name": "Ann" } })).to_string()),
        Some("presence-b") => Answer(
            200,
            json!({ "auth": format!("x:{}", "0".repeat(64)), "channel_data": "{ \"user_id\":\"8\" }" }).to_string(),
        ),
        None => Answer(200, allow(json!({ "id": "7", "watchlist": ["8"] })).to_string()),
        Some("private-signed") => Answer(200, json!({ "auth": format!("x:{}", "0".repeat(64)) }).to_string()),
        _ => Answer(403, "no".to_owned()),
    })
    .await;
    let server = server_with(&web, |forward| {
        forward.headers.push("X-Tenant".to_owned());
        forward.params = vec!["lang".to_owned(), "a-b".to_owned()];
    })
    .await;
    let mut client = server.connect().await;
    let id = client.socket_id.clone();
    let channel = |name| {
        let ask = Ask::channel(&id, name)
            .field("a-b", "c&d")
            .field("a-b", "é")
            .query(&format!("lang=en&app_key={}", crate::support::KEY));
        let ask = ask.field("user_id", "admin").field("Lang", "x").field("lang[]", "x").field("a b", "x");
        let ask = ask.header("Cookie", "session=s1").token("t1").header("X-CSRF-Token", "c1");
        ask.header("X-Tenant", "acme").header("X-Other", "not this")
    };
    let answer = channel("private-a").allowed(&server).await;
    client.subscribe_authorized("private-a", &answer).await;
    // What Pusher's libraries sign is signed again.
    Ask::channel(&id, "private-signed").allowed(&server).await;
    let seen = &web.seen()[0];
    assert_eq!(seen.path, "/channels");
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [
        field("socket_id", &id),
        field("channel_name", "private-a"),
        field("lang", "en"),
        field("a-b", "c&d"),
        field("a-b", "é"),
    ];
    assert_eq!(seen.fields, expected);
    for (name, value) in [
        ("content-type", Some("application/x-www-form-urlencoded")),
        ("accept", Some("application/json")),
        ("cookie", Some("session=s1")),
        ("authorization", Some("Bearer t1")),
        ("x-csrf-token", Some("c1")),
        ("x-tenant", Some("acme")),
        ("x-other", None),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }

    let answer = channel("presence-a").allowed(&server).await;
    assert_eq!(answer["channel_data"], r#"{"user_id":"7","user_info":{"name":"Ann"}}"#);
    client.subscribe_authorized("presence-a", &answer).await;
    // What a library has made is signed as it is, with our key and not with whatever was in it.
    let answer = channel("presence-b").allowed(&server).await;
    assert_eq!(answer["channel_data"], "{ \"user_id\":\"8\" }");
    client.subscribe_authorized("presence-b", &answer).await;
    channel("private-b").forbidden(&server).await;

    let answer = Ask::user(&id).allowed(&server).await;
    assert_eq!(answer["user_data"], r#"{"id":"7","watchlist":["8"]}"#);
    client.sign_in_authorized(&answer).await;
    assert_eq!(web.seen().last().unwrap().path, "/users");
}

#[tokio::test]
async fn a_backend_says_no_with_401_or_403() {
    let web = backend(401, json!({})).await;
    let server = server_with(&web, |_| {}).await;
    ask().forbidden(&server).await;
    web.answer(|_| Answer(403, "reason".to_owned()));
    ask().forbidden(&server).await;
    Ask::user("1.2").forbidden(&server).await;
}

#[tokio::test]
async fn a_backend_that_signs_nothing_says_no_as_it_says_yes() {
    let web = backend(200, json!({ "fanfare": "deny" })).await;
    let server = server_with(&web, |forward| forward.cache = Duration::from_secs(3600)).await;
    ask().forbidden(&server).await;
    Ask::user("1.2").forbidden(&server).await;
    // It is a decision, and remembered like every other one.
    ask().forbidden(&server).await;
    assert_eq!(web.seen().len(), 2);
    assert!(server.metrics().await.contains("fanfare_auth_requests_total{app=\"42\",outcome=\"denied\"} 3\n"));
    // Not with another status: that is somebody else's answer.
    web.answer(|_| Answer(500, json!({ "fanfare": "deny" }).to_string()));
    Ask::channel("1.2", "private-b").send(&server).await.error(503);
}

#[tokio::test]
async fn a_backend_that_does_not_decide_lets_nobody_in() {
    let web = backend(200, allow(json!({}))).await;
    let server = server_with(&web, |_| {}).await;
    ask().allowed(&server).await;
    let answers = [
        (500, "{}"),
        (302, "{}"),
        (404, "{}"),
        (201, "{}"),
        (204, ""),
        (419, "{}"),
        // A page, or the answer of a router that knows no such path, is no permission.
        (200, "<!doctype html>"),
        (200, "true"),
        (200, "[]"),
        (200, "{"),
        (200, ""),
        (200, "{}"),
        (200, r#"{"error":"Forbidden"}"#),
        (200, r#"{"user_id":"7"}"#),
        (200, r#"{"channel_data":{"user_id":"7"}}"#),
        (200, r#"{"auth":""}"#),
        (200, r#"{"auth":"https://example.com/login"}"#),
    ];
    for (status, body) in answers {
        web.answer(move |_| Answer(status, body.to_owned()));
        let refused = ask().send(&server).await;
        assert_eq!(refused.error(503), "Unavailable", "{status} {body}");
    }
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(70_000));
    web.answer(move |_| Answer(200, long.clone()));
    ask().send(&server).await.error(503);
    web.stop();
    ask().send(&server).await.error(503);
}

#[tokio::test]
async fn what_laravel_answers_without_signing_counts_only_for_apps_that_say_so() {
    let web = backend(200, json!(true)).await;
    let closed = server_with(&web, |_| {}).await;
    let open = server_with(&web, |forward| forward.accept_true = true).await;
    let presence = Ask::channel("1.2", "presence-a");
    ask().send(&closed).await.error(503);
    ask().allowed(&open).await;
    // It names no user.
    presence.send(&open).await.error(503);
    Ask::user("1.2").send(&open).await.error(503);
    web.answer(|_| {
        Answer(200, json!({ "channel_data": { "user_id": 7, "user_info": { "name": "Ann" } } }).to_string())
    });
    presence.send(&closed).await.error(503);
    let answer = presence.allowed(&open).await;
    assert_eq!(answer["channel_data"], r#"{"user_id":7,"user_info":{"name":"Ann"}}"#);
    for body in ["", "{}", "false", "1", r#"{"error":"Forbidden"}"#] {
        web.answer(move |_| Answer(200, body.to_owned()));
        ask().send(&open).await.error(503);
    }
}

#[tokio::test]
async fn a_backend_has_its_time() {
    let web = backend(200, allow(json!({}))).await;
    let server = server_with(&web, |forward| forward.timeout = Duration::from_millis(100)).await;
    web.hold(true);
    ask().send(&server).await.error(503);
    web.hold(false);
    ask().allowed(&server).await;
}

#[tokio::test]
async fn on_a_presence_channel_and_at_a_sign_in_the_backend_must_name_a_user() {
    let web = backend(200, allow(json!({}))).await;
    let server = server_with(&web, |_| {}).await;
    let presence = Ask::channel("1.2", "presence-a");
    let user = Ask::user("1.2");
    let long = "x".repeat(129);
    for data in [
        json!({}),
        json!({ "user_id": "" }),
        json!({ "user_id": null }),
        json!({ "user_id": ["7"] }),
        json!({ "user_id": long }),
        json!({ "user_id": "7", "user_info": "x".repeat(1024) }),
        json!({ "channel_data": "not JSON", "user_data": "not JSON" }),
        json!({ "channel_data": "{}", "user_data": "{}" }),
        json!({ "channel_data": 5, "user_data": 5 }),
        json!({ "channel_data": { "user_id": true }, "user_data": { "id": 7 } }),
    ] {
        let body = allow(data.clone()).to_string();
        web.answer(move |_| Answer(200, body.clone()));
        presence.send(&server).await.error(503);
        if data["user_id"] != "7" {
            user.send(&server).await.error(503);
        }
    }
    let body = allow(json!({ "channel_data": { "user_id": "7" }, "user_data": { "id": "7" } })).to_string();
    web.answer(move |_| Answer(200, body.clone()));
    assert_eq!(presence.allowed(&server).await["channel_data"], r#"{"user_id":"7"}"#);
    assert_eq!(user.allowed(&server).await["user_data"], r#"{"id":"7"}"#);
}

#[tokio::test]
async fn without_an_address_for_it_nobody_signs_in() {
    let web = backend(200, allow(json!({ "id": "7" }))).await;
    let server = server_with(&web, |forward| forward.user_url.clear()).await;
    Ask::user("1.2").forbidden(&server).await;
    assert_eq!(web.seen().len(), 0);
}

#[tokio::test]
async fn a_batch_is_a_question_for_each_channel() {
    let web = Web::start(|seen| match seen.field("channel_name") {
        Some("private-a") => Answer(200, allow(json!({})).to_string()),
        Some("private-b") => Answer(403, String::new()),
        _ => Answer(500, String::new()),
    })
    .await;
    let server = server_with(&web, |_| {}).await;
    let names = ["private-a", "private-b", "private-c", "room"];
    let answer = Ask::new("/pusher/auth").json(&json!({ "socket_id": "1.2", "channel_name": names }));
    let answer = answer.allowed(&server).await;
    assert_eq!(names.map(|name| answer[name]["status"].as_u64().unwrap()), [200, 403, 503, 403]);
    assert_eq!(web.seen().len(), 3);
}

// --- turns ---

const UNDER_WAY: &str = "fanfare_auth_questions_under_way";
const WAITING: &str = "fanfare_auth_questions_waiting";

/// A server behind a proxy, and 100 questions of one household that its backend does not answer within `timeout`; the last of
/// them is about `private-shared`.
async fn flooded(web: &Web, timeout: Duration, cache: Duration) -> (TestServer, JoinSet<Response>) {
    web.hold_only(|seen| seen.field("channel_name").unwrap().starts_with("private-slow-"));
    let mut forward = ForwardConfig::new(web.url.clone());
    (forward.timeout, forward.cache) = (timeout, cache);
    let server = TestServer::with(|config| {
        config.server.trust_forwarded_headers = true;
        config.apps[0].auth.forward = Some(forward);
    })
    .await;
    let mut flood = JoinSet::new();
    for n in 1..=100 {
        let channel = if n == 100 { "private-shared".to_owned() } else { format!("private-slow-{n}") };
        let ask = Ask::channel("1.2", &channel).header("X-Forwarded-For", &format!("2001:db8::{n}"));
        let mut http = server.http().await;
        flood.spawn(async move { http.send(&ask.bytes()).await });
        if n >= 99 {
            let arrived =
                async { while server.metric(UNDER_WAY).await + server.metric(WAITING).await < f64::from(n) {} };
            within("questions of the flood", arrived).await;
        }
    }
    (server, flood)
}

#[tokio::test]
async fn a_flood_of_slow_questions_keeps_no_other_address_waiting() {
    let timeout = Duration::from_secs(2);
    for cache in [Duration::ZERO, Duration::from_secs(3600)] {
        let web = backend(200, allow(json!({}))).await;
        let (server, mut flood) = flooded(&web, timeout, cache).await;
        let honest = |channel| Ask::channel("3.4", channel).header("X-Forwarded-For", "2001:db8:0:1::1");
        let began = Instant::now();
        // Neither with questions of its own, nor with one that waits among those of the flood.
        for channel in ["private-a", "private-b", "private-shared"] {
            honest(channel).allowed(&server).await;
        }
        let took = began.elapsed();
        assert!(took < timeout / 2, "{took:?}");
        server.expect_metric(UNDER_WAY, 32).await;
        // The flood has half of the places, and hears in the end that it had no turn. With the cache, its last question has
        // been answered to somebody else by then.
        let mut refused = 0;
        while let Some(answer) = flood.join_next().await {
            refused += usize::from(answer.unwrap().status == 503);
        }
        assert!(refused >= 99, "{refused}");
        server.expect_metric(UNDER_WAY, 0).await;
        server.expect_metric(WAITING, 0).await;
        // Each place is taken twice at most before the last of the others has waited for the whole time.
        let page = server.metrics().await;
        let count = |outcome: &str| {
            let name = format!("fanfare_auth_requests_total{{app=\"42\",outcome=\"{outcome}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("0").parse::<usize>().unwrap()
        };
        assert!(count("busy") >= 35, "{page}");
        assert_eq!(count("busy") + count("failed"), refused, "{page}");
    }
}

#[tokio::test]
async fn those_who_go_while_they_wait_leave_nothing_behind() {
    let web = backend(200, allow(json!({}))).await;
    for cache in [Duration::ZERO, Duration::from_secs(3600)] {
        let (server, flood) = flooded(&web, Duration::from_secs(60), cache).await;
        server.expect_metric(UNDER_WAY, 32).await;
        server.expect_metric(WAITING, 68).await;
        drop(flood);
        server.expect_metric(UNDER_WAY, 0).await;
        server.expect_metric(WAITING, 0).await;
    }
}

// --- the cache ---

/// A server that remembers answers.
async fn caching(web: &Web) -> TestServer {
    server_with(web, |forward| forward.cache = Duration::from_secs(3600)).await
}

#[tokio::test]
async fn answers_are_remembered_for_other_connections_of_the_same_user() {
    let web = backend(200, allow(json!({ "user_id": "7" }))).await;
    let server = caching(&web).await;
    for socket in ["1.2", "3.4", "5.6"] {
        let answer = Ask::channel(socket, "presence-a").token("t").allowed(&server).await;
        let text = format!("{socket}:presence-a:{{\"user_id\":\"7\"}}");
        let signature = crate::support::sign::hmac(crate::support::SECRET, &text);
        assert_eq!(answer["auth"], format!("{}:{signature}", crate::support::KEY));
    }
    assert_eq!(web.seen().len(), 1);
    web.answer(|_| Answer(403, String::new()));
    let denied = || Ask::channel("1.2", "private-b").token("t");
    denied().forbidden(&server).await;
    denied().forbidden(&server).await;
    assert_eq!(web.seen().len(), 2);
}

#[tokio::test]
async fn everything_that_decides_makes_another_question() {
    let web = backend(200, allow(json!({ "id": "7", "user_id": "7" }))).await;
    let server = server_with(&web, |forward| {
        forward.cache = Duration::from_secs(3600);
        forward.params = ["a", "a1", "x-csrf-token", "x-xsrf-token"].map(str::to_owned).to_vec();
    })
    .await;
    let questions = [
        ask(),
        Ask::channel("1.2", "private-b"),
        Ask::user("1.2"),
        ask().token("t1"),
        ask().token("t2"),
        ask().header("Cookie", "s=1"),
        ask().header("Cookie", "s=2"),
        ask().header("X-CSRF-Token", "1"),
        ask().header("X-CSRF-Token", "2"),
        ask().field("a", "1"),
        ask().field("a", "2"),
        ask().field("a", "").field("a1", ""),
        ask().field("a", "a1"),
        ask().field("a1", ""),
        ask().field("a", "1").field("a", "2"),
        // Parameters that look like headers.
        ask().header("X-CSRF-Token", "1").header("X-XSRF-Token", ""),
        ask().field("x-csrf-token", "1").field("x-xsrf-token", ""),
    ];
    for question in questions.iter().chain(&questions) {
        question.allowed(&server).await;
    }
    assert_eq!(web.seen().len(), questions.len());
    // What the backend does not hear makes no difference.
    ask().header("X-Other", "1").allowed(&server).await;
    ask().field("other", "1").query("another=2").allowed(&server).await;
    assert_eq!(web.seen().len(), questions.len());
}

#[tokio::test]
async fn what_was_not_decided_is_not_remembered() {
    let web = backend(500, json!({})).await;
    let server = caching(&web).await;
    ask().send(&server).await.error(503);
    web.answer(|_| Answer(200, allow(json!({})).to_string()));
    ask().allowed(&server).await;
    assert_eq!(web.seen().len(), 2);
}

#[tokio::test]
async fn a_storm_of_the_same_question_is_one_request() {
    let web = backend(200, allow(json!({}))).await;
    let server = caching(&web).await;
    web.hold(true);
    let mut waiting = Vec::new();
    for n in 0..10 {
        let mut http = server.http().await;
        let request = Ask::channel(&format!("{}.1", n + 1), "private-a").bytes();
        waiting.push(tokio::spawn(async move { http.send(&request).await }));
    }
    web.expect_seen(1).await;
    web.hold(false);
    for answer in waiting {
        answer.await.unwrap().json();
    }
    assert_eq!(web.seen().len(), 1);
}

#[tokio::test]
async fn without_a_cache_every_question_is_asked() {
    let web = backend(200, allow(json!({}))).await;
    let server = server_with(&web, |_| {}).await;
    ask().allowed(&server).await;
    ask().allowed(&server).await;
    assert_eq!(web.seen().len(), 2);
}

// --- cookies of pages that may not use them ---

#[tokio::test]
async fn cookies_and_passwords_go_along_only_for_pages_that_may_use_them() {
    let web = backend(200, allow(json!({}))).await;
    let mut forward = ForwardConfig::new(web.url.clone());
    forward.user_url = web.url.clone();
    let server = TestServer::with_app(|app| {
        app.allowed_origins = vec!["https://a.example".to_owned()];
        app.auth.forward = Some(forward);
    })
    .await;
    let with = |ask: Ask| ask.header("Cookie", "s=1").header("Authorization", "Basic YTpi");
    let script = || with(ask().jsonp("Pusher.auth_callbacks['1']"));
    for (ask, along) in [
        (with(ask()).header("Origin", "https://a.example"), true),
        (with(ask()).header("Sec-Fetch-Site", "cross-site"), false),
        (script(), false),
        (script().header("Referer", "https://a.example/page"), true),
    ] {
        let before = web.seen().len();
        ask.send(&server).await;
        let seen = web.seen();
        assert_eq!(seen.len(), before + 1, "{ask:?}");
        let last = &seen[before];
        assert_eq!(
            (last.header("cookie").is_some(), last.header("authorization").is_some()),
            (along, along),
            "{ask:?}"
        );
    }
    let before = web.seen().len();
    with(ask()).header("Origin", "https://evil.test").forbidden(&server).await;
    script().header("Referer", "https://evil.test/").send(&server).await;
    assert_eq!(web.seen().len(), before);
    // A token is no secret of the browser's: the page has put it there.
    ask().header("Sec-Fetch-Site", "cross-site").token("t").allowed(&server).await;
    assert_eq!(web.seen().last().unwrap().header("authorization"), Some("Bearer t"));
}
