//! What a request asks for: fields of its query, and of its form or JSON body. All count alike, so none may be there twice.

use std::fmt;

use serde::Deserializer;
use serde::de::{Deserialize, MapAccess, Visitor};
use serde_json::Value;

use crate::auth::form_pairs;
use crate::protocol::{AUTH_PARAMETERS as OWN, json, reads_as};
use crate::untrusted::Untrusted;

/// Parameters that a query or a body may have besides Fanfare's own. Nobody needs so many, and each of them takes time.
const MAX_FOREIGN: usize = 64;

/// The fields.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fields {
    /// Names and values, in order.
    pairs: Vec<(String, String)>,
    /// How many are not Fanfare's own.
    foreign: usize,
    /// Why others could read them otherwise, or why nobody should read so many.
    flaw: Option<Malformed>,
}

/// The channels that are asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Names {
    /// The usual form: `channel_name=a`.
    One(String),
    /// The form of batching front-ends: `channel_name[0]=a&channel_name[1]=b`. Distinct, in order.
    Batch(Vec<String>),
}

/// What is wrong with a request; the one who sent it is told.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the body is not a JSON object")]
    Json,
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is given more than once")]
    Twice(&'static str),
    #[error("the parameter {} could be read as {own} by another server; leave it out or rename it", Untrusted(name))]
    Lookalike { name: String, own: &'static str },
    #[error("more than {MAX_FOREIGN} parameters that are not Fanfare's own")]
    TooManyParameters,
    #[error("{0} must be a string")]
    NotText(&'static str),
    #[error("more than {0} channels at once (limits.channels_per_event)")]
    TooMany(usize),
    #[error("socket_id is not the id of a connection")]
    SocketId,
    #[error("callback must be of the form Pusher.auth_callbacks['1']")]
    Callback,
    #[error("a GET request needs a callback; send a POST request instead")]
    NoCallback,
}

impl Fields {
    /// Those of a query string or of a form.
    pub(super) fn of_form(text: &str) -> Self {
        let mut fields = Self::default();
        for (name, value) in form_pairs(text, true) {
            fields.add(name.into_owned(), value.into_owned());
        }
        // Some begin the next pair at a semicolon, too, and there even our own names are not ours.
        let hidden = text.split('&').flat_map(|piece| piece.split(';').skip(1));
        for (count, piece) in hidden.enumerate() {
            let name = form_pairs(piece, true).into_iter().next().map(|(name, _)| name).unwrap_or_default();
            fields.examine(&name, count);
        }
        fields
    }

    /// Adds one, unless it is one too many.
    fn add(&mut self, name: String, value: String) {
        if !is_own(&name) {
            self.examine(&name, self.foreign);
            self.foreign += 1;
        }
        if self.foreign <= MAX_FOREIGN {
            self.pairs.push((name, value));
        }
    }

    /// Looks at a name that is not one of ours, and comes after so many others.
    fn examine(&mut self, name: &str, count: usize) {
        // The first flaw is told, and it costs time to look for more.
        if self.flaw.is_none() {
            self.flaw = match count < MAX_FOREIGN {
                true => reads_as(name).map(|own| Malformed::Lookalike { name: name.to_owned(), own }),
                false => Some(Malformed::TooManyParameters),
            };
        }
    }

    /// Those of a JSON object. A list of channel names becomes what it would be in a form; other values that are no strings
    /// become JSON text.
    ///
    /// # Errors
    /// [`Malformed::Json`], or one of Fanfare's own fields is something else than text.
    pub(super) fn of_json(text: &str) -> Result<Self, Malformed> {
        let Members(members) = json::object(text).map_err(|_| Malformed::Json)?;
        let mut fields = Self::default();
        for (name, value) in members {
            let own = OWN.iter().find(|own| **own == name).copied();
            match (own, value) {
                (_, Value::String(text)) => fields.add(name, text),
                (Some("channel_name"), Value::Array(names)) => {
                    for name in names {
                        let Value::String(name) = name else { return Err(Malformed::NotText("channel_name")) };
                        fields.add("channel_name[]".to_owned(), name);
                    }
                }
                (Some(own), _) => return Err(Malformed::NotText(own)),
                (None, value) => fields.add(name, value.to_string()),
            }
        }
        Ok(fields)
    }

    /// These and those.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.pairs.extend(other.pairs);
        self.foreign += other.foreign;
        self.flaw = self.flaw.or(other.flaw);
        self
    }

    /// Whether everybody who reads them reads the same.
    ///
    /// # Errors
    /// One of them could be taken for one of Fanfare's own, or there are too many to find that out.
    pub(super) fn unambiguous(&self) -> Result<(), Malformed> {
        self.flaw.clone().map_or(Ok(()), Err)
    }

    /// The field of this name.
    ///
    /// # Errors
    /// It is there more than once: whoever looks at the other one would see another request.
    pub(super) fn one(&self, name: &'static str) -> Result<Option<&str>, Malformed> {
        let mut values = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Malformed::Twice(name)),
        }
    }

    /// The channels.
    ///
    /// # Errors
    /// There is none, there are both forms, or more than `max`.
    pub(super) fn channels(&self, max: usize) -> Result<Names, Malformed> {
        let one = self.one("channel_name")?;
        let mut batch: Vec<String> = Vec::new();
        for (_, name) in self.pairs.iter().filter(|(key, _)| is_item(key)) {
            if !batch.contains(name) {
                batch.push(name.clone());
            }
            if batch.len() > max {
                return Err(Malformed::TooMany(max));
            }
        }
        match one {
            Some(_) if !batch.is_empty() => Err(Malformed::Twice("channel_name")),
            Some(name) => Ok(Names::One(name.to_owned())),
            None if batch.is_empty() => Err(Malformed::Missing("channel_name")),
            None => Ok(Names::Batch(batch)),
        }
    }

    /// What is left for the authorizer.
    pub(super) fn params(self) -> Vec<(String, String)> {
        self.pairs.into_iter().filter(|(name, _)| !is_own(name)).collect()
    }
}

/// Whether a name means something to Fanfare itself.
fn is_own(name: &str) -> bool {
    OWN.contains(&name) || is_item(name)
}

/// `channel_name[]` or `channel_name[0]`.
fn is_item(name: &str) -> bool {
    let index = name.strip_prefix("channel_name[").and_then(|rest| rest.strip_suffix(']'));
    index.is_some_and(|index| index.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The members of an object, all of them: a map would keep the last of two with the same name.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(names: &[&str]) -> Result<Names, Malformed> {
        Ok(Names::Batch(names.iter().map(|name| (*name).to_owned()).collect()))
    }

    #[test]
    fn a_form_and_json_say_the_same() {
        let form = Fields::of_form("socket_id=1.2&channel_name=private-a%3Bb&user+id=a%20b%2Bc&empty=&bare");
        let json = r#"{"socket_id":"1.2","channel_name":"private-a;b","user id":"a b+c","empty":"","bare":""}"#;
        assert_eq!(Ok(form), Fields::of_json(json));
        let form = Fields::of_form("channel_name%5B0%5D=a&channel_name[1]=b&n=5");
        assert_eq!(form.channels(2), batch(&["a", "b"]));
        let json = Fields::of_json(r#"{"channel_name":["a","b","a"],"n":5,"o":{"x":[1]}}"#).unwrap();
        assert_eq!(json.channels(2), batch(&["a", "b"]));
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(json.params(), [text("n", "5"), text("o", r#"{"x":[1]}"#)]);
    }

    #[test]
    fn a_field_that_is_there_twice_is_ambiguous() {
        let twice = Err(Malformed::Twice("channel_name"));
        assert_eq!(Fields::of_form("channel_name=a&channel_name=a").channels(9), twice);
        assert_eq!(Fields::of_form("channel_name=a&channel_name[]=b").channels(9), twice);
        assert_eq!(Fields::of_form("channel_name=a").and(Fields::of_form("channel_name=b")).channels(9), twice);
        let json = Fields::of_json(r#"{"channel_name":"a","channel_name":"b"}"#).unwrap();
        assert_eq!(json.channels(9), twice);
        assert_eq!(Fields::of_form("socket_id=1.2&socket_id=1.2").one("socket_id"), Err(Malformed::Twice("socket_id")));
    }

    #[test]
    fn there_are_only_so_many_fields() {
        let many = |count: usize, separator: &str| vec!["a=1"; count].join(separator);
        assert_eq!(Fields::of_form(&many(MAX_FOREIGN, "&")).unambiguous(), Ok(()));
        let too_many = Err(Malformed::TooManyParameters);
        let fields = Fields::of_form(&many(10_000, "&"));
        assert_eq!((fields.unambiguous(), fields.pairs.len()), (too_many.clone(), MAX_FOREIGN));
        assert_eq!(Fields::of_form(&many(10_000, ";")).unambiguous(), too_many);
        let members: Vec<_> = (0..=MAX_FOREIGN).map(|n| format!("\"a{n}\":1")).collect();
        assert_eq!(Fields::of_json(&format!("{{{}}}", members.join(","))).unwrap().unambiguous(), too_many);
        // Channels are counted where it is known how many may come.
        let channels = vec!["channel_name[]=a"; 1000].join("&");
        assert_eq!(Fields::of_form(&channels).unambiguous(), Ok(()));
    }

    #[test]
    fn a_name_that_others_read_as_ours_is_ambiguous() {
        let refused = |fields: Fields, name: &str| {
            let Err(Malformed::Lookalike { name: found, own }) = fields.unambiguous() else { panic!("{fields:?}") };
            assert_eq!((found.as_str(), own), (name, "channel_name"));
        };
        for (form, name) in [
            ("channel_name=a&channel.name=b", "channel.name"),
            ("channel_name=a&%5Bchannel_name%5D=b", "[channel_name]"),
            ("channel_name=a&channel_name[x]=b", "channel_name[x]"),
            ("channel_name=a;channel_name=b", "channel_name"),
            ("channel_name=a&x=1;channel%5Fname=b", "channel_name"),
            ("x;channel_name", "x;channel_name"),
            ("channel_name=a&Channel_Name", "Channel_Name"),
        ] {
            refused(Fields::of_form(form), name);
        }
        refused(Fields::of_json(r#"{"channel_name":"a","channel\u0000name":"b"}"#).unwrap(), "channel\0name");
        refused(Fields::of_form("a=b").and(Fields::of_form("channel.name=b")), "channel.name");
        let fine = [
            "channel_name=a&socket_id=1.2&callback=x&app_key=k&lang=en",
            "channel_name=private-a;b&socket_id=1.2",
            "channel_name[]=a&channel_name%5B12%5D=b",
            "text=a;b=c;;&x=;",
        ];
        for form in fine {
            assert_eq!(Fields::of_form(form).unambiguous(), Ok(()), "{form}");
        }
        assert_eq!(Fields::of_json(r#"{"channel_name":["a"],"x":{"channel_name":1}}"#).unwrap().unambiguous(), Ok(()));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in ["", "[]", "5", "{", r#"{"a":1} x"#, "null"] {
            assert_eq!(Fields::of_json(text), Err(Malformed::Json), "{text}");
        }
        for text in [r#"{"channel_name":5}"#, r#"{"channel_name":{}}"#, r#"{"channel_name":["a",5]}"#] {
            assert_eq!(Fields::of_json(text), Err(Malformed::NotText("channel_name")), "{text}");
        }
        assert_eq!(Fields::of_form("").channels(1), Err(Malformed::Missing("channel_name")));
        assert_eq!(Fields::of_form("channel_name[]=a&channel_name[]=b").channels(1), Err(Malformed::TooMany(1)));
    }
}
