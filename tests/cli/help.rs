//! `--help`: whoever reads only this knows what every flag is for.

use std::collections::BTreeMap;

use crate::support::fanfare;

/// Flags and arguments, each with a part of what is said about it.
type Meanings = &'static [(&'static str, &'static str)];

const CONFIG: Meanings = &[("--config", "configuration file")];
const SET: Meanings = &[("--set", "over file and environment, such as server.path_prefix=/realtime; repeatable")];
const LISTEN: Meanings =
    &[("--listen", "address, for clients and the HTTP API"), ("--admin-listen", "health checks and metrics")];
const DEV_LISTEN: Meanings = &[
    ("--listen", "clients and the HTTP API: a loopback one [default: 127.0.0.1:6001]"),
    ("--admin-listen", "health checks and metrics: a loopback one [default: 127.0.0.1:9601]"),
    ("--webhook", "what happens on its channels, about everything there is to tell; repeatable"),
];
const LOG: Meanings =
    &[("--log-format", "[possible values: text, json]"), ("--log-level", "info,fanfare::session=debug")];
const TARGET: Meanings = &[
    ("--url", "[default: http://127.0.0.1:6001, or where the configuration listens] [env: FANFARE_URL="),
    ("--app-id", "[default: 1001, or the only one of the configuration] [env: FANFARE_APP_ID="),
    ("--key", "[default: app-key, or from the configuration] [env: FANFARE_APP_KEY]"),
    ("--secret", "[default: app-secret, or from the configuration] [env: FANFARE_APP_SECRET]"),
];

/// Every command with all that it takes.
const COMMANDS: &[(&str, &[Meanings])] = &[
    ("serve", &[CONFIG, SET, LISTEN, LOG]),
    ("dev", &[DEV_LISTEN, LOG]),
    ("check", &[CONFIG, SET]),
    ("config", &[CONFIG, SET, &[("--defaults", "every key with its explanation and its default")]]),
    (
        "trigger",
        &[
            CONFIG,
            TARGET,
            &[
                ("<CHANNEL[,CHANNEL…]>", "several with commas"),
                ("<EVENT>", "name"),
                ("[DATA]", "JSON by convention. `-` reads it from standard input [default: {}]"),
                ("--socket-id", "does not get the event"),
                ("--info", "user_count, subscription_count"),
                ("--one-channel", "one name, commas and all"),
            ],
        ],
    ),
    (
        "channels",
        &[
            CONFIG,
            TARGET,
            &[
                ("[CHANNEL]", "instead of all occupied ones"),
                ("--prefix", "begins like this"),
                ("--info", "subscription_count, user_count (presence channels), cache"),
                ("--json", "the server's answer"),
            ],
        ],
    ),
    ("users", &[CONFIG, TARGET, &[("<CHANNEL>", "presence channel"), ("--json", "the server's answer")]]),
    ("terminate", &[CONFIG, TARGET, &[("<USER_ID>", "signed in with")]]),
    (
        "listen",
        &[
            CONFIG,
            TARGET,
            &[
                ("[CHANNEL]...", "any kind"),
                ("--user-id", "in presence channels"),
                ("--user-info", "as JSON"),
                ("--sign-in", "Sign in as this user"),
                ("--watch", "when they come and go online"),
                ("--json", "as the JSON message that came"),
                ("--all", "confirmations, errors, counts, pongs"),
                ("--count", "End after this many events"),
                ("--once", "instead of coming back"),
            ],
        ],
    ),
    (
        "sign",
        &[
            CONFIG,
            TARGET,
            &[
                ("[CHANNEL]", "to authorize"),
                ("--socket-id", "good for no other one"),
                ("--channel-data", "user_id and perhaps user_info"),
                ("--user-data", "id and perhaps user_info and watchlist"),
            ],
        ],
    ),
    (
        "webhooks",
        &[&[
            ("list", "the dead letters"),
            ("show", "every attempt with status, duration and answer"),
            ("replay", "once more"),
            ("test", "that did not happen"),
            ("help", "the help of the given subcommand"),
        ]],
    ),
    (
        "bench",
        &[&[
            ("fanout", "at a steady rate"),
            ("idle", "to make, to subscribe, and to keep"),
            ("burst", "as fast as they are taken"),
            ("publish", "events that nobody hears"),
            ("many", "a few subscribers each"),
            ("client-events", "in private channels"),
            ("presence", "half of them leave"),
            ("churn", "whether memory stays behind"),
            ("slow", "the others must not notice"),
            ("storm", "come back at once"),
            ("cluster", "spread over several nodes"),
            ("help", "the help of the given subcommand"),
        ]],
    ),
    ("nodes", &[CONFIG, ADMIN, &[("--json", "the server's answer")]]),
    ("health", &[CONFIG, ADMIN]),
];

const ADMIN: Meanings = &[("--url", "[default: http://127.0.0.1:9601, or where the configuration says]")];

/// The commands of `fanfare webhooks`.
const WEBHOOKS: &[(&str, &[Meanings])] = &[
    (
        "list",
        &[
            CONFIG,
            ADMIN,
            &[
                ("--app-id", "Only those of this app"),
                ("--limit", "dead letters, the newest [default: 20]"),
                ("--json", "the server's answer"),
            ],
        ],
    ),
    ("show", &[CONFIG, ADMIN, &[("<ID>", "X-Fanfare-Delivery"), ("--json", "the server's answer")]]),
    (
        "replay",
        &[CONFIG, ADMIN, &[("[ID]...", "dead letters"), ("--all", "All of them"), ("--app-id", "those of this app")]],
    ),
    (
        "test",
        &[
            CONFIG,
            ADMIN,
            &[
                ("--app-id", "whose endpoints are tested [default: all]"),
                ("--endpoint", "[default: all]"),
                ("--event", "[default: channel_occupied] [possible values: channel_occupied, "),
                ("--channel", "Where [default: fanfare-test]"),
                ("--user-id", "Who did it"),
            ],
        ],
    ),
];

/// What all scenarios of `fanfare bench` take, besides the server and the app.
const MEASUREMENT: Meanings = &[
    ("--pid", "processor time, memory and threads are read from /proc; repeatable, they are added"),
    ("--timeout", "before a wait is given up [default: 30]"),
    ("--json", "one JSON object"),
    ("--compare", "A saved --json result of the same scenario"),
    ("--plot", "A file for a picture (SVG)"),
];
const CLIENTS: Meanings = &[("--clients", "Clients")];
const PACE: Meanings = &[("--rate", "per second"), ("--duration", "in seconds [default: ")];
const BYTES: Meanings = &[("--bytes", "Bytes of data of each event [default: 1")];
const PUBLISHERS: Meanings = &[("--publishers", "Backend connections")];

/// The scenarios of `fanfare bench`, with the flags of their own.
const BENCH: &[(&str, &[Meanings])] = &[
    ("fanout", &[CLIENTS, PACE, BYTES, PUBLISHERS, &[("--transport", "xhr_streaming, xhr_polling")]]),
    ("idle", &[CLIENTS, &[("--channels", "each subscribes to one [default: 1]")]]),
    ("burst", &[CLIENTS, BYTES, PUBLISHERS, &[("--events", "in all [default: 400]")]]),
    (
        "publish",
        &[
            BYTES,
            PUBLISHERS,
            &[("--requests", "[default: 20000]"), ("--batch", "0 or 1 for single events, else batches")],
        ],
    ),
    ("many", &[CLIENTS, PACE, BYTES, PUBLISHERS, &[("--channels", "one after the other [default: 500]")]]),
    ("client-events", &[CLIENTS, PACE, BYTES, &[("--group", "in each private channel [default: 10]")]]),
    ("presence", &[&[("--channels", "Presence channels [default: 100]"), ("--members", "[default: 100]")]]),
    ("churn", &[&[("--cycles", "connect, subscribe, disconnect"), ("--concurrency", "at once")]]),
    ("slow", &[CLIENTS, PACE, BYTES, PUBLISHERS, &[("--stalled", "stop reading [default: 20]")]]),
    ("storm", &[CLIENTS, &[("--channels", "each subscribes to one [default: 1]")]]),
    ("cluster", &[CLIENTS, PACE, BYTES, PUBLISHERS, &[("--node", "repeatable")]]),
];

/// What `--help` lists: each argument, flag or command with the text beside and below it, on one line.
fn entries(help: &str) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    let mut last: Option<String> = None;
    for line in help.lines() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        if text.is_empty() || indent == 0 {
            last = None;
        } else if indent <= 6 && (text.starts_with(['-', '<', '[']) || indent == 2) {
            // Flags stand behind their short form, or behind the room for it.
            let text = text.strip_prefix("-h, ").or_else(|| text.strip_prefix("-V, ")).unwrap_or(text);
            let (name, meaning) = text.split_once("  ").unwrap_or((text, ""));
            let name = name.split(" <").next().unwrap().to_owned();
            entries.insert(name.clone(), meaning.trim().to_owned());
            last = Some(name);
        } else if let Some(name) = &last {
            let meaning = entries.get_mut(name).unwrap();
            *meaning = format!("{meaning} {text}").trim().to_owned();
        }
    }
    entries
}

/// The help without the examples at its end.
fn help(args: &[&str]) -> (BTreeMap<String, String>, String) {
    let output = fanfare(args).run();
    let text = output.succeeded();
    assert_eq!(output.stderr, "", "{output}");
    let lists = text.split("\nExamples:").next().unwrap().split("\nTry it").next().unwrap();
    (entries(lists), text.to_owned())
}

#[test]
fn every_command_is_listed_with_what_it_does() {
    for args in [&["--help"][..], &["help"], &["-h"]] {
        let (listed, text) = help(args);
        for (command, _) in COMMANDS {
            assert!(listed.get(*command).is_some_and(|meaning| meaning.contains(' ')), "{command}: {text}");
        }
        // Plus `help`, `--help` and `--version`.
        assert_eq!(listed.len(), COMMANDS.len() + 3, "{listed:#?}");
        assert!(text.contains("Exit codes: 0 fine, 1 failure, 2 a mistake"), "{text}");
    }
}

#[test]
fn every_flag_of_every_command_is_explained_and_no_other_is_there() {
    let top = COMMANDS.iter().map(|(command, meanings)| (vec![*command], meanings));
    let below = WEBHOOKS.iter().map(|(command, meanings)| (vec!["webhooks", *command], meanings));
    let bench = BENCH.iter().map(|(scenario, meanings)| (vec!["bench", *scenario], meanings));
    for (command, meanings) in top.chain(below).chain(bench) {
        let (mut listed, text) = help(&[&command[..], &["--help"]].concat());
        let common: &[Meanings] =
            if command.len() > 1 && command[0] == "bench" { &[CONFIG, TARGET, MEASUREMENT] } else { &[] };
        assert_eq!(listed.remove("--help").as_deref(), Some("Print help"), "{text}");
        for (flag, expected) in meanings.iter().chain(common).copied().flatten() {
            let meaning = listed.remove(*flag).unwrap_or_else(|| panic!("no {flag} in {text}"));
            assert!(meaning.contains(expected), "{command:?} {flag}: {meaning:?} instead of {expected:?}");
        }
        assert!(listed.is_empty(), "{command:?}: {listed:#?}");
        assert!(text.contains("\nExamples:\n  fanfare "), "{text}");
    }
}

#[test]
fn the_help_does_not_show_the_credentials_of_the_environment() {
    for (command, _) in COMMANDS {
        let env =
            [("FANFARE_APP_KEY", "hunter1"), ("FANFARE_APP_SECRET", "hunter2"), ("FANFARE_APPS_0_SECRET", "hunter3")];
        let output = fanfare(&[command, "--help"]).envs(&env).run();
        assert!(!output.succeeded().contains("hunter"), "{output}");
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let expected = format!("fanfare {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(fanfare(&["--version"]).run().succeeded(), expected);
    assert_eq!(fanfare(&["-V"]).run().succeeded(), expected);
}
