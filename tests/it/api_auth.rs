//! Protocol §4.2 and §10.2: who may call the HTTP API.

use std::time::Duration;

use fanfare::config::{AppConfig, KeyPair, Secret};
use serde_json::{Value, json};

use crate::support::{APP_ID, Call, Encoding, KEY, SECRET, TestServer, sign, unix_now};

fn path(path: &str) -> String {
    format!("/apps/{APP_ID}{path}")
}

fn event() -> Value {
    json!({ "name": "greet", "channel": "room", "data": "{}" })
}

/// A server that accepts the timestamps of the published examples.
async fn timeless() -> TestServer {
    TestServer::with(|config| {
        config.apps.push(AppConfig::new("3", "278d425bdf160c739803", "7ad3773142a6692b25b8"));
        for app in &mut config.apps {
            app.limits.auth_timestamp_window = Duration::from_secs(100 * 365 * 24 * 3600);
        }
    })
    .await
}

#[tokio::test]
async fn the_published_examples_are_accepted_as_they_stand() {
    const AUTH: &str = "auth_key=app-key-1&auth_timestamp=1700000000&auth_version=1.0";
    let server = timeless().await;
    let mut http = server.http().await;
    let rows = [
        (
            "POST /apps/3/events",
            "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
             &body_md5=ec365a775a4cd0599faeb73354201b6f",
            "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
            r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#,
        ),
        (
            "GET /apps/42/channels",
            &format!("{AUTH}&filter_by_prefix=presence-&info=user_count,subscription_count"),
            "77a98fc5f38b7a0b562eb01226e4ef248250ed87a39f9e3ea64cc86e48af9cfc",
            "",
        ),
        (
            "GET /apps/42/channels",
            &format!("info=user_count%2Csubscription_count&{AUTH}&filter_by_prefix=presence-"),
            "77a98fc5f38b7a0b562eb01226e4ef248250ed87a39f9e3ea64cc86e48af9cfc",
            "",
        ),
        (
            "GET /apps/42/channels/presence-room@1,2",
            &format!("{AUTH}&info=user_count"),
            "51d7555a1d643247b5f51b8acd38e5d444eb2bb0b62196832b52b7232147a810",
            "",
        ),
        (
            "GET /apps/42/channels/presence-room%401%2C2",
            &format!("{AUTH}&info=user_count"),
            "51d7555a1d643247b5f51b8acd38e5d444eb2bb0b62196832b52b7232147a810",
            "",
        ),
        (
            "POST /apps/42/events",
            &format!("{AUTH}&body_md5=7c3d0946da4a3551325fc43c1d91bffc"),
            "6f8c470157dd571f2429c9ba31f53a72ef67d236ef2a1a6c05e85acb16d0b956",
            r#"{"name":"greet","channels":["room-1","room-2"],"data":"{\"msg\":\"héllo\"}","socket_id":"123.456","info":"subscription_count"}"#,
        ),
        (
            "POST /apps/42/batch_events",
            &format!("{AUTH}&body_md5=45315d7b8324360aaf02b48a6d9011c4"),
            "38671bf1839932f8d24fddc5c5468cb1a097e91dd3d392ea80652e519f70bc1d",
            r#"{"batch":[{"channel":"room-1","name":"greet","data":"{}"},{"channel":"room-2","name":"greet","data":"{}"}]}"#,
        ),
        (
            "POST /apps/42/users/u-1/terminate_connections",
            &format!("{AUTH}&body_md5=99914b932bd37a50b983c5e7c90ae93b"),
            "9edea49b3b9598fe91026fb42fa81c2e39424421bf8c3213aad899cce97f0e1f",
            "{}",
        ),
        (
            "POST /users/u-1/terminate_connections",
            &format!("{AUTH}&body_md5=99914b932bd37a50b983c5e7c90ae93b"),
            "a17d49f45b561cc3010c1a6d42df7bd9299ada49cb4f5f11f4fe2275fa0e8cec",
            "{}",
        ),
    ];
    for (line, query, signature, body) in rows {
        let mut request = format!(
            "{line}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body.as_bytes());
        let response = http.send(&request).await;
        assert_eq!(response.status, 200, "{line}: {}", response.body);
        // One digit off is another request.
        let wrong = String::from_utf8(request).unwrap().replace(signature, &format!("0{}", &signature[1..]));
        let response = http.send(wrong.as_bytes()).await;
        assert!(response.error(401).starts_with("Invalid signature"), "{line}: {}", response.body);
    }
    // Arrays stay two pairs. The request is authentic, and lacks something else.
    let signature = "da81baabe79ed8ccf06dee6ac71bcd7e6d5f8650d009ea800bb8aa5614d8b9f9";
    for arrays in ["channels[]=a&channels[]=b", "channels%5B%5D=a&channels%5B%5D=b"] {
        let request = format!(
            "POST /apps/42/events?{AUTH}&name=x&{arrays}&auth_signature={signature} HTTP/1.1\r\nHost: test\r\n\
             Content-Length: 0\r\n\r\n"
        );
        assert_eq!(http.send(request.as_bytes()).await.error(400), "Missing required parameter: data");
    }
}

#[tokio::test]
async fn each_failure_has_its_text() {
    let server = TestServer::with(|config| config.apps.push(AppConfig::new("43", "other-key", "other-secret"))).await;
    let mut api = server.api().await;
    let good = || Call::post(&path("/events"), &event());
    let rows = [
        (good().without("auth_key"), "Missing parameter: auth_key"),
        (good().set("auth_key", "nobody"), "Unknown auth_key"),
        (good().credentials("other-key", "other-secret"), "Unknown auth_key"),
        (Call::post("/apps/99/events", &event()), "Unknown auth_key"),
        (good().without("auth_version"), "Version required"),
        (good().set("auth_version", "2.0"), "Version not supported"),
        (good().set("auth_version", "1"), "Version not supported"),
        (good().without("auth_timestamp"), "Timestamp required"),
        (good().set("auth_timestamp", "now"), "Timestamp required"),
        (good().set("auth_timestamp", ""), "Timestamp required"),
        (good().set("auth_timestamp", "1.5"), "Timestamp required"),
        (good().without("body_md5"), "Missing parameter: body_md5"),
        (good().set("body_md5", &sign::md5(b"another body")), "Invalid body_md5"),
        (good().set("body_md5", ""), "Invalid body_md5"),
    ];
    for (call, text) in rows {
        assert_eq!(api.call(&call).await.error(401), text, "{}", call.target());
    }
    for call in [Call { secret: "wrong".to_owned(), ..good() }, Call { signature: Some(String::new()), ..good() }] {
        let response = api.call(&call).await;
        assert!(response.error(401).starts_with("Invalid signature"), "{}", response.body);
    }
    let request = format!(
        "GET {}?auth_key={KEY}&auth_timestamp={}&auth_version=1.0 HTTP/1.1\r\nHost: test\r\n\r\n",
        path("/channels"),
        unix_now()
    );
    api.http.send(request.as_bytes()).await.error(401);
    api.http.get(&path("/channels")).await.error(401);
    // The connection still serves who asks rightly.
    api.call(&good()).await.ok();
}

#[tokio::test]
async fn a_wrong_signature_is_explained_without_giving_anything_away() {
    for debug in [false, true] {
        let server = TestServer::with_app(|app| app.debug = debug).await;
        let mut api = server.api().await;
        let call = Call { signature: Some("f00".to_owned()), ..Call::post(&path("/events"), &event()) };
        let shown = call.text().replace('\n', "\\n");
        let text = format!(
            "Invalid signature: you should have sent HmacSHA256Hex(\"{shown}\", your_secret_key), but you sent \"f00\""
        );
        let response = api.call(&call).await;
        if debug {
            // Followed by what helps a developer.
            assert!(response.error(401).starts_with(&text), "{}", response.body);
        } else {
            assert_eq!(response.error(401), text);
        }
        assert!(!response.body.contains(SECRET) && !response.body.contains(&sign::hmac(SECRET, &call.text())));
    }
}

#[tokio::test]
async fn timestamps_may_be_600_seconds_off_by_default() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let at = |timestamp: u64| Call::get(&path("/channels")).set("auth_timestamp", &timestamp.to_string());
    let now = unix_now();
    for timestamp in [now - 595, now + 595, now] {
        api.call(&at(timestamp)).await.json();
    }
    for timestamp in [now - 605, now + 610, 0, 1_420_070_400, 99_999_999_999] {
        let response = api.call(&at(timestamp)).await;
        let text = response.error(401);
        assert!(text.starts_with("Timestamp expired: Given timestamp ("), "{text}");
        assert!(text.contains(" not within 600s of server time (20"), "{text}");
        assert!(text.ends_with("Z)"), "{text}");
    }
    let text = api.call(&at(1_420_070_400)).await;
    assert!(text.body.contains("(2015-01-01T00:00:00Z)"), "{}", text.body);
    for timestamp in ["-1", "99999999999999999999", "9223372036854775807", "18446744073709551615"] {
        api.call(&Call::get(&path("/channels")).set("auth_timestamp", timestamp)).await.error(401);
    }
}

#[tokio::test]
async fn the_window_of_timestamps_is_configurable() {
    let server = TestServer::with_app(|app| app.limits.auth_timestamp_window = Duration::from_secs(10)).await;
    let mut api = server.api().await;
    let now = unix_now();
    api.call(&Call::get(&path("/channels")).set("auth_timestamp", &(now - 4).to_string())).await.json();
    for timestamp in [now - 11, now + 20] {
        let response = api.call(&Call::get(&path("/channels")).set("auth_timestamp", &timestamp.to_string())).await;
        assert!(response.error(401).starts_with("Timestamp expired"), "{}", response.body);
    }
}

#[tokio::test]
async fn the_hex_of_a_signature_may_be_upper_case() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let call = Call::post(&path("/events"), &event());
    let signature = sign::hmac(SECRET, &call.text());
    assert_ne!(signature, signature.to_uppercase());
    api.call(&call).await.ok();
    api.call(&Call { signature: Some(signature.to_uppercase()), ..call.clone() }).await.ok();
    for wrong in [signature[..62].to_owned(), format!("{signature}00"), format!(" {signature}"), "zz".repeat(32)] {
        let call = Call { signature: Some(wrong), encoding: Encoding::Percent, ..call.clone() };
        let target = call.target().replace(' ', "%20");
        let mut request =
            format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", call.body.len()).into_bytes();
        request.extend(&call.body);
        api.http.send(&request).await.error(401);
    }
}

#[tokio::test]
async fn each_key_of_an_app_signs_with_its_own_secret() {
    let server = TestServer::with_app(|app| {
        app.keys.push(KeyPair { key: "second-key".to_owned(), secret: Secret::new("second-secret") });
    })
    .await;
    let mut api = server.api().await;
    let good = || Call::post(&path("/events"), &event());
    api.call(&good()).await.ok();
    api.call(&good().credentials("second-key", "second-secret")).await.ok();
    api.call(&good().credentials("second-key", SECRET)).await.error(401);
    api.call(&good().credentials(KEY, "second-secret")).await.error(401);
}

#[tokio::test]
async fn the_signature_covers_everything() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let good = Call::get(&path("/channels")).with("filter_by_prefix", "a");
    api.call(&good).await.json();
    let text = good.text();
    for (what, changed) in [
        ("method", text.replace("GET", "POST")),
        ("path", text.replace("/channels", "/events")),
        ("value", text.replace("filter_by_prefix=a", "filter_by_prefix=b")),
        ("missing parameter", text.replace("&filter_by_prefix=a", "")),
        ("more parameters", format!("{text}&info=subscription_count")),
        ("order", text.replace("&filter_by_prefix=a", "").replace("auth_key", "filter_by_prefix=a&auth_key")),
        ("line", text.replace('\n', "\r\n")),
    ] {
        assert_ne!(changed, text, "{what}");
        let call = Call { signature: Some(sign::hmac(SECRET, &changed)), ..good.clone() };
        let response = api.call(&call).await;
        assert!(response.error(401).starts_with("Invalid signature"), "{what}: {}", response.body);
    }
}

#[tokio::test]
async fn query_values_are_understood_however_a_library_writes_them() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    let mut api = server.api().await;
    let rows = [
        ("hello world", Encoding::Percent),
        ("hello world", Encoding::Plus),
        ("a+b", Encoding::Percent),
        // Signed as it is sent, plus and all: tried second.
        ("a+b", Encoding::Raw),
        ("a,b;c@d=e", Encoding::Raw),
        ("a,b;c@d=e/f?g", Encoding::Percent),
        ("ü €", Encoding::Percent),
        ("ü €", Encoding::Plus),
        ("100%", Encoding::Percent),
        ("a&b#c", Encoding::Plus),
        ("%41", Encoding::Percent),
    ];
    for (name, encoding) in rows {
        let call = Call::new("POST", &path("/events"), b"")
            .with("name", name)
            .with("channel", "room")
            .with("data", name)
            .encoding(encoding);
        client.label(&call.target());
        let response = api.call(&call).await;
        assert_eq!(response.status, 200, "{name} {encoding:?}: {}", response.body);
        client.expect_event("room", name, name).await;
    }
}

#[tokio::test]
async fn empty_values_and_upper_case_names_are_part_of_the_signature() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    api.call(&Call::get(&path("/channels")).with("filter_by_prefix", "").with("info", "")).await.json();
    let call = Call::get(&path("/channels")).with("FILTER_BY_PREFIX", "x").with("Info", "subscription_count");
    assert!(call.text().contains("&filter_by_prefix=x&info=subscription_count"), "{}", call.text());
    api.call(&call).await.json();
    let mut call = Call::get(&path("/channels"));
    for (key, _) in &mut call.params {
        *key = key.to_uppercase();
    }
    api.call(&call).await.json();
}

#[tokio::test]
async fn paths_are_understood_raw_and_encoded_and_signed_either_way() {
    let server = TestServer::start().await;
    let name = "presence-room@1,2;3=4.5";
    let _member = server.join(name, "7").await;
    let mut api = server.api().await;
    let raw = path(&format!("/channels/{name}"));
    let encoded = path("/channels/presence-room%401%2C2%3B3%3D4.5");
    let rows = [(&raw, &raw), (&encoded, &encoded), (&encoded, &raw)];
    for (sent, signed) in rows {
        let mut call = Call::get(sent).with("info", "user_count");
        call.signed_path = Some(signed.clone());
        let response = api.call(&call).await;
        assert_eq!(response.json(), json!({ "occupied": true, "user_count": 1 }), "{sent} signed as {signed}");
    }
}

#[tokio::test]
async fn python_sends_the_digest_of_nothing_with_every_get() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let empty = "d41d8cd98f00b204e9800998ecf8427e";
    assert_eq!(sign::md5(b""), empty);
    for target in ["/channels", "/channels/room", "/channels/presence-room/users"] {
        api.call(&Call::get(&path(target)).with("body_md5", empty)).await.json();
    }
    let terminate = path("/users/7/terminate_connections");
    api.call(&Call::new("POST", &terminate, b"").with("body_md5", empty)).await.ok();
    api.call(&Call::new("POST", &terminate, b"")).await.ok();
    // It is computed, not trusted.
    let wrong = sign::md5(b"something");
    assert_eq!(api.call(&Call::get(&path("/channels")).with("body_md5", &wrong)).await.error(401), "Invalid body_md5");
}

#[tokio::test]
async fn python_terminates_users_without_naming_the_app() {
    let server = TestServer::with(|config| config.apps.push(AppConfig::new("43", "other-key", "other-secret"))).await;
    let mut own = server.sign_in("7").await;
    let mut api = server.api().await;
    let call = Call::post("/users/7/terminate_connections", &json!({}));
    api.call(&call.clone().credentials("other-key", "other-secret")).await.ok();
    own.expect_silence().await;
    api.call(&call.clone().credentials("nobody", "x")).await.error(401);
    api.call(&Call { secret: "wrong".to_owned(), ..call.clone() }).await.error(401);
    own.expect_silence().await;
    api.call(&call).await.ok();
    own.expect_close(4009).await;
}

#[tokio::test]
async fn a_disabled_app_is_answered_with_403_once_it_has_proved_itself() {
    let server = TestServer::with_app(|app| app.enabled = false).await;
    let mut api = server.api().await;
    api.call(&Call::post(&path("/events"), &event())).await.error(403);
    api.call(&Call::get(&path("/channels"))).await.error(403);
    api.call(&Call { secret: "wrong".to_owned(), ..Call::post(&path("/events"), &event()) }).await.error(401);
}

#[tokio::test]
async fn authentication_comes_before_any_other_judgement() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    for body in [json!({}), json!([]), json!({ "name": "greet", "channel": "room", "data": "x".repeat(20_000) })] {
        let call = Call { secret: "wrong".to_owned(), ..Call::post(&path("/events"), &body) };
        api.call(&call).await.error(401);
    }
    let call = Call { secret: "wrong".to_owned(), ..Call::new("POST", &path("/events"), b"not JSON") };
    api.call(&call).await.error(401);
    // Only what can be judged without knowing who asks comes earlier.
    let large = json!({ "padding": "x".repeat(1024 * 1024) });
    let call = Call { secret: "wrong".to_owned(), ..Call::post(&path("/events"), &large) };
    api.call(&call).await.error(413);
    let mut http = server.http().await;
    http.get("/nowhere").await.error(404);
    http.get(&path("/events")).await.error(405);
}
