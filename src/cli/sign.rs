//! `fanfare sign`: what an authorization endpoint would answer (protocol §3.3).

use serde_json::{Value, json};

use crate::auth;
use crate::config::Secret;
use crate::protocol::{ChannelName, Kind, SocketId};

use super::target::TargetArgs;
use super::{CliError, output};

const EXAMPLES: &str = r#"Examples:
  fanfare sign private-room --socket-id 1234.5678
  fanfare sign presence-room --socket-id 1234.5678 --channel-data '{"user_id":"7","user_info":{"name":"Ann"}}'
  fanfare sign --user-data '{"id":"7","watchlist":["8"]}' --socket-id 1234.5678

No server is asked. What is signed is exactly the text that was given."#;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The channel to authorize.
    #[arg(value_name = "CHANNEL", required_unless_present = "user_data", conflicts_with = "user_data")]
    channel: Option<String>,
    /// The connection the answer is for; it is good for no other one.
    #[arg(long, value_name = "SOCKET_ID", value_parser = socket_id)]
    socket_id: SocketId,
    /// Who joins a presence channel: JSON with user_id and perhaps user_info.
    #[arg(long, value_name = "JSON", value_parser = json_object, conflicts_with = "user_data")]
    channel_data: Option<String>,
    /// Who signs in: JSON with id and perhaps user_info and watchlist.
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    user_data: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

impl Args {
    pub(super) fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let signer = Signer { key: &target.key, secret: &target.secret, socket_id: self.socket_id };
        if let Some(user_data) = &self.user_data {
            return output::line(signer.user(user_data));
        }
        let channel = self.channel.expect("clap asks for a channel unless there is user data");
        if ChannelName::parse(&channel, usize::MAX).is_ok_and(|name| name.kind() == Kind::PrivateEncrypted) {
            output::remark(
                "note: an encrypted channel's answer also needs shared_secret, which only your backend can make",
            );
        }
        output::line(signer.channel(&channel, self.channel_data.as_deref()))
    }
}

/// Signs for one connection.
#[derive(Debug)]
pub(super) struct Signer<'a> {
    /// The public half of the credentials.
    pub(super) key: &'a str,
    /// The private half.
    pub(super) secret: &'a Secret,
    /// The connection.
    pub(super) socket_id: SocketId,
}

impl Signer<'_> {
    /// The answer that lets the connection subscribe.
    pub(super) fn channel(&self, channel: &str, channel_data: Option<&str>) -> Value {
        let token = self.token(&auth::channel_text(self.socket_id, channel, channel_data));
        match channel_data {
            Some(data) => json!({ "auth": token, "channel_data": data }),
            None => json!({ "auth": token }),
        }
    }

    /// The answer that lets the connection sign in.
    pub(super) fn user(&self, user_data: &str) -> Value {
        json!({ "auth": self.token(&auth::user_text(self.socket_id, user_data)), "user_data": user_data })
    }

    fn token(&self, text: &str) -> String {
        format!("{}:{}", self.key, auth::sign(self.secret.expose(), text))
    }
}

/// What a server could have given out.
fn socket_id(text: &str) -> Result<SocketId, &'static str> {
    SocketId::parse(text).ok().flatten().ok_or("expected two numbers and a dot, such as 1234.5678")
}

/// Checked, but signed as it was typed.
fn json_object(text: &str) -> Result<String, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(_)) => Ok(text.to_owned()),
        Ok(_) => Err("expected a JSON object".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushers_published_tokens_are_reproduced() {
        let secret = Secret::new("7ad3773142a6692b25b8");
        let signer =
            Signer { key: "278d425bdf160c739803", secret: &secret, socket_id: socket_id("1234.1234").unwrap() };
        let token = |hex: &str| format!("278d425bdf160c739803:{hex}");
        let private = token("58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4");
        assert_eq!(signer.channel("private-foobar", None), json!({ "auth": private }));
        let data = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
        let presence = token("31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80");
        let answer = signer.channel("presence-foobar", Some(data));
        assert_eq!(answer, json!({ "auth": presence, "channel_data": data }));
        let data = r#"{"id":"12345"}"#;
        let user = token("4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba");
        assert_eq!(signer.user(data), json!({ "auth": user, "user_data": data }));
    }
}
