//! What a backend is told (§5.2), as the JSON object that stands in a webhook.

use crate::config::WebhookEvent;
use crate::protocol::{ChannelName, EventData, SocketId, UserId, json};

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub(super) enum Happening<'a> {
    /// `channel_occupied`, `channel_vacated` and `cache_miss`: a channel's name says it all.
    Channel(WebhookEvent, &'a ChannelName),
    /// `member_added` and `member_removed`.
    Member(WebhookEvent, &'a ChannelName, &'a UserId),
    /// `user_online` and `user_offline`.
    User(WebhookEvent, &'a UserId),
    /// `subscription_count`.
    Count(&'a ChannelName, usize),
    /// `client_event`.
    ClientEvent {
        channel: &'a ChannelName,
        event: &'a str,
        data: &'a EventData,
        from: SocketId,
        user_id: Option<&'a UserId>,
    },
    /// `connection_opened`.
    Opened(SocketId),
    /// `connection_closed`; the code is 0 if the client went by itself.
    Closed { socket_id: SocketId, code: u16, reason: &'a str, user_id: Option<&'a UserId> },
}

impl Happening<'_> {
    /// Its kind.
    pub(super) fn kind(&self) -> WebhookEvent {
        match self {
            Self::Channel(kind, _) | Self::Member(kind, ..) | Self::User(kind, _) => *kind,
            Self::Count(..) => WebhookEvent::SubscriptionCount,
            Self::ClientEvent { .. } => WebhookEvent::ClientEvent,
            Self::Opened(_) => WebhookEvent::ConnectionOpened,
            Self::Closed { .. } => WebhookEvent::ConnectionClosed,
        }
    }

    /// The channel it is about, if it is about one.
    pub(super) fn channel(&self) -> Option<&ChannelName> {
        match self {
            Self::Channel(_, channel) | Self::Member(_, channel, _) | Self::Count(channel, _) => Some(channel),
            Self::ClientEvent { channel, .. } => Some(channel),
            Self::User(..) | Self::Opened(_) | Self::Closed { .. } => None,
        }
    }

    /// Events with the same subject stay in order: those of a channel, a user or a connection. Their names cannot be
    /// mistaken for each other, as no channel's begins with a `#`.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::User(_, user_id) => format!("#user {user_id}"),
            Self::Opened(socket_id) | Self::Closed { socket_id, .. } => format!("#connection {socket_id}"),
            _ => self.channel().map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// The JSON object. All values are strings, except the count.
    pub(super) fn encode(&self) -> String {
        let mut text = format!(r#"{{"name":"{}""#, self.kind().name());
        let mut member = |name: &str, literal: &str| text += &format!(r#","{name}":{literal}"#);
        let quoted = |id: &UserId| json::quoted(id.as_str());
        if let Some(channel) = self.channel() {
            member("channel", &json::quoted(channel.as_str()));
        }
        match self {
            Self::Channel(..) => {}
            Self::Member(_, _, user_id) | Self::User(_, user_id) => member("user_id", &quoted(user_id)),
            Self::Count(_, count) => member("subscription_count", &count.to_string()),
            Self::ClientEvent { event, data, from, user_id, .. } => {
                member("event", &json::quoted(event));
                member("data", data.literal());
                member("socket_id", &format!("\"{from}\""));
                if let Some(user_id) = user_id {
                    member("user_id", &quoted(user_id));
                }
            }
            Self::Opened(socket_id) => member("socket_id", &format!("\"{socket_id}\"")),
            Self::Closed { socket_id, code, reason, user_id } => {
                member("socket_id", &format!("\"{socket_id}\""));
                member("code", &format!("\"{code}\""));
                member("reason", &json::quoted(reason));
                if let Some(user_id) = user_id {
                    member("user_id", &quoted(user_id));
                }
            }
        }
        text + "}"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_pushers_form() {
        let channel = ChannelName::parse("presence-room", 200).unwrap();
        let user = UserId::new("u\"1");
        let from = SocketId::parse("12.34").unwrap().unwrap();
        let data = EventData::from_text("{\"on\":true}");
        let client_event =
            Happening::ClientEvent { channel: &channel, event: "client-a", data: &data, from, user_id: Some(&user) };
        let table = [
            (
                Happening::Channel(WebhookEvent::ChannelOccupied, &channel),
                r#"{"name":"channel_occupied","channel":"presence-room"}"#,
            ),
            (
                Happening::Member(WebhookEvent::MemberRemoved, &channel, &user),
                r#"{"name":"member_removed","channel":"presence-room","user_id":"u\"1"}"#,
            ),
            (Happening::User(WebhookEvent::UserOnline, &user), r#"{"name":"user_online","user_id":"u\"1"}"#),
            (
                Happening::Count(&channel, 12),
                r#"{"name":"subscription_count","channel":"presence-room","subscription_count":12}"#,
            ),
            (
                client_event,
                r#"{"name":"client_event","channel":"presence-room","event":"client-a","data":"{\"on\":true}","socket_id":"12.34","user_id":"u\"1"}"#,
            ),
            (Happening::Opened(from), r#"{"name":"connection_opened","socket_id":"12.34"}"#),
            (
                Happening::Closed { socket_id: from, code: 4201, reason: "late", user_id: None },
                r#"{"name":"connection_closed","socket_id":"12.34","code":"4201","reason":"late"}"#,
            ),
        ];
        for (happening, text) in table {
            assert_eq!(happening.encode(), text);
        }
    }
}
