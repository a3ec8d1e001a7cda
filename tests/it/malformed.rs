//! Whatever arrives, it concerns nobody but the one who sent it: after each of these a fresh client is served at once.

use serde_json::json;

use crate::support::{Client, DEADLINE, Item, TestServer, head, masked, unmasked, wire_masked};

/// A client that connects now, subscribes and gets an event.
async fn fresh_client_is_served(server: &TestServer) {
    let mut client = server.connect().await;
    client.subscribe("fresh").await;
    server.api().await.trigger("fresh", "greet", "{}").await;
    client.expect_event("fresh", "greet", "{}").await;
}

/// Reads until the server ends the connection; the code of its close frame, if it sent one.
async fn closed(client: &mut Client) -> Option<u16> {
    let mut code = None;
    loop {
        let item = tokio::time::timeout(2 * DEADLINE, client.wire.item()).await;
        match item.unwrap_or_else(|_| client.fail("the connection is still open")) {
            Item::Close(sent, _) => {
                code = sent;
                client.wire.finish().await;
            }
            Item::End => return code,
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_is_no_json_object_is_an_error_and_the_connection_lives() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let texts = [
        "",
        " ",
        "not JSON",
        "{",
        "}",
        "[]",
        "7",
        "null",
        "true",
        "\"text\"",
        "{\"event\":\"pusher:ping\"",
        "{\"event\":\"pusher:ping\"}}",
        "{\"event\":\"pusher:ping\",}",
        "{'event':'pusher:ping'}",
        "{\"event\":\"\\x\"}",
        "{\"event\":\"a\nb\"}",
        "\u{feff}{\"event\":\"pusher:ping\"}",
        "{\"event\":\"pusher:ping\"}{\"event\":\"pusher:ping\"}",
        "{\"a\":01}",
        "{\"a\":NaN}",
    ];
    for text in texts {
        client.label(text);
        client.send_text(text).await;
        client.expect_error("Received invalid JSON").await;
        client.expect_silence().await;
    }
    // Half a surrogate pair is JSON by its grammar, and no text.
    for text in [r#"{"event":"\ud800"}"#, r#"{"event":"client-a","channel":"\udc00","data":"\ud800"}"#] {
        client.send_text(text).await;
        client.expect_some_error().await;
        client.expect_silence().await;
    }
    client.subscribe("room").await;
    fresh_client_is_served(&server).await;
}

#[tokio::test]
async fn a_wrong_type_is_an_error_and_the_connection_lives() {
    let server = TestServer::with_app(|app| app.client_events = true).await;
    let mut client = server.connect().await;
    let messages = [
        json!({}),
        json!({ "event": 7 }),
        json!({ "event": null }),
        json!({ "event": ["pusher:ping"] }),
        json!({ "event": { "name": "pusher:ping" } }),
        json!({ "event": "pusher:subscribe", "data": { "channel": { "name": "room" } } }),
        json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": 7 } }),
        json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": ["a:b"] } }),
        json!({ "event": "pusher:subscribe", "data": { "channel": "presence-a", "auth": "a:b", "channel_data": {} } }),
        json!({ "event": "pusher:signin", "data": { "auth": "a:b", "user_data": { "id": "7" } } }),
        json!({ "event": "client-a", "channel": 7, "data": {} }),
        json!({ "event": "client-a", "channel": ["private-a"], "data": {} }),
    ];
    for message in messages {
        client.label(&message.to_string());
        client.send(message).await;
        client.expect_some_error().await;
        client.expect_only_rejections().await;
    }
    fresh_client_is_served(&server).await;
}

/// A message nested this deep, itself included.
fn nested(depth: usize) -> String {
    let inner = depth - 1;
    format!(r#"{{"event":"pusher:ping","x":{}{}}}"#, "[".repeat(inner), "]".repeat(inner))
}

#[tokio::test]
async fn a_hundred_and_twenty_eight_levels_are_accepted_and_one_more_is_not() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.send_text(&nested(128)).await;
    client.expect("pusher:pong").await;
    for depth in [129, 1000, 30_000] {
        client.send_text(&nested(depth)).await;
        client.expect_error("Received invalid JSON").await;
    }
    let objects = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    for text in [objects, "[".repeat(60_000), "{\"a\":".repeat(10_000)] {
        client.send_text(&text).await;
        client.expect_error("Received invalid JSON").await;
    }
    client.expect_silence().await;

    // The same inside strings that are parsed later, and in the bodies of the API.
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let channel_data = |depth: usize| format!(r#"{{"user_id":"7","user_info":{}}}"#, deep(depth - 1));
    client.send(client.membership("presence-room", &channel_data(129))).await;
    client.expect_rejection("presence-room", "ValidationError", 400).await;
    client.join_as("presence-room", &channel_data(128)).await;
    let user_data = |depth: usize| format!(r#"{{"id":"7","x":{}}}"#, deep(depth - 1));
    client.send(client.sign_in_request(&user_data(129))).await;
    client.expect_some_error().await;
    client.sign_in_as(&user_data(128)).await;
    let body = |depth: usize| format!(r#"{{"name":"e","channel":"room","data":"d","x":{}}}"#, deep(depth - 1));
    let mut api = server.api().await;
    let call = |text: String| crate::support::Call::new("POST", "/apps/42/events", text.as_bytes());
    api.call(&call(body(128))).await.ok();
    assert_eq!(api.call(&call(body(129))).await.error(400), "Invalid JSON in request body");
    assert_eq!(api.call(&call("[".repeat(500_000))).await.error(400), "Invalid JSON in request body");
    fresh_client_is_served(&server).await;
}

#[tokio::test]
async fn doubly_encoded_data_is_bounded_in_depth_too() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let inner = format!(r#"{{"channel":"room","x":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    client.send(json!({ "event": "pusher:subscribe", "data": inner })).await;
    client.expect_some_error().await;
    client.expect_silence().await;
}

#[tokio::test]
async fn text_that_is_no_utf_8_ends_only_its_own_connection() {
    let server = TestServer::start().await;
    for payload in [&b"{\"event\":\"\xff\"}"[..], b"\xc3", b"\xed\xa0\x80"] {
        let mut client = server.connect().await;
        client.wire.write(&masked(true, 1, payload)).await;
        let code = closed(&mut client).await;
        assert!([Some(1007), Some(1002), Some(1003)].contains(&code), "{code:?} for {payload:?}");
        fresh_client_is_served(&server).await;
    }
}

#[tokio::test]
async fn a_binary_message_is_an_error_or_closes_with_1003() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.wire.write(&masked(true, 2, br#"{"event":"pusher:ping"}"#)).await;
    match client.item().await {
        Item::Text(text) => {
            let message = crate::support::Message::parse(&text);
            assert!(message.json["data"]["code"].is_null() && !message.error().is_empty());
            client.expect_silence().await;
        }
        Item::Close(Some(1003), _) => {}
        other => panic!("{other:?}"),
    }
    fresh_client_is_served(&server).await;
}

#[tokio::test]
async fn a_message_may_come_in_fragments_with_control_frames_in_between() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let text = json!({ "event": "pusher:subscribe", "data": { "channel": "room", "x": "ü😀" } }).to_string();
    let bytes = text.as_bytes();
    // Cut inside a character, too.
    let cut = text.find('ü').unwrap() + 1;
    client.wire.write(&masked(false, 1, &bytes[..3])).await;
    client.wire.write(&masked(true, 9, b"now")).await;
    assert!(matches!(client.item().await, Item::Pong(payload) if payload == b"now"));
    client.wire.write(&masked(false, 0, &bytes[3..cut])).await;
    client.wire.write(&masked(false, 0, b"")).await;
    client.wire.write(&masked(true, 0, &bytes[cut..])).await;
    client.expect_success("room").await;
    // And the bytes of a frame one by one.
    for byte in masked(true, 1, br#"{"event":"pusher:ping"}"#) {
        client.wire.write(&[byte]).await;
    }
    client.expect("pusher:pong").await;
}

#[tokio::test]
async fn fragments_are_limited_as_a_whole() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let part = "x".repeat(10_000);
    client.wire.write(&masked(false, 1, b"{\"event\":\"pusher:ping\",\"x\":\"")).await;
    for _ in 0..200 {
        if client.wire.try_write(&masked(false, 0, part.as_bytes())).await.is_err() {
            break;
        }
    }
    let _ = client.wire.try_write(&masked(true, 0, b"\"}")).await;
    assert_eq!(closed(&mut client).await, Some(1009));
    fresh_client_is_served(&server).await;
}

#[tokio::test]
async fn a_message_above_a_mebibyte_closes_with_1009() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let _ = client.wire.try_write(&wire_masked(&"x".repeat(1024 * 1024 + 1))).await;
    assert_eq!(closed(&mut client).await, Some(1009));
    // Announced is enough: nobody waits for four exabytes.
    let mut client = server.connect().await;
    let mut bytes = head(true, 1, 1 << 62, true);
    bytes.extend([0; 4]);
    client.wire.write(&bytes).await;
    assert_eq!(closed(&mut client).await, Some(1009));
    fresh_client_is_served(&server).await;
}

#[tokio::test]
async fn a_message_below_a_mebibyte_is_only_an_error() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.send_text(&"x".repeat(1024 * 1024)).await;
    client.expect_some_error().await;
    client.expect_silence().await;
}

#[tokio::test]
async fn frames_against_the_rules_end_the_connection_with_1002() {
    let server = TestServer::start().await;
    let text = br#"{"event":"pusher:ping"}"#;
    let mut reserved_bit = masked(true, 1, text);
    reserved_bit[0] |= 0x40;
    let mut long_ping = head(true, 9, 126, true);
    long_ping.extend([0; 4 + 126]);
    let rows = [
        ("unmasked", unmasked(true, 1, text)),
        ("reserved bit", reserved_bit),
        ("reserved data opcode", masked(true, 3, text)),
        ("reserved control opcode", masked(true, 11, b"")),
        ("continuation of nothing", masked(true, 0, text)),
        ("fragmented ping", masked(false, 9, b"")),
        ("long ping", long_ping),
        ("text within a fragmented text", [masked(false, 1, b"{"), masked(true, 1, text)].concat()),
        ("close with half a code", masked(true, 8, b"\x03")),
        ("close with a code that cannot be sent", masked(true, 8, &1005_u16.to_be_bytes())),
    ];
    for (row, bytes) in rows {
        let mut client = server.connect().await;
        client.label(row);
        client.wire.write(&bytes).await;
        let code = closed(&mut client).await;
        assert!([None, Some(1002)].contains(&code), "{row}: {code:?}");
        if row == "unmasked" {
            assert_eq!(code, Some(1002), "{row}");
        }
        fresh_client_is_served(&server).await;
    }
}

#[tokio::test]
async fn garbage_instead_of_a_request_is_turned_away() {
    let server = TestServer::start().await;
    let noise: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let rows: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client on the wrong port \r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /app/app-key-1 HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand then no frame at all",
        &noise,
    ];
    for bytes in rows {
        let mut http = server.http().await;
        let _ = http.wire.try_write(bytes).await;
        http.wire.finish().await;
        // An error or nothing, but an end.
        tokio::time::timeout(DEADLINE, http.wire.rest()).await.expect("the connection is still open");
        fresh_client_is_served(&server).await;
    }
}

#[tokio::test]
async fn half_a_handshake_holds_nobody_up() {
    let server = TestServer::start().await;
    let request = server.dial().request();
    let mut held = Vec::new();
    for length in (0..request.len()).step_by(7) {
        let mut http = server.http().await;
        http.wire.write(&request.as_bytes()[..length]).await;
        held.push(http);
    }
    assert!(held.len() > 20);
    fresh_client_is_served(&server).await;
    // The rest may still come.
    let mut http = held.remove(10);
    http.wire.write(&request.as_bytes()[70..]).await;
    let head = http.wire.head().await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    drop(held);
    fresh_client_is_served(&server).await;
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let server = TestServer::start().await;
    let mut http = server.http().await;
    http.wire.write(b"GET /app/app-key-1?protocol=7 HTTP/1.1\r\n").await;
    let line = format!("X-Filler: {}\r\n", "x".repeat(8000));
    for _ in 0..1000 {
        if http.wire.try_write(line.as_bytes()).await.is_err() {
            break;
        }
    }
    http.wire.finish().await;
    let answer = tokio::time::timeout(DEADLINE, http.wire.rest()).await.expect("the connection is still open");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    fresh_client_is_served(&server).await;
}

#[tokio::test]
async fn a_client_that_vanishes_inside_a_message_leaves_its_channels() {
    let server = TestServer::start().await;
    let mut ann = server.join("presence-room", "ann").await;
    for length in [1, 5, 10] {
        let mut bob = server.join("presence-room", "bob").await;
        ann.expect_on("presence-room", "pusher_internal:member_added").await;
        bob.wire.write(&wire_masked(r#"{"event":"pusher:ping"}"#)[..length]).await;
        drop(bob);
        ann.expect_on("presence-room", "pusher_internal:member_removed").await;
        // Half-closed is as good as gone.
        let mut carl = server.join("presence-room", "carl").await;
        ann.expect_on("presence-room", "pusher_internal:member_added").await;
        carl.wire.finish().await;
        ann.expect_on("presence-room", "pusher_internal:member_removed").await;
    }
    fresh_client_is_served(&server).await;
}

#[tokio::test]
async fn a_flood_of_errors_is_answered_one_by_one() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let flood = wire_masked("not JSON").repeat(2000);
    client.wire.write(&flood).await;
    for _ in 0..2000 {
        client.expect_error("Received invalid JSON").await;
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn ugly_targets_are_answered() {
    let server = TestServer::start().await;
    let mut http = server.http().await;
    let long = format!("/apps/42/channels/{}", "x".repeat(5000));
    for target in [
        "/apps/42/channels/%",
        "/apps/42/channels/%ff%fe",
        "/apps/%zz/events",
        "/%00",
        "//",
        "/apps/42/channels?&&==&a",
        &long,
    ] {
        let response = http.get(target).await;
        assert!((400..500).contains(&response.status), "{target}: {}", response.head);
    }
    fresh_client_is_served(&server).await;
}
