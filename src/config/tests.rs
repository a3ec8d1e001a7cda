//! Loading as a whole: what the sources say, and what comes out.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::layers::env_name;
use super::rule::MASK;
use super::schema::all_keys;
use super::{
    AppConfig, Config, ConfigError, DEFAULT_TOML, ForwardConfig, JwtAlgorithm, JwtConfig, KeyPair, Loaded, LogFormat,
    Secret, Sources, TlsConfig, WebhookConfig, WebhookEvent,
};

const APP: &str = "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n";

/// A file that is removed with the value.
struct TempFile(PathBuf);

impl TempFile {
    fn new(content: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fanfare-config-{}-{number}", std::process::id()));
        fs::write(&path, content).unwrap();
        Self(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn load_all(file: &str, env: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let pairs =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let file = TempFile::new(file);
    let loaded = Config::load(&Sources { file: Some(file.0.clone()), env: pairs(env), overrides: pairs(overrides) });
    let short = |line: String| line.replace(file.name(), "fanfare.toml");
    match loaded {
        Ok(Loaded { config, warnings }) => Ok(Loaded { config, warnings: warnings.into_iter().map(short).collect() }),
        Err(ConfigError { mistakes }) => Err(ConfigError { mistakes: mistakes.into_iter().map(short).collect() }),
    }
}

fn load(file: &str) -> Config {
    load_all(file, &[], &[]).unwrap().config
}

fn mistakes(file: &str, env: &[(&str, &str)], overrides: &[(&str, &str)]) -> Vec<String> {
    let mistakes = load_all(file, env, overrides).expect_err("a mistake must be found").mistakes;
    assert!(mistakes.iter().all(|line| !line.contains('\n')), "{mistakes:#?}");
    mistakes
}

#[track_caller]
fn assert_mistakes(file: &str, expected: &[&str]) {
    assert_eq!(mistakes(file, &[], &[]), expected);
}

// --- layers ---

#[test]
fn nothing_given_is_the_default_configuration() {
    let Loaded { config, warnings } = Config::load(&Sources::default()).unwrap();
    assert_eq!((config, warnings), (Config::default(), Vec::new()));
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let file = "[server]\nlisten = \"1.1.1.1:1\"\npath_prefix = \"/file\"\nmax_connections = 1\n";
    let env = [("FANFARE_SERVER_LISTEN", "2.2.2.2:2"), ("FANFARE_SERVER_PATH_PREFIX", "/env")];
    let server = load_all(file, &env, &[("server.listen", "3.3.3.3:3")]).unwrap().config.server;
    assert_eq!(server.listen.to_string(), "3.3.3.3:3");
    assert_eq!(server.path_prefix, "/env");
    assert_eq!(server.max_connections, 1);
    assert_eq!(server.drain_period, Config::default().server.drain_period);
}

#[test]
fn every_kind_of_value_can_be_given_as_text() {
    let overrides = [
        ("server.trust_forwarded_headers", "true"),
        ("log.format", "json"),
        ("apps.0.allowed_origins", "https://a.example, https://b.example"),
        ("apps.0.terminate_code", "4200"),
        ("apps.0.limits.event_data", "20 KiB"),
        ("apps.0.limits.message", "65536"),
        ("apps.0.limits.cache_ttl", "1h"),
    ];
    let config = load_all(APP, &[], &overrides).unwrap().config;
    assert!(config.server.trust_forwarded_headers);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.apps[0].allowed_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.apps[0].terminate_code, 4200);
    assert_eq!(config.apps[0].limits.event_data, 20 * 1024);
    assert_eq!(config.apps[0].limits.message, 65536);
    assert_eq!(config.apps[0].limits.cache_ttl, Duration::from_secs(3600));
    let no_origins = load_all(APP, &[("FANFARE_APPS_0_ALLOWED_ORIGINS", "")], &[]).unwrap().config;
    assert!(no_origins.apps[0].allowed_origins.is_empty());
}

#[test]
fn apps_inherit_what_they_leave_out() {
    let defaults = "[app_defaults]\nclient_events = true\n[app_defaults.limits]\nevent_data = 1000\nconnections = 5\n";
    let second = "[[apps]]\nid = \"2\"\nkey = \"k2\"\nsecret = \"s\"\nclient_events = false\nlimits.connections = 9\n";
    let config = load(&format!("{defaults}{APP}{second}"));
    let [first, second] = &config.apps[..] else { panic!("{config:?}") };
    assert_eq!((first.client_events, first.limits.event_data, first.limits.connections), (true, 1000, 5));
    assert_eq!((second.client_events, second.limits.event_data, second.limits.connections), (false, 1000, 9));
}

#[test]
fn the_environment_alone_can_describe_an_app() {
    let env = [
        ("FANFARE_APPS_0_ID", "1001"),
        ("FANFARE_APPS_0_KEY", "key"),
        ("FANFARE_APPS_0_SECRET", "secret"),
        ("FANFARE_APPS_0_KEYS_0_KEY", "next-key"),
        ("FANFARE_APPS_0_KEYS_0_SECRET", "next-secret"),
        ("FANFARE_APP_DEFAULTS_LIMITS_EVENT_DATA", "1000"),
    ];
    let mut expected = AppConfig::new("1001", "key", "secret");
    expected.keys.push(KeyPair { key: "next-key".to_owned(), secret: Secret::new("next-secret") });
    expected.limits.event_data = 1000;
    assert_eq!(load_all("", &env, &[]).unwrap().config.apps, [expected]);
}

#[test]
fn an_index_one_past_the_file_adds_an_app_and_a_lower_one_changes_it() {
    let env = [
        ("FANFARE_APPS_0_SECRET", "changed"),
        ("FANFARE_APPS_1_ID", "2"),
        ("FANFARE_APPS_1_KEY", "k2"),
        ("FANFARE_APPS_1_SECRET", "s2"),
    ];
    let apps = load_all(APP, &env, &[]).unwrap().config.apps;
    assert_eq!(apps, [AppConfig::new("1", "k", "changed"), AppConfig::new("2", "k2", "s2")]);
}

#[test]
fn variables_that_are_not_for_the_server_are_ignored() {
    let names = [
        "FANFARE_CONFIG",
        "FANFARE_URL",
        "FANFARE_APP_ID",
        "FANFARE_APP_KEY",
        "FANFARE_APP_SECRET",
        "FANFARE_PORT",
        "FANFARE_PORT_6001_TCP_ADDR",
        "FANFARE_SERVICE_HOST",
        "FANFARE_SERVICE_PORT_HTTP",
        "PATH",
        "OTHER_SERVER_LISTEN",
    ];
    let env: Vec<_> = names.iter().map(|name| (*name, "x")).collect();
    assert_eq!(load_all("", &env, &[]).unwrap().config, Config::default());
}

#[test]
fn a_secret_can_come_from_a_file_or_a_variable_of_any_name() {
    let secret = TempFile::new("from file\r\n");
    let file = format!(
        "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret_file = {:?}\n[[apps.keys]]\nkey = \"k2\"\n\
         secret_env = \"FANFARE_X\"\n[[apps.keys]]\nkey = \"k3\"\nsecret_env = \"OTHER\"\n",
        secret.name()
    );
    let env = [("FANFARE_X", "from variable"), ("OTHER", "from another")];
    let app = &load_all(&file, &env, &[]).unwrap().config.apps[0];
    let secrets: Vec<_> = app.keys.iter().map(|pair| pair.secret.expose()).collect();
    assert_eq!(secrets, ["from file", "from variable", "from another"]);
}

#[test]
fn a_stronger_source_replaces_a_secret_that_was_given_another_way() {
    let file = APP.replace("secret = \"s\"", "secret_file = \"/nowhere\"");
    let config = load_all(&file, &[("FANFARE_APPS_0_SECRET", "from variable")], &[]).unwrap().config;
    assert_eq!(config.apps[0].keys[0].secret.expose(), "from variable");
}

#[test]
fn a_variable_of_a_secret_that_is_replaced_is_still_known() {
    let file = APP.replace("secret = \"s\"", "secret_env = \"FANFARE_X\"");
    let env = [("FANFARE_X", "from file"), ("FANFARE_APPS_0_SECRET", "from variable")];
    let config = load_all(&file, &env, &[]).unwrap().config;
    assert_eq!(config.apps[0].keys[0].secret.expose(), "from variable");
}

#[test]
fn a_file_of_another_machine_may_be_replaced() {
    let pem = TempFile::new("pem");
    let file = "[server.tls]\ncertificate = \"/nowhere\"\nprivate_key = \"/nowhere\"\n";
    let env = [("FANFARE_SERVER_TLS_CERTIFICATE", pem.name()), ("FANFARE_SERVER_TLS_PRIVATE_KEY", pem.name())];
    assert_eq!(load_all(file, &env, &[]).unwrap().config.server.tls.unwrap().certificate, pem.0);
}

// --- mistakes ---

#[test]
fn a_mistake_is_reported_even_where_a_stronger_source_replaces_it() {
    let pem = TempFile::new("pem");
    let file = "[server]\nlisten = \"hunter2\"\ntls.certificate = 5\n\
                [[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = 5\n\
                [[apps.keys]]\nkey = \"k2\"\nsecret = \"s\"\nsecret_env = \"X\"\n";
    let env = [("FANFARE_SERVER_LISTEN", "9601"), ("FANFARE_APPS_0_SECRET", "s")];
    let overrides = [
        ("server.listen", "127.0.0.1:0"),
        ("server.tls.certificate", pem.name()),
        ("server.tls.private_key", pem.name()),
        ("apps.0.keys.0.secret", "s"),
    ];
    let address = "is not an address; expected host:port with an IP address as host, such as 0.0.0.0:6001 or [::]:6001";
    let expected = [
        &format!("fanfare.toml:2: server.listen: \"hunter2\" {address}"),
        "fanfare.toml:3: server.tls.certificate: 5 is not a path; expected the path of a readable PEM file",
        "fanfare.toml:7: apps.0.secret: not a string; expected a string",
        "fanfare.toml:10: apps.0.keys.0.secret: given more than once; expected one of `secret`, `secret_file` and \
         `secret_env`",
        &format!("FANFARE_SERVER_LISTEN: \"9601\" {address}"),
    ];
    assert_eq!(mistakes(file, &env, &overrides), expected);
}

#[test]
fn all_mistakes_are_reported_at_once_in_reading_order() {
    let file = "[log]\nlevel = \"loud\"\n\n[server]\nlisten = \"localhost\"\nlistn = 5\n";
    let env = [("FANFARE_ADMIN_LISTEN", "9601"), ("FANFARE_SERVER_PATHPREFIX", "/x")];
    let overrides = [("server.max_connections", "many"), ("server.drain", "5s")];
    let address = "host:port with an IP address as host, such as 0.0.0.0:6001 or [::]:6001";
    let expected = [
        "fanfare.toml:2: log.level: \"loud\" is not a log level; expected trace, debug, info, warn, error or off, or \
         directives such as \"info,fanfare::session=debug\"",
        &format!("fanfare.toml:5: server.listen: \"localhost\" is not an address; expected {address}"),
        "fanfare.toml:6: server.listn: unknown key; did you mean `listen`?",
        &format!("FANFARE_ADMIN_LISTEN: \"9601\" is not an address; expected {address}"),
        "FANFARE_SERVER_PATHPREFIX: unknown variable; did you mean `FANFARE_SERVER_PATH_PREFIX`?",
        "--set server.drain: unknown key; did you mean `drain_period`?",
        "--set server.max_connections: \"many\" is not an integer; expected 0 for no limit, or an integer up to \
         10000000",
    ];
    assert_eq!(mistakes(file, &env, &overrides), expected);
}

#[test]
fn an_unknown_key_or_table_brings_a_suggestion_and_hides_what_is_below_it() {
    assert_mistakes(
        &format!(
            "{APP}event_data = 5\n[apps.limits]\nevent_dta = 5\n\
             [sever]\nlisten = \"x\"\ntls.certificate = 5\n[sever-x]\n[extra]\n"
        ),
        &[
            "fanfare.toml:5: apps.0.event_data: unknown key; did you mean `apps.0.limits.event_data`?",
            "fanfare.toml:7: apps.0.limits.event_dta: unknown key; did you mean `event_data`?",
            "fanfare.toml:8: sever: unknown key; did you mean `server`?",
            "fanfare.toml:11: sever-x: unknown key; `fanfare config --defaults` shows all keys",
            "fanfare.toml:12: extra: unknown key; `fanfare config --defaults` shows all keys",
        ],
    );
    assert_mistakes(
        &format!("{APP}idx = \"1\"\nkeyz = \"k\"\n"),
        &[
            "fanfare.toml:5: apps.0.idx: unknown key; did you mean `id`?",
            "fanfare.toml:6: apps.0.keyz: unknown key; did you mean `key`?",
        ],
    );
    assert_eq!(
        mistakes(APP, &[("FANFARE_APPS_0_KEYZ", "k")], &[]),
        ["FANFARE_APPS_0_KEYZ: unknown variable; did you mean `FANFARE_APPS_0_KEY`?"]
    );
    assert_mistakes(
        "\"server.listen\" = \"0.0.0.0:1\"\n",
        &["fanfare.toml:1: \"server.listen\": unknown key; `fanfare config --defaults` shows all keys"],
    );
    assert_mistakes(
        "[app_defaults]\nsecret = \"hunter2\"\n",
        &["fanfare.toml:2: app_defaults.secret: unknown key; did you mean `apps.0.secret`?"],
    );
}

#[test]
fn a_list_entry_that_leaves_others_out_is_a_mistake() {
    let env = [("FANFARE_APPS_2_ID", "2"), ("FANFARE_APPS_0_KEYS_1_KEY", "k")];
    assert_eq!(
        mistakes(APP, &env, &[("apps.3.id", "3")]),
        [
            "FANFARE_APPS_0_KEYS_1_KEY: unknown variable; the next entry of this list is FANFARE_APPS_0_KEYS_0",
            "FANFARE_APPS_2_ID: unknown variable; the next entry of this list is FANFARE_APPS_1",
            "--set apps.3.id: unknown key; the next entry of this list is apps.1",
        ]
    );
}

#[test]
fn a_table_has_no_value() {
    let text = "this is a table, and only the keys in it have values";
    assert_eq!(
        mistakes(APP, &[("FANFARE_SERVER", "x"), ("FANFARE_APPS_0", "x")], &[("server", "x"), ("apps.0.limits", "x")]),
        [
            format!("FANFARE_APPS_0: unknown variable; {text}"),
            format!("FANFARE_SERVER: unknown variable; {text}"),
            format!("--set apps.0.limits: unknown key; {text}"),
            format!("--set server: unknown key; {text}"),
        ]
    );
    assert_mistakes("[[admin]]\nlisten = \"x\"\n", &["fanfare.toml:1: admin: not a table; expected [admin]"]);
}

#[test]
fn a_value_of_the_wrong_type_is_a_mistake() {
    let file = "server = 5\n[log]\nlevel.x = 1\nformat = \"xml\"\n[admin]\nlisten = 9601\n[app_defaults]\n\
                debug = \"true\"\nallowed_origins = \"*\"\nlimits.event_data = 1.5\nlimits.connections = \"5\"\n";
    assert_mistakes(
        file,
        &[
            "fanfare.toml:1: server: not a table; expected [server]",
            "fanfare.toml:3: log.level: a table is not a log level; expected trace, debug, info, warn, error or off, \
             or directives such as \"info,fanfare::session=debug\"",
            "fanfare.toml:4: log.format: \"xml\" is not a log format; expected \"text\" or \"json\"",
            "fanfare.toml:6: admin.listen: 9601 is not an address; expected host:port with an IP address as host, such \
             as 0.0.0.0:6001 or [::]:6001",
            "fanfare.toml:8: app_defaults.debug: \"true\" is not a switch; expected true or false",
            "fanfare.toml:9: app_defaults.allowed_origins: \"*\" is not a list; expected origins such as \
             \"https://*.example.com\" or \"http://localhost:*\", hosts such as \"example.com\", or \"*\" for any",
            "fanfare.toml:10: app_defaults.limits.event_data: a floating-point number is not a number of bytes; \
             expected a number of bytes from 1 to \"16 MiB\"",
            "fanfare.toml:11: app_defaults.limits.connections: \"5\" is not an integer; expected 0 for no limit, or an \
             integer up to 10000000",
        ],
    );
    assert_mistakes("[apps]\nid = \"1\"\n", &["fanfare.toml:1: apps: not a list of tables; expected [[apps]]"]);
    assert_mistakes(
        &format!("{APP}limits = 5\nkeys = \"hunter2\"\n"),
        &[
            "fanfare.toml:5: apps.0.limits: not a table; expected [apps.limits]",
            "fanfare.toml:6: apps.0.keys: not a list of tables; expected [[apps.keys]]",
        ],
    );
    assert_mistakes("apps = [\"x\"]\n", &["fanfare.toml:1: apps: not a list of tables; expected [[apps]]"]);
}

#[test]
fn a_value_out_of_range_names_the_range() {
    let limits = "[app_defaults.limits]\nactivity_timeout = \"2h\"\npong_timeout = 30\nchannel_name_length = 201\n\
                  event_data = \"17 MiB\"\nuser_info = -1\nconnections = 99_999_999_999_999_999_999_999\n";
    let found = mistakes(&format!("{limits}[app_defaults]\nterminate_code = 4000\n"), &[], &[]);
    let expected = [
        "activity_timeout: \"2h\" is out of range; expected a duration from \"1s\" to \"1h\"",
        "pong_timeout: 30 has no unit; expected a duration from \"1s\" to \"10m\"",
        "channel_name_length: 201 is out of range; expected an integer from 1 to 200",
        "event_data: \"17 MiB\" is out of range; expected a number of bytes from 1 to \"16 MiB\"",
        "user_info: -1 is out of range; expected a number of bytes from 2 to \"1 MiB\"",
        "connections: 99999999999999999999999 is out of range; expected 0 for no limit, or an integer up to 10000000",
        "terminate_code: 4000 is out of range; expected 4009 or 4200",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.ends_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn a_file_that_cannot_be_read_or_parsed_is_a_mistake() {
    let missing = Sources { file: Some("/nowhere/fanfare.toml".into()), ..Sources::default() };
    let error = Config::load(&missing).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/fanfare.toml: cannot be read: "), "{error}");
    let found = mistakes("[server]\nlisten = \n[log]\nlevel = \"info\nformat = \"hunter2\n", &[], &[]);
    assert!(found[0].starts_with("fanfare.toml:2:"), "{found:#?}");
    assert!(found.iter().any(|line| line.starts_with("fanfare.toml:4:")), "{found:#?}");
    assert!(!found.concat().contains("hunter2"), "{found:#?}");
    let found = mistakes("[log]\nlevel = \"info\"\nlevel = \"warn\"\n", &[], &[]);
    assert_eq!(found, ["fanfare.toml:3:1: not TOML: duplicate key"]);
}

#[test]
fn an_app_needs_an_id_a_key_and_a_secret() {
    let words = "missing; expected letters, digits, `_` and `-`";
    let secret = "missing; expected `secret`, `secret_file` or `secret_env`";
    assert_mistakes(
        "[log]\n[[apps]]\n[[apps.keys]]\n",
        &[
            &format!("fanfare.toml:2: apps.0.id: {words}"),
            &format!("fanfare.toml:2: apps.0.key: {words}"),
            &format!("fanfare.toml:2: apps.0.secret: {secret}"),
            &format!("fanfare.toml:3: apps.0.keys.0.key: {words}"),
            &format!("fanfare.toml:3: apps.0.keys.0.secret: {secret}"),
        ],
    );
    assert_eq!(
        mistakes("", &[("FANFARE_APPS_0_KEY", "k")], &[("apps.1.id", "1"), ("apps.1.key", "two")]),
        [
            format!("FANFARE_APPS_0_ID: {words}"),
            format!("FANFARE_APPS_0_SECRET: {secret}"),
            format!("--set apps.1.secret: {secret}"),
        ]
    );
}

#[test]
fn ids_and_keys_are_words_and_belong_to_one_app() {
    let duplicate = "[[apps]]\nid = \"1\"\nkey = \"k2\"\nsecret = \"s\"\n[[apps.keys]]\nkey = \"k\"\nsecret = \"s\"\n";
    assert_mistakes(
        &format!("{APP}{duplicate}"),
        &[
            "fanfare.toml:6: apps.1.id: \"1\" is taken by apps.0.id; expected one that no other app has",
            "fanfare.toml:10: apps.1.keys.0.key: \"k\" is taken by apps.0.key; expected one that no other app has",
        ],
    );
    assert_mistakes(
        "[[apps]]\nid = \"a b\"\nkey = \"\"\nsecret = \"s\"\n",
        &[
            "fanfare.toml:2: apps.0.id: \"a b\" is not an app id; expected letters, digits, `_` and `-`",
            "fanfare.toml:3: apps.0.key: \"\" is not an app key; expected letters, digits, `_` and `-`",
        ],
    );
}

#[test]
fn a_secret_that_is_empty_missing_or_ambiguous_is_a_mistake_and_is_never_shown() {
    let empty = TempFile::new("\n");
    let line = |secret: &str| format!("[[apps]]\nid = \"1\"\nkey = \"k\"\n{secret}\n");
    let cases = [
        ("secret = \" \"".to_owned(), "secret: empty; expected a secret"),
        (format!("secret_file = {:?}", empty.name()), "secret_file: empty; expected a secret"),
        ("secret = 998877".to_owned(), "secret: not a string; expected a string"),
        (format!("secret = \"{MASK}\""), "secret: the mask of a printed configuration; expected the secret itself"),
        (
            "secret_env = \"hunter2\"".to_owned(),
            "secret_env: the variable is not set; expected the name of an environment variable",
        ),
        (
            "secret_file = \"hunter2\"".to_owned(),
            "secret_file: the file cannot be read: No such file or directory (os error 2); expected a path",
        ),
        (
            "secret = \"hunter2\"\nsecret_env = \"X\"".to_owned(),
            "secret: given more than once; expected one of `secret`, `secret_file` and `secret_env`",
        ),
        ("secret = \"hunter2\"\nsecrt = \"hunter2\"".to_owned(), "secrt: unknown key; did you mean `secret`?"),
    ];
    for (given, expected) in cases {
        let found = mistakes(&line(&given), &[], &[]);
        assert_eq!(found.len(), 1, "{given}: {found:#?}");
        assert!(found[0].starts_with("fanfare.toml:4: ") || found[0].starts_with("fanfare.toml:5: "), "{}", found[0]);
        assert!(found[0].ends_with(expected), "{}\n{expected}", found[0]);
        assert!(!found[0].contains("hunter2") && !found[0].contains("998877"), "{}", found[0]);
    }
}

#[test]
fn tls_needs_two_files_that_can_be_read() {
    let pem = TempFile::new("pem");
    let file = format!("[server.tls]\ncertificate = {:?}\nprivate_key = {:?}\n", pem.name(), pem.name());
    assert_eq!(load(&file).server.tls, Some(TlsConfig { certificate: pem.0.clone(), private_key: pem.0.clone() }));
    let expected = "expected the path of a readable PEM file";
    assert_mistakes(
        "[server.tls]\ncertificate = \"/nowhere\"\n",
        &[
            &format!("fanfare.toml:1: server.tls.private_key: missing; {expected}"),
            &format!(
                "fanfare.toml:2: server.tls.certificate: \"/nowhere\" cannot be read: No such file or directory (os \
                 error 2); {expected}"
            ),
        ],
    );
    let found = mistakes("", &[("FANFARE_SERVER_TLS_PRIVATE_KEY", "/")], &[]);
    assert_eq!(
        found,
        [
            format!("FANFARE_SERVER_TLS_CERTIFICATE: missing; {expected}"),
            format!("FANFARE_SERVER_TLS_PRIVATE_KEY: \"/\" is not a file; {expected}"),
        ]
    );
}

// --- webhooks ---

#[test]
fn an_endpoint_is_told_pushers_events_unless_it_asks_for_others() {
    let file = format!(
        "{APP}[[apps.webhooks]]\nurl = \"http://a.example/hook\"\n[[apps.webhooks]]\nurl = \"https://b.example\"\n\
         events = [\"user_online\", \"member_added\", \"user_online\"]\nchannels = [\"presence-*\"]\n\
         headers = {{ \"X-Tenant\" = \"a\", X-Other = \"b.c\" }}\nbatch_size = 10\nbatch_wait = \"1s\"\n"
    );
    let [first, second] = &load(&file).apps[0].webhooks[..] else { panic!() };
    assert_eq!(*first, WebhookConfig::new("http://a.example/hook"));
    assert_eq!(first.events.len(), 7);
    assert_eq!(second.events, [WebhookEvent::UserOnline, WebhookEvent::MemberAdded]);
    assert_eq!(second.channels, ["presence-*"]);
    let headers: Vec<_> = second.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("X-Other", "b.c"), ("X-Tenant", "a")]);
    assert_eq!((second.batch_size, second.batch_wait), (10, Duration::from_secs(1)));
}

#[test]
fn headers_can_be_given_as_text_and_one_by_one() {
    let file = format!("{APP}[[apps.webhooks]]\nurl = \"http://a.example\"\nheaders.X-A = \"file\"\n");
    let names = |env: &[(&str, &str)], overrides: &[(&str, &str)]| {
        let config = load_all(&file, env, overrides).unwrap().config;
        let headers = config.apps[0].webhooks[0].headers.iter();
        headers.map(|(name, value)| format!("{name}: {}", value.expose())).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(names(&[], &[]), "X-A: file");
    let env = [("FANFARE_APPS_0_WEBHOOKS_0_HEADERS", "X-B: env, X-C: a b")];
    assert_eq!(names(&env, &[]), "X-B: env, X-C: a b");
    assert_eq!(names(&env, &[("apps.0.webhooks.0.headers.X-D", "set")]), "X-D: set");
    assert_eq!(names(&env, &[("apps.0.webhooks.0.headers", "X-E: set")]), "X-E: set");
}

#[test]
fn an_endpoint_that_cannot_work_is_a_mistake() {
    let file = format!(
        "{APP}webhook_delay = \"1h\"\n[[apps.webhooks]]\nurl = \"a.example\"\nevents = [\"occupied\"]\n\
         channels = [\"a b\"]\nheaders = {{ \"Content-Type\" = \"hunter2\" }}\n[[apps.webhooks]]\n\
         url = \"http://b.example\"\nheaders = {{ \"a b\" = \"hunter2\" }}\n[[apps.webhooks]]\n\
         url = \"http://b.example\"\nheaders = {{ X = 998877 }}\n[webhooks]\ndata_dir = 5\n"
    );
    let found = mistakes(&file, &[], &[]);
    let expected = [
        "fanfare.toml:5: apps.0.webhook_delay: \"1h\" is out of range; expected a duration from \"0s\" to \"10m\"",
        "fanfare.toml:7: apps.0.webhooks.0.url: \"a.example\" is not a URL; expected an http:// or https:// URL such \
         as \"https://example.com/pusher/webhook\"",
        "fanfare.toml:8: apps.0.webhooks.0.events: \"occupied\" is not an event of webhooks; expected a list of \
         channel_occupied, ",
        "fanfare.toml:9: apps.0.webhooks.0.channels: \"a b\" is not a pattern of channel names; expected patterns",
        "fanfare.toml:10: apps.0.webhooks.0.headers: \"Content-Type\" is set by Fanfare itself; expected headers such",
        "fanfare.toml:13: apps.0.webhooks.1.headers: \"a b\" or its value cannot stand in a header; expected headers",
        "fanfare.toml:15: apps.0.webhooks.2.url: \"http://b.example\" is the URL of apps.0.webhooks.1.url; expected \
         another one",
        "fanfare.toml:16: apps.0.webhooks.2.headers: the value of \"X\" is not a text; expected headers such as",
        "fanfare.toml:18: webhooks.data_dir: 5 is not a path; expected the path of a directory, or nothing",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
        assert!(!found.contains("hunter2") && !found.contains("998877"), "{found}");
    }
    for url in ["http://", "ftp://a.example", "https://user:hunter2@a.example", "/hook"] {
        let found = mistakes(&format!("{APP}[[apps.webhooks]]\nurl = \"{url}\"\n"), &[], &[]);
        assert_eq!(found.len(), 1, "{found:#?}");
    }
}

// --- auth ---

#[test]
fn a_jwt_authorizer_has_defaults_for_everything_but_its_key() {
    let file =
        format!("{APP}[apps.auth.jwt]\nalgorithms = [\"HS256\"]\nsecret_env = \"JWT\"\nuser_info = [\"user.name\"]\n");
    let loaded = load_all(&file, &[("JWT", "a secret of at least 32 bytes....")], &[]).unwrap();
    let jwt = loaded.config.apps[0].auth.jwt.as_ref().unwrap();
    assert_eq!(jwt.secret.as_ref().unwrap().expose(), "a secret of at least 32 bytes....");
    assert_eq!((jwt.user_id.as_str(), jwt.leeway, jwt.channels.len()), ("{sub}", Duration::from_secs(30), 0));
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn an_authorizer_that_cannot_work_is_a_mistake() {
    let pem = TempFile::new("pem");
    let jwt = |settings: &str| format!("{APP}[apps.auth.jwt]\n{settings}\n");
    let key = format!("public_key_file = {:?}", pem.name());
    let cases = [
        (jwt("secret = \"s\""), "jwt.algorithms: missing; expected a list of HS256, RS256, ES256, EdDSA"),
        (jwt("algorithms = [\"none\"]\nsecret = \"s\""), "\"none\" is not a signature algorithm"),
        (jwt("algorithms = [\"HS256\"]"), "auth.jwt: no key; expected `secret`, `public_key_file` or `jwks_url`"),
        (
            jwt(&format!("algorithms = [\"HS256\"]\n{key}")),
            "HS256 do not go with `public_key_file`; expected RS256, ES256",
        ),
        (
            jwt("algorithms = [\"HS256\", \"RS256\"]\njwks_url = \"https://a.b\""),
            "HS256, RS256 do not go with `jwks_url`",
        ),
        (jwt("algorithms = [\"RS256\"]\nsecret = \"s\""), "RS256 do not go with `secret`; expected HS256 alone"),
        (
            jwt(&format!("algorithms = [\"HS256\"]\nsecret = \"s\"\n{key}")),
            "auth.jwt: secret and public_key_file are given",
        ),
        (jwt("algorithms = []\nsecret = \"s\""), "auth.jwt.algorithms: empty; expected a list of HS256, RS256"),
        (
            jwt("algorithms = [\"HS256\"]\nsecret = \"s\"\nchannels = [\"private-{a}{b}\"]"),
            "\"private-{a}{b}\" is not a pattern",
        ),
        (jwt("algorithms = [\"HS256\"]\nsecret = \"s\"\nuser_id = \"{a[*]}\""), "\"{a[*]}\" is not a text with claims"),
        (
            jwt("algorithms = [\"HS256\"]\nsecret = \"s\"\nuser_info = [\"a.b\", \"b\"]"),
            "two claims would be called \"b\"",
        ),
        (
            format!("{APP}auth.dev = true\n[apps.auth.forward]\nurl = \"http://a.b\"\n"),
            "auth: dev and forward are given",
        ),
        (format!("{APP}[apps.auth.forward]\ntimeout = \"1s\"\n"), "auth.forward.url: missing; expected an http://"),
        (
            format!("{APP}[apps.auth.forward]\nurl = \"http://a.b\"\nheaders = [\"Cookie\"]\n"),
            "\"Cookie\" is not a header",
        ),
        (
            format!("{APP}encryption_master_key = \"hunter2\"\n"),
            "encryption_master_key: not 32 bytes in base64; expected the",
        ),
    ];
    for (file, expected) in cases {
        let found = mistakes(&file, &[], &[]);
        assert!(found.len() == 1 && found[0].contains(expected), "{found:#?}\n{expected}");
        assert!(!found[0].contains("hunter2"), "{found:#?}");
    }
}

#[test]
fn the_authorizer_that_trusts_everybody_stays_on_this_machine() {
    let file = format!("{APP}auth.dev = true\n");
    let found = obstacles(&file, &[]);
    assert!(found.len() == 1 && found[0].contains(":5: apps.0.auth.dev: it lets everybody be anybody"), "{found:#?}");
    assert_eq!(obstacles(&file, &[("server.listen", "127.0.0.1:6001")]), Vec::<String>::new());
}

#[test]
fn weak_keys_of_tokens_bring_a_warning() {
    let jwt = |settings: &str| {
        let warnings = load_all(&format!("{APP}[apps.auth.jwt]\n{settings}\n"), &[], &[]).unwrap().warnings;
        warnings.into_iter().map(|line| line.split(": ").nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(jwt("algorithms = [\"HS256\"]\nsecret = \"short\""), ["apps.0.auth.jwt.secret"]);
    let at = |url: &str| jwt(&format!("algorithms = [\"RS256\"]\njwks_url = {url:?}"));
    assert_eq!(at("http://issuer.example/keys"), ["apps.0.auth.jwt.jwks_url"]);
    for url in ["https://issuer.example/keys", "http://127.0.0.1:1/keys", "http://[::1]/keys", "http://localhost/keys"]
    {
        assert_eq!(at(url), Vec::<String>::new());
    }
}

// --- rules between settings ---

#[test]
fn settings_that_work_against_each_other_bring_a_warning() {
    let app = "[[apps]]\nid = \"shop\"\nkey = \"k\"\nsecret = \"s\"\nclient_events = true\n[apps.limits]\n\
               message = 2048\nhttp_body = 2048\noutbox = \"16 KiB\"\nevent_data = \"1 MiB\"\n\
               activity_timeout = \"121s\"\n";
    let warnings = load_all(app, &[], &[]).unwrap().warnings;
    let expected = [
        "fanfare.toml:2: apps.0.id: \"shop\": ",
        "fanfare.toml:7: apps.0.limits.message: smaller than event_data",
        "fanfare.toml:8: apps.0.limits.http_body: smaller than event_data",
        "fanfare.toml:9: apps.0.limits.outbox: smaller than event_data",
        "fanfare.toml:11: apps.0.limits.activity_timeout: more than 120 s has no effect on pusher-js",
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.starts_with(expected), "{warning}");
    }
    assert_eq!(load_all(APP, &[], &[]).unwrap().warnings, Vec::<String>::new());
}

/// What keeps a server from starting with this file.
fn obstacles(file: &str, overrides: &[(&str, &str)]) -> Vec<String> {
    let file = TempFile::new(file);
    let overrides = overrides.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let sources = Sources { file: Some(file.0.clone()), env: Vec::new(), overrides };
    let mistakes = Config::load_for_server(&sources).map_or_else(|error| error.mistakes, |_| Vec::new());
    mistakes.into_iter().map(|line| line.replace(file.name(), "fanfare.toml")).collect()
}

#[test]
fn a_server_needs_an_app() {
    let error = Config::load_for_server(&Sources::default()).unwrap_err();
    assert!(error.mistakes[0].starts_with("apps: there is none"), "{error}");
    assert_eq!(obstacles(APP, &[]), Vec::<String>::new());
    let together = obstacles("[server]\nlisten = 5\n", &[]);
    assert_eq!(together.len(), 2, "{together:#?}");
}

#[test]
fn the_secret_of_the_examples_stays_on_this_machine() {
    let demo = "\n[[apps]]\nid = \"1001\"\nkey = \"app-key\"\nsecret = \"app-secret\"\n";
    let file = format!("{APP}{demo}");
    let mistakes = obstacles(&file, &[]);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    assert!(mistakes[0].contains(": apps.1.secret: the secret that all the examples have"), "{mistakes:#?}");
    assert!(!mistakes[0].contains("app-secret"), "{mistakes:#?}");
    for loopback in ["127.0.0.1:6001", "[::1]:6001"] {
        assert_eq!(obstacles(&file, &[("server.listen", loopback)]), Vec::<String>::new());
    }
    assert_eq!(obstacles(&file.replace("app-secret", "my own"), &[]), Vec::<String>::new());
}

// --- printing ---

#[test]
fn the_printed_configuration_loads_again_once_the_secrets_are_put_in() {
    let pem = TempFile::new("pem");
    let mut config = Config::default();
    config.server.path_prefix = "/realtime".to_owned();
    config.server.drain_period = Duration::from_millis(1500);
    config.server.tls = Some(TlsConfig { certificate: pem.0.clone(), private_key: pem.0.clone() });
    config.log.format = LogFormat::Json;
    config.apps = vec![AppConfig::new("1", "k", "hunter2"), AppConfig::new("2", "k2", "hunter2")];
    config.apps[0].allowed_origins = vec!["https://a.example".to_owned(), "*".to_owned()];
    config.apps[0].keys.push(KeyPair { key: "k3".to_owned(), secret: Secret::new("hunter2") });
    config.apps[0].limits.event_data = 5 << 20;
    config.apps[1].limits.messages_per_day = 1_000_000;
    config.webhooks.data_dir = None;
    config.apps[1].webhooks = vec![WebhookConfig::new("http://a.example"), WebhookConfig::new("https://b.example")];
    config.apps[1].webhooks[0].headers.insert("X-A".to_owned(), Secret::new("hunter2"));
    config.apps[1].webhooks[1].events = vec![WebhookEvent::CacheMiss, WebhookEvent::UserOffline];
    config.apps[0].auth.jwt = Some(JwtConfig {
        public_key_file: Some(pem.0.clone()),
        audience: vec!["fanfare".to_owned()],
        channels: vec!["private-user-{sub}".to_owned()],
        ..JwtConfig::new(vec![JwtAlgorithm::EdDsa, JwtAlgorithm::Es256])
    });
    config.apps[1].auth.forward = Some(ForwardConfig::new("http://a.example"));
    config.apps.push(AppConfig::new("3", "k4", "hunter2"));
    let secret = Some(Secret::new("hunter2"));
    config.apps[2].auth.jwt = Some(JwtConfig { secret, ..JwtConfig::new(vec![JwtAlgorithm::Hs256]) });
    let printed = config.to_toml();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert_eq!(printed.matches(MASK).count(), 6);
    assert_eq!(load(&printed.replace(MASK, "hunter2")), config);
    let found = mistakes(&printed, &[], &[]);
    assert!(found.len() == 6 && found.iter().all(|line| line.contains("the mask of a printed")), "{found:#?}");
}

// --- config/default.toml ---

/// The file with all its `#key = …` and `#[table]` lines in effect, and with certificates that exist.
fn uncommented(pem: &TempFile) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with('[') || rest.starts_with(|c: char| c.is_ascii_lowercase()) => {
            format!("{rest}\n")
        }
        _ => format!("{line}\n"),
    };
    let text: String = DEFAULT_TOML.lines().map(line).collect();
    assert_ne!(text, DEFAULT_TOML);
    text.replace("/etc/fanfare/tls.crt", pem.name()).replace("/etc/fanfare/tls.key", pem.name())
}

#[test]
fn the_default_file_is_the_default_configuration() {
    let Loaded { config, warnings } = load_all(DEFAULT_TOML, &[], &[]).unwrap();
    assert_eq!((config, warnings), (Config::default(), Vec::new()));
}

#[test]
fn the_default_file_without_its_comment_signs_adds_tls_and_an_app_with_all_it_can_have_in_default_settings() {
    let pem = TempFile::new("pem");
    let mut expected = Config::default();
    expected.server.tls = Some(TlsConfig { certificate: pem.0.clone(), private_key: pem.0.clone() });
    expected.apps = vec![AppConfig::new("1001", "app-key", "app-secret")];
    expected.apps[0].keys.push(KeyPair { key: "next-key".to_owned(), secret: Secret::new("next-secret") });
    expected.apps[0].webhooks.push(WebhookConfig::new("https://example.com/pusher/webhook"));
    let secret = Some(Secret::new("the output of `openssl rand -hex 32`"));
    expected.apps[0].auth.jwt = Some(JwtConfig { secret, ..JwtConfig::new(vec![JwtAlgorithm::Hs256]) });
    assert_eq!(load(&uncommented(&pem)), expected);
}

#[test]
fn the_default_file_has_every_key_with_its_variable_and_what_it_may_be_and_no_other() {
    // What stands in [app_defaults] is not repeated for apps.
    let keys = all_keys();
    let settings: Vec<_> = keys.iter().filter_map(|(path, _)| path.strip_prefix("app_defaults.")).collect();
    let own = |path: &str| !path.strip_prefix("apps.0.").is_some_and(|name| settings.contains(&name));
    let expected: Vec<_> = keys.iter().filter(|(path, _)| own(path)).collect();
    assert!(expected.len() > 50 && settings.len() > 30);

    // A key line, commented out or not, comes right after the line with its variable.
    let mut table = String::new();
    let mut found = Vec::new();
    let mut previous = "";
    for line in DEFAULT_TOML.lines() {
        let content = line.trim_start_matches(['#', ' ']);
        if let Some(header) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let in_list = header.replace("[apps.keys]", "apps.0.keys.0").replace("[apps]", "apps.0");
            let in_list = in_list.replace("[apps.webhooks]", "apps.0.webhooks.0");
            table = in_list.replace("apps.limits", "apps.0.limits").replace("apps.auth", "apps.0.auth");
        } else if let Some((name, _)) = content.split_once(" = ").filter(|(name, _)| !name.contains([' ', '`'])) {
            let path = format!("{table}.{name}");
            // The one example of a setting of its own.
            if path != "apps.0.limits.connections" {
                found.push((path, previous.to_owned()));
            }
        }
        previous = line;
    }
    let documented = |(path, rule): &(String, String)| (path.clone(), format!("# {}: {rule}", env_name(path)));
    let (mut found, mut expected): (Vec<_>, Vec<_>) = (found, expected.into_iter().map(documented).collect());
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}
