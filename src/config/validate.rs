//! What one key cannot know: rules between settings, and rules for a server that is about to start.

use std::collections::HashMap;
use std::time::Duration;

use super::load::ConfigError;
use super::{AppConfig, Config};

/// The secret of `fanfare dev` and of countless examples.
const DEMO_SECRET: &str = "app-secret";

/// pusher-js takes the smaller of this, its own setting, and what the server says.
const PUSHER_JS_ACTIVITY_TIMEOUT: Duration = Duration::from_secs(120);

impl Config {
    /// Whether a server may start with these settings. Not part of [`Config::load`]: tools that only look at settings
    /// have no use for it.
    ///
    /// # Errors
    /// There are no apps, or [`Config::demo_credentials_exposed`] has something to say.
    pub fn check_servable(&self) -> Result<(), ConfigError> {
        let no_apps = || {
            "apps: there is none; add [[apps]] with `id`, `key` and `secret` to the file, or set FANFARE_APPS_0_ID, \
             FANFARE_APPS_0_KEY and FANFARE_APPS_0_SECRET"
                .to_owned()
        };
        let no_apps = self.apps.is_empty().then(no_apps);
        let mistakes: Vec<_> = no_apps.into_iter().chain(self.demo_credentials_exposed()).collect();
        if mistakes.is_empty() { Ok(()) } else { Err(ConfigError { mistakes }) }
    }

    /// What is wrong if an app has the secret of the examples while other machines can connect. Id and key are no
    /// secrets, so they may be those of the examples.
    pub fn demo_credentials_exposed(&self) -> Option<String> {
        let has_demo_secret = |app: &AppConfig| app.keys.iter().any(|pair| pair.secret.expose() == DEMO_SECRET);
        let app = self.apps.iter().position(has_demo_secret)?;
        (!self.server.listen.ip().is_loopback()).then(|| {
            format!(
                "apps.{app}: has the secret that all the examples have, and server.listen {} can be reached from other \
                 machines; expected a secret of your own, such as the output of `openssl rand -hex 32`",
                self.server.listen
            )
        })
    }

    /// Mistakes that take more than one key to make: the path to blame, and the reason.
    pub(super) fn conflicts(&self) -> Vec<(String, String)> {
        let mut conflicts = Vec::new();
        let mut ids = HashMap::new();
        let mut keys = HashMap::new();
        // What is empty here was missing or refused, and has been reported.
        let mut claim = |seen: &mut HashMap<String, String>, name: &str, path: String| {
            let holder = seen.entry(name.to_owned()).or_insert_with(|| path.clone());
            if *holder != path && !name.is_empty() {
                conflicts.push((path, format!("{name:?} is taken by {holder}; expected one that no other app has")));
            }
        };
        for (index, app) in self.apps.iter().enumerate() {
            claim(&mut ids, &app.id, format!("apps.{index}.id"));
            for (number, pair) in app.keys.iter().enumerate() {
                let table = if number == 0 { String::new() } else { format!("keys.{}.", number - 1) };
                claim(&mut keys, &pair.key, format!("apps.{index}.{table}key"));
            }
        }
        conflicts
    }

    /// What is allowed but probably not meant: the path, and the reason.
    pub(super) fn warnings(&self) -> Vec<(String, String)> {
        let mut warnings = Vec::new();
        for (index, app) in self.apps.iter().enumerate() {
            let mut warn = |condition: bool, key: &str, text: String| {
                if condition {
                    warnings.push((format!("apps.{index}.{key}"), text));
                }
            };
            let limits = &app.limits;
            let is_numeric = app.id.bytes().all(|byte| byte.is_ascii_digit());
            let text = "the official Python library `pusher` takes ids of digits only; all others take this one";
            warn(!is_numeric, "id", format!("{:?}: {text}", app.id));
            let text =
                format!("smaller than event_data ({} bytes): large client events cannot be sent", limits.event_data);
            warn(app.client_events && limits.message < limits.event_data, "limits.message", text);
            let text =
                format!("smaller than event_data ({} bytes): large events cannot be triggered", limits.event_data);
            warn(limits.http_body < limits.event_data, "limits.http_body", text);
            let text = format!("smaller than event_data ({} bytes): one event can close a client", limits.event_data);
            warn(limits.outbox < limits.event_data, "limits.outbox", text);
            let text = "more than 120 s has no effect on pusher-js, which pings after 120 s of silence at the latest";
            warn(limits.activity_timeout > PUSHER_JS_ACTIVITY_TIMEOUT, "limits.activity_timeout", text.to_owned());
        }
        warnings
    }
}
