//! Parameters of the HTTP API, and a reader that is slow and simple. See [`crate::fuzzing`].

use serde_json::Value;

use crate::auth::{Pair, query_pairs};
use crate::config::AppConfig;
use crate::node::Target;
use crate::protocol::SERVER_TO_USER;

use super::params::{Params, parse_target};

const KNOWN: [&str; 7] = ["name", "data", "channel", "channels", "channels[]", "socket_id", "info"];

/// The input: a line with the query, and the body.
pub(crate) fn api_params(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (query, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(query) = std::str::from_utf8(query) else { return };
    let pairs = query_pairs(query, true);
    single(&pairs, body);
    batch(body);
}

fn single(pairs: &[Pair<'_>], body: &[u8]) {
    let limits = AppConfig::new("1", "k", "s").limits;
    // The last of two members with the same name counts here, and neither of them there.
    let value = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object);
    let Ok(params) = Params::read(body, pairs, &KNOWN) else {
        let is_known = |name: &str| KNOWN.contains(&name) || name.starts_with("auth_") || name == "body_md5";
        if let Some(value) = value.filter(|_| pairs.iter().all(|(name, _)| is_known(name))) {
            let once = value.to_string();
            assert!(Params::read(once.as_bytes(), pairs, &KNOWN).is_ok(), "refused: {once}");
        }
        return;
    };
    let value = match value {
        Some(value) => value,
        None if body.is_empty() => Value::Null,
        // Half a surrogate pair, numbers beyond all bounds, or more levels than the reference goes down.
        None => return,
    };
    let of_query = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_string());
    // A text, or nothing; `Err` for another type.
    let text = |name: &str| match &value[name] {
        Value::Null => Ok(of_query(name)),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(()),
    };
    let name_fits = |name: &String| {
        let reserved = ["pusher:", "pusher_internal:"].iter().any(|prefix| name.starts_with(prefix));
        !name.is_empty() && !reserved && name.chars().count() <= limits.event_name_length
    };
    let expected = text("name").ok().flatten().filter(name_fits);
    assert_eq!(params.event_name(&limits).ok().map(std::borrow::Cow::into_owned), expected);

    let is_target = |name: &String| target_fits(name, &limits);
    let listed = match &value["channels"] {
        Value::Null => {
            let names = pairs.iter().filter(|(name, _)| name == "channels" || name == "channels[]");
            let names: Vec<_> = names.map(|(_, value)| value.to_string()).collect();
            Ok(Some(names).filter(|names| !names.is_empty()))
        }
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or(())).collect::<Result<Vec<_>, _>>().map(Some)
        }
        _ => Err(()),
    };
    let expected = match listed {
        Err(()) => None,
        Ok(Some(names)) if names.is_empty() || names.len() > limits.channels_per_event => None,
        Ok(Some(names)) => Some(names),
        Ok(None) => text("channel").ok().flatten().map(|name| vec![name]),
    };
    let expected = expected.filter(|names| names.iter().all(is_target)).map(|names| {
        let mut distinct: Vec<String> = Vec::new();
        names.into_iter().for_each(|name| {
            if !distinct.contains(&name) {
                distinct.push(name);
            }
        });
        distinct
    });
    let found = params.targets(&limits).ok().map(|targets| targets.iter().map(shown).collect::<Vec<_>>());
    assert_eq!(found, expected);

    let expected = match &value["data"] {
        Value::Null => of_query("data").map(Some),
        Value::String(text) => Some(Some(text.clone())),
        // As it was written, and so not to be compared.
        Value::Object(_) | Value::Array(_) => Some(None),
        _ => None,
    };
    let found = params.data().ok().map(|data| serde_json::from_str::<String>(data.literal()).expect("a JSON string"));
    match (found, expected) {
        (Some(found), Some(Some(expected))) => assert_eq!(found, expected),
        (Some(found), Some(None)) => {
            assert_eq!(serde_json::from_str::<Value>(&found).ok().as_ref(), Some(&value["data"]));
        }
        (None, None) => {}
        (found, expected) => panic!("{found:?}, but {expected:?}"),
    }
}

fn batch(body: &[u8]) {
    let value = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object);
    let Some(value) = value else { return };
    let once = value.to_string();
    let events = value["batch"].as_array();
    let Ok(read) = Params::read_batch(once.as_bytes(), &[]) else {
        assert!(events.is_none(), "refused: {once}");
        return;
    };
    let events = events.expect("a batch was read");
    assert_eq!(read.len(), events.len());
    let limits = AppConfig::new("1", "k", "s").limits;
    for (read, event) in read.iter().zip(events) {
        assert_eq!(read.is_ok(), event.is_object(), "{event}");
        let Ok(params) = read else { continue };
        let expected = event["channel"].as_str().map(str::to_owned).filter(|name| target_fits(name, &limits));
        assert_eq!(params.target(&limits).ok().as_ref().map(shown), expected, "{event}");
    }
}

/// Whether an event can be sent there.
fn target_fits(name: &str, limits: &crate::config::Limits) -> bool {
    let fits = match name.strip_prefix(SERVER_TO_USER) {
        Some(id) => (1..=limits.user_id_length).contains(&id.chars().count()),
        None => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "_-=@,.;".contains(c);
            (1..=limits.channel_name_length).contains(&name.len()) && name.chars().all(allowed)
        }
    };
    assert_eq!(parse_target(name, limits).is_ok(), fits, "{name}");
    fits
}

fn shown(target: &Target) -> String {
    match target {
        Target::Channel(name) => name.to_string(),
        Target::User(id) => format!("{SERVER_TO_USER}{}", id.as_str()),
    }
}
