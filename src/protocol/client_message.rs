//! What clients say.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ClientError, EventData, json};

/// One message from a client, understood as far as it can be without knowing the app (§2).
#[derive(Debug, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// `pusher:ping`: wants a pong.
    Ping,
    /// `pusher:pong`: a sign of life.
    Pong,
    /// `pusher:subscribe` (§2.3).
    Subscribe {
        /// As sent; not yet a valid name.
        channel: String,
        /// `KEY:SIGNATURE`; empty for none.
        auth: String,
        /// The exact text that was signed.
        channel_data: Option<String>,
    },
    /// `pusher:unsubscribe` (§2.4).
    Unsubscribe {
        /// As sent; not yet a valid name.
        channel: String,
    },
    /// `pusher:signin` (§2.9).
    SignIn {
        /// `KEY:SIGNATURE`.
        auth: String,
        /// The exact text that was signed.
        user_data: String,
    },
    /// Anything else, as long as it is not in the `pusher:` name space (§2.8). A `user_id` that the client claims is
    /// not even read.
    ClientEvent {
        /// The name, with or without its prefix.
        event: Cow<'a, str>,
        /// As sent; not yet a valid name.
        channel: Option<Cow<'a, str>>,
        /// The data, ready to be passed on.
        data: Option<EventData>,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "json::present")]
    event: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    channel: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    data: Option<&'a RawValue>,
}

/// The `data` of all requests together; each uses its own members.
#[derive(Deserialize, Default)]
struct Request<'a> {
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    auth: Option<&'a RawValue>,
    #[serde(borrow)]
    channel_data: Option<&'a RawValue>,
    #[serde(borrow)]
    user_data: Option<&'a RawValue>,
}

impl<'a> ClientMessage<'a> {
    /// Reads one text message.
    ///
    /// # Errors
    /// [`ClientError::InvalidJson`], or [`ClientError::UnsupportedEvent`] for an unknown `pusher:` event.
    pub fn parse(text: &'a str) -> Result<Self, ClientError> {
        let envelope: Envelope<'a> = json::object(text).map_err(|_| ClientError::InvalidJson)?;
        let unsupported = |name: &str| ClientError::UnsupportedEvent(name.chars().take(200).collect());
        let Some(event) = envelope.event else { return Err(unsupported("no event")) };
        let Some(event) = json::string(event) else { return Err(unsupported(event.get())) };
        match &*event {
            "pusher:ping" => Ok(Self::Ping),
            "pusher:pong" => Ok(Self::Pong),
            "pusher:subscribe" => with_request(envelope.data, |request| Self::Subscribe {
                channel: text_of(request.channel),
                auth: text_of(request.auth),
                channel_data: request.channel_data.map(|data| json::loose_string(data).into_owned()),
            }),
            "pusher:unsubscribe" => {
                with_request(envelope.data, |request| Self::Unsubscribe { channel: text_of(request.channel) })
            }
            "pusher:signin" => with_request(envelope.data, |request| Self::SignIn {
                auth: text_of(request.auth),
                user_data: text_of(request.user_data),
            }),
            other if other.starts_with("pusher:") => Err(unsupported(other)),
            _ => Ok(Self::ClientEvent {
                event,
                channel: envelope.channel.and_then(json::string),
                data: envelope.data.map(EventData::from_json),
            }),
        }
    }
}

/// Reads the `data` of a request: an object, or, from old mobile clients, a string that holds one.
fn with_request<'a>(
    data: Option<&'a RawValue>,
    build: impl FnOnce(Request<'_>) -> ClientMessage<'a>,
) -> Result<ClientMessage<'a>, ClientError> {
    let Some(data) = data.filter(|data| !json::is_null(data)) else { return Ok(build(Request::default())) };
    let text = json::loose_string(data);
    json::object(&text).map(build).map_err(|_| ClientError::InvalidJson)
}

fn text_of(value: Option<&RawValue>) -> String {
    value.map(|value| json::loose_string(value).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_needs_no_data() {
        for text in [
            r#"{"event":"pusher:ping"}"#,
            r#"{"event":"pusher:ping","data":{}}"#,
            r#"{"event":"pusher:ping","data":"{}"}"#,
            r#"{"event":"pusher:ping","data":""}"#,
            r#"{"event":"pusher:ping","data":null,"more":[1]}"#,
        ] {
            assert_eq!(ClientMessage::parse(text), Ok(ClientMessage::Ping), "{text}");
        }
    }

    #[test]
    fn data_may_be_an_object_or_a_string_that_holds_one() {
        for text in [
            r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":"k:s","channel_data":"{\"user_id\":1}"}}"#,
            r#"{"event":"pusher:subscribe","data":"{\"channel\":\"a\",\"auth\":\"k:s\",\"channel_data\":\"{\\\"user_id\\\":1}\"}"}"#,
        ] {
            let expected = ClientMessage::Subscribe {
                channel: "a".into(),
                auth: "k:s".into(),
                channel_data: Some(r#"{"user_id":1}"#.into()),
            };
            assert_eq!(ClientMessage::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn null_data_of_a_client_event_is_data() {
        let Ok(ClientMessage::ClientEvent { data, channel, .. }) =
            ClientMessage::parse(r#"{"event":"client-a","channel":"private-a","data":null,"user_id":"me"}"#)
        else {
            panic!("not a client event")
        };
        assert_eq!(channel.as_deref(), Some("private-a"));
        assert_eq!(data.unwrap().literal(), "\"null\"");
    }

    #[test]
    fn nonsense_is_named() {
        let unsupported = |name: &str| Err(ClientError::UnsupportedEvent(name.into()));
        for text in [
            "",
            "nonsense",
            "[]",
            "[\"pusher:ping\"]",
            "\"pusher:ping\"",
            "{\"event\":\"pusher:subscribe\",\"data\":7}",
        ] {
            assert_eq!(ClientMessage::parse(text), Err(ClientError::InvalidJson), "{text}");
        }
        assert_eq!(ClientMessage::parse("{}"), unsupported("no event"));
        assert_eq!(ClientMessage::parse(r#"{"event":5}"#), unsupported("5"));
        assert_eq!(ClientMessage::parse(r#"{"event":"pusher:foo"}"#), unsupported("pusher:foo"));
    }
}
