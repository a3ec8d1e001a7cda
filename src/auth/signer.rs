//! Tokens for clients, in the form in which an auth endpoint answers them (§3.1 to §3.3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::{MasterKey, Secret};
use crate::protocol::SocketId;

use super::{channel_text, sign, user_text};

/// Signs for one connection.
#[derive(Debug)]
pub struct Signer<'a> {
    /// The public half of the credentials.
    pub key: &'a str,
    /// The private half.
    pub secret: &'a Secret,
    /// The connection.
    pub socket_id: SocketId,
}

impl Signer<'_> {
    /// The answer that lets the connection subscribe. With a master key the channel is an encrypted one, and the answer
    /// holds what its events are decrypted with.
    pub fn channel(&self, channel: &str, channel_data: Option<&str>, master_key: Option<&MasterKey>) -> Value {
        let mut answer = json!({ "auth": self.token(&channel_text(self.socket_id, channel, channel_data)) });
        if let Some(data) = channel_data {
            answer["channel_data"] = data.into();
        }
        if let Some(master_key) = master_key {
            answer["shared_secret"] = shared_secret(channel, master_key).into();
        }
        answer
    }

    /// The answer that lets the connection sign in.
    pub fn user(&self, user_data: &str) -> Value {
        json!({ "auth": self.token(&user_text(self.socket_id, user_data)), "user_data": user_data })
    }

    fn token(&self, text: &str) -> String {
        format!("{}:{}", self.key, sign(self.secret.expose(), text))
    }
}

/// The key of one encrypted channel, in base64, derived as all libraries derive it.
pub fn shared_secret(channel: &str, master_key: &MasterKey) -> String {
    STANDARD.encode(Sha256::new().chain_update(channel).chain_update(master_key.expose()).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket_id() -> SocketId {
        SocketId::parse("1234.1234").unwrap().unwrap()
    }

    #[test]
    fn pushers_published_tokens_are_reproduced() {
        let secret = Secret::new("7ad3773142a6692b25b8");
        let signer = Signer { key: "278d425bdf160c739803", secret: &secret, socket_id: socket_id() };
        let token = |hex: &str| format!("278d425bdf160c739803:{hex}");
        let private = token("58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4");
        assert_eq!(signer.channel("private-foobar", None, None), json!({ "auth": private }));
        let data = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
        let presence = token("31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80");
        let answer = signer.channel("presence-foobar", Some(data), None);
        assert_eq!(answer, json!({ "auth": presence, "channel_data": data }));
        let data = r#"{"id":"12345"}"#;
        let user = token("4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba");
        assert_eq!(signer.user(data), json!({ "auth": user, "user_data": data }));
    }

    #[test]
    fn the_shared_secret_is_that_of_the_libraries() {
        let master_key = MasterKey::parse(&Secret::new("zyrm8pvV2C9fJcBfhyXzvxbJVN/H7QLmbe0xJi1GhPU=")).unwrap();
        let expected = "nlr49ISQHz91yS3cy/yWmW8wFMNeTnNL5tNHnbPJcLQ=";
        assert_eq!(shared_secret("private-encrypted-bla", &master_key), expected);
        let secret = Secret::new("tofu");
        let signer = Signer { key: "f00d", secret: &secret, socket_id: socket_id() };
        let answer = signer.channel("private-encrypted-bla", None, Some(&master_key));
        assert_eq!(answer["shared_secret"], expected);
    }
}
