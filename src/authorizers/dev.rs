//! The authorizer for development: everybody may everything, under any name.

use serde_json::{Value, json};

use super::identity::Identity;
use super::{Question, Wish};

/// The user that the parameters `user_id` and `user_info` name, or else a guest, who is another one on each connection.
pub(super) fn decide(question: &Question<'_>) -> String {
    let first = |name| question.caller.param(name).find(|value| !value.is_empty());
    // `user_info` is JSON, and where it is not, it is what somebody would write by hand.
    let info = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    let guest = format!("guest-{}", question.socket_id);
    let identity = Identity {
        id: first("user_id").unwrap_or(&guest).to_owned(),
        info: Some(first("user_info").map_or_else(|| json!({ "name": first("user_id").unwrap_or("Guest") }), info)),
        watchlist: first("watchlist").filter(|_| question.wish == Wish::SignIn).map(info),
    };
    identity.data(question.wish)
}
