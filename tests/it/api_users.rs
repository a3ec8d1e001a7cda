//! Protocol §4.9: terminating a user's connections.

use serde_json::json;

use crate::support::{Call, TestServer};

#[tokio::test]
async fn a_user_without_connections_is_terminated_all_the_same() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    api.post("/users/nobody/terminate_connections", &json!({})).await.ok();
    api.call(&Call::new("POST", "/apps/42/users/nobody/terminate_connections", b"")).await.ok();
}

#[tokio::test]
async fn the_id_in_the_path_is_decoded() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    for (id, segment) in
        [("a b", "a%20b"), ("ü/😀", "%C3%BC%2F%F0%9F%98%80"), ("7@x", "7@x"), ("a+b", "a+b"), ("%41", "%2541")]
    {
        let mut client = server.sign_in(id).await;
        client.label(segment);
        api.post(&format!("/users/{segment}/terminate_connections"), &json!({})).await.ok();
        assert_eq!(client.expect_close(4009).await, "You got disconnected by the app.");
        client.expect_end().await;
    }
}

#[tokio::test]
async fn another_apps_user_of_the_same_name_is_not_touched() {
    let server = TestServer::with(|config| {
        config.apps.push(fanfare::config::AppConfig::new("43", "other-key", "other-secret"));
    })
    .await;
    let mut own = server.sign_in("7").await;
    let call = Call::post("/apps/43/users/7/terminate_connections", &json!({}));
    server.api().await.call(&call.credentials("other-key", "other-secret")).await.ok();
    own.expect_silence().await;
}
