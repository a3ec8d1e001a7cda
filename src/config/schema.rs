//! The keys: each has its one line here, with its name, its field and its rule. Loading, writing and the suggestions
//! for misspelt keys are [`Visitor`]s that walk these lines, so none of them can forget one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rule::{
    Rule, address, bytes, channel_patterns, choice, claim, claim_channels, claim_text, claims, close_code, directory,
    duration, flag, header_names, headers, host_names, identifier, log_level, name, name_or_none, number,
    optional_file, optional_url, origins, parameters, path, path_prefix, plain_text, plain_texts, quota, readable_file,
    redis_urls, script_urls, url, user_or_none, words,
};
use super::{
    AppConfig, AuthConfig, ClusterConfig, ClusterDriver, Config, ForwardConfig, JwtAlgorithm, JwtConfig, KeyPair,
    Limits, LogFormat, OnGap, Secret, TlsConfig, Topology, WebhookConfig, WebhookEvent,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Something that is done to every key, in the order of the file.
pub(super) trait Visitor: Sized {
    /// A setting.
    fn key<T>(&mut self, name: &'static str, field: &mut T, rule: Rule<T>);
    /// A secret, which is given in one of three ways; see [`secret_names`].
    fn secret(&mut self, name: &'static str, secret: &mut Secret);
    /// A secret that may be missing.
    fn optional_secret(&mut self, name: &'static str, secret: &mut Option<Secret>);
    /// A table whose keys are the user's; nobody sees its values.
    fn map(&mut self, name: &'static str, map: &mut BTreeMap<String, Secret>, rule: Rule<BTreeMap<String, Secret>>);
    /// A table.
    fn table(&mut self, name: &'static str, fields: impl FnOnce(&mut Self));
    /// A table that may be missing; `blank` is what its keys are read into.
    fn optional<T: Clone>(
        &mut self,
        name: &'static str,
        table: &mut Option<T>,
        blank: &T,
        fields: fn(&mut Self, &mut T),
    );
    /// A list of tables; `blank` is what the keys of each are read into.
    fn list<T: Clone>(&mut self, name: &'static str, list: &mut Vec<T>, blank: &T, fields: fn(&mut Self, &mut T));
}

/// `[server]`, `[fallbacks]`, `[admin]`, `[webhooks]`, `[cluster]` and `[log]`.
pub(super) fn node<V: Visitor>(v: &mut V, config: &mut Config) {
    v.table("server", |v| {
        let server = &mut config.server;
        v.key("listen", &mut server.listen, address());
        v.key("path_prefix", &mut server.path_prefix, path_prefix());
        v.key("max_connections", &mut server.max_connections, quota(10_000_000));
        v.key("request_timeout", &mut server.request_timeout, duration(SECOND..=HOUR));
        v.key("drain_period", &mut server.drain_period, duration(Duration::ZERO..=HOUR));
        v.key("trust_forwarded_headers", &mut server.trust_forwarded_headers, flag());
        v.key("connections_per_address", &mut server.connections_per_address, quota(10_000_000));
        v.key("new_connections_per_address", &mut server.new_connections_per_address, quota(1_000_000));
        v.key("body_memory", &mut server.body_memory, bytes(MIB..=64 * GIB));
        v.key("http2_streams", &mut server.http2_streams, number(1..=1000));
        v.key("write_timeout", &mut server.write_timeout, duration(SECOND..=HOUR));
        v.key("send_buffer", &mut server.send_buffer, bytes(0..=64 * MIB));
        v.key("subscription_memory", &mut server.subscription_memory, bytes(0..=1024 * GIB));
        v.key("channel_listings", &mut server.channel_listings, number(1..=1000));
        let blank = TlsConfig { certificate: "".into(), private_key: "".into() };
        v.optional("tls", &mut server.tls, &blank, |v, tls| {
            v.key("certificate", &mut tls.certificate, readable_file().required());
            v.key("private_key", &mut tls.private_key, readable_file().required());
        });
    });
    v.table("fallbacks", |v| {
        let fallbacks = &mut config.fallbacks;
        v.key("enabled", &mut fallbacks.enabled, flag());
        v.key("sockjs", &mut fallbacks.sockjs, flag());
        v.key("path", &mut fallbacks.path, path());
        v.key("hostname", &mut fallbacks.hostname, name_or_none("a host name"));
        v.key("grace", &mut fallbacks.grace, duration(SECOND..=10 * MINUTE));
        v.key("heartbeat", &mut fallbacks.heartbeat, duration(SECOND..=29 * SECOND));
        v.key("sessions_per_address", &mut fallbacks.sessions_per_address, quota(10_000_000));
        v.key("cookie", &mut fallbacks.cookie, flag());
        v.key("client_scripts", &mut fallbacks.client_scripts, script_urls());
    });
    v.table("admin", |v| {
        v.key("listen", &mut config.admin.listen, address());
        v.key("hosts", &mut config.admin.hosts, host_names());
    });
    v.table("webhooks", |v| {
        let webhooks = &mut config.webhooks;
        v.key("data_dir", &mut webhooks.data_dir, directory());
        v.key("timeout", &mut webhooks.timeout, duration(Duration::from_millis(100)..=MINUTE));
        v.key("retry_period", &mut webhooks.retry_period, duration(Duration::ZERO..=24 * HOUR));
        v.key("concurrency", &mut webhooks.concurrency, number(1..=1000));
        v.key("max_pending", &mut webhooks.max_pending, bytes(64 * KIB..=64 * GIB));
        v.key("max_unwritten", &mut webhooks.max_unwritten, bytes(64 * KIB..=64 * GIB));
        v.key("max_dead", &mut webhooks.max_dead, bytes(0..=64 * GIB));
        v.key("restart_grace", &mut webhooks.restart_grace, duration(Duration::ZERO..=HOUR));
    });
    v.table("cluster", |v| cluster(v, &mut config.cluster));
    v.table("log", |v| {
        let formats = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
        v.key("format", &mut config.log.format, choice("a log format", formats));
        v.key("level", &mut config.log.level, log_level());
        v.key("repeat_limit", &mut config.log.repeat_limit, quota(1_000_000));
    });
}

fn cluster<V: Visitor>(v: &mut V, cluster: &mut ClusterConfig) {
    let drivers = &[("single", ClusterDriver::Single), ("redis", ClusterDriver::Redis)];
    v.key("driver", &mut cluster.driver, choice("a driver", drivers));
    v.key("id", &mut cluster.id, identifier("the id of a cluster"));
    v.key("node", &mut cluster.node, name_or_none("the name of a node"));
    v.key("address", &mut cluster.address, optional_url("http://10.0.0.5:6001"));
    v.key("topology", &mut cluster.topology, choice("a topology", &Topology::ALL));
    v.key("urls", &mut cluster.urls, redis_urls().not_empty());
    v.key("username", &mut cluster.username, user_or_none());
    v.optional_secret("password", &mut cluster.password);
    v.key("ca_file", &mut cluster.ca_file, optional_file());
    v.key("sentinel_master", &mut cluster.sentinel_master, name("the name of a master"));
    v.key("sentinel_username", &mut cluster.sentinel_username, user_or_none());
    v.optional_secret("sentinel_password", &mut cluster.sentinel_password);
    v.key("lease", &mut cluster.lease, duration(SECOND..=MINUTE));
    v.key("timeout", &mut cluster.timeout, duration(Duration::from_millis(100)..=MINUTE));
    v.key("replay", &mut cluster.replay, duration(Duration::ZERO..=10 * MINUTE));
    v.key("replay_events", &mut cluster.replay_events, number(1..=1_000_000));
    v.key("pending_per_connection", &mut cluster.pending_per_connection, number(1..=1_000_000));
    let reactions = &[("log", OnGap::Log), ("reconnect", OnGap::Reconnect)];
    v.key("on_gap", &mut cluster.on_gap, choice("a reaction", reactions));
}

/// `[app_defaults]`: goes into `defaults`, from where [`apps`] takes what an app leaves out.
pub(super) fn app_defaults<V: Visitor>(v: &mut V, defaults: &mut AppConfig) {
    v.table("app_defaults", |v| settings(v, defaults));
}

/// `[[apps]]`.
pub(super) fn apps<V: Visitor>(v: &mut V, apps: &mut Vec<AppConfig>, defaults: &AppConfig) {
    v.list("apps", apps, defaults, |v, app| {
        v.key("id", &mut app.id, identifier("an app id").required());
        // The first pair stands in the app's own table.
        let mut further = app.keys.split_off(app.keys.len().min(1));
        if let Some(first) = app.keys.first_mut() {
            key_pair(v, first);
        }
        // Before the first table: what is printed behind one would be in it.
        v.optional_secret("encryption_master_key", &mut app.encryption_master_key);
        settings(v, app);
        let blank = KeyPair { key: String::new(), secret: Secret::new("") };
        v.list("keys", &mut further, &blank, key_pair);
        app.keys.append(&mut further);
        v.table("auth", |v| auth(v, &mut app.auth));
        v.list("webhooks", &mut app.webhooks, &WebhookConfig::new(""), webhook);
    });
}

fn key_pair<V: Visitor>(v: &mut V, pair: &mut KeyPair) {
    v.key("key", &mut pair.key, identifier("an app key").required());
    v.secret("secret", &mut pair.secret);
}

fn auth<V: Visitor>(v: &mut V, auth: &mut AuthConfig) {
    v.key("dev", &mut auth.dev, flag());
    v.optional("jwt", &mut auth.jwt, &JwtConfig::new(Vec::new()), jwt);
    v.optional("forward", &mut auth.forward, &ForwardConfig::new(""), forward);
}

fn jwt<V: Visitor>(v: &mut V, jwt: &mut JwtConfig) {
    let algorithms = words("a signature algorithm", &JwtAlgorithm::ALL, JwtAlgorithm::name);
    v.key("algorithms", &mut jwt.algorithms, algorithms.not_empty().required());
    v.optional_secret("secret", &mut jwt.secret);
    v.key("public_key_file", &mut jwt.public_key_file, optional_file());
    v.key("jwks_url", &mut jwt.jwks_url, optional_url("https://issuer.example/.well-known/jwks.json"));
    v.key("jwks_max_age", &mut jwt.jwks_max_age, duration(SECOND..=24 * HOUR));
    v.key("jwks_min_interval", &mut jwt.jwks_min_interval, duration(Duration::ZERO..=HOUR));
    v.key("audience", &mut jwt.audience, plain_texts("an audience", "values of `aud`; an empty list for any"));
    v.key("issuer", &mut jwt.issuer, plain_text("an issuer", "the value of `iss`, or nothing for any"));
    v.key("leeway", &mut jwt.leeway, duration(Duration::ZERO..=10 * MINUTE));
    v.key("cookie", &mut jwt.cookie, name_or_none("a cookie's name"));
    v.key("parameter", &mut jwt.parameter, name_or_none("a parameter's name"));
    v.key("channels", &mut jwt.channels, claim_channels());
    v.key("user_id", &mut jwt.user_id, claim_text());
    v.key("user_info", &mut jwt.user_info, claims());
    v.key("watchlist", &mut jwt.watchlist, claim());
}

fn forward<V: Visitor>(v: &mut V, forward: &mut ForwardConfig) {
    v.key("url", &mut forward.url, url("https://example.com/broadcasting/auth").required());
    v.key("user_url", &mut forward.user_url, optional_url("https://example.com/broadcasting/user-auth"));
    v.key("timeout", &mut forward.timeout, duration(Duration::from_millis(100)..=MINUTE));
    v.key("concurrency", &mut forward.concurrency, number(1..=10_000));
    v.key("cache", &mut forward.cache, duration(Duration::ZERO..=10 * MINUTE));
    v.key("headers", &mut forward.headers, header_names());
    v.key("params", &mut forward.params, parameters());
    v.key("accept_true", &mut forward.accept_true, flag());
}

fn webhook<V: Visitor>(v: &mut V, webhook: &mut WebhookConfig) {
    v.key("url", &mut webhook.url, url("https://example.com/pusher/webhook").required());
    v.key("events", &mut webhook.events, words("an event of webhooks", &WebhookEvent::ALL, WebhookEvent::name));
    v.key("channels", &mut webhook.channels, channel_patterns());
    v.map("headers", &mut webhook.headers, headers());
    v.key("batch_size", &mut webhook.batch_size, number(1..=1000));
    v.key("batch_wait", &mut webhook.batch_wait, duration(Duration::ZERO..=MINUTE));
}

fn settings<V: Visitor>(v: &mut V, app: &mut AppConfig) {
    v.key("enabled", &mut app.enabled, flag());
    v.key("debug", &mut app.debug, flag());
    v.key("allowed_origins", &mut app.allowed_origins, origins());
    v.key("require_tls", &mut app.require_tls, flag());
    v.key("client_events", &mut app.client_events, flag());
    v.key("subscription_counts", &mut app.subscription_counts, flag());
    v.key("subscription_error_events", &mut app.subscription_error_events, flag());
    v.key("watchlists", &mut app.watchlists, flag());
    v.key("offline_delay", &mut app.offline_delay, duration(Duration::ZERO..=10 * MINUTE));
    v.key("webhook_delay", &mut app.webhook_delay, duration(Duration::ZERO..=10 * MINUTE));
    v.key("authorized_connections", &mut app.authorized_connections, flag());
    v.key("assume_protocol_7", &mut app.assume_protocol_7, flag());
    v.key("terminate_code", &mut app.terminate_code, close_code([4009, 4200]));
    v.table("limits", |v| limits(v, &mut app.limits));
}

fn limits<V: Visitor>(v: &mut V, limits: &mut Limits) {
    v.key("channel_name_length", &mut limits.channel_name_length, number(1..=200));
    v.key("event_name_length", &mut limits.event_name_length, number(1..=1000));
    v.key("event_data", &mut limits.event_data, bytes(1..=16 * MIB));
    v.key("channels_per_event", &mut limits.channels_per_event, number(1..=10_000));
    v.key("events_per_batch", &mut limits.events_per_batch, number(1..=10_000));
    v.key("http_body", &mut limits.http_body, bytes(KIB..=256 * MIB));
    v.key("presence_members", &mut limits.presence_members, number(1..=100_000));
    v.key("user_id_length", &mut limits.user_id_length, number(1..=1000));
    v.key("user_info", &mut limits.user_info, bytes(2..=MIB));
    v.key("user_data", &mut limits.user_data, bytes(KIB..=MIB));
    v.key("watchlist_length", &mut limits.watchlist_length, number(0..=10_000));
    v.key("client_events_per_second", &mut limits.client_events_per_second, number(1..=10_000));
    v.key("messages_per_second", &mut limits.messages_per_second, quota(1_000_000));
    v.key("message_burst", &mut limits.message_burst, number(1..=1_000_000));
    v.key("presence_joins_per_minute", &mut limits.presence_joins_per_minute, quota(1_000_000));
    v.key("message", &mut limits.message, bytes(KIB..=MIB));
    v.key("channels_per_connection", &mut limits.channels_per_connection, quota(1_000_000));
    v.key("connections", &mut limits.connections, quota(10_000_000));
    v.key("api_requests_per_second", &mut limits.api_requests_per_second, quota(1_000_000));
    v.key("channel_listings", &mut limits.channel_listings, number(1..=100));
    v.key("messages_per_day", &mut limits.messages_per_day, quota(1_000_000_000_000));
    v.key("cache_ttl", &mut limits.cache_ttl, duration(SECOND..=24 * HOUR));
    v.key("cache_size", &mut limits.cache_size, bytes(64 * KIB..=64 * GIB));
    v.key("auth_timestamp_window", &mut limits.auth_timestamp_window, duration(SECOND..=24 * HOUR));
    v.key("activity_timeout", &mut limits.activity_timeout, duration(SECOND..=HOUR));
    v.key("pong_timeout", &mut limits.pong_timeout, duration(SECOND..=10 * MINUTE));
    v.key("authorization_timeout", &mut limits.authorization_timeout, duration(SECOND..=10 * MINUTE));
    v.key("subscription_count_threshold", &mut limits.subscription_count_threshold, number(0..=10_000_000));
    let interval = Duration::from_millis(100)..=HOUR;
    v.key("subscription_count_interval", &mut limits.subscription_count_interval, duration(interval));
    v.key("outbox", &mut limits.outbox, bytes(16 * KIB..=1024 * MIB));
}

/// The full name of every key, with 0 as the index of list entries, and what its rule expects.
pub(super) fn all_keys() -> Vec<(String, String)> {
    let mut names = Names::default();
    node(&mut names, &mut Config::default());
    let mut defaults = AppConfig::new("", "", "");
    app_defaults(&mut names, &mut defaults);
    apps(&mut names, &mut Vec::new(), &defaults);
    names.keys
}

#[derive(Default)]
struct Names {
    prefix: String,
    keys: Vec<(String, String)>,
}

impl Names {
    fn below(&mut self, name: &str, fields: impl FnOnce(&mut Self)) {
        let length = self.prefix.len();
        self.prefix += &format!("{name}.");
        fields(self);
        self.prefix.truncate(length);
    }
}

impl Visitor for Names {
    fn key<T>(&mut self, name: &'static str, _: &mut T, rule: Rule<T>) {
        self.keys.push((format!("{}{name}", self.prefix), rule.expected));
    }

    fn secret(&mut self, name: &'static str, _: &mut Secret) {
        let expected =
            ["a text", "the path of a file with the secret", "the name of an environment variable with the secret"];
        let names = secret_names(name).map(|name| format!("{}{name}", self.prefix));
        self.keys.extend(names.into_iter().zip(expected.map(str::to_owned)));
    }

    fn optional_secret(&mut self, name: &'static str, _: &mut Option<Secret>) {
        self.secret(name, &mut Secret::new(""));
    }

    fn map(&mut self, name: &'static str, _: &mut BTreeMap<String, Secret>, rule: Rule<BTreeMap<String, Secret>>) {
        self.keys.push((format!("{}{name}", self.prefix), rule.expected));
    }

    fn table(&mut self, name: &'static str, fields: impl FnOnce(&mut Self)) {
        self.below(name, fields);
    }

    fn optional<T: Clone>(&mut self, name: &'static str, _: &mut Option<T>, blank: &T, fields: fn(&mut Self, &mut T)) {
        self.below(name, |v| fields(v, &mut blank.clone()));
    }

    fn list<T: Clone>(&mut self, name: &'static str, _: &mut Vec<T>, blank: &T, fields: fn(&mut Self, &mut T)) {
        self.below(&format!("{name}.0"), |v| fields(v, &mut blank.clone()));
    }
}

/// The three ways to give a secret: itself, a file that holds it, an environment variable that holds it.
pub(super) fn secret_names(name: &str) -> [String; 3] {
    [name.to_owned(), format!("{name}_file"), format!("{name}_env")]
}
