//! Requests for an authorization, and tokens. See [`crate::fuzzing`].

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::apps::App;
use crate::auth::{channel_text, form_pairs, sign, verify_token};
use crate::config::AppConfig;
use crate::protocol::SocketId;

use super::fields::{Fields, Names};
use super::jsonp::Callback;

static APP: LazyLock<App> = LazyLock::new(|| App::new(AppConfig::new("1", "key", "secret")));

pub(crate) fn auth_fields(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    form(text);
    if let Ok(fields) = Fields::of_json(text) {
        check(&fields);
    }
    callback(text);
    tokens(text);
}

/// A form says the same as an object with its fields.
fn form(text: &str) {
    let form = Fields::of_form(text);
    check(&form);
    let mut object = Map::new();
    let pairs = form_pairs(text, true);
    for (name, value) in &pairs {
        object.insert(name.to_string(), Value::String(value.to_string()));
    }
    let json = Value::Object(object).to_string();
    let parsed = Fields::of_json(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    for name in ["socket_id", "channel_name", "callback", "app_key"] {
        let values: Vec<_> = pairs.iter().filter(|(key, _)| key == name).collect();
        match &values[..] {
            [] => assert_eq!((form.one(name), parsed.one(name)), (Ok(None), Ok(None)), "{text}"),
            [(_, value)] => assert_eq!((form.one(name), parsed.one(name)), (Ok(Some(&**value)), Ok(Some(&**value)))),
            _ => assert!(form.one(name).is_err(), "{name} is there twice: {text}"),
        }
    }
    // A field in the query and in the body is there twice.
    for name in ["socket_id", "channel_name"] {
        let both = Fields::of_form(text).and(Fields::of_form(&format!("{name}=x")));
        assert_eq!(both.one(name).is_err(), !matches!(form.one(name), Ok(None)), "{text}");
    }
}

/// Channels are asked for in one way, and each once.
fn check(fields: &Fields) {
    for max in [1, 3] {
        match fields.channels(max) {
            Ok(Names::One(name)) => assert_eq!(fields.one("channel_name"), Ok(Some(name.as_str()))),
            Ok(Names::Batch(names)) => {
                assert!((1..=max).contains(&names.len()), "{names:?}");
                assert_eq!(fields.one("channel_name"), Ok(None));
                let mut distinct = names.clone();
                distinct.sort();
                distinct.dedup();
                assert_eq!(distinct.len(), names.len(), "{names:?}");
            }
            Err(_) => {}
        }
    }
}

/// Nothing but what pusher-js asks for is repeated in a script.
fn callback(text: &str) {
    let number = |text: &str| (1..=10).contains(&text.len()) && text.chars().all(|c| c.is_ascii_digit());
    let parts: Vec<&str> = text.split('\'').collect();
    let fits = matches!(&parts[..], ["Pusher.auth_callbacks[", inside, "]"] if number(inside));
    let callback = Callback::parse(text);
    assert_eq!(callback.is_some(), fits, "{text}");
    if let Some(callback) = callback {
        let answer = Value::String("</script>\u{2028}".to_owned()).to_string();
        let script = callback.script(&answer);
        let inside = script.strip_prefix(text).and_then(|rest| rest.strip_prefix('(')?.strip_suffix(");"));
        assert_eq!(inside.map(serde_json::from_str::<Value>).and_then(Result::ok), serde_json::from_str(&answer).ok());
        assert!(!script.contains('\u{2028}'));
    }
}

/// A token is good for what was signed, and for nothing else.
fn tokens(text: &str) {
    let Ok(Some(socket_id)) = SocketId::parse("1.2") else { unreachable!("an id") };
    for data in [None, Some(text)] {
        for channel in ["private-a", text] {
            let meant = channel_text(socket_id, channel, data);
            let good = format!("key:{}", sign("secret", &meant));
            assert!(verify_token(&APP, &good, meant.clone()).is_ok());
            assert!(verify_token(&APP, &good, format!("{meant}x")).is_err());
            assert!(verify_token(&APP, &good, format!("1.20{}", &meant[3..])).is_err());
            assert!(verify_token(&APP, &good[..good.len() - 1], meant.clone()).is_err());
            assert!(verify_token(&APP, &good[1..], meant.clone()).is_err());
            let guessed = verify_token(&APP, text, meant);
            assert!(guessed.is_err() || text.eq_ignore_ascii_case(&good), "{text}");
        }
    }
}
