//! Who somebody is, as text to sign.

use serde_json::Value;

use crate::config::AppConfig;
use crate::protocol::{Kind, Member, SignIn};

use super::{Question, Refused, Wish};

/// A user, as an authorizer knows it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) info: Option<Value>,
    /// For sign-ins only.
    pub(super) watchlist: Option<Value>,
}

impl Identity {
    /// The `channel_data` or `user_data` for this wish.
    pub(super) fn data(self, wish: Wish<'_>) -> String {
        if wish == Wish::SignIn { self.user_data() } else { self.channel_data() }
    }

    /// The `channel_data` of a member.
    pub(super) fn channel_data(self) -> String {
        object([("user_id", Some(self.id.into())), ("user_info", self.info)])
    }

    /// The `user_data` of a sign-in.
    pub(super) fn user_data(self) -> String {
        object([("id", Some(self.id.into())), ("user_info", self.info), ("watchlist", self.watchlist)])
    }
}

fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> String {
    let members = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(members.collect()).to_string()
}

/// The data to sign, if the server accepts it from the client afterwards: a signature for something that it would refuse
/// is of no use to anybody, and here the reason reaches the operator's log.
pub(super) fn checked(question: &Question<'_>, data: Option<String>) -> Result<Option<String>, Refused> {
    let AppConfig { limits, .. } = question.app;
    match question.wish {
        Wish::Subscribe(channel) if channel.is_presence() => {
            let data = data.ok_or(Refused::NoUserId)?;
            Member::parse(&data, limits.user_id_length, limits.user_info)?;
            Ok(Some(data))
        }
        Wish::Subscribe(channel) if channel.kind() == Kind::PrivateEncrypted && question.app.master_key().is_none() => {
            Err(Refused::NoMasterKey)
        }
        Wish::Subscribe(_) => Ok(None),
        Wish::SignIn => {
            let data = data.ok_or(Refused::NoUserId)?;
            if data.len() > limits.user_data {
                return Err(Refused::UserTooLong(limits.user_data));
            }
            SignIn::parse(&data, limits.user_id_length)?;
            Ok(Some(data))
        }
    }
}
