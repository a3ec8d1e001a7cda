//! Protocol §4.6 to §4.8: asking about channels.

use serde_json::{Value, json};

use crate::support::TestServer;

#[tokio::test]
async fn occupied_channels_are_listed_and_no_others() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    assert_eq!(api.get("/channels", &[]).await.json(), json!({ "channels": {} }));
    let mut client = server.connect().await;
    client.subscribe("a").await;
    client.subscribe_private("private-b").await;
    client.join("presence-c", "7").await;
    api.trigger("cache-unused", "greet", "{}").await;
    assert_eq!(
        api.get("/channels", &[]).await.json(),
        json!({ "channels": { "a": {}, "private-b": {}, "presence-c": {} } })
    );
    client.leave("a").await;
    client.leave("presence-c").await;
    api.expect_channels(json!({ "private-b": {} })).await;
}

#[tokio::test]
async fn the_list_can_be_narrowed_by_prefix_and_widened_by_counts() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let mut one = server.connect().await;
    one.subscribe("room-1").await;
    one.join("presence-a", "7").await;
    let mut two = server.connect().await;
    two.subscribe("room-1").await;
    two.subscribe("room-2").await;
    two.join("presence-a", "7").await;
    two.join("presence-b", "8").await;
    one.expect_silence().await;
    let rows: [(&[(&str, &str)], Value); 6] = [
        (&[("filter_by_prefix", "room-")], json!({ "room-1": {}, "room-2": {} })),
        (&[("filter_by_prefix", "nothing")], json!({})),
        (&[("filter_by_prefix", "")], json!({ "room-1": {}, "room-2": {}, "presence-a": {}, "presence-b": {} })),
        (
            &[("filter_by_prefix", "presence-"), ("info", "user_count")],
            json!({ "presence-a": { "user_count": 1 }, "presence-b": { "user_count": 1 } }),
        ),
        (
            &[("info", "subscription_count"), ("filter_by_prefix", "room-")],
            json!({ "room-1": { "subscription_count": 2 }, "room-2": { "subscription_count": 1 } }),
        ),
        (
            &[("filter_by_prefix", "presence-a"), ("info", "subscription_count,user_count")],
            json!({ "presence-a": { "user_count": 1, "subscription_count": 2 } }),
        ),
    ];
    for (params, expected) in rows {
        assert_eq!(api.get("/channels", params).await.json(), json!({ "channels": expected }), "{params:?}");
    }
}

#[tokio::test]
async fn user_counts_of_a_list_need_a_presence_prefix() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let text = "user_count may only be requested for presence channels - please supply filter_by_prefix beginning \
                with presence-";
    let rows: [&[(&str, &str)]; 4] = [
        &[("info", "user_count")],
        &[("info", "user_count"), ("filter_by_prefix", "presence")],
        &[("info", "user_count"), ("filter_by_prefix", "room-")],
        &[("info", "subscription_count,user_count"), ("filter_by_prefix", "")],
    ];
    for params in rows {
        assert_eq!(api.get("/channels", params).await.error(400), text, "{params:?}");
    }
    for info in ["colour", "subscription_count,colour", "cache"] {
        api.get("/channels", &[("info", info)]).await.error(400);
    }
}

#[tokio::test]
async fn a_channel_tells_what_it_is_asked() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let mut one = server.join("presence-room", "7").await;
    let _two = server.join("presence-room", "7").await;
    one.subscribe("room").await;
    let rows = [
        ("room", "", json!({ "occupied": true })),
        ("room", "subscription_count", json!({ "occupied": true, "subscription_count": 1 })),
        ("presence-room", "user_count", json!({ "occupied": true, "user_count": 1 })),
        ("presence-room", "subscription_count", json!({ "occupied": true, "subscription_count": 2 })),
        (
            "presence-room",
            "user_count,subscription_count",
            json!({ "occupied": true, "user_count": 1, "subscription_count": 2 }),
        ),
        ("nowhere", "", json!({ "occupied": false })),
        ("nowhere", "subscription_count", json!({ "occupied": false, "subscription_count": 0 })),
        (
            "presence-nowhere",
            "user_count,subscription_count",
            json!({ "occupied": false, "user_count": 0, "subscription_count": 0 }),
        ),
        ("presence-cache-nowhere", "cache,user_count", json!({ "occupied": false, "user_count": 0, "cache": null })),
    ];
    for (channel, info, expected) in rows {
        assert_eq!(api.channel(channel, info).await, expected, "{channel} {info}");
    }
    assert_eq!(api.get("/channels/room", &[]).await.json(), json!({ "occupied": true }));
}

#[tokio::test]
async fn what_a_channel_cannot_have_is_a_mistake() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let rows = [
        ("room", "user_count"),
        ("private-room", "user_count,subscription_count"),
        ("room", "cache"),
        ("presence-room", "cache"),
        ("room", "colour"),
        ("room", "subscription_count,colour"),
    ];
    for (channel, info) in rows {
        api.get(&format!("/channels/{channel}"), &[("info", info)]).await.error(400);
    }
    for name in ["two%20words", "a%2Fb", "r%C3%A9union", &"x".repeat(165)] {
        api.get(&format!("/channels/{name}"), &[]).await.error(400);
    }
}

#[tokio::test]
async fn the_users_of_a_presence_channel_are_distinct() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    assert_eq!(api.get("/channels/presence-room/users", &[]).await.json(), json!({ "users": [] }));
    let _one = server.join("presence-room", "7").await;
    let _two = server.join("presence-room", "7").await;
    let mut three = server.connect().await;
    three.join_as("presence-room", r#"{"user_id":10}"#).await;
    let answer = api.get("/channels/presence-room/users", &[]).await.json();
    let mut users = answer["users"].as_array().unwrap().clone();
    users.sort_by_key(|user| user["id"].as_str().unwrap().to_owned());
    assert_eq!(users, [json!({ "id": "10" }), json!({ "id": "7" })], "{answer}");
    for channel in ["room", "private-room", "cache-room", "presence"] {
        api.get(&format!("/channels/{channel}/users"), &[]).await.error(400);
    }
}
