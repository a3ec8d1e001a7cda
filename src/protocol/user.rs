//! Who somebody is: members of presence channels and signed-in users.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json;

/// The id of a user, always text: a number in `channel_data` became its decimal digits (§2.5). Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

/// A user as a presence channel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// Anything the backend wants the others to know: JSON text, `null` if it gave none.
    pub user_info: Arc<str>,
}

/// The content of a sign-in's `user_data` (§2.9).
#[derive(Debug)]
pub struct SignIn {
    /// Who.
    pub user_id: UserId,
    /// What presence channels show of the user: JSON text, `null` if there is none.
    pub user_info: Arc<str>,
    /// Users to be told about; distinct, in the order given.
    pub watchlist: Vec<UserId>,
}

/// What is wrong with `channel_data` or `user_data`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUser {
    /// Not a JSON object.
    #[error("not a valid JSON object")]
    Json,
    /// The id is missing, empty or of a type that is none.
    #[error("{0} must be {1}")]
    Id(&'static str, &'static str),
    /// The id has more characters than the app allows.
    #[error("{0} is longer than {1} characters")]
    IdTooLong(&'static str, usize),
    /// The `user_info` has more bytes than the app allows.
    #[error("user_info is longer than {0} bytes")]
    InfoTooLong(usize),
    /// The watchlist is not an array.
    #[error("watchlist must be an array of user ids")]
    Watchlist,
}

impl UserId {
    /// An id that somebody else checked.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Member {
    /// Reads verified `channel_data`.
    ///
    /// # Errors
    /// See [`InvalidUser`]; the limits are in characters and bytes.
    pub fn parse(channel_data: &str, max_id: usize, max_info: usize) -> Result<Self, InvalidUser> {
        #[derive(Deserialize)]
        struct ChannelData<'a> {
            #[serde(borrow)]
            user_id: Option<&'a RawValue>,
            #[serde(borrow)]
            user_info: Option<&'a RawValue>,
        }
        let data: ChannelData<'_> = json::object(channel_data).map_err(|_| InvalidUser::Json)?;
        let user_id = data.user_id.and_then(|id| match id.get().as_bytes()[0] {
            b'-' | b'0'..=b'9' => Some(id.get().into()),
            _ => json::string(id),
        });
        let user_id = user_id.filter(|id| !id.is_empty());
        let user_id = user_id.ok_or(InvalidUser::Id("user_id", "a non-empty string or a number"))?;
        if user_id.chars().count() > max_id {
            return Err(InvalidUser::IdTooLong("user_id", max_id));
        }
        let user_info = data.user_info.map_or("null", RawValue::get);
        let member = Self { user_id: UserId::new(&user_id), user_info: user_info.into() };
        member.with_info_within(max_info)
    }

    /// The member itself, if its `user_info` is short enough.
    ///
    /// # Errors
    /// [`InvalidUser::InfoTooLong`].
    pub fn with_info_within(self, max_info: usize) -> Result<Self, InvalidUser> {
        match self.user_info.len() <= max_info {
            true => Ok(self),
            false => Err(InvalidUser::InfoTooLong(max_info)),
        }
    }
}

impl SignIn {
    /// Reads verified `user_data`.
    ///
    /// # Errors
    /// See [`InvalidUser`]; the limit is in characters.
    pub fn parse(user_data: &str, max_id: usize) -> Result<Self, InvalidUser> {
        #[derive(Deserialize)]
        struct UserData<'a> {
            #[serde(borrow)]
            id: Option<&'a RawValue>,
            #[serde(borrow)]
            user_info: Option<&'a RawValue>,
            #[serde(borrow)]
            watchlist: Option<&'a RawValue>,
        }
        let data: UserData<'_> = json::object(user_data).map_err(|_| InvalidUser::Json)?;
        let id = data.id.and_then(json::string).filter(|id| !id.is_empty());
        let id = id.ok_or(InvalidUser::Id("id", "a non-empty string"))?;
        if id.chars().count() > max_id {
            return Err(InvalidUser::IdTooLong("id", max_id));
        }
        let listed: Vec<&RawValue> = match data.watchlist {
            Some(list) => serde_json::from_str(list.get()).map_err(|_| InvalidUser::Watchlist)?,
            None => Vec::new(),
        };
        let mut seen = HashSet::new();
        let ids = listed.into_iter().filter_map(json::string).filter(|id| seen.insert(id.clone()));
        let watchlist = ids.map(|id| UserId::new(&id)).collect();
        Ok(Self {
            user_id: UserId::new(&id),
            user_info: data.user_info.map_or("null", RawValue::get).into(),
            watchlist,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_becomes_its_digits() {
        let member = Member::parse(r#"{"user_id":10,"user_info":{"name":"A"}}"#, 128, 1024).unwrap();
        assert_eq!((member.user_id.as_str(), &*member.user_info), ("10", r#"{"name":"A"}"#));
    }

    #[test]
    fn no_info_is_null() {
        for data in [r#"{"user_id":"7"}"#, r#"{"user_id":"7","user_info":null}"#] {
            assert_eq!(&*Member::parse(data, 128, 1024).unwrap().user_info, "null");
        }
    }

    #[test]
    fn other_ids_are_refused() {
        for id in ["\"\"", "true", "null", "{}", "[1]"] {
            let refused = Member::parse(&format!("{{\"user_id\":{id}}}"), 128, 1024).unwrap_err();
            assert!(matches!(refused, InvalidUser::Id(..)), "{id}");
            assert!(matches!(SignIn::parse(&format!("{{\"id\":{id}}}"), 128), Err(InvalidUser::Id(..))), "{id}");
        }
        assert!(matches!(SignIn::parse(r#"{"id":7}"#, 128), Err(InvalidUser::Id(..))));
        assert!(matches!(Member::parse("{}", 128, 1024), Err(InvalidUser::Id(..))));
        assert_eq!(Member::parse("[]", 128, 1024).unwrap_err(), InvalidUser::Json);
    }

    #[test]
    fn lengths_are_characters_of_ids_and_bytes_of_info() {
        let id = |n| format!("{{\"user_id\":\"{}\"}}", "é".repeat(n));
        assert!(Member::parse(&id(128), 128, 1024).is_ok());
        assert_eq!(Member::parse(&id(129), 128, 1024).unwrap_err(), InvalidUser::IdTooLong("user_id", 128));
        let info = |n| format!("{{\"user_id\":1,\"user_info\":\"{}\"}}", "x".repeat(n));
        assert!(Member::parse(&info(1022), 128, 1024).is_ok());
        assert_eq!(Member::parse(&info(1023), 128, 1024).unwrap_err(), InvalidUser::InfoTooLong(1024));
    }

    #[test]
    fn a_watchlist_holds_distinct_strings() {
        let user = SignIn::parse(r#"{"id":"1","watchlist":["a",5,"b","a",null]}"#, 128).unwrap();
        assert_eq!(user.watchlist, [UserId::new("a"), UserId::new("b")]);
        assert_eq!(SignIn::parse(r#"{"id":"1","watchlist":"a"}"#, 128).unwrap_err(), InvalidUser::Watchlist);
    }
}
