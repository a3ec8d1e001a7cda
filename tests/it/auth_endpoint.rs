//! `/pusher/auth` and `/pusher/user-auth`: the forms of the question and of the answer, the apps, and the origins. The
//! authorizer here is the one that trusts everybody, unless a test needs one that does not.

use fanfare::config::{AppConfig, JwtAlgorithm, JwtConfig, Secret};
use serde_json::{Value, json};

use crate::support::jwt::{Issuer, JWT_SECRET};
use crate::support::{Ask, KEY, Response, SECRET, TestServer, sign};

/// The one of protocol §10.1, and its only vector.
const MASTER_KEY: &str = "zyrm8pvV2C9fJcBfhyXzvxbJVN/H7QLmbe0xJi1GhPU=";

async fn dev_with(change: impl FnOnce(&mut AppConfig)) -> TestServer {
    TestServer::with_app(|app| {
        app.auth.dev = true;
        change(app);
    })
    .await
}

async fn dev() -> TestServer {
    dev_with(|_| {}).await
}

/// A token's text for this connection and this channel.
fn token(text: &str) -> String {
    format!("{KEY}:{}", sign::hmac(SECRET, text))
}

#[tokio::test]
async fn without_an_authorizer_there_is_no_endpoint() {
    let server = TestServer::start().await;
    for ask in [Ask::channel("1.2", "private-a"), Ask::user("1.2"), Ask::channel("1.2", "private-a").method("OPTIONS")]
    {
        assert_eq!(ask.send(&server).await.error(404), "Not found");
    }
}

#[tokio::test]
async fn the_answers_are_those_of_the_libraries_and_the_server_accepts_them() {
    let server = dev_with(|app| app.encryption_master_key = Some(Secret::new(MASTER_KEY))).await;
    let mut client = server.connect().await;
    let id = client.socket_id.clone();
    let private = Ask::channel(&id, "private-a").allowed(&server).await;
    assert_eq!(private, json!({ "auth": token(&format!("{id}:private-a")) }));
    client.subscribe_authorized("private-a", &private).await;

    let encrypted = Ask::channel(&id, "private-encrypted-bla").allowed(&server).await;
    let shared_secret = "nlr49ISQHz91yS3cy/yWmW8wFMNeTnNL5tNHnbPJcLQ=";
    let auth = token(&format!("{id}:private-encrypted-bla"));
    assert_eq!(encrypted, json!({ "auth": auth, "shared_secret": shared_secret }));
    client.subscribe_authorized("private-encrypted-bla", &encrypted).await;

    let ask = Ask::channel(&id, "presence-a").field("user_id", "ann").field("user_info", r#"{"name":"Ann"}"#);
    let presence = ask.allowed(&server).await;
    let data = r#"{"user_id":"ann","user_info":{"name":"Ann"}}"#;
    assert_eq!(presence, json!({ "auth": token(&format!("{id}:presence-a:{data}")), "channel_data": data }));
    client.subscribe_authorized("presence-a", &presence).await;

    let user = Ask::user(&id).field("user_id", "ann").field("watchlist", r#"["bob"]"#).allowed(&server).await;
    let data = r#"{"id":"ann","user_info":{"name":"ann"},"watchlist":["bob"]}"#;
    assert_eq!(user, json!({ "auth": token(&format!("{id}::user::{data}")), "user_data": data }));
    client.sign_in_authorized(&user).await;
}

#[tokio::test]
async fn whoever_gives_no_name_is_another_guest_on_each_connection() {
    let server = dev().await;
    let (mut one, mut other) = (server.connect().await, server.connect().await);
    for client in [&mut one, &mut other] {
        let answer = Ask::channel(&client.socket_id, "presence-a").allowed(&server).await;
        client.subscribe_authorized("presence-a", &answer).await;
    }
    let joined = one.expect_on("presence-a", "pusher_internal:member_added").await;
    assert_eq!(joined.data()["user_id"], format!("guest-{}", other.socket_id));
}

#[tokio::test]
async fn an_encrypted_channel_without_a_master_key_is_refused() {
    Ask::channel("1.2", "private-encrypted-a").forbidden(&dev().await).await;
}

#[tokio::test]
async fn there_is_nothing_to_sign_for_public_channels_and_for_what_is_no_channel() {
    let server = dev().await;
    let long = format!("private-{}", "a".repeat(164));
    let names = [
        "room",
        "cache-room",
        "privateer",
        "",
        "private room",
        "private-ü",
        "#server-to-user-ann",
        "private-#a",
        &long,
    ];
    for name in names {
        Ask::channel("1.2", name).forbidden(&server).await;
    }
}

#[tokio::test]
async fn a_request_in_the_wrong_form_is_told_what_is_wrong() {
    let server = dev().await;
    let channel = || Ask::channel("1.2", "private-a");
    let cases = [
        (Ask::channel("12", "private-a"), 400, "socket_id is not the id of a connection"),
        (Ask::channel("1.2:private-b", "private-a"), 400, "socket_id is not the id of a connection"),
        (Ask::channel("01.2", "private-a"), 400, "socket_id is not the id of a connection"),
        (Ask::new("/pusher/auth").field("channel_name", "private-a"), 400, "socket_id is missing"),
        (Ask::new("/pusher/user-auth"), 400, "socket_id is missing"),
        (Ask::new("/pusher/auth").field("socket_id", "1.2"), 400, "channel_name is missing"),
        (channel().field("channel_name", "private-b"), 400, "channel_name is given more than once"),
        (channel().query("channel_name=private-b"), 400, "channel_name is given more than once"),
        (channel().query("socket_id=1.3"), 400, "socket_id is given more than once"),
        (channel().field("channel_name[]", "private-b"), 400, "channel_name is given more than once"),
        (channel().field("app_key", KEY).query("app_key=x"), 400, "app_key is given more than once"),
        (channel().json(&json!([])), 400, "the body is not a JSON object"),
        (channel().json(&json!({ "socket_id": 1.2, "channel_name": "private-a" })), 400, "socket_id must be a string"),
        (channel().body(&"a".repeat(65 * 1024)), 413, "the body is longer than 65536 bytes"),
        (channel().method("PUT"), 405, "Method not allowed, use POST"),
        (Ask::new("/pusher/auth").method("GET"), 400, "a GET request needs a callback; send a POST request instead"),
    ];
    for (ask, status, text) in cases {
        assert_eq!(ask.send(&server).await.error(status), text, "{ask:?}");
    }
}

#[tokio::test]
async fn a_parameter_that_others_could_read_as_ours_is_refused_whoever_decides() {
    let issuer = JwtConfig { secret: Some(Secret::new(JWT_SECRET)), ..JwtConfig::new(vec![JwtAlgorithm::Hs256]) };
    let web =
        crate::support::Web::start(|_| crate::support::Answer(200, format!(r#"{{"auth":"k:{}"}}"#, "0".repeat(64))))
            .await;
    let forward = fanfare::config::ForwardConfig::new(web.url.clone());
    let servers = [
        dev().await,
        TestServer::with_app(|app| app.auth.jwt = Some(issuer)).await,
        TestServer::with_app(|app| app.auth.forward = Some(forward)).await,
    ];
    let channel = || Ask::channel("1.2", "private-a");
    let text = |name: &str, own: &str| {
        format!("the parameter {name} could be read as {own} by another server; leave it out or rename it")
    };
    for server in &servers {
        for (ask, name, own) in [
            (channel().field("channel.name", "private-own"), "channel.name", "channel_name"),
            (channel().query("%5Bchannel_name%5D=private-own"), "[channel_name]", "channel_name"),
            (channel().query("a=1;channel_name=private-own"), "channel_name", "channel_name"),
            (channel().field("Socket_Id", "3.4"), "Socket_Id", "socket_id"),
            (channel().field("\u{0}\nsocket id", "3.4"), "\\0\\nsocket id", "socket_id"),
            (
                Ask::new("/pusher/auth").json(
                    &json!({ "socket_id": "1.2", "channel_name": "private-a", "channel_name[x]": "private-own" }),
                ),
                "channel_name[x]",
                "channel_name",
            ),
            (Ask::user("1.2").field("socket_id[]", "3.4"), "socket_id[]", "socket_id"),
            (channel().field("__proto__[channel]", "x"), "__proto__[channel]", "__proto__"),
        ] {
            assert_eq!(ask.send(server).await.error(400), text(name, own), "{ask:?}");
        }
    }
    assert_eq!(web.seen().len(), 0);
    channel().field("channel", "x").field("user[name]", "x").field("callback_url", "x").allowed(&servers[2]).await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let server = TestServer::with(|config| {
        config.server.request_timeout = std::time::Duration::from_secs(1);
        config.apps[0].auth.dev = true;
    })
    .await;
    let mut http = server.http().await;
    let response = http.send(b"POST /pusher/auth HTTP/1.1\r\nHost: test\r\nContent-Length: 50\r\n\r\nsocket_id=").await;
    assert_eq!(response.error(408), "the body was not received in time (server.request_timeout)");
}

#[tokio::test]
async fn json_and_a_query_do_as_well_as_a_form() {
    let server = dev().await;
    let expected = Ask::channel("1.2", "private-a").allowed(&server).await;
    let json = Ask::new("/pusher/auth").json(&json!({ "socket_id": "1.2", "channel_name": "private-a", "x": 5 }));
    assert_eq!(json.allowed(&server).await, expected);
    let query = Ask::new("/pusher/auth").query("socket_id=1.2&channel_name=private-a");
    assert_eq!(query.allowed(&server).await, expected);
    let info = json!({ "socket_id": "1.2", "channel_name": "presence-a", "user_id": "a", "user_info": { "n": 1 } });
    let presence = Ask::new("/pusher/auth").json(&info).allowed(&server).await;
    assert_eq!(presence["channel_data"], r#"{"user_id":"a","user_info":{"n":1}}"#);
}

#[tokio::test]
async fn the_path_has_the_prefix_of_all_paths() {
    let server = TestServer::with(|config| {
        config.server.path_prefix = "/realtime".to_owned();
        config.apps[0].auth.dev = true;
    })
    .await;
    let ask = |path| Ask::new(path).field("socket_id", "1.2").field("channel_name", "private-a");
    ask("/realtime/pusher/auth").allowed(&server).await;
    ask("/pusher/auth").send(&server).await.error(404);
}

// --- batches ---

#[tokio::test]
async fn a_batch_has_an_answer_for_each_channel() {
    let server = dev().await;
    let mut client = server.connect().await;
    let id = client.socket_id.clone();
    let form = |names: [&str; 3]| {
        let fields = Ask::new("/pusher/auth").field("socket_id", &id);
        names.iter().zip(["private-a", "room", "presence-b"]).fold(fields, |ask, (name, value)| ask.field(name, value))
    };
    let list = json!({ "socket_id": id, "channel_name": ["private-a", "room", "presence-b"] });
    for ask in [
        form(["channel_name[0]", "channel_name[1]", "channel_name[2]"]),
        form(["channel_name[]"; 3]),
        Ask::new("/pusher/auth").json(&list),
    ] {
        let answer = ask.allowed(&server).await;
        assert_eq!(answer["private-a"]["data"], Ask::channel(&id, "private-a").allowed(&server).await);
        assert_eq!(answer["private-a"]["status"], 200);
        assert_eq!(answer["room"], json!({ "status": 403 }));
        assert_eq!(answer["presence-b"]["data"], Ask::channel(&id, "presence-b").allowed(&server).await);
    }
    let answer = form(["channel_name[]"; 3]).allowed(&server).await;
    client.subscribe_authorized("private-a", &answer["private-a"]["data"]).await;
    client.subscribe_authorized("presence-b", &answer["presence-b"]["data"]).await;
}

#[tokio::test]
async fn a_batch_is_no_larger_than_a_trigger() {
    let server = dev_with(|app| app.limits.channels_per_event = 2).await;
    let names = |count| (0..count).map(|n| format!("private-{n}")).collect::<Vec<_>>();
    let ask = |count| Ask::new("/pusher/auth").json(&json!({ "socket_id": "1.2", "channel_name": names(count) }));
    assert_eq!(ask(2).allowed(&server).await.as_object().unwrap().len(), 2);
    let refused = ask(3).send(&server).await;
    assert_eq!(refused.error(400), "more than 2 channels at once (limits.channels_per_event)");
}

// --- JSONP ---

/// What the script passes to the callback.
fn called(response: &Response, callback: &str) -> Value {
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/javascript")));
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    let argument = response.body.strip_prefix(callback).and_then(|rest| rest.strip_prefix('(')?.strip_suffix(");"));
    serde_json::from_str(argument.unwrap_or_else(|| panic!("no call of {callback}: {}", response.body))).unwrap()
}

#[tokio::test]
async fn a_script_calls_back_with_the_answer() {
    let server = dev().await;
    let callback = "Pusher.auth_callbacks['7']";
    let response = Ask::channel("1.2", "private-a").jsonp(callback).send(&server).await;
    let auth = token("1.2:private-a");
    assert_eq!(response.body, format!("{callback}({{\"auth\":\"{auth}\"}});"));
    assert_eq!(called(&response, callback), json!({ "auth": auth }));
    let user = Ask::user("1.2").jsonp(callback).send(&server).await;
    assert!(called(&user, callback)["user_data"].is_string());
}

#[tokio::test]
async fn a_script_for_somebody_who_may_not_calls_back_without_a_signature() {
    let server = dev().await;
    let callback = "Pusher.auth_callbacks['1']";
    let forbidden = Ask::channel("1.2", "room").jsonp(callback).send(&server).await;
    assert_eq!(called(&forbidden, callback), json!({ "auth": "", "status": 403, "error": "Forbidden" }));
    let malformed = Ask::channel("x", "private-a").jsonp(callback).send(&server).await;
    assert_eq!(called(&malformed, callback)["status"], 400);
}

#[tokio::test]
async fn a_callback_that_is_not_pushers_is_never_repeated() {
    let server = dev().await;
    for callback in ["alert", "Pusher.auth_callbacks['1'];alert(1)//", "Pusher.auth_callbacks['</script>']", ""] {
        let response = Ask::channel("1.2", "private-a").jsonp(callback).send(&server).await;
        assert_eq!(response.error(400), "callback must be of the form Pusher.auth_callbacks['1']");
    }
}

// --- apps ---

/// Two apps, of which these are open to everybody.
async fn two_apps(open: [bool; 2]) -> TestServer {
    TestServer::with(|config| {
        config.apps.push(AppConfig::new("43", "other-key", "other-secret"));
        for (app, open) in config.apps.iter_mut().zip(open) {
            app.auth.dev = open;
        }
    })
    .await
}

#[tokio::test]
async fn the_app_is_the_one_that_is_named_or_the_only_one() {
    let other = format!("other-key:{}", sign::hmac("other-secret", "1.2:private-a"));
    let ask = || Ask::channel("1.2", "private-a");
    let both = two_apps([true, true]).await;
    assert_eq!(ask().field("app_key", "other-key").allowed(&both).await["auth"], other);
    assert_eq!(ask().query("app_key=other-key").allowed(&both).await["auth"], other);
    assert_eq!(ask().field("app_key", KEY).allowed(&both).await["auth"], token("1.2:private-a"));
    ask().forbidden(&both).await;
    ask().field("app_key", "no-key").forbidden(&both).await;
    ask().field("app_key", "").forbidden(&both).await;

    let one = two_apps([false, true]).await;
    assert_eq!(ask().allowed(&one).await["auth"], other);
    ask().field("app_key", KEY).forbidden(&one).await;
}

#[tokio::test]
async fn a_disabled_app_lets_nobody_in() {
    let server = dev_with(|app| app.enabled = false).await;
    Ask::channel("1.2", "private-a").forbidden(&server).await;
    Ask::user("1.2").forbidden(&server).await;
}

#[tokio::test]
async fn the_key_that_signs_is_the_one_that_the_client_connected_with() {
    let server = dev_with(|app| {
        app.keys.push(fanfare::config::KeyPair { key: "next".to_owned(), secret: Secret::new("next-secret") });
    })
    .await;
    let mut client = server.dial().path("/app/next").connect().await;
    let ask = || Ask::channel(&client.socket_id, "private-a");
    assert!(ask().allowed(&server).await["auth"].as_str().unwrap().starts_with(&format!("{KEY}:")));
    let answer = ask().field("app_key", "next").allowed(&server).await;
    assert!(answer["auth"].as_str().unwrap().starts_with("next:"));
    client.subscribe_authorized("private-a", &answer).await;
}

#[tokio::test]
async fn requests_are_counted_by_app_and_outcome() {
    let server = dev().await;
    Ask::channel("1.2", "private-a").allowed(&server).await;
    Ask::channel("1.2", "room").forbidden(&server).await;
    let batch = json!({ "socket_id": "1.2", "channel_name": ["private-a", "room"] });
    Ask::new("/pusher/auth").json(&batch).allowed(&server).await;
    let page = server.metrics().await;
    for outcome in ["allowed", "denied"] {
        let line = format!("fanfare_auth_requests_total{{app=\"42\",outcome=\"{outcome}\"}} 2\n");
        assert!(page.contains(&line), "{page}");
    }
}

// --- origins and cookies ---

#[tokio::test]
async fn without_a_list_every_page_may_ask_but_not_with_cookies() {
    let server = dev().await;
    let answer = Ask::channel("1.2", "private-a").header("Origin", "https://a.example").send(&server).await;
    answer.json();
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    // A page can only tell a no from a failure of the network if it may read the answer.
    let refused = Ask::channel("1.2", "room").header("Origin", "https://a.example").send(&server).await;
    refused.error(403);
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    let malformed = Ask::user("x").header("Origin", "https://a.example").send(&server).await;
    malformed.error(400);
    assert_eq!(malformed.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn with_a_list_only_its_origins_may_ask() {
    let server = dev_with(|app| app.allowed_origins = vec!["https://*.example".to_owned()]).await;
    let ask = |origin: &str| Ask::channel("1.2", "private-a").header("Origin", origin);
    let answer = ask("https://a.example").send(&server).await;
    answer.json();
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("vary"), Some("Origin"));
    for origin in ["https://a.example.evil", "http://a.example", "null", ""] {
        let refused = ask(origin).send(&server).await;
        assert_eq!(refused.error(403), "Forbidden");
        assert_eq!(refused.header("access-control-allow-origin"), None, "{origin}");
    }
    Ask::channel("1.2", "private-a").allowed(&server).await;
    let script = Ask::channel("1.2", "private-a").jsonp("Pusher.auth_callbacks['1']");
    let foreign = script.header("Referer", "https://evil.test/page").send(&server).await;
    assert_eq!(called(&foreign, "Pusher.auth_callbacks['1']")["auth"], "");
}

#[tokio::test]
async fn a_browser_may_ask_before_it_asks() {
    let ask = |origin| {
        let ask = Ask::new("/pusher/auth").method("OPTIONS").header("Origin", origin);
        let ask = ask.header("Access-Control-Request-Method", "POST");
        ask.header("Access-Control-Request-Headers", "authorization,x-csrf-token")
    };
    let open = ask("https://a.example").send(&dev().await).await;
    assert_eq!(open.status, 204, "{}", open.head);
    assert_eq!(open.header("access-control-allow-origin"), Some("*"));
    assert_eq!(open.header("access-control-allow-methods"), Some("GET, POST, OPTIONS"));
    assert_eq!(open.header("access-control-allow-headers"), Some("authorization,x-csrf-token"));
    assert_eq!(open.header("access-control-max-age"), Some("3600"));
    assert_eq!(open.header("access-control-allow-credentials"), None);

    let server = dev_with(|app| app.allowed_origins = vec!["https://a.example".to_owned()]).await;
    let listed = ask("https://a.example").send(&server).await;
    assert_eq!(listed.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(listed.header("access-control-allow-credentials"), Some("true"));
    let foreign = ask("https://b.example").send(&server).await;
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None));
}

/// A server whose users have their token in a cookie, for pages of these origins.
async fn cookies(origins: &[&str]) -> TestServer {
    TestServer::with_app(|app| {
        app.allowed_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        app.auth.jwt = Some(JwtConfig {
            secret: Some(Secret::new(JWT_SECRET)),
            cookie: "session".to_owned(),
            channels: vec!["private-{sub}".to_owned()],
            ..JwtConfig::new(vec![JwtAlgorithm::Hs256])
        });
    })
    .await
}

#[tokio::test]
async fn a_cookie_counts_for_listed_pages_and_for_those_of_the_same_host() {
    let token = Issuer::trusted().token(json!({ "sub": "ann" }));
    let ask = || Ask::channel("1.2", "private-ann").header("Cookie", &format!("a=b; session={token}; c=d"));
    let listed = cookies(&["https://a.example"]).await;
    ask().header("Origin", "https://a.example").header("Sec-Fetch-Site", "cross-site").allowed(&listed).await;
    ask().header("Origin", "https://b.example").forbidden(&listed).await;
    ask().allowed(&listed).await;
    ask().header("Sec-Fetch-Site", "cross-site").forbidden(&listed).await;
    for origins in [&[][..], &["*"], &["https://*"]] {
        let open = cookies(origins).await;
        ask().header("Origin", "https://a.example").forbidden(&open).await;
        ask().header("Origin", "https://a.example").header("Sec-Fetch-Site", "same-site").forbidden(&open).await;
        ask().header("Origin", "https://a.example").header("Sec-Fetch-Site", "same-origin").allowed(&open).await;
    }
    ask().header("Origin", "http://test").allowed(&cookies(&[]).await).await;
}

#[tokio::test]
async fn a_cookie_counts_in_a_script_only_if_its_page_is_listed() {
    let token = Issuer::trusted().token(json!({ "sub": "ann" }));
    let callback = "Pusher.auth_callbacks['1']";
    let auth = async |server: &TestServer, referer: Option<&str>| {
        let ask = Ask::channel("1.2", "private-ann").jsonp(callback).header("Cookie", &format!("session={token}"));
        let ask = referer.map(|referer| ask.clone().header("Referer", referer)).unwrap_or(ask);
        called(&ask.send(server).await, callback)["auth"].as_str().unwrap().to_owned()
    };
    let listed = cookies(&["https://a.example"]).await;
    assert_ne!(auth(&listed, Some("https://a.example/page")).await, "");
    assert_eq!(auth(&listed, Some("https://evil.test/?https://a.example/")).await, "");
    assert_eq!(auth(&listed, None).await, "");
    for origins in [&[][..], &["*"]] {
        let open = cookies(origins).await;
        assert_eq!(auth(&open, Some("https://a.example/page")).await, "");
        assert_eq!(auth(&open, None).await, "");
    }
}

#[tokio::test]
async fn a_cookie_that_is_there_twice_is_nobodys() {
    let server = cookies(&[]).await;
    let of = |sub: &str| Issuer::trusted().token(json!({ "sub": sub }));
    let both = format!("session={}; session={}", of("ann"), of("bob"));
    for name in ["private-ann", "private-bob"] {
        Ask::channel("1.2", name).header("Cookie", &both).forbidden(&server).await;
    }
}
