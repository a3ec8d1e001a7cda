//! What clients send: bodies, and what is in them.

use std::fmt;

use hyper::{Response, StatusCode};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::auth::form_pairs;
use crate::request_body::BodyError;
use crate::response::{Body, TEXT, whole};

/// Messages in one body. pusher-js sends one; SockJS clients send all that has come up since their last request.
pub(super) const MAX_MESSAGES: usize = 10_000;

/// Bytes that a message takes besides its text, about.
const OVERHEAD: usize = size_of::<String>() + 16;

/// How messages stand in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As an array of strings.
    Json,
    /// That, in the field `d` of a form or alone.
    Field,
}

/// Why a body has no messages that could be handled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It makes no sense. What SockJS says to that.
    Broken(&'static str),
    /// It has more than [`MAX_MESSAGES`].
    TooMany,
}

/// An array of messages; `None` if they are too many, of which no more are kept.
struct Messages(Option<Vec<String>>);

/// The first message of a SockJS client.
#[derive(Deserialize)]
struct Wish {
    path: String,
}

impl Form {
    /// The messages in a body.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub(super) fn parse(self, body: &[u8]) -> Result<Vec<String>, Unusable> {
        const BROKEN: Unusable = Unusable::Broken("Broken JSON encoding.");
        let text = std::str::from_utf8(body).map_err(|_| BROKEN)?;
        let field = match self {
            Self::Field if !text.starts_with('[') => {
                // One by one: a form may have very many that nobody asks for.
                let mut pairs = text.split('&').flat_map(|pair| form_pairs(pair, true));
                pairs.find(|(name, _)| name == "d").map(|(_, value)| value)
            }
            _ => None,
        };
        let text = match self {
            Self::Field if !text.starts_with('[') => field.as_deref().unwrap_or_default(),
            _ => text,
        };
        if text.is_empty() {
            return Err(Unusable::Broken("Payload expected."));
        }
        let Messages(messages) = serde_json::from_str(text).map_err(|_| BROKEN)?;
        messages.ok_or(Unusable::TooMany)
    }

    /// The answer to messages that were taken.
    pub(super) fn thanks(self) -> Response<Body> {
        match self {
            Self::Json => whole(StatusCode::NO_CONTENT, "text/plain; charset=UTF-8", ""),
            Self::Field => whole(StatusCode::OK, "text/plain; charset=UTF-8", "ok"),
        }
    }
}

impl Unusable {
    /// The answer to such a body.
    pub(super) fn response(&self) -> Response<Body> {
        match self {
            Self::Broken(reason) => whole(StatusCode::INTERNAL_SERVER_ERROR, TEXT, *reason),
            Self::TooMany => {
                let text = format!("More than {MAX_MESSAGES} messages in one body\n");
                whole(StatusCode::PAYLOAD_TOO_LARGE, TEXT, text)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Messages;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of strings")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Messages, A::Error> {
                let mut messages = Vec::new();
                while let Some(message) = array.next_element()? {
                    if messages.len() == MAX_MESSAGES {
                        while array.next_element::<IgnoredAny>()?.is_some() {}
                        return Ok(Messages(None));
                    }
                    messages.push(message);
                }
                Ok(Messages(Some(messages)))
            }
        }

        deserializer.deserialize_seq(Reader)
    }
}

/// Bytes that messages take.
pub(super) fn memory(messages: &[String]) -> usize {
    messages.iter().map(|message| message.capacity() + OVERHEAD).sum()
}

/// The answer to a body that could not be read.
pub(super) fn unreadable(error: BodyError) -> Response<Body> {
    let (status, text) = match error {
        BodyError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Body too large\n"),
        BodyError::Incomplete => (StatusCode::BAD_REQUEST, "Incomplete body\n"),
        BodyError::Timeout => (StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time\n"),
        BodyError::Crowded => (StatusCode::SERVICE_UNAVAILABLE, "The body took too long while many others came\n"),
    };
    whole(status, TEXT, text)
}

/// The app and the query string that a SockJS client asks for with its first message; no app if it asks for something
/// else.
pub(super) fn wish(message: &str) -> (Option<String>, String) {
    let path = serde_json::from_str::<Wish>(message).map(|wish| wish.path).unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    let key = path.strip_prefix("/app/").filter(|key| !key.is_empty() && !key.contains('/'));
    (key.map(str::to_owned), query.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_an_array_of_strings() {
        type Expected = Result<&'static [&'static str], &'static str>;
        let table: [(Form, &str, Expected); 14] = [
            (Form::Json, r#"["a","b\n"]"#, Ok(&["a", "b\n"])),
            (Form::Json, "[]", Ok(&[])),
            (Form::Json, "", Err("Payload expected.")),
            (Form::Json, "[\"a", Err("Broken JSON encoding.")),
            (Form::Json, "\"a\"", Err("Broken JSON encoding.")),
            (Form::Json, "[1]", Err("Broken JSON encoding.")),
            (Form::Json, "[[[[\"a\"]]]]", Err("Broken JSON encoding.")),
            (Form::Json, "d=[]", Err("Broken JSON encoding.")),
            (Form::Field, "d=%5B%22a+b%22%5D", Ok(&["a b"])),
            (Form::Field, "x=1&d=%5B%5D", Ok(&[])),
            (Form::Field, r#"["a"]"#, Ok(&["a"])),
            (Form::Field, "", Err("Payload expected.")),
            (Form::Field, "d=", Err("Payload expected.")),
            (Form::Field, "d=%5B%22a", Err("Broken JSON encoding.")),
        ];
        for (form, body, expected) in table {
            let expected = expected.map(|messages| messages.iter().map(ToString::to_string).collect::<Vec<_>>());
            let expected = expected.map_err(Unusable::Broken);
            assert_eq!(form.parse(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(Form::Json.parse(b"[\"\xff\"]"), Err(Unusable::Broken("Broken JSON encoding.")));
    }

    #[test]
    fn a_body_has_no_more_messages_than_it_may() {
        let body = |messages| format!("[{}]", vec!["\"\""; messages].join(","));
        assert_eq!(Form::Json.parse(body(MAX_MESSAGES).as_bytes()).map(|messages| messages.len()), Ok(MAX_MESSAGES));
        for form in [Form::Json, Form::Field] {
            assert_eq!(form.parse(body(MAX_MESSAGES + 2).as_bytes()), Err(Unusable::TooMany));
        }
        let broken = body(MAX_MESSAGES + 2).replace(']', "");
        assert_eq!(Form::Json.parse(broken.as_bytes()), Err(Unusable::Broken("Broken JSON encoding.")));
    }

    #[test]
    fn a_wish_names_an_app() {
        let table = [
            (r#"{"path":"/app/k?protocol=7&client=js"}"#, Some("k"), "protocol=7&client=js"),
            (r#"{"path":"/app/k"}"#, Some("k"), ""),
            (r#"{"path":"/app/"}"#, None, ""),
            (r#"{"path":"/app/a/b"}"#, None, ""),
            (r#"{"path":"/apps/1"}"#, None, ""),
            (r#"{"event":"pusher:ping"}"#, None, ""),
            ("hello", None, ""),
        ];
        for (message, key, query) in table {
            assert_eq!(wish(message), (key.map(str::to_owned), query.to_owned()), "{message}");
        }
    }
}
