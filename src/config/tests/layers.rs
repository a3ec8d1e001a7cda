//! Which source wins.

use super::*;

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
