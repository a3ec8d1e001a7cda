//! Protocol §1.1 to §1.3, §1.5, §1.6: the handshake, the greeting, and who is turned away with which code.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use crate::support::{DEADLINE, Item, KEY, Opcode, TestServer, wire_masked, within};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_first_message_names_the_socket_and_the_activity_timeout() {
    let server = TestServer::start().await;
    let mut client = server.dial().open().await;
    let greeting = client.greeting().await;
    assert_eq!(greeting.json.as_object().unwrap().len(), 2, "only event and data: {}", greeting.json);
    let data = greeting.data();
    assert_eq!(data, json!({ "socket_id": client.socket_id, "activity_timeout": 120 }));
    client.expect_silence().await;
}

#[tokio::test]
async fn socket_ids_are_two_decimal_numbers_and_never_alike() {
    let server = TestServer::start().await;
    let mut ids = HashSet::new();
    for _ in 0..100 {
        let client = server.connect().await;
        let (first, second) = client.socket_id.split_once('.').expect("a dot in the socket id");
        for part in [first, second] {
            assert!(part.bytes().all(|byte| byte.is_ascii_digit()), "{}", client.socket_id);
            let number: u64 = part.parse().unwrap_or_else(|_| panic!("{}", client.socket_id));
            assert!(number < 1 << 53, "JavaScript cannot hold {number}");
            assert_eq!(number.to_string(), part, "leading zeros in {}", client.socket_id);
        }
        assert!(ids.insert(client.socket_id.clone()), "{} came twice", client.socket_id);
    }
    let firsts: HashSet<_> = ids.iter().map(|id| id.split_once('.').unwrap().0).collect();
    assert!(firsts.len() > 90, "the first numbers can be guessed: {firsts:?}");
}

#[tokio::test]
async fn every_form_of_the_url_that_clients_use_is_understood() {
    let server = TestServer::start().await;
    let queries = [
        "protocol=7&client=js&version=8.6.0&flash=false",
        "client=java-client&protocol=5&version=2.4.4",
        "protocol=5&client=pusher-dotnet-client&version=2.1.0",
        "client=pusher-websocket-swift&version=10.1.5&protocol=7",
        "protocol=7",
        "flash=false&version=4.0&protocol=6&unknown=1&empty=&client=js",
        "protocol=4&client=js",
        "unknown&protocol=7",
        "protocol=7&client=caf%C3%A9&version=%zz",
    ];
    for query in queries {
        let mut client = server.dial().query(query).open().await;
        client.label(query);
        let greeting = client.greeting().await;
        assert_eq!(greeting.data()["activity_timeout"], 120, "{query}");
        client.subscribe("room").await;
    }
}

#[tokio::test]
async fn protocol_versions_4_to_7_are_served() {
    let server = TestServer::start().await;
    for version in 4..=7 {
        let mut client = server.dial().protocol(version).connect().await;
        client.label(&version.to_string());
        client.subscribe("room").await;
    }
}

#[tokio::test]
async fn other_protocol_versions_are_refused_with_their_code() {
    let server = TestServer::start().await;
    for version in ["1", "2", "3"] {
        let reason = server.dial().query(&format!("protocol={version}&client=js")).refused(4007).await;
        assert_eq!(reason, "Unsupported protocol version");
    }
    // These cannot be told by an event: nobody knows how they would read it.
    let rows = [
        ("protocol=8", 4007, "Unsupported protocol version"),
        ("protocol=70&client=js", 4007, "Unsupported protocol version"),
        ("protocol=99999999999999999999", 4007, "Unsupported protocol version"),
        ("protocol=abc", 4006, "Invalid version string format"),
        ("protocol=", 4006, "Invalid version string format"),
        ("protocol=7.0", 4006, "Invalid version string format"),
        ("protocol=7x", 4006, "Invalid version string format"),
        ("client=js&version=8.6.0", 4008, "No protocol version supplied"),
        ("", 4008, "No protocol version supplied"),
    ];
    for (query, code, text) in rows {
        let mut client = server.dial().query(query).open().await;
        client.label(query);
        assert_eq!(client.expect_close(code).await, text, "{query}");
        client.expect_end().await;
    }
}

#[tokio::test]
async fn a_missing_version_counts_as_7_where_the_app_says_so() {
    let server = TestServer::with_app(|app| app.assume_protocol_7 = true).await;
    let mut client = server.dial().query("client=js").connect().await;
    client.subscribe("room").await;
    assert_eq!(server.dial().query("protocol=9").refused(4007).await, "Unsupported protocol version");
    assert_eq!(server.dial().query("protocol=x").refused(4006).await, "Invalid version string format");
}

#[tokio::test]
async fn an_offered_subprotocol_is_echoed_and_none_is_made_up() {
    let server = TestServer::start().await;
    let answered = |head: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol"))
            .map(|(_, value)| value.trim().to_owned())
    };
    let rows = [
        (None, None),
        (Some("pusher-channels-protocol-7"), Some("pusher-channels-protocol-7")),
        (Some("chat, pusher-channels-protocol-7"), Some("pusher-channels-protocol-7")),
        (Some("pusher-channels-protocol-5,chat"), Some("pusher-channels-protocol-5")),
        (Some("chat, superchat"), None),
    ];
    for (offered, expected) in rows {
        let dial = match offered {
            Some(offered) => server.dial().header("Sec-WebSocket-Protocol", offered),
            None => server.dial(),
        };
        let client = dial.connect().await;
        assert_eq!(answered(&client.head).as_deref(), expected, "offered: {offered:?}");
    }
}

#[tokio::test]
async fn a_configured_prefix_stands_in_front_of_every_path_and_in_no_signature() {
    let server = TestServer::with(|config| config.server.path_prefix = "/realtime".to_owned()).await;
    let mut client = server.dial().path(&format!("/realtime/app/{KEY}")).connect().await;
    client.subscribe("room").await;
    let mut api = server.api().await;
    let body = json!({ "name": "greet", "channel": "room", "data": "hello" });
    let mut call = crate::support::Call::post("/realtime/apps/42/events", &body);
    call.signed_path = Some("/apps/42/events".to_owned());
    api.call(&call).await.ok();
    client.expect_event("room", "greet", "hello").await;
}

#[tokio::test]
async fn any_other_path_is_refused_with_4005() {
    let server = TestServer::start().await;
    for path in ["/", "/app", &format!("/app/{KEY}/extra"), "/apps/42/events", "/elsewhere", "/App/x"] {
        assert_eq!(server.dial().path(path).refused(4005).await, "Path not found", "{path}");
        assert_eq!(server.dial().path(path).protocol(5).refused(4005).await, "Path not found", "{path}");
    }
}

#[tokio::test]
async fn an_unknown_app_is_refused_with_4001() {
    let server = TestServer::start().await;
    for version in 1..=7 {
        let code = if version <= 3 { 4007 } else { 4001 };
        let reason = server.dial().path("/app/nobody").protocol(version).refused(code).await;
        if code == 4001 {
            let text = "App key nobody not in this cluster. Did you forget to specify the cluster?";
            assert_eq!(reason, text, "protocol {version}");
        }
    }
}

#[tokio::test]
async fn a_long_app_key_is_cut_so_that_the_reason_fits() {
    let server = TestServer::start().await;
    let keys = ["x".repeat(300), "%C3%A9".repeat(70), format!("x{}", "%E2%82%AC".repeat(50))];
    for key in keys {
        let reason = server.dial().path(&format!("/app/{key}")).refused(4001).await;
        assert!(reason.len() <= 123, "{} bytes", reason.len());
        assert!(reason.starts_with("App key ") && reason.contains(" not in this cluster"), "{reason}");
    }
}

#[tokio::test]
async fn a_disabled_app_is_refused_with_4003() {
    let server = TestServer::with_app(|app| app.enabled = false).await;
    for version in 4..=7 {
        assert_eq!(server.dial().protocol(version).refused(4003).await, "Application disabled");
    }
}

#[tokio::test]
async fn an_unencrypted_connection_is_refused_with_4000_where_tls_is_required() {
    let server = TestServer::with_app(|app| app.require_tls = true).await;
    for version in 4..=7 {
        let reason = server.dial().protocol(version).refused(4000).await;
        assert_eq!(reason, "Application only accepts SSL connections, reconnect using wss://");
    }
    // Anybody can write this header; it means something only behind a proxy that is trusted to write it.
    server.dial().header("X-Forwarded-Proto", "https").refused(4000).await;
}

#[tokio::test]
async fn a_trusted_proxy_vouches_for_tls() {
    let server = TestServer::with(|config| {
        config.server.trust_forwarded_headers = true;
        config.apps[0].require_tls = true;
    })
    .await;
    server.dial().header("X-Forwarded-Proto", "https").connect().await.subscribe("room").await;
    server.dial().header("X-Forwarded-Proto", "http").refused(4000).await;
    server.dial().refused(4000).await;
}

#[tokio::test]
async fn the_app_quota_of_connections_is_kept_and_a_closed_one_makes_room() {
    let server = TestServer::with_app(|app| app.limits.connections = 2).await;
    let mut first = server.connect().await;
    let second = server.connect().await;
    for version in 4..=7 {
        let reason = server.dial().protocol(version).refused(4004).await;
        assert_eq!(reason, "Application is over connection quota");
    }
    second.disconnect().await;
    let mut third = server.connect().await;
    third.subscribe("room").await;
    server.dial().refused(4004).await;
    first.expect_silence().await;
}

#[tokio::test]
async fn the_quota_of_one_app_is_not_that_of_another() {
    let server = TestServer::with(|config| {
        let mut other = fanfare::config::AppConfig::new("43", "other-key", "other-secret");
        other.limits.connections = 1;
        config.apps.push(other);
    })
    .await;
    let _held = server.dial().path("/app/other-key").connect().await;
    server.dial().path("/app/other-key").refused(4004).await;
    server.connect().await.subscribe("room").await;
}

#[tokio::test]
async fn two_clients_racing_for_the_last_seat_do_not_both_get_it() {
    let server = TestServer::with_app(|app| app.limits.connections = 5).await;
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let dial = server.dial();
        racers.spawn(async move {
            let mut client = dial.open().await;
            match client.item().await {
                Item::Text(_) => Some(client),
                Item::Close(Some(4004), _) => None,
                other => panic!("{other:?}"),
            }
        });
    }
    let seated: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
    assert_eq!(seated.len(), 5);
}

#[tokio::test]
async fn the_servers_own_limit_of_connections_is_answered_with_4100() {
    let server = TestServer::with(|config| config.server.max_connections = 2).await;
    let first = server.connect().await;
    let mut second = server.connect().await;
    for version in 4..=7 {
        assert_eq!(server.dial().protocol(version).refused(4100).await, "Over capacity");
    }
    // Backends still come through.
    server.api().await.trigger("room", "greet", "{}").await;
    first.disconnect().await;
    server.connect().await.subscribe("room").await;
    second.expect_silence().await;
}

#[tokio::test]
async fn only_allowed_origins_may_connect_from_a_browser() {
    let server = TestServer::with_app(|app| {
        app.allowed_origins =
            ["https://*.example.com", "http://localhost:3000", "example.net"].map(str::to_owned).to_vec();
    })
    .await;
    for origin in ["https://app.example.com", "http://localhost:3000", "https://example.net", "http://example.net:81"] {
        server.dial().header("Origin", origin).connect().await.subscribe("room").await;
    }
    server.connect().await.subscribe("room").await;
    let strangers = [
        "https://example.org",
        "http://app.example.com",
        "https://app.example.com.evil.org",
        "https://evilexample.com",
        "http://localhost:3001",
        "https://www.example.net",
        "null",
    ];
    for origin in strangers {
        assert_eq!(server.dial().header("Origin", origin).refused(4009).await, "Origin not allowed", "{origin}");
    }
    let reason = server.dial().protocol(5).header("Origin", strangers[0]).refused(4009).await;
    assert_eq!(reason, "Origin not allowed");
}

#[tokio::test]
async fn any_origin_may_connect_where_none_is_listed() {
    let server = TestServer::start().await;
    server.dial().header("Origin", "https://anywhere.example").connect().await.subscribe("room").await;
}

#[tokio::test]
async fn connections_that_stay_unauthorised_are_closed_and_authorised_ones_live_on() {
    let server = TestServer::with_app(|app| {
        app.authorized_connections = true;
        app.limits.authorization_timeout = SECOND;
    })
    .await;
    let mut private = server.connect().await;
    private.subscribe_private("private-room").await;
    let mut present = server.join("presence-room", "7").await;
    let mut signed_in = server.sign_in("7").await;
    // Authorised once is authorised for good.
    let mut left = server.connect().await;
    left.subscribe_private("private-room").await;
    left.leave("private-room").await;
    let mut old = server.dial().protocol(5).connect().await;
    let mut public = server.connect().await;
    public.subscribe("room").await;
    public.send(json!({ "event": "pusher:subscribe", "data": { "auth": "x:y", "channel": "private-room" } })).await;
    public.expect_rejection("private-room", "AuthError", 401).await;

    let text = "Connection not authorized within timeout";
    assert_eq!(public.expect_fatal(4009, false).await, text);
    assert_eq!(old.expect_fatal(4009, true).await, text);
    for client in [&mut private, &mut present, &mut signed_in, &mut left] {
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn unauthorised_connections_do_not_count_towards_the_quota() {
    let server = TestServer::with_app(|app| {
        app.authorized_connections = true;
        app.limits.connections = 1;
    })
    .await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(server.connect().await);
    }
    let mut first = server.sign_in("7").await;
    let mut second = waiting.pop().unwrap();
    second.send(second.subscription("private-room")).await;
    loop {
        match second.item().await {
            // It may have been told of its success before its place was looked for.
            Item::Text(text) => assert!(text.contains("subscription_succeeded"), "{text}"),
            Item::Close(code, reason) => {
                assert_eq!((code, reason.as_str()), (Some(4004), "Application is over connection quota"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    // One connection has one place, however often it shows that it is authorised.
    first.subscribe_private("private-room").await;
    first.join("presence-room", "7").await;
    first.expect_silence().await;
    for client in &mut waiting {
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn a_client_that_says_goodbye_is_answered_in_kind() {
    let server = TestServer::start().await;
    for (code, payload) in
        [(Some(1000), 1000_u16.to_be_bytes().to_vec()), (Some(4321), b"\x10\xe1bye".to_vec()), (None, vec![])]
    {
        let mut client = server.connect().await;
        client.send_control(Opcode::Close, &payload).await;
        match client.item().await {
            Item::Close(echoed, _) => assert!(echoed == code || (code.is_none() && echoed == Some(1000)), "{echoed:?}"),
            other => panic!("{other:?}"),
        }
        client.expect_end().await;
    }
}

#[tokio::test]
async fn nothing_is_served_after_a_refusal() {
    let server = TestServer::start().await;
    let mut client = server.dial().path("/app/nobody").open().await;
    let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": "room" } }).to_string();
    let _ = client.wire.try_write(&crate::support::wire_masked(&subscribe)).await;
    client.expect_close(4001).await;
    client.expect_end().await;
    let info = server.api().await.channel("room", "").await;
    assert_eq!(info, json!({ "occupied": false }));
}

#[tokio::test]
async fn a_refused_client_that_does_not_answer_the_close_is_dropped_all_the_same() {
    let server = TestServer::start().await;
    let mut client = server.dial().path("/app/nobody").open().await;
    client.expect_unanswered_close(4001).await;
    // The closing handshake may take up to five seconds.
    let end = tokio::time::timeout(2 * DEADLINE, client.wire.item()).await.expect("the server keeps the socket");
    assert!(matches!(end, Item::End), "{end:?}");
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_gets_a_plain_answer() {
    let server = TestServer::start().await;
    let mut http = server.http().await;
    let response = http.get(&format!("/app/{KEY}?protocol=7")).await;
    assert!([400, 426].contains(&response.status), "{}", response.head);
    let requests = [
        ("no key", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"),
        ("no version", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        (
            "old version",
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        ("another upgrade", "Upgrade: h2c\r\nConnection: Upgrade\r\n"),
    ];
    for (row, headers) in requests {
        let mut http = server.http().await;
        let request = format!("GET /app/{KEY}?protocol=7 HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
        let response = http.send(request.as_bytes()).await;
        assert!([400, 426].contains(&response.status), "{row}: {}", response.head);
    }
}

#[tokio::test]
async fn an_upgrade_is_understood_however_its_headers_are_written() {
    let server = TestServer::start().await;
    let mut http = server.http().await;
    let request = format!(
        "GET /app/{KEY}?protocol=7 HTTP/1.1\r\nhost: test\r\nUPGRADE: WebSocket\r\nconnection: keep-alive, upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    );
    http.wire.write(request.as_bytes()).await;
    let head = http.wire.head().await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(
        !head.to_lowercase().contains("permessage-deflate"),
        "compression was not asked for in a form we test: {head}"
    );
    assert!(matches!(http.wire.item().await, Item::Text(text) if text.contains("connection_established")));
}

#[tokio::test]
async fn a_message_sent_together_with_the_handshake_is_not_lost() {
    let server = TestServer::start().await;
    let mut request = server.dial().request().into_bytes();
    let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": "room" } }).to_string();
    request.extend(crate::support::wire_masked(&subscribe));
    let mut http = server.http().await;
    http.wire.write(&request).await;
    let head = http.wire.head().await.expect("an answer");
    let mut client = crate::support::Client::new(http.wire, head);
    client.greeting().await;
    client.expect_success("room").await;
}

#[tokio::test]
async fn what_comes_along_with_the_handshake_is_heard() {
    let server = TestServer::start().await;
    let request = server.dial().request();
    // An offered subprotocol and a head in two pieces are no plain handshakes, which the server has a shorter way for.
    let offer = "\r\nSec-WebSocket-Protocol: pusher-channels-protocol-7\r\n\r\n";
    for (request, cut) in [(request.clone(), 0), (request.replacen("\r\n\r\n", offer, 1), 0), (request.clone(), 30)] {
        let mut wire = server.http().await.wire;
        wire.write(&request.as_bytes()[..cut]).await;
        // Answered on another connection: the server has read the first piece by now.
        server.api().await.trigger("room", "greet", "{}").await;
        let ping = wire_masked(r#"{"event":"pusher:ping"}"#);
        wire.write(&[&request.as_bytes()[cut..], &ping].concat()).await;
        let head = within("answer to the handshake", wire.head()).await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        for expected in ["pusher:connection_established", "pusher:pong"] {
            let item = within(expected, wire.item()).await;
            assert!(matches!(&item, Item::Text(text) if text.contains(expected)), "{item:?}");
        }
    }
}
