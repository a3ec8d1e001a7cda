//! Keys of tokens from a URL: fetched when they are needed, again when they change, and kept while nobody answers.

use std::time::Duration;

use fanfare::config::{JwtAlgorithm, JwtConfig};
use serde_json::{Value, json};

use crate::support::jwt::{Issuer, JWT_SECRET};
use crate::support::{Answer, Ask, TestServer, Web};

/// A server that takes the keys from there, and asks as often as it likes.
async fn server_with(web: &Web, change: impl FnOnce(&mut JwtConfig)) -> TestServer {
    let mut jwt = JwtConfig {
        jwks_url: format!("{}/keys", web.url),
        jwks_min_interval: Duration::ZERO,
        channels: vec!["private-user-{sub}".to_owned()],
        ..JwtConfig::new(vec![JwtAlgorithm::Rs256, JwtAlgorithm::Es256, JwtAlgorithm::EdDsa])
    };
    change(&mut jwt);
    TestServer::with_app(|app| app.auth.jwt = Some(jwt)).await
}

/// A web server with these keys.
async fn web(keys: Vec<Value>) -> Web {
    Web::start(move |_| set(&keys)).await
}

fn set(keys: &[Value]) -> Answer {
    Answer(200, json!({ "keys": keys }).to_string())
}

/// Asks with a token of this issuer whose key has this name.
fn ask(issuer: &Issuer, kid: &str) -> Ask {
    Ask::channel("1.2", "private-user-ann").token(&issuer.named_token(kid, json!({ "sub": "ann" })))
}

#[tokio::test]
async fn keys_of_every_kind_are_fetched_once_and_found_by_name() {
    let (rsa, ec, ed) = (Issuer::rsa(), Issuer::ec(), Issuer::ed());
    let web = web(vec![rsa.jwk("r"), ec.jwk("e"), ed.jwk("d")]).await;
    let server = server_with(&web, |_| {}).await;
    for (issuer, kid) in [(&rsa, "r"), (&ec, "e"), (&ed, "d")] {
        ask(issuer, kid).allowed(&server).await;
        ask(issuer, kid).allowed(&server).await;
        // A token need not name its key.
        let unnamed = issuer.token(json!({ "sub": "ann" }));
        Ask::channel("1.2", "private-user-ann").token(&unnamed).allowed(&server).await;
    }
    assert_eq!(web.seen().len(), 1);
    assert_eq!(web.seen()[0].path, "/keys");
    ask(&Issuer::ed(), "d").forbidden(&server).await;
    ask(&ed, "e").forbidden(&server).await;
}

#[tokio::test]
async fn a_key_that_is_new_is_fetched_and_one_that_is_gone_no_longer_counts() {
    let (old, new) = (Issuer::ed(), Issuer::ed());
    let web = web(vec![old.jwk("old")]).await;
    let server = server_with(&web, |_| {}).await;
    ask(&old, "old").allowed(&server).await;
    let keys = vec![new.jwk("new")];
    web.answer(move |_| set(&keys));
    ask(&new, "new").allowed(&server).await;
    assert_eq!(web.seen().len(), 2);
    ask(&old, "old").forbidden(&server).await;
}

#[tokio::test]
async fn keys_that_are_old_are_fetched_again_and_nobody_waits_for_it() {
    let issuer = Issuer::ed();
    let web = web(vec![issuer.jwk("k")]).await;
    let server = server_with(&web, |jwt| jwt.jwks_max_age = Duration::ZERO).await;
    ask(&issuer, "k").allowed(&server).await;
    web.hold(true);
    ask(&issuer, "k").allowed(&server).await;
    web.expect_seen(2).await;
}

#[tokio::test]
async fn invented_names_do_not_decide_how_often_the_issuer_is_asked() {
    let issuer = Issuer::ed();
    let web = web(vec![issuer.jwk("k")]).await;
    let server = server_with(&web, |jwt| jwt.jwks_min_interval = Duration::from_secs(3600)).await;
    for n in 0..20 {
        ask(&issuer, &format!("invented-{n}")).forbidden(&server).await;
    }
    assert_eq!(web.seen().len(), 1);
    ask(&issuer, "k").allowed(&server).await;
}

#[tokio::test]
async fn whoever_needs_the_keys_while_they_are_fetched_waits_for_the_same_answer() {
    let issuer = Issuer::ed();
    let web = web(vec![issuer.jwk("k")]).await;
    let server = server_with(&web, |_| {}).await;
    web.hold(true);
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut http = server.http().await;
        let request = ask(&issuer, "k").bytes();
        waiting.push(tokio::spawn(async move { http.send(&request).await }));
    }
    // One that does not wait for the answer does not take it from the others.
    let mut impatient = server.http().await;
    impatient.wire.write(&ask(&issuer, "k").bytes()).await;
    web.expect_seen(1).await;
    drop(impatient);
    web.hold(false);
    for answer in waiting {
        answer.await.unwrap().json();
    }
    assert_eq!(web.seen().len(), 1);
}

#[tokio::test]
async fn the_old_keys_are_good_while_the_issuer_is_down() {
    let issuer = Issuer::ed();
    let web = web(vec![issuer.jwk("k")]).await;
    let server = server_with(&web, |_| {}).await;
    ask(&issuer, "k").allowed(&server).await;
    let useless = [
        Answer(500, "down".to_owned()),
        Answer(404, String::new()),
        Answer(200, "<html>".to_owned()),
        Answer(200, "[]".to_owned()),
        Answer(200, json!({ "keys": [] }).to_string()),
        Answer(200, json!({ "keys": [{ "kty": "oct", "k": "AAAA" }] }).to_string()),
        Answer(200, format!("{{\"keys\":[{}]}}", " ".repeat(300_000))),
    ];
    for (n, Answer(status, body)) in useless.into_iter().enumerate() {
        web.answer(move |_| Answer(status, body.clone()));
        // It may be good, and nobody can tell.
        ask(&issuer, "unknown").send(&server).await.error(503);
        assert_eq!(web.seen().len(), n + 2);
        ask(&issuer, "k").allowed(&server).await;
    }
    web.stop();
    ask(&issuer, "unknown").send(&server).await.error(503);
    ask(&issuer, "k").allowed(&server).await;
}

#[tokio::test]
async fn without_any_keys_everybody_is_refused_until_the_issuer_answers() {
    let issuer = Issuer::ed();
    let web = Web::start(|_| Answer(503, String::new())).await;
    let server = server_with(&web, |_| {}).await;
    assert_eq!(ask(&issuer, "k").send(&server).await.error(503), "Unavailable");
    let keys = vec![issuer.jwk("k")];
    web.answer(move |_| set(&keys));
    ask(&issuer, "k").allowed(&server).await;
}

#[tokio::test]
async fn a_secret_in_a_public_place_is_no_key_and_neither_is_a_public_key_a_secret() {
    let (rsa, shared) = (Issuer::rsa(), Issuer::Secret(JWT_SECRET.into()));
    let web = web(vec![shared.jwk("s"), rsa.jwk("r")]).await;
    let server = server_with(&web, |_| {}).await;
    ask(&rsa, "r").allowed(&server).await;
    ask(&shared, "s").forbidden(&server).await;
    let modulus = rsa.jwk("r")["n"].as_str().unwrap().to_owned();
    for secret in [modulus, rsa.public_pem(), rsa.jwk("r").to_string()] {
        let forger = Issuer::Secret(secret.into_bytes());
        ask(&forger, "r").forbidden(&server).await;
        let header = json!({ "alg": "RS256", "kid": "r" });
        let token = forger.token_with(header, json!({ "sub": "ann" }));
        Ask::channel("1.2", "private-user-ann").token(&token).forbidden(&server).await;
    }
}

#[tokio::test]
async fn only_the_algorithms_of_the_settings_count() {
    let (ec, ed) = (Issuer::ec(), Issuer::ed());
    let web = web(vec![ec.jwk("e"), ed.jwk("d")]).await;
    let server = server_with(&web, |jwt| jwt.algorithms = vec![JwtAlgorithm::Es256]).await;
    ask(&ec, "e").allowed(&server).await;
    ask(&ed, "d").forbidden(&server).await;
}
