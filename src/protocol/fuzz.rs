//! Messages of clients. See [`crate::fuzzing`].

use serde::de::IgnoredAny;
use serde_json::Value;

use super::json::quoted;
use super::{ChannelName, ClientError, ClientMessage, EventData, SocketId};

pub(crate) fn client_messages(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    names(text);
    let message = match ClientMessage::parse(text) {
        Ok(message) => message,
        Err(error) => {
            // Written by somebody else, without the members that were there twice.
            let value = serde_json::from_str::<Value>(text).ok().filter(Value::is_object);
            let Some(text) = value.map(|value| value.to_string()) else { return };
            // The data of a request has to be an object.
            let is_request =
                ["pusher:subscribe", "pusher:unsubscribe", "pusher:signin"].iter().any(|name| text.contains(name));
            let invalid = ClientMessage::parse(&text) == Err(ClientError::InvalidJson);
            assert!(!invalid || is_request, "{error}: {text}");
            return;
        }
    };
    assert!(serde_json::from_str::<IgnoredAny>(text).is_ok(), "understood, and no JSON: {text}");
    let written = write(&message);
    let again = ClientMessage::parse(&written);
    assert_eq!(again.as_ref().ok(), Some(&message), "{written}");
    assert_eq!(write(&message), written);
    if let ClientMessage::ClientEvent { data: Some(data), .. } = &message {
        check_data(data);
    }
}

/// A message in the one way in which we would write it.
fn write(message: &ClientMessage<'_>) -> String {
    let request = |event: &str, members: &[(&str, Option<&str>)]| {
        let member = |(name, text): &(&str, Option<&str>)| Some(format!("{}:{}", quoted(name), quoted((*text)?)));
        let members: Vec<_> = members.iter().filter_map(member).collect();
        format!(r#"{{"event":{},"data":{{{}}}}}"#, quoted(event), members.join(","))
    };
    match message {
        ClientMessage::Ping => r#"{"event":"pusher:ping"}"#.to_owned(),
        ClientMessage::Pong => r#"{"event":"pusher:pong"}"#.to_owned(),
        ClientMessage::Subscribe { channel, auth, channel_data } => request(
            "pusher:subscribe",
            &[("channel", Some(channel)), ("auth", Some(auth)), ("channel_data", channel_data.as_deref())],
        ),
        ClientMessage::Unsubscribe { channel } => request("pusher:unsubscribe", &[("channel", Some(channel))]),
        ClientMessage::SignIn { auth, user_data } => {
            request("pusher:signin", &[("auth", Some(auth)), ("user_data", Some(user_data))])
        }
        ClientMessage::ClientEvent { event, channel, data } => {
            let mut text = format!("{{\"event\":{}", quoted(event));
            if let Some(channel) = channel {
                text += &format!(",\"channel\":{}", quoted(channel));
            }
            if let Some(data) = data {
                text += &format!(",\"data\":{}", data.literal());
            }
            text + "}"
        }
    }
}

/// The data of an event is one JSON string, and as long as it says.
fn check_data(data: &EventData) {
    let literal = data.literal();
    assert!(literal.starts_with('"') && literal.ends_with('"') && literal.len() >= 2, "{literal}");
    match serde_json::from_str::<String>(literal) {
        Ok(text) => assert_eq!(data.length(), text.len(), "{literal}"),
        Err(_) => assert!(literal.contains("\\u"), "{literal}"),
    }
}

/// Names of channels and of connections.
fn names(text: &str) {
    const SIGNS: &str = "_-=@,.;";
    let fits = |text: &str| {
        (1..=164).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || SIGNS.contains(c))
    };
    match ChannelName::parse(text, 164) {
        Ok(name) => assert!(fits(text) && name.as_str() == text),
        Err(_) => assert!(!fits(text), "{text}"),
    }
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let is_pair = text.split('.').count() == 2 && text.split('.').all(is_number);
    match SocketId::parse(text) {
        Ok(Some(id)) => assert_eq!(id.to_string(), text),
        Ok(None) => assert!(is_pair),
        Err(_) => assert!(!is_pair),
    }
}
