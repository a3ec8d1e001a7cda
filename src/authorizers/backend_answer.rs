//! What the answer of an app's backend means. A backend is whatever stands at a URL: a router that knows no such path, a
//! page that tells of an error with status 200, a framework whose broadcasting is switched off. So nothing is a yes that
//! could have come about by accident.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Map, Value};

use crate::http_client::Answer;
use crate::protocol::json;

use super::Wish;
use super::identity::Identity;

/// What a backend decided.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// Yes, with the user data to sign along.
    Allowed(Option<Arc<str>>),
    /// No, and what said so: for the log.
    Denied(&'static str),
    /// Neither, and why: for the log.
    Undecided(String),
}

/// What is asked about, and what counts as a yes to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    signs_in: bool,
    /// [`accept_true`](crate::config::ForwardConfig::accept_true)
    accept_true: bool,
}

/// The forms of an answer that decides.
enum Form {
    /// A no in a JSON object: `{"fanfare":"deny"}`.
    Denied,
    /// What every library of Pusher's makes: `{"auth":"KEY:SIGNATURE"}`.
    Signed,
    /// For those who sign nothing: `{"fanfare":"allow"}`.
    Explicit,
    /// Laravel's `true`, or its `{"channel_data":{…}}`.
    Unsigned,
}

impl Expected {
    pub(super) fn new(wish: Wish<'_>, accept_true: bool) -> Self {
        Self { signs_in: wish == Wish::SignIn, accept_true }
    }

    /// Reads an answer, of which no more than `limit` bytes are there.
    pub(super) fn verdict(self, answer: &Answer, limit: usize) -> Verdict {
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Verdict::Denied("401"),
            StatusCode::FORBIDDEN => return Verdict::Denied("403"),
            status => {
                let cause = cause_of(status).map(|cause| format!(" ({cause})")).unwrap_or_default();
                return Verdict::Undecided(format!("it answered {}{cause}", status.as_u16()));
            }
        }
        if answer.truncated {
            return Verdict::Undecided(format!("its answer is longer than {limit} bytes, or did not arrive in time"));
        }
        self.read(answer.body.trim_ascii())
            .unwrap_or_else(|reason| Verdict::Undecided(format!("it answered 200 with {reason}")))
    }

    fn read(self, body: &[u8]) -> Result<Verdict, &'static str> {
        let text = std::str::from_utf8(body).unwrap_or_default();
        match body {
            [] => Err("nothing, as Laravel does with BROADCAST_CONNECTION=log or null"),
            b"true" if self.accept_true && !self.signs_in => Ok(Verdict::Allowed(None)),
            b"true" if self.signs_in => Err("`true`, which names no user"),
            b"true" => {
                Err("`true`, as Laravel does with BROADCAST_CONNECTION=redis; auth.forward.accept_true allows it")
            }
            [b'<', ..] => Err("a page, perhaps one to log in or one for paths that do not exist"),
            _ => match json::object::<Map<String, Value>>(text) {
                Err(_) => Err("something else than a JSON object"),
                Ok(members) => self.form(&members).map(|form| match form {
                    Form::Denied => Verdict::Denied(r#"200 with "fanfare":"deny""#),
                    Form::Signed | Form::Explicit | Form::Unsigned => {
                        Verdict::Allowed(self.data(members).map(Arc::from))
                    }
                }),
            },
        }
    }

    fn form(self, members: &Map<String, Value>) -> Result<Form, &'static str> {
        let word = members.get("fanfare").and_then(Value::as_str);
        // Before everything that could be a yes: of an answer that says both, the no counts.
        if word == Some("deny") {
            return Ok(Form::Denied);
        }
        if members.get("auth").and_then(Value::as_str).is_some_and(is_token) {
            return Ok(Form::Signed);
        }
        if word == Some("allow") {
            return Ok(Form::Explicit);
        }
        let names_a_user = |data: &Value| data.get("user_id").is_some();
        let unsigned = !self.signs_in && members.len() == 1 && members.get("channel_data").is_some_and(names_a_user);
        match unsigned {
            true if self.accept_true => Ok(Form::Unsigned),
            true => Err("`channel_data` and no `auth`, as Laravel does with BROADCAST_CONNECTION=redis; \
                         auth.forward.accept_true allows it"),
            false if ["error", "errors", "message"].iter().any(|name| members.contains_key(*name)) => {
                Err("an object that tells of an error; answer 403 for a no")
            }
            false => Err("an object that has neither `auth`, as Pusher's libraries make it, nor \"fanfare\":\"allow\""),
        }
    }

    /// The text to sign along: `channel_data` or `user_data` as every library makes it, or else the user in plain members.
    fn data(self, mut members: Map<String, Value>) -> Option<String> {
        let (ready, ids): (_, &[&str]) = match self.signs_in {
            true => ("user_data", &["id", "user_id"]),
            false => ("channel_data", &["user_id"]),
        };
        match members.remove(ready) {
            Some(Value::String(text)) => return Some(text),
            Some(object @ Value::Object(_)) => return Some(object.to_string()),
            _ => {}
        }
        let id = match ids.iter().find_map(|name| members.remove(*name))? {
            Value::String(id) => id,
            Value::Number(id) => id.to_string(),
            _ => return None,
        };
        let identity = Identity { id, info: members.remove("user_info"), watchlist: members.remove("watchlist") };
        Some(if self.signs_in { identity.user_data() } else { identity.channel_data() })
    }
}

/// Whether this is a key and a signature, as every library makes them. Whose they are does not matter; but a sentence with a
/// colon, or the address of a page to log in, is none.
fn is_token(auth: &str) -> bool {
    let is_signature = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    auth.rsplit_once(':').is_some_and(|(key, signature)| !key.is_empty() && is_signature(signature))
}

/// What most often makes a backend answer with this status.
fn cause_of(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        301 | 302 | 303 | 307 | 308 => {
            "a redirect, perhaps to its login page; answer 401 to `Accept: application/json`"
        }
        404 | 405 => "no POST route at this URL",
        419 => "Laravel's CSRF check; send X-CSRF-TOKEN, or take the route out of it",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of a library, with more members.
    fn signed(more: &str) -> String {
        format!(r#"{{"auth":"key:{}"{more}}}"#, "0123456789abcdef".repeat(4))
    }

    /// What is made of an answer with status 200: the data, or why it is no yes.
    fn read(signs_in: bool, accept_true: bool, body: &str) -> Result<Option<String>, &'static str> {
        match (Expected { signs_in, accept_true }).read(body.as_bytes())? {
            Verdict::Allowed(data) => Ok(data.map(|data| data.to_string())),
            Verdict::Denied(what) => Err(what),
            Verdict::Undecided(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn a_yes_says_that_it_is_one() {
        let ann = Some(r#"{"user_id":"ann"}"#.to_owned());
        assert_eq!(read(false, false, &signed("")), Ok(None));
        assert_eq!(read(false, false, r#"{"fanfare":"allow"}"#), Ok(None));
        assert_eq!(read(false, false, r#"{"fanfare":"allow","user_id":"ann"}"#), Ok(ann.clone()));
        assert_eq!(read(false, false, &signed(r#","channel_data":"{\"user_id\":\"ann\"}""#)), Ok(ann.clone()));
        assert_eq!(read(false, true, "true"), Ok(None));
        assert_eq!(read(false, true, r#"{"channel_data":{"user_id":"ann"}}"#), Ok(ann));
        assert_eq!(read(true, false, r#"{"fanfare":"allow","id":7}"#).unwrap().unwrap(), r#"{"id":"7"}"#);
        assert_eq!(read(true, false, &signed(r#","user_data":"{}""#)).unwrap().unwrap(), "{}");
    }

    #[test]
    fn everything_else_is_closed_and_tells_the_likely_cause() {
        for (signs_in, accept_true, body, reason) in [
            (false, true, "", "BROADCAST_CONNECTION=log or null"),
            (true, true, "", "BROADCAST_CONNECTION=log or null"),
            (false, false, "true", "auth.forward.accept_true"),
            (true, true, "true", "names no user"),
            (false, true, "false", "something else"),
            (false, true, "\"true\"", "something else"),
            (false, true, "1", "something else"),
            (false, true, "[]", "something else"),
            (false, true, &format!("[{}]", signed("")), "something else"),
            (false, true, &(signed("") + " x"), "something else"),
            (false, true, "<!doctype html>", "a page"),
            (false, true, "{}", "neither"),
            (false, true, r#"{"user_id":"7"}"#, "neither"),
            (true, true, r#"{"id":"7"}"#, "neither"),
            (false, true, r#"{"auth":""}"#, "neither"),
            (false, true, r#"{"auth":"required"}"#, "neither"),
            (false, true, r#"{"auth":"error: not logged in"}"#, "neither"),
            (false, true, r#"{"auth":"https://example.com/login"}"#, "neither"),
            (false, true, &signed("").replace("key:", ":"), "neither"),
            (false, true, &signed("").replace("ef\"", "e\""), "neither"),
            (false, true, r#"{"auth":true}"#, "neither"),
            (false, true, r#"{"auth":null}"#, "neither"),
            (false, true, r#"{"fanfare":true}"#, "neither"),
            (false, true, r#"{"fanfare":"no"}"#, "neither"),
            (false, true, r#"{"fanfare":["deny"]}"#, "neither"),
            (false, true, r#"{"deny":true}"#, "neither"),
            (false, true, r#"{"error":"Forbidden"}"#, "tells of an error"),
            (false, true, r#"{"message":"Unauthenticated.","channel_data":{"user_id":"7"}}"#, "tells of an error"),
            (false, true, r#"{"channel_data":{}}"#, "neither"),
            (false, false, r#"{"channel_data":{"user_id":"7"}}"#, "auth.forward.accept_true"),
            (true, true, r#"{"channel_data":{"user_id":"7"}}"#, "neither"),
        ] {
            let found = read(signs_in, accept_true, body).unwrap_err();
            assert!(found.contains(reason), "{body}: {found}");
        }
    }

    #[test]
    fn a_no_is_one_whatever_stands_beside_it() {
        let no = r#"200 with "fanfare":"deny""#;
        for body in [
            r#"{"fanfare":"deny"}"#,
            r#"{"fanfare":"deny","error":"Forbidden"}"#,
            r#"{"fanfare":"deny","user_id":"7","channel_data":{"user_id":"7"}}"#,
            &signed(r#","fanfare":"deny""#),
        ] {
            assert_eq!(read(false, true, body), Err(no), "{body}");
            assert_eq!(read(true, true, body), Err(no), "{body}");
        }
    }
}
