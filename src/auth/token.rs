//! Tokens that a backend signs for its users: to subscribe and to sign in (§3.1).

use crate::apps::App;
use crate::protocol::SocketId;

/// Why a token is refused. The texts are Pusher's; none holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The key before the colon belongs to no app, or to another one.
    #[error("Invalid key in subscription auth data: '{0}'")]
    UnknownKey(String),
    /// The signature is not that of the text.
    #[error("Invalid signature: Expected HMAC SHA256 hex digest of {text}, but got {signature}")]
    Signature {
        /// What should have been signed.
        text: String,
        /// What was sent in place of its signature.
        signature: String,
    },
}

/// The text to sign for a subscription.
pub fn channel_text(socket_id: SocketId, channel: &str, channel_data: Option<&str>) -> String {
    match channel_data {
        Some(data) => format!("{socket_id}:{channel}:{data}"),
        None => format!("{socket_id}:{channel}"),
    }
}

/// The text to sign for a sign-in.
pub fn user_text(socket_id: SocketId, user_data: &str) -> String {
    format!("{socket_id}::user::{user_data}")
}

/// Verifies `KEY:SIGNATURE` with that key's own secret.
///
/// # Errors
/// The key is not one of this app, or the signature is wrong.
pub fn verify_token(app: &App, auth: &str, text: String) -> Result<(), TokenError> {
    let (key, signature) = auth.split_once(':').unwrap_or((auth, ""));
    let mac = app.mac(key).ok_or_else(|| TokenError::UnknownKey(shown(key)))?;
    match super::verify(mac, &text, signature) {
        true => Ok(()),
        false => Err(TokenError::Signature { text, signature: shown(signature) }),
    }
}

/// As much of a stranger's text as an error repeats.
fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AppConfig;

    fn socket(id: &str) -> SocketId {
        SocketId::parse(id).unwrap().unwrap()
    }

    #[test]
    fn pushers_worked_examples_verify() {
        let pusher = App::new(AppConfig::new("1", "278d425bdf160c739803", "7ad3773142a6692b25b8"));
        let node = App::new(AppConfig::new("1", "f00d", "tofu"));
        let id = socket("1234.1234");
        let short = socket("123.456");
        let table = [
            (
                &pusher,
                channel_text(id, "private-foobar", None),
                "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
            ),
            (
                &pusher,
                channel_text(id, "presence-foobar", Some(r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#)),
                "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
            ),
            (
                &pusher,
                channel_text(id, "presence-foobar", Some(r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#)),
                "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c",
            ),
            (
                &pusher,
                user_text(id, r#"{"id":"12345"}"#),
                "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
            ),
            (
                &node,
                channel_text(short, "test", None),
                "efa6cf7644a0b35cba36aa0f776f3cbf7bb60e95ea2696bde1dbe8403b61bd7c",
            ),
            (
                &node,
                channel_text(short, "test", Some(r#"{"foo":"bar"}"#)),
                "f41faf9ead2ea76772cc6b1168363057459f02499ae4d92e88229dc7f4efa2d4",
            ),
            (
                &node,
                channel_text(short, "private-encrypted-bla", Some(r#""foo""#)),
                "962c48b78bf93d98ff4c92ee7dff04865821455b7b401e9d60a9e0a90af2c105",
            ),
            (
                &node,
                user_text(short, r#"{"id":"45678"}"#),
                "f4b1fdeea7c93e32648c7230e32b172057c5623cace6cfce791c6e7035e0babd",
            ),
            (
                &node,
                user_text(socket("1.1"), r#"{"id":"ą§¶™€łü€ß£"}"#),
                "620494cee53d6c568b49598313194088afda37218f0d059af03c0c898ed61ff4",
            ),
        ];
        for (app, text, signature) in table {
            let key = &app.config().keys[0].key;
            let verdict = verify_token(app, &format!("{key}:{signature}"), text.clone());
            assert!(verdict.is_ok(), "{text}");
            assert!(verify_token(app, &format!("{key}:{}", signature.to_uppercase()), text.clone()).is_ok());
            assert!(verify_token(app, &format!("{key}:{signature}"), text + " ").is_err());
        }
    }

    #[test]
    fn a_foreign_key_and_a_broken_token_are_refused() {
        let app = App::new(AppConfig::new("1", "f00d", "tofu"));
        for auth in ["", "f00d", "f00d:", "f00d:zz", "other:efa6", ":efa6", "f00d:efa6:cf76"] {
            assert!(verify_token(&app, auth, "1.2:private-a".into()).is_err(), "{auth}");
        }
    }
}
