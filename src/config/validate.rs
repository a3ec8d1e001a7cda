//! What one key cannot know: rules between settings, and rules for a server that is about to start.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{ClusterDriver, Config, KeyPair};

/// The secret of `fanfare dev` and of countless examples.
pub(super) const DEMO_SECRET: &str = "app-secret";

/// pusher-js takes the smaller of this, its own setting, and what the server says.
const PUSHER_JS_ACTIVITY_TIMEOUT: Duration = Duration::from_secs(120);

/// What public paths begin with, besides that of the fallbacks.
const TAKEN: [&str; 4] = ["app", "apps", "users", "timeline"];

impl Config {
    /// What keeps a server from starting with these settings: the path to blame, and the reason. Tools that only look
    /// at settings have no use for it.
    pub(super) fn obstacles(&self) -> Vec<(String, String)> {
        if self.apps.is_empty() {
            let text = "there is none; add [[apps]] with `id`, `key` and `secret` to the file, or set FANFARE_APPS_0_ID, \
                        FANFARE_APPS_0_KEY and FANFARE_APPS_0_SECRET, or run `fanfare dev` to try Fanfare without any \
                        configuration";
            return vec![("apps".to_owned(), text.to_owned())];
        }
        if self.server.listen.ip().is_loopback() {
            return Vec::new();
        }
        let text = format!(
            "the secret that all the examples have, and server.listen {} can be reached from other machines; expected a \
             secret of your own, such as the output of `openssl rand -hex 32`",
            self.server.listen
        );
        // Id and key are no secrets, so they may be those of the examples.
        let exposed = self.key_pairs().filter(|(_, pair)| pair.secret.expose() == DEMO_SECRET);
        let exposed = exposed.map(|(table, _)| (format!("{table}.secret"), text.clone()));
        let open = format!(
            "it lets everybody be anybody, and server.listen {} can be reached from other machines; expected another \
             authorizer, or a loopback address there",
            self.server.listen
        );
        let everybody = self.apps.iter().enumerate().filter(|(_, app)| app.auth.dev);
        exposed.chain(everybody.map(|(index, _)| (format!("apps.{index}.auth.dev"), open.clone()))).collect()
    }

    /// All key pairs, each with the path of the table that it stands in.
    pub(super) fn key_pairs(&self) -> impl Iterator<Item = (String, &KeyPair)> {
        self.apps.iter().enumerate().flat_map(|(index, app)| {
            app.keys.iter().enumerate().map(move |(number, pair)| match number {
                0 => (format!("apps.{index}"), pair),
                _ => (format!("apps.{index}.keys.{}", number - 1), pair),
            })
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
        }
        for (table, pair) in self.key_pairs() {
            claim(&mut keys, &pair.key, format!("{table}.key"));
        }
        // A URL is the name under which an endpoint's events are kept.
        for (index, app) in self.apps.iter().enumerate() {
            let mut urls = HashMap::new();
            for (number, webhook) in app.webhooks.iter().enumerate() {
                let path = format!("apps.{index}.webhooks.{number}.url");
                let holder = urls.entry(&webhook.url).or_insert_with(|| path.clone());
                if *holder != path && !webhook.url.is_empty() {
                    let text = format!("{:?} is the URL of {holder}; expected another one", webhook.url);
                    conflicts.push((path, text));
                }
            }
        }
        for (index, app) in self.apps.iter().enumerate() {
            let below = |(key, text)| (format!("apps.{index}.{key}"), text);
            conflicts.extend(app.auth_conflicts().into_iter().map(below));
        }
        let path = &self.fallbacks.path;
        if path.split('/').nth(1).is_some_and(|first| TAKEN.contains(&first)) {
            let text =
                format!("{path:?} is where WebSockets and the HTTP API are; expected a path that begins otherwise");
            conflicts.push(("fallbacks.path".to_owned(), text));
        }
        let (public, admin) = (self.server.listen, self.admin.listen);
        if overlap(public, admin) {
            let text = format!("{admin} is taken by server.listen {public}; expected another port");
            conflicts.push(("admin.listen".to_owned(), text));
        }
        conflicts.extend(self.cluster.conflicts().into_iter().map(|(path, text)| (path.to_owned(), text)));
        conflicts
    }

    /// What is allowed but probably not meant: the path, and the reason.
    pub(super) fn warnings(&self) -> Vec<(String, String)> {
        let cluster = self.cluster.warnings().into_iter().map(|(path, text)| (path.to_owned(), text));
        let mut warnings: Vec<_> = cluster.collect();
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
            let pending = self.cluster.pending_per_connection;
            let text = format!(
                "more than cluster.pending_per_connection ({pending}): a client that subscribes to all of its channels at \
                 once may be refused some of them"
            );
            // 0 is no limit.
            let channels = limits.channels_per_connection.checked_sub(1).unwrap_or(usize::MAX);
            let is_shared = self.cluster.driver == ClusterDriver::Redis;
            warn(is_shared && channels >= pending, "limits.channels_per_connection", text);
            let text = "more than 120 s has no effect on pusher-js, which pings after 120 s of silence at the latest";
            warn(limits.activity_timeout > PUSHER_JS_ACTIVITY_TIMEOUT, "limits.activity_timeout", text.to_owned());
            let below = |(key, text)| (format!("apps.{index}.{key}"), text);
            warnings.extend(app.auth_warnings().into_iter().map(below));
        }
        warnings
    }
}

/// Whether two listeners cannot have both addresses.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    // Those of IPv6 are all of IPv4 as well.
    let covers = |all: IpAddr, ip: IpAddr| all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
    one.port() != 0 && one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_that_cannot_both_be_bound() {
        let overlap = |one: &str, other: &str| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(overlap(one, other), overlap(other, one), "{one} {other}");
            overlap(one, other)
        };
        for (one, other) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("0.0.0.0:1", "[::]:1"),
            ("[::]:1", "10.0.0.5:1"),
            ("[::]:1", "[::1]:1"),
            ("[::ffff:10.0.0.5]:1", "10.0.0.5:1"),
        ] {
            assert!(overlap(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:1", "127.0.0.2:1"),
            ("0.0.0.0:1", "[::1]:1"),
            ("[::1]:1", "127.0.0.1:1"),
        ] {
            assert!(!overlap(one, other), "{one} {other}");
        }
    }
}
