//! `fanfare sign`: what an authorization endpoint would answer (protocol §3.3).

use serde_json::Value;

use crate::auth::Signer;
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
        let encrypted =
            ChannelName::parse(&channel, usize::MAX).is_ok_and(|name| name.kind() == Kind::PrivateEncrypted);
        if encrypted && target.master_key.is_none() {
            output::remark(
                "note: an encrypted channel's answer also needs shared_secret, which takes the encryption_master_key of a \
                 configuration",
            );
        }
        let master_key = target.master_key.as_ref().filter(|_| encrypted);
        output::line(signer.channel(&channel, self.channel_data.as_deref(), master_key))
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
