//! Protocol §4.3 to §4.5, §4.10: publishing.

use serde_json::{Value, json};

use crate::support::{Call, Client, TestServer};

async fn subscriber(server: &TestServer, channels: &[&str]) -> Client {
    let mut client = server.connect().await;
    for channel in channels {
        client.subscribe(channel).await;
    }
    client
}

#[tokio::test]
async fn data_arrives_exactly_as_it_was_given() {
    let server = TestServer::start().await;
    let mut client = subscriber(&server, &["room"]).await;
    let mut api = server.api().await;
    let texts = [
        "",
        " ",
        "plain",
        r#"{"some":"data"}"#,
        "{ \"spaces\" : [ 1.50 ] }\n",
        "\"quoted\\\"\"",
        "ü \u{2028} \u{0} \u{1f} 😀 </script>",
        "null",
    ];
    for text in texts {
        api.trigger("room", "my-event", text).await;
        client.expect_event("room", "my-event", text).await;
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn data_that_is_no_string_is_written_out() {
    let server = TestServer::start().await;
    let mut client = subscriber(&server, &["room"]).await;
    let mut api = server.api().await;
    for data in [json!({ "a": [1, null, "ü"] }), json!([]), json!({})] {
        api.post("/events", &json!({ "name": "greet", "channel": "room", "data": data })).await.ok();
        assert_eq!(client.expect_on("room", "greet").await.data(), data);
    }
}

#[tokio::test]
async fn escapes_in_the_request_are_undone_before_forwarding() {
    let server = TestServer::start().await;
    let mut client = subscriber(&server, &["room"]).await;
    let mut api = server.api().await;
    let body = r#"{"n\u0061me":"gr\u0065et","channel":"r\u006fom","data":"\u0041\ud83d\ude00\/\t"}"#;
    api.call(&Call::new("POST", "/apps/42/events", body.as_bytes())).await.ok();
    client.expect_event("room", "greet", "A😀/\t").await;
}

#[tokio::test]
async fn one_event_reaches_all_its_channels_and_duplicates_count_once() {
    let server = TestServer::start().await;
    let mut client = subscriber(&server, &["a", "b", "c"]).await;
    let mut api = server.api().await;
    let body = json!({ "name": "greet", "channels": ["b", "a", "b", "a", "unused"], "data": "{}" });
    api.post("/events", &body).await.ok();
    let mut seen = vec![client.expect("greet").await.channel().unwrap().to_owned()];
    seen.push(client.expect("greet").await.channel().unwrap().to_owned());
    seen.sort_unstable();
    assert_eq!(seen, ["a", "b"]);
    client.expect_silence().await;
}

#[tokio::test]
async fn channels_wins_over_channel() {
    let server = TestServer::start().await;
    let mut client = subscriber(&server, &["a", "b"]).await;
    let mut api = server.api().await;
    api.post("/events", &json!({ "name": "greet", "channel": "a", "channels": ["b"], "data": "{}" })).await.ok();
    client.expect_event("b", "greet", "{}").await;
    client.expect_silence().await;
    api.post("/events", &json!({ "name": "greet", "channel": "a", "channels": [], "data": "{}" })).await.error(400);
    client.expect_silence().await;
}

#[tokio::test]
async fn the_excluded_connection_does_not_get_the_event() {
    let server = TestServer::start().await;
    let mut one = subscriber(&server, &["room"]).await;
    let mut two = subscriber(&server, &["room"]).await;
    let mut api = server.api().await;
    api.trigger_except("room", "greet", "1", &one.socket_id).await;
    two.expect_event("room", "greet", "1").await;
    one.expect_silence().await;
    api.trigger_except("room", "greet", "2", "1.2").await;
    for client in [&mut one, &mut two] {
        client.expect_event("room", "greet", "2").await;
    }
    let body = json!({ "name": "greet", "channel": "room", "data": "3", "socket_id": null, "info": null });
    api.post("/events", &body).await.ok();
    for client in [&mut one, &mut two] {
        client.expect_event("room", "greet", "3").await;
    }
}

#[tokio::test]
async fn events_of_one_connection_arrive_in_order_at_every_subscriber() {
    let server = TestServer::start().await;
    let mut clients = vec![subscriber(&server, &["room"]).await, subscriber(&server, &["room"]).await];
    let mut api = server.api().await;
    for n in 0..100 {
        api.trigger("room", "tick", &n.to_string()).await;
    }
    for client in &mut clients {
        for n in 0..100 {
            client.expect_event("room", "tick", &n.to_string()).await;
        }
    }
}

#[tokio::test]
async fn encrypted_data_passes_untouched() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.subscribe_private("private-encrypted-room").await;
    let data = r#"{"nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","ciphertext":"q83vEjRWeJA="}"#;
    server.api().await.trigger("private-encrypted-room", "greet", data).await;
    client.expect_event("private-encrypted-room", "greet", data).await;
}

#[tokio::test]
async fn the_answer_tells_what_was_asked_and_nothing_else() {
    let server = TestServer::start().await;
    let _one = subscriber(&server, &["room"]).await;
    let _two = server.join("presence-room", "7").await;
    let _three = server.join("presence-room", "7").await;
    let mut api = server.api().await;
    let rows = [
        (Value::Null, json!({})),
        (json!(""), json!({})),
        (
            json!("subscription_count"),
            json!({ "channels": {
                "room": { "subscription_count": 1 },
                "presence-room": { "subscription_count": 2 },
                "empty": { "subscription_count": 0 }
            } }),
        ),
        (
            json!("user_count,subscription_count"),
            json!({ "channels": {
                "room": { "subscription_count": 1 },
                "presence-room": { "user_count": 1, "subscription_count": 2 },
                "empty": { "subscription_count": 0 }
            } }),
        ),
        (json!("user_count"), json!({ "channels": { "room": {}, "presence-room": { "user_count": 1 }, "empty": {} } })),
    ];
    for (info, expected) in rows {
        let channels = ["room", "presence-room", "empty", "room"];
        let body = json!({ "name": "greet", "channels": channels, "data": "{}", "info": info });
        assert_eq!(api.post("/events", &body).await.json(), expected, "{info}");
    }
    let call = Call::post("/apps/42/events", &json!({ "name": "greet", "channel": "room", "data": "{}" }))
        .with("info", "subscription_count");
    assert_eq!(api.call(&call).await.json(), json!({ "channels": { "room": { "subscription_count": 1 } } }));
    let body = json!({ "name": "greet", "channel": "room", "data": "{}", "info": "colour" });
    api.post("/events", &body).await.error(400);
}

#[tokio::test]
async fn parameters_may_stand_in_the_query_and_the_body_wins() {
    let server = TestServer::start().await;
    let mut client = subscriber(&server, &["a", "b"]).await;
    let mut api = server.api().await;
    let call = Call::new("POST", "/apps/42/events", b"")
        .with("name", "greet")
        .with("data", "{\"x\":1}")
        .with("channels[]", "a")
        .with("channels[]", "b");
    api.call(&call).await.ok();
    client.expect_event("a", "greet", "{\"x\":1}").await;
    client.expect_event("b", "greet", "{\"x\":1}").await;
    let body = json!({ "name": "from-body", "channel": "a" });
    let call = Call::post("/apps/42/events", &body).with("name", "from-query").with("data", "d");
    api.call(&call).await.ok();
    client.expect_event("a", "from-body", "d").await;
}

#[tokio::test]
async fn unknown_parameters_are_refused_in_the_query_and_ignored_in_the_body() {
    let server = TestServer::start().await;
    let mut client = subscriber(&server, &["room"]).await;
    let mut api = server.api().await;
    let body = json!({ "name": "greet", "channel": "room", "data": "{}", "colour": { "red": 1 } });
    api.post("/events", &body).await.ok();
    client.expect_event("room", "greet", "{}").await;
    let text = "The following query string parameters are extraneous: foo";
    assert_eq!(api.call(&Call::post("/apps/42/events", &body).with("foo", "1")).await.error(400), text);
    client.expect_silence().await;
}

/// What makes an event invalid, with the text if the protocol gives one.
fn invalid_events() -> Vec<(Value, Option<&'static str>)> {
    let good = || json!({ "name": "greet", "channel": "room", "data": "{}" });
    let without = |key: &str| {
        let mut event = good();
        event.as_object_mut().unwrap().remove(key);
        event
    };
    let with = |key: &str, value: Value| {
        let mut event = good();
        event[key] = value;
        event
    };
    vec![
        (without("name"), Some("Missing required parameter: name")),
        (without("data"), Some("Missing required parameter: data")),
        (without("channel"), Some("Missing required parameter: channel")),
        (with("name", json!(7)), Some("Expected name parameter to be a string")),
        (with("name", json!(["greet"])), Some("Expected name parameter to be a string")),
        (with("channel", json!(7)), Some("Expected channel parameter to be a string")),
        (with("channel", json!(["room"])), Some("Expected channel parameter to be a string")),
        (with("socket_id", json!(1.5)), Some("Expected socket_id parameter to be a string")),
        (with("info", json!(["user_count"])), Some("Expected info parameter to be a string")),
        (with("channel", json!("two words")), Some("Invalid channel name: two words")),
        (with("channel", json!("room#")), Some("Invalid channel name: room#")),
        (with("channel", json!("#room")), Some("Invalid channel name: #room")),
        (with("channel", json!("#server-to-user-")), None),
        (with("channel", json!(format!("#server-to-user-{}", "x".repeat(129)))), None),
        (with("channel", json!("")), None),
        (with("socket_id", json!("12")), Some("Invalid socket_id: 12")),
        (with("socket_id", json!("1.2.3")), Some("Invalid socket_id: 1.2.3")),
        (with("socket_id", json!("a.b")), Some("Invalid socket_id: a.b")),
        (with("socket_id", json!("1.2\n")), None),
        (with("socket_id", json!("１.２")), Some("Invalid socket_id: １.２")),
        (with("name", json!("pusher:foo")), Some("Invalid event name: pusher:foo")),
        (with("name", json!("pusher_internal:foo")), Some("Invalid event name: pusher_internal:foo")),
        (with("name", json!("")), None),
        (with("name", Value::Null), None),
        (with("data", Value::Null), None),
        (with("info", json!("user_count,colour")), None),
    ]
}

#[tokio::test]
async fn an_invalid_event_is_refused_with_its_reason() {
    let server = TestServer::start().await;
    let mut client = subscriber(&server, &["room"]).await;
    let mut api = server.api().await;
    for (body, text) in invalid_events() {
        let response = api.post("/events", &body).await;
        let error = response.error(400);
        assert!(text.is_none_or(|text| text == error), "{body}: {error}");
    }
    let lists = [
        json!({ "name": "greet", "channels": ["room", "two words"], "data": "{}" }),
        json!({ "name": "greet", "channels": ["room", 7], "data": "{}" }),
        json!({ "name": "greet", "channels": "room", "data": "{}" }),
        json!({ "name": "greet", "channels": {}, "data": "{}" }),
        json!({ "name": "greet", "channels": [], "data": "{}" }),
    ];
    for body in lists {
        api.post("/events", &body).await.error(400);
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    for body in ["not JSON", "{", "[]", "\"text\"", "7", "null", "{\"name\":\"greet\"} x", "{\"a\":1,}", "\u{feff}{}"] {
        for path in ["/apps/42/events", "/apps/42/batch_events"] {
            let response = api.call(&Call::new("POST", path, body.as_bytes())).await;
            let text = response.error(400);
            if ["not JSON", "{"].contains(&body) {
                assert_eq!(text, "Invalid JSON in request body");
            }
        }
    }
    api.call(&Call::new("POST", "/apps/42/events", b"{\"name\":\"\xff\"}")).await.error(400);
    api.call(&Call::new("POST", "/apps/42/events", b"")).await.error(400);
}

#[tokio::test]
async fn names_like_those_of_client_events_are_free_for_backends() {
    let server = TestServer::start().await;
    let mut client = subscriber(&server, &["room"]).await;
    let mut api = server.api().await;
    for name in ["client-typing", "pusher", "pusherx:foo", "Pusher:foo", "App\\Events\\Greeted", "ü 😀"] {
        api.trigger("room", name, "{}").await;
        client.expect_event("room", name, "{}").await;
    }
}

// Batches.

#[tokio::test]
async fn a_batch_is_published_in_order() {
    let server = TestServer::start().await;
    let mut client = subscriber(&server, &["a", "b"]).await;
    let mut other = subscriber(&server, &["a", "b"]).await;
    let mut api = server.api().await;
    let batch = json!({ "batch": [
        { "name": "one", "channel": "a", "data": "1" },
        { "name": "two", "channel": "b", "data": "2", "socket_id": other.socket_id },
        { "name": "three", "channel": "a", "data": "3" },
        { "name": "four", "channel": "b", "data": { "n": 4 } },
    ] });
    api.post("/batch_events", &batch).await.ok();
    client.expect_event("a", "one", "1").await;
    client.expect_event("b", "two", "2").await;
    client.expect_event("a", "three", "3").await;
    client.expect_event("b", "four", r#"{"n":4}"#).await;
    other.expect_event("a", "one", "1").await;
    other.expect_event("a", "three", "3").await;
    other.expect_event("b", "four", r#"{"n":4}"#).await;
    for client in [&mut client, &mut other] {
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn a_batch_answers_index_by_index() {
    let server = TestServer::start().await;
    let _one = server.join("presence-room", "7").await;
    let _two = subscriber(&server, &["room"]).await;
    let mut api = server.api().await;
    let batch = json!({ "batch": [
        { "name": "e", "channel": "presence-room", "data": "1", "info": "user_count,subscription_count" },
        { "name": "e", "channel": "room", "data": "2" },
        { "name": "e", "channel": "room", "data": "3", "info": "user_count,subscription_count" },
        { "name": "e", "channel": "room", "data": "3", "info": "" },
    ] });
    let expected = json!({ "batch": [
        { "user_count": 1, "subscription_count": 1 }, {}, { "subscription_count": 1 }, {}
    ] });
    assert_eq!(api.post("/batch_events", &batch).await.json(), expected);
}

#[tokio::test]
async fn one_invalid_event_spoils_the_whole_batch() {
    let server = TestServer::start().await;
    let mut client = subscriber(&server, &["room"]).await;
    let mut api = server.api().await;
    let good = json!({ "name": "greet", "channel": "room", "data": "{}" });
    for (bad, _) in invalid_events() {
        let response = api.post("/batch_events", &json!({ "batch": [good, bad, good] })).await;
        response.error(400);
    }
    for bad in [json!(7), json!("greet"), Value::Null, json!([])] {
        api.post("/batch_events", &json!({ "batch": [good, bad] })).await.error(400);
    }
    let large = json!({ "name": "greet", "channel": "room", "data": "x".repeat(10_241) });
    api.post("/batch_events", &json!({ "batch": [good, large] })).await.error(413);
    client.expect_silence().await;
}

#[tokio::test]
async fn a_batch_must_be_a_list_of_at_least_one() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    assert_eq!(api.post("/batch_events", &json!({})).await.error(400), "Missing required parameter: batch");
    for batch in [json!([]), json!({}), json!("x"), Value::Null, json!(1)] {
        api.post("/batch_events", &json!({ "batch": batch })).await.error(400);
    }
}

// The form before 2012.

#[tokio::test]
async fn the_deprecated_form_publishes_its_body() {
    let server = TestServer::start().await;
    let mut client = subscriber(&server, &["room"]).await;
    let mut other = subscriber(&server, &["room"]).await;
    let mut api = server.api().await;
    let call = Call::new("POST", "/apps/42/channels/room/events", "any text ü".as_bytes())
        .with("name", "greet")
        .with("socket_id", &other.socket_id);
    let response = api.call(&call).await;
    assert_eq!((response.status, response.body.as_str()), (202, "{}"), "{}", response.head);
    client.expect_event("room", "greet", "any text ü").await;
    other.expect_silence().await;
    api.call(&Call::new("POST", "/apps/42/channels/room/events", b"x")).await.error(400);
    let large = Call::new("POST", "/apps/42/channels/room/events", "x".repeat(10_241).as_bytes());
    api.call(&large.with("name", "greet")).await.error(413);
}

#[tokio::test]
async fn the_deprecated_statistics_are_those_of_the_channel() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let _one = subscriber(&server, &["room"]).await;
    let _two = server.join("presence-room", "7").await;
    assert_eq!(api.get("/channels/room/stats", &[]).await.json(), json!({ "occupied": true }));
    let expected = json!({ "occupied": true, "user_count": 1 });
    assert_eq!(api.get("/channels/presence-room/stats", &[]).await.json(), expected);
}
