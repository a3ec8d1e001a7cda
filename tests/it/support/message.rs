//! One message from the server.

use serde_json::Value;

/// A message from the server that has the shape every one of them must have.
#[derive(Debug, Clone)]
pub struct Message {
    /// The message itself.
    pub json: Value,
}

impl Message {
    /// Parses a message and checks what holds for all of them (protocol §2.1): known keys, none of them null, and
    /// `data` a string, except in `pusher:error`.
    pub fn parse(text: &str) -> Self {
        let json: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in message {text:?}"));
        let object = json.as_object().unwrap_or_else(|| panic!("not an object: {text}"));
        for key in object.keys() {
            assert!(["event", "channel", "data", "user_id"].contains(&key.as_str()), "unknown key {key} in {text}");
        }
        let event = object.get("event").and_then(Value::as_str).unwrap_or_else(|| panic!("no event in {text}"));
        for key in ["channel", "user_id"] {
            assert!(object.get(key).is_none_or(Value::is_string), "{key} is not a string in {text}");
        }
        let data = object.get("data").unwrap_or_else(|| panic!("no data in {text}"));
        if event == "pusher:error" {
            let data = data.as_object().unwrap_or_else(|| panic!("data is not an object in {text}"));
            let mut keys: Vec<_> = data.keys().map(String::as_str).collect();
            keys.sort_unstable();
            assert_eq!(keys, ["code", "message"], "in {text}");
            assert!(data["code"].is_null() || data["code"].is_u64(), "code is neither null nor an integer in {text}");
            assert!(data["message"].is_string(), "message is not a string in {text}");
            assert!(!object.contains_key("channel"), "an error with a channel: {text}");
        } else {
            assert!(data.is_string(), "data is not a string in {text}");
        }
        Self { json }
    }

    /// The event's name.
    pub fn event(&self) -> &str {
        self.json["event"].as_str().unwrap()
    }

    /// The channel, if there is one.
    pub fn channel(&self) -> Option<&str> {
        self.json.get("channel").map(|channel| channel.as_str().unwrap())
    }

    /// `data` as text.
    pub fn text(&self) -> &str {
        self.json["data"].as_str().unwrap_or_else(|| panic!("data is not a string in {}", self.json))
    }

    /// The JSON inside the string `data`.
    pub fn data(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_else(|error| panic!("{error} in the data of {}", self.json))
    }

    /// The message of a `pusher:error`.
    pub fn error(&self) -> &str {
        assert_eq!(self.event(), "pusher:error", "{}", self.json);
        self.json["data"]["message"].as_str().unwrap()
    }

    /// The members in a presence channel's success message, in order, after checking that the parts agree.
    pub fn members(&self) -> Vec<String> {
        let data = self.data();
        let presence = &data["presence"];
        let hash = presence["hash"].as_object().unwrap_or_else(|| panic!("hash is no object in {}", self.json));
        let mut ids: Vec<String> = presence["ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap_or_else(|| panic!("an id is no string in {}", self.json)).to_owned())
            .collect();
        assert_eq!(presence["count"], ids.len(), "{}", self.json);
        ids.sort_unstable();
        let mut keys: Vec<_> = hash.keys().cloned().collect();
        keys.sort_unstable();
        assert_eq!(ids, keys, "{}", self.json);
        ids
    }
}
