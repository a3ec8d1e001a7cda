//! What to subscribe to, and as whom.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::auth::Signer;
use crate::protocol::{ChannelName, SERVER_TO_USER, SocketId};

use super::super::CliError;
use super::super::target::Target;

/// The arguments about channels and users.
#[derive(Debug, clap::Args)]
pub(super) struct WishArgs {
    /// Channels of any kind.
    #[arg(value_name = "CHANNEL", required_unless_present = "sign_in")]
    channels: Vec<String>,
    /// Who we are in presence channels.
    #[arg(long, value_name = "ID")]
    user_id: Option<String>,
    /// What others see of us there, as JSON.
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    user_info: Option<Value>,
    /// Sign in as this user, and get the events sent to it.
    #[arg(long, value_name = "USER_ID")]
    sign_in: Option<String>,
    /// Users to watch: prints when they come and go online.
    #[arg(long, value_name = "ID,ID", value_delimiter = ',', requires = "sign_in")]
    watch: Vec<String>,
}

/// Subscriptions that can be asked for.
#[derive(Debug)]
pub(super) struct Wish {
    channels: Vec<ChannelName>,
    channel_data: Option<String>,
    user: Option<User>,
}

#[derive(Debug)]
struct User {
    id: String,
    user_data: String,
}

impl WishArgs {
    /// Checks what can be checked here.
    pub(super) fn wish(self) -> Result<Wish, CliError> {
        let channels = self.channels.iter().map(|name| channel(name)).collect::<Result<Vec<_>, _>>()?;
        if let Some(channel) = channels.iter().find(|channel| channel.is_presence())
            && self.user_id.is_none()
            && self.sign_in.is_none()
        {
            return Err(CliError::Usage(format!("{channel} shows who is there: say who you are with --user-id ID")));
        }
        let with_info = |mut who: Value| {
            if let Some(info) = &self.user_info {
                who["user_info"] = info.clone();
            }
            who.to_string()
        };
        let channel_data = self.user_id.map(|id| with_info(json!({ "user_id": id })));
        let user = self.sign_in.map(|id| {
            let user_data = with_info(json!({ "id": id, "watchlist": self.watch }));
            User { id, user_data }
        });
        Ok(Wish { channels, channel_data, user })
    }
}

impl Wish {
    /// The user to sign in as.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_ref().map(|user| &*user.id)
    }

    /// Whether these names are all the channels there are.
    pub(super) fn is_among(&self, names: &HashSet<String>) -> bool {
        self.channels.iter().all(|channel| names.contains(channel.as_str()))
    }

    /// What a fresh connection sends. Signing in comes first: presence channels may then go without own data.
    pub(super) fn messages(&self, target: &Target, socket_id: SocketId) -> Vec<String> {
        let signer = Signer { key: &target.key, secret: &target.secret, socket_id };
        let message = |event: &str, data: Value| json!({ "event": event, "data": data }).to_string();
        let sign_in = self.user.iter().map(|user| message("pusher:signin", signer.user(&user.user_data)));
        let subscribe = self.channels.iter().map(|channel| {
            let mut data = if channel.needs_auth() {
                let channel_data = self.channel_data.as_deref().filter(|_| channel.is_presence());
                signer.channel(channel.as_str(), channel_data, None)
            } else {
                json!({ "auth": "" })
            };
            data["channel"] = channel.as_str().into();
            message("pusher:subscribe", data)
        });
        sign_in.chain(subscribe).collect()
    }
}

fn channel(name: &str) -> Result<ChannelName, CliError> {
    if let Some(user) = name.strip_prefix(SERVER_TO_USER) {
        return Err(CliError::Usage(format!("{name} is for whoever signed in: use --sign-in {user}")));
    }
    // How long a name may be is the server's choice.
    ChannelName::parse(name, usize::MAX)
        .map_err(|error| CliError::Usage(format!("{error}; allowed are letters, digits and _ - = @ , . ;")))
}

fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn args(channels: &[&str]) -> WishArgs {
        let channels = channels.iter().map(|&name| name.to_owned()).collect();
        WishArgs { channels, user_id: None, user_info: None, sign_in: None, watch: Vec::new() }
    }

    fn messages(args: WishArgs) -> Vec<Value> {
        let url = "http://127.0.0.1:6001".parse().unwrap();
        let secret = Secret::new("7ad3773142a6692b25b8");
        let (app_id, key) = ("3".to_owned(), "278d425bdf160c739803".to_owned());
        let target = Target { url, app_id, key, secret, master_key: None };
        let messages = args.wish().unwrap().messages(&target, SocketId::parse("1234.1234").unwrap().unwrap());
        messages.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    #[test]
    fn each_kind_of_channel_is_asked_for_in_its_own_way() {
        let args = WishArgs { user_id: Some("7".to_owned()), ..args(&["room", "private-foobar", "presence-room"]) };
        let messages = messages(args);
        assert_eq!(messages[0]["data"], json!({ "auth": "", "channel": "room" }));
        let token = "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
        assert_eq!(messages[1]["data"], json!({ "auth": token, "channel": "private-foobar" }));
        assert_eq!(messages[2]["data"]["channel_data"], r#"{"user_id":"7"}"#);
        assert_eq!(messages[2]["event"], "pusher:subscribe");
    }

    #[test]
    fn signing_in_comes_first_and_makes_channel_data_unnecessary() {
        let watch = vec!["8".to_owned()];
        let messages = messages(WishArgs { sign_in: Some("7".to_owned()), watch, ..args(&["presence-room"]) });
        assert_eq!(messages[0]["event"], "pusher:signin");
        assert_eq!(messages[0]["data"]["user_data"], r#"{"id":"7","watchlist":["8"]}"#);
        assert_eq!(messages[1]["data"].get("channel_data"), None);
    }

    #[test]
    fn what_the_server_would_refuse_anyway_is_refused_with_advice() {
        let refused = |name| args(&[name]).wish().unwrap_err().to_string();
        assert!(refused("presence-room").contains("--user-id"));
        assert!(refused("#server-to-user-7").contains("--sign-in 7"));
        assert!(refused("a room").contains("Invalid channel name: a room"));
    }
}
