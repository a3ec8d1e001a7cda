//! What clients receive (§2): every event the server sends, and its exact JSON.

use std::time::Duration;

use super::frame::FrameBuilder;
use super::{ClientError, EventData, Frame, Member, SocketId, SubscriptionError, UserId, json};

/// An event on its way to clients. `data` is always a string with JSON in it, but for `pusher:error` (§2.1).
#[derive(Debug)]
pub enum ServerEvent<'a> {
    /// The greeting: the first thing a client hears (§1.3).
    ConnectionEstablished {
        /// The new connection's name.
        socket_id: SocketId,
        /// Silence after which the client should ping; told in whole seconds, at least one.
        activity_timeout: Duration,
    },
    /// The answer to a `pusher:ping`.
    Pong,
    /// A mistake that the connection survives.
    Error(&'a ClientError),
    /// The same for a fatal one, which protocols up to 5 hear before the close frame.
    FatalError {
        /// The close code.
        code: u16,
        /// The close reason.
        message: &'a str,
    },
    /// A subscription is in place.
    SubscriptionSucceeded {
        /// The channel.
        channel: &'a str,
        /// What the newcomer learns: the member list of a presence channel, else `{}`.
        data: &'a str,
    },
    /// A subscription was refused: the form that applications can bind to (§2.6).
    SubscriptionError {
        /// The channel, as the client wrote it.
        channel: &'a str,
        /// Why.
        error: &'a SubscriptionError,
    },
    /// A subscription was refused: the form that releases a waiting .NET client (§2.6).
    InternalSubscriptionError {
        /// The channel, as the client wrote it.
        channel: &'a str,
    },
    /// Somebody joined a presence channel.
    MemberAdded {
        /// The channel.
        channel: &'a str,
        /// Who.
        member: &'a Member,
    },
    /// Somebody left a presence channel for good.
    MemberRemoved {
        /// The channel.
        channel: &'a str,
        /// Who.
        user_id: &'a UserId,
    },
    /// How many connections are subscribed.
    SubscriptionCount {
        /// The channel.
        channel: &'a str,
        /// Connections.
        count: usize,
    },
    /// A cache channel has nothing to show.
    CacheMiss {
        /// The channel.
        channel: &'a str,
    },
    /// An event of the application, from a backend or from another client.
    Channel {
        /// Its name.
        event: &'a str,
        /// The channel, or `#server-to-user-…`.
        channel: &'a str,
        /// Passed on as it came.
        data: &'a EventData,
        /// The sending member of a presence channel; only for client events.
        user_id: Option<&'a UserId>,
    },
    /// A sign-in worked.
    SignInSuccess {
        /// The signed text, byte for byte.
        user_data: &'a str,
    },
    /// Who of a watchlist is or went online or offline.
    WatchlistEvents {
        /// Users with a connection.
        online: &'a [&'a UserId],
        /// Users without.
        offline: &'a [&'a UserId],
    },
}

impl ServerEvent<'_> {
    /// The event as bytes for sockets.
    pub fn encode(&self) -> Frame {
        match *self {
            Self::ConnectionEstablished { socket_id, activity_timeout } => {
                let seconds = activity_timeout.as_secs().max(1);
                let data = format!(r#"{{"socket_id":"{socket_id}","activity_timeout":{seconds}}}"#);
                plain("pusher:connection_established", &data)
            }
            Self::Pong => plain("pusher:pong", "{}"),
            Self::Error(error) => error_event(error.code(), &error.to_string()),
            Self::FatalError { code, message } => error_event(Some(code), message),
            Self::SubscriptionSucceeded { channel, data } => {
                on_channel("pusher_internal:subscription_succeeded", channel, data)
            }
            Self::SubscriptionError { channel, error } => {
                let (kind, status) = error.kind();
                let text = json::quoted(&error.to_string());
                let data = format!(r#"{{"type":"{kind}","error":{text},"status":{status}}}"#);
                on_channel("pusher:subscription_error", channel, &data)
            }
            Self::InternalSubscriptionError { channel } => {
                on_channel("pusher_internal:subscription_error", channel, "{}")
            }
            Self::MemberAdded { channel, member } => {
                let id = json::quoted(member.user_id.as_str());
                let data = format!(r#"{{"user_id":{id},"user_info":{}}}"#, member.user_info);
                on_channel("pusher_internal:member_added", channel, &data)
            }
            Self::MemberRemoved { channel, user_id } => {
                let data = format!(r#"{{"user_id":{}}}"#, json::quoted(user_id.as_str()));
                on_channel("pusher_internal:member_removed", channel, &data)
            }
            Self::SubscriptionCount { channel, count } => {
                let data = format!(r#"{{"subscription_count":{count}}}"#);
                on_channel("pusher_internal:subscription_count", channel, &data)
            }
            Self::CacheMiss { channel } => on_channel("pusher:cache_miss", channel, "{}"),
            Self::Channel { event, channel, data, user_id } => {
                let mut frame = FrameBuilder::with_capacity(event.len() + channel.len() + data.literal().len() + 64);
                frame.raw(r#"{"event":"#).string(event).raw(r#","channel":"#).string(channel);
                frame.raw(r#","data":"#).raw(data.literal());
                if let Some(user_id) = user_id {
                    frame.raw(r#","user_id":"#).string(user_id.as_str());
                }
                frame.raw("}");
                frame.finish()
            }
            Self::SignInSuccess { user_data } => {
                plain("pusher:signin_success", &format!(r#"{{"user_data":{}}}"#, json::quoted(user_data)))
            }
            Self::WatchlistEvents { online, offline } => {
                let entries: Vec<String> = [("online", online), ("offline", offline)]
                    .into_iter()
                    .filter(|(_, ids)| !ids.is_empty())
                    .map(|(name, ids)| {
                        let ids: Vec<String> = ids.iter().map(|id| json::quoted(id.as_str())).collect();
                        format!(r#"{{"name":"{name}","user_ids":[{}]}}"#, ids.join(","))
                    })
                    .collect();
                plain("pusher_internal:watchlist_events", &format!(r#"{{"events":[{}]}}"#, entries.join(",")))
            }
        }
    }
}

fn plain(event: &str, data: &str) -> Frame {
    let mut frame = FrameBuilder::with_capacity(event.len() + data.len() * 2 + 32);
    frame.raw(r#"{"event":""#).raw(event).raw(r#"","data":"#).string(data).raw("}");
    frame.finish()
}

fn on_channel(event: &str, channel: &str, data: &str) -> Frame {
    let mut frame = FrameBuilder::with_capacity(event.len() + channel.len() + data.len() * 2 + 48);
    frame.raw(r#"{"event":""#).raw(event).raw(r#"","channel":"#).string(channel);
    frame.raw(r#","data":"#).string(data).raw("}");
    frame.finish()
}

/// The one event whose data is an object, and whose code is a number or `null`, never a string.
fn error_event(code: Option<u16>, message: &str) -> Frame {
    let code = code.map_or_else(|| "null".to_owned(), |code| code.to_string());
    let mut frame = FrameBuilder::with_capacity(message.len() + 64);
    frame.raw(r#"{"event":"pusher:error","data":{"code":"#).raw(&code);
    frame.raw(r#","message":"#).string(message).raw("}}");
    frame.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(event: &ServerEvent<'_>) -> String {
        String::from_utf8(event.encode().payload().to_vec()).unwrap()
    }

    #[test]
    fn the_greeting_is_pushers() {
        let socket_id = SocketId::parse("131160.155806628").unwrap().unwrap();
        let event = ServerEvent::ConnectionEstablished { socket_id, activity_timeout: Duration::from_secs(120) };
        assert_eq!(
            text(&event),
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"131160.155806628\",\"activity_timeout\":120}"}"#
        );
    }

    #[test]
    fn data_is_passed_on_and_a_user_id_only_shows_when_there_is_one() {
        let data = EventData::from_text("{\"on\":true}");
        let event = |user_id| ServerEvent::Channel { event: "client-a", channel: "presence-r", data: &data, user_id };
        assert_eq!(text(&event(None)), r#"{"event":"client-a","channel":"presence-r","data":"{\"on\":true}"}"#);
        assert_eq!(
            text(&event(Some(&UserId::new("7")))),
            r#"{"event":"client-a","channel":"presence-r","data":"{\"on\":true}","user_id":"7"}"#
        );
    }

    #[test]
    fn an_error_has_an_object_and_a_number_or_null() {
        assert_eq!(
            text(&ServerEvent::Error(&ClientError::InvalidJson)),
            r#"{"event":"pusher:error","data":{"code":null,"message":"Received invalid JSON"}}"#
        );
        assert!(text(&ServerEvent::Error(&ClientError::ClientEventRate)).contains(r#""code":4301,"#));
    }

    #[test]
    fn a_watchlist_leaves_empty_entries_out() {
        let id = UserId::new("8");
        let event = ServerEvent::WatchlistEvents { online: &[&id], offline: &[] };
        assert_eq!(
            text(&event),
            r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"8\"]}]}"}"#
        );
    }
}
