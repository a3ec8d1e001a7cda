//! A configuration with a mistake: nothing starts, and everything that is wrong is said in one run.

use std::collections::BTreeSet;

use crate::support::{APP, Fanfare, Folder, Process, Server, fanfare};

/// What is wrong with these sources, without the folder's name. `serve` and `check` have to say the same.
#[track_caller]
fn mistakes(file: Option<&str>, env: &[(&str, &str)], args: &[&str]) -> Vec<String> {
    let mut lines = refusal(file, env, args);
    lines.retain(|line| !line.starts_with("warning: "));
    lines
}

/// The same with the warnings.
#[track_caller]
fn refusal(file: Option<&str>, env: &[(&str, &str)], args: &[&str]) -> Vec<String> {
    let folder = Folder::new();
    let named = file.map(|content| folder.write("fanfare.toml", content));
    let config: Vec<&str> = named.iter().flat_map(|path| ["--config", path]).collect();
    let [serve, check] = ["serve", "check"].map(|command| {
        // So few that they are nothing to warn of.
        let output = Fanfare::with_open_files(128, &[&[command], &config[..], args].concat()).envs(env).run();
        output.failed(2).replace(&folder.path(""), "")
    });
    assert_eq!(serve, check);
    assert!(!serve.is_empty(), "refused without a word");
    serve.lines().map(str::to_owned).collect()
}

const WORDS: &str = "expected letters, digits, `_` and `-`";
const ADDRESS: &str = "expected host:port with an IP address as host, such as 0.0.0.0:6001 or [::]:6001";

#[test]
fn all_mistakes_of_all_sources_are_named_at_once_in_reading_order() {
    let file = "[server]\nlisten = \"localhost\"\nlistn = 5\ndrain_period = 10\n\
                [[apps]]\nid = \"a b\"\nsecret = 5\n[apps.limits]\nevent_data = \"1 TB\"\n";
    let env = [("FANFARE_ADMIN_LISTEN", "9601"), ("FANFARE_SERVER_PATHPREFIX", "/x"), ("FANFARE_LOG_FORMAT", "xml")];
    let args = ["--set", "server.max_connections=many", "--set", "sever.listen=127.0.0.1:0"];
    let expected = [
        &format!("fanfare.toml:2: server.listen: \"localhost\" is not an address; {ADDRESS}"),
        "fanfare.toml:3: server.listn: unknown key; did you mean `listen`?",
        "fanfare.toml:4: server.drain_period: 10 has no unit; expected a duration from \"0s\" to \"1h\"",
        &format!("fanfare.toml:5: apps.0.key: missing; {WORDS}"),
        &format!("fanfare.toml:6: apps.0.id: \"a b\" is not an app id; {WORDS}"),
        "fanfare.toml:7: apps.0.secret: not a string; expected a string",
        "fanfare.toml:9: apps.0.limits.event_data: \"1 TB\" is not a number of bytes; expected a number of bytes from 1 \
         to \"16 MiB\"",
        &format!("FANFARE_ADMIN_LISTEN: \"9601\" is not an address; {ADDRESS}"),
        "FANFARE_LOG_FORMAT: \"xml\" is not a log format; expected \"text\" or \"json\"",
        "FANFARE_SERVER_PATHPREFIX: unknown variable; did you mean `FANFARE_SERVER_PATH_PREFIX`?",
        "--set server.max_connections: \"many\" is not an integer; expected 0 for no limit, or an integer up to 10000000",
        "--set sever.listen: unknown key; did you mean `server.listen`?",
    ];
    assert_eq!(mistakes(Some(file), &env, &args), expected);
}

#[test]
fn every_kind_of_mistake_is_explained() {
    let app = "[[apps]]\nid = \"1\"\nkey = \"k\"\n";
    let table: &[(&str, &[&str])] = &[
        ("[server]\nlisten = \n", &["fanfare.toml:2:10: not TOML: "]),
        ("[log]\nlevel = \"info\"\nlevel = \"info\"\n", &["fanfare.toml:3:1: not TOML: duplicate key"]),
        ("[sever]\nlisten = 5\n", &["fanfare.toml:1: sever: unknown key; did you mean `server`?"]),
        ("listen = \"127.0.0.1:0\"\n", &["fanfare.toml:1: listen: unknown key; did you mean `"]),
        ("server = 5\n", &["fanfare.toml:1: server: not a table; expected [server]"]),
        ("[apps]\nid = \"1\"\n", &["fanfare.toml:1: apps: not a list of tables; expected [[apps]]"]),
        ("[[admin]]\n", &["fanfare.toml:1: admin: not a table; expected [admin]"]),
        (
            "[log]\nlevel = \"loud\"\n",
            &["fanfare.toml:2: log.level: \"loud\" is not a log level; expected trace, debug"],
        ),
        (
            "[server]\npath_prefix = \"x\"\n",
            &["fanfare.toml:2: server.path_prefix: \"x\" is not a path prefix; expected "],
        ),
        (
            "[app_defaults]\nclient_events = \"yes\"\n",
            &["fanfare.toml:2: app_defaults.client_events: \"yes\" is not a switch; expected true or false"],
        ),
        (
            "[app_defaults]\nallowed_origins = [\"example.com/\"]\n",
            &[
                "fanfare.toml:2: app_defaults.allowed_origins: \"example.com/\" is not an origin; expected origins such as",
            ],
        ),
        (
            "[app_defaults]\nterminate_code = 4000\n",
            &["fanfare.toml:2: app_defaults.terminate_code: 4000 is out of range; expected 4009 or 4200"],
        ),
        (
            "[app_defaults.limits]\nevent_data = \"17 MiB\"\n",
            &[
                "fanfare.toml:2: app_defaults.limits.event_data: \"17 MiB\" is out of range; expected a number of bytes \
               from 1 to \"16 MiB\"",
            ],
        ),
        (
            "[cluster]\nurls = [\"redis://:hunter2@a\", \"redis:/:hunter2@b\"]\ntopology = \"ring\"\n",
            &[
                "fanfare.toml:2: cluster.urls: entry 2 is not the URL of a Redis; expected a list of URLs such as \"redis://",
                "fanfare.toml:3: cluster.topology: \"ring\" is not a topology; expected \"server\", \"sentinel\" or \
                 \"cluster\"",
            ],
        ),
        (
            "[server.tls]\ncertificate = \"/nowhere\"\n",
            &[
                "fanfare.toml:1: server.tls.private_key: missing; expected the path of a readable PEM file",
                "fanfare.toml:2: server.tls.certificate: \"/nowhere\" cannot be read: No such file or directory",
            ],
        ),
        (
            "[[apps]]\n",
            &[
                &format!("fanfare.toml:1: apps.0.id: missing; {WORDS}"),
                &format!("fanfare.toml:1: apps.0.key: missing; {WORDS}"),
                "fanfare.toml:1: apps.0.secret: missing; expected `secret`, `secret_file` or `secret_env`",
            ],
        ),
        (
            &format!("{app}secret = \"s\"\nsecret_env = \"X\"\n"),
            &["fanfare.toml:4: apps.0.secret: given more than once; expected one of `secret`, `secret_file` and"],
        ),
        (&format!("{app}secret = \"\"\n"), &["fanfare.toml:4: apps.0.secret: empty; expected a secret"]),
        (
            &format!("{app}secret = \"********\"\n"),
            &["fanfare.toml:4: apps.0.secret: the mask of a printed configuration; expected the secret itself"],
        ),
        (
            &format!("{app}secret_file = \"/nowhere\"\n"),
            &["fanfare.toml:4: apps.0.secret_file: the file cannot be read: No such file or directory"],
        ),
        (
            &format!("{app}secret_env = \"NOT_SET\"\n"),
            &[
                "fanfare.toml:4: apps.0.secret_env: the variable is not set; expected the name of an environment variable",
            ],
        ),
        (
            &format!("{app}secret = \"s\"\n{app}secret = \"s\"\n"),
            &[
                "fanfare.toml:6: apps.1.id: \"1\" is taken by apps.0.id; expected one that no other app has",
                "fanfare.toml:7: apps.1.key: \"k\" is taken by apps.0.key; expected one that no other app has",
            ],
        ),
        (
            &format!("{app}secret = \"s\"\nevent_data = 5\n"),
            &["fanfare.toml:5: apps.0.event_data: unknown key; did you mean `apps.0.limits.event_data`?"],
        ),
    ];
    for (file, expected) in table {
        let mut found = mistakes(Some(file), &[], &[]);
        // Most of these files have no app either, which is said along with the rest.
        found.retain(|line| !line.contains("apps: there is none"));
        let same =
            found.len() == expected.len() && found.iter().zip(*expected).all(|(one, other)| one.starts_with(other));
        assert!(same, "{file}\n{found:#?}\n{expected:#?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_never_passed_over() {
    let folder = Folder::new();
    let not_text = folder.write("latin1.toml", b"[log]\nlevel = \"\xff\"\n");
    let missing = folder.path("missing.toml");
    let environment = [("FANFARE_APPS_0_ID", "1"), ("FANFARE_APPS_0_KEY", "k"), ("FANFARE_APPS_0_SECRET", "s")];
    for (path, reason) in [
        (missing.as_str(), "cannot be read: No such file or directory"),
        (&folder.path(""), "cannot be read: Is a directory"),
        (&not_text, "cannot be read: stream did not contain valid UTF-8"),
    ] {
        for command in ["serve", "check", "config"] {
            let expected = format!("{path}: {reason}");
            for output in [
                fanfare(&[command, "--config", path]).envs(&environment).run(),
                fanfare(&[command]).env("FANFARE_CONFIG", path).envs(&environment).run(),
            ] {
                assert!(output.failed(2).starts_with(&expected), "{output}");
            }
        }
    }
}

#[test]
fn a_mistake_is_named_even_where_a_stronger_source_replaces_it() {
    let file = format!("[server]\nlisten = \"localhost\"\n{APP}");
    let env = [("FANFARE_SERVER_LISTEN", "6001")];
    let found = mistakes(Some(&file), &env, &["--set", "server.listen=127.0.0.1:0"]);
    let expected = [
        format!("fanfare.toml:2: server.listen: \"localhost\" is not an address; {ADDRESS}"),
        format!("FANFARE_SERVER_LISTEN: \"6001\" is not an address; {ADDRESS}"),
    ];
    assert_eq!(found, expected);
}

/// A line of `config/default.toml` with everything in it in effect.
struct Setting {
    /// Counted from 1.
    line: usize,
    /// The dotted path, list entries with their index.
    path: String,
    variable: String,
}

/// Every text is a secret but an empty one, and every text may be the path of a directory or the name of a user, or mean
/// something to whoever issues tokens.
fn refuses_some_text(setting: &Setting) -> bool {
    let any_text = ["data_dir", "username", ".audience", ".issuer", ".user_id", ".user_info", ".watchlist"];
    let takes_any = any_text.iter().any(|end| setting.path.ends_with(end)) && !setting.path.contains("limits");
    !setting.path.contains("secret") && !takes_any
}

/// The default file without its comment signs, and all settings in it.
fn all_settings() -> (String, Vec<Setting>) {
    let defaults = fanfare(&["config", "--defaults"]).run();
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with('[') || rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
        _ => line.to_owned(),
    };
    let lines: Vec<String> = defaults.succeeded().lines().map(uncomment).collect();
    let (mut table, mut settings) = (String::new(), Vec::new());
    for (index, line) in lines.iter().enumerate() {
        if let Some(header) = line.strip_prefix('[') {
            table = match header.trim_matches(['[', ']']) {
                "apps" => "apps.0".to_owned(),
                "apps.limits" => "apps.0.limits".to_owned(),
                "apps.keys" => "apps.0.keys.0".to_owned(),
                "apps.webhooks" => "apps.0.webhooks.0".to_owned(),
                other => other.replace("apps.auth", "apps.0.auth"),
            };
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(['#', ' '])) {
            let path = format!("{table}.{key}");
            let variable = format!("FANFARE_{}", path.replace('.', "_").to_uppercase());
            settings.push(Setting { line: index + 1, path, variable });
        }
    }
    assert!(settings.len() > 50, "{lines:#?}");
    (lines.join("\n"), settings)
}

/// The file with every setting's line changed.
fn with_every_setting(text: &str, settings: &[Setting], change: impl Fn(&str, &str) -> String) -> String {
    let lines: BTreeSet<usize> = settings.iter().map(|setting| setting.line).collect();
    let line = |(index, line): (usize, &str)| match line.split_once(" = ") {
        Some((key, value)) if lines.contains(&(index + 1)) => change(key, value),
        _ => line.to_owned(),
    };
    text.lines().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn assert_one_each(found: &[String], expected: impl Iterator<Item = (String, &'static str)>) {
    let mut found: Vec<&String> = found.iter().collect();
    for (place, what) in expected {
        let index = found.iter().position(|line| line.starts_with(&format!("{place}: ")));
        let line = found.remove(index.unwrap_or_else(|| panic!("nothing about {place} in {found:#?}")));
        assert!(line.contains(what), "{line}");
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_wrong_value_of_any_key_of_the_file_is_a_mistake_of_its_own() {
    let (text, settings) = all_settings();
    let wrong = with_every_setting(&text, &settings, |key, _| format!("{key} = 1.5"));
    let places =
        settings.iter().map(|setting| (format!("fanfare.toml:{}: {}", setting.line, setting.path), "expected "));
    assert_one_each(&mistakes(Some(&wrong), &[], &[]), places);
}

#[test]
fn a_slip_in_any_key_of_the_file_is_a_mistake_that_names_the_key_in_mind() {
    let (text, settings) = all_settings();
    let wrong = with_every_setting(&text, &settings, |key, value| format!("{key}x = {value}"));
    let found = mistakes(Some(&wrong), &[], &[]);
    assert!(settings.len() <= found.len());
    for Setting { line, path, .. } in &settings {
        let (_, key) = path.rsplit_once('.').unwrap();
        let expected = format!("fanfare.toml:{line}: {path}x: unknown key; did you mean `{key}`?");
        assert!(found.contains(&expected), "{expected}\n{found:#?}");
    }
}

#[test]
fn a_wrong_value_or_a_slip_in_any_variable_is_a_mistake() {
    let (_, mut settings) = all_settings();
    let slips: Vec<String> = settings.iter().map(|setting| format!("{}X", setting.variable)).collect();
    let slips: Vec<(&str, &str)> = slips.iter().map(|slip| (slip.as_str(), "1")).collect();
    let found = mistakes(None, &slips, &[]);
    for Setting { variable, .. } in &settings {
        // What begins like a setting of the first app makes one, which then has no id.
        let expected = format!("{variable}X: unknown variable; did you mean `{variable}`?");
        assert!(found.contains(&expected), "{expected}\n{found:#?}");
    }
    settings.retain(refuses_some_text);
    let wrong: Vec<_> = settings.iter().map(|setting| (setting.variable.as_str(), "!")).collect();
    let mut places: Vec<_> = settings.iter().map(|setting| (setting.variable.clone(), "expected ")).collect();
    let secrets = ["FANFARE_APPS_0_SECRET", "FANFARE_APPS_0_KEYS_0_SECRET", "FANFARE_APPS_0_AUTH_JWT_SECRET"];
    places.extend(secrets.map(|secret| (secret.to_owned(), "empty")));
    let empty = secrets.map(|secret| (secret, ""));
    assert_one_each(&mistakes(None, &[&wrong[..], &empty].concat(), &[]), places.into_iter());
}

#[test]
fn a_wrong_value_or_a_slip_in_any_key_of_the_command_line_is_a_mistake() {
    let (_, mut settings) = all_settings();
    settings.retain(refuses_some_text);
    let set = |value: &str| settings.iter().map(|setting| format!("--set={}{value}", setting.path)).collect::<Vec<_>>();
    let (slips, wrong) = (set("x=1"), set("=!"));
    let found = mistakes(None, &[], &slips.iter().map(String::as_str).collect::<Vec<_>>());
    for Setting { path, .. } in &settings {
        let (_, key) = path.rsplit_once('.').unwrap();
        let expected = format!("--set {path}x: unknown key; did you mean `{key}`?");
        assert!(found.contains(&expected), "{expected}\n{found:#?}");
    }
    let mut args: Vec<&str> = wrong.iter().map(String::as_str).collect();
    args.extend(["--set=apps.0.secret=", "--set=apps.0.keys.0.secret=", "--set=apps.0.auth.jwt.secret="]);
    let places = settings.iter().map(|setting| (format!("--set {}", setting.path), "expected "));
    let secrets = ["--set apps.0.secret", "--set apps.0.keys.0.secret", "--set apps.0.auth.jwt.secret"];
    let secrets = secrets.map(|place| (place.to_owned(), "empty"));
    assert_one_each(&mistakes(None, &[], &args), places.chain(secrets));
}

#[test]
fn a_server_without_apps_does_not_start_and_says_how_to_get_one() {
    for file in [None, Some(""), Some("[server]\nlisten = \"127.0.0.1:0\"\n"), Some("apps = []\n")] {
        let found = mistakes(file, &[], &[]);
        assert!(found[0].contains("apps: there is none; add [[apps]] with `id`, `key` and `secret`"), "{found:#?}");
        assert!(found[0].contains("FANFARE_APPS_0_SECRET") && found[0].contains("`fanfare dev`"), "{found:#?}");
    }
}

#[test]
fn the_secret_of_the_examples_is_refused_where_other_machines_can_connect() {
    let app = "[[apps]]\nid = \"1001\"\nkey = \"app-key\"\nsecret = \"app-secret\"\n";
    let own = "[[apps]]\nid = \"1001\"\nkey = \"app-key\"\nsecret = \"my own\"\n";
    let rotated = format!("{own}[[apps.keys]]\nkey = \"old\"\nsecret = \"app-secret\"\n");
    let expected = "the secret that all the examples have, and server.listen ";
    for address in ["0.0.0.0:0", "[::]:0"] {
        let args = ["--set".to_owned(), format!("server.listen={address}")];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        for (file, place) in [(app, "apps.0.secret"), (&rotated, "apps.0.keys.0.secret")] {
            let found = mistakes(Some(file), &[], &args);
            assert!(found.len() == 1 && found[0].contains(&format!("{place}: {expected}{address} ")), "{found:#?}");
            assert!(!found[0].contains("app-secret"), "{found:#?}");
        }
    }
    // Listening on all addresses is the default.
    assert!(mistakes(Some(app), &[], &[])[0].contains(&format!("{expected}0.0.0.0:6001 ")));
    let env = [("FANFARE_APPS_0_SECRET", "app-secret")];
    assert!(mistakes(Some(own), &env, &[])[0].starts_with(&format!("FANFARE_APPS_0_SECRET: {expected}")));

    let folder = Folder::new();
    let file = folder.write("fanfare.toml", app);
    let loopback = |address: &str| -> Process {
        let listen = format!("--listen={address}");
        fanfare(&["serve", "--config", &file, &listen, "--admin-listen=127.0.0.1:0"]).start()
    };
    loopback("127.0.0.1:0").expect_err("listening");
    loopback("127.1.2.3:0").expect_err("listening");
    let file = folder.write("own.toml", own);
    assert_eq!(fanfare(&["check", "--config", &file]).run().succeeded(), format!("{file}: ok (1 app)\n"));
}

#[test]
fn warnings_follow_the_mistakes() {
    let short = APP.replace("the-secret-of-the-file", "hunter2");
    let file = format!("[server]\nlistn = 5\nsubscription_memory = \"1024 GiB\"\n{short}");
    let found = refusal(Some(&file), &[("FANFARE_ADMIN_LISTEN", "0.0.0.0:9601")], &["--set", "log.level=loud"]);
    let expected = [
        "fanfare.toml:2: server.listn: unknown key",
        "--set log.level: \"loud\" is not a log level",
        "warning: fanfare.toml:7: apps.0.secret: shorter than 16 characters",
        "warning: FANFARE_ADMIN_LISTEN: 0.0.0.0:9601 is every address of this machine",
        "warning: the limits come to ",
    ];
    let same = found.len() == expected.len() && found.iter().zip(expected).all(|(line, text)| line.starts_with(text));
    assert!(same, "{found:#?}");
    // Of what was refused, that is all there is to say.
    for secret in ["", "secret = \"\"", "secret_file = \"/nowhere\"", "secret = \"s\"\nsecret_env = \"S\""] {
        let file = APP.replace("secret = \"the-secret-of-the-file\"", secret);
        let jwt = "[apps.auth.jwt]\nalgorithms = [\"HS256\"]\nsecret = \"\"\n";
        let found = refusal(Some(&format!("{file}{jwt}")), &[], &[]);
        assert!(found.len() == 2 && found.iter().all(|line| !line.contains("warning")), "{found:#?}");
    }
    // It is the same if the mistake is not in the configuration, but in a file that it names.
    let folder = Folder::new();
    let no_pem = folder.write("no.pem", "not PEM\n");
    let tls = format!("[server.tls]\ncertificate = {no_pem:?}\nprivate_key = {no_pem:?}\n");
    let output = Fanfare::check(&["--config", &folder.write("fanfare.toml", format!("{tls}{short}"))]).run();
    let (mistake, warning) = output.failed(1).split_once('\n').unwrap();
    assert!(mistake.starts_with("fanfare: server.tls.certificate: "), "{output}");
    assert!(warning.starts_with("warning: ") && warning.lines().count() == 1, "{output}");
}

#[test]
fn nothing_is_said_of_the_default_that_a_refused_setting_falls_back_to() {
    // Every other limit is far too large, so that only what is unknown keeps the warning back.
    let large = "[server]\nsubscription_memory = \"1024 GiB\"\n";
    let set = |setting: &str| refusal(Some(&format!("{large}{APP}")), &[], &["--set", setting]);
    for setting in ["server.max_connections=many", "server.body_memory=lots", "app_defaults.limits.outbox=big"] {
        let (key, _) = setting.split_once('=').unwrap();
        let found = set(setting);
        assert!(found.len() == 1 && found[0].starts_with(&format!("--set {key}: ")), "{found:#?}");
    }
    let found = set("log.level=loud");
    assert!(found.len() == 2 && found[1].starts_with("warning: the limits come to "), "{found:#?}");
    for (refused, other) in
        [("server.listen", "admin.listen=127.0.0.1:6001"), ("admin.listen", "server.listen=127.0.0.1:9601")]
    {
        let found = mistakes(Some(APP), &[], &["--set", &format!("{refused}=nonsense"), "--set", other]);
        assert!(found.len() == 1 && found[0].starts_with(&format!("--set {refused}: ")), "{found:#?}");
    }
}

#[test]
fn two_listeners_at_one_address_are_a_mistake_that_names_both() {
    let with = |public: &str, admin: &str| {
        mistakes(
            Some(&format!("[server]\nlisten = {public:?}\n[admin]\nlisten = {admin:?}\n{APP}")),
            &[("FANFARE_LOG_LEVEL", "off")],
            &[],
        )
    };
    for (public, admin) in [("127.0.0.1:6001", "127.0.0.1:6001"), ("0.0.0.0:6001", "127.0.0.1:6001")] {
        let expected =
            format!("fanfare.toml:4: admin.listen: {admin} is taken by server.listen {public}; expected another port");
        assert_eq!(with(public, admin), [expected]);
    }
    let env = [("FANFARE_SERVER_LISTEN", "[::]:9601")];
    let expected = "admin.listen: 127.0.0.1:9601 is taken by server.listen [::]:9601; expected another port";
    assert_eq!(mistakes(Some(APP), &env, &[]), [expected]);
    // Port 0 is another one each time.
    Server::start(fanfare(&["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json"]).envs(
        &[("FANFARE_APPS_0_ID", "1"), ("FANFARE_APPS_0_KEY", "k"), ("FANFARE_APPS_0_SECRET", "0123456789abcdef")],
    ));
}

#[test]
fn arguments_that_make_no_sense_are_a_mistake_of_usage() {
    for (args, expected) in [
        (&["serve", "--confg", "x"][..], "'--config'"),
        (&["serve", "--set", "server.listen"], "expected KEY=VALUE such as server.path_prefix=/realtime"),
        (&["serve", "--set", "=1"], "expected KEY=VALUE"),
        (&["serve", "fanfare.toml"], "unexpected argument 'fanfare.toml'"),
        (&["serve", "--log-format", "xml"], "[possible values: text, json]"),
        (&["serv"], "'serve'"),
        (&["check", "--listen", "127.0.0.1:0"], "unexpected argument '--listen'"),
        (&[], "Usage: fanfare <COMMAND>"),
    ] {
        let output = fanfare(args).run();
        assert!(output.failed(2).contains(expected), "{output}");
    }
    // Values of flags that are settings are judged with all other settings.
    let expected = "fanfare.toml:2: log.level: 5 is not a log level; expected trace, debug, info, warn, error or off, or \
                    directives such as \"info,fanfare::session=debug\"";
    let found = mistakes(Some("[log]\nlevel = 5\n"), &[], &[]);
    assert!(found.iter().any(|line| line == expected), "{found:#?}");
    let output = fanfare(&["serve", "--listen", "6001", "--log-level", "loud", "--set", "apps.0.id=1"]).run();
    let lines: Vec<&str> = output.failed(2).lines().collect();
    assert_eq!(lines.len(), 4, "{output}");
    assert!(lines.iter().any(|line| line.starts_with("--set server.listen: \"6001\" is not an address")), "{output}");
    assert!(lines.iter().any(|line| line.starts_with("--set log.level: \"loud\" is not a log level")), "{output}");
}

#[test]
fn an_app_id_that_is_no_number_brings_a_warning_about_python() {
    let folder = Folder::new();
    let file = folder.write("fanfare.toml", APP.replace("id = \"1\"", "id = \"shop\""));
    let text = format!("{file}:2: apps.0.id: \"shop\": the official Python library `pusher` takes ids of digits only");
    for command in ["check", "config"] {
        let output = Fanfare::with_open_files(128, &[command, "--config", &file]).run();
        output.succeeded();
        assert!(output.stderr.starts_with(&format!("warning: {text}")), "{output}");
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
    }
    let args = ["serve", "--config", &file, "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"];
    let mut server = fanfare(&args).start();
    assert!(server.expect_err("WARN").contains(&text));
    server.expect_err("listening");

    let quiet = folder.write("numeric.toml", APP);
    let output = Fanfare::check(&["--config", &quiet]).run();
    assert_eq!((output.succeeded(), output.stderr.as_str()), (&*format!("{quiet}: ok (1 app)\n"), ""));
}
