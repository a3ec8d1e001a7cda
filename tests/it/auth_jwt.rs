//! The authorizer that decides by the claims of a JSON Web Token, and those who try to get around it.

use std::path::PathBuf;

use fanfare::config::{AppConfig, JwtAlgorithm, JwtConfig, Secret};
use fanfare::{Server, StartError};
use serde_json::{Value, json};

use crate::support::jwt::{Issuer, JWT_SECRET, encode};
use crate::support::{Ask, TestServer, unix_now};

/// Settings with the tests' secret.
fn hs256() -> JwtConfig {
    JwtConfig {
        secret: Some(Secret::new(JWT_SECRET)),
        channels: ["private-user-{sub}", "presence-course-{courses[*]}"].map(str::to_owned).to_vec(),
        user_info: vec!["name".to_owned()],
        ..JwtConfig::new(vec![JwtAlgorithm::Hs256])
    }
}

async fn server_with(change: impl FnOnce(&mut JwtConfig)) -> TestServer {
    let mut jwt = hs256();
    change(&mut jwt);
    TestServer::with_app(|app| app.auth.jwt = Some(jwt)).await
}

async fn server() -> TestServer {
    server_with(|_| {}).await
}

/// Asks for the channel of this user.
fn ask(user: &str) -> Ask {
    Ask::channel("1.2", &format!("private-user-{user}"))
}

/// A token with these claims.
fn token(claims: Value) -> String {
    Issuer::trusted().token(claims)
}

/// A PEM file that is gone after the test.
struct PemFile(PathBuf);

impl PemFile {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fanfare-{}-{name}.pem", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for PemFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

// --- what a good token does ---

#[tokio::test]
async fn the_owner_of_a_token_gets_what_its_claims_allow() {
    let server = server_with(|jwt| jwt.watchlist = "friends".to_owned()).await;
    let mut client = server.connect().await;
    let id = client.socket_id.clone();
    let claims = json!({ "sub": "ann", "name": "Ann", "courses": ["math", 12], "friends": ["bob", 8, "", null], "secret": "no" });
    let token = token(claims);

    let private = Ask::channel(&id, "private-user-ann").token(&token).allowed(&server).await;
    assert_eq!(private.as_object().unwrap().len(), 1);
    client.subscribe_authorized("private-user-ann", &private).await;

    for channel in ["presence-course-math", "presence-course-12"] {
        let presence = Ask::channel(&id, channel).token(&token).allowed(&server).await;
        assert_eq!(presence["channel_data"], r#"{"user_id":"ann","user_info":{"name":"Ann"}}"#);
        client.subscribe_authorized(channel, &presence).await;
    }

    let user = Ask::user(&id).token(&token).allowed(&server).await;
    assert_eq!(user["user_data"], r#"{"id":"ann","user_info":{"name":"Ann"},"watchlist":["bob","8"]}"#);
    client.sign_in_authorized(&user).await;

    Ask::channel(&id, "private-user-bob").token(&token).forbidden(&server).await;
    Ask::channel(&id, "presence-course-art").token(&token).forbidden(&server).await;
}

#[tokio::test]
async fn a_user_id_can_be_made_of_several_claims_and_nested_ones() {
    let server = server_with(|jwt| {
        jwt.user_id = "{org}.{user.id}".to_owned();
        jwt.user_info = vec!["user.name".to_owned(), "missing".to_owned()];
    })
    .await;
    let claims = json!({ "org": "acme", "user": { "id": 7, "name": "Ann" }, "courses": ["a"] });
    let answer = Ask::channel("1.2", "presence-course-a").token(&token(claims)).allowed(&server).await;
    assert_eq!(answer["channel_data"], r#"{"user_id":"acme.7","user_info":{"name":"Ann"}}"#);
    let divided = json!({ "org": "a.b", "user": { "id": "c" }, "courses": ["a"] });
    Ask::channel("1.2", "presence-course-a").token(&token(divided)).forbidden(&server).await;
}

#[tokio::test]
async fn a_token_can_be_in_a_header_a_parameter_or_a_cookie_if_the_settings_say_so() {
    let token = token(json!({ "sub": "ann" }));
    let places = |ask: Ask| {
        [
            ask.clone().header("Authorization", &format!("bearer {token}")),
            ask.clone().field("token", &token),
            ask.header("Cookie", &format!("session=\"{token}\"")),
        ]
    };
    let all = server_with(|jwt| {
        jwt.cookie = "session".to_owned();
        jwt.parameter = "token".to_owned();
    })
    .await;
    for ask in places(ask("ann")) {
        ask.allowed(&all).await;
    }
    let [header, others @ ..] = places(ask("ann"));
    let only_header = server().await;
    header.allowed(&only_header).await;
    for ask in others {
        ask.forbidden(&only_header).await;
    }
    let script = ask("ann").field("token", &token).jsonp("Pusher.auth_callbacks['1']").send(&all).await;
    assert!(script.body.contains("app-key-1:"), "{}", script.body);
}

#[tokio::test]
async fn a_bad_token_is_not_made_good_by_another_one() {
    let server = server_with(|jwt| {
        jwt.cookie = "session".to_owned();
        jwt.parameter = "token".to_owned();
    })
    .await;
    let good = token(json!({ "sub": "ann" }));
    ask("ann").token("x").field("token", &good).forbidden(&server).await;
    ask("ann").field("token", "x").header("Cookie", &format!("session={good}")).forbidden(&server).await;
    ask("ann").field("token", &good).field("token", &good).forbidden(&server).await;
    ask("ann").field("token", &good).query("token=x").forbidden(&server).await;
    ask("ann").token(&good).token(&good).forbidden(&server).await;
    // A password for somebody else's benefit is no token, and hides none.
    ask("ann").header("Authorization", "Basic YTpi").field("token", &good).allowed(&server).await;
}

// --- algorithms ---

#[tokio::test]
async fn every_algorithm_verifies_with_a_public_key_from_a_file() {
    let issuers = [
        (Issuer::rsa(), Issuer::ec(), JwtAlgorithm::Rs256),
        (Issuer::ec(), Issuer::ec(), JwtAlgorithm::Es256),
        (Issuer::ed(), Issuer::ed(), JwtAlgorithm::EdDsa),
    ];
    for (issuer, stranger, algorithm) in issuers {
        let file = PemFile::new(issuer.algorithm(), &issuer.public_pem());
        let server = server_with(|jwt| {
            jwt.algorithms = vec![algorithm];
            jwt.secret = None;
            jwt.public_key_file = Some(file.0.clone());
        })
        .await;
        ask("ann").token(&issuer.token(json!({ "sub": "ann" }))).allowed(&server).await;
        ask("bob").token(&issuer.token(json!({ "sub": "ann" }))).forbidden(&server).await;
        let pretends = json!({ "alg": issuer.algorithm() });
        ask("ann").token(&stranger.token_with(pretends, json!({ "sub": "ann" }))).forbidden(&server).await;
        ask("ann").token(&token(json!({ "sub": "ann" }))).forbidden(&server).await;
    }
}

#[tokio::test]
async fn a_public_key_is_never_taken_for_a_secret() {
    for issuer in [Issuer::rsa(), Issuer::ec(), Issuer::ed()] {
        let pem = issuer.public_pem();
        let file = PemFile::new(&format!("confused-{}", issuer.algorithm()), &pem);
        let server = server_with(|jwt| {
            jwt.algorithms = vec![JwtAlgorithm::Rs256, JwtAlgorithm::Es256, JwtAlgorithm::EdDsa];
            jwt.secret = None;
            jwt.public_key_file = Some(file.0.clone());
        })
        .await;
        let claims = || json!({ "sub": "ann" });
        ask("ann").token(&issuer.token(claims())).allowed(&server).await;
        // What everybody knows of the key, in each of its forms, as a secret.
        let jwk = issuer.jwk("k");
        let known = [pem.clone(), pem.trim_end().to_owned(), jwk.to_string(), jwk["x"].to_string(), String::new()];
        for secret in known {
            let forger = Issuer::Secret(secret.into_bytes());
            for algorithm in ["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"] {
                let header = json!({ "alg": algorithm });
                ask("ann").token(&forger.token_with(header, claims())).forbidden(&server).await;
            }
        }
    }
}

#[tokio::test]
async fn a_token_cannot_choose_its_algorithm() {
    let server = server().await;
    let claims = json!({ "sub": "ann", "exp": unix_now() + 60 });
    for algorithm in ["none", "None", "NONE", "nOnE", "", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA"] {
        let header = json!({ "alg": algorithm });
        ask("ann").token(&Issuer::trusted().token_with(header.clone(), claims.clone())).forbidden(&server).await;
        let unsigned = format!("{}.{}.", encode(header.to_string()), encode(claims.to_string()));
        ask("ann").token(&unsigned).forbidden(&server).await;
        ask("ann").token(unsigned.trim_end_matches('.')).forbidden(&server).await;
    }
    for header in [json!({}), json!({ "alg": null }), json!({ "alg": ["HS256"] }), json!({ "typ": "JWT" })] {
        ask("ann").token(&Issuer::trusted().token_with(header, claims.clone())).forbidden(&server).await;
    }
    // Keys that a token brings along are not looked at, and extensions that it insists on are not known.
    let own = Issuer::ed();
    let header = json!({ "alg": "EdDSA", "jwk": own.jwk("k"), "jku": "https://evil.test", "x5u": "https://evil.test" });
    ask("ann").token(&own.token_with(header, claims.clone())).forbidden(&server).await;
    let critical = json!({ "alg": "HS256", "crit": ["exp"] });
    ask("ann").token(&Issuer::trusted().token_with(critical, claims)).forbidden(&server).await;
}

#[tokio::test]
async fn a_public_key_that_cannot_be_used_stops_the_start() {
    let start = async |algorithm, file: &PemFile| {
        let mut config = fanfare::Config::default();
        config.server.listen = ([127, 0, 0, 1], 0).into();
        config.admin.listen = ([127, 0, 0, 1], 0).into();
        let mut app = AppConfig::new("1", "k", "s");
        let public_key_file = Some(file.0.clone());
        app.auth.jwt = Some(JwtConfig { public_key_file, ..JwtConfig::new(vec![algorithm]) });
        config.apps.push(app);
        Server::bind(config).await.map_or_else(|error| error, |_| panic!("it starts"))
    };
    let cases = [
        ("not-pem", "not PEM".to_owned(), "no PUBLIC KEY in PEM"),
        ("other", Issuer::ec().public_pem(), "a key for ES256, which is not in auth.jwt.algorithms"),
        ("broken", crate::support::pem("PUBLIC KEY", b"\x30\x03\x30\x01\x00"), "not a public key in DER"),
        ("private", crate::support::pem("PRIVATE KEY", b"\x30\x00"), "no PUBLIC KEY in PEM"),
    ];
    for (name, content, expected) in cases {
        let file = PemFile::new(name, &content);
        let error = start(JwtAlgorithm::EdDsa, &file).await;
        assert!(matches!(error, StartError::Authorizer(_)), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("apps.0.auth.jwt.public_key_file: /") && text.contains(expected), "{text}");
    }
}

// --- times, issuer and audience ---

#[tokio::test]
async fn a_token_is_good_between_its_times_give_or_take_the_leeway() {
    let server = server().await;
    let now = unix_now();
    let good = [
        json!({ "exp": now + 60 }),
        json!({ "exp": now - 20 }),
        json!({ "exp": now as f64 + 60.5 }),
        json!({ "exp": now + 60, "nbf": now - 60 }),
        json!({ "exp": now + 60, "nbf": now + 20 }),
    ];
    let bad = [
        json!({ "exp": now - 60 }),
        json!({ "exp": 0 }),
        json!({ "exp": -1 }),
        json!({ "exp": null }),
        json!({ "exp": (now + 60).to_string() }),
        json!({ "exp": [now + 60] }),
        json!({ "exp": now + 60, "nbf": now + 60 }),
        json!({ "exp": now + 60, "nbf": (now - 60).to_string() }),
    ];
    for (times, expected) in good.into_iter().map(|times| (times, 200)).chain(bad.into_iter().map(|times| (times, 403)))
    {
        let mut claims = times.clone();
        claims["sub"] = "ann".into();
        let answer = ask("ann").token(&token(claims)).send(&server).await;
        assert_eq!(answer.status, expected, "{times}");
    }
}

#[tokio::test]
async fn issuer_and_audience_are_checked_if_they_are_configured() {
    let server = server_with(|jwt| {
        jwt.audience = vec!["fanfare".to_owned(), "chat".to_owned()];
        jwt.issuer = "https://issuer.example".to_owned();
    })
    .await;
    let issuer = "https://issuer.example";
    let table = [
        (json!({ "aud": "fanfare", "iss": issuer }), 200),
        (json!({ "aud": ["other", "chat"], "iss": issuer }), 200),
        (json!({ "aud": "other", "iss": issuer }), 403),
        (json!({ "aud": [], "iss": issuer }), 403),
        (json!({ "aud": { "fanfare": true }, "iss": issuer }), 403),
        (json!({ "iss": issuer }), 403),
        (json!({ "aud": "fanfare" }), 403),
        (json!({ "aud": "fanfare", "iss": "https://issuer.example.evil" }), 403),
        (json!({ "aud": "fanfare", "iss": null }), 403),
    ];
    for (mut claims, expected) in table {
        claims["sub"] = "ann".into();
        let answer = ask("ann").token(&token(claims.clone())).send(&server).await;
        assert_eq!(answer.status, expected, "{claims}");
    }
    // Unless they are: then a token for somebody else is as good as one for us.
    let open = self::server().await;
    ask("ann").token(&token(json!({ "sub": "ann", "aud": "other", "iss": "x" }))).allowed(&open).await;
}

#[tokio::test]
async fn the_token_of_another_app_is_no_good() {
    let jwt = |secret: &str, audience: &str| {
        let (secret, audience) = (Some(Secret::new(secret)), vec![audience.to_owned()]);
        Some(JwtConfig { secret, audience, ..hs256() })
    };
    let server = TestServer::with(|config| {
        config.apps[0].auth.jwt = jwt(JWT_SECRET, "one");
        config.apps.push(AppConfig::new("43", "same-secret", "s2"));
        config.apps[1].auth.jwt = jwt(JWT_SECRET, "two");
        config.apps.push(AppConfig::new("44", "other-secret", "s3"));
        config.apps[2].auth.jwt = jwt("another secret of another login form", "one");
    })
    .await;
    let token = token(json!({ "sub": "ann", "aud": "one" }));
    ask("ann").token(&token).field("app_key", "app-key-1").allowed(&server).await;
    ask("ann").token(&token).field("app_key", "same-secret").forbidden(&server).await;
    ask("ann").token(&token).field("app_key", "other-secret").forbidden(&server).await;
}

// --- those who try ---

#[tokio::test]
async fn a_token_that_was_changed_is_refused() {
    let server = server().await;
    let good = token(json!({ "sub": "ann" }));
    let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let bobs = encode(json!({ "sub": "bob", "exp": unix_now() + 60 }).to_string());
    let other = Issuer::Secret(b"another secret".to_vec()).token(json!({ "sub": "ann" }));
    let (first, rest) = signature.split_at(1);
    let changed = [
        format!("{header}.{bobs}.{signature}"),
        format!("{header}.{claims}.{}{rest}", if first == "A" { "B" } else { "A" }),
        format!("{header}.{claims}."),
        format!("{header}.{claims}"),
        format!("{header}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{header}.{claims}.{signature}.{signature}"),
        format!("{header}.{claims}.{}", &signature[..20]),
        format!("{header}.{claims}.{signature}="),
        claims.to_owned(),
        String::new(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        "ü".to_owned(),
        "x".repeat(20_000),
        other,
    ];
    for token in changed {
        for user in ["ann", "bob"] {
            ask(user).token(&token).forbidden(&server).await;
        }
    }
    ask("ann").forbidden(&server).await;
    ask("ann").header("Authorization", &good).forbidden(&server).await;
    ask("ann").header("Authorization", &format!("Basic {good}")).forbidden(&server).await;
}

#[tokio::test]
async fn nobody_gets_into_another_users_channel_by_what_they_are_called() {
    let server = server_with(|jwt| {
        jwt.channels.push("private-{org}-{sub}".to_owned());
        jwt.channels.push("private-box-{sub}-*".to_owned());
    })
    .await;
    let names = [
        json!("*"),
        json!("1*"),
        json!("*1"),
        json!("1?"),
        json!(""),
        json!("."),
        json!("{sub}"),
        json!("1\n"),
        json!("1\u{0}"),
        json!(1.0),
        json!(12.5),
        json!(-12),
        json!(true),
        json!(null),
        json!(["12"]),
        json!({ "id": "12" }),
        json!(" 12"),
        json!("１２"),
        json!("12-x"),
        json!(18_446_744_073_709_551_616_f64),
    ];
    for sub in names {
        let token = token(json!({ "sub": sub, "org": "a", "courses": "math" }));
        for channel in
            ["private-user-12", "private-user-", "private-user-1", "private-box-12-mail", "private-box-12-x-mail"]
        {
            Ask::channel("1.2", channel).token(&token).forbidden(&server).await;
        }
        Ask::channel("1.2", "presence-course-math").token(&token).forbidden(&server).await;
    }
    let of = |org: &str, sub: &str| token(json!({ "org": org, "sub": sub }));
    Ask::channel("1.2", "private-a-b").token(&of("a", "b")).allowed(&server).await;
    Ask::channel("1.2", "private-a-b-c").token(&of("a", "b-c")).forbidden(&server).await;
    Ask::channel("1.2", "private-a-b-c").token(&of("a-b", "c")).forbidden(&server).await;
}

#[tokio::test]
async fn a_name_must_fit_from_its_beginning_to_its_end() {
    let server = server().await;
    let token = token(json!({ "sub": "1", "courses": [{ "id": "a" }, [], "", null, true, "math"] }));
    for channel in [
        "private-user-12",
        "private-user-1-2",
        "private-user-",
        "private-user",
        "private-xuser-1",
        "private-private-user-1",
        "presence-user-1",
        "private-encrypted-user-1",
        "private-cache-user-1",
        "Private-user-1",
        "presence-course-",
        "presence-course-mat",
        "presence-course-maths",
        "presence-course-a",
        "presence-course-true",
        "presence-course-null",
    ] {
        Ask::channel("1.2", channel).token(&token).forbidden(&server).await;
    }
    Ask::channel("1.2", "presence-course-math").token(&token).allowed(&server).await;
}

#[tokio::test]
async fn what_a_request_says_of_the_user_is_not_heard() {
    let server = server().await;
    let token = token(json!({ "sub": "ann", "name": "Ann", "courses": ["math"] }));
    let smuggle = |ask: Ask| {
        let ask = ask.token(&token).field("user_id", "bob").field("id", "bob").field("user_info", r#"{"name":"Bob"}"#);
        let ask = ask.field("channel_data", r#"{"user_id":"bob"}"#).field("user_data", r#"{"id":"bob"}"#);
        ask.field("sub", "bob").query("user_id=bob&watchlist=bob")
    };
    let presence = smuggle(Ask::channel("1.2", "presence-course-math")).allowed(&server).await;
    assert_eq!(presence["channel_data"], r#"{"user_id":"ann","user_info":{"name":"Ann"}}"#);
    let user = smuggle(Ask::user("1.2")).allowed(&server).await;
    assert_eq!(user["user_data"], r#"{"id":"ann","user_info":{"name":"Ann"}}"#);
    smuggle(ask("bob")).forbidden(&server).await;
    let private = smuggle(ask("ann")).allowed(&server).await;
    assert_eq!(private.as_object().unwrap().keys().collect::<Vec<_>>(), ["auth"]);
}

#[tokio::test]
async fn a_signature_is_good_for_its_connection_only() {
    let server = server().await;
    let (owner, mut thief) = (server.connect().await, server.connect().await);
    let token = token(json!({ "sub": "ann" }));
    let answer = Ask::channel(&owner.socket_id, "private-user-ann").token(&token).allowed(&server).await;
    let data = json!({ "auth": answer["auth"], "channel": "private-user-ann" });
    thief.send(json!({ "event": "pusher:subscribe", "data": data })).await;
    thief.expect_rejection("private-user-ann", "AuthError", 401).await;
}

#[tokio::test]
async fn a_user_that_the_server_would_not_take_gets_no_signature() {
    let server = server().await;
    let claims = |sub: Value, name: Value| token(json!({ "sub": sub, "name": name, "courses": ["math"] }));
    let course = || Ask::channel("1.2", "presence-course-math");
    course().token(&claims(json!("é".repeat(128)), json!("x"))).allowed(&server).await;
    for (sub, name) in [
        (json!("é".repeat(129)), json!("x")),
        (json!("ann"), json!("x".repeat(1024))),
        (json!(""), json!("x")),
        (json!(null), json!("x")),
        (json!(["ann"]), json!("x")),
        (json!({}), json!("x")),
    ] {
        course().token(&claims(sub, name)).forbidden(&server).await;
    }
    for sub in [json!("é".repeat(129)), json!(""), json!(["ann"])] {
        Ask::user("1.2").token(&claims(sub, json!("x"))).forbidden(&server).await;
    }
    let small = TestServer::with_app(|app| {
        app.auth.jwt = Some(hs256());
        app.limits.user_data = 100;
    })
    .await;
    Ask::user("1.2").token(&claims(json!("ann"), json!("x".repeat(100)))).forbidden(&small).await;
    Ask::user("1.2").token(&claims(json!("ann"), json!("x"))).allowed(&small).await;
}
