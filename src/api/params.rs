//! Parameters of an API request: from the JSON body, or from the query (§4.3).

use std::borrow::Cow;

use indexmap::IndexSet;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::auth::Pair;
use crate::config::Limits;
use crate::node::Target;
use crate::protocol::json::{self, Object};
use crate::protocol::{ChannelName, EventData, SERVER_TO_USER, SocketId, UserId};

use super::error::ApiError;

/// The members of a body that anybody reads. Others are ignored: libraries pass options through.
#[derive(Debug, Deserialize, Default)]
struct Fields<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
    #[serde(borrow)]
    socket_id: Option<&'a RawValue>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    batch: Option<&'a RawValue>,
}

/// A batch whose members are all of the right type, read in one go.
#[derive(Debug, Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    batch: Vec<Object<Fields<'a>>>,
}

/// A string, borrowed where nothing in it is escaped.
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Where parameters come from. The body wins.
#[derive(Debug)]
pub(super) struct Params<'a> {
    fields: Fields<'a>,
    query: &'a [Pair<'a>],
}

/// Attributes of channels that an answer may contain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) user_count: bool,
    pub(super) subscription_count: bool,
    pub(super) cache: bool,
}

impl<'a> Params<'a> {
    /// Reads the body, if there is one, and makes sure that the query holds nothing but `known` and the signature.
    pub(super) fn read(body: &'a [u8], query: &'a [Pair<'a>], known: &[&str]) -> Result<Self, ApiError> {
        check_query(query, known)?;
        let fields = if body.is_empty() { Fields::default() } else { object(body)? };
        Ok(Self { fields, query })
    }

    /// Reads the events of a batch, where the query plays no part. What is wrong with one of them is told in its place.
    pub(super) fn read_batch(body: &'a [u8], query: &[Pair<'_>]) -> Result<Vec<Result<Self, ApiError>>, ApiError> {
        check_query(query, &[])?;
        let of_event = |fields| Self { fields, query: &[] };
        if let Ok(Batch { batch }) = object(body) {
            return Ok(batch.into_iter().map(|Object(fields)| Ok(of_event(fields))).collect());
        }
        // Again, to find out what is wrong.
        let fields: Fields<'a> = if body.is_empty() { Fields::default() } else { object(body)? };
        let batch = fields.batch.ok_or(ApiError::Missing("batch"))?;
        let wrong = || ApiError::Type("batch", "an array of objects");
        let batch: Vec<&'a RawValue> = serde_json::from_str(batch.get()).map_err(|_| wrong())?;
        let read = |event: &'a RawValue| json::object(event.get()).map(of_event).map_err(|_| wrong());
        Ok(batch.into_iter().map(read).collect())
    }

    /// The name of the event.
    pub(super) fn event_name(&self, limits: &Limits) -> Result<Cow<'a, str>, ApiError> {
        let name = self.text("name", self.fields.name)?.ok_or(ApiError::Missing("name"))?;
        // Bytes are counted faster, and are never fewer.
        if name.len() > limits.event_name_length && name.chars().count() > limits.event_name_length {
            return Err(ApiError::EventNameTooLong(limits.event_name_length));
        }
        if name.is_empty() || name.starts_with("pusher:") || name.starts_with("pusher_internal:") {
            return Err(ApiError::EventName(name.into_owned()));
        }
        Ok(name)
    }

    /// The data of the event. Objects and arrays of hand-written callers become text.
    pub(super) fn data(&self) -> Result<EventData, ApiError> {
        match self.fields.data {
            Some(data) if data.get().starts_with(['"', '{', '[']) => Ok(EventData::from_json(data)),
            Some(_) => Err(ApiError::Type("data", "a string")),
            None => self.query("data").map(EventData::from_text).ok_or(ApiError::Missing("data")),
        }
    }

    /// The one channel of an event.
    pub(super) fn target(&self, limits: &Limits) -> Result<Target, ApiError> {
        let channel = self.text("channel", self.fields.channel)?.ok_or(ApiError::Missing("channel"))?;
        parse_target(&channel, limits)
    }

    /// All channels of an event, each once.
    pub(super) fn targets(&self, limits: &Limits) -> Result<Vec<Target>, ApiError> {
        let Some(names) = self.channel_list()? else { return Ok(vec![self.target(limits)?]) };
        if names.is_empty() {
            return Err(ApiError::Empty("channels"));
        }
        if names.len() > limits.channels_per_event {
            return Err(ApiError::TooManyChannels(limits.channels_per_event));
        }
        if let [name] = &names[..] {
            return Ok(vec![parse_target(name, limits)?]);
        }
        let names: IndexSet<Cow<'_, str>> = names.into_iter().collect();
        names.iter().map(|name| parse_target(name, limits)).collect()
    }

    /// The connection that does not get the event. One that does not exist is no mistake.
    pub(super) fn except(&self) -> Result<Option<SocketId>, ApiError> {
        match self.text("socket_id", self.fields.socket_id)? {
            Some(text) => SocketId::parse(&text).map_err(|error| ApiError::SocketId(error.to_string())),
            None => Ok(None),
        }
    }

    /// The attributes asked for, of those that exist for events; `None` if none were.
    pub(super) fn info(&self) -> Result<Option<Info>, ApiError> {
        let info = self.text("info", self.fields.info)?.filter(|info| !info.is_empty());
        info.map(|info| Info::parse(&info, &["user_count", "subscription_count"])).transpose()
    }

    fn channel_list(&self) -> Result<Option<Vec<Cow<'_, str>>>, ApiError> {
        let wrong = || ApiError::Type("channels", "an array of strings");
        if let Some(list) = self.fields.channels {
            let names: Vec<Text<'_>> = serde_json::from_str(list.get()).map_err(|_| wrong())?;
            return Ok(Some(names.into_iter().map(|Text(name)| name).collect()));
        }
        let listed = self.query.iter().filter(|(name, _)| name == "channels[]" || name == "channels");
        let names: Vec<_> = listed.map(|(_, name)| Cow::Borrowed(&**name)).collect();
        Ok((!names.is_empty()).then_some(names))
    }

    fn text(&self, name: &'static str, field: Option<&'a RawValue>) -> Result<Option<Cow<'a, str>>, ApiError> {
        match field {
            Some(value) => json::string(value).map(Some).ok_or(ApiError::Type(name, "a string")),
            None => Ok(self.query(name).map(Cow::Borrowed)),
        }
    }

    fn query(&self, name: &str) -> Option<&'a str> {
        query_value(self.query, name)
    }
}

impl Info {
    /// Reads a comma-separated list of attributes out of those that exist here.
    pub(super) fn parse(list: &str, known: &[&str]) -> Result<Self, ApiError> {
        let mut info = Self::default();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                _ if !known.contains(&name) => return Err(ApiError::Info(name.to_owned())),
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                _ => info.cache = true,
            }
        }
        Ok(info)
    }
}

/// The first value of a query parameter.
pub(super) fn query_value<'a>(query: &'a [Pair<'a>], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
}

/// Whom an event is for: a channel, or the user behind `#server-to-user-…`.
pub(super) fn parse_target(name: &str, limits: &Limits) -> Result<Target, ApiError> {
    match name.strip_prefix(SERVER_TO_USER) {
        Some(id) => parse_user_id(id, limits).map(Target::User),
        None => parse_channel(name, limits).map(Target::Channel),
    }
}

/// A channel's name.
pub(super) fn parse_channel(name: &str, limits: &Limits) -> Result<ChannelName, ApiError> {
    ChannelName::parse(name, limits.channel_name_length).map_err(|error| ApiError::ChannelName(error.to_string()))
}

/// A user's id.
pub(super) fn parse_user_id(id: &str, limits: &Limits) -> Result<UserId, ApiError> {
    match (1..=limits.user_id_length).contains(&id.chars().count()) {
        true => Ok(UserId::new(id)),
        false => Err(ApiError::UserId(id.chars().take(limits.user_id_length).collect())),
    }
}

/// Makes sure that the query holds nothing but `known` and the signature.
fn check_query(query: &[Pair<'_>], known: &[&str]) -> Result<(), ApiError> {
    let names = query.iter().map(|(name, _)| &**name);
    let extraneous: Vec<&str> = names.filter(|name| !is_signature(name) && !known.contains(name)).collect();
    if extraneous.is_empty() { Ok(()) } else { Err(ApiError::Extraneous(extraneous.join(", "))) }
}

/// Reads a body.
fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::InvalidJson)?;
    json::object(text).map_err(|_| ApiError::InvalidJson)
}

fn is_signature(name: &str) -> bool {
    name.starts_with("auth_") || name == "body_md5"
}
