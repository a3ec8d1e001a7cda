//! What is wrong, and what is said about it.

use super::*;

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
