//! What clients ask for, signed.

use serde_json::{Value, json};

use super::{KEY, SECRET, sign};

/// The token for a channel.
pub fn auth(socket_id: &str, channel: &str) -> String {
    format!("{KEY}:{}", sign::hmac(SECRET, &format!("{socket_id}:{channel}")))
}

/// The token for a channel together with channel data.
pub fn auth_with_data(socket_id: &str, channel: &str, channel_data: &str) -> String {
    format!("{KEY}:{}", sign::hmac(SECRET, &format!("{socket_id}:{channel}:{channel_data}")))
}

/// The token for a sign-in.
pub fn user_auth(socket_id: &str, user_data: &str) -> String {
    format!("{KEY}:{}", sign::hmac(SECRET, &format!("{socket_id}::user::{user_data}")))
}

/// The request for a channel of any kind without channel data.
pub fn subscription(socket_id: &str, channel: &str) -> Value {
    json!({ "event": "pusher:subscribe", "data": { "auth": auth(socket_id, channel), "channel": channel } })
}

/// The request for a presence channel.
pub fn membership(socket_id: &str, channel: &str, channel_data: &str) -> Value {
    let auth = auth_with_data(socket_id, channel, channel_data);
    json!({ "event": "pusher:subscribe", "data": { "auth": auth, "channel_data": channel_data, "channel": channel } })
}

/// The request of a sign-in.
pub fn sign_in(socket_id: &str, user_data: &str) -> Value {
    json!({ "event": "pusher:signin", "data": { "auth": user_auth(socket_id, user_data), "user_data": user_data } })
}
