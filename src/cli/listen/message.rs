//! Messages from the server, as far as a person wants to read them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;

use crate::protocol::SocketId;

use super::super::output;

/// One message: protocol §2.1.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    /// Its name.
    #[serde(borrow)]
    pub(super) event: Cow<'a, str>,
    /// The channel, for what concerns one.
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    /// A string, except in errors.
    #[serde(default)]
    data: Value,
    /// Who sent a client event, on presence channels.
    #[serde(borrow)]
    user_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Greeting {
    socket_id: String,
    activity_timeout: u64,
}

#[derive(Deserialize)]
struct Presence {
    presence: Members,
}

#[derive(Deserialize)]
struct Members {
    hash: BTreeMap<String, Value>,
}

impl<'a> Message<'a> {
    /// Reads a message; `None` if it is none.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether this is the protocol talking to the client, mostly about what the client did itself, and not something
    /// that an application would wait for.
    pub(super) fn is_bookkeeping(&self) -> bool {
        matches!(
            &*self.event,
            "pusher:connection_established"
                | "pusher:ping"
                | "pusher:pong"
                | "pusher:error"
                | "pusher:cache_miss"
                | "pusher:signin_success"
                | "pusher:subscription_error"
                | "pusher_internal:subscription_error"
                | "pusher_internal:subscription_succeeded"
                | "pusher_internal:subscription_count"
        )
    }

    /// Socket id and activity timeout in seconds, if this is the greeting.
    pub(super) fn greeting(&self) -> Option<(SocketId, u64)> {
        let greeting: Greeting = serde_json::from_str(self.data.as_str()?).ok()?;
        let socket_id = SocketId::parse(&greeting.socket_id).ok()??;
        (self.event == "pusher:connection_established").then_some((socket_id, greeting.activity_timeout))
    }

    /// Code and reason, if this is an error that ends the connection.
    pub(super) fn close(&self) -> Option<(u16, String)> {
        let code = self.data["code"].as_u64().and_then(|code| code.try_into().ok())?;
        (self.event == "pusher:error").then(|| (code, self.error()))
    }

    /// The text of an error.
    pub(super) fn error(&self) -> String {
        output::on_one_line(self.data["message"].as_str().unwrap_or("(no message)"))
    }

    /// The channel, for a line on a terminal.
    pub(super) fn channel(&self) -> String {
        output::on_one_line(self.channel.as_deref().unwrap_or("-"))
    }

    /// A sentence about a subscription that began.
    pub(super) fn subscribed(&self) -> String {
        let channel = self.channel();
        match self.data.as_str().map(serde_json::from_str::<Presence>) {
            Some(Ok(Presence { presence })) => {
                let ids: Vec<_> = presence.hash.keys().map(|id| output::on_one_line(id)).collect();
                format!("subscribed to {channel}; its members: {}", ids.join(", "))
            }
            _ => format!("subscribed to {channel}"),
        }
    }

    /// The event on one line: time (UTC), channel, name, data. Names are those that applications bind to.
    pub(super) fn line(&self, now: OffsetDateTime) -> String {
        let (hour, minute, second, milli) = now.time().as_hms_milli();
        let channel = self.channel();
        let event = output::on_one_line(&self.event.replacen("pusher_internal:", "pusher:", 1));
        let data = match &self.data {
            Value::String(text) => output::on_one_line(text),
            other => other.to_string(),
        };
        let sender = self.user_id.as_ref().map(|id| format!("  user_id={}", output::on_one_line(id)));
        let sender = sender.unwrap_or_default();
        format!("{hour:02}:{minute:02}:{second:02}.{milli:03}Z  {channel}  {event}  {data}{sender}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message<'_> {
        Message::parse(text).unwrap()
    }

    #[test]
    fn an_event_is_one_line() {
        let text = r#"{"event":"client-typing","channel":"presence-r","data":"{\"on\":true}\n","user_id":"7"}"#;
        let now = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        assert_eq!(message(text).line(now), "22:13:20.000Z  presence-r  client-typing  {\"on\":true}\\n  user_id=7");
    }

    #[test]
    fn the_clients_own_names_are_shown() {
        let text = r#"{"event":"pusher_internal:member_added","channel":"presence-r","data":"{\"user_id\":\"9\"}"}"#;
        assert!(message(text).line(OffsetDateTime::UNIX_EPOCH).contains("  pusher:member_added  "));
        assert!(!message(text).is_bookkeeping());
    }

    #[test]
    fn the_greeting_names_the_connection() {
        let text =
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":30}"}"#;
        assert_eq!(message(text).greeting(), Some((SocketId::parse("1.2").unwrap().unwrap(), 30)));
        assert_eq!(message(r#"{"event":"other","data":"{}"}"#).greeting(), None);
    }

    #[test]
    fn an_error_with_a_code_is_a_close_and_one_without_is_not() {
        let fatal = message(r#"{"event":"pusher:error","data":{"code":4001,"message":"No app"}}"#);
        assert_eq!(fatal.close(), Some((4001, "No app".to_owned())));
        assert_eq!(message(r#"{"event":"pusher:error","data":{"code":null,"message":"No"}}"#).close(), None);
    }

    #[test]
    fn the_members_of_a_presence_channel_are_named() {
        let text = r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-r",
            "data":"{\"presence\":{\"count\":2,\"ids\":[\"9\",\"7\"],\"hash\":{\"9\":null,\"7\":{}}}}"}"#;
        assert_eq!(message(text).subscribed(), "subscribed to presence-r; its members: 7, 9");
    }
}
