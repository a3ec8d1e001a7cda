//! `[apps.auth]`.

use super::*;

#[test]
fn a_jwt_authorizer_has_defaults_for_everything_but_its_key() {
    let file =
        format!("{APP}[apps.auth.jwt]\nalgorithms = [\"HS256\"]\nsecret_env = \"JWT\"\nuser_info = [\"user.name\"]\n");
    let loaded = load_all(&file, &[("JWT", "a secret of at least 32 bytes....")], &[]).unwrap();
    let jwt = loaded.config.apps[0].auth.jwt.as_ref().unwrap();
    assert_eq!(jwt.secret.as_ref().unwrap().expose(), "a secret of at least 32 bytes....");
    assert_eq!((jwt.user_id.as_str(), jwt.leeway, jwt.channels.len()), ("{sub}", Duration::from_secs(30), 0));
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn an_authorizer_that_cannot_work_is_a_mistake() {
    let pem = TempFile::new("pem");
    let jwt = |settings: &str| format!("{APP}[apps.auth.jwt]\n{settings}\n");
    let key = format!("public_key_file = {:?}", pem.name());
    let cases = [
        (jwt("secret = \"s\""), "jwt.algorithms: missing; expected a list of HS256, RS256, ES256, EdDSA"),
        (jwt("algorithms = [\"none\"]\nsecret = \"s\""), "\"none\" is not a signature algorithm"),
        (jwt("algorithms = [\"HS256\"]"), "auth.jwt: no key; expected `secret`, `public_key_file` or `jwks_url`"),
        (
            jwt(&format!("algorithms = [\"HS256\"]\n{key}")),
            "HS256 do not go with `public_key_file`; expected RS256, ES256",
        ),
        (
            jwt("algorithms = [\"HS256\", \"RS256\"]\njwks_url = \"https://a.b\""),
            "HS256, RS256 do not go with `jwks_url`",
        ),
        (jwt("algorithms = [\"RS256\"]\nsecret = \"s\""), "RS256 do not go with `secret`; expected HS256 alone"),
        (
            jwt(&format!("algorithms = [\"HS256\"]\nsecret = \"s\"\n{key}")),
            "auth.jwt: secret and public_key_file are given",
        ),
        (jwt("algorithms = []\nsecret = \"s\""), "auth.jwt.algorithms: empty; expected a list of HS256, RS256"),
        (
            jwt("algorithms = [\"HS256\"]\nsecret = \"s\"\nchannels = [\"private-{a}{b}\"]"),
            "\"private-{a}{b}\" is not a pattern",
        ),
        (jwt("algorithms = [\"HS256\"]\nsecret = \"s\"\nuser_id = \"{a[*]}\""), "\"{a[*]}\" is not a text with claims"),
        (
            jwt("algorithms = [\"HS256\"]\nsecret = \"s\"\nuser_info = [\"a.b\", \"b\"]"),
            "two claims would be called \"b\"",
        ),
        (
            format!("{APP}auth.dev = true\n[apps.auth.forward]\nurl = \"http://a.b\"\n"),
            "auth: dev and forward are given",
        ),
        (format!("{APP}[apps.auth.forward]\ntimeout = \"1s\"\n"), "auth.forward.url: missing; expected an http://"),
        (
            format!("{APP}[apps.auth.forward]\nurl = \"http://a.b\"\nheaders = [\"Cookie\"]\n"),
            "\"Cookie\" is not a header",
        ),
        (
            format!("{APP}[apps.auth.forward]\nurl = \"http://a.b\"\nparams = [\"channel-name\"]\n"),
            "\"channel-name\" is not a parameter that can be passed on; expected names of letters",
        ),
        (
            format!("{APP}[apps.auth.forward]\nurl = \"http://a.b\"\nparams = [\"user[name]\"]\n"),
            "\"user[name]\" is not a parameter that can be passed on",
        ),
        (
            jwt("algorithms = [\"HS256\"]\nsecret = \"s\"\nparameter = \"socket.id\""),
            "auth.jwt.parameter: \"socket.id\" could be read as socket_id",
        ),
        (
            format!("{APP}encryption_master_key = \"hunter2\"\n"),
            "encryption_master_key: not 32 bytes in base64; expected the",
        ),
    ];
    for (file, expected) in cases {
        let found = mistakes(&file, &[], &[]);
        assert!(found.len() == 1 && found[0].contains(expected), "{found:#?}\n{expected}");
        assert!(!found[0].contains("hunter2"), "{found:#?}");
    }
}

#[test]
fn the_authorizer_that_trusts_everybody_stays_on_this_machine() {
    let file = format!("{APP}auth.dev = true\n");
    let found = obstacles(&file, &[]);
    assert!(found.len() == 1 && found[0].contains(":5: apps.0.auth.dev: it lets everybody be anybody"), "{found:#?}");
    assert_eq!(obstacles(&file, &[("server.listen", "127.0.0.1:6001")]), Vec::<String>::new());
}

#[test]
fn weak_keys_of_tokens_bring_a_warning() {
    let jwt = |settings: &str| {
        let warnings = load_all(&format!("{APP}[apps.auth.jwt]\n{settings}\n"), &[], &[]).unwrap().warnings;
        warnings.into_iter().map(|line| line.split(": ").nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(jwt("algorithms = [\"HS256\"]\nsecret = \"short\""), ["apps.0.auth.jwt.secret"]);
    let at = |url: &str| jwt(&format!("algorithms = [\"RS256\"]\njwks_url = {url:?}"));
    assert_eq!(at("http://issuer.example/keys"), ["apps.0.auth.jwt.jwks_url"]);
    for url in ["https://issuer.example/keys", "http://127.0.0.1:1/keys", "http://[::1]/keys", "http://localhost/keys"]
    {
        assert_eq!(at(url), Vec::<String>::new());
    }
}
