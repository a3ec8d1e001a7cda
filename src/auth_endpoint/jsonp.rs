//! The transport of old clients: a script that calls back. Any page can load it, and read what it says.

use serde_json::{Value, json};

/// The function to call. It is repeated in a script, so it is exactly what pusher-js asks for and nothing else.
#[derive(Debug, PartialEq)]
pub(super) struct Callback(String);

impl Callback {
    /// `Pusher.auth_callbacks['1']`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = text.strip_prefix("Pusher.auth_callbacks['")?.strip_suffix("']")?;
        let fits = (1..=10).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| Self(text.to_owned()))
    }

    /// The script.
    pub(super) fn script(&self, answer: &str) -> String {
        // Line ends in old JavaScript, though not in JSON.
        let answer = answer.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
        format!("{}({answer});", self.0)
    }

    /// A refusal. A script with an error status is never run and pusher-js waits for ever; this one makes it subscribe with
    /// an empty token, which the server then refuses where the page can hear it.
    pub(super) fn refusal(&self, status: u16, text: &str) -> String {
        let answer: Value = json!({ "auth": "", "status": status, "error": text.trim_end() });
        self.script(&answer.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_pushers_and_nothing_else() {
        let callback = Callback::parse("Pusher.auth_callbacks['12']").unwrap();
        assert_eq!(callback.script(r#"{"auth":"k:s"}"#), r#"Pusher.auth_callbacks['12']({"auth":"k:s"});"#);
        assert_eq!(callback.script("{\"a\":\"\u{2028}\"}"), r#"Pusher.auth_callbacks['12']({"a":"\u2028"});"#);
        let bad = [
            "",
            "alert",
            "Pusher.auth_callbacks['']",
            "Pusher.auth_callbacks['1'];alert(1);['1']",
            "Pusher.auth_callbacks['a']",
            "Pusher.auth_callbacks['1'",
            "Pusher.auth_callbacks[1]",
            "Pusher.auth_callbacks[\"1\"]",
            "Pusher.auth_callbacks['１']",
            "Pusher.auth_callbacks['12345678901']",
            " Pusher.auth_callbacks['1']",
            "Pusher.auth_callbacks['1']\n",
        ];
        for text in bad {
            assert_eq!(Callback::parse(text), None, "{text}");
        }
    }
}
